//! Walking over the frames of a segment, past what is damaged.
//!
//! Enters: a file and where its frames are. Leaves: each whole frame with its place, and the ranges that are none. Can go
//! wrong: anything may stand there; a frame that does not validate costs itself alone, because the search goes on at the
//! next place where one with a later number does.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Seq;
use super::frame::{self, ALIGN, HEAD, NotAFrame, Parsed, Uuid};
use super::vfs::File;

/// Bytes read at a time.
const WINDOW: usize = 256 << 10;
/// Numbers that a damaged place may have swallowed; a frame with a later one is not believed.
const SWALLOWED: u64 = 1 << 24;
/// A larger frame is not looked at for the one bit that may be wrong in it.
const MENDED: u64 = 8 << 20;
/// How often the bytes of a segment may be looked at while searching; what is beyond is given up as damaged. Records may
/// hold anything, also what looks like the beginning of many frames.
const PATIENCE: u64 = 32;

/// What is next in a segment.
pub(super) enum Step {
    /// A frame at this place, and its bytes.
    Frame(u64, Parsed, Bytes),
    /// No frame for so many bytes; then the walk goes on.
    Damage(Gap),
    /// No frame from here to the limit. `torn`: one was begun.
    End { at: u64, torn: Option<Gap> },
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) at: u64,
    pub(super) bytes: u64,
    /// Records that were in it, as far as its first head can be believed.
    pub(super) records: u64,
    /// The first number that may be missing.
    pub(super) first: Seq,
    /// The number of the frame behind it, if there is one.
    pub(super) next: Option<Seq>,
}

/// A walk.
pub(super) struct Walk {
    file: Arc<dyn File>,
    uuid: Uuid,
    at: u64,
    limit: u64,
    last: Seq,
    window: Bytes,
    /// Where the window begins in the file.
    base: u64,
    size: usize,
}

impl Walk {
    /// From `at` to `limit`, over frames with numbers above `last`.
    pub(super) fn new(file: Arc<dyn File>, uuid: Uuid, at: u64, limit: u64, last: Seq) -> Walk {
        Walk { file, uuid, at, limit, last, window: Bytes::new(), base: 0, size: WINDOW }
    }

    /// Reads so many bytes at a time.
    pub(super) fn reading(mut self, size: usize) -> Walk {
        self.size = size.max(HEAD);
        self
    }

    /// Where the next frame is looked for.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether the next frame's bytes have been read already.
    pub(super) fn is_at_hand(&self) -> bool {
        let end = self.base + self.window.len() as u64;
        self.at >= self.base && self.at + (HEAD as u64) < end && self.at < self.limit
    }

    /// Bytes from `at` on, at least `wanted` unless the limit or the file ends before.
    fn bytes(&mut self, at: u64, wanted: usize) -> io::Result<Bytes> {
        let end = self.base + self.window.len() as u64;
        let wanted_end = (at + wanted as u64).min(self.limit);
        if at < self.base || wanted_end > end {
            let most = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(usize::MAX);
            let mut buf = Vec::new();
            self.file.read_more(&mut buf, wanted.max(self.size).min(most), at)?;
            (self.window, self.base) = (buf.into(), at);
        }
        let from = usize::try_from(at - self.base).unwrap_or(0).min(self.window.len());
        Ok(self.window.slice(from..))
    }

    fn frame_at(&mut self, at: u64) -> io::Result<Option<(Parsed, Bytes)>> {
        let mut bytes = self.bytes(at, HEAD)?;
        let mut found = frame::read(&bytes, &self.uuid);
        if let Err(NotAFrame::Short(size)) = found
            && at + size as u64 <= self.limit.next_multiple_of(ALIGN)
        {
            bytes = self.bytes(at, size)?;
            found = frame::read(&bytes, &self.uuid);
        }
        Ok(found.ok().map(|parsed| {
            let whole = bytes.slice(..parsed.body.end);
            (parsed, whole)
        }))
    }

