//! Text into records: a stream of JSON values, or pieces between separators. What `tcp` and `stdin` share.
//!
//! Enters: bytes in any pieces. Leaves: records to the intake. Can go wrong: text that is no JSON (refused and counted,
//! reading goes on at the next value or line), a record larger than the limit (refused, or the stream is given up).

use std::sync::Arc;

use memchr::memchr;
use memchr::memmem::Finder;

use super::Intake;
use crate::observe::counters::Refusal;
use crate::record::{Fields, Time};
use crate::text::Parser;
use crate::wire::entry::{self, TimeForm};
use crate::wire::json_in;
use crate::wire::json_scan::{Scan, Scanner};
use crate::wire::msgpack::{self, Value};

/// How a stream is cut into records.
pub(super) enum Framing {
    /// JSON maps, one after the other, with or without blanks between.
    Json(Arrays),
    /// Pieces of text.
    Pieces {
        /// What stands between them; never empty.
        separator: Box<Finder<'static>>,
        /// Makes fields of a piece. One that it does not understand is kept as `log`.
        parser: Option<Arc<Parser>>,
    },
}

/// What a JSON array means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrays {
    /// One record: `{"msg": [...]}`.
    Message,
    /// `[time, map]` or `[[time, metadata], map]`.
    TimeAndRecord,
}

/// What becomes of a record larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLong {
    /// The stream is given up.
    EndStream,
    /// It is passed over, to its end or to the end of its line.
    PassOver,
}

/// What all connections of an input share.
pub(super) struct Format {
    pub(super) framing: Framing,
    /// Largest record in bytes of text.
    pub(super) limit: usize,
    pub(super) too_long: TooLong,
    pub(super) tag: Vec<u8>,
    /// Key that the peer's address goes under.
    pub(super) source_key: Option<Vec<u8>>,
}

/// A record was larger than the limit and the stream must end ([`TooLong::EndStream`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overlong;

/// The state of one stream.
pub(super) struct Splitter {
    format: Arc<Format>,
    /// The peer's address, where a key is set for it.
    source: Option<Vec<u8>>,
    scanner: Scanner,
    /// Bytes at the front of the piece at hand that hold no separator.
    searched: usize,
    /// Everything up to the next newline or separator belongs to something refused.
    passing_over: bool,
    value: Vec<u8>,
    record: Vec<u8>,
    fields: Fields,
    refused: u64,
    reason: &'static str,
}

const NOT_JSON: &str = "invalid JSON";
const NO_ENTRY: &str = "an array that is not [time, map]";
const TOO_DEEP: &str = "nested deeper than 32 levels";
const TOO_LONG: &str = "a record larger than Buffer_Size";
const CUT: &str = "the stream ended within a JSON value";

impl Splitter {
    /// `source` is the peer's address, used where a key is set for it.
    pub(super) fn new(format: Arc<Format>, source: Option<&str>) -> Self {
        Splitter {
            source: source.filter(|_| format.source_key.is_some()).map(|s| s.as_bytes().to_vec()),
            format,
            scanner: Scanner::default(),
            searched: 0,
            passing_over: false,
            value: Vec::new(),
            record: Vec::new(),
            fields: Fields::default(),
            refused: 0,
            reason: "",
        }
    }

    /// Passes on every whole record in `bytes`, which must begin with what was not done with last time. Gives how many
    /// bytes at the front are done with.
    ///
    /// # Errors
    /// [`Overlong`]; the records before it have been passed on.
    pub(super) fn pass(&mut self, bytes: &[u8], intake: &mut dyn Intake) -> Result<usize, Overlong> {
        let format = Arc::clone(&self.format);
        let done = match &format.framing {
            Framing::Json(arrays) => self.values(*arrays, &format, bytes, intake)?,
            Framing::Pieces { separator, parser } => {
                self.pieces(separator, parser.as_deref(), &format, bytes, intake)?
            }
        };
        if bytes.len() - done > format.limit {
            self.overlong(&format, bytes.get(done..).unwrap_or_default(), intake)?;
            self.passing_over = true;
            self.scanner.skip_to(0);
            self.searched = 0;
            return Ok(bytes.len());
        }
        Ok(done)
    }

