//! The file system as the log sees it: one directory, flat names, positioned reads and writes.
//!
//! All of the log's input and output goes through these traits, so that the tests can cut the power between any two
//! calls. Nothing is mapped into memory: a full disk must be an error, not a signal.

use std::io::{self, IoSlice};
use std::sync::Arc;

/// A directory of the log.
pub trait Vfs: Send + Sync {
    /// What to call it in messages: its path.
    fn place(&self) -> String {
        "storage.path".to_owned()
    }

    /// Takes the directory for this process until the lock is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it.
    fn lock(&self) -> io::Result<Box<dyn Lock>>;

    /// Makes a new, empty file for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists`, or what the system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file that exists for reading and writing.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, replacing what has it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of all files.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Brings names made, changed and removed so far to the disk.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that may still be written, and the size of the volume.
    ///
    /// # Errors
    /// What the system says.
    fn space(&self) -> io::Result<(u64, u64)>;
}

/// Held while a process works on the directory.
pub trait Lock: Send + Sync {}

/// A file.
pub trait File: Send + Sync {
    /// Fills as much of `buf` as there is from `offset`; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Appends to `buf` up to `len` bytes from `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// What the system says; then nothing is appended.
    fn read_more(&self, buf: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<()> {
        let before = buf.len();
        buf.resize(before + len, 0);
        let read = self.read_at(buf.get_mut(before..).unwrap_or_default(), offset);
        buf.truncate(before + *read.as_ref().unwrap_or(&0));
        read.map(|_| ())
    }

    /// Writes all of `parts`, back to back, from `offset`.
    ///
    /// # Errors
    /// What the system says; then any part of it may have been written.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Brings what was written to the disk. An error is final: what was written since the last success may be gone,
    /// and another call that succeeds says nothing about it.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;

    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Cuts it, or extends it with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_size(&self, size: u64) -> io::Result<()>;
}
