//! The keys that Fluent Bit's core takes for every input, filter and output, and what it does with bad values of them.
//!
//! Core keys differ from a plugin's own: the last of several counts, and most bad values are passed over.

use super::kind::{Key, Type};
use super::section::SectionKind;
use super::storage::{AckLevel, Overflow, StorageType};
use super::value;

const LATER: &str = "accepted; no effect yet";
const SERVER: &str = "accepted; used by inputs that listen";
const CLIENT: &str = "accepted; used by outputs that connect";
const PROXY: &str = "off: outputs that speak HTTP use HTTP_PROXY, HTTPS_PROXY and NO_PROXY";
const THREADS: &str = "accepted; inputs share the data threads";
const LEVEL: &str = "accepted; the level of [SERVICE] counts for all";
const BY_PATTERN: &str = "as match, by a pattern anchored at the tag's start; either is enough";
const CONDITION: &str = "accepted; no effect, as in Fluent Bit";

/// Keys every input takes.
pub const CORE_INPUT: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("tag", Type::Str, "tag of the records; the instance name (tcp.0) when it is not set"),
    Key::new("alias", Type::Str, "name for logs and counters"),
    Key::new(
        "mem_buf_limit",
        Type::Size,
        "most bytes of this input inside; above it the source is not read; no effect with storage.type filesystem",
    )
    .default("0"),
    Key::new("log_level", Type::Str, LEVEL),
    Key::new("log_suppress_interval", Type::Time, LATER),
    Key::new("routable", Type::Bool, LATER),
    Key::new(
        "storage.type",
        Type::Str,
        "memory, filesystem (on disk under storage.path before it is acked) or memrb (at mem_buf_limit the oldest go)",
    ).otherwise("memory"),
    Key::new(
        "storage.pause_on_chunks_overlimit",
        Type::Bool,
        "accepted; sources always wait when memory.limit or an output's share is full",
    ),
    Key::new(
        "ack",
        Type::Str,
        "when a sender gets its ack: durable (on disk), delivered (outputs have it) or accept (taken in, as Fluent \
         Bit does); firelane's own",
    ).otherwise("durable with storage.type filesystem, else delivered"),
    Key::new("threaded", Type::Bool, THREADS),
    Key::new("thread.ring_buffer.capacity", Type::Int, THREADS),
    Key::new("thread.ring_buffer.window", Type::Int, THREADS),
    Key::new("rate_window", Type::Time, LATER),
    Key::new("rate_gate", Type::Bool, LATER),
    Key::new("rate_gate.max_bytes", Type::Size, LATER),
    Key::new("rate_gate.max_records", Type::Int, LATER),
    Key::new("rate_gate.backpressure", Type::Bool, LATER),
    Key::new("rate_gate.resume_ratio", Type::Float, LATER),
    Key::new("listen", Type::Str, SERVER),
    Key::new("host", Type::Str, LATER),
    Key::new("port", Type::Int, SERVER),
    Key::new("ipv6", Type::Bool, LATER),
    Key::new("net.share_port", Type::Bool, LATER),
    Key::new("net.backlog", Type::Int, LATER),
    Key::new("net.io_timeout", Type::Time, LATER),
    Key::new("net.accept_timeout", Type::Time, LATER),
    Key::new("net.accept_timeout_log_error", Type::Bool, LATER),
    Key::new("net.keepalive", Type::Bool, LATER),
    Key::new("tls", Type::Bool, SERVER),
    Key::new("tls.verify", Type::Bool, "accepted; a server verifies clients by tls.verify_client_cert"),
    Key::new("tls.verify_client_cert", Type::Bool, SERVER),
    Key::new("tls.verify_hostname", Type::Bool, LATER),
    Key::new("tls.debug", Type::Int, LATER),
    Key::new("tls.ca_file", Type::Str, SERVER),
    Key::new("tls.ca_path", Type::Str, LATER),
    Key::new("tls.crt_file", Type::Str, SERVER),
    Key::new("tls.key_file", Type::Str, SERVER),
    Key::new("tls.key_passwd", Type::Str, LATER),
    Key::new("tls.vhost", Type::Str, LATER),
    Key::new("tls.min_version", Type::Str, SERVER),
    Key::new("tls.max_version", Type::Str, SERVER),
    Key::new("tls.ciphers", Type::Str, LATER),
    Key::new("oauth2.", Type::Str, LATER).prefix(),
    Key::new("active", Type::Str, CONDITION),
    Key::new("condition", Type::Str, CONDITION),
];

