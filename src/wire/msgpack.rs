//! MessagePack: skipping, viewing and writing, without a tree of values.
//!
//! Enters: bytes from a peer or from our own writers. Leaves: ends of values, borrowed views, encoded bytes.
//! Can go wrong: a value is cut off ([`Broken::Short`]), holds the reserved byte `c1`, or declares more than the
//! limit allows. Nothing here allocates by a declared length and nothing recurses over input.
//! Format: <https://github.com/msgpack/msgpack/blob/master/spec.md>.

/// Why a value could not be passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The bytes end before the value does.
    Short,
    /// The byte `0xc1`, which no value may begin with.
    Reserved,
    /// The value declares more bytes or elements than the limit leaves room for.
    TooLarge,
}

/// A resumable walk over one value: give it the same buffer, grown, until it says where the value ends.
///
/// Work is linear in the bytes however small the pieces they arrive in: the walk keeps its place and, for a long
/// string, how many bytes must be there before looking again makes sense.
#[derive(Clone, Copy, Debug)]
pub struct Skip {
    pos: usize,
    left: u64,
    need: usize,
    containers: u32,
}

impl Skip {
    /// A walk that begins at `pos`.
    pub fn at(pos: usize) -> Self {
        Skip { pos, left: 1, need: pos + 1, containers: 0 }
    }

    /// Goes on. `buf` must begin at the same byte each time. `limit` is the largest end allowed.
    ///
    /// # Errors
    /// [`Broken::Short`] means: come back when more bytes are there.
    #[inline]
    pub fn run(&mut self, buf: &[u8], limit: usize) -> Result<usize, Broken> {
        if buf.len() < self.need {
            return Err(Broken::Short);
        }
        let mut pos = self.pos;
        let mut left = self.left;
        while left > 0 {
            let Some(head) = header(buf, pos) else {
                let result = match buf.get(pos) {
                    Some(0xc1) => Err(Broken::Reserved),
                    _ if pos >= limit => Err(Broken::TooLarge),
                    _ => Err(Broken::Short),
                };
                (self.pos, self.left, self.need) = (pos, left, buf.len().max(pos) + 1);
                return result;
            };
            // The header may reach past the limit as well: an end past the limit is never right.
            let end = pos + head.len + head.body;
            if end > limit || head.children > (limit - end) as u64 {
                return Err(Broken::TooLarge);
            }
            if end > buf.len() {
                (self.pos, self.left, self.need) = (pos, left, end);
                return Err(Broken::Short);
            }
            if head.children > 0 {
                self.containers = self.containers.saturating_add(1);
            }
            pos = end;
            left = left - 1 + head.children;
        }
        self.pos = pos;
        self.left = 0;
        Ok(pos)
    }

    /// Bytes that must be there before another look makes sense.
    pub fn need(&self) -> usize {
        self.need
    }

    /// Upper bound of the nesting depth seen so far (the number of non-empty arrays and maps).
    pub fn containers(&self) -> u32 {
        self.containers
    }
}

/// Where the value at `pos` ends.
///
/// # Errors
/// See [`Broken`].
#[inline]
pub fn skip(buf: &[u8], pos: usize) -> Result<usize, Broken> {
    Skip::at(pos)
        .run(buf, buf.len().max(pos))
        .map_err(|e| if e == Broken::TooLarge { Broken::Short } else { e })
}

/// Whether the value at `pos` (already known to be whole) nests deeper than `max` arrays and maps.
pub fn deeper_than(buf: &[u8], mut pos: usize, max: usize) -> bool {
    // One counter a level; at most `max` levels are ever open.
    let mut open: Vec<u64> = Vec::new();
    loop {
        let Some(head) = header(buf, pos) else { return false };
        pos += head.len + head.body;
        if let Some(top) = open.last_mut() {
            *top -= 1;
        }
        if head.children > 0 {
            open.push(head.children);
            if open.len() > max {
                return true;
            }
        }
        while open.last() == Some(&0) {
            open.pop();
        }
        if open.is_empty() {
            return false;
        }
    }
}

