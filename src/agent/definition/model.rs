//! A task definition as ECS has it: plain structs, with AWS's names in snake case.
//!
//! Enters and leaves: values; reading and checking are beside this. They are also written as JSON with AWS's names, where
//! the agent keeps what it runs. Sizes are MiB and times seconds, as in the API, unless a comment says otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A task definition, checked, defaults filled in.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskDefinition {
    /// At most 255 of `A-Za-z0-9_-`.
    pub family: String,
    /// From what DescribeTaskDefinition prints; else 1.
    pub revision: u32,
    /// How containers are connected.
    pub network_mode: NetworkMode,
    /// Whether the file says so: Fargate asks for it, elsewhere bridge is the default.
    pub launch_type: LaunchType,
    /// CPU units of the whole task, 1024 for one vCPU.
    pub cpu: Option<u64>,
    /// MiB of the whole task.
    pub memory: Option<u64>,
    /// Name or ARN of the role that containers take on.
    pub task_role_arn: Option<String>,
    /// Name or ARN of the role that the agent takes on for secrets, files and logs.
    pub execution_role_arn: Option<String>,
    /// What containers mount by name.
    pub volumes: Vec<Volume>,
    /// `host`, `task`
    pub pid_mode: Option<String>,
    /// `host`, `task`, `none`
    pub ipc_mode: Option<String>,
    /// In the order of the file, 1 to 10.
    pub container_definitions: Vec<ContainerDefinition>,
}

/// `networkMode`
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Every container its own address.
    #[default]
    Bridge,
    /// All containers share one network namespace.
    Awsvpc,
    /// The machine's own network.
    Host,
    /// No network.
    None,
}

impl NetworkMode {
    /// As ECS writes it.
    pub fn name(self) -> &'static str {
        match self {
            NetworkMode::Bridge => "bridge",
            NetworkMode::Awsvpc => "awsvpc",
            NetworkMode::Host => "host",
            NetworkMode::None => "none",
        }
    }
}

/// For which kind of machine a definition is checked: Fargate where `requiresCompatibilities` has it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LaunchType {
    /// A machine with an agent.
    #[default]
    Ec2,
    /// AWS's own.
    Fargate,
    /// A machine elsewhere (ECS Anywhere).
    External,
}

impl LaunchType {
    /// As ECS writes it.
    pub fn name(self) -> &'static str {
        match self {
            LaunchType::Ec2 => "EC2",
            LaunchType::Fargate => "FARGATE",
            LaunchType::External => "EXTERNAL",
        }
    }
}

/// A container of a task.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerDefinition {
    /// At most 255 of `A-Za-z0-9_-`, unique in the task.
    pub name: String,
    /// Passed to the runtime as it is.
    pub image: String,
    /// CPU units; shares where there is competition.
    pub cpu: u64,
    /// Hard limit.
    pub memory: Option<u64>,
    /// Soft limit.
    pub memory_reservation: Option<u64>,
    /// Its end is the task's. True unless the file says otherwise.
    pub essential: bool,
    /// Replaces the image's.
    pub entry_point: Option<Vec<String>>,
    /// Replaces the image's.
    pub command: Option<Vec<String>>,
    /// Name and value; wins over [`ContainerDefinition::environment_files`].
    pub environment: Vec<(String, String)>,
    /// ARNs of S3 objects; the earlier one wins.
    pub environment_files: Vec<String>,
    /// Environment from Secrets Manager or SSM.
    pub secrets: Vec<Secret>,
    /// ARN or name of a secret of Secrets Manager: who may pull the image.
    pub repository_credentials: Option<String>,
    /// Ports that are published.
    pub port_mappings: Vec<PortMapping>,
    /// Volumes.
    pub mount_points: Vec<MountPoint>,
    /// All volumes of another container.
    pub volumes_from: Vec<VolumeFrom>,
    /// `name[:alias]`, bridge only.
    pub links: Vec<String>,
    /// Kernel things.
    pub linux_parameters: LinuxParameters,
    /// What must be before it starts.
    pub depends_on: Vec<Dependency>,
    /// How long those that depend on it wait for it.
    pub start_timeout: Option<u64>,
    /// From SIGTERM to SIGKILL; 30 unless set.
    pub stop_timeout: Option<u64>,
    /// How it is asked whether it is well.
    pub health_check: Option<HealthCheck>,
    /// Limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// `user`, `user:group`, by name or number.
    pub user: Option<String>,
    /// Where its program starts.
    pub working_directory: Option<String>,
    /// Its name for itself.
    pub hostname: Option<String>,
    /// Nothing but volumes can be written.
    pub readonly_root_filesystem: bool,
    /// All capabilities.
    pub privileged: bool,
    /// No network.
    pub disable_networking: bool,
    /// Standard input stays open.
    pub interactive: bool,
    /// A terminal.
    pub pseudo_terminal: bool,
    /// Labels of the container.
    pub docker_labels: BTreeMap<String, String>,
    /// Name servers.
    pub dns_servers: Vec<String>,
    /// Where names without dots are looked for.
    pub dns_search_domains: Vec<String>,
    /// Host name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// `no-new-privileges`, ...
    pub docker_security_options: Vec<String>,
    /// Sysctl and value.
    pub system_controls: Vec<(String, String)>,
    /// Whether it starts again by itself.
    pub restart_policy: Option<RestartPolicy>,
    /// Where its output goes; `None`: docker's default, a file.
    pub log_configuration: Option<LogConfiguration>,
    /// It is the task's log router.
    pub firelens_configuration: Option<FirelensConfiguration>,
}

