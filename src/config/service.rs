//! `[SERVICE]`: settings of the process.
//!
//! Fluent Bit starts with a bad or unknown key here; so does firelane, with a warning that says what it does, and it
//! refuses under `check` and `--strict`. `Flush` must be above 0 in both.

use std::path::PathBuf;
use std::time::Duration;

use super::check::nearest;
use super::diag::Diagnostics;
use super::env::Env;
use super::headers::STREAMS_HINT;
use super::section::Entry;
use super::value;

/// What the process is told.
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
    /// `json.escape_unicode`: non-ASCII as `\uXXXX`.
    pub escape_unicode: bool,
    /// Cap of one joined multiline record, bytes.
    pub multiline_buffer_limit: usize,
    /// `memory.limit`: the byte budget; `None`: 32 MiB or 40 % of the cgroup's limit, the smaller.
    pub memory_limit: Option<u64>,
}

impl Default for Service {
    fn default() -> Self {
        Service {
            flush: Duration::from_secs(1),
            // ECS sends SIGKILL 30 s after SIGTERM.
            grace: Duration::from_secs(25),
            log_level: "info".into(),
            log_file: None,
            escape_unicode: true,
            multiline_buffer_limit: 2 << 20,
            memory_limit: None,
        }
    }
}

/// Smallest budget that leaves room for one connection's buffers and one batch.
const MIN_MEMORY: u64 = 4 << 20;
/// `Grace -1` waits until everything is out; a day is as good.
const NO_GRACE_LIMIT: Duration = Duration::from_secs(86_400);
const LEVELS: &[&str] = &["off", "error", "warn", "warning", "info", "debug", "trace"];

/// Accepted, without effect yet, said once for each group.
const LATER: &[&str] = &[
    "http_server",
    "http_listen",
    "http_port",
    "health_check",
    "hc_errors_count",
    "hc_retry_failure_count",
    "hc_period",
    "storage.path",
    "storage.sync",
    "storage.checksum",
    "storage.max_chunks_up",
    "storage.backlog.mem_limit",
    "storage.backlog.flush_on_shutdown",
    "storage.metrics",
    "storage.delete_irrecoverable_chunks",
    "storage.trim_files",
    "storage.type",
    "storage.inherit",
    "storage.keep.rejected",
    "storage.rejected.path",
    "storage.rejected.limit",
    "scheduler.base",
    "scheduler.cap",
    "hot_reload",
    "hot_reload.ensure_thread_safety",
    "hot_reload.timeout",
    "dns.mode",
    "dns.resolver",
    "dns.prefer_ipv4",
    "dns.prefer_ipv6",
    "daemon",
    "json.convert_nan_to_null",
    "coro_stack_size",
    "enable_chunk_trace",
    "security.fips_mode",
    "windows.maxstdio",
    "sp.convert_from_str_to_num",
    "flush.adaptive",
    "flush.adaptive.min_interval",
    "flush.adaptive.max_interval",
    "flush.adaptive.low_pressure",
    "flush.adaptive.medium_pressure",
    "flush.adaptive.high_pressure",
    "flush.adaptive.up_steps",
    "flush.adaptive.down_steps",
];
const LATER_BOOLEANS: &[&str] = &[
    "http_server",
    "health_check",
    "storage.checksum",
    "storage.metrics",
    "storage.backlog.flush_on_shutdown",
    "storage.delete_irrecoverable_chunks",
    "storage.trim_files",
    "storage.inherit",
    "storage.keep.rejected",
    "hot_reload",
    "daemon",
    "json.convert_nan_to_null",
];
const OURS: &[&str] = &[
    "flush",
    "grace",
    "log_level",
    "log_file",
    "json.escape_unicode",
    "multiline_buffer_limit",
    "memory.limit",
    "parsers_file",
];

impl Service {
    /// Reads the entries; the last of a key wins. `FLB_LOG_LEVEL` beats `log_level`, as in Fluent Bit.
    pub fn read(entries: &[Entry], env: &Env, diags: &mut Diagnostics) -> Service {
        let mut service = Service::default();
        let mut quiet = Vec::new();
        for entry in entries {
            service.take(entry, &mut quiet, diags);
        }
        if let Some(level) = env.get("FLB_LOG_LEVEL").map(str::to_ascii_lowercase) {
            if LEVELS.contains(&level.as_str()) {
                service.log_level = level;
            } else {
                diags.strict(None, format!("unknown FLB_LOG_LEVEL \"{level}\""), "it is passed over");
            }
        }
        if let Some(first) = quiet.first() {
            let first: &Entry = first;
            let names: Vec<&str> = quiet.iter().map(|e: &&Entry| e.written.as_str()).collect();
            diags.warn(
                Some(&first.pos),
                format!("[SERVICE] {}: accepted, without effect yet", names.join(", ")),
            );
        }
        service
    }

