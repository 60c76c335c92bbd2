//! `[SERVICE]`: settings of the process.
//!
//! Fluent Bit starts with a bad or unknown key here; so does firelane, with a warning that says what it does, and it
//! refuses under `check` and `--strict`. `Flush` must be above 0 in both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::nearest;
use super::core_keys::LEVELS;
use super::diag::Diagnostics;
use super::env::Env;
use super::kind::{Key, Type};
use super::section::Entry;
use super::storage::{self, Storage, StorageType};
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
    /// Storage, dead letters, waits between attempts.
    pub storage: Storage,
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
            storage: Storage::default(),
        }
    }
}

/// Smallest budget that leaves room for one connection's buffers and one batch.
const MIN_MEMORY: u64 = 4 << 20;
/// `Grace -1` waits until everything is out; a day is as good.
const NO_GRACE_LIMIT: Duration = Duration::from_secs(86_400);
/// A smaller stack is refused by Fluent Bit.
const MIN_STACK: i64 = 4096;

const HTTP: &str = "accepted; no effect yet: there is no HTTP server";
const BACKLOG: &str = "accepted; no effect: what is on disk goes out until the grace period ends, the rest after the next start";
const QUARANTINE: &str =
    "accepted; no effect: damaged frames are set aside under storage.path and reported, never deleted";
const SEGMENTS: &str = "accepted; no effect: segments have one size and are used again";
const METRICS: &str = "accepted; no effect yet: the counters go to the log";
const RELOAD: &str = "accepted; no effect yet: restart to read the configuration again";
const DNS: &str = "accepted; no effect yet: the system's resolver is used";
const ADAPTIVE: &str = "accepted; no effect: an idle output sends at once anyway";
const NEVER: &str = "accepted; no effect: there is no such thing in firelane";

