//! A read buffer that the byte budget knows of.
//!
//! Enters: nothing until there is something to read. Leaves: room for one read, granted by the budget and by
//! `Mem_Buf_Limit`. An idle source holds no buffer. Within a record one source at a time may pass the budget, so that
//! some record always completes.

use bytes::BytesMut;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::InputContext;
use crate::rt::Charge;

/// Largest read: small enough that many connections take turns, large enough to cost little.
const LARGE: usize = 64 * 1024;
/// First read of a quiet source: a health check must cost next to nothing.
const SMALL: usize = 4 * 1024;

pub(super) struct ReadBuffer {
    /// What was read and is not done with, then room.
    pub(super) bytes: BytesMut,
    charge: Charge,
    /// Held while the buffer is past the budget.
    oversize: Option<OwnedSemaphorePermit>,
    step: usize,
}

impl ReadBuffer {
    pub(super) fn new(cx: &InputContext) -> Self {
        ReadBuffer { bytes: BytesMut::new(), charge: cx.budget.take(0), oversize: None, step: SMALL }
    }

    /// Waits until the input is below its limit and the budget lends room for one read. Nothing is lost when the
    /// future is dropped.
    pub(super) async fn room(&mut self, cx: &InputContext) {
        cx.meter.below_limit().await;
        let wanted = (self.bytes.len() + self.step) as u64;
        let more = wanted.saturating_sub(self.charge.bytes());
        if more > 0 {
            let charge = match cx.budget.try_take(more) {
                Some(charge) => charge,
                None if self.oversize.is_some() => cx.budget.take(more),
                None if self.bytes.is_empty() => cx.budget.wait_take(more).await,
                None => tokio::select! {
                    charge = cx.budget.wait_take(more) => charge,
                    oversize = cx.budget.oversize() => {
                        self.oversize = oversize;
                        cx.budget.take(more)
                    }
                },
            };
            self.charge.merge(charge);
        }
        self.bytes.reserve(self.step);
        self.charge.grow_to(self.bytes.capacity() as u64);
    }

    /// How many bytes the next read may take.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// A read gave `n` bytes: a source that fills its reads gets larger ones.
    pub(super) fn filled(&mut self, n: usize) {
        if n >= self.step {
            self.step = (self.step * 2).min(LARGE);
        }
    }

    /// Drops `n` bytes at the front: records that have been passed on.
    pub(super) fn consume(&mut self, n: usize) {
        let left = self.bytes.len().saturating_sub(n);
        if left > 0 && n > 0 {
            self.bytes.copy_within(n.., 0);
        }
        self.bytes.truncate(left);
        // What a large record needed is not kept, and the right to pass the budget goes to the next who needs it.
        if n > 0 && (self.oversize.is_some() || self.bytes.capacity() > left + 2 * LARGE) {
            self.shrink();
            self.oversize = None;
        }
    }

    /// Nothing is there to read: gives back what is not needed meanwhile.
    pub(super) fn idle(&mut self) {
        self.step = SMALL;
        if self.bytes.is_empty() {
            self.oversize = None;
        }
        // A record that comes in drops must not be copied for each of them.
        if self.bytes.is_empty() || self.bytes.capacity() > 2 * self.bytes.len() + 4 * SMALL {
            self.shrink();
        }
    }

    /// Whether it holds the right to pass the budget.
    pub(super) fn is_oversize(&self) -> bool {
        self.oversize.is_some()
    }

    fn shrink(&mut self) {
        let mut fitting = BytesMut::with_capacity(self.bytes.len());
        fitting.extend_from_slice(&self.bytes);
        self.bytes = fitting;
        self.charge.shrink_to(self.bytes.capacity() as u64);
    }
}

/// Waits until then; for ever without a time.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn an_idle_source_holds_nothing_and_a_busy_one_gets_larger_reads() {
        let bench = Bench::new();
        let cx = bench.context();
        let mut buffer = ReadBuffer::new(&cx);
        for expected in [SMALL, 2 * SMALL, 4 * SMALL, 8 * SMALL, LARGE, LARGE] {
            buffer.room(&cx).await;
            assert_eq!(buffer.step(), expected);
            assert!(cx.budget.used() >= buffer.bytes.capacity() as u64);
            buffer.bytes.resize(expected, b'x');
            buffer.filled(expected);
            buffer.consume(expected);
        }
        buffer.idle();
        assert_eq!((cx.budget.used(), buffer.bytes.capacity()), (0, 0));
    }

    #[tokio::test]
    async fn a_record_that_comes_in_drops_is_not_copied_for_each() {
        let bench = Bench::new();
        let cx = bench.context();
        let mut buffer = ReadBuffer::new(&cx);
        let mut moves = 0;
        for _ in 0..32 * 1024 {
            buffer.room(&cx).await;
            let before = buffer.bytes.as_ptr();
            buffer.bytes.extend_from_slice(b"x");
            buffer.filled(1);
            buffer.idle();
            moves += usize::from(buffer.bytes.as_ptr() != before);
        }
        assert!(moves < 20, "{moves}");
    }

    #[tokio::test(start_paused = true)]
    async fn above_the_budget_a_source_waits_and_one_within_a_record_goes_on() {
        let bench = Bench::with_budget(64 * 1024);
        let cx = bench.context();
        let mut within = ReadBuffer::new(&cx);
        within.room(&cx).await;
        within.bytes.extend_from_slice(b"half a rec");
        let held = cx.budget.take(cx.budget.source_limit());
        let mut fresh = ReadBuffer::new(&cx);
        assert!(timeout(Duration::from_secs(9), fresh.room(&cx)).await.is_err());
        within.bytes.resize(SMALL, b'x');
        within.room(&cx).await;
        assert!(within.is_oversize());
        within.consume(SMALL);
        assert!(!within.is_oversize());
        drop(held);
        fresh.room(&cx).await;
    }

    #[tokio::test(start_paused = true)]
    async fn above_its_own_limit_an_input_does_not_read() {
        let bench = Bench::with_limit(1000);
        let cx = bench.context();
        let inside = cx.meter.charge(1000);
        let mut buffer = ReadBuffer::new(&cx);
        assert!(timeout(Duration::from_secs(9), buffer.room(&cx)).await.is_err());
        drop(inside);
        buffer.room(&cx).await;
    }
}
