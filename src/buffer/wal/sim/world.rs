//! A process with a log on the simulated disk, and the model that watches it.
//!
//! Enters: steps. Leaves: the first promise broken, in words. Can go wrong: power, process and disk, whenever a step or
//! the disk's settings say so; a step during which the power goes ends with a new process that has recovered.
//!
//! Each recovery happens twice: first on a copy of the disk, where every owner reads everything and the model compares,
//! then on the disk itself, where the history goes on with readers that have read only a part.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::disk::{Disk, Faults};
use super::image::Mood;
use super::model::{Model, Who};
use super::rng::Rng;
use crate::buffer::wal::{
    AppendError, Damage, Harm, Kind, Log, NewFrame, Opened, Options, OwnerId, Reader, Seq, Stats, StoredFrame,
};
use crate::record::{Seg, Tag};
use crate::rt::Marks;

pub(super) const SEGMENT: u64 = 256 * 1024;

/// One thing that the log's user does, or that happens to it.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Frames of one group: for whom, how many bytes; `holds` records held back, `frees` of those held let go.
    Append(Vec<Shape>),
    /// `Read` so many bytes for an owner, and hand them out.
    Pull(Who, usize),
    /// The oldest, the newest or any of what is out: settle so many.
    Settle(Who, usize, Order),
    /// Some records of as many frames that are out are settled.
    Part(Who, usize),
    /// So many milliseconds later.
    Maintain(u64),
    /// An owner that was not there before.
    NewOwner,
    /// An owner goes out of the configuration with the next start.
    Unconfigure(Who),
    Forget(Who),
    Close,
    Kill,
    PowerCut,
    PowerCutIn(u64),
    FailCallIn(u64),
    SetFaults(Faults),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Oldest,
    Newest,
    Any,
}

/// One frame of a group.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub(super) owners: Vec<Who>,
    pub(super) bytes: usize,
    pub(super) holds: usize,
    pub(super) frees: usize,
}

struct Owner {
    identity: String,
    id: Option<OwnerId>,
    configured: bool,
    next: Seq,
    reader: Option<Reader>,
}

pub(super) struct World {
    pub(super) disk: Disk,
    pub(super) model: Model,
    pub(super) rng: Rng,
    pub(super) damage: Vec<Damage>,
    /// Changing calls of the last full recovery.
    pub(super) recovery_changes: u64,
    pub(super) refused: u64,
    /// What all processes so far did, those that have ended.
    pub(super) totals: Stats,
    log: Option<Log>,
    owners: Vec<Owner>,
    now: Instant,
    last_maintain: Instant,
    next_id: u64,
    next_hold: u64,
    /// Power was cut or a call failed: damage may be there to report.
    disturbed: bool,
    /// The test takes files away or changes them: a segment may be missing.
    hurt: bool,
}

pub(super) fn options() -> Options {
    Options { segment_bytes: Some(SEGMENT), background: false, sync_every: Duration::from_secs(1) }
}

/// An entry as a filter holds it: a time and a map of one key.
fn entry(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut out = vec![0x92, 0xce, 0x65, 0, 0, 1, 0x81, 0xa1, b'm', 0xc5];
    out.extend_from_slice(&(len as u16).to_be_bytes());
    let start = out.len();
    out.resize(start + len, 0);
    rng.fill(&mut out[start..]);
    out
}

impl World {
    /// A new log on an empty disk.
    pub(super) fn new(seed: u64) -> Result<World, String> {
        let mut world = World::before_open(seed);
        world.start(false)?;
        Ok(world)
    }

    /// The same before the first process comes.
    pub(super) fn before_open(seed: u64) -> World {
        // Ahead of the real clock, so that whatever the log read from that lies in the past.
        let now = Instant::now() + Duration::from_secs(3600);
        World {
            disk: Disk::new(seed),
            model: Model::default(),
            rng: Rng::new(seed),
            damage: Vec::new(),
            recovery_changes: 0,
            refused: 0,
            totals: Stats::default(),
            log: None,
            owners: Vec::new(),
            now,
            last_maintain: now,
            next_id: 1,
            next_hold: 1,
            disturbed: false,
            hurt: false,
        }
    }

