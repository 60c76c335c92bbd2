//! A record that filters look at and edit without copying what they do not touch.
//!
//! Enters: one entry's bytes. Leaves: either nothing changed (the bytes are passed on as they are), or the entry written
//! anew from ranges: untouched fields are copied as runs, new ones come from the arena. No allocation per record: the
//! field list and the arena are reused.

use std::ops::Range;

use super::Time;
use crate::wire::{entry, msgpack};

/// Which bytes a [`Span`] points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The chunk as it came.
    Source,
    /// What filters wrote.
    Arena,
}

/// A range of encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    place: Place,
    start: u32,
    end: u32,
}

/// One key and its value, both encoded.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key with its header.
    pub key: Span,
    /// The value with its header.
    pub value: Span,
    /// Length of the key's header; the whole key when it is no string (its text is then empty).
    head: u8,
}

/// Fields that a parser made: encoded keys and values back to back, and where each lies.
#[derive(Debug, Default)]
pub struct Fields {
    /// Encoded keys and values.
    pub bytes: Vec<u8>,
    /// Bounds of key and value in `bytes`.
    pub list: Vec<(Range<usize>, Range<usize>)>,
}

impl Fields {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    /// Appends a field; `write` appends exactly one encoded value.
    pub fn push(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        msgpack::write_str(&mut self.bytes, key);
        let mid = self.bytes.len();
        write(&mut self.bytes);
        self.list.push((start..mid, mid..self.bytes.len()));
    }

    /// Appends a field with a text value.
    pub fn push_str(&mut self, key: &[u8], value: &[u8]) {
        self.push(key, |out| msgpack::write_str(out, value));
    }

    /// The text of the key of field `i`.
    pub fn key(&self, i: usize) -> &[u8] {
        self.list.get(i).and_then(|(k, _)| self.bytes.get(k.clone())).map_or(&[], |k| msgpack::content(k))
    }

    /// The encoded value of field `i`.
    pub fn value(&self, i: usize) -> &[u8] {
        self.list.get(i).and_then(|(_, v)| self.bytes.get(v.clone())).unwrap_or_default()
    }

    /// Removes field `i` from the list.
    pub fn remove(&mut self, i: usize) {
        if i < self.list.len() {
            self.list.remove(i);
        }
    }
}

/// Memory that records are edited in, one per worker, reused.
#[derive(Debug, Default)]
pub struct Scratch {
    arena: Vec<u8>,
    fields: Vec<Field>,
    /// For parsers.
    pub parsed: Fields,
}

/// One record being filtered.
pub struct Record<'a> {
    source: &'a [u8],
    arena: &'a mut Vec<u8>,
    fields: &'a mut Vec<Field>,
    /// Where parsers put what they make; empty between filters.
    pub parsed: &'a mut Fields,
    time: Time,
    metadata: Option<Span>,
    changed: bool,
}

fn span(place: Place, range: Range<usize>) -> Span {
    // Chunks and arenas are bounded far below 4 GiB by the frame limit and the budget.
    Span { place, start: range.start as u32, end: range.end as u32 }
}

/// Copies encoded fields into the arena and lists them.
fn copy_fields(arena: &mut Vec<u8>, list: &mut Vec<Field>, from: &Fields) {
    let base = arena.len();
    arena.extend_from_slice(&from.bytes);
    list.extend(from.list.iter().map(|(key, value)| {
        let bytes = from.bytes.get(key.clone()).unwrap_or_default();
        let head = bytes.len() - msgpack::content(bytes).len();
        Field {
            key: span(Place::Arena, base + key.start..base + key.end),
            value: span(Place::Arena, base + value.start..base + value.end),
            head: u8::try_from(head).unwrap_or(u8::MAX),
        }
    }));
}

impl<'a> Record<'a> {
    /// Opens the entry. `source` is the buffer that `entry`'s offsets are of; the entry must have been validated.
    pub fn open(source: &'a [u8], entry: &entry::Entry, now: Time, scratch: &'a mut Scratch) -> Self {
        let time = match entry.time {
            entry::TimeForm::At(t) => t,
            entry::TimeForm::Now => now,
        };
        let metadata = entry.metadata.clone().map(|r| span(Place::Source, r));
        let mut record = Record::empty(source, time, metadata, scratch);
        record.read_fields(entry.record.start);
        record
    }