/// Keys of `[SERVICE]`.
pub const KEYS: &[Key] = &[
    Key::new("flush", Type::Float, "seconds that records without an ack may wait for company").default("1"),
    Key::new("grace", Type::Time, "how long a drain may take after SIGTERM; -1 for no limit").default("25"),
    Key::new("log_level", Type::Str, "off, error, warn, info, debug or trace; FLB_LOG_LEVEL beats it")
        .default("info"),
    Key::new("log_file", Type::Str, "where the log goes").otherwise("standard error"),
    Key::new("parsers_file", Type::Str, "a file of parsers, from the working or the main file's directory")
        .multi(),
    Key::new("json.escape_unicode", Type::Bool, "write non-ASCII as \\uXXXX in JSON").default("on"),
    Key::new("multiline_buffer_limit", Type::Size, "cap of one joined record; here M is 2^20").default("2M"),
    Key::new(
        "memory.limit",
        Type::Size,
        "bytes for records in the whole process, from 4 MiB (firelane's own)",
    )
    .otherwise("32 MiB, or 40 % of the cgroup's limit if that is less"),
    Key::new("plugins_file", Type::Str, "passed over: firelane loads no shared objects").multi(),
    Key::new("streams_file", Type::Str, "refused: use a rewrite_tag filter"),
    Key::new("storage.path", Type::Str, "directory of what inputs with storage.type filesystem keep on disk")
        .otherwise("nothing is kept on disk"),
    Key::new(
        "storage.type",
        Type::Str,
        "with storage.inherit on: memory, filesystem or memrb for inputs that say nothing",
    )
    .otherwise("memory"),
    Key::new("storage.inherit", Type::Bool, "whether storage.type of [SERVICE] counts for inputs")
        .default("off"),
    Key::new(
        "storage.sync",
        Type::Str,
        "normal or full; the same here: an ack waits for the disk in either case",
    )
    .default("normal"),
    Key::new(
        "storage.checksum",
        Type::Bool,
        "on or off; the same here: what is on disk always carries checksums",
    )
    .default("off"),
    Key::new(
        "storage.max_chunks_up",
        Type::Int,
        "accepted; no effect: memory.limit says how much is in memory",
    ),
    Key::new(
        "storage.backlog.mem_limit",
        Type::Size,
        "most bytes in memory of what outputs are behind with and read back from disk, in equal parts for each; never more \
         than 8 MiB for an output",
    ),
    Key::new("storage.backlog.flush_on_shutdown", Type::Bool, BACKLOG),
    Key::new("storage.metrics", Type::Bool, METRICS),
    Key::new("storage.delete_irrecoverable_chunks", Type::Bool, QUARANTINE),
    Key::new("storage.trim_files", Type::Bool, SEGMENTS),
    Key::new(
        "storage.keep.rejected",
        Type::Bool,
        "off: no dead letters, unless dead_letter.path is set; they are kept where there is a storage.path",
    )
    .default("on"),
    Key::new(
        "storage.rejected.path",
        Type::Str,
        "directory of dead letters under storage.path; dead_letter.path beats it",
    ),
    Key::new("storage.rejected.limit", Type::Size, "as dead_letter.limit, which beats it"),
    Key::new(
        "storage.orphan_ttl",
        Type::Time,
        "how long records for an output that is no longer configured are kept (firelane's own)",
    )
    .default("1d"),
    Key::new(
        "dead_letter.path",
        Type::Str,
        "directory for records that could not be delivered or read (firelane's own)",
    )
    .otherwise("dead_letter under storage.path, if there is one"),
    Key::new(
        "dead_letter.limit",
        Type::Size,
        "bytes of all dead-letter files together, from 1M; the oldest file goes (firelane's own)",
    )
    .default("64M"),
    Key::new("http_server", Type::Bool, HTTP),
    Key::new("http_listen", Type::Str, HTTP),
    Key::new("http_port", Type::Str, HTTP),
    Key::new("health_check", Type::Bool, HTTP),
    Key::new("hc_errors_count", Type::Int, HTTP),
    Key::new("hc_retry_failure_count", Type::Int, HTTP),
    Key::new("hc_period", Type::Int, HTTP),
    Key::new(
        "scheduler.base",
        Type::Int,
        "seconds before the first retry of an output with Retry_Limit; doubled each time",
    )
    .default("5"),
    Key::new("scheduler.cap", Type::Int, "most seconds between two retries").default("2000"),
    Key::new("hot_reload", Type::Bool, RELOAD),
    Key::new("hot_reload.ensure_thread_safety", Type::Bool, RELOAD),
    Key::new("hot_reload.timeout", Type::Int, RELOAD),
    Key::new("dns.mode", Type::Str, DNS),
    Key::new("dns.resolver", Type::Str, DNS),
    Key::new("dns.prefer_ipv4", Type::Bool, DNS),
    Key::new("dns.prefer_ipv6", Type::Bool, DNS),
    Key::new("flush.adaptive", Type::Bool, ADAPTIVE),
    Key::new("flush.adaptive.min_interval", Type::Float, ADAPTIVE),
    Key::new("flush.adaptive.max_interval", Type::Float, ADAPTIVE),
    Key::new("flush.adaptive.low_pressure", Type::Float, ADAPTIVE),
    Key::new("flush.adaptive.medium_pressure", Type::Float, ADAPTIVE),
    Key::new("flush.adaptive.high_pressure", Type::Float, ADAPTIVE),
    Key::new("flush.adaptive.up_steps", Type::Int, ADAPTIVE),
    Key::new("flush.adaptive.down_steps", Type::Int, ADAPTIVE),
    Key::new("daemon", Type::Bool, NEVER),
    Key::new("json.convert_nan_to_null", Type::Bool, NEVER),
    Key::new("coro_stack_size", Type::Int, NEVER),
    Key::new("enable_chunk_trace", Type::Bool, NEVER),
    Key::new("security.fips_mode", Type::Bool, NEVER),
    Key::new("windows.maxstdio", Type::Int, NEVER),
    Key::new("sp.convert_from_str_to_num", Type::Bool, NEVER),
];

impl Service {
    /// Reads the entries; the last of a key wins. `FLB_LOG_LEVEL` beats `log_level`, as in Fluent Bit.
    pub fn read(entries: &[Entry], env: &Env, diags: &mut Diagnostics) -> Service {
        let mut service = Service::default();
        for entry in entries {
            match KEYS.iter().find(|k| k.name == entry.key) {
                Some(key) => service.take(key, entry, diags),
                None => unknown(entry, diags),
            }
        }
        service.storage = Storage::read(entries);
        together(entries, diags);
        without_effect(entries, diags);
        if let Some(level) = env.get("FLB_LOG_LEVEL").map(str::to_ascii_lowercase) {
            if LEVELS.contains(&level.as_str()) {
                service.log_level = level;
            } else {
                diags.strict(None, format!("unknown FLB_LOG_LEVEL \"{level}\""), "it is passed over");
            }
        }
        service
    }

