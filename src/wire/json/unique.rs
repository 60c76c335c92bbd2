//! Repeated keys of a map: a cheap check that runs always, and the exact one that runs when the cheap one says so.

use super::MAX_DEPTH;
use super::escape::{hex, word};
use crate::wire::msgpack::{self, Value};

/// Remembers the keys of one map by fingerprints.
#[derive(Default)]
pub(super) struct Seen {
    /// A bit for each key: most keys find theirs unset and are done.
    bits: u64,
    prints: [u32; Seen::MAX],
    len: usize,
}

impl Seen {
    /// Maps with as many pairs or more are searched exactly.
    pub(super) const MAX: usize = 32;

    /// Adds the key `buf[at..end]`; true when it may have been there already.
    #[inline]
    pub(super) fn insert(&mut self, buf: &[u8], at: usize, end: usize) -> bool {
        let len = end - at;
        let mut head = word(buf, at);
        let mut tail = 0;
        if len < 8 {
            head &= (1 << (len * 8)) - 1;
        } else {
            tail = word(buf, end - 8);
        }
        let mixed = (head ^ (len as u64) << 56)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(tail.wrapping_mul(0xc2b2_ae3d_27d4_eb4f));
        let print = (mixed >> 32) as u32;
        let bit = 1u64 << (print >> 26);
        let maybe = self.bits & bit != 0 && self.prints.iter().take(self.len).any(|p| *p == print);
        self.bits |= bit;
        if let Some(place) = self.prints.get_mut(self.len) {
            *place = print;
            self.len += 1;
        }
        maybe
    }
}

/// What the exact search found.
pub(super) struct Repeated {
    /// Numbers of the pairs whose key comes again later, in order.
    pub(super) pairs: Vec<usize>,
    /// The map has the key that was asked for.
    pub(super) named: bool,
}

/// Searches the map of `count` pairs whose first key is at `pos`.
#[cold]
pub(super) fn repeated(buf: &[u8], count: usize, mut pos: usize, name: Option<&[u8]>) -> Repeated {
    // Grows with the pairs that are really there, not with the declared count.
    let mut keys: Vec<(usize, usize, usize)> = Vec::new();
    // Keys that are no strings, as text.
    let mut odd = Vec::new();
    for i in 0..count {
        if pos >= buf.len() {
            break;
        }
        match msgpack::read(buf, pos) {
            Some((Value::Str(text) | Value::Bin(text), end)) => {
                keys.push((end - text.len(), end, i));
                pos = end;
            }
            _ => {
                let start = odd.len();
                pos = key_text(buf, pos, &mut odd, 0);
                keys.push((buf.len() + start, buf.len() + odd.len(), i));
            }
        }
        pos = msgpack::skip(buf, pos).unwrap_or(buf.len());
    }
    let text = |&(start, end, _): &(usize, usize, usize)| {
        if start < buf.len() || end == buf.len() {
            buf.get(start..end)
        } else {
            odd.get(start - buf.len()..end - buf.len())
        }
        .unwrap_or_default()
    };
    let named = name.is_some_and(|name| keys.iter().any(|k| text(k) == name));
    // Stable, so that among equal keys the last pair stays last.
    keys.sort_by(|a, b| text(a).cmp(text(b)));
    let mut pairs: Vec<usize> =
        keys.iter().zip(keys.iter().skip(1)).filter(|(a, b)| text(a) == text(b)).map(|(a, _)| a.2).collect();
    pairs.sort_unstable();
    Repeated { pairs, named }
}

/// Appends a key of any type as plain text (not yet escaped): numbers as in JSON, maps and arrays without quotes, so
/// that a key within a key within a key is escaped only once. Says where it ends.
pub(super) fn key_text(buf: &[u8], pos: usize, out: &mut Vec<u8>, depth: usize) -> usize {
    let Some((value, end)) = msgpack::read(buf, pos) else {
        out.extend_from_slice(b"null");
        return buf.len().max(pos);
    };
    let (count, mut at, close) = match value {
        Value::Array { .. } | Value::Map { .. } if depth >= MAX_DEPTH => {
            out.extend_from_slice(b"null");
            return msgpack::skip(buf, pos).unwrap_or(buf.len());
        }
        Value::Array { count, at } => {
            out.push(b'[');
            (count, at, b']')
        }
        Value::Map { count, at } => {
            out.push(b'{');
            (count, at, b'}')
        }
        Value::Nil => return text(out, b"null", end),
        Value::Bool(true) => return text(out, b"true", end),
        Value::Bool(false) => return text(out, b"false", end),
        Value::UInt(v) => return text(out, itoa::Buffer::new().format(v).as_bytes(), end),
        Value::Int(v) => return text(out, itoa::Buffer::new().format(v).as_bytes(), end),
        Value::Float(v) if v.is_finite() => {
            return text(out, zmij::Buffer::new().format_finite(v).as_bytes(), end);
        }
        Value::Float(_) => return text(out, b"null", end),
        Value::Str(s) | Value::Bin(s) => return text(out, s, end),
        Value::Ext(_, payload) => {
            for byte in payload {
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(&hex(*byte));
            }
            return end;
        }
    };
    for i in 0..count {
        if at >= buf.len() {
            break;
        }
        if i > 0 {
            out.push(b',');
        }
        at = key_text(buf, at, out, depth + 1);
        if close == b'}' {
            out.push(b':');
            at = key_text(buf, at, out, depth + 1);
        }
    }
    out.push(close);
    at
}

fn text(out: &mut Vec<u8>, text: &[u8], end: usize) -> usize {
    out.extend_from_slice(text);
    end
}
