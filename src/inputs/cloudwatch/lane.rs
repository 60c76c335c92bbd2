//! One stream at work: its batches, one after the other.
//!
//! Enters: batches, in the order of their calls. Leaves: records to the intake; the verdict when their ack is there. Can
//! go wrong: an output gives a batch up; its client is told, and repeats it. The next batch is taken when the one before
//! is settled, so that the order within a stream is kept whatever becomes of a batch.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::inside::{Inside, Pending};
use super::room::Room;
use super::window::{Key, Window};
use crate::inputs::read::until;
use crate::inputs::{InputContext, Intake};
use crate::observe::counters::Refusal;
use crate::record::{Time, Verdict};

/// A stream that was silent so long ends; the next batch begins it anew.
const IDLE: Duration = Duration::from_secs(60);

/// A batch on its way.
pub(super) struct Work {
    pub(super) tag: Arc<[u8]>,
    pub(super) entries: Bytes,
    /// What the entries take of the budget until they are passed on.
    pub(super) room: Room,
    pub(super) pending: Arc<Pending>,
}

/// What a stream shares with the others.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) inside: Arc<Inside>,
    pub(super) window: Arc<Mutex<Window>>,
}

/// Runs a stream until nobody can send to it any more, or it was silent for long.
pub(super) async fn run(key: Arc<Key>, mut batches: mpsc::Receiver<Work>, shared: Shared, cx: InputContext) {
    let mut intake = cx.intake();
    loop {
        let expire = intake.deadline().map(Into::into);
        tokio::select! {
            biased;
            () = until(expire) => intake.expire().await,
            work = batches.recv() => match work {
                Some(work) => take(&key, work, intake.as_mut(), &shared).await,
                None => break,
            },
            // What comes in this moment is still received.
            () = tokio::time::sleep(IDLE), if expire.is_none() => batches.close(),
        }
    }
    intake.finish().await;
}

async fn take(key: &Arc<Key>, work: Work, intake: &mut dyn Intake, shared: &Shared) {
    let Work { tag, entries, mut room, pending } = work;
    if !shared.inside.take(&pending) {
        return;
    }
    let batch = pending.batch;
    {
        // The window is whole whenever the lock is free.
        let mut window = shared.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.add(key, &entries, batch.taken, Time::now().millis());
    }
    let refused = batch.events - batch.taken;
    if refused > 0 {
        intake.refuse(Refusal::OutsideTime, refused as u64, &tag, b"", "outside the time that is taken");
    }
    intake.push_entries(&tag, entries, batch.taken as u64);
    let settled = intake.settled();
    let flushed = intake.flush(true);
    // It is charged as a chunk from here on.
    room.set(0);
    let wait = flushed.await;
    let good = loop {
        let notified = settled.notified();
        match wait.as_ref().map_or(Verdict::Failed, |w| w.verdict()) {
            Verdict::Delivered => break true,
            Verdict::Failed => break false,
            Verdict::Pending => {}
        }
        let expire = intake.deadline().map(Into::into);
        tokio::select! {
            () = notified => {}
            () = until(expire) => intake.expire().await,
        }
    };
    shared.inside.settle(&pending, good);
}
