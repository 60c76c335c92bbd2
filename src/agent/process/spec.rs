//! What the agent tells a supervisor, and what it hears: plain structs, and how they stand on a line of JSON.
//!
//! Enters: requests of the agent, one a line. Leaves: answers by their number, and states of containers whenever they
//! change, also one a line. Can go wrong: a line that is too long or is no request; its sender is told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The longest line, either way.
pub(super) const LINE_MAX: usize = 4 << 20;

/// A container, complete: nothing is looked up later.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Spec {
    /// Name in the task definition.
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name that docker would show, `ecs-family-1-name-hex`.
    pub docker_name: String,
    /// As the task definition names it; only log drivers use it.
    pub image: String,
    /// entryPoint and command.
    pub argv: Vec<String>,
    /// As the process sees it, but for PATH, HOSTNAME and HOME, which are added where they are not given.
    pub env: Vec<(String, String)>,
    /// docker's labels.
    pub labels: BTreeMap<String, String>,
    /// `/` if nothing is said; made where it does not exist.
    pub cwd: Option<String>,
    /// `user`, `user:group`, by name or number.
    pub user: Option<String>,
    /// The host's name as the process sees it.
    pub hostname: Option<String>,
    /// Limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes.
    pub memory_reservation: Option<u64>,
    /// `cpu` of the container definition.
    pub cpu_shares: Option<u64>,
    /// In this order.
    pub mounts: Vec<Mount>,
    /// Of the container definition; in a state what it has found.
    pub health: Option<HealthCheck>,
    /// `fluentd`, `awslogs`, `json-file`, `none`.
    pub log_driver: String,
    /// As docker takes them.
    pub log_options: BTreeMap<String, String>,
    /// Where `json-file` writes; empty: a file in the task's directory.
    pub log_path: PathBuf,
    /// `dockerSecurityOptions: no-new-privileges`
    pub no_new_privileges: bool,
}

/// `ulimits` of a task definition; -1 is no limit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    pub name: String,
    /// What holds.
    pub soft: i64,
    /// How far the process may raise it.
    pub hard: i64,
}

/// A file or directory that a container sees elsewhere.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Mount {
    /// `None`: a tmpfs.
    pub source: Option<PathBuf>,
    /// Where it is seen.
    pub target: PathBuf,
    /// The process may not write there.
    pub read_only: bool,
    /// Bytes of a tmpfs.
    pub size: Option<u64>,
}

/// A health check; times in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// What is run; for `CMD-SHELL` a shell and its argument.
    pub argv: Vec<String>,
    /// From one check's end to the next.
    pub interval: u64,
    /// A check that takes longer has failed.
    pub timeout: u64,
    /// So many failures in a row are unhealthy.
    pub retries: u32,
    /// Failures so soon after the start do not count.
    pub start_period: u64,
}

/// A request of the agent.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Request {
    /// The answer has the same.
    pub(super) id: u64,
    #[serde(flatten)]
    pub(super) call: Call,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Call {
    Create {
        spec: Box<Spec>,
    },
    Start {
        name: String,
    },
    /// SIGTERM, and SIGKILL after so many milliseconds.
    Stop {
        name: String,
        timeout: u64,
    },
    Kill {
        name: String,
        signal: i32,
    },
    Stats {
        name: String,
    },
    Remove {
        name: String,
    },
    /// The task is over: the supervisor ends. Refused while something runs.
    End,
}

/// What a supervisor says.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    /// The first line: everything that is known.
    Hello {
        pid: i32,
        states: Vec<State>,
    },
    /// A container has changed.
    State(Box<State>),
    Answer {
        id: u64,
        result: Result<Done, Failure>,
    },
}

/// What came of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct Done {
    pub(super) warnings: Vec<String>,
    pub(super) stats: Option<Stats>,
}

/// Why a request failed, in ECS's terms.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// `CannotStartContainerError`, ...
    pub name: String,
    /// A sentence.
    pub text: String,
}

impl Failure {
    pub(super) fn new(name: &str, text: impl Into<String>) -> Failure {
        Failure { name: name.to_owned(), text: text.into() }
    }
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Not started yet, or it could not be started.
    #[default]
    Created,
    /// Its program has begun.
    Running,
    /// Its process has ended, and its log driver is closed.
    Exited,
}

/// A container as it stands.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct State {
    pub name: String,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Grows with every change.
    pub version: u64,
    /// Where it stands.
    pub status: Status,
    /// While it runs.
    pub pid: Option<i32>,
    /// Milliseconds since 1970, as the other times.
    pub created: i64,
    /// The last start.
    pub started: Option<i64>,
    /// The end of its process.
    pub finished: Option<i64>,
    /// Of the last run; 126 and 127 where it could not be started.
    pub exit_code: Option<i32>,
    /// The kernel has killed one of its processes for want of memory: OutOfMemoryError.
    pub oom: bool,
    /// Why it could not be started.
    pub error: Option<String>,
    pub health: Option<Health>,
    /// How often it was started.
    pub starts: u32,
}

/// What a health check says, in ECS's words.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    /// No success and not enough failures yet.
    #[default]
    Unknown,
    /// The last check was a success, or failures are too few.
    Healthy,
    /// Too many failures in a row.
    Unhealthy,
}

/// What the health check says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Health {
    /// As ECS names it.
    pub status: HealthStatus,
    /// When it became so, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Of the last check; -1 when it took too long.
    pub exit_code: Option<i32>,
    /// At most 1024 bytes.
    pub output: String,
}

/// What a container uses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub struct Stats {
    /// Nanoseconds of CPU.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub memory_limit: Option<u64>,
    /// How many there are.
    pub processes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_stand_on_a_line() {
        let request = Request { id: 7, call: Call::Stop { name: "web".into(), timeout: 30_000 } };
        let line = serde_json::to_string(&request).unwrap();
        assert_eq!(line, r#"{"id":7,"op":"stop","name":"web","timeout":30000}"#);
        assert!(matches!(serde_json::from_str::<Request>(&line).unwrap().call, Call::Stop { .. }));
        let said = Said::Answer { id: 7, result: Err(Failure::new("X", "y")) };
        let line = serde_json::to_string(&said).unwrap();
        assert_eq!(line, r#"{"answer":{"id":7,"result":{"Err":{"name":"X","text":"y"}}}}"#);
        assert!(serde_json::from_str::<Said>(&line).is_ok());
    }
}
