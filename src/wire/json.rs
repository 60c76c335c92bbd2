//! msgpack to JSON in one pass, without a tree.
//!
//! Enters: encoded values. Leaves: JSON text appended to a buffer. Strings and binaries are text; what is not UTF-8
//! becomes U+FFFD, one for each maximal bad part. NaN and infinities are null, extensions a hex string, keys that are no
//! strings their JSON as a string. A key that stands twice in a map is printed once, with the last value at the last
//! place, as Fluent Bit does. Nesting past the limit of records prints null (they are refused before).
//!
//! This is most of what a record costs on its way into a file. Text is looked at eight bytes at a time: a word without
//! anything to escape is stored as it is; escapes are written by table into a block on the stack, so that the output
//! grows by blocks, not by bytes.

use super::msgpack::{self, Value};

/// Deepest value that is printed; records nest at most 32.
const MAX_DEPTH: usize = 40;

/// How JSON is written.
#[derive(Clone, Copy, Debug)]
pub struct Json {
    /// Every non-ASCII character as `\uXXXX` (`json.escape_unicode`, on by default).
    pub escape_unicode: bool,
}

impl Json {
    /// Appends the value at `pos` and says where it ends; cut-off values print null and end the buffer.
    pub fn value(&self, out: &mut Vec<u8>, buf: &[u8], pos: usize) -> usize {
        self.value_at(out, buf, pos, 0)
    }

    /// Appends the map at `pos` with `first` as its first members: `"date":1.0` without braces, or nothing.
    pub fn map_with(&self, out: &mut Vec<u8>, first: &[u8], buf: &[u8], pos: usize) -> usize {
        match msgpack::read(buf, pos) {
            Some((Value::Map { count, at }, _)) => self.map(out, first, buf, at, count, 0),
            _ => self.value(out, buf, pos),
        }
    }

    fn value_at(&self, out: &mut Vec<u8>, buf: &[u8], pos: usize, depth: usize) -> usize {
        let Some((value, end)) = msgpack::read(buf, pos) else {
            out.extend_from_slice(b"null");
            return buf.len();
        };
        match value {
            Value::Str(text) | Value::Bin(text) => self.string(out, text),
            Value::UInt(v) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
            Value::Int(v) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
            Value::Nil => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Float(v) => float(out, v),
            Value::Ext(kind, bytes) => extension(out, kind, bytes),
            Value::Map { .. } | Value::Array { .. } if depth >= MAX_DEPTH => {
                out.extend_from_slice(b"null");
                return msgpack::skip(buf, pos).unwrap_or(buf.len());
            }
            Value::Map { count, at } => return self.map(out, b"", buf, at, count, depth),
            Value::Array { count, at } => {
                out.push(b'[');
                let mut pos = at;
                for i in 0..count {
                    if pos >= buf.len() {
                        break;
                    }
                    if i > 0 {
                        out.push(b',');
                    }
                    pos = self.value_at(out, buf, pos, depth + 1);
                }
                out.push(b']');
                return pos;
            }
        }
        end
    }

    fn map(
        &self,
        out: &mut Vec<u8>,
        first: &[u8],
        buf: &[u8],
        at: usize,
        count: usize,
        depth: usize,
    ) -> usize {
        out.push(b'{');
        out.extend_from_slice(first);
        let bare = out.len();
        let twice = may_repeat(buf, at, count);
        let mut pos = at;
        for i in 0..count {
            let Some((key, after)) = msgpack::read(buf, pos) else { break };
            let after =
                if key.text().is_some() { after } else { msgpack::skip(buf, pos).unwrap_or(buf.len()) };
            if twice && repeats(buf, after, count - i - 1, buf.get(pos..after).unwrap_or_default()) {
                pos = msgpack::skip(buf, after).unwrap_or(buf.len());
                continue;
            }
            if out.len() > bare || !first.is_empty() {
                out.push(b',');
            }
            match key.text() {
                Some(text) => self.string(out, text),
                None => {
                    // A number as a key: its JSON, as a string.
                    let mut text = Vec::new();
                    self.value_at(&mut text, buf, pos, depth + 1);
                    self.string(out, &text);
                }
            }
            out.push(b':');
            pos = self.value_at(out, buf, after, depth + 1);
        }
        out.push(b'}');
        pos
    }

