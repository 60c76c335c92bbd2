//! Opening the log: what is there, what is owed, what was damaged.
//!
//! Enters: a directory. Leaves: a [`Log`] that goes on where the last one stopped, and what was [`Opened`]. Only heads and
//! summaries are read, and the frames of segments without a summary (the last one) or with records that filters held.
//! Can go wrong: see [`OpenError`]; never for damage.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use super::cursor::{self, Cursor, Found, Known, Position};
use super::inventory::{self, Inventory};
use super::log::{self, Log, Owner, Segment};
use super::reader::{Piece, Start};
use super::scan::{Gap, Step, Walk};
use super::segment::{self, FRAMES, Head, Summary, VERSION};
use super::spare::{self, Spares};
use super::types::{Damage, Harm, HeldRecord, Kind, OpenError, Opened, Options, OwnerId, Seq, Stats};
use super::vfs::{File, Vfs};
use super::{frame::Parsed, quarantine};
use crate::wire::msgpack;

/// The largest standard segment, and the smallest.
const LARGEST: u64 = 16 << 20;
const SMALLEST: u64 = 256 << 10;
/// Segments' worth of the volume that appends leave free, at most a quarter of it: an output that writes to the same
/// volume must be able to deliver a segment, so that it can be freed.
const RESERVE: u64 = 2;

/// A segment found, its frames not looked at.
struct Candidate {
    name: String,
    file: Arc<dyn File>,
    size: u64,
    head: Head,
    summary: Option<Summary>,
    /// It was cut: what its summary says of what is missing.
    cut: Option<Summary>,
}