    fn take(&mut self, key: &Key, entry: &Entry, diags: &mut Diagnostics) {
        let text = entry.value.as_str();
        let mut bad = |wanted: &str, does: String| {
            diags.strict(
                Some(&entry.pos),
                format!("bad value \"{text}\" of \"{}\" in [SERVICE], {wanted} expected", entry.written),
                does,
            );
        };
        match key.name {
            "flush" => {
                let (seconds, rest) = leading_float(text);
                if seconds > 0.0 && seconds < 1e6 {
                    self.flush = Duration::from_secs_f64(seconds);
                    if !matches!(rest, "" | "s" | "S") {
                        bad("seconds", format!("it is taken as {seconds} s"));
                    }
                } else {
                    diags.error_hint(
                        Some(&entry.pos),
                        format!("Flush \"{text}\" in [SERVICE] is not above 0"),
                        "use seconds, decimals allowed: Flush 1",
                    );
                }
            }
            "grace" => match (value::int(text), value::time(text)) {
                (Some(-1), _) => self.grace = NO_GRACE_LIMIT,
                (_, Some(grace)) => self.grace = grace.min(NO_GRACE_LIMIT),
                _ => bad("seconds", format!("{} s is used", self.grace.as_secs())),
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
            // Read, or refused, by `load`.
            "parsers_file" | "streams_file" => {}
            "log_file" => {
                self.log_file = Some(PathBuf::from(text)).filter(|_| !text.is_empty());
                let dir =
                    self.log_file.as_deref().and_then(Path::parent).filter(|dir| !dir.as_os_str().is_empty());
                if dir.is_some_and(|dir| !dir.is_dir()) {
                    let message = format!("the directory of Log_File {text} in [SERVICE] is not there");
                    diags.strict(Some(&entry.pos), message, "the log goes to standard error");
                }
            }
            "json.escape_unicode" => match value::boolean(text) {
                Some(on) => self.escape_unicode = on,
                // Fluent Bit takes anything that is not "off" as on.
                None => bad("on or off", "on is used".into()),
            },
            "multiline_buffer_limit" => match binary_size(text) {
                Some(bytes @ 1..) => self.multiline_buffer_limit = bytes.min(1 << 30) as usize,
                _ => bad("bytes", format!("{} bytes are used", self.multiline_buffer_limit)),
            },
            "memory.limit" => match value::size(text) {
                Some(bytes) if bytes >= MIN_MEMORY => self.memory_limit = Some(bytes),
                _ => bad("at least 4 MiB", "the default is used".into()),
            },
            "storage.type" if StorageType::parse(text).is_none() => {
                bad("memory, filesystem or memrb", "it is passed over".into());
            }
            "dead_letter.limit" if storage::limit(text).is_none() => {
                bad("at least 1M", "it is passed over".into());
            }
            "scheduler.base" | "scheduler.cap" if storage::seconds(text).is_none() => {
                bad("whole seconds above 0", "it is passed over".into());
            }
            "plugins_file" => {
                diags.warn(Some(&entry.pos), "Plugins_File is passed over: firelane loads no shared objects");
            }
            _ => {
                let (good, wanted) = match key.ty {
                    Type::Bool => (value::boolean(text).is_some(), "on or off"),
                    Type::Int => (value::int(text).is_some(), "a whole number"),
                    Type::Float => (value::float(text).is_some(), "a number"),
                    Type::Size => (value::size(text).is_some(), "bytes"),
                    Type::Time => (value::time(text).is_some(), "seconds"),
                    _ => (true, ""),
                };
                if !good {
                    bad(wanted, "it is passed over".into());
                }
            }
        }
    }
}

fn unknown(entry: &Entry, diags: &mut Diagnostics) {
    if entry.key == "telemetry" || entry.key.starts_with("telemetry.") {
        let message = format!("\"{}\" in [SERVICE] must be a nested block of YAML", entry.written);
        return diags.error_hint(Some(&entry.pos), message, "remove it: firelane has no telemetry block yet");
    }
    let does = match nearest(&entry.key, KEYS.iter().map(|k| k.name)) {
        _ if entry.key.starts_with('@') => {
            "it is passed over; a directive begins in the first column".to_owned()
        }
        Some(meant) => format!("it is passed over; did you mean \"{meant}\"?"),
        None => "it is passed over".to_owned(),
    };
    diags.strict(Some(&entry.pos), format!("unknown key \"{}\" in [SERVICE]", entry.written), does);
}

/// Values that Fluent Bit refuses because of another key.
fn together(entries: &[Entry], diags: &mut Diagnostics) {
    let last = |key: &str| entries.iter().rev().find(|e| e.key == key);
    let on = |key: &str| last(key).and_then(|e| value::boolean(&e.value)) == Some(true);
    let mut refuse = |key: &str, good: &dyn Fn(&str) -> bool, hint: &str| {
        if let Some(entry) = last(key)
            && !good(&entry.value)
        {
            let message = format!("bad value \"{}\" of \"{}\" in [SERVICE]", entry.value, entry.written);
            diags.error_hint(Some(&entry.pos), message, hint);
        }
    };
    if on("http_server") {
        refuse("http_port", &|v| v.parse::<u16>().is_ok(), "use a port: HTTP_Port 2020");
    }
    let modes = ["normal", "full"];
    refuse("storage.sync", &|v| modes.contains(&v.to_ascii_lowercase().as_str()), "use normal or full");
    if on("storage.inherit") {
        // Inputs take it as their own key, and there a bad one is refused.
        refuse("storage.type", &|v| StorageType::parse(v).is_some(), "use memory, filesystem or memrb");
    }
    refuse("coro_stack_size", &|v| value::int(v).is_none_or(|n| n >= MIN_STACK), "use at least 4096");
}

/// One line for each group of keys that are accepted and do nothing.
fn without_effect(entries: &[Entry], diags: &mut Diagnostics) {
    let mut groups: Vec<(&str, Vec<&Entry>)> = Vec::new();
    for entry in entries {
        let Some(key) = KEYS.iter().find(|k| k.name == entry.key && k.help.starts_with("accepted")) else {
            continue;
        };
        match groups.iter_mut().find(|(help, _)| *help == key.help) {
            Some((_, group)) => group.push(entry),
            None => groups.push((key.help, vec![entry])),
        }
    }
    for (help, group) in groups {
        let names: Vec<&str> = group.iter().map(|e| e.written.as_str()).collect();
        diags.warn(group.first().map(|e| &e.pos), format!("[SERVICE] {}: {help}", names.join(", ")));
    }
}

/// The number a text begins with (0 if none) and the rest, as C's `atof` reads it.
fn leading_float(text: &str) -> (f64, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    (number.parse().unwrap_or(0.0), rest)
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
        assert!(found.iter().take(3).all(|(level, _)| *level == Level::Strict), "{found:?}");
        assert!(found[1].1.contains("did you mean \"flush\""));
    }