    /// The number and the records in what looks like a frame's head; it may be anything.
    fn claims(&mut self, at: u64) -> io::Result<Option<(Seq, u64)>> {
        let bytes = self.bytes(at, HEAD)?;
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let count = || Some(u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?));
        let kind = bytes.get(4).is_some_and(|kind| (1..=2).contains(kind));
        Ok(u64_at(8).zip(count()).filter(|_| kind).map(|(seq, count)| (seq, u64::from(count))))
    }

    /// Whether a frame was begun here, though none can be read: its head has one wrong bit at most. A segment that was
    /// used before is full of frames of that life, which are no sign of anything; their numbers are lower.
    fn is_begun(&mut self, at: u64) -> io::Result<bool> {
        let bytes = self.bytes(at, HEAD)?;
        let seq = bytes.get(8..16).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let kind = bytes.get(4).is_some_and(|kind| (1..=2).contains(kind));
        let near = (seq ^ (self.last + 1)).count_ones() <= 1;
        Ok(kind && (near || self.plausible(seq)) || seq == self.last + 1)
    }

    /// The frame that was begun at this place, the end of the walk, if all that is wrong with it is one bit: then it was
    /// whole once, for a write that was interrupted is wrong in whole sectors.
    pub(super) fn mend(&self, at: u64) -> io::Result<Option<Parsed>> {
        let most = self.limit.saturating_sub(at).min(MENDED);
        let mut bytes = Vec::new();
        self.file.read_more(&mut bytes, usize::try_from(most).unwrap_or(0), at)?;
        Ok(frame::mend(bytes, &self.uuid).filter(|found| self.plausible(found.seq)))
    }

    fn plausible(&self, seq: Seq) -> bool {
        seq > self.last && seq - self.last <= SWALLOWED
    }

    /// The next step. After [`Step::End`] it is the same again.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        if self.at + HEAD as u64 > self.limit {
            return Ok(Step::End { at: self.at.min(self.limit), torn: None });
        }
        let at = self.at;
        if let Some((parsed, whole)) = self.frame_at(at)?
            && parsed.seq > self.last
        {
            self.at = at + parsed.size as u64;
            self.last = parsed.seq;
            return Ok(Step::Frame(at, parsed, whole));
        }
        let claim = self.claims(at)?.filter(|(seq, _)| self.plausible(*seq));
        let records = claim.map_or(0, |(_, count)| count);
        match self.search(at + ALIGN)? {
            Some((next, seq)) => {
                self.at = next;
                Ok(Step::Damage(Gap { at, bytes: next - at, records, first: self.last + 1, next: Some(seq) }))
            }
            None => {
                let bytes = self.limit - at;
                let torn = self.is_begun(at)?.then_some(Gap {
                    at,
                    bytes,
                    records,
                    first: self.last + 1,
                    next: None,
                });
                Ok(Step::End { at, torn })
            }
        }
    }

    /// The next place with a whole frame of a plausible number.
    fn search(&mut self, from: u64) -> io::Result<Option<(u64, Seq)>> {
        let mut patience = (self.limit * PATIENCE).max(WINDOW as u64);
        let mut at = from;
        while at + HEAD as u64 <= self.limit {
            let window = self.bytes(at, HEAD)?;
            let places = (window.len() + ALIGN as usize).saturating_sub(HEAD) / ALIGN as usize;
            if places == 0 {
                return Ok(None);
            }
            let hit = (0..places).find(|place| {
                let head = window.get(place * ALIGN as usize..).unwrap_or_default();
                head.get(4).is_some_and(|kind| (1..=2).contains(kind))
                    && head
                        .get(8..16)
                        .and_then(|b| b.try_into().ok())
                        .is_some_and(|b| self.plausible(u64::from_le_bytes(b)))
            });
            let Some(place) = hit else {
                at += places as u64 * ALIGN;
                continue;
            };
            at += place as u64 * ALIGN;
            if let Some((found, _)) = self.frame_at(at)?.filter(|(p, _)| self.plausible(p.seq)) {
                return Ok(Some((at, found.seq)));
            }
            // What this try may have read.
            let declared =
                self.bytes(at, 4)?.get(..4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
            patience = patience.saturating_sub(u64::from(declared).min(self.limit));
            if patience == 0 {
                return Ok(None);
            }
            at += ALIGN;
        }
        Ok(None)
    }
}
