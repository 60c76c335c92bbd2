//! What every filter keeps to, whatever the record.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::testing::{apply_entry, clean, map};
use super::{Filter, Verdict};
use crate::record::Time;
use crate::wire::{entry, msgpack};

/// Filters with every kind of rule; `drops` says whether records may disappear.
fn filters() -> Vec<(&'static str, bool, Arc<dyn Filter>)> {
    [
        ("grep", true, vec!["Exclude c y", "Exclude a .", "Regex $a['b'][0] x"]),
        ("grep", true, vec!["Regex a x", "Regex $b['c'] .", "Logical_Op or"]),
        ("record_modifier", true, vec!["Remove_key a", "Remove_key B*", "Record c 1", "Uuid_key d"]),
        ("record_modifier", true, vec!["Allowlist_key a", "Allowlist_key b*"]),
        ("record_modifier", false, vec!["Record a 1", "Record b 2"]),
        (
            "modify",
            false,
            vec![
                "Set a x",
                "Add b y",
                "Remove c",
                "Remove_regex ^d+$",
                "Remove_wildcard ab",
                "Move_to_start b",
                "Move_to_end a",
                "Rename a c",
                "Hard_rename b d",
                "Copy c a",
                "Hard_copy d b",
            ],
        ),
        (
            "modify",
            false,
            vec![
                "Condition matching_keys_have_matching_values ^a .",
                "Condition no_key_matches dd",
                "Condition key_value_does_not_match $a['b'] x",
                "Hard_rename a b",
            ],
        ),
        ("nest", false, vec!["Wildcard a*", "Wildcard b", "Nest_under c", "Add_prefix n_"]),
        ("nest", false, vec!["Operation lift", "Nested_under a", "Remove_prefix b"]),
        ("nest", false, vec!["Operation lift", "Nested_under b", "Add_prefix a"]),
        ("rewrite_tag", false, vec!["Rule $a (.) $a.$b['c'].$TAG[0].$1 true", "Rule $c . n false"]),
    ]
    .into_iter()
    .map(|(name, drops, lines)| (name, drops, clean(name, &lines)))
    .collect()
}

/// An encoded value; keys of maps are short, so that they meet the filters' rules and each other.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(|s| encoded(|out| msgpack::write_str(out, &s))),
        vec(any::<u8>(), 0..300).prop_map(|s| encoded(|out| msgpack::write_bin(out, &s))),
        any::<i64>().prop_map(|v| encoded(|out| msgpack::write_int(out, v))),
        any::<f64>().prop_map(|v| encoded(|out| msgpack::write_float(out, v))),
        Just(vec![0xc0]),
        Just(vec![0xc3]),
        Just(vec![0xc7, 2, 5, 1, 2]),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|items| {
                let mut out = encoded(|out| msgpack::write_array(out, items.len()));
                out.extend(items.concat());
                out
            }),
            pairs(inner),
        ]
    })
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[abcd]{0,2}".prop_map(|s| encoded(|out| msgpack::write_str(out, s.as_bytes()))),
        1 => "[abcd]".prop_map(|s| encoded(|out| msgpack::write_bin(out, s.as_bytes()))),
        1 => vec(any::<u8>(), 200..400).prop_map(|s| encoded(|out| msgpack::write_str(out, &s))),
        1 => vec(any::<u8>(), 300..301).prop_map(|s| {
            let mut out = vec![0x91];
            msgpack::write_str(&mut out, &s);
            out
        }),
        1 => Just(vec![0x05]),
    ]
}

fn pairs(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    vec((key(), value), 0..20).prop_map(|pairs| {
        let mut out = encoded(|out| msgpack::write_map(out, pairs.len()));
        for (key, value) in pairs {
            out.extend(key);
            out.extend(value);
        }
        out
    })
}

fn encoded(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_the_record_the_result_is_one_valid_entry(record in pairs(value()), may_move: bool) {
        let mut bytes = Vec::new();
        entry::write_head(&mut bytes, Time::new(1, 2), None);
        bytes.extend_from_slice(&record);
        for (name, drops, filter) in filters() {
            let outcome = apply_entry(filter.as_ref(), &bytes, may_move);
            for entry in outcome.emitted.iter().map(|(_, e)| e).chain([&outcome.left]) {
                // A map whose declared pairs end exactly where the entry does.
                let read = entry::read(entry, 0);
                prop_assert!(matches!(&read, Ok(Ok(e)) if e.end == entry.len()), "{name}: {read:?} {}", map(entry));
            }
            prop_assert!(drops || outcome.verdict != Verdict::Drop, "{name} dropped {}", map(&bytes));
            prop_assert!(may_move || outcome.emitted.is_empty());
            prop_assert_eq!(outcome.verdict == Verdict::Moved && outcome.emitted.is_empty(), false);
        }
    }
}
