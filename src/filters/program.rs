//! The filters of one route as one program over each record.
//!
//! Enters: a run of entries with their tags. Leaves: the same bytes when nothing changed, else new ones, the records that
//! moved to other tags, and a [`Tally`]. Records are walked once; what filters emit under the same tag passes the program
//! again from the first step, except the steps that emitted it, and stands before the record at hand.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use smallvec::SmallVec;

use super::{Context, Emission, Emitter, Filter, Hold, Verdict};
use crate::observe::counters;
use crate::record::{HELD_COUNT_BITS, Record, Scratch, Seg, Tag};

/// At most this many filters may match one tag (a bit each).
pub const MAX_STEPS: usize = 128;
/// A record that came under this many tags is not moved again.
pub const MAX_HOPS: u32 = 16;

/// One filter of a program.
pub struct Step {
    /// Its position among all filters of the configuration.
    pub index: usize,
    /// What it does.
    pub filter: Arc<dyn Filter>,
    /// What it counts.
    pub counters: Arc<counters::Filter>,
}

/// The filters of one route, in order.
pub struct Program {
    steps: Vec<Step>,
    stateful: bool,
}

/// The states of one tag on one connection.
#[derive(Default)]
pub struct Lane {
    holds: Vec<Option<Box<dyn Hold>>>,
}

/// What one worker reuses from chunk to chunk.
#[derive(Default)]
pub struct Workspace {
    emitter: Emitter,
    scratch: Vec<Scratch>,
    /// What happens to stored copies of records that are held back; `None`: nothing is stored.
    pub holds: Option<Holds>,
}

/// The account of records that are held back and have a stored copy.
pub struct Holds {
    numbers: Arc<AtomicU64>,
    /// The numbers of the records at hand, which are stored already (they come again after a start).
    pub known: VecDeque<u64>,
    /// Newly held records, as they came: entries back to back.
    bytes: Vec<u8>,
    held: Vec<(usize, Tag, u64)>,
    freed: Vec<u64>,
}

/// A record that is held back, as it came.
#[derive(Debug)]
pub struct Held {
    /// Its number: the count in the lower [`HELD_COUNT_BITS`], and above them the filter that moved it to its tag, plus one.
    pub id: u64,
    /// Its tag.
    pub tag: Tag,
    /// Where its entry ends.
    pub end: usize,
}

impl Holds {
    /// An account that takes new numbers from `numbers`.
    pub fn new(numbers: Arc<AtomicU64>) -> Self {
        Holds { numbers, known: VecDeque::new(), bytes: Vec::new(), held: Vec::new(), freed: Vec::new() }
    }

    fn number(&self, from: Option<usize>) -> u64 {
        let count = self.numbers.fetch_add(1, Relaxed) & ((1 << HELD_COUNT_BITS) - 1);
        from.map_or(0, |f| f as u64 + 1) << HELD_COUNT_BITS | count
    }

    /// What was held and is not let go again, with its bytes, and the numbers of those held before that were let go.
    pub fn take(&mut self) -> (Vec<u8>, Vec<Held>, Vec<u64>) {
        let (bytes, held) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.held));
        let mut freed = std::mem::take(&mut self.freed);
        if held.is_empty() {
            return (Vec::new(), Vec::new(), freed);
        }
        freed.sort_unstable();
        let (mut left, mut list, mut passing, mut start) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (end, tag, id) in held {
            if freed.binary_search(&id).is_ok() {
                passing.push(id);
            } else {
                left.extend_from_slice(bytes.get(start..end).unwrap_or_default());
                list.push(Held { id, tag, end: left.len() });
            }
            start = end;
        }
        passing.sort_unstable();
        freed.retain(|id| passing.binary_search(id).is_err());
        (left, list, freed)
    }
}

impl Workspace {
    /// Fresh, with an account of held records where they are stored.
    pub fn new(holds: Option<Holds>) -> Self {
        Workspace { holds, ..Workspace::default() }
    }
}

/// What became of the records, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Dropped on purpose.
    pub filtered: u64,
    /// Newly held back.
    pub held: u64,
    /// No longer held back.
    pub released: u64,
    /// Became part of another record.
    pub joined: u64,
    /// Copies.
    pub made: u64,
}

