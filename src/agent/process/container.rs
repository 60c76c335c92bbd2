//! One container: its process, its streams, its log driver, its end.
//!
//! Enters: a spec and the agent's requests. Leaves: states, whenever they change. A container has ended when its process
//! has, everything that it left behind was killed, and its log driver is closed: then, as under docker, its exit code is
//! told. Can go wrong: the log driver, the program, the machine; the failure has ECS's name for it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{oneshot, watch};

use super::cgroup::{Group, Limits};
use super::launch::{NotStarted, launch};
use super::reap::{Exit, Reaper};
use super::spec::{Done, Spec, State, Stats};
use super::stage::Order;
use super::{cgroup, health, processes, rootfs};
use crate::agent::drivers::{Driver, Info, Source, Words, copy};
use crate::agent::runtime::{ContainerState, Failure, Health, Status};
use crate::record::Time;
use crate::rt::Tasks;

/// How long the streams of a container that has ended may take to reach their driver: dockerd waits 2 s for the streams and
/// 10 s for the driver.
const STREAMS: Duration = Duration::from_secs(12);
/// How long a driver may take to close.
const CLOSE: Duration = Duration::from_secs(30);
/// Between SIGKILL and the end: a process in uninterruptible sleep takes its time.
const KILLED: Duration = Duration::from_secs(60);

/// What containers of a task share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) reaper: Reaper,
    pub(super) tasks: Tasks,
    /// Counts changes of any container.
    pub(super) changed: watch::Sender<u64>,
    /// The task's control group, by name, and its directory.
    pub(super) group: String,
    pub(super) dir: std::path::PathBuf,
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) spec: Spec,
    shared: Shared,
    group: Option<Group>,
    inner: Mutex<Inner>,
    running: watch::Sender<bool>,
    words: Arc<Words>,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    /// A start is under way.
    starting: bool,
    /// The process, until it was reaped: its number may be another's afterwards.
    alive: Option<Pid>,
}

pub(super) fn now() -> i64 {
    Time::now().millis()
}

impl Container {
    /// Makes a container, with a warning for each limit that this machine does not have.
    pub(super) fn new(spec: Spec, shared: Shared) -> (Container, Vec<String>) {
        let limits = Limits {
            memory: spec.memory,
            reservation: spec.memory_reservation,
            shares: spec.cpu_shares,
            cpu: None,
        };
        let name = format!("{}/{}", shared.group, spec.name);
        let (group, warnings) = match Group::make(cgroup::ROOT.as_ref(), &name, limits) {
            Ok(group) => (Some(group), Vec::new()),
            Err(_) if limits.memory.is_none() && limits.reservation.is_none() => (None, Vec::new()),
            Err(e) => (None, vec![format!("container {}: {e}; its memory is not limited", spec.name)]),
        };
        let container =
            ContainerState { id: spec.id.clone(), created: Some(now()), ..ContainerState::default() };
        let state = State { name: spec.name.clone(), version: 0, container };
        let inner = Mutex::new(Inner { state, ..Inner::default() });
        let (running, words) = (watch::Sender::new(false), Arc::default());
        (Container { spec, shared, group, inner, running, words }, warnings)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing leaves the state half-changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        self.lock().state.clone()
    }

    pub(super) fn is_running(&self) -> bool {
        let inner = self.lock();
        inner.starting || inner.state.container.status == Status::Running
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        {
            let mut inner = self.lock();
            change(&mut inner);
            inner.state.version += 1;
        }
        self.shared.changed.send_modify(|n| *n += 1);
    }

    pub(super) fn set_health(&self, health: Health) {
        self.change(|inner| inner.state.container.health = Some(health));
    }

    /// Starts it, or starts it again.
    pub(super) async fn start(self: Arc<Self>) -> Result<Done, Failure> {
        {
            let mut inner = self.lock();
            if inner.starting || inner.state.container.status == Status::Running {
                return Err(Failure::new("CannotStartContainerError", "the container is running already"));
            }
            inner.starting = true;
        }
        let begun = self.begin().await;
        self.change(|inner| inner.starting = false);
        match begun {
            Ok(warnings) => Ok(Done { warnings, ..Done::default() }),
            Err(e) => {
                self.change(|inner| {
                    inner.state.container.exit_code = Some(e.code);
                    inner.state.container.error = Some(e.text.clone());
                });
                Err(Failure::new("CannotStartContainerError", e.text))
            }
        }
    }

