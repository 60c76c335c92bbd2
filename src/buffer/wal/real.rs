//! The log's directory on a real file system.
//!
//! Enters: names and bytes. Leaves: files. Can go wrong: what the system says; nothing is retried here but
//! interruptions.

use std::fs::{DirBuilder, File as StdFile, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::vfs::{File, Lock, Vfs};

/// A directory.
pub struct Dir {
    path: PathBuf,
    /// Kept open for `fsync` and `fstatvfs`.
    handle: OwnedFd,
}

impl Dir {
    /// Opens the directory, making it (mode 0700: logs are private) and its parents if need be.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Dir> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Dir { path: path.to_path_buf(), handle: OwnedFd::from(StdFile::open(path)?) })
    }

    fn file(&self, name: &str, new: bool) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(new)
            .mode(0o600)
            .open(self.path.join(name))?;
        Ok(Arc::new(OnDisk(file)))
    }
}

struct Held {
    /// Closing it gives the lock back.
    _file: StdFile,
}

impl Lock for Held {}

impl Vfs for Dir {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn lock(&self) -> io::Result<Box<dyn Lock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join("LOCK"))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(Held { _file: file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.file(name, true)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.file(name, false)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            // Ours are ASCII, and plain files: `dead_letter/` lies here as well.
            if let Ok(name) = std::str::from_utf8(entry.file_name().as_bytes())
                && entry.file_type()?.is_file()
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.handle) {
            // Some network file systems cannot sync a directory; then names are as safe as they get.
            Err(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    fn space(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&self.handle)?;
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
    }
}

struct OnDisk(StdFile);

impl File for OnDisk {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..)
            && !rest.is_empty()
        {
            match self.0.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Without zeros first: what is behind with its output is read block after block.
    fn read_more(&self, buf: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<()> {
        let before = buf.len();
        buf.reserve_exact(len);
        while buf.len() < before + len {
            let at = offset.saturating_add((buf.len() - before) as u64);
            match rustix::io::pread(&self.0, rustix::buffer::spare_capacity(buf), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => {
                    buf.truncate(before);
                    return Err(e.into());
                }
            }
        }
        // There may have been more room than was asked for.
        buf.truncate(before + len);
        Ok(())
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        /// Most parts that the system takes at once.
        const PARTS: usize = 1024;
        let (mut at, mut first, mut inside) = (offset, 0, 0);
        loop {
            // What a short write left of a part goes first, alone.
            let part = parts.get(first).map_or(&[][..], |p| p);
            let result = match part.get(inside..) {
                Some(rest) if inside > 0 => rustix::io::pwrite(&self.0, rest, at),
                _ => {
                    let some = parts.get(first..parts.len().min(first + PARTS)).unwrap_or_default();
                    if some.is_empty() {
                        return Ok(());
                    }
                    rustix::io::pwritev(&self.0, some, at)
                }
            };
            let mut written = match result {
                Ok(0) if parts.iter().skip(first).all(|p| p.is_empty()) => return Ok(()),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            at = at.saturating_add(written as u64);
            while let Some(part) = parts.get(first) {
                let left = part.len() - inside;
                if written < left {
                    inside += written;
                    break;
                }
                written -= left;
                (first, inside) = (first + 1, 0);
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }
}
