//! JSON strings: finds what must be escaped eight bytes at a time and gathers the output in a block.
//!
//! Enters: any bytes. Leaves: a JSON string in ASCII or UTF-8.

use std::cell::RefCell;

use super::mask::{RUN, mask};

/// Size of the block that gathers output before it goes to the buffer: most records fit.
const BLOCK: usize = 2048;
/// Most bytes that one run can become (`\\u00XX` for each, a word that overlaps the end, and a whole store).
const GROWN: usize = (RUN + 8) * 7 + 16;

/// For each byte that needs it the escape, its length in the last place; length 0 for what is left as it is and for
/// bytes outside of ASCII.
static ESCAPES: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let digits = b"0123456789abcdef";
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
        if short != 0 {
            table[b] = [b'\\', short, 0, 0, 0, 0, 0, 2];
        } else if b < 0x20 || b == 0x7f {
            table[b] = [b'\\', b'u', b'0', b'0', digits[b >> 4], digits[b & 15], 0, 6];
        }
        b += 1;
    }
    table
};

/// The same for JSON that stands in a JSON string: every quote and backslash of it is escaped once more.
static ESCAPES_INSIDE: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut b = 0;
    while b < 128 {
        let once = ESCAPES[b];
        if once[7] > 0 {
            let mut twice = [0; 8];
            let (mut from, mut to) = (0, 0);
            while from < once[7] as usize {
                if once[from] == b'"' || once[from] == b'\\' {
                    twice[to] = b'\\';
                    to += 1;
                }
                twice[to] = once[from];
                from += 1;
                to += 1;
            }
            twice[7] = to as u8;
            table[b] = twice;
        }
        b += 1;
    }
    table
};

/// Two hexadecimal digits.
pub(super) fn hex(byte: u8) -> [u8; 2] {
    let digit = |v: u8| if v < 10 { b'0' + v } else { b'a' + v - 10 };
    [digit(byte >> 4), digit(byte & 15)]
}

thread_local! {
    /// Kept from record to record: to fill one with zeros costs as much as to copy a record.
    static BYTES: RefCell<[u8; BLOCK]> = const { RefCell::new([0; BLOCK]) };
}

