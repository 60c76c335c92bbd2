//! The store: records of inputs with `storage.type filesystem` on their way through the log to the outputs.
//!
//! Enters: a [`Submission`], from a source that waits for room. Leaves: deliveries into the outputs' queues once they are
//! on disk, and acks to the senders. One thread commits; the runtime's threads read back what an output could not take
//! at once. Can go wrong: the disk is full or fails; then nothing is acknowledged, sources wait, and it goes on by
//! itself when the disk does.
//!
//! An output that keeps up gets each chunk from memory. When its queue is full it falls *behind*: chunks leave memory as
//! soon as they are stored, and a task reads them again when the queue has room.

mod commit;
mod cut;
mod damage;
mod outlet;
mod replay;
mod rest;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::wal::{Dir, HeldRecord, Log, Options, Vfs};
use crate::config::Overflow;
use crate::observe::counters::{self, Drop as DropReason};
use crate::record::{Ack, Chunk, HELD_COUNT_BITS};
use crate::rt::{Budget, Sender, Tasks};

pub use cut::frames;
use damage::Met;
use outlet::Outlet;

/// Bytes that may wait for the commit thread. Two groups: one being written, one to go with the next sync.
const QUEUE: u64 = 2 << 20;
/// What a frame takes beside its records: head, tags, padding.
const OVERHEAD: u64 = 96;

/// One output, as the store needs to know it.
pub struct Owner {
    /// What it is called across restarts, whatever its place in the configuration.
    pub identity: String,
    /// Its queue.
    pub queue: Sender,
    /// `storage.total_limit_size`.
    pub limit: Option<u64>,
    /// `overflow`.
    pub overflow: Overflow,
}

/// What `[SERVICE]` says about what is stored.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `storage.orphan_ttl`.
    pub orphan_ttl: Duration,
    /// `storage.backlog.mem_limit`: bytes in memory of what is read back, for all outputs together.
    pub backlog: Option<u64>,
}

/// Part of a chunk, small enough for one frame.
pub struct Frame {
    /// Records for the outputs, or records that a filter holds.
    pub content: Content,
    /// The sender waits until it is on disk.
    pub durable: Option<Ack>,
}

/// What a frame holds.
pub enum Content {
    /// Records, and which outputs owe them (positions in the configuration).
    Records {
        /// The records.
        chunk: Arc<Chunk>,
        /// The outputs.
        owed: SmallVec<[usize; 4]>,
        /// The sender waits until every output has them.
        delivered: Option<Ack>,
    },
    /// Records as they came that a filter holds back, with their numbers.
    Held(Arc<Chunk>, Vec<u64>),
}

/// What one pass of a source stores together.
#[derive(Default)]
pub struct Submission {
    /// In order.
    pub frames: Vec<Frame>,
    /// Numbers of held records that are let go once these frames are on disk.
    pub frees: Vec<u64>,
}

impl Submission {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.frees.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.frames.iter().map(Frame::bytes).sum()
    }
}

impl Frame {
    fn chunk(&self) -> &Arc<Chunk> {
        match &self.content {
            Content::Records { chunk, .. } | Content::Held(chunk, _) => chunk,
        }
    }

    /// About what it takes on disk.
    fn bytes(&self) -> u64 {
        self.chunk().bytes.len() as u64 + OVERHEAD
    }

    fn owed(&self) -> &[usize] {
        match &self.content {
            Content::Records { owed, .. } => owed,
            Content::Held(..) => &[],
        }
    }
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    frees: Vec<u64>,
    /// Of waiting frames and of the group being committed.
    bytes: u64,
    /// Outputs have settled something since the thread looked.
    news: bool,
    /// No more will come.
    closed: bool,
    /// Outputs have ended, or must: write what is known and end.
    stop: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// For the commit thread: frames, news, or the end.
    work: Condvar,
    /// For sources: room in the queue.
    room: Notify,
    outlets: Vec<Arc<Outlet>>,
    /// Sources that wait for an output's share.
    waiting: AtomicU64,
    /// The thread has ended (or died): what comes is given up.
    gone: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change leaves the queue whole, so a poisoned lock is still good.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) {
        let first = !std::mem::replace(&mut self.lock().news, true);
        if first {
            self.work.notify_one();
        }
    }

    /// Waits for a sign from others, at most so long.
    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>, most: Option<Duration>) -> MutexGuard<'q, Queue> {
        match most {
            Some(most) => self.work.wait_timeout(queue, most).map_or_else(|e| e.into_inner().0, |w| w.0),
            None => self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Held records of each tag.
pub type ByTag = HashMap<Box<[u8]>, Vec<HeldRecord>>;

/// The store. Cloning shares it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    /// Numbers for held records.
    numbers: Arc<AtomicU64>,
    held: Arc<Mutex<ByTag>>,
    some_held: Arc<AtomicBool>,
}

