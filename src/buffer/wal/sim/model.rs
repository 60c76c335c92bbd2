//! What the log has promised: the other half of every test here.
//!
//! Enters: what was appended, handed out, settled, and with which answer. Leaves: a sentence that says which promise a
//! reading breaks. Can go wrong: a model that is too kind proves nothing; the mutations named in the tests are the
//! check of that.
//!
//! A frame is known by its `time_ms`, which the tests make unique, so that its number and its bytes can be checked.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::buffer::wal::{HeldRecord, NewFrame, Seq, StoredFrame};
use crate::record::Tag;
use crate::rt::Marks;

/// An owner, counted by first sight; other than its id, never given twice.
pub(super) type Who = usize;

/// Whether a frame is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// The append said so.
    Yes,
    /// The append failed, or the power went during it: it may turn up, whole, or not.
    Maybe,
    /// A recovery from what the disk really had did not find it: it must never turn up.
    No,
}

#[derive(Clone, Debug)]
struct Sent {
    owners: Vec<Who>,
    segs: Vec<(Tag, usize, u64)>,
    body: Bytes,
    stored: Stored,
    /// The log met a fault and wrote the frame again: the first copy may turn up, too.
    copy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Not handed out in this life.
    Owed,
    /// Handed out, no verdict.
    Out,
    /// Settled, but the cursor may not be on the disk.
    Settled,
}

#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    status: Status,
    sure: bool,
    /// Records that the log was told the owner has.
    told: Marks,
    /// Those of them that are on the disk.
    kept: Marks,
}

impl Entry {
    fn new(id: u64, sure: bool) -> Entry {
        Entry { id, status: Status::Owed, sure, told: Marks::default(), kept: Marks::default() }
    }
}

/// Whether all of these are among the others.
fn within(few: &Marks, many: &Marks) -> bool {
    (0..few.bytes().len() * 8).all(|n| !few.has(n) || many.has(n))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    Yes,
    /// Stored by an append that failed, or freed by one.
    Maybe,
    No,
}

#[derive(Clone, Debug)]
struct Hold {
    tag: Tag,
    entry: Bytes,
    time_ms: u64,
    state: Holding,
}

/// Everything promised so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    sent: BTreeMap<u64, Sent>,
    owed: BTreeMap<Who, BTreeMap<Seq, Entry>>,
    /// Settled, and that is on the disk.
    done: BTreeSet<(Who, Seq)>,
    holds: BTreeMap<u64, Hold>,
    /// The log was told of damage by the test; frames that are missing are counted here, not complained about.
    pub(super) forgive: bool,
    pub(super) missing: Vec<(Who, Seq)>,
    /// A cursor was damaged by the test: what was settled may come again.
    pub(super) repeats: bool,
}

/// A frame that must be somewhere on the disk.
#[derive(Clone, Debug)]
pub(super) struct Stake {
    pub(super) body: Bytes,
    pub(super) owed: Vec<(Who, Seq)>,
}

fn bytes_of(body: usize) -> u64 {
    (body + 64) as u64
}

impl Model {
    /// Frames are about to be appended.
    pub(super) fn appending(&mut self, frames: &[(NewFrame, Vec<Who>)]) {
        for (frame, owners) in frames {
            let segs = frame.segs.iter().map(|seg| (seg.tag.clone(), seg.end, seg.count)).collect();
            let sent = Sent {
                owners: owners.clone(),
                segs,
                body: frame.body.clone(),
                stored: Stored::Maybe,
                copy: false,
            };
            if !owners.is_empty() {
                self.sent.insert(frame.time_ms, sent);
            }
            for id in &frame.frees {
                if let Some(hold) = self.holds.get_mut(id) {
                    hold.state = Holding::Maybe;
                }
            }
            let mut start = 0;
            let mut ids = frame.holds.iter();
            for seg in &frame.segs {
                let part = frame.body.slice(start..seg.end);
                start = seg.end;
                let each = part.len() / (seg.count.max(1) as usize);
                for n in 0..seg.count as usize {
                    let Some(&id) = ids.next() else { break };
                    let entry = part.slice(n * each..(n + 1) * each);
                    let (tag, time_ms) = (seg.tag.clone(), frame.time_ms);
                    let hold = Hold { tag, entry, time_ms, state: Holding::Maybe };
                    self.holds.insert(id, hold);
                }
            }
        }
    }

