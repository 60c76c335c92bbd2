//! From an order to a running process.
//!
//! Enters: an order, and where its output goes. Leaves: the process's id once its program has begun, and what the stage
//! warned of. Can go wrong: what the stage says; the process is gone then.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::reap::{Exit, Reaper};
use super::stage::{Order, Word};

/// How long a container may take from the order to its first instruction.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the stage may say at most.
const WORDS_MAX: u64 = 64 << 10;

/// A process that has begun.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: i32,
    pub(super) exit: Exit,
    pub(super) warnings: Vec<String>,
}

/// Why it has not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotStarted {
    /// docker's exit code: 126, 127, or 128.
    pub(super) code: i32,
    pub(super) text: String,
}

fn not_started(text: String) -> NotStarted {
    NotStarted { code: 128, text }
}

/// Starts a process.
///
/// # Errors
/// See [`NotStarted`].
pub(super) async fn launch(
    order: &Order,
    out: OwnedFd,
    err: OwnedFd,
    reaper: &Reaper,
) -> Result<Started, NotStarted> {
    let failed = |e: io::Error| not_started(format!("cannot start a process: {e}"));
    let (ours, theirs) = StdStream::pair().map_err(failed)?;
    let order = serde_json::to_vec(order).map_err(|e| not_started(format!("cannot write the order: {e}")))?;
    // The file that we are, also when another has its name by now.
    let child = Command::new("/proc/self/exe")
        .arg0("firelane")
        .arg("exec-stage")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(out))
        .stderr(Stdio::from(err))
        .spawn()
        .map_err(failed)?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let exit = reaper.watch(pid);
    ours.set_nonblocking(true).map_err(failed)?;
    let mut socket = UnixStream::from_std(ours).map_err(failed)?;
    let talk = async {
        socket.write_all(&order).await?;
        // The order ends here; the stage's words come on the same socket.
        socket.shutdown().await?;
        let mut text = String::new();
        socket.take(WORDS_MAX).read_to_string(&mut text).await?;
        Ok::<String, io::Error>(text)
    };
    let text = match tokio::time::timeout(PATIENCE, talk).await {
        Ok(Ok(text)) => text,
        Ok(Err(e)) => return Err(abandon(pid, failed(e))),
        Err(_) => return Err(abandon(pid, not_started(format!("it has not begun within {PATIENCE:?}")))),
    };
    let mut warnings = Vec::new();
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Word::Warning(text)) => warnings.push(text),
            Ok(Word::Failed { code, text }) => {
                // It ends by itself; nobody waits for it but the reaper.
                let _code = exit.await;
                return Err(NotStarted { code: i32::from(code), text });
            }
            Err(e) => return Err(abandon(pid, not_started(format!("cannot understand the stage: {e}")))),
        }
    }
    Ok(Started { pid, exit, warnings })
}

fn abandon(pid: i32, why: NotStarted) -> NotStarted {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // It may have ended by itself.
        let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    why
}