impl Log {
    /// Opens the log in a directory, or makes it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(vfs: Arc<dyn Vfs>, options: Options) -> Result<(Log, Opened), OpenError> {
        let failed = |what: &str, source: io::Error| OpenError::Io {
            place: vfs.place(),
            what: what.to_owned(),
            source,
            advice: "storage.path must be a directory that this user may read and write",
        };
        let lock = vfs.lock().map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { place: vfs.place() },
            _ => failed("lock it", e),
        })?;
        let mut names = vfs.list().map_err(|e| failed("list its files", e))?;
        names.sort();
        let (free, volume) = vfs.space().map_err(|e| failed("ask for its space", e))?;
        let mut opened = Opened::default();
        let (mut main, mut side) = (Vec::new(), BTreeMap::<OwnerId, Vec<Candidate>>::new());
        let (mut cursors, mut known) = (Vec::new(), Vec::new());
        let mut on_disk = 0;
        for name in &names {
            if spare::is_spare(name) || name.ends_with(".cur.new") {
                // Sizes may have changed; making one anew costs little.
                on_disk += vfs.open(name).and_then(|f| f.size()).unwrap_or(0);
                vfs.remove(name).map_err(|e| failed(&format!("remove {name}"), e))?;
            } else if segment::is_segment(name) {
                let Some(found) = candidate(&*vfs, name, &mut opened, &failed)? else { continue };
                on_disk += found.size;
                match found.head.side {
                    Some(owner) => side.entry(owner).or_default().push(found),
                    None => main.push(found),
                }
            } else if cursor::is_id(name) {
                match cursor::read_id(&*vfs, name).map_err(|e| failed(&format!("read {name}"), e))? {
                    Known::Owner(id, identity) => known.push((id, identity)),
                    Known::Newer(found) => return Err(newer(&*vfs, name, found, cursor::VERSION)),
                    // Written anew if its owner has a cursor.
                    Known::Bad => {}
                }
            } else if name.starts_with("owner-") && name.ends_with(".cur") {
                match Cursor::open(&*vfs, name).map_err(|e| failed(&format!("read {name}"), e))? {
                    Found::Cursor(cursor, position) => {
                        if position.is_none() && cursor.id != inventory::ID {
                            opened.damage.push(Damage::whole(name, Harm::Position, 0, None, 1));
                        }
                        cursors.push((cursor, position));
                    }
                    Found::Newer(found) => return Err(newer(&*vfs, name, found, cursor::VERSION)),
                    // It is made anew; a segment that is gone now is not missed.
                    Found::Bad if *name == cursor::file_name(inventory::ID) => {
                        vfs.remove(name).map_err(|e| failed(&format!("remove {name}"), e))?;
                    }
                    Found::Bad => {
                        let kept = set_aside(&*vfs, name);
                        opened.damage.push(Damage::whole(name, Harm::Owner, 0, kept, 1));
                    }
                }
            }
        }
        know_owners(&*vfs, &mut cursors, &known, &mut opened.damage)
            .map_err(|e| failed("make the file of an output's position", e))?;
        let standard = options.segment_bytes.unwrap_or(((free + on_disk) / 8).min(LARGEST));
        let standard = (standard.max(SMALLEST) / FRAMES * FRAMES).max(2 * FRAMES);
        let reserve = (volume / 4).min(RESERVE * standard);
        let mut log = Log {
            spares: Spares::new(Arc::clone(&vfs), standard, reserve, options.background),
            vfs: Arc::clone(&vfs),
            _lock: lock,
            index: Arc::new(RwLock::default()),
            main: Vec::new(),
            side: BTreeMap::new(),
            owners: BTreeMap::new(),
            next_seq: 1,
            next_owner: 1,
            held: HashMap::new(),
            sync_every: options.sync_every,
            last_sync: None,
            free_again: None,
            inventory: None,
            thin: None,
            stats: Stats::default(),
        };
        let mut read = |list: Vec<Candidate>, copies: Option<Seq>, promised: Seq| {
            segments(&*vfs, list, copies, promised, &mut opened).map_err(|e| failed("read a segment", e))
        };
        let listed = log.take_inventory(&mut cursors);
        let positions =
            || cursors.iter().filter_map(|(cursor, position)| Some((cursor.id, position.as_ref()?)));
        let promised = positions().map(|(_, position)| position.promised()).max().unwrap_or(0);
        let (segments, held) = read(main, None, promised)?;
        log.main = segments;
        let copies = log.main.first().map_or(Seq::MAX, |s| s.piece.first);
        for (owner, list) in side {
            let own = positions().find(|(id, _)| *id == owner).and_then(|(_, position)| {
                position.unsettled.iter().rev().find(|seq| **seq < copies).copied()
            });
            let (segments, _) = read(list, Some(copies), own.unwrap_or(0))?;
            log.side.insert(owner, segments);
        }
        for (id, (first, record)) in held {
            log.held.insert(id, first);
            if let Some(segment) = log.main.iter_mut().find(|s| s.piece.first == first) {
                segment.held += 1;
            }
            opened.holds.push(record);
        }
        // In the order they came: ids rise where they were given in one process, and times do across.
        opened.holds.sort_by_key(|h| (h.time_ms, h.id));
        opened.next_hold_id = opened.holds.iter().map(|h| h.id).max().unwrap_or(0) + 1;
        // A segment without a frame has taken its first number: it is in its name.
        let last = log.segments().map(|s| s.last().max(s.piece.first)).max().unwrap_or(0).max(promised);
        // Nor are the numbers of those that were damaged given again.
        let damaged = opened.damage.iter().filter_map(|damage| damage.next_seq).max();
        log.next_seq = (last + 1).max(damaged.unwrap_or(1)).max(listed.read);
        opened.next_seq = log.next_seq;
        log.miss_segments(&listed, &cursors, &mut opened.damage);
        log.take_owners(cursors, &mut opened);
        log.miss_owners(&mut opened.damage);
        // What is given up as damaged is on the disk before its place is written over; should that fail, an owner waits for it
        // again after the next start.
        let _later = log.sync_cursors();
        // What a process left that was killed may be in the system's memory alone: a sync that fails later would take it away
        // again, though it has been handed out by then.
        for segment in log.segments().filter(|s| !s.sealed) {
            segment.piece.file.sync().map_err(|e| failed(&format!("sync {}", segment.piece.name), e))?;
        }
        // What is relied on from here on may have got its name in a process whose sync of the directory failed.
        vfs.sync_dir().map_err(|e| failed("sync it", e))?;
        log.publish();
        Ok((log, opened))
    }

    /// Owners as their cursors say; those whose cursor is lost are owed everything again.
    fn take_owners(&mut self, cursors: Vec<(Cursor, Option<Position>)>, opened: &mut Opened) {
        for (cursor, position) in cursors {
            let id = cursor.id;
            // Without a position everything that is there is owed.
            let mut position = position.unwrap_or_default();
            let dirty = self.give_up_damaged(id, &mut position, &mut opened.damage);
            let start = Start {
                read: position.read,
                unsettled: position.unsettled.iter().copied().collect(),
                partly: position.partly.clone(),
            };
            let unsettled: BTreeSet<Seq> = position.unsettled.into_iter().collect();
            let owner = Owner {
                cursor,
                read: position.read,
                unsettled,
                partly: position.partly,
                start: Arc::new(start),
                dirty,
                unsynced: false,
            };
            self.next_owner = self.next_owner.max(u32::from(id.0) + 1);
            self.owners.insert(id, owner);
        }
        for id in
            self.segments().flat_map(|s| s.owed.keys()).map(|id| u32::from(id.0) + 1).collect::<Vec<_>>()
        {
            self.next_owner = self.next_owner.max(id);
        }
        for (id, owner) in &self.owners {
            for segment in self.main.iter_mut().chain(self.side.values_mut().flatten()) {
                segment.settled_before(*id, owner);
            }
            let bytes: u64 = self.owed_bytes(*id);
            if bytes > 0 {
                opened.backlog.push((*id, owner.low(), bytes));
            }
        }
    }
}

