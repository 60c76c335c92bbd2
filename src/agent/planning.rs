//! From a task definition to what a runtime is to start: what the ECS backend and the ECS agent decide.
//!
//! Enters: a checked definition, and the choices of whoever runs it. Leaves: a [`TaskPlan`], the router's configuration
//! file, warnings. Can go wrong: a secret without a value, a container without a program, FireLens rules; each is an error
//! by ECS's name for it.

mod router;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::definition::{
    Condition, ContainerDefinition, Dependency, LaunchType, NetworkMode, TaskDefinition, Ulimit, Volume,
    VolumeKind,
};
use super::drivers::random_id;
use super::endpoints::{self, Base};
use super::firelens::{self, Context, Source};
use super::plan::{ContainerPlan, RolePlan, TaskPlan};
use super::runtime::Failure;
use super::secrets::{EXTERNAL, Fetched};

/// A unix socket's path has at most so many bytes.
const SOCKET_MAX: usize = 107;
/// What ECS gives to a log driver that does not block, since June 2025.
const BUFFER: &str = "10m";

/// What whoever runs a task decides. `Debug` prints no values: secrets are among them.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Choices {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Of the ARNs, and where logs go unless their options say so.
    pub region: String,
    /// Twelve digits, for the ARNs.
    pub account: String,
    /// Tags of the task: `--tag`.
    pub tags: BTreeMap<String, String>,
    /// Where the agent keeps what belongs to tasks.
    pub data: PathBuf,
    /// More environment for every container: `--env`.
    pub environment: Vec<(String, String)>,
    /// Programs in place of images': `--exec`.
    pub exec: BTreeMap<String, Vec<String>>,
    /// Other images: `--image`, `--router-image`.
    pub images: BTreeMap<String, String>,
    /// Paths in place of volumes that are elsewhere: `--volume`.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Files and directories of this machine in place of what images have: by container, where it sees them, and what is
    /// there: `--mount`.
    pub mounts: BTreeMap<String, Vec<(String, PathBuf)>>,
    /// Values of secrets, by the name that the definition gives them or by where they are: `--secret`.
    pub secrets: BTreeMap<String, String>,
    /// Those of them that were given for this task: `--secret`. A file of secrets may be for other tasks, too.
    pub meant_secrets: BTreeSet<String>,
    /// What AWS has given.
    pub fetched: Fetched,
    /// Logs block unless their options say otherwise: `--default-log-mode blocking`.
    pub blocking: bool,
    /// Where containers that share the machine's network find the metadata and credentials endpoints.
    pub endpoints: Option<Base>,
    /// The runtime serves them at ECS's own address in the network namespaces of the others.
    pub namespaces: bool,
    /// A role in place of the definition's: `--task-role`; empty: none.
    pub task_role: Option<String>,
    /// Containers get the agent's own credentials where they would get the role's: `--task-role own`.
    pub own_credentials: bool,
    /// Where STS is; `None`: the region's.
    pub sts: Option<String>,
    /// Where `awslogs` writes to unless its options say so; `None`: the region's CloudWatch Logs.
    pub logs: Option<String>,
    /// Containers are processes of this machine: they have no images, and no addresses of their own.
    pub process: bool,
}

/// What is to be done.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Planned {
    /// For the runtime.
    pub plan: TaskPlan,
    /// The router's configuration.
    pub configuration: Option<String>,
    /// The part of it that came from S3.
    pub external: Option<String>,
    /// What is not as on ECS, for a person.
    pub warnings: Vec<String>,
}

impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choices")
            .field("id", &self.id)
            .field("cluster", &self.cluster)
            .field("data", &self.data)
            .field("environment", &super::plan::names(&self.environment))
            .field("fetched", &self.fetched)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Choices {
    fn arn(&self, what: &str, rest: &str) -> String {
        format!("arn:aws:ecs:{}:{}:{what}/{}/{rest}", self.region, self.account, self.cluster)
    }

    /// The value of a secret that is given by hand.
    pub(super) fn given(&self, name: &str, value_from: &str) -> Option<&String> {
        self.secrets.get(name).or_else(|| self.secrets.get(value_from))
    }

    /// Where containers of a task find the endpoints.
    fn base(&self, mode: NetworkMode) -> Option<Base> {
        match (self.process, mode) {
            (true, _) | (false, NetworkMode::Host) => self.endpoints.clone(),
            (false, NetworkMode::Bridge | NetworkMode::Awsvpc) => self.namespaces.then(Base::link_local),
            (false, NetworkMode::None) => None,
        }
    }

    fn secret(&self, name: &str, value_from: &str, whose: &str) -> Result<String, Failure> {
        let found = self.given(name, value_from).or_else(|| self.fetched.secrets.get(value_from));
        found.cloned().ok_or_else(|| {
            let text = format!(
                "unable to pull secrets or registry auth: {whose} wants secret {name} from {value_from}; \
                 give it with --secret {name}=VALUE"
            );
            Failure::new("ResourceInitializationError", text)
        })
    }

    /// Where FireLens's files of a task are.
    pub fn firelens_dir(&self) -> PathBuf {
        self.data.join("firelens").join(&self.id)
    }
}

/// Decides everything.
///
/// # Errors
/// ECS's names: `ResourceInitializationError`, `CannotCreateContainerError`, ...
pub fn plan(definition: &TaskDefinition, choices: &Choices) -> Result<Planned, Failure> {
    let mut planned = Planned::default();
    let router = firelens::router(definition);
    let options = router.and_then(|r| r.firelens_configuration.as_ref()).map(firelens::Options::read);
    let refused = |text: String| Failure::new("ResourceInitializationError", text);
    let options = options.transpose().map_err(refused)?;
    let arn = choices.arn("task", &choices.id);
    if let Some(options) = &options {
        let cx = Context {
            cluster: choices.cluster.clone(),
            task_arn: arn.clone(),
            instance: None,
            network: definition.network_mode,
        };
        planned.configuration = Some(firelens::configuration(definition, options, &cx).map_err(refused)?);
        if let Some(Source::S3(object)) = &options.source {
            let external = choices.fetched.external.clone();
            let missing = || refused(format!("{EXTERNAL}: {object} was not asked for"));
            planned.external = Some(external.ok_or_else(missing)?);
        }
    }
    let volumes = volumes(definition, choices)?;
    if choices.process {
        planned.warnings.extend(no_effect(definition, &volumes));
    }
    planned.warnings.extend(router::warnings(definition, options.as_ref(), choices));
    let plan = &mut planned.plan;
    plan.id.clone_from(&choices.id);
    plan.arn = arn;
    plan.cluster.clone_from(&choices.cluster);
    plan.family.clone_from(&definition.family);
    plan.revision = definition.revision;
    plan.launch_type = definition.launch_type;
    plan.tags.clone_from(&choices.tags);
    plan.network_mode = definition.network_mode;
    let role = choices.task_role.as_ref().or(definition.task_role_arn.as_ref());
    let base = choices.base(definition.network_mode);
    plan.role = role.filter(|role| !role.is_empty() && base.is_some()).map(|role| RolePlan {
        arn: endpoints::role_arn(role, &choices.account, &choices.region),
        credentials_id: uuid(),
        region: choices.region.clone(),
        sts: choices.sts.clone(),
        own: choices.own_credentials,
    });
    let role = plan.role.clone();
    if base.is_none() && choices.endpoints.is_some() {
        planned.warnings.push(format!(
            "containers in networkMode {} find no task metadata and no credentials of a task role here",
            definition.network_mode.name()
        ));
    }
    let plan = &mut planned.plan;
    plan.pid_mode.clone_from(&definition.pid_mode);
    plan.ipc_mode.clone_from(&definition.ipc_mode);
    (plan.memory, plan.cpu) = (definition.memory, definition.cpu);
    plan.dir = choices.data.join(&choices.id);
    plan.firelens = router.map(|r| r.name.clone());
    plan.volumes = volumes;
    for container in &definition.container_definitions {
        let mut made =
            self::container(definition, container, options.as_ref(), choices, &mut planned.warnings)?;
        if let Some(base) = &base {
            made.endpoint_id = uuid();
            let asks = base.variables(&made.endpoint_id, role.as_ref().map(|r| r.credentials_id.as_str()));
            // As on ECS they win over the definition's own, but not over what whoever runs the task says.
            set(&mut made.environment, asks);
        }
        set(&mut made.environment, choices.environment.iter().cloned());
        planned.plan.containers.push(made);
    }
    Ok(planned)
}