    /// The same world on a copy of the disk, no process running.
    pub(super) fn fork(&self) -> World {
        let owner = |o: &Owner| Owner {
            identity: o.identity.clone(),
            id: o.id,
            configured: o.configured,
            next: o.next,
            reader: None,
        };
        World {
            disk: self.disk.fork(),
            model: self.model.clone(),
            rng: self.rng.clone(),
            damage: Vec::new(),
            recovery_changes: 0,
            refused: self.refused,
            log: None,
            owners: self.owners.iter().map(owner).collect(),
            ..*self
        }
    }

    pub(super) fn owner_count(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn is_known(&self, who: Who) -> bool {
        self.owners.get(who).is_some_and(|o| o.id.is_some())
    }

    pub(super) fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    /// Adds the figures of the process that ends to [`World::totals`].
    fn count(&mut self) {
        if let Some(log) = &self.log {
            let stats = log.stats();
            self.totals.freed_segments += stats.freed_segments;
            self.totals.moved_frames += stats.moved_frames;
            self.totals.failed_writes += stats.failed_writes;
        }
    }

    /// Ends the process, with no word to the log.
    pub(super) fn end(&mut self) {
        self.disk.kill();
        self.drop_log();
    }

    fn drop_log(&mut self) {
        self.count();
        for owner in &mut self.owners {
            owner.reader = None;
        }
        self.log = None;
    }

    /// Does one step; if the power goes meanwhile, comes back from it.
    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        let outcome = self.act(step);
        if self.disk.crashed() {
            let seed = self.rng.next();
            self.power_cut(seed)?;
            return self.start(true);
        }
        outcome
    }

    /// The power goes and comes back; no process runs. What was promised is checked on a copy.
    pub(super) fn power_cut(&mut self, seed: u64) -> Result<(), String> {
        self.disk.crash(seed);
        self.drop_log();
        self.disturbed = true;
        self.check(true)
    }

    pub(super) fn power_cut_as(&mut self, seed: u64, mood: Mood) -> Result<(), String> {
        self.disk.crash_as(&mut Rng::new(seed), mood);
        self.drop_log();
        self.disturbed = true;
        self.check(true)
    }

    /// The id of an owner as it stands in file names.
    pub(super) fn id_text(&self, who: Who) -> String {
        self.owners[who].id.map_or_else(|| "none".to_owned(), |id| format!("{:04x}", id.0))
    }

    /// As [`World::check`], for all owners but one, whose cursor is of no use any more.
    pub(super) fn check_but(&mut self, who: Who) -> Result<(), String> {
        self.model.forgotten(who);
        self.owners[who].id = None;
        self.check(false)
    }

    /// On a copy of the disk: opens, lets every owner read everything, compares.
    pub(super) fn check(&mut self, power: bool) -> Result<(), String> {
        let fork = self.disk.fork();
        fork.set_faults(Faults::default());
        let changes = fork.changes();
        let (log, opened) =
            Log::open(fork.mount(), options()).map_err(|e| format!("the log does not open: {e}"))?;
        self.recovery_changes = fork.changes() - changes;
        self.see_damage(&opened.damage)?;
        self.model.holds_found(&opened.holds, opened.next_hold_id, power)?;
        self.check_owners(&log, &opened)?;
        let mut doubtful: BTreeMap<u64, Vec<Who>> = BTreeMap::new();
        for who in 0..self.owners.len() {
            let Some(id) = self.owners[who].id else { continue };
            let frames = self.read_all(&log, id, start_of(&opened, id))?;
            for id in self.model.recovered(who, &frames, power)? {
                doubtful.entry(id).or_default().push(who);
            }
            let (owed, said) = (self.model.owed_to(who), log.owed_bytes(id));
            // About: frames of a segment share its bytes evenly once some are settled.
            if (said == 0) != (owed == 0) && owed > 0 {
                return Err(format!("owner {who} is owed {owed} bytes, the log says {said}"));
            }
        }
        self.model.decide(&doubtful, power)
    }

    fn read_all(&mut self, log: &Log, id: OwnerId, from: Seq) -> Result<Vec<StoredFrame>, String> {
        let mut reader = log.reader(id);
        let mut frames = Vec::new();
        let mut next = from;
        loop {
            let max = 1 + self.rng.index(200_000);
            let read = reader.read(next, max);
            self.see_damage(&read.damage)?;
            if read.failed.is_some() || read.next < next || (read.next == next && !read.caught_up) {
                return Err(format!("owner {id:?}: {:?}: reading stands still at {next}", read.failed));
            }
            next = read.next;
            frames.extend(read.frames);
            if read.caught_up {
                return Ok(frames);
            }
        }
    }

