//! How far one owner has come, in a file of its own that never grows.
//!
//! Enters: the owner's name once, its position again and again. Leaves: the newest position that reached the disk. Two
//! slots are written in turn, so that one torn write costs at most the step from the position before. Can go wrong: both
//! slots damaged; then the owner begins at the oldest frame: repeated, not lost.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use super::vfs::{File, Vfs};
use super::{OwnerId, Seq};
use crate::rt::Marks;

const MAGIC: [u8; 8] = *b"FIRELCUR";
const VERSION: u32 = 1;
const BLOCK: usize = 4096;
/// Name and numbers, twice, then the two slots.
const SIZE: usize = 4 * BLOCK;
/// The blocks of the slots.
const SLOTS: [usize; 2] = [2, 3];
/// A longer name is cut (with a hash, by whoever makes names).
const NAME_MAX: usize = 3000;
/// Set in the count of unsettled frames: marks of records follow them.
const PARTLY: u32 = 1 << 31;
/// Unsettled frames that fit a slot.
pub(super) const UNSETTLED: usize = (BLOCK - 40) / 8;

/// Where an owner stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Frames from here on have not been handed out.
    pub(super) read: Seq,
    /// Frames before that were handed out and are not settled, in order. All others before `read` are settled.
    pub(super) unsettled: Vec<Seq>,
    /// Of some of those: records that are settled all the same.
    pub(super) partly: BTreeMap<Seq, Marks>,
}

/// A cursor file.
pub(super) struct Cursor {
    file: Arc<dyn File>,
    /// Counts writes; the newer slot has the higher one.
    generation: u64,
    /// The slot with the newest position that is on the disk. The other one is written, again and again, until it is on
    /// the disk, too: else a power cut could take both.
    synced: usize,
    /// The other one was written since.
    written: bool,
    /// Unix time when the owner was last configured.
    pub(super) seen: u64,
    pub(super) name: String,
    pub(super) id: OwnerId,
}

/// What a cursor file holds.
pub(super) enum Found {
    /// The position is `None` when both slots are damaged.
    Cursor(Cursor, Option<Position>),
    /// By a later firelane.
    Newer(u32),
    /// Not a cursor.
    Bad,
}

pub(super) fn file_name(id: OwnerId) -> String {
    format!("owner-{:04x}.cur", id.0)
}

fn head(id: OwnerId, name: &str, seen: u64) -> Vec<u8> {
    let name = name.as_bytes().get(..name.len().min(NAME_MAX)).unwrap_or_default();
    let mut out = Vec::with_capacity(BLOCK);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&u32::from(id.0).to_le_bytes());
    out.extend_from_slice(&seen.to_le_bytes());
    out.extend_from_slice(&(name.len() as u32).to_le_bytes());
    out.extend_from_slice(name);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.resize(BLOCK, 0);
    out
}

/// A name as the file gives it back.
fn read_back(name: &str) -> String {
    String::from_utf8_lossy(name.as_bytes().get(..name.len().min(NAME_MAX)).unwrap_or_default()).into_owned()
}

fn read_head(block: &[u8]) -> Option<Result<(OwnerId, String, u64), u32>> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
    if block.get(..8)? != MAGIC {
        return None;
    }
    let len = u32_at(24)? as usize;
    if len > NAME_MAX || u32_at(28 + len)? != crc32c::crc32c(block.get(..28 + len)?) {
        return None;
    }
    if u32_at(8)? != VERSION {
        return Some(Err(u32_at(8)?));
    }
    let name = String::from_utf8_lossy(block.get(28..28 + len)?).into_owned();
    let seen = u64::from_le_bytes(block.get(16..24)?.try_into().ok()?);
    Some(Ok((OwnerId(u16::try_from(u32_at(12)?).ok()?), name, seen)))
}

