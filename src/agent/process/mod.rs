//! The process runtime: containers as supervised process groups, where no Docker engine answers.
//!
//! ```text
//! agent -> client ==unix socket==> supervisor -> container -> launch -> stage (exec-stage) -> the program
//!                                      |             |-> health        |-> rootfs, users
//!                                      |-> reap      |-> cgroup, processes
//!                                      |-> tether    |-> drivers
//! ```
//! Before them: `convert` (a plan becomes a spec), `router` and `addresses` (listeners on a loopback address of the task).
//!
//! Enters: what a task is to start. Leaves: processes with docker's environment, user, limits, mounts, log drivers, health
//! checks and exit codes. One supervisor for each task holds the pipes; it survives the agent, which finds it again by the
//! task's directory. Can go wrong: what ECS has names for; they are used.

mod addresses;
pub(in crate::agent) mod cgroup;
mod client;
mod container;
mod convert;
mod health;
mod image;
mod launch;
mod processes;
mod reap;
mod rootfs;
mod router;
mod spec;
mod stage;
mod supervisor;
mod task;
mod tether;
mod users;

use std::path::{Path, PathBuf};

pub use stage::run as exec_stage;
pub use supervisor::supervise;
pub use task::ProcessTask;

use super::plan::{ContainerPlan, TaskPlan};
use super::runtime::{Failure, Runtime};
use crate::rt::Tasks;
use client::Client;
use tether::Tether;

/// Ports that a generated configuration listens on: forward, and the health check.
const ROUTER_PORTS: &[u16] = &[24224, router::HEALTH_PORT];
const MIB: u64 = 1 << 20;

/// Runs tasks as processes.
#[derive(Clone, Debug)]
pub struct ProcessRuntime {
    program: PathBuf,
    tasks: Tasks,
    tethered: bool,
}

impl ProcessRuntime {
    /// A runtime. `program`: firelane itself, by its absolute path.
    pub fn new(program: &Path, tasks: &Tasks) -> ProcessRuntime {
        ProcessRuntime { program: program.to_owned(), tasks: tasks.clone(), tethered: false }
    }

    /// Tasks end with this process, whatever ends it: their supervisors stop them in order. Without it they run on, for
    /// whoever opens them next.
    #[must_use]
    pub fn tethered(self) -> ProcessRuntime {
        ProcessRuntime { tethered: true, ..self }
    }
}

/// Where `json-file` writes the lines of a container of the task in `dir`.
pub fn log_path(dir: &Path, name: &str) -> PathBuf {
    convert::log_path(dir, name)
}

/// What a container sees of the machine's files elsewhere: where it is, and where the container sees it.
pub(super) fn mounts(task: &TaskPlan, container: &ContainerPlan) -> Vec<(PathBuf, PathBuf)> {
    let mounts = convert::mounts(task, container).unwrap_or_default();
    mounts.into_iter().filter_map(|m| Some((m.source?, m.target))).collect()
}

impl Runtime for ProcessRuntime {
    type Task = ProcessTask;

    async fn open(&self, plan: &TaskPlan) -> Result<ProcessTask, Failure> {
        let failed = |text: String| Failure::new("ResourceInitializationError", text);
        let mut plan = plan.clone();
        std::fs::create_dir_all(&plan.dir)
            .and_then(|()| plan.dir.canonicalize())
            // Supervisors live in /, so that they hold no file system.
            .map(|dir| plan.dir = dir)
            .map_err(|e| failed(format!("cannot use {}: {e}", plan.dir.display())))?;
        let client = match Client::connect(&plan.dir, &self.tasks).await {
            Ok(client) => client,
            // There is none yet, or it is gone, and what it ran went with it.
            Err(_) => {
                let limits = (plan.memory.unwrap_or(0) * MIB, plan.cpu.unwrap_or(0));
                let group = format!("firelane/{}", plan.id);
                let tether = self.tethered.then(|| Tether::of(&plan));
                let started =
                    Client::start(&plan.dir, &group, limits, tether.as_ref(), &self.program, &self.tasks);
                started.await.map_err(failed)?
            }
        };
        let loopback = match plan.firelens {
            Some(_) => Some(addresses::of_task(&plan.dir, ROUTER_PORTS).map_err(failed)?),
            None => None,
        };
        Ok(ProcessTask::new(plan, self.program.clone(), client, loopback))
    }
}
