//! `modify`: set, add, remove, rename, copy and move keys, in the order written, when all conditions hold.
//!
//! Enters: any record. Leaves: the record, edited. Conditions look at the record as it came; each rule sees what the rules
//! before it have done. Keys are compared as they are, case-sensitive; values that are set are strings.

use std::sync::Arc;

use super::{BuildContext, Context, Filter, FilterKind, Verdict};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::record::Record;
use condition::Condition;
use rules::Rule;

mod condition;
mod rules;
mod words;

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "modify",
        aliases: &[],
        summary: "Set, add, remove, rename, copy and move keys, in the order written.",
        keys: &[
            Key::new("set", Type::Str, "KEY VALUE: set a key, at the end; one of that name goes").multi(),
            Key::new("add", Type::Str, "KEY VALUE: add a key at the end unless it is there").multi(),
            Key::new("remove", Type::Str, "KEY: remove a key").multi(),
            Key::new("remove_wildcard", Type::Str, "PREFIX: remove the keys that begin with it").multi(),
            Key::new("remove_regex", Type::Str, "PATTERN: remove the keys that match").multi(),
            Key::new("move_to_start", Type::Str, "PREFIX: move the keys that begin with it to the start")
                .multi(),
            Key::new("move_to_end", Type::Str, "PREFIX: move the keys that begin with it to the end").multi(),
            Key::new("rename", Type::Str, "KEY NAME: rename a key unless NAME is there").multi(),
            Key::new("hard_rename", Type::Str, "KEY NAME: rename a key; NAME makes room").multi(),
            Key::new("copy", Type::Str, "KEY NAME: copy a key, next to it, unless NAME is there").multi(),
            Key::new("hard_copy", Type::Str, "KEY NAME: copy a key, next to it; NAME makes room").multi(),
            Key::new("condition", Type::Str, condition::HELP).multi(),
        ],
        groups: &[],
    },
    build,
};

struct Modify {
    conditions: Vec<Condition>,
    rules: Vec<Rule>,
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let mut modify = Modify { conditions: Vec::new(), rules: Vec::new() };
    let mut good = true;
    for entry in s.entries() {
        if !KIND.info.keys.iter().any(|k| k.name == entry.key) {
            continue;
        }
        let Some(words) = words::split(&entry.value) else {
            diags.error_hint(
                Some(&entry.pos),
                format!("a quote of {} in [FILTER] modify is not closed: {}", entry.written, entry.value),
                "close it, or write \\ before a quote that is meant",
            );
            good = false;
            continue;
        };
        if entry.key == "condition" {
            match Condition::new(entry, words, diags) {
                Some(condition) => modify.conditions.push(condition),
                None => good = false,
            }
        } else {
            match Rule::new(entry, words, diags) {
                Ok(rule) => modify.rules.extend(rule),
                Err(()) => good = false,
            }
        }
    }
    good.then(|| Arc::new(modify) as Arc<dyn Filter>)
}

impl Filter for Modify {
    fn apply(&self, record: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
        if self.conditions.iter().all(|c| c.holds(record)) {
            for rule in &self.rules {
                rule.apply(record);
            }
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests;
