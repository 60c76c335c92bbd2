//! What configurations say about keeping records: storage, acknowledgements, full shares, retries, dead letters.
//!
//! Enters: entries of `[SERVICE]`, values of core keys. Leaves: types. Bad values are reported elsewhere and passed over here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::section::Entry;
use super::value;

/// Less would leave no room to rotate.
const MIN_LETTERS: u64 = 1_000_000;

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

impl StorageType {
    /// Reads a value, any case.
    pub fn parse(text: &str) -> Option<StorageType> {
        match text.to_ascii_lowercase().as_str() {
            "memory" => Some(StorageType::Memory),
            "filesystem" => Some(StorageType::Filesystem),
            "memrb" => Some(StorageType::MemoryRing),
            _ => None,
        }
    }
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

impl AckLevel {
    /// Reads a value, any case.
    pub fn parse(text: &str) -> Option<AckLevel> {
        match text.to_ascii_lowercase().as_str() {
            "durable" => Some(AckLevel::Durable),
            "delivered" => Some(AckLevel::Delivered),
            "accept" => Some(AckLevel::Accept),
            _ => None,
        }
    }

    /// What an input that says nothing means.
    pub fn default_for(storage: StorageType) -> AckLevel {
        match storage {
            StorageType::Filesystem => AckLevel::Durable,
            StorageType::Memory | StorageType::MemoryRing => AckLevel::Delivered,
        }
    }
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

impl Overflow {
    /// Reads a value, any case.
    pub fn parse(text: &str) -> Option<Overflow> {
        match text.to_ascii_lowercase().as_str() {
            "block" => Some(Overflow::Block),
            "drop_oldest" => Some(Overflow::DropOldest),
            "drop_newest" => Some(Overflow::DropNewest),
            _ => None,
        }
    }
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
            dead_letter_limit: 64_000_000,
            backlog_memory: None,
            orphan_ttl: Duration::from_secs(24 * 3600),
            retry_base: Duration::from_secs(5),
            retry_cap: Duration::from_secs(2000),
        }
    }
}

impl Storage {
    /// Reads the entries of `[SERVICE]`. The last good value of a key counts.
    pub(super) fn read(entries: &[Entry]) -> Storage {
        let path = last(entries, "storage.path", directory);
        let on = |key| last(entries, key, value::boolean);
        let default = Storage::default();
        // Without a storage.path Fluent Bit has no place for rejected records either.
        let rejected =
            path.as_deref().filter(|_| on("storage.keep.rejected") != Some(false)).map(|path: &Path| {
                path.join(
                    last(entries, "storage.rejected.path", directory).unwrap_or_else(|| "dead_letter".into()),
                )
            });
        Storage {
            inherited: last(entries, "storage.type", StorageType::parse)
                .filter(|_| on("storage.inherit") == Some(true))
                .unwrap_or_default(),
            dead_letters: last(entries, "dead_letter.path", directory).or(rejected),
            dead_letter_limit: last(entries, "dead_letter.limit", limit)
                .or_else(|| last(entries, "storage.rejected.limit", limit))
                .unwrap_or(default.dead_letter_limit),
            backlog_memory: last(entries, "storage.backlog.mem_limit", value::size),
            orphan_ttl: last(entries, "storage.orphan_ttl", value::time).unwrap_or(default.orphan_ttl),
            retry_base: last(entries, "scheduler.base", seconds).unwrap_or(default.retry_base),
            retry_cap: last(entries, "scheduler.cap", seconds).unwrap_or(default.retry_cap),
            path,
        }
    }
}

fn last<T>(entries: &[Entry], key: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    entries.iter().rev().filter(|e| e.key == key).find_map(|e| parse(&e.value))
}

fn directory(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|_| !text.is_empty())
}

/// A limit of dead letters that leaves room to rotate.
pub(super) fn limit(text: &str) -> Option<u64> {
    value::size(text).filter(|bytes| *bytes >= MIN_LETTERS)
}

/// Whole seconds above 0.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let seconds = value::int(text).and_then(|n| u64::try_from(n).ok())?;
    (1..1 << 40).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Diagnostics, Env, Level, SectionKind, Service, section};

    fn read(keys: &str) -> (Storage, Vec<(Level, String)>) {
        let pairs = keys.split_whitespace().filter_map(|pair| pair.split_once('='));
        let entries = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let entries = section(SectionKind::Service, entries, "f").entries;
        let mut diags = Diagnostics::new();
        let service = Service::read(&entries, &Env::of(&[]), &mut diags);
        (service.storage, diags.iter().map(|d| (d.level, d.to_string())).collect())
    }

    #[test]
    fn dead_letters_are_under_the_storage_path_unless_they_have_a_place_of_their_own() {
        for (keys, want) in [
            ("", None),
            ("storage.path=/s", Some("/s/dead_letter")),
            ("storage.path=/s storage.keep.rejected=on", Some("/s/dead_letter")),
            ("storage.path=/s storage.rejected.path=bad", Some("/s/bad")),
            ("storage.path=/s storage.keep.rejected=off", None),
            ("storage.keep.rejected=on storage.rejected.path=bad", None),
            ("storage.path=/s storage.keep.rejected=off dead_letter.path=/d", Some("/d")),
            ("dead_letter.path=/d", Some("/d")),
        ] {
            let (storage, found) = read(keys);
            assert_eq!(storage.dead_letters.as_deref(), want.map(Path::new), "{keys}");
            assert!(found.is_empty(), "{keys}: {found:?}");
        }
    }

    #[test]
    fn our_own_limit_of_dead_letters_beats_the_other() {
        assert_eq!(read("").0.dead_letter_limit, 64_000_000);
        assert_eq!(read("storage.rejected.limit=5M").0.dead_letter_limit, 5_000_000);
        assert_eq!(read("storage.rejected.limit=5M dead_letter.limit=9M").0.dead_letter_limit, 9_000_000);
    }

    #[test]
    fn a_type_is_inherited_only_where_that_is_asked_for() {
        assert_eq!(read("storage.type=filesystem").0.inherited, StorageType::Memory);
        let (storage, found) = read("storage.type=Filesystem storage.inherit=on");
        assert_eq!((storage.inherited, found.len()), (StorageType::Filesystem, 0));
    }

    #[test]
    fn waits_and_times_are_read() {
        let (storage, found) =
            read("scheduler.base=1 scheduler.cap=30 storage.orphan_ttl=2h storage.backlog.mem_limit=5M");
        assert!(found.is_empty(), "{found:?}");
        assert_eq!((storage.retry_base.as_secs(), storage.retry_cap.as_secs()), (1, 30));
        assert_eq!((storage.orphan_ttl.as_secs(), storage.backlog_memory), (7200, Some(5_000_000)));
    }

    #[test]
    fn bad_values_are_passed_over_with_a_finding_and_an_earlier_one_counts() {
        let (storage, found) = read(
            "dead_letter.limit=2M dead_letter.limit=1K scheduler.base=0 scheduler.cap=x storage.orphan_ttl=soon \
             storage.type=disk storage.backlog.mem_limit=5MiB storage.keep.rejected=maybe",
        );
        assert_eq!(storage, Storage { dead_letter_limit: 2_000_000, ..Storage::default() });
        assert_eq!(found.len(), 7, "{found:?}");
        assert!(
            found.iter().all(|(level, text)| *level == Level::Strict && text.contains("passed over")),
            "{found:?}"
        );
    }
}