/// Keys every filter takes.
pub const CORE_FILTER: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("match", Type::Str, "tags it applies to; * stands for any run"),
    Key::new("match_regex", Type::Str, BY_PATTERN),
    Key::new("alias", Type::Str, "name for logs and counters"),
    Key::new("log_level", Type::Str, LEVEL),
    Key::new("log_suppress_interval", Type::Time, LATER),
    Key::new("active", Type::Str, CONDITION),
    Key::new("condition", Type::Str, CONDITION),
];

/// Keys every output takes.
pub const CORE_OUTPUT: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("match", Type::Str, "tags it takes; * stands for any run"),
    Key::new("match_regex", Type::Str, BY_PATTERN),
    Key::new("alias", Type::Str, "name for logs and counters"),
    Key::new("log_level", Type::Str, LEVEL),
    Key::new("log_suppress_interval", Type::Time, LATER),
    Key::new(
        "retry_limit",
        Type::Str,
        "retries of a failed batch before it is given up; no_limits, no_retries; \
         file, stdout and null never give up",
    ).otherwise("no_limits"),
    Key::new(
        "retry.max_age",
        Type::Time,
        "a failing batch is given up at this age; file, stdout and null never give up (firelane's own)",
    ).otherwise("no limit"),
    Key::new("workers", Type::Int, "accepted; every output is a task of its own"),
    Key::new(
        "storage.total_limit_size",
        Type::Str,
        "most bytes on disk that wait for this output; off for no limit",
    ).otherwise("its part of the whole"),
    Key::new(
        "overflow",
        Type::Str,
        "when they are reached: block (sources that route to it wait), drop_oldest (as Fluent Bit) or drop_newest \
         (firelane's own)",
    )
    .default("block"),
    Key::new("host", Type::Str, CLIENT),
    Key::new("port", Type::Int, CLIENT),
    Key::new("ipv6", Type::Bool, LATER),
    Key::new("net.dns.mode", Type::Str, LATER),
    Key::new("net.dns.resolver", Type::Str, LATER),
    Key::new("net.dns.prefer_ipv4", Type::Bool, LATER),
    Key::new("net.dns.prefer_ipv6", Type::Bool, LATER),
    Key::new("net.keepalive", Type::Bool, CLIENT),
    Key::new("net.keepalive_idle_timeout", Type::Time, CLIENT),
    Key::new("net.keepalive_max_recycle", Type::Int, CLIENT),
    Key::new("net.tcp_keepalive", Type::Bool, CLIENT),
    Key::new("net.tcp_keepalive_time", Type::Int, CLIENT),
    Key::new("net.tcp_keepalive_interval", Type::Int, CLIENT),
    Key::new("net.tcp_keepalive_probes", Type::Int, CLIENT),
    Key::new("net.io_timeout", Type::Time, CLIENT),
    Key::new("net.connect_timeout", Type::Time, CLIENT),
    Key::new("net.connect_timeout_log_error", Type::Bool, LATER),
    Key::new("net.source_address", Type::Str, CLIENT),
    Key::new("net.max_worker_connections", Type::Int, LATER),
    Key::new("net.proxy_env_ignore", Type::Bool, PROXY).otherwise("off"),
    Key::new("tls", Type::Bool, CLIENT),
    Key::new("tls.verify", Type::Bool, CLIENT),
    Key::new("tls.verify_hostname", Type::Bool, CLIENT),
    Key::new("tls.debug", Type::Int, LATER),
    Key::new("tls.ca_file", Type::Str, CLIENT),
    Key::new("tls.ca_path", Type::Str, CLIENT),
    Key::new("tls.crt_file", Type::Str, CLIENT),
    Key::new("tls.key_file", Type::Str, CLIENT),
    Key::new("tls.key_passwd", Type::Str, LATER),
    Key::new("tls.vhost", Type::Str, CLIENT),
    Key::new("tls.min_version", Type::Str, CLIENT),
    Key::new("tls.max_version", Type::Str, CLIENT),
    Key::new("tls.ciphers", Type::Str, LATER),
    Key::new("tls.proxy.verify", Type::Bool, LATER),
    Key::new("tls.proxy.verify_hostname", Type::Bool, LATER),
    Key::new("tls.proxy.ca_file", Type::Str, LATER),
    Key::new("tls.proxy.ca_path", Type::Str, LATER),
    Key::new("oauth2.", Type::Str, LATER).prefix(),
    Key::new("active", Type::Str, CONDITION),
    Key::new("condition", Type::Str, CONDITION),
];

