//! The commit thread: everything that waits goes to the log as one group, with one sync, and then its senders hear of it.
//!
//! Enters: frames from the queue; what outputs were handed and have settled. Leaves: frames on disk, acks, deliveries to
//! outputs that keep up, cursors. No linger: the thread commits what is queued when the last sync returns. Can go wrong:
//! no space, a failing disk. Then nothing of the group is acknowledged, it is kept and tried again, and the queue in
//! front fills up.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::{Content, Frame, Shared};
use crate::buffer::wal::{AppendError, Kind, Log, NewFrame, OwnerId};
use crate::record::{Chunk, Time};

/// Most bytes of one group.
const GROUP: u64 = 1 << 20;
/// How long cursors may lag behind verdicts.
const LAG: Duration = Duration::from_millis(10);
/// How long the log's upkeep may wait for news, where it has something to do.
const UPKEEP: Duration = Duration::from_secs(1);
/// How often the log is told that the outputs are configured still: `storage.orphan_ttl` is as exact after a kill.
const SEEN: Duration = Duration::from_secs(3600);
/// The wait before a group is tried again on a disk that is full or fails.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Commit {
    log: Log,
    shared: Arc<Shared>,
    path: String,
    /// Held records that the groups so far let go.
    frees: Vec<u64>,
    /// Said about the disk, once for each outage.
    trouble: Option<String>,
    /// The same about positions and what is freed.
    upkeep: Option<String>,
    last: Instant,
    /// When the log was told which outputs are configured.
    seen: Instant,
    /// Outlets know that nothing more comes.
    ended: bool,
}

/// Says that the thread has ended, also when it panics: nobody must wait for it.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.gone.store(true, SeqCst);
        self.0.work.notify_all();
        self.0.room.notify_waiters();
        for outlet in &self.0.outlets {
            outlet.end();
        }
    }
}

enum Next {
    Group(Vec<Frame>),
    News,
    Closed,
    Stop,
}

impl Commit {
    pub(super) fn new(log: Log, shared: Arc<Shared>, path: String) -> Commit {
        Commit {
            log,
            shared,
            path,
            frees: Vec::new(),
            trouble: None,
            upkeep: None,
            last: Instant::now(),
            seen: Instant::now(),
            ended: false,
        }
    }

    pub(super) fn run(mut self) {
        let _gone = Gone(Arc::clone(&self.shared));
        loop {
            match self.next() {
                Next::Group(frames) => {
                    if !self.commit(frames) {
                        break;
                    }
                }
                Next::News => self.tell(),
                Next::Closed => {
                    // Nothing more will be stored: outputs get what is left.
                    self.ended = true;
                    for outlet in &self.shared.outlets {
                        outlet.end();
                    }
                }
                Next::Stop => break,
            }
            if self.last.elapsed() >= LAG || self.shared.waiting.load(SeqCst) > 0 {
                self.tell();
            }
        }
        self.tell();
        self.still_configured();
        if let Err(e) = self.log.close() {
            tracing::error!(path = %self.path, cause = %e, "cannot write the outputs' positions; what was delivered last may come again");
        }
    }

    /// What an output that goes away is owed is kept for a while from then on, not from its last start.
    fn still_configured(&mut self) {
        self.seen = Instant::now();
        let ids: Vec<OwnerId> = self.shared.outlets.iter().map(|o| o.id).collect();
        self.log.still_configured(&ids, Time::now().sec.unsigned_abs());
    }

