//! What a daemon knows of its tasks, on disk.
//!
//! Enters: records. Leaves: `tasks/ID/` for a task's files, `records/ID.json`, replaced whole; `lock`, held as long as the
//! daemon lives. Can go wrong: the disk; a record that cannot be understood, which is put aside and told, so that one bad
//! file does not keep the others from being taken over.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::agent::engine::View;
use crate::agent::planning::Planned;

/// A record is far shorter; a longer file is none.
const RECORD_MAX: u64 = 16 << 20;

/// A task, as a daemon knows it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// 32 hexadecimal digits.
    pub id: String,
    /// `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`
    pub arn: String,
    /// Of the definition.
    pub family: String,
    /// Of the definition.
    pub revision: u32,
    /// When it was taken, milliseconds since 1970.
    pub created_at: i64,
    /// When it had ended and was taken down, milliseconds since 1970.
    pub stopped_at: Option<i64>,
    /// Why somebody wants it to end.
    pub stop: Option<String>,
    /// A Docker engine runs it.
    pub docker: bool,
    /// Where that engine is: `unix://PATH`.
    pub engine: String,
    /// How it stands.
    pub view: View,
    /// What was not as on ECS before it began.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Where its router's files are.
    pub firelens_dir: PathBuf,
    /// What runs, as long as it does. It holds the values of secrets.
    pub planned: Option<Planned>,
}

impl Record {
    /// Whether it has ended and was taken down.
    pub fn has_ended(&self) -> bool {
        self.stopped_at.is_some()
    }

    /// Without what clients need not see.
    pub fn public(&self) -> Record {
        Record { planned: None, ..self.clone() }
    }
}

/// The directory of a daemon.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Held, nobody else's.
    _lock: File,
}

fn make(dir: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(dir)
}

impl Store {
    /// Opens a directory, and makes it where there is none.
    ///
    /// # Errors
    /// Another daemon has it; the disk's.
    pub fn open(dir: &Path) -> io::Result<Store> {
        let named = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        // Apps of any user reach their router's socket beneath it; records are the daemon's alone.
        for (path, mode) in
            [(dir.to_owned(), 0o711), (dir.join("tasks"), 0o711), (dir.join("records"), 0o700)]
        {
            make(&path, mode).map_err(|e| named(&path, e))?;
        }
        let dir = dir.canonicalize().map_err(|e| named(dir, e))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(|e| named(&path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(Store { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::other(format!("another agent runs in {}; use another --state", dir.display())))
            }
            Err(TryLockError::Error(e)) => Err(named(&path, e)),
        }
    }

    /// Beneath it each task has a directory.
    pub fn tasks_dir(&self) -> PathBuf {
        self.dir.join("tasks")
    }

    /// Where clients find the daemon.
    pub fn socket(&self) -> PathBuf {
        socket(&self.dir)
    }

    /// All that there are. A file that cannot be understood is renamed to `ID.bad`.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&self) -> io::Result<Vec<Record>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.dir.join("records"))? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) => all.push(record),
                Err(e) => {
                    let aside = path.with_extension("bad");
                    tracing::error!(cause = %e, "{} is no record of a task; it is now {}", path.display(), aside.display());
                    fs::rename(&path, &aside)?;
                }
            }
        }
        Ok(all)
    }

    /// Writes a record. `sync`: it is on the disk when this returns; else it outlives the daemon, not the machine.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, record: &Record, sync: bool) -> io::Result<()> {
        let dir = self.dir.join("records");
        let (path, new) = (dir.join(format!("{}.json", record.id)), dir.join(format!("{}.new", record.id)));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(record).map_err(io::Error::other)?)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&new, &path)?;
        if sync { File::open(&dir)?.sync_all() } else { Ok(()) }
    }

    /// Removes a record and the files of its task.
    ///
    /// # Errors
    /// The disk's.
    pub fn forget(&self, id: &str) -> io::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        gone(fs::remove_dir_all(self.tasks_dir().join(id)))?;
        gone(fs::remove_file(self.dir.join("records").join(format!("{id}.json"))))
    }
}

/// Where the daemon of a directory listens.
pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join("agent.sock")
}

fn read(path: &Path) -> io::Result<Record> {
    let size = fs::metadata(path)?.len();
    if size > RECORD_MAX {
        return Err(io::Error::other(format!("it has {size} bytes")));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}
