//! Parsers and multiline parsers by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::{MultilineParser, Parser};

/// What `[PARSER]` and `[MULTILINE_PARSER]` sections define, and the built-in multiline parsers.
#[derive(Clone, Debug, Default)]
pub struct Library {
    /// Parsers by name.
    pub parsers: HashMap<String, Arc<Parser>>,
    /// Multiline parsers by name.
    pub multiline: HashMap<String, Arc<MultilineParser>>,
}
