//! A message into a record.
//!
//! Enters: a message. Leaves: an encoded map as Fluent Bit's input makes it, with the time and the tag that the message
//! came with. Can go wrong: a payload that is no JSON stays text.

use std::ops::Range;
use std::sync::Arc;

use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

use super::control::Place;
use crate::record::Time;
use crate::wire::entry::MAX_DEPTH;
use crate::wire::{json_in, msgpack};

/// The header with a time that the message's own could not say.
const TIME: &str = "fluent-time";

/// How a record looks.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) json: bool,
    pub(super) payload_only: bool,
    /// `tag_header`
    pub(super) tag_header: Option<String>,
}

/// A record within a batch.
pub(super) struct Row {
    pub(super) tag: Option<Range<usize>>,
    pub(super) record: Range<usize>,
    pub(super) time: Option<Time>,
}

/// Records of some messages.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: Vec<Row>,
    /// The offset after the last message of each partition.
    pub(super) upto: Vec<(Place, i64)>,
    pub(super) generation: u64,
}

/// What is taken from a message, for the record.
pub(super) struct Parts<'m> {
    pub(super) topic: &'m str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) key: Option<&'m [u8]>,
    pub(super) payload: Option<&'m [u8]>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.upto.is_empty()
    }

    /// Appends a message.
    pub(super) fn add(&mut self, shape: &Shape, message: &BorrowedMessage<'_>) {
        let parts = Parts {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            key: message.key(),
            payload: message.payload(),
        };
        let header = |name: &str| {
            let headers = message.headers()?;
            headers.iter().find(|h| h.key == name).and_then(|h| h.value)
        };
        let time = header(TIME)
            .and_then(time)
            .or_else(|| message.timestamp().to_millis().filter(|ms| *ms > 0).map(millis));
        let tag = shape.tag_header.as_deref().and_then(header);
        self.push(shape, &parts, tag, time);
    }

    pub(super) fn push(&mut self, shape: &Shape, parts: &Parts<'_>, tag: Option<&[u8]>, time: Option<Time>) {
        let tag = tag.map(|tag| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(tag);
            start..self.bytes.len()
        });
        let start = self.bytes.len();
        shape.write(&mut self.bytes, parts);
        self.rows.push(Row { tag, record: start..self.bytes.len(), time });
        let next = parts.offset + 1;
        let place = self
            .upto
            .iter_mut()
            .rev()
            .find(|((topic, partition), _)| *partition == parts.partition && **topic == *parts.topic);
        match place {
            Some((_, upto)) => *upto = next,
            None => self.upto.push(((Arc::from(parts.topic), parts.partition), next)),
        }
    }
}

impl Shape {
    fn write(&self, out: &mut Vec<u8>, parts: &Parts<'_>) {
        if self.payload_only {
            let payload = parts.payload.unwrap_or_default();
            if json_in::map_within(payload, out, MAX_DEPTH).is_err() {
                msgpack::write_map(out, 1);
                msgpack::write_str(out, b"payload");
                msgpack::write_str(out, payload);
            }
            return;
        }
        msgpack::write_map(out, 6);
        msgpack::write_str(out, b"topic");
        msgpack::write_str(out, parts.topic.as_bytes());
        msgpack::write_str(out, b"partition");
        msgpack::write_int(out, parts.partition.into());
        msgpack::write_str(out, b"offset");
        msgpack::write_int(out, parts.offset);
        msgpack::write_str(out, b"error");
        msgpack::write_nil(out);
        msgpack::write_str(out, b"key");
        text(out, parts.key);
        msgpack::write_str(out, b"payload");
        let is_json = self.json && parts.payload.is_some_and(|payload| value(out, payload));
        if !is_json {
            text(out, parts.payload);
        }
    }
}

fn text(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => msgpack::write_str(out, text),
        None => msgpack::write_nil(out),
    }
}

