//! `nest`: put keys of a record into a map under one key, or lift the keys of such a map out.
//!
//! Enters: any record. Leaves: the record with the keys moved, at its end; untouched when there is nothing to move. Keys
//! that are there already are not merged: both stay, and the last counts, as in Fluent Bit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smallvec::SmallVec;

use super::{BuildContext, Context, Filter, FilterKind, Verdict};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::record::{Field, Fields, Record};
use crate::wire::msgpack::{self, Value};

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "nest",
        aliases: &[],
        summary: "Put keys into a map under one key, or lift the keys of such a map out.",
        keys: &[
            Key::new("operation", Type::Str, "nest or lift").default("nest"),
            Key::new("wildcard", Type::Str, "nest: a key to nest; a * at the end stands for any rest")
                .multi(),
            Key::new("nest_under", Type::Str, "nest: the key of the map"),
            Key::new("nested_under", Type::Str, "lift: the key of the map"),
            Key::new("add_prefix", Type::Str, "put this before each key that is moved"),
            Key::new("remove_prefix", Type::Str, "take this from the beginning of each key that is moved"),
        ],
        groups: &[],
    },
    build,
};

/// What becomes of the names of moved keys.
enum Rename {
    No,
    Add(Vec<u8>),
    Remove(Vec<u8>),
}

struct Wildcard {
    text: Vec<u8>,
    prefix: bool,
}

enum Operation {
    Nest(Vec<Wildcard>),
    Lift,
}

struct Nest {
    operation: Operation,
    under: Vec<u8>,
    rename: Rename,
    label: String,
    said: AtomicBool,
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    // Only the first four characters count, as in Fluent Bit.
    let operation = match s.str("operation").unwrap_or("nest") {
        text if text.starts_with("nest") => {
            let wildcards = s.all("wildcard").filter(|e| !e.value.is_empty()).map(|e| {
                let stem = e.value.strip_suffix('*');
                Wildcard { text: stem.unwrap_or(&e.value).as_bytes().to_vec(), prefix: stem.is_some() }
            });
            Operation::Nest(wildcards.collect())
        }
        text if text.starts_with("lift") => Operation::Lift,
        other => {
            diags.error_hint(
                Some(s.pos_of("operation")),
                format!("unknown Operation \"{other}\" in [FILTER] nest"),
                "use nest or lift",
            );
            return None;
        }
    };
    let rename = match (s.str("add_prefix"), s.str("remove_prefix")) {
        (None, None) => Rename::No,
        (Some(prefix), None) => Rename::Add(prefix.as_bytes().to_vec()),
        (None, Some(prefix)) => Rename::Remove(prefix.as_bytes().to_vec()),
        (Some(_), Some(_)) => {
            diags.error_hint(
                Some(s.pos_of("remove_prefix")),
                "Add_prefix and Remove_prefix exclude each other in [FILTER] nest",
                "use two filters, or only one of them",
            );
            return None;
        }
    };
    // Both keys name the map; the last one counts.
    let under = s
        .entries()
        .iter()
        .rev()
        .find(|e| matches!(e.key.as_str(), "nest_under" | "nested_under") && !e.value.is_empty());
    let missing = match &operation {
        Operation::Nest(wildcards) if wildcards.is_empty() => Some("Wildcard"),
        Operation::Nest(_) if under.is_none() => Some("Nest_under"),
        Operation::Lift if under.is_none() => Some("Nested_under"),
        _ => None,
    };
    if let Some(missing) = missing {
        diags.strict(
            Some(s.pos()),
            format!("[FILTER] nest has no {missing}"),
            "no record is changed; say which keys and under which key",
        );
    }
    let under = under.map(|e| e.value.as_bytes().to_vec());
    let operation = if under.is_none() { Operation::Nest(Vec::new()) } else { operation };
    Some(Arc::new(Nest {
        operation,
        under: under.unwrap_or_default(),
        rename,
        label: s.label.clone(),
        said: AtomicBool::new(false),
    }))
}

impl Wildcard {
    fn is(&self, key: &[u8]) -> bool {
        if self.prefix { key.starts_with(&self.text) } else { key == self.text }
    }
}