impl Log {
    /// Frames that an owner was handed and that are damaged now will never be settled: it does not wait for them. Says
    /// whether there are any. Those that have been copied to its side log are still there.
    fn give_up_damaged(&self, id: OwnerId, position: &mut Position, damage: &mut [Damage]) -> bool {
        let copied = self.side.get(&id).and_then(|side| side.last()).map_or(0, Segment::last);
        let before = position.unsettled.len();
        for damage in damage.iter_mut().filter(|d| d.harm != Harm::Torn && !d.file.starts_with("side-")) {
            let Some(next) = damage.next_seq else { continue };
            let count = position.unsettled.len();
            position.unsettled.retain(|seq| *seq <= copied || !(damage.first_seq..next).contains(seq));
            if position.unsettled.len() < count && !damage.owners.contains(&id) {
                damage.owners.push(id);
            }
        }
        position.unsettled.len() < before
    }
}

impl Log {
    /// Counts what was owed to those of whom nobody knows who they were.
    fn miss_owners(&self, damage: &mut [Damage]) {
        for damage in damage.iter_mut().filter(|d| d.harm == Harm::Owner) {
            let id = cursor::owner_of(&damage.file);
            for owed in self.segments().filter_map(|segment| segment.owed.get(&id?)) {
                damage.frames += u64::from(owed.frames);
                damage.records += owed.records;
                damage.bytes += owed.bytes;
            }
        }
    }

    /// Takes the list of segments from among the cursors, or makes it. Gives what it says.
    fn take_inventory(&mut self, cursors: &mut Vec<(Cursor, Option<Position>)>) -> Position {
        let Some(at) = cursors.iter().position(|(cursor, _)| cursor.id == inventory::ID) else {
            self.inventory = Inventory::create(&*self.vfs).ok();
            return Position::default();
        };
        let (cursor, position) = cursors.swap_remove(at);
        let position = position.unwrap_or_default();
        self.inventory = Some(Inventory::found(cursor, position.unsettled.clone()));
        position
    }

    /// Reports segments that are listed and not there, and counts what was owed of them, at most, and of those whose head
    /// was damaged.
    fn miss_segments(
        &self,
        listed: &Position,
        cursors: &[(Cursor, Option<Position>)],
        damage: &mut Vec<Damage>,
    ) {
        let there = |first: Seq| self.main.iter().any(|segment| segment.piece.first == first);
        for first in listed.unsettled.iter().copied().filter(|first| !there(*first)) {
            let name = segment::main_name(first);
            if !damage.iter().any(|d| d.file == name && d.harm == Harm::Missing) {
                damage.push(Damage::whole(&name, Harm::Missing, 0, None, first));
            }
        }
        for damage in damage.iter_mut().filter(|d| d.harm == Harm::Missing) {
            let first = damage.first_seq;
            let segments = self.main.iter().map(|segment| segment.piece.first);
            let next = segments.chain(listed.unsettled.iter().copied()).filter(|next| *next > first).min();
            let next = next.unwrap_or(self.next_seq).max(first);
            let waits = |position: &Position| {
                let known = position.unsettled.iter().filter(|seq| (first..next).contains(*seq));
                known.count() as u64 + next.saturating_sub(first.max(position.read))
            };
            damage.next_seq = Some(next);
            let lost = cursors.iter().map(|(_, position)| position.as_ref().map_or(next - first, waits));
            damage.frames = lost.max().unwrap_or(0);
        }
    }
}

