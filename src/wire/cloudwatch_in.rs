//! The body of a PutLogEvents call to log entries, straight into a byte buffer, without a tree.
//!
//! Enters: JSON, whole. Leaves: where it is to go ([`Outline`]), and its events as `[time, {log, group, stream}]`,
//! appended to a buffer. Can go wrong: what CloudWatch Logs refuses ([`Refused`]); then nothing has been appended.
//!
//! Keys may come in any order (Go's SDK sends the events before the names), unknown ones are passed over. Bytes that are
//! no UTF-8, and surrogates without their half, become U+FFFD, as they do at the service.
//! <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>

use std::borrow::Cow;

use super::json_in::{plain, string_into};
use super::{entry, msgpack};
use crate::record::Time;

/// Bytes that the service counts for an event beside its message.
pub const EVENT_OVERHEAD: usize = 26;
/// Most bytes of a batch, counted so.
pub const MAX_BATCH: usize = 1_048_576;
/// Most events of a batch.
pub const MAX_EVENTS: usize = 10_000;
/// A batch spans less than this many milliseconds.
pub const MAX_SPAN: i64 = 24 * 3600 * 1000;
/// Levels of maps and arrays in what is passed over.
const MAX_DEPTH: usize = 32;
/// Where names are looked for that come after the events.
const TAIL: usize = 4096;

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No JSON, or a value of another type: `SerializationException`.
    #[error("{0}")]
    Shape(&'static str),
    /// A value that is not allowed: `InvalidParameterException`.
    #[error("{0}")]
    Value(String),
    /// Nothing is wrong: the names are not where they seemed to be. Read the outline again, all of it.
    #[error("The names are not where they seemed to be.")]
    Misled,
}

const NO_JSON: Refused = Refused::Shape("The request body is not valid JSON.");
const NO_MAP: Refused = Refused::Shape("The request body must be a JSON object.");
const NO_STRING: Refused = Refused::Shape("A value of another type cannot be converted to a String.");
const NO_LONG: Refused = Refused::Shape("A value of another type cannot be converted to a Long.");
const NO_LIST: Refused = Refused::Shape("A value of another type cannot be converted to a list.");
const NO_EVENT: Refused = Refused::Shape("A value of another type cannot be converted to a log event.");

fn constraint(value: &str, at: &str, rule: &str) -> Refused {
    Refused::Value(format!(
        "1 validation error detected: Value {value} at '{at}' failed to satisfy constraint: Member must {rule}"
    ))
}

/// What stands beside the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline<'b> {
    /// `logGroupName`, unchecked.
    pub group: Cow<'b, str>,
    /// `logStreamName`, unchecked.
    pub stream: Cow<'b, str>,
    /// `sequenceToken`, if it was looked for, or came before the events.
    pub token: Option<Cow<'b, str>>,
    /// Where the list of events begins.
    events: usize,
    /// Whether all of the body has been looked at.
    whole: bool,
    /// Whether the names are those that stand near the end; to be confirmed.
    guessed: bool,
}

impl<'b> Outline<'b> {
    /// Reads a body as far as it must be to know where the events go, or all of it.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn read(body: &'b [u8], all: bool) -> Result<Self, Refused> {
        let mut at = Cursor { text: body, pos: 0 };
        let (mut group, mut stream, mut token, mut events) = (None, None, None, None);
        let (mut whole, mut guessed) = (true, false);
        at.blanks();
        if at.peek()? != b'{' {
            return Err(NO_MAP);
        }
        let mut more = at.opens(b'}')?;
        while more {
            let key = at.key()?;
            if key.is("logGroupName") {
                group = at.text()?;
            } else if key.is("logStreamName") {
                stream = at.text()?;
            } else if key.is("sequenceToken") {
                token = at.text()?;
            } else if key.is("logEvents") {
                events = (at.peek()? != b'n').then_some(at.pos);
                if !all && events.is_some() {
                    if group.is_none()
                        && stream.is_none()
                        && let Some(name) = name_at_end(body, at.pos, "\"logGroupName\"")
                        && let Some(other) = name_at_end(body, at.pos, "\"logStreamName\"")
                    {
                        (group, stream, guessed) = (Some(name), Some(other), true);
                    }
                    if group.is_some() && stream.is_some() {
                        whole = false;
                        break;
                    }
                }
                at.skip()?;
            } else {
                at.skip()?;
            }
            more = at.goes_on(b'}')?;
        }
        if whole {
            at.end()?;
        }
        let missing = |key: &str| constraint("null", key, "not be null");
        Ok(Outline {
            group: group.ok_or_else(|| missing("logGroupName"))?,
            stream: stream.ok_or_else(|| missing("logStreamName"))?,
            events: events.ok_or_else(|| missing("logEvents"))?,
            token,
            whole,
            guessed,
        })
    }
}