    fn see_damage(&mut self, damage: &[Damage]) -> Result<(), String> {
        if !self.disturbed && self.disk.faults_hit() == 0 && !damage.is_empty() {
            return Err(format!("damage where nothing was damaged: {damage:?}"));
        }
        if let Some(gone) = damage.iter().find(|d| d.harm == Harm::Missing && !self.hurt) {
            return Err(format!("a segment is missing that nobody took: {gone:?}"));
        }
        self.damage.extend_from_slice(damage);
        Ok(())
    }

    /// The test damages files itself from here on.
    pub(super) fn expect_damage(&mut self) {
        (self.disturbed, self.hurt) = (true, true);
    }

    fn check_owners(&self, log: &Log, opened: &Opened) -> Result<(), String> {
        let known = log.owners();
        for (who, owner) in self.owners.iter().enumerate() {
            let Some(id) = owner.id else { continue };
            let found: Vec<_> = known.iter().filter(|state| state.id == id).collect();
            if self.model.forgive && found.is_empty() {
                continue;
            }
            if found.len() != 1 || found[0].identity != owner.identity {
                return Err(format!("owner {who} ({id:?}, {}) is now {found:?}", owner.identity));
            }
        }
        match opened.backlog.iter().find(|(id, ..)| !known.iter().any(|state| state.id == *id)) {
            Some(odd) => Err(format!("a backlog of nobody: {odd:?}")),
            None => Ok(()),
        }
    }

    /// A process starts. `power`: the one before was ended by a power cut. As often as the power goes again, so it does
    /// again.
    pub(super) fn start(&mut self, power: bool) -> Result<(), String> {
        if !power {
            self.check(false)?;
        }
        loop {
            let hit = self.disk.faults_hit();
            match Log::open(self.disk.mount(), options()) {
                Ok((log, opened)) => self.take(log, &opened)?,
                Err(_) if self.disk.crashed() => {}
                Err(_) if self.disk.faults_hit() > hit => {
                    // The operator repairs the disk and starts it again.
                    self.disk.set_faults(Faults::default());
                    self.disk.kill();
                    self.check(false)?;
                    continue;
                }
                Err(e) => return Err(format!("the log does not open: {e}")),
            }
            if !self.disk.crashed() {
                return Ok(());
            }
            let seed = self.rng.next();
            self.power_cut(seed)?;
            // Sometimes it goes again while the log recovers.
            if self.rng.chance(400) && self.recovery_changes > 0 {
                self.disk.crash_at(self.rng.below(self.recovery_changes));
            }
        }
    }

    /// One start and no second: the caller looks whether the power went.
    pub(super) fn start_once(&mut self) -> Result<(), String> {
        let (log, opened) = Log::open(self.disk.mount(), options()).map_err(|e| e.to_string())?;
        self.take(log, &opened)
    }

    fn take(&mut self, log: Log, opened: &Opened) -> Result<(), String> {
        self.see_damage(&opened.damage)?;
        self.model.holds_found(&opened.holds, opened.next_hold_id, false)?;
        self.next_hold = self.next_hold.max(opened.next_hold_id);
        for owner in &mut self.owners {
            if let Some(id) = owner.id {
                owner.next = start_of(opened, id);
                owner.reader = Some(log.reader(id));
            }
        }
        self.log = Some(log);
        self.last_maintain = self.now;
        self.configure()
    }

    /// The owners as they stand in the configuration: in any order.
    fn configure(&mut self) -> Result<(), String> {
        let mut order: Vec<Who> = (0..self.owners.len()).filter(|&w| self.owners[w].configured).collect();
        self.rng.shuffle(&mut order);
        for who in order {
            self.find_owner(who)?;
        }
        Ok(())
    }

    pub(super) fn find_owner(&mut self, who: Who) -> Result<(), String> {
        let hit = self.disk.faults_hit();
        let Some(log) = self.log.as_mut() else { return Ok(()) };
        let owner = &mut self.owners[who];
        match log.owner(&owner.identity, 1_700_000_000) {
            Ok(id) => match owner.id {
                Some(known) if known != id => Err(format!("owner {who} was {known:?} and is {id:?}")),
                Some(_) => Ok(()),
                None => {
                    owner.id = Some(id);
                    owner.next = log.next_seq();
                    owner.reader = Some(log.reader(id));
                    if self.owners.iter().enumerate().any(|(w, o)| w != who && o.id == Some(id)) {
                        return Err(format!("owner {who} got the id of another, {id:?}"));
                    }
                    Ok(())
                }
            },
            Err(_) if self.disk.crashed() || self.disk.faults_hit() > hit => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            Err(e) => Err(format!("no owner {who}: {e}")),
        }
    }

