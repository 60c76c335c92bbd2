//! Tasks whose command was killed. Docker runs their containers on, and nobody looks after them any more.
//!
//! Enters: the directory of a command, which it holds locked as long as it lives; the labels of what an engine has. Leaves:
//! what is left of each such task, and what removes it. Can go wrong: what the engine says. Of a directory that is gone or
//! another user's nothing is known, and nothing said.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::LABELS;
use super::api::Api;
use crate::agent::runtime::Failure;

/// The label of a command's containers: its directory.
pub(super) const DIRECTORY: &str = "firelane.directory";
/// Docker takes so many digits of an id for it, and shows no more itself.
const DIGITS: usize = 12;

/// A living command's hold on its directory. Whoever can lock that alone knows that the command has ended, however it did.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) dir: PathBuf,
    /// Shared: several commands may have one directory.
    _lock: File,
}

impl Lease {
    pub(super) fn new(dir: &Path) -> io::Result<Lease> {
        let lock = File::open(dir)?;
        lock.lock_shared()?;
        Ok(Lease { dir: dir.to_owned(), _lock: lock })
    }
}

/// Nobody holds the directory.
fn is_left(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|dir| dir.try_lock().is_ok())
}

/// What a command that was killed has left of a task.
#[derive(Debug)]
pub struct Orphan {
    arn: String,
    dir: PathBuf,
    /// Ids of its containers, and of those that hold something for them.
    containers: Vec<String>,
    volumes: Vec<String>,
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.containers.iter().map(|id| id.get(..DIGITS).unwrap_or(id)).collect();
        let (arn, dir) = (&self.arn, self.dir.display());
        write!(
            f,
            "task {arn} was left behind by its command, which has gone: its containers are in Docker and its files in \
             {dir}; to remove its containers: docker rm -fv {}",
            ids.join(" ")
        )?;
        match self.volumes.as_slice() {
            [] => Ok(()),
            volumes => write!(f, " && docker volume rm {}", volumes.join(" ")),
        }
    }
}

/// Looks for them.
pub(super) async fn find(api: &Api) -> Result<Vec<Orphan>, Failure> {
    let mut left: BTreeMap<String, PathBuf> = BTreeMap::new();
    for container in api.list(DIRECTORY).await? {
        let labels = container.labels.unwrap_or_default();
        if let (Some(dir), Some(arn)) = (labels.get(DIRECTORY), labels.get(&format!("{LABELS}task-arn"))) {
            left.insert(arn.clone(), dir.into());
        }
    }
    left.retain(|_, dir| is_left(dir));
    let mut all = Vec::new();
    for (arn, dir) in left {
        let label = format!("{LABELS}task-arn={arn}");
        let containers = api.list(&label).await?.into_iter().filter_map(|c| c.id).collect();
        all.push(Orphan { containers, volumes: api.volumes(&label).await?, arn, dir });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_left_when_the_last_that_held_it_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Lease::new(dir.path()).unwrap(), Lease::new(dir.path()).unwrap());
        drop(one);
        assert!(!is_left(dir.path()));
        drop(other);
        assert!(is_left(dir.path()));
        assert!(!is_left(&dir.path().join("gone")));
    }
}
