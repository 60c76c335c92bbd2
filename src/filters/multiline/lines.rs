//! `mode parser`: records whose text goes on in the next one.
//!
//! Enters: records in order. Leaves: one for each group: the first record with its content replaced by the joined text.

use std::sync::Arc;
use std::time::Instant;

use super::super::{Context, Emitter, Hold, Verdict};
use crate::record::{Record, Time};
use crate::text::multiline::{Joined, Joiner, Limits, Line, MultilineParser, Outcome, Parsed};
use crate::wire::{entry, msgpack};

/// Metadata that says that a joined text was over the limit.
const TRUNCATED: &[u8] = b"multiline_truncated";

/// The first record of a group, its content cut out.
#[derive(Debug, Default)]
struct First {
    time: Time,
    /// The metadata map, then the fields before the content with its key, then those after it.
    bytes: Vec<u8>,
    metadata: usize,
    cut: usize,
    fields: usize,
}

impl First {
    fn write(&self, text: &[u8], truncated: bool, out: &mut Vec<u8>) {
        let (metadata, fields) = self.bytes.split_at_checked(self.metadata).unwrap_or_default();
        let (before, after) =
            fields.split_at_checked(self.cut.saturating_sub(self.metadata)).unwrap_or_default();
        let metadata = (!metadata.is_empty()).then_some(metadata);
        if truncated {
            entry::write_head(out, self.time, Some(&marked(metadata)));
        } else {
            entry::write_head(out, self.time, metadata);
        }
        msgpack::write_map(out, self.fields);
        out.extend_from_slice(before);
        msgpack::write_str(out, text);
        out.extend_from_slice(after);
    }
}

/// Metadata with the mark that the text was cut.
fn marked(metadata: Option<&[u8]>) -> Vec<u8> {
    let (count, pairs) = match metadata.and_then(|m| Some((msgpack::value(m)?, m))) {
        Some((msgpack::Value::Map { count, at }, m)) => (count, m.get(at..).unwrap_or_default()),
        _ => (0, &[][..]),
    };
    let mut out = Vec::with_capacity(pairs.len() + TRUNCATED.len() + 8);
    msgpack::write_map(&mut out, count + 1);
    out.extend_from_slice(pairs);
    msgpack::write_str(&mut out, TRUNCATED);
    msgpack::write_bool(&mut out, true);
    out
}

/// A record as the engine sees it.
struct Text<'r, 'a> {
    record: &'r Record<'a>,
    /// The field with the content.
    at: usize,
    text: &'r [u8],
    id: u64,
}

impl Line<First> for Text<'_, '_> {
    fn text(&self) -> &[u8] {
        self.text
    }

    fn time(&self) -> Time {
        self.record.time()
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn field(&self, key: &[u8]) -> Option<&[u8]> {
        msgpack::value(self.record.get(key)?)?.text()
    }

    fn remember(&self, parsed: Option<Parsed<'_>>, first: &mut First) -> usize {
        let out = &mut first.bytes;
        out.clear();
        out.extend_from_slice(self.record.metadata().unwrap_or_default());
        first.metadata = out.len();
        first.time = parsed.and_then(|p| p.time).unwrap_or(self.record.time());
        match parsed {
            // A line that was parsed first is replaced by its fields, as Fluent Bit does.
            Some(Parsed { fields, content, .. }) => {
                first.fields = fields.list.len();
                for (i, (key, value)) in fields.list.iter().enumerate() {
                    out.extend_from_slice(fields.bytes.get(key.clone()).unwrap_or_default());
                    if i == content {
                        first.cut = out.len();
                    } else {
                        out.extend_from_slice(fields.bytes.get(value.clone()).unwrap_or_default());
                    }
                }
            }
            None => {
                first.fields = self.record.len();
                for (i, field) in self.record.fields().iter().enumerate() {
                    out.extend_from_slice(self.record.bytes(field.key));
                    if i == self.at {
                        first.cut = out.len();
                    } else {
                        out.extend_from_slice(self.record.bytes(field.value));
                    }
                }
            }
        }
        out.len()
    }
}

/// The state for one connection and tag.
pub(super) struct Lines {
    joiner: Joiner<First>,
    key: Vec<u8>,
    buffer: bool,
}

fn emit(emitter: &mut Emitter, joined: &Joined<'_, First>) {
    if joined.truncated {
        tracing::warn!(
            bytes = joined.text.len(),
            "a multiline record is over multiline_buffer_limit and was cut"
        );
    }
    emitter.joined(joined.parts, joined.ids, |out| joined.first.write(joined.text, joined.truncated, out));
}

impl Lines {
    pub(super) fn new(parsers: &[Arc<MultilineParser>], key: Vec<u8>, limits: Limits, buffer: bool) -> Self {
        Lines { joiner: Joiner::new(parsers, Some(&key), limits), key, buffer }
    }
}

impl Hold for Lines {
    fn push(&mut self, record: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict {
        let emitter = &mut *cx.emit;
        let record = &*record;
        let found = record
            .find(&self.key)
            .and_then(|at| Some((at, msgpack::value(record.value(at)).and_then(msgpack::Value::text)?)));
        let Some((at, text)) = found else {
            // What came before it goes before it.
            self.joiner.flush(&mut |joined| emit(emitter, &joined));
            return Verdict::Keep;
        };
        let line = Text { record, at, text, id: cx.id };
        match self.joiner.push(&line, cx.now, &mut |joined| emit(emitter, &joined)) {
            Outcome::Alone => Verdict::Keep,
            Outcome::Taken => Verdict::Hold,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.joiner.deadline()
    }

    fn expire(&mut self, now: Instant, emitter: &mut Emitter) {
        self.joiner.expire(now, &mut |joined| emit(emitter, &joined));
    }

    fn release(&mut self, emitter: &mut Emitter) {
        self.joiner.flush(&mut |joined| emit(emitter, &joined));
    }

    fn end_of_chunk(&mut self, emitter: &mut Emitter) {
        if !self.buffer {
            self.release(emitter);
        }
    }

    fn bytes(&self) -> usize {
        self.joiner.bytes()
    }
}
