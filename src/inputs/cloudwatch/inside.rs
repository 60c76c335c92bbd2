//! Batches that are inside: taken, or about to be, and not yet on disk or delivered.
//!
//! Enters: the hash of a body. Leaves: the one batch with that body, and what became of it. A client that was not
//! answered in time repeats its call: the repeat joins the batch that is inside instead of being taken a second time, and
//! finds the verdict should it have come in between. Bounded: by the calls that wait, one batch at work for each
//! stream, and [`LATE`] verdicts that nobody waited for.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::room::Patience;
use crate::wire::cloudwatch_in::Batch;

/// Good verdicts that are remembered for a repeat.
const LATE: usize = 1024;

type Hash = [u8; 32];

/// How far a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not taken yet; whoever waits for it may change their mind.
    Waiting,
    Taken,
    /// Everybody left before it was taken.
    Left,
    Settled(bool),
}

/// One batch.
pub(super) struct Pending {
    hash: Hash,
    /// What was in it.
    pub(super) batch: Batch,
    phase: watch::Sender<Phase>,
}

struct Entry {
    pending: Arc<Pending>,
    waiters: usize,
}

/// All of them.
#[derive(Default)]
pub(super) struct Inside(Mutex<State>);

#[derive(Default)]
struct State {
    batches: HashMap<Hash, Entry>,
    late: VecDeque<Hash>,
}

/// Somebody who waits for a batch. Dropping it means to wait no longer.
pub(super) struct Waiter {
    inside: Arc<Inside>,
    pub(super) pending: Arc<Pending>,
}

impl Inside {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the batch with this body, if it is inside.
    pub(super) fn join(self: &Arc<Self>, hash: &Hash) -> Option<Waiter> {
        let mut state = self.state();
        let entry = state.batches.get_mut(hash)?;
        entry.waiters += 1;
        Some(Waiter { inside: Arc::clone(self), pending: Arc::clone(&entry.pending) })
    }

    /// Announces a batch; `false`: it is inside already, and was joined.
    pub(super) fn enter(self: &Arc<Self>, hash: Hash, batch: Batch) -> (Waiter, bool) {
        if let Some(waiter) = self.join(&hash) {
            return (waiter, false);
        }
        let (phase, _) = watch::channel(Phase::Waiting);
        let pending = Arc::new(Pending { hash, batch, phase });
        self.state().batches.insert(hash, Entry { pending: Arc::clone(&pending), waiters: 1 });
        (Waiter { inside: Arc::clone(self), pending }, true)
    }

    /// Begins to take a batch; `false`: nobody waits for it any more, leave it.
    pub(super) fn take(&self, pending: &Pending) -> bool {
        let _state = self.state();
        let waiting = *pending.phase.borrow() == Phase::Waiting;
        if waiting {
            pending.phase.send_replace(Phase::Taken);
        }
        waiting
    }

    /// Tells everybody what became of a batch.
    pub(super) fn settle(&self, pending: &Pending, good: bool) {
        let mut state = self.state();
        pending.phase.send_replace(Phase::Settled(good));
        let unheard = state.batches.get(&pending.hash).is_some_and(|e| e.waiters == 0);
        if good && unheard {
            state.late.push_back(pending.hash);
            if state.late.len() > LATE
                && let Some(oldest) = state.late.pop_front()
            {
                state.batches.remove(&oldest);
            }
        } else if !good {
            // Its repeat is a new batch.
            state.batches.remove(&pending.hash);
        }
    }
}

impl Waiter {
    /// Waits until the batch is settled; `None` when that takes too long.
    pub(super) async fn verdict(&self, patience: &Patience) -> Option<bool> {
        let mut phase = self.pending.phase.subscribe();
        let settled = phase.wait_for(|p| matches!(p, Phase::Settled(_) | Phase::Left));
        // Once it is taken only the verdict counts, also at shutdown: outputs are still at work.
        let settled = tokio::time::timeout_at(patience.until, settled).await.ok()?;
        Some(settled.is_ok_and(|p| *p == Phase::Settled(true)))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.inside.state();
        let pending = &self.pending;
        let Some(entry) = state.batches.get_mut(&pending.hash).filter(|e| Arc::ptr_eq(&e.pending, pending))
        else {
            return;
        };
        entry.waiters -= 1;
        if entry.waiters > 0 {
            return;
        }
        let phase = *pending.phase.borrow();
        if phase == Phase::Waiting {
            pending.phase.send_replace(Phase::Left);
        }
        if phase != Phase::Taken {
            state.batches.remove(&pending.hash);
            state.late.retain(|hash| *hash != pending.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Stopper;
    use std::time::Duration;

    fn patience() -> Patience {
        let (stopper, stop) = Stopper::new();
        // It would count as a drain.
        std::mem::forget(stopper);
        Patience { until: tokio::time::Instant::now() + Duration::from_secs(5), stop }
    }

    fn enter(inside: &Arc<Inside>, n: u8) -> (Waiter, bool) {
        inside.enter([n; 32], Batch::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeat_joins_and_both_hear_the_verdict() {
        for good in [true, false] {
            let inside = Arc::new(Inside::default());
            let (first, new) = enter(&inside, 1);
            let (second, again) = enter(&inside, 1);
            assert!(new && !again);
            assert!(inside.take(&first.pending));
            assert_eq!(first.verdict(&patience()).await, None);
            inside.settle(&first.pending, good);
            assert_eq!(first.verdict(&patience()).await, Some(good));
            assert_eq!(second.verdict(&patience()).await, Some(good));
            drop((first, second));
            assert!(inside.state().batches.is_empty());
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_taken() {
        let inside = Arc::new(Inside::default());
        let (waiter, _) = enter(&inside, 1);
        let pending = Arc::clone(&waiter.pending);
        drop(waiter);
        assert!(!inside.take(&pending));
        assert!(enter(&inside, 1).1);
    }

    #[tokio::test]
    async fn a_repeat_after_a_verdict_that_nobody_heard_hears_it_once() {
        let inside = Arc::new(Inside::default());
        let (waiter, _) = enter(&inside, 1);
        let pending = Arc::clone(&waiter.pending);
        assert!(inside.take(&pending));
        drop(waiter);
        inside.settle(&pending, true);
        let repeat = inside.join(&[1; 32]).unwrap();
        assert_eq!(repeat.verdict(&patience()).await, Some(true));
        drop(repeat);
        assert!(inside.join(&[1; 32]).is_none());
        assert!(inside.state().late.is_empty());
    }

    #[tokio::test]
    async fn unheard_verdicts_are_bounded() {
        let inside = Arc::new(Inside::default());
        for n in 0..LATE + 5 {
            let hash = std::array::from_fn(|i| (n >> (8 * (i % 2))) as u8);
            let (waiter, _) = inside.enter(hash, Batch::default());
            let pending = Arc::clone(&waiter.pending);
            inside.take(&pending);
            drop(waiter);
            inside.settle(&pending, true);
        }
        assert_eq!(inside.state().batches.len(), LATE);
    }
}
