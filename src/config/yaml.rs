//! The YAML format.
