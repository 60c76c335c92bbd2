//! The queue in front of one output, bounded by bytes: the output's share of the budget.
//!
//! Enters: chunks, with the token of a sender that waits for an ack. Leaves: [`Delivery`], in order.
//! When the share is full, only the sources that route to this output wait. A share counts what the output has not
//! given a verdict on yet, also what it is writing. Can go wrong: the output's task ends early; then pushes fail and the
//! chunk counts as dropped.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::Meter;
use super::letters::{Content, Letter, Letters};
use super::marks::{Marks, Places};
use crate::observe::counters::{Drop as DropReason, Output as Counters};
use crate::record::{Ack, Chunk};

/// Who keeps a record's stored copy: the log, for one output.
pub trait Keeper: Send + Sync {
    /// This output needs frame `number` no longer.
    fn settled(&self, number: u64);

    /// Of frame `number` this output needs the marked records no longer, while others are still to come.
    fn partly(&self, number: u64, done: Marks);
}

/// The stored copy of a delivery.
struct Stored {
    keeper: Arc<dyn Keeper>,
    number: u64,
    /// Where its records were in the frame, if some are left out.
    places: Option<Places>,
    /// Once a part was taken from a delivery of the frame: for it and for the part.
    shared: Option<Box<Sharing>>,
}

/// What one of several deliveries of the same frame knows of that.
struct Sharing {
    /// Deliveries without a verdict.
    sharers: Arc<AtomicUsize>,
    /// For a part: the frame's records that it has.
    part: Option<Marks>,
}

impl Stored {
    /// The marks of records of the delivery, by their number there.
    fn marks(&self, records: impl Iterator<Item = usize>) -> Marks {
        let mut marks = Marks::default();
        for n in records {
            match &self.places {
                None => marks.set(n),
                Some(places) => places.get(n).into_iter().for_each(|place| marks.set(*place as usize)),
            }
        }
        marks
    }

    /// The output needs these records no longer. The frame is given up by the last that shares it; what is said of a part
    /// before keeps its records from coming again should the others never be.
    fn settled(self) {
        match self.shared {
            Some(shared) if shared.sharers.fetch_sub(1, AcqRel) > 1 => {
                if let Some(part) = shared.part {
                    self.keeper.partly(self.number, part);
                }
            }
            _ => self.keeper.settled(self.number),
        }
    }
}

/// Records that are on disk take only so much of their output's share in memory: as much as keeps it busy.
const STORED_SHARE: u64 = 8 << 20;

struct State {
    waiting: VecDeque<Delivery>,
    bytes: u64,
    /// What came last is on disk, too.
    stored: bool,
    senders: usize,
    receiver_gone: bool,
}

