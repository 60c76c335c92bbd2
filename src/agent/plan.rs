//! What a runtime is to start: a task with everything decided.
//!
//! Enters: a task definition, and who runs it where. Leaves: plain structs, complete and serialisable: a runtime looks
//! nothing up. Can go wrong: nothing here; what cannot be decided is refused before a plan is made.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::definition::{ContainerDefinition, Dependency, LaunchType, NetworkMode, Volume};

/// A task.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct TaskPlan {
    /// 32 hexadecimal digits.
    pub id: String,
    /// `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`
    pub arn: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Of the definition.
    pub family: String,
    /// Of the definition.
    pub revision: u32,
    /// For which kind of machine it was written.
    pub launch_type: LaunchType,
    /// Of the task, from whoever runs it.
    pub tags: BTreeMap<String, String>,
    /// How containers are connected.
    pub network_mode: NetworkMode,
    /// Whose processes its containers see: `host`, `task`; else each its own.
    pub pid_mode: Option<String>,
    /// Whose memory segments its containers see: `host`, `task`, `none`.
    pub ipc_mode: Option<String>,
    /// MiB of all containers together.
    pub memory: Option<u64>,
    /// CPU units of all containers together.
    pub cpu: Option<u64>,
    /// The task's own directory: state, FireLens's files, logs.
    pub dir: PathBuf,
    /// Volumes; those from elsewhere have been replaced.
    pub volumes: Vec<Volume>,
    /// The router's name.
    pub firelens: Option<String>,
    /// The role that its containers take on.
    pub role: Option<RolePlan>,
    /// In the order of the definition.
    pub containers: Vec<ContainerPlan>,
}

/// The role of a task.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct RolePlan {
    /// `arn:aws:iam::ACCOUNT:role/NAME`
    pub arn: String,
    /// Whoever knows it gets the role's credentials: the task's own containers.
    pub credentials_id: String,
    /// Where it is taken on.
    pub region: String,
    /// Where STS is; `None`: the region's.
    pub sts: Option<String>,
    /// The agent's own credentials are handed out in place of the role's.
    pub own: bool,
}

/// A container. `Debug` prints what it is called and the names of its variables: values are secrets.
#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct ContainerPlan {
    /// As the definition has it; what stands below replaces what it says.
    pub definition: ContainerDefinition,
    /// `arn:...:container/CLUSTER/TASK/UUID`
    pub arn: String,
    /// By which the metadata endpoint knows it: a UUID that nobody can guess.
    pub endpoint_id: String,
    /// `ecs-FAMILY-REVISION-NAME-HEX`
    pub docker_name: String,
    /// `com.amazonaws.ecs.*` and the definition's own.
    pub labels: BTreeMap<String, String>,
    /// All of its environment, values in place of secrets.
    pub environment: Vec<(String, String)>,
    /// Dependencies, those that ECS adds by itself, too.
    pub depends_on: Vec<Dependency>,
    /// Files and directories of this machine that it sees: source, target, read only.
    pub binds: Vec<(PathBuf, String, bool)>,
    /// Docker's log driver: `fluentd`, `awslogs`, `json-file`, `none`, ...
    pub log_driver: String,
    /// The driver's options.
    pub log_options: BTreeMap<String, String>,
    /// Variables whose value is the address of the router, once that is known: `FLUENT_HOST`.
    pub wants_router_address: bool,
    /// Who may pull its image, from `repositoryCredentials`.
    pub registry: Option<Registry>,
    /// What runs in place of the image's program where there are no images: `--exec NAME=COMMAND`.
    pub exec: Option<Vec<String>>,
}

impl fmt::Debug for ContainerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerPlan")
            .field("name", &self.definition.name)
            .field("docker_name", &self.docker_name)
            .field("environment", &names(&self.environment))
            .finish_non_exhaustive()
    }
}

/// What `Debug` shows of variables.
pub(super) fn names(variables: &[(String, String)]) -> Vec<&str> {
    variables.iter().map(|(name, _)| name.as_str()).collect()
}

/// A user of a registry of images.
#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Registry {
    /// The user.
    pub username: String,
    /// Does not show in what `Debug` prints.
    pub password: String,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_of_a_plan_has_no_values() {
        let variables = vec![("TOKEN".to_owned(), "hush".to_owned())];
        let mut container = ContainerPlan { environment: variables.clone(), ..ContainerPlan::default() };
        container.definition.environment = variables;
        container.log_options.insert("splunk-token".to_owned(), "hush".to_owned());
        let plan = TaskPlan { containers: vec![container], ..TaskPlan::default() };
        let text = format!("{plan:?}");
        assert!(text.contains("TOKEN") && !text.contains("hush"), "{text}");
    }
}
