//! The loop of outputs that write bytes: collect, write, settle, try again.
//!
//! Enters: deliveries. Leaves: batches to a [`Sink`], on a thread that may block, one at a time, while the next batch
//! is formatted. Can go wrong: a write fails; then the batch is kept and tried again until it succeeds or the process
//! has to end. What is left when the task is aborted has no verdict: it counts as given up, or stays in the log.
//!
//! Records whose sender waits are synced with their batch. Those that are in the log are settled at a sync as well, but
//! it may wait for company: at most [`SYNC`], or [`UNSYNCED`] bytes.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::batch::{Cursor, Text};
use super::count_replaced_keys;
use super::format::Formatter;
use super::retry::RetryPolicy;
use crate::rt::{Delivery, Receiver};

/// Naps within a wait, to see a shutdown; at shutdown nothing waits longer.
const NAP: Duration = Duration::from_millis(100);
/// How long records of the log wait for a sync to share.
const SYNC: Duration = Duration::from_millis(50);
/// Bytes written and not synced that do not wait.
const UNSYNCED: usize = 4 << 20;

/// Where batches go. Called on a thread that may block.
pub(super) trait Sink: Send + 'static {
    /// Writes what is not written yet, and syncs what is owed if the batch says so. After an error it is called again
    /// with the same batch, which knows what has been written.
    fn write(&mut self, text: &mut Text) -> Result<(), Failure>;
}

/// Why a batch could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What, where, what to do.
    pub(super) cause: String,
    /// What was written before and not synced may be gone from the disk's memory: it must be written once more.
    pub(super) lost: bool,
}

impl Failure {
    /// A write that did not succeed; what came before it stands.
    pub(super) fn of_write(cause: String) -> Failure {
        Failure { cause, lost: false }
    }
}

/// When records without an ack are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// At once when nothing was written for this long, else this long after the last write began.
    Spaced(Duration),
    /// This long after the first of a batch came.
    Gathered(Duration),
}

enum State<S> {
    Idle(S),
    Writing(JoinHandle<(S, Text, Result<(), Failure>)>),
    Waiting { sink: S, text: Text, until: Instant },
}

fn write<S: Sink>(mut sink: S, mut text: Text) -> State<S> {
    State::Writing(tokio::task::spawn_blocking(move || {
        let result = sink.write(&mut text);
        (sink, text, result)
    }))
}

async fn written<S>(state: &mut State<S>) -> Result<(S, Text, Result<(), Failure>), JoinError> {
    match state {
        State::Writing(handle) => handle.await,
        _ => std::future::pending().await,
    }
}

/// Deliveries written and waiting for a sync.
#[derive(Default)]
struct Unsynced {
    deliveries: Vec<Delivery>,
    bytes: usize,
    due: Option<Instant>,
}

impl Unsynced {
    fn add(&mut self, delivery: Delivery) {
        self.bytes += delivery.chunk.bytes.len();
        self.due.get_or_insert_with(|| Instant::now() + SYNC);
        self.deliveries.push(delivery);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.bytes >= UNSYNCED || self.due.is_some_and(|due| now >= due)
    }

    fn take(&mut self) -> Vec<Delivery> {
        std::mem::take(self).deliveries
    }
}

