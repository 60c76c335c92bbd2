//! Every counter by name, and the two sums that must hold at every moment (see `Totals::imbalance`).
//!
//! Filters: `received + made = refused + filtered + joined + unrouted + routed + holding`.
//! Each output: `routed + recovered = delivered + dead_lettered + dropped{reason} + held`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a record was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It could not be decoded: torn, not a map, too deep, unknown time, a bomb.
    Undecodable,
    /// Its time is too far from now; its sender is told which.
    OutsideTime,
}

/// Why an output gave a record up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// The output would never take it.
    Rejected,
    /// The destination takes nothing that old.
    TooOld,
    /// The destination takes nothing from so far ahead.
    TooNew,
    /// It is older than the destination keeps anything.
    Expired,
    /// There is nothing in it that the output could keep: CloudWatch has no empty events.
    Empty,
    /// Its output failed as often, or for as long, as `Retry_Limit` or `retry.max_age` allow.
    Retries,
    /// Its output's share was full, and `overflow` says to drop.
    Overflow,
    /// It was stored for an output that is no longer configured, longer than `storage.orphan_ttl`.
    Orphan,
    /// Its stored copy was damaged.
    Damaged,
    /// The process had to stop before it was delivered.
    Shutdown,
}

/// All reasons, in the order of the counters.
pub const DROPS: [Drop; 10] = [
    Drop::Rejected,
    Drop::TooOld,
    Drop::TooNew,
    Drop::Expired,
    Drop::Empty,
    Drop::Retries,
    Drop::Overflow,
    Drop::Orphan,
    Drop::Damaged,
    Drop::Shutdown,
];

impl Drop {
    /// The label value.
    pub fn name(self) -> &'static str {
        match self {
            Drop::Rejected => "rejected",
            Drop::TooOld => "too_old",
            Drop::TooNew => "too_new",
            Drop::Expired => "expired",
            Drop::Empty => "empty",
            Drop::Retries => "retries",
            Drop::Overflow => "overflow",
            Drop::Orphan => "orphan",
            Drop::Damaged => "damaged",
            Drop::Shutdown => "shutdown",
        }
    }
}

/// The filters' side of the ledger, in records.
#[derive(Debug, Default)]
pub struct Pipeline {
    /// Decoded by an input (undecodable entries too).
    pub received: AtomicU64,
    /// Made by a filter (copies of rewrite_tag, pieces of a split record).
    pub made: AtomicU64,
    /// Not taken in: undecodable, or of a time that is not taken.
    pub refused: AtomicU64,
    /// Dropped by a filter on purpose.
    pub filtered: AtomicU64,
    /// Became part of another record.
    pub joined: AtomicU64,
    /// Matched no output.
    pub unrouted: AtomicU64,
    /// Given to at least one output.
    pub routed: AtomicU64,
    /// Held back by a filter now.
    pub holding: AtomicU64,
    /// Of these, those that are on disk at the stop and are joined after the next start.
    pub kept: AtomicU64,
    /// Found in storage and dropped: their output is no longer configured, for longer than `storage.orphan_ttl`.
    pub orphaned: AtomicU64,
    /// Connections closed because a frame's end could not be known, was over the limit, or a handshake failed.
    pub broken_connections: AtomicU64,
    /// Frames whose connection ended before they were whole: what was in them counts only if it is sent again.
    pub cut_frames: AtomicU64,
    /// Frames with options that cannot be used (not a map, a chunk id that is no string): their records were taken.
    pub odd_options: AtomicU64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Chunks that came again while the first copy was inside, or after its ack was not heard: acked with it, not taken
    /// twice, their records not counted twice.
    pub repeated_chunks: AtomicU64,
}

/// One output's side of the ledger, in records.
#[derive(Debug, Default)]
pub struct Output {
    /// Given to it.
    pub routed: AtomicU64,
    /// Found in storage at start.
    pub recovered: AtomicU64,
    /// It has them.
    pub delivered: AtomicU64,
    /// Written to dead letters.
    pub dead_lettered: AtomicU64,
    /// Of these, by reason, as in [`DROPS`].
    pub lettered: [AtomicU64; DROPS.len()],
    /// Given up, by reason, as in [`DROPS`].
    pub dropped: [AtomicU64; DROPS.len()],
    /// Waiting in it now.
    pub held: AtomicU64,
    /// Attempts that failed and were made again.
    pub retries: AtomicU64,
    /// Attempts that the destination put off (it throttles): no failures.
    pub throttled: AtomicU64,
    /// Keys that were no UTF-8 and were written as JSON with U+FFFD; those of a batch that is written again once more.
    pub replaced_keys: AtomicU64,
}

impl Output {
    /// Counts records written to dead letters.
    pub fn lettered(&self, why: Drop, n: u64) {
        self.dead_lettered.fetch_add(n, Relaxed);
        if let Some((counter, _)) = self.lettered.iter().zip(DROPS).find(|(_, d)| *d == why) {
            counter.fetch_add(n, Relaxed);
        }
    }

    /// Counts records given up.
    pub fn dropped(&self, why: Drop, n: u64) {
        if let Some((counter, _)) = self.dropped.iter().zip(DROPS).find(|(_, d)| *d == why) {
            counter.fetch_add(n, Relaxed);
        }
    }

    /// Records given up, whatever the reason.
    pub fn all_dropped(&self) -> u64 {
        self.dropped.iter().map(|c| c.load(Relaxed)).sum()
    }
}

