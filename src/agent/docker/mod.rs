//! The docker runtime: containers by a Docker engine of this machine.
//!
//! ```text
//! agent -> task -> body, mounts, network, images, pause -> api ==unix socket==> dockerd
//!            |---> shared (volumes, limits, holders) -----> api
//!            |---> watcher <- inspect <-------------------- api
//!            |---> lines (what is printed)
//! cli ---------------> orphans (what killed commands have left) -----> api
//! cli ---------------> logs (the same, of a task that a daemon runs) ---> api
//! ```
//! Enters: what a task is to start. Leaves: containers with the names, labels, limits, mounts, networks and log drivers that
//! the ECS agent gives them. They outlive the agent, which finds them again by the label with the task's ARN. Can go wrong:
//! what the engine refuses, with ECS's names and the engine's words.

mod api;
mod body;
mod images;
mod inspect;
mod limits;
mod lines;
mod logs;
mod mounts;
mod network;
mod orphans;
mod pause;
mod ports;
mod shared;
mod task;
mod traffic;
mod watcher;

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::endpoints::Directory;
use super::plan::TaskPlan;
use super::runtime::{Failure, Runtime};
use crate::rt::Tasks;
use api::Api;

pub use lines::Lines;
pub use orphans::Orphan;
pub use task::DockerTask;

/// What the labels of ECS begin with.
const LABELS: &str = "com.amazonaws.ecs.";

/// Runs tasks in containers.
#[derive(Clone, Debug)]
pub struct DockerRuntime {
    api: Api,
    tasks: Tasks,
    lines: Option<Lines>,
    directory: Option<Arc<Directory>>,
    lease: Option<Arc<orphans::Lease>>,
}

impl DockerRuntime {
    /// Where an engine is looked for: `DOCKER_HOST`, else docker's default socket.
    pub fn host() -> String {
        std::env::var("DOCKER_HOST")
            .ok()
            .filter(|h| !h.is_empty())
            .unwrap_or_else(|| api::DEFAULT_HOST.to_owned())
    }

    /// Connects to the engine at `host`: `unix://PATH`.
    ///
    /// # Errors
    /// `DockerClientConfigError`: there is none, it does not answer, or it is on another machine.
    pub async fn connect(host: &str, tasks: &Tasks) -> Result<DockerRuntime, Failure> {
        Ok(DockerRuntime {
            api: Api::connect(host).await?,
            tasks: tasks.clone(),
            lines: None,
            directory: None,
            lease: None,
        })
    }

    /// Shows what containers print whose logs docker keeps.
    #[must_use]
    pub fn with_lines(self, lines: Lines) -> DockerRuntime {
        DockerRuntime { lines: Some(lines), ..self }
    }

    /// Runs tasks for a command that has its files in `dir`: should it be killed, [`DockerRuntime::orphans`] finds its tasks.
    ///
    /// # Errors
    /// The directory cannot be opened or locked.
    pub fn of_command(self, dir: &Path) -> io::Result<DockerRuntime> {
        Ok(DockerRuntime { lease: Some(Arc::new(orphans::Lease::new(dir)?)), ..self })
    }

    /// What commands that were killed have left in the engine.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, Failure> {
        orphans::find(&self.api).await
    }

    /// Lets containers ask the endpoints, at ECS's own address in their networks, from their first instruction on. In bridge
    /// mode each container then joins the network of a holder of its own, which has its ports, links, host name and DNS.
    #[must_use]
    pub fn with_endpoints(self, directory: &Arc<Directory>) -> DockerRuntime {
        DockerRuntime { directory: Some(Arc::clone(directory)), ..self }
    }
}

impl Runtime for DockerRuntime {
    type Task = DockerTask;

    async fn open(&self, plan: &TaskPlan) -> Result<DockerTask, Failure> {
        DockerTask::open(self, plan).await
    }
}