    async fn begin(self: &Arc<Self>) -> Result<Vec<String>, NotStarted> {
        let spec = &self.spec;
        let failed = |text: String| NotStarted { code: 128, text };
        let machine = |e: io::Error| failed(format!("cannot start the container: {e}"));
        let info = self.info();
        let driver = Driver::start(&spec.log_driver, &spec.log_options, &info, &self.shared.tasks)
            .await
            .map_err(|e| failed(format!("failed to initialize logging driver: {e}")))?;
        let driver = Arc::new(driver);
        self.words.clear();
        let oom_before = self.group.as_ref().map_or(0, Group::oom_kills);
        let ((out, out_end), (err, err_end)) = (io::pipe().map_err(machine)?, io::pipe().map_err(machine)?);
        let order = Order { scratch: rootfs::scratch(&self.shared.dir).map_err(machine)?, ..self.order() };
        let started = match launch(&order, out_end.into(), err_end.into(), &self.shared.reaper).await {
            Ok(started) => started,
            Err(e) => {
                driver.close().await;
                return Err(e);
            }
        };
        self.change(|inner| {
            inner.alive = Pid::from_raw(started.pid);
            let state = &mut inner.state.container;
            state.status = Status::Running;
            state.pid = Some(started.pid);
            state.started = Some(now());
            (state.finished, state.exit_code, state.error, state.oom) = (None, None, None, false);
            state.health = spec.health.as_ref().map(|_| Health::default());
            state.starts += 1;
        });
        self.running.send_replace(true);
        let streams = [(OwnedFd::from(out), Source::Stdout), (err.into(), Source::Stderr)];
        let end = End { exit: started.exit, driver, oom_before };
        self.shared.tasks.spawn(format!("container {}", spec.name), Arc::clone(self).follow(streams, end));
        if let Some(check) = spec.health.clone() {
            let probe = Order { join: Some(started.pid), mounts: Vec::new(), ..self.order() };
            let this = Arc::clone(self);
            let running = self.running.subscribe();
            let reaper = self.shared.reaper.clone();
            self.shared.tasks.spawn(
                format!("health check of {}", spec.name),
                health::watch(this, check, probe, reaper, running),
            );
        }
        Ok(started.warnings)
    }

