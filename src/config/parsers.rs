//! `[PARSER]` and `[MULTILINE_PARSER]` sections into a [`Library`].

use super::diag::Diagnostics;
use super::section::Document;
use crate::text::Library;

/// Compiles every parser.
pub fn library(_document: &Document, _diags: &mut Diagnostics) -> Library {
    Library::default()
}