    /// Opens the entry at `pos` of a validated run and says where it ends. One pass: the fields are found while the
    /// end is looked for.
    #[inline]
    pub fn open_next(source: &'a [u8], pos: usize, scratch: &'a mut Scratch) -> Option<(Self, usize)> {
        if source.get(pos) == Some(&0x92)
            && let Some((entry::TimeForm::At(time), at)) = entry::time(source, pos + 1)
        {
            let mut record = Record::empty(source, time, None, scratch);
            let end = record.read_fields(at)?;
            return Some((record, end));
        }
        let entry = entry::read(source, pos).ok()?.ok()?;
        let end = entry.end;
        Some((Record::open(source, &entry, Time::default(), scratch), end))
    }

    fn empty(source: &'a [u8], time: Time, metadata: Option<Span>, scratch: &'a mut Scratch) -> Self {
        let Scratch { arena, fields, parsed } = scratch;
        arena.clear();
        fields.clear();
        parsed.clear();
        Record { source, arena, fields, parsed, time, metadata, changed: false }
    }

    #[inline]
    fn read_fields(&mut self, record: usize) -> Option<usize> {
        let (msgpack::Value::Map { count, at }, _) = msgpack::read(self.source, record)? else { return None };
        let mut pos = at;
        for _ in 0..count {
            // Nearly every key is a short string: one byte of header.
            let (head, mid) = match self.source.get(pos) {
                Some(short @ 0xa0..=0xbf) => (1, pos + 1 + usize::from(short & 0x1f)),
                _ => {
                    let mid = msgpack::skip(self.source, pos).ok()?;
                    let (key, after) = msgpack::read(self.source, pos)?;
                    (key.text().map_or(mid - pos, |text| after - text.len() - pos), mid)
                }
            };
            let end = msgpack::skip(self.source, mid).ok()?;
            self.fields.push(Field {
                key: span(Place::Source, pos..mid),
                value: span(Place::Source, mid..end),
                head: u8::try_from(head).unwrap_or(u8::MAX),
            });
            pos = end;
        }
        Some(pos)
    }

    /// The bytes of a span.
    #[inline]
    pub fn bytes(&self, span: Span) -> &[u8] {
        let from: &[u8] = match span.place {
            Place::Source => self.source,
            Place::Arena => self.arena,
        };
        from.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields in order.
    pub fn fields(&self) -> &[Field] {
        self.fields
    }

    /// The text of the key of field `i` (empty when the key is no string or there is no such field).
    #[inline]
    pub fn key(&self, i: usize) -> &[u8] {
        match self.fields.get(i) {
            Some(f) => self.bytes(f.key).get(usize::from(f.head)..).unwrap_or_default(),
            None => &[],
        }
    }

    /// The encoded value of field `i`.
    #[inline]
    pub fn value(&self, i: usize) -> &[u8] {
        self.fields.get(i).map_or(&[], |f| self.bytes(f.value))
    }

    /// The last field with this key (of duplicates the last counts).
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        (0..self.fields.len()).rev().find(|i| self.key(*i) == key)
    }

