//! What the lane tells librdkafka's thread: positions that are safe, and when to begin anew.
//!
//! Enters: positions. Leaves: the same, once each. Can go wrong: nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A partition.
pub(super) type Place = (Arc<str>, i32);

/// Both threads hold it.
pub(super) struct Control {
    /// The next offset to read, by partition: everything before is safe.
    safe: Mutex<HashMap<Place, i64>>,
    /// Grows when what was read does not count any more.
    generation: AtomicU64,
    /// The lane has ended: no position comes any more.
    pub(super) ended: Notify,
}

impl Control {
    pub(super) fn new() -> Control {
        Control { safe: Mutex::default(), generation: AtomicU64::new(0), ended: Notify::new() }
    }

    fn safe(&self) -> MutexGuard<'_, HashMap<Place, i64>> {
        // The map is whole whenever the lock is free.
        self.safe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything up to there is on disk or delivered.
    pub(super) fn store(&self, upto: Vec<(Place, i64)>) {
        self.safe().extend(upto);
    }

    /// Positions since the last call.
    pub(super) fn take(&self) -> HashMap<Place, i64> {
        std::mem::take(&mut self.safe())
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// What was read so far does not count: it is read again from the committed positions.
    pub(super) fn begin_anew(&self) {
        self.generation.fetch_add(1, SeqCst);
        self.safe().clear();
    }
}
