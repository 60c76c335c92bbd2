//! The wiring behind [`Intake`]: collects a source's records by route, filters them, and hands chunks to the outputs.
//!
//! Enters: records of one connection or source. Leaves: chunks in the queues of the outputs. Can go wrong: an output's
//! share is full; then this source alone waits. State of filters is kept here, per tag: it belongs to the connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::refused::Refusals;
use crate::buffer::store::{self, Content, Frame, Store, Submission};
use crate::buffer::wal::HeldRecord;
use crate::config::AckLevel;
use crate::filters::program::{Filtered, Held, Holds, Lane, Moved, Program, Tally, Workspace};
use crate::inputs::{BoxFuture, Intake};
use crate::observe::counters::{Refusal, Totals};
use crate::record::{Ack, AckWait, Chunk, HELD_COUNT_BITS, Seg, Tag, Time};
use crate::router::Router;
use crate::rt::{Budget, Charge, Delivery, Letter, Letters, Meter, Sender, Stop};
use crate::wire::entry;

/// Tags one source remembers; beyond it the memory begins anew (states of filters stay).
const MAX_TAGS: usize = 65_536;
/// How long a source has to come back for what filters held of its tag at the last stop.
const RESTORE: std::time::Duration = std::time::Duration::from_secs(5);
/// A run of entries at least this large is passed on as it came instead of being copied together with others.
const WORTH_LENDING: usize = 16 * 1024;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a route is made of.
pub(super) struct Route {
    /// Number of the route, for tables.
    pub(super) number: usize,
    /// The matching filters.
    pub(super) program: Program,
    /// Positions of the matching outputs.
    pub(super) outputs: Vec<usize>,
}

/// What all sources share.
pub(super) struct Wiring {
    pub(super) router: Router<Route>,
    pub(super) queues: Vec<Sender>,
    pub(super) totals: Arc<Totals>,
    pub(super) budget: Budget,
    /// The log, where `storage.path` is set.
    pub(super) store: Option<Store>,
    /// The way to the dead letters, where there are some.
    pub(super) letters: Option<Letters>,
}

/// How the records of an input are kept until outputs have them.
#[derive(Clone)]
pub(super) struct Keeping {
    /// Who: `input forward.0`.
    pub(super) from: Arc<str>,
    /// The one output that gets its records, whatever their tags.
    pub(super) only: Option<usize>,
    /// `Mem_Buf_Limit`.
    pub(super) meter: Arc<Meter>,
    /// Where they are stored; `None`: they stay in memory.
    pub(super) store: Option<Store>,
    /// When a sender gets its ack.
    pub(super) ack: AckLevel,
    /// `memrb`: above `Mem_Buf_Limit` the oldest records go.
    pub(super) ring: bool,
    pub(super) stop: Stop,
}

#[derive(Default)]
struct Part {
    bytes: Bytes,
    segs: SmallVec<[Seg; 1]>,
    /// Bytes allocated beyond those.
    spare: usize,
}

/// What is collected for one route.
struct Group {
    route: Arc<Route>,
    sealed: Vec<Part>,
    open: Vec<u8>,
    open_segs: SmallVec<[Seg; 1]>,
    lanes: Map<Tag, Lane>,
    active: bool,
    /// Bytes that the last pass collected.
    last: usize,
}

/// One pass over what was collected.
struct Pass<'a> {
    ack: Option<&'a Ack>,
    now: Instant,
    due: Due,
}

/// What a pass has for the outputs.
#[derive(Default)]
struct Due {
    /// What goes to which output, from memory.
    deliveries: Vec<(usize, Delivery)>,
    /// What goes through the log.
    submission: Submission,
    /// What could not be decoded.
    letters: Vec<Letter>,
}

impl<'a> Pass<'a> {
    fn new(ack: Option<&'a Ack>) -> Self {
        Pass { ack, now: Instant::now(), due: Due::default() }
    }
}

