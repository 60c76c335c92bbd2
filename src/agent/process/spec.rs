//! What the agent tells a supervisor, and what it hears: plain structs, and how they stand on a line of JSON.
//!
//! Enters: requests of the agent, one a line. Leaves: answers by their number, and states of containers whenever they
//! change, also one a line. Can go wrong: a line that is too long or is no request; its sender is told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::agent::plan::names;
use crate::agent::runtime::{ContainerState, Failure};

/// The longest line, either way.
pub(super) const LINE_MAX: usize = 4 << 20;

/// A container, complete: nothing is looked up later. `Debug` prints no values of its variables.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Spec {
    /// Name in the task definition.
    pub(super) name: String,
    /// 64 hexadecimal digits.
    pub(super) id: String,
    /// The name that docker would show, `ecs-family-1-name-hex`.
    pub(super) docker_name: String,
    /// As the task definition names it; only log drivers use it.
    pub(super) image: String,
    /// entryPoint and command.
    pub(super) argv: Vec<String>,
    /// As the process sees it, but for PATH, HOSTNAME and HOME, which are added where they are not given.
    pub(super) env: Vec<(String, String)>,
    /// docker's labels.
    pub(super) labels: BTreeMap<String, String>,
    /// `/` if nothing is said; made where it does not exist.
    pub(super) cwd: Option<String>,
    /// `user`, `user:group`, by name or number.
    pub(super) user: Option<String>,
    /// The host's name as the process sees it.
    pub(super) hostname: Option<String>,
    /// Limits of the process.
    pub(super) ulimits: Vec<Ulimit>,
    /// Bytes.
    pub(super) memory: Option<u64>,
    /// Bytes.
    pub(super) memory_reservation: Option<u64>,
    /// `cpu` of the container definition.
    pub(super) cpu_shares: Option<u64>,
    /// In this order.
    pub(super) mounts: Vec<Mount>,
    /// Of the container definition; in a state what it has found.
    pub(super) health: Option<HealthCheck>,
    /// `fluentd`, `awslogs`, `json-file`, `none`.
    pub(super) log_driver: String,
    /// As docker takes them.
    pub(super) log_options: BTreeMap<String, String>,
    /// Where `json-file` writes; empty: a file in the task's directory.
    pub(super) log_path: PathBuf,
    /// `dockerSecurityOptions: no-new-privileges`
    pub(super) no_new_privileges: bool,
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("name", &self.name)
            .field("id", &self.id)
            .field("argv", &self.argv)
            .field("env", &names(&self.env))
            .finish_non_exhaustive()
    }
}

/// `ulimits` of a task definition; -1 is no limit.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Ulimit {
    pub(super) name: String,
    /// What holds.
    pub(super) soft: i64,
    /// How far the process may raise it.
    pub(super) hard: i64,
}

/// A file or directory that a container sees elsewhere.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(super) struct Mount {
    /// `None`: a tmpfs.
    pub(super) source: Option<PathBuf>,
    /// Where it is seen.
    pub(super) target: PathBuf,
    /// The process may not write there.
    pub(super) read_only: bool,
    /// How it is made where it is a tmpfs.
    pub(super) tmpfs: Tmpfs,
}

/// A tmpfs; what it may hold unless something is said is nothing that runs, no set-user-id programs and no devices, as docker
/// mounts one.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(super) struct Tmpfs {
    /// Bytes.
    pub(super) size: Option<u64>,
    /// Its directory's; 1777 unless it is said.
    pub(super) mode: Option<u32>,
    pub(super) exec: bool,
    pub(super) suid: bool,
    pub(super) dev: bool,
}

/// A health check; times in milliseconds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct HealthCheck {
    /// What is run; for `CMD-SHELL` a shell and its argument.
    pub(super) argv: Vec<String>,
    /// From one check's end to the next.
    pub(super) interval: u64,
    /// A check that takes longer has failed.
    pub(super) timeout: u64,
    /// So many failures in a row are unhealthy.
    pub(super) retries: u32,
    /// Failures so soon after the start do not count.
    pub(super) start_period: u64,
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
    /// What it has printed last.
    Words {
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
    pub(super) words: Vec<String>,
}

/// A container as it stands, for the agent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) name: String,
    /// Grows with every change.
    pub(super) version: u64,
    #[serde(flatten)]
    pub(super) container: ContainerState,
}

/// What a container uses.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(super) struct Stats {
    /// Nanoseconds of CPU.
    pub(super) cpu: u64,
    /// Bytes.
    pub(super) memory: u64,
    /// Bytes.
    pub(super) memory_limit: Option<u64>,
    /// How many there are.
    pub(super) processes: u64,
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