    /// Does one step; the caller looks whether the power went.
    pub(super) fn act(&mut self, step: &Step) -> Result<(), String> {
        let hit = self.disk.faults_hit();
        match step {
            Step::Append(shapes) => self.append(shapes),
            Step::Pull(who, max) => self.pull(*who, *max),
            Step::Settle(who, n, order) => {
                let mut out = self.model.out(*who);
                match order {
                    Order::Oldest => {}
                    Order::Newest => out.reverse(),
                    Order::Any => self.rng.shuffle(&mut out),
                }
                out.truncate(*n);
                if let (Some(id), Some(log)) = (self.owners[*who].id, self.log.as_mut()) {
                    log.settle(id, &out);
                    self.model.settled(*who, &out);
                }
                Ok(())
            }
            Step::Part(who, n) => {
                self.part(*who, *n);
                Ok(())
            }
            Step::Maintain(later) => self.maintain(*later),
            Step::NewOwner => {
                let who = self.owners.len();
                let mut identity = format!("file.{who} /var/log/{who}");
                identity.extend(std::iter::repeat_n('x', self.rng.index(200)));
                self.owners.push(Owner { identity, id: None, configured: true, next: 0, reader: None });
                self.find_owner(who)
            }
            Step::Unconfigure(who) => {
                self.owners[*who].configured = false;
                Ok(())
            }
            Step::Forget(who) => {
                let Some(id) = self.owners[*who].id else { return Ok(()) };
                match self.log().forget_owner(id) {
                    Ok(_) => {
                        let owner = &mut self.owners[*who];
                        owner.id = None;
                        owner.reader = None;
                        owner.configured = false;
                        self.model.forgotten(*who);
                        Ok(())
                    }
                    Err(_) if self.disk.crashed() || self.disk.faults_hit() > hit => Ok(()),
                    Err(e) => Err(format!("owner {who} cannot be forgotten: {e}")),
                }
            }
            Step::Close => {
                for owner in &mut self.owners {
                    owner.reader = None;
                }
                self.count();
                let Some(log) = self.log.take() else { return Ok(()) };
                match log.close() {
                    Ok(()) if self.disk.faults_hit() == hit => self.model.cursors_synced(),
                    Err(e) if self.disk.faults_hit() == hit && !self.disk.crashed() => {
                        return Err(format!("the log does not close: {e}"));
                    }
                    _ => {}
                }
                self.next_process()
            }
            Step::Kill => {
                self.end();
                self.next_process()
            }
            Step::PowerCut => {
                let seed = self.rng.next();
                self.power_cut(seed)?;
                if self.rng.chance(500) && self.recovery_changes > 0 {
                    self.disk.crash_at(self.rng.below(self.recovery_changes + 2));
                }
                self.start(true)
            }
            Step::PowerCutIn(n) => {
                self.disk.crash_at(*n);
                Ok(())
            }
            Step::FailCallIn(n) => {
                self.disk.fail_call(*n);
                Ok(())
            }
            Step::SetFaults(faults) => {
                self.disk.set_faults(*faults);
                Ok(())
            }
        }
    }

    fn part(&mut self, who: Who, n: usize) {
        let mut out = self.model.sizes(who);
        self.rng.shuffle(&mut out);
        out.truncate(n);
        let mut frames = Vec::new();
        for (seq, records) in out {
            let mut marks = Marks::default();
            (0..records).filter(|_| self.rng.chance(600)).for_each(|n| marks.set(n));
            frames.push((seq, marks));
        }
        if let (Some(id), Some(log)) = (self.owners[who].id, self.log.as_mut()) {
            self.model.settled_partly(who, &frames);
            log.settle_partly(id, frames);
        }
    }

    /// After an orderly end or a kill. The disk's plan to lose power stays.
    fn next_process(&mut self) -> Result<(), String> {
        if self.disk.crashed() {
            return Ok(());
        }
        self.check(false)?;
        match self.start_once() {
            Err(_) if self.disk.crashed() => Ok(()),
            Err(_) if self.disk.faults_hit() > 0 => self.start(false),
            outcome => outcome,
        }
    }

