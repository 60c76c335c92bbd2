//! Numbers at the beginning of a text, read as C's `strtoll`, `strtoull` and `strtod` read them.
//!
//! Enters: any bytes. Leaves: the number, or `None` when there is no digit. Blanks before it are passed over, what follows
//! it is ignored, a number too large becomes the largest. Fluent Bit's types and type converter count on this.

/// Sign (true: negative) and the rest, blanks passed over.
fn sign(text: &[u8]) -> (bool, &[u8]) {
    let text = text.trim_ascii_start();
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// The digits of this base at the beginning.
fn digits(text: &[u8], radix: u32) -> Option<u64> {
    let mut value = None;
    for byte in text {
        let Some(digit) = char::from(*byte).to_digit(radix) else { break };
        let so_far = value.unwrap_or(0_u64);
        value = Some(so_far.saturating_mul(u64::from(radix)).saturating_add(u64::from(digit)));
    }
    value
}

/// A whole number.
pub fn int(text: &[u8]) -> Option<i64> {
    let (negative, rest) = sign(text);
    let value = digits(rest, 10)?;
    Some(if negative {
        0_i64.saturating_sub_unsigned(value)
    } else {
        i64::try_from(value).unwrap_or(i64::MAX)
    })
}

/// A whole number without a sign; one with a minus wraps, as in C.
pub fn uint(text: &[u8]) -> Option<u64> {
    let (negative, rest) = sign(text);
    let value = digits(rest, 10)?;
    Some(if negative && value != u64::MAX { value.wrapping_neg() } else { value })
}

/// A hexadecimal number, with `0x` or without; one with a minus wraps, as in C.
pub fn hex(text: &[u8]) -> Option<u64> {
    let (negative, rest) = sign(text);
    let prefixed = match rest {
        [b'0', b'x' | b'X', after @ ..] => digits(after, 16),
        _ => None,
    };
    let value = prefixed.or_else(|| digits(rest, 16))?;
    Some(if negative && value != u64::MAX { value.wrapping_neg() } else { value })
}

/// A number with decimals or an exponent; one too large is infinite.
pub fn float(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii_start();
    let run = |from: usize| {
        text.get(from..)
            .unwrap_or_default()
            .iter()
            .position(|b| !b.is_ascii_digit())
            .unwrap_or(text.len() - from)
    };
    let start = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let whole = run(start);
    let mut end = start + whole;
    let mut fraction = 0;
    if text.get(end) == Some(&b'.') {
        fraction = run(end + 1);
        end += 1 + fraction;
    }
    if whole + fraction == 0 {
        return None;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let digits = end + 1 + usize::from(matches!(text.get(end + 1), Some(b'-' | b'+')));
        if text.get(digits).is_some_and(u8::is_ascii_digit) {
            end = digits + run(digits);
        }
    }
    std::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_in_c() {
        assert_eq!(
            [int(b" +7"), int(b"12abc"), int(b"5.9"), int(b"abc"), int(b"")],
            [Some(7), Some(12), Some(5), None, None]
        );
        assert_eq!(int(b"99999999999999999999"), Some(i64::MAX));
        assert_eq!(int(b"-99999999999999999999"), Some(i64::MIN));
        assert_eq!([uint(b"-5"), uint(b"99999999999999999999")], [Some(u64::MAX - 4), Some(u64::MAX)]);
        assert_eq!([hex(b"ff"), hex(b"0X1f"), hex(b"0xz"), hex(b"zz")], [Some(255), Some(31), Some(0), None]);
        assert_eq!([hex(b"-f"), hex(b"ffffffffffffffffff")], [Some(u64::MAX - 14), Some(u64::MAX)]);
        assert_eq!(
            [float(b" .5e1x"), float(b"1e"), float(b"-2."), float(b"+1")],
            [Some(5.0), Some(1.0), Some(-2.0), Some(1.0)]
        );
        assert_eq!(
            [float(b"."), float(b"abc"), float(b"-"), float(b"1e400")],
            [None, None, None, Some(f64::INFINITY)]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(text in proptest::collection::vec(any::<u8>(), 0..30), number in "[ +-]?[0-9.eExX+-]{0,25}") {
            for text in [&text[..], number.as_bytes()] {
                let _ = (int(text), uint(text), hex(text), float(text));
            }
        }
    }
}
