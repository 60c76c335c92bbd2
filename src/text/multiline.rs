//! The multiline engine.

/// A compiled multiline parser.
#[derive(Debug)]
pub struct MultilineParser {}