    fn append(&mut self, shapes: &[Shape]) -> Result<(), String> {
        let frames: Vec<(NewFrame, Vec<Who>)> = shapes.iter().map(|shape| self.frame(shape)).collect();
        let group: Vec<NewFrame> = frames.iter().map(|(frame, _)| frame.clone()).collect();
        self.model.appending(&frames);
        let hit = self.disk.faults_hit();
        let Some(log) = self.log.as_mut() else { return Ok(()) };
        let before = log.next_seq();
        match log.append(&group) {
            Ok(seqs) => {
                if seqs.start < before || seqs.end != seqs.start + group.len() as u64 {
                    return Err(format!("{} frames from {before} got {seqs:?}", group.len()));
                }
                self.model.appended(&frames, seqs.start, self.disk.faults_hit() > hit);
                self.hand_out_directly(&frames, seqs.start);
                Ok(())
            }
            Err(AppendError::Full) => {
                self.refused += 1;
                Ok(())
            }
            Err(_) if self.disk.crashed() || self.disk.faults_hit() > hit => Ok(()),
            Err(e) => Err(format!("an append failed for no reason: {e}")),
        }
    }

    /// What the store does when an output has read everything: the frame goes to it without a detour.
    fn hand_out_directly(&mut self, frames: &[(NewFrame, Vec<Who>)], first: Seq) {
        let end = first + frames.len() as u64;
        for who in 0..self.owners.len() {
            let waits = self.model.waiting(who, self.owners[who].next);
            let own: Vec<Seq> =
                (0..frames.len()).filter(|&n| frames[n].1.contains(&who)).map(|n| first + n as u64).collect();
            if waits != own.len() || !self.rng.chance(600) {
                continue;
            }
            let (Some(id), Some(log)) = (self.owners[who].id, self.log.as_mut()) else { continue };
            log.handed_out(id, &own, end);
            self.model.handed_out(who, &own);
            self.owners[who].next = end;
        }
    }

    fn frame(&mut self, shape: &Shape) -> (NewFrame, Vec<Who>) {
        let id = self.next_id;
        self.next_id += 1;
        let mut owners: Vec<Who> = shape.owners.iter().copied().filter(|&w| self.is_known(w)).collect();
        let mut frees = self.model.held();
        self.rng.shuffle(&mut frees);
        frees.truncate(shape.frees);
        let mut body = Vec::new();
        let mut segs = Vec::new();
        let tag = |n: u64| Tag::new(format!("tag.{n}").repeat(1 + n as usize % 3).as_bytes());
        let mut holds = Vec::new();
        let kind = if shape.holds > 0 {
            owners.clear();
            let len = 1 + shape.bytes.checked_div(shape.holds).unwrap_or(0) % 60_000;
            for _ in 0..shape.holds {
                body.extend(entry(&mut self.rng, len));
                holds.push(self.next_hold);
                self.next_hold += 1;
            }
            segs.push(Seg { tag: tag(id), end: body.len(), count: shape.holds as u64 });
            Kind::Held
        } else {
            // Free only: no body, no owners.
            let bytes = if owners.is_empty() { 0 } else { shape.bytes.max(1) };
            body.resize(bytes, 0);
            self.rng.fill(&mut body);
            let mut at = 0;
            while at < bytes {
                at = if self.rng.chance(600) { bytes } else { at + 1 + self.rng.index(bytes - at) };
                segs.push(Seg { tag: tag(self.rng.below(9)), end: at, count: 1 + self.rng.below(5) });
            }
            Kind::Records
        };
        let owner_ids = owners.iter().filter_map(|&w| self.owners[w].id).collect();
        let frame = NewFrame {
            kind,
            owners: owner_ids,
            segs: segs.into(),
            body: Bytes::from(body),
            holds,
            frees,
            time_ms: id,
        };
        (frame, owners)
    }

