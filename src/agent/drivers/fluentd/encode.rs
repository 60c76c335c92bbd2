//! A message as docker's `fluentd` driver puts it on the wire: Message mode of the forward protocol, one for each line.
//!
//! Enters: a message. Leaves: `[tag, time, record, options]`. Docker writes the fields of a record in the order of a Go map,
//! that is in any; here they stand in one. Nothing can go wrong.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::{Info, Message};
use crate::wire::msgpack;

/// What is the same in all messages of a container.
#[derive(Debug)]
pub(super) struct Encoder {
    /// The array's head and the tag.
    head: Vec<u8>,
    /// Fields that do not change, without the map's head.
    fields: Vec<u8>,
    count: usize,
    sub_second: bool,
}

/// The id that an ack repeats, in base64.
pub(super) type ChunkId = String;

/// `chunk` of a message: 8 bytes of the time and 8 of chance.
pub(super) fn chunk_id(seconds: i64, chance: [u8; 8]) -> ChunkId {
    BASE64_STANDARD.encode([seconds.to_le_bytes(), chance].concat())
}

impl Encoder {
    pub(super) fn new(tag: &str, info: &Info, extra: &BTreeMap<String, String>, sub_second: bool) -> Encoder {
        let mut head = Vec::new();
        msgpack::write_array(&mut head, 4);
        msgpack::write_str(&mut head, tag.as_bytes());
        let (mut fields, mut count) = (Vec::new(), 2);
        field(&mut fields, "container_id", info.id.as_bytes());
        field(&mut fields, "container_name", format!("/{}", info.name).as_bytes());
        for (key, value) in extra {
            // A label of that name is overwritten by the driver's own field.
            if !["container_id", "container_name", "source", "log"].contains(&key.as_str()) {
                field(&mut fields, key, value.as_bytes());
                count += 1;
            }
        }
        Encoder { head, fields, count, sub_second }
    }

    /// The bytes of a message.
    pub(super) fn encode(&self, message: &Message, chunk: Option<&str>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.head.len() + self.fields.len() + message.line.len() + 64);
        out.extend_from_slice(&self.head);
        self.time(&mut out, message);
        msgpack::write_map(&mut out, self.count + if message.partial.is_some() { 6 } else { 2 });
        out.extend_from_slice(&self.fields);
        field(&mut out, "source", message.source.name().as_bytes());
        field(&mut out, "log", &message.line);
        if let Some(partial) = &message.partial {
            field(&mut out, "partial_message", b"true");
            field(&mut out, "partial_id", partial.id.as_bytes());
            field(&mut out, "partial_ordinal", partial.ordinal.to_string().as_bytes());
            field(&mut out, "partial_last", if partial.last { b"true" } else { b"false" });
        }
        msgpack::write_map(&mut out, usize::from(chunk.is_some()));
        if let Some(chunk) = chunk {
            field(&mut out, "chunk", chunk.as_bytes());
        }
        out
    }

    fn time(&self, out: &mut Vec<u8>, message: &Message) {
        let time = message.time;
        if self.sub_second {
            // EventTime holds 32 bits of seconds, whatever comes after 2106.
            out.extend([0xd7, 0x00]);
            out.extend((time.sec as u32).to_be_bytes());
            out.extend(time.nsec.to_be_bytes());
        } else if let Ok(seconds) = i32::try_from(time.sec) {
            out.push(0xd2);
            out.extend(seconds.to_be_bytes());
        } else {
            out.push(0xd3);
            out.extend(time.sec.to_be_bytes());
        }
    }
}

fn field(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    msgpack::write_str(out, key.as_bytes());
    msgpack::write_str(out, value);
}

#[cfg(test)]
mod tests {
    use super::super::super::{Partial, Source};
    use super::*;
    use crate::record::Time;

    fn info() -> Info {
        Info { id: "c".repeat(64), name: "web".into(), ..Info::default() }
    }

    fn message(line: &[u8]) -> Message {
        Message {
            line: line.to_vec(),
            source: Source::Stdout,
            time: Time::new(0x6800_0000, 5),
            partial: None,
        }
    }

    fn fixed() -> Vec<u8> {
        [&b"\xaccontainer_id\xd9\x40"[..], &[b'c'; 64], b"\xaecontainer_name\xa4/web"].concat()
    }

    #[test]
    fn a_line_is_an_array_of_four_with_a_nanosecond_time() {
        let encoder = Encoder::new("web-firelens-1", &info(), &BTreeMap::new(), true);
        let head = b"\x94\xaeweb-firelens-1\xd7\x00\x68\x00\x00\x00\x00\x00\x00\x05\x84";
        let want = [&head[..], &fixed(), b"\xa6source\xa6stdout\xa3log\xa4hi \xff\x80"].concat();
        assert_eq!(encoder.encode(&message(b"hi \xff"), None), want);
    }

    #[test]
    fn a_part_says_which_it_is_and_an_ack_is_asked_for_by_an_id() {
        let encoder = Encoder::new("t", &info(), &[("A".to_owned(), "b".to_owned())].into(), false);
        let partial = Some(Partial { id: "i".into(), ordinal: 2, last: true });
        let got = encoder.encode(&Message { partial, ..message(b"") }, Some("id"));
        let end = b"\xa1A\xa1b\xa6source\xa6stdout\xa3log\xa0\xafpartial_message\xa4true\xaapartial_id\xa1i\xafpartial_ordinal\xa12\xacpartial_last\xa4true\x81\xa5chunk\xa2id";
        assert_eq!(got, [&b"\x94\xa1t\xd2\x68\x00\x00\x00\x89"[..], &fixed(), end].concat());
    }

    #[test]
    fn an_id_is_sixteen_bytes_of_time_and_chance() {
        assert_eq!(chunk_id(1, [2; 8]), "AQAAAAAAAAACAgICAgICAg==");
    }
}