/// Keys of inputs that listen on the network.
pub const NET_INPUT: &[Key] = &[
    Key::new("listen", Type::Str, "address to listen on").default("0.0.0.0"),
    Key::new("workers", Type::Int, THREADS),
];

/// TLS keys of inputs. A plugin without them refuses `tls on`.
pub const TLS_INPUT: &[Key] = &[
    Key::new("tls", Type::Bool, "TLS on the listener").default("off"),
    Key::new("tls.crt_file", Type::Str, "certificate chain, PEM"),
    Key::new("tls.key_file", Type::Str, "its key, PEM"),
    Key::new("tls.ca_file", Type::Str, "who signs clients' certificates, PEM"),
    Key::new("tls.verify_client_cert", Type::Bool, "ask clients for a certificate").default("off"),
    Key::new("tls.min_version", Type::Str, "TLSv1.2 or TLSv1.3").default("TLSv1.2"),
    Key::new("tls.max_version", Type::Str, "TLSv1.2 or TLSv1.3").default("TLSv1.3"),
];

/// What an error of TLS may speak of; the first is where it stands if it speaks of none.
pub const TLS_SPOKEN_OF: &[&str] = &[
    "tls",
    "tls.min_version",
    "tls.max_version",
    "tls.crt_file",
    "tls.key_file",
    "tls.ca_file",
    "tls.ca_path",
    "tls.verify_client_cert",
    "tls.vhost",
];

/// Where the peer of an output is.
pub const PEER: &[Key] = &[Key::new("host", Type::Str, "address or name of the peer").default("127.0.0.1")];

/// Keys of outputs that connect to a peer.
pub const NET_OUTPUT: &[Key] = &[
    Key::new("net.connect_timeout", Type::Time, "how long connecting may take, TLS included").default("10"),
    Key::new(
        "net.io_timeout",
        Type::Time,
        "how long a write may stand still, and an answer take; 0: for ever",
    )
    .default("0"),
    Key::new("net.keepalive", Type::Bool, "keep the connection when nothing is in flight").default("on"),
    Key::new("net.keepalive_idle_timeout", Type::Time, "close it after this idle time").default("30"),
    Key::new("net.keepalive_max_recycle", Type::Int, "connect anew after so many messages; 0: never")
        .default("2000"),
    Key::new("net.tcp_keepalive", Type::Bool, "let the kernel probe an idle connection").default("off"),
    Key::new("net.tcp_keepalive_time", Type::Int, "idle seconds before the first probe; -1: the kernel's")
        .default("-1"),
    Key::new("net.tcp_keepalive_interval", Type::Int, "seconds between probes; -1: the kernel's")
        .default("-1"),
    Key::new("net.tcp_keepalive_probes", Type::Int, "probes without answer; -1: the kernel's").default("-1"),
    Key::new("net.source_address", Type::Str, "our own address"),
];

/// Whether an output speaks TLS. A plugin without these refuses `tls on`; one that has other defaults has them itself.
pub const TLS_OUTPUT: &[Key] = &[
    Key::new("tls", Type::Bool, "TLS to the peer").default("off"),
    Key::new("tls.verify_hostname", Type::Bool, "its certificate must be for its name").default("off"),
];

/// The other TLS keys of outputs.
pub const TLS_FILES: &[Key] = &[
    Key::new("tls.verify", Type::Bool, "the peer's certificate must be of a trusted authority").default("on"),
    Key::new("tls.ca_file", Type::Str, "trusted authorities, PEM; the system's when not set"),
    Key::new("tls.ca_path", Type::Str, "a directory of such files"),
    Key::new("tls.crt_file", Type::Str, "our own certificate chain, PEM"),
    Key::new("tls.key_file", Type::Str, "its key, PEM, without a passphrase"),
    Key::new("tls.vhost", Type::Str, "name to ask for and to verify, instead of host"),
    Key::new("tls.min_version", Type::Str, "TLSv1.2 or TLSv1.3").default("TLSv1.2"),
    Key::new("tls.max_version", Type::Str, "TLSv1.2 or TLSv1.3").default("TLSv1.3"),
];

/// Keys that name emitters; rewriting happens in line here.
pub const EMITTER: &[Key] = &[
    Key::new("emitter_name", Type::Str, "accepted; records re-enter the chain in line, there is no emitter"),
    Key::new(
        "emitter_storage.type",
        Type::Str,
        "accepted; records re-enter the chain in line, there is no emitter",
    ),
];