    fn take<'e>(&mut self, entry: &'e Entry, quiet: &mut Vec<&'e Entry>, diags: &mut Diagnostics) {
        let text = entry.value.as_str();
        let mut bad = |wanted: &str, does: String| {
            diags.strict(
                Some(&entry.pos),
                format!("bad value \"{text}\" of \"{}\" in [SERVICE], {wanted}", entry.written),
                does,
            );
        };
        match entry.key.as_str() {
            "flush" => match value::float(text.trim_end_matches(['s', 'S'])) {
                Some(seconds) if seconds > 0.0 && seconds < 1e6 => self.flush = Duration::from_secs_f64(seconds),
                Some(_) => diags.error_hint(
                    Some(&entry.pos),
                    format!("Flush {text} in [SERVICE] is not above 0"),
                    "use seconds, decimals allowed: Flush 1",
                ),
                None => bad("seconds expected", format!("{} s is used", self.flush.as_secs_f64())),
            },
            "grace" => match (value::int(text), value::time(text)) {
                (Some(-1), _) => self.grace = NO_GRACE_LIMIT,
                (_, Some(grace)) => self.grace = grace.min(NO_GRACE_LIMIT),
                _ => bad("seconds expected", format!("{} s is used", self.grace.as_secs())),
            },
            "log_level" => {
                let level = text.to_ascii_lowercase();
                if LEVELS.contains(&level.as_str()) {
                    self.log_level = level;
                } else {
                    diags.error_hint(
                        Some(&entry.pos),
                        format!("unknown log_level \"{text}\" in [SERVICE]"),
                        "use off, error, warn, info, debug or trace",
                    );
                }
            }
            "log_file" => self.log_file = Some(PathBuf::from(text)).filter(|_| !text.is_empty()),
            "json.escape_unicode" => match value::boolean(text) {
                Some(on) => self.escape_unicode = on,
                None => bad("on or off expected", "on is used".into()),
            },
            "multiline_buffer_limit" => match binary_size(text) {
                Some(bytes @ 1..) => self.multiline_buffer_limit = bytes.min(1 << 30) as usize,
                _ => bad("bytes expected", format!("{} bytes are used", self.multiline_buffer_limit)),
            },
            "memory.limit" => match value::size(text) {
                Some(bytes) if bytes >= MIN_MEMORY => self.memory_limit = Some(bytes),
                _ => bad("at least 4 MiB expected", "the default is used".into()),
            },
            "parsers_file" => {}
            "streams_file" => diags.error_hint(
                Some(&entry.pos),
                "Streams_File (stream processor) is not supported: the records it would make would go nowhere",
                STREAMS_HINT,
            ),
            "plugins_file" => {
                diags.warn(Some(&entry.pos), "Plugins_File is passed over: firelane loads no shared objects");
            }
            key if LATER.contains(&key) => {
                if LATER_BOOLEANS.contains(&key) && value::boolean(text).is_none() {
                    bad("on or off expected", "it is passed over".into());
                } else {
                    quiet.push(entry);
                }
            }
            key => {
                let does = match nearest(key, OURS.iter().chain(LATER).copied()) {
                    Some(meant) => format!("it is passed over; did you mean \"{meant}\"?"),
                    None => "it is passed over".to_owned(),
                };
                diags.strict(Some(&entry.pos), format!("unknown key \"{}\" in [SERVICE]", entry.written), does);
            }
        }
    }
}

/// `multiline_buffer_limit` alone knows binary units: `2MB` is 2 MiB there.
fn binary_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match lower.get(digits.len()..)? {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::section;
    use crate::config::{Level, SectionKind};

    fn read(entries: &[(&str, &str)], env: &[(&str, &str)]) -> (Service, Vec<(Level, String)>) {
        let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut diags = Diagnostics::new();
        let service =
            Service::read(&section(SectionKind::Service, entries, "f").entries, &Env::of(env), &mut diags);
        (service, diags.iter().map(|d| (d.level, d.to_string())).collect())
    }

    #[test]
    fn bad_and_unknown_keys_start_with_a_warning_that_says_what_is_done() {
        let (service, found) = read(&[("Grace", "ten"), ("Flsh", "1"), ("Http_Server", "maybe")], &[]);
        assert_eq!(service.grace, Duration::from_secs(25));
        assert!(found.iter().all(|(level, _)| *level == Level::Strict), "{found:?}");
        assert!(found[1].1.contains("did you mean \"flush\""));
    }

    #[test]
    fn the_environments_log_level_wins() {
        let (service, _) = read(&[("log_level", "error")], &[("FLB_LOG_LEVEL", "debug")]);
        assert_eq!(service.log_level, "debug");
    }

    #[test]
    fn flush_takes_decimals_and_must_be_above_zero() {
        assert_eq!(read(&[("flush", "0.2")], &[]).0.flush, Duration::from_millis(200));
        assert_eq!(read(&[("flush", "0")], &[]).1[0].0, Level::Error);
    }

    #[test]
    fn streams_file_is_refused_with_the_rule_to_use() {
        let (_, found) = read(&[("streams_file", "s.conf")], &[]);
        assert!(found[0].0 == Level::Error && found[0].1.contains("rewrite_tag"));
    }
}