/// One source's intake.
pub(super) struct Collector {
    wiring: Arc<Wiring>,
    keeping: Keeping,
    settled: Arc<Notify>,
    /// Tag to place in `groups`. Of thousands of tags that take turns nearly every one costs what its lines of memory
    /// cost: the key is the tag itself, and there is nothing else to look at.
    tags: Map<Tag, usize>,
    /// The tag that came last, and its group: most sources send one tag.
    last: Option<(Tag, usize)>,
    groups: Vec<Group>,
    /// Route number to place in `groups`.
    by_route: Map<usize, usize>,
    active: Vec<usize>,
    collected: usize,
    received: u64,
    work: Workspace,
    deadline: Option<Instant>,
    /// What filters hold, charged to the budget.
    holding: Charge,
    /// The same, in records.
    held: u64,
    /// Records that filters held when the process stopped, by group: they pass again before anything new of their tag.
    restored: Vec<(usize, Vec<HeldRecord>)>,
    /// What its input could not decode.
    refusals: Refusals,
}

impl Group {
    fn add_to_open(&mut self, tag: &Tag, count: u64) {
        let end = self.open.len();
        match self.open_segs.last_mut() {
            Some(seg) if seg.tag == *tag => {
                seg.end = end;
                seg.count += count;
            }
            _ => self.open_segs.push(Seg { tag: tag.clone(), end, count }),
        }
    }

    fn seal(&mut self) {
        if !self.open_segs.is_empty() {
            let bytes = fitting(std::mem::take(&mut self.open));
            self.sealed.push(Part::new(bytes, std::mem::take(&mut self.open_segs)));
        }
    }
}

impl Part {
    fn new(bytes: Vec<u8>, segs: SmallVec<[Seg; 1]>) -> Part {
        let spare = bytes.capacity() - bytes.len();
        Part { bytes: bytes.into(), segs, spare }
    }
}

/// Gives spare room back where it is much.
fn fitting(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.capacity() - bytes.len() > bytes.len() / 4 {
        bytes.shrink_to_fit();
    }
    bytes
}

/// Waits for room in each output's share. Dropping the future gives what is left its verdict: given up.
async fn enqueue(wiring: Arc<Wiring>, keeping: Keeping, letters: Option<Letters>, due: Due) {
    for (output, delivery) in due.deliveries {
        if let Some(queue) = wiring.queues.get(output) {
            if keeping.ring {
                queue.push_over(delivery, |waiting| waiting.came_from(&keeping.meter)).await;
            } else {
                queue.push(delivery).await;
            }
        }
    }
    if let Some(store) = &keeping.store
        && !due.submission.is_empty()
    {
        store.submit(due.submission).await;
    }
    if let Some(letters) = letters {
        for letter in due.letters {
            letters.send(letter).await;
        }
    }
}

impl Collector {
    pub(super) fn new(wiring: Arc<Wiring>, keeping: Keeping) -> Self {
        let holding = wiring.budget.take(0);
        let refusals =
            Refusals::new(wiring.letters.clone(), Arc::clone(&keeping.from), wiring.budget.clone());
        let holds = keeping.store.as_ref().map(|store| Holds::new(store.numbers()));
        Collector {
            wiring,
            keeping,
            settled: Arc::default(),
            tags: Map::default(),
            last: None,
            groups: Vec::new(),
            by_route: Map::default(),
            active: Vec::new(),
            collected: 0,
            received: 0,
            work: Workspace::new(holds),
            deadline: None,
            holding,
            held: 0,
            restored: Vec::new(),
            refusals,
        }
    }

    /// Finds the tag (its place is then in `last`) and marks its group active.
    #[inline]
    fn locate(&mut self, tag: &[u8]) {
        if self.last.as_ref().is_none_or(|(last, _)| last.as_bytes() != tag) {
            self.last = match self.tags.get_key_value(tag) {
                Some((tag, group)) => Some((tag.clone(), *group)),
                None => Some(self.learn(tag)),
            };
        }
        if let Some((_, g)) = self.last
            && let Some(group) = self.groups.get_mut(g)
            && !group.active
        {
            group.active = true;
            self.active.push(g);
        }
    }

