//! Cuts a stream into messages exactly as docker's copier does.
//!
//! Enters: bytes of a pipe, at most 2 KiB at a time, into a buffer of 16 KiB (or what the driver says). Leaves: one message
//! a line; a line that fills the buffer leaves in parts that share an id and the time of the first. What the stream ends
//! with, without a newline, is a part after which no last one comes. Nothing can go wrong.

use std::sync::Arc;

use memchr::memchr;

use super::{Message, Partial, Source};
use crate::record::Time;

/// Bytes of one read.
const READ: usize = 2 * 1024;
/// The longest line, or part of one, unless the driver has a size of its own.
pub(super) const PART: usize = 16 * 1024;

/// A stream at work.
#[derive(Debug)]
pub(super) struct Splitter {
    source: Source,
    part: usize,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been given away.
    done: usize,
    /// Whether nothing was given away since the last read: then a full buffer is a part.
    untouched: bool,
    ended: bool,
    long: Option<Long>,
}

/// The line at hand, of which parts have gone.
#[derive(Debug)]
struct Long {
    id: Arc<str>,
    time: Time,
    ordinal: u64,
}

impl Splitter {
    /// `part`: the driver's size.
    pub(super) fn new(source: Source, part: usize) -> Splitter {
        Splitter { source, part, buffer: Vec::new(), done: 0, untouched: false, ended: false, long: None }
    }

    /// How many bytes may be read now.
    pub(super) fn room(&self) -> usize {
        READ.min(self.part - (self.buffer.len() - self.done))
    }

    /// Takes what was read, at most [`Splitter::room`] bytes; none: the stream has ended.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        self.untouched = true;
        self.ended = bytes.is_empty();
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message of what was read.
    pub(super) fn next(&mut self, now: Time) -> Option<Message> {
        let rest = self.buffer.get(self.done..).unwrap_or_default();
        if let Some(length) = memchr(b'\n', rest) {
            let line = rest.get(..length).unwrap_or_default().to_vec();
            self.done += length + 1;
            self.untouched = false;
            let (time, partial) = match self.long.take() {
                None => (now, None),
                Some(Long { id, time, ordinal }) => (time, Some(Partial { id, ordinal, last: true })),
            };
            return Some(Message { line, source: self.source, time, partial });
        }
        let full = self.untouched && rest.len() == self.part;
        if rest.is_empty() || !(self.ended || full) {
            return None;
        }
        let line = rest.to_vec();
        self.buffer.clear();
        self.done = 0;
        self.untouched = false;
        let long =
            self.long.get_or_insert_with(|| Long { id: super::random_id().into(), time: now, ordinal: 1 });
        let partial = Partial { id: Arc::clone(&long.id), ordinal: long.ordinal, last: false };
        long.ordinal += 1;
        Some(Message { line, source: self.source, time: long.time, partial: Some(partial) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds a stream in reads of at most `read` bytes; each has a time of its own.
    fn messages(stream: &[u8], part: usize, read: usize) -> Vec<Message> {
        let mut splitter = Splitter::new(Source::Stdout, part);
        let (mut rest, mut clock, mut found) = (stream, 0, Vec::new());
        loop {
            let (bytes, after) = rest.split_at(splitter.room().min(rest.len()).min(read));
            splitter.feed(bytes);
            clock += 1;
            found.extend(std::iter::from_fn(|| splitter.next(Time::new(clock, 0))));
            if bytes.is_empty() {
                return found;
            }
            rest = after;
        }
    }

    /// `(length, ordinal and last of a part)` of each message.
    fn shapes(stream: &[u8]) -> Vec<(usize, Option<(u64, bool)>)> {
        let all = messages(stream, PART, READ);
        all.into_iter().map(|m| (m.line.len(), m.partial.map(|p| (p.ordinal, p.last)))).collect()
    }

    fn line(length: usize) -> Vec<u8> {
        [vec![b'x'; length], b"\n".to_vec()].concat()
    }

    #[test]
    fn lines_are_messages_and_empty_lines_too() {
        assert_eq!(shapes(b"ab\n\nc\r\n"), [(2, None), (0, None), (2, None)]);
        assert_eq!(shapes(b""), []);
    }

    #[test]
    fn a_line_of_the_buffers_size_ends_with_an_empty_part() {
        assert_eq!(shapes(&line(16_383)), [(16_383, None)]);
        assert_eq!(shapes(&line(16_384)), [(16_384, Some((1, false))), (0, Some((2, true)))]);
        assert_eq!(shapes(&line(16_385)), [(16_384, Some((1, false))), (1, Some((2, true)))]);
    }

    #[test]
    fn parts_share_id_and_time_and_the_next_line_is_itself_again() {
        let stream = [line(40_000), line(4)].concat();
        assert_eq!(
            shapes(&stream),
            [(16_384, Some((1, false))), (16_384, Some((2, false))), (7_232, Some((3, true))), (4, None)]
        );
        let all = messages(&stream, PART, READ);
        let part = |n: usize| all[n].partial.clone().unwrap();
        assert_eq!((part(0).id.len(), part(0).id), (64, part(2).id));
        assert_eq!((all[0].time, all[1].time), (all[2].time, all[2].time));
        assert!(all[3].time > all[2].time);
    }

    #[test]
    fn an_unfinished_line_is_a_part_that_nothing_follows() {
        assert_eq!(shapes(b"a\nbc"), [(1, None), (2, Some((1, false)))]);
        let stream = vec![b'x'; 16_386];
        assert_eq!(shapes(&stream), [(16_384, Some((1, false))), (2, Some((2, false)))]);
        assert_eq!(shapes(&stream[..16_384]), [(16_384, Some((1, false)))]);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_however_it_is_read(stream in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400), part in 1usize..40, read in 1usize..50) {
            let mut back = Vec::new();
            for m in messages(&stream, part, read) {
                prop_assert!(m.line.len() <= part);
                back.extend_from_slice(&m.line);
                if m.partial.is_none_or(|p| p.last) {
                    back.push(b'\n');
                }
            }
            prop_assert_eq!(back, stream);
        }
    }
}
