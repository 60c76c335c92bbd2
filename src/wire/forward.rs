//! The Fluent forward protocol's frames, as a server reads them.
//!
//! Enters: the bytes of a connection. Leaves: the bounds of a frame's parts; nothing is copied. A connection is a bare
//! concatenation of msgpack values; a frame is an array whose second element decides the mode: an array (Forward), a str
//! or bin (PackedForward, compressed or not), a time (Message). Can go wrong: a frame whose end cannot be known or is
//! past the limit ([`Fatal`]: the connection must be closed), and a frame that ends but is not one ([`Next::Bad`]).
//! <https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1.5>

use std::ops::Range;

use super::entry::{self, BadEntry, TimeForm};
use super::msgpack::{self, Broken, Skip, Value};

/// What is next on a connection. Offsets count from the frame's first byte.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The frame is not whole; `need` bytes must be there before another look makes sense.
    Incomplete {
        /// Bytes from the frame's first byte.
        need: usize,
    },
    /// A nil: a TCP heartbeat. Never answered.
    Heartbeat {
        /// Where it ends.
        end: usize,
    },
    /// A frame.
    Frame(Frame),
    /// An array that is no frame, or a frame with an entry that is no record; its end is known.
    Bad {
        /// Where it ends.
        end: usize,
        /// For the log.
        reason: &'static str,
        /// The encoded chunk id: the sender waits for an ack and would send it for ever without one.
        chunk: Option<Range<usize>>,
    },
}

/// Why the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// The first byte begins no array and no nil: another protocol.
    NotForward(u8),
    /// The reserved byte `c1`.
    Reserved,
    /// The frame is larger than `Buffer_Max_Size`, or declares to be.
    TooLarge,
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fatal::NotForward(b @ (b'{' | b'[')) => {
                write!(
                    f,
                    "not the forward protocol: first byte 0x{b:02x} looks like JSON; send msgpack, or use a tcp input"
                )
            }
            Fatal::NotForward(b) => {
                write!(f, "not the forward protocol: first byte is 0x{b:02x}, not a msgpack array")
            }
            Fatal::Reserved => f.write_str("byte 0xc1, which msgpack never uses"),
            Fatal::TooLarge => f.write_str("frame is larger than Buffer_Max_Size"),
        }
    }
}

/// How a packed payload is compressed, as its option says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressed {
    /// No option, or `text`.
    No,
    /// `gzip`
    Gzip,
    /// `zstd`
    Zstd,
    /// Anything else.
    Unknown,
}

/// One frame.
#[derive(Debug, PartialEq)]
pub struct Frame {
    /// The tag's text.
    pub tag: Range<usize>,
    /// The records.
    pub body: Body,
    /// The chunk id with its msgpack header, to be echoed byte for byte.
    pub chunk: Option<Range<usize>>,
    /// For packed bodies.
    pub compressed: Compressed,
    /// `metadata` option (an encoded map): Message mode's metadata.
    pub metadata: Option<Range<usize>>,
    /// `fluent_signal`: 0 logs, 1 metrics, 2 traces.
    pub signal: u64,
    /// What is wrong with the options, for the log. Only what was meant by them is missing: the records are good.
    pub odd: Option<&'static str>,
    /// Where the frame ends.
    pub end: usize,
}

/// The records of a frame.
#[derive(Debug, PartialEq)]
pub enum Body {
    /// One record.
    Message {
        /// Its time.
        time: TimeForm,
        /// Time and record, back to back.
        time_and_record: Range<usize>,
        /// The record alone.
        record: Range<usize>,
    },
    /// Entries back to back.
    Forward(Range<usize>),
    /// The payload of a str or bin.
    Packed(Range<usize>),
}

/// Finds frames; keeps its place in one that arrives in pieces.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    walk: Option<Skip>,
}

impl Decoder {
    /// `limit`: the largest frame in bytes (`Buffer_Max_Size`).
    pub fn new(limit: usize) -> Self {
        Decoder { limit, walk: None }
    }

    /// Looks at the frame that begins at `buf[0]`. Call again with the same bytes and more after `Incomplete`.
    ///
    /// # Errors
    /// [`Fatal`]: the end of the frame cannot be known.
    #[inline]
    pub fn next(&mut self, buf: &[u8]) -> Result<Next, Fatal> {
        if self.walk.is_none()
            && let Some(frame) = message(buf)
            && frame.end <= self.limit
        {
            return Ok(Next::Frame(frame));
        }
        self.next_slowly(buf)
    }

