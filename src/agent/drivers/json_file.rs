//! `json-file`: docker's JSON lines in a file.
//!
//! Enters: messages. Leaves: `{"log":"text\n","stream":"stdout","time":"..."}` lines, with files kept up to `max-size` and
//! `max-file`. Can go wrong: the disk; the line is lost as under docker, and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::options::{self, Options};
use super::{Info, Message};
use crate::record::Time;

const KNOWN: &[&str] =
    &["max-file", "max-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag"];

/// Of new files, as docker's.
const MODE: u32 = 0o640;

/// Checked options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    max_size: Option<u64>,
    max_file: i64,
    compress: bool,
}

impl Settings {
    pub(super) fn read(options: &Options) -> Result<Settings, String> {
        options::known(options, "json-file", KNOWN)?;
        let get = |name: &str| options.get(name).map(String::as_str);
        let max_size = get("max-size").map(options::size).transpose()?;
        if max_size == Some(0) {
            return Err("max-size must be a positive number".to_owned());
        }
        let max_file = get("max-file").map_or(Ok(1), options::int)?;
        if max_file < 1 {
            return Err("max-file cannot be less than 1".to_owned());
        }
        let compress = get("compress").map_or(Ok(false), options::boolean)?;
        if compress && (max_file == 1 || max_size.is_none()) {
            return Err(
                "compress cannot be true when max-file is less than 2 or max-size is not set".to_owned()
            );
        }
        Ok(Settings { max_size, max_file, compress })
    }
}

/// The files of one container.
#[derive(Debug)]
pub(in crate::agent) struct JsonFile {
    path: PathBuf,
    settings: Settings,
    /// `,"attrs":{...}`, or nothing.
    attrs: Vec<u8>,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    line: Vec<u8>,
    lost: u64,
}

impl JsonFile {
    pub(super) fn open(settings: &Settings, options: &Options, info: &Info) -> Result<JsonFile, String> {
        let path = info.log_path.clone();
        let mut extra = info.extra(options)?;
        if options.get("tag").is_some_and(|t| !t.is_empty()) {
            extra.insert("tag".to_owned(), info.tag(options, "")?);
        }
        let mut attrs = Vec::new();
        for (key, value) in &extra {
            attrs.extend_from_slice(if attrs.is_empty() { b",\"attrs\":{" } else { b"," });
            text(&mut attrs, key.as_bytes());
            attrs.push(b':');
            text(&mut attrs, value.as_bytes());
        }
        if !attrs.is_empty() {
            attrs.push(b'}');
        }
        let failed = |e: io::Error| format!("cannot open {}: {e}", path.display());
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(&path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let open = Mutex::new(Open { file, size, line: Vec::new(), lost: 0 });
        Ok(JsonFile { path, settings: settings.clone(), attrs, open })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // A line that was cut short by a panic is as bad as one cut short by a full disk.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn log(&self, message: &Message) {
        let mut open = self.lock();
        let mut line = std::mem::take(&mut open.line);
        line.clear();
        write_line(&mut line, message, &self.attrs);
        if let Err(e) = self.write(&mut open, &line) {
            open.lost += 1;
            if open.lost == 1 {
                tracing::error!(path = %self.path.display(), cause = %e, "a log line is lost; free space or check the disk");
            }
        }
        line.shrink_to(64 << 10);
        open.line = line;
    }

    fn write(&self, open: &mut Open, line: &[u8]) -> io::Result<()> {
        if self.settings.max_size.is_some_and(|max| open.size >= max) {
            open.file = self.rotate()?;
            open.size = 0;
        }
        open.file.write_all(line)?;
        open.size += line.len() as u64;
        Ok(())
    }

    /// `x` becomes `x.1`, `x.1` becomes `x.2`, and the oldest is gone.
    fn rotate(&self) -> io::Result<File> {
        let end = if self.settings.compress { ".gz" } else { "" };
        let name = |n: i64| with_end(&self.path, &format!(".{n}{end}"));
        for n in (2..self.settings.max_file).rev() {
            gone_is_fine(fs::rename(name(n - 1), name(n)))?;
        }
        if self.settings.max_file > 1 {
            let first = with_end(&self.path, ".1");
            gone_is_fine(fs::rename(&self.path, &first))?;
            if self.settings.compress {
                compress(&first, &name(1))?;
            }
        }
        OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&self.path)
    }

