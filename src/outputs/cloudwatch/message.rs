//! What an event says: the record as JSON, or one field of it.
//!
//! Enters: entries as they lie in a chunk. Leaves: the message as text, what is no UTF-8 repaired, so that its length is
//! the one that the service counts. Can go wrong: the field is missing, or there is nothing to say.

use std::ops::Range;

use crate::wire::entry::{self, TimeForm};
use crate::wire::json::Json;
use crate::wire::msgpack::{self, Value};

/// What to do with a message that is too long for one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oversize {
    /// Several events.
    Split,
    /// One, cut, with [`TRUNCATED`] at its end.
    Truncate,
}

/// What a cut message ends with, in AWS's Go plugin too.
pub(super) const TRUNCATED: &str = "[Truncated...]";

/// Which part of a record is the message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// `log_key`
    pub(super) key: Option<Box<[u8]>>,
    /// `json.escape_unicode`
    pub(super) json: Json,
    /// Most bytes of a message in UTF-8.
    pub(super) limit: usize,
    pub(super) oversize: Oversize,
}

/// A message as it was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Text.
    Text(&'a [u8]),
    /// There is nothing in it.
    Empty,
    /// There is no such field.
    Missing,
}

/// What stands before a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// Its time in milliseconds.
    pub(super) time: i64,
    /// Where it begins.
    pub(super) record: usize,
    /// What the client that sent it to our own input said of its format.
    pub(super) format: Option<&'a [u8]>,
}

/// The header that says what messages hold (`json/emf`), and the key under which the CloudWatch input keeps it.
pub(super) const FORMAT: &str = "x-amzn-logs-format";

/// Most bytes of what a client says of its format; `json/emf` is the only one that the service knows.
const FORMAT_MAX: usize = 256;

/// Whether a format may stand in a header. It comes from clients, and one that may not is passed over.
pub(super) fn is_format(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= FORMAT_MAX && text.iter().all(|b| matches!(b, b' '..=b'~'))
}

/// Reads what stands before a record.
pub(super) fn head(buf: &[u8], pos: usize) -> Option<Head<'_>> {
    if buf.get(pos) == Some(&0x92)
        && let Some((TimeForm::At(time), record)) = entry::time(buf, pos + 1)
    {
        return Some(Head { time: time.millis(), record, format: None });
    }
    let entry = entry::read(buf, pos).ok()?.ok()?;
    let TimeForm::At(time) = entry.time else { return None };
    let format = entry.metadata.and_then(|metadata| {
        let (value, _) = field(buf, metadata.start, FORMAT.as_bytes())?;
        msgpack::read(buf, value?.start)?.0.text().filter(|text| is_format(text))
    });
    Some(Head { time: time.millis(), record: entry.record.start, format })
}

impl Message {
    /// The message of the record at `record`, and where the record ends. `room` holds text that has to be made.
    pub(super) fn find<'a>(
        &self,
        buf: &'a [u8],
        record: usize,
        room: &'a mut Vec<u8>,
    ) -> Option<(Found<'a>, usize)> {
        room.clear();
        let Some(key) = &self.key else {
            if matches!(buf.get(record), Some(0x80)) {
                return Some((Found::Empty, record + 1));
            }
            let end = self.json.write_value(room, buf, record);
            return Some((Found::Text(room), end));
        };
        let (value, end) = field(buf, record, key)?;
        let Some(value) = value else { return Some((Found::Missing, end)) };
        let found = match msgpack::read(buf, value.start)?.0 {
            Value::Str(text) | Value::Bin(text) if text.is_empty() => Found::Empty,
            Value::Str(text) | Value::Bin(text) => match simdutf8::basic::from_utf8(text) {
                Ok(_) => Found::Text(text),
                Err(_) => {
                    room.extend_from_slice(String::from_utf8_lossy(text).as_bytes());
                    Found::Text(room)
                }
            },
            _ => {
                self.json.write_value(room, buf, value.start);
                Found::Text(room)
            }
        };
        Some((found, end))
    }
}

