//! The streams that have something to send, and whose turn it is.
//!
//! Enters: runs of records with the names of their stream. Leaves: streams that are due: they have a full batch, a sender
//! that waits, or have lingered long enough. One call at a time for each stream, so that its order is kept. Bounded: at
//! most [`STREAMS`] are known; idle ones are forgotten first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, EVENTS, Run};

/// Streams known at a time. When more have something to send, those that linger go out first.
const STREAMS: usize = 4096;
/// Records of so many bytes make a full batch, more or less: JSON is a little longer than what it is made of.
const FULL: usize = 900 << 10;

/// Runs pending at a time. When names come from records, each record may be a run of its own.
const RUNS: usize = 1 << 17;

/// A stream's number here.
pub(super) type StreamId = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing to send.
    Idle,
    /// It waits for more records until then.
    Lingering(Instant),
    /// Its last call failed: it waits until then.
    Backing(Instant),
    /// It waits for its turn.
    Ready,
    /// A call is on its way.
    Busy,
}

/// A log stream.
pub(super) struct Stream {
    pub(super) group: Arc<str>,
    pub(super) name: Arc<str>,
    /// Records that are in no batch yet.
    pub(super) pending: VecDeque<Run>,
    /// Batches that have to go before them: tried before, or halves of one.
    pub(super) again: VecDeque<Batch>,
    /// Bytes and records pending, more or less.
    bytes: usize,
    records: u64,
    /// A sender waits for an ack of some of them.
    urgent: bool,
    state: State,
    /// When its last call began.
    sent: Option<Instant>,
    /// Calls in a row that were put off.
    pub(super) put_off: u32,
}

/// All of them.
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<StreamId>,
    by_name: HashMap<Box<[u8]>, StreamId, foldhash::fast::RandomState>,
    ready: VecDeque<StreamId>,
    lingering: BTreeSet<(Instant, StreamId)>,
    backing: BTreeSet<(Instant, StreamId)>,
    idle: VecDeque<StreamId>,
    linger: Duration,
    /// Runs pending in all of them.
    runs: usize,
}

impl Streams {
    pub(super) fn new(linger: Duration) -> Streams {
        Streams {
            slots: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::default(),
            ready: VecDeque::new(),
            lingering: BTreeSet::new(),
            backing: BTreeSet::new(),
            idle: VecDeque::new(),
            linger,
            runs: 0,
        }
    }

    /// Whether more runs may be added.
    pub(super) fn has_room(&self) -> bool {
        self.runs < RUNS
    }

    /// A batch took so many bytes, runs and records of a stream.
    pub(super) fn took(&mut self, id: StreamId, bytes: usize, runs: usize, records: u64) {
        self.runs = self.runs.saturating_sub(runs);
        let Some(stream) = self.get(id) else { return };
        stream.bytes = stream.bytes.saturating_sub(bytes);
        stream.records = stream.records.saturating_sub(records);
    }

    /// Whether this is the stream of these names.
    pub(super) fn is(&self, id: StreamId, group: &[u8], name: &[u8]) -> bool {
        let stream = self.slots.get(id as usize).and_then(Option::as_ref);
        stream.is_some_and(|s| s.group.as_bytes() == group && s.name.as_bytes() == name)
    }