/// One filter's own counters.
#[derive(Debug, Default)]
pub struct Filter {
    /// Records it dropped.
    pub dropped: AtomicU64,
    /// Records it added (emitted under a new tag, joined).
    pub added: AtomicU64,
}

/// Dead letters, in lines: one for each record, or for each run of bytes that were none.
#[derive(Debug, Default)]
pub struct Letters {
    /// Written and on disk.
    pub written: AtomicU64,
    /// Removed again with the oldest file, because all passed `dead_letter.limit`.
    pub removed: AtomicU64,
}

/// What storage could not give back: the disk, or somebody, has damaged it.
#[derive(Debug, Default)]
pub struct Storage {
    /// Frames, at most so many.
    pub damaged_frames: AtomicU64,
    /// Records in them, as far as that is known. Outputs count theirs as dropped.
    pub damaged_records: AtomicU64,
    /// Bytes of them that were found.
    pub damaged_bytes: AtomicU64,
}

/// All of them. Cheap to share: inputs, filters and outputs add once per chunk, not per record.
#[derive(Debug, Default)]
pub struct Totals {
    /// The filters' side.
    pub pipeline: Pipeline,
    /// Dead letters.
    pub letters: Arc<Letters>,
    /// Storage.
    pub storage: Arc<Storage>,
    /// Outputs by label.
    pub outputs: Vec<(String, Arc<Output>)>,
    /// Filters by label.
    pub filters: Vec<(String, Arc<Filter>)>,
}

impl Totals {
    /// The first of the two sums that does not hold, in words. Exact only while nothing moves (at exit).
    pub fn imbalance(&self) -> Option<String> {
        let p = &self.pipeline;
        let left = p.received.load(Relaxed) + p.made.load(Relaxed);
        let right = [&p.refused, &p.filtered, &p.joined, &p.unrouted, &p.routed, &p.holding]
            .iter()
            .map(|c| c.load(Relaxed))
            .sum::<u64>();
        if left != right {
            return Some(format!("filters: in {left}, accounted for {right}"));
        }
        self.outputs.iter().find_map(|(name, o)| {
            let left = o.routed.load(Relaxed) + o.recovered.load(Relaxed);
            let right =
                [&o.delivered, &o.dead_lettered, &o.held].map(|c| c.load(Relaxed)).iter().sum::<u64>()
                    + o.all_dropped();
            (left != right).then(|| format!("output {name}: in {left}, accounted for {right}"))
        })
    }

    /// Records accepted and then given up. What a disk has damaged is reported and counted, but nobody here gave it up;
    /// and with what is empty nothing is lost.
    pub fn lost(&self) -> u64 {
        let given_up = |o: &Output| -> u64 {
            DROPS
                .iter()
                .zip(&o.dropped)
                .filter(|(why, _)| !matches!(why, Drop::Damaged | Drop::Empty))
                .map(|(_, n)| n.load(Relaxed))
                .sum()
        };
        self.outputs.iter().map(|(_, o)| given_up(o)).sum::<u64>() + self.pipeline.orphaned.load(Relaxed)
    }
}

impl fmt::Display for Totals {
    /// One line: `received=5 made=0 ... | file.0 routed=5 ... | grep.0 dropped=1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.pipeline;
        write!(
            f,
            "received={} made={} refused={} filtered={} joined={} unrouted={} routed={} holding={} connections={} broken_connections={} cut_frames={} odd_options={} repeated_chunks={} orphaned={} dead_letters={} dead_letters_removed={} damaged_frames={} damaged_records={} damaged_bytes={}",
            p.received.load(Relaxed),
            p.made.load(Relaxed),
            p.refused.load(Relaxed),
            p.filtered.load(Relaxed),
            p.joined.load(Relaxed),
            p.unrouted.load(Relaxed),
            p.routed.load(Relaxed),
            p.holding.load(Relaxed),
            p.connections.load(Relaxed),
            p.broken_connections.load(Relaxed),
            p.cut_frames.load(Relaxed),
            p.odd_options.load(Relaxed),
            p.repeated_chunks.load(Relaxed),
            p.orphaned.load(Relaxed),
            self.letters.written.load(Relaxed),
            self.letters.removed.load(Relaxed),
            self.storage.damaged_frames.load(Relaxed),
            self.storage.damaged_records.load(Relaxed),
            self.storage.damaged_bytes.load(Relaxed),
        )?;
        for (name, o) in &self.outputs {
            write!(
                f,
                " | output={name} routed={} recovered={} delivered={} dead_lettered={}",
                o.routed.load(Relaxed),
                o.recovered.load(Relaxed),
                o.delivered.load(Relaxed),
                o.dead_lettered.load(Relaxed),
            )?;
            for (counter, why) in o.lettered.iter().zip(DROPS) {
                let n = counter.load(Relaxed);
                if n > 0 {
                    write!(f, " dead_lettered_{}={n}", why.name())?;
                }
            }
            for (counter, why) in o.dropped.iter().zip(DROPS) {
                write!(f, " dropped_{}={}", why.name(), counter.load(Relaxed))?;
            }
            write!(
                f,
                " held={} retries={} throttled={} replaced_keys={}",
                o.held.load(Relaxed),
                o.retries.load(Relaxed),
                o.throttled.load(Relaxed),
                o.replaced_keys.load(Relaxed)
            )?;
        }
        for (name, c) in &self.filters {
            write!(
                f,
                " | filter={name} dropped={} added={}",
                c.dropped.load(Relaxed),
                c.added.load(Relaxed)
            )?;
        }
        Ok(())
    }
}
