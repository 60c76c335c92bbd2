//! JSON text to MessagePack, straight into a byte buffer, without a tree.
//!
//! Enters: bytes of a log line or of a stream of JSON values. Leaves: encoded values, or for an object its fields.
//! Can go wrong: the text ends before the value does ([`Error::Incomplete`]: read on), or it is no JSON
//! ([`Error::Invalid`]); then nothing has been appended.
//!
//! Fluent Bit's leniency is kept, because logs rely on it: raw control characters and invalid UTF-8 inside strings pass
//! as they are, a surrogate without its half becomes U+FFFD. Integers that fit i64 or u64 stay integers, all other
//! numbers are floats; one that no float can hold makes the text invalid. Keys that repeat are all kept: whoever looks
//! a key up or writes a record takes the last.

use super::entry::MAX_DEPTH;
use super::msgpack;
use super::unescape::{BLOCK, ESCAPES, unescape};
use crate::record::Fields;

/// Why a value could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The text ends within the value (or before it): more may complete it.
    Incomplete,
    /// No JSON, or nested too deep, whatever follows.
    Invalid,
}

/// Appends the value that `text` begins with (after blanks) and says where it ends. A number at the very end of the
/// text counts as whole.
///
/// # Errors
/// See [`Error`].
pub fn value_into(text: &[u8], out: &mut Vec<u8>) -> Result<usize, Error> {
    value_within(text, out, MAX_DEPTH)
}

/// As [`value_into`], for a value that goes into a record: at most `depth` levels of maps and arrays.
///
/// # Errors
/// See [`Error`].
pub fn value_within(text: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<usize, Error> {
    let mark = out.len();
    let mut reader = Reader { text, pos: 0 };
    reader.blanks();
    match reader.value(out, depth) {
        Ok(()) => Ok(reader.pos),
        Err(e) => {
            out.truncate(mark);
            Err(e)
        }
    }
}

/// Appends the object that `text` holds, as a map of at most `depth` levels; what may follow it is as for
/// [`object_into`].
///
/// # Errors
/// See [`Error`].
pub fn map_within(text: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
    let mark = out.len();
    let mut reader = Reader { text, pos: 0 };
    reader.blanks();
    let read = match reader.peek() {
        Ok(b'{') => reader.value(out, depth).and_then(|()| reader.rest(out)),
        Ok(_) => Err(Error::Invalid),
        Err(e) => Err(e),
    };
    if read.is_err() {
        out.truncate(mark);
    }
    read
}

/// Appends the fields of the object that `text` holds. A second JSON value after it makes the text invalid; other
/// things that follow (a comma, a stray bracket, words) are passed over, as Fluent Bit does.
///
/// # Errors
/// See [`Error`].
pub fn object_into(text: &[u8], fields: &mut Fields) -> Result<(), Error> {
    let marks = (fields.bytes.len(), fields.list.len());
    let mut reader = Reader { text, pos: 0 };
    let read = reader.object(fields).and_then(|()| reader.rest(&mut fields.bytes));
    if read.is_err() {
        fields.bytes.truncate(marks.0);
        fields.list.truncate(marks.1);
    }
    read
}

/// Appends the string that `text` begins with, from its opening quote on, and says where it ends.
///
/// # Errors
/// See [`Error`]; then `out` may have grown.
#[inline]
pub(super) fn string_into(text: &[u8], out: &mut Vec<u8>) -> Result<usize, Error> {
    let mut reader = Reader { text, pos: 0 };
    reader.string(out)?;
    Ok(reader.pos)
}

struct Reader<'t> {
    text: &'t [u8],
    pos: usize,
}