    /// The stream of these names; `None` when too many others have something to send.
    pub(super) fn find(&mut self, group: &[u8], name: &[u8]) -> Option<StreamId> {
        // Neither name can hold this byte.
        let key = [group, name].join(&0xff);
        if let Some(id) = self.by_name.get(&key[..]) {
            return Some(*id);
        }
        if self.by_name.len() >= STREAMS && !self.forget_one() {
            return None;
        }
        let text = |bytes: &[u8]| Arc::<str>::from(String::from_utf8_lossy(bytes));
        let stream = Stream {
            group: text(group),
            name: text(name),
            pending: VecDeque::new(),
            again: VecDeque::new(),
            bytes: 0,
            records: 0,
            urgent: false,
            state: State::Idle,
            sent: None,
            put_off: 0,
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as StreamId
            }
        };
        *self.slots.get_mut(id as usize)? = Some(stream);
        self.by_name.insert(key.into(), id);
        self.idle.push_back(id);
        Some(id)
    }

    /// Forgets the stream that has been idle for longest. Says whether there was one.
    fn forget_one(&mut self) -> bool {
        while let Some(id) = self.idle.pop_front() {
            let Some(slot) = self.slots.get_mut(id as usize) else { continue };
            // It may have been used since it was put here.
            if let Some(stream) = slot.take_if(|s| s.state == State::Idle) {
                let key = [stream.group.as_bytes(), stream.name.as_bytes()].join(&0xff);
                self.by_name.remove(&key[..]);
                self.free.push(id);
                return true;
            }
        }
        false
    }

    pub(super) fn get(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    /// Adds records to a stream. `urgent`: a sender waits for their ack.
    pub(super) fn add(&mut self, id: StreamId, run: Run, records: u64, urgent: bool, now: Instant) {
        let linger = self.linger;
        let Some(stream) = self.get(id) else { return };
        stream.bytes += run.end - run.start;
        stream.records += records;
        stream.urgent |= urgent;
        let mut more = 0;
        match stream.pending.back_mut() {
            Some(last) if last.parcel == run.parcel && last.end == run.start => last.end = run.end,
            _ => {
                stream.pending.push_back(run);
                more = 1;
            }
        }
        let state = stream.state;
        let due = stream.sent.map_or(now, |sent| sent + linger);
        let is_due = stream.is_due();
        self.runs += more;
        match state {
            State::Idle => self.plan(id, due, now),
            State::Lingering(due) if is_due => {
                self.lingering.remove(&(due, id));
                self.set(id, State::Ready);
            }
            _ => {}
        }
    }

    /// Lets a stream with something to send linger until `due`, unless it is due for other reasons.
    fn plan(&mut self, id: StreamId, due: Instant, now: Instant) {
        let Some(stream) = self.get(id) else { return };
        let state = if due <= now || stream.is_due() || !stream.again.is_empty() {
            State::Ready
        } else {
            State::Lingering(due)
        };
        self.set(id, state);
    }

    fn set(&mut self, id: StreamId, state: State) {
        let Some(stream) = self.get(id) else { return };
        stream.state = state;
        match state {
            State::Idle => {
                // Kept in the order in which they became idle; those that were used again are passed over when it is
                // their turn to be forgotten.
                if self.idle.len() > 2 * STREAMS {
                    let slots = &self.slots;
                    let mut seen = std::collections::HashSet::new();
                    self.idle.retain(|id| {
                        let idle = slots.get(*id as usize).and_then(|s| s.as_ref());
                        idle.is_some_and(|s| s.state == State::Idle) && seen.insert(*id)
                    });
                }
                self.idle.push_back(id);
            }
            State::Lingering(at) => {
                self.lingering.insert((at, id));
            }
            State::Backing(at) => {
                self.backing.insert((at, id));
            }
            State::Ready => self.ready.push_back(id),
            State::Busy => {}
        }
    }

    /// When the next stream becomes due by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, StreamId)>| set.first().map(|(at, _)| *at);
        [first(&self.lingering), first(&self.backing)].into_iter().flatten().min()
    }

    /// Makes those ready whose time has come. `at_once`: nothing lingers any more. `hurry`: no back-off is waited out for
    /// longer than this.
    pub(super) fn wake(&mut self, now: Instant, at_once: bool, hurry: Option<Duration>) {
        while let Some((due, id)) = self.lingering.first().copied()
            && (at_once || due <= now)
        {
            self.lingering.remove(&(due, id));
            self.set(id, State::Ready);
        }
        if let Some(hurry) = hurry
            && self.backing.last().is_some_and(|(due, _)| *due > now + hurry)
        {
            for (due, id) in std::mem::take(&mut self.backing) {
                self.set(id, State::Backing(due.min(now + hurry)));
            }
        }
        while let Some((due, id)) = self.backing.first().copied()
            && due <= now
        {
            self.backing.remove(&(due, id));
            self.set(id, State::Ready);
        }
    }

    /// The stream that has lingered for longest need not linger any more. Says whether there was one.
    pub(super) fn hurry_one(&mut self) -> bool {
        let Some((due, id)) = self.lingering.pop_first() else { return false };
        debug_assert!(self.get(id).is_some_and(|s| s.state == State::Lingering(due)));
        self.set(id, State::Ready);
        true
    }

    /// The next stream to make a call for; it is busy from now on.
    pub(super) fn next(&mut self, now: Instant) -> Option<StreamId> {
        let id = self.ready.pop_front()?;
        let stream = self.get(id)?;
        stream.state = State::Busy;
        stream.sent = Some(now);
        Some(id)
    }

    /// Its call is done, or there was nothing to call for.
    pub(super) fn done(&mut self, id: StreamId, now: Instant) {
        let linger = self.linger;
        let Some(stream) = self.get(id) else { return };
        if stream.pending.is_empty() {
            (stream.bytes, stream.records, stream.urgent) = (0, 0, false);
        }
        if stream.pending.is_empty() && stream.again.is_empty() {
            return self.set(id, State::Idle);
        }
        let due = stream.sent.map_or(now, |sent| sent + linger);
        self.plan(id, due, now);
    }

    /// Its call failed: it waits.
    pub(super) fn back_off(&mut self, id: StreamId, until: Instant) {
        self.set(id, State::Backing(until));
    }
}

