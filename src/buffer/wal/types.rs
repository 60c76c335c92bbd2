//! What crosses the log's border: names, frames to store, frames read back, what was found at the start.
//!
//! Enters and leaves: plain values; nothing here does I/O. Can go wrong: [`OpenError`], [`AppendError`].

use std::io;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::record::{Seg, Tag};
use crate::rt::Marks;

/// A party that is owed frames: an output. Given at the first sight of its identity, kept on disk, never a position in
/// the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u16);

/// The number of a frame. From 1, rising, never used twice.
pub type Seq = u64;

/// How the log works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a segment; unless set 16 MiB, or an eighth of the volume's free space if that is less. At least 256 KiB,
    /// rounded down to 4 KiB.
    pub segment_bytes: Option<u64>,
    /// Segments are zeroed ahead of need by a thread of their own; else (tests) when they are needed.
    pub background: bool,
    /// Cursors that changed are synced at least this often.
    pub sync_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { segment_bytes: None, background: true, sync_every: Duration::from_secs(1) }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records that owners are owed. With an empty body and no owners it only frees holds.
    Records,
    /// Records that a filter holds back; no owner reads them.
    Held,
}

/// A frame to store. The caller has cut it: at most 64 KiB of body, or a single record.
#[derive(Clone, Debug)]
pub struct NewFrame {
    /// What it is.
    pub kind: Kind,
    /// Who is owed it; each once.
    pub owners: SmallVec<[OwnerId; 4]>,
    /// Tags, with where their records end in `body`; ends rise, the last is the body's length.
    pub segs: SmallVec<[Seg; 1]>,
    /// Entries (`wire::entry`), back to back.
    pub body: Bytes,
    /// For [`Kind::Held`]: one id per record, rising, never used before.
    pub holds: Vec<u64>,
    /// Ids of held records that are let go with this frame.
    pub frees: Vec<u64>,
    /// When the records came, milliseconds since 1970.
    pub time_ms: u64,
}

/// A frame read back.
#[derive(Clone, Debug)]
pub struct StoredFrame {
    /// Its number.
    pub seq: Seq,
    /// Tags, with where their records end in `body`.
    pub segs: SmallVec<[Seg; 1]>,
    /// Entries; a slice of the block that was read, which lives as long as any slice of it.
    pub body: Bytes,
    /// Records.
    pub count: u64,
    /// When they came, milliseconds since 1970.
    pub time_ms: u64,
    /// Records of it that its owner has already.
    pub done: Option<Marks>,
}

/// What [`Reader::read`](super::Reader::read) found.
#[derive(Debug, Default)]
pub struct Read {
    /// Frames, in order.
    pub frames: Vec<StoredFrame>,
    /// Where to read on.
    pub next: Seq,
    /// Nothing that is committed lies beyond.
    pub caught_up: bool,
    /// Damage met on the way.
    pub damage: Vec<Damage>,
    /// The system could not read, and what it said: try again.
    pub failed: Option<String>,
}

/// A record that a filter held when the log was closed or the process died.
#[derive(Clone, Debug)]
pub struct HeldRecord {
    /// Its id.
    pub id: u64,
    /// Its tag.
    pub tag: Tag,
    /// Its entry.
    pub entry: Bytes,
    /// When it came, milliseconds since 1970.
    pub time_ms: u64,
}

/// Bytes that could not be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Frames that are lost with them, at most; 0: nobody was told that they are stored.
    pub frames: u64,
    /// Records in it, as far as its first head can be believed; 0: unknown.
    pub records: u64,
    /// The first frame that may have been there.
    pub first_seq: Seq,
    /// The frame that follows, if one is known: those from `first_seq` up to it are lost.
    pub next_seq: Option<Seq>,
    /// What is wrong.
    pub harm: Harm,
    /// Who was owed it, where that is known for sure.
    pub owners: SmallVec<[OwnerId; 4]>,
    /// Where the bytes were put.
    pub kept: Option<String>,
}

/// What is wrong with bytes that could not be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// They were stored once.
    Damaged,
    /// The end of the log, cut: a write that a crash interrupted. What was acknowledged is not in there, unless the disk
    /// lied.
    Torn,
    /// A segment's file is gone; or its head is, which says which frames are its own.
    Missing,
    /// Where an owner stands cannot be read, or is gone: it is owed everything again that is there.
    Position,
    /// Nor is it known who the owner was: its output begins anew.
    Owner,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Opened {
    /// Records still held, in the order they came.
    pub holds: Vec<HeldRecord>,
    /// The first id that was never given to a held record.
    pub next_hold_id: u64,
    /// What could not be read.
    pub damage: Vec<Damage>,
    /// For each owner (configured or not): where to read from, and the bytes owed (an upper bound). Only owners that are
    /// owed something.
    pub backlog: Vec<(OwnerId, Seq, u64)>,
    /// The number the next frame gets.
    pub next_seq: Seq,
}

/// An owner as the log knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerState {
    /// Its id.
    pub id: OwnerId,
    /// Its identity, as it was given to [`Log::owner`](super::Log::owner).
    pub identity: String,
    /// When it was last seen in a configuration, seconds since 1970.
    pub last_configured_unix: u64,
    /// Bytes owed to it (bodies and headers), an upper bound.
    pub owed_bytes: u64,
    /// Records owed to it, an upper bound.
    pub owed_records: u64,
}

/// What an owner lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Records, an upper bound.
    pub records: u64,
    /// Bytes (bodies and headers), an upper bound.
    pub bytes: u64,
}

/// What [`Log::maintain`](super::Log::maintain) gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Figures about the log. Counts are since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments in use, side logs included, spares not.
    pub segments: u64,
    /// Bytes that segments and spares take on the disk.
    pub bytes_on_disk: u64,
    /// Bytes of frames appended.
    pub appended_bytes: u64,
    /// Frames appended.
    pub appended_frames: u64,
    /// Syncs of segments for appends.
    pub syncs: u64,
    /// Syncs of cursors.
    pub cursor_syncs: u64,
    /// Segments given back.
    pub freed_segments: u64,
    /// Frames copied to side logs.
    pub moved_frames: u64,
    /// Writes and syncs that failed and were made good in another segment.
    pub failed_writes: u64,
}

/// Why the log does not open. Never for damage: that costs the damaged frames alone.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{place} is in use by another process; stop it, or give each process a storage.path of its own")]
    Locked {
        /// The directory.
        place: String,
    },
    /// A file was written by a later version.
    #[error(
        "{place}/{file} has format version {found}, this program reads up to {known}; run the version that wrote it, \
         or use another storage.path"
    )]
    Newer {
        /// The directory.
        place: String,
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// The system refused something.
    #[error("{place}: cannot {what}: {source}; {advice}")]
    Io {
        /// The directory.
        place: String,
        /// What was tried, with the file's name.
        what: String,
        /// What the system said.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
}

/// Why frames were not stored. None of them was, and their numbers are not used again.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room. Try again when something was freed.
    #[error(
        "the log has no room; it takes records again when outputs have delivered some, or the disk has space"
    )]
    Full,
    /// The disk failed, and the next segment failed as well.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, with the file's name.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A frame breaks the rules of [`NewFrame`]; a mistake of the caller.
    #[error("frame {index} of the group cannot be stored: {why}")]
    Frame {
        /// Its place in the group.
        index: usize,
        /// The rule.
        why: &'static str,
    },
}