impl Outline<'_> {
    /// Whether [`entries`] still has to find that the names are those of the call.
    pub fn is_guessed(&self) -> bool {
        self.guessed
    }
}

/// A name among the last bytes of a body, where Go's SDK puts it: so the events need not be passed over first. Within a
/// string the quote before the key would be escaped; other doubts are for [`entries`] to settle.
fn name_at_end<'b>(body: &'b [u8], from: usize, key: &str) -> Option<Cow<'b, str>> {
    let start = from.max(body.len().saturating_sub(TAIL));
    let found = start + memchr::memmem::rfind(body.get(start..)?, key.as_bytes())?;
    if body.get(found.checked_sub(1)?) == Some(&b'\\') {
        return None;
    }
    let mut at = Cursor { text: body, pos: found };
    at.key().ok()?;
    at.text().ok()?
}

/// What every entry of a batch has in common, encoded.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Up to the message; the time is patched.
    head: Vec<u8>,
    /// After the message.
    tail: Vec<u8>,
    /// Where the time stands in `head`.
    time: usize,
}

impl Frame {
    /// `fields` are those after `log`; `metadata` is an encoded map.
    pub fn new(fields: &[(&str, &str)], metadata: Option<&[u8]>) -> Self {
        let mut head = Vec::new();
        entry::write_head(&mut head, Time::new(1, 0), metadata);
        msgpack::write_map(&mut head, 1 + fields.len());
        msgpack::write_str(&mut head, b"log");
        let mut tail = Vec::new();
        for (key, value) in fields {
            msgpack::write_str(&mut tail, key.as_bytes());
            msgpack::write_str(&mut tail, value.as_bytes());
        }
        Frame { head, tail, time: if metadata.is_some() { 2 } else { 1 } }
    }

    /// Most bytes that `body` becomes, unless it is full of bytes that are no UTF-8: messages do not grow, and an event
    /// has at least thirty bytes.
    pub fn most(&self, body: &[u8]) -> usize {
        let each = self.head.len() + self.tail.len() + 5;
        body.len() + (body.len() / 30).min(MAX_EVENTS) * each
    }

    /// Puts the time into the entry that begins at `mark`.
    fn set_time(&self, out: &mut Vec<u8>, mark: usize, millis: i64) {
        let time = Time::new(millis.div_euclid(1000), millis.rem_euclid(1000) as u32 * 1_000_000);
        let mut encoded = Vec::with_capacity(10);
        entry::write_time(&mut encoded, time);
        let at = mark + self.time;
        // An EventTime has ten bytes; what it cannot hold has fewer.
        out.splice(at..at + 10, encoded);
    }
}

/// Which events are taken, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Older ones are too old.
    pub oldest: i64,
    /// Older ones have expired: the group's retention.
    pub kept: i64,
    /// Later ones are too new.
    pub newest: i64,
}

impl Times {
    /// All of them.
    pub const ANY: Times = Times { oldest: i64::MIN, kept: i64::MIN, newest: i64::MAX };
}

/// What was in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Events that were appended.
    pub taken: usize,
    /// Events in all.
    pub events: usize,
    /// Where those that are too old end.
    pub too_old_end: Option<usize>,
    /// Where those that have expired end.
    pub expired_end: Option<usize>,
    /// Where those that are too new begin.
    pub too_new_start: Option<usize>,
    /// Timestamps of the first and the last that was appended.
    pub span: Option<(i64, i64)>,
}

