//! Task definitions: JSON -> checked structs.
//!
//! Enters: what RegisterTaskDefinition takes, or DescribeTaskDefinition prints. Leaves: a [`TaskDefinition`] with its
//! defaults, and warnings for what one machine cannot honour. Can go wrong: everything that ECS refuses; all of it is said
//! at once, each with its path in the JSON.

mod check;
mod container;
mod doubles;
mod extras;
mod json;
mod logs;
mod model;
mod read;
#[cfg(test)]
mod tests;
mod volumes;

pub use extras::{TAGS_MAX, tag_problems};
pub use json::Problem;
pub use model::{
    Condition, ContainerDefinition, Dependency, FirelensConfiguration, HealthCheck, LaunchType,
    LinuxParameters, LogConfiguration, MountPoint, NetworkMode, PortMapping, RestartPolicy, Secret,
    TaskDefinition, Ulimit, Volume, VolumeFrom, VolumeKind,
};
pub use read::{Checked, Reading, read, read_all};