struct Head {
    /// Bytes of the header itself.
    len: usize,
    /// Bytes of payload that follow it.
    body: usize,
    /// Values that follow it.
    children: u64,
}

#[inline]
fn be<const N: usize>(buf: &[u8], at: usize) -> Option<u64> {
    let bytes = buf.get(at..at + N)?;
    Some(bytes.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
}

#[inline]
fn header(buf: &[u8], pos: usize) -> Option<Head> {
    let first = *buf.get(pos)?;
    let leaf = |len: usize, body: usize| Some(Head { len, body, children: 0 });
    match first {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => leaf(1, 0),
        0xa0..=0xbf => leaf(1, usize::from(first & 0x1f)),
        0x80..=0x8f => Some(Head { len: 1, body: 0, children: 2 * u64::from(first & 0x0f) }),
        0x90..=0x9f => Some(Head { len: 1, body: 0, children: u64::from(first & 0x0f) }),
        0xc4 | 0xd9 => leaf(2, be::<1>(buf, pos + 1)? as usize),
        0xc5 | 0xda => leaf(3, be::<2>(buf, pos + 1)? as usize),
        0xc6 | 0xdb => leaf(5, be::<4>(buf, pos + 1)? as usize),
        0xc7 => leaf(3, be::<1>(buf, pos + 1)? as usize),
        0xc8 => leaf(4, be::<2>(buf, pos + 1)? as usize),
        0xc9 => leaf(6, be::<4>(buf, pos + 1)? as usize),
        0xcc | 0xd0 => leaf(2, 0),
        0xcd | 0xd1 => leaf(3, 0),
        0xce | 0xd2 | 0xca => leaf(5, 0),
        0xcf | 0xd3 | 0xcb => leaf(9, 0),
        0xd4 => leaf(3, 0),
        0xd5 => leaf(4, 0),
        0xd6 => leaf(6, 0),
        0xd7 => leaf(10, 0),
        0xd8 => leaf(18, 0),
        0xdc => Some(Head { len: 3, body: 0, children: be::<2>(buf, pos + 1)? }),
        0xdd => Some(Head { len: 5, body: 0, children: be::<4>(buf, pos + 1)? }),
        0xde => Some(Head { len: 3, body: 0, children: 2 * be::<2>(buf, pos + 1)? }),
        0xdf => Some(Head { len: 5, body: 0, children: 2 * be::<4>(buf, pos + 1)? }),
        0xc1 => None,
    }
}

/// One value, borrowed. Strings are bytes: they need not be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `nil`
    Nil,
    /// `true`, `false`
    Bool(bool),
    /// A negative integer.
    Int(i64),
    /// A non-negative integer.
    UInt(u64),
    /// Both float widths.
    Float(f64),
    /// A string's bytes.
    Str(&'a [u8]),
    /// Binary.
    Bin(&'a [u8]),
    /// An array: how many elements, and where the first begins in the buffer given.
    Array {
        /// Elements.
        count: usize,
        /// Offset of the first in the buffer.
        at: usize,
    },
    /// A map: how many pairs, and where the first key begins in the buffer given.
    Map {
        /// Pairs.
        count: usize,
        /// Offset of the first key in the buffer.
        at: usize,
    },
    /// An extension: type and payload.
    Ext(i8, &'a [u8]),
}

impl<'a> Value<'a> {
    /// The text of a string or of a binary (senders disagree on which they use for text).
    pub fn text(self) -> Option<&'a [u8]> {
        match self {
            Value::Str(s) | Value::Bin(s) => Some(s),
            _ => None,
        }
    }
}

/// Reads the value at `pos`; for arrays and maps only the header.
/// Returns it with the offset just after what was read (after the header for arrays and maps).
#[inline]
pub fn read(buf: &[u8], pos: usize) -> Option<(Value<'_>, usize)> {
    let first = *buf.get(pos)?;
    let head = header(buf, pos)?;
    let at = pos + head.len;
    let end = at + head.body;
    let payload = buf.get(at..end)?;
    let value = match first {
        0x00..=0x7f => Value::UInt(u64::from(first)),
        0xe0..=0xff => Value::Int(i64::from(first as i8)),
        0xc0 => Value::Nil,
        0xc2 => Value::Bool(false),
        0xc3 => Value::Bool(true),
        0xa0..=0xbf | 0xd9..=0xdb => Value::Str(payload),
        0xc4..=0xc6 => Value::Bin(payload),
        0x80..=0x8f | 0xde | 0xdf => Value::Map { count: (head.children / 2) as usize, at },
        0x90..=0x9f | 0xdc | 0xdd => Value::Array { count: head.children as usize, at },
        0xcc => Value::UInt(be::<1>(buf, pos + 1)?),
        0xcd => Value::UInt(be::<2>(buf, pos + 1)?),
        0xce => Value::UInt(be::<4>(buf, pos + 1)?),
        0xcf => Value::UInt(be::<8>(buf, pos + 1)?),
        0xd0 => int(i64::from(be::<1>(buf, pos + 1)? as i8)),
        0xd1 => int(i64::from(be::<2>(buf, pos + 1)? as i16)),
        0xd2 => int(i64::from(be::<4>(buf, pos + 1)? as i32)),
        0xd3 => int(be::<8>(buf, pos + 1)? as i64),
        0xca => Value::Float(f64::from(f32::from_bits(be::<4>(buf, pos + 1)? as u32))),
        0xcb => Value::Float(f64::from_bits(be::<8>(buf, pos + 1)?)),
        // The ext headers above count their type byte; fixext payloads are part of the header length.
        0xc7..=0xc9 => Value::Ext(*buf.get(at - 1)? as i8, payload),
        0xd4..=0xd8 => Value::Ext(*buf.get(pos + 1)? as i8, buf.get(pos + 2..at)?),
        0xc1 => return None,
    };
    Some((value, end))
}

fn int(v: i64) -> Value<'static> {
    if v < 0 { Value::Int(v) } else { Value::UInt(v as u64) }
}

/// Reads the value that `bytes` holds.
#[inline]
pub fn value(bytes: &[u8]) -> Option<Value<'_>> {
    read(bytes, 0).map(|(v, _)| v)
}