    fn next_slowly(&mut self, buf: &[u8]) -> Result<Next, Fatal> {
        match buf.first() {
            None => return Ok(Next::Incomplete { need: 1 }),
            Some(0xc0) => return Ok(Next::Heartbeat { end: 1 }),
            Some(0x90..=0x9f | 0xdc | 0xdd) => {}
            Some(other) => return Err(Fatal::NotForward(*other)),
        }
        let walk = self.walk.get_or_insert_with(|| Skip::at(0));
        match walk.run(buf, self.limit) {
            Ok(end) => {
                self.walk = None;
                Ok(parts(buf.get(..end).unwrap_or_default()))
            }
            Err(Broken::Short) => Ok(Next::Incomplete { need: walk.need() }),
            Err(Broken::Reserved) => Err(Fatal::Reserved),
            Err(Broken::TooLarge) => Err(Fatal::TooLarge),
        }
    }
}

fn text_range(buf: &[u8], pos: usize) -> Option<(Range<usize>, usize)> {
    let (value, end) = msgpack::read(buf, pos)?;
    let len = value.text()?.len();
    Some((end - len..end, end))
}

/// The fast path: a whole Message of the form that docker's driver sends. `None`: look closer.
#[inline]
fn message(buf: &[u8]) -> Option<Frame> {
    let elements = match buf.first()? {
        0x93 => 3,
        0x94 => 4,
        _ => return None,
    };
    let (tag, at) = text_range(buf, 1)?;
    // A str or bin here is a packed payload, an array a list of entries: neither is a time.
    let (time, record) = entry::time(buf, at)?;
    if !matches!(buf.get(record)?, 0x80..=0x8f | 0xde | 0xdf) {
        return None;
    }
    let mut walk = Skip::at(record);
    let end = walk.run(buf, buf.len()).ok()?;
    if walk.containers() > entry::MAX_DEPTH as u32 {
        return None;
    }
    let mut frame = Frame {
        tag,
        body: Body::Message { time, time_and_record: at..end, record: record..end },
        chunk: None,
        compressed: Compressed::No,
        metadata: None,
        signal: 0,
        odd: None,
        end,
    };
    if elements == 4 {
        if *buf.get(end)? == 0x80 {
            frame.end = end + 1;
        } else {
            frame.end = msgpack::skip(buf, end).ok()?;
            options(buf, end, &mut frame);
        }
    }
    Some(frame)
}

/// The tag of a frame that may be no frame otherwise; empty when there is none.
pub fn tag(buf: &[u8]) -> &[u8] {
    let range = match msgpack::read(buf, 0) {
        Some((Value::Array { count: 1.., at }, _)) => text_range(buf, at).map(|(range, _)| range),
        _ => None,
    };
    range.and_then(|range| buf.get(range)).unwrap_or_default()
}

/// The parts of a whole frame.
fn parts(buf: &[u8]) -> Next {
    let end = buf.len();
    let bad = |reason, chunk| Next::Bad { end, reason, chunk };
    let Some((Value::Array { count, at }, _)) = msgpack::read(buf, 0) else {
        return bad("not an array", None);
    };
    if count < 2 {
        return bad("fewer than two elements", None);
    }
    let Some((tag, second)) = text_range(buf, at) else { return bad("the tag is not a string", None) };
    let mut frame = Frame {
        tag,
        body: Body::Forward(0..0),
        chunk: None,
        compressed: Compressed::No,
        metadata: None,
        signal: 0,
        odd: None,
        end,
    };
    let Some((value, after)) = msgpack::read(buf, second) else { return bad("no second element", None) };
    let option_at = match value {
        Value::Array { at, .. } => {
            let Ok(entries_end) = msgpack::skip(buf, second) else { return bad("entries are cut off", None) };
            frame.body = Body::Forward(at..entries_end);
            (count > 2).then_some(entries_end)
        }
        Value::Str(payload) | Value::Bin(payload) => {
            frame.body = Body::Packed(after - payload.len()..after);
            (count > 2).then_some(after)
        }
        _ => {
            let time_end = msgpack::skip(buf, second).unwrap_or(end);
            let record_end = if count > 2 { msgpack::skip(buf, time_end).unwrap_or(end) } else { end };
            if let Some(at) = (count > 3).then_some(record_end) {
                options(buf, at, &mut frame);
            }
            let Some((time, record)) = entry::time(buf, second) else {
                return bad(BadEntry::Time.reason(), frame.chunk);
            };
            if count < 3 || !matches!(buf.get(record), Some(0x80..=0x8f | 0xde | 0xdf)) {
                return bad(BadEntry::NotAMap.reason(), frame.chunk);
            }
            if msgpack::deeper_than(buf, record, entry::MAX_DEPTH) {
                return bad(BadEntry::TooDeep.reason(), frame.chunk);
            }
            frame.body =
                Body::Message { time, time_and_record: second..record_end, record: record..record_end };
            None
        }
    };
    if let Some(at) = option_at {
        options(buf, at, &mut frame);
    }
    Next::Frame(frame)
}