impl Stream {
    /// Whether it should not linger.
    fn is_due(&self) -> bool {
        self.urgent || self.bytes >= FULL || self.records >= EVENTS as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(parcel: u32, start: usize, end: usize) -> Run {
        Run { parcel, start, end, sent: 0 }
    }

    fn streams() -> (Streams, Instant) {
        (Streams::new(Duration::from_secs(5)), Instant::now())
    }

    #[test]
    fn an_idle_stream_sends_at_once_and_what_comes_after_lingers() {
        let (mut s, t) = streams();
        let id = s.find(b"g", b"s").unwrap();
        s.add(id, run(0, 0, 10), 1, false, t);
        assert_eq!(s.next(t), Some(id));
        s.add(id, run(0, 10, 20), 1, false, t);
        assert_eq!(s.next(t), None);
        s.get(id).unwrap().pending.clear();
        s.done(id, t);
        s.add(id, run(1, 0, 10), 1, false, t);
        assert_eq!((s.next(t), s.next_due()), (None, Some(t + Duration::from_secs(5))));
        s.wake(t + Duration::from_secs(5), false, None);
        assert_eq!(s.next(t), Some(id));
    }

    #[test]
    fn a_waiting_sender_or_a_full_batch_does_not_linger() {
        let (mut s, t) = streams();
        for (urgent, records) in [(true, 1), (false, EVENTS as u64)] {
            let id = s.find(b"g", if urgent { b"a" } else { b"b" }).unwrap();
            s.add(id, run(0, 0, 10), 1, false, t);
            s.next(t);
            s.get(id).unwrap().pending.clear();
            s.done(id, t);
            s.add(id, run(1, 0, 10), 1, false, t);
            assert_eq!(s.next(t), None);
            s.add(id, run(1, 10, 20), records, urgent, t);
            assert_eq!(s.next(t), Some(id));
        }
    }

    #[test]
    fn a_stream_that_backs_off_is_not_called_before_its_time_whatever_comes() {
        let (mut s, t) = streams();
        let id = s.find(b"g", b"s").unwrap();
        s.add(id, run(0, 0, 10), 1, true, t);
        s.next(t);
        s.back_off(id, t + Duration::from_secs(9));
        s.add(id, run(0, 10, 20), 1, true, t);
        s.wake(t, true, None);
        assert_eq!(s.next(t), None);
        s.wake(t, true, Some(Duration::ZERO));
        assert_eq!(s.next(t), Some(id));
    }

    #[test]
    fn idle_streams_are_forgotten_for_new_ones_and_busy_ones_are_not() {
        let (mut s, t) = streams();
        for n in 0..STREAMS {
            let id = s.find(b"g", n.to_string().as_bytes()).unwrap();
            if n > 0 {
                s.add(id, run(0, 0, 1), 1, false, t);
            }
        }
        assert!(s.find(b"g", b"new").is_some());
        assert!(s.find(b"g", b"newer").is_some_and(|_| true), "the one before is idle");
        let id = s.find(b"g", b"newer").unwrap();
        s.add(id, run(0, 0, 1), 1, false, t);
        assert!(s.find(b"g", b"newest").is_none());
    }

    #[test]
    fn runs_that_touch_become_one() {
        let (mut s, t) = streams();
        let id = s.find(b"g", b"s").unwrap();
        s.add(id, run(3, 0, 10), 1, false, t);
        s.add(id, run(3, 10, 30), 2, false, t);
        s.add(id, run(4, 30, 40), 1, false, t);
        assert_eq!(s.get(id).unwrap().pending.len(), 2);
    }
}
