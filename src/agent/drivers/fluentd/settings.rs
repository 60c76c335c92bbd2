//! The options of docker's `fluentd` driver.
//!
//! Enters: log options. Leaves: settings. Can go wrong: an option that is none; the sentence is docker's.

use std::time::Duration;

use super::super::options::{self, Options};
use crate::net::Target;

const KNOWN: &[&str] = &[
    "env",
    "env-regex",
    "labels",
    "labels-regex",
    "tag",
    "fluentd-address",
    "fluentd-async",
    "fluentd-async-connect",
    "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    "fluentd-request-ack",
    "fluentd-retry-wait",
    "fluentd-sub-second-precision",
    "fluentd-write-timeout",
    "fluentd-read-timeout",
];

const HOST: &str = "127.0.0.1";
const PORT: u16 = 24224;
/// Messages in the queue of async mode, although docker calls them bytes.
const BUFFER: u64 = 1024 * 1024;
/// Docker's bounds of the reconnect interval.
const RECONNECT: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10);

/// Checked options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Settings {
    pub(super) target: Target,
    pub(super) tls: bool,
    pub(super) queue: Option<usize>,
    pub(super) reconnect: Option<Duration>,
    pub(super) max_retries: u64,
    pub(super) retry_wait: Duration,
    pub(super) ack: bool,
    pub(super) sub_second: bool,
    pub(super) write_timeout: Option<Duration>,
    pub(super) read_timeout: Option<Duration>,
}

impl Settings {
    pub(in super::super) fn read(options: &Options) -> Result<Settings, String> {
        options::known(options, "fluentd", KNOWN)?;
        let address = options.get("fluentd-address").map_or("", String::as_str);
        let (target, tls) =
            target(address).map_err(|e| format!("invalid fluentd-address ({address}): {e}"))?;
        let limit = options::read(options, "fluentd-buffer-limit", options::size)?.unwrap_or(BUFFER);
        let retry_wait = options::read(options, "fluentd-retry-wait", options::duration)?;
        let max_retries = options::read(options, "fluentd-max-retries", |text| {
            options::unsigned(text).and_then(|n| match i32::try_from(n) {
                Ok(_) => Ok(n),
                Err(_) => Err(format!("invalid value: must be between 0 and {}", i32::MAX)),
            })
        })?;
        let flag = |name: &str| options::read(options, name, options::boolean);
        let (new, old) = (flag("fluentd-async")?, flag("fluentd-async-connect")?);
        if new.is_some() && old.is_some() {
            return Err(
                "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'"
                    .to_owned(),
            );
        }
        let reconnect = options::read(options, "fluentd-async-reconnect-interval", |text| {
            let interval = options::duration(text)?;
            match interval.is_zero() || RECONNECT.contains(&interval) {
                true => Ok(interval),
                false => Err("value must be between 100ms and 10s".to_owned()),
            }
        })?;
        let timeout = |name: &str| {
            Ok::<_, String>(options::read(options, name, options::duration)?.filter(|d| !d.is_zero()))
        };
        let asynchronous = new.or(old).unwrap_or(false);
        Ok(Settings {
            target,
            tls,
            queue: asynchronous.then_some(usize::try_from(limit).unwrap_or(usize::MAX)),
            reconnect: reconnect.filter(|d| !d.is_zero()),
            max_retries: max_retries.unwrap_or(i32::MAX as u64),
            retry_wait: retry_wait.unwrap_or(Duration::from_secs(1)),
            ack: flag("fluentd-request-ack")?.unwrap_or(false),
            sub_second: flag("fluentd-sub-second-precision")?.unwrap_or(false),
            write_timeout: timeout("fluentd-write-timeout")?,
            read_timeout: timeout("fluentd-read-timeout")?,
        })
    }
}