    /// The append said yes; `faulty`: a call failed on the way, so that a first copy may lie about.
    pub(super) fn appended(&mut self, frames: &[(NewFrame, Vec<Who>)], first: Seq, faulty: bool) {
        for (n, (frame, owners)) in frames.iter().enumerate() {
            let seq = first + n as u64;
            if let Some(sent) = self.sent.get_mut(&frame.time_ms) {
                sent.stored = Stored::Yes;
                sent.copy = faulty;
            }
            for &who in owners {
                self.owed.entry(who).or_default().insert(seq, Entry::new(frame.time_ms, true));
            }
            for id in &frame.holds {
                if let Some(hold) = self.holds.get_mut(id) {
                    hold.state = Holding::Yes;
                }
            }
            for id in &frame.frees {
                if let Some(hold) = self.holds.get_mut(id) {
                    hold.state = Holding::No;
                }
            }
        }
    }

    /// Ids that a filter could let go; those of an append that failed, too: a filter has to try again.
    pub(super) fn held(&self) -> Vec<u64> {
        self.holds.iter().filter(|(_, hold)| hold.state != Holding::No).map(|(&id, _)| id).collect()
    }

    /// The number of the oldest frame, owed or held, is of no use to the log's user; the bytes are.
    pub(super) fn owed_bytes(&self) -> u64 {
        let mut ids = BTreeSet::new();
        for entries in self.owed.values() {
            ids.extend(entries.values().filter(|e| e.status != Status::Settled).map(|e| e.id));
        }
        ids.iter().filter_map(|id| self.sent.get(id)).map(|sent| bytes_of(sent.body.len())).sum()
    }

    pub(super) fn owed_to(&self, who: Who) -> u64 {
        let entries = self.owed.get(&who).into_iter().flat_map(BTreeMap::values);
        let owed = entries.filter(|e| e.status != Status::Settled && e.sure);
        owed.filter_map(|e| self.sent.get(&e.id)).map(|sent| sent.body.len() as u64).sum()
    }

    /// All frames that are owed, with whom they are owed to.
    pub(super) fn stakes(&self) -> Vec<Stake> {
        let mut stakes: BTreeMap<u64, Stake> = BTreeMap::new();
        for (&who, entries) in &self.owed {
            for (&seq, entry) in entries.iter().filter(|(_, e)| e.status != Status::Settled) {
                let body = self.sent[&entry.id].body.clone();
                let stake = stakes.entry(entry.id).or_insert(Stake { body, owed: Vec::new() });
                stake.owed.push((who, seq));
            }
        }
        stakes.into_values().collect()
    }

    /// Bytes of records that filters hold.
    pub(super) fn held_bytes(&self) -> u64 {
        let held = self.holds.values().filter(|hold| hold.state != Holding::No);
        held.map(|hold| bytes_of(hold.entry.len())).sum()
    }

    /// An owner and what it was owed are dropped.
    pub(super) fn forgotten(&mut self, who: Who) {
        self.owed.remove(&who);
        for sent in self.sent.values_mut() {
            sent.owners.retain(|&owner| owner != who);
        }
    }

    /// What is out to `who` and may be settled.
    pub(super) fn out(&self, who: Who) -> Vec<Seq> {
        let entries = self.owed.get(&who).into_iter().flatten();
        entries.filter(|(_, e)| e.status == Status::Out).map(|(&seq, _)| seq).collect()
    }

    /// What is not out yet, from `from` on.
    pub(super) fn waiting(&self, who: Who, from: Seq) -> usize {
        let entries = self.owed.get(&who).into_iter().flat_map(|all| all.range(from..));
        entries.filter(|(_, e)| e.status == Status::Owed).count()
    }

    pub(super) fn handed_out(&mut self, who: Who, seqs: &[Seq]) {
        self.set(who, seqs, Status::Out);
    }

    pub(super) fn settled(&mut self, who: Who, seqs: &[Seq]) {
        self.set(who, seqs, Status::Settled);
    }

    /// Frames that are out to `who`, and how many records each has.
    pub(super) fn sizes(&self, who: Who) -> Vec<(Seq, usize)> {
        let entries = self.owed.get(&who).into_iter().flatten().filter(|(_, e)| e.status == Status::Out);
        let count = |e: &Entry| self.sent[&e.id].segs.iter().map(|seg| seg.2 as usize).sum();
        entries.map(|(&seq, e)| (seq, count(e))).collect()
    }