fn newer(vfs: &dyn Vfs, file: &str, found: u32, known: u32) -> OpenError {
    OpenError::Newer { place: vfs.place(), file: file.to_owned(), found, known }
}

/// Makes the cursors of owners that are known beside them and have none: they are owed everything that is there. Notes
/// those that have one and are not known yet.
fn know_owners(
    vfs: &dyn Vfs,
    cursors: &mut Vec<(Cursor, Option<Position>)>,
    known: &[(OwnerId, String)],
    damage: &mut Vec<Damage>,
) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for (cursor, _) in cursors.iter().filter(|(cursor, _)| cursor.id != inventory::ID) {
        if !known.iter().any(|(id, name)| *id == cursor.id && *name == cursor.name) {
            // Of use only should the cursor be lost, which a full disk is no reason to stop for.
            let _without = cursor::write_id(vfs, cursor.id, &cursor.name);
        }
    }
    for (id, name) in known {
        if cursors.iter().any(|(cursor, _)| cursor.id == *id) {
            continue;
        }
        // It counts as configured now: since when it is not nobody knows.
        cursors.push((Cursor::create(vfs, *id, name, now, &Position::default())?, None));
        let file = cursor::file_name(*id);
        match damage.iter_mut().find(|damage| damage.file == file) {
            Some(set_aside) => set_aside.harm = Harm::Position,
            None => damage.push(Damage::whole(&file, Harm::Position, 0, None, 1)),
        }
    }
    Ok(())
}

/// Gives a file that cannot be read another name, so that a person can look at it and nobody trips over it again.
fn set_aside(vfs: &dyn Vfs, name: &str) -> Option<String> {
    let kept = format!("corrupt-{name}");
    vfs.rename(name, &kept).and_then(|()| vfs.sync_dir()).ok().map(|()| kept)
}

/// Reads a segment's first block.
fn candidate(
    vfs: &dyn Vfs,
    name: &str,
    opened: &mut Opened,
    failed: &dyn Fn(&str, io::Error) -> OpenError,
) -> Result<Option<Candidate>, OpenError> {
    let read = || {
        let file = vfs.open(name)?;
        let size = file.size()?;
        let mut block = vec![0; FRAMES as usize];
        let n = file.read_at(&mut block, 0)?;
        block.truncate(n);
        Ok((file, size, block))
    };
    let (file, size, block) = read().map_err(|e| failed(&format!("read {name}"), e))?;
    match Head::read(&block) {
        segment::Read::Head(head) => {
            let (mut summary, mut cut) = (Summary::read(&block, &head.uuid), None);
            if summary.as_ref().is_some_and(|s| s.end > size) {
                cut = summary.take();
            }
            Ok(Some(Candidate { name: name.to_owned(), file, size, head, summary, cut }))
        }
        segment::Read::Newer(found) => Err(newer(vfs, name, found, VERSION)),
        segment::Read::Bad => {
            let kept = set_aside(vfs, name);
            opened.damage.push(match segment::main_first(name) {
                Some(first) => Damage::whole(name, Harm::Missing, size, kept, first),
                // What it held and the main log does not nobody can tell: it was something.
                None => Damage { frames: 1, ..Damage::whole(name, Harm::Damaged, size, kept, 0) },
            });
            Ok(None)
        }
    }
}

type Holds = BTreeMap<u64, (Seq, HeldRecord)>;

