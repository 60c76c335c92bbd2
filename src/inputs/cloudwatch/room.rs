//! How long a call waits, and the memory that it takes meanwhile.
//!
//! Enters: sizes. Leaves: room in the byte budget. Can go wrong: there is none in time; then the call is refused before
//! anything of it was taken. One call at a time may pass the budget, so that some call always completes.

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::answer::Error;
use crate::inputs::InputContext;
use crate::rt::{Charge, Stop};

/// When a call is answered at the latest.
#[derive(Clone)]
pub(super) struct Patience {
    pub(super) until: Instant,
    pub(super) stop: Stop,
}

impl Patience {
    /// Waits for `what`; `None` when the time is over, or that of sources at shutdown.
    pub(super) async fn within<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        self.unless_stopped(tokio::time::timeout_at(self.until, what)).await?.ok()
    }

    /// Waits for `what`, which the client must do; `None` when the time of sources is over at shutdown. That time does
    /// not count for the answer.
    pub(super) async fn for_client<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        let done = self.unless_stopped(what).await;
        self.until += began.elapsed();
        done
    }

    async fn unless_stopped<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        let mut stop = self.stop.clone();
        let cut = async {
            let at = stop.draining().await;
            tokio::time::sleep_until(at).await;
        };
        tokio::select! {
            biased;
            done = what => Some(done),
            () = cut => None,
        }
    }
}

/// What a call takes of the budget.
pub(super) struct Room {
    charge: Charge,
    /// Held while it is past the budget.
    oversize: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) fn new(cx: &InputContext) -> Self {
        Room { charge: cx.budget.take(0), oversize: None }
    }

    /// Takes `bytes` in all.
    pub(super) async fn grow_to(
        &mut self,
        bytes: usize,
        cx: &InputContext,
        patience: &Patience,
    ) -> Result<(), Error> {
        let more = (bytes as u64).saturating_sub(self.charge.bytes());
        if more == 0 {
            return Ok(());
        }
        if self.oversize.is_some() {
            self.charge.merge(cx.budget.take(more));
            return Ok(());
        }
        if let Some(charge) = cx.budget.try_take(more) {
            self.charge.merge(charge);
            return Ok(());
        }
        let first = self.charge.bytes() == 0;
        let wait = async {
            if first {
                return (cx.budget.wait_take(more).await, None);
            }
            tokio::select! {
                charge = cx.budget.wait_take(more) => (charge, None),
                oversize = cx.budget.oversize() => (cx.budget.take(more), oversize),
            }
        };
        let (charge, oversize) = patience.within(wait).await.ok_or_else(full)?;
        self.charge.merge(charge);
        self.charge.grow_to(bytes as u64);
        self.oversize = oversize;
        Ok(())
    }

    /// What it holds has become smaller, or is there already.
    pub(super) fn set(&mut self, bytes: usize) {
        self.charge.grow_to(bytes as u64);
        self.charge.shrink_to(bytes as u64);
        if bytes == 0 {
            self.oversize = None;
        }
    }
}

/// No room in time.
pub(super) fn full() -> Error {
    Error::unavailable("it is busy, nothing was taken")
}
