//! The loop of outputs that write bytes: collect, write, settle, try again.
//!
//! Enters: deliveries. Leaves: batches to a [`Sink`], on a thread that may block, one at a time, while the next batch
//! is formatted. Can go wrong: a write fails; then the batch is kept and tried again until it succeeds or the process
//! has to end. Nothing is dropped here; what is left when the task is aborted has no verdict and counts as given up.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::batch::{Cursor, Text};
use super::format::Formatter;
use crate::rt::{Delivery, Receiver};

/// The waits between attempts.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where batches go. Called on a thread that may block.
pub(super) trait Sink: Send + 'static {
    /// Writes what is not written yet, and syncs what is owed if the batch says so. After an error it is called again
    /// with the same batch, which knows what has been written.
    fn write(&mut self, text: &mut Text) -> Result<(), Failure>;
}

/// Why a batch could not be written: what, where, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure(pub(super) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    let mut cursor: Option<Cursor> = None;
    let mut state = State::Idle(sink);
    let mut due = Instant::now();
    let mut trouble = Trouble::default();
    let (mut ended, mut closing) = (false, false);
    loop {
        while !collecting.is_full() {
            let Some(mut c) = cursor.take().or_else(|| queue.try_recv().map(Cursor::new)) else { break };
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
        let now = Instant::now();
        let just_closed = !std::mem::replace(&mut closing, queue.closed()) && closing;
        let pending = !collecting.is_empty() || !collected.is_empty();
        state = match (state, spare.take()) {
            (State::Idle(sink), Some(mut next))
                if pending && (closing || collecting.sync || collecting.is_full() || now >= due) =>
            {
                collecting.seal(&formatter);
                std::mem::swap(&mut collecting, &mut next);
                std::mem::swap(&mut collected, &mut leaving);
                if let Pace::Spaced(wait) = pace {
                    due = now + wait;
                }
                state = write(sink, next);
                continue;
            }
            (State::Idle(_), _) if ended && !pending => return,
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
            State::Idle(_) => pending.then_some(due),
            // Short naps, to see a shutdown.
            State::Waiting { until, .. } => Some((now + BACKOFF).min(*until)),
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
                state = match result {
                    Ok(()) => {
                        trouble.over(&queue);
                        leaving.drain(..).for_each(Delivery::delivered);
                        text.clear();
                        spare = Some(text);
                        State::Idle(sink)
                    }
                    Err(failure) => {
                        let wait = trouble.again(&queue, failure);
                        let wait = if closing { wait.min(BACKOFF) } else { wait };
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

/// Attempts that failed in a row.
#[derive(Default)]
struct Trouble {
    failure: Option<Failure>,
    wait: Duration,
}

impl Trouble {
    /// One more failed: says so if it is news, and how long to wait.
    fn again(&mut self, queue: &Receiver, failure: Failure) -> Duration {
        queue.counters().retries.fetch_add(1, Relaxed);
        self.wait = (self.wait * 2).clamp(BACKOFF, BACKOFF_MAX);
        if self.failure.as_ref() != Some(&failure) {
            tracing::error!(output = %queue.label(), cause = %failure, "cannot write, records are kept and tried again");
            self.failure = Some(failure);
        }
        self.wait
    }

    /// One succeeded.
    fn over(&mut self, queue: &Receiver) {
        if self.failure.take().is_some() {
            tracing::info!(output = %queue.label(), "writing again");
            self.wait = Duration::ZERO;
        }
    }
}