    pub(super) fn close(&self) {
        let lost = std::mem::take(&mut self.lock().lost);
        if lost > 0 {
            tracing::error!(path = %self.path.display(), lost, "log lines were lost");
        }
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut packer = flate2::write::GzEncoder::new(File::create(to)?, flate2::Compression::default());
    io::copy(&mut File::open(from)?, &mut packer)?;
    packer.finish()?;
    fs::remove_file(from)
}

/// One line of the file. A part of a line has no newline unless it is the last.
fn write_line(out: &mut Vec<u8>, message: &Message, attrs: &[u8]) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, &message.line);
    if message.partial.as_ref().is_none_or(|p| p.last) {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(message.source.name().as_bytes());
    out.push(b'"');
    out.extend_from_slice(attrs);
    out.extend_from_slice(b",\"time\":\"");
    time(out, message.time);
    out.extend_from_slice(b"\"}\n");
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    escape(out, bytes);
    out.push(b'"');
}

/// Go's escapes: HTML's letters too, and each byte that is no UTF-8 by itself.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend([b'\\', c as u8]),
                '\n' => out.extend(b"\\n"),
                '\r' => out.extend(b"\\r"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for _ in chunk.invalid() {
            out.extend(b"\\ufffd");
        }
    }
}

/// RFC 3339 with as many digits as are not zero.
fn time(out: &mut Vec<u8>, time: Time) {
    let Ok(at) = jiff::Timestamp::new(time.sec, i32::try_from(time.nsec).unwrap_or_default()) else { return };
    out.extend_from_slice(at.to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::options::of;
    use super::super::{Partial, Source};
    use super::*;

    fn message(line: &[u8]) -> Message {
        Message {
            line: line.to_vec(),
            source: Source::Stderr,
            time: Time::new(1_700_000_000, 120_000_000),
            partial: None,
        }
    }

    fn line(message: &Message) -> String {
        let mut out = Vec::new();
        write_line(&mut out, message, b"");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_what_docker_writes() {
        assert_eq!(
            line(&message(b"a\t\"<\\\r\xff\xe2\x82 \x7f\xe2\x80\xa8")),
            "{\"log\":\"a\\u0009\\\"\\u003c\\\\\\r\\ufffd\\ufffd\\ufffd \u{7f}\\u2028\\n\",\"stream\":\"stderr\",\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
    }

    #[test]
    fn a_part_has_no_newline_unless_it_is_the_last() {
        let part =
            |last| Message { partial: Some(Partial { id: "x".into(), ordinal: 1, last }), ..message(b"p") };
        assert!(
            line(&part(false)).starts_with("{\"log\":\"p\",")
                && line(&part(true)).starts_with("{\"log\":\"p\\n\",")
        );
    }

    #[test]
    fn files_are_rotated_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let info = Info { log_path: dir.path().join("c-json.log"), ..Info::default() };
        let options = of(&[("max-size", "100"), ("max-file", "3")]);
        let file = JsonFile::open(&Settings::read(&options).unwrap(), &options, &info).unwrap();
        for n in 0..9 {
            file.log(&message(format!("line {n}").as_bytes()));
        }
        let mut seen: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        seen.sort();
        let lines: Vec<String> = seen.iter().map(|p| fs::read_to_string(p).unwrap()).collect();
        assert_eq!(lines.iter().map(|l| l.lines().count()).collect::<Vec<_>>(), [1, 2, 2]);
        assert!(lines[0].contains("line 8") && lines[2].contains("line 4"), "{lines:?}");
    }

    #[test]
    fn attributes_stand_before_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let info =
            Info { log_path: dir.path().join("log"), env: vec![("A".into(), "<".into())], ..Info::default() };
        let options = of(&[("env", "A"), ("tag", "t")]);
        let file = JsonFile::open(&Settings::read(&options).unwrap(), &options, &info).unwrap();
        file.log(&message(b""));
        let text = fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(
            text.contains("\"stream\":\"stderr\",\"attrs\":{\"A\":\"\\u003c\",\"tag\":\"t\"},\"time\""),
            "{text}"
        );
    }

    #[test]
    fn options_are_refused_in_dockers_words() {
        for (pairs, word) in [
            (&[("max-size", "0")][..], "max-size must be a positive number"),
            (&[("max-file", "0")], "max-file cannot be less than 1"),
            (&[("compress", "true")], "compress cannot be true"),
            (&[("fluentd-async", "true")], "unknown log opt 'fluentd-async' for json-file log driver"),
        ] {
            assert!(Settings::read(&of(pairs)).unwrap_err().contains(word), "{word}");
        }
    }
}
