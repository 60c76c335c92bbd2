//! How far one owner has come, in a file of its own that never grows.
//!
//! Enters: the owner's name once, its position again and again. Leaves: the newest position that reached the disk. Two
//! slots (see [`slot`]) are written in turn, so that one torn write costs at most the step from the position before. Can go wrong: both
//! slots damaged; then the owner begins at the oldest frame: repeated, not lost.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use super::vfs::{File, Vfs};
use super::{OwnerId, Seq, slot};
use crate::rt::Marks;

const MAGIC: [u8; 8] = *b"FIRELCUR";
/// Files of version 1 have slots of 4 KiB, and are used as they are; see docs/wal.md.
pub(super) const VERSION: u32 = 2;
const BLOCK: usize = 4096;
/// Name and numbers, twice; then the two slots.
const SLOTS: usize = 2 * BLOCK;
/// Bytes of a slot, by version. Most are never written: a slot is as long as what it says.
const SLOT: [usize; 2] = [4096, 16_384];
/// A longer name is cut (with a hash, by whoever makes names).
const NAME_MAX: usize = 3000;

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

impl Position {
    /// Frames up to this number were on the disk when it was written, except those whose append had failed.
    pub(super) fn promised(&self) -> Seq {
        self.read.saturating_sub(1).max(self.unsettled.last().copied().unwrap_or(0))
    }
}

/// A cursor file.
pub(super) struct Cursor {
    file: Arc<dyn File>,
    /// Bytes of each slot.
    slot: usize,
    /// Counts writes; the newer slot has the higher one.
    generation: u64,
    /// The slot with the newest position that is on the disk. The other one is written, again and again, until it is on
    /// the disk, too: else a power cut could take both. 0 or 1.
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

/// The file that says that there is such an owner, beside its cursor.
fn id_name(id: OwnerId) -> String {
    format!("owner-{:04x}.id", id.0)
}

fn head(id: OwnerId, name: &str, seen: u64, slot: usize) -> Vec<u8> {
    let version = SLOT.iter().position(|s| *s == slot).map_or(VERSION, |v| v as u32 + 1);
    let name = name.as_bytes().get(..name.len().min(NAME_MAX)).unwrap_or_default();
    let mut out = Vec::with_capacity(BLOCK);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&version.to_le_bytes());
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

/// Owner, name, when it was last configured, and bytes of a slot; or a version that nobody here knows.
fn read_head(block: &[u8]) -> Option<Result<(OwnerId, String, u64, usize), u32>> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
    if block.get(..8)? != MAGIC {
        return None;
    }
    let len = u32_at(24)? as usize;
    if len > NAME_MAX || u32_at(28 + len)? != crc32c::crc32c(block.get(..28 + len)?) {
        return None;
    }
    let version = u32_at(8)?;
    let Some(slot) = version.checked_sub(1).and_then(|v| SLOT.get(v as usize)) else {
        return Some(Err(version));
    };
    let name = String::from_utf8_lossy(block.get(28..28 + len)?).into_owned();
    let seen = u64::from_le_bytes(block.get(16..24)?.try_into().ok()?);
    Some(Ok((OwnerId(u16::try_from(u32_at(12)?).ok()?), name, seen, *slot)))
}

/// How the file beside a cursor reads.
pub(super) enum Known {
    /// There is this owner.
    Owner(OwnerId, String),
    /// By a later firelane.
    Newer(u32),
    /// It says nothing.
    Bad,
}

/// Whether the name is that of a file beside a cursor.
pub(super) fn is_id(name: &str) -> bool {
    name.starts_with("owner-") && name.ends_with(".id")
}

/// The owner of a cursor, by its file's name.
pub(super) fn owner_of(name: &str) -> Option<OwnerId> {
    let id = name.strip_prefix("owner-")?.strip_suffix(".cur")?;
    u16::from_str_radix(id, 16).ok().map(OwnerId)
}

/// Notes beside the cursor who its owner is: should somebody remove the one or the disk lose it, the other tells that the
/// output is not new. The caller syncs the directory.
pub(super) fn write_id(vfs: &dyn Vfs, id: OwnerId, name: &str) -> io::Result<()> {
    let file_name = id_name(id);
    let file = match vfs.create(&file_name) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => vfs.open(&file_name),
        other => other,
    }?;
    let [.., slot] = SLOT;
    file.write_at(&[IoSlice::new(&head(id, name, 0, slot))], 0)?;
    file.sync()
}

