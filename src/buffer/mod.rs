//! Where records wait: the write-ahead log, and what hangs on it.
//!
//! Enters: chunks after filters. Leaves: the same records to every output that owes them, also after a crash. Can go
//! wrong: the disk is full or broken; then nothing is acknowledged and the sources wait.

pub mod dead_letters;
pub mod store;
pub mod wal;
