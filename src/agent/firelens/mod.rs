//! FireLens: the router's configuration, and how the other containers reach it, as the ECS agent does it.
//!
//! Enters: a task definition, and where the task runs. Leaves: the text of the configuration file, docker's log options,
//! what the environment gets. Can go wrong: what makes the ECS agent stop a task; the texts are its own.

mod files;
mod fluentbit;
mod fluentd;
mod options;

use std::collections::BTreeMap;

use super::definition::{Condition, ContainerDefinition, Dependency, NetworkMode, TaskDefinition};

pub use files::{listens, write};
pub use options::{Kind, Options, Source};

/// Where the router listens for who does not log through its socket.
pub const PORT: u16 = 24224;
const LOOPBACK: &str = "127.0.0.1";
/// Where Fluent Bit as a router answers health checks.
const HEALTH_PORT: u16 = 8877;
/// Memory for what waits, in MB, where the container's own is not known.
const MEMORY: u64 = 25;

/// What the configuration says of the task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context {
    /// Name of the cluster.
    pub cluster: String,
    /// The task's ARN.
    pub task_arn: String,
    /// The EC2 instance, where that is known.
    pub instance: Option<String>,
    /// How containers are connected. Host and none have no TCP input.
    pub network: NetworkMode,
}

impl Context {
    /// The address of the TCP input.
    fn listens(&self) -> Option<&'static str> {
        match self.network {
            NetworkMode::Bridge => Some("0.0.0.0"),
            NetworkMode::Awsvpc => Some(LOOPBACK),
            NetworkMode::Host | NetworkMode::None => None,
        }
    }

    /// Records get these fields.
    fn metadata(&self, definition: &TaskDefinition) -> Vec<(&'static str, String)> {
        let mut fields: Vec<_> = self.instance.iter().map(|id| ("ec2_instance_id", id.clone())).collect();
        fields.push(("ecs_cluster", self.cluster.clone()));
        fields.push(("ecs_task_arn", self.task_arn.clone()));
        fields.push(("ecs_task_definition", format!("{}:{}", definition.family, definition.revision)));
        fields
    }
}

/// The task's router.
pub fn router(definition: &TaskDefinition) -> Option<&ContainerDefinition> {
    definition.container_definitions.iter().find(|c| c.firelens_configuration.is_some())
}

/// The container logs through the router.
pub fn logs_through(container: &ContainerDefinition) -> bool {
    container.log_configuration.as_ref().is_some_and(|log| log.log_driver == "awsfirelens")
}

/// The text of the router's configuration file.
///
/// # Errors
/// The ECS agent's words: why the task cannot be started.
pub fn configuration(definition: &TaskDefinition, options: &Options, cx: &Context) -> Result<String, String> {
    match options.kind {
        Kind::Fluentbit => fluentbit::text(definition, options, cx),
        Kind::Fluentd => fluentd::text(definition, options, cx),
    }
}

/// What a container wants of the router.
struct Route {
    /// Tags of its records.
    pattern: String,
    include: Option<String>,
    exclude: Option<String>,
    /// The plugin, and its options in order.
    output: Option<(String, BTreeMap<String, String>)>,
}

/// What every container that logs through the router wants of it, in the order of the definition.
fn routes(definition: &TaskDefinition, kind: Kind) -> Result<Vec<Route>, String> {
    let containers = definition.container_definitions.iter().enumerate();
    containers.filter(|(_, c)| logs_through(c)).map(|(at, c)| route(at, c, kind)).collect()
}

fn route(at: usize, container: &ContainerDefinition, kind: Kind) -> Result<Route, String> {
    let log = container.log_configuration.clone().unwrap_or_default();
    let mut options = log.options;
    let (include, exclude) = (options.remove("include-pattern"), options.remove("exclude-pattern"));
    options.remove("log-driver-buffer-limit");
    for secret in &log.secret_options {
        options.insert(secret.name.clone(), kind.placeholder(&secret_name(&secret.name, at)));
    }
    let output = match options.remove(kind.plugin_key()) {
        Some(plugin) => Some((plugin, options)),
        None if options.is_empty() => None,
        None => {
            return Err(format!(
                "missing output key {} which is required for firelens configuration of type {}",
                kind.plugin_key(),
                kind.name()
            ));
        }
    };
    Ok(Route { pattern: kind.pattern(&container.name), include, exclude, output })
}

/// The variable of the router's environment that holds a secret option of the container at this place.
pub fn secret_name(option: &str, at: usize) -> String {
    format!("{option}_{at}")
}

/// Options of docker's `fluentd` log driver for a container that logs through the router.
pub fn driver_options(container: &ContainerDefinition, task: &str, socket: &str) -> BTreeMap<String, String> {
    let mut options = BTreeMap::from([
        ("tag".to_owned(), format!("{}-firelens-{task}", container.name)),
        ("fluentd-address".to_owned(), format!("unix://{socket}")),
        ("fluentd-async".to_owned(), "true".to_owned()),
        ("fluentd-sub-second-precision".to_owned(), "true".to_owned()),
    ]);
    let log = container.log_configuration.as_ref();
    if let Some(limit) = log.and_then(|log| log.options.get("log-driver-buffer-limit")) {
        options.insert("fluentd-buffer-limit".to_owned(), limit.clone());
    }
    options
}

/// The router starts before those that log through it, unless it depends on somebody itself.
pub fn implicit_dependency(
    definition: &TaskDefinition,
    container: &ContainerDefinition,
) -> Option<Dependency> {
    let router = router(definition)?;
    let known = container.depends_on.iter().any(|d| d.container_name == router.name);
    let needed =
        logs_through(container) && container.name != router.name && !known && router.depends_on.is_empty();
    needed.then(|| Dependency { container_name: router.name.clone(), condition: Condition::Start })
}

/// Half of the router's memory, in MB.
fn memory(definition: &TaskDefinition) -> u64 {
    let router = router(definition);
    let known = |m: Option<u64>| m.filter(|m| *m > 0);
    let memory = router.and_then(|r| known(r.memory_reservation).or(known(r.memory)));
    memory.map(|m| m / 2).filter(|half| *half > 0).unwrap_or(MEMORY)
}

#[cfg(test)]
mod tests;
