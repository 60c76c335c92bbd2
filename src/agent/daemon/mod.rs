//! `firelane agent`: a daemon that runs tasks and outlives its own end.
//!
//! Enters: what clients ask over a unix socket in its directory. Leaves: running tasks, a record of each on disk. A task that
//! was taken is on disk before its client hears so: whatever ends the daemon, the next one takes over what runs and begins
//! what had not begun; nothing is started twice. Can go wrong: the disk, a second daemon in the same directory; each is said.

mod protocol;
mod serve;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

pub use self::protocol::{Ask, Client, Said, Which, logs_dir};
pub use self::serve::serve;
pub use self::store::{Record, Store};
use super::definition;
use super::docker::DockerRuntime;
use super::endpoints::{self, Base, Directory};
use super::engine::{StopCode, View};
use super::launch;
use super::planning::{self, Choices};
use super::process::ProcessRuntime;
use super::runtime::Failure;
use crate::record::Time;
use crate::rt::Tasks;

/// Tasks that run at once, at most.
const RUNNING_MAX: usize = 500;
/// Records of ended tasks that are kept, at most; the oldest go first.
const ENDED_MAX: usize = 1000;

/// How often an engine that does not answer is asked again.
const ENGINE_AGAIN: Duration = Duration::from_secs(1);

/// What a daemon is told when it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where records, tasks' files and the socket are.
    pub state: PathBuf,
    /// firelane itself, by its absolute path: supervisors and routers are made of it.
    pub program: PathBuf,
    /// How long files and records of ended tasks are kept.
    pub keep: Duration,
}

/// The daemon.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    store: Store,
    tasks: Mutex<BTreeMap<String, Arc<Entry>>>,
    processes: ProcessRuntime,
    /// Where a Docker engine is looked for.
    docker: String,
    supervised: Tasks,
    /// What containers ask, and where; the listener until it is served.
    directory: Arc<Directory>,
    base: Base,
    listener: Mutex<Option<TcpListener>>,
}

/// A task of the daemon.
#[derive(Debug)]
struct Entry {
    record: watch::Sender<Record>,
    stop: watch::Sender<Option<String>>,
}

impl Agent {
    /// Reads what an earlier daemon left.
    ///
    /// # Errors
    /// Another daemon has the directory, or the disk's.
    pub fn open(settings: Settings) -> io::Result<Arc<Agent>> {
        let store = Store::open(&settings.state)?;
        let supervised = Tasks::new();
        let processes = ProcessRuntime::new(&settings.program, &supervised);
        let records = store.read()?;
        let tasks =
            records.into_iter().map(|record| (record.id.clone(), Arc::new(Entry::new(record)))).collect();
        // Containers that run know the address of the last daemon.
        let listener = endpoints::listener(&settings.state.join("endpoints"))?;
        let base = Base::of(listener.local_addr()?);
        Ok(Arc::new(Agent {
            directory: Directory::new(&supervised),
            base,
            listener: Mutex::new(Some(listener)),
            settings,
            store,
            tasks: Mutex::new(tasks),
            processes,
            docker: DockerRuntime::host(),
            supervised,
        }))
    }

    /// Takes over the tasks that had not ended. Gives their number.
    pub fn resume(self: &Arc<Self>) -> usize {
        let waiting: Vec<Arc<Entry>> =
            self.tasks().values().filter(|e| !e.record.borrow().has_ended()).cloned().collect();
        for entry in &waiting {
            self.run(Arc::clone(entry));
        }
        waiting.len()
    }

