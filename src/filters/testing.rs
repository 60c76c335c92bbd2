//! Filters under test: configuration lines and JSON records in, records as Fluent Bit would print them out.

use std::sync::Arc;
use std::time::Instant;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{BuildContext, Context, Emitter, Filter, Verdict};
use crate::config::{self, CORE_FILTER, Diagnostics, Level, SectionKind};
use crate::record::{Record, Scratch, Tag, Time};
use crate::text::Library;
use crate::wire::{entry, msgpack, print};

/// What was found, in order.
type Findings = Vec<(Level, String)>;

/// What a filter made of an entry.
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// What was emitted: new tags and entries.
    pub(super) emitted: Vec<(Option<Tag>, Vec<u8>)>,
    /// The entry afterwards.
    pub(super) left: Vec<u8>,
}

/// What `build` and the checks before it say about `Key value` lines, and the filter if it was built.
pub(super) fn build(name: &str, lines: &[&str]) -> (Option<Arc<dyn Filter>>, Findings) {
    build_with(&Library::default(), name, lines)
}

/// As [`build`], with parsers to name.
pub(super) fn build_with(
    library: &Library,
    name: &str,
    lines: &[&str],
) -> (Option<Arc<dyn Filter>>, Findings) {
    let kind = super::find(name).unwrap();
    let mut entries = vec![("Name".to_owned(), name.to_owned()), ("Match".to_owned(), "t*".to_owned())];
    entries.extend(lines.iter().map(|l| {
        let (key, value) = l.split_once(' ').unwrap_or((l, ""));
        // The classic reader trims values.
        (key.to_owned(), value.trim().to_owned())
    }));
    let section = config::section(SectionKind::Filter, entries, "test.conf");
    let mut diags = Diagnostics::new();
    let filter =
        config::check(&section, format!("{name}.0"), &kind.info, CORE_FILTER, &mut diags).and_then(|s| {
            (kind.build)(&s, &BuildContext { library, multiline_buffer_limit: 2_000_000 }, &mut diags)
        });
    let found = diags.iter().map(|d| (d.level, d.to_string())).collect();
    (filter.filter(|_| !diags.refused(false)), found)
}

/// The filter of these lines, which must build without a finding.
pub(super) fn clean(name: &str, lines: &[&str]) -> Arc<dyn Filter> {
    let (filter, found) = build(name, lines);
    assert!(found.is_empty(), "{found:?}");
    filter.unwrap()
}

/// The findings of these lines of one level.
pub(super) fn findings(name: &str, lines: &[&str], level: Level) -> Vec<String> {
    build(name, lines).1.into_iter().filter(|(l, _)| *l == level).map(|(_, text)| text).collect()
}

/// Applies a filter to one entry.
pub(super) fn apply_entry(filter: &dyn Filter, bytes: &[u8], may_move: bool) -> Outcome {
    let mut scratch = Scratch::default();
    let (mut record, _) = Record::open_next(bytes, 0, &mut scratch).unwrap();
    let mut emit = Emitter::default();
    let tag = Tag::new(b"t.one");
    let mut cx = Context { tag: &tag, now: Instant::now(), emit: &mut emit, may_move, id: 0 };
    let verdict = filter.apply(&mut record, &mut cx);
    let mut emitted = Vec::new();
    let mut start = 0;
    for e in &emit.list {
        emitted.push((e.tag.clone(), emit.bytes[start..e.end].to_vec()));
        start = e.end;
    }
    let mut out = Vec::new();
    record.encode(&mut out);
    assert_eq!(msgpack::skip(&out, 0), Ok(out.len()), "the result is one whole value");
    if !record.changed() {
        assert_eq!(map(&out), map(bytes), "a record that says it is unchanged is unchanged");
    }
    Outcome { verdict, emitted, left: out }
}

/// The record of an entry, printed.
pub(super) fn map(entry_bytes: &[u8]) -> String {
    let entry = entry::read(entry_bytes, 0).unwrap().unwrap();
    let mut out = Vec::new();
    print::print_value(&mut out, &entry_bytes[entry.record]);
    String::from_utf8_lossy(&out).into_owned()
}

/// Applies a filter to a JSON record: what is left of it, `dropped`, or `moved`.
pub(super) fn run(filter: &Arc<dyn Filter>, json: &str) -> String {
    let outcome = apply_entry(filter.as_ref(), &packed(json), true);
    match outcome.verdict {
        Verdict::Keep => map(&outcome.left),
        Verdict::Drop => "dropped".to_owned(),
        Verdict::Moved => "moved".to_owned(),
        Verdict::Hold => "held".to_owned(),
    }
}

/// Builds a filter and runs it over each pair of (JSON record, what must come).
pub(super) fn expect(name: &str, lines: &[&str], cases: &[(&str, &str)]) {
    let filter = clean(name, lines);
    for (json, want) in cases {
        assert_eq!(run(&filter, json), *want, "{lines:?} on {json}");
    }
}

/// An entry with this JSON text as its record; order and repeated keys are kept. `{"$bin": "x"}` is a binary, a key
/// `int:5` is the number.
pub(super) fn packed(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    entry::write_head(&mut out, Time::new(1_760_000_000, 0), None);
    Pack(&mut out).deserialize(&mut serde_json::Deserializer::from_str(json)).unwrap();
    out
}

struct Pack<'o>(&'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Pack<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pack<'_> {
    type Value = ();
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        msgpack::write_nil(self.0);
        Ok(())
    }
    fn visit_bool<E>(self, v: bool) -> Result<(), E> {
        msgpack::write_bool(self.0, v);
        Ok(())
    }
    fn visit_i64<E>(self, v: i64) -> Result<(), E> {
        msgpack::write_int(self.0, v);
        Ok(())
    }
    fn visit_u64<E>(self, v: u64) -> Result<(), E> {
        msgpack::write_uint(self.0, v);
        Ok(())
    }
    fn visit_f64<E>(self, v: f64) -> Result<(), E> {
        msgpack::write_float(self.0, v);
        Ok(())
    }
    fn visit_str<E>(self, v: &str) -> Result<(), E> {
        msgpack::write_str(self.0, v.as_bytes());
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (mut n, mut inner) = (0, Vec::new());
        while seq.next_element_seed(Pack(&mut inner))?.is_some() {
            n += 1;
        }
        msgpack::write_array(self.0, n);
        self.0.extend_from_slice(&inner);
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut n, mut inner) = (0, Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            if key == "$bin" {
                let text: String = map.next_value()?;
                msgpack::write_bin(self.0, text.as_bytes());
                return Ok(());
            }
            match key.strip_prefix("int:").and_then(|k| k.parse().ok()) {
                Some(number) => msgpack::write_int(&mut inner, number),
                None => msgpack::write_str(&mut inner, key.as_bytes()),
            }
            map.next_value_seed(Pack(&mut inner))?;
            n += 1;
        }
        msgpack::write_map(self.0, n);
        self.0.extend_from_slice(&inner);
        Ok(())
    }
}
