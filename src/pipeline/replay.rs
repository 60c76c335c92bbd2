//! `firelane replay`: records of dead-letter files, sent once more.
//!
//! Enters: files, a built configuration. Leaves: the records at the output that had given them up (by their tags, where
//! the configuration has no such output), and an exit code. The configuration's inputs are not opened, its storage and
//! dead letters not touched: records stay in memory and in the file until they are delivered. Can go wrong: a line that
//! is no letter, an output that gives up again; then the file stays and the exit code says so.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use super::build::{PlannedInput, PlannedOutput};
use super::{EXIT_LOSS, EXIT_OK, Pipeline};
use crate::buffer::dead_letters::{self, Line, NAME};
use crate::config::{AckLevel, Storage, StorageType};
use crate::inputs::{BoxFuture, Input, InputContext};
use crate::record::Verdict;

/// Bytes of one flush.
const BATCH: usize = 256 * 1024;
/// Flushes that may wait for their delivery; the outputs' shares bound them, too.
const UNSETTLED: usize = 256;

/// What to send again.
#[derive(Debug)]
pub struct Replay {
    files: Vec<(PathBuf, u64)>,
    filters: bool,
    remove: bool,
    /// Directories in which the file that grows is to be removed: no router may write to it meanwhile.
    locks: Vec<File>,
}

/// What a look at the files found.
#[derive(Debug, Default, PartialEq)]
struct Found {
    /// Records by who gave them up: its name then, and what it is.
    records: BTreeMap<(String, String), u64>,
    /// Lines with bytes that are no record.
    raw: u64,
    /// Lines that are no letters.
    bad: u64,
}

impl Found {
    fn all(&self) -> u64 {
        self.records.values().sum()
    }
}