/// Reads a file beside a cursor.
pub(super) fn read_id(vfs: &dyn Vfs, name: &str) -> io::Result<Known> {
    let mut block = vec![0; BLOCK];
    let n = vfs.open(name)?.read_at(&mut block, 0)?;
    block.truncate(n);
    Ok(match read_head(&block) {
        Some(Ok((id, name, ..))) => Known::Owner(id, name),
        Some(Err(version)) => Known::Newer(version),
        None => Known::Bad,
    })
}

/// Takes the note away that there is such an owner, and brings that to the disk: before its cursor goes, or the next start
/// would take it for lost.
pub(super) fn remove_id(vfs: &dyn Vfs, id: OwnerId) -> io::Result<()> {
    match vfs.remove(&id_name(id)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| vfs.sync_dir()),
    }
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
        let [.., slot] = SLOT;
        let mut bytes = head(id, name, seen, slot);
        bytes.extend(head(id, name, seen, slot));
        bytes.extend(slot::write(1, position, slot));
        bytes.resize(SLOTS + 2 * slot, 0);
        file.write_at(&[IoSlice::new(&bytes)], 0)?;
        file.sync()?;
        vfs.rename(&made, &file_name)?;
        vfs.sync_dir()?;
        Ok(Cursor { file, slot, generation: 1, synced: 0, written: false, seen, name: name.to_owned(), id })
    }

    /// Reads a file.
    pub(super) fn open(vfs: &dyn Vfs, name: &str) -> io::Result<Found> {
        let file = vfs.open(name)?;
        let mut bytes = vec![0; SLOTS + 2 * SLOT[1]];
        let n = file.read_at(&mut bytes, 0)?;
        bytes.truncate(n);
        let from = |at: usize| bytes.get(at..).unwrap_or_default();
        let head = [0, BLOCK].into_iter().find_map(|at| read_head(from(at)));
        let (id, name, seen, slot) = match head {
            Some(Ok(head)) => head,
            Some(Err(version)) => return Ok(Found::Newer(version)),
            None => return Ok(Found::Bad),
        };
        // A process that was killed may not have synced what is read here; what is done from here on relies on it.
        file.sync()?;
        let slots = [0, 1].into_iter().filter_map(|i| {
            let bytes = from(SLOTS + i * slot);
            slot::read(bytes.get(..slot).unwrap_or(bytes)).map(|(g, p)| (g, p, i))
        });
        let newest = slots.max_by_key(|(g, ..)| *g);
        let (generation, synced) = newest.as_ref().map_or((1, 0), |(g, _, i)| (*g, *i));
        let cursor = Cursor { file, slot, generation, synced, written: false, seen, name, id };
        Ok(Found::Cursor(cursor, newest.map(|(_, p, _)| p)))
    }

    /// Writes a position into the older slot. It counts once [`Cursor::sync`] has returned.
    pub(super) fn write(&mut self, position: &Position) -> io::Result<()> {
        let generation = self.generation + 1;
        let place = SLOTS + (1 - self.synced) * self.slot;
        self.file.write_at(&[IoSlice::new(&slot::write(generation, position, self.slot))], place as u64)?;
        (self.generation, self.written) = (generation, true);
        Ok(())
    }

    /// Notes that the owner is configured now.
    pub(super) fn seen(&mut self, now: u64) -> io::Result<()> {
        if self.seen != now {
            let head = head(self.id, &self.name, now, self.slot);
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
            (self.synced, self.written) = (1 - self.synced, false);
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
        fn any_bytes_are_a_head_or_none(block in proptest::collection::vec(any::<u8>(), 0..4200)) {
            let _ = read_head(&block);
        }
    }

    #[test]
    fn a_cursors_owner_is_known_by_its_files_name() {
        assert_eq!(owner_of(&file_name(OwnerId(0x1a2))), Some(OwnerId(0x1a2)));
        assert!(is_id(&id_name(OwnerId(7))) && !is_id(&file_name(OwnerId(7))));
        assert_eq!(owner_of(&id_name(OwnerId(7))), None);
    }

    #[test]
    fn a_name_reads_back_whatever_it_holds() {
        for name in ["file|Match=*|Path=/x", "", "ключ", &"n".repeat(5000)] {
            for slot in SLOT {
                let (id, found, seen, size) = read_head(&head(OwnerId(7), name, 123, slot)).unwrap().unwrap();
                assert_eq!((id, seen, size), (OwnerId(7), 123, slot));
                assert!(name.starts_with(&found));
            }
        }
    }
}
