//! The log: appending, and what owners have settled.
//!
//! Enters: groups of frames; verdicts. Leaves: numbers, once the group is on disk. Can go wrong: a write or sync that fails
//! is final for its segment: what it holds up to the last success stands, and the group goes to a new one. Without
//! room, or when the next segment fails too, nothing is stored.
//!
//! A group lies in one segment, so that it is written and synced once. A segment is sealed when the next group does not
//! fit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::cursor::{self, Cursor, Position};
use super::frame::{self, Uuid};
use super::inventory::Inventory;
use super::reader::{Index, Piece, Reader, Start};
use super::segment::{FRAMES, Head, Owed, SUMMARY, Summary, main_name};
use super::spare::Spares;
use super::types::{AppendError, Kind, NewFrame, OwnerId, OwnerState, Seq, Stats};
use super::vfs::{File, Lock, Vfs};
use crate::rt::Marks;

/// Segments that may fail for one group before it is given back.
const ATTEMPTS: usize = 2;

/// A segment and what is owed in it.
pub(super) struct Segment {
    pub(super) piece: Arc<Piece>,
    /// Bytes of its file.
    pub(super) capacity: u64,
    /// What owners still need of it; frames never fewer than it is, bytes about. Who is not in here needs nothing of it.
    pub(super) owed: BTreeMap<OwnerId, Owed>,
    /// What they were owed when it was written: a verdict may be lost with the power, so that the summary cannot rely on
    /// any.
    pub(super) total: BTreeMap<OwnerId, Owed>,
    /// Records in it that filters still hold.
    pub(super) held: u64,
    /// It has held records; those that were let go, too.
    pub(super) had_holds: bool,
    /// As its head has it: holds that were held when it began are in frames from here on.
    pub(super) held_from: Seq,
    pub(super) sealed: bool,
}

impl Segment {
    pub(super) fn new(piece: Arc<Piece>, capacity: u64, held_from: Seq) -> Segment {
        let (owed, total) = (BTreeMap::new(), BTreeMap::new());
        Segment { piece, capacity, owed, total, held: 0, had_holds: false, held_from, sealed: false }
    }

    pub(super) fn last(&self) -> Seq {
        self.piece.last.load(Acquire)
    }

    pub(super) fn end(&self) -> u64 {
        self.piece.end.load(Acquire)
    }

    /// Counts a frame.
    pub(super) fn count(&mut self, owners: &[OwnerId], records: u64, bytes: u64) {
        for owner in owners {
            for owed in [&mut self.owed, &mut self.total] {
                let owed = owed.entry(*owner).or_default();
                owed.frames += 1;
                owed.records += records;
                owed.bytes += bytes;
            }
        }
    }

    /// Counts a frame out again. What one frame takes is not remembered: they share their bytes evenly.
    fn settled(&mut self, id: OwnerId, owner: &Owner) {
        let needs = owner.needs_any(self.piece.first, self.last());
        let Some(owed) = self.owed.get_mut(&id) else { return };
        // There may be fewer than are counted (those settled before the log was opened), never more.
        if !needs || owed.frames <= 1 {
            self.owed.remove(&id);
        } else {
            let frames = u64::from(owed.frames);
            owed.records -= owed.records / frames;
            owed.bytes -= owed.bytes / frames;
            owed.frames -= 1;
        }
    }

    /// Counts out what the owner had settled before the log was opened.
    pub(super) fn settled_before(&mut self, id: OwnerId, owner: &Owner) {
        let (first, last) = (self.piece.first, self.last());
        if !owner.needs_any(first, last) {
            self.owed.remove(&id);
        } else if owner.read > last
            && let Some(owed) = self.owed.get_mut(&id)
        {
            let frames = u64::from(owed.frames.max(1));
            let left = (owner.unsettled.range(first..=last).count() as u64).min(frames);
            owed.records = owed.records * left / frames;
            owed.bytes = owed.bytes * left / frames;
            owed.frames = u32::try_from(left).unwrap_or(u32::MAX);
        }
    }

    /// Writes the summary. It is of use and not needed: without it the segment is scanned at the next start.
    pub(super) fn seal(&mut self) {
        self.sealed = true;
        let summary = Summary {
            last: self.last(),
            end: self.end(),
            owed: self.total.iter().map(|(id, owed)| (*id, *owed)).collect(),
        };
        if let Some(bytes) = summary.bytes(&self.piece.uuid) {
            let _without = self.piece.file.write_at(&[IoSlice::new(&bytes)], SUMMARY as u64);
        }
    }
}