impl Reader<'_> {
    #[inline]
    fn peek(&self) -> Result<u8, Error> {
        self.text.get(self.pos).copied().ok_or(Error::Incomplete)
    }

    #[inline]
    fn blanks(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.text.get(self.pos) {
            self.pos += 1;
        }
    }

    /// What follows a whole object.
    #[inline]
    fn rest(&mut self, spare: &mut Vec<u8>) -> Result<(), Error> {
        self.blanks();
        match self.text.get(self.pos..) {
            Some(rest) if !rest.is_empty() => {
                let mark = spare.len();
                let second = value_within(rest, spare, MAX_DEPTH).is_ok();
                spare.truncate(mark);
                if second { Err(Error::Invalid) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn object(&mut self, fields: &mut Fields) -> Result<(), Error> {
        self.blanks();
        if self.peek()? != b'{' {
            return Err(Error::Invalid);
        }
        self.pos += 1;
        self.blanks();
        if self.peek()? == b'}' {
            self.pos += 1;
            return Ok(());
        }
        loop {
            let start = fields.bytes.len();
            self.key(&mut fields.bytes)?;
            let mid = fields.bytes.len();
            self.value(&mut fields.bytes, MAX_DEPTH - 1)?;
            fields.list.push((start..mid, mid..fields.bytes.len()));
            if self.closes(b'}')? {
                return Ok(());
            }
        }
    }

    /// A key with its colon and the blanks around it.
    #[inline]
    fn key(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.peek()? != b'"' {
            return Err(Error::Invalid);
        }
        self.string(out)?;
        self.blanks();
        if self.peek()? != b':' {
            return Err(Error::Invalid);
        }
        self.pos += 1;
        self.blanks();
        Ok(())
    }

    /// After an element: `true` at the closing bracket, `false` when another one comes.
    #[inline]
    fn closes(&mut self, bracket: u8) -> Result<bool, Error> {
        self.blanks();
        let found = self.peek()?;
        self.pos += 1;
        if found == b',' {
            self.blanks();
            return Ok(false);
        }
        if found == bracket { Ok(true) } else { Err(Error::Invalid) }
    }

    // Calls itself for maps and arrays, at most `depth` deep.
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
        match self.peek()? {
            b'"' => self.string(out),
            b'-' | b'0'..=b'9' => self.number(out),
            b'{' => self.map(out, depth.checked_sub(1).ok_or(Error::Invalid)?),
            b'[' => self.array(out, depth.checked_sub(1).ok_or(Error::Invalid)?),
            b't' => self.word(b"true", out, 0xc3),
            b'f' => self.word(b"false", out, 0xc2),
            b'n' => self.word(b"null", out, 0xc0),
            _ => Err(Error::Invalid),
        }
    }

    fn map(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
        self.pos += 1;
        let mark = out.len();
        out.push(0x80);
        self.blanks();
        if self.peek()? == b'}' {
            self.pos += 1;
            return Ok(());
        }
        let mut count = 0;
        loop {
            self.key(out)?;
            self.value(out, depth)?;
            count += 1;
            if self.closes(b'}')? {
                close(out, mark, count, [0x80, 0xde, 0xdf]);
                return Ok(());
            }
        }
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Error> {
        self.pos += 1;
        let mark = out.len();
        out.push(0x90);
        self.blanks();
        if self.peek()? == b']' {
            self.pos += 1;
            return Ok(());
        }
        let mut count = 0;
        loop {
            self.value(out, depth)?;
            count += 1;
            if self.closes(b']')? {
                close(out, mark, count, [0x90, 0xdc, 0xdd]);
                return Ok(());
            }
        }
    }

    fn word(&mut self, word: &[u8], out: &mut Vec<u8>, code: u8) -> Result<(), Error> {
        let rest = self.text.get(self.pos..).unwrap_or_default();
        if rest.starts_with(word) {
            self.pos += word.len();
            out.push(code);
            return Ok(());
        }
        Err(if word.starts_with(rest) { Error::Incomplete } else { Error::Invalid })
    }

    #[inline]
    fn number(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = self.pos;
        let negative = self.peek()? == b'-';
        self.pos += usize::from(negative);
        let first = self.peek()?;
        if !first.is_ascii_digit() {
            return Err(Error::Invalid);
        }
        // None: more than 64 bits.
        let mut whole = Some(0_u64);
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.pos) {
            whole = whole.and_then(|w| w.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
            self.pos += 1;
        }
        if first == b'0' && self.pos > start + usize::from(negative) + 1 {
            return Err(Error::Invalid);
        }
        let whole = match self.text.get(self.pos) {
            Some(b'.' | b'e' | b'E') => return self.float(start, out),
            _ => whole,
        };
        match (negative, whole) {
            (false, Some(whole)) => msgpack::write_uint(out, whole),
            (true, Some(whole)) if whole <= i64::MIN.unsigned_abs() => {
                msgpack::write_int(out, 0_i64.wrapping_sub_unsigned(whole));
            }
            _ => return self.write_float(start, out),
        }
        Ok(())
    }

    /// A number that goes on with a fraction or an exponent.
    fn float(&mut self, start: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.peek()? == b'.' {
            self.pos += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.pos) {
            self.pos += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.pos += 1;
            }
            self.digits()?;
        }
        self.write_float(start, out)
    }

    fn digits(&mut self) -> Result<(), Error> {
        if !self.peek()?.is_ascii_digit() {
            return Err(Error::Invalid);
        }
        while self.text.get(self.pos).is_some_and(u8::is_ascii_digit) {
            self.pos += 1;
        }
        Ok(())
    }

    fn write_float(&self, start: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let text = self.text.get(start..self.pos).unwrap_or_default();
        let number = std::str::from_utf8(text).ok().and_then(|t| t.parse::<f64>().ok());
        match number {
            Some(v) if v.is_finite() => {
                msgpack::write_float(out, v);
                Ok(())
            }
            _ => Err(Error::Invalid),
        }
    }

    /// A string, from its opening quote on.
    #[inline]
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.pos += 1;
        let rest = self.text.get(self.pos..).unwrap_or_default();
        let plain = plain(rest);
        match rest.get(plain) {
            Some(b'"') => {
                msgpack::write_str(out, rest.get(..plain).unwrap_or_default());
                self.pos += plain + 1;
                Ok(())
            }
            Some(_) => self.escaped(out),
            None => Err(Error::Incomplete),
        }
    }

    /// A string with escapes, from after its opening quote on.
    fn escaped(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        // Room for the header of most; where it takes more or less, what follows moves.
        const HEAD: usize = 2;
        let mark = out.len();
        out.extend_from_slice(&[0; HEAD]);
        let mut block = [0; BLOCK];
        loop {
            let part = unescape(self.text.get(self.pos..).unwrap_or_default(), &mut block);
            out.extend_from_slice(block.get(..part.written).unwrap_or_default());
            self.pos += part.read;
            if part.over {
                break;
            }
            let rest = self.text.get(self.pos..).unwrap_or_default();
            let more = plain(rest);
            out.extend_from_slice(rest.get(..more).unwrap_or_default());
            self.pos += more + 1;
            match rest.get(more) {
                Some(b'"') => break,
                Some(_) => self.escape(out)?,
                None => return Err(Error::Incomplete),
            }
        }
        let len = out.len() - mark - HEAD;
        let (head, used) = msgpack::str_header(len);
        if used != HEAD {
            out.extend_from_slice(&[0; 5 - HEAD]);
            out.copy_within(mark + HEAD..mark + HEAD + len, mark + used);
            out.truncate(mark + used + len);
        }
        if let (Some(to), Some(from)) = (out.get_mut(mark..mark + used), head.get(..used)) {
            to.copy_from_slice(from);
        }
        Ok(())
    }

    /// What follows a backslash.
    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let kind = self.peek()?;
        self.pos += 1;
        match ESCAPES.get(usize::from(kind)) {
            Some(byte @ 1..) => out.push(*byte),
            _ if kind == b'u' => return self.unicode(out),
            _ => return Err(Error::Invalid),
        }
        Ok(())
    }

    /// The digits after `\u`, and the second half of a pair of surrogates.
    fn unicode(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let first = self.hex4(self.pos)?;
        self.pos += 4;
        let mut code = first;
        if (0xd800..0xdc00).contains(&first) {
            let next = self.text.get(self.pos..).unwrap_or_default();
            if next.starts_with(b"\\u") {
                let second = self.hex4(self.pos + 2)?;
                if (0xdc00..0xe000).contains(&second) {
                    self.pos += 6;
                    code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                }
            } else if next.len() < 2 && b"\\u".starts_with(next) {
                return Err(Error::Incomplete);
            }
        }
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn hex4(&self, at: usize) -> Result<u32, Error> {
        let mut code = 0;
        for i in at..at + 4 {
            let digit = self.text.get(i).ok_or(Error::Incomplete)?;
            code = code << 4 | char::from(*digit).to_digit(16).ok_or(Error::Invalid)?;
        }
        Ok(code)
    }
}

/// How many bytes stand before the first quote or backslash.
#[inline]
pub(super) fn plain(text: &[u8]) -> usize {
    // Keys and most values end within a few words; for longer ones a vector search pays.
    const SHORT: usize = 4;
    let mut words = text.as_chunks::<8>().0.iter();
    for (i, word) in words.by_ref().take(SHORT).enumerate() {
        let word = u64::from_le_bytes(*word);
        let hit = quote_or_backslash(word);
        if hit != 0 {
            return i * 8 + (hit.trailing_zeros() / 8) as usize;
        }
    }
    let done = (text.len() / 8).min(SHORT) * 8;
    let rest = text.get(done..).unwrap_or_default();
    let tail = if rest.len() < 8 {
        rest.iter().position(|b| matches!(b, b'"' | b'\\'))
    } else {
        memchr::memchr2(b'"', b'\\', rest)
    };
    done + tail.unwrap_or(rest.len())
}

/// The high bit of the lowest byte that is a quote or a backslash (of higher bytes it may be set wrongly); 0: none is.
#[inline]
fn quote_or_backslash(word: u64) -> u64 {
    zero_byte(word ^ 0x2222_2222_2222_2222) | zero_byte(word ^ 0x5c5c_5c5c_5c5c_5c5c)
}

/// The high bit of the lowest byte that is zero (of higher bytes it may be set wrongly).
#[inline]
fn zero_byte(word: u64) -> u64 {
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
}

/// Writes the header of a map or an array whose one byte of header stands at `mark`; more than 15 elements need a wider
/// one, and what follows moves up.
#[inline]
fn close(out: &mut Vec<u8>, mark: usize, count: usize, codes: [u8; 3]) {
    let [short, wide16, wide32] = codes;
    if count < 16 {
        if let Some(head) = out.get_mut(mark) {
            *head = short | count as u8;
        }
        return;
    }
    let four = (count as u32).to_be_bytes();
    let (code, tail) = if count <= 0xffff { (wide16, &four[2..]) } else { (wide32, &four[..]) };
    let end = out.len();
    out.resize(end + tail.len(), 0);
    out.copy_within(mark + 1..end, mark + 1 + tail.len());
    if let Some([head, count @ ..]) = out.get_mut(mark..=mark + tail.len()) {
        *head = code;
        count.copy_from_slice(tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::Json;
    use proptest::prelude::*;

    fn back(encoded: &[u8]) -> String {
        let mut out = Vec::new();
        assert_eq!(Json { escape_unicode: false }.write_value(&mut out, encoded, 0), encoded.len());
        String::from_utf8(out).unwrap()
    }

    fn round(text: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(value_into(text.as_bytes(), &mut out), Ok(text.len()), "{text}");
        back(&out)
    }

    fn fields(text: &[u8]) -> Option<String> {
        let mut fields = Fields::default();
        object_into(text, &mut fields).ok()?;
        let mut map = Vec::new();
        msgpack::write_map(&mut map, fields.list.len());
        for i in 0..fields.list.len() {
            let (key, value) = fields.list[i].clone();
            map.extend_from_slice(&fields.bytes[key]);
            map.extend_from_slice(&fields.bytes[value]);
        }
        Some(back(&map))
    }

    #[test]
    fn values_come_back_as_they_went_in() {
        for text in [
            r#"{"a":[1,-1,1.5,true,false,null,"x",{"b":{}}],"c":[]}"#,
            r#"{"u64":18446744073709551615,"i64":-9223372036854775808}"#,
            r#"{"s":"quote \" slash \\ line \n tab \t"}"#,
            r#""0123456789012345678901234567890123456789 long enough for the vector search""#,
        ] {
            assert_eq!(round(text), text);
        }
        assert_eq!(round(r#""\u00e9\ud83d\ude00\/""#), "\"é😀/\"");
        assert_eq!(round(r#""\ud83d x \ude00""#), "\"\u{fffd} x \u{fffd}\"");
    }

    #[test]
    fn numbers_past_64_bits_are_floats_and_past_floats_invalid() {
        let mut out = Vec::new();
        value_into(b"18446744073709551616", &mut out).unwrap();
        assert_eq!(msgpack::value(&out), Some(msgpack::Value::Float(18_446_744_073_709_551_616.0)));
        for bad in ["1e400", "01", "+1", ".5", "1.x", "-x", "NaN", "tru x"] {
            assert_eq!(value_into(bad.as_bytes(), &mut Vec::new()), Err(Error::Invalid), "{bad}");
        }
    }

    #[test]
    fn wide_maps_and_arrays_get_wide_headers() {
        for n in [15, 16, 17, 300, 70_000] {
            let array = format!("[{}]", vec!["[0]"; n].join(","));
            assert_eq!(round(&array), array);
            let map = (0..n).map(|i| format!("\"k{i}\":{i}")).collect::<Vec<_>>().join(",");
            let map = format!("{{\"m\":{{{map}}}}}");
            assert_eq!(round(&map), map);
        }
    }

    #[test]
    fn escaped_strings_of_any_length_get_the_right_header() {
        for n in [0, 30, 31, 32, 254, 255, 256, 65_534, 65_535, 65_536] {
            let mut out = Vec::new();
            value_into(format!("\"\\n{}\"", "x".repeat(n)).as_bytes(), &mut out).unwrap();
            let mut want = Vec::new();
            msgpack::write_str(&mut want, format!("\n{}", "x".repeat(n)).as_bytes());
            assert_eq!(out, want, "{n}");
        }
    }

    #[test]
    fn what_follows_an_object_is_ignored_unless_it_is_a_value() {
        for good in [&b"{\"a\":1}"[..], b" \n{\"a\":1} \r\n", b"{\"a\":1},", b"{\"a\":1} x", b"{\"a\":1} }"] {
            assert_eq!(fields(good).as_deref(), Some("{\"a\":1}"), "{}", String::from_utf8_lossy(good));
        }
        for bad in
            ["", "5", "[1]", "{\"a\":1}{\"b\":2}", "{\"a\":1} 5", "{\"a\":1,}", "{'a':1}", "{\"a\"", "{"]
        {
            assert_eq!(fields(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn raw_control_characters_and_invalid_utf_8_pass() {
        assert_eq!(fields(b"{\"a\":\"x\ty\nz\"}").as_deref(), Some("{\"a\":\"x\\ty\\nz\"}"));
        let mut out = Vec::new();
        value_into(b"\"\xff\\n\"", &mut out).unwrap();
        assert_eq!(out, [0xa2, 0xff, b'\n']);
    }

    #[test]
    fn a_failed_object_leaves_the_fields_as_they_were() {
        let mut fields = Fields::default();
        fields.push_str(b"k", b"v");
        assert!(object_into(b"{\"a\":1,\"b\":", &mut fields).is_err());
        assert_eq!((fields.list.len(), fields.bytes.len()), (1, 4));
    }

    #[test]
    fn nesting_has_a_bound() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(value_into(deep(32).as_bytes(), &mut Vec::new()), Ok(65));
        assert_eq!(value_into(deep(33).as_bytes(), &mut Vec::new()), Err(Error::Invalid));
        assert_eq!(value_into("[".repeat(1 << 20).as_bytes(), &mut Vec::new()), Err(Error::Invalid));
        assert!(fields(format!("{{\"a\":{}}}", deep(31)).as_bytes()).is_some());
        assert!(fields(format!("{{\"a\":{}}}", deep(32)).as_bytes()).is_none());
    }

    #[test]
    fn every_cut_of_a_value_is_incomplete() {
        let whole = r#" {"a":[1.5e+3,true,null,"x\n\ud83d\ude00\"y"],"b":false}"#;
        for n in 0..whole.len() {
            let got = value_into(&whole.as_bytes()[..n], &mut Vec::new());
            assert_eq!(got, Err(Error::Incomplete), "{n} bytes");
        }
        let two = format!("{whole}{whole}");
        assert_eq!(value_into(two.as_bytes(), &mut Vec::new()), Ok(whole.len()));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic_and_what_is_read_is_whole(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut out = Vec::new();
            if value_into(&bytes, &mut out).is_ok() {
                prop_assert_eq!(msgpack::skip(&out, 0), Ok(out.len()));
            } else {
                prop_assert!(out.is_empty());
            }
        }

        #[test]
        fn a_string_is_read_as_serde_reads_it_wherever_its_escapes_are(
            parts in proptest::collection::vec(
                prop_oneof![
                    8 => r#"[a-z ]{0,12}"#,
                    8 => Just(r#"\""#.to_owned()),
                    3 => Just(r"\\".to_owned()),
                    2 => r#"\\[/nrtbf]"#,
                    1 => r"\\u00[2-7][0-9a-f]",
                    1 => Just(r"\ud83d\ude00".to_owned()),
                    1 => Just("é😀".to_owned()),
                    1 => r"[a-z]{20,80}",
                ],
                0..60,
            ),
            after in r#"[a-z"\\]{0,80}"#,
        ) {
            let quoted = format!("\"{}\"", parts.concat());
            let text = format!("{quoted}{after}");
            let mut out = Vec::new();
            prop_assert_eq!(value_into(text.as_bytes(), &mut out), Ok(quoted.len()));
            let mut want = Vec::new();
            msgpack::write_str(&mut want, serde_json::from_str::<String>(&quoted).unwrap().as_bytes());
            prop_assert_eq!(out, want);
            for end in 1..quoted.len() {
                prop_assert_eq!(value_into(&quoted.as_bytes()[..end], &mut Vec::new()), Err(Error::Incomplete));
            }
        }

        #[test]
        fn json_like_text_never_panics(text in r#"[\[\]{}",:\\u0-9a-f eE.+-]{0,60}"#) {
            let mut out = Vec::new();
            if value_into(text.as_bytes(), &mut out).is_ok() {
                prop_assert_eq!(msgpack::skip(&out, 0), Ok(out.len()));
                // serde_json refuses lone surrogates and control characters; what it takes, we take alike.
            } else if let Ok(v) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert!(false, "refused {v}");
            }
        }
    }
}
