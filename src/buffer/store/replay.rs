//! Reads back what an output could not take at once, or what an earlier process left.
//!
//! Enters: frames from the log, a block at a time. Leaves: deliveries into the output's queue, waiting for its room. The
//! memory of a block is charged to the budget. Can go wrong: a damaged frame, which is counted as dropped and reported.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::damage::Met;
use super::outlet::Outlet;
use super::rest::rest;
use crate::buffer::wal::{Read, Reader, Seq};
use crate::observe::counters::Drop as DropReason;
use crate::record::{Chunk, Time};
use crate::rt::{Budget, Keeper, Meter};

/// Bytes of the log read at a time.
const BLOCK: usize = 256 << 10;
/// The wait after a read that failed.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Replay {
    outlet: Arc<Outlet>,
    reader: Reader,
    budget: Budget,
    /// What was read back and is not delivered, against `storage.backlog.mem_limit`.
    meter: Arc<Meter>,
    /// Frames below were stored by an earlier process.
    first: Seq,
    met: Arc<Met>,
}

impl Replay {
    pub(super) fn new(
        outlet: Arc<Outlet>,
        reader: Reader,
        budget: Budget,
        memory: u64,
        first: Seq,
        met: Arc<Met>,
    ) -> Replay {
        Replay { outlet, reader, budget, meter: Arc::new(Meter::new(memory)), first, met }
    }

    pub(super) fn label(&self) -> &str {
        self.outlet.label()
    }

    /// Runs until nothing more will be stored and everything is handed out.
    pub(super) async fn run(mut self) {
        let outlet = Arc::clone(&self.outlet);
        loop {
            let woken = outlet.behind.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if outlet.is_over() {
                return;
            }
            let Some(from) = outlet.read_from() else {
                woken.await;
                continue;
            };
            self.meter.below_limit().await;
            // Inside already: it never waits for what sources hold.
            let charge = self.budget.take(BLOCK as u64);
            let Some(read) = self.read(from).await else { return };
            let tail = outlet.tail();
            self.hand_out(from, read, tail, charge).await;
        }
    }

    /// One block, on a thread that may block. `None`: the process is ending.
    async fn read(&mut self, from: Seq) -> Option<Read> {
        let mut reader = self.reader.clone();
        let most = match self.meter.limit {
            0 => BLOCK,
            limit => usize::try_from(limit).unwrap_or(BLOCK).min(BLOCK),
        };
        tokio::task::spawn_blocking(move || reader.read(from, most)).await.ok()
    }

    async fn hand_out(&mut self, from: Seq, mut read: Read, tail: Seq, mut charge: crate::rt::Charge) {
        let outlet = &self.outlet;
        for damage in &read.damage {
            // What it held may have been owed to others as well, or to nobody here: at most so many are lost.
            if self.met.by_reader(damage) {
                if damage.first_seq >= self.first {
                    // Stored by this process, and held since.
                    outlet.dropped(DropReason::Damaged, damage.records);
                } else {
                    outlet.counters().recovered.fetch_add(damage.records, Relaxed);
                    outlet.counters().dropped(DropReason::Damaged, damage.records);
                }
            }
        }
        if let Some(cause) = &read.failed {
            tracing::error!(output = %outlet.label(), %cause, "cannot read stored records, trying again");
            return tokio::time::sleep(RETRY).await;
        }
        // What is written and not committed yet comes by the other way, or later.
        read.frames.retain(|f| f.seq < tail);
        let next = read.next.min(tail);
        let size: u64 = read.frames.iter().map(|f| f.body.len() as u64).sum();
        charge.grow_to(size);
        charge.shrink_to(size);
        let Some((queue, acks)) = outlet.hand_out(read.frames.iter().map(|f| f.seq), next) else { return };
        if !read.damage.is_empty() {
            outlet.fail_below(next);
        }
        let counters = outlet.counters();
        let now_ms = Time::now().millis().unsigned_abs();
        for (frame, ack) in read.frames.into_iter().zip(acks) {
            let (frame, places) = rest(frame);
            if frame.seq < self.first {
                counters.recovered.fetch_add(frame.count, Relaxed);
                counters.held.fetch_add(frame.count, Relaxed);
            }
            let frame_bytes = frame.body.len() as u64;
            let chunk = Arc::new(Chunk {
                charge: charge.split(frame_bytes),
                bytes: frame.body,
                segs: frame.segs,
                count: frame.count,
                meter: Some(self.meter.charge(frame_bytes)),
            });
            let keeper = Arc::clone(outlet) as Arc<dyn Keeper>;
            // `retry.max_age` counts from when it was stored, also over a restart.
            let age = Duration::from_millis(now_ms.saturating_sub(frame.time_ms));
            let since = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
            let delivery = queue.stored(chunk, since, ack, keeper, (frame.seq, places));
            // Its verdict was lost, and that of every record was not.
            if frame.count == 0 { delivery.delivered() } else { queue.push(delivery).await }
        }
        if next >= tail {
            outlet.caught_up(next);
        } else if next == from {
            // Nothing where something must be: the log says more about it.
            tokio::time::sleep(RETRY).await;
        }
    }
}