    #[cold]
    fn learn(&mut self, tag: &[u8]) -> (Tag, usize) {
        if self.tags.len() >= MAX_TAGS {
            self.tags.clear();
        }
        let route = self.wiring.router.route(tag);
        let groups = &mut self.groups;
        let group = *self.by_route.entry(route.number).or_insert_with(|| {
            groups.push(Group {
                route,
                sealed: Vec::new(),
                open: Vec::new(),
                open_segs: SmallVec::new(),
                lanes: Map::default(),
                active: false,
                last: 0,
            });
            groups.len() - 1
        });
        if let Some(store) = &self.keeping.store {
            let held = store.held(tag);
            if !held.is_empty() {
                self.restored.push((group, held));
            }
        }
        let tag = Tag::new(tag);
        self.tags.insert(tag.clone(), group);
        (tag, group)
    }

    #[inline]
    fn append(&mut self, tag: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.received += 1;
        self.locate(tag);
        if let Some((tag, g)) = &self.last
            && let Some(group) = self.groups.get_mut(*g)
        {
            let before = group.open.len();
            if group.open.capacity() == 0 {
                // About what the last pass collected. Nothing is kept between passes: idle connections hold no memory.
                group.open.reserve(group.last);
            }
            write(&mut group.open);
            self.collected += group.open.len() - before;
            group.add_to_open(tag, 1);
        }
    }

    /// Filters what is collected. Every record is accounted for when this returns: in a delivery, or in a counter.
    fn process(&mut self, ack: Option<&Ack>) -> Due {
        let mut pass = Pass::new(ack.filter(|_| self.keeping.ack != AckLevel::Accept));
        self.restore(&mut pass);
        let received = std::mem::take(&mut self.received);
        self.wiring.totals.pipeline.received.fetch_add(received, Relaxed);
        self.collected = 0;
        pass.due.letters = self.refusals.take(pass.ack);
        let active = std::mem::take(&mut self.active);
        for &g in &active {
            let Some(group) = self.groups.get_mut(g) else { continue };
            group.active = false;
            let route = Arc::clone(&group.route);
            let open = fitting(std::mem::take(&mut group.open));
            group.last = open.len() + open.len() / 8;
            let open_segs = std::mem::take(&mut group.open_segs);
            for part in std::mem::take(&mut group.sealed) {
                if route.program.is_empty() {
                    self.hand_over(&route, part, &mut pass);
                } else {
                    let filtered = self.filter(g, &part.bytes, &part.segs, pass.now, (0, None));
                    self.after(&route, filtered, Some(part), 0, &mut pass);
                }
            }
            if open_segs.is_empty() {
                continue;
            }
            if route.program.is_empty() {
                self.hand_over(&route, Part::new(open, open_segs), &mut pass);
            } else {
                let filtered = self.filter(g, &open, &open_segs, pass.now, (0, None));
                let whole = filtered.bytes.is_none().then(|| Part::new(open, open_segs));
                self.after(&route, filtered, whole, 0, &mut pass);
            }
        }
        self.account_for_holds(&mut pass);
        pass.due
    }

    /// Runs records that were held when the process stopped, with the numbers they are stored under.
    fn restore(&mut self, pass: &mut Pass<'_>) {
        for (g, records) in std::mem::take(&mut self.restored) {
            let Some(route) = self.groups.get(g).map(|group| Arc::clone(&group.route)) else { continue };
            self.wiring.totals.pipeline.received.fetch_add(records.len() as u64, Relaxed);
            for run in
                records.chunk_by(|a, b| a.tag == b.tag && a.id >> HELD_COUNT_BITS == b.id >> HELD_COUNT_BITS)
            {
                let Some(first) = run.first() else { continue };
                // A filter that moved them here does not see them again.
                let from = usize::try_from(first.id >> HELD_COUNT_BITS).ok().and_then(|f| f.checked_sub(1));
                let bytes: Vec<u8> = run.iter().flat_map(|r| r.entry.iter().copied()).collect();
                let count = run.len() as u64;
                let mut segs = SmallVec::new();
                segs.push(Seg { tag: first.tag.clone(), end: bytes.len(), count });
                if let Some(holds) = &mut self.work.holds {
                    holds.known = run.iter().map(|r| r.id).collect();
                }
                let filtered = self.filter(g, &bytes, &segs, pass.now, (u32::from(from.is_some()), from));
                let whole = filtered.bytes.is_none().then(|| Part::new(bytes, segs));
                self.after(&route, filtered, whole, 0, pass);
            }
        }
    }