/// Runs an output until its queue is closed and everything is written.
pub(super) async fn run<S: Sink>(
    sink: S,
    mut formatter: Formatter,
    pace: Pace,
    together: bool,
    mut queue: Receiver,
) {
    // The batch being filled and the one being written; their memory changes places.
    let mut collecting = Text::new(together);
    let mut spare = Some(Text::new(together));
    // Deliveries that end in them. They stay here, not with the writing thread: when this task is aborted they are
    // accounted for at once.
    let (mut collected, mut leaving) = (Vec::<Delivery>::new(), Vec::<Delivery>::new());
    let mut unsynced = Unsynced::default();
    let mut again = VecDeque::<Delivery>::new();
    let mut cursor: Option<Cursor> = None;
    let mut state = State::Idle(sink);
    let mut due = Instant::now();
    let mut trouble = Trouble::default();
    let (mut ended, mut closing) = (false, false);
    loop {
        while !collecting.is_full() {
            let next = || again.pop_front().or_else(|| queue.try_recv()).map(Cursor::new);
            let Some(mut c) = cursor.take().or_else(next) else { break };
            if let Pace::Gathered(wait) = pace
                && collecting.is_empty()
                && collected.is_empty()
            {
                due = Instant::now() + wait;
            }
            if collecting.fill(&mut c, &mut formatter) {
                collected.push(c.delivery);
            } else {
                cursor = Some(c);
            }
        }
        count_replaced_keys(&queue);
        let now = Instant::now();
        let just_closed = !std::mem::replace(&mut closing, queue.closed()) && closing;
        let pending = !collecting.is_empty() || !collected.is_empty();
        let owes_sync = !unsynced.deliveries.is_empty();
        let sync_now = owes_sync && (unsynced.is_due(now) || (closing && !pending));
        state = match (state, spare.take()) {
            (State::Idle(sink), Some(mut next))
                if sync_now
                    || (pending && (closing || collecting.sync || collecting.is_full() || now >= due)) =>
            {
                collecting.seal(&formatter);
                collecting.sync |= sync_now || (closing && collecting.owed);
                std::mem::swap(&mut collecting, &mut next);
                std::mem::swap(&mut collected, &mut leaving);
                if let Pace::Spaced(wait) = pace {
                    due = now + wait;
                }
                state = write(sink, next);
                continue;
            }
            (State::Idle(_), _) if ended && !pending && !owes_sync => return,
            // At shutdown nothing waits out a back-off.
            (State::Waiting { sink, text, until }, s) if just_closed || now >= until => {
                spare = s;
                write(sink, text)
            }
            (state, s) => {
                spare = s;
                state
            }
        };
        let wake = match &state {
            State::Idle(_) => [pending.then_some(due), unsynced.due].into_iter().flatten().min(),
            State::Waiting { until, .. } => Some((now + NAP).min(*until)),
            State::Writing(_) => None,
        };
        tokio::select! {
            result = written(&mut state) => {
                let (sink, mut text, result) = match result {
                    Ok(all) => all,
                    Err(e) => {
                        // The sink panicked, or the runtime is ending: nothing can be written any more.
                        tracing::error!(output = %queue.label(), cause = %e, "output ended");
                        return;
                    }
                };
                let mut idle = |sink, mut text: Text| {
                    text.clear();
                    spare = Some(text);
                    State::Idle(sink)
                };
                state = match result {
                    Ok(()) => {
                        trouble.over(&queue);
                        if text.sync {
                            unsynced.take().into_iter().for_each(Delivery::delivered);
                        }
                        for delivery in leaving.drain(..) {
                            if text.sync || !delivery.must_last() {
                                delivery.delivered();
                            } else {
                                unsynced.add(delivery);
                            }
                        }
                        idle(sink, text)
                    }
                    Err(failure) => {
                        if failure.lost {
                            again.extend(unsynced.take());
                        }
                        let wait = trouble.again(&queue, failure.cause);
                        let wait = if closing { wait.min(NAP) } else { wait };
                        text.sync |= text.owed && closing;
                        State::Waiting { sink, text, until: Instant::now() + wait }
                    }
                };
            }
            delivery = queue.recv(), if !ended && cursor.is_none() && !collecting.is_full() => {
                match delivery {
                    Some(delivery) => cursor = Some(Cursor::new(delivery)),
                    None => ended = true,
                }
            }
            () = tokio::time::sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
        }
    }
}

/// Attempts that failed in a row. What cannot be written is never given up: `Retry_Limit` counts what a network or a
/// service refuses.
#[derive(Default)]
struct Trouble {
    cause: Option<String>,
    failures: u32,
}

impl Trouble {
    /// One more failed: says so if it is news, and how long to wait.
    fn again(&mut self, queue: &Receiver, cause: String) -> Duration {
        queue.counters().retries.fetch_add(1, Relaxed);
        self.failures = self.failures.saturating_add(1);
        if self.cause.as_ref() != Some(&cause) {
            tracing::error!(output = %queue.label(), %cause, "cannot write, records are kept and tried again");
            self.cause = Some(cause);
        }
        RetryPolicy::default().wait(self.failures)
    }

    /// One succeeded.
    fn over(&mut self, queue: &Receiver) {
        self.failures = 0;
        if self.cause.take().is_some() {
            tracing::info!(output = %queue.label(), "writing again");
        }
    }
}