/// Appends the events of a body as entries.
///
/// # Errors
/// See [`Refused`]; `out` is then as it was.
pub fn entries(
    body: &[u8],
    outline: &Outline<'_>,
    frame: &Frame,
    times: Times,
    out: &mut Vec<u8>,
) -> Result<Batch, Refused> {
    let mark = out.len();
    let clean = simdutf8::basic::from_utf8(body).is_ok();
    let mut reader = Reader { at: Cursor { text: body, pos: outline.events }, frame, times, clean, size: 0 };
    let read = reader.list(out).and_then(|batch| {
        if !outline.whole {
            reader.rest(outline)?;
        }
        Ok(batch)
    });
    if read.is_err() {
        out.truncate(mark);
    }
    read
}

struct Reader<'r> {
    at: Cursor<'r>,
    frame: &'r Frame,
    times: Times,
    /// Whether the body is UTF-8.
    clean: bool,
    /// Bytes as the service counts them.
    size: usize,
}

impl Reader<'_> {
    fn list(&mut self, out: &mut Vec<u8>) -> Result<Batch, Refused> {
        if self.at.peek()? != b'[' {
            return Err(NO_LIST);
        }
        let mut batch = Batch::default();
        let mut last = i64::MIN;
        let mut more = self.at.opens(b']')?;
        if !more {
            return Err(constraint("'[]'", "logEvents", "have length greater than or equal to 1"));
        }
        while more {
            let mark = out.len();
            let n = batch.events;
            batch.events += 1;
            if batch.events > MAX_EVENTS {
                return Err(constraint(
                    "with more than 10000 log events",
                    "logEvents",
                    "have length less than or equal to 10000",
                ));
            }
            let time = self.event(n, out)?;
            if time < last {
                return Err(Refused::Value(
                    "Log events in a single PutLogEvents request must be in chronological order.".to_owned(),
                ));
            }
            last = time;
            if self.takes(time, n, &mut batch) {
                self.frame.set_time_fast(out, mark, time);
                out.extend_from_slice(&self.frame.tail);
                let first = batch.span.map_or(time, |(first, _)| first);
                batch.span = Some((first, time));
                batch.taken += 1;
                if time - first > MAX_SPAN {
                    return Err(Refused::Value(
                        "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
                            .to_owned(),
                    ));
                }
            } else {
                out.truncate(mark);
            }
            more = self.at.goes_on(b']')?;
        }
        if self.size > MAX_BATCH {
            return Err(Refused::Value(format!(
                "Upload too large: {} bytes exceeds limit of {MAX_BATCH}",
                self.size
            )));
        }
        Ok(batch)
    }

    fn takes(&self, time: i64, n: usize, batch: &mut Batch) -> bool {
        if time < self.times.oldest {
            batch.too_old_end = Some(n + 1);
        } else if time < self.times.kept {
            batch.expired_end = Some(n + 1);
        } else if time > self.times.newest {
            batch.too_new_start.get_or_insert(n);
        } else {
            return true;
        }
        false
    }

    /// Appends one event up to its message, with any time, and gives its timestamp.
    fn event(&mut self, n: usize, out: &mut Vec<u8>) -> Result<i64, Refused> {
        if self.at.peek()? != b'{' {
            return Err(NO_EVENT);
        }
        out.extend_from_slice(&self.frame.head);
        let mark = out.len();
        let mut time = None;
        let mut more = self.at.opens(b'}')?;
        while more {
            let key = self.at.key()?;
            if key.is("message") {
                // The last one counts.
                out.truncate(mark);
                self.message(out)?;
            } else if key.is("timestamp") {
                time = self.at.integer()?;
            } else {
                self.at.skip()?;
            }
            more = self.at.goes_on(b'}')?;
        }
        let name = |field: &str| format!("logEvents.{}.member.{field}", n + 1);
        let message = msgpack::content(out.get(mark..).unwrap_or_default()).len();
        if message == 0 {
            return Err(if out.len() == mark {
                constraint("null", &name("message"), "not be null")
            } else {
                constraint("''", &name("message"), "have length greater than or equal to 1")
            });
        }
        self.size += message + EVENT_OVERHEAD;
        match time {
            None => Err(constraint("null", &name("timestamp"), "not be null")),
            Some(time @ 0..) => Ok(time),
            Some(time) => Err(constraint(
                &format!("'{time}'"),
                &name("timestamp"),
                "have value greater than or equal to 0",
            )),
        }
    }

    fn message(&mut self, out: &mut Vec<u8>) -> Result<(), Refused> {
        match self.at.peek()? {
            b'"' => {}
            b'n' => return self.at.skip(),
            _ => return Err(NO_STRING),
        }
        let mark = out.len();
        let rest = self.at.text.get(self.at.pos..).unwrap_or_default();
        self.at.pos += string_into(rest, out).map_err(|_| NO_JSON)?;
        if !self.clean {
            let text = msgpack::content(out.get(mark..).unwrap_or_default());
            if let Cow::Owned(repaired) = String::from_utf8_lossy(text) {
                out.truncate(mark);
                msgpack::write_str(out, repaired.as_bytes());
            }
        }
        Ok(())
    }

    /// What follows the events.
    fn rest(&mut self, outline: &Outline<'_>) -> Result<(), Refused> {
        let (mut group, mut stream) = (!outline.guessed, !outline.guessed);
        while self.at.goes_on(b'}')? {
            let key = self.at.key()?;
            if outline.guessed && key.is("logGroupName") {
                group = self.at.text()?.as_ref() == Some(&outline.group);
            } else if outline.guessed && key.is("logStreamName") {
                stream = self.at.text()?.as_ref() == Some(&outline.stream);
            } else {
                self.at.skip()?;
            }
        }
        self.at.end()?;
        if group && stream { Ok(()) } else { Err(Refused::Misled) }
    }
}

