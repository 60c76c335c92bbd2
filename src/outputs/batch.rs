//! What an output has formatted and not yet written: bytes by tag (or all together), cut so that each write ends
//! with a record.
//!
//! Enters: deliveries. Leaves: groups of bytes in the order of their first record. Bounded: filling stops at
//! [`FULL`], in the midst of a delivery if need be.

use std::collections::HashMap;

use super::format::Formatter;
use crate::record::Tag;
use crate::rt::Delivery;

/// Most bytes of one write. A kill tore larger appends.
pub(super) const WRITE_MAX: usize = 256 << 10;
/// A batch takes no more records from here on; the room up to [`WRITE_MAX`] is for the last one, so that a full batch
/// is mostly one write.
const FULL: usize = WRITE_MAX - (16 << 10);
/// Memory kept for the next batches.
const KEPT: usize = 4 * WRITE_MAX;

/// Bytes that go to the same place, in order.
#[derive(Debug)]
pub(super) struct Group {
    /// The tag of the records (of the first, when all tags go together).
    pub(super) tag: Tag,
    /// Formatted records.
    pub(super) bytes: Vec<u8>,
    /// What the place must begin with, if it is empty.
    pub(super) header: Vec<u8>,
    /// How many of `bytes` are written.
    pub(super) done: usize,
    /// Ends of writes before the last one.
    cuts: Vec<usize>,
    records: u64,
}

impl Group {
    /// The next bytes to write in one piece: whole records, at most [`WRITE_MAX`] unless it is a single larger one.
    pub(super) fn piece(&self) -> &[u8] {
        let end = self.cuts.iter().copied().find(|cut| *cut > self.done).unwrap_or(self.bytes.len());
        self.bytes.get(self.done..end).unwrap_or_default()
    }

    /// Whether everything is written.
    pub(super) fn is_done(&self) -> bool {
        self.done >= self.bytes.len()
    }

    /// Puts the header in front. Nothing may be written yet.
    pub(super) fn put_header(&mut self) {
        let header = std::mem::take(&mut self.header);
        for cut in &mut self.cuts {
            *cut += header.len();
        }
        self.bytes.splice(0..0, header);
    }

    /// Goes back to the beginning of a line, if the last write stopped within one.
    pub(super) fn rewind_line(&mut self) {
        let written = self.bytes.get(..self.done).unwrap_or_default();
        self.done = memchr::memrchr(b'\n', written).map_or(0, |end| end + 1);
    }
}

/// The formatted half of a batch.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) groups: Vec<Group>,
    /// Some of these bytes must be synced before their delivery is settled: a sender waits, or the log forgets them then.
    pub(super) owed: bool,
    /// A delivery that a sender waits for ends here: sync now. Otherwise the sync may wait for company.
    pub(super) sync: bool,
    index: HashMap<Tag, usize, foldhash::fast::RandomState>,
    last: usize,
    total: usize,
    /// All tags go to the same place.
    together: bool,
    spare: Vec<Vec<u8>>,
}

/// How far a delivery has been formatted.
pub(super) struct Cursor {
    pub(super) delivery: Delivery,
    segment: usize,
    pos: usize,
}

impl Cursor {
    pub(super) fn new(delivery: Delivery) -> Self {
        Cursor { delivery, segment: 0, pos: 0 }
    }
}

impl Text {
    pub(super) fn new(together: bool) -> Self {
        Text { together, ..Text::default() }
    }

    /// Whether it takes no more records.
    pub(super) fn is_full(&self) -> bool {
        self.total >= FULL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn group(&mut self, tag: &Tag) -> usize {
        if let Some(group) = self.groups.get(self.last)
            && (self.together || group.tag == *tag)
        {
            return self.last;
        }
        let next = self.groups.len();
        self.last = *self.index.entry(tag.clone()).or_insert(next);
        if self.last == next {
            self.groups.push(Group {
                tag: tag.clone(),
                bytes: self.spare.pop().unwrap_or_default(),
                header: Vec::new(),
                done: 0,
                cuts: Vec::new(),
                records: 0,
            });
        }
        self.last
    }

    /// Formats records from where `cursor` stands; true when its delivery is through, false when the batch is full.
    pub(super) fn fill(&mut self, cursor: &mut Cursor, formatter: &mut Formatter) -> bool {
        self.owed |= cursor.delivery.must_last();
        let chunk = &*cursor.delivery.chunk;
        let buf = &chunk.bytes[..];
        while let Some(segment) = chunk.segs.get(cursor.segment) {
            let at = self.group(&segment.tag);
            formatter.tag(&segment.tag);
            let Some(group) = self.groups.get_mut(at) else { return true };
            if group.bytes.is_empty() {
                group.header = formatter.header(buf, cursor.pos);
            }
            let mut piece = group.cuts.last().copied().unwrap_or(0);
            while cursor.pos < segment.end {
                if self.total >= FULL {
                    return false;
                }
                let before = group.bytes.len();
                // Chunks are validated; if one is broken all the same, its segment ends here.
                cursor.pos =
                    formatter.record(&mut group.bytes, group.records, buf, cursor.pos).unwrap_or(segment.end);
                group.records += 1;
                let after = group.bytes.len();
                if after - piece > WRITE_MAX && before > piece {
                    group.cuts.push(before);
                    piece = before;
                }
                self.total += after - before;
            }
            cursor.segment += 1;
        }
        self.sync |= cursor.delivery.wants_ack();
        true
    }

    /// Nothing more comes: ends each group.
    pub(super) fn seal(&mut self, formatter: &Formatter) {
        for group in self.groups.iter_mut().filter(|g| !g.bytes.is_empty()) {
            formatter.end_group(&mut group.bytes);
        }
    }

    /// Empties it for the next batch, keeping some memory.
    pub(super) fn clear(&mut self) {
        let mut kept = self.spare.iter().map(Vec::capacity).sum::<usize>();
        for mut group in self.groups.drain(..) {
            kept += group.bytes.capacity();
            if kept <= KEPT {
                group.bytes.clear();
                self.spare.push(group.bytes);
            }
        }
        self.index.clear();
        (self.last, self.total, self.owed, self.sync) = (0, 0, false, false);
    }
}
