//! Values printed for people, as Fluent Bit's standard output prints them: `{"log"=>"text", "n"=>1.500000, "x"=>nil}`.
//!
//! Enters: encoded values (validated or not). Leaves: one line of text, unless a string holds line ends: strings stand as
//! they are, without escapes. Binaries and extensions show quotes as `\"` and bytes outside of printable ASCII as `\xNN`.
//! Can go wrong: nothing; what cannot be read is left out.

use std::io::Write;

use super::msgpack::{self, Value};

/// Values nested deeper are left out. Records are refused long before (`entry::MAX_DEPTH`).
const MAX_DEPTH: usize = 64;

/// Appends the value that `bytes` begin with.
pub fn print_value(out: &mut Vec<u8>, bytes: &[u8]) {
    print(out, bytes, 0, 0);
}

/// Appends the value at `pos` and says where it ends.
fn print(out: &mut Vec<u8>, buf: &[u8], pos: usize, depth: usize) -> Option<usize> {
    if depth > MAX_DEPTH {
        return None;
    }
    let (value, after) = msgpack::read(buf, pos)?;
    match value {
        Value::Nil => out.extend_from_slice(b"nil"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(v) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
        Value::UInt(v) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
        Value::Float(v) => print_float(out, v),
        Value::Str(text) => {
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        Value::Bin(bytes) => print_bytes(out, bytes),
        Value::Ext(kind, payload) => {
            out.extend_from_slice(b"(ext: ");
            out.extend_from_slice(itoa::Buffer::new().format(kind).as_bytes());
            out.push(b')');
            print_bytes(out, payload);
        }
        Value::Array { count, at } => {
            out.push(b'[');
            let mut pos = at;
            for i in 0..count {
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                pos = print(out, buf, pos, depth + 1)?;
            }
            out.push(b']');
            return Some(pos);
        }
        Value::Map { count, at } => {
            out.push(b'{');
            let mut pos = at;
            for i in 0..count {
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                pos = print(out, buf, pos, depth + 1)?;
                out.extend_from_slice(b"=>");
                pos = print(out, buf, pos, depth + 1)?;
            }
            out.push(b'}');
            return Some(pos);
        }
    }
    Some(after)
}

/// Appends a float with six decimals, as C's `%f` writes it; from 10^32 on with an exponent, so that nine bytes cannot
/// become three hundred.
pub fn print_float(out: &mut Vec<u8>, v: f64) {
    // Writing to memory does not fail.
    let _ = match v {
        _ if v.is_nan() => out.write_all(if v.is_sign_negative() { b"-nan" } else { b"nan" }),
        _ if v.is_finite() && v.abs() >= 1e32 => write!(out, "{v:e}"),
        _ => write!(out, "{v:.6}"),
    };
}

fn print_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for b in bytes {
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b' '..=b'~' => out.push(*b),
            _ => {
                let _ = write!(out, "\\x{b:02x}");
            }
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        print_value(&mut out, bytes);
        String::from_utf8_lossy(&out).into_owned()
    }

    fn number(v: f64) -> String {
        let mut b = Vec::new();
        msgpack::write_float(&mut b, v);
        printed(&b)
    }

    #[test]
    fn values_look_as_fluent_bit_prints_them() {
        // {1: "x", nil: [2, {}], "é\"\\\n": true, "b": bin 00 ff 41 22 7f, "f": ext -3, "e": ext 5 (one byte)}
        let mut b = vec![0x86, 0x01, 0xa1, b'x', 0xc0, 0x92, 0x02, 0x80];
        msgpack::write_str(&mut b, "é\"\\\n".as_bytes());
        b.push(0xc3);
        b.extend_from_slice(&[0xa1, b'b', 0xc4, 5, 0x00, 0xff, 0x41, 0x22, 0x7f]);
        b.extend_from_slice(&[0xa1, b'f', 0xd6, 0xfd, 0x0a, 0x41, 0x42, 0x43]);
        b.extend_from_slice(&[0xa1, b'e', 0xc7, 1, 5, b'a']);
        assert_eq!(
            printed(&b),
            concat!(
                r#"{1=>"x", nil=>[2, {}], "é"\"#,
                "\n",
                r#""=>true, "b"=>"\x00\xffA\"\x7f", "f"=>(ext: -3)"\x0aABC", "e"=>(ext: 5)"a"}"#
            )
        );
    }

    #[test]
    fn floats_have_six_decimals_whatever_their_size() {
        for (v, want) in [
            (1.5, "1.500000"),
            (0.1, "0.100000"),
            (-0.0, "-0.000000"),
            (1e-7, "0.000000"),
            (1e15, "1000000000000000.000000"),
            (f64::NAN, "nan"),
            (-f64::NAN, "-nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(number(v), want);
        }
        assert_eq!(printed(&[0xca, 0x3f, 0xc0, 0, 0]), "1.500000");
        assert_eq!(number(1e300), "1e300");
    }

    #[test]
    fn integers_keep_their_sign_and_width() {
        assert_eq!(printed(&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), "18446744073709551615");
        assert_eq!(printed(&[0xfb]), "-5");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            printed(&bytes);
        }
    }

    #[test]
    fn deep_nesting_ends() {
        assert!(printed(&[0x91; 10_000]).len() < 200);
    }
}
