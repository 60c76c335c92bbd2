//! MessagePack to JSON in one pass, appended to a byte buffer.
//!
//! Enters: encoded values (validated or not). Leaves: JSON, always well-formed whatever the bytes are. Can go wrong:
//! nothing; what cannot be read becomes `null`, what is no UTF-8 becomes U+FFFD (one for each maximal subpart).
//!
//! Strings and binaries are text. An extension is a string of `\xNN`. NaN and infinities are `null`. Keys that are no
//! strings are written as one. A key that a map holds several times is written once, with its last value at the place
//! of the last, as Fluent Bit does. All this is the main cost of most outputs, so it is done in words of eight bytes
//! and gathered in a block on the stack.

mod escape;
pub mod mask;
mod unique;

use std::cell::Cell;

use escape::{Block, gathered};
use unique::Seen;

use super::msgpack::{self, Value};

/// Values nested deeper are written as `null`. Records are refused long before (`entry::MAX_DEPTH`).
const MAX_DEPTH: usize = 64;

thread_local! {
    static REPLACED_KEYS: Cell<u64> = const { Cell::new(0) };
}

/// How many keys this thread has written with U+FFFD, because they were no UTF-8, since it was asked last: two such keys
/// of one record may have become one. Beside the results, not in them: almost no record has one, and then nothing but a
/// flag is looked at for each. Ask on the thread that wrote, before anything is awaited.
pub fn take_replaced_keys() -> u64 {
    REPLACED_KEYS.take()
}

/// How JSON is written.
#[derive(Clone, Copy, Debug)]
pub struct Json {
    /// Everything outside of ASCII as `\uXXXX`; else as it is, in UTF-8.
    pub escape_unicode: bool,
}

/// What stands first in a map, unless the map has the same key itself.
#[derive(Clone, Copy, Debug)]
pub struct First<'a> {
    /// Text of the key, to compare.
    pub key: &'a [u8],
    /// Key and value as JSON: `"date":1.5`.
    pub json: &'a [u8],
}

impl Json {
    /// Appends the value at `pos` of `buf` and says where it ends.
    #[inline]
    pub fn write_value(&self, out: &mut Vec<u8>, buf: &[u8], pos: usize) -> usize {
        self.write(out, None, buf, pos)
    }

    /// As [`Json::write_value`] for a map, with `first` as its first pair.
    #[inline]
    pub fn write_map_with(&self, out: &mut Vec<u8>, first: First<'_>, buf: &[u8], pos: usize) -> usize {
        self.write(out, Some(first), buf, pos)
    }

    /// Appends the value at `pos` of `buf` as a JSON string that holds its JSON, in one pass: the text with its quotes. Says
    /// where the value ends, and how long its JSON is by itself.
    #[inline]
    pub fn write_inside(&self, out: &mut Vec<u8>, buf: &[u8], pos: usize) -> (usize, usize) {
        out.push(b'"');
        let start = out.len();
        let (end, added) = self.write_as::<true>(out, None, buf, pos);
        let len = out.len() - start - added;
        out.push(b'"');
        (end, len)
    }

    fn write(&self, out: &mut Vec<u8>, first: Option<First<'_>>, buf: &[u8], pos: usize) -> usize {
        self.write_as::<false>(out, first, buf, pos).0
    }

