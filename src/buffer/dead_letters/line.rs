//! A letter as lines of JSON, and back.
//!
//! Enters: a [`Letter`], or a line. Leaves: one line for each record, or the record of a line as an encoded entry. Can
//! go wrong: a line that is none of ours. What JSON cannot show faithfully (text that is no UTF-8, binaries, extensions,
//! metadata, keys that repeat) stands beside it as `raw`: base64 of the msgpack entry, and `raw` is what is read back.
//! Bytes that are no record have `raw` alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::record::Time;
use crate::rt::{Content, Letter};
use crate::wire::entry::{self, MAX_DEPTH, TimeForm};
use crate::wire::json::Json;
use crate::wire::json_in;
use crate::wire::msgpack::{self, Value};

const JSON: Json = Json { escape_unicode: false };

/// Appends lines of the letter from byte `from` of its chunk on, until there are `enough` bytes. `output`: the identity of the
/// output that gave it up. Gives where to go on,
/// `None` after the last.
pub(super) fn write(
    letter: &Letter,
    output: Option<&str>,
    from: usize,
    now: Time,
    enough: usize,
    out: &mut Vec<u8>,
) -> Option<usize> {
    let head = Head { letter, output, now };
    match &letter.content {
        Content::Raw { tag, bytes, count, .. } => {
            head.begin(None, tag.as_bytes(), out);
            if *count != 1 {
                out.extend_from_slice(format!(",\"records\":{count}").as_bytes());
            }
            raw(out, bytes);
            out.extend_from_slice(b"}\n");
            None
        }
        Content::Chunk(chunk) => {
            let bytes = chunk.bytes.as_ref();
            let mut pos = from;
            for seg in chunk.segs.iter().filter(|seg| seg.end > from) {
                let tag = seg.tag.as_bytes();
                while pos < seg.end {
                    if out.len() >= enough {
                        return Some(pos);
                    }
                    let Ok(Ok(entry)) = entry::read(bytes, pos) else {
                        // Chunks hold whole entries; if one does not, nothing of it is thrown away.
                        head.begin(None, tag, out);
                        raw(out, bytes.get(pos..seg.end).unwrap_or_default());
                        out.extend_from_slice(b"}\n");
                        pos = seg.end;
                        continue;
                    };
                    let time = match entry.time {
                        TimeForm::At(time) => timestamp(time),
                        TimeForm::Now => None,
                    };
                    let shown = time.is_some()
                        && entry.metadata.is_none()
                        && faithful(bytes, entry.record.start, 1).is_some();
                    head.begin(time, tag, out);
                    out.extend_from_slice(b",\"record\":");
                    JSON.write_value(out, bytes, entry.record.start);
                    if !shown {
                        raw(out, bytes.get(pos..entry.end).unwrap_or_default());
                    }
                    out.extend_from_slice(b"}\n");
                    pos = entry.end;
                }
            }
            None
        }
    }
}

/// What every line of a letter says.
struct Head<'a> {
    letter: &'a Letter,
    output: Option<&'a str>,
    now: Time,
}

impl Head<'_> {
    fn begin(&self, time: Option<jiff::Timestamp>, tag: &[u8], out: &mut Vec<u8>) {
        out.push(b'{');
        if let Some(time) = time {
            out.extend_from_slice(format!("\"time\":\"{time}\",").as_bytes());
        }
        if let Some(now) = timestamp(self.now) {
            out.extend_from_slice(format!("\"at\":\"{now:.3}\",").as_bytes());
        }
        for (key, value) in [
            ("tag", tag),
            ("from", self.letter.from.as_bytes()),
            ("output", self.output.unwrap_or_default().as_bytes()),
            ("reason", self.letter.reason.as_bytes()),
            ("detail", self.letter.detail.as_bytes()),
        ] {
            if key == "output" && value.is_empty() {
                continue;
            }
            if key != "tag" {
                out.push(b',');
            }
            JSON.write_str(out, key.as_bytes());
            out.push(b':');
            JSON.write_str(out, value);
        }
        if std::str::from_utf8(tag).is_err() {
            base64(out, "raw_tag", tag);
        }
    }
}

fn raw(out: &mut Vec<u8>, bytes: &[u8]) {
    base64(out, "raw", bytes);
}

fn base64(out: &mut Vec<u8>, key: &str, bytes: &[u8]) {
    out.extend_from_slice(format!(",\"{key}\":\"").as_bytes());
    let at = out.len();
    out.resize(at + base64::encoded_len(bytes.len(), true).unwrap_or(0), 0);
    // The room is exactly what the encoder has asked for.
    let written = out.get_mut(at..).and_then(|room| STANDARD.encode_slice(bytes, room).ok());
    out.truncate(at + written.unwrap_or(0));
    out.push(b'"');
}

fn timestamp(time: Time) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.sec, i32::try_from(time.nsec).ok()?).ok()
}