    /// The log was told that `who` has those records of frames that are out.
    pub(super) fn settled_partly(&mut self, who: Who, frames: &[(Seq, Marks)]) {
        for (seq, marks) in frames {
            if let Some(entry) = self.owed.get_mut(&who).and_then(|all| all.get_mut(seq)) {
                entry.told.add(marks);
            }
        }
    }

    fn set(&mut self, who: Who, seqs: &[Seq], status: Status) {
        for seq in seqs {
            if let Some(entry) = self.owed.get_mut(&who).and_then(|all| all.get_mut(seq)) {
                entry.status = status;
            }
        }
    }

    /// Cursors are on the disk: what is settled stays so.
    pub(super) fn cursors_synced(&mut self) {
        for (&who, entries) in &mut self.owed {
            let settled: Vec<Seq> =
                entries.iter().filter(|(_, e)| e.status == Status::Settled).map(|(&seq, _)| seq).collect();
            for seq in settled {
                entries.remove(&seq);
                self.done.insert((who, seq));
            }
            entries.values_mut().filter(|e| e.status == Status::Out).for_each(|e| e.kept = e.told.clone());
        }
    }

    /// A process that lives on has read from `from` up to `next`: exactly what is owed and not out must have come.
    pub(super) fn pulled(
        &self,
        who: Who,
        from: Seq,
        next: Seq,
        frames: &[StoredFrame],
    ) -> Result<(), String> {
        let empty = BTreeMap::new();
        let entries = self.owed.get(&who).unwrap_or(&empty);
        let mut due =
            entries.range(from..next.max(from)).filter(|(_, e)| e.status == Status::Owed).peekable();
        for frame in frames {
            let Some((&seq, entry)) = due.next() else {
                return Err(format!("owner {who}: frame {} is not owed", frame.seq));
            };
            if seq != frame.seq {
                return Err(format!("owner {who}: frame {} came where {seq} was due", frame.seq));
            }
            if entry.id != frame.time_ms {
                return Err(format!("owner {who}: frame {seq} has other content"));
            }
            self.same(who, frame)?;
        }
        match due.next() {
            Some((seq, _)) => {
                Err(format!("owner {who}: read from {from} to {next}, frame {seq} did not come"))
            }
            None => Ok(()),
        }
    }

    fn same(&self, who: Who, frame: &StoredFrame) -> Result<(), String> {
        let seq = frame.seq;
        let Some(sent) = self.sent.get(&frame.time_ms) else {
            return Err(format!("owner {who}: frame {seq} was never appended"));
        };
        if !sent.owners.contains(&who) {
            return Err(format!("owner {who}: frame {seq} is for {:?}", sent.owners));
        }
        if sent.body != frame.body {
            return Err(format!("owner {who}: frame {seq} has another body"));
        }
        let segs: Vec<_> = frame.segs.iter().map(|seg| (seg.tag.clone(), seg.end, seg.count)).collect();
        let count: u64 = sent.segs.iter().map(|seg| seg.2).sum();
        if segs != sent.segs || count != frame.count {
            return Err(format!("owner {who}: frame {seq} has other tags or counts"));
        }
        Ok(())
    }

    /// A new process has read all that `who` is owed.
    pub(super) fn recovered(
        &mut self,
        who: Who,
        frames: &[StoredFrame],
        power: bool,
    ) -> Result<Vec<u64>, String> {
        let mut last = 0;
        let mut seen = BTreeSet::new();
        let mut doubtful = Vec::new();
        for frame in frames {
            let (seq, id) = (frame.seq, frame.time_ms);
            if seq <= last {
                return Err(format!("owner {who}: frame {seq} came after {last}"));
            }
            last = seq;
            seen.insert(seq);
            self.same(who, frame)?;
            let entries = self.owed.entry(who).or_default();
            if let Some(entry) = entries.get_mut(&seq) {
                if entry.id != id {
                    return Err(format!("owner {who}: frame {seq} has the content of another frame"));
                }
                entry.status = Status::Owed;
                let done = frame.done.clone().unwrap_or_default();
                if !within(&done, &entry.told) {
                    return Err(format!("owner {who}: of frame {seq} records count as settled that are not"));
                }
                if !within(&entry.kept, &done) && !self.repeats && !self.forgive {
                    return Err(format!(
                        "owner {who}: records of frame {seq} were settled, their cursor synced, and came again"
                    ));
                }
                entry.told = done.clone();
                if power {
                    entry.kept = done;
                }
                if !entry.sure {
                    entry.sure = power;
                    doubtful.push(id);
                }
                continue;
            }
            if self.repeats && self.done.remove(&(who, seq)) {
                entries.insert(seq, Entry::new(id, true));
                continue;
            }
            if self.done.contains(&(who, seq)) {
                return Err(format!(
                    "owner {who}: frame {seq} was settled, its cursor synced, and came again"
                ));
            }
            let twice = entries.values().any(|entry| entry.id == id);
            let sent = &self.sent[&id];
            match sent.stored {
                Stored::No => {
                    return Err(format!("owner {who}: frame {seq} was given up and came back"));
                }
                Stored::Yes if !sent.copy => {
                    return Err(format!("owner {who}: frame {seq} is a copy of one that was stored"));
                }
                Stored::Maybe if twice => {
                    return Err(format!("owner {who}: frame {seq} failed and came twice"));
                }
                Stored::Yes | Stored::Maybe => {}
            }
            entries.insert(seq, Entry::new(id, power));
            doubtful.push(id);
        }
        self.not_seen(who, &seen, power)?;
        Ok(doubtful)
    }