    /// Where the value ends, and what was added because it stands in a string.
    fn write_as<const INSIDE: bool>(
        &self,
        out: &mut Vec<u8>,
        first: Option<First<'_>>,
        buf: &[u8],
        pos: usize,
    ) -> (usize, usize) {
        let start = out.len();
        let mut written = gathered(out, self.escape_unicode, |block: Block<'_, INSIDE>| {
            Writer { buf, first, exact: false, repeated: false, block }.run(pos)
        });
        if written.is_none() {
            // Rare: begin again and look for repeated keys before each map. Never more than once a record, so that
            // repeated keys on every level of a deep record cannot double the work level by level.
            out.truncate(start);
            written = gathered(out, self.escape_unicode, |block: Block<'_, INSIDE>| {
                Writer { buf, first, exact: true, repeated: false, block }.run(pos)
            });
        }
        // An exact writer finds no key repeated.
        let Written { end, added, replaced } = written.unwrap_or_default();
        if replaced {
            count_replaced_keys(buf, pos);
        }
        (end, added)
    }

    /// Appends `text` as a JSON string with its quotes.
    pub fn write_str(&self, out: &mut Vec<u8>, text: &[u8]) {
        gathered(out, self.escape_unicode, |mut block: Block<'_, false>| {
            block.string(text, 0, text.len());
            block.flush();
        });
    }
}

/// Adds the keys of the value at `pos` that are no UTF-8 to those that were replaced.
#[cold]
fn count_replaced_keys(buf: &[u8], pos: usize) {
    // Pairs and elements still to come, level by level; a map's keys are at even numbers of what is left of it.
    let mut open: Vec<(usize, bool)> = vec![(1, false)];
    let (mut pos, mut found) = (pos, 0);
    while let Some((left, is_map)) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        let is_key = *is_map && left.is_multiple_of(2);
        *left -= 1;
        let Some((value, end)) = msgpack::read(buf, pos) else { break };
        pos = end;
        match value {
            Value::Str(text) | Value::Bin(text) if is_key => {
                found += u64::from(std::str::from_utf8(text).is_err());
            }
            Value::Array { .. } | Value::Map { .. } if open.len() > MAX_DEPTH => break,
            Value::Array { count, at } => {
                pos = at;
                open.push((count, false));
            }
            Value::Map { count, at } => {
                pos = at;
                open.push((count.saturating_mul(2), true));
            }
            _ => {}
        }
    }
    REPLACED_KEYS.set(REPLACED_KEYS.get() + found);
}

/// What a pass over a value gave.
#[derive(Default)]
struct Written {
    /// Where the value ends.
    end: usize,
    /// Bytes that are there only because it stands in a string.
    added: usize,
    /// Something was no UTF-8.
    replaced: bool,
}

struct Writer<'a, 'o, const INSIDE: bool> {
    buf: &'a [u8],
    /// Taken by the outermost map.
    first: Option<First<'a>>,
    /// Each map is searched for repeated keys before it is written.
    exact: bool,
    /// A key may have been repeated: what was written does not count.
    repeated: bool,
    block: Block<'o, INSIDE>,
}

impl<const INSIDE: bool> Writer<'_, '_, INSIDE> {
    /// Writes the value at `pos`; `None` when a key may be repeated.
    #[inline]
    fn run(mut self, pos: usize) -> Option<Written> {
        let end = self.value(pos, 0);
        if self.repeated {
            return None;
        }
        self.block.flush();
        Some(Written { end, added: self.block.added(), replaced: self.block.replaced() })
    }

    fn value(&mut self, pos: usize, depth: usize) -> usize {
        // The bulk of all values: strings with one or two bytes of header.
        let buf = self.buf;
        if let Some(&first) = buf.get(pos) {
            let (at, len) = match (first, buf.get(pos + 1)) {
                (0xa0..=0xbf, _) => (pos + 1, usize::from(first & 0x1f)),
                (0xd9, Some(&len)) => (pos + 2, usize::from(len)),
                _ => return self.other(pos, depth),
            };
            if let Some(left) = buf.len().checked_sub(at)
                && len <= left
            {
                self.block.string(buf, at, at + len);
                return at + len;
            }
        }
        self.other(pos, depth)
    }

