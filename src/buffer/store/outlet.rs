//! What the store knows of one output: its share, whether it keeps up, what it was handed and has settled.
//!
//! Enters: frames as they are committed, verdicts as they come. Leaves: deliveries to the output's queue, and what the
//! commit thread must tell the log's cursor. A frame is handed out once, in order: from memory while the output keeps
//! up, else by its replay task.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use super::{Owner, Shared};
use crate::buffer::wal::{OwnerId, Seq};
use crate::config::Overflow;
use crate::observe::counters::{self, Drop as DropReason};
use crate::record::{Ack, Chunk};
use crate::rt::{Keeper, Marks, Sender};

/// How often a source that waits for something to drop looks again.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// How often drops are said.
const SAY: std::time::Duration = std::time::Duration::from_secs(10);

pub(super) struct Outlet {
    pub(super) id: OwnerId,
    /// Bytes of the log that this output may owe.
    limit: u64,
    overflow: Overflow,
    counters: Arc<counters::Output>,
    label: String,
    /// Owed on disk, as the log counts it.
    stored: AtomicU64,
    /// Admitted and not on disk yet.
    coming: AtomicU64,
    /// For sources: the share has room.
    room: Notify,
    /// For the replay task: there is something to read, or the end.
    pub(super) behind: Notify,
    state: Mutex<State>,
    /// When it was last said that records are dropped, and how many were since.
    said: Mutex<(Option<Instant>, u64)>,
    shared: OnceLock<Weak<Shared>>,
}

struct State {
    /// Gone once nothing more will be handed out: then the queue closes.
    queue: Option<Sender>,
    /// The next frame to hand out, where the output is behind.
    behind: Option<Seq>,
    /// Behind every frame that was committed so far.
    tail: Seq,
    /// Senders that wait until this output has a frame that is not handed out yet.
    waiting: HashMap<Seq, Ack>,
    /// For the log, since it was last told.
    handed: Vec<Seq>,
    settled: Vec<Seq>,
    partly: Vec<(Seq, Marks)>,
    /// The store commits no more.
    ended: bool,
}

/// Counted among the sources that wait for a share, so that the commit thread hurries.
struct Waiting<'s>(&'s Shared);

