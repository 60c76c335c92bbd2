//! How `file` and `stdout` write a record.
//!
//! Enters: entries as they lie in a chunk. Leaves: bytes of one record, appended to the batch. Can go wrong: nothing;
//! chunks hold only what was validated.

mod columns;
mod date;

pub(super) use columns::{Separators, Template};
pub(super) use date::{JsonDate, json_date};

use crate::record::{Tag, Time};
use crate::wire::entry::{self, TimeForm};
use crate::wire::json::{First, Json};
use crate::wire::msgpack;
use crate::wire::print::print_value;

/// The formats.
#[derive(Debug)]
pub(super) enum Shape {
    /// `TAG: [SEC.NSEC, {json}]`
    OutFile,
    /// `[N] TAG: [[SEC.NSEC, {metadata}], {record}]`, printed as Ruby would; N counts within a group.
    Text,
    /// JSON objects, each with its date if there is a key for it.
    Json {
        /// What stands around and between them.
        frame: Frame,
        /// `json_date_key` and `json_date_format`.
        date: Option<JsonDate>,
    },
    /// `SEC.NSEC,"text",1`
    Csv(Separators),
    /// `"time":SEC.USEC<tab>"key":"text"`
    Ltsv(Separators),
    /// Text with `{key}`.
    Template(Template),
    /// `[[time, metadata], record]`
    Msgpack,
}

/// What stands around and between JSON objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Each on a line of its own.
    Lines,
    /// A group is one line, nothing between objects.
    Stream,
    /// A group is an array on one line.
    Array,
}

/// A format at work: keeps what repeats from record to record.
pub(super) struct Formatter {
    shape: Shape,
    json: Json,
    /// The tag as the lines begin with it.
    tag: Vec<u8>,
    /// `TAG: [SEC.` of the last record.
    line: Vec<u8>,
    line_sec: Option<i64>,
    date: Vec<u8>,
}

/// Where the parts of an entry are.
struct Head {
    time: Time,
    metadata: Option<(usize, usize)>,
    record: usize,
}

/// Reads what stands before the record. Does not walk the record: it was validated, and the writers find its end.
#[inline]
fn head(buf: &[u8], pos: usize) -> Option<Head> {
    let at = |form| match form {
        TimeForm::At(time) => time,
        TimeForm::Now => Time::default(),
    };
    if buf.get(pos) == Some(&0x92)
        && let Some((time, record)) = entry::time(buf, pos + 1)
    {
        return Some(Head { time: at(time), metadata: None, record });
    }
    let entry = entry::read(buf, pos).ok()?.ok()?;
    Some(Head {
        time: at(entry.time),
        metadata: entry.metadata.map(|m| (m.start, m.end)),
        record: entry.record.start,
    })
}

impl Formatter {
    pub(super) fn new(shape: Shape, escape_unicode: bool) -> Self {
        Formatter {
            shape,
            json: Json { escape_unicode },
            tag: Vec::new(),
            line: Vec::new(),
            line_sec: None,
            date: Vec::new(),
        }
    }

    /// Records of this tag follow.
    pub(super) fn tag(&mut self, tag: &Tag) {
        if self.tag == tag.as_bytes() {
            return;
        }
        self.line_sec = None;
        self.tag.clear();
        for b in tag.as_bytes() {
            // A client chooses the tag: it must not begin lines of its own.
            if b.is_ascii_control() {
                self.tag.extend_from_slice(format!("\\x{b:02x}").as_bytes());
            } else {
                self.tag.push(*b);
            }
        }
    }

