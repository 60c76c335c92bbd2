//! The write-ahead log: records stored once, owed by outputs, freed when nobody owes them.
//!
//! Enters: frames (records after filters, what filters hold, what they let go). Leaves: the same frames in order, to
//! each owner that has not settled them. Can go wrong: see [`AppendError`] and [`OpenError`]; damage found while reading
//! costs the damaged frame alone and is reported with file and offset. The format is in `docs/wal.md`.

mod cursor;
mod frame;
mod free;
#[cfg(test)]
mod golden;
mod inventory;
mod log;
mod open;
mod quarantine;
mod reader;
mod real;
mod scan;
mod segment;
#[cfg(test)]
mod sim;
mod slot;
mod spare;
mod types;
mod vfs;

pub use log::Log;
pub use reader::Reader;
pub use real::Dir;
pub use types::{
    AppendError, Damage, Dropped, Freed, Harm, HeldRecord, Kind, NewFrame, OpenError, Opened, Options,
    OwnerId, OwnerState, Read, Seq, Stats, StoredFrame,
};
pub use vfs::{File, Lock, Vfs};