/// `host`, `host:port`, `tcp://`, `tls://`, `unix:///path`.
fn target(address: &str) -> Result<(Target, bool), String> {
    if address.is_empty() {
        return Ok((Target::Tcp(HOST.to_owned(), PORT), false));
    }
    let (scheme, rest) = address.split_once("://").unwrap_or(("tcp", address));
    match scheme {
        "unix" if rest.trim_start_matches('/').is_empty() => Err("path is empty".to_owned()),
        // What stands before the first slash is a host, which a unix socket has no use for.
        "unix" => {
            Ok((Target::Unix(rest.get(rest.find('/').unwrap_or(0)..).unwrap_or(rest).to_owned()), false))
        }
        "tcp" | "tls" => {
            if rest.contains('/') {
                return Err("should not contain a path element".to_owned());
            }
            let (host, port) = match rest.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => (host, port),
                _ => (rest, ""),
            };
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = match port {
                "" => PORT,
                port => port.parse().map_err(|_| {
                    format!("invalid port: strconv.ParseUint: parsing {port:?}: value out of range")
                })?,
            };
            let host = if host.is_empty() { HOST } else { host };
            Ok((Target::Tcp(host.to_owned(), port), scheme == "tls"))
        }
        scheme => Err(format!("unsupported scheme: '{scheme}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::options::of;
    use super::*;

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        let tcp = |host: &str, port| Target::Tcp(host.to_owned(), port);
        for (address, want) in [
            ("", (tcp(HOST, PORT), false)),
            ("10.0.0.1", (tcp("10.0.0.1", PORT), false)),
            ("log:1", (tcp("log", 1), false)),
            ("tcp://:5", (tcp(HOST, 5), false)),
            ("tls://[::1]:6", (tcp("::1", 6), true)),
            ("unix:///var/run/fluent.sock", (Target::Unix("/var/run/fluent.sock".into()), false)),
        ] {
            assert_eq!(target(address).unwrap(), want, "{address}");
        }
        for (address, word) in [
            ("unix://", "path is empty"),
            ("udp://x", "unsupported scheme: 'udp'"),
            ("tcp://x/y", "should not contain a path element"),
            ("x:99999", "invalid port"),
        ] {
            assert!(target(address).unwrap_err().contains(word), "{address}");
        }
    }

    #[test]
    fn what_ecs_sets_is_async_with_a_million_messages() {
        let s = Settings::read(&of(&[
            ("tag", "x"),
            ("fluentd-async", "true"),
            ("fluentd-sub-second-precision", "true"),
        ]))
        .unwrap();
        assert!(
            s.queue == Some(1_048_576) && s.sub_second && !s.ack && s.retry_wait == Duration::from_secs(1)
        );
        assert_eq!(Settings::read(&of(&[])).unwrap().queue, None);
        let s =
            Settings::read(&of(&[("fluentd-async-connect", "1"), ("fluentd-buffer-limit", "2k")])).unwrap();
        assert_eq!(s.queue, Some(2048));
    }

    #[test]
    fn bad_options_are_refused_in_dockers_words() {
        for (pairs, word) in [
            (&[("fluentd-nope", "")][..], "unknown log opt 'fluentd-nope' for fluentd log driver"),
            (&[("fluentd-retry-wait", "5")], "invalid fluentd-retry-wait (5): time: invalid duration"),
            (&[("fluentd-max-retries", "2147483648")], "invalid fluentd-max-retries (2147483648): "),
            (&[("fluentd-async", "yes")], "invalid fluentd-async (yes): strconv.ParseBool"),
            (&[("fluentd-async-reconnect-interval", "1ms")], "value must be between 100ms and 10s"),
            (&[("fluentd-async", "1"), ("fluentd-async-connect", "1")], "conflicting options"),
            (
                &[("fluentd-address", "ftp://x")],
                "invalid fluentd-address (ftp://x): unsupported scheme: 'ftp'",
            ),
        ] {
            assert!(Settings::read(&of(pairs)).unwrap_err().contains(word), "{word}");
        }
    }
}