    fn other(&mut self, pos: usize, depth: usize) -> usize {
        let buf = self.buf;
        let Some((value, end)) = msgpack::read(buf, pos) else {
            self.block.put(b"null");
            return buf.len().max(pos);
        };
        match value {
            Value::Nil => self.block.put(b"null"),
            Value::Bool(true) => self.block.put(b"true"),
            Value::Bool(false) => self.block.put(b"false"),
            Value::UInt(v) => self.block.put(itoa::Buffer::new().format(v).as_bytes()),
            Value::Int(v) => self.block.put(itoa::Buffer::new().format(v).as_bytes()),
            Value::Float(v) if v.is_finite() => {
                self.block.put(zmij::Buffer::new().format_finite(v).as_bytes());
            }
            Value::Float(_) => self.block.put(b"null"),
            Value::Str(text) | Value::Bin(text) => self.block.string(buf, end - text.len(), end),
            Value::Ext(_, payload) => self.block.bytes_as_hex(payload),
            Value::Array { .. } | Value::Map { .. } if depth >= MAX_DEPTH => {
                self.block.put(b"null");
                return msgpack::skip(buf, pos).unwrap_or(buf.len());
            }
            Value::Array { count, at } => return self.array(count, at, depth),
            Value::Map { count, at } => return self.map(count, at, depth),
        }
        end
    }

    fn array(&mut self, count: usize, mut pos: usize, depth: usize) -> usize {
        self.block.put(b"[");
        for i in 0..count {
            if pos >= self.buf.len() || self.repeated {
                break;
            }
            if i > 0 {
                self.block.put(b",");
            }
            pos = self.value(pos, depth + 1);
        }
        self.block.put(b"]");
        pos
    }

    fn map(&mut self, count: usize, mut pos: usize, depth: usize) -> usize {
        let mut first = self.first.take();
        let mut seen = Seen::default();
        // Pairs not to write, in order; only known when the map was searched.
        let mut skipped: Vec<usize> = Vec::new();
        let search = self.exact || count >= Seen::MAX;
        if search {
            let own = unique::repeated(self.buf, count, pos, first.map(|f| f.key));
            skipped = own.pairs;
            if own.named {
                first = None;
            }
        } else if let Some(first) = first {
            seen.insert(first.key, 0, first.key.len());
        }
        let mut skipped = skipped.into_iter().peekable();
        self.block.put(b"{");
        let mut comma = false;
        if let Some(first) = first {
            self.block.put(first.json);
            comma = true;
        }
        for i in 0..count {
            if pos >= self.buf.len() || self.repeated {
                break;
            }
            if skipped.next_if_eq(&i).is_some() {
                pos = msgpack::skip(self.buf, pos)
                    .and_then(|value| msgpack::skip(self.buf, value))
                    .unwrap_or(self.buf.len());
                continue;
            }
            if comma {
                self.block.put(b",");
            }
            comma = true;
            pos = self.key(pos, if search { None } else { Some(&mut seen) });
            self.block.put(b":");
            pos = self.value(pos, depth + 1);
        }
        self.block.put(b"}");
        pos
    }

    #[inline]
    fn key(&mut self, pos: usize, seen: Option<&mut Seen>) -> usize {
        let buf = self.buf;
        let (at, end) = match buf.get(pos) {
            Some(&head @ 0xa0..=0xbf) if buf.len() - pos > usize::from(head & 0x1f) => {
                (pos + 1, pos + 1 + usize::from(head & 0x1f))
            }
            _ => match msgpack::read(buf, pos) {
                Some((Value::Str(text) | Value::Bin(text), end)) => (end - text.len(), end),
                _ => return self.odd_key(pos, seen),
            },
        };
        if let Some(seen) = seen {
            self.repeated |= seen.insert(buf, at, end);
        }
        self.block.string(buf, at, end);
        end
    }

    #[cold]
    fn odd_key(&mut self, pos: usize, seen: Option<&mut Seen>) -> usize {
        let mut text = Vec::new();
        let end = unique::key_text(self.buf, pos, &mut text, 0);
        if let Some(seen) = seen {
            self.repeated |= seen.insert(&text, 0, text.len());
        }
        self.block.string(&text, 0, text.len());
        end
    }
}

#[cfg(test)]
mod tests;
