//! A record into a message: topic, key, payload, headers, time.
//!
//! Enters: an entry as it lies in a chunk. Leaves: a message in buffers that are used again; the record is walked at most
//! twice, and not at all for fields that nobody asked for. Can go wrong: the record lacks what the message would be.

use std::ops::Range;

use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};

use super::gelf::Gelf;
use crate::outputs::format::JsonDate;
use crate::record::Time;
use crate::text::Accessor;
use crate::wire::entry::{self, TimeForm};
use crate::wire::json::{First, Json};
use crate::wire::msgpack::{self, Value};

/// Topics that records may add with `dynamic_topic`: librdkafka forgets none.
const DYNAMIC: usize = 1000;
/// The header with the time, where the message's own time cannot say it.
pub(super) const TIME: &str = "fluent-time";
/// A record's time is the message's if it is so close to now, in seconds before and after. Brokers keep messages by their
/// time, and refuse what is far ahead.
const BEFORE: i64 = 3600;
const AFTER: i64 = 600;

/// What the payload is.
pub(super) enum Format {
    /// The record as JSON, its time first.
    Json(JsonDate),
    /// The record as a map, its time first.
    Msgpack { date: JsonDate, is_double: bool },
    /// One field, a string.
    Raw(Box<[u8]>),
    /// Graylog's.
    Gelf(Gelf),
}

/// What decides about key and topic.
pub(super) struct Keys {
    /// `message_key`
    pub(super) fixed: Option<Box<[u8]>>,
    /// `message_key_field`
    pub(super) field: Option<Box<[u8]>>,
    /// `topic_key`
    pub(super) topic: Option<Box<[u8]>>,
}

/// A header made from a field.
pub(super) struct Header {
    pub(super) name: String,
    pub(super) field: Accessor,
}

/// The topics there are.
pub(super) struct Topics {
    names: Vec<String>,
    /// Those that the configuration names.
    configured: usize,
    dynamic: bool,
    full: bool,
}

impl Topics {
    pub(super) fn new(names: Vec<String>, dynamic: bool) -> Topics {
        Topics { configured: names.len(), names, dynamic, full: false }
    }

    /// Whether Kafka takes it for a name.
    pub(super) fn is_name(text: &[u8]) -> bool {
        (1..=249).contains(&text.len())
            && text != b"."
            && text != b".."
            && text.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
    }

    /// The topic that a record names; the default when it names none that may be used.
    fn find(&mut self, text: &[u8]) -> usize {
        if let Some(at) = self.names.iter().position(|name| name.as_bytes() == text) {
            return at;
        }
        if !self.dynamic || self.full || !Topics::is_name(text) {
            return 0;
        }
        if self.names.len() >= self.configured + DYNAMIC {
            self.full = true;
            tracing::warn!(
                topics = DYNAMIC,
                "records name more topics than that; further ones go to the default topic"
            );
            return 0;
        }
        self.names.push(String::from_utf8_lossy(text).into_owned());
        self.names.len() - 1
    }
}

/// A message but for its payload and key, which are in the encoder.
pub(super) struct Message<'e> {
    /// Its topic.
    pub(super) topic: &'e str,
    /// Whether a record chose it.
    pub(super) dynamic: bool,
    pub(super) key: Option<&'e [u8]>,
    pub(super) payload: &'e [u8],
    /// Milliseconds; `None`: now.
    pub(super) time: Option<i64>,
    pub(super) headers: Option<OwnedHeaders>,
    /// Bytes of its headers, about.
    pub(super) head: usize,
}

/// A record that becomes no message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) detail: &'static str,
}

pub(super) struct Encoder {
    format: Format,
    json: Json,
    topics: Topics,
    keys: Keys,
    headers: Vec<Header>,
    tag_header: Option<String>,
    payload: Vec<u8>,
    date: Vec<u8>,
    value: Vec<u8>,
}

/// The fields that were asked for: the last one of each name counts.
#[derive(Default)]
struct Found {
    key: Option<Range<usize>>,
    topic: Option<Range<usize>>,
    raw: Option<Range<usize>>,
}

impl Encoder {
    pub(super) fn new(
        format: Format,
        json: Json,
        topics: Topics,
        keys: Keys,
        headers: Vec<Header>,
        tag_header: Option<String>,
    ) -> Encoder {
        let (payload, date, value) = Default::default();
        Encoder { format, json, topics, keys, headers, tag_header, payload, date, value }
    }