/// The last value of a key in a map, and where the map ends.
fn field(buf: &[u8], map: usize, key: &[u8]) -> Option<(Option<Range<usize>>, usize)> {
    let Some((Value::Map { count, at }, _)) = msgpack::read(buf, map) else { return None };
    let (mut pos, mut found) = (at, None);
    for _ in 0..count {
        let (name, value) = match msgpack::read(buf, pos)? {
            (Value::Map { .. } | Value::Array { .. }, _) => (None, msgpack::skip(buf, pos).ok()?),
            (name, value) => (name.text(), value),
        };
        let end = msgpack::skip(buf, value).ok()?;
        if name == Some(key) {
            found = Some(value..end);
        }
        pos = end;
    }
    Some((found, pos))
}

/// The largest end of a piece of `text` from `from` that is at most `limit` bytes and ends with a character.
pub(super) fn cut(text: &[u8], from: usize, limit: usize) -> usize {
    let mut end = (from + limit).min(text.len());
    while end < text.len() && end > from && text.get(end).is_some_and(|b| b & 0xc0 == 0x80) {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `{"log": "h\xffi", "n": 12, "m": {"a": 1}, "e": "", "log2": "x"}`
    fn record() -> Vec<u8> {
        let mut b = vec![0x85];
        msgpack::write_str(&mut b, b"log");
        msgpack::write_str(&mut b, b"h\xffi");
        msgpack::write_str(&mut b, b"n");
        msgpack::write_uint(&mut b, 12);
        msgpack::write_str(&mut b, b"m");
        b.extend_from_slice(&[0x81, 0xa1, b'a', 1]);
        msgpack::write_str(&mut b, b"e");
        msgpack::write_str(&mut b, b"");
        msgpack::write_str(&mut b, b"log2");
        msgpack::write_str(&mut b, b"x");
        b
    }

    fn message(key: Option<&str>) -> Message {
        Message {
            key: key.map(|k| k.as_bytes().into()),
            json: Json { escape_unicode: true },
            limit: 100,
            oversize: Oversize::Split,
        }
    }

    fn found(key: Option<&str>) -> String {
        let (record, mut room) = (record(), Vec::new());
        let (found, end) = message(key).find(&record, 0, &mut room).unwrap();
        assert_eq!(end, record.len());
        match found {
            Found::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_message_is_the_record_or_exactly_the_field_that_was_named() {
        assert_eq!(
            found(None),
            "{\"log\":\"h\u{fffd}i\",\"n\":12,\"m\":{\"a\":1},\"e\":\"\",\"log2\":\"x\"}"
                .replace('\u{fffd}', "\\ufffd")
        );
        assert_eq!(found(Some("log")), "h\u{fffd}i");
        assert_eq!(found(Some("n")), "12");
        assert_eq!(found(Some("m")), "{\"a\":1}");
        assert_eq!(found(Some("e")), "Empty");
        assert_eq!(found(Some("lo")), "Missing");
        let (empty, mut room) = ([0x80], Vec::new());
        assert_eq!(message(None).find(&empty, 0, &mut room), Some((Found::Empty, 1)));
    }

    proptest! {
        #[test]
        fn pieces_are_whole_characters_and_together_the_text(text in "\\PC{0,60}", limit in 4_usize..20) {
            let bytes = text.as_bytes();
            let (mut at, mut joined) = (0, String::new());
            while at < bytes.len() {
                let end = cut(bytes, at, limit);
                prop_assert!(end > at && end - at <= limit);
                joined.push_str(std::str::from_utf8(&bytes[at..end]).unwrap());
                at = end;
            }
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), key in "[a-z]{0,3}") {
            let mut room = Vec::new();
            for key in [None, Some(key.as_str())] {
                if let Some(head) = head(&bytes, 0) {
                    message(key).find(&bytes, head.record, &mut room);
                }
            }
        }
    }
}
