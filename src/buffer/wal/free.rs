//! Giving back what nobody owes, and keeping one stuck owner from holding everyone's space.
//!
//! Enters: where owners stand. Leaves: cursors on disk, freed segments, side logs. Can go wrong: the disk; then nothing is
//! freed that an older cursor would miss, because cursors are on disk before a segment goes, and so is the list without it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::Instant;

use super::cursor;
use super::frame;
use super::inventory::Inventory;
use super::log::{self, Log, Segment};
use super::scan::{Step, Walk};
use super::segment::{FRAMES, Head, side_name};
use super::types::{Dropped, Freed, Kind, NewFrame, OwnerId, Seq};

/// The log is thinned when less than this part of its segments is still owed.
const THIN: u64 = 4;
/// The next segment is made when this part of the one being filled is left.
const EARLY: u64 = 2;
/// The same while a thin segment is about to come free.
const EARLY_THIN: u64 = 8;
/// Bytes of frames copied with one sync.
const COPY: u64 = 1 << 20;

impl Log {
    /// Writes where owners stand (synced once in a while, and before anything is freed), frees segments that nobody
    /// owes, moves the rest of a thin log to side logs, has a spare made. Cheap when there is nothing to do.
    ///
    /// # Errors
    /// The system's; then less was freed than could be.
    pub fn maintain(&mut self, now: Instant) -> io::Result<Freed> {
        let mut result = Ok(());
        for owner in self.owners.values_mut() {
            result = result.and(owner.write());
        }
        self.forget_settled();
        result = result.and(self.list_segments(&[]));
        let due = self.last_sync.is_none_or(|last| now.duration_since(last) >= self.sync_every);
        let unlisted = self.inventory.as_ref().is_some_and(Inventory::is_unsynced);
        if due && (unlisted || self.owners.values().any(|o| o.unsynced)) {
            let synced = self.sync_cursors();
            if synced.is_ok() {
                self.last_sync = Some(now);
            }
            result = result.and(synced);
        }
        result?;
        if self.free_again.is_some_and(|then| now < then) {
            return Ok(Freed::default());
        }
        self.free_again = Some(now + self.sync_every);
        self.spares.sweep();
        let mut freed = self.free()?;
        self.free_again = None;
        if self.is_to_be_thinned(now) && self.thin_out()? {
            let more = self.free()?;
            freed.segments += more.segments;
            freed.bytes += more.bytes;
        }
        if self.is_next_needed() {
            self.spares.want();
        }
        Ok(freed)
    }

    /// Whether it is time for the segment after the one being filled to be there. Where a thin one is about to come free,
    /// that is later: it serves as well, and zeroing another takes the disk from those who wait for their acks.
    fn is_next_needed(&self) -> bool {
        let early = if self.thin.is_some() { EARLY_THIN } else { EARLY };
        self.main.last().is_some_and(|s| s.sealed || s.end() > s.capacity - s.capacity / early)
    }

    /// Owners that have come past a segment owe nothing of it.
    fn forget_settled(&mut self) {
        let owners = &self.owners;
        for segment in self.main.iter_mut().chain(self.side.values_mut().flatten()) {
            let (first, last) = (segment.piece.first, segment.last());
            // An owner without a cursor has been forgotten.
            segment.owed.retain(|id, _| owners.get(id).is_some_and(|owner| owner.needs_any(first, last)));
        }
    }

    /// Whether the log has more than the segment being filled and the one that outputs are at.
    pub(super) fn has_backlog(&self) -> bool {
        self.main.len() > 2
    }

    /// Which main segments can go.
    fn free_main(&self) -> Vec<bool> {
        let Some(last) = self.main.last() else { return Vec::new() };
        let idle = |s: &Segment| s.owed.is_empty() && s.held == 0;
        let no_holds = self.main.len() == 1 || !self.main.iter().any(|s| s.had_holds);
        if last.sealed && no_holds && self.main.iter().all(idle) {
            return vec![true; self.main.len()];
        }
        let active = self.main.len() - 1;
        // A start looks for held records from `held_from` of the last segment on. Numbers that let them go are in the same
        // or in later segments, so that these must stay until a segment with the records is gone, and that is on the disk.
        let mut stays = false;
        let decide = |(at, s): (usize, &Segment)| {
            let goes = idle(s) && at < active && !stays;
            stays |= s.had_holds && s.piece.first >= last.held_from;
            goes
        };
        self.main.iter().enumerate().map(decide).collect()
    }

