//! `firelane supervise`: one for each task, with its containers' pipes, log drivers and exit codes in its hands.
//!
//! Enters: a listening unix socket as standard input, and agents that connect to it, one after the other or at once. Leaves:
//! answers and states; it ends when an agent says so and nothing runs any more. It lives in a session of its own: the end of
//! an agent is no event, unless it is tethered: then it ends its task when the agent goes. Can go wrong: what a line of an
//! agent asks for; it is told.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{chdir, getpid, set_child_subreaper, setsid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use super::cgroup::{self, Group, Limits, ROOT};
use super::container::{Container, Shared};
use super::processes;
use super::reap::{self, Reaper};
use super::spec::{Call, Done, LINE_MAX, Request, Said, Spec, State};
use super::tether::Tether;
use crate::agent::runtime::Failure;
use crate::observe::log;
use crate::rt::Tasks;

/// Containers of a task: ECS allows ten, and adds some of its own.
const CONTAINERS_MAX: usize = 32;
/// Answers that wait for an agent to read them.
const ANSWERS: usize = 64;
/// How long log drivers may go on after the end (`awslogs` sends its last batch then).
const LAST_CALLS: Duration = Duration::from_secs(30);
/// How long the agent of a tethered task may take to connect.
const FIRST_CALL: Duration = Duration::from_secs(10);

/// Runs a supervisor. Arguments: the task's directory, the name of its control group, bytes of memory of the task and
/// its CPU units (0: as its containers say); for a task that ends with its agent, how, as JSON.
pub fn supervise(args: &[String]) -> ExitCode {
    match prepare(args).and_then(|(listener, dir, group, tether)| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        runtime.block_on(serve(listener, dir, group, tether))
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(cause = %e, "the supervisor ends");
            ExitCode::FAILURE
        }
    }
}

type Prepared = (StdListener, PathBuf, String, Option<Tether>);

fn prepare(args: &[String]) -> Result<Prepared, String> {
    let [dir, group, memory, cpu, rest @ ..] = args else {
        return Err("usage: firelane supervise DIRECTORY CONTROL-GROUP MEMORY CPU [TETHER]".to_owned());
    };
    let dir = PathBuf::from(dir);
    log::init("info", Some(&dir.join("supervisor.log")))?;
    let failed = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    let tether = rest.first().map(|json| serde_json::from_str(json)).transpose();
    let tether = tether.map_err(|e| failed("TETHER", &e))?;
    // An agent that did not make us its child's leader has nothing against it.
    let _leader = setsid();
    set_child_subreaper(Some(getpid())).map_err(|e| failed("cannot become a subreaper", &e))?;
    let listener: OwnedFd = io::stdin().as_fd().try_clone_to_owned().map_err(|e| failed("no socket", &e))?;
    let null =
        File::options().read(true).write(true).open("/dev/null").map_err(|e| failed("/dev/null", &e))?;
    for replaced in [
        rustix::stdio::dup2_stdin(&null),
        rustix::stdio::dup2_stdout(&null),
        rustix::stdio::dup2_stderr(&null),
    ] {
        replaced.map_err(|e| failed("/dev/null", &e))?;
    }
    chdir("/").map_err(|e| failed("cannot enter /", &e))?;
    cgroup::sweep(Path::new(ROOT), group);
    let memory: u64 = memory.parse().map_err(|e| failed("MEMORY", &e))?;
    let cpu: u64 = cpu.parse().map_err(|e| failed("CPU", &e))?;
    if memory > 0 || cpu > 0 {
        let limits = Limits {
            memory: Some(memory).filter(|n| *n > 0),
            cpu: Some(cpu).filter(|n| *n > 0),
            ..Limits::default()
        };
        if let Err(e) = Group::make(Path::new(ROOT), group, limits) {
            tracing::warn!(cause = e, "the task's memory and cpu are not limited");
        }
    }
    Ok((StdListener::from(listener), dir, group.clone(), tether))
}

