//! What rules of several filters are made of: a field and a pattern, each with the finding when it is bad.

use crate::config::{Diagnostics, Entry};
use crate::text::{Accessor, Regex};

/// Reads a field of a rule of `plugin`. `None` after an error was reported.
pub(super) fn field(text: &str, entry: &Entry, plugin: &str, diags: &mut Diagnostics) -> Option<Accessor> {
    match Accessor::field(text) {
        Ok(field) => {
            if !field.rest().is_empty() {
                diags.strict(
                    Some(&entry.pos),
                    format!(
                        "\"{}\" is not part of the field \"{text}\" of {} in [FILTER] {plugin}",
                        field.rest(),
                        entry.written
                    ),
                    "it is ignored; write $key['sub'] to reach into a map, or leave the $ out for a key with a dot",
                );
            }
            Some(field)
        }
        Err(e) => {
            diags.error_hint(
                Some(&entry.pos),
                format!("bad field \"{text}\" of {} in [FILTER] {plugin}: {e}", entry.written),
                "write a key of the record, or a path like $key['sub'][0]",
            );
            None
        }
    }
}

/// Compiles a pattern of a rule of `plugin`. `None` after an error was reported.
pub(super) fn regex(pattern: &str, entry: &Entry, plugin: &str, diags: &mut Diagnostics) -> Option<Regex> {
    match Regex::new(pattern) {
        Ok(regex) => Some(regex),
        Err(e) => {
            diags.error_hint(
                Some(&entry.pos),
                format!("bad regex \"{pattern}\" of {} in [FILTER] {plugin}: {e}", entry.written),
                "correct the pattern; a literal bracket, dot or star needs a \\ before it",
            );
            None
        }
    }
}