    /// Takes a task. When this returns, it is on disk.
    ///
    /// # Errors
    /// The definition is refused, something it needs is missing, or the disk's: a sentence.
    pub async fn take(
        self: &Arc<Self>,
        text: &str,
        which: Which,
        mut choices: Choices,
    ) -> Result<Record, String> {
        let running = self.tasks().values().filter(|e| !e.record.borrow().has_ended()).count();
        if running >= RUNNING_MAX {
            return Err(format!("{running} tasks run already, and no more may; stop some first"));
        }
        let checked = definition::read(text.as_bytes())
            .map_err(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        choices.id = planning::hex(32);
        choices.data = self.store.tasks_dir();
        choices.process = match which {
            Which::Process => true,
            Which::Docker => self.engine().await.map(|_| false).map_err(|e| e.to_string())?,
            // Why it does not answer matters to who asks for it.
            Which::Auto => self.engine().await.is_err(),
        };
        choices.endpoints = Some(self.base.clone());
        // Entering a task's network takes root.
        choices.namespaces = rustix::process::geteuid().is_root();
        let mut planned = planning::plan(&checked.definition, &choices).map_err(|e| e.to_string())?;
        if choices.process && !choices.images.is_empty() {
            let text = "--router-image and --image have no effect: the process runtime has no images";
            planned.warnings.push(text.to_owned());
        }
        let record = Record {
            id: choices.id.clone(),
            arn: planned.plan.arn.clone(),
            family: planned.plan.family.clone(),
            revision: planned.plan.revision,
            created_at: Time::now().millis(),
            docker: !choices.process,
            engine: if choices.process { String::new() } else { self.docker.clone() },
            firelens_dir: choices.firelens_dir(),
            warnings: planned.warnings.clone(),
            planned: Some(planned),
            ..Record::default()
        };
        self.store.write(&record, true).map_err(|e| format!("cannot keep the task: {e}"))?;
        // Whoever runs it has read the definition, too, and knows them.
        for warning in &checked.warnings {
            tracing::warn!(task = %record.id, "{warning}");
        }
        let entry = Arc::new(Entry::new(record.clone()));
        self.tasks().insert(record.id.clone(), Arc::clone(&entry));
        self.run(entry);
        Ok(record)
    }

    /// Wants a task to end. `which`: its id or ARN, or the beginning of its id.
    ///
    /// # Errors
    /// There is no such task, or more than one.
    pub fn stop(&self, which: &str, reason: &str) -> Result<Record, String> {
        let entry = self.find(which)?;
        entry.record.send_modify(|r| {
            r.stop.get_or_insert_with(|| reason.to_owned());
        });
        let record = entry.record.borrow().clone();
        if !record.has_ended() {
            self.store.write(&record, true).map_err(|e| format!("cannot keep the wish: {e}"))?;
            entry.stop.send_replace(record.stop.clone());
        }
        Ok(record)
    }

    /// All tasks, the oldest first, without what is planned.
    pub fn list(&self) -> Vec<Record> {
        let mut all: Vec<Record> = self.tasks().values().map(|e| e.record.borrow().public()).collect();
        all.sort_by_key(|r| r.created_at);
        all
    }

    /// A task, as it is and as it changes.
    ///
    /// # Errors
    /// See [`Agent::stop`].
    pub fn watch(&self, which: &str) -> Result<watch::Receiver<Record>, String> {
        Ok(self.find(which)?.record.subscribe())
    }

    /// Forgets tasks that ended long ago, and removes their files.
    pub fn sweep(&self) {
        let (now, keep) =
            (Time::now().millis(), i64::try_from(self.settings.keep.as_millis()).unwrap_or(i64::MAX));
        let mut ended: Vec<(i64, String)> = Vec::new();
        for (id, entry) in self.tasks().iter() {
            ended.extend(entry.record.borrow().stopped_at.map(|at| (at, id.clone())));
        }
        ended.sort();
        let surplus = ended.len().saturating_sub(ENDED_MAX);
        for (n, (at, id)) in ended.into_iter().enumerate() {
            if n >= surplus && now.saturating_sub(at) < keep {
                break;
            }
            self.tasks().remove(&id);
            if let Err(e) = self.store.forget(&id) {
                tracing::warn!(task = %id, cause = %e, "cannot remove what an ended task has left");
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        // The map is whole whenever the lock is free.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, which: &str) -> Result<Arc<Entry>, String> {
        let id = which.rsplit('/').next().unwrap_or(which);
        let tasks = self.tasks();
        let mut found =
            tasks.range(id.to_owned()..).take_while(|(known, _)| known.starts_with(id) && !id.is_empty());
        match (found.next(), found.next()) {
            (Some((_, entry)), None) => Ok(Arc::clone(entry)),
            (Some(_), Some(_)) => Err(format!("more than one task begins with {id}")),
            (None, _) => Err(format!("there is no task {which}; see `firelane agent ps --all`")),
        }
    }

    /// Runs a task beside the others, from wherever it stands.
    fn run(self: &Arc<Self>, entry: Arc<Entry>) {
        let this = Arc::clone(self);
        let name = format!("task {}", entry.record.borrow().id);
        self.supervised.spawn(name, Box::pin(async move { this.live(&entry).await }));
    }

    async fn live(&self, entry: &Entry) {
        let record = entry.record.borrow().clone();
        let Some(planned) = &record.planned else { return };
        for warning in &planned.warnings {
            tracing::warn!(task = %record.id, "{warning}");
        }
        let mut told = record.view.warnings.len();
        let report = |view: &View| {
            for warning in view.warnings.iter().skip(told) {
                tracing::warn!(task = %record.id, "{warning}");
            }
            told = view.warnings.len();
            self.keep(entry, |r| r.view = view.clone(), false);
        };
        let stop = entry.stop.subscribe();
        let (dir, listed, before) = (&record.firelens_dir, Some(&self.directory), &record.view);
        let ended = if record.docker {
            let docker = self.engine_again(&record.id).await.with_endpoints(&self.directory);
            Box::pin(launch::run(&docker, planned, dir, listed, before, stop, report)).await
        } else {
            launch::run(&self.processes, planned, dir, listed, before, stop, report).await
        };
        let view = ended.unwrap_or_else(|e| failed(record.view.clone(), &e));
        tracing::info!(
            task = %record.id, exit = view.exit_code(),
            reason = view.stopped_reason.as_deref().unwrap_or_default(), "a task has ended"
        );
        let end = |r: &mut Record| {
            // With it go the values of its secrets.
            (r.view, r.planned, r.stopped_at) = (view.clone(), None, Some(Time::now().millis()));
        };
        self.keep(entry, end, true);
    }

    async fn engine(&self) -> Result<DockerRuntime, Failure> {
        DockerRuntime::connect(&self.docker, &self.supervised).await
    }

    /// The Docker engine, once it answers: daemons may come back in any order, and what runs in it runs on.
    async fn engine_again(&self, task: &str) -> DockerRuntime {
        let mut told = false;
        loop {
            match self.engine().await {
                Ok(docker) => return docker,
                Err(e) if !told => {
                    tracing::warn!(task, cause = %e, "waiting for the Docker engine of a task")
                }
                Err(_) => {}
            }
            told = true;
            tokio::time::sleep(ENGINE_AGAIN).await;
        }
    }

    /// Changes a record, on disk first.
    fn keep(&self, entry: &Entry, change: impl Fn(&mut Record), sync: bool) {
        let mut record = entry.record.borrow().clone();
        change(&mut record);
        if let Err(e) = self.store.write(&record, sync) {
            // What it says is found again by looking at what runs, but for reasons and counts.
            tracing::error!(task = %record.id, cause = %e, "cannot keep how a task stands");
        }
        entry.record.send_modify(change);
    }
}

/// A task that could not be begun.
fn failed(view: View, why: &Failure) -> View {
    View {
        last_status: "STOPPED".to_owned(),
        desired_status: "STOPPED".to_owned(),
        stop_code: Some(StopCode::TaskFailedToStart),
        stopped_reason: Some(why.to_string()),
        ..view
    }
}

impl Entry {
    fn new(record: Record) -> Entry {
        Entry { stop: watch::Sender::new(record.stop.clone()), record: watch::Sender::new(record) }
    }
}

/// Where a daemon keeps its state unless it is told: `/var/lib/firelane` for root, else beneath the home directory.
pub fn default_state() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/lib/firelane")
    } else {
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
        state.or_else(home).unwrap_or_else(std::env::temp_dir).join("firelane")
    }
}

#[cfg(test)]
mod tests;