/// A store that is open and does not run yet.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Records dropped because their output is no longer configured, for longer than `storage.orphan_ttl`.
    pub orphaned: u64,
    commit: commit::Commit,
    replays: Vec<replay::Replay>,
}

impl Store {
    /// Opens the log under `path` for these outputs; nothing runs yet. What the disk has damaged is counted.
    ///
    /// # Errors
    /// A sentence with the path and what to do.
    pub fn open(
        path: &Path,
        owners: Vec<Owner>,
        budget: &Budget,
        limits: Limits,
        counters: Arc<counters::Storage>,
    ) -> Result<Opened, String> {
        let vfs: Arc<dyn Vfs> = Arc::new(Dir::open(path).map_err(|e| unusable(path, &e))?);
        let (space, _) = vfs.space().map_err(|e| unusable(path, &e))?;
        let (mut log, found) = Log::open(vfs, Options::default()).map_err(|e| e.to_string())?;
        let met = Arc::new(Met::new(counters));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let usable = (space + log.stats().bytes_on_disk).saturating_sub(log.reserve());
        let count = owners.len().max(1) as u64;
        let share = usable / count;
        // Each output has its part: one that is dead must not hold what the others are read back with.
        let backlog = limits.backlog.map_or(0, |bytes| (bytes / count).max(1));
        let mut outlets = Vec::new();
        let mut replays = Vec::new();
        for owner in owners {
            let id = log.owner(&owner.identity, now).map_err(|e| unusable(path, &e))?;
            let from = found.backlog.iter().find(|(o, ..)| *o == id).map(|(_, from, _)| *from);
            let limit = owner.limit.unwrap_or(share).max(1);
            let outlet = Arc::new(Outlet::new(id, owner, limit, from, found.next_seq));
            outlet.owed(log.owed_bytes(id));
            let replay = replay::Replay::new(
                Arc::clone(&outlet),
                log.reader(id),
                budget.clone(),
                backlog,
                found.next_seq,
                Arc::clone(&met),
            );
            replays.push(replay);
            outlets.push(outlet);
        }
        for damage in &found.damage {
            met.at_start(damage, &outlets);
        }
        let orphaned = orphans(&mut log, &outlets, now, limits.orphan_ttl);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            room: Notify::new(),
            outlets,
            waiting: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        });
        for outlet in &shared.outlets {
            outlet.attach(&shared);
        }
        let held_before = found.holds.len();
        let mut held = ByTag::new();
        for record in found.holds {
            held.entry(record.tag.as_bytes().into()).or_default().push(record);
        }
        let store = Store {
            shared: Arc::clone(&shared),
            numbers: Arc::new(AtomicU64::new(first_number(&held))),
            some_held: Arc::new(AtomicBool::new(held_before > 0)),
            held: Arc::new(Mutex::new(held)),
        };
        if held_before > 0 {
            tracing::info!(
                records = held_before,
                "records that a filter held back at the last stop pass it again"
            );
        }
        let commit = commit::Commit::new(log, shared, path.display().to_string());
        Ok(Opened { store, orphaned, commit, replays })
    }

    /// Waits until every owed output's share has room and the commit thread has, then stores. Dropping the future gives
    /// the records up.
    pub async fn submit(&self, mut submission: Submission) {
        let shared = &*self.shared;
        for frame in &mut submission.frames {
            self.admit(frame).await;
        }
        // Every output dropped those, as it is told to: the sender need not send them again.
        submission.frames.retain(|f| !matches!(&f.content, Content::Records { owed, .. } if owed.is_empty()));
        let bytes = submission.bytes();
        loop {
            let room = shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut queue = shared.lock();
                if shared.gone.load(SeqCst) {
                    drop(queue);
                    return self.refuse(submission);
                }
                if queue.bytes == 0 || queue.bytes + bytes <= QUEUE {
                    queue.bytes += bytes;
                    queue.frames.extend(submission.frames);
                    queue.frees.extend(submission.frees);
                    drop(queue);
                    shared.work.notify_one();
                    // Wakes are handed on one by one, as in the outputs' queues.
                    shared.room.notify_one();
                    return;
                }
            }
            room.await;
        }
    }

    /// Takes room of each owed output's share. Outputs that drop these records instead no longer owe them.
    async fn admit(&self, frame: &mut Frame) {
        let bytes = frame.bytes();
        let Content::Records { chunk, owed, delivered } = &mut frame.content else { return };
        let mut still = SmallVec::new();
        for output in std::mem::take(owed) {
            let Some(outlet) = self.shared.outlets.get(output) else { continue };
            if outlet.admit(bytes, chunk.count, &self.shared).await {
                still.push(output);
            } else {
                outlet.dropped(DropReason::Overflow, chunk.count);
            }
        }
        *owed = still;
        if owed.is_empty() {
            for ack in [frame.durable.take(), delivered.take()].into_iter().flatten() {
                ack.done();
            }
        }
    }

    /// Nobody commits any more.
    fn refuse(&self, submission: Submission) {
        for frame in submission.frames {
            for output in frame.owed() {
                if let Some(outlet) = self.shared.outlets.get(*output) {
                    outlet.dropped(DropReason::Shutdown, frame.chunk().count);
                }
            }
        }
    }

    /// The counters of an output.
    pub fn counters(&self, output: usize) -> Option<&Arc<counters::Output>> {
        self.shared.outlets.get(output).map(|o| o.counters())
    }

    /// Where numbers of held records come from.
    pub fn numbers(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.numbers)
    }

    /// Records of this tag that a filter held back when the process stopped; each is given once.
    pub fn held(&self, tag: &[u8]) -> Vec<HeldRecord> {
        if !self.some_held.load(Relaxed) {
            return Vec::new();
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let found = held.remove(tag).unwrap_or_default();
        self.some_held.store(!held.is_empty(), Relaxed);
        found
    }

    /// All that nobody has asked for, by tag.
    pub fn all_held(&self) -> ByTag {
        self.some_held.store(false, Relaxed);
        std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// No source will come any more: what is queued is committed, what outputs are behind with is read to its end, and
    /// then the outputs' queues close.
    pub fn finish(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }

    /// Waits until all cursors are on disk. Call it when the outputs have ended, or must.
    pub fn close(&self, patience: Duration) {
        for outlet in &self.shared.outlets {
            outlet.abandon();
        }
        let mut queue = self.shared.lock();
        (queue.closed, queue.stop) = (true, true);
        self.shared.work.notify_one();
        let until = std::time::Instant::now() + patience;
        while !self.shared.gone.load(SeqCst) {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                tracing::error!(
                    "the log could not be closed in time; what was delivered last may come again"
                );
                return;
            }
            queue = self.shared.wait(queue, Some(left));
        }
    }
}

