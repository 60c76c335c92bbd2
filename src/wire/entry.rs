//! One log entry as it lies in a chunk: `92 time record`, or `92 [92 time metadata] record`.
//!
//! Enters: bytes. Leaves: the bounds of the parts and the time. Time forms accepted: EventTime (ext type 0, 8 bytes,
//! big-endian seconds and nanoseconds; fixext8 and ext8), unsigned and non-negative signed integers (seconds), floats
//! (seconds), nil and 0 (now). Forward protocol v1 and v1.5:
//! <https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1.5>.

use std::ops::Range;

use super::msgpack::{self, Broken, Skip, Value};
use crate::record::Time;

/// A record may nest this many maps and arrays, the record itself counted; Fluent Bit's reader has the same bound.
pub const MAX_DEPTH: usize = 32;

/// A time as it stands in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeForm {
    /// A point in time.
    At(Time),
    /// nil or 0: the receiver's clock.
    Now,
}

/// The parts of one entry, offsets into the buffer it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When.
    pub time: TimeForm,
    /// The metadata map, when there is one.
    pub metadata: Option<Range<usize>>,
    /// The record: a map.
    pub record: Range<usize>,
    /// Where the entry ends.
    pub end: usize,
}

/// What is wrong with an entry whose end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEntry {
    /// Not an array of a time and a record.
    Shape,
    /// The time is of no known form.
    Time,
    /// What stands beside the time is not a map.
    Metadata,
    /// The record is not a map.
    NotAMap,
    /// Deeper than [`MAX_DEPTH`].
    TooDeep,
}

impl BadEntry {
    /// For log lines.
    pub fn reason(self) -> &'static str {
        match self {
            BadEntry::Shape => "entry is not [time, record]",
            BadEntry::Time => "time is neither an EventTime nor a number of seconds",
            BadEntry::Metadata => "metadata is not a map",
            BadEntry::NotAMap => "record is not a map",
            BadEntry::TooDeep => "record is nested deeper than 32 levels",
        }
    }
}

/// Reads the time at `pos` (not the `[time, metadata]` form).
#[inline]
pub fn time(buf: &[u8], pos: usize) -> Option<(TimeForm, usize)> {
    // The form that dockerd and forwarders send, first.
    if let Some(b) = buf.get(pos..pos + 10)
        && b[0] == 0xd7
        && b[1] == 0
    {
        let sec = u32::from_be_bytes([b[2], b[3], b[4], b[5]]);
        let nsec = u32::from_be_bytes([b[6], b[7], b[8], b[9]]);
        let at =
            if sec == 0 && nsec == 0 { TimeForm::Now } else { TimeForm::At(Time::new(i64::from(sec), nsec)) };
        return Some((at, pos + 10));
    }
    let (value, end) = msgpack::read(buf, pos)?;
    let form = match value {
        Value::Nil | Value::UInt(0) => TimeForm::Now,
        Value::UInt(sec) => TimeForm::At(Time::new(i64::try_from(sec).ok()?, 0)),
        Value::Float(seconds) => TimeForm::At(Time::from_f64(seconds)?),
        Value::Ext(0, p) if p.len() == 8 => {
            let sec = u32::from_be_bytes([p[0], p[1], p[2], p[3]]);
            let nsec = u32::from_be_bytes([p[4], p[5], p[6], p[7]]);
            if sec == 0 && nsec == 0 { TimeForm::Now } else { TimeForm::At(Time::new(i64::from(sec), nsec)) }
        }
        _ => return None,
    };
    Some((form, end))
}

/// Reads the entry at `pos`. The outer error means that the end is unknown, the inner one that the entry is bad but
/// ends where it says.
///
/// # Errors
/// [`Broken`] as [`msgpack::skip`] gives it.
#[inline]
pub fn read(buf: &[u8], pos: usize) -> Result<Result<Entry, (BadEntry, usize)>, Broken> {
    if buf.get(pos) == Some(&0x92)
        && let Some((time, at)) = time(buf, pos + 1)
    {
        return record(buf, at, time, None);
    }
    read_slowly(buf, pos)
}

