//! What containers print, for a person who watches or looks later.
//!
//! Enters: docker's copy of a container's output. Leaves: whole lines, for a callback; a file as docker's `json-file` driver
//! writes it, which outlives the container. Can go wrong: the engine ends the stream, the disk; then there are no more lines.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use serde::Serialize;
use tokio::time::timeout;

use super::api::{self, Api};
use crate::agent::drivers::last_lines;

/// Bytes of a line that are kept before it is shown unfinished.
const LINE_MAX: usize = 1 << 20;
/// Bytes of a container's last words.
const WORDS_MAX: usize = 64 << 10;

/// Bytes of a container's output that are kept when it is removed.
const KEPT_MAX: usize = 64 << 20;
/// How long the engine may take from one line to the next.
const SILENCE: Duration = Duration::from_secs(10);

/// Lines that are asked for when a container has ended; some may be empty.
const LAST: usize = 20;

type Show = dyn Fn(&str, &str) + Send + Sync;

/// Takes a container's name and a line.
#[derive(Clone)]
pub struct Lines(Arc<Show>);

impl Lines {
    /// Calls `show` for each line.
    pub fn new(show: impl Fn(&str, &str) + Send + Sync + 'static) -> Lines {
        Lines(Arc::new(show))
    }

    /// Shows a line of a container.
    pub(super) fn show(&self, name: &str, line: &str) {
        (self.0)(name, line);
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

/// Shows the lines of a container until it ends. `since`: seconds since 1970, for those of a run that is not the first.
pub(super) async fn follow(api: Api, name: String, id: String, since: i32, lines: Lines) {
    let mut stream = Box::pin(api.logs(&id, since, true));
    let mut pieces = Pieces::default();
    while let Some(Ok(piece)) = api::next(&mut stream).await {
        pieces.take(&piece, |line| lines.show(&name, line));
    }
    pieces.end(|line| lines.show(&name, line));
}

/// A line as the `json-file` driver writes it.
#[derive(Serialize)]
struct Line<'l> {
    log: &'l str,
    stream: &'l str,
    time: &'l str,
}

/// Writes what a container has printed to a file, at most [`KEPT_MAX`] bytes of it.
///
/// # Errors
/// The disk's.
pub(super) async fn keep(api: &Api, id: &str, file: &Path) -> io::Result<()> {
    let mut stream = Box::pin(api.logs_until_now(id));
    let (mut out, mut size) = (None, 0);
    while let Ok(Some(Ok(piece))) = timeout(SILENCE, api::next(&mut stream)).await {
        size += piece.as_ref().len();
        if size > KEPT_MAX {
            break;
        }
        let out = match &mut out {
            Some(out) => out,
            None => {
                if let Some(dir) = file.parent() {
                    fs::create_dir_all(dir)?;
                }
                out.insert(BufWriter::new(File::create(file)?))
            }
        };
        out.write_all(&json(&piece))?;
        out.write_all(b"\n")?;
    }
    out.map_or(Ok(()), |mut out| out.flush())
}

/// One line, whose time stands before it.
fn json(piece: &LogOutput) -> Vec<u8> {
    let stream = if matches!(piece, LogOutput::StdErr { .. }) { "stderr" } else { "stdout" };
    let text = String::from_utf8_lossy(piece.as_ref());
    let (time, log) = text.split_once(' ').unwrap_or(("", &text));
    // Strings are always JSON.
    serde_json::to_vec(&Line { log, stream, time }).unwrap_or_default()
}

/// What a container has printed last; engines since 20.10 keep it whatever its log driver is, but for `none`.
pub(super) async fn last(api: &Api, id: &str) -> Vec<String> {
    let mut stream = Box::pin(api.last_logs(id, LAST));
    let mut text = Vec::new();
    while let Ok(Some(Ok(piece))) = timeout(SILENCE, api::next(&mut stream)).await {
        text.extend_from_slice(piece.as_ref());
        if text.len() > WORDS_MAX {
            break;
        }
    }
    last_lines(&String::from_utf8_lossy(&text))
}

/// Lines that are not whole yet: of standard output and error by themselves, so that none ends in the midst of another.
#[derive(Default)]
pub(super) struct Pieces([Vec<u8>; 2]);

impl Pieces {
    pub(super) fn take(&mut self, piece: &LogOutput, mut show: impl FnMut(&str)) {
        let [out, err] = &mut self.0;
        let rest = if matches!(piece, LogOutput::StdErr { .. }) { err } else { out };
        for part in piece.as_ref().split_inclusive(|b| *b == b'\n') {
            rest.extend_from_slice(part);
            if part.ends_with(b"\n") || rest.len() >= LINE_MAX {
                let line = rest.strip_suffix(b"\n").unwrap_or(rest);
                show(&String::from_utf8_lossy(line));
                rest.clear();
            }
        }
    }

    /// No more come.
    pub(super) fn end(self, mut show: impl FnMut(&str)) {
        self.0.iter().filter(|rest| !rest.is_empty()).for_each(|rest| show(&String::from_utf8_lossy(rest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_kept_as_docker_writes_it() {
        let line = json(&LogOutput::StdErr { message: "2026-11-26T05:00:00.1Z an \"error\" \n".into() });
        let want = r#"{"log":"an \"error\" \n","stream":"stderr","time":"2026-11-26T05:00:00.1Z"}"#;
        assert_eq!(String::from_utf8(line).unwrap(), want);
    }

    #[test]
    fn pieces_become_lines_by_stream_also_long_ones() {
        let out = |text: &str| LogOutput::StdOut { message: text.to_owned().into() };
        let long = "x".repeat(16 << 10);
        let (mut pieces, mut seen) = (Pieces::default(), Vec::new());
        let all = [
            out("a\nb"),
            LogOutput::StdErr { message: "aside\n".into() },
            out("c\n\n"),
            out("d"),
            out(&long),
        ];
        for piece in all.iter().chain([&out(&long); 5]) {
            pieces.take(piece, |line| seen.push(line.to_owned()));
        }
        assert_eq!(seen, ["a", "aside", "bc", ""]);
        pieces.end(|line| seen.push(line.to_owned()));
        assert_eq!(seen[4], format!("d{}", long.repeat(6)));
    }
}