/// Gathers output; [`Block::flush`] must be called at the end. `INSIDE`: what is written stands in a JSON string.
pub(super) struct Block<'o, const INSIDE: bool> {
    out: &'o mut Vec<u8>,
    bytes: &'o mut [u8; BLOCK],
    len: usize,
    escape_unicode: bool,
    /// Backslashes that are there only because it stands in a string.
    added: usize,
    /// Something that was no UTF-8 was written as U+FFFD.
    replaced: bool,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte of `w` that is a control character, `"`, `\`, DEL or not ASCII. Bits above the lowest may
/// be wrong (borrows and carries run upwards).
#[inline]
fn specials(w: u64) -> u64 {
    let control = w.wrapping_sub(ONES * 0x20);
    let quote = (w ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (w ^ (ONES * 0x5c)).wrapping_sub(ONES);
    let del_or_more = w.wrapping_add(ONES) | w;
    (control | quote | backslash | del_or_more) & HIGH
}

/// Eight bytes of `buf` at `at`, spaces where it ends.
#[inline]
pub(super) fn word(buf: &[u8], at: usize) -> u64 {
    match buf.get(at..).and_then(|b| b.first_chunk::<8>()) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => last_word(buf, at),
    }
}

#[cold]
fn last_word(buf: &[u8], at: usize) -> u64 {
    let mut bytes = [b' '; 8];
    for (to, from) in bytes.iter_mut().zip(buf.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

/// Stores a whole array at `filled` and counts `len` bytes of it. There must be room for the array.
#[inline]
fn store<const N: usize>(block: &mut [u8; BLOCK], filled: &mut usize, bytes: [u8; N], len: usize) {
    if let Some(to) = block.get_mut(*filled..).and_then(|b| b.first_chunk_mut::<N>()) {
        *to = bytes;
        *filled += len;
    }
}

/// Runs `write` with a block in front of `out`.
#[inline]
pub(super) fn gathered<R, const INSIDE: bool>(
    out: &mut Vec<u8>,
    escape_unicode: bool,
    write: impl FnOnce(Block<'_, INSIDE>) -> R,
) -> R {
    BYTES.with(|bytes| match bytes.try_borrow_mut() {
        Ok(mut bytes) => write(Block::new(out, &mut bytes, escape_unicode)),
        Err(_) => write(Block::new(out, &mut [0; BLOCK], escape_unicode)),
    })
}

impl<'o, const INSIDE: bool> Block<'o, INSIDE> {
    fn new(out: &'o mut Vec<u8>, bytes: &'o mut [u8; BLOCK], escape_unicode: bool) -> Self {
        Block { out, bytes, len: 0, escape_unicode, added: 0, replaced: false }
    }

    /// Backslashes that are there only because what was written stands in a string.
    pub(super) fn added(&self) -> usize {
        self.added
    }

    /// Whether something was no UTF-8.
    pub(super) fn replaced(&self) -> bool {
        self.replaced
    }

    /// The escape of a byte, its length in the last place.
    #[inline]
    fn escape(byte: u8) -> [u8; 8] {
        if INSIDE { ESCAPES_INSIDE[usize::from(byte)] } else { ESCAPES[usize::from(byte)] }
    }

    /// Counts what was added for a byte that is escaped.
    #[inline]
    fn count(&mut self, byte: u8) {
        if INSIDE {
            self.added += 1 + usize::from(byte == b'"' || byte == b'\\');
        }
    }

    /// Appends a quote. There must be room.
    #[inline]
    fn quote(&mut self) {
        if INSIDE {
            self.store([b'\\', b'"'], 2);
            self.added += 1;
        } else {
            self.store([b'"'], 1);
        }
    }

    /// Appends bytes as a string of `\xNN`.
    #[cold]
    pub(super) fn bytes_as_hex(&mut self, bytes: &[u8]) {
        self.room(GROWN);
        self.quote();
        for byte in bytes {
            self.room(GROWN);
            if INSIDE {
                self.store(*b"\\\\\\\\x", 5);
                self.added += 2;
            } else {
                self.store(*b"\\\\x", 3);
            }
            self.store(hex(*byte), 2);
        }
        self.room(GROWN);
        self.quote();
    }

    /// Passes on what was gathered.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.out.extend_from_slice(self.bytes.get(..self.len).unwrap_or_default());
        self.len = 0;
    }

    #[inline]
    fn room(&mut self, bytes: usize) {
        if self.len + bytes > BLOCK {
            self.flush();
        }
    }

    /// Stores a whole array and counts `len` bytes of it. There must be room for the array.
    #[inline]
    fn store<const N: usize>(&mut self, bytes: [u8; N], len: usize) {
        store(self.bytes, &mut self.len, bytes, len);
    }

    /// Appends bytes as they are.
    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len());
        match self.bytes.get_mut(self.len..self.len + bytes.len()) {
            Some(to) => {
                to.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            // Longer than the block, which `room` has emptied.
            None => self.out.extend_from_slice(bytes),
        }
    }

    /// Appends `buf[start..end]` as a JSON string with quotes. `buf` may go on after `end`: it is read in whole runs.
    #[inline]
    pub(super) fn string(&mut self, buf: &[u8], start: usize, end: usize) {
        self.room(GROWN);
        self.quote();
        let mut at = start;
        while at < end {
            self.room(GROWN);
            // Twice a run, so that a whole store may begin at each of its bytes.
            at = match buf.get(at..).and_then(|b| b.first_chunk::<{ 2 * RUN }>()) {
                Some(window) => self.run(window, buf, at, end),
                None => self.words(buf, at, end, at + RUN),
            };
        }
        self.quote();
    }

    /// Escapes the first run of a window, which lies at `at`, or as far as `end`, or up to what is not ASCII. Where the
    /// bytes to escape are is found once for the whole run: the stores do not wait for one another. (The length is kept
    /// apart meanwhile: in the block, each store would have to wait for the one before to reach memory.)
    #[inline]
    fn run(&mut self, window: &[u8; 2 * RUN], buf: &[u8], at: usize, end: usize) -> usize {
        let limit = RUN.min(end - at);
        let whole = |from: usize| -> [u8; RUN] {
            window.get(from..).and_then(|w| w.first_chunk::<RUN>()).copied().unwrap_or([0; RUN])
        };
        let run = whole(0);
        let mut left = mask(&run) & (u32::MAX >> (RUN - limit));
        let mut from = 0;
        let mut filled = self.len;
        let mut added = 0;
        while left != 0 {
            let special = left.trailing_zeros() as usize;
            store(self.bytes, &mut filled, whole(from), special - from);
            let byte = window[special & (2 * RUN - 1)];
            let escape = Self::escape(byte);
            let len = usize::from(escape[7]);
            if len == 0 {
                self.len = filled;
                self.added += added;
                return self.beyond_ascii(buf, at + special, end);
            }
            store(self.bytes, &mut filled, escape, len);
            if INSIDE {
                added += 1 + usize::from(byte == b'"' || byte == b'\\');
            }
            from = special + 1;
            left &= left - 1;
        }
        store(self.bytes, &mut filled, whole(from), limit - from);
        self.len = filled;
        self.added += added;
        at + limit
    }

    /// Escapes word by word up to `end`, or until `stop` is passed.
    #[inline]
    fn words(&mut self, buf: &[u8], mut at: usize, end: usize, stop: usize) -> usize {
        while at < stop {
            let w = word(buf, at);
            let found = specials(w);
            let run = (found.trailing_zeros() / 8) as usize;
            if run >= end - at {
                self.store(w.to_le_bytes(), end - at);
                return end;
            }
            self.store(w.to_le_bytes(), run);
            at += run;
            if found == 0 {
                continue;
            }
            let byte = (w >> (run * 8)) as u8;
            let escape = Self::escape(byte);
            let len = usize::from(escape[7]);
            if len > 0 {
                self.store(escape, len);
                self.count(byte);
                at += 1;
            } else {
                at = self.beyond_ascii(buf, at, end);
                self.room(GROWN);
            }
        }
        at
    }

    /// Characters outside of ASCII, up to the first that is within.
    fn beyond_ascii(&mut self, buf: &[u8], mut at: usize, end: usize) -> usize {
        let text = buf.get(..end).unwrap_or_default();
        while let Some(rest) = text.get(at..)
            && rest.first().is_some_and(|b| *b >= 0x80)
        {
            self.room(16);
            let (c, len) = decode(rest);
            // Only what is no UTF-8, and U+FFFD itself, which then counts for nothing.
            self.replaced |= c == char::REPLACEMENT_CHARACTER;
            at += len;
            if !self.escape_unicode {
                let mut utf8 = [0; 4];
                let len = c.encode_utf8(&mut utf8).len();
                self.store(utf8, len);
                continue;
            }
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let ([a, b], [c, d]) = (hex((*unit >> 8) as u8), hex(*unit as u8));
                if INSIDE {
                    self.store([b'\\', b'\\', b'u', a, b, c, d], 7);
                    self.added += 1;
                } else {
                    self.store([b'\\', b'u', a, b, c, d], 6);
                }
            }
        }
        at
    }
}

/// The first character of `text` (not empty) and its length; U+FFFD and the length of the maximal subpart when it is
/// no UTF-8.
#[inline]
fn decode(text: &[u8]) -> (char, usize) {
    const BAD: char = char::REPLACEMENT_CHARACTER;
    let at = |i: usize| text.get(i).copied().unwrap_or(0);
    let (b0, b1) = (at(0), at(1));
    let tail = |b: u8| u32::from(b & 0x3f);
    let continues = |b: u8| b & 0xc0 == 0x80;
    let second_is_good = match b0 {
        0xc2..=0xdf | 0xe1..=0xec | 0xee..=0xef | 0xf1..=0xf3 => continues(b1),
        0xe0 => matches!(b1, 0xa0..=0xbf),
        0xed => matches!(b1, 0x80..=0x9f),
        0xf0 => matches!(b1, 0x90..=0xbf),
        0xf4 => matches!(b1, 0x80..=0x8f),
        _ => false,
    };
    if !second_is_good {
        return (BAD, 1);
    }
    if b0 < 0xe0 {
        return (char::from_u32(u32::from(b0 & 0x1f) << 6 | tail(b1)).unwrap_or(BAD), 2);
    }
    let b2 = at(2);
    if !continues(b2) {
        return (BAD, 2);
    }
    if b0 < 0xf0 {
        let code = u32::from(b0 & 0x0f) << 12 | tail(b1) << 6 | tail(b2);
        return (char::from_u32(code).unwrap_or(BAD), 3);
    }
    let b3 = at(3);
    if !continues(b3) {
        return (BAD, 3);
    }
    let code = u32::from(b0 & 0x07) << 18 | tail(b1) << 12 | tail(b2) << 6 | tail(b3);
    (char::from_u32(code).unwrap_or(BAD), 4)
}