    /// Waits for something to do.
    fn next(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.lock();
        loop {
            self.frees.append(&mut queue.frees);
            if !queue.frames.is_empty() || !self.frees.is_empty() {
                break;
            }
            if queue.stop {
                return Next::Stop;
            }
            let hurried = queue.closed || self.shared.waiting.load(SeqCst) > 0;
            let rest = LAG.saturating_sub(self.last.elapsed());
            if queue.news && (rest.is_zero() || hurried) {
                return Next::News;
            }
            if queue.closed && !self.ended {
                return Next::Closed;
            }
            let seen = SEEN.saturating_sub(self.seen.elapsed());
            if seen.is_zero() {
                return Next::News;
            }
            let upkeep = UPKEEP.saturating_sub(self.last.elapsed());
            if self.log.is_waiting() && upkeep.is_zero() {
                return Next::News;
            }
            let wait = queue.news.then_some(rest).or_else(|| self.log.is_waiting().then_some(upkeep));
            queue = shared.wait(queue, Some(wait.map_or(seen, |wait| wait.min(seen))));
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while bytes < GROUP
            && let Some(frame) = queue.frames.pop_front()
        {
            bytes += frame.bytes();
            group.push(frame);
        }
        Next::Group(group)
    }

    /// Commits one group, however long the disk takes. False: the process is ending and the disk does not take it.
    fn commit(&mut self, frames: Vec<Frame>) -> bool {
        let mut new: Vec<NewFrame> = Vec::with_capacity(frames.len() + 1);
        let frees = std::mem::take(&mut self.frees);
        let now = Time::now().millis().unsigned_abs();
        if !frees.is_empty() {
            new.push(NewFrame {
                kind: Kind::Records,
                owners: SmallVec::new(),
                segs: SmallVec::new(),
                body: bytes::Bytes::new(),
                holds: Vec::new(),
                frees,
                time_ms: now,
            });
        }
        let before = new.len() as u64;
        new.extend(frames.iter().map(|f| self.new_frame(f, now)));
        let seqs = loop {
            match self.log.append(&new) {
                Ok(seqs) => break seqs,
                Err(e) => {
                    self.complain(&e);
                    self.tell();
                    let queue = self.shared.lock();
                    if queue.stop {
                        drop(queue);
                        self.give_up(frames);
                        return false;
                    }
                    drop(self.shared.wait(queue, Some(RETRY)));
                }
            }
        };
        if self.trouble.take().is_some() {
            tracing::info!(path = %self.path, "storing again");
        }
        let mut bytes = 0;
        for (seq, frame) in (seqs.start + before..).zip(frames) {
            bytes += frame.bytes();
            self.committed(seq, frame);
        }
        let mut queue = self.shared.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        drop(queue);
        self.shared.room.notify_one();
        true
    }

    fn new_frame(&self, frame: &Frame, now: u64) -> NewFrame {
        let (kind, owners, holds) = match &frame.content {
            Content::Records { owed, .. } => {
                let owners: SmallVec<[OwnerId; 4]> =
                    owed.iter().filter_map(|o| Some(self.shared.outlets.get(*o)?.id)).collect();
                (Kind::Records, owners, Vec::new())
            }
            Content::Held(_, ids) => (Kind::Held, SmallVec::new(), ids.clone()),
        };
        let chunk: &Chunk = frame.chunk();
        NewFrame {
            kind,
            owners,
            segs: chunk.segs.clone(),
            body: chunk.bytes.clone(),
            holds,
            frees: Vec::new(),
            time_ms: now,
        }
    }

    fn committed(&self, seq: u64, frame: Frame) {
        let bytes = frame.bytes();
        if let Content::Records { chunk, owed, delivered } = &frame.content {
            for outlet in owed.iter().filter_map(|o| self.shared.outlets.get(*o)) {
                outlet.committed(seq, chunk, delivered.as_ref().map(crate::record::Ack::split), bytes);
            }
        }
        let Frame { content, durable } = frame;
        if let Content::Records { delivered: Some(ack), .. } = content {
            ack.done();
        }
        if let Some(ack) = durable {
            ack.done();
        }
    }

    /// Tells the log what was handed out and settled, frees what nobody owes, and tells outlets what is owed.
    fn tell(&mut self) {
        if self.seen.elapsed() >= SEEN {
            self.still_configured();
        }
        self.last = Instant::now();
        self.shared.lock().news = false;
        let next = self.log.next_seq();
        for outlet in &self.shared.outlets {
            let news = outlet.news(next);
            self.log.handed_out(outlet.id, &news.handed, news.read);
            self.log.settle_partly(outlet.id, news.partly);
            self.log.settle(outlet.id, &news.settled);
        }
        match self.log.maintain(self.last).map_err(|e| e.to_string()) {
            Ok(freed) if freed.segments > 0 => self.upkeep = None,
            Ok(_) => {}
            Err(cause) if self.upkeep.as_ref() == Some(&cause) => {}
            Err(cause) => {
                tracing::warn!(path = %self.path, %cause, "cannot write the outputs' positions or free segments, trying again");
                self.upkeep = Some(cause);
            }
        }
        for outlet in &self.shared.outlets {
            outlet.owed(self.log.owed_bytes(outlet.id));
        }
    }

    fn complain(&mut self, e: &AppendError) {
        let cause = e.to_string();
        if self.trouble.as_ref() != Some(&cause) {
            tracing::error!(path = %self.path, %cause, "cannot store: nothing is acknowledged and sources wait until it works");
            self.trouble = Some(cause);
        }
    }

    /// The disk never took these: their acks fail, and they count as dropped.
    fn give_up(&self, frames: Vec<Frame>) {
        let rest: Vec<Frame> = self.shared.lock().frames.drain(..).collect();
        for frame in frames.into_iter().chain(rest) {
            for outlet in frame.owed().iter().filter_map(|o| self.shared.outlets.get(*o)) {
                outlet.not_committed(frame.chunk().count, frame.bytes());
            }
        }
    }
}