    fn info(&self) -> Info {
        let spec = &self.spec;
        Info {
            id: spec.id.clone(),
            name: spec.docker_name.clone(),
            image: spec.image.clone(),
            command: spec.argv.clone(),
            env: spec.env.clone(),
            labels: spec.labels.clone(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            log_path: spec.log_path.clone(),
        }
    }

    fn order(&self) -> Order {
        let spec = &self.spec;
        Order {
            argv: spec.argv.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            hostname: spec.hostname.clone(),
            ulimits: spec.ulimits.clone(),
            mounts: spec.mounts.clone(),
            no_new_privileges: spec.no_new_privileges,
            doors: self.group.as_ref().map(Group::doors).unwrap_or_default(),
            join: None,
            scratch: std::path::PathBuf::new(),
            die_with_parent: true,
        }
    }

    /// From the first instruction to the last line.
    async fn follow(self: Arc<Self>, streams: [(OwnedFd, Source); 2], end: End) {
        let mut copies = Vec::new();
        let cut = watch::Sender::new(false);
        for (stream, source) in streams {
            let (done, ended) = oneshot::channel::<()>();
            let (driver, words, mut cut) =
                (Arc::clone(&end.driver), Arc::clone(&self.words), cut.subscribe());
            let name = self.spec.name.clone();
            self.shared.tasks.spawn(format!("{source:?} of {name}"), async move {
                let copying = async { copy(Receiver::from_owned_fd(stream)?, source, driver, words).await };
                tokio::select! {
                    result = copying => if let Err(e) = result {
                        tracing::error!(container = name, cause = %e, "cannot read a container's output");
                    },
                    _ = cut.wait_for(|cut| *cut) => {
                        tracing::warn!(container = name, "Logger didn't exit in time: logs may be truncated");
                    }
                }
                // Whoever waited may have gone.
                let _gone = done.send(());
            });
            copies.push(ended);
        }
        let code = end.exit.await;
        let finished = now();
        let session = self.lock().alive.take();
        self.running.send_replace(false);
        self.kill_rest(session);
        let all = async {
            for copy in copies {
                // A copy that panicked has ended too.
                let _ended = copy.await;
            }
        };
        tokio::pin!(all);
        if tokio::time::timeout(STREAMS, &mut all).await.is_err() {
            cut.send_replace(true);
            all.await;
        }
        if tokio::time::timeout(CLOSE, end.driver.close()).await.is_err() {
            tracing::warn!(
                container = self.spec.name,
                "the log driver does not close; its last lines may be lost"
            );
        }
        let oom = self.group.as_ref().is_some_and(|g| g.oom_kills() > end.oom_before);
        self.change(|inner| {
            let state = &mut inner.state.container;
            state.status = Status::Exited;
            state.pid = None;
            (state.finished, state.exit_code, state.oom) = (Some(finished), Some(code), oom);
        });
    }

    /// What a container's process leaves behind ends with it.
    fn kill_rest(&self, session: Option<Pid>) {
        if let Some(session) = session {
            // There may be none left.
            let _none = kill_process_group(session, Signal::KILL);
            if self.group.is_none() {
                processes::kill_session(session);
            }
        }
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// SIGTERM; SIGKILL for everything when it has not ended in time. Comes back when it has ended.
    pub(super) async fn stop(&self, timeout: Duration) -> Result<Done, Failure> {
        let mut changed = self.shared.changed.subscribe();
        // A start that is under way is waited for: it would run on otherwise.
        while self.lock().starting {
            if changed.changed().await.is_err() {
                break;
            }
        }
        let alive = self.lock().alive;
        if let Some(pid) = alive {
            // It may end by itself meanwhile.
            let _gone = kill_process(pid, Signal::TERM);
        }
        let mut running = self.running.subscribe();
        let ended = async |running: &mut watch::Receiver<bool>| {
            // The sender is ours and lives.
            let _ended = running.wait_for(|running| !*running).await;
        };
        if tokio::time::timeout(timeout, ended(&mut running)).await.is_err() {
            let alive = self.lock().alive;
            if let Some(pid) = alive {
                let _gone = kill_process(pid, Signal::KILL);
            }
            self.kill_rest(alive);
            if tokio::time::timeout(KILLED, ended(&mut running)).await.is_err() {
                return Err(Failure::new(
                    "CannotStopContainerError",
                    "the process does not end, not even by SIGKILL",
                ));
            }
        }
        // The driver's last lines belong to it too.
        while self.state().container.status == Status::Running {
            if changed.changed().await.is_err() {
                break;
            }
        }
        Ok(Done::default())
    }

    pub(super) fn kill(&self, signal: i32) -> Result<Done, Failure> {
        let failed = |text: String| Failure::new("CannotStopContainerError", text);
        let signal =
            Signal::from_named_raw(signal).ok_or_else(|| failed(format!("{signal} is no signal")))?;
        let pid = self.lock().alive.ok_or_else(|| failed("the container is not running".to_owned()))?;
        kill_process(pid, signal).map_err(|e| failed(e.to_string()))?;
        Ok(Done::default())
    }

    /// What it has printed last.
    pub(super) fn words(&self) -> Vec<String> {
        self.words.last()
    }

    pub(super) fn stats(&self) -> Stats {
        match (&self.group, self.lock().alive) {
            (Some(group), _) => group.stats(),
            (None, Some(session)) => processes::stats(session),
            (None, None) => Stats::default(),
        }
    }

    /// Forgets what the machine holds for it.
    pub(super) fn remove(&self) {
        if let Some(group) = &self.group {
            group.remove();
        }
    }
}

/// What is needed at a container's end.
#[derive(Debug)]
struct End {
    exit: Exit,
    driver: Arc<Driver>,
    /// Processes that had been killed for want of memory before.
    oom_before: u64,
}
