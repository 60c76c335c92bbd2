//! The line formats of container runtimes, for the built-in parsers.
//!
//! Enters: a line. Leaves: its fields and time, or nothing when it is no such line.

use super::spec::LineParser;
use crate::record::{Fields, Time};

/// `TIME stdout|stderr P|F TEXT`, as containerd and CRI-O write it; `P` pieces go on in the next line.
#[derive(Debug)]
pub(super) struct Cri;

impl LineParser for Cri {
    fn parse(&self, line: &[u8], fields: &mut Fields, _: Time) -> Option<Option<Time>> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (time, stream, piece) = (parts.next()?, parts.next()?, parts.next()?);
        let text = parts.next()?.split(|b| *b == b'\n').next()?;
        if time.is_empty() || !matches!(stream, b"stdout" | b"stderr") || !matches!(piece, b"P" | b"F") {
            return None;
        }
        for (key, value) in [(&b"time"[..], time), (b"stream", stream), (b"_p", piece), (b"log", text)] {
            fields.push_str(key, value);
        }
        Some(rfc3339(time))
    }
}

/// A point in time with its zone, to the nanosecond.
fn rfc3339(text: &[u8]) -> Option<Time> {
    let at: jiff::Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(Time { sec: at.as_second(), nsec: u32::try_from(at.subsec_nanosecond()).ok()? })
}
