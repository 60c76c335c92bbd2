//! `mode partial_message`: docker cuts lines over 16 KiB into pieces and marks them.
//!
//! Enters: records; a piece has `partial_message` true and a `partial_id`. Leaves: one record for each id, when its piece
//! with `partial_last` true has come, or after `flush_ms` without another piece (a container that ends within a line
//! never sends the last one). Pieces of several ids may alternate: stdout and stderr do. Bounded in bytes and groups;
//! over a bound the oldest group goes out as it is.

use std::time::{Duration, Instant};

use super::super::{Context, Emitter, Hold, Verdict};
use crate::record::{Record, Time};
use crate::wire::entry;
use crate::wire::msgpack::{self, Value};

/// Lines in pieces at a time; docker has at most two for each container.
const MAX_GROUPS: usize = 1024;

/// The marks, which the joined record does not have.
const MARKS: [&[u8]; 4] = [b"partial_message", b"partial_id", b"partial_ordinal", b"partial_last"];

/// One line in pieces.
struct Group {
    id: Vec<u8>,
    time: Time,
    metadata: Option<Vec<u8>>,
    /// The other fields of the first piece, and the key of the content.
    fields: Vec<u8>,
    count: usize,
    text: Vec<u8>,
    parts: u64,
    /// The numbers of the pieces' stored copies.
    ids: Vec<u64>,
    deadline: Instant,
}

impl Group {
    fn bytes(&self) -> usize {
        self.id.len() + self.metadata.as_ref().map_or(0, Vec::len) + self.fields.len() + self.text.len()
    }

    fn emit(&self, emitter: &mut Emitter) {
        emitter.joined(self.parts, &self.ids, |out| {
            entry::write_head(out, self.time, self.metadata.as_deref());
            msgpack::write_map(out, self.count + 1);
            out.extend_from_slice(&self.fields);
            msgpack::write_str(out, &self.text);
        });
    }
}

/// The state for one connection and tag.
pub(super) struct Partial {
    key: Vec<u8>,
    limit: usize,
    flush: Duration,
    /// In the order of their first pieces.
    groups: Vec<Group>,
    bytes: usize,
}

/// Whether a mark says true: the text, in any case, or the boolean.
fn says_true(record: &Record<'_>, key: &[u8]) -> bool {
    match record.get(key).and_then(msgpack::value) {
        Some(Value::Bool(yes)) => yes,
        Some(Value::Str(text) | Value::Bin(text)) => text.eq_ignore_ascii_case(b"true"),
        _ => false,
    }
}

impl Partial {
    pub(super) fn new(key: Vec<u8>, limit: usize, flush: Duration) -> Self {
        Partial { key, limit, flush, groups: Vec::new(), bytes: 0 }
    }

    fn first(&self, record: &Record<'_>, id: &[u8], content: usize, now: Instant) -> Group {
        let mut fields = Vec::new();
        let mut count = 0;
        for (i, field) in record.fields().iter().enumerate() {
            if i != content && !MARKS.contains(&record.key(i)) {
                fields.extend_from_slice(record.bytes(field.key));
                fields.extend_from_slice(record.bytes(field.value));
                count += 1;
            }
        }
        msgpack::write_str(&mut fields, &self.key);
        Group {
            id: id.to_vec(),
            time: record.time(),
            metadata: record.metadata().map(<[u8]>::to_vec),
            fields,
            count,
            text: Vec::new(),
            parts: 0,
            ids: Vec::new(),
            deadline: now,
        }
    }

    fn emit(&mut self, at: usize, emitter: &mut Emitter) {
        if at < self.groups.len() {
            let group = self.groups.remove(at);
            self.bytes -= group.bytes();
            group.emit(emitter);
        }
    }
}

impl Hold for Partial {
    fn push(&mut self, record: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict {
        if !says_true(record, MARKS[0]) {
            return Verdict::Keep;
        }
        let id = match record.get(MARKS[1]).and_then(msgpack::value) {
            Some(Value::Str(id) | Value::Bin(id)) => id,
            // A number does as well: its encoding tells ids apart.
            Some(Value::UInt(_) | Value::Int(_)) => record.get(MARKS[1]).unwrap_or_default(),
            _ => return Verdict::Keep,
        };
        let Some(content) = record.find(&self.key) else { return Verdict::Keep };
        let Some(text) = msgpack::value(record.value(content)).and_then(Value::text) else {
            return Verdict::Keep;
        };
        let at = match self.groups.iter().position(|g| g.id == id) {
            Some(at) => at,
            None => {
                if self.groups.len() >= MAX_GROUPS {
                    self.emit(0, cx.emit);
                }
                let group = self.first(record, id, content, cx.now);
                self.bytes += group.bytes();
                self.groups.push(group);
                self.groups.len() - 1
            }
        };
        if let Some(group) = self.groups.get_mut(at) {
            group.text.extend_from_slice(text);
            group.parts += 1;
            if cx.id != 0 {
                group.ids.push(cx.id);
            }
            group.deadline = cx.now + self.flush;
            self.bytes += text.len();
        }
        if says_true(record, MARKS[3]) {
            self.emit(at, cx.emit);
        }
        while self.bytes > self.limit {
            self.emit(0, cx.emit);
        }
        Verdict::Hold
    }

    fn deadline(&self) -> Option<Instant> {
        self.groups.iter().map(|g| g.deadline).min()
    }

    fn expire(&mut self, now: Instant, emitter: &mut Emitter) {
        while let Some(at) = self.groups.iter().position(|g| g.deadline <= now) {
            self.emit(at, emitter);
        }
    }

    fn release(&mut self, emitter: &mut Emitter) {
        for group in std::mem::take(&mut self.groups) {
            group.emit(emitter);
        }
        self.bytes = 0;
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}
