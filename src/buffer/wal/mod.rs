//! The write-ahead log: records stored once, owed by outputs, freed when nobody owes them.
//!
//! Enters: frames (records after filters, what filters hold, what they let go). Leaves: the same frames in order, to
//! each owner that has not settled them. Can go wrong: see [`AppendError`] and [`OpenError`]; damage found while reading
//! costs the damaged frame alone and is reported with file and offset. The format is in `docs/wal.md`.

mod vfs;

pub use vfs::{File, Lock, Vfs};