impl Rename {
    /// Appends the encoded key under its new name. A key that is no string keeps its own.
    fn write(&self, out: &mut Vec<u8>, encoded: &[u8]) {
        match (self, msgpack::value(encoded).and_then(Value::text)) {
            (Rename::Add(prefix), Some(text)) => {
                let name: SmallVec<[u8; 64]> = prefix.iter().chain(text).copied().collect();
                msgpack::write_str(out, &name);
            }
            (Rename::Remove(prefix), Some(text)) => {
                msgpack::write_str(out, text.strip_prefix(prefix.as_slice()).unwrap_or(text));
            }
            _ => out.extend_from_slice(encoded),
        }
    }
}

impl Nest {
    fn nest(&self, wildcards: &[Wildcard], record: &mut Record<'_>) {
        let chosen = |i: usize| {
            let key = record.key(i);
            // The text of a key that is no string is empty; so is no name that a wildcard means.
            !key.is_empty() && wildcards.iter().any(|w| w.is(key))
        };
        let mut moved: SmallVec<[Field; 16]> = SmallVec::new();
        let mut stay: SmallVec<[Field; 16]> = SmallVec::new();
        for (i, field) in record.fields().iter().enumerate() {
            if chosen(i) { moved.push(*field) } else { stay.push(*field) }
        }
        if moved.is_empty() {
            return;
        }
        let mut parsed = std::mem::take(record.parsed);
        parsed.push(&self.under, |out| {
            msgpack::write_map(out, moved.len());
            for field in &moved {
                self.rename.write(out, record.bytes(field.key));
                out.extend_from_slice(record.bytes(field.value));
            }
        });
        *record.parsed = parsed;
        record.set_fields(stay);
        record.append_parsed();
    }

    fn lift(&self, record: &mut Record<'_>) {
        if record.find(&self.under).is_none() {
            return;
        }
        let mut stay: SmallVec<[Field; 16]> = SmallVec::new();
        let mut lifted = std::mem::take(record.parsed);
        for (i, field) in record.fields().iter().enumerate() {
            if record.key(i) != self.under {
                stay.push(*field);
            } else if self.unpack(record.bytes(field.value), &mut lifted).is_none() {
                stay.push(*field);
                if !self.said.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "{}: a value of \"{}\" is no map and stays as it is (said once)",
                        self.label,
                        String::from_utf8_lossy(&self.under)
                    );
                }
            }
        }
        *record.parsed = lifted;
        if stay.len() < record.len() {
            record.set_fields(stay);
            record.append_parsed();
        }
    }

    /// Appends the pairs of a map under their new names; `None` when it is no map.
    fn unpack(&self, map: &[u8], out: &mut Fields) -> Option<()> {
        let (Value::Map { count, at }, _) = msgpack::read(map, 0)? else { return None };
        let mut pos = at;
        for _ in 0..count {
            let mid = msgpack::skip(map, pos).ok()?;
            let end = msgpack::skip(map, mid).ok()?;
            let start = out.bytes.len();
            self.rename.write(&mut out.bytes, map.get(pos..mid)?);
            let value = out.bytes.len();
            out.bytes.extend_from_slice(map.get(mid..end)?);
            out.list.push((start..value, value..out.bytes.len()));
            pos = end;
        }
        Some(())
    }
}