/// Reads the option map at `pos`; nil counts as none, unknown keys are passed over.
fn options(buf: &[u8], pos: usize, frame: &mut Frame) {
    let (count, at) = match msgpack::read(buf, pos) {
        Some((Value::Map { count, at }, _)) => (count, at),
        Some((Value::Nil, _)) | None => return,
        Some(_) => {
            frame.odd = Some("the options are not a map: a chunk id in them is not seen");
            return;
        }
    };
    let mut pos = at;
    for _ in 0..count {
        let Ok(value_at) = msgpack::skip(buf, pos) else { return };
        let Ok(end) = msgpack::skip(buf, value_at) else { return };
        let key = buf.get(pos..value_at).map(msgpack::content).unwrap_or_default();
        let value = buf.get(value_at..end).and_then(msgpack::value);
        match (key, value) {
            (b"chunk", Some(Value::Str(_) | Value::Bin(_))) => frame.chunk = Some(value_at..end),
            (b"chunk" | b"metadata", Some(Value::Nil)) => {}
            (b"chunk", _) => frame.odd = Some("the chunk id is not a string: it is not acknowledged"),
            (b"compressed", Some(Value::Str(kind) | Value::Bin(kind))) => {
                frame.compressed = match kind {
                    b"text" | b"" => Compressed::No,
                    b"gzip" => Compressed::Gzip,
                    b"zstd" => Compressed::Zstd,
                    _ => Compressed::Unknown,
                }
            }
            (b"metadata", Some(Value::Map { .. })) => frame.metadata = Some(value_at..end),
            (b"metadata", _) => frame.odd = Some("the metadata is not a map"),
            (b"fluent_signal", Some(Value::UInt(signal))) => frame.signal = signal,
            _ => {}
        }
        pos = end;
    }
}

/// What a look at a run of entries found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Good entries.
    pub good: u64,
    /// Bad ones; a torn tail counts as one.
    pub bad: u64,
    /// Every entry is good and has a known time: the bytes can be passed on as they are.
    pub clean: bool,
    /// What was wrong first.
    pub reason: Option<&'static str>,
}

/// An entry that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// What is wrong.
    pub reason: &'static str,
    /// Where it lies in the run.
    pub bytes: Range<usize>,
}

/// Checks a run of entries in one pass.
pub fn check(run: &[u8]) -> Checked {
    let mut found = Checked { clean: true, ..Checked::default() };
    each(run, |entry| match entry {
        Ok(entry) => {
            found.good += 1;
            found.clean &= entry.time != TimeForm::Now;
        }
        Err(bad) => {
            found.bad += 1;
            found.clean = false;
            found.reason.get_or_insert(bad.reason);
        }
    });
    found
}

/// Walks over a run of entries: good ones, and reasons for bad ones. What follows a torn or undecodable byte cannot be
/// told apart any more and counts as one bad entry.
pub fn each(run: &[u8], mut see: impl FnMut(Result<entry::Entry, Bad>)) {
    let mut pos = 0;
    while pos < run.len() {
        pos = match entry::read(run, pos) {
            Ok(Ok(entry)) => {
                let end = entry.end;
                see(Ok(entry));
                end
            }
            Ok(Err((bad, end))) => {
                see(Err(Bad { reason: bad.reason(), bytes: pos..end }));
                end
            }
            Err(broken) => {
                let reason = match broken {
                    Broken::Reserved => "byte 0xc1 within the entries",
                    _ => "the entries are cut off",
                };
                return see(Err(Bad { reason, bytes: pos..run.len() }));
            }
        };
    }
}

