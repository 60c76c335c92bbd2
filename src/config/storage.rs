//! What configurations say about keeping records: storage, acknowledgements, full shares, retries, dead letters.

use std::path::PathBuf;
use std::time::Duration;

/// `storage.type` of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageType {
    /// In memory.
    #[default]
    Memory,
    /// In the write-ahead log under `storage.path`.
    Filesystem,
    /// `memrb`: in memory; at the limit the oldest records go.
    MemoryRing,
}

/// `ack` of an input: when a sender that asks for an acknowledgement gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckLevel {
    /// The records are on disk, synced.
    Durable,
    /// Every output has them.
    Delivered,
    /// They are inside, nothing more: Fluent Bit's meaning.
    Accept,
}

/// `overflow` of an output: what happens when its share is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The sources that route to it wait.
    #[default]
    Block,
    /// Its oldest records are dropped and counted.
    DropOldest,
    /// New records are dropped and counted.
    DropNewest,
}

/// Keys of `[SERVICE]` about storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// `storage.path`.
    pub path: Option<PathBuf>,
    /// `storage.type` with `storage.inherit on`: the type of inputs that say nothing.
    pub inherited: StorageType,
    /// `dead_letter.path`; `dead_letter/` under `storage.path` unless set.
    pub dead_letters: Option<PathBuf>,
    /// `dead_letter.limit`: bytes of all dead-letter files together; the oldest file goes when it is passed.
    pub dead_letter_limit: u64,
    /// `storage.backlog.mem_limit`: most bytes in memory of what an earlier process left on disk.
    pub backlog_memory: Option<u64>,
    /// `storage.orphan_ttl`: how long what is owed to an output that is no longer configured is kept.
    pub orphan_ttl: Duration,
    /// `scheduler.base`.
    pub retry_base: Duration,
    /// `scheduler.cap`.
    pub retry_cap: Duration,
}

impl Default for Storage {
    fn default() -> Self {
        Storage {
            path: None,
            inherited: StorageType::Memory,
            dead_letters: None,
            dead_letter_limit: 64 << 20,
            backlog_memory: None,
            orphan_ttl: Duration::from_secs(24 * 3600),
            retry_base: Duration::from_secs(5),
            retry_cap: Duration::from_secs(2000),
        }
    }
}
