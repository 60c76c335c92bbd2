//! Multiline parsers by name: the built-in ones, compiled when they are asked for, and those of configurations.
//!
//! Enters: a name in any case. Leaves: the compiled parser.

use std::sync::Arc;

use super::{MultilineParser, builtin};
use crate::text::Library;

impl Library {
    /// Adds one; says no when there is one of that name (the first counts).
    pub fn add_multiline(&mut self, parser: Arc<MultilineParser>) -> bool {
        let name = parser.name().to_ascii_lowercase();
        match self.multiline.entry(name) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(parser);
                true
            }
        }
    }

    /// Finds one; a built-in one counts before others of its name.
    pub fn find_multiline(&self, name: &str) -> Option<Arc<MultilineParser>> {
        let name = name.to_ascii_lowercase();
        builtin(&name).map(Arc::new).or_else(|| self.multiline.get(&name).cloned())
    }
}