impl Filter for Nest {
    fn apply(&self, record: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
        match &self.operation {
            Operation::Nest(wildcards) => self.nest(wildcards, record),
            Operation::Lift => self.lift(record),
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Level;
    use crate::filters::testing::{build, expect, findings, run};

    const RECORD: &str = r#"{"a":1,"k1":1,"x":"s","k2":2,"n":{"q":1,"k1":{"d":2}}}"#;
    const SAME: &str = r#"{"a"=>1, "k1"=>1, "x"=>"s", "k2"=>2, "n"=>{"q"=>1, "k1"=>{"d"=>2}}}"#;

    fn expect_one(lines: &[&str], record: &str, want: &str) {
        expect("nest", lines, &[(record, want)]);
    }

    #[test]
    fn matching_keys_move_into_a_map_at_the_end() {
        expect(
            "nest",
            &["Operation nest", "Wildcard http_*", "Wildcard user", "Nest_under req", "Remove_prefix http_"],
            &[
                (
                    r#"{"http_code":200,"log":"x","http_verb":"GET","user":"u","https":1}"#,
                    r#"{"log"=>"x", "https"=>1, "req"=>{"code"=>200, "verb"=>"GET", "user"=>"u"}}"#,
                ),
                (r#"{"log":"nothing to nest"}"#, r#"{"log"=>"nothing to nest"}"#),
            ],
        );
        expect_one(
            &["Wildcard to_nest*", "Nest_under nested_key", "Add_prefix p_"],
            r#"{"to_nest":"d","z":1}"#,
            r#"{"z"=>1, "nested_key"=>{"p_to_nest"=>"d"}}"#,
        );
        expect_one(&["Wildcard *", "Nest_under z"], r#"{"int:5":1,"b":2}"#, r#"{5=>1, "z"=>{"b"=>2}}"#);
        expect_one(&["Wildcard k", "Nest_under z"], RECORD, SAME);
        expect_one(&["Wildcard k*1", "Nest_under z"], RECORD, SAME);
    }

    #[test]
    fn the_keys_of_a_map_move_to_the_end_of_the_record() {
        expect(
            "nest",
            &["Operation lift", "Nested_under req", "Add_prefix req_"],
            &[
                (
                    r#"{"req":{"code":200,"deep":{"a":1}},"log":"x"}"#,
                    r#"{"log"=>"x", "req_code"=>200, "req_deep"=>{"a"=>1}}"#,
                ),
                (r#"{"req":"not a map","log":"y"}"#, r#"{"req"=>"not a map", "log"=>"y"}"#),
                (r#"{"log":"none"}"#, r#"{"log"=>"none"}"#),
                (r#"{"req":{}}"#, "{}"),
                (r#"{"req":{"int:5":1,"b":2}}"#, r#"{5=>1, "req_b"=>2}"#),
            ],
        );
        expect_one(
            &["Operation lift", "Nested_under n", "Remove_prefix k"],
            RECORD,
            r#"{"a"=>1, "k1"=>1, "x"=>"s", "k2"=>2, "q"=>1, "1"=>{"d"=>2}}"#,
        );
    }

    #[test]
    fn keys_that_are_there_already_stay_and_the_new_ones_come_last() {
        expect_one(
            &["Operation lift", "Nested_under n"],
            RECORD,
            r#"{"a"=>1, "k1"=>1, "x"=>"s", "k2"=>2, "q"=>1, "k1"=>{"d"=>2}}"#,
        );
        expect_one(
            &["Operation nest", "Wildcard k*", "Nest_under n"],
            RECORD,
            r#"{"a"=>1, "x"=>"s", "n"=>{"q"=>1, "k1"=>{"d"=>2}}, "n"=>{"k1"=>1, "k2"=>2}}"#,
        );
        expect_one(
            &["Operation lift", "Nested_under n"],
            r#"{"n":{"a":1},"b":1,"n":{"c":1}}"#,
            r#"{"b"=>1, "a"=>1, "c"=>1}"#,
        );
    }

    #[test]
    fn what_fluent_bit_refuses_is_refused() {
        for (lines, reason) in [
            (vec!["Operation Nest"], "use nest or lift"),
            (vec!["Operation foo"], "unknown Operation \"foo\""),
            (
                vec!["Operation lift", "Nested_under n", "Add_prefix a", "Remove_prefix b"],
                "exclude each other",
            ),
            (vec!["Operation lift", "Nested_under n", "Nested_under m"], "set twice"),
        ] {
            let errors = findings("nest", &lines, Level::Error);
            assert!(errors.len() == 1 && errors[0].contains(reason), "{errors:?}");
        }
    }

    #[test]
    fn what_is_missing_is_a_finding_and_changes_nothing() {
        for (lines, missing) in [
            (vec!["Nest_under z"], "no Wildcard"),
            (vec!["Wildcard k*"], "no Nest_under"),
            (vec!["Operation lift"], "no Nested_under"),
        ] {
            let (filter, found) = build("nest", &lines);
            assert!(found.len() == 1 && found[0].1.contains(missing), "{found:?}");
            assert_eq!(run(&filter.unwrap(), RECORD), SAME);
        }
    }
}
