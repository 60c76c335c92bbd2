//! The promise: whoever sent a chunk learns when every output has it.
//!
//! One [`AckWait`] is kept by the input; each output that owes the chunk holds an [`Ack`]. An [`Ack`] that is dropped
//! without [`Ack::done`] means *failed*: a forgotten verdict must never look like a delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

struct Shared {
    owed: AtomicUsize,
    failed: AtomicBool,
    settled: Arc<Notify>,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An output still owes it.
    Pending,
    /// Every output has it.
    Delivered,
    /// At least one output gave it up.
    Failed,
}

/// The sender's half.
pub struct AckWait(Arc<Shared>);

/// One output's half.
pub struct Ack {
    shared: Arc<Shared>,
    done: bool,
}

impl AckWait {
    /// A handle that nothing is owed on yet, and the token of the party that makes it: as long as that token lives the
    /// verdict stays pending, so outputs can be added one by one. `settled` is notified at the verdict.
    pub fn new(settled: Arc<Notify>) -> (AckWait, Ack) {
        let shared = Arc::new(Shared { owed: AtomicUsize::new(1), failed: AtomicBool::new(false), settled });
        (AckWait(Arc::clone(&shared)), Ack { shared, done: false })
    }

    /// The verdict so far.
    pub fn verdict(&self) -> Verdict {
        // Acquire pairs with the release in `settle`: who sees 0 owed also sees every `failed`.
        if self.0.owed.load(Ordering::Acquire) > 0 {
            Verdict::Pending
        } else if self.0.failed.load(Ordering::Relaxed) {
            Verdict::Failed
        } else {
            Verdict::Delivered
        }
    }
}

impl Ack {
    /// One more output owes the chunk.
    pub fn split(&self) -> Ack {
        self.shared.owed.fetch_add(1, Ordering::Relaxed);
        Ack { shared: Arc::clone(&self.shared), done: false }
    }

    /// This output has it.
    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.done {
            self.shared.failed.store(true, Ordering::Relaxed);
        }
        if self.shared.owed.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.settled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_dropped_without_a_verdict_means_failed() {
        let (wait, first) = AckWait::new(Arc::default());
        let second = first.split();
        first.done();
        assert_eq!(wait.verdict(), Verdict::Pending);
        drop(second);
        assert_eq!(wait.verdict(), Verdict::Failed);
    }

    #[test]
    fn delivered_means_every_output_said_so() {
        let (wait, first) = AckWait::new(Arc::default());
        let second = first.split();
        second.done();
        assert_eq!(wait.verdict(), Verdict::Pending);
        first.done();
        assert_eq!(wait.verdict(), Verdict::Delivered);
    }
}