/// `name` and `valueFrom`: an ARN of Secrets Manager or SSM, or the name of an SSM parameter.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// Of the variable, or of the log option.
    pub name: String,
    /// Where the value is.
    pub value_from: String,
}

/// `portMappings[]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    /// First and last port inside; equal unless it is a range.
    pub container_port: (u16, u16),
    /// Outside; `None` or 0: any.
    pub host_port: Option<u16>,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// `mountPoints[]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MountPoint {
    /// A volume of the task.
    pub source_volume: String,
    /// Where the container sees it.
    pub container_path: String,
    /// It cannot write there.
    pub read_only: bool,
}

/// `volumesFrom[]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeFrom {
    /// Another container of the task.
    pub source_container: String,
    /// It cannot write there.
    pub read_only: bool,
}

/// `linuxParameters`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LinuxParameters {
    /// Capabilities beyond docker's default.
    pub add: Vec<String>,
    /// Capabilities of docker's default that are taken away.
    pub drop: Vec<String>,
    /// Host path, container path, and of `rwm` what is allowed.
    pub devices: Vec<(String, String, String)>,
    /// A small init reaps what it leaves.
    pub init_process_enabled: bool,
    /// MiB of swap.
    pub max_swap: Option<u64>,
    /// 0 to 100.
    pub swappiness: Option<u64>,
    /// MiB of /dev/shm.
    pub shared_memory_size: Option<u64>,
    /// Path, MiB, mount options.
    pub tmpfs: Vec<(String, u64, Vec<String>)>,
}

/// `dependsOn[]`
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Another container of the task.
    pub container_name: String,
    /// What it must have come to.
    pub condition: Condition,
}

/// `dependsOn[].condition`
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Condition {
    /// It runs, or has run.
    Start,
    /// It has ended.
    Complete,
    /// It has ended with 0.
    Success,
    /// Its health check passes.
    Healthy,
}

/// `healthCheck`; times in seconds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthCheck {
    /// Begins with `CMD` or `CMD-SHELL`.
    pub command: Vec<String>,
    /// 5 to 300, 30 unless set.
    pub interval: u64,
    /// 2 to 60, 5 unless set.
    pub timeout: u64,
    /// 1 to 10, 3 unless set.
    pub retries: u64,
    /// 0 to 300, 0 unless set.
    pub start_period: u64,
}

/// `ulimits[]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ulimit {
    /// `nofile`, ...
    pub name: String,
    /// -1: none.
    pub soft_limit: i64,
    /// -1: none.
    pub hard_limit: i64,
}

impl Ulimit {
    /// Files that a container on Fargate may have open, where its definition says nothing.
    pub fn fargate_files() -> Ulimit {
        Ulimit { name: "nofile".to_owned(), soft_limit: 65_535, hard_limit: 65_535 }
    }
}

/// `restartPolicy`, where it is enabled.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestartPolicy {
    /// Codes after which it stays stopped.
    pub ignored_exit_codes: Vec<i64>,
    /// Seconds that it must have run; 60 to 1800, 300 unless set.
    pub restart_attempt_period: u64,
}

/// `logConfiguration`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogConfiguration {
    /// `awslogs`, `awsfirelens`, `json-file`, ...
    pub log_driver: String,
    /// As written.
    pub options: BTreeMap<String, String>,
    /// Options whose values are secrets.
    pub secret_options: Vec<Secret>,
}

/// `firelensConfiguration`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FirelensConfiguration {
    /// `fluentbit` or `fluentd`
    pub r#type: String,
    /// As written.
    pub options: BTreeMap<String, String>,
}

/// `volumes[]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// What mount points call it.
    pub name: String,
    /// What it is.
    pub kind: VolumeKind,
}

/// What a volume is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeKind {
    /// Empty, for as long as the task lives.
    #[default]
    Task,
    /// A path of this machine.
    Host(String),
    /// A volume of docker's: scope `task` or `shared`, driver, its options, labels; whether it is made when it is missing.
    Docker {
        /// It outlives the task.
        shared: bool,
        /// It is made when it is missing.
        autoprovision: bool,
        /// `local` unless set.
        driver: Option<String>,
        /// Of the driver.
        driver_opts: BTreeMap<String, String>,
        /// Of the volume.
        labels: BTreeMap<String, String>,
    },
    /// Not on this machine (EFS, FSx, EBS): what it is called, for the message. `--volume NAME=PATH` stands in for it.
    Elsewhere(String),
}