impl Frame {
    /// As `set_time`, for the times that an EventTime holds.
    #[inline]
    fn set_time_fast(&self, out: &mut Vec<u8>, mark: usize, millis: i64) {
        let at = mark + self.time;
        match (u32::try_from(millis / 1000), out.get_mut(at + 2..at + 10)) {
            (Ok(sec), Some(place)) => {
                let nsec = (millis % 1000) as u32 * 1_000_000;
                let (sec, nsec) = (sec.to_be_bytes(), nsec.to_be_bytes());
                place.copy_from_slice(&[sec[0], sec[1], sec[2], sec[3], nsec[0], nsec[1], nsec[2], nsec[3]]);
            }
            _ => self.set_time(out, mark, millis),
        }
    }
}

/// A string as it stands between its quotes.
#[derive(Clone, Copy)]
struct Raw<'b> {
    /// With the quote before it, and the one after it.
    quoted: &'b [u8],
    escaped: bool,
}

impl<'b> Raw<'b> {
    fn content(self) -> &'b [u8] {
        self.quoted.get(1..self.quoted.len() - 1).unwrap_or_default()
    }

    #[inline]
    fn is(self, name: &str) -> bool {
        if self.escaped {
            self.decoded().as_ref() == Ok(&name.into())
        } else {
            self.content() == name.as_bytes()
        }
    }

    fn decoded(self) -> Result<Cow<'b, str>, Refused> {
        if !self.escaped {
            return Ok(String::from_utf8_lossy(self.content()));
        }
        let mut encoded = Vec::new();
        string_into(self.quoted, &mut encoded).map_err(|_| NO_JSON)?;
        Ok(String::from_utf8_lossy(msgpack::content(&encoded)).into_owned().into())
    }
}

#[derive(Clone, Copy)]
struct Cursor<'b> {
    text: &'b [u8],
    pos: usize,
}