/// An owner and where it stands.
pub(super) struct Owner {
    pub(super) cursor: Cursor,
    /// The next number to hand out.
    pub(super) read: Seq,
    pub(super) unsettled: BTreeSet<Seq>,
    /// Of unsettled frames: records that it has all the same.
    pub(super) partly: BTreeMap<Seq, Marks>,
    /// As it stood when the log was opened, for readers.
    pub(super) start: Arc<Start>,
    /// It moved since its slot was written.
    pub(super) dirty: bool,
    /// Its slot was written and not synced.
    pub(super) unsynced: bool,
}

impl Owner {
    /// Everything before it is settled.
    pub(super) fn low(&self) -> Seq {
        self.unsettled.first().map_or(self.read, |first| self.read.min(*first))
    }

    /// Whether it still needs a frame that it is owed.
    pub(super) fn needs(&self, seq: Seq) -> bool {
        seq >= self.read || self.unsettled.contains(&seq)
    }

    /// Whether it needs one of the frames from `first` to `last` that it is owed.
    pub(super) fn needs_any(&self, first: Seq, last: Seq) -> bool {
        self.read <= last || (first <= last && self.unsettled.range(first..=last).next().is_some())
    }

    fn position(&self) -> Position {
        let (unsettled, partly) = (self.unsettled.iter().copied().collect(), self.partly.clone());
        Position { read: self.read, unsettled, partly }
    }

    /// Notes that it is configured now. A full disk stops nothing: that matters only for what nobody configures.
    fn seen(&mut self, now_unix: u64) {
        if self.cursor.seen(now_unix).is_err() {
            // A sync that failed may have dropped a slot that nobody had synced.
            self.dirty = true;
        }
    }

    /// Writes its slot if it moved.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if self.dirty {
            let position = self.position();
            self.cursor.write(&position)?;
            (self.dirty, self.unsynced) = (false, true);
        }
        Ok(())
    }

    /// Brings it to the disk if it is not there.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        if self.unsynced {
            if let Err(e) = self.cursor.sync() {
                // Nobody knows which slot is there: both are written anew before anything relies on them.
                self.dirty = true;
                return Err(e);
            }
            self.unsynced = false;
        }
        Ok(())
    }
}

/// The log. One thread owns it; [`Reader`]s work beside it.
pub struct Log {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) _lock: Box<dyn Lock>,
    pub(super) index: Arc<RwLock<Index>>,
    pub(super) main: Vec<Segment>,
    pub(super) side: BTreeMap<OwnerId, Vec<Segment>>,
    pub(super) owners: BTreeMap<OwnerId, Owner>,
    pub(super) next_seq: Seq,
    pub(super) next_owner: u32,
    /// Held records, and the first number of the segment they are in.
    pub(super) held: HashMap<u64, Seq>,
    pub(super) spares: Spares,
    /// `None`: there was no room for it.
    pub(super) inventory: Option<Inventory>,
    pub(super) sync_every: Duration,
    pub(super) last_sync: Option<Instant>,
    /// After an attempt to free segments that failed: when to try again.
    pub(super) free_again: Option<Instant>,
    /// Little is owed of the log since then; the number of its oldest segment.
    pub(super) thin: Option<(Seq, Instant)>,
    pub(super) stats: Stats,
}

enum Trouble {
    Full,
    /// What was tried, and what the system said.
    Failed(String, io::Error),
}

impl Log {
    /// Finds an owner by its identity, or makes it. It counts as configured at `now_unix`. A new one is owed what is
    /// appended from here on.
    ///
    /// # Errors
    /// The system's: its file cannot be written.
    pub fn owner(&mut self, identity: &str, now_unix: u64) -> io::Result<OwnerId> {
        let known = self.owners.iter_mut().find(|(_, o)| o.cursor.is_named(identity));
        if let Some((id, owner)) = known {
            owner.seen(now_unix);
            return Ok(*id);
        }
        let id = u16::try_from(self.next_owner)
            .map(OwnerId)
            .map_err(|_| io::Error::from(io::ErrorKind::QuotaExceeded))?;
        let position = Position { read: self.next_seq, ..Position::default() };
        let cursor = Cursor::create(&*self.vfs, id, identity, now_unix, &position)?;
        // Of use only should the cursor be lost: the next start writes it where this one could not.
        let _without = cursor::write_id(&*self.vfs, id, identity).and_then(|()| self.vfs.sync_dir());
        self.next_owner += 1;
        self.owners.insert(
            id,
            Owner {
                cursor,
                read: self.next_seq,
                unsettled: BTreeSet::new(),
                partly: BTreeMap::new(),
                start: Arc::default(),
                dirty: false,
                unsynced: false,
            },
        );
        Ok(id)
    }

