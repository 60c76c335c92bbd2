//! A run of records on its way: msgpack entries back to back, with the tags they came under.

use bytes::Bytes;
use smallvec::SmallVec;

use super::Tag;
use crate::rt::{Charge, MeterCharge};

/// A record that a filter holds back and that is stored has a number: so many bits of it count, and what stands above them
/// is the filter that moved the record to its tag, plus one (0: none did).
pub const HELD_COUNT_BITS: u32 = 48;

/// Records of one tag within a chunk.
#[derive(Clone, Debug)]
pub struct Seg {
    /// Their tag.
    pub tag: Tag,
    /// Where they end in the chunk's bytes (they begin where the segment before ends).
    pub end: usize,
    /// How many they are.
    pub count: u64,
}

/// Records that take the same route. Tags that match the same filters and outputs share chunks, so that a client that
/// sends 5,000 tags in turn costs no chunk per record.
#[derive(Debug)]
pub struct Chunk {
    /// Entries (`wire::entry`), valid, with known times.
    pub bytes: Bytes,
    /// Whose they are, in order; never empty.
    pub segs: SmallVec<[Seg; 1]>,
    /// All records.
    pub count: u64,
    /// The memory it takes from the budget, given back when the last output drops it.
    pub charge: Charge,
    /// What it counts for in its input's `Mem_Buf_Limit`.
    pub meter: Option<MeterCharge>,
}

impl Chunk {
    /// Each segment with its bytes.
    pub fn segments(&self) -> impl Iterator<Item = (&Seg, &[u8])> {
        let mut start = 0;
        self.segs.iter().map(move |seg| {
            let bytes = self.bytes.get(start..seg.end).unwrap_or_default();
            start = seg.end;
            (seg, bytes)
        })
    }

    /// The records from `start` to `end`, `count` of them and within one segment, sharing this chunk's bytes. They are
    /// charged for once more: the bytes stay as long as either chunk lives.
    pub fn part(&self, start: usize, end: usize, count: u64) -> Chunk {
        let tag =
            self.segs.iter().find(|seg| seg.end >= end).map_or_else(|| Tag::new(b""), |seg| seg.tag.clone());
        let bytes =
            if start <= end && end <= self.bytes.len() { self.bytes.slice(start..end) } else { Bytes::new() };
        let end = bytes.len();
        Chunk {
            bytes,
            segs: [Seg { tag, end, count }].into_iter().collect(),
            count,
            charge: self.charge.beside(end as u64),
            meter: None,
        }
    }
}