/// Records that go on under another tag, in order.
#[derive(Debug, Default)]
pub struct Moved {
    /// Entries back to back.
    pub bytes: Vec<u8>,
    /// The end of each, its tag, and the filter that moved it.
    pub list: Vec<(usize, Tag, usize)>,
}

/// The result of one run.
pub struct Filtered {
    /// `None`: nothing changed, the chunk is passed on as it is.
    pub bytes: Option<Vec<u8>>,
    /// Segments of what is left.
    pub segs: SmallVec<[Seg; 1]>,
    /// Records that are left.
    pub count: u64,
    /// The others.
    pub tally: Tally,
    /// Those that moved.
    pub moved: Moved,
}

/// Output of a run: untouched records are remembered as ranges of the source and copied as runs.
struct Sink<'s> {
    source: &'s [u8],
    out: Vec<u8>,
    run: Range<usize>,
    count: u64,
}

impl Sink<'_> {
    fn keep(&mut self, range: Range<usize>) {
        self.count += 1;
        if self.run.end == range.start {
            self.run.end = range.end;
        } else {
            self.settle();
            self.run = range;
        }
    }

    /// Copies the pending run; what is written next comes after it.
    fn settle(&mut self) {
        if self.out.capacity() == 0 {
            // Filters mostly add a little to each record; one allocation should do.
            self.out.reserve(self.source.len() + self.source.len() / 2 + 64);
        }
        self.out.extend_from_slice(self.source.get(self.run.clone()).unwrap_or_default());
        self.run = self.run.end..self.run.end;
    }

    fn len(&self) -> usize {
        self.out.len() + self.run.len()
    }
}

struct Run<'r, 's> {
    program: &'r Program,
    tag: &'r Tag,
    lane: Option<&'r mut Lane>,
    now: Instant,
    may_move: bool,
    /// The filter that moved the records to this tag.
    from: Option<usize>,
    work: &'r mut Workspace,
    sink: &'r mut Sink<'s>,
    tally: &'r mut Tally,
    moved: &'r mut Moved,
}

impl Program {
    /// A program of these steps; at most [`MAX_STEPS`].
    pub fn new(steps: Vec<Step>) -> Self {
        let stateful = steps.iter().any(|s| s.filter.hold().is_some());
        Program { steps, stateful }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether it has filters that hold records back: then it needs a [`Lane`] for each tag.
    pub fn stateful(&self) -> bool {
        self.stateful
    }

    /// Fresh states.
    pub fn lane(&self) -> Lane {
        Lane { holds: self.steps.iter().map(|s| s.filter.hold()).collect() }
    }

    /// Runs over entries. `hops` counts the tags that the records came under before; `from` is the filter that moved
    /// them here and does not see them again.
    pub fn run(
        &self,
        source: &[u8],
        segs: &[Seg],
        lanes: &mut HashMap<Tag, Lane, foldhash::fast::RandomState>,
        work: &mut Workspace,
        now: Instant,
        (hops, from): (u32, Option<usize>),
    ) -> Filtered {
        let skip = from.and_then(|f| self.steps.iter().position(|s| s.index == f)).map_or(0, |i| 1 << i);
        let mut sink = Sink { source, out: Vec::new(), run: 0..0, count: 0 };
        let (mut tally, mut moved) = (Tally::default(), Moved::default());
        let mut left: SmallVec<[Seg; 1]> = SmallVec::new();
        let mut pos = 0;
        for seg in segs {
            let lane = self.stateful.then(|| lanes.entry(seg.tag.clone()).or_insert_with(|| self.lane()));
            let before = sink.count;
            let mut run = Run {
                program: self,
                tag: &seg.tag,
                lane,
                now,
                may_move: hops < MAX_HOPS,
                from,
                work: &mut *work,
                sink: &mut sink,
                tally: &mut tally,
                moved: &mut moved,
            };
            while pos < seg.end {
                let Some(end) = run.record(None, pos, skip) else { break };
                pos = end;
            }
            pos = seg.end;
            run.end_of_chunk();
            if sink.count > before {
                left.push(Seg { tag: seg.tag.clone(), end: sink.len(), count: sink.count - before });
            }
        }
        let unchanged = sink.out.is_empty() && sink.run == (0..source.len());
        if !unchanged && !sink.run.is_empty() {
            sink.settle();
        }
        let count = sink.count;
        Filtered { bytes: (!unchanged).then_some(sink.out), segs: left, count, tally, moved }
    }

    /// Lets the states of one tag emit: what has waited long enough, or everything.
    pub fn wake(
        &self,
        tag: &Tag,
        lane: &mut Lane,
        work: &mut Workspace,
        now: Instant,
        everything: bool,
    ) -> Filtered {
        let mut sink = Sink { source: &[], out: Vec::new(), run: 0..0, count: 0 };
        let (mut tally, mut moved) = (Tally::default(), Moved::default());
        let mut run = Run {
            program: self,
            tag,
            lane: Some(lane),
            now,
            may_move: true,
            from: None,
            work,
            sink: &mut sink,
            tally: &mut tally,
            moved: &mut moved,
        };
        for i in 0..self.steps.len() {
            run.wake(i, everything);
        }
        let count = sink.count;
        let mut segs = SmallVec::new();
        if count > 0 {
            segs.push(Seg { tag: tag.clone(), end: sink.out.len(), count });
        }
        Filtered { bytes: Some(sink.out), segs, count, tally, moved }
    }
}

impl Lane {
    /// When its states want to be woken.
    pub fn deadline(&self) -> Option<Instant> {
        self.holds.iter().flatten().filter_map(|h| h.deadline()).min()
    }