/// Segments in order, with what is owed in them, and the records that are still held. `copies`: they are of a side log, and
/// frames from this number on are in the main log, too. `promised`: a cursor knows frames up to this number, so that they
/// were on the disk once.
fn segments(
    vfs: &dyn Vfs,
    mut list: Vec<Candidate>,
    copies: Option<Seq>,
    promised: Seq,
    opened: &mut Opened,
) -> io::Result<(Vec<Segment>, Holds)> {
    let holds = copies.is_none();
    list.sort_by_key(|c| c.head.first);
    let held_from = list.last().map_or(Seq::MAX, |c| c.head.held_from);
    let befores: Vec<Seq> = list.iter().skip(1).map(|c| c.head.before).collect();
    let mut held = Holds::new();
    let mut segments = Vec::new();
    for (at, found) in list.into_iter().enumerate() {
        // What follows this number was never promised; of the last segment everything counts.
        let most = befores.get(at).copied().filter(|before| *before >= found.head.first);
        let empty = befores.get(at).is_some() && most.is_none();
        let most = if empty { found.head.first.saturating_sub(1) } else { most.unwrap_or(Seq::MAX) };
        let piece = log::piece(found.name, found.file, found.head.uuid, found.head.first);
        let mut segment = Segment::new(piece, found.size, found.head.held_from);
        segment.sealed = found.summary.is_some();
        if let Some(summary) = &found.summary {
            segment.total = summary.owed.iter().copied().collect();
            segment.owed = segment.total.clone();
            segment.piece.last.store(summary.last, Release);
            segment.piece.end.store(summary.end, Release);
        }
        let seek_holds = holds && segment.piece.first >= held_from;
        // Made whole and never cut by the log: somebody has.
        let short = holds && (found.size % FRAMES != 0 || found.size < SMALLEST);
        let promised =
            found.summary.as_ref().or(found.cut.as_ref()).map_or(promised.min(most), |said| said.last);
        if (found.summary.is_none() && !empty) || seek_holds {
            let end = found.summary.as_ref().map_or(found.size, |s| s.end);
            scan(
                vfs,
                &mut segment,
                end,
                Bounds { most, copies: copies.unwrap_or(Seq::MAX), promised, short },
                found.summary.is_none(),
                seek_holds.then_some(&mut held),
                opened,
            )?;
        }
        let end = segment.end();
        let said = opened.damage.iter().any(|d| d.file == segment.piece.name && d.offset >= end);
        if (found.cut.is_some() || short) && !said {
            let first = segment.last().max(segment.piece.first.saturating_sub(1)) + 1;
            let bytes = found.cut.as_ref().map_or(0, |cut| cut.end.saturating_sub(end));
            let next = (promised >= first).then_some(promised + 1);
            let gap = Gap { at: end, bytes, records: 0, first, next };
            opened.damage.push(quarantine::keep(
                vfs,
                &*segment.piece.file,
                &segment.piece.name,
                gap,
                Harm::Damaged,
            ));
        }
        let is_last = at == befores.len();
        if !is_last {
            segment.sealed = true;
        }
        segments.push(segment);
    }
    Ok((segments, held))
}

/// What is known of a segment's frames before they are read.
#[derive(Clone, Copy)]
struct Bounds {
    /// What follows this number was never promised.
    most: Seq,
    /// In a side segment: frames from this number on are in the main log.
    copies: Seq,
    /// Frames up to this number were on the disk once.
    promised: Seq,
    /// Somebody has cut the file.
    short: bool,
}

