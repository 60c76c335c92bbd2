//! What is known of groups and streams, over a restart: a file of changes under `storage.path`.
//!
//! Enters: changes, one JSON line each. Leaves: at start, the names. Can go wrong: a torn or damaged line is passed over;
//! a file that cannot be written is reported once, and the names live as long as the process.
//!
//! Nothing is synced: the names serve containers that outlive the router, and those do not outlive a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::names::{Change, Names};

/// Most bytes that are read at start.
const MOST: u64 = 256 << 20;
/// The file is written anew when it has so many lines more than four times the names.
const SPARE: usize = 1000;

/// The open file.
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
}

impl Journal {
    /// Reads the file at `path` into `names` and writes it anew.
    pub(super) fn open(path: PathBuf, names: &mut Names) -> Journal {
        let mut journal = Journal { path, file: None, lines: 0 };
        match File::open(&journal.path) {
            Ok(file) => {
                let lines = BufReader::new(file.take(MOST)).split(b'\n');
                lines.map_while(Result::ok).filter_map(|l| parse(&l)).for_each(|c| names.apply(c));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => journal.failed(&e),
        }
        journal.write_anew(names);
        journal
    }

    /// Appends changes.
    pub(super) fn add(&mut self, changes: &[Change], names: &Names) {
        if self.lines > 4 * names.len() + SPARE {
            self.write_anew(names);
            return;
        }
        let text: String = changes.iter().map(|c| line(c) + "\n").collect();
        self.lines += changes.len();
        if let Some(Err(e)) = self.file.as_mut().map(|file| file.write_all(text.as_bytes())) {
            self.failed(&e);
        }
    }

    fn write_anew(&mut self, names: &Names) {
        match rewrite(&self.path, names) {
            Ok((file, lines)) => (self.file, self.lines) = (Some(file), lines),
            Err(e) => self.failed(&e),
        }
    }

    fn failed(&mut self, cause: &io::Error) {
        tracing::warn!(
            path = %self.path.display(),
            %cause,
            "cannot keep the names of groups and streams over a restart; make room, or make the directory writable"
        );
        self.file = None;
    }
}

/// Beside the old file, then in its place: a reader finds one or the other.
fn rewrite(path: &Path, names: &Names) -> io::Result<(File, usize)> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let changes = names.all();
    let text: String = changes.iter().map(|c| line(c) + "\n").collect();
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)?;
    Ok((OpenOptions::new().append(true).open(path)?, changes.len()))
}

fn line(change: &Change) -> String {
    let value = match change {
        Change::Group { group, created, retention } => {
            json!({"group": group, "created": created, "retention": retention})
        }
        Change::Stream { group, stream, created } => {
            json!({"group": group, "stream": stream, "created": created})
        }
        Change::Gone { group, stream } => json!({"group": group, "stream": stream, "gone": true}),
    };
    value.to_string()
}

fn parse(line: &[u8]) -> Option<Change> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(Box::from);
    let (group, stream) = (text("group")?, text("stream"));
    if value.get("gone").is_some() {
        return Some(Change::Gone { group, stream });
    }
    let created = value.get("created")?.as_i64()?;
    Some(match stream {
        Some(stream) => Change::Stream { group, stream, created },
        None => {
            let retention =
                value.get("retention").and_then(Value::as_u64).and_then(|d| u32::try_from(d).ok());
            Change::Group { group, created, retention }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_after_a_restart_whatever_the_last_line_looks_like() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("awslogs/a.jsonl");
        let mut names = Names::new(10, 10, 1);
        let mut journal = Journal::open(path.clone(), &mut names);
        names.create_group("/g", 5).unwrap();
        names.create_stream("/g", "s \"1\"", 6).unwrap();
        names.create_stream("/g", "gone", 7).unwrap();
        names.set_retention("/g", 14).unwrap();
        names.delete_stream("/g", "gone").unwrap();
        names.create_group("old", 8).unwrap();
        names.delete_group("old").unwrap();
        let changes = names.take_changes();
        journal.add(&changes, &names);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"group\":\"torn").unwrap();

        for _ in 0..2 {
            let mut after = Names::new(10, 10, 2);
            Journal::open(path.clone(), &mut after);
            assert_eq!(after.groups, names.groups);
            assert!(after.take_changes().is_empty());
        }
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_file_that_grows_is_written_anew_and_one_that_cannot_be_written_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let mut names = Names::new(10, 10, 1);
        let mut journal = Journal::open(path.clone(), &mut names);
        for _ in 0..SPARE {
            names.create_group("g", 1).unwrap();
            names.delete_group("g").unwrap();
            let changes = names.take_changes();
            journal.add(&changes, &names);
        }
        assert!(fs::read_to_string(&path).unwrap().lines().count() < SPARE + 10);

        let mut journal = Journal::open(dir.path().join("a.jsonl/no"), &mut names);
        names.create_group("g", 1).unwrap();
        let changes = names.take_changes();
        journal.add(&changes, &names);
    }
}