    #[test]
    fn the_environments_log_level_wins() {
        let (service, _) = read(&[("log_level", "error")], &[("FLB_LOG_LEVEL", "debug")]);
        assert_eq!(service.log_level, "debug");
    }

    #[test]
    fn flush_takes_decimals_and_must_be_above_zero() {
        for (text, millis, level) in [
            ("0.2", 200, None),
            ("1s", 1000, None),
            ("5", 5000, None),
            ("500ms", 500_000, Some(Level::Strict)),
            ("0", 1000, Some(Level::Error)),
            ("abc", 1000, Some(Level::Error)),
            ("-1", 1000, Some(Level::Error)),
            ("", 1000, Some(Level::Error)),
        ] {
            let (service, found) = read(&[("flush", text)], &[]);
            assert_eq!(service.flush, Duration::from_millis(millis), "{text}");
            assert_eq!(found.first().map(|f| f.0), level, "{text}: {found:?}");
        }
    }

    #[test]
    fn grace_takes_seconds_and_minus_one() {
        for (text, seconds) in
            [("10", 10), ("2m", 120), ("0", 0), ("-1", 86_400), ("9999999", 86_400), ("-7", 25)]
        {
            assert_eq!(read(&[("grace", text)], &[]).0.grace.as_secs(), seconds, "{text}");
        }
    }

    #[test]
    fn sizes_of_multiline_are_binary_and_of_memory_decimal() {
        let (service, found) = read(&[("multiline_buffer_limit", "3M"), ("memory.limit", "8M")], &[]);
        assert_eq!((service.multiline_buffer_limit, service.memory_limit), (3 << 20, Some(8_000_000)));
        assert!(found.is_empty(), "{found:?}");
        let (service, found) = read(&[("multiline_buffer_limit", "auto"), ("memory.limit", "1K")], &[]);
        assert_eq!((service.multiline_buffer_limit, service.memory_limit), (2 << 20, None));
        assert!(found.iter().all(|f| f.0 == Level::Strict) && found.len() == 2, "{found:?}");
    }

    #[test]
    fn keys_without_effect_are_said_in_one_line_for_each_group() {
        let keys =
            [("daemon", "on"), ("Http_Server", "on"), ("coro_stack_size", "9999"), ("HTTP_Port", "2020")];
        let (_, found) = read(&keys, &[]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|f| f.0 == Level::Warning));
        assert!(found[0].1.contains("[SERVICE] daemon, coro_stack_size: accepted; no effect"), "{found:?}");
    }

    /// Each row was tried with Fluent Bit 5.1.1, which refuses it too.
    #[test]
    fn values_that_cannot_work_together_are_refused() {
        for keys in [
            &[("http_server", "on"), ("http_port", "abc")][..],
            &[("storage.sync", "x")],
            &[("storage.inherit", "on"), ("storage.type", "disk")],
            &[("coro_stack_size", "1")],
            &[("telemetry", "x")],
            &[("log_level", "loud")],
            &[("log_level", "")],
        ] {
            let (_, found) = read(keys, &[]);
            assert!(found.iter().any(|f| f.0 == Level::Error), "{keys:?}: {found:?}");
        }
        let (_, found) = read(&[("http_port", "abc"), ("log_level", "Warning")], &[]);
        assert!(found.iter().all(|f| f.0 == Level::Warning), "{found:?}");
    }
}