/// What the task as a whole asks for and processes do not have; what a container asks for the runtime says itself.
fn no_effect(definition: &TaskDefinition, volumes: &[Volume]) -> Vec<String> {
    let none = (definition.network_mode == NetworkMode::None).then_some("none");
    let modes = [
        ("networkMode", none, "containers have the machine's network"),
        ("pidMode", definition.pid_mode.as_deref(), "every container sees the machine's processes"),
        (
            "ipcMode",
            definition.ipc_mode.as_deref(),
            "containers share the machine's memory segments and queues",
        ),
    ];
    let said = |field: &str, value: &str, why: &str| {
        format!("{field} {value} has no effect in the process runtime: {why}")
    };
    let mut all: Vec<String> =
        modes.iter().filter_map(|(field, value, why)| value.map(|value| said(field, value, why))).collect();
    for volume in volumes {
        let VolumeKind::Docker { driver, driver_opts, labels, .. } = &volume.kind else { continue };
        let keys = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>().join(", ");
        let driver = driver.as_deref().filter(|driver| !matches!(*driver, "" | "local"));
        let why = format!("it is a directory; give another in its place with --volume {}=PATH", volume.name);
        let fields = [
            ("driver", driver.map(str::to_owned), why.as_str()),
            ("driverOpts", Some(keys(driver_opts)), &why),
            ("labels", Some(keys(labels)), "it is a directory"),
        ];
        for (field, value, why) in fields {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let field = format!("dockerVolumeConfiguration.{field}");
                all.push(format!("volume {}: {}", volume.name, said(&field, &value, why)));
            }
        }
    }
    all
}

fn volumes(definition: &TaskDefinition, choices: &Choices) -> Result<Vec<Volume>, Failure> {
    let mut volumes = definition.volumes.clone();
    for volume in &mut volumes {
        match (choices.volumes.get(&volume.name), &volume.kind) {
            (Some(path), _) => volume.kind = VolumeKind::Host(path.display().to_string()),
            (None, VolumeKind::Elsewhere(what)) => {
                let text = format!(
                    "volume {} is {what}, which is not on this machine; give a path in its place with --volume {}=PATH",
                    volume.name, volume.name
                );
                return Err(Failure::new("InvalidVolumeError", text));
            }
            _ => {}
        }
    }
    Ok(volumes)
}