struct Shared {
    label: String,
    share: u64,
    state: Mutex<State>,
    room: Notify,
    arrived: Notify,
    counters: Arc<Counters>,
    /// `output file.0`, for dead letters.
    name: Arc<str>,
    letters: Option<Letters>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave the state half-changed, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routing side. Clone it for each source; the queue closes when the last clone is gone.
pub struct Sender(Arc<Shared>);

/// The output's side.
pub struct Receiver(Arc<Shared>);

/// A chunk that an output owes a verdict on. Dropped without one, it counts as given up and its ack fails; if the log has
/// it, it is still held, and comes again after a start.
pub struct Delivery {
    /// The records.
    pub chunk: Arc<Chunk>,
    /// When this output was first owed it, for `retry.max_age`.
    pub since: Instant,
    ack: Option<Ack>,
    stored: Option<Stored>,
    owner: Arc<Shared>,
    /// Bytes it takes of the share: 0 until it has entered.
    takes: u64,
    /// Records of it without a fate.
    rest: u64,
    settled: bool,
}

/// Records of a delivery that its output does not have.
pub struct Lost {
    /// They and nothing else.
    pub part: Chunk,
    /// The class.
    pub why: DropReason,
    /// What exactly was wrong, for a person.
    pub detail: String,
}

/// A queue that holds at most `share` bytes (one chunk may always enter an empty queue).
/// What the output gives up goes to `letters`, where there are dead letters.
pub fn queue(
    label: impl Into<String>,
    share: u64,
    counters: Arc<Counters>,
    letters: Option<Letters>,
) -> (Sender, Receiver) {
    let label = label.into();
    let shared = Arc::new(Shared {
        name: format!("output {label}").into(),
        letters,
        label,
        share,
        state: Mutex::new(State {
            waiting: VecDeque::new(),
            bytes: 0,
            stored: false,
            senders: 1,
            receiver_gone: false,
        }),
        room: Notify::new(),
        arrived: Notify::new(),
        counters,
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl Sender {
    /// Makes a chunk this output's to account for: from here on it has a verdict, whatever happens.
    pub fn deliver(&self, chunk: Arc<Chunk>, ack: Option<Ack>) -> Delivery {
        self.0.counters.routed.fetch_add(chunk.count, Relaxed);
        self.0.counters.held.fetch_add(chunk.count, Relaxed);
        let rest = chunk.count;
        Delivery {
            chunk,
            since: Instant::now(),
            ack,
            stored: None,
            owner: Arc::clone(&self.0),
            takes: 0,
            rest,
            settled: false,
        }
    }

    /// A delivery of frame `number`, which `keeper` keeps until it is settled; `places` if some of its records are left
    /// out. It is counted as routed or recovered, and as held, by whoever stored it.
    pub fn stored(
        &self,
        chunk: Arc<Chunk>,
        since: Instant,
        ack: Option<Ack>,
        keeper: Arc<dyn Keeper>,
        (number, places): (u64, Option<Places>),
    ) -> Delivery {
        let stored = Some(Stored { keeper, number, places, shared: None });
        let rest = chunk.count;
        Delivery { chunk, since, ack, stored, owner: Arc::clone(&self.0), takes: 0, rest, settled: false }
    }

    /// The output's counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// The oldest delivery that the output has not begun with, to be dropped in favour of new ones.
    pub fn take_oldest(&self) -> Option<Delivery> {
        self.0.lock().waiting.pop_front()
    }

    /// Hands the delivery over if there is room now.
    ///
    /// # Errors
    /// The delivery, when its output's share is full.
    pub fn offer(&self, delivery: Delivery) -> Result<(), Delivery> {
        let mut delivery = Some(delivery);
        self.try_push(&mut delivery);
        delivery.map_or(Ok(()), Err)
    }

    /// Waits for room, then hands the delivery over.
    pub async fn push(&self, delivery: Delivery) {
        let mut delivery = Some(delivery);
        loop {
            if self.try_push(&mut delivery) {
                // Wakes are handed on one by one: sources that wait do not all look at every chunk that leaves.
                self.0.room.notify_one();
                return;
            }
            self.0.room.notified().await;
        }
    }

    /// Hands the delivery over. While there is no room, the oldest waiting deliveries that may go are dropped; waits only
    /// when there are none.
    pub async fn push_over(&self, delivery: Delivery, may_go: impl Fn(&Delivery) -> bool) {
        let mut delivery = Some(delivery);
        loop {
            let over = delivery.as_ref().and_then(|d| d.chunk.meter.as_ref()).is_some_and(|m| m.is_over());
            if !over && self.try_push(&mut delivery) {
                return self.0.room.notify_one();
            }
            let oldest = {
                let mut state = self.0.lock();
                let at = state.waiting.iter().position(&may_go);
                at.and_then(|at| state.waiting.remove(at))
            };
            match oldest {
                Some(oldest) => oldest.dropped(DropReason::Overflow),
                None if self.try_push(&mut delivery) => return self.0.room.notify_one(),
                None => self.0.room.notified().await,
            }
        }
    }

    fn try_push(&self, delivery: &mut Option<Delivery>) -> bool {
        let mut state = self.0.lock();
        if state.receiver_gone {
            // Dropping the delivery outside of the lock: its verdict takes the lock again.
            drop(state);
            delivery.take();
            return true;
        }
        let size = delivery.as_ref().map_or(0, |d| d.chunk.bytes.len() as u64);
        let stored = delivery.as_ref().is_some_and(|d| d.stored.is_some());
        let share = if stored { self.0.share.min(STORED_SHARE) } else { self.0.share };
        if state.bytes > 0 && state.bytes + size > share {
            return false;
        }
        if let Some(mut d) = delivery.take() {
            d.takes = size;
            state.stored = stored;
            state.bytes += size;
            state.waiting.push_back(d);
            self.0.arrived.notify_one();
        }
        true
    }

    /// The output's label.
    pub fn label(&self) -> &str {
        &self.0.label
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Sender(Arc::clone(&self.0))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().senders -= 1;
        self.0.arrived.notify_one();
    }
}

impl Receiver {
    /// The next delivery; `None` when every sender is gone and nothing is left.
    pub async fn recv(&mut self) -> Option<Delivery> {
        loop {
            let arrived = self.0.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            {
                let mut state = self.0.lock();
                if let Some(d) = state.waiting.pop_front() {
                    return Some(d);
                }
                if state.senders == 0 {
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// The next delivery if one is there.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        self.0.lock().waiting.pop_front()
    }

    /// Whether three quarters of the share are taken: then what lingers had better go.
    pub fn is_pressed(&self) -> bool {
        let state = self.0.lock();
        let share = if state.stored { self.0.share.min(STORED_SHARE) } else { self.0.share };
        state.bytes > share / 4 * 3
    }

    /// Whether every sender is gone: nothing new will come, the process is stopping.
    pub fn closed(&self) -> bool {
        self.0.lock().senders == 0
    }

    /// The output's label, for log lines.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// The output's counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let left = {
            let mut state = self.0.lock();
            state.receiver_gone = true;
            std::mem::take(&mut state.waiting)
        };
        drop(left);
        self.0.room.notify_one();
    }
}

impl Delivery {
    /// Whether its records came from the input of this meter.
    pub fn came_from(&self, meter: &Arc<Meter>) -> bool {
        self.chunk.meter.as_ref().is_some_and(|m| m.is_of(meter))
    }

    /// Undone: it comes again by another way, with the ack that it gives back.
    pub fn take_back(mut self) -> Option<Ack> {
        self.ack.take()
    }

    /// Whether a sender waits for the ack: then it must go at once.
    pub fn wants_ack(&self) -> bool {
        self.ack.is_some()
    }

    /// Whether someone forgets these records at the verdict: a sender that waits for the ack, or the log. Then they must
    /// be on disk before.
    pub fn must_last(&self) -> bool {
        self.ack.is_some() || self.stored.is_some()
    }

    /// Whether the log keeps it until its verdict.
    pub fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// Tells the log which of its records (by number, from 0) the output has, while it cannot say when the others follow:
    /// these do not come again after a start. No verdict, and of use only to a delivery that is stored.
    pub fn partly(&self, done: impl Iterator<Item = usize>) {
        let Some(stored) = &self.stored else { return };
        let marks = stored.marks(done);
        if !marks.is_empty() {
            stored.keeper.partly(stored.number, marks);
        }
    }

    /// Takes records away that have a fate of their own while others of the delivery have none yet: they are a delivery
    /// now, `part` has them and nothing else, and `records` are their numbers (from 0) here.
    pub fn take_part(&mut self, part: Chunk, records: impl Iterator<Item = usize>) -> Delivery {
        let rest = part.count.min(self.rest);
        self.rest -= rest;
        let stored = self.stored.as_mut().map(|stored| {
            let part = Some(stored.marks(records));
            let own = || Box::new(Sharing { sharers: Arc::new(AtomicUsize::new(1)), part: None });
            let sharers = &stored.shared.get_or_insert_with(own).sharers;
            sharers.fetch_add(1, AcqRel);
            let shared = Some(Box::new(Sharing { sharers: Arc::clone(sharers), part }));
            Stored { keeper: Arc::clone(&stored.keeper), number: stored.number, places: None, shared }
        });
        Delivery {
            chunk: Arc::new(part),
            since: self.since,
            ack: self.ack.as_ref().map(Ack::split),
            stored,
            owner: Arc::clone(&self.owner),
            takes: 0,
            rest,
            settled: false,
        }
    }

    /// The output has it.
    pub fn delivered(mut self) {
        self.count(|c, n| c.delivered.fetch_add(n, Relaxed), self.rest);
        self.settle(true);
    }

    /// Its records have different fates: all that are not among the `lost` are delivered. The lost ones go to the dead
    /// letters where there are some, else they are dropped; that the output took the others is not held against their
    /// sender. Waits as [`Delivery::give_up`] does.
    pub async fn divided(mut self, lost: Vec<Lost>) {
        let all: u64 = lost.iter().map(|l| l.part.count).sum();
        self.count(|c, n| c.delivered.fetch_add(n, Relaxed), self.rest.saturating_sub(all));
        let letters = self.owner.letters.clone();
        let (kept, dropped): (Vec<Lost>, Vec<Lost>) =
            lost.into_iter().partition(|l| letters.is_some() && l.why != DropReason::Empty);
        // What nobody would ever take had better not come again; what failed may.
        let good = dropped.iter().all(|l| l.why != DropReason::Retries);
        for l in &dropped {
            if l.why != DropReason::Empty {
                tracing::error!(output = %self.owner.label, records = l.part.count, reason = l.why.name(), detail = %l.detail,
                    "records dropped; set dead_letter.path to keep such records");
            }
            self.count(|c, n| c.dropped(l.why, n), l.part.count);
        }
        let Some(letters) = letters.filter(|_| !kept.is_empty()) else { return self.settle(good) };
        let from = Arc::clone(&self.owner.name);
        // The verdict comes with the last letter that is on disk. A letter that is not kept leaves the delivery without.
        let waiting = Arc::new(Mutex::new((Some(self), kept.len())));
        for l in kept {
            let (waiting, count, why) = (Arc::clone(&waiting), l.part.count, l.why);
            let kept = Box::new(move || {
                let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.1 -= 1;
                if let Some(delivery) = &mut waiting.0 {
                    delivery.count(|c, n| c.lettered(why, n), count);
                }
                if waiting.1 == 0
                    && let Some(mut delivery) = waiting.0.take()
                {
                    delivery.settle(good);
                }
            });
            let (content, from) = (Content::Chunk(Arc::new(l.part)), Arc::clone(&from));
            letters.send(Letter { from, reason: l.why.name(), detail: l.detail, content, kept }).await;
        }
    }

    /// Gives records their fate.
    fn count<T>(&mut self, add: impl FnOnce(&Counters, u64) -> T, n: u64) {
        let n = n.min(self.rest);
        self.rest -= n;
        add(&self.owner.counters, n);
        self.owner.counters.held.fetch_sub(n, Relaxed);
    }

    /// The output gives it up for a reason, and nobody keeps it: counted, and the ack fails.
    pub fn dropped(mut self, why: DropReason) {
        self.count(|c, n| c.dropped(why, n), self.rest);
        self.settle(false);
    }

    /// The output gives it up: to the dead letters where there are some, else it is dropped. `detail` says what was
    /// wrong. Waits for room on the way there, not for the disk; the ack follows when it is on disk.
    pub async fn give_up(mut self, why: DropReason, detail: String) {
        let Some(letters) = self.owner.letters.clone() else {
            tracing::error!(output = %self.owner.label, records = self.chunk.count, reason = why.name(), %detail,
                "records dropped; set dead_letter.path to keep such records");
            return self.dropped(why);
        };
        let (from, chunk) = (Arc::clone(&self.owner.name), Arc::clone(&self.chunk));
        let kept = Box::new(move || {
            self.count(|c, n| c.lettered(why, n), self.rest);
            self.settle(true);
        });
        letters.send(Letter { from, reason: why.name(), detail, content: Content::Chunk(chunk), kept }).await;
    }

    fn settle(&mut self, good: bool) {
        self.settled = true;
        if let Some(ack) = self.ack.take()
            && good
        {
            ack.done();
        }
        if let Some(stored) = self.stored.take() {
            stored.settled();
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled && self.stored.is_none() {
            self.count(|c, n| c.dropped(DropReason::Shutdown, n), self.rest);
        }
        if self.takes > 0 {
            self.owner.lock().bytes -= self.takes;
            self.owner.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AckWait, Seg, Tag, Verdict};
    use crate::rt::Budget;

    fn chunk(bytes: usize) -> Arc<Chunk> {
        Arc::new(Chunk {
            bytes: vec![0; bytes].into(),
            segs: [Seg { tag: Tag::new(b"t"), end: bytes, count: 1 }].into_iter().collect(),
            count: 1,
            charge: Budget::new(1000).take(bytes as u64),
            meter: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_share_makes_the_source_wait_until_a_verdict() {
        let (tx, mut rx) = queue("o", 100, Arc::default(), None);
        tx.push(tx.deliver(chunk(80), None)).await;
        let mut second = Box::pin(tx.push(tx.deliver(chunk(80), None)));
        let waited = tokio::time::timeout(std::time::Duration::from_millis(1), &mut second).await;
        assert!(waited.is_err());
        let first = rx.recv().await.unwrap();
        first.delivered();
        second.await;
        assert_eq!(rx.try_recv().map(|d| d.chunk.bytes.len()), Some(80));
    }

    #[tokio::test]
    async fn an_output_that_ends_early_fails_acks_and_counts_the_drop() {
        let counters = Arc::new(Counters::default());
        let (tx, rx) = queue("o", 100, Arc::clone(&counters), None);
        let (wait, ack) = AckWait::new(Arc::default());
        tx.push(tx.deliver(chunk(10), Some(ack))).await;
        drop(rx);
        assert_eq!(wait.verdict(), Verdict::Failed);
        assert_eq!(counters.all_dropped(), 1);
        assert_eq!(counters.held.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn the_queue_ends_when_senders_are_gone_and_it_is_empty() {
        let (tx, mut rx) = queue("o", 100, Arc::default(), None);
        tx.push(tx.deliver(chunk(10), None)).await;
        drop(tx);
        rx.recv().await.unwrap().delivered();
        assert!(rx.recv().await.is_none());
    }
}