fn slot(generation: u64, position: &Position) -> Vec<u8> {
    let mut read = position.read;
    let mut kept = position.unsettled.as_slice();
    // What does not fit is as good as not handed out: it comes again, it is not lost.
    if let Some((fits, rest)) = kept.split_at_checked(UNSETTLED)
        && let Some(first) = rest.first()
    {
        (kept, read) = (fits, *first);
    }
    let mut out = vec![0; 4];
    out.extend_from_slice(&(kept.len() as u32).to_le_bytes());
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&read.to_le_bytes());
    for seq in kept {
        out.extend_from_slice(&seq.to_le_bytes());
    }
    let mut marks = Vec::new();
    for (index, seq) in kept.iter().enumerate() {
        let Some(done) = position.partly.get(seq).map(Marks::bytes) else { continue };
        // Marks that do not fit are as good as not made.
        if out.len() + 2 + marks.len() + 4 + done.len() <= BLOCK {
            marks.extend_from_slice(&(index as u16).to_le_bytes());
            marks.extend_from_slice(&(done.len() as u16).to_le_bytes());
            marks.extend_from_slice(done);
        }
    }
    if !marks.is_empty() {
        if let Some(place) = out.get_mut(4..8) {
            place.copy_from_slice(&(kept.len() as u32 | PARTLY).to_le_bytes());
        }
        out.extend_from_slice(&(marks.len() as u16).to_le_bytes());
        out.extend_from_slice(&marks);
    }
    let crc = crc32c::crc32c(out.get(4..).unwrap_or_default());
    if let Some(place) = out.get_mut(..4) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
    out
}

fn read_slot(block: &[u8]) -> Option<(u64, Position)> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(block.get(at..at + 8)?.try_into().ok()?));
    let u16_at = |at: usize| Some(usize::from(u16::from_le_bytes(block.get(at..at + 2)?.try_into().ok()?)));
    let (len, has_marks) = ((u32_at(4)? & !PARTLY) as usize, u32_at(4)? & PARTLY != 0);
    if len > UNSETTLED {
        return None;
    }
    let mut end = 24 + len * 8;
    let mut at = end + 2;
    if has_marks {
        end = at + u16_at(end)?;
    }
    if u32_at(0)? != crc32c::crc32c(block.get(4..end)?) {
        return None;
    }
    let unsettled: Vec<Seq> = (0..len).map(|i| u64_at(24 + i * 8)).collect::<Option<_>>()?;
    let mut partly = BTreeMap::new();
    while has_marks && at < end {
        let done = block.get(at + 4..at + 4 + u16_at(at + 2)?)?;
        partly.insert(*unsettled.get(u16_at(at)?)?, Marks::from_bytes(done));
        at += 4 + done.len();
    }
    Some((u64_at(8)?, Position { read: u64_at(16)?, unsettled, partly }))
}

impl Cursor {
    /// Makes the file of a new owner, whole and on disk: later it needs no space.
    pub(super) fn create(
        vfs: &dyn Vfs,
        id: OwnerId,
        name: &str,
        seen: u64,
        position: &Position,
    ) -> io::Result<Cursor> {
        let file_name = file_name(id);
        let made = format!("{file_name}.new");
        drop(vfs.remove(&made));
        let file = vfs.create(&made)?;
        let mut bytes = head(id, name, seen);
        bytes.extend(head(id, name, seen));
        bytes.extend(slot(1, position));
        bytes.resize(SIZE, 0);
        file.write_at(&[IoSlice::new(&bytes)], 0)?;
        file.sync()?;
        vfs.rename(&made, &file_name)?;
        vfs.sync_dir()?;
        Ok(Cursor { file, generation: 1, synced: SLOTS[0], written: false, seen, name: name.to_owned(), id })
    }

    /// Reads a file.
    pub(super) fn open(vfs: &dyn Vfs, name: &str) -> io::Result<Found> {
        let file = vfs.open(name)?;
        let mut bytes = vec![0; SIZE];
        let n = file.read_at(&mut bytes, 0)?;
        bytes.truncate(n);
        let block = |i: usize| bytes.get(i * BLOCK..).unwrap_or_default();
        let head = [0, 1].into_iter().find_map(|i| read_head(block(i)));
        let (id, name, seen) = match head {
            Some(Ok(head)) => head,
            Some(Err(version)) => return Ok(Found::Newer(version)),
            None => return Ok(Found::Bad),
        };
        // A process that was killed may not have synced what is read here; what is done from here on relies on it.
        file.sync()?;
        let slots = SLOTS.into_iter().filter_map(|i| read_slot(block(i)).map(|(g, p)| (g, p, i)));
        let newest = slots.max_by_key(|(g, ..)| *g);
        let (generation, synced) = newest.as_ref().map_or((1, SLOTS[0]), |(g, _, i)| (*g, *i));
        let cursor = Cursor { file, generation, synced, written: false, seen, name, id };
        Ok(Found::Cursor(cursor, newest.map(|(_, p, _)| p)))
    }