    fn free(&mut self) -> io::Result<Freed> {
        let free_main = self.free_main();
        let any_main = free_main.contains(&true);
        let any_side = self.side.values().flatten().any(|s| s.owed.is_empty());
        let mut freed = Freed::default();
        if !any_main && !any_side {
            return Ok(freed);
        }
        self.list_segments(&free_main)?;
        self.sync_cursors()?;
        let mut gone = Vec::new();
        for (segment, goes) in std::mem::take(&mut self.main).into_iter().zip(free_main) {
            if goes { gone.push((None, segment)) } else { self.main.push(segment) }
        }
        for (owner, segments) in &mut self.side {
            for segment in std::mem::take(segments) {
                if segment.owed.is_empty() {
                    gone.push((Some(*owner), segment))
                } else {
                    segments.push(segment)
                }
            }
        }
        self.side.retain(|_, segments| !segments.is_empty());
        self.publish();
        let mut result = Ok(());
        for (owner, mut segment) in gone {
            let file = Arc::clone(&segment.piece.file);
            match self.spares.keep(&segment.piece.name, file, segment.capacity, self.has_backlog()) {
                Ok(()) => {
                    freed.segments += 1;
                    freed.bytes += segment.capacity;
                }
                Err(e) => {
                    result = result.and(Err(e));
                    // It may still be there: next time. Nothing is appended to what may be gone.
                    segment.sealed = true;
                    let list = match owner {
                        None => &mut self.main,
                        Some(owner) => self.side.entry(owner).or_default(),
                    };
                    let at = list.partition_point(|s| s.piece.first < segment.piece.first);
                    list.insert(at, segment);
                }
            }
        }
        if result.is_err() {
            self.publish();
        }
        self.stats.freed_segments += freed.segments;
        result.and(self.vfs.sync_dir()).map(|()| freed)
    }

    /// Shows readers the segments as they are.
    pub(super) fn publish(&self) {
        let pieces = |segments: &[Segment]| segments.iter().map(|s| Arc::clone(&s.piece)).collect();
        let mut index = self.index();
        index.main = pieces(&self.main);
        index.side = self.side.iter().map(|(id, segments)| (*id, pieces(segments))).collect();
    }

    /// Whether little of the log is owed. An output that lags behind a little is not worth a copy: two segments may be
    /// thin for a moment.
    fn is_to_be_thinned(&mut self, now: Instant) -> bool {
        let standard = self.spares.size();
        let used: u64 = self.main.iter().map(|s| s.capacity).sum();
        // A frame that several owe counts once: about as much as whoever owes most.
        let owed: u64 = self.main.iter().filter_map(|s| s.owed.values().map(|o| o.bytes).max()).sum();
        let oldest = self.main.first().filter(|s| s.held == 0 && self.main.len() > 1).map(|s| s.piece.first);
        let Some(oldest) = oldest.filter(|_| owed < used / THIN) else {
            self.thin = None;
            return false;
        };
        if self.has_backlog() && used > 2 * standard {
            return true;
        }
        let since = match self.thin {
            Some((first, since)) if first == oldest => since,
            _ => now,
        };
        self.thin = Some((oldest, since));
        let spares = self.spares.count() as u64;
        let next = u64::from(
            spares == 0 && self.main.last().is_some_and(|s| s.sealed || s.end() > s.capacity / EARLY),
        );
        used + (spares + next) * standard > 2 * standard && now.duration_since(since) >= self.sync_every
    }

    /// Whether [`Log::maintain`] has something to do in a moment, though nothing happens.
    pub fn is_waiting(&self) -> bool {
        self.thin.is_some() || self.free_again.is_some()
    }