/// Appends a payload that is one JSON value and nothing else.
fn value(out: &mut Vec<u8>, payload: &[u8]) -> bool {
    let mark = out.len();
    let blank = |rest: &[u8]| rest.iter().all(u8::is_ascii_whitespace);
    match json_in::value_within(payload, out, MAX_DEPTH - 1) {
        Ok(end) if payload.get(end..).is_some_and(blank) => true,
        _ => {
            out.truncate(mark);
            false
        }
    }
}

/// `SEC.NNNNNNNNN`
fn time(text: &[u8]) -> Option<Time> {
    let (sec, nsec) = std::str::from_utf8(text).ok()?.split_once('.')?;
    Some(Time::new(sec.parse().ok()?, nsec.parse().ok().filter(|n| *n < 1_000_000_000)?))
}

fn millis(ms: i64) -> Time {
    Time::new(ms / 1000, (ms % 1000) as u32 * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::testing::show;

    fn record(shape: &Shape, key: Option<&[u8]>, payload: Option<&[u8]>) -> String {
        let mut batch = Batch::default();
        let parts = Parts { topic: "logs", partition: 3, offset: 7, key, payload };
        batch.push(shape, &parts, Some(b"app.web"), None);
        let row = &batch.rows[0];
        assert_eq!(&batch.bytes[row.tag.clone().unwrap()], b"app.web");
        show(&batch.bytes[row.record.clone()])
    }

    fn shape(json: bool, payload_only: bool) -> Shape {
        Shape { json, payload_only, tag_header: None }
    }

    #[test]
    fn a_record_is_fluent_bits() {
        let head = r#"{"topic":"logs","partition":UInt(3),"offset":UInt(7),"error":Nil,"key":"#;
        let plain = shape(false, false);
        assert_eq!(record(&plain, None, None), format!("{head}Nil,\"payload\":Nil}}"));
        assert_eq!(
            record(&plain, Some(b"k"), Some(br#"{"a":1}"#)),
            format!("{head}\"k\",\"payload\":\"{{\\\"a\\\":1}}\"}}")
        );
        let json = shape(true, false);
        assert_eq!(
            record(&json, None, Some(b" {\"a\":[1]} \n")),
            format!("{head}Nil,\"payload\":{{\"a\":[UInt(1)]}}}}")
        );
        for no_json in ["{\"a\":", "{} x", ""] {
            assert!(record(&json, None, Some(no_json.as_bytes())).ends_with("\"}"), "{no_json}");
        }
    }

    #[test]
    fn the_payload_alone_is_the_record_where_it_is_a_map() {
        let only = shape(true, true);
        assert_eq!(record(&only, None, Some(br#"{"log":"x"}"#)), r#"{"log":"x"}"#);
        assert_eq!(record(&only, None, Some(b"[1]")), r#"{"payload":"[1]"}"#);
        assert_eq!(record(&only, None, None), r#"{"payload":""}"#);
    }

    #[test]
    fn positions_are_those_after_the_last_message_of_each_partition() {
        let mut batch = Batch::default();
        for (topic, partition, offset) in [("a", 0, 5), ("a", 1, 9), ("a", 0, 6), ("b", 0, 1)] {
            let parts = Parts { topic, partition, offset, key: None, payload: None };
            batch.push(&shape(false, false), &parts, None, None);
        }
        let upto: Vec<_> = batch.upto.iter().map(|((t, p), o)| (&**t, *p, *o)).collect();
        assert_eq!(upto, [("a", 0, 7), ("a", 1, 10), ("b", 0, 2)]);
    }

    #[test]
    fn times_are_read_as_the_output_writes_them() {
        assert_eq!(time(b"5.500000000"), Some(Time::new(5, 500_000_000)));
        assert_eq!((time(b"x"), time(b"5.x"), time(b"\xff.1")), (None, None, None));
        assert_eq!(millis(1_760_000_000_123), Time::new(1_760_000_000, 123_000_000));
    }
}