    /// Stores what filters hold from this pass on, and lets go what they have let go.
    fn account_for_holds(&mut self, pass: &mut Pass<'_>) {
        let Some((bytes, held, frees)) = self.work.holds.as_mut().map(Holds::take) else { return };
        pass.due.submission.frees = frees;
        if held.is_empty() {
            return;
        }
        let mut segs: SmallVec<[Seg; 1]> = SmallVec::new();
        for Held { tag, end, .. } in &held {
            match segs.last_mut() {
                Some(seg) if seg.tag == *tag => {
                    seg.end = *end;
                    seg.count += 1;
                }
                _ => segs.push(Seg { tag: tag.clone(), end: *end, count: 1 }),
            }
        }
        let charge = self.wiring.budget.take(bytes.len() as u64);
        let chunk = Chunk { bytes: bytes.into(), segs, count: held.len() as u64, charge, meter: None };
        let mut ids = held.into_iter().map(|h| h.id);
        for piece in store::frames(chunk) {
            let ids = ids.by_ref().take(usize::try_from(piece.count).unwrap_or(0)).collect();
            let durable = pass.ack.filter(|_| self.keeping.ack == AckLevel::Durable).map(Ack::split);
            pass.due.submission.frames.push(Frame { content: Content::Held(piece, ids), durable });
        }
    }

    fn filter(
        &mut self,
        g: usize,
        bytes: &[u8],
        segs: &[Seg],
        now: Instant,
        origin: (u32, Option<usize>),
    ) -> Filtered {
        let Some(group) = self.groups.get_mut(g) else {
            return Filtered {
                bytes: Some(Vec::new()),
                segs: SmallVec::new(),
                count: 0,
                tally: Tally::default(),
                moved: Moved::default(),
            };
        };
        let route = Arc::clone(&group.route);
        let filtered = route.program.run(bytes, segs, &mut group.lanes, &mut self.work, now, origin);
        if route.program.stateful() {
            let next = segs.iter().filter_map(|s| group.lanes.get(&s.tag)?.deadline()).min();
            self.deadline = [self.deadline, next].into_iter().flatten().min();
            self.weigh();
        }
        filtered
    }

    /// Charges what filters hold to the budget.
    fn weigh(&mut self) {
        let held: usize = self.groups.iter().flat_map(|g| g.lanes.values()).map(Lane::bytes).sum();
        self.holding.grow_to(held as u64);
        self.holding.shrink_to(held as u64);
    }

    /// Counts what a run did, hands over what is left, and runs what moved under its new tags.
    fn after(
        &mut self,
        route: &Arc<Route>,
        filtered: Filtered,
        whole: Option<Part>,
        hops: u32,
        pass: &mut Pass<'_>,
    ) {
        let Filtered { bytes, segs, count, tally, moved } = filtered;
        let p = &self.wiring.totals.pipeline;
        if tally != Tally::default() {
            p.filtered.fetch_add(tally.filtered, Relaxed);
            p.joined.fetch_add(tally.joined, Relaxed);
            p.made.fetch_add(tally.made, Relaxed);
            // In this order: what is released may have been held in the same run.
            p.holding.fetch_add(tally.held, Relaxed);
            p.holding.fetch_sub(tally.released, Relaxed);
            self.held = (self.held + tally.held).saturating_sub(tally.released);
        }
        if count > 0 {
            let part = match (bytes, whole) {
                (Some(bytes), _) => Part::new(fitting(bytes), segs),
                (None, Some(part)) => part,
                (None, None) => Part::new(Vec::new(), segs),
            };
            self.hand_over(route, part, pass);
        }
        let mut start = 0;
        let mut list = moved.list.into_iter().peekable();
        while let Some((mut end, tag, from)) = list.next() {
            let mut count = 1;
            while let Some((next, ..)) = list.next_if(|(_, t, f)| *t == tag && *f == from) {
                end = next;
                count += 1;
            }
            let entries = Bytes::copy_from_slice(moved.bytes.get(start..end).unwrap_or_default());
            start = end;
            let mut segs = SmallVec::new();
            segs.push(Seg { tag, end: entries.len(), count });
            self.run_moved(Part { bytes: entries, segs, spare: 0 }, from, hops + 1, pass);
        }
    }