    fn other(&self) -> usize {
        if self.synced == SLOTS[0] { SLOTS[1] } else { SLOTS[0] }
    }

    /// Writes a position into the older slot. It counts once [`Cursor::sync`] has returned.
    pub(super) fn write(&mut self, position: &Position) -> io::Result<()> {
        let generation = self.generation + 1;
        let place = self.other() * BLOCK;
        self.file.write_at(&[IoSlice::new(&slot(generation, position))], place as u64)?;
        (self.generation, self.written) = (generation, true);
        Ok(())
    }

    /// Notes that the owner is configured now.
    pub(super) fn seen(&mut self, now: u64) -> io::Result<()> {
        if self.seen != now {
            let head = head(self.id, &self.name, now);
            for copy in 0..2 {
                self.file.write_at(&[IoSlice::new(&head)], copy * BLOCK as u64)?;
                self.file.sync()?;
            }
            self.seen = now;
        }
        Ok(())
    }

    /// Whether it is the cursor of this owner. Names are cut in the file.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.name == name || (self.name.len() < name.len() && self.name == read_back(name))
    }

    /// Brings it to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        if self.written {
            (self.synced, self.written) = (self.other(), false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_position_reads_back(generation in any::<u64>(), read in any::<u64>(), unsettled in proptest::collection::vec(any::<u64>(), 0..=UNSETTLED)) {
            let position = Position { read, unsettled, ..Position::default() };
            let mut block = slot(generation, &position);
            prop_assert!(block.len() <= BLOCK);
            block.resize(BLOCK, 0xaa);
            prop_assert_eq!(read_slot(&block), Some((generation, position)));
        }

        #[test]
        fn marks_read_back_and_those_without_room_are_left_out(
            frames in proptest::collection::btree_map(any::<u64>(), proptest::option::of(proptest::collection::vec(0usize..4000, 1..40)), 1..400),
        ) {
            let marks = |records: &Vec<usize>| {
                let mut marks = Marks::default();
                records.iter().for_each(|n| marks.set(*n));
                marks
            };
            let partly = frames.iter().filter_map(|(seq, m)| Some((*seq, marks(m.as_ref()?)))).collect();
            let position = Position { read: 7, unsettled: frames.keys().copied().collect(), partly };
            let mut block = slot(3, &position);
            prop_assert!(block.len() <= BLOCK);
            block.resize(BLOCK, 0xaa);
            let (generation, found) = read_slot(&block).unwrap();
            prop_assert_eq!((generation, found.read, &found.unsettled), (3, 7, &position.unsettled));
            prop_assert!(found.partly.iter().all(|(seq, m)| position.partly.get(seq) == Some(m)));
            let needed: usize = position.partly.values().map(|m| 4 + m.bytes().len()).sum();
            if 26 + 8 * position.unsettled.len() + needed <= BLOCK {
                prop_assert_eq!(found.partly, position.partly);
            }
        }

        #[test]
        fn any_bytes_never_panic(block in proptest::collection::vec(any::<u8>(), 0..4200)) {
            let _ = read_slot(&block);
            let _ = read_head(&block);
        }
    }

    #[test]
    fn what_does_not_fit_is_as_if_not_handed_out() {
        let unsettled: Vec<Seq> = (100..100 + UNSETTLED as u64 + 50).collect();
        let position = Position { read: 9999, unsettled, ..Position::default() };
        let (_, kept) = read_slot(&slot(1, &position)).unwrap();
        assert_eq!((kept.unsettled.len(), kept.read), (UNSETTLED, 100 + UNSETTLED as u64));
    }

    #[test]
    fn a_name_reads_back_whatever_it_holds() {
        for name in ["file|Match=*|Path=/x", "", "ключ", &"n".repeat(5000)] {
            let (id, found, seen) = read_head(&head(OwnerId(7), name, 123)).unwrap().unwrap();
            assert_eq!((id, seen), (OwnerId(7), 123));
            assert!(name.starts_with(&found));
        }
    }
}
