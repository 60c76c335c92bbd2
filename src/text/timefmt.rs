//! Time formats.