    /// Runs records of one tag, moved by filter `from`, through the route of that tag.
    fn run_moved(&mut self, part: Part, from: usize, hops: u32, pass: &mut Pass<'_>) {
        let Some(tag) = part.segs.first().map(|s| s.tag.clone()) else { return };
        let g = match self.tags.get(&tag) {
            Some(group) => *group,
            None => self.learn(tag.as_bytes()).1,
        };
        self.restore(pass);
        let Some(route) = self.groups.get(g).map(|group| Arc::clone(&group.route)) else { return };
        if route.program.is_empty() {
            self.hand_over(&route, part, pass);
            return;
        }
        let filtered = self.filter(g, &part.bytes, &part.segs, pass.now, (hops, Some(from)));
        self.after(&route, filtered, Some(part), hops, pass);
    }

    fn hand_over(&mut self, route: &Route, part: Part, pass: &mut Pass<'_>) {
        let Part { bytes, segs, spare } = part;
        let count = segs.iter().map(|s| s.count).sum();
        let p = &self.wiring.totals.pipeline;
        let only = self.keeping.only;
        let outputs = only.as_ref().map_or(route.outputs.as_slice(), std::slice::from_ref);
        if outputs.is_empty() {
            p.unrouted.fetch_add(count, Relaxed);
            return;
        }
        p.routed.fetch_add(count, Relaxed);
        let size = bytes.len() as u64;
        let charge = self.wiring.budget.take(size + spare as u64);
        if let Some(store) = &self.keeping.store {
            for &output in outputs {
                if let Some(counters) = store.counters(output) {
                    counters.routed.fetch_add(count, Relaxed);
                    counters.held.fetch_add(count, Relaxed);
                }
            }
            for chunk in store::frames(Chunk { charge, meter: None, bytes, segs, count }) {
                let ack = |level| pass.ack.filter(|_| self.keeping.ack == level).map(Ack::split);
                let (durable, delivered) = (ack(AckLevel::Durable), ack(AckLevel::Delivered));
                let owed = outputs.iter().copied().collect();
                let content = Content::Records { chunk, owed, delivered };
                pass.due.submission.frames.push(Frame { content, durable });
            }
            return;
        }
        let meter = Some(self.keeping.meter.charge(size));
        let chunk = Arc::new(Chunk { charge, meter, bytes, segs, count });
        for &output in outputs {
            if let Some(queue) = self.wiring.queues.get(output) {
                let delivery = queue.deliver(Arc::clone(&chunk), pass.ack.map(Ack::split));
                pass.due.deliveries.push((output, delivery));
            }
        }
    }

    /// Lets filters emit what is due, or everything.
    fn wake(&mut self, everything: bool) -> Due {
        let mut pass = Pass::new(None);
        self.restore(&mut pass);
        let now = pass.now;
        for g in 0..self.groups.len() {
            let Some(group) = self.groups.get_mut(g) else { break };
            let route = Arc::clone(&group.route);
            let mut lanes = std::mem::take(&mut group.lanes);
            for (tag, lane) in &mut lanes {
                if everything || lane.deadline().is_some_and(|d| d <= now) {
                    let filtered = route.program.wake(tag, lane, &mut self.work, now, everything);
                    self.after(&route, filtered, None, 0, &mut pass);
                }
            }
            if let Some(group) = self.groups.get_mut(g) {
                // A record that moved in the meantime may have opened a lane of its own.
                lanes.extend(std::mem::take(&mut group.lanes));
                group.lanes = lanes;
            }
        }
        // Idle states are let go: a client that names a new tag for each record must not pile them up.
        for group in &mut self.groups {
            group.lanes.retain(|_, lane| lane.bytes() > 0);
        }
        self.deadline = self.groups.iter().flat_map(|g| g.lanes.values()).filter_map(Lane::deadline).min();
        self.weigh();
        self.account_for_holds(&mut pass);
        pass.due
    }