    /// The stream has ended; `rest` is what was not done with. A last piece without a separator is a record.
    pub(super) fn end(&mut self, rest: &[u8], intake: &mut dyn Intake) {
        let format = Arc::clone(&self.format);
        match &format.framing {
            Framing::Json(_) if self.scanner.within() => self.refuse(CUT, &format.tag, rest, intake),
            Framing::Pieces { parser, .. } if !self.passing_over && !rest.is_empty() => {
                self.piece(rest, parser.as_deref(), &format, Time::now(), intake);
            }
            Framing::Json(_) | Framing::Pieces { .. } => {}
        }
    }

    /// Records refused since the last call, and why the first of them was.
    pub(super) fn take_refused(&mut self) -> Option<(u64, &'static str)> {
        let refused = std::mem::take(&mut self.refused);
        (refused > 0).then(|| (refused, std::mem::take(&mut self.reason)))
    }

    fn refuse(&mut self, reason: &'static str, tag: &[u8], bytes: &[u8], intake: &mut dyn Intake) {
        intake.refuse(Refusal::Undecodable, 1, tag, bytes, reason);
        self.refused += 1;
        if self.reason.is_empty() {
            self.reason = reason;
        }
    }

    fn overlong(&mut self, format: &Format, bytes: &[u8], intake: &mut dyn Intake) -> Result<(), Overlong> {
        self.refuse(TOO_LONG, &format.tag, bytes, intake);
        if format.too_long == TooLong::EndStream { Err(Overlong) } else { Ok(()) }
    }

    fn values(
        &mut self,
        arrays: Arrays,
        format: &Format,
        bytes: &[u8],
        intake: &mut dyn Intake,
    ) -> Result<usize, Overlong> {
        loop {
            if self.passing_over {
                let from = self.scanner.done();
                let newline = memchr(b'\n', bytes.get(from..).unwrap_or_default());
                self.passing_over = newline.is_none();
                self.scanner.skip_to(newline.map_or(bytes.len(), |at| from + at + 1));
            }
            match self.scanner.next(bytes) {
                Scan::Value(range) if range.len() > format.limit => {
                    self.overlong(format, bytes.get(range).unwrap_or_default(), intake)?;
                }
                Scan::Value(range) => {
                    self.json(bytes.get(range).unwrap_or_default(), arrays, format, intake);
                }
                Scan::NeedMore => break,
                Scan::Invalid(at) => {
                    // As much of its line as is there.
                    let rest = bytes.get(self.scanner.done()..).unwrap_or_default();
                    let line = memchr(b'\n', rest).map_or(rest, |end| rest.get(..end).unwrap_or_default());
                    self.refuse(NOT_JSON, &format.tag, line, intake);
                    self.scanner.skip_to(at);
                    self.passing_over = true;
                }
            }
        }
        let done = self.scanner.done();
        self.scanner.dropped(done);
        Ok(done)
    }

    fn pieces(
        &mut self,
        separator: &Finder<'_>,
        parser: Option<&Parser>,
        format: &Format,
        bytes: &[u8],
        intake: &mut dyn Intake,
    ) -> Result<usize, Overlong> {
        let width = separator.needle().len();
        let now = Time::now();
        let mut start = 0;
        while let Some(at) = separator.find(bytes.get(start + self.searched..).unwrap_or_default()) {
            let end = start + self.searched + at;
            let piece = bytes.get(start..end).unwrap_or_default();
            if std::mem::take(&mut self.passing_over) {
                // The rest of a piece that was too long.
            } else if piece.len() > format.limit {
                self.overlong(format, piece, intake)?;
            } else if !piece.is_empty() {
                self.piece(piece, parser, format, now, intake);
            }
            start = end + width;
            self.searched = 0;
        }
        // A separator may be cut in two: its first bytes are looked at again.
        self.searched = (bytes.len() - start).saturating_sub(width - 1);
        if self.passing_over {
            start += std::mem::take(&mut self.searched);
        }
        Ok(start)
    }

