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
        let (mut pos, mut has_message, mut has_time) = (at, false, false);
        for _ in 0..count {
            let value = msgpack::skip(buf, pos).map_err(|_| BROKEN)?;
            let key = msgpack::read(buf, pos).and_then(|(key, _)| key.text());
            let end = msgpack::skip(buf, value).map_err(|_| BROKEN)?;
            pos = end;
            let Some(key) = key else { continue };
            let own: Option<&[u8]> = [
                (&self.short, &b"short_message"[..]),
                (&self.full, b"full_message"),
                (&self.host, b"host"),
                (&self.level, b"level"),
                (&self.timestamp, b"timestamp"),
            ]
            .iter()
            .find(|(name, _)| ***name == *key)
            .map(|(_, own)| *own);
            match own {
                Some(own) => {
                    has_message |= own == b"short_message";
                    has_time |= own == b"timestamp";
                    self.name(out, own);
                    self.json.write_value(out, buf, value);
                }
                None => self.other(out, &[b"_", key].concat(), buf, value, 0),
            }
        }
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
                // Graylog keeps `_id` for itself.
                self.name(out, if name == b"_id" { b"__id" } else { name });
                match value {
                    Value::UInt(_) | Value::Int(_) | Value::Float(_) => {
                        self.json.write_value(out, buf, at);
                    }
                    value => match value.text() {
                        Some(text) => self.json.write_str(out, text),
                        None => {
                            self.json.write_inside(out, buf, at);
                        }
                    },
                }
            }
        }
    }
}
