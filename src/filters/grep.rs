//! `grep`: keep or drop records by a pattern on a field. In: any record. Out: the same record or nothing.
//!
//! Fluent Bit's legacy logic: rules in file order, the first `Regex` decides, an `Exclude` that matches drops. With
//! `Logical_Op AND/OR` the rules are combined. A missing field or one that is no string never matches.

use std::sync::Arc;

use super::{BuildContext, Context, Filter, FilterKind, Verdict};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::record::Record;
use crate::text::{Accessor, Regex};

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "grep",
        aliases: &[],
        summary: "Keep or drop records by a regular expression on a field.",
        keys: &[
            Key::new("regex", Type::Str, "FIELD PATTERN: keep records whose field matches").multi(),
            Key::new("exclude", Type::Str, "FIELD PATTERN: drop records whose field matches").multi(),
            Key::new("logical_op", Type::Str, "legacy, AND or OR: how several rules combine")
                .default("legacy"),
        ],
        groups: &[],
    },
    build,
};

#[derive(Clone, Copy, PartialEq)]
enum Logic {
    Legacy,
    And,
    Or,
}

struct Rule {
    exclude: bool,
    field: Accessor,
    pattern: Regex,
}

struct Grep {
    logic: Logic,
    rules: Vec<Rule>,
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let logic = match s.str("logical_op").unwrap_or("legacy").to_ascii_lowercase().as_str() {
        "legacy" => Logic::Legacy,
        "and" => Logic::And,
        "or" => Logic::Or,
        other => {
            diags.strict(
                Some(s.pos_of("logical_op")),
                format!("unknown Logical_Op \"{other}\" in [FILTER] grep"),
                "the rules are taken as legacy; use legacy, AND or OR",
            );
            Logic::Legacy
        }
    };
    let mut rules = Vec::new();
    for entry in s.entries().iter().filter(|e| e.key == "regex" || e.key == "exclude") {
        let Some((field, pattern)) = entry.value.split_once(' ') else {
            diags.error_hint(
                Some(&entry.pos),
                format!("{} of [FILTER] grep needs a field and a pattern", entry.written),
                format!("write {} log PATTERN", entry.written),
            );
            continue;
        };
        let field = match Accessor::field(field) {
            Ok(field) => field,
            Err(e) => {
                diags.error(Some(&entry.pos), format!("bad field \"{field}\" in [FILTER] grep: {e}"));
                continue;
            }
        };
        match Regex::new(pattern.trim()) {
            Ok(pattern) => rules.push(Rule { exclude: entry.key == "exclude", field, pattern }),
            Err(e) => diags.error(Some(&entry.pos), format!("bad regular expression in [FILTER] grep: {e}")),
        }
    }
    if logic != Logic::Legacy && rules.iter().any(|r| r.exclude) && rules.iter().any(|r| !r.exclude) {
        diags.error_hint(
            Some(s.pos_of("logical_op")),
            "Regex and Exclude together cannot be combined by Logical_Op in [FILTER] grep",
            "use two grep filters",
        );
        return None;
    }
    Some(Arc::new(Grep { logic, rules }))
}

impl Rule {
    fn matches(&self, record: &Record<'_>) -> bool {
        self.field.text(record).is_some_and(|text| self.pattern.is_match(text))
    }
}

impl Filter for Grep {
    fn apply(&self, record: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
        let keep = match self.logic {
            // The first Regex decides alone; before it, every Exclude may drop.
            Logic::Legacy => self
                .rules
                .iter()
                .find_map(|rule| match (rule.exclude, rule.matches(record)) {
                    (true, true) => Some(false),
                    (true, false) => None,
                    (false, found) => Some(found),
                })
                .unwrap_or(true),
            Logic::And => {
                self.rules.iter().all(|r| r.matches(record)) != self.rules.first().is_some_and(|r| r.exclude)
            }
            Logic::Or => {
                self.rules.iter().any(|r| r.matches(record)) != self.rules.first().is_some_and(|r| r.exclude)
            }
        };
        if keep { Verdict::Keep } else { Verdict::Drop }
    }
}