fn container(
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    options: Option<&firelens::Options>,
    choices: &Choices,
    warnings: &mut Vec<String>,
) -> Result<ContainerPlan, Failure> {
    let name = &container.name;
    let mut plan = ContainerPlan { definition: container.clone(), ..ContainerPlan::default() };
    if let Some(image) = choices.images.get(name) {
        plan.definition.image.clone_from(image);
    }
    let files = Ulimit::fargate_files();
    if definition.launch_type == LaunchType::Fargate
        && !container.ulimits.iter().any(|limit| limit.name == files.name)
    {
        plan.definition.ulimits.push(files);
    }
    plan.arn = choices.arn("container", &format!("{}/{}", choices.id, uuid()));
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    plan.docker_name = format!("ecs-{}-{}-{plain}-{}", definition.family, definition.revision, hex(10));
    plan.labels = labels(definition, container, choices);
    plan.exec = choices.exec.get(name).cloned();
    plan.registry = choices.fetched.registry.get(name).cloned();
    if choices.process && container.repository_credentials.is_some() {
        let text = "repositoryCredentials has no effect in the process runtime: no image is pulled";
        warnings.push(format!("container {name}: {text}"));
    }
    plan.depends_on = dependencies(definition, container);
    plan.environment = environment(definition, container, choices)?;
    let is_router = container.firelens_configuration.is_some();
    if let Some(options) = options.filter(|_| is_router) {
        let dir = choices.firelens_dir();
        plan.binds.push((dir.join("config/fluent.conf"), options.kind.config_path().to_owned(), false));
        plan.binds.push((dir.join("socket"), "/var/run".to_owned(), false));
        if matches!(options.source, Some(Source::S3(_))) {
            let target = options.kind.external_path().to_owned();
            plan.binds.push((dir.join("config/external.conf"), target, false));
        }
    }
    let mounts = choices.mounts.get(name).into_iter().flatten();
    plan.binds.extend(mounts.map(|(target, source)| (source.clone(), target.clone(), false)));
    let has_program = container.entry_point.iter().chain(&container.command).any(|words| !words.is_empty());
    if choices.process && !is_router && plan.exec.is_none() && !has_program {
        let text = format!(
            "container {name} has neither entryPoint nor command, and without Docker there is no image to ask; \
             say what to run with --exec {name}=COMMAND"
        );
        return Err(Failure::new("CannotCreateContainerError", text));
    }
    (plan.log_driver, plan.log_options) = log(container, choices)?;
    plan.wants_router_address = firelens::logs_through(container)
        && match definition.network_mode {
            NetworkMode::Bridge => true,
            NetworkMode::Awsvpc => choices.process,
            NetworkMode::Host | NetworkMode::None => false,
        };
    Ok(plan)
}

fn labels(
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    choices: &Choices,
) -> BTreeMap<String, String> {
    let mut labels = container.docker_labels.clone();
    let ours = [
        ("task-arn", choices.arn("task", &choices.id)),
        ("container-name", container.name.clone()),
        ("task-definition-family", definition.family.clone()),
        ("task-definition-version", definition.revision.to_string()),
        ("cluster", choices.cluster.clone()),
    ];
    labels.extend(ours.map(|(key, value)| (format!("com.amazonaws.ecs.{key}"), value)));
    labels
}

/// The definition's own, and those that ECS adds.
fn dependencies(definition: &TaskDefinition, container: &ContainerDefinition) -> Vec<Dependency> {
    let mut all = container.depends_on.clone();
    let mut add = |name: &str| {
        if !all.iter().any(|d| d.container_name == name) {
            all.push(Dependency { container_name: name.to_owned(), condition: Condition::Start });
        }
    };
    for link in &container.links {
        add(link.split(':').next().unwrap_or(link));
    }
    for from in &container.volumes_from {
        add(&from.source_container);
    }
    if let Some(router) = firelens::implicit_dependency(definition, container) {
        add(&router.container_name);
    }
    all
}

fn environment(
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    choices: &Choices,
) -> Result<Vec<(String, String)>, Failure> {
    let name = &container.name;
    // What stands below wins over environment files, also what ECS adds by itself.
    let mut all = choices.fetched.environment.get(name).cloned().unwrap_or_default();
    let launched = match definition.launch_type {
        LaunchType::Fargate => "AWS_ECS_FARGATE",
        _ => "AWS_ECS_EC2",
    };
    all.insert("AWS_EXECUTION_ENV".to_owned(), launched.to_owned());
    if definition.launch_type == LaunchType::Fargate && !choices.region.is_empty() {
        // Where the definition sets them, in a file or below, they stay.
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            all.entry(name.to_owned()).or_insert_with(|| choices.region.clone());
        }
    }
    all.extend(container.environment.iter().cloned());
    for secret in &container.secrets {
        let value = choices.secret(&secret.name, &secret.value_from, &format!("container {name}"))?;
        all.insert(secret.name.clone(), value);
    }
    if let Some(config) = &container.firelens_configuration {
        all.extend(router::variables(definition, container, choices));
        for (at, other) in definition.container_definitions.iter().enumerate() {
            let log = other.log_configuration.as_ref().filter(|_| firelens::logs_through(other));
            for secret in log.iter().flat_map(|log| &log.secret_options) {
                let whose = format!("the log configuration of container {}", other.name);
                let value = choices.secret(&secret.name, &secret.value_from, &whose)?;
                all.insert(firelens::secret_name(&secret.name, at), value);
            }
        }
        if config.r#type == "fluentd" {
            all.insert("FLUENT_UID".to_owned(), "0".to_owned());
        }
    }
    // Elsewhere the address is known once the router runs.
    if firelens::logs_through(container) && definition.network_mode == NetworkMode::Awsvpc && !choices.process
    {
        all.insert("FLUENT_HOST".to_owned(), "127.0.0.1".to_owned());
        all.insert("FLUENT_PORT".to_owned(), firelens::PORT.to_string());
    }
    Ok(all.into_iter().collect())
}

