//! The first 4 KiB of a segment: who it is, and once it is full what is in it.
//!
//! Enters: a [`Head`] when the segment begins, a [`Summary`] when it is sealed. Leaves: the same at the next start. The head
//! stands twice, in the first and in the last sector, so that one damaged sector costs no segment. Can go wrong: a head
//! that does not read (of no use), a newer version (refused), no summary (then the segment is scanned).

use super::frame::Uuid;
use super::{OwnerId, Seq};

/// Where frames begin.
pub(super) const FRAMES: u64 = 4096;
/// The format's version.
pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"FIRELWAL";
const HEAD: usize = 64;
const SECTOR: usize = 512;
/// The second copy of the head.
const COPY: usize = FRAMES as usize - SECTOR;
/// The summary lies between the two.
pub(super) const SUMMARY: usize = SECTOR;
const ROW: usize = 24;
/// Owners that fit a summary.
const ROWS: usize = (COPY - SUMMARY - ROW) / ROW;
/// In the place of an owner: the segment is everyone's.
const MAIN: u32 = u32::MAX;

/// What a segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) uuid: Uuid,
    /// No frame in it has a lower number.
    pub(super) first: Seq,
    /// Held records that were still held when it began are in frames from here on.
    pub(super) held_from: Seq,
    /// The last frame of the segment before that counts; what follows it there was never promised.
    pub(super) before: Seq,
    /// The owner of a side log.
    pub(super) side: Option<OwnerId>,
}

/// How a head reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// As it was written.
    Head(Head),
    /// By a later firelane.
    Newer(u32),
    /// Not a head.
    Bad,
}

/// What one owner is owed in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) frames: u32,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

/// What is in a full segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) last: Seq,
    /// Where its frames end.
    pub(super) end: u64,
    pub(super) owed: Vec<(OwnerId, Owed)>,
}

impl Head {
    /// The whole first block, without a summary.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(FRAMES as usize);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&(FRAMES as u32).to_le_bytes());
        head.extend_from_slice(&self.uuid);
        for n in [self.first, self.held_from, self.before] {
            head.extend_from_slice(&n.to_le_bytes());
        }
        head.extend_from_slice(&self.side.map_or(MAIN, |o| u32::from(o.0)).to_le_bytes());
        let crc = crc32c::crc32c(&head);
        head.extend_from_slice(&crc.to_le_bytes());
        let copy = head.clone();
        head.resize(COPY, 0);
        head.extend_from_slice(&copy);
        head.resize(FRAMES as usize, 0);
        head
    }

    /// Reads either copy.
    pub(super) fn read(block: &[u8]) -> Read {
        let mut newer = Read::Bad;
        for at in [0, COPY] {
            match block.get(at..at + HEAD).map_or(Read::Bad, Head::read_copy) {
                Read::Head(head) => return Read::Head(head),
                Read::Newer(version) => newer = Read::Newer(version),
                Read::Bad => {}
            }
        }
        newer
    }

    fn read_copy(copy: &[u8]) -> Read {
        let u32_at = |at: usize| copy.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let u64_at = |at: usize| copy.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let parse = || {
            let crc_at = HEAD - 4;
            if copy.get(..8)? != MAGIC || u32_at(crc_at)? != crc32c::crc32c(copy.get(..crc_at)?) {
                return None;
            }
            // A later version may have another layout, but its head begins like this one.
            if u32_at(8)? != VERSION {
                return Some(Read::Newer(u32_at(8)?));
            }
            Some(Read::Head(Head {
                uuid: copy.get(16..32)?.try_into().ok()?,
                first: u64_at(32)?,
                held_from: u64_at(40)?,
                before: u64_at(48)?,
                side: u16::try_from(u32_at(56)?).ok().map(OwnerId),
            }))
        };
        parse().unwrap_or(Read::Bad)
    }
}

