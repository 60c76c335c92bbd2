"""What the end-to-end tests share: a suite runner, the router under test, FireLens configurations."""
