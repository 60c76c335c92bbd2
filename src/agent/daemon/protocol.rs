//! What clients and a daemon say to each other: one JSON line asks, one or more answer, and the connection ends.
//!
//! Enters, leaves: [`Ask`], [`Said`]. Can go wrong: nobody listens, a line is too long or no JSON; each is an error that
//! says what to do. Only the daemon's user and root may connect: the socket's mode is 0600.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::store::{self, Record};
use crate::agent::planning::Choices;

/// A line has at most so many bytes: a task definition has 1 MiB at most, a list a kilobyte or two for each task.
pub(super) const LINE_MAX: u64 = 32 << 20;

/// What a client wants.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum Ask {
    /// Run a task. Answer: its record.
    Run {
        /// The JSON of a task definition.
        definition: String,
        /// `id` and `data` are the daemon's to decide.
        choices: Box<Choices>,
    },
    /// All tasks. Answer: their records.
    List,
    /// Stop a task. Answer: its record, before it has ended.
    Stop {
        /// Its id, its ARN, or how its id begins.
        task: String,
        /// For `stoppedReason`.
        reason: String,
    },
    /// Answers: its record whenever it changes; the last one has ended.
    Watch {
        /// See `Stop`.
        task: String,
    },
}

/// What a daemon answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Said {
    /// A task.
    Task(Box<Record>),
    /// All tasks, the oldest first.
    Tasks(Vec<Record>),
    /// It cannot be done, and why.
    Refused(String),
}

/// One question and its answers.
#[derive(Debug)]
pub struct Client {
    read: BufReader<UnixStream>,
}

impl Client {
    /// Asks the daemon that has the directory `state`.
    ///
    /// # Errors
    /// None answers there.
    pub async fn ask(state: &Path, ask: &Ask) -> Result<Client, String> {
        let path = store::socket(state);
        let failed = |e: &io::Error| {
            format!(
                "no agent answers at {}: {e}; start one with `firelane agent --state {}`",
                path.display(),
                state.display()
            )
        };
        let mut stream = connect(&path).map_err(|e| failed(&e))?;
        let mut line = serde_json::to_vec(ask).map_err(|e| e.to_string())?;
        line.push(b'\n');
        stream.write_all(&line).await.map_err(|e| failed(&e))?;
        Ok(Client { read: BufReader::new(stream) })
    }

    /// The next answer; `None` after the last.
    ///
    /// # Errors
    /// The daemon has refused, gone, or is of another version.
    pub async fn next(&mut self) -> Result<Option<Said>, String> {
        match line(&mut self.read).await.map_err(|e| format!("the agent has gone: {e}"))? {
            None => Ok(None),
            Some(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Said::Refused(why)) => Err(why),
                Ok(said) => Ok(Some(said)),
                Err(e) => Err(format!("cannot understand the agent: {e}; is it of this version?")),
            },
        }
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = StdStream::connect(path)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// A line, without its end; `None` where there is none.
pub(super) async fn line(read: &mut BufReader<UnixStream>) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if read.take(LINE_MAX).read_until(b'\n', &mut bytes).await? == 0 {
        return Ok(None);
    }
    match bytes.pop() {
        Some(b'\n') => Ok(Some(bytes)),
        _ => Err(io::Error::other("a line ends too early or is too long")),
    }
}

/// Where containers of a task write their lines, if they do: `tasks/ID/logs`.
pub fn logs_dir(state: &Path, id: &str) -> PathBuf {
    state.join("tasks").join(id).join("logs")
}
