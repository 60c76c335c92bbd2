//! Graylog's GELF 1.1: one JSON object with a few fields of its own and the record's others with `_` in front.
//!
//! Enters: a record. Leaves: the object. Can go wrong: the record has no message.

use crate::record::Time;
use crate::wire::json::Json;
use crate::wire::msgpack::{self, Value};

/// Which fields of the record are GELF's own.
pub(super) struct Gelf {
    pub(super) timestamp: Box<[u8]>,
    pub(super) host: Box<[u8]>,
    pub(super) short: Box<[u8]>,
    pub(super) full: Box<[u8]>,
    pub(super) level: Box<[u8]>,
    pub(super) json: Json,
}

impl Gelf {
    /// Appends the object of the record at `record` and says where the record ends.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        time: Time,
        buf: &[u8],
        record: usize,
    ) -> Result<usize, &'static str> {
        const BROKEN: &str = "the record is no map";
        let Some((Value::Map { count, at }, _)) = msgpack::read(buf, record) else { return Err(BROKEN) };
        out.extend_from_slice(b"{\"version\":\"1.1\"");
        let own: [(&[u8], &[u8]); 5] = [
            (&self.short, b"short_message"),
            (&self.full, b"full_message"),
            (&self.host, b"host"),
            (&self.level, b"level"),
            (&self.timestamp, b"timestamp"),
        ];
        let (mut pos, mut seen) = (at, [false; 5]);
        for _ in 0..count {
            let at = msgpack::skip(buf, pos).map_err(|_| BROKEN)?;
            let key = msgpack::read(buf, pos).and_then(|(key, _)| key.text());
            pos = msgpack::skip(buf, at).map_err(|_| BROKEN)?;
            let (Some(key), Some((value, _))) = (key, msgpack::read(buf, at)) else { continue };
            let found = own.iter().zip(&mut seen).find(|((name, _), _)| *name == key);
            match (found, value) {
                (None, _) => self.other(out, &[b"_", key].concat(), buf, at, 0),
                // The first one counts, as in Fluent Bit.
                (Some((_, true)), _) | (_, Value::Nil) => {}
                (Some(((_, name), _)), Value::Map { .. }) => {
                    self.other(out, &[b"_", *name].concat(), buf, at, 0);
                }
                (Some(((_, name), seen)), value) => {
                    *seen = true;
                    self.name(out, name);
                    match (*name, value) {
                        (b"level", Value::UInt(_)) => self.value(out, value, buf, at),
                        (b"level", Value::Str(word)) => match level(word) {
                            Some(level) => out.push(b'0' + level),
                            None => self.json.write_str(out, word),
                        },
                        (b"level", _) => return Err("the field gelf_level_key is no number and no word"),
                        _ => self.value(out, value, buf, at),
                    }
                }
            }
        }
        let [has_message, .., has_time] = seen;
        if !has_time {
            out.extend_from_slice(b",\"timestamp\":");
            out.extend_from_slice(format!("{}.{:03}", time.sec, time.nsec / 1_000_000).as_bytes());
        }
        out.push(b'}');
        if has_message { Ok(pos) } else { Err("the record has no field gelf_short_message_key") }
    }

    fn name(&self, out: &mut Vec<u8>, name: &[u8]) {
        out.push(b',');
        self.json.write_str(out, name);
        out.push(b':');
    }

    /// A field of the record's: maps become several, GELF has numbers and text only.
    fn other(&self, out: &mut Vec<u8>, name: &[u8], buf: &[u8], at: usize, depth: usize) {
        match msgpack::read(buf, at) {
            Some((Value::Map { count, at }, _)) if depth < crate::wire::entry::MAX_DEPTH => {
                let mut pos = at;
                for _ in 0..count {
                    let Ok(value) = msgpack::skip(buf, pos) else { return };
                    if let Some(key) = msgpack::read(buf, pos).and_then(|(key, _)| key.text()) {
                        self.other(out, &[name, b"_", key].concat(), buf, value, depth + 1);
                    }
                    let Ok(end) = msgpack::skip(buf, value) else { return };
                    pos = end;
                }
            }
            Some((Value::Nil, _)) | None => {}
            Some((value, _)) => {
                // Graylog takes these characters only, and keeps `_id` for itself.
                let fit = |b: &u8| if b.is_ascii_alphanumeric() || b"_.-".contains(b) { *b } else { b'_' };
                let name: Vec<u8> = name.iter().map(fit).collect();
                self.name(out, if name == b"_id" { b"__id" } else { &name });
                self.value(out, value, buf, at);
            }
        }
    }

    /// A number, or text.
    fn value(&self, out: &mut Vec<u8>, value: Value<'_>, buf: &[u8], at: usize) {
        match (value, value.text()) {
            (Value::UInt(_) | Value::Int(_) | Value::Float(_), _) => {
                self.json.write_value(out, buf, at);
            }
            (_, Some(text)) => self.json.write_str(out, text),
            (_, None) => {
                self.json.write_inside(out, buf, at);
            }
        }
    }
}

/// A level of syslog's by its digit or its name.
fn level(word: &[u8]) -> Option<u8> {
    const WORDS: [&[u8]; 8] = [b"emerg", b"alert", b"crit", b"err", b"warning", b"notice", b"info", b"debug"];
    match word {
        [digit @ b'0'..=b'7'] => Some(digit - b'0'),
        word => WORDS.iter().position(|w| word.eq_ignore_ascii_case(w)).map(|level| level as u8),
    }
}