/// The content of an encoded string (or binary), without its header. Empty for other types.
#[inline]
pub fn content(bytes: &[u8]) -> &[u8] {
    value(bytes).and_then(Value::text).unwrap_or_default()
}

/// Appends a string.
#[inline]
pub fn write_str(out: &mut Vec<u8>, s: &[u8]) {
    match s.len() {
        n @ 0..=31 => out.push(0xa0 | n as u8),
        n @ 32..=0xff => out.extend_from_slice(&[0xd9, n as u8]),
        n @ 0x100..=0xffff => {
            let [a, b] = (n as u16).to_be_bytes();
            out.extend_from_slice(&[0xda, a, b]);
        }
        n => {
            out.push(0xdb);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(s);
}

/// The header of a string of `len` bytes, and how many bytes of it count.
pub fn str_header(len: usize) -> ([u8; 5], usize) {
    let [a, b, c, d] = (len as u32).to_be_bytes();
    match len {
        0..=31 => ([0xa0 | d, 0, 0, 0, 0], 1),
        32..=0xff => ([0xd9, d, 0, 0, 0], 2),
        0x100..=0xffff => ([0xda, c, d, 0, 0], 3),
        _ => ([0xdb, a, b, c, d], 5),
    }
}

/// Appends a binary.
pub fn write_bin(out: &mut Vec<u8>, s: &[u8]) {
    match s.len() {
        n @ 0..=0xff => out.extend_from_slice(&[0xc4, n as u8]),
        n @ 0x100..=0xffff => {
            out.push(0xc5);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0xc6);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(s);
}

/// Appends a map header for `n` pairs.
#[inline]
pub fn write_map(out: &mut Vec<u8>, n: usize) {
    match n {
        0..=15 => out.push(0x80 | n as u8),
        16..=0xffff => {
            let [a, b] = (n as u16).to_be_bytes();
            out.extend_from_slice(&[0xde, a, b]);
        }
        _ => {
            out.push(0xdf);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
    }
}

/// Appends an array header for `n` elements.
pub fn write_array(out: &mut Vec<u8>, n: usize) {
    match n {
        0..=15 => out.push(0x90 | n as u8),
        16..=0xffff => {
            let [a, b] = (n as u16).to_be_bytes();
            out.extend_from_slice(&[0xdc, a, b]);
        }
        _ => {
            out.push(0xdd);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
    }
}

/// Appends a signed integer in its shortest form.
pub fn write_int(out: &mut Vec<u8>, v: i64) {
    match v {
        0.. => write_uint(out, v as u64),
        -32..=-1 => out.push(v as u8),
        -0x80..=-33 => out.extend_from_slice(&[0xd0, v as u8]),
        -0x8000..=-0x81 => {
            out.push(0xd1);
            out.extend_from_slice(&(v as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend_from_slice(&(v as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&v.to_be_bytes());
        }
    }
}

/// Appends an unsigned integer in its shortest form.
pub fn write_uint(out: &mut Vec<u8>, v: u64) {
    match v {
        0..=0x7f => out.push(v as u8),
        0x80..=0xff => out.extend_from_slice(&[0xcc, v as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend_from_slice(&(v as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend_from_slice(&(v as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&v.to_be_bytes());
        }
    }
}

/// Appends a float (64 bits).
pub fn write_float(out: &mut Vec<u8>, v: f64) {
    out.push(0xcb);
    out.extend_from_slice(&v.to_bits().to_be_bytes());
}

/// Appends a boolean.
pub fn write_bool(out: &mut Vec<u8>, v: bool) {
    out.push(if v { 0xc3 } else { 0xc2 });
}

/// Appends nil.
pub fn write_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_in_one_byte_pieces_ends_where_it_ends_whole() {
        let mut v = Vec::new();
        write_map(&mut v, 2);
        write_str(&mut v, b"log");
        write_str(&mut v, &[b'x'; 300]);
        write_str(&mut v, b"n");
        write_array(&mut v, 3);
        for i in [-1, 70_000, -70_000] {
            write_int(&mut v, i);
        }
        let mut skip_state = Skip::at(0);
        for n in 0..v.len() {
            assert_eq!(skip_state.run(&v[..n], 1 << 20), Err(Broken::Short), "{n}");
        }
        assert_eq!(skip_state.run(&v, 1 << 20), Ok(v.len()));
    }

    #[test]
    fn a_declared_length_past_the_limit_is_refused_at_its_header() {
        assert_eq!(Skip::at(0).run(&[0xdb, 0xff, 0xff, 0xff, 0xff], 6_144_000), Err(Broken::TooLarge));
        assert_eq!(Skip::at(0).run(&[0xdd, 0xff, 0xff, 0xff, 0xff], 6_144_000), Err(Broken::TooLarge));
        assert_eq!(skip(&[0xc1], 0), Err(Broken::Reserved));
    }

    #[test]
    fn depth_is_counted_exactly() {
        let mut v = vec![0x91; 32];
        v.push(0x01);
        assert!(!deeper_than(&v, 0, 32));
        v.insert(0, 0x91);
        assert!(deeper_than(&v, 0, 32));
    }

    #[test]
    fn extensions_read_back_with_type_and_payload() {
        let fix = [0xd7, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(value(&fix), Some(Value::Ext(0, &[1, 2, 3, 4, 5, 6, 7, 8])));
        let ext = [0xc7, 3, 0xff, 9, 9, 9];
        assert_eq!(value(&ext), Some(Value::Ext(-1, &[9, 9, 9])));
        assert_eq!(skip(&ext, 0), Ok(6));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(end) = skip(&bytes, 0) {
                prop_assert!(end <= bytes.len());
                deeper_than(&bytes, 0, 32);
            }
            let _ = read(&bytes, 0);
        }

        #[test]
        fn integers_round_trip(v in any::<i64>()) {
            let mut b = Vec::new();
            write_int(&mut b, v);
            let want = if v < 0 { Value::Int(v) } else { Value::UInt(v as u64) };
            prop_assert_eq!(read(&b, 0), Some((want, b.len())));
        }
    }
}
