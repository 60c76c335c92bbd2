//! `Mem_Buf_Limit`: what one input has inside, beside the process's budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Notify;

/// The bytes of one input that are inside (chunks not yet delivered), against its `Mem_Buf_Limit`.
#[derive(Debug, Default)]
pub struct Meter {
    /// 0: no limit.
    pub limit: u64,
    used: AtomicU64,
    freed: Notify,
}

impl Meter {
    /// A meter with a limit in bytes; 0 is none.
    pub fn new(limit: u64) -> Self {
        Meter { limit, ..Meter::default() }
    }

    /// Counts bytes in, until the charge is dropped.
    pub fn charge(self: &Arc<Self>, bytes: u64) -> MeterCharge {
        self.used.fetch_add(bytes, Relaxed);
        MeterCharge { meter: Arc::clone(self), bytes }
    }

    /// Bytes inside.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Waits until the input is below its limit. Ask before a frame begins, never within one.
    pub async fn below_limit(&self) {
        loop {
            let freed = self.freed.notified();
            if self.limit == 0 || self.used() < self.limit {
                if self.limit != 0 {
                    // Wakes are handed on one by one: 500 connections do not all look at every chunk that leaves.
                    self.freed.notify_one();
                }
                return;
            }
            freed.await;
        }
    }
}

/// Bytes counted in a [`Meter`], counted out on drop.
#[derive(Debug)]
pub struct MeterCharge {
    meter: Arc<Meter>,
    bytes: u64,
}

impl MeterCharge {
    /// Whether its input has more inside than its limit.
    pub fn is_over(&self) -> bool {
        self.meter.limit != 0 && self.meter.used() > self.meter.limit
    }

    /// Whether it counts in this meter.
    pub fn is_of(&self, meter: &Arc<Meter>) -> bool {
        Arc::ptr_eq(&self.meter, meter)
    }
}

impl Drop for MeterCharge {
    fn drop(&mut self) {
        self.meter.used.fetch_sub(self.bytes, Relaxed);
        if self.meter.limit != 0 {
            self.meter.freed.notify_one();
        }
    }
}