    /// The encoded value under `key`.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.find(key).map(|i| self.value(i))
    }

    /// When.
    pub fn time(&self) -> Time {
        self.time
    }

    /// Sets the time.
    pub fn set_time(&mut self, time: Time) {
        self.changed |= time != self.time;
        self.time = time;
    }

    /// The encoded metadata map, if there is one.
    pub fn metadata(&self) -> Option<&[u8]> {
        self.metadata.map(|s| self.bytes(s))
    }

    /// Sets the metadata; `write` appends exactly one encoded map.
    pub fn set_metadata(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let written = self.write(write);
        self.metadata = Some(written);
        self.changed = true;
    }

    /// Whether a filter has edited it.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// Puts encoded bytes into the arena.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.arena.len();
        write(self.arena);
        span(Place::Arena, start..self.arena.len())
    }

    /// Puts a string into the arena, encoded.
    pub fn write_str(&mut self, text: &[u8]) -> Span {
        self.write(|out| msgpack::write_str(out, text))
    }

    /// Makes a field of two spans, for [`Record::push`], [`Record::insert`] and [`Record::replace`].
    pub fn field(&self, key: Span, value: Span) -> Field {
        let bytes = self.bytes(key);
        let head = match msgpack::value(bytes).and_then(msgpack::Value::text) {
            Some(text) => bytes.len() - text.len(),
            None => bytes.len(),
        };
        Field { key, value, head: u8::try_from(head).unwrap_or(u8::MAX) }
    }

    /// Appends a field, as it is: fields of the same name stay.
    pub fn push(&mut self, field: Field) {
        self.fields.push(field);
        self.changed = true;
    }

    /// Inserts a field before position `at`.
    pub fn insert(&mut self, at: usize, field: Field) {
        self.fields.insert(at.min(self.fields.len()), field);
        self.changed = true;
    }

    /// Puts `field` in the place of field `i`.
    pub fn replace(&mut self, i: usize, field: Field) {
        if let Some(f) = self.fields.get_mut(i) {
            *f = field;
            self.changed = true;
        }
    }

    /// Removes field `i`.
    pub fn remove(&mut self, i: usize) {
        if i < self.fields.len() {
            self.fields.remove(i);
            self.changed = true;
        }
    }

    /// Removes every field with this key; says whether there was one.
    pub fn remove_key(&mut self, key: &[u8]) -> bool {
        let before = self.len();
        self.retain(|k, _| k != key);
        before != self.len()
    }

    /// Keeps the fields for which `keep(key text, encoded value)` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let mut fields = std::mem::take(self.fields);
        let before = fields.len();
        fields.retain(|f| {
            keep(self.bytes(f.key).get(usize::from(f.head)..).unwrap_or_default(), self.bytes(f.value))
        });
        self.changed |= fields.len() != before;
        *self.fields = fields;
    }

    /// Sets `key` to a value that `write` appends encoded: a field of that name goes, the new one stands at the end
    /// (Fluent Bit prints an appended key once, at the end, with the new value).
    pub fn set(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.remove_key(key);
        let k = self.write_str(key);
        let v = self.write(write);
        let field = self.field(k, v);
        self.push(field);
    }

    /// As [`Record::set`], with key and value already encoded back to back, the key `key_len` bytes of them.
    pub fn set_encoded(&mut self, key: &[u8], encoded: &[u8], key_len: usize) {
        self.remove_key(key);
        let both = self.write(|out| out.extend_from_slice(encoded));
        let mid = both.start + key_len as u32;
        let field = Field {
            key: Span { end: mid, ..both },
            value: Span { start: mid, ..both },
            head: (key_len - key.len()) as u8,
        };
        self.push(field);
    }

    /// Replaces all fields by what is in [`Record::parsed`] (which is emptied).
    pub fn take_parsed(&mut self) {
        self.fields.clear();
        self.append_parsed();
    }

    /// Appends what is in [`Record::parsed`] (which is emptied), as it is.
    pub fn append_parsed(&mut self) {
        copy_fields(self.arena, self.fields, self.parsed);
        self.parsed.clear();
        self.changed = true;
    }

    /// Puts what is in [`Record::parsed`] (which is emptied) before those fields that `keep(position)` keeps; the others
    /// go. Of two fields with the same key the kept one stays.
    pub fn take_parsed_before(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut position = 0;
        self.fields.retain(|_| {
            position += 1;
            keep(position - 1)
        });
        let kept = self.fields.len();
        // Of a record with very many fields the parsed ones stay too, rather than compare each with each: whoever reads
        // a record takes the last of a key, which is the kept one.
        if kept * self.parsed.list.len() <= 1 << 14 {
            let mut parsed = std::mem::take(self.parsed);
            let Fields { bytes, list } = &mut parsed;
            list.retain(|(key, _)| {
                let key = msgpack::content(bytes.get(key.clone()).unwrap_or_default());
                self.find(key).is_none()
            });
            *self.parsed = parsed;
        }
        self.append_parsed();
        self.fields.rotate_left(kept);
    }

    /// Appends fields that were encoded beforehand, as they are: fields of the same name stay.
    pub fn append(&mut self, fields: &Fields) {
        copy_fields(self.arena, self.fields, fields);
        self.changed |= !fields.list.is_empty();
    }

    /// Replaces the whole list of fields (their spans must come from this record).
    pub fn set_fields(&mut self, fields: impl IntoIterator<Item = Field>) {
        self.fields.clear();
        self.fields.extend(fields);
        self.changed = true;
    }

    /// Appends the record's map, encoded.
    pub fn encode_map(&self, out: &mut Vec<u8>) {
        msgpack::write_map(out, self.fields.len());
        // Neighbours in the same bytes go as one run: a record with one new field is two copies.
        let mut run: Option<Span> = None;
        for piece in self.fields.iter().flat_map(|f| [f.key, f.value]) {
            match &mut run {
                Some(r) if r.place == piece.place && r.end == piece.start => r.end = piece.end,
                _ => {
                    if let Some(r) = run {
                        out.extend_from_slice(self.bytes(r));
                    }
                    run = Some(piece);
                }
            }
        }
        if let Some(r) = run {
            out.extend_from_slice(self.bytes(r));
        }
    }

    /// Appends the whole entry, encoded.
    pub fn encode(&self, out: &mut Vec<u8>) {
        entry::write_head(out, self.time, self.metadata());
        self.encode_map(out);
    }
}