    fn pull(&mut self, who: Who, max: usize) -> Result<(), String> {
        let from = self.owners[who].next;
        let owner = &mut self.owners[who];
        let (Some(reader), Some(id)) = (owner.reader.as_mut(), owner.id) else { return Ok(()) };
        let hit = self.disk.faults_hit();
        let read = reader.read(from, max);
        if self.disk.crashed() {
            return Ok(());
        }
        if read.failed.is_some() && self.disk.faults_hit() == hit {
            return Err(format!("owner {who}: reading failed with {:?}", read.failed));
        }
        self.see_damage(&read.damage)?;
        if read.next < from || (read.next == from && !read.caught_up && read.failed.is_none()) {
            return Err(format!("owner {who}: reading stands still at {from}"));
        }
        self.model.pulled(who, from, read.next, &read.frames)?;
        if read.caught_up && self.model.waiting(who, read.next) > 0 {
            return Err(format!("owner {who}: caught up at {}, and more is owed", read.next));
        }
        let seqs: Vec<Seq> = read.frames.iter().map(|frame| frame.seq).collect();
        self.log().handed_out(id, &seqs, read.next);
        self.model.handed_out(who, &seqs);
        self.owners[who].next = read.next;
        Ok(())
    }

    fn maintain(&mut self, later: u64) -> Result<(), String> {
        let hit = self.disk.faults_hit();
        self.now += Duration::from_millis(later);
        let now = self.now;
        let Some(log) = self.log.as_mut() else { return Ok(()) };
        // One that failed later on has synced the cursors, too: the next one does so a second after it.
        let since = now - std::mem::replace(&mut self.last_maintain, now);
        match log.maintain(now) {
            Ok(_) if self.disk.faults_hit() == hit => {
                if since >= Duration::from_secs(1) {
                    self.model.cursors_synced();
                }
                Ok(())
            }
            Err(e) if self.disk.faults_hit() == hit && !self.disk.crashed() => {
                Err(format!("maintain failed for no reason: {e}"))
            }
            _ => Ok(()),
        }
    }

    /// After as much maintenance as there is to do: is the disk used as promised?
    pub(super) fn check_disk_use(&mut self) -> Result<(), String> {
        for _ in 0..50 {
            let now = self.now;
            let freed = self.log().maintain(now).map_err(|e| e.to_string())?;
            if freed.segments == 0 && !self.log().is_waiting() {
                break;
            }
            self.now += Duration::from_millis(600);
        }
        let used = self.disk.used();
        let owed = self.model.owed_bytes() + self.model.held_bytes();
        let names = self.disk.names();
        let fixed: u64 = names
            .iter()
            .filter(|name| !name.ends_with(".wal") || name.starts_with("corrupt-"))
            .map(|name| self.disk.size_of(name))
            .sum();
        let side = names.iter().filter(|name| name.starts_with("side-")).count() as u64;
        // The disk counts blocks, also of files that someone has cut; a large frame has a larger segment.
        let blocks = 4 * 4096;
        let largest = names.iter().map(|name| self.disk.size_of(name)).max().unwrap_or(0).max(SEGMENT);
        let allowed =
            4 * owed + (1 + side.min(self.owners.len() as u64)) * SEGMENT + largest + fixed + blocks;
        if used > allowed {
            return Err(format!("{used} bytes on disk for {owed} owed, {allowed} allowed; {names:?}"));
        }
        Ok(())
    }

    /// Everything is delivered: the log must be empty, take records, and be empty again for the next process.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.disk.repair();
        if self.disk.crashed() {
            return Err("the power is still cut".to_owned());
        }
        for who in 0..self.owners.len() {
            self.find_owner(who)?;
        }
        for round in 0..2 {
            for who in 0..self.owners.len() {
                while self.model.waiting(who, self.owners[who].next) > 0 {
                    self.pull(who, 1 << 20)?;
                }
                self.act(&Step::Settle(who, usize::MAX, Order::Any))?;
            }
            let frees = self.model.held().len();
            self.maintain(1500)?;
            self.maintain(1500)?;
            if round == 0 {
                let owners = (0..self.owners.len()).collect();
                let refused = self.refused;
                self.append(&[Shape { owners, bytes: 1000, holds: 0, frees }])?;
                if self.refused > refused {
                    let sizes: Vec<_> =
                        self.disk.names().into_iter().map(|n| (self.disk.size_of(&n), n)).collect();
                    return Err(format!(
                        "everything is settled, and the log has no room for 1000 bytes; {sizes:?}"
                    ));
                }
            }
        }
        self.check_disk_use()?;
        self.act(&Step::Close)?;
        match self.model.owed_bytes() {
            0 => Ok(()),
            owed => Err(format!("{owed} bytes that were settled before a clean end are owed again")),
        }
    }
}

fn start_of(opened: &Opened, id: OwnerId) -> Seq {
    opened.backlog.iter().find(|(owner, ..)| *owner == id).map_or(opened.next_seq, |&(_, from, _)| from)
}
