//! Which segments there must be, so that one that is gone is missed: the numbers of frames do not tell, for a segment
//! that nobody needs is freed wherever it stands.
//!
//! Enters: the first numbers of the segments that somebody needs, whenever they change; on disk before one of them is
//! freed. Leaves: the same at the next start. It is a file as an owner's cursor is, of owner 0, whom no output is: made
//! once, so that freeing needs no space. Can go wrong: no room to make it; then nothing is missed until a start finds
//! the room.

use std::io;

use super::cursor::{Cursor, Position};
use super::vfs::Vfs;
use super::{OwnerId, Seq};

/// In the place of an owner's number.
pub(super) const ID: OwnerId = OwnerId(0);
const NAME: &str = "segments";

/// The list.
pub(super) struct Inventory {
    cursor: Cursor,
    listed: Vec<Seq>,
    /// What is listed was written.
    written: bool,
    /// It was written and not synced.
    unsynced: bool,
}

impl Inventory {
    /// Makes the file, with nothing in it.
    pub(super) fn create(vfs: &dyn Vfs) -> io::Result<Inventory> {
        Ok(Inventory::found(Cursor::create(vfs, ID, NAME, 0, &Position::default())?, Vec::new()))
    }

    /// Goes on with the file of an earlier process.
    pub(super) fn found(cursor: Cursor, listed: Vec<Seq>) -> Inventory {
        Inventory { cursor, listed, written: true, unsynced: false }
    }

    /// Writes the list if it has changed; `next` is the number that the next frame gets.
    pub(super) fn write(&mut self, listed: impl Iterator<Item = Seq> + Clone, next: Seq) -> io::Result<()> {
        if !listed.clone().eq(self.listed.iter().copied()) {
            (self.listed, self.written) = (listed.collect(), false);
        }
        if !self.written {
            let position = Position { read: next, unsettled: self.listed.clone(), ..Position::default() };
            self.cursor.write(&position)?;
            (self.written, self.unsynced) = (true, true);
        }
        Ok(())
    }

    /// Whether it is yet to be brought to the disk.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Brings it to the disk if it is not there.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            if let Err(e) = self.cursor.sync() {
                // Nobody knows which list is there.
                self.written = false;
                return Err(e);
            }
            self.unsynced = false;
        }
        Ok(())
    }
}