impl Replay {
    /// Files, or directories of them. `filters`: the records pass the configuration's filters once more. `remove`: files
    /// are removed once everything in them was delivered.
    ///
    /// # Errors
    /// A sentence: a file cannot be read, or may not be removed.
    pub fn new(paths: &[PathBuf], filters: bool, remove: bool) -> Result<Replay, String> {
        let mut replay = Replay { files: Vec::new(), filters, remove, locks: Vec::new() };
        for path in paths {
            let fail = |e: io::Error| format!("cannot read {}: {e}", path.display());
            let files =
                if path.is_dir() { dead_letters::list(path).map_err(fail)? } else { vec![path.clone()] };
            if files.is_empty() {
                return Err(format!("there are no dead letters in {}", path.display()));
            }
            for file in files {
                if remove && file.file_name().is_some_and(|name| name == NAME) {
                    let dir = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    replay.locks.push(dead_letters::lock(dir).map_err(|e| match e.kind() {
                        io::ErrorKind::WouldBlock => format!(
                            "a router writes to {}: stop it before, or leave --remove out",
                            file.display()
                        ),
                        _ => format!("cannot lock {}: {e}", dir.display()),
                    })?);
                }
                // A router may append while we read: what comes from now on is not ours.
                let len =
                    fs::metadata(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?.len();
                File::open(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
                replay.files.push((file, len));
            }
        }
        Ok(replay)
    }

    /// Reads every line once and reports those that cannot be sent.
    fn look(&self) -> io::Result<Found> {
        let mut found = Found::default();
        let mut reader = Reader::new(self.files.clone());
        while let Some((place, line)) = reader.next()? {
            match line {
                Ok(Line { entry: Some(_), from, output, .. }) => {
                    *found.records.entry((from, output)).or_default() += 1;
                }
                Ok(Line { from, .. }) => {
                    found.raw += 1;
                    tracing::warn!(at = %place, %from, "left out: these bytes are no record");
                }
                Err(reason) => {
                    found.bad += 1;
                    tracing::error!(at = %place, reason, "left out: no dead letter");
                }
            }
        }
        Ok(found)
    }

    /// Removes the files.
    fn remove(&self) -> bool {
        let mut done = true;
        for (path, _) in &self.files {
            match fs::remove_file(path) {
                Ok(()) => tracing::info!(file = %path.display(), "removed: everything in it was delivered"),
                Err(e) => {
                    done = false;
                    tracing::error!(file = %path.display(), cause = %e, "cannot remove");
                }
            }
        }
        done
    }
}

impl Pipeline {
    /// Sends what the files hold through the outputs, waits until all is delivered, and says how it went. Exit code 0:
    /// every record was delivered (or dropped by a filter on purpose), and every line was a letter.
    pub fn replay(mut self, replay: &Replay) -> ExitCode {
        let found = match replay.look() {
            Ok(found) => found,
            Err(e) => {
                tracing::error!(cause = %e, "cannot read the dead letters");
                return ExitCode::from(EXIT_LOSS);
            }
        };
        let all = found.all();
        let sent = Arc::new(AtomicU64::new(0));
        let left = Arc::new(AtomicUsize::new(found.records.len()));
        self.service.storage = Storage { path: None, dead_letters: None, ..self.service.storage };
        if !replay.filters {
            self.plan.filters.clear();
        }
        let outputs: Vec<Candidate> = self.plan.outputs.iter().map(Candidate::of).collect();
        let mut places = BTreeMap::new();
        for sender in found.records.keys() {
            match place(sender, &outputs) {
                Ok(place) => drop(places.insert(sender.clone(), place)),
                Err(message) => {
                    tracing::error!("{message}; nothing was sent");
                    return ExitCode::from(EXIT_LOSS);
                }
            }
        }
        let source = |sender: &(String, String)| {
            let from = &sender.0;
            let only = places.get(sender).copied().flatten();
            if only.is_none() {
                tracing::warn!(%from, output = %sender.1, "not in this configuration: its records go where their tags say");
            }
            PlannedInput {
                label: format!("replay of {from}"),
                tag: String::new(),
                tag_is_set: false,
                mem_buf_limit: 0,
                storage: StorageType::Memory,
                ack: AckLevel::Delivered,
                only,
                input: Box::new(Source {
                    sender: sender.clone(),
                    reader: Reader::new(replay.files.clone()),
                    sent: Arc::clone(&sent),
                    left: Arc::clone(&left),
                }),
            }
        };
        self.plan.inputs = found.records.keys().map(source).collect();
        let delivered = all == 0 || {
            let (good, totals) = self.run_line();
            let nowhere = totals.map_or(0, |t| t.pipeline.unrouted.load(Relaxed));
            if nowhere > 0 {
                tracing::error!(records = nowhere, "no output takes their tags");
            }
            good && nowhere == 0 && sent.load(Relaxed) == all
        };
        tracing::info!(
            records = all,
            sent = sent.load(Relaxed),
            no_records = found.raw,
            unreadable = found.bad,
            "{}",
            if delivered { "replayed: all records were delivered" } else { "not all records were delivered" }
        );
        let mut good = delivered && found.bad == 0;
        if replay.remove {
            if good && found.raw == 0 {
                if replay.filters {
                    // What a filter had held goes out without an ack, and was not synced for one.
                    rustix::fs::sync();
                }
                good = replay.remove();
            } else {
                tracing::warn!("nothing is removed: not everything in the files was delivered");
            }
        }
        ExitCode::from(if good { EXIT_OK } else { EXIT_LOSS })
    }
}

/// An output that records may go to.
struct Candidate {
    /// The name that its letters come under.
    from: String,
    /// Of `kafka.1`, `kafka`; `None` for a name that somebody has given.
    plugin: Option<String>,
    /// Its alias, or plugin, tags and destination.
    identity: String,
}

impl Candidate {
    fn of(planned: &PlannedOutput) -> Candidate {
        Candidate {
            from: format!("output {}", planned.label),
            plugin: numbered(&planned.label).map(str::to_owned),
            identity: planned.identity.clone(),
        }
    }
}

/// The plugin in a label that the position gave.
fn numbered(label: &str) -> Option<&str> {
    let (plugin, number) = label.rsplit_once('.')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(plugin)
}

/// Which output the records of a sender go to; `None`: by their tags. What an output is counts before what it was called: the
/// order of outputs may be another one now.
///
/// # Errors
/// The name is a number that may mean any of several, and the letter does not say which.
fn place((from, identity): &(String, String), outputs: &[Candidate]) -> Result<Option<usize>, String> {
    if !identity.is_empty() {
        return Ok(outputs.iter().position(|o| o.identity == *identity));
    }
    let Some(found) = outputs.iter().position(|o| o.from == *from) else { return Ok(None) };
    let plugin = from.strip_prefix("output ").and_then(numbered);
    let alike = outputs.iter().filter(|o| o.plugin.as_deref() == plugin).count();
    if plugin.is_some() && alike > 1 {
        return Err(format!(
            "letters of \"{from}\" do not say which of {alike} outputs that is; use a configuration with that one alone"
        ));
    }
    Ok(Some(found))
}

/// The lines of files one after the other.
struct Reader {
    files: VecDeque<(PathBuf, u64)>,
    open: Option<(PathBuf, BufReader<io::Take<File>>, u64)>,
    line: Vec<u8>,
}

impl Reader {
    fn new(files: Vec<(PathBuf, u64)>) -> Self {
        Reader { files: files.into(), open: None, line: Vec::new() }
    }

    /// The next line, and where it stands.
    fn next(&mut self) -> io::Result<Option<(String, Result<Line, &'static str>)>> {
        loop {
            if let Some((path, file, number)) = &mut self.open {
                self.line.clear();
                let n = file.read_until(b'\n', &mut self.line)?;
                *number += 1;
                let line = self.line.trim_ascii();
                if n > 0 && line.is_empty() {
                    continue;
                }
                if n > 0 {
                    return Ok(Some((format!("{}:{number}", path.display()), dead_letters::read(line))));
                }
            }
            let Some((path, len)) = self.files.pop_front() else { return Ok(None) };
            let file = BufReader::new(File::open(&path)?.take(len));
            self.open = Some((path, file, 0));
        }
    }

    /// Some records of one sender, with their tags; empty at the end.
    fn batch(&mut self, (from, output): &(String, String)) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH
            && let Some((_, line)) = self.next()?
        {
            if let Ok(Line { entry: Some(entry), tag, .. }) =
                line.and_then(|l| if l.from == *from && l.output == *output { Ok(l) } else { Err("") })
            {
                bytes += entry.len();
                batch.push((tag, entry));
            }
        }
        Ok(batch)
    }
}

/// The input that reads the letters of one sender.
struct Source {
    sender: (String, String),
    reader: Reader,
    sent: Arc<AtomicU64>,
    /// Sources that have not ended.
    left: Arc<AtomicUsize>,
}

impl Input for Source {
    fn start(self: Box<Self>, cx: InputContext) -> BoxFuture<'static, Result<(), String>> {
        cx.tasks.clone().spawn(cx.label.clone(), self.run(cx));
        Box::pin(async { Ok(()) })
    }
}