/// Whether the value at `pos` comes back from JSON as it was. Gives where it ends.
fn faithful(buf: &[u8], pos: usize, depth: usize) -> Option<usize> {
    if depth > MAX_DEPTH + 1 {
        return None;
    }
    let (value, end) = msgpack::read(buf, pos)?;
    match value {
        Value::Nil | Value::Bool(_) | Value::UInt(_) | Value::Int(_) => Some(end),
        Value::Float(v) => v.is_finite().then_some(end),
        Value::Str(text) => simdutf8::basic::from_utf8(text).is_ok().then_some(end),
        Value::Bin(_) | Value::Ext(..) => None,
        Value::Array { count, at } => (0..count).try_fold(at, |pos, _| faithful(buf, pos, depth + 1)),
        Value::Map { count, at } => {
            let mut keys = std::collections::HashSet::new();
            (0..count).try_fold(at, |pos, _| {
                let (Value::Str(key), _) = msgpack::read(buf, pos)? else { return None };
                let value = keys.insert(key).then(|| faithful(buf, pos, depth)).flatten()?;
                faithful(buf, value, depth + 1)
            })
        }
    }
}

/// A line that was read back.
#[derive(Debug, PartialEq)]
pub struct Line {
    /// Who gave it up, by the name in its configuration, which may number outputs.
    pub from: String,
    /// What that output is, whatever its number: its alias, or plugin, tags and destination. Empty for inputs, and in letters
    /// of earlier versions.
    pub output: String,
    /// The tag.
    pub tag: Vec<u8>,
    /// The record as an encoded entry; `None`: these bytes were no record.
    pub entry: Option<Vec<u8>>,
}

