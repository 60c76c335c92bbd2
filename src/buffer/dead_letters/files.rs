//! The files of dead letters: one that grows, older ones with numbers, all together under a limit.
//!
//! Enters: whole lines. Leaves: `dead-letters.jsonl`, and `dead-letters.jsonl.N` with growing N when it has reached its
//! size. Can go wrong: the disk is full or broken; then what was written of the lines is taken back, and the caller
//! tries again. Called on a thread that may block.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::FlockOperation;

use crate::observe::counters::Letters as Counters;

/// The file that grows.
pub const NAME: &str = "dead-letters.jsonl";
/// Its largest size, unless the limit of all is small.
const ROTATE: u64 = 8 << 20;
/// How much of a file's end is looked at at a time for the last whole line.
const STEP: u64 = 64 * 1024;

struct Open {
    file: File,
    len: u64,
    inode: (u64, u64),
}

/// The writer's view of the directory.
pub(super) struct Files {
    dir: PathBuf,
    limit: u64,
    lock: Option<File>,
    open: Option<Open>,
    /// Numbers and sizes of the older files, oldest first.
    older: Vec<(u64, u64)>,
    counters: Arc<Counters>,
}

/// The number of an older file.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix(NAME)?.strip_prefix('.')?.parse().ok()
}

/// The files of dead letters in a directory, oldest first: numbers, then the one that grows.
///
/// # Errors
/// The directory cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let rank = if name == NAME { Some(u64::MAX) } else { number(name) };
        found.extend(rank.map(|rank| (rank, dir.join(name))));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Takes a directory of dead letters for this process until the handle is dropped.
///
/// # Errors
/// `WouldBlock` when another process has it.
pub fn lock(dir: &Path) -> io::Result<File> {
    let handle = File::open(dir)?;
    rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
    Ok(handle)
}

impl Files {
    pub(super) fn new(dir: PathBuf, limit: u64, counters: Arc<Counters>) -> Files {
        Files { dir, limit, lock: None, open: None, older: Vec::new(), counters }
    }

    fn path(&self, number: Option<u64>) -> PathBuf {
        self.dir.join(number.map_or_else(|| NAME.to_owned(), |n| format!("{NAME}.{n}")))
    }

    /// Makes the directory, takes it, and opens the file; logs are private, so both are their user's alone, as the
    /// write-ahead log is. Cuts off a last line that a crash has torn: nobody was told that it is kept.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.lock.is_none() {
            let made = !self.dir.is_dir();
            DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            self.lock = Some(lock(&self.dir)?);
            if let Some(parent) = self.dir.parent().filter(|p| made && !p.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let path = self.path(None);
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let meta = file.metadata()?;
        let whole = whole_lines(&file, meta.len())?;
        if whole < meta.len() {
            tracing::warn!(file = %path.display(), bytes = meta.len() - whole, "a torn last line of dead letters was cut off");
            file.set_len(whole)?;
        }
        File::open(&self.dir)?.sync_all()?;
        self.open = Some(Open { file, len: whole, inode: (meta.dev(), meta.ino()) });
        self.look()
    }

    fn look(&mut self) -> io::Result<()> {
        self.older = list(&self.dir)?
            .iter()
            .filter_map(|path| Some((number(path.file_name()?.to_str()?)?, fs::metadata(path).ok()?.len())))
            .collect();
        Ok(())
    }

    /// Opens the file again if its path no longer names it: someone has taken it away.
    pub(super) fn check(&mut self) -> io::Result<()> {
        let named = fs::metadata(self.path(None)).ok().map(|m| (m.dev(), m.ino()));
        if self.open.as_ref().is_none_or(|open| Some(open.inode) != named) {
            self.open = None;
            self.open()?;
        }
        Ok(())
    }

    /// Appends whole lines, not yet synced.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let size = lines.len() as u64;
        let full = ROTATE.min(self.limit / 4);
        if self.open.as_ref().is_some_and(|open| open.len > 0 && open.len + size > full) {
            self.rotate()?;
        }
        self.make_room(size);
        let Some(open) = &mut self.open else { return Err(io::Error::other("the file is not open")) };
        if let Err(e) = open.file.write_all(lines) {
            // What was written of them would be a torn line. If it cannot be taken back, opening cuts it.
            if open.file.set_len(open.len).is_err() {
                self.open = None;
            }
            return Err(e);
        }
        open.len += size;
        Ok(())
    }

    /// What was appended is on disk after this. After an error that is not known of anything since the last sync, and a
    /// second sync of this file could say what is not true: the next lines go to another one.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let result = match &self.open {
            Some(open) => open.file.sync_data(),
            None => Err(io::Error::other("the file is not open")),
        };
        if result.is_err() {
            self.move_away().unwrap_or_default();
        }
        result
    }

    fn rotate(&mut self) -> io::Result<()> {
        if let Some(open) = &self.open {
            open.file.sync_data()?;
        }
        self.move_away()?;
        self.open()
    }

    /// Gives the file the next number.
    fn move_away(&mut self) -> io::Result<()> {
        self.open = None;
        self.look()?;
        let next = self.older.last().map_or(1, |(number, _)| number + 1);
        fs::rename(self.path(None), self.path(Some(next)))
    }

    /// Removes the oldest files while the limit would be passed.
    fn make_room(&mut self, size: u64) {
        let used = self.open.as_ref().map_or(0, |open| open.len);
        while self.older.iter().map(|(_, size)| size).sum::<u64>() + used + size > self.limit
            && !self.older.is_empty()
        {
            let (number, _) = self.older.remove(0);
            let path = self.path(Some(number));
            let lines = count_lines(&path).unwrap_or(0);
            match fs::remove_file(&path) {
                Ok(()) => {
                    self.counters.removed.fetch_add(lines, Relaxed);
                    tracing::warn!(file = %path.display(), letters = lines, limit = self.limit,
                        "the oldest dead letters were removed: dead_letter.limit is reached");
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => {
                    tracing::error!(file = %path.display(), cause = %e, "cannot remove the oldest dead letters");
                }
            }
        }
    }
}

