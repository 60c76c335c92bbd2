//! What the disk has damaged: said once and counted once, though every output's reader comes past it.
//!
//! Enters: damage, from the start of the log and from readers. Leaves: a log line with file and offset, and counters.
//! Can go wrong: a disk full of damage; what comes late is then said and counted twice rather than not at all.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use super::outlet::Outlet;
use crate::buffer::wal::{Damage, Harm};
use crate::observe::counters::{self, Drop as DropReason};

/// Places that are remembered.
const MOST: usize = 1024;

/// Damage that was met so far.
pub(super) struct Met {
    counters: Arc<counters::Storage>,
    /// By file and offset; whether its records are counted for an output.
    places: Mutex<HashMap<(String, u64), bool>>,
}

impl Met {
    pub(super) fn new(counters: Arc<counters::Storage>) -> Met {
        Met { counters, places: Mutex::default() }
    }

    /// Found at the start. The outputs that are known to have been owed it count its records; for what is not known, the
    /// first output whose reader comes to it does.
    pub(super) fn at_start(&self, damage: &Damage, outlets: &[Arc<Outlet>]) {
        if !self.first(damage, !damage.owners.is_empty()) {
            return;
        }
        for outlet in outlets.iter().filter(|outlet| damage.owners.contains(&outlet.id)) {
            outlet.counters().recovered.fetch_add(damage.records, Relaxed);
            outlet.counters().dropped(DropReason::Damaged, damage.records);
        }
    }

    /// A reader has met it. Says whether its records are to be counted for the reader's output.
    pub(super) fn by_reader(&self, damage: &Damage) -> bool {
        self.first(damage, true)
    }

    /// Says and counts it unless that was done. `for_output`: its records will be counted for one; true if they were for
    /// none before.
    fn first(&self, damage: &Damage, for_output: bool) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST {
            places.clear();
        }
        let before = places.insert((damage.file.clone(), damage.offset), for_output);
        match before {
            None => {
                report(damage);
                self.counters.damaged_frames.fetch_add(damage.frames, Relaxed);
                self.counters.damaged_records.fetch_add(damage.records, Relaxed);
                // What nobody was told of is no loss.
                let bytes = if damage.frames > 0 { damage.bytes } else { 0 };
                self.counters.damaged_bytes.fetch_add(bytes, Relaxed);
                for_output
            }
            Some(counted) => for_output && !counted,
        }
    }
}

/// Says what was lost, and where.
fn report(damage: &Damage) {
    let kept = damage.kept.as_deref().unwrap_or("nowhere");
    let Damage { file, offset, bytes, frames, records, .. } = damage;
    match damage.harm {
        Harm::Position => tracing::error!(%file, %kept,
            "corrupt storage: an output's position is gone or cannot be read: what is stored for it comes again"),
        Harm::Owner => tracing::error!(%file, frames, records, %kept,
            "corrupt storage: the file of an output's position cannot be read, nor whose it was: its output begins anew, and what it was owed before is not sent"),
        Harm::Torn => tracing::error!(%file, offset, bytes, %kept,
            "corrupt storage: the last frame is torn and was cut; unless the file was changed since, nobody was told that it is stored"),
        Harm::Missing => tracing::error!(%file, bytes, frames, %kept,
            "corrupt storage: a segment is missing, or its head cannot be read; what was in it and not delivered is lost"),
        Harm::Damaged => tracing::error!(%file, offset, bytes, frames, records, %kept,
            "corrupt storage: a damaged frame was skipped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(offset: u64) -> Damage {
        Damage {
            file: "0000000000000001.wal".to_owned(),
            offset,
            bytes: 500,
            frames: 2,
            records: 7,
            first_seq: 5,
            next_seq: Some(7),
            harm: Harm::Damaged,
            owners: smallvec::SmallVec::new(),
            kept: None,
        }
    }

    #[test]
    fn damage_is_counted_once_in_all_and_once_for_an_output_whoever_meets_it() {
        let met = Met::new(Arc::default());
        let counted = |met: &Met| {
            [&met.counters.damaged_frames, &met.counters.damaged_records, &met.counters.damaged_bytes]
                .map(|c| c.load(Relaxed))
        };
        met.at_start(&damage(4096), &[]);
        assert_eq!(counted(&met), [2, 7, 500]);
        assert!(met.by_reader(&damage(4096)), "no output has counted it");
        assert!(!met.by_reader(&damage(4096)), "one has");
        assert_eq!(counted(&met), [2, 7, 500]);
        assert!(met.by_reader(&damage(9000)));
        assert!(!met.by_reader(&damage(9000)));
        assert_eq!(counted(&met), [4, 14, 1000]);
        let torn = Damage { frames: 0, records: 0, harm: Harm::Torn, ..damage(20_000) };
        met.at_start(&torn, &[]);
        assert_eq!(counted(&met), [4, 14, 1000]);
    }
}