    fn enqueue(&self, due: Due) -> BoxFuture<'static, ()> {
        Box::pin(enqueue(Arc::clone(&self.wiring), self.keeping.clone(), self.refusals.letters(), due))
    }
}

/// Runs what filters held at the last stop and no source has asked for since: their senders may be gone for good. They
/// go out as a group does whose next line does not come.
pub(super) async fn release_restored(mut collector: Collector, mut stop: Stop) {
    tokio::select! {
        _ = stop.draining() => return,
        () = tokio::time::sleep(RESTORE) => {}
    }
    let Some(held) = collector.keeping.store.as_ref().map(Store::all_held) else { return };
    for (tag, records) in held {
        let (_, group) = collector.learn(&tag);
        collector.restored.push((group, records));
    }
    let due = collector.process(None);
    collector.enqueue(due).await;
    collector.finish().await;
}

impl Intake for Collector {
    fn push(&mut self, tag: &[u8], time: Option<Time>, metadata: Option<&[u8]>, record: &[u8]) {
        let time = time.unwrap_or_else(Time::now);
        self.append(tag, |out| {
            entry::write_head(out, time, metadata);
            out.extend_from_slice(record);
        });
    }

    fn push_raw(&mut self, tag: &[u8], time_and_record: &[u8]) {
        self.append(tag, |out| {
            out.push(0x92);
            out.extend_from_slice(time_and_record);
        });
    }

    fn push_entries(&mut self, tag: &[u8], entries: Bytes, count: u64) {
        if count == 0 {
            return;
        }
        self.received += count;
        self.collected += entries.len();
        self.locate(tag);
        let Some((tag, g)) = &self.last else { return };
        let Some(group) = self.groups.get_mut(*g) else { return };
        if entries.len() < WORTH_LENDING {
            group.open.extend_from_slice(&entries);
            group.add_to_open(tag, count);
            return;
        }
        group.seal();
        let mut segs = SmallVec::new();
        segs.push(Seg { tag: tag.clone(), end: entries.len(), count });
        group.sealed.push(Part { bytes: entries, segs, spare: 0 });
    }

    fn refuse(&mut self, why: Refusal, count: u64, tag: &[u8], bytes: &[u8], reason: &str) {
        match why {
            Refusal::Undecodable => self.collected += self.refusals.add(count, tag, bytes, reason),
            // Its sender has it, and knows.
            Refusal::OutsideTime => {}
        }
        let p = &self.wiring.totals.pipeline;
        p.received.fetch_add(count, Relaxed);
        p.refused.fetch_add(count, Relaxed);
    }

    fn collected(&self) -> usize {
        self.collected
    }

    fn flush(&mut self, ack: bool) -> BoxFuture<'_, Option<AckWait>> {
        let (wait, token) = match ack.then(|| AckWait::new(Arc::clone(&self.settled))) {
            Some((wait, token)) => (Some(wait), Some(token)),
            None => (None, None),
        };
        let due = self.process(token.as_ref());
        if let Some(token) = token {
            token.done();
        }
        let enqueued = self.enqueue(due);
        Box::pin(async move {
            enqueued.await;
            wait
        })
    }

    fn settled(&self) -> Arc<Notify> {
        Arc::clone(&self.settled)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expire(&mut self) -> BoxFuture<'_, ()> {
        let due = self.wake(false);
        self.enqueue(due)
    }

    fn finish(&mut self) -> BoxFuture<'_, ()> {
        let due = self.process(None);
        let first = self.enqueue(due);
        if self.keeping.store.is_some() && self.keeping.stop.is_draining() {
            // What filters hold is on disk: the next start joins it with what comes then.
            self.wiring.totals.pipeline.kept.fetch_add(std::mem::take(&mut self.held), Relaxed);
            return first;
        }
        let due = self.wake(true);
        let rest = self.enqueue(due);
        Box::pin(async move {
            first.await;
            rest.await;
        })
    }
}