impl Source {
    async fn run(self: Box<Self>, cx: InputContext) {
        let Source { sender, mut reader, sent, left } = *self;
        let mut intake = cx.intake();
        let settled = intake.settled();
        let mut waits = VecDeque::new();
        let mut stop = cx.stop.clone();
        let mut ended = false;
        loop {
            while waits
                .front()
                .is_some_and(|wait: &crate::record::AckWait| wait.verdict() != Verdict::Pending)
            {
                waits.pop_front();
            }
            if ended && waits.is_empty() {
                break;
            }
            if ended || waits.len() >= UNSETTLED {
                tokio::select! {
                    () = settled.notified() => {}
                    _ = stop.draining() => break,
                }
                continue;
            }
            if stop.is_draining() {
                break;
            }
            let name = sender.clone();
            let read = tokio::task::spawn_blocking(move || {
                let batch = reader.batch(&name);
                (reader, batch)
            });
            let Ok((r, batch)) = read.await else { break };
            reader = r;
            let batch = batch.unwrap_or_else(|e| {
                tracing::error!(cause = %e, "cannot read the dead letters");
                Vec::new()
            });
            ended = batch.is_empty();
            let records = batch.len() as u64;
            for (tag, entry) in batch {
                intake.push_entries(&tag, entry.into(), 1);
            }
            if !ended {
                waits.extend(intake.flush(true).await);
                sent.fetch_add(records, Relaxed);
            } else {
                // Filters let go what they hold.
                intake.finish().await;
            }
        }
        if !ended {
            intake.finish().await;
        }
        if left.fetch_sub(1, SeqCst) == 1 {
            cx.end_process.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"time":"2025-10-09T08:53:20Z","tag":"a","from":"output file.0","reason":"rejected","detail":"","record":{"log":"1"}}"#;
    const RAW: &str =
        r#"{"tag":"a","from":"input forward.0","reason":"undecodable","detail":"","raw":"wQ=="}"#;

    #[test]
    fn a_look_tells_records_from_bytes_and_from_what_is_no_letter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        fs::write(
            &path,
            format!("{LINE}\n\n{RAW}\nnonsense\n{}\n{{\"torn", LINE.replace("file.0", "null.1")),
        )
        .unwrap();
        fs::write(dir.path().join("dead-letters.jsonl.1"), format!("{LINE}\n")).unwrap();
        fs::write(dir.path().join("other"), "not ours").unwrap();
        let replay = Replay::new(&[dir.path().to_owned()], false, false).unwrap();
        let of = |from: &str| (from.to_owned(), String::new());
        let records = [(of("output file.0"), 2), (of("output null.1"), 1)].into();
        assert_eq!(replay.look().unwrap(), Found { records, raw: 1, bad: 2 });
        let mut reader = Reader::new(replay.files);
        assert_eq!(reader.batch(&of("output file.0")).unwrap().len(), 2);
    }