    /// Notes that these owners are configured still.
    pub fn still_configured(&mut self, ids: &[OwnerId], now_unix: u64) {
        for id in ids {
            if let Some(owner) = self.owners.get_mut(id) {
                owner.seen(now_unix);
            }
        }
    }

    /// All owners, also those that are configured no longer.
    pub fn owners(&self) -> Vec<OwnerState> {
        let state = |(id, owner): (&OwnerId, &Owner)| OwnerState {
            id: *id,
            identity: owner.cursor.name.clone(),
            last_configured_unix: owner.cursor.seen,
            owed_bytes: self.owed_bytes(*id),
            owed_records: self.owed(*id).map(|o| o.records).sum(),
        };
        self.owners.iter().map(state).collect()
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.main.iter().chain(self.side.values().flatten())
    }

    fn owed(&self, owner: OwnerId) -> impl Iterator<Item = Owed> {
        self.segments().filter_map(move |s| s.owed.get(&owner).copied())
    }

    /// Bytes of frames that an owner has not settled, about.
    pub fn owed_bytes(&self, owner: OwnerId) -> u64 {
        self.owed(owner).map(|o| o.bytes).sum()
    }

    /// The number that the next frame gets.
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Bytes of the volume that appends leave free.
    pub fn reserve(&self) -> u64 {
        self.spares.reserve()
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        let files = self.segments().map(|s| s.capacity).sum::<u64>();
        let spares = self.spares.count() as u64 * self.spares.size();
        Stats { segments: self.segments().count() as u64, bytes_on_disk: files + spares, ..self.stats }
    }

    /// A reader of what an owner is owed.
    pub fn reader(&self, owner: OwnerId) -> Reader {
        Reader {
            index: Arc::clone(&self.index),
            vfs: Arc::clone(&self.vfs),
            owner,
            start: self.owners.get(&owner).map(|o| Arc::clone(&o.start)).unwrap_or_default(),
            place: None,
        }
    }

    pub(super) fn index(&self) -> RwLockWriteGuard<'_, Index> {
        // Every change leaves it whole.
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a group of frames, with one sync. Gives their numbers, in order.
    ///
    /// # Errors
    /// See [`AppendError`]: then none of them counts as stored.
    pub fn append(&mut self, frames: &[NewFrame]) -> Result<Range<Seq>, AppendError> {
        for (index, frame) in frames.iter().enumerate() {
            check(frame).map_err(|why| AppendError::Frame { index, why })?;
        }
        if frames.is_empty() {
            return Ok(self.next_seq..self.next_seq);
        }
        let mut attempt = 1;
        loop {
            match self.try_append(frames) {
                Ok(seqs) => return Ok(seqs),
                Err(Trouble::Full) => return Err(AppendError::Full),
                Err(Trouble::Failed(what, source)) if attempt >= ATTEMPTS => {
                    return Err(AppendError::Io { what, source });
                }
                Err(Trouble::Failed(..)) => attempt += 1,
            }
        }
    }

    fn try_append(&mut self, frames: &[NewFrame]) -> Result<Range<Seq>, Trouble> {
        let total: u64 = frames.iter().map(frame::size).sum();
        let fits = self.main.last().is_some_and(|s| !s.sealed && s.end() + total <= s.capacity);
        if !fits {
            let reserve = if self.lets_go(frames) { 0 } else { self.spares.reserve() };
            self.roll(total, reserve)?;
        }
        let first = self.next_seq;
        // Whatever becomes of them, their numbers are not used again.
        self.next_seq += frames.len() as u64;
        let Some(segment) = self.main.last_mut() else { return Err(Trouble::Full) };
        let at = segment.end();
        if let Err((what, e)) = write(&segment.piece, frames, first, at) {
            // What the kernel has of it may never reach the disk: nothing is written behind it.
            segment.seal();
            self.stats.failed_writes += 1;
            return Err(Trouble::Failed(format!("{what} {}", segment.piece.name), e));
        }
        for (frame, seq) in frames.iter().zip(first..) {
            segment.count(&frame.owners, frame.count(), frame::size(frame));
            if frame.kind == Kind::Held {
                segment.held += frame.holds.len() as u64;
                segment.had_holds = true;
                self.held.extend(frame.holds.iter().map(|id| (*id, segment.piece.first)));
            }
            self.stats.appended_frames += 1;
            debug_assert!(seq < self.next_seq);
        }
        segment.piece.last.store(self.next_seq - 1, Release);
        segment.piece.end.store(at + total, Release);
        for id in frames.iter().flat_map(|f| &f.frees) {
            if let Some(first) = self.held.remove(id)
                && let Some(segment) = self.main.iter_mut().find(|s| s.piece.first == first)
            {
                segment.held = segment.held.saturating_sub(1);
            }
        }
        self.stats.syncs += 1;
        self.stats.appended_bytes += total;
        Ok(first..self.next_seq)
    }