    /// Appends a string with its quotes.
    pub fn string(&self, out: &mut Vec<u8>, text: &[u8]) {
        out.push(b'"');
        let mut rest = text;
        while !rest.is_empty() {
            let taken = self.block(out, rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
        out.push(b'"');
    }

    /// Escapes up to [`BLOCK`] bytes of text through a block on the stack; says how many it took.
    fn block(&self, out: &mut Vec<u8>, text: &[u8]) -> usize {
        // Room for a block in which every byte becomes \uXXXX, and a whole word past the end.
        let mut block = [0u8; 6 * BLOCK + 8];
        let mut filled = 0;
        let mut at = 0;
        while at < text.len() && at < BLOCK {
            if let Some(word) = text.get(at..at + 8) {
                let word: [u8; 8] = word.try_into().unwrap_or_default();
                let special = specials(u64::from_le_bytes(word));
                if let Some(slot) = block.get_mut(filled..filled + 8) {
                    slot.copy_from_slice(&word);
                }
                if special == 0 {
                    filled += 8;
                    at += 8;
                    continue;
                }
                // The bytes before the first special one are in place already.
                let clean = special.trailing_zeros() as usize / 8;
                filled += clean;
                at += clean;
            }
            let Some(&byte) = text.get(at) else { break };
            if byte < 0x80 {
                let (escape, len) = ESCAPES[usize::from(byte)];
                if let Some(slot) = block.get_mut(filled..filled + 8) {
                    slot.copy_from_slice(&escape);
                }
                filled += usize::from(len);
                at += 1;
            } else {
                let (c, len) = first_char(text.get(at..).unwrap_or_default());
                filled += self.non_ascii(c, block.get_mut(filled..).unwrap_or_default());
                at += len;
            }
        }
        out.extend_from_slice(block.get(..filled).unwrap_or_default());
        at
    }

    /// Writes one character above ASCII; at most 12 bytes for at least 3... a bad byte is one character of 6.
    fn non_ascii(&self, c: char, room: &mut [u8]) -> usize {
        if !self.escape_unicode {
            let Some(room) = room.get_mut(..c.len_utf8()) else { return 0 };
            return c.encode_utf8(room).len();
        }
        let mut units = [0; 2];
        let mut n = 0;
        for unit in c.encode_utf16(&mut units) {
            let hex = unit.to_be_bytes().map(|b| (HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]));
            let escape = [b'\\', b'u', hex[0].0, hex[0].1, hex[1].0, hex[1].1];
            if let Some(slot) = room.get_mut(n..n + 6) {
                slot.copy_from_slice(&escape);
                n += 6;
            }
        }
        n
    }
}

/// Bytes of text that go through the stack at a time.
const BLOCK: usize = 64;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What each ASCII byte is written as, and how many bytes of it count.
static ESCAPES: [([u8; 8], u8); 128] = escapes();

const fn escapes() -> [([u8; 8], u8); 128] {
    let mut table = [([0; 8], 1); 128];
    let mut b = 0;
    while b < 128 {
        let short = match b as u8 {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => 0,
        };
        table[b] = if short != 0 {
            ([b'\\', short, 0, 0, 0, 0, 0, 0], 2)
        } else if b < 0x20 {
            ([b'\\', b'u', b'0', b'0', HEX[b >> 4], HEX[b & 15], 0, 0], 6)
        } else {
            ([b as u8, 0, 0, 0, 0, 0, 0, 0], 1)
        };
        b += 1;
    }
    table
}

/// The top bit of each byte that needs more than a copy: control characters, `"`, `\`, non-ASCII.
#[inline]
fn specials(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOP: u64 = 0x8080_8080_8080_8080;
    const LOW: u64 = !TOP;
    // Sums of 7-bit parts cannot carry into the next byte, so every byte is judged exactly.
    let low = word & LOW;
    let control = !(low + ONES * (0x80 - 0x20));
    let quote = !((low ^ (ONES * b'"' as u64)) + LOW);
    let slash = !((low ^ (ONES * b'\\' as u64)) + LOW);
    (control | quote | slash | word) & TOP
}

/// The first character of text that begins above ASCII, and its bytes; U+FFFD for a maximal bad part.
fn first_char(text: &[u8]) -> (char, usize) {
    let head = text.get(..4).unwrap_or(text);
    match std::str::from_utf8(head) {
        Ok(s) => s.chars().next().map_or(('\u{fffd}', 1), |c| (c, c.len_utf8())),
        Err(e) if e.valid_up_to() > 0 => {
            let good = head.get(..e.valid_up_to()).and_then(|g| std::str::from_utf8(g).ok());
            good.and_then(|s| s.chars().next()).map_or(('\u{fffd}', 1), |c| (c, c.len_utf8()))
        }
        // A part that the end of the text cuts off is bad as a whole.
        Err(e) => ('\u{fffd}', e.error_len().unwrap_or(head.len())),
    }
}

fn float(out: &mut Vec<u8>, v: f64) {
    if v.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(v).as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

fn extension(out: &mut Vec<u8>, kind: i8, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(format!("ext {kind}:").as_bytes());
    for b in bytes {
        out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
    }
    out.push(b'"');
}

/// A first look whether a key may stand twice: one bit for each length and first and last byte. Nearly free, and wrong
/// only on the safe side.
#[inline]
fn may_repeat(buf: &[u8], at: usize, count: usize) -> bool {
    let mut seen = 0u64;
    let mut pos = at;
    for _ in 0..count {
        let Ok(end) = msgpack::skip(buf, pos) else { return false };
        let key = buf.get(pos..end).map(msgpack::content).unwrap_or_default();
        let first = key.first().map_or(0, |b| u32::from(*b));
        let last = key.last().map_or(0, |b| u32::from(*b));
        let bit =
            1 << ((key.len() as u32).wrapping_mul(7) ^ first.wrapping_mul(5) ^ last.wrapping_mul(11)) % 64;
        if seen & bit != 0 {
            return true;
        }
        seen |= bit;
        let Ok(next) = msgpack::skip(buf, end) else { return false };
        pos = next;
    }
    false
}

/// Whether one of the `count` pairs after the value at `pos` has this key (encoded).
fn repeats(buf: &[u8], pos: usize, count: usize, key: &[u8]) -> bool {
    let wanted = msgpack::value(key).and_then(Value::text);
    let Ok(mut pos) = msgpack::skip(buf, pos) else { return false };
    for _ in 0..count {
        let Ok(end) = msgpack::skip(buf, pos) else { return false };
        let other = buf.get(pos..end).unwrap_or_default();
        let same = match wanted {
            Some(text) => msgpack::value(other).and_then(Value::text) == Some(text),
            None => other == key,
        };
        if same {
            return true;
        }
        let Ok(next) = msgpack::skip(buf, end) else { return false };
        pos = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn string(escape_unicode: bool, text: &[u8]) -> String {
        let mut out = Vec::new();
        Json { escape_unicode }.string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_are_those_of_json() {
        assert_eq!(string(true, b"a\"b\\c\n\t\x01\x7f"), "\"a\\\"b\\\\c\\n\\t\\u0001\x7f\"");
        assert_eq!(string(true, "é中🚀".as_bytes()), "\"\\u00e9\\u4e2d\\ud83d\\ude80\"");
        assert_eq!(string(false, "é中🚀".as_bytes()), "\"é中🚀\"");
        assert_eq!(string(false, b"a\xffb\xe4\xb8"), "\"a\u{fffd}b\u{fffd}\"");
    }

    #[test]
    fn a_key_that_stands_twice_is_printed_once_with_the_last_value() {
        let map = b"\x83\xa1a\x01\xa1b\x02\xa1a\x03";
        let mut out = Vec::new();
        assert_eq!(Json { escape_unicode: true }.map_with(&mut out, b"\"t\":0", map, 0), map.len());
        assert_eq!(out, b"{\"t\":0,\"b\":2,\"a\":3}");
    }

    #[test]
    fn numbers_keep_their_kind() {
        let mut out = Vec::new();
        let array = b"\x95\xcb\x40\x00\x00\x00\x00\x00\x00\x00\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xc0\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00";
        Json { escape_unicode: true }.value(&mut out, array, 0);
        assert_eq!(out, b"[2.0,18446744073709551615,-1,null,null]");
    }

    proptest! {
        #[test]
        fn any_text_reads_back_as_its_lossy_form(text in proptest::collection::vec(any::<u8>(), 0..300), escape: bool) {
            let json = string(escape, &text);
            let back: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&text));
        }

        #[test]
        fn text_with_many_escapes_reads_back(text in "[\"\\\\a-z\n\u{e9}\u{1F680} ]{0,200}", escape: bool) {
            let back: String = serde_json::from_str(&string(escape, text.as_bytes())).unwrap();
            prop_assert_eq!(back, text);
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            Json { escape_unicode: true }.value(&mut out, &bytes, 0);
        }
    }
}