    /// Appends the entry at `pos`, the `nth` of its group, and says where it ends; `None` when it is none.
    #[inline]
    pub(super) fn record(&mut self, out: &mut Vec<u8>, nth: u64, buf: &[u8], pos: usize) -> Option<usize> {
        let head = head(buf, pos)?;
        let end = match &mut self.shape {
            Shape::OutFile => {
                if self.line_sec != Some(head.time.sec) {
                    self.line_sec = Some(head.time.sec);
                    self.line.clear();
                    for part in
                        [&self.tag, &b": ["[..], itoa::Buffer::new().format(head.time.sec).as_bytes(), b"."]
                    {
                        self.line.extend_from_slice(part);
                    }
                }
                out.extend_from_slice(&self.line);
                let [a, b, c, d, e, f, g, h, i] = date::nine_digits(head.time.nsec);
                out.extend_from_slice(&[a, b, c, d, e, f, g, h, i, b',', b' ']);
                let end = self.json.write_value(out, buf, head.record);
                out.extend_from_slice(b"]\n");
                end
            }
            Shape::Json { frame, date } => {
                if *frame == Frame::Array {
                    out.push(if nth == 0 { b'[' } else { b',' });
                }
                let end = match date {
                    None => self.json.write_value(out, buf, head.record),
                    Some(date) => {
                        self.date.clear();
                        date.write(&mut self.date, head.time);
                        let first = First { key: date.key(), json: &self.date };
                        self.json.write_map_with(out, first, buf, head.record)
                    }
                };
                if *frame == Frame::Lines {
                    out.push(b'\n');
                }
                end
            }
            Shape::Text => {
                let end = msgpack::skip(buf, head.record).ok()?;
                out.push(b'[');
                out.extend_from_slice(itoa::Buffer::new().format(nth).as_bytes());
                out.extend_from_slice(b"] ");
                out.extend_from_slice(&self.tag);
                out.extend_from_slice(b": [[");
                date::seconds(out, head.time);
                out.extend_from_slice(b", ");
                match head.metadata.and_then(|(start, end)| buf.get(start..end)) {
                    Some(metadata) => print_value(out, metadata),
                    None => out.extend_from_slice(b"{}"),
                }
                out.extend_from_slice(b"], ");
                print_value(out, buf.get(head.record..end)?);
                out.extend_from_slice(b"]\n");
                end
            }
            Shape::Csv(separators) => separators.csv(out, head.time, buf, head.record),
            Shape::Ltsv(separators) => separators.ltsv(out, head.time, buf, head.record),
            Shape::Template(template) => template.write(out, head.time, buf, head.record),
            Shape::Msgpack => {
                let end = msgpack::skip(buf, head.record).ok()?;
                let metadata = head.metadata.and_then(|(start, end)| buf.get(start..end));
                entry::write_head(out, head.time, Some(metadata.unwrap_or(&[0x80])));
                out.extend_from_slice(buf.get(head.record..end)?);
                end
            }
        };
        Some(end)
    }

    /// What a file begins with: the column names of csv, taken from the entry at `pos`.
    pub(super) fn header(&self, buf: &[u8], pos: usize) -> Vec<u8> {
        let mut out = Vec::new();
        if let (Shape::Csv(separators), Some(head)) = (&self.shape, head(buf, pos))
            && separators.column_names
        {
            separators.names(&mut out, buf, head.record);
        }
        out
    }

    /// Ends a group that is not empty.
    pub(super) fn end_group(&self, out: &mut Vec<u8>) {
        match self.shape {
            Shape::Json { frame: Frame::Array, .. } => out.extend_from_slice(b"]\n"),
            Shape::Json { frame: Frame::Stream, .. } => out.push(b'\n'),
            _ => {}
        }
    }

    /// Whether how records are grouped shows in what is written.
    pub(super) fn shows_groups(&self) -> bool {
        matches!(self.shape, Shape::Text | Shape::Json { frame: Frame::Array | Frame::Stream, .. })
    }

    /// How its lines begin; `None` when it has no lines.
    pub(super) fn beginnings(&self) -> Option<Beginning> {
        match &self.shape {
            Shape::OutFile => Some(Beginning::TagAndTime),
            Shape::Json { .. } => Some(Beginning::Brace),
            Shape::Csv(_) => Some(Beginning::Digits),
            Shape::Ltsv(_) => Some(Beginning::TimeLabel),
            Shape::Text | Shape::Template(_) => Some(Beginning::Anything),
            Shape::Msgpack => None,
        }
    }
}

/// How the lines of a format begin, to tell a torn line of our own from someone else's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// `TAG: [1760000000`
    TagAndTime,
    /// `{`
    Brace,
    /// `1760000000`
    Digits,
    /// `"time"`
    TimeLabel,
    /// Cannot be told.
    Anything,
}

impl Beginning {
    /// Whether `tail`, a last line without its end, looks like one that this format began.
    pub(super) fn fits(self, tail: &[u8]) -> bool {
        let digits = |text: &[u8]| text.iter().take(10).all(u8::is_ascii_digit);
        match self {
            Beginning::TagAndTime => {
                memchr::memmem::find(tail, b": [").and_then(|at| tail.get(at + 3..)).is_some_and(digits)
            }
            Beginning::Brace => tail.first() == Some(&b'{'),
            Beginning::Digits => digits(tail),
            Beginning::TimeLabel => tail.starts_with(b"\"time\""),
            Beginning::Anything => false,
        }
    }
}

#[cfg(test)]
mod tests;