    /// Copies what is owed of the oldest segment to side logs. Says whether all of it was.
    fn thin_out(&mut self) -> io::Result<bool> {
        let Some(oldest) = self.main.first() else { return Ok(false) };
        let piece = Arc::clone(&oldest.piece);
        let owing: Vec<OwnerId> = oldest.owed.keys().copied().collect();
        let mut copies: BTreeMap<OwnerId, (Vec<(Seq, NewFrame)>, u64)> = BTreeMap::new();
        let mut walk = Walk::new(
            Arc::clone(&piece.file),
            piece.uuid,
            FRAMES,
            oldest.end(),
            piece.first.saturating_sub(1),
        );
        loop {
            let step = walk.step()?;
            let (seq, done) = match &step {
                Step::Frame(_, parsed, _) => (parsed.seq, parsed.seq > oldest_last(&self.main)),
                // The reader of whoever is owed it reports the damage; here it is passed over.
                Step::Damage(_) => continue,
                Step::End { .. } => (0, true),
            };
            if done {
                break;
            }
            let Step::Frame(_, parsed, whole) = step else { break };
            for id in owing.iter().filter(|id| parsed.kind == Kind::Records && parsed.owners.contains(id)) {
                let copied = self.side.get(id).and_then(|s| s.last()).map_or(0, Segment::last);
                if seq <= copied || !self.owners.get(id).is_some_and(|o| o.needs(seq)) {
                    continue;
                }
                let frame = parsed.for_owner(*id, whole.slice(parsed.body.clone()));
                let (list, bytes) = copies.entry(*id).or_default();
                *bytes += frame::size(&frame);
                list.push((seq, frame));
                if *bytes >= COPY {
                    let list = std::mem::take(list);
                    *bytes = 0;
                    if !self.copy(*id, &list)? {
                        return Ok(false);
                    }
                }
            }
        }
        for (id, (list, _)) in copies {
            if !self.copy(id, &list)? {
                return Ok(false);
            }
        }
        if let Some(oldest) = self.main.first_mut() {
            oldest.owed.clear();
        }
        Ok(true)
    }

    /// Appends frames to an owner's side log under the numbers they have. False: there is no room.
    fn copy(&mut self, owner: OwnerId, frames: &[(Seq, NewFrame)]) -> io::Result<bool> {
        let Some((first, _)) = frames.first() else { return Ok(true) };
        let total: u64 = frames.iter().map(|(_, f)| frame::size(f)).sum();
        let (free, _) = self.vfs.space()?;
        if free < total + 2 * FRAMES {
            return Ok(false);
        }
        let standard = self.spares.size();
        let segments = self.side.entry(owner).or_default();
        if !segments.last().is_some_and(|s| !s.sealed && s.end() + total <= standard) {
            if let Some(last) = segments.last_mut() {
                last.seal();
            }
            let uuid = log::uuid();
            let before = segments.iter().map(Segment::last).max().unwrap_or(0);
            let head = Head { uuid, first: *first, held_from: *first, before, side: Some(owner) };
            let name = side_name(owner, *first);
            // One whose first write failed has this name, and no frame.
            segments.retain(|s| s.piece.name != name);
            drop(self.vfs.remove(&name));
            let file = self.vfs.create(&name)?;
            file.write_at(&[io::IoSlice::new(&head.block())], 0)?;
            file.sync()?;
            self.vfs.sync_dir()?;
            let piece = log::piece(name, file, uuid, *first);
            segments.push(Segment::new(piece, FRAMES, *first));
        }
        let Some(segment) = segments.last_mut() else { return Ok(false) };
        // Numbers have gaps here: every frame is encoded with its own.
        let mut bytes = Vec::new();
        for (seq, frame) in frames {
            frame::write_head(&mut bytes, frame, *seq, &segment.piece.uuid);
            bytes.extend_from_slice(&frame.body);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let at = segment.end();
        let written = segment
            .piece
            .file
            .write_at(&[io::IoSlice::new(&bytes)], at)
            .and_then(|()| segment.piece.file.sync());
        if let Err(e) = written {
            // Nothing is written behind what may not be there.
            segment.seal();
            return Err(e);
        }
        for (_, frame) in frames {
            segment.count(&[owner], frame.count(), frame::size(frame));
        }
        segment.capacity = at + total;
        let last = frames.last().map_or(0, |(seq, _)| *seq);
        segment.piece.last.store(last, Release);
        segment.piece.end.store(at + total, Release);
        self.stats.moved_frames += frames.len() as u64;
        self.publish();
        Ok(true)
    }

    /// Forgets an owner: what it is owed is dropped.
    ///
    /// # Errors
    /// The system's: its file cannot be removed.
    pub fn forget_owner(&mut self, id: OwnerId) -> io::Result<Dropped> {
        let mut dropped = Dropped::default();
        for segment in self.main.iter_mut().chain(self.side.values_mut().flatten()) {
            if let Some(owed) = segment.owed.remove(&id) {
                dropped.records += owed.records;
                dropped.bytes += owed.bytes;
            }
        }
        if let Some(owner) = self.owners.remove(&id) {
            cursor::remove_id(&*self.vfs, owner.cursor.id)?;
            self.vfs.remove(&cursor::file_name(owner.cursor.id))?;
            self.vfs.sync_dir()?;
        }
        Ok(dropped)
    }
}

fn oldest_last(main: &[Segment]) -> Seq {
    main.first().map_or(0, Segment::last)
}