impl Opened {
    /// Starts the thread and the tasks.
    ///
    /// # Errors
    /// The system's, when it has no thread left.
    pub fn start(self, tasks: &Tasks) -> io::Result<Store> {
        let commit = self.commit;
        tasks.thread("firelane-commit", move || commit.run())?;
        for replay in self.replays {
            tasks.spawn(format!("replay {}", replay.label()), replay.run());
        }
        Ok(self.store)
    }
}

/// Outputs that are no longer configured: what they are owed is kept for a while, in case they come back. Gives the
/// records that were dropped because the time is over.
fn orphans(log: &mut Log, outlets: &[Arc<Outlet>], now: u64, ttl: Duration) -> u64 {
    let mut dropped = 0;
    for state in log.owners() {
        if outlets.iter().any(|o| o.id == state.id) {
            continue;
        }
        let (output, bytes) = (state.identity, state.owed_bytes);
        let age = now.saturating_sub(state.last_configured_unix);
        if bytes > 0 && age < ttl.as_secs() {
            tracing::warn!(%output, bytes, seconds_left = ttl.as_secs() - age,
                "an output is no longer configured and is owed stored records: they are kept for storage.orphan_ttl");
            continue;
        }
        match log.forget_owner(state.id) {
            Ok(lost) if lost.records > 0 => {
                dropped += lost.records;
                tracing::error!(%output, records = lost.records, reason = DropReason::Orphan.name(),
                    "records dropped: their output is no longer configured, for longer than storage.orphan_ttl");
            }
            Ok(_) => {}
            Err(cause) => {
                tracing::warn!(%output, %cause, "cannot forget an output that is no longer configured")
            }
        }
    }
    dropped
}

/// A count above those in use.
fn first_number(held: &ByTag) -> u64 {
    let mask = (1 << HELD_COUNT_BITS) - 1;
    held.values().flatten().map(|h| h.id & mask).max().unwrap_or(0) + 1
}

fn unusable(path: &Path, e: &io::Error) -> String {
    format!("storage.path {}: {e}; make it a directory that this user may write", path.display())
}