impl<'s> Waiting<'s> {
    fn new(shared: &'s Shared) -> Self {
        shared.waiting.fetch_add(1, SeqCst);
        Waiting(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

/// What became of an output since the log was last told.
pub(super) struct News {
    pub(super) handed: Vec<Seq>,
    pub(super) settled: Vec<Seq>,
    /// Records that it has of frames which are not settled.
    pub(super) partly: Vec<(Seq, Marks)>,
    /// The next frame to hand out.
    pub(super) read: Seq,
}

impl Outlet {
    pub(super) fn new(id: OwnerId, owner: Owner, limit: u64, from: Option<Seq>, tail: Seq) -> Outlet {
        Outlet {
            id,
            limit,
            overflow: owner.overflow,
            counters: Arc::clone(owner.queue.counters()),
            label: owner.queue.label().to_owned(),
            stored: AtomicU64::new(0),
            coming: AtomicU64::new(0),
            room: Notify::new(),
            behind: Notify::new(),
            state: Mutex::new(State {
                queue: Some(owner.queue),
                behind: from,
                tail,
                waiting: HashMap::new(),
                handed: Vec::new(),
                settled: Vec::new(),
                partly: Vec::new(),
                ended: false,
            }),
            said: Mutex::new((None, 0)),
            shared: OnceLock::new(),
        }
    }

    pub(super) fn attach(&self, shared: &Arc<Shared>) {
        // Set once, by the store that makes it.
        let _first = self.shared.set(Arc::downgrade(shared));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self) -> &Arc<counters::Output> {
        &self.counters
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Records that were counted as routed and held are given up before they were stored.
    pub(super) fn dropped(&self, why: DropReason, count: u64) {
        self.counters.dropped(why, count);
        self.counters.held.fetch_sub(count, Relaxed);
    }

    fn is_full(&self, bytes: u64) -> bool {
        let owed = self.stored.load(SeqCst) + self.coming.load(SeqCst);
        owed > 0 && owed + bytes > self.limit
    }

    /// Takes room of the share: waits for it, or makes some, as `overflow` says. False: the records are to be dropped.
    pub(super) async fn admit(&self, bytes: u64, records: u64, shared: &Shared) -> bool {
        if !self.is_full(bytes) {
            self.coming.fetch_add(bytes, SeqCst);
            return true;
        }
        if self.overflow == Overflow::DropNewest {
            self.say_overflow("newest", records);
            return false;
        }
        let _waiting = Waiting::new(shared);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !self.is_full(bytes) || self.lock().ended {
                break;
            }
            // What the output has begun with cannot be taken from it: then there is nothing older to drop.
            if self.overflow == Overflow::DropOldest && !self.drop_oldest(bytes) {
                self.say_overflow("newest", records);
                return false;
            }
            shared.news();
            if !self.is_full(bytes) {
                break;
            }
            match self.overflow {
                // What can be dropped may come into the queue from the disk, of which nobody tells.
                Overflow::DropOldest => drop(tokio::time::timeout(LOOK, room).await),
                _ => room.await,
            }
        }
        self.coming.fetch_add(bytes, SeqCst);
        self.room.notify_one();
        true
    }

    /// Says that records are dropped, once in a while.
    fn say_overflow(&self, which: &str, records: u64) {
        if records == 0 {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.1 += records;
        if said.0.is_none_or(|at| at.elapsed() >= SAY) {
            tracing::warn!(output = %self.label, records = said.1, limit = self.limit,
                "the {which} records are dropped: storage.total_limit_size is reached, and overflow says so");
            *said = (Some(Instant::now()), 0);
        }
    }

    /// Drops the oldest deliveries that the output has not begun with, about as many bytes. Says whether there are any,
    /// or will be.
    fn drop_oldest(&self, bytes: u64) -> bool {
        let (queue, behind) = {
            let state = self.lock();
            (state.queue.clone(), state.behind.is_some())
        };
        let (mut freed, mut records) = (0, 0);
        while freed < bytes
            && let Some(delivery) = queue.as_ref().and_then(Sender::take_oldest)
        {
            freed += delivery.chunk.bytes.len() as u64;
            records += delivery.chunk.count;
            delivery.dropped(DropReason::Overflow);
        }
        self.say_overflow("oldest", records);
        // The log hears of it in a moment, and says then what is owed.
        let less = |owed: u64| Some(owed.saturating_sub(freed));
        let _owed = self.stored.fetch_update(SeqCst, SeqCst, less);
        freed > 0 || behind || self.coming.load(SeqCst) > 0
    }

    /// What the log says is owed now.
    pub(super) fn owed(&self, bytes: u64) {
        let before = self.stored.swap(bytes, SeqCst);
        if bytes < before {
            self.room.notify_one();
        }
    }

    /// A frame that this output owes is on disk: hands it over if the output keeps up. `tail` is behind it.
    pub(super) fn committed(self: &Arc<Self>, seq: Seq, chunk: &Arc<Chunk>, ack: Option<Ack>, bytes: u64) {
        self.coming.fetch_sub(bytes, SeqCst);
        let mut state = self.lock();
        state.tail = seq + 1;
        if state.behind.is_none() {
            let keeper = Arc::clone(self) as Arc<dyn Keeper>;
            let Some(queue) = &state.queue else {
                // Time is over: it is not handed out, and so it comes after the next start.
                state.behind = Some(seq);
                return;
            };
            let delivery = queue.stored(Arc::clone(chunk), Instant::now(), ack, keeper, (seq, None));
            match queue.offer(delivery) {
                Ok(()) => state.handed.push(seq),
                Err(delivery) => {
                    if let Some(ack) = delivery.take_back() {
                        state.waiting.insert(seq, ack);
                    }
                    state.behind = Some(seq);
                    self.behind.notify_one();
                }
            }
        } else if let Some(ack) = ack {
            state.waiting.insert(seq, ack);
        }
    }

    /// What could not be committed is given up.
    pub(super) fn not_committed(&self, count: u64, bytes: u64) {
        self.coming.fetch_sub(bytes, SeqCst);
        self.dropped(DropReason::Shutdown, count);
    }

    /// What the log must be told; `next` is behind everything committed.
    pub(super) fn news(&self, next: Seq) -> News {
        let mut state = self.lock();
        state.tail = next;
        News {
            handed: std::mem::take(&mut state.handed),
            settled: std::mem::take(&mut state.settled),
            partly: std::mem::take(&mut state.partly),
            read: state.behind.unwrap_or(next),
        }
    }

    /// The store commits no more: once everything is handed out, the queue closes.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        if state.behind.is_none() {
            state.queue = None;
        }
        drop(state);
        self.behind.notify_one();
        self.room.notify_waiters();
    }

    /// Time is over: nothing more is handed out.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.queue = None;
        state.waiting.clear();
        drop(state);
        self.behind.notify_one();
        self.room.notify_waiters();
    }

    /// Where to read on, for the replay task; `None`: the output keeps up.
    pub(super) fn read_from(&self) -> Option<Seq> {
        self.lock().behind
    }

    /// Whether the replay task has nothing to do any more.
    pub(super) fn is_over(&self) -> bool {
        let state = self.lock();
        state.queue.is_none() || (state.ended && state.behind.is_none())
    }

    /// The replay task has read frames up to `next`; those below the tail are handed out with the acks that wait for
    /// them. Gives the tail, and the queue.
    pub(super) fn hand_out(
        &self,
        seqs: impl Iterator<Item = Seq>,
        next: Seq,
    ) -> Option<(Sender, Vec<Option<Ack>>)> {
        let mut state = self.lock();
        let state = &mut *state;
        let queue = state.queue.clone()?;
        let acks = seqs
            .map(|seq| {
                state.handed.push(seq);
                state.waiting.remove(&seq)
            })
            .collect();
        state.behind = Some(next);
        Some((queue, acks))
    }

    /// Frames below `next` that were not handed out never will be: their senders learn it now, not never.
    pub(super) fn fail_below(&self, next: Seq) {
        self.lock().waiting.retain(|seq, _| *seq >= next);
    }

    /// Behind everything committed so far.
    pub(super) fn tail(&self) -> Seq {
        self.lock().tail
    }

    /// Everything up to `next` is handed out: the output keeps up from here on, unless more came meanwhile.
    pub(super) fn caught_up(&self, next: Seq) -> bool {
        let mut state = self.lock();
        if next < state.tail {
            return false;
        }
        state.behind = None;
        if state.ended {
            state.queue = None;
        }
        true
    }
}

impl Outlet {
    /// There is news for the log.
    fn tell(&self) {
        if let Some(shared) = self.shared.get().and_then(Weak::upgrade) {
            shared.news();
        }
    }
}

impl Keeper for Outlet {
    fn settled(&self, number: u64) {
        self.lock().settled.push(number);
        self.tell();
    }

    fn partly(&self, number: u64, done: Marks) {
        self.lock().partly.push((number, done));
        self.tell();
    }
}