/// Walks over a segment's frames; counts what is owed if nobody has.
fn scan(
    vfs: &dyn Vfs,
    segment: &mut Segment,
    end: u64,
    bounds: Bounds,
    count: bool,
    mut held: Option<&mut Holds>,
    opened: &mut Opened,
) -> io::Result<()> {
    let Bounds { most, copies, .. } = bounds;
    let piece = Arc::clone(&segment.piece);
    let side = piece.name.starts_with("side-");
    let mut walk = Walk::new(Arc::clone(&piece.file), piece.uuid, FRAMES, end, piece.first.saturating_sub(1));
    let mut ends = FRAMES;
    let mut gaps: Vec<Gap> = Vec::new();
    loop {
        match walk.step()? {
            Step::Frame(at, parsed, whole) => {
                if parsed.seq > most {
                    break;
                }
                if !gaps.is_empty() && parsed.seq >= copies {
                    // A group of copies that was not synced: all of it is in the main log. Nothing is written behind it.
                    gaps.retain(|gap| gap.first < copies);
                    opened.damage.extend(
                        gaps.drain(..)
                            .map(|gap| quarantine::keep(vfs, &*piece.file, &piece.name, gap, Harm::Damaged)),
                    );
                    segment.sealed = true;
                    break;
                }
                // Damage between frames that count is real.
                opened.damage.extend(
                    gaps.drain(..)
                        .map(|gap| quarantine::keep(vfs, &*piece.file, &piece.name, gap, Harm::Damaged)),
                );
                ends = at + parsed.size as u64;
                if count {
                    segment.count(&parsed.owners, parsed.count, parsed.size as u64);
                    piece.last.store(parsed.seq, Release);
                }
                // A segment that is looked at only because it has no summary has none that is still held; what let them
                // go may stand where nobody looks.
                if let Some(held) = &mut held {
                    for id in &parsed.frees {
                        held.remove(id);
                    }
                    if parsed.kind == Kind::Held {
                        segment.had_holds = true;
                        hold(piece.first, &parsed, &whole, held);
                    }
                }
            }
            Step::Damage(gap) => gaps.push(gap),
            Step::End { at, torn } => {
                // A side segment has one life, and its file grows with it: whatever stands there was begun.
                let rest =
                    Gap { at, bytes: end - at, records: 0, first: piece.last.load(Acquire) + 1, next: None };
                if let Some(gap) = torn.or((rest.bytes > 0 && side).then_some(rest)) {
                    opened.damage.extend(tail(vfs, &piece, &walk, gap, bounds)?);
                }
                break;
            }
        }
    }
    if count {
        piece.end.store(ends, Release);
    }
    Ok(())
}

/// What is to be said of a frame that was begun at the end of a segment and cannot be read. A write that a crash
/// interrupted looks like one that was damaged later, unless one bit alone is wrong, a cursor knows the frame, or the file is
/// shorter than it was made.
fn tail(
    vfs: &dyn Vfs,
    piece: &Piece,
    walk: &Walk,
    gap: Gap,
    Bounds { most, copies, promised, short }: Bounds,
) -> io::Result<Option<Damage>> {
    let mended = walk.mend(gap.at)?.filter(|frame| frame.seq <= most && frame.seq < copies);
    let (gap, harm, owners) = match mended {
        Some(frame) => {
            let (bytes, records, next) = (frame.size as u64, frame.count, Some(frame.seq + 1));
            (Gap { bytes, records, next, ..gap }, Harm::Damaged, frame.owners)
        }
        None => {
            let gap = quarantine::without_zeros(&*piece.file, gap)?;
            if gap.first <= promised || (short && most == Seq::MAX) {
                let next = (gap.first <= promised).then_some(promised + 1);
                (Gap { next, ..gap }, Harm::Damaged, SmallVec::new())
            } else if most == Seq::MAX {
                (gap, Harm::Torn, SmallVec::new())
            } else {
                return Ok(None);
            }
        }
    };
    Ok(Some(Damage { owners, ..quarantine::keep(vfs, &*piece.file, &piece.name, gap, harm) }))
}

/// Takes the records of a held frame apart.
fn hold(first: Seq, parsed: &Parsed, whole: &bytes::Bytes, held: &mut Holds) {
    let body = whole.slice(parsed.body.clone());
    let mut at = 0;
    let mut ids = parsed.holds.iter();
    for (tag, count, end) in &parsed.segs {
        for _ in 0..*count {
            let (Some(id), Ok(next)) = (ids.next(), msgpack::skip(&body, at)) else { return };
            let next = next.min(*end);
            // A copy: the block it was read in is not kept for it.
            let entry = bytes::Bytes::copy_from_slice(body.get(at..next).unwrap_or_default());
            held.insert(
                *id,
                (first, HeldRecord { id: *id, tag: tag.clone(), entry, time_ms: parsed.time_ms }),
            );
            at = next;
        }
    }
}