/// The ack for a chunk id (encoded, with its header): `{"ack": id}`.
pub fn ack(chunk: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + chunk.len());
    out.extend_from_slice(b"\x81\xa3ack");
    out.extend_from_slice(chunk);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOCKER: &[u8] = b"\x94\xa1t\xd7\x00\x00\x00\x00\x05\x00\x00\x00\x07\x81\xa3log\xa2hi\x80";

    fn frame(buf: &[u8]) -> Frame {
        match Decoder::new(1 << 20).next(buf) {
            Ok(Next::Frame(f)) => f,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn dockers_message_is_read_whole_and_in_one_byte_pieces_alike() {
        let whole = frame(DOCKER);
        assert_eq!(whole.end, DOCKER.len());
        let mut decoder = Decoder::new(1 << 20);
        for n in 0..DOCKER.len() {
            assert!(matches!(decoder.next(&DOCKER[..n]), Ok(Next::Incomplete { .. })), "{n}");
        }
        assert_eq!(decoder.next(DOCKER), Ok(Next::Frame(whole)));
    }

    #[test]
    fn the_second_element_decides_the_mode() {
        let packed = b"\x92\xa1t\xc4\x04\x92\x05\x80\x00";
        assert_eq!(frame(packed).body, Body::Packed(5..9));
        let forward = b"\x93\xa1t\x91\x92\x05\x80\x81\xa5chunk\xa3YQ\n";
        let f = frame(forward);
        assert_eq!((f.body, f.chunk), (Body::Forward(4..7), Some(14..18)));
    }

    #[test]
    fn a_nil_option_and_unknown_options_are_passed_over() {
        assert_eq!(frame(b"\x93\xa1t\x90\xc0").chunk, None);
        assert_eq!(frame(b"\x93\xa1t\x90\x81\x01\x02").chunk, None);
    }

    #[test]
    fn options_that_cannot_be_used_are_named_and_the_records_are_taken() {
        let odd = |options: &[u8]| frame(&[b"\x93\xa1t\x91\x92\x05\x80", options].concat()).odd.is_some();
        assert!(odd(b"\xa1x"));
        assert!(odd(b"\x81\xa5chunk\x07"));
        assert!(odd(b"\x81\xa8metadata\xc3"));
        assert!(!odd(b"\xc0"));
        assert!(!odd(b"\x81\xa5chunk\xa1c"));
    }

    #[test]
    fn a_bad_record_keeps_its_chunk_id_so_that_it_can_be_settled() {
        let b = b"\x94\xa1t\x05\xa1x\x81\xa5chunk\xa1c";
        let next = Decoder::new(1 << 20).next(b);
        assert_eq!(next, Ok(Next::Bad { end: b.len(), reason: "record is not a map", chunk: Some(13..15) }));
    }

    #[test]
    fn other_protocols_and_oversized_frames_are_fatal() {
        assert_eq!(Decoder::new(100).next(b"GET / HTTP/1.1"), Err(Fatal::NotForward(b'G')));
        let whole = b"\x93\xa1t\x01\x81\xa1a\xa1b";
        assert!(matches!(Decoder::new(whole.len()).next(whole), Ok(Next::Frame(_))));
        assert_eq!(Decoder::new(whole.len() - 1).next(whole), Err(Fatal::TooLarge));
        assert_eq!(Decoder::new(100).next(b"\x93\xa1t\xdb\x00\x00\x01\x00"), Err(Fatal::TooLarge));
        assert_eq!(Decoder::new(100).next(b"\xc0"), Ok(Next::Heartbeat { end: 1 }));
    }

    #[test]
    fn a_deep_record_is_bad_but_its_end_is_known() {
        let mut b = b"\x93\xa1t\x05\x81\xa1k".to_vec();
        b.extend([0x91; 40]);
        b.push(0);
        assert!(matches!(Decoder::new(1000).next(&b), Ok(Next::Bad { end, .. }) if end == b.len()));
    }

    #[test]
    fn good_entries_before_a_torn_tail_are_seen() {
        let found = check(b"\x92\x05\x80\x92\x06\xa1x\x92\x07\x80\x92\x08");
        assert_eq!((found.good, found.bad, found.clean), (2, 2, false));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Decoder::new(1000).next(&bytes);
            check(&bytes);
        }

        #[test]
        fn pieces_of_any_size_give_the_same_frame(cut in 0usize..21) {
            let mut decoder = Decoder::new(1 << 20);
            let cut = cut.min(DOCKER.len() - 1);
            let first = decoder.next(&DOCKER[..cut]);
            let incomplete = matches!(first, Ok(Next::Incomplete { .. }));
            prop_assert!(incomplete);
            prop_assert_eq!(decoder.next(DOCKER), Ok(Next::Frame(frame(DOCKER))));
        }
    }
}
