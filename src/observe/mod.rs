//! What an operator sees: counters (every name in one file), the summary line, logging.

pub mod counters;
pub mod log;