/// Sets variables, in place of those of the same names.
fn set(environment: &mut Vec<(String, String)>, more: impl IntoIterator<Item = (String, String)>) {
    let mut all: BTreeMap<String, String> = std::mem::take(environment).into_iter().collect();
    all.extend(more);
    environment.extend(all);
}

/// Docker's driver for the container's log configuration, and its options.
fn log(
    container: &ContainerDefinition,
    choices: &Choices,
) -> Result<(String, BTreeMap<String, String>), Failure> {
    let Some(log) = &container.log_configuration else {
        return Ok(("json-file".to_owned(), BTreeMap::new()));
    };
    if firelens::logs_through(container) {
        let socket = choices.firelens_dir().join("socket/fluent.sock");
        let options = firelens::driver_options(container, &choices.id, &path(&socket)?);
        return Ok(("fluentd".to_owned(), options));
    }
    let mut options = log.options.clone();
    for secret in &log.secret_options {
        let whose = format!("the log configuration of container {}", container.name);
        let value = choices.secret(&secret.name, &secret.value_from, &whose)?;
        options.insert(secret.name.clone(), value);
    }
    if log.log_driver == "awslogs" {
        if let Some(prefix) = options.remove("awslogs-stream-prefix") {
            let stream = format!("{prefix}/{}/{}", container.name, choices.id);
            options.entry("awslogs-stream".to_owned()).or_insert(stream);
        }
        options.entry("awslogs-region".to_owned()).or_insert_with(|| choices.region.clone());
        if let Some(endpoint) = &choices.logs {
            options.entry("awslogs-endpoint".to_owned()).or_insert_with(|| endpoint.clone());
        }
        if !options.contains_key("mode") && !choices.blocking {
            options.insert("mode".to_owned(), "non-blocking".to_owned());
        }
        if options.get("mode").is_some_and(|mode| mode == "non-blocking") {
            options.entry("max-buffer-size".to_owned()).or_insert_with(|| BUFFER.to_owned());
        }
    }
    Ok((log.log_driver.clone(), options))
}

/// A socket's path, if it is short enough.
fn path(socket: &Path) -> Result<String, Failure> {
    let text = socket.display().to_string();
    if text.len() <= SOCKET_MAX {
        return Ok(text);
    }
    let text = format!(
        "the router's socket {text} has {} bytes, and a socket's path at most {SOCKET_MAX}; \
         choose a directory (--dir, --state of the agent) whose path is {} shorter",
        text.len(),
        text.len() - SOCKET_MAX
    );
    Err(Failure::new("ResourceInitializationError", text))
}

/// So many hexadecimal digits of chance, at most 64.
pub fn hex(digits: usize) -> String {
    let mut all = random_id();
    all.truncate(digits);
    all
}

fn uuid() -> String {
    let digits = hex(32);
    let part = |range| digits.get(range).unwrap_or_default();
    format!("{}-{}-4{}-a{}-{}", part(0..8), part(8..12), part(13..16), part(17..20), part(20..32))
}

#[cfg(test)]
mod tests;
