//! The proof of the log: a disk that forgets, a model that does not, and histories that set one against the other.
//!
//! Enters: seeds. Leaves: for a history that breaks a promise its seed and its steps. `WAL_HISTORIES=N` runs N random
//! histories instead of a few, `WAL_SEED=S` the one of seed S with every call it made.

mod damage;
mod disk;
mod histories;
mod image;
mod model;
mod points;
mod promises;
mod properties;
mod rng;
mod world;
