//! What the engine asks of whatever runs containers: dockerd, or supervisors of our own.
//!
//! Enters: [`TaskPlan`]s. Leaves: states of containers, as they change. Can go wrong: [`Failure`], by the names that ECS
//! has for it. Calls may be repeated: what is there already is no error, nor is stopping what has stopped.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::plan::{ContainerPlan, TaskPlan};

/// Runs tasks.
pub trait Runtime: Send + Sync + 'static {
    /// One task at work.
    type Task: TaskHandle;

    /// Makes what all containers of a task share: directories, namespaces, a supervisor. Nothing runs yet. A task that is
    /// there already (the agent was killed) is found again, with its containers as they are.
    fn open(&self, plan: &TaskPlan) -> impl Future<Output = Result<Self::Task, Failure>> + Send;
}

/// One task at work. Containers are known by their names in the definition.
pub trait TaskHandle: Send + Sync + 'static {
    /// Makes a container. Gives warnings: what this machine cannot honour.
    fn create(&self, container: &ContainerPlan) -> impl Future<Output = Result<Vec<String>, Failure>> + Send;

    /// Starts it, or starts it again. Gives warnings: what this machine cannot honour.
    fn start(&self, name: &str) -> impl Future<Output = Result<Vec<String>, Failure>> + Send;

    /// SIGTERM (or the image's stop signal), and SIGKILL after `timeout`. Returns when it has stopped.
    fn stop(&self, name: &str, timeout: Duration) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Where other containers reach it, once it runs.
    fn address(&self, name: &str) -> impl Future<Output = Option<IpAddr>> + Send;

    /// Resource use, as docker's `/stats` has it; `None` where there is none.
    fn stats(&self, name: &str) -> impl Future<Output = Option<serde_json::Value>> + Send;

    /// What it has printed last, the oldest line first; nothing where nobody has kept it.
    fn last_words(&self, name: &str) -> impl Future<Output = Vec<String>> + Send;

    /// All containers, as they are and as they change.
    fn states(&self) -> watch::Receiver<States>;

    /// Everything has stopped: takes down what [`Runtime::open`] made, containers too. Logs in files stay.
    fn close(&self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// What is known of a task's containers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct States {
    /// By name.
    pub containers: BTreeMap<String, ContainerState>,
    /// The runtime has lost sight of the task: nothing changes any more.
    pub gone: bool,
}

/// A container as it stands. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct ContainerState {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Its first process.
    pub pid: Option<i32>,
    /// When it was made.
    pub created: Option<i64>,
    /// When it was started last.
    pub started: Option<i64>,
    /// When it ended last.
    pub finished: Option<i64>,
    /// Of the last run.
    pub exit_code: Option<i32>,
    /// It was killed because it used up its memory.
    pub oom: bool,
    /// Why it could not be started.
    pub error: Option<String>,
    /// What its health check says.
    pub health: Option<Health>,
    /// How often it was started.
    pub starts: u32,
    /// When the pull of its image began and ended, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled: Option<(i64, i64)>,
    /// What came of image, networks, ports and volumes, where the runtime knows more than the plan says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made: Option<Box<Made>>,
}

/// What a runtime has made of a container's plan, for the metadata endpoint.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Made {
    /// `sha256:...`
    pub image_id: String,
    /// As the container sees them.
    pub networks: Vec<Network>,
    /// Ports that can be reached from outside.
    pub ports: Vec<Port>,
    /// Files and directories from outside: docker's name of it, where it is, where the container sees it.
    pub volumes: Vec<(String, String, String)>,
}

/// A network that a container is in. What is empty is not known, or there is none.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Network {
    /// `bridge`, `host`, `awsvpc`, or the name of docker's network.
    pub mode: String,
    /// Its addresses.
    pub ipv4: Vec<String>,
    /// Its addresses.
    pub ipv6: Vec<String>,
    /// Of its interface; awsvpc only, as is what follows.
    pub mac: String,
    /// `172.31.0.0/20`
    pub ipv4_subnet: String,
    /// The way out.
    pub gateway: String,
    /// Who is asked for names.
    pub name_servers: Vec<String>,
    /// Where names without dots are looked for.
    pub search: Vec<String>,
    /// Its own name.
    pub private_dns_name: String,
}

/// A port that is published.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Port {
    /// Inside.
    pub container: u16,
    /// UDP instead of TCP.
    pub udp: bool,
    /// Outside.
    pub host: u16,
    /// The address outside, `0.0.0.0`.
    pub host_ip: String,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    #[default]
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Exited,
}

/// What a health check says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Milliseconds since 1970.
    pub since: i64,
    /// Of the last check, where it failed.
    pub exit_code: Option<i32>,
    /// Of the last check, at most 1024 bytes.
    pub output: String,
}

/// The verdict of a health check.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Unknown,
    /// The last check passed.
    Healthy,
    /// As many in a row failed as it may.
    Unhealthy,
}

/// Why something could not be done, in ECS's terms: `CannotStartContainerError: ...`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{name}: {text}")]
pub struct Failure {
    /// `CannotPullContainerError`, ...
    pub name: String,
    /// What and where.
    pub text: String,
}

impl Failure {
    /// By ECS's name for it.
    pub fn new(name: &str, text: impl Into<String>) -> Failure {
        Failure { name: name.to_owned(), text: text.into() }
    }
}
