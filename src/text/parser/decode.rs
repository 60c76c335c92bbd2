//! `Decode_Field` and `Decode_Field_As`: text within a field that a parser has found.
//!
//! Enters: the fields of a record. Leaves: the same, with the text of some decoded in place, or (`Decode_Field json`) with
//! the keys of the object in it appended. Can go wrong: the text is not what the decoder expects; then it stays.

use std::cell::Cell;

use super::unescape;
use crate::record::Fields;
use crate::wire::{entry, json_in, msgpack};

thread_local! {
    /// Decoded text, before it is appended to the fields that its source lies in.
    static DECODED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Json,
    Escaped,
    EscapedUtf8,
    MysqlQuoted,
}

/// When the next decoder of the same field has its turn.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    Never,
    AfterFailure,
    AfterSuccess,
}

/// One line: a decoder on a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    kind: Kind,
    field: Vec<u8>,
    /// The value becomes what was decoded; else its keys are appended (JSON only).
    in_place: bool,
    next: Next,
}

impl Decoder {
    /// From `json log`, `escaped log do_next`: a decoder, a field, when to go on. `in_place`: `Decode_Field_As`.
    ///
    /// # Errors
    /// Says what is wrong with it; Fluent Bit goes on without the line.
    pub fn new(line: &str, in_place: bool) -> Result<Decoder, String> {
        let mut words = line.split_ascii_whitespace();
        let (Some(kind), Some(field)) = (words.next(), words.next()) else {
            return Err("it takes a decoder and a field".to_owned());
        };
        let kind = match kind.to_ascii_lowercase().as_str() {
            "json" => Kind::Json,
            "escaped" => Kind::Escaped,
            "escaped_utf8" => Kind::EscapedUtf8,
            "mysql_quoted" => Kind::MysqlQuoted,
            _ => {
                return Err(format!(
                    "\"{kind}\" is no decoder; there are json, escaped, escaped_utf8 and mysql_quoted"
                ));
            }
        };
        if !in_place && kind != Kind::Json {
            return Err("Decode_Field takes only json; write Decode_Field_As".to_owned());
        }
        let next = match words.next().map(str::to_ascii_lowercase).as_deref() {
            None => Next::Never,
            Some("try_next") => Next::AfterFailure,
            Some("do_next") => Next::AfterSuccess,
            Some(other) => return Err(format!("\"{other}\" is not known; write try_next or do_next")),
        };
        Ok(Decoder { kind, field: field.into(), in_place, next })
    }

    /// Appends what the text is, encoded.
    fn decode(&self, text: &[u8], out: &mut Vec<u8>) -> bool {
        if self.kind == Kind::Json {
            // It stands one level below the record.
            return json_in::map_within(text, out, entry::MAX_DEPTH - 1).is_ok();
        }
        let mark = out.len();
        let good = match self.kind {
            Kind::MysqlQuoted => unescape::mysql(text, out),
            Kind::EscapedUtf8 => {
                unescape::utf8(text, out);
                true
            }
            _ => {
                unescape::plain(text, out);
                true
            }
        };
        let (head, used) = msgpack::str_header(out.len() - mark);
        out.extend_from_slice(head.get(..used).unwrap_or_default());
        out.get_mut(mark..).unwrap_or_default().rotate_right(used);
        good
    }
}

/// Runs the decoders over the fields. Those of one field stand next to each other, in order.
pub(super) fn run(decoders: &[Decoder], fields: &mut Fields) {
    for chain in decoders.chunk_by(|a, b| a.field == b.field) {
        for decoder in chain {
            let good = one(decoder, fields);
            match decoder.next {
                Next::AfterSuccess if good => {}
                Next::AfterFailure if !good => {}
                _ => break,
            }
        }
    }
}

fn one(decoder: &Decoder, fields: &mut Fields) -> bool {
    let Some(i) = (0..fields.list.len()).rev().find(|i| fields.key(*i) == decoder.field) else {
        return false;
    };
    let mut decoded = DECODED.take();
    decoded.clear();
    let text = msgpack::value(fields.value(i)).and_then(msgpack::Value::text);
    let good = text.is_some_and(|text| decoder.decode(text, &mut decoded));
    if good {
        let start = fields.bytes.len();
        fields.bytes.extend_from_slice(&decoded);
        if !decoder.in_place {
            append(fields, start);
        } else if let Some((_, value)) = fields.list.get_mut(i) {
            *value = start..fields.bytes.len();
        }
    }
    DECODED.set(decoded);
    good
}

/// The pairs of the map at `start` become fields.
fn append(fields: &mut Fields, start: usize) {
    let Some((msgpack::Value::Map { count, at }, _)) = msgpack::read(&fields.bytes, start) else { return };
    let mut pos = at;
    for _ in 0..count {
        let Ok(mid) = msgpack::skip(&fields.bytes, pos) else { return };
        let Ok(end) = msgpack::skip(&fields.bytes, mid) else { return };
        fields.list.push((pos..mid, mid..end));
        pos = end;
    }
}
