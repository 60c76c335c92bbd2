//! Values as Fluent Bit prints them for people: `{"key"=>"text", "n"=>1.500000}`.
//!
//! Enters: one encoded value. Leaves: text. Strings are printed as they are, binaries with escapes.

use std::io::Write;

use super::msgpack::{self, Value};

/// Values nested deeper are left out.
const MAX_DEPTH: usize = 64;

/// Appends the value that `bytes` begins with.
pub fn print_value(out: &mut Vec<u8>, bytes: &[u8]) {
    print(out, bytes, 0, 0);
}

fn print(out: &mut Vec<u8>, buf: &[u8], pos: usize, depth: usize) -> usize {
    let Some((value, end)) = msgpack::read(buf, pos) else { return buf.len() };
    // Writing to a Vec cannot fail.
    let _ = match value {
        Value::Nil => write!(out, "nil"),
        Value::Bool(v) => write!(out, "{v}"),
        Value::Int(v) => write!(out, "{v}"),
        Value::UInt(v) => write!(out, "{v}"),
        Value::Float(v) if v.is_nan() => write!(out, "nan"),
        Value::Float(v) => write!(out, "{v:.6}"),
        Value::Str(s) => {
            out.push(b'"');
            out.extend_from_slice(s);
            out.push(b'"');
            Ok(())
        }
        Value::Bin(s) => {
            binary(out, s);
            Ok(())
        }
        Value::Ext(kind, payload) => {
            let written = write!(out, "(ext: {kind})");
            binary(out, payload);
            written
        }
        Value::Array { .. } | Value::Map { .. } if depth >= MAX_DEPTH => {
            return msgpack::skip(buf, pos).unwrap_or(buf.len());
        }
        Value::Array { count, mut at } => {
            out.push(b'[');
            for i in 0..count {
                if at >= buf.len() {
                    break;
                }
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                at = print(out, buf, at, depth + 1);
            }
            out.push(b']');
            return at;
        }
        Value::Map { count, mut at } => {
            out.push(b'{');
            for i in 0..count {
                if at >= buf.len() {
                    break;
                }
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                at = print(out, buf, at, depth + 1);
                out.extend_from_slice(b"=>");
                at = print(out, buf, at, depth + 1);
            }
            out.push(b'}');
            return at;
        }
    };
    end
}

fn binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for b in bytes {
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            0x20..=0x7e => out.push(*b),
            _ => {
                let _ = write!(out, "\\x{b:02x}");
            }
        }
    }
    out.push(b'"');
}
