//! The process runtime: containers as supervised process groups, where no Docker engine answers.
//!
//! ```text
//! agent -> client ==unix socket==> supervisor -> container -> launch -> stage (exec-stage) -> the program
//!                                      |             |-> health        |-> rootfs, users
//!                                      |-> reap      |-> cgroup, processes
//!                                                    |-> drivers
//! ```
//!
//! Enters: what a task is to start. Leaves: processes with docker's environment, user, limits, mounts, log drivers, health
//! checks and exit codes. One supervisor for each task holds the pipes; it survives the agent, which finds it again by the
//! task's directory. Can go wrong: what ECS has names for; they are used.

mod addresses;
mod cgroup;
mod client;
mod container;
mod health;
mod launch;
mod processes;
mod reap;
mod rootfs;
mod spec;
mod stage;
mod supervisor;
mod users;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

pub use client::Known;
pub use spec::{Failure, Health, HealthCheck, HealthStatus, Mount, Spec, State, Stats, Status, Ulimit};
pub use stage::run as exec_stage;
pub use supervisor::supervise;

use crate::rt::Tasks;
use client::Client;
use spec::Call;

/// Ports that a generated configuration listens on: forward, and the health check.
const ROUTER_PORTS: &[u16] = &[24224, 8877];

/// All tasks of one agent, by their ids.
#[derive(Debug)]
pub struct ProcessRuntime {
    dir: PathBuf,
    program: PathBuf,
    tasks: Tasks,
    clients: Mutex<HashMap<String, Arc<Client>>>,
}

impl ProcessRuntime {
    /// A runtime that keeps a directory for each task in `dir`. `program`: firelane itself.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(dir: &Path, program: &Path, tasks: &Tasks) -> Result<ProcessRuntime, String> {
        let failed = |e: io::Error| format!("cannot use {}: {e}", dir.display());
        fs::create_dir_all(dir).map_err(failed)?;
        // Supervisors live in /, so that no file system is held.
        let dir = dir.canonicalize().map_err(failed)?;
        Ok(ProcessRuntime { dir, program: program.to_owned(), tasks: tasks.clone(), clients: Mutex::default() })
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<String, Arc<Client>>> {
        // The map is whole whenever the lock is free.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, task: &str) -> Result<Arc<Client>, Failure> {
        let found = self.clients().get(task).cloned();
        found.ok_or_else(|| Failure::new("NoSuchTaskError", format!("there is no task {task}")))
    }

    /// Where a task's supervisor keeps its files.
    pub fn dir(&self, task: &str) -> PathBuf {
        self.dir.join(task)
    }

    /// Starts a task without containers. `memory`: bytes of all of them together.
    ///
    /// # Errors
    /// `TaskFailedToStart` with the reason.
    pub async fn begin(&self, task: &str, memory: Option<u64>) -> Result<(), Failure> {
        let failed = |text: String| Failure::new("TaskFailedToStart", text);
        if task.is_empty() || task.contains(['/', '\0']) || task.starts_with('.') {
            return Err(failed(format!("{task:?} cannot be the name of a directory")));
        }
        let (dir, group) = (self.dir(task), format!("firelane/{task}"));
        let client = Client::start(&dir, &group, memory.unwrap_or(0), &self.program, &self.tasks);
        let client = client.await.map_err(failed)?;
        self.clients().insert(task.to_owned(), Arc::new(client));
        Ok(())
    }

    /// Finds the tasks that an agent before this one has started: those whose supervisors answer, and those that are lost
    /// with the reason.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub async fn adopt(&self) -> Result<Vec<(String, Result<Known, String>)>, String> {
        let failed = |e: io::Error| format!("cannot read {}: {e}", self.dir.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(task) = entry.file_name().into_string() else { continue };
            if !client::has_socket(&entry.path()) || self.clients().contains_key(&task) {
                continue;
            }
            let known = match Client::connect(&entry.path(), &self.tasks).await {
                Ok(client) => {
                    let known = client.known().borrow().clone();
                    self.clients().insert(task.clone(), Arc::new(client));
                    Ok(known)
                }
                Err(e) => Err(e),
            };
            found.push((task, known));
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// The loopback address of a task's router: 127.0.0.1 for the first FireLens task, 127.0.0.2 for the next.
    ///
    /// # Errors
    /// None is left.
    pub fn loopback(&self, task: &str) -> Result<Ipv4Addr, String> {
        addresses::claim(&self.dir, task, |address| addresses::is_free(address, ROUTER_PORTS))
    }

    /// What is known of a task's containers, and a way to wait for more.
    ///
    /// # Errors
    /// There is no such task.
    pub fn known(&self, task: &str) -> Result<watch::Receiver<Known>, Failure> {
        Ok(self.client(task)?.known())
    }

    /// Makes a container; gives warnings.
    ///
    /// # Errors
    /// `CannotCreateContainerError`, in docker's words where docker has some.
    pub async fn create(&self, task: &str, mut spec: Spec) -> Result<Vec<String>, Failure> {
        if spec.log_path.as_os_str().is_empty() {
            spec.log_path = self.dir(task).join(format!("{}-json.log", spec.name));
        }
        let done = self.client(task)?.call(Call::Create { spec: Box::new(spec) }).await?;
        Ok(done.warnings)
    }

    /// Starts a container, or starts it again; comes back when its program has begun. Gives warnings.
    ///
    /// # Errors
    /// `CannotStartContainerError`; the state has docker's exit code.
    pub async fn start(&self, task: &str, name: &str) -> Result<Vec<String>, Failure> {
        let done = self.client(task)?.call(Call::Start { name: name.to_owned() }).await?;
        Ok(done.warnings)
    }

    /// SIGTERM, and SIGKILL for all of its processes after `timeout`; comes back when it has ended.
    ///
    /// # Errors
    /// `CannotStopContainerError`
    pub async fn stop(&self, task: &str, name: &str, timeout: Duration) -> Result<(), Failure> {
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.client(task)?.call(Call::Stop { name: name.to_owned(), timeout }).await.map(drop)
    }

    /// Sends a signal to a container's process.
    ///
    /// # Errors
    /// It does not run.
    pub async fn kill(&self, task: &str, name: &str, signal: i32) -> Result<(), Failure> {
        self.client(task)?.call(Call::Kill { name: name.to_owned(), signal }).await.map(drop)
    }

    /// What a container uses.
    ///
    /// # Errors
    /// There is no such container.
    pub async fn stats(&self, task: &str, name: &str) -> Result<Stats, Failure> {
        let done = self.client(task)?.call(Call::Stats { name: name.to_owned() }).await?;
        Ok(done.stats.unwrap_or_default())
    }

    /// Forgets a container that does not run.
    ///
    /// # Errors
    /// It runs.
    pub async fn remove(&self, task: &str, name: &str) -> Result<(), Failure> {
        self.client(task)?.call(Call::Remove { name: name.to_owned() }).await.map(drop)
    }

    /// Ends a task none of whose containers run, and removes its directory.
    ///
    /// # Errors
    /// Something runs.
    pub async fn end(&self, task: &str) -> Result<(), Failure> {
        let client = self.client(task)?;
        client.call(Call::End).await?;
        // Its last log lines are written by then.
        let mut known = client.known();
        let _gone = known.wait_for(|k| k.gone).await;
        self.clients().remove(task);
        self.forget(task)
    }

    /// Removes the directory of a task whose supervisor is gone.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget(&self, task: &str) -> Result<(), Failure> {
        match fs::remove_dir_all(self.dir(task)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Failure::new("CannotRemoveTask", format!("{}: {e}", self.dir(task).display())))
            }
            _ => Ok(()),
        }
    }
}
