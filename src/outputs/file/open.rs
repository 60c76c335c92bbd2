//! Open files: opening, the torn last line, noticing that a path names another file now.
//!
//! Enters: paths. Leaves: files to append to, at most [`OPEN_MAX`] at a time. Can go wrong: what opening can.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::outputs::format::Beginning;

/// Open files of one output.
pub(super) const OPEN_MAX: usize = 128;
/// How often a path is looked at.
const CHECK: Duration = Duration::from_secs(1);
/// A torn line longer than this is left alone.
const TORN_MAX: u64 = 16 << 20;

/// A file to append to.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// It has bytes that a sender waits for and that were not synced.
    pub(super) owed: bool,
    /// It was empty when it was opened.
    pub(super) was_empty: bool,
    id: (u64, u64),
    checked: Instant,
    used: u64,
}

impl Open {
    /// Opens the file for appending, creating it (and with `mkdir` its directories). A last line without an end is cut
    /// off if it begins as ours do (nobody was told that it was written), else it gets its end.
    pub(super) fn at(path: PathBuf, mkdir: bool, mut lines: Option<Beginning>) -> io::Result<Open> {
        let file = match append(&path, true) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && mkdir => {
                if let Some(parent) = path.parent() {
                    DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
                }
                append(&path, true)
            }
            // It may be written but perhaps not read: then its last line cannot be looked at.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                lines = None;
                append(&path, false)
            }
            other => other,
        }?;
        let mut meta = file.metadata()?;
        let file = if meta.is_file() {
            if let Some(lines) = lines {
                mend(&file, meta.len(), lines)?;
                meta = file.metadata()?;
            }
            file
        } else {
            // A pipe that is open for reading as well never says that its reader is gone.
            append(&path, false)?
        };
        let was_empty = meta.is_file() && meta.len() == 0;
        Ok(Open {
            path,
            file,
            owed: false,
            was_empty,
            id: (meta.dev(), meta.ino()),
            checked: Instant::now(),
            used: 0,
        })
    }

    /// Whether the path still names this file; looked up at most once a second.
    fn is_current(&mut self, now: Instant) -> bool {
        if now.duration_since(self.checked) < CHECK {
            return true;
        }
        self.checked = now;
        std::fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.id)
    }

    /// Brings everything owed to the disk. What cannot be synced (a pipe, a device) is as good as it gets.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !self.owed {
            return Ok(());
        }
        match self.file.sync_data() {
            Err(e) if !matches!(e.raw_os_error(), Some(22 | 95)) => Err(e),
            _ => {
                self.owed = false;
                Ok(())
            }
        }
    }
}

fn append(path: &Path, read: bool) -> io::Result<File> {
    OpenOptions::new().read(read).append(true).create(true).open(path)
}

/// Ends the file with a line end. A shared lock stands for "in use": whoever gets the exclusive one knows that nobody of
/// ours is writing, so that a line without an end is torn and not just on its way.
fn mend(file: &File, len: u64, lines: Beginning) -> io::Result<()> {
    if !ends_a_line(file, len)? && rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        // Looked at again: it may have been on its way a moment ago.
        let len = file.metadata()?.len();
        if !ends_a_line(file, len)? {
            match torn_tail(file, len)? {
                Some(tail) if lines.fits(&tail) => file.set_len(len - tail.len() as u64)?,
                _ => {
                    rustix::io::write(file, b"\n")?;
                }
            }
        }
    }
    // Where locks do not work, lines are not mended either.
    let _ = rustix::fs::flock(file, FlockOperation::NonBlockingLockShared);
    Ok(())
}

fn ends_a_line(file: &File, len: u64) -> io::Result<bool> {
    let Some(at) = len.checked_sub(1) else { return Ok(true) };
    let mut last = [0];
    file.read_exact_at(&mut last, at)?;
    Ok(last == *b"\n")
}

/// What follows the last line end; `None` when that is too long to be a line of ours.
fn torn_tail(file: &File, len: u64) -> io::Result<Option<Vec<u8>>> {
    let mut tail = Vec::new();
    let mut start = len;
    let mut step = [0; 64 << 10];
    while start > 0 && len - start < TORN_MAX {
        let size = start.min(step.len() as u64);
        start -= size;
        let Some(step) = step.get_mut(..size as usize) else { break };
        file.read_exact_at(step, start)?;
        if let Some(end) = memchr::memrchr(b'\n', step) {
            tail.splice(0..0, step.get(end + 1..).unwrap_or_default().iter().copied());
            return Ok(Some(tail));
        }
        tail.splice(0..0, step.iter().copied());
    }
    Ok((start == 0).then_some(tail))
}

/// The open files, the least recently used one closed for a new one.
#[derive(Debug, Default)]
pub(super) struct Files {
    open: std::collections::HashMap<Vec<u8>, Open, foldhash::fast::RandomState>,
    clock: u64,
    /// Where a file was made since the last sync: its name must reach the disk as well. All files of an output have
    /// the same directory.
    made_in: Option<PathBuf>,
    /// A file that could not be synced when it was closed: a second try would say nothing about what was lost, so the
    /// next [`Files::sync`] reports it.
    failed: Option<(Vec<u8>, io::Error)>,
}

/// A file that was asked for.
pub(super) struct Found<'a> {
    pub(super) open: &'a mut Open,
    /// It was opened just now: what another file got does not count here.
    pub(super) anew: bool,
}

impl Files {
    /// The file under this name, opened by `open` if it is not or if the path names another one now.
    pub(super) fn get(
        &mut self,
        name: &[u8],
        open: impl FnOnce() -> io::Result<Open>,
    ) -> io::Result<Found<'_>> {
        self.clock += 1;
        let now = Instant::now();
        let known = match self.open.get_mut(name) {
            Some(known) => {
                let current = known.is_current(now);
                if !current {
                    if let Err(e) = known.sync() {
                        self.failed.get_or_insert((name.to_vec(), e));
                    }
                    self.open.remove(name);
                }
                current
            }
            None => false,
        };
        if !known {
            self.make_room();
            let open = open()?;
            if open.was_empty {
                self.made_in = open.path.parent().map(Path::to_owned);
            }
            self.open.insert(name.to_vec(), open);
        }
        match self.open.get_mut(name) {
            Some(open) => {
                open.used = self.clock;
                Ok(Found { open, anew: !known })
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn make_room(&mut self) {
        if self.open.len() >= OPEN_MAX
            && let Some((name, oldest)) = self.open.iter_mut().min_by_key(|(_, open)| open.used)
        {
            let name = name.clone();
            if let Err(e) = oldest.sync() {
                self.failed.get_or_insert((name.clone(), e));
            }
            self.open.remove(&name);
        }
    }

    /// Closes a file, forgetting what it is owed.
    pub(super) fn forget(&mut self, name: &[u8]) {
        self.open.remove(name);
    }

    /// Syncs everything owed; with the error the name of the file.
    pub(super) fn sync(&mut self) -> Result<(), (Vec<u8>, io::Error)> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        for (name, open) in &mut self.open {
            open.sync().map_err(|e| (name.clone(), e))?;
        }
        if let Some(directory) = &self.made_in {
            let named = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            // One that may be written but not read cannot be synced; the files are.
            if let Ok(directory) = File::open(named) {
                directory.sync_all().map_err(|e| (Vec::new(), e))?;
            }
            self.made_in = None;
        }
        Ok(())
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
