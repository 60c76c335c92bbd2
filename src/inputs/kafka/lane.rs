//! Records on their way in, and their acks on the way back.
//!
//! Enters: batches. Leaves: records to the intake; positions once everything before them is safe. Can go wrong: an output
//! gives records up; then everything since the committed positions is read again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::control::{Control, Place};
use super::record::Batch;
use crate::inputs::read::until;
use crate::inputs::{InputContext, Intake};
use crate::record::{AckWait, Verdict};
use crate::rt::Charge;

/// Batches whose acks are due; beyond it no more are taken.
const MAX_DUE: usize = 1024;

/// A batch and what it takes of the budget until it is passed on.
pub(super) type Work = (Batch, Charge);

struct Due {
    wait: AckWait,
    upto: Vec<(Place, i64)>,
}

/// Runs until nothing comes any more and everything is acked, or the time of sources is over.
pub(super) async fn run(mut inbox: mpsc::Receiver<Work>, control: Arc<Control>, cx: InputContext) {
    let mut intake = cx.intake();
    let settled = intake.settled();
    let mut due = VecDeque::new();
    let mut stop = cx.stop.clone();
    let mut last_call: Option<Instant> = None;
    let mut open = true;
    loop {
        if !store(&mut due, &control) {
            tracing::warn!(input = %cx.label, "an output gave records up; they are read again from the committed position");
            due.clear();
            control.begin_anew();
        }
        if !open && due.is_empty() {
            break;
        }
        let expire = intake.deadline().map(Into::into);
        tokio::select! {
            biased;
            () = settled.notified(), if !due.is_empty() => {}
            at = stop.draining(), if last_call.is_none() => last_call = Some(at),
            () = until(last_call) , if !open => break,
            () = until(expire) => intake.expire().await,
            work = inbox.recv(), if open && due.len() < MAX_DUE => match work {
                Some(work) => due.extend(take(work, intake.as_mut(), &control, &cx).await),
                None => {
                    open = false;
                    intake.finish().await;
                }
            },
        }
    }
    control.ended.notify_one();
}

/// Stores the positions of the longest prefix that is safe. False: an output gave something up.
fn store(due: &mut VecDeque<Due>, control: &Control) -> bool {
    while let Some(first) = due.front() {
        match first.wait.verdict() {
            Verdict::Pending => return true,
            Verdict::Failed => return false,
            Verdict::Delivered => {}
        }
        if let Some(first) = due.pop_front() {
            control.store(first.upto);
        }
    }
    true
}

async fn take(work: Work, intake: &mut dyn Intake, control: &Control, cx: &InputContext) -> Option<Due> {
    let (batch, charge) = work;
    if batch.generation != control.generation() {
        return None;
    }
    let bytes = Bytes::from(batch.bytes);
    for row in batch.rows {
        let tag = row.tag.and_then(|tag| bytes.get(tag)).unwrap_or(cx.tag.as_bytes());
        intake.push(tag, row.time, None, bytes.get(row.record).unwrap_or_default());
    }
    let flushed = intake.flush(true);
    // It is charged as a chunk from here on.
    drop(charge);
    Some(Due { wait: flushed.await?, upto: batch.upto })
}