/// Keys that Fluent Bit lets pass in every section; `modify` has a `condition` of its own.
pub(super) const LET_PASS: &[&str] = &["active", "condition"];

/// What is said about a core key that is taken and does nothing, where it asks for something.
pub(super) fn unheeded(key: &Key, value: &str) -> Option<Unheeded> {
    let asks = key.ty != Type::Bool || value::boolean(value) == Some(true);
    match key.name {
        "routable" if value::boolean(value) == Some(false) => {
            Some(Unheeded::Matters("its records are routed all the same"))
        }
        "rate_gate" if asks => {
            Some(Unheeded::Matters("nothing limits its rate; the filter throttle does that, by dropping"))
        }
        "oauth2." => Some(Unheeded::Matters("no token is asked for, and none is sent")),
        "tls.ciphers" => Some(Unheeded::Matters("the ciphers are those of TLS 1.2 and 1.3 that are safe")),
        "routable" => None,
        _ if asks && key.help == LATER => Some(Unheeded::Said("has no effect yet")),
        "log_level" => Some(Unheeded::Said("has no effect: the level of [SERVICE] counts for all")),
        _ => None,
    }
}

/// A key that does nothing here.
#[derive(Debug, PartialEq)]
pub(super) enum Unheeded {
    /// Worth a line in the log.
    Said(&'static str),
    /// Whoever sets it relies on it: what is done instead.
    Matters(&'static str),
}

/// Levels of Fluent Bit's log.
pub(super) const LEVELS: &[&str] = &["off", "error", "warn", "warning", "info", "debug", "trace"];

/// What becomes of the value of a core key.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It stands.
    Good,
    /// Fluent Bit refuses it, too; what to do.
    Refused(&'static str),
    /// Fluent Bit takes something else: the value and what is said about it.
    Taken(String, String),
    /// Fluent Bit goes on as if the line were not there.
    PassedOver,
}

/// Judges a value that is not empty.
pub(super) fn judge(key: &Key, text: &str) -> Verdict {
    let lower = text.to_ascii_lowercase();
    let refused_unless = |good: bool, hint| if good { Verdict::Good } else { Verdict::Refused(hint) };
    let number = value::int(text);
    match key.name {
        "log_level" => {
            refused_unless(LEVELS.contains(&lower.as_str()), "use off, error, warn, info, debug or trace")
        }
        "storage.type" => {
            refused_unless(StorageType::parse(text).is_some(), "use memory, filesystem or memrb")
        }
        "ack" => refused_unless(AckLevel::parse(text).is_some(), "use durable, delivered or accept"),
        "overflow" => {
            refused_unless(Overflow::parse(text).is_some(), "use block, drop_oldest or drop_newest")
        }
        "storage.total_limit_size" => {
            let off = value::boolean(text) == Some(false);
            refused_unless(off || value::size(text).is_some(), SIZE_HINT)
        }
        "mem_buf_limit" | "rate_gate.max_bytes" => refused_unless(value::size(text).is_some(), SIZE_HINT),
        "retry_limit" => {
            let word = ["no_limits", "false", "off", "no_retries"].contains(&lower.as_str());
            match leading_number(text) {
                _ if word => Verdict::Good,
                Some(n) if n > 0 => taken(text, n),
                _ => taken(text, 1),
            }
        }
        "thread.ring_buffer.capacity" => {
            refused_unless(number.is_some_and(|n| n > 0), "use a number above 0")
        }
        "thread.ring_buffer.window" => {
            refused_unless(number.is_some_and(|n| (1..=100).contains(&n)), "use a number from 1 to 100")
        }
        "rate_gate.max_records" => refused_unless(number.is_some_and(|n| n >= 0), "use a whole number"),
        "rate_gate.resume_ratio" => refused_unless(
            value::float(text).is_some_and(|r| r > 0.0 && r < 1.0),
            "use a number between 0 and 1",
        ),
        "rate_window" | "retry.max_age" => refused_unless(
            value::time(text).is_some_and(|t| !t.is_zero()),
            "use seconds, or a number with s, m, h or d",
        ),
        name => match key.ty {
            Type::Bool if value::boolean(text).is_some() => Verdict::Good,
            Type::Bool if name.starts_with("net.") || STRICT_BOOLEANS.contains(&name) => {
                Verdict::Refused("use on or off")
            }
            Type::Time if value::time(text).is_some() => Verdict::Good,
            Type::Int if number.is_some() => Verdict::Good,
            Type::Int => leading_number(text).map_or(Verdict::PassedOver, |n| taken(text, n)),
            Type::Bool | Type::Time => Verdict::PassedOver,
            _ => Verdict::Good,
        },
    }
}

/// What to say about a size that is none.
pub(super) const SIZE_HINT: &str =
    "sizes are decimal: bytes, or a number with K, M or G (KB, MB, GB), not KiB";

/// Booleans that Fluent Bit looks at more closely than at others.
const STRICT_BOOLEANS: &[&str] = &[
    "tls.verify_client_cert",
    "threaded",
    "rate_gate",
    "rate_gate.backpressure",
    "storage.pause_on_chunks_overlimit",
];

fn taken(text: &str, n: i64) -> Verdict {
    if text.trim() == n.to_string() {
        return Verdict::Good;
    }
    Verdict::Taken(n.to_string(), format!("it is taken as {n}"))
}

/// The digits a text begins with, as C's `atoi` reads them.
fn leading_number(text: &str) -> Option<i64> {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).take(18).collect();
    digits.parse().ok()
}

/// Whether an empty value (an unset variable) counts as "not set"; Fluent Bit refuses it for the others.
pub(super) fn may_be_empty(kind: SectionKind, key: &str) -> bool {
    let text_of_tls = key.starts_with("tls.")
        && !["verify", "debug"].iter().any(|part| key.trim_start_matches("tls.proxy.").contains(part));
    match kind {
        SectionKind::Filter => key != "log_level",
        SectionKind::Output if ["match", "retry_limit"].contains(&key) => true,
        _ => text_of_tls || ["name", "listen", "host", "port"].contains(&key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each row was tried with Fluent Bit 5.1.1.
    #[test]
    fn bad_values_are_treated_as_fluent_bit_treats_them() {
        let passed = Verdict::PassedOver;
        let taken = |n: &str| Verdict::Taken(n.into(), format!("it is taken as {n}"));
        for (name, text, want) in [
            ("port", "5170", Verdict::Good),
            ("port", "abc", passed),
            ("port", "5170x", taken("5170")),
            ("ipv6", "maybe", Verdict::PassedOver),
            ("routable", "maybe", Verdict::PassedOver),
            ("tls", "maybe", Verdict::PassedOver),
            ("threaded", "maybe", Verdict::Refused("use on or off")),
            ("storage.type", "Filesystem", Verdict::Good),
            ("storage.type", "disk", Verdict::Refused("use memory, filesystem or memrb")),
            ("mem_buf_limit", "64MiB", Verdict::Refused(SIZE_HINT)),
            ("mem_buf_limit", "1.5m", Verdict::Good),
            ("net.keepalive", "maybe", Verdict::Refused("use on or off")),
            ("net.io_timeout", "abc", Verdict::PassedOver),
            ("ack", "Durable", Verdict::Good),
            ("ack", "always", Verdict::Refused("use durable, delivered or accept")),
        ] {
            let key = CORE_INPUT.iter().find(|k| k.name == name).unwrap();
            assert_eq!(judge(key, text), want, "{name} {text}");
        }
        for (name, text, want) in [
            ("retry_limit", "no_limits", Verdict::Good),
            ("retry_limit", "no_retries", Verdict::Good),
            ("retry_limit", "5", Verdict::Good),
            ("retry.max_age", "1h", Verdict::Good),
            ("retry.max_age", "0", Verdict::Refused("use seconds, or a number with s, m, h or d")),
            ("overflow", "drop_oldest", Verdict::Good),
            ("overflow", "drop", Verdict::Refused("use block, drop_oldest or drop_newest")),
            ("retry_limit", "0", taken("1")),
            ("retry_limit", "many", taken("1")),
            ("workers", "abc", Verdict::PassedOver),
            ("storage.total_limit_size", "off", Verdict::Good),
            ("storage.total_limit_size", "5MiB", Verdict::Refused(SIZE_HINT)),
            ("log_level", "loud", Verdict::Refused("use off, error, warn, info, debug or trace")),
        ] {
            let key = CORE_OUTPUT.iter().find(|k| k.name == name).unwrap();
            assert_eq!(judge(key, text), want, "{name} {text}");
        }
    }

    #[test]
    fn no_key_stands_twice_in_a_table() {
        for table in [CORE_INPUT, CORE_FILTER, CORE_OUTPUT] {
            for key in table {
                assert_eq!(table.iter().filter(|k| k.name == key.name).count(), 1, "{}", key.name);
            }
        }
    }
}