/// Reads a line without its newline.
///
/// # Errors
/// What is wrong with it.
pub fn read(line: &[u8]) -> Result<Line, &'static str> {
    let mut map = Vec::with_capacity(line.len());
    match json_in::value_within(line, &mut map, MAX_DEPTH + 1) {
        Ok(end) if line.get(end..).is_some_and(|rest| rest.trim_ascii().is_empty()) => {}
        _ => return Err("it is no JSON"),
    }
    let Some((Value::Map { count, at }, _)) = msgpack::read(&map, 0) else {
        return Err("it is no JSON object");
    };
    let (mut time, mut tag, mut from, mut output, mut raw, mut raw_tag, mut record) =
        (None, None, None, None, None, None, None);
    let mut pos = at;
    for _ in 0..count {
        let key_end = msgpack::skip(&map, pos).map_err(|_| "it is torn")?;
        let end = msgpack::skip(&map, key_end).map_err(|_| "it is torn")?;
        let value = map.get(key_end..end).unwrap_or_default();
        let text = Some(msgpack::content(value));
        match map.get(pos..key_end).map(msgpack::content).unwrap_or_default() {
            b"time" => time = text,
            b"tag" => tag = text,
            b"from" => from = text,
            b"output" => output = text,
            b"raw" => raw = text,
            b"raw_tag" => raw_tag = text,
            b"record" => record = Some(value),
            _ => {}
        }
        pos = end;
    }
    let decode = |text: &[u8]| STANDARD.decode(text).map_err(|_| "its raw bytes are no base64");
    let tag = match raw_tag {
        Some(text) => decode(text)?,
        None => tag.ok_or("it has no tag")?.to_vec(),
    };
    let entry = match (record, raw) {
        (None, None) => return Err("it has neither record nor raw"),
        (None, Some(_)) => None,
        (Some(_), Some(text)) => {
            let bytes = decode(text)?;
            let good = matches!(entry::read(&bytes, 0), Ok(Ok(entry)) if entry.end == bytes.len());
            Some(bytes).filter(|_| good)
        }
        (Some(record), None) => {
            let time = time
                .and_then(|text| std::str::from_utf8(text).ok()?.parse::<jiff::Timestamp>().ok())
                .ok_or("its time cannot be read")?;
            if !matches!(msgpack::read(record, 0), Some((Value::Map { .. }, _))) {
                return Err("its record is no object");
            }
            let nsec = u32::try_from(time.subsec_nanosecond());
            let time =
                nsec.map(|nsec| Time::new(time.as_second(), nsec)).map_err(|_| "its time is before 1970")?;
            let mut entry = Vec::with_capacity(record.len() + 16);
            entry::write_head(&mut entry, time, None);
            entry.extend_from_slice(record);
            Some(entry)
        }
    };
    let name = |text: Option<&[u8]>| String::from_utf8_lossy(text.unwrap_or_default()).into_owned();
    Ok(Line { from: name(from), output: name(output), tag, entry })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::{Chunk, Seg, Tag};
    use crate::rt::Budget;

    fn letter(tag: &[u8], entries: &[u8], count: u64) -> Letter {
        let chunk = Chunk {
            bytes: entries.to_vec().into(),
            segs: [Seg { tag: Tag::new(tag), end: entries.len(), count }].into_iter().collect(),
            count,
            charge: Budget::new(1000).take(0),
            meter: None,
        };
        Letter {
            from: "output file.0".into(),
            reason: "rejected",
            detail: "too \"large\"".into(),
            content: Content::Chunk(Arc::new(chunk)),
            kept: Box::new(|| ()),
        }
    }

    fn text(letter: &Letter) -> String {
        let mut out = Vec::new();
        assert_eq!(
            write(letter, Some("null match=\"*\""), 0, Time::new(1, 5_000_000), usize::MAX, &mut out),
            None
        );
        String::from_utf8(out).unwrap()
    }

    fn entry(record: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        entry::write_head(&mut out, Time::new(1_760_000_000, 7), None);
        out.extend_from_slice(record);
        out
    }

    /// The records, written and read back.
    fn there_and_back(tag: &[u8], entries: &[Vec<u8>]) -> String {
        let lines = text(&letter(tag, &entries.concat(), entries.len() as u64));
        let back: Vec<Line> = lines.lines().map(|l| read(l.as_bytes()).unwrap()).collect();
        let want: Vec<Line> = entries
            .iter()
            .map(|e| Line {
                from: "output file.0".into(),
                output: "null match=\"*\"".into(),
                tag: tag.to_vec(),
                entry: Some(e.clone()),
            })
            .collect();
        assert_eq!(back, want, "{lines}");
        lines
    }

    #[test]
    fn a_record_becomes_a_line_that_says_when_whose_why_and_what() {
        let line =
            there_and_back(b"app", &[entry(b"\x82\xa3log\xa2\"x\xa1n\xcb\x40\x00\x00\x00\x00\x00\x00\x00")]);
        assert_eq!(
            line,
            "{\"time\":\"2025-10-09T08:53:20.000000007Z\",\"at\":\"1970-01-01T00:00:01.005Z\",\"tag\":\"app\",\
             \"from\":\"output file.0\",\"output\":\"null match=\\\"*\\\"\",\"reason\":\"rejected\",\"detail\":\"too \\\"large\\\"\",\
             \"record\":{\"log\":\"\\\"x\",\"n\":2.0}}\n"
        );
    }

    #[test]
    fn what_json_cannot_show_has_its_bytes_beside_it_and_they_are_read_back() {
        for record in [
            &b"\x81\xa1k\xa2\xff\xfe"[..],
            b"\x81\xa1k\xc4\x02ab",
            b"\x81\xa1k\xd6\x00abcd",
            b"\x81\x01\xa1v",
            b"\x82\xa1k\x01\xa1k\x02",
            b"\x81\xa1k\x91\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
        ] {
            let line = there_and_back(b"t", &[entry(record)]);
            assert!(line.contains("\"record\":{") && line.contains(",\"raw\":\""), "{line}");
        }
        let with_metadata =
            [&b"\x92\x92\xd7\x00\x00\x00\x00\x01\x00\x00\x00\x00\x81\xa1m\x01"[..], b"\x81\xa1k\x01"]
                .concat();
        assert!(there_and_back(b"t", &[with_metadata]).contains("raw"));
        assert!(there_and_back(b"t\xff", &[entry(b"\x80")]).contains("\"tag\":\"t\u{fffd}\""));
    }

    #[test]
    fn a_chunk_has_a_line_for_each_record_and_can_be_written_in_pieces() {
        let entries: Vec<_> = (0..5).map(|i| entry(&[0x81, 0xa1, b'n', i])).collect();
        let whole = there_and_back(b"t", &entries);
        assert_eq!(whole.lines().count(), 5);
        let letter = letter(b"t", &entries.concat(), 5);
        let (mut pieces, mut from, mut steps) = (Vec::new(), Some(0), 0);
        while let Some(at) = from {
            let mut piece = Vec::new();
            from = write(&letter, Some("null match=\"*\""), at, Time::new(1, 5_000_000), 1, &mut piece);
            pieces.extend(piece);
            steps += 1;
        }
        assert_eq!((String::from_utf8(pieces).unwrap(), steps), (whole, 5));
    }

    #[test]
    fn bytes_that_are_no_record_are_kept_as_they_came() {
        let content = Content::Raw {
            tag: Tag::new(b"t"),
            bytes: b"\xc1\x00{".as_slice().into(),
            count: 3,
            charge: Budget::new(1000).take(3),
        };
        let line = text(&Letter { content, ..letter(b"", b"", 0) });
        assert!(line.ends_with("\"records\":3,\"raw\":\"wQB7\"}\n") && line.starts_with("{\"at\""), "{line}");
        assert_eq!(read(line.trim().as_bytes()).unwrap().entry, None);
    }

    #[test]
    fn lines_that_are_none_of_ours_are_refused() {
        for (line, want) in [
            ("", "it is no JSON"),
            ("{\"tag\":\"t\"", "it is no JSON"),
            ("{} x", "it is no JSON"),
            ("[]", "it is no JSON object"),
            ("{\"record\":{}}", "it has no tag"),
            ("{\"tag\":\"t\"}", "it has neither record nor raw"),
            ("{\"tag\":\"t\",\"record\":{}}", "its time cannot be read"),
            ("{\"tag\":\"t\",\"time\":\"2025-10-09T08:53:20Z\",\"record\":5}", "its record is no object"),
            ("{\"tag\":\"t\",\"record\":{},\"raw\":\"???\"}", "its raw bytes are no base64"),
        ] {
            assert_eq!(read(line.as_bytes()).unwrap_err(), want, "{line}");
        }
    }
}
