//! The classic format.
