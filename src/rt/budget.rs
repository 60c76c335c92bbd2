//! One byte budget for the process: read buffers, chunks, batches.
//!
//! Sources wait for room (their socket pushes back); filters and outputs never wait: a quarter of the limit is theirs
//! alone, so that what is inside can always leave. Can go wrong: a single partial frame larger than what is left; one
//! at a time may pass the limit ([`Budget::oversize`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Sources that may be between a read and the outputs at a time. With reads of 64 KiB that is 1 MiB; 4 to 32 cost the same.
const TURNS: usize = 16;

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    /// Sources that wait, first come first served. Whoever gives bytes back grants them, so that 500 waiting
    /// connections cost one wake-up each and not one for every chunk that leaves.
    waiters: Mutex<VecDeque<Waiter>>,
    waiting: AtomicUsize,
    oversize: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    grant: oneshot::Sender<Charge>,
}

/// The budget. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

/// Bytes taken from a budget, given back on drop.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Budget(Arc::new(Shared {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            waiters: Mutex::default(),
            waiting: AtomicUsize::new(0),
            oversize: Arc::new(Semaphore::new(1)),
            turns: Arc::new(Semaphore::new(TURNS)),
        }))
    }

    /// The whole limit in bytes.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// What sources may fill: three quarters.
    pub fn source_limit(&self) -> u64 {
        self.0.limit / 4 * 3
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.0.used.load(Relaxed)
    }

    /// The most that was ever in use.
    pub fn peak(&self) -> u64 {
        self.0.peak.load(Relaxed)
    }

    /// Takes bytes at once, whatever is left: for what is already inside.
    pub fn take(&self, bytes: u64) -> Charge {
        let used = self.0.used.fetch_add(bytes, Relaxed) + bytes;
        self.0.peak.fetch_max(used, Relaxed);
        Charge { budget: self.clone(), bytes }
    }

    /// Takes bytes if the sources' part has room.
    pub fn try_take(&self, bytes: u64) -> Option<Charge> {
        let limit = self.source_limit();
        let used =
            self.0.used.fetch_update(Relaxed, Relaxed, |u| (u + bytes <= limit).then_some(u + bytes)).ok()?;
        self.0.peak.fetch_max(used + bytes, Relaxed);
        Some(Charge { budget: self.clone(), bytes })
    }

    /// Waits until the sources' part has room for `bytes`, first come first served.
    pub async fn wait_take(&self, bytes: u64) -> Charge {
        // More than the whole part would wait for ever.
        let bytes = bytes.min(self.source_limit());
        loop {
            if self.0.waiting.load(SeqCst) == 0
                && let Some(charge) = self.try_take(bytes)
            {
                return charge;
            }
            let (grant, granted) = oneshot::channel();
            self.0.waiting.fetch_add(1, SeqCst);
            self.lock().push_back(Waiter { bytes, grant });
            // Bytes given back before the waiter stood in the line.
            self.grant();
            // A sender that is gone without a word cannot be: the line holds it. Asking again is safe.
            if let Ok(charge) = granted.await {
                return charge;
            }
        }
    }

    /// How many wait for room.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(SeqCst)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiter>> {
        // The line is whole whenever the lock is free.
        self.0.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the line as far as there is room.
    fn grant(&self) {
        loop {
            let mut line = self.lock();
            let Some(first) = line.front() else { return };
            if !first.grant.is_closed() && self.used() + first.bytes > self.source_limit() {
                return;
            }
            let Some(first) = line.pop_front() else { return };
            drop(line);
            self.0.waiting.fetch_sub(1, SeqCst);
            if !first.grant.is_closed() {
                let charge = self.take(first.bytes);
                // A waiter that left in this moment gives the bytes back by dropping them.
                drop(first.grant.send(charge));
            }
        }
    }

    /// A turn to read, first come first served; kept until what was read had its way to the outputs. Of hundreds of
    /// connections that all have something, a few at a time then fill and empty the same memory, which stays in the
    /// processor's cache; else each would read before the first output has its turn.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.turns).acquire_owned().await.ok()
    }

    /// The right to grow one partial frame past the limit, if nobody has it.
    pub fn try_oversize(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.oversize).try_acquire_owned().ok()
    }

    /// The right to grow one partial frame past the limit. One holder at a time, so that some frame always completes.
    pub async fn oversize(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.oversize).acquire_owned().await.ok()
    }
}

impl Charge {
    /// How many bytes it stands for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more bytes of the same budget, at once: for what is made of what this stands for.
    pub fn beside(&self, bytes: u64) -> Charge {
        self.budget.take(bytes)
    }

    /// Splits bytes off into a charge of their own (at most what is there).
    pub fn split(&mut self, bytes: u64) -> Charge {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Charge { budget: self.budget.clone(), bytes }
    }

    /// Takes over what another charge stands for.
    pub fn merge(&mut self, mut other: Charge) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Grows to `bytes` without waiting.
    pub fn grow_to(&mut self, bytes: u64) {
        if bytes > self.bytes {
            let mut more = self.budget.take(bytes - self.bytes);
            self.bytes += std::mem::take(&mut more.bytes);
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if bytes < self.bytes {
            drop(self.split(self.bytes - bytes));
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.0.used.fetch_sub(self.bytes, SeqCst);
            if self.budget.0.waiting.load(SeqCst) > 0 {
                self.budget.grant();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_leave_a_quarter_for_what_is_inside() {
        let b = Budget::new(400);
        let first = b.try_take(300).unwrap();
        assert!(b.try_take(1).is_none());
        let inside = b.take(100);
        assert_eq!(b.used(), 400);
        drop((first, inside));
        assert_eq!((b.used(), b.peak()), (0, 400));
    }

    #[tokio::test]
    async fn a_waiting_source_goes_on_when_bytes_are_given_back() {
        let b = Budget::new(400);
        let held = b.try_take(300).unwrap();
        let waiter = b.wait_take(200);
        tokio::pin!(waiter);
        assert!(futures_poll_once(waiter.as_mut()).is_none());
        drop(held);
        assert_eq!(waiter.await.bytes(), 200);
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_does_not_block_the_line() {
        let b = Budget::new(400);
        let held = b.try_take(300).unwrap();
        let mut gone = Box::pin(b.wait_take(300));
        assert!(futures_poll_once(gone.as_mut()).is_none());
        let mut next = Box::pin(b.wait_take(100));
        assert!(futures_poll_once(next.as_mut()).is_none());
        drop(gone);
        drop(held);
        assert_eq!(next.await.bytes(), 100);
        assert_eq!(b.used(), 0);
    }

    fn futures_poll_once<F: Future>(f: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match f.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(v) => Some(v),
            std::task::Poll::Pending => None,
        }
    }
}
