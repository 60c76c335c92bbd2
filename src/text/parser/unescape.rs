//! Escapes of the decoders `escaped`, `escaped_utf8` and `mysql_quoted`, and of quoted logfmt values.
//!
//! Enters: text with backslashes. Leaves: text without, appended. Can go wrong: nothing; an unknown escape loses its
//! backslash (of `mysql_quoted` it keeps it), a backslash at the very end stays.

/// Copies up to the next backslash; calls `escape` with what follows it, which says how much of that it has used.
fn each(mut text: &[u8], out: &mut Vec<u8>, mut escape: impl FnMut(&[u8], &mut Vec<u8>) -> usize) {
    while let Some(at) = memchr::memchr(b'\\', text) {
        let (before, after) = text.split_at(at);
        out.extend_from_slice(before);
        let after = after.get(1..).unwrap_or_default();
        if after.is_empty() {
            out.push(b'\\');
            return;
        }
        let used = escape(after, out).max(1);
        text = after.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(text);
}

/// The byte of an escape of one letter.
fn letter(letter: u8) -> Option<u8> {
    Some(match letter {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        b'b' => 0x08,
        b'f' => 0x0c,
        b'v' => 0x0b,
        b'a' => 0x07,
        _ => return None,
    })
}

/// Letters only: `\n`, `\t`, `\"`.
pub(super) fn plain(text: &[u8], out: &mut Vec<u8>) {
    each(text, out, |after, out| {
        out.extend(after.first().map(|b| letter(*b).unwrap_or(*b)));
        1
    });
}

/// Also numbers: `\u00e9`, `\ud83d\ude00`, `\xe9`, `\351`: characters, in UTF-8.
pub(super) fn utf8(text: &[u8], out: &mut Vec<u8>) {
    each(text, out, |after, out| {
        let Some((code, used)) = code(after) else {
            out.extend(after.first().map(|b| letter(*b).unwrap_or(*b)));
            return 1;
        };
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        used
    });
}

/// What MySQL's quoting knows; only of text that is quoted.
pub(super) fn mysql(text: &[u8], out: &mut Vec<u8>) -> bool {
    let ([b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\'']) = text else { return false };
    each(inner, out, |after, out| {
        match after.first() {
            Some(b'0') => out.push(0),
            Some(b'Z') => out.push(0x1a),
            Some(b @ (b'\\' | b'\'' | b'"')) => out.push(*b),
            Some(b @ (b'n' | b't' | b'r' | b'b')) => out.extend(letter(*b)),
            Some(b) => out.extend_from_slice(&[b'\\', *b]),
            None => {}
        }
        1
    });
    true
}

/// A character given as a number, and how long that is.
fn code(text: &[u8]) -> Option<(u32, usize)> {
    match text {
        [b'u', rest @ ..] => {
            let (first, digits) = number(rest, 16, 4)?;
            if (0xd800..0xdc00).contains(&first)
                && let Some([b'\\', b'u', second @ ..]) = rest.get(digits..)
                && let Some((second @ 0xdc00..0xe000, 4)) = number(second, 16, 4)
            {
                return Some((0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00), 11));
            }
            Some((first, digits + 1))
        }
        [b'U', rest @ ..] => number(rest, 16, 8).map(|(code, digits)| (code, digits + 1)),
        [b'x', rest @ ..] => number(rest, 16, 2).map(|(code, digits)| (code, digits + 1)),
        [b'0'..=b'7', ..] => number(text, 8, 3),
        _ => None,
    }
}

fn number(text: &[u8], radix: u32, max: usize) -> Option<(u32, usize)> {
    let digits = text.iter().take(max).map_while(|b| char::from(*b).to_digit(radix));
    let (code, n) = digits.fold((0_u32, 0), |(code, n), digit| (code * radix + digit, n + 1));
    (n > 0).then_some((code, n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_decoder_knows_its_escapes() {
        let text = br#"a\nb\t\"q\" \u00e9 \\ \/ \x41 \101 \r\a\q"#;
        let run = |f: fn(&[u8], &mut Vec<u8>), text: &[u8]| {
            let mut out = Vec::new();
            f(text, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(run(plain, text), "a\nb\t\"q\" u00e9 \\ / x41 101 \r\u{7}q");
        assert_eq!(run(utf8, text), "a\nb\t\"q\" é \\ / A A \r\u{7}q");
        assert_eq!(run(utf8, br"\xe9\ud83d\ude00 \ud83d \u"), "é😀 \u{fffd} u");
        assert_eq!(run(plain, br"x\"), r"x\");
        let mysql = |text: &[u8]| {
            let mut out = Vec::new();
            mysql(text, &mut out).then(|| String::from_utf8(out).unwrap())
        };
        assert_eq!(mysql(br"'a\nb''c\'d'").as_deref(), Some("a\nb''c'd"));
        assert_eq!(mysql(br"'\0\Z\%\_\q'").as_deref(), Some("\0\u{1a}\\%\\_\\q"));
        assert_eq!((mysql(br"plain\n"), mysql(b"'open"), mysql(b"'")), (None, None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..60), like in r#"[\\uUxd8c0-3n"']{0,30}"#) {
            for text in [&text[..], like.as_bytes()] {
                plain(text, &mut Vec::new());
                utf8(text, &mut Vec::new());
                mysql(text, &mut Vec::new());
            }
        }
    }
}