impl<'b> Cursor<'b> {
    #[inline]
    fn peek(&self) -> Result<u8, Refused> {
        self.text.get(self.pos).copied().ok_or(NO_JSON)
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.pos) {
            self.pos += 1;
        }
    }

    /// Passes the opening bracket; false when the closing one follows, which is passed as well.
    #[inline]
    fn opens(&mut self, close: u8) -> Result<bool, Refused> {
        self.pos += 1;
        self.blanks();
        let empty = self.peek()? == close;
        self.pos += usize::from(empty);
        Ok(!empty)
    }

    /// After an element: false at the closing bracket.
    #[inline]
    fn goes_on(&mut self, close: u8) -> Result<bool, Refused> {
        self.blanks();
        let found = self.peek()?;
        self.pos += 1;
        if found == b',' {
            self.blanks();
            return Ok(true);
        }
        if found == close { Ok(false) } else { Err(NO_JSON) }
    }

    /// Nothing but blanks may follow.
    fn end(&mut self) -> Result<(), Refused> {
        self.blanks();
        if self.pos == self.text.len() { Ok(()) } else { Err(NO_JSON) }
    }

    #[inline]
    fn raw(&mut self) -> Result<Raw<'b>, Refused> {
        let start = self.pos;
        let mut escaped = false;
        self.pos += 1;
        loop {
            let rest = self.text.get(self.pos..).unwrap_or_default();
            let len = plain(rest);
            self.pos += len + 1;
            match rest.get(len) {
                Some(b'"') => break,
                Some(_) => {
                    escaped = true;
                    self.pos += 1;
                }
                None => return Err(NO_JSON),
            }
        }
        Ok(Raw { quoted: self.text.get(start..self.pos).ok_or(NO_JSON)?, escaped })
    }

    /// A key with its colon and the blanks around it.
    #[inline]
    fn key(&mut self) -> Result<Raw<'b>, Refused> {
        if self.peek()? != b'"' {
            return Err(NO_JSON);
        }
        let key = self.raw()?;
        self.blanks();
        if self.peek()? != b':' {
            return Err(NO_JSON);
        }
        self.pos += 1;
        self.blanks();
        Ok(key)
    }

    /// A string, or null.
    fn text(&mut self) -> Result<Option<Cow<'b, str>>, Refused> {
        match self.peek()? {
            b'"' => self.raw()?.decoded().map(Some),
            b'n' => self.skip().map(|()| None),
            _ => Err(NO_STRING),
        }
    }

    /// A number without its fraction, or null.
    #[inline]
    fn integer(&mut self) -> Result<Option<i64>, Refused> {
        let start = self.pos;
        let mut value = Some(0_i64);
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.pos) {
            value = value.and_then(|v| v.checked_mul(10)?.checked_add(i64::from(digit - b'0')));
            self.pos += 1;
        }
        let leading_zero = self.pos > start + 1 && self.text.get(start) == Some(&b'0');
        match (value, self.peek()?) {
            (Some(value), b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t')
                if self.pos > start && !leading_zero =>
            {
                Ok(Some(value))
            }
            _ => {
                self.pos = start;
                self.number()
            }
        }
    }

    /// The numbers that are rare: signed, with a fraction or an exponent, beyond 64 bits.
    #[cold]
    fn number(&mut self) -> Result<Option<i64>, Refused> {
        match self.peek()? {
            b'n' => return self.skip().map(|()| None),
            b'-' | b'0'..=b'9' => {}
            _ => return Err(NO_LONG),
        }
        let start = self.pos;
        self.skip()?;
        let mut out = Vec::new();
        let text = self.text.get(start..self.pos).unwrap_or_default();
        super::json_in::value_into(text, &mut out).map_err(|_| NO_JSON)?;
        match msgpack::value(&out) {
            Some(msgpack::Value::UInt(v)) => i64::try_from(v).map(Some).map_err(|_| NO_LONG),
            Some(msgpack::Value::Int(v)) => Ok(Some(v)),
            Some(msgpack::Value::Float(v)) if v.abs() < 9e18 => Ok(Some(v as i64)),
            _ => Err(NO_LONG),
        }
    }

    /// Passes a value. What is between its brackets is looked at only as far as needed to find its end.
    fn skip(&mut self) -> Result<(), Refused> {
        // One bit a level, set for a map.
        let (mut depth, mut maps) = (0_usize, 0_u64);
        loop {
            match self.peek()? {
                b'"' => {
                    self.raw()?;
                }
                open @ (b'{' | b'[') => {
                    if depth == MAX_DEPTH {
                        return Err(NO_JSON);
                    }
                    maps = maps & !(1 << depth) | u64::from(open == b'{') << depth;
                    depth += 1;
                    self.pos += 1;
                }
                close @ (b'}' | b']') => {
                    depth = depth.checked_sub(1).ok_or(NO_JSON)?;
                    if (maps >> depth & 1 == 1) != (close == b'}') {
                        return Err(NO_JSON);
                    }
                    self.pos += 1;
                }
                b',' | b':' | b' ' | b'\n' | b'\t' | b'\r' if depth > 0 => {
                    self.pos += 1;
                    continue;
                }
                b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                    while let Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') =
                        self.text.get(self.pos)
                    {
                        self.pos += 1;
                    }
                }
                _ => return Err(NO_JSON),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
