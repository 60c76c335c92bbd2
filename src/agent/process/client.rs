//! The agent's side of a supervisor: start one, or find one that runs.
//!
//! Enters: a task's directory. Leaves: requests with their answers, and the states of its containers. Can go wrong: there
//! is no supervisor at the socket; it goes away; then everything that waits is told so.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};

use super::spec::{Call, Done, LINE_MAX, Request, Said};
use super::tether::Tether;
use crate::agent::runtime::{Failure, States};
use crate::rt::Tasks;

/// Name of the socket in a task's directory.
const SOCKET: &str = "supervisor.sock";
/// How long a supervisor may take to say its first words.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first line, with ten containers and their health, is far shorter.
const FIRST_LINE: u64 = LINE_MAX as u64;

/// A supervisor.
#[derive(Debug)]
pub(super) struct Client {
    shared: Arc<Shared>,
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Done, Failure>>>>,
    states: watch::Sender<States>,
}

fn gone() -> Failure {
    Failure::new("DockerStateError", "the supervisor of the task is gone, and its containers with it")
}

/// What a supervisor leaves in a task's directory, but for its log.
pub(super) fn clean(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(SOCKET)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A directory that others do not see into.
fn private(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// A short way to a file in a directory: the name of a unix socket has 107 bytes.
fn short(dir: &Path, name: &str) -> io::Result<(File, PathBuf)> {
    let flags = (OFlags::PATH | OFlags::CLOEXEC).bits().cast_signed();
    let held = OpenOptions::new().read(true).custom_flags(flags).open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", held.as_raw_fd()));
    Ok((held, path))
}

impl Client {
    /// Starts a supervisor for the task in `dir` and connects to it. `limits`: bytes of memory and CPU units
    /// of the whole task, 0: no limit. `tether`: the task ends with this agent.
    pub(super) async fn start(
        dir: &Path,
        group: &str,
        limits: (u64, u64),
        tether: Option<&Tether>,
        program: &Path,
        tasks: &Tasks,
    ) -> Result<Client, String> {
        let failed = |e: io::Error| format!("cannot start a supervisor in {}: {e}", dir.display());
        private(dir).map_err(failed)?;
        let (_held, socket) = short(dir, SOCKET).map_err(failed)?;
        match fs::remove_file(&socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let listener = StdListener::bind(&socket).map_err(failed)?;
        let tether = tether.map(serde_json::to_string).transpose();
        let tether = tether.map_err(|e| failed(io::Error::other(e)))?;
        let child = Command::new(program)
            .arg0("firelane")
            .args(["supervise".as_ref(), dir.as_os_str(), group.as_ref()])
            .args([limits.0.to_string(), limits.1.to_string()])
            .args(tether)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        tasks.spawn("supervisor's end", collect(child));
        Client::connect(dir, tasks).await
    }

    /// Connects to a supervisor that runs already.
    pub(super) async fn connect(dir: &Path, tasks: &Tasks) -> Result<Client, String> {
        let failed = |e: io::Error| format!("no supervisor answers in {}: {e}", dir.display());
        let (_held, socket) = short(dir, SOCKET).map_err(failed)?;
        // At once or not at all: it listens since before its program began.
        let stream = StdStream::connect(&socket).map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let (read, write) = UnixStream::from_std(stream).map_err(failed)?.into_split();
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        let mut first = (&mut read).take(FIRST_LINE);
        let hello = tokio::time::timeout(PATIENCE, first.read_until(b'\n', &mut line)).await;
        hello.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        let Ok(Said::Hello { pid, states }) = serde_json::from_slice(&line) else {
            return Err(failed(io::Error::other("its first words are unknown; is it of another version?")));
        };
        tracing::debug!(pid, dir = %dir.display(), "a supervisor answers");
        let containers = states.into_iter().map(|s| (s.name, s.container)).collect();
        let states = watch::Sender::new(States { containers, gone: false });
        let shared = Arc::new(Shared { waiting: Mutex::default(), states });
        tasks.spawn("supervisor's words", Arc::clone(&shared).listen(read));
        Ok(Client { shared, write: tokio::sync::Mutex::new(write), next: AtomicU64::new(1) })
    }

    /// What is known, and a way to wait for more.
    pub(super) fn states(&self) -> watch::Receiver<States> {
        self.shared.states.subscribe()
    }

    /// Makes a request and waits for its answer. Dropped meanwhile, the request goes on.
    pub(super) async fn call(&self, call: Call) -> Result<Done, Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        if self.shared.states.borrow().gone {
            return Err(gone());
        }
        self.shared.waiting().insert(id, tell);
        let line = serde_json::to_vec(&Request { id, call });
        let mut line = line.map_err(|e| Failure::new("CannotCreateContainerError", e.to_string()))?;
        line.push(b'\n');
        if line.len() > LINE_MAX {
            self.shared.waiting().remove(&id);
            return Err(Failure::new(
                "CannotCreateContainerError",
                format!("its command, environment and options are longer than {LINE_MAX} bytes"),
            ));
        }
        if self.write.lock().await.write_all(&line).await.is_err() {
            return Err(gone());
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// A supervisor that ends while this agent lives is this agent's to collect.
async fn collect(mut child: Child) {
    let ended = async {
        let pid =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let held = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "sound for a descriptor that the AsyncFd owns; its successor is unsafe to call"
        )]
        let ended = AsyncFd::with_interest(held, Interest::READABLE)?;
        ended.readable().await.map(drop)
    };
    if let Err(e) = ended.await {
        // It stays in the table of processes as long as this agent does, and harms nobody.
        tracing::debug!(cause = %e, "cannot wait for a supervisor");
        return;
    }
    // Its log says how it ended.
    let _code = child.try_wait();
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Done, Failure>>>> {
        // The map is whole whenever the lock is free.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(self: Arc<Self>, mut read: BufReader<OwnedReadHalf>) {
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut read).take(FIRST_LINE).read_until(b'\n', &mut line).await {
                Ok(n) if n > 0 => {}
                _ => break,
            }
            match serde_json::from_slice(&line) {
                Ok(Said::State(state)) => self.states.send_modify(|states| {
                    states.containers.insert(state.name, state.container);
                }),
                Ok(Said::Answer { id, result }) => {
                    if let Some(tell) = self.waiting().remove(&id) {
                        // Whoever asked may have lost interest.
                        let _gone = tell.send(result);
                    }
                }
                Ok(Said::Hello { .. }) => {}
                Err(e) => {
                    tracing::error!(cause = %e, "cannot understand a supervisor");
                    break;
                }
            }
        }
        self.states.send_modify(|states| states.gone = true);
        self.waiting().clear();
    }
}