    fn not_seen(&mut self, who: Who, seen: &BTreeSet<Seq>, power: bool) -> Result<(), String> {
        let entries = self.owed.entry(who).or_default();
        let absent: Vec<(Seq, Entry)> = entries
            .iter()
            .filter(|(seq, _)| !seen.contains(seq))
            .map(|(&seq, entry)| (seq, entry.clone()))
            .collect();
        for (seq, entry) in absent {
            match entry.status {
                Status::Settled if power => {
                    entries.remove(&seq);
                    self.done.insert((who, seq));
                }
                Status::Settled => {}
                _ if !entry.sure => {
                    entries.remove(&seq);
                }
                _ if self.forgive => {
                    entries.remove(&seq);
                    self.missing.push((who, seq));
                }
                _ => return Err(format!("owner {who}: frame {seq} is lost ({:?} before)", entry.status)),
            }
        }
        Ok(())
    }

    /// All owners have read all: what of the frames that failed is there is there for good, the rest for ever gone.
    /// `doubtful` has those that came, once for each owner they came to.
    pub(super) fn decide(&mut self, doubtful: &BTreeMap<u64, Vec<Who>>, power: bool) -> Result<(), String> {
        for (id, who) in doubtful {
            let sent = &self.sent[id];
            for owner in &sent.owners {
                let known = self.done.iter().any(|&(w, _)| w == *owner)
                    || self.owed.get(owner).is_some_and(|all| all.values().any(|e| e.id == *id));
                if !known {
                    return Err(format!("frame {id} that failed came to {who:?}, not to {owner}"));
                }
            }
        }
        if power {
            for (id, sent) in &mut self.sent {
                sent.copy = false;
                if sent.stored == Stored::Maybe {
                    sent.stored = if doubtful.contains_key(id) { Stored::Yes } else { Stored::No };
                }
            }
        }
        Ok(())
    }

    /// What a new process found held.
    pub(super) fn holds_found(&mut self, found: &[HeldRecord], next: u64, power: bool) -> Result<(), String> {
        let mut last = None;
        let mut seen = BTreeSet::new();
        for record in found {
            let id = record.id;
            if last.is_some_and(|last| last >= id) {
                return Err(format!("held record {id} came after {last:?}"));
            }
            last = Some(id);
            seen.insert(id);
            let Some(hold) = self.holds.get_mut(&id) else {
                return Err(format!("held record {id} was never stored"));
            };
            if hold.tag != record.tag || hold.entry != record.entry || hold.time_ms != record.time_ms {
                return Err(format!("held record {id} has other content"));
            }
            match hold.state {
                Holding::No => return Err(format!("held record {id} was let go and is back")),
                Holding::Maybe if power => hold.state = Holding::Yes,
                Holding::Yes | Holding::Maybe => {}
            }
        }
        for (id, hold) in &mut self.holds {
            if seen.contains(id) {
                continue;
            }
            match hold.state {
                Holding::Yes if self.forgive => hold.state = Holding::No,
                Holding::Yes => return Err(format!("held record {id} is lost")),
                Holding::Maybe if power => hold.state = Holding::No,
                Holding::Maybe | Holding::No => {}
            }
        }
        // An id may be given again once its record is let go and a new process has begun: the records of one id and their
        // ends stand in the log in turns. An id that is held must not.
        match last {
            Some(id) if next <= id => {
                Err(format!("the next id for a held record is {next}, and {id} is held"))
            }
            _ => Ok(()),
        }
    }
}