    /// One JSON map or array.
    fn json(&mut self, text: &[u8], arrays: Arrays, format: &Format, intake: &mut dyn Intake) {
        self.value.clear();
        if !matches!(json_in::value_into(text, &mut self.value), Ok(n) if n == text.len()) {
            return self.refuse(NOT_JSON, &format.tag, text, intake);
        }
        let array = text.first() == Some(&b'[');
        if array && arrays == Arrays::TimeAndRecord {
            return match entry::read(&self.value, 0) {
                Ok(Ok(entry)) => {
                    let time = match entry.time {
                        TimeForm::At(time) => Some(time),
                        TimeForm::Now => None,
                    };
                    let metadata = entry.metadata.and_then(|m| self.value.get(m));
                    let record = self.value.get(entry.record).unwrap_or_default();
                    intake.push(&format.tag, time, metadata, record);
                }
                Ok(Err(_)) | Err(_) => self.refuse(NO_ENTRY, &format.tag, text, intake),
            };
        }
        let source = self.source.as_deref().zip(format.source_key.as_deref());
        if array {
            self.record.clear();
            msgpack::write_map(&mut self.record, 1 + usize::from(source.is_some()));
            msgpack::write_str(&mut self.record, b"msg");
            self.record.extend_from_slice(&self.value);
            write_source(&mut self.record, source);
            // One level more than the reader has checked.
            if msgpack::deeper_than(&self.record, 0, entry::MAX_DEPTH) {
                return self.refuse(TOO_DEEP, &format.tag, text, intake);
            }
        } else if let Some((_, key)) = source {
            self.record.clear();
            copy_without(&self.value, key, &mut self.record);
            write_source(&mut self.record, source);
        } else {
            std::mem::swap(&mut self.record, &mut self.value);
        }
        intake.push(&format.tag, None, None, &self.record);
    }

    /// One piece of text.
    fn piece(
        &mut self,
        text: &[u8],
        parser: Option<&Parser>,
        format: &Format,
        now: Time,
        intake: &mut dyn Intake,
    ) {
        self.fields.clear();
        let source = self.source.as_deref().zip(format.source_key.as_deref());
        let parsed = parser.and_then(|p| p.parse(text, &mut self.fields, now));
        if parsed.is_none() {
            self.fields.clear();
            self.fields.push_str(b"log", text);
        }
        if let Some((_, key)) = source {
            while let Some(i) = (0..self.fields.list.len()).find(|i| self.fields.key(*i) == key) {
                self.fields.remove(i);
            }
        }
        self.record.clear();
        msgpack::write_map(&mut self.record, self.fields.list.len() + usize::from(source.is_some()));
        for (key, value) in &self.fields.list {
            for part in [key, value] {
                self.record.extend_from_slice(self.fields.bytes.get(part.clone()).unwrap_or_default());
            }
        }
        write_source(&mut self.record, source);
        intake.push(&format.tag, parsed.flatten(), None, &self.record);
    }
}

fn write_source(record: &mut Vec<u8>, source: Option<(&[u8], &[u8])>) {
    if let Some((address, key)) = source {
        msgpack::write_str(record, key);
        msgpack::write_str(record, address);
    }
}