    #[test]
    fn records_go_to_the_output_that_gave_them_up_whatever_its_number_is_now() {
        let output = |label: &str, identity: &str| Candidate {
            from: format!("output {label}"),
            plugin: numbered(label).map(str::to_owned),
            identity: identity.to_owned(),
        };
        let outputs = [
            output("forward.0", "forward b"),
            output("forward.1", "forward a"),
            output("null.2", "null"),
            output("last", "alias"),
        ];
        let at =
            |from: &str, identity: &str| place(&(format!("output {from}"), identity.to_owned()), &outputs);
        assert_eq!(at("forward.0", "forward a"), Ok(Some(1)));
        assert_eq!(at("forward.0", "forward c"), Ok(None));
        // Letters of earlier versions have the name alone.
        assert!(at("forward.0", "").unwrap_err().contains("which of 2 outputs"));
        assert_eq!(
            (at("null.2", ""), at("last", ""), at("file.0", "")),
            (Ok(Some(2)), Ok(Some(3)), Ok(None))
        );
    }

    #[test]
    fn the_file_that_a_router_writes_to_may_be_read_but_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "").unwrap();
        let router = dead_letters::lock(dir.path()).unwrap();
        let paths = [dir.path().to_owned()];
        assert!(Replay::new(&paths, false, false).is_ok());
        assert!(Replay::new(&paths, false, true).unwrap_err().starts_with("a router writes to"));
        drop(router);
        assert!(Replay::new(&paths, false, true).is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_said_before_anything_starts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Replay::new(&[dir.path().to_owned()], false, false).unwrap_err().contains("no dead letters"));
        assert!(Replay::new(&[dir.path().join("x")], false, false).unwrap_err().contains("cannot read"));
    }
}