/// The task.
#[derive(Debug)]
struct Supervisor {
    shared: Shared,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    over: watch::Sender<bool>,
    /// An agent has gone; after that no container is made or started of a task that is tethered.
    left: watch::Sender<bool>,
    tethered: bool,
}

async fn serve(
    listener: StdListener,
    dir: PathBuf,
    group: String,
    tether: Option<Tether>,
) -> Result<(), String> {
    let failed = |e: io::Error| format!("cannot use the socket of the supervisor: {e}");
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from_std(listener).map_err(failed)?;
    let (reaper, tasks) = (Reaper::default(), Tasks::new());
    let children = reap::children().map_err(|e| format!("cannot listen for SIGCHLD: {e}"))?;
    // Apart from the others: these never end.
    let helpers = Tasks::new();
    helpers.spawn("reaper", reaper.clone().run(children));
    let shared = Shared { reaper, tasks: tasks.clone(), changed: watch::Sender::new(0), group, dir };
    let supervisor = Arc::new(Supervisor {
        shared,
        containers: Mutex::default(),
        over: watch::Sender::new(false),
        left: watch::Sender::new(false),
        tethered: tether.is_some(),
    });
    let (mut over, mut left) = (supervisor.over.subscribe(), supervisor.left.subscribe());
    let mut nobody_came = tether.is_some();
    let first_call = tokio::time::sleep(FIRST_CALL);
    tokio::pin!(first_call);
    loop {
        tokio::select! {
            _ = over.wait_for(|over| *over) => break,
            _ = left.wait_for(|left| *left), if tether.is_some() => break,
            () = &mut first_call, if nobody_came => {
                supervisor.left.send_replace(true);
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    nobody_came = false;
                    helpers.spawn("agent", Arc::clone(&supervisor).converse(stream));
                }
                // Out of descriptors, perhaps: what is open goes on, and the next agent may have better luck.
                Err(e) => {
                    tracing::error!(cause = %e, "cannot accept an agent");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    let alone = !*supervisor.over.borrow();
    if let Some(tether) = tether.as_ref().filter(|_| alone) {
        tracing::warn!("the agent of the task has gone: its containers are stopped");
        tether.stop(|name| supervisor.find(name).ok()).await;
    }
    if tokio::time::timeout(LAST_CALLS, tasks.all_ended()).await.is_err() {
        tracing::error!("a log driver has not ended; its last lines are lost");
    }
    processes::kill_children();
    cgroup::sweep(Path::new(ROOT), &supervisor.shared.group);
    if let Some(tether) = tether.as_ref().filter(|_| alone) {
        tether.clean(&supervisor.shared.dir);
        tracing::info!("the task has ended");
    }
    Ok(())
}

impl Supervisor {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        // The map is whole whenever the lock is free.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn states(&self) -> Vec<State> {
        self.containers().values().map(|c| c.state()).collect()
    }

    async fn converse(self: Arc<Self>, stream: UnixStream) {
        let (read, write) = stream.into_split();
        let (answers, to_send) = mpsc::channel(ANSWERS);
        // Whichever ends first: an agent that does not read, or does not write, has gone.
        tokio::select! {
            _ = Arc::clone(&self).speak(write, to_send) => {}
            result = Arc::clone(&self).listen(read, answers) => if let Err(e) = result {
                tracing::warn!(cause = %e, "an agent was cut off");
            }
        }
        self.left.send_replace(true);
    }

    /// Answers, and every state that the agent has not seen.
    async fn speak(
        self: Arc<Self>,
        mut write: OwnedWriteHalf,
        mut answers: mpsc::Receiver<Said>,
    ) -> io::Result<()> {
        let mut changed = self.shared.changed.subscribe();
        changed.mark_unchanged();
        let states = self.states();
        let mut seen: HashMap<String, u64> = states.iter().map(|s| (s.name.clone(), s.version)).collect();
        say(&mut write, &Said::Hello { pid: getpid().as_raw_nonzero().get(), states }).await?;
        loop {
            let answer = tokio::select! {
                answer = answers.recv() => match answer {
                    Some(answer) => Some(answer),
                    None => return Ok(()),
                },
                // The sender is ours and lives.
                _ = changed.changed() => None,
            };
            // States first: an answer speaks of what they show.
            for state in self.states() {
                if seen.insert(state.name.clone(), state.version) != Some(state.version) {
                    say(&mut write, &Said::State(Box::new(state))).await?;
                }
            }
            if let Some(answer) = answer {
                say(&mut write, &answer).await?;
            }
        }
    }

    async fn listen(self: Arc<Self>, read: OwnedReadHalf, answers: mpsc::Sender<Said>) -> io::Result<()> {
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = LINE_MAX as u64;
            if (&mut read).take(limit).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            if !line.ends_with(b"\n") {
                return Err(io::Error::other("a line ends too early or is too long"));
            }
            let request: Request = serde_json::from_slice(&line).map_err(io::Error::other)?;
            line.shrink_to(64 << 10);
            let (this, answers) = (Arc::clone(&self), answers.clone());
            // A stop may take minutes; others go on meanwhile.
            self.shared.tasks.spawn("request", async move {
                let result = this.answer(request.call).await;
                // The agent may have gone.
                let _gone = answers.send(Said::Answer { id: request.id, result }).await;
            });
        }
    }

    fn find(&self, name: &str) -> Result<Arc<Container>, Failure> {
        self.containers()
            .get(name)
            .cloned()
            .ok_or_else(|| Failure::new("NoSuchContainerError", format!("there is no container {name}")))
    }

    async fn answer(&self, call: Call) -> Result<Done, Failure> {
        if self.tethered && *self.left.borrow() && matches!(call, Call::Create { .. } | Call::Start { .. }) {
            return Err(Failure::new("TaskStopped", "its agent has gone, and the task ends with it"));
        }
        match call {
            Call::Create { spec } => self.create(*spec),
            Call::Start { name } => self.find(&name)?.start().await,
            Call::Stop { name, timeout } => self.find(&name)?.stop(Duration::from_millis(timeout)).await,
            Call::Kill { name, signal } => self.find(&name)?.kill(signal),
            Call::Stats { name } => Ok(Done { stats: Some(self.find(&name)?.stats()), ..Done::default() }),
            Call::Words { name } => Ok(Done { words: self.find(&name)?.words(), ..Done::default() }),
            Call::Remove { name } => {
                let container = self.find(&name)?;
                if container.is_running() {
                    return Err(Failure::new("CannotRemoveContainerError", format!("{name} is running")));
                }
                container.remove();
                self.containers().remove(&name);
                Ok(Done::default())
            }
            Call::End => {
                if self.containers().values().any(|c| c.is_running()) {
                    return Err(Failure::new("TaskStillRunning", "stop the containers first"));
                }
                for container in self.containers().values() {
                    container.remove();
                }
                self.over.send_replace(true);
                Ok(Done::default())
            }
        }
    }

    fn create(&self, spec: Spec) -> Result<Done, Failure> {
        let failed = |text: String| Err(Failure::new("CannotCreateContainerError", text));
        let mut containers = self.containers();
        if containers.contains_key(&spec.name) {
            return failed(format!("the container name {} is already in use", spec.name));
        }
        if containers.len() == CONTAINERS_MAX {
            return failed(format!("a task has at most {CONTAINERS_MAX} containers"));
        }
        if spec.argv.is_empty() {
            return failed("no command specified".to_owned());
        }
        if let Err(e) = crate::agent::drivers::validate(&spec.log_driver, &spec.log_options) {
            return failed(e);
        }
        let name = spec.name.clone();
        let (container, warnings) = Container::new(spec, self.shared.clone());
        containers.insert(name, Arc::new(container));
        drop(containers);
        self.shared.changed.send_modify(|n| *n += 1);
        Ok(Done { warnings, ..Done::default() })
    }
}

async fn say(write: &mut OwnedWriteHalf, said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said).map_err(io::Error::other)?;
    line.push(b'\n');
    write.write_all(&line).await
}