    /// Bytes its states hold.
    pub fn bytes(&self) -> usize {
        self.holds.iter().flatten().map(|h| h.bytes()).sum()
    }
}

impl Run<'_, '_> {
    /// Runs the steps over the record at `pos` of `other`, or of the source. Returns where it ends.
    fn record(&mut self, other: Option<&[u8]>, pos: usize, skip: u128) -> Option<usize> {
        let source = other.unwrap_or(self.sink.source);
        let mut scratch = self.work.scratch.pop().unwrap_or_default();
        let Some((mut record, end)) = Record::open_next(source, pos, &mut scratch) else {
            self.work.scratch.push(scratch);
            return None;
        };
        let mut fate = Verdict::Keep;
        let mut emitted = false;
        // Of a record that is stored already, or of one that a filter looks at which may hold it back.
        let known = match &mut self.work.holds {
            Some(holds) if other.is_none() => holds.known.pop_front(),
            _ => None,
        };
        let mut id = known.unwrap_or(0);
        for (i, step) in self.program.steps.iter().enumerate() {
            if skip & (1 << i) != 0 {
                continue;
            }
            let hold = self.lane.as_mut().and_then(|l| l.holds.get_mut(i)).and_then(Option::as_mut);
            if id == 0
                && hold.is_some()
                && let Some(holds) = &self.work.holds
            {
                id = holds.number(self.from);
            }
            let mut cx = Context {
                tag: self.tag,
                now: self.now,
                emit: &mut self.work.emitter,
                may_move: self.may_move,
                id,
            };
            let from = cx.emit.list.len();
            fate = match hold {
                Some(hold) => hold.push(&mut record, &mut cx),
                None => step.filter.apply(&mut record, &mut cx),
            };
            if self.work.emitter.list.len() > from {
                emitted = true;
                for e in self.work.emitter.list.iter_mut().skip(from) {
                    e.step = i;
                }
            }
            match fate {
                Verdict::Keep => continue,
                Verdict::Drop => {
                    self.tally.filtered += 1;
                    step.counters.dropped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                Verdict::Hold => self.tally.held += 1,
                Verdict::Moved => {}
            }
            break;
        }
        if emitted {
            self.emitted(skip);
        }
        if let Some(holds) = &mut self.work.holds {
            match (fate, known) {
                (Verdict::Hold, None) => {
                    holds.bytes.extend_from_slice(source.get(pos..end).unwrap_or_default());
                    holds.held.push((holds.bytes.len(), self.tag.clone(), id));
                }
                (Verdict::Hold, Some(_)) | (_, None) => {}
                (_, Some(id)) => holds.freed.push(id),
            }
        }
        if fate == Verdict::Keep {
            if other.is_none() && !record.changed() {
                self.sink.keep(pos..end);
            } else {
                self.sink.settle();
                record.encode(&mut self.sink.out);
                self.sink.count += 1;
                if other.is_none() {
                    self.sink.run = end..end;
                }
            }
        }
        self.work.scratch.push(scratch);
        Some(end)
    }

    /// Routes what the steps have emitted: same tag, through the program again; other tags, to `moved`.
    fn emitted(&mut self, skip: u128) {
        let mut list = std::mem::take(&mut self.work.emitter.list);
        let mut bytes = std::mem::take(&mut self.work.emitter.bytes);
        let mut start = 0;
        for Emission { end, tag, parts, ids, made, step } in list.drain(..) {
            let entry = bytes.get(start..end).unwrap_or_default();
            start = end;
            self.tally.made += u64::from(made);
            if parts > 0 {
                self.tally.released += parts;
                self.tally.joined += parts - 1;
            }
            if let Some(holds) = &mut self.work.holds {
                holds.freed.extend(ids);
            }
            let Some(index) = self.program.steps.get(step).map(|s| {
                s.counters.added.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                s.index
            }) else {
                continue;
            };
            match tag {
                Some(tag) => {
                    self.moved.bytes.extend_from_slice(entry);
                    self.moved.list.push((self.moved.bytes.len(), tag, index));
                }
                None => {
                    self.record(Some(entry), 0, skip | 1 << step);
                }
            }
        }
        // Give the memory back, unless a nested run has left something of its own (it never does).
        bytes.clear();
        if self.work.emitter.list.is_empty() {
            self.work.emitter = Emitter { bytes, list };
        }
    }

    fn hold(&mut self, i: usize, ask: impl FnOnce(&mut dyn Hold, &mut Emitter)) {
        let Some(hold) = self.lane.as_mut().and_then(|l| l.holds.get_mut(i)).and_then(Option::as_mut) else {
            return;
        };
        ask(hold.as_mut(), &mut self.work.emitter);
        if !self.work.emitter.list.is_empty() {
            for e in &mut self.work.emitter.list {
                e.step = i;
            }
            self.emitted(0);
        }
    }

    fn wake(&mut self, i: usize, everything: bool) {
        let now = self.now;
        self.hold(i, |hold, emit| if everything { hold.release(emit) } else { hold.expire(now, emit) });
    }

    fn end_of_chunk(&mut self) {
        if self.lane.is_some() {
            for i in 0..self.program.steps.len() {
                self.hold(i, |hold, emit| hold.end_of_chunk(emit));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::FilterKind;
    use crate::wire::{entry, msgpack};

    /// Drops `drop`, moves `move`, joins pairs of `a`, renames nothing else.
    struct Probe;
    #[derive(Default)]
    struct Pairs(Vec<Vec<u8>>);

    fn text<'r>(record: &'r Record<'_>) -> &'r [u8] {
        record.get(b"log").map(msgpack::content).unwrap_or_default()
    }

    impl Filter for Probe {
        fn apply(&self, record: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict {
            match text(record) {
                b"drop" => Verdict::Drop,
                b"move" if cx.may_move => {
                    cx.emit.moved(Tag::new(b"other"), record);
                    Verdict::Moved
                }
                b"copy" => {
                    cx.emit.copied(Tag::new(b"other"), record);
                    Verdict::Keep
                }
                b"mark" => {
                    record.set(b"seen", |out| msgpack::write_bool(out, true));
                    Verdict::Keep
                }
                _ => Verdict::Keep,
            }
        }
    }

    struct Joining;
    impl Filter for Joining {
        fn apply(&self, _: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
            Verdict::Keep
        }
        fn hold(&self) -> Option<Box<dyn Hold>> {
            Some(Box::new(Pairs::default()))
        }
    }
    impl Hold for Pairs {
        fn push(&mut self, record: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict {
            if text(record) != b"a" {
                return Verdict::Keep;
            }
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            self.0.push(bytes);
            if self.0.len() == 2 {
                self.release(cx.emit);
            }
            Verdict::Hold
        }
        fn deadline(&self) -> Option<Instant> {
            None
        }
        fn expire(&mut self, _: Instant, _: &mut Emitter) {}
        fn release(&mut self, emit: &mut Emitter) {
            let parts = std::mem::take(&mut self.0);
            if let Some(first) = parts.first() {
                emit.joined(parts.len() as u64, &[], |out| out.extend_from_slice(first));
            }
        }
        fn bytes(&self) -> usize {
            self.0.iter().map(Vec::len).sum()
        }
    }

    fn program(filters: Vec<Arc<dyn Filter>>) -> Program {
        Program::new(
            filters
                .into_iter()
                .enumerate()
                .map(|(index, filter)| Step { index, filter, counters: Arc::default() })
                .collect(),
        )
    }

    fn entries(logs: &[&str]) -> (Vec<u8>, Vec<Seg>) {
        let mut out = Vec::new();
        for log in logs {
            entry::write_head(&mut out, crate::record::Time::new(1, 0), None);
            msgpack::write_map(&mut out, 1);
            msgpack::write_str(&mut out, b"log");
            msgpack::write_str(&mut out, log.as_bytes());
        }
        let seg = Seg { tag: Tag::new(b"t"), end: out.len(), count: logs.len() as u64 };
        (out, vec![seg])
    }

    fn run(program: &Program, logs: &[&str]) -> (Filtered, Vec<String>) {
        let (bytes, segs) = entries(logs);
        let mut lanes = HashMap::default();
        let done =
            program.run(&bytes, &segs, &mut lanes, &mut Workspace::default(), Instant::now(), (0, None));
        let left = done.bytes.clone().unwrap_or(bytes);
        let mut logs = Vec::new();
        let (mut pos, mut scratch) = (0, Scratch::default());
        while pos < left.len() {
            let (record, end) = Record::open_next(&left, pos, &mut scratch).unwrap();
            logs.push(String::from_utf8_lossy(text(&record)).into_owned());
            pos = end;
        }
        (done, logs)
    }

    #[test]
    fn a_chunk_that_no_filter_changes_is_passed_on_as_it_is() {
        let (done, _) = run(&program(vec![Arc::new(Probe)]), &["x", "y"]);
        assert!(done.bytes.is_none());
        assert_eq!((done.count, done.segs[0].count), (2, 2));
    }

    #[test]
    fn dropped_moved_and_copied_records_are_all_accounted_for() {
        let (done, left) = run(&program(vec![Arc::new(Probe)]), &["x", "drop", "move", "copy", "mark", "y"]);
        assert_eq!(left, ["x", "copy", "mark", "y"]);
        assert_eq!(done.tally, Tally { filtered: 1, made: 1, ..Tally::default() });
        assert_eq!(done.moved.list.len(), 2);
        assert_eq!(done.segs[0].end, done.bytes.unwrap().len());
    }

    #[test]
    fn a_joined_record_stands_before_the_record_that_follows_and_passes_the_other_filters() {
        let (done, left) =
            run(&program(vec![Arc::new(Probe), Arc::new(Joining)]), &["x", "a", "y", "a", "z", "a"]);
        assert_eq!(left, ["x", "y", "a", "z"]);
        assert_eq!(done.tally, Tally { held: 3, released: 2, joined: 1, ..Tally::default() });
    }

    #[test]
    fn what_is_held_comes_out_on_release() {
        let program = program(vec![Arc::new(Joining)]);
        let (bytes, segs) = entries(&["a"]);
        let (mut lanes, mut work) = (HashMap::default(), Workspace::default());
        program.run(&bytes, &segs, &mut lanes, &mut work, Instant::now(), (0, None));
        let tag = Tag::new(b"t");
        let done = program.wake(&tag, lanes.get_mut(&tag).unwrap(), &mut work, Instant::now(), true);
        assert_eq!((done.count, done.tally.released, done.tally.joined), (1, 1, 0));
    }

    #[test]
    fn every_filter_has_a_name_and_a_summary() {
        let kinds: &[&FilterKind] = crate::filters::KINDS;
        assert!(kinds.iter().all(|k| !k.info.name.is_empty() && !k.info.summary.is_empty()));
    }
}