    /// Whether the group lets go of a record that alone keeps a segment from being freed. Such a group may take of the
    /// reserve: on a full disk nothing else would ever make room.
    fn lets_go(&self, frames: &[NewFrame]) -> bool {
        frames.iter().flat_map(|f| &f.frees).filter_map(|id| self.held.get(id)).any(|first| {
            let Some((_, before)) = self.main.split_last() else { return false };
            before.iter().any(|s| s.piece.first == *first && s.owed.is_empty())
        })
    }

    /// Begins a new segment with room for so many bytes of frames, if so much of the volume stays free.
    fn roll(&mut self, total: u64, reserve: u64) -> Result<(), Trouble> {
        let standard = self.spares.size();
        let capacity = (FRAMES + total).next_multiple_of(FRAMES).max(standard);
        let spare = if capacity == standard { self.spares.take(self.has_backlog()) } else { None };
        let spare = match spare {
            Some(spare) => spare,
            None => self.spares.make(capacity, reserve).map_err(|e| match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
                _ => Trouble::Failed("make a segment".into(), e),
            })?,
        };
        let first = self.next_seq;
        let held_from = self.held.values().min().copied().unwrap_or(first);
        // Not that of the last one: its first write may have failed, then it has no frame.
        let before = self.main.iter().map(Segment::last).max().unwrap_or(0);
        let uuid = uuid();
        let head = Head { uuid, first, held_from, before, side: None };
        let name = main_name(first);
        let begin = || {
            spare.file.write_at(&[IoSlice::new(&head.block())], 0)?;
            spare.file.sync()?;
            self.vfs.rename(&spare.name, &name)?;
            self.vfs.sync_dir()
        };
        if let Err(e) = begin() {
            // Under the one name or the other. A segment without a frame may have this one's name: it is removed only in the
            // place of a spare that is gone.
            if !self.spares.discard(spare.name) {
                let _left = self.vfs.remove(&name);
            }
            // Should it be there at a start all the same, its head says where the segment before it ended: what were appended
            // to that from here on would not count.
            if let Some(last) = self.main.last_mut()
                && !last.sealed
            {
                last.seal();
            }
            return Err(Trouble::Failed(format!("begin segment {name}"), e));
        }
        if let Some(last) = self.main.last_mut()
            && !last.sealed
        {
            last.seal();
        }
        let piece = piece(name, spare.file, uuid, first);
        self.index().main.push(Arc::clone(&piece));
        self.main.push(Segment::new(piece, capacity, held_from));
        Ok(())
    }

    /// Those frames were handed to the owner; `read` is the next number to hand out.
    pub fn handed_out(&mut self, owner: OwnerId, seqs: &[Seq], read: Seq) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            // What an earlier process was handed beyond it is in `unsettled`, or settled.
            let read = owner.read.max(read);
            owner.dirty |= !seqs.is_empty() || owner.read != read;
            owner.unsettled.extend(seqs);
            owner.read = read;
        }
    }

    /// The owner needs those frames no longer; they were handed out before.
    pub fn settle(&mut self, owner: OwnerId, seqs: &[Seq]) {
        let Some(state) = self.owners.get_mut(&owner) else { return };
        for seq in seqs {
            if !state.unsettled.remove(seq) {
                continue;
            }
            state.dirty = true;
            state.partly.remove(seq);
            let side = self.side.get_mut(&owner).into_iter().flatten();
            let mut holder =
                side.chain(&mut self.main).filter(|s| s.last() >= *seq && s.owed.contains_key(&owner));
            if let Some(segment) = holder.find(|s| s.piece.first <= *seq) {
                segment.settled(owner, state);
            }
        }
    }

    /// Of those frames, handed out and not settled, the owner needs the marked records no longer. That is kept as far as
    /// its cursor has room: what is forgotten comes again, it is not lost.
    pub fn settle_partly(&mut self, owner: OwnerId, frames: Vec<(Seq, Marks)>) {
        let Some(state) = self.owners.get_mut(&owner) else { return };
        for (seq, marks) in frames {
            if state.unsettled.contains(&seq) {
                state.partly.entry(seq).or_default().add(&marks);
                state.dirty = true;
            }
        }
    }

    /// Writes every cursor and ends.
    ///
    /// # Errors
    /// The system's; then what was delivered last may be delivered again.
    pub fn close(mut self) -> io::Result<()> {
        let listed = self.list_segments(&[]);
        listed.and(self.sync_cursors())
    }

    /// Writes which segments there must be if that has changed. `goes`: those of the main log that are about to be freed.
    pub(super) fn list_segments(&mut self, goes: &[bool]) -> io::Result<()> {
        let Some(inventory) = &mut self.inventory else { return Ok(()) };
        let going = goes.iter().copied().chain(std::iter::repeat(false));
        // What nobody needs may be gone at any time: an attempt to free it that is said to have failed may have done it.
        let needed = |s: &Segment| !s.owed.is_empty() || s.held > 0;
        let last = self.main.len().saturating_sub(1);
        let stays = self.main.iter().zip(going).enumerate().filter_map(|(at, (segment, goes))| {
            let kept = needed(segment) || (at == last && !segment.sealed);
            (kept && !goes).then_some(segment.piece.first)
        });
        inventory.write(stays, self.next_seq)
    }

    pub(super) fn sync_cursors(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for owner in self.owners.values_mut() {
            if owner.dirty || owner.unsynced {
                self.stats.cursor_syncs += 1;
            }
            result = result.and(owner.sync());
        }
        self.inventory.iter_mut().fold(result, |result, inventory| result.and(inventory.sync()))
    }
}

