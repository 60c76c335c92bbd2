//! Where the JSON values of a stream begin and end, without reading what is in them.
//!
//! Enters: a buffer that grows, and shrinks at its front. Leaves: the bounds of each map or array. Work is linear in the
//! bytes, however small the pieces they arrive in: the scanner keeps its place. Can go wrong: bytes that begin no map or
//! array, brackets that do not pair; what is between balanced brackets is for the reader of the value to judge.

use std::ops::Range;

use memchr::memchr2;

/// Levels whose kind of bracket is remembered. Deeper ones are counted only: no reader takes them.
const REMEMBERED: u32 = 64;

/// What the scanner found.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// A whole map or array.
    Value(Range<usize>),
    /// Nothing whole is left.
    NeedMore,
    /// The byte here belongs to no value; where the next one begins is for the caller to say ([`Scanner::skip_to`]).
    Invalid(usize),
}

/// The place in a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    pos: usize,
    /// Where the value at hand begins; meaningful within one.
    start: usize,
    depth: u32,
    /// One bit a level, set for a map.
    maps: u64,
    in_string: bool,
}

impl Scanner {
    /// Goes on. `buf` must hold what it held before, less what [`Scanner::dropped`] was told of.
    pub fn next(&mut self, buf: &[u8]) -> Scan {
        if self.depth == 0 {
            // Blanks, and commas as Fluent Bit allows them between values.
            while let Some(b' ' | b'\t' | b'\r' | b'\n' | b',') = buf.get(self.pos) {
                self.pos += 1;
            }
            match buf.get(self.pos) {
                None => return Scan::NeedMore,
                Some(b'{' | b'[') => self.start = self.pos,
                Some(_) => return Scan::Invalid(self.pos),
            }
        }
        loop {
            if self.in_string && !self.leave_string(buf) {
                return Scan::NeedMore;
            }
            let Some(byte) = buf.get(self.pos) else { return Scan::NeedMore };
            match byte {
                b'"' => self.in_string = true,
                b'{' => self.open(true),
                b'[' => self.open(false),
                b'}' | b']' => {
                    if !self.close(*byte == b'}') {
                        return Scan::Invalid(self.pos);
                    }
                    if self.depth == 0 {
                        self.pos += 1;
                        return Scan::Value(self.start..self.pos);
                    }
                }
                _ => {}
            }
            self.pos += 1;
        }
    }

    /// Passes the end of the string at hand; false when it is not there yet.
    fn leave_string(&mut self, buf: &[u8]) -> bool {
        while let Some(at) = memchr2(b'"', b'\\', buf.get(self.pos..).unwrap_or_default()) {
            self.pos += at;
            if buf.get(self.pos) == Some(&b'"') {
                self.pos += 1;
                self.in_string = false;
                return true;
            }
            if self.pos + 1 >= buf.len() {
                // The escaped byte is still to come: the backslash is looked at again with it.
                return false;
            }
            self.pos += 2;
        }
        self.pos = buf.len();
        false
    }

    fn open(&mut self, map: bool) {
        if self.depth < REMEMBERED {
            self.maps = self.maps & !(1 << self.depth) | u64::from(map) << self.depth;
        }
        self.depth = self.depth.saturating_add(1);
    }

    fn close(&mut self, map: bool) -> bool {
        self.depth -= 1;
        self.depth >= REMEMBERED || (self.maps >> self.depth & 1 == 1) == map
    }

    /// Bytes at the front that are done with.
    pub fn done(&self) -> usize {
        if self.depth > 0 { self.start } else { self.pos }
    }

    /// Whether a value has begun and not ended.
    pub fn within(&self) -> bool {
        self.depth > 0
    }

    /// Says that the caller has dropped bytes at the front, at most [`Scanner::done`].
    pub fn dropped(&mut self, bytes: usize) {
        self.pos -= bytes;
        self.start = self.start.saturating_sub(bytes);
    }

    /// Begins anew at `pos`.
    pub fn skip_to(&mut self, pos: usize) {
        *self = Scanner { pos, ..Scanner::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(text: &str) -> (Vec<&str>, Scan) {
        let mut scanner = Scanner::default();
        let mut found = Vec::new();
        loop {
            match scanner.next(text.as_bytes()) {
                Scan::Value(range) => found.push(text.get(range).unwrap()),
                end => return (found, end),
            }
        }
    }

    #[test]
    fn blanks_commas_or_nothing_may_stand_between_values() {
        let (found, end) = values(" {\"a\":1}\n{\"b\":[{}]},[1]{\"c\":\"}\\\"]\"} {\"d\"");
        assert_eq!(found, ["{\"a\":1}", "{\"b\":[{}]}", "[1]", "{\"c\":\"}\\\"]\"}"]);
        assert_eq!(end, Scan::NeedMore);
    }

    #[test]
    fn what_begins_no_value_is_invalid_where_it_stands() {
        assert_eq!(values("{} text").1, Scan::Invalid(3));
        assert_eq!(values("{\"a\":1]").1, Scan::Invalid(6));
        assert_eq!(values("}").1, Scan::Invalid(0));
    }

    #[test]
    fn brackets_deeper_than_any_reader_goes_are_counted() {
        let text = format!("{}{}", "[".repeat(500), "]".repeat(500));
        assert_eq!(values(&text).0, [text.as_str()]);
    }

    #[test]
    fn one_byte_pieces_with_the_front_dropped_give_the_same_values() {
        let text = b"{\"a\":\"\\\\\"} [\"\\\"]\"]{\"b\":{}}";
        let mut scanner = Scanner::default();
        let (mut buf, mut found) = (Vec::new(), Vec::new());
        for byte in text {
            buf.push(*byte);
            while let Scan::Value(range) = scanner.next(&buf) {
                found.push(String::from_utf8_lossy(&buf[range]).into_owned());
            }
            let done = scanner.done();
            buf.drain(..done);
            scanner.dropped(done);
        }
        assert_eq!(found, ["{\"a\":\"\\\\\"}", "[\"\\\"]\"]", "{\"b\":{}}"]);
        assert!(buf.is_empty() && !scanner.within());
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_never_panic(
            bytes in proptest::collection::vec(prop_oneof![
                any::<u8>(), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\')
            ], 0..300),
            piece in 1usize..20,
        ) {
            let mut scanner = Scanner::default();
            let mut buf = Vec::new();
            for part in bytes.chunks(piece) {
                buf.extend_from_slice(part);
                loop {
                    match scanner.next(&buf) {
                        Scan::Value(range) => prop_assert!(range.end <= buf.len()),
                        Scan::NeedMore => break,
                        Scan::Invalid(at) => scanner.skip_to(at + 1),
                    }
                }
                let done = scanner.done();
                buf.drain(..done);
                scanner.dropped(done);
            }
        }
    }
}