impl Summary {
    /// Its bytes, for [`SUMMARY`]; `None` when the owners do not fit.
    pub(super) fn bytes(&self, uuid: &Uuid) -> Option<Vec<u8>> {
        if self.owed.len() > ROWS {
            return None;
        }
        let mut out = vec![0; 4];
        out.extend_from_slice(&(self.owed.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(&self.end.to_le_bytes());
        for (owner, owed) in &self.owed {
            out.extend_from_slice(&u32::from(owner.0).to_le_bytes());
            out.extend_from_slice(&owed.frames.to_le_bytes());
            out.extend_from_slice(&owed.records.to_le_bytes());
            out.extend_from_slice(&owed.bytes.to_le_bytes());
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(uuid), out.get(4..).unwrap_or_default());
        if let Some(place) = out.get_mut(..4) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
        Some(out)
    }

    /// The summary in a segment's first block, if it has one.
    pub(super) fn read(block: &[u8], uuid: &Uuid) -> Option<Summary> {
        let all = block.get(SUMMARY..COPY)?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(all.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(all.get(at..at + 8)?.try_into().ok()?));
        let rows = u32_at(4)? as usize;
        if rows > ROWS {
            return None;
        }
        let covered = all.get(4..ROW + rows * ROW)?;
        if u32_at(0)? != crc32c::crc32c_append(crc32c::crc32c(uuid), covered) {
            return None;
        }
        let row = |i: usize| {
            let at = ROW + i * ROW;
            let owed = Owed { frames: u32_at(at + 4)?, records: u64_at(at + 8)?, bytes: u64_at(at + 16)? };
            Some((OwnerId(u16::try_from(u32_at(at)?).ok()?), owed))
        };
        let owed = (0..rows).map(row).collect::<Option<_>>()?;
        Some(Summary { last: u64_at(8)?, end: u64_at(16)?, owed })
    }
}

/// A main segment's file.
pub(super) fn main_name(first: Seq) -> String {
    format!("{first:016x}.wal")
}

/// The first number of a main segment, by its name.
pub(super) fn main_first(name: &str) -> Option<Seq> {
    Seq::from_str_radix(name.strip_suffix(".wal").filter(|stem| stem.len() == 16)?, 16).ok()
}

/// A side segment's file.
pub(super) fn side_name(owner: OwnerId, first: Seq) -> String {
    format!("side-{:04x}-{first:016x}.wal", owner.0)
}

/// Whether the name is a segment's, main or side.
pub(super) fn is_segment(name: &str) -> bool {
    let stem = name.strip_suffix(".wal").unwrap_or("");
    let number = stem.rsplit('-').next().unwrap_or("");
    let hex = number.len() == 16 && number.bytes().all(|b| b.is_ascii_hexdigit());
    hex && (stem.len() == 16 || stem.starts_with("side-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        Head { uuid: [9; 16], first: 5, held_from: 3, before: 4, side: Some(OwnerId(2)) }
    }

    #[test]
    fn either_copy_of_the_head_is_enough() {
        let block = head().block();
        assert_eq!(block.len() as u64, FRAMES);
        for at in [0, COPY] {
            let mut damaged = block.clone();
            damaged[at..at + 64].fill(0xff);
            assert_eq!(Head::read(&damaged), Read::Head(head()));
        }
        let mut gone = block;
        gone[3] = 0;
        gone[COPY + 3] = 0;
        assert_eq!(Head::read(&gone), Read::Bad);
    }

    #[test]
    fn a_later_version_is_told_apart_from_damage() {
        let mut block = head().block();
        for at in [0, COPY] {
            block[at + 8] = 2;
            let crc = crc32c::crc32c(&block[at..at + HEAD - 4]).to_le_bytes();
            block[at + HEAD - 4..at + HEAD].copy_from_slice(&crc);
        }
        assert_eq!(Head::read(&block), Read::Newer(2));
    }

    #[test]
    fn a_summary_reads_back_and_one_with_too_many_owners_is_not_written() {
        let owed = Owed { frames: 3, records: 70, bytes: 9000 };
        let mut summary = Summary { last: 99, end: 70_000, owed: vec![(OwnerId(1), owed); ROWS] };
        let mut block = head().block();
        let bytes = summary.bytes(&[9; 16]).unwrap();
        block[SUMMARY..SUMMARY + bytes.len()].copy_from_slice(&bytes);
        assert_eq!(Summary::read(&block, &[9; 16]), Some(summary.clone()));
        assert_eq!(Summary::read(&block, &[8; 16]), None);
        assert_eq!(Head::read(&block), Read::Head(head()));
        summary.owed.push((OwnerId(1), owed));
        assert_eq!(summary.bytes(&[9; 16]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(block in proptest::collection::vec(any::<u8>(), 0..4200)) {
            let _ = Head::read(&block);
            let _ = Summary::read(&block, &[0; 16]);
        }
    }

    #[test]
    fn names_of_segments_are_told_apart_from_others() {
        assert!(is_segment(&main_name(1)) && is_segment(&side_name(OwnerId(3), 1)));
        for other in ["spare-1.wal", "owner-0001.cur", "LOCK", ".wal", "x.wal", "corrupt-1-2.bin"] {
            assert!(!is_segment(other), "{other}");
        }
        assert_eq!(main_first(&main_name(0x1234)), Some(0x1234));
        assert_eq!(main_first(&side_name(OwnerId(3), 1)), None);
    }
}
