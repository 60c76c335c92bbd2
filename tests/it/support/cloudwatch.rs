//! A router whose output is CloudWatch Logs, and the strict server that it sends to.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

use super::forward::{ack, map, packed, text};
use super::router::{Client, Ended, Router};
use super::{certs, eventually};
use crate::strict_cloudwatch::{CloudWatch, KEY};

/// The names that most tests use.
pub(crate) const NAMES: &str = "log_group_name g\nlog_stream_name s\nauto_create_group on";

/// Dead letters, for `[SERVICE]`.
pub(crate) const LETTERS: &str = "dead_letter.path {dir}/dead";

/// A configuration: a forward input on a unix socket, and `cloudwatch_logs`. Lines are one key each.
pub(crate) fn conf(aws: &CloudWatch, service: &str, output: &str) -> String {
    conf_of("cloudwatch_logs", aws, service, output)
}

/// The same for a plugin's name.
pub(crate) fn conf_of(plugin: &str, aws: &CloudWatch, service: &str, output: &str) -> String {
    let lines = |text: &str| text.lines().map(|l| format!("    {}\n", l.trim())).collect::<String>();
    let filesystem = if service.contains("storage.path") { "    storage.type filesystem\n" } else { "" };
    let has_endpoint = output.lines().any(|l| l.trim().starts_with("endpoint "));
    let endpoint = if has_endpoint { String::new() } else { format!("    endpoint {}\n", aws.endpoint()) };
    format!(
        "[SERVICE]\n    Flush 0.2\n    Grace 10\n{}[INPUT]\n    Name forward\n    Unix_Path {{dir}}/in.sock\n{filesystem}\
         [OUTPUT]\n    Name {plugin}\n    Match *\n    region eu-west-1\n{endpoint}{}",
        lines(service),
        lines(output)
    )
}

/// An environment without any AWS configuration of this machine, and with these variables.
pub(crate) fn environment(more: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let nowhere = || "/nonexistent".to_owned();
    let mut env = vec![
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("AWS_CONFIG_FILE", nowhere()),
        ("AWS_SHARED_CREDENTIALS_FILE", nowhere()),
        // Loopback is not reached through a proxy.
        ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
    ];
    env.extend_from_slice(more);
    env
}

/// The key that the server knows.
pub(crate) fn key() -> Vec<(&'static str, String)> {
    environment(&[("AWS_ACCESS_KEY_ID", KEY.0.to_owned()), ("AWS_SECRET_ACCESS_KEY", KEY.1.to_owned())])
}

/// A directory with the certificates of the tests.
pub(crate) fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), certs::CA).unwrap();
    dir
}

/// Starts a router with the key in its environment.
pub(crate) fn start(conf: &str) -> Router {
    Router::start_with(directory(), conf, &key())
}

/// Starts one for [`NAMES`] and these lines.
pub(crate) fn plain(aws: &CloudWatch, output: &str) -> Router {
    start(&conf(aws, LETTERS, &format!("{NAMES}\n{output}")))
}

/// Now, in milliseconds.
pub(crate) fn now() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64
}

/// `[time, record]` at so many milliseconds; `record` is encoded.
pub(crate) fn entry_of(ms: i64, record: &[u8]) -> Vec<u8> {
    let (seconds, nanos) = ((ms / 1000) as u32, (ms % 1000) as u32 * 1_000_000);
    [&[0x92, 0xd7, 0x00][..], &seconds.to_be_bytes(), &nanos.to_be_bytes(), record].concat()
}

/// `[time, {"log": log}]`
pub(crate) fn entry_at(ms: i64, log: impl AsRef<[u8]>) -> Vec<u8> {
    entry_of(ms, &map(&[(b"log", log.as_ref())]))
}

/// `[now, {"log": log}]`
pub(crate) fn line(log: &str) -> Vec<u8> {
    entry_at(now(), log)
}

/// `[now, {"log": log, field: value}]`
pub(crate) fn line_with(log: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all: Vec<(&[u8], &[u8])> = vec![(b"log", log.as_bytes())];
    all.extend(fields.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())));
    entry_of(now(), &map(&all))
}

/// An encoded map of one field that is itself encoded.
pub(crate) fn nested(key: &str, value: &[u8]) -> Vec<u8> {
    [&[0x81][..], &text(key.as_bytes()), value].concat()
}

/// A client of the router's socket that sends chunks of entries.
pub(crate) struct Sender(UnixStream);

impl Sender {
    pub(crate) fn new(router: &Router) -> Sender {
        Sender(router.unix())
    }

    /// Sends and does not wait.
    pub(crate) fn send(&mut self, tag: &str, entries: &[Vec<u8>]) {
        self.0.send(&packed(tag, &entries.concat(), &[0x80]));
    }

    /// Sends and asks for an ack of this name.
    pub(crate) fn send_to_ack(&mut self, tag: &str, entries: &[Vec<u8>], id: &str) {
        let option = map(&[(b"chunk", id.as_bytes())]);
        self.0.send(&packed(tag, &entries.concat(), &option));
    }

    /// Waits for the next ack.
    pub(crate) fn expect(&mut self, id: &str) {
        self.0.expect(&ack(id));
    }

    /// Nothing comes for a while.
    pub(crate) fn expect_silence(&mut self) {
        self.0.expect_silence();
    }

    /// Sends and waits for the ack.
    pub(crate) fn deliver(&mut self, tag: &str, entries: &[Vec<u8>]) {
        self.send_to_ack(tag, entries, "delivered");
        self.expect("delivered");
    }
}

/// Waits until so many events are stored. As long as there is progress, a slow machine may take its time.
pub(crate) fn stored(aws: &CloudWatch, count: usize) {
    for part in 1..=10 {
        let count = (count * part).div_ceil(10);
        eventually(&format!("{count} events stored"), || (aws.stored() >= count).then_some(()));
    }
    assert_eq!(aws.stored(), count);
}

/// Waits until there were so many calls of an operation, whatever came of them.
pub(crate) fn called(aws: &CloudWatch, operation: &str, count: usize) {
    let what = format!("{count} calls of {operation}");
    eventually(&what, || (aws.calls(operation).len() >= count).then_some(()));
}

/// The dead letters in a router's directory: reason and `log`.
pub(crate) fn letters(dir: &Path) -> Vec<(String, String)> {
    let file = fs::read_to_string(dir.join("dead/dead-letters.jsonl")).unwrap_or_default();
    let letter = |line: &str| {
        let letter: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        (text(&letter["reason"]), text(&letter["record"]["log"]))
    };
    file.lines().map(letter).collect()
}

/// Stops the router: nothing may be left in it, it may not have dropped anything, and no secret may be in its log.
pub(crate) fn stop(router: Router) -> Ended {
    let ended = router.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages);
    for secret in [KEY.1, "secret/", "token=="] {
        assert!(!ended.messages.contains(secret), "a secret in the log: {}", ended.messages);
    }
    ended
}

/// The messages that were not there before.
pub(crate) fn first_of_each(messages: &[String]) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    messages.iter().filter(|m| seen.insert((*m).clone())).cloned().collect()
}

/// `log` of a message that is a whole record.
pub(crate) fn log_of(message: &str) -> String {
    let record: Value = serde_json::from_str(message).unwrap_or_else(|e| panic!("{e} in {message}"));
    record["log"].as_str().unwrap().to_owned()
}