/// Where the last whole line ends.
fn whole_lines(file: &File, len: u64) -> io::Result<u64> {
    let mut end = len;
    let mut block = vec![0; STEP as usize];
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let part = block.get_mut(..(end - start) as usize).unwrap_or_default();
        file.read_exact_at(part, start)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn count_lines(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut block = vec![0; STEP as usize];
    let mut lines = 0;
    loop {
        let n = file.read(&mut block)?;
        if n == 0 {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', block.get(..n).unwrap_or_default()).count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path, limit: u64) -> Files {
        Files::new(dir.join("dead"), limit, Arc::default())
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |p: &PathBuf| p.file_name().unwrap().to_str().unwrap().to_owned();
        list(&dir.join("dead")).unwrap().iter().map(name).collect()
    }

    #[test]
    fn a_torn_last_line_is_cut_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("dead")).unwrap();
        let path = dir.path().join("dead").join(NAME);
        let long = "x".repeat(200_000);
        for (before, want) in [
            ("one\ntwo".to_owned(), "one\n3\n".to_owned()),
            (format!("one\n{long}"), "one\n3\n".to_owned()),
            (long.clone(), "3\n".to_owned()),
            (format!("{long}\n"), format!("{long}\n3\n")),
        ] {
            fs::write(&path, before).unwrap();
            let mut files = files(dir.path(), 1 << 20);
            files.check().unwrap();
            files.append(b"3\n").unwrap();
            files.sync().unwrap();
            assert!(fs::read_to_string(&path).unwrap() == want);
        }
    }

    #[test]
    fn a_full_file_gets_the_next_number_and_the_oldest_goes_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), 400);
        files.check().unwrap();
        let line = [&[b'x'; 49][..], b"\n"].concat();
        for _ in 0..8 {
            files.append(&line).unwrap();
        }
        // Four files of two lines each fill the limit.
        assert_eq!(
            names(dir.path()),
            ["dead-letters.jsonl.1", "dead-letters.jsonl.2", "dead-letters.jsonl.3", NAME]
        );
        assert_eq!(files.counters.removed.load(Relaxed), 0);
        for _ in 0..4 {
            files.append(&line).unwrap();
        }
        assert_eq!(
            names(dir.path()),
            ["dead-letters.jsonl.3", "dead-letters.jsonl.4", "dead-letters.jsonl.5", NAME]
        );
        assert_eq!(files.counters.removed.load(Relaxed), 4);
        // Numbers go on after a restart.
        drop(files);
        let mut files = self::files(dir.path(), 400);
        files.check().unwrap();
        files.append(&[&line[..], &line, &line].concat()).unwrap();
        assert_eq!(names(dir.path()), ["dead-letters.jsonl.5", "dead-letters.jsonl.6", NAME]);
    }

    #[test]
    fn what_is_made_is_its_users_alone_and_what_is_there_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (place, path) = (dir.path().join("dead"), dir.path().join("dead").join(NAME));
        let mut files = files(dir.path(), 400);
        files.check().unwrap();
        assert_eq!((mode(&place), mode(&path)), (0o700, 0o600));
        // Somebody lets a group read them.
        fs::set_permissions(&place, fs::Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        drop(files);
        let mut files = self::files(dir.path(), 400);
        files.check().unwrap();
        files.append(&[b'x'; 99]).unwrap();
        assert_eq!((mode(&place), mode(&path)), (0o750, 0o640));
        // The one that is begun next is private again.
        files.append(b"x\n").unwrap();
        assert_eq!((names(dir.path()).len(), mode(&path)), (2, 0o600));
    }

    #[test]
    fn a_file_that_was_taken_away_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), 1 << 20);
        files.check().unwrap();
        files.append(b"1\n").unwrap();
        let path = dir.path().join("dead").join(NAME);
        fs::rename(&path, path.with_extension("away")).unwrap();
        files.check().unwrap();
        files.append(b"2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
    }

    #[test]
    fn two_processes_cannot_write_to_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = files(dir.path(), 1 << 20);
        first.check().unwrap();
        let e = files(dir.path(), 1 << 20).check().unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
        drop(first);
        files(dir.path(), 1 << 20).check().unwrap();
    }
}