    /// The message of the entry at `pos`, and where the entry ends. The outer `None`: no entry is there.
    pub(super) fn message<'e>(
        &'e mut self,
        buf: &'e [u8],
        pos: usize,
        tag: &[u8],
        now: i64,
    ) -> Option<(Result<Message<'e>, Unfit>, usize)> {
        let (time, record) = head(buf, pos)?;
        self.payload.clear();
        let mut end = match &mut self.format {
            Format::Json(date) => {
                self.date.clear();
                date.write(&mut self.date, time);
                let first = First { key: date.key(), json: &self.date };
                Some(self.json.write_map_with(&mut self.payload, first, buf, record))
            }
            Format::Msgpack { date, is_double } => {
                Some(packed(&mut self.payload, (date, *is_double, &mut self.date), time, buf, record)?)
            }
            Format::Raw(_) => None,
            Format::Gelf(gelf) => match gelf.write(&mut self.payload, time, buf, record) {
                Ok(end) => Some(end),
                Err(detail) => return Some((Err(Unfit { detail }), msgpack::skip(buf, record).ok()?)),
            },
        };
        let wants = self.keys.field.is_some() || self.keys.topic.is_some() || end.is_none();
        let mut found = Found::default();
        if wants {
            end = Some(self.find(buf, record, &mut found)?);
        }
        let end = end?;
        let text = |range: &Option<Range<usize>>| match msgpack::read(buf, range.as_ref()?.start)?.0 {
            Value::Str(text) => Some(text),
            _ => None,
        };
        if matches!(self.format, Format::Raw(_)) {
            match text(&found.raw) {
                Some(text) => self.payload.extend_from_slice(text),
                None => {
                    let detail = "the record has no field raw_log_key, or it is no string";
                    return Some((Err(Unfit { detail }), end));
                }
            }
        }
        let topic = match text(&found.topic) {
            Some(name) => self.topics.find(name),
            None => 0,
        };
        let close = (now - BEFORE..=now + AFTER).contains(&time.sec);
        let (headers, head) = self.heads(buf.get(record..end)?, tag, (!close).then_some(time));
        let message = Message {
            topic: self.topics.names.get(topic)?,
            dynamic: topic >= self.topics.configured,
            key: text(&found.key).or(self.keys.fixed.as_deref()),
            payload: &self.payload,
            time: close.then(|| time.millis()),
            headers,
            head,
        };
        Some((Ok(message), end))
    }

    fn find(&self, buf: &[u8], record: usize, found: &mut Found) -> Option<usize> {
        let (Value::Map { count, at }, _) = msgpack::read(buf, record)? else { return None };
        let raw = match &self.format {
            Format::Raw(key) => Some(key),
            _ => None,
        };
        let mut pos = at;
        for _ in 0..count {
            let value = msgpack::skip(buf, pos).ok()?;
            let name = msgpack::read(buf, pos)?.0.text();
            let end = msgpack::skip(buf, value).ok()?;
            let wanted = [
                (self.keys.field.as_ref(), &mut found.key),
                (self.keys.topic.as_ref(), &mut found.topic),
                (raw, &mut found.raw),
            ];
            for (key, place) in wanted {
                if let Some(key) = key
                    && name == Some(key)
                {
                    *place = Some(value..end);
                }
            }
            pos = end;
        }
        Some(pos)
    }

    fn heads(&mut self, record: &[u8], tag: &[u8], time: Option<Time>) -> (Option<OwnedHeaders>, usize) {
        let count = usize::from(self.tag_header.is_some()) + usize::from(time.is_some()) + self.headers.len();
        if count == 0 {
            return (None, 0);
        }
        let mut headers = OwnedHeaders::new_with_capacity(count);
        let mut bytes = 0;
        if let Some(name) = &self.tag_header {
            bytes += name.len() + tag.len();
            headers = headers.insert(KafkaHeader { key: name, value: Some(tag) });
        }
        if let Some(time) = time
            && self.tag_header.is_some()
        {
            self.value.clear();
            let digits = format!("{}.{:09}", time.sec, time.nsec);
            bytes += TIME.len() + digits.len();
            headers = headers.insert(KafkaHeader { key: TIME, value: Some(digits.as_bytes()) });
        }
        for header in &self.headers {
            let Some(value) = header.field.get(record) else { continue };
            self.value.clear();
            match msgpack::value(value).and_then(Value::text) {
                Some(text) => self.value.extend_from_slice(text),
                None => {
                    self.json.write_value(&mut self.value, value, 0);
                }
            }
            bytes += header.name.len() + self.value.len();
            headers = headers.insert(KafkaHeader { key: &header.name, value: Some(&self.value[..]) });
        }
        (Some(headers), bytes)
    }
}

/// The time of the entry at `pos`, and where its record begins.
#[inline]
fn head(buf: &[u8], pos: usize) -> Option<(Time, usize)> {
    let at = |form| match form {
        TimeForm::At(time) => time,
        TimeForm::Now => Time::default(),
    };
    if buf.get(pos) == Some(&0x92)
        && let Some((time, record)) = entry::time(buf, pos + 1)
    {
        return Some((at(time), record));
    }
    let entry = entry::read(buf, pos).ok()?.ok()?;
    Some((at(entry.time), entry.record.start))
}

/// The record's map with its time in front, and where the record ends.
fn packed(
    out: &mut Vec<u8>,
    (date, is_double, room): (&mut JsonDate, bool, &mut Vec<u8>),
    time: Time,
    buf: &[u8],
    record: usize,
) -> Option<usize> {
    let (Value::Map { count, at }, _) = msgpack::read(buf, record)? else { return None };
    let end = msgpack::skip(buf, record).ok()?;
    msgpack::write_map(out, count + 1);
    msgpack::write_str(out, date.key());
    if is_double {
        msgpack::write_float(out, time.as_f64());
    } else {
        room.clear();
        date.write_value(room, time);
        // Without its quotes.
        msgpack::write_str(out, room.get(1..room.len().saturating_sub(1)).unwrap_or_default());
    }
    out.extend_from_slice(buf.get(at..end)?);
    Some(end)
}

#[cfg(test)]
mod tests;
