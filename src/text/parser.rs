//! Parsers.

/// A compiled parser.
#[derive(Debug)]
pub struct Parser {}