/// Appends a map with the pairs of `map` whose key is not `key`, and room in its header for one pair more.
fn copy_without(map: &[u8], key: &[u8], out: &mut Vec<u8>) {
    let Some((Value::Map { count, at }, _)) = msgpack::read(map, 0) else { return };
    let mut pairs = Vec::new();
    let mut pos = at;
    for _ in 0..count {
        let Ok(mid) = msgpack::skip(map, pos) else { break };
        let Ok(end) = msgpack::skip(map, mid) else { break };
        if msgpack::content(map.get(pos..mid).unwrap_or_default()) != key {
            pairs.push(pos..end);
        }
        pos = end;
    }
    msgpack::write_map(out, pairs.len() + 1);
    for pair in pairs {
        out.extend_from_slice(map.get(pair).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use proptest::prelude::*;

    fn format(framing: Framing, limit: usize, too_long: TooLong, source_key: Option<&str>) -> Arc<Format> {
        let source_key = source_key.map(|k| k.as_bytes().to_vec());
        Arc::new(Format { framing, limit, too_long, tag: b"t".to_vec(), source_key })
    }

    fn pieces(separator: &str, parser: Option<Parser>) -> Framing {
        let separator = Box::new(Finder::new(separator.as_bytes()).into_owned());
        Framing::Pieces { separator, parser: parser.map(Arc::new) }
    }

    struct Run {
        records: Vec<String>,
        refused: u64,
        reason: &'static str,
        overlong: bool,
    }

    /// Feeds `text` in pieces of `step` bytes.
    fn feed(format: &Arc<Format>, text: &[u8], step: usize) -> Run {
        let bench = Bench::new();
        let mut intake = bench.context().intake();
        let mut splitter = Splitter::new(Arc::clone(format), Some("tcp://1.2.3.4:5"));
        let mut buf = Vec::new();
        let mut overlong = false;
        for part in text.chunks(step.max(1)) {
            buf.extend_from_slice(part);
            match splitter.pass(&buf, intake.as_mut()) {
                Ok(done) => drop(buf.drain(..done)),
                Err(Overlong) => {
                    overlong = true;
                    break;
                }
            }
        }
        if !overlong {
            splitter.end(&buf, intake.as_mut());
        }
        let (refused, reason) = splitter.take_refused().unwrap_or_default();
        assert_eq!(refused, bench.passed(|p| p.refused));
        Run { records: bench.records(), refused, reason, overlong }
    }

    /// What comes of `text`, which must be the same in pieces of any size.
    fn all(format: &Arc<Format>, text: &str) -> Run {
        let whole = feed(format, text.as_bytes(), text.len());
        for step in [1, 2, 3, 7] {
            let run = feed(format, text.as_bytes(), step);
            assert_eq!((run.records, run.refused), (whole.records.clone(), whole.refused), "step {step}");
        }
        whole
    }

    #[test]
    fn json_values_are_records_and_arrays_are_messages() {
        let format = format(Framing::Json(Arrays::Message), 1000, TooLong::EndStream, None);
        let run = all(&format, "{\"a\":1}\n{\"b\":[1,{}]}, {\"c\":\"x\ny\"}{\"d\":true}\n[{\"i\":1}]\n");
        let want = [
            r#"{"a":UInt(1)}"#,
            r#"{"b":[UInt(1),{}]}"#,
            r#"{"c":"x\ny"}"#,
            r#"{"d":Bool(true)}"#,
            r#"{"msg":[{"i":UInt(1)}]}"#,
        ];
        assert_eq!(run.records, want);
        assert_eq!(run.refused, 0);
    }

    #[test]
    fn text_that_is_no_json_costs_its_line_and_nothing_else() {
        let format = format(Framing::Json(Arrays::Message), 1000, TooLong::EndStream, None);
        let run = all(
            &format,
            "{\"a\":1}\nplain {\"x\":1} text\n{\"b\":2}\n{'bad'}{\"c\":3} 7\n{\"d\":4]\n{\"e\":5}",
        );
        let want = [r#"{"a":UInt(1)}"#, r#"{"b":UInt(2)}"#, r#"{"c":UInt(3)}"#, r#"{"e":UInt(5)}"#];
        assert_eq!(run.records, want);
        assert_eq!((run.refused, run.reason), (4, NOT_JSON));
    }

    #[test]
    fn a_value_that_the_stream_cuts_off_is_refused() {
        let format = format(Framing::Json(Arrays::Message), 1000, TooLong::EndStream, None);
        let run = all(&format, "{\"a\":1} {\"b\":");
        assert_eq!((run.records.len(), run.refused, run.reason), (1, 1, CUT));
    }

    #[test]
    fn an_array_may_carry_time_and_metadata_on_standard_input() {
        let format = format(Framing::Json(Arrays::TimeAndRecord), 1000, TooLong::PassOver, None);
        let bench = Bench::new();
        let mut intake = bench.context().intake();
        let mut splitter = Splitter::new(format, None);
        let text = b"[1700000000.5, {\"c\":3}] [[5, {\"m\":1}], {\"d\":4}] [0, {}] [1,2] [1]\n";
        assert_eq!(splitter.pass(text, intake.as_mut()), Ok(text.len()));
        bench.passed(|p| {
            let got: Vec<_> = p.records.iter().map(|r| (r.1, r.2.as_deref(), r.3.as_str())).collect();
            let want = [
                (Some(Time::new(1_700_000_000, 500_000_000)), None, r#"{"c":UInt(3)}"#),
                (Some(Time::new(5, 0)), Some(r#"{"m":UInt(1)}"#), r#"{"d":UInt(4)}"#),
                (None, None, "{}"),
            ];
            assert_eq!(got, want);
        });
        assert_eq!(splitter.take_refused(), Some((2, NO_ENTRY)));
    }

    #[test]
    fn lines_are_kept_as_they_are_and_empty_ones_passed_over() {
        let format = format(pieces("\n", None), 1000, TooLong::EndStream, None);
        let run = all(&format, "first line\n  second  \r\n\n\n{\"json\":\"as text\"}\nno end");
        let want = [
            r#"{"log":"first line"}"#,
            r#"{"log":"  second  \r"}"#,
            r#"{"log":"{\"json\":\"as text\"}"}"#,
            r#"{"log":"no end"}"#,
        ];
        assert_eq!(run.records, want);
    }

    #[test]
    fn a_separator_of_several_bytes_may_come_in_pieces() {
        let format = format(pieces("aab", None), 1000, TooLong::EndStream, None);
        assert_eq!(
            all(&format, "1aab2aaab3aa").records,
            [r#"{"log":"1"}"#, r#"{"log":"2a"}"#, r#"{"log":"3aa"}"#]
        );
    }

    #[test]
    fn the_address_goes_under_its_key_once_and_last() {
        let json = format(Framing::Json(Arrays::Message), 1000, TooLong::EndStream, Some("from"));
        let run = all(&json, "{\"from\":1,\"z\":2}[3]");
        let want =
            [r#"{"z":UInt(2),"from":"tcp://1.2.3.4:5"}"#, r#"{"msg":[UInt(3)],"from":"tcp://1.2.3.4:5"}"#];
        assert_eq!(run.records, want);
        let lines = format(pieces("\n", None), 1000, TooLong::EndStream, Some("log"));
        assert_eq!(all(&lines, "x\n").records, [r#"{"log":"tcp://1.2.3.4:5"}"#]);
    }

    #[test]
    fn a_record_that_is_too_long_ends_the_stream_or_is_passed_over() {
        let long = "x".repeat(30);
        for (framing, text) in [
            (pieces("\n", None), format!("a\n{long}\nb\n")),
            (Framing::Json(Arrays::Message), format!("{{}}\n{{\"a\":\"{long}\"}}\n[]\n")),
        ] {
            let ends = format(framing, 20, TooLong::EndStream, None);
            let run = all(&ends, &text);
            assert_eq!((run.records.len(), run.refused, run.overlong), (1, 1, true), "{text}");
        }
        for (framing, text) in [
            (pieces("\n", None), format!("a\n{long}\nb\n")),
            (Framing::Json(Arrays::Message), format!("{{}}\n{{\"a\":\"{long}\"}}\n[]\n")),
        ] {
            let goes_on = format(framing, 20, TooLong::PassOver, None);
            let run = all(&goes_on, &text);
            assert_eq!((run.records.len(), run.refused, run.reason), (2, 1, TOO_LONG), "{text}");
        }
    }

    #[test]
    fn an_array_at_the_deepest_level_does_not_fit_under_msg() {
        let format = format(Framing::Json(Arrays::Message), 1000, TooLong::EndStream, None);
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(all(&format, &deep(32)).records.len(), 1);
        assert_eq!(all(&format, &deep(33)).refused, 1);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_never_panic(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\n')], 0..200),
            step in 1usize..50,
        ) {
            for framing in [Framing::Json(Arrays::Message), Framing::Json(Arrays::TimeAndRecord), pieces("\n\n", None)] {
                for too_long in [TooLong::EndStream, TooLong::PassOver] {
                    let framing = match &framing {
                        Framing::Json(arrays) => Framing::Json(*arrays),
                        Framing::Pieces { .. } => pieces("\n\n", None),
                    };
                    feed(&format(framing, 40, too_long, Some("k")), &bytes, step);
                }
            }
        }
    }
}
