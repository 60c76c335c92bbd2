//! The half of the file output that blocks: writes batches to files and syncs them.
//!
//! Enters: formatted groups. Leaves: bytes in files. Can go wrong: any of it; what was written is known to the byte.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;

use super::name;
use super::open::{Files, Open};
use crate::outputs::batch::{Group, Text};
use crate::outputs::drive::{Failure, Sink};
use crate::outputs::format::Beginning;

/// Where files are and which are open.
#[derive(Debug)]
pub(super) struct Writer {
    directory: Option<PathBuf>,
    /// One name for all tags.
    file: Option<String>,
    mkdir: bool,
    /// How lines begin; `None` when what is written has no lines.
    lines: Option<Beginning>,
    pub(super) files: Files,
}

impl Writer {
    pub(super) fn new(
        directory: Option<PathBuf>,
        file: Option<String>,
        mkdir: bool,
        lines: Option<Beginning>,
    ) -> Self {
        Writer { directory, file, mkdir, lines, files: Files::default() }
    }

    fn name(&self, group: &Group) -> Vec<u8> {
        match &self.file {
            Some(file) => file.clone().into_bytes(),
            None => name::of_tag(group.tag.as_bytes()),
        }
    }

    fn path(&self, name: &[u8]) -> PathBuf {
        match &self.directory {
            // Not `join`: an absolute name would leave the directory.
            Some(directory) => {
                let mut path = directory.clone().into_os_string();
                path.push("/");
                path.push(OsStr::from_bytes(name));
                path.into()
            }
            None => OsStr::from_bytes(name).into(),
        }
    }

    fn group(&mut self, name: &[u8], group: &mut Group, owed: bool) -> io::Result<()> {
        let (path, mkdir, lines) = (self.path(name), self.mkdir, self.lines);
        let found = self.files.get(name, || Open::at(path, mkdir, lines))?;
        let open = found.open;
        if found.anew && lines.is_some() {
            group.rewind_line();
        }
        if std::mem::take(&mut open.was_empty) && group.done == 0 {
            group.put_header();
        }
        open.owed |= owed;
        while !group.is_done() {
            let (written, result) = write_all(&open.file, group.piece());
            group.done += written;
            if let Err(e) = result {
                if lines.is_some() {
                    take_back(&open.file, group, written);
                }
                return Err(e);
            }
        }
        Ok(())
    }

    fn failure(&self, name: &[u8], e: &io::Error) -> Failure {
        let path = self.path(name);
        let what = match e.kind() {
            io::ErrorKind::NotFound => "create the directory or set Mkdir On",
            io::ErrorKind::PermissionDenied => "allow this user to write there",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room",
            io::ErrorKind::IsADirectory => "move the directory away",
            io::ErrorKind::ReadOnlyFilesystem => "mount it for writing",
            _ => "check the path and its file system",
        };
        Failure::of_write(format!("{}: {e}; {what}", path.display()))
    }
}

/// Writes everything, or says how much.
fn write_all(file: &File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..)
        && !rest.is_empty()
    {
        match rustix::io::write(file, rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(Errno::INTR) => {}
            Err(e) => return (written, Err(e.into())),
        }
    }
    (written, Ok(()))
}

/// After a write that stopped within a line: cuts the file back to the line end before, so that nobody reads half a
/// line while the disk is full, and a kill leaves none. If someone else has appended since, or it is no regular file,
/// the line is continued later where it stopped.
fn take_back(file: &File, group: &mut Group, written: usize) {
    let end = group.done;
    group.rewind_line();
    let begun = end - group.done;
    let back = begun.min(written) as u64;
    let cut = || {
        let len = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        // With O_APPEND the position is where our last write ended.
        let at_end = rustix::fs::tell(file).ok()? == len;
        (at_end && back == begun as u64 && file.set_len(len.checked_sub(back)?).is_ok()).then_some(())
    };
    if begun > 0 && cut().is_none() {
        group.done = end;
    }
}

impl Sink for Writer {
    fn write(&mut self, text: &mut Text) -> Result<(), Failure> {
        let mut failure = None;
        for group in text.groups.iter_mut().filter(|g| !g.is_done()) {
            let name = self.name(group);
            // A file in trouble does not keep the others of the batch waiting.
            if let Err(e) = self.group(&name, group, text.owed) {
                failure.get_or_insert_with(|| self.failure(&name, &e));
            }
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        if text.sync {
            self.sync(text)?;
        }
        Ok(())
    }
}

impl Writer {
    /// Syncs what senders wait for. After an error the kernel may have thrown the bytes away, so the batch's part of
    /// that file is written once more: rather twice than not at all.
    fn sync(&mut self, text: &mut Text) -> Result<(), Failure> {
        let Err((name, e)) = self.files.sync() else { return Ok(()) };
        self.files.forget(&name);
        for group in &mut text.groups {
            if self.name(group) == name {
                group.done = 0;
            }
        }
        Err(Failure { lost: true, ..self.failure(&name, &e) })
    }
}