pub(super) fn piece(name: String, file: Arc<dyn File>, uuid: Uuid, first: Seq) -> Arc<Piece> {
    Arc::new(Piece { name, file, uuid, first, last: AtomicU64::new(0), end: AtomicU64::new(FRAMES) })
}

/// Writes frames one behind the other and syncs.
pub(super) fn write(
    piece: &Piece,
    frames: &[NewFrame],
    first: Seq,
    at: u64,
) -> Result<(), (&'static str, io::Error)> {
    const PADDING: [u8; 8] = [0; 8];
    let mut heads = Vec::with_capacity(frames.len() * 96);
    let mut ends = Vec::with_capacity(frames.len());
    for (frame, seq) in frames.iter().zip(first..) {
        frame::write_head(&mut heads, frame, seq, &piece.uuid);
        ends.push(heads.len());
    }
    let mut parts = Vec::with_capacity(frames.len() * 3);
    let mut from = 0;
    for (frame, end) in frames.iter().zip(ends) {
        let head = heads.get(from..end).unwrap_or_default();
        let len = head.len() + frame.body.len();
        parts.push(IoSlice::new(head));
        parts.push(IoSlice::new(&frame.body));
        parts.push(IoSlice::new(PADDING.get(..len.next_multiple_of(8) - len).unwrap_or_default()));
        from = end;
    }
    piece.file.write_at(&parts, at).map_err(|e| ("write", e))?;
    piece.file.sync().map_err(|e| ("sync", e))
}

/// The rules of a frame that reading relies on.
fn check(frame: &NewFrame) -> Result<(), &'static str> {
    let mut end = 0;
    for seg in &frame.segs {
        if seg.end < end {
            return Err("the ends of its tags do not rise");
        }
        end = seg.end;
    }
    if end != frame.body.len() {
        return Err("its tags do not cover its records");
    }
    if frame.kind == Kind::Held && frame.holds.len() as u64 != frame.count() {
        return Err("not one id for each held record");
    }
    if frame::size(frame) > frame::MAX_FRAME as u64 {
        return Err("it is larger than 64 MiB");
    }
    Ok(())
}

pub(super) fn uuid() -> Uuid {
    let mut uuid = [0; 16];
    let mut filled = 0;
    while let Some(rest) = uuid.get_mut(filled..)
        && !rest.is_empty()
    {
        match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            // Before the system has any randomness: the clock will do, it only has to differ from the life before.
            Err(_) => {
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                return now.as_nanos().to_le_bytes();
            }
        }
    }
    uuid
}

impl NewFrame {
    /// How many records it has.
    pub fn count(&self) -> u64 {
        self.segs.iter().map(|s| s.count).sum()
    }
}