#[inline]
fn record(
    buf: &[u8],
    at: usize,
    time: TimeForm,
    metadata: Option<Range<usize>>,
) -> Result<Result<Entry, (BadEntry, usize)>, Broken> {
    let mut walk = Skip::at(at);
    let end = walk.run(buf, buf.len()).map_err(|e| if e == Broken::TooLarge { Broken::Short } else { e })?;
    if !matches!(buf.get(at), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Ok(Err((BadEntry::NotAMap, end)));
    }
    if walk.containers() > MAX_DEPTH as u32 && msgpack::deeper_than(buf, at, MAX_DEPTH) {
        return Ok(Err((BadEntry::TooDeep, end)));
    }
    Ok(Ok(Entry { time, metadata, record: at..end, end }))
}

/// The forms that are rare: `[[time, metadata], record]`, wide array headers, and everything that is wrong.
#[cold]
fn read_slowly(buf: &[u8], pos: usize) -> Result<Result<Entry, (BadEntry, usize)>, Broken> {
    let end = msgpack::skip(buf, pos)?;
    let Some((Value::Array { count: 2, at }, _)) = msgpack::read(buf, pos) else {
        return Ok(Err((BadEntry::Shape, end)));
    };
    if let Some((Value::Array { count: 2, at: inner }, _)) = msgpack::read(buf, at) {
        let Some((time, meta)) = time(buf, inner) else { return Ok(Err((BadEntry::Time, end))) };
        let meta_end = msgpack::skip(buf, meta)?;
        if !matches!(buf.get(meta), Some(0x80..=0x8f | 0xde | 0xdf)) {
            return Ok(Err((BadEntry::Metadata, end)));
        }
        return record(buf, meta_end, time, Some(meta..meta_end));
    }
    match time(buf, at) {
        Some((time, at)) => record(buf, at, time, None),
        None => Ok(Err((BadEntry::Time, end))),
    }
}

/// Appends `92 time`, ready for the record; with metadata (an encoded map) the nested form.
#[inline]
pub fn write_head(out: &mut Vec<u8>, time: Time, metadata: Option<&[u8]>) {
    out.push(0x92);
    if let Some(metadata) = metadata {
        out.push(0x92);
        write_time(out, time);
        out.extend_from_slice(metadata);
    } else {
        write_time(out, time);
    }
}

/// Appends a time: EventTime, or an integer where its 32 bits of seconds do not reach (before 1970, after 2106).
#[inline]
pub fn write_time(out: &mut Vec<u8>, time: Time) {
    match u32::try_from(time.sec) {
        Ok(sec) => {
            let (s, n) = (sec.to_be_bytes(), time.nsec.to_be_bytes());
            out.extend_from_slice(&[0xd7, 0, s[0], s[1], s[2], s[3], n[0], n[1], n[2], n[3]]);
        }
        Err(_) => msgpack::write_uint(out, time.sec.max(1) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_form_is_read() {
        let mut ext8 = vec![0xc7, 8, 0];
        ext8.extend_from_slice(&[0, 0, 0, 5, 0, 0, 0, 7]);
        assert_eq!(time(&ext8, 0), Some((TimeForm::At(Time::new(5, 7)), 11)));
        assert_eq!(
            time(&[0xd7, 0, 0, 0, 0, 5, 0x3b, 0x9a, 0xca, 0x01], 0),
            Some((TimeForm::At(Time::new(6, 1)), 10))
        );
        assert_eq!(time(&[0xd2, 0, 0, 0, 9], 0), Some((TimeForm::At(Time::new(9, 0)), 5)));
        assert_eq!(time(&[0xc0], 0), Some((TimeForm::Now, 1)));
        assert_eq!(time(&[0xff], 0), None);
    }

    #[test]
    fn metadata_rides_beside_the_time() {
        let b = [0x92, 0x92, 0x05, 0x81, 0xa1, b'm', 0x01, 0x80];
        let e = read(&b, 0).unwrap().unwrap();
        assert_eq!((e.metadata, e.record, e.end), (Some(3..7), 7..8, 8));
    }

    #[test]
    fn a_bad_entry_says_where_it_ends() {
        assert_eq!(read(&[0x92, 0x05, 0xa1, b'x', 0x00], 0), Ok(Err((BadEntry::NotAMap, 4))));
        assert_eq!(read(&[0x92, 0xa1, b'x', 0x80], 0), Ok(Err((BadEntry::Time, 4))));
        assert_eq!(read(&[0x92, 0x92, 0x05, 0xa1, b'm', 0x80], 0), Ok(Err((BadEntry::Metadata, 6))));
        assert_eq!(read(&[0x05], 0), Ok(Err((BadEntry::Shape, 1))));
        assert_eq!(read(&[0x92, 0x05], 0), Err(Broken::Short));
    }
}
