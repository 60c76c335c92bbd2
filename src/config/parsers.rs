//! `[PARSER]` and `[MULTILINE_PARSER]` sections into a [`Library`].

use super::diag::Diagnostics;
use super::multiline::multiline_parsers;
use super::section::Document;
use crate::text::Library;

/// Compiles every parser.
pub fn library(document: &Document, diags: &mut Diagnostics) -> Library {
    let mut library = Library::default();
    multiline_parsers(document, &mut library, diags);
    library
}
