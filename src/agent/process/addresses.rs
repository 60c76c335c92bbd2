//! Loopback addresses: every FireLens task has one of its own, so that all routers can listen on their usual ports.
//!
//! Enters: the directories of tasks, in which the addresses in use are kept. Leaves: 127.0.0.1, or the next that no task
//! has and on which nobody listens, and a hold on it: until the router listens, nothing else says to other agents of this
//! machine that it is taken. Can go wrong: there is none left.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Name of the file in a task's directory.
const FILE: &str = "address";
static CLAIMING: Mutex<()> = Mutex::new(());
/// As many are tried.
const ADDRESSES: u8 = 250;

/// The address of the task in `dir`: the one that it has, or one that no task beside it has, and with these ports free.
///
/// # Errors
/// None is left, or the disk's.
pub(super) fn of_task(dir: &Path, ports: &[u16]) -> Result<(Ipv4Addr, Hold), String> {
    let (Some(tasks), Some(task)) = (dir.parent(), dir.file_name().and_then(|n| n.to_str())) else {
        return Err(format!("{} is no directory of a task", dir.display()));
    };
    claim(tasks, task, |address| is_free(address, ports))
}

/// Gives the address of the task in `dir` back.
pub(super) fn free(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The address of a task: the one that it has, or a new one. `free` says whether a router could listen on it.
///
/// # Errors
/// None is left, or the disk's.
fn claim(tasks: &Path, task: &str, free: impl Fn(Ipv4Addr) -> bool) -> Result<(Ipv4Addr, Hold), String> {
    // Two tasks that begin at once must not find the same one free. Nothing is half-done while it is held.
    let _alone = CLAIMING.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |e: io::Error| format!("cannot keep the address of task {task}: {e}");
    let file = tasks.join(task).join(FILE);
    if let Some(address) = read(&file) {
        return Ok((address, hold(address)));
    }
    let mut taken = Vec::new();
    for entry in fs::read_dir(tasks).map_err(failed)? {
        taken.extend(read(&entry.map_err(failed)?.path().join(FILE)));
    }
    let (address, held) = (1..=ADDRESSES)
        .map(|n| Ipv4Addr::new(127, 0, 0, n))
        .filter(|address| !taken.contains(address))
        .map(|address| (address, hold(address)))
        .find(|(address, held)| held.0.is_some() && free(*address))
        .ok_or_else(|| format!("no loopback address is left for the router of task {task}: 127.0.0.1 to 127.0.0.{ADDRESSES} are in use"))?;
    fs::write(file, address.to_string()).map_err(failed)?;
    Ok((address, held))
}

/// As long as it lives, no other agent of this machine gives the address to a task.
#[derive(Debug)]
pub(super) struct Hold(Option<UnixListener>);

/// A socket with a name that is no file: the kernel gives it to one process, and forgets it with that.
fn hold(address: Ipv4Addr) -> Hold {
    let name = SocketAddr::from_abstract_name(format!("firelane-task-{address}"));
    Hold(name.and_then(|name| UnixListener::bind_addr(&name)).ok())
}

/// Whether nobody listens on these ports of an address.
fn is_free(address: Ipv4Addr, ports: &[u16]) -> bool {
    ports.iter().all(|port| TcpListener::bind((address, *port)).is_ok())
}

fn read(file: &Path) -> Option<Ipv4Addr> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_its_own_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        for task in ["a", "b", "c"] {
            fs::create_dir(dir.path().join(task)).unwrap();
        }
        let free = |address: Ipv4Addr| address.octets()[3] != 2;
        let claim = |task: &str| claim(dir.path(), task, free).unwrap();
        let ((first, held), (second, _)) = (claim("a"), claim("b"));
        assert!(first != second && first.octets()[3] != 2 && second.octets()[3] != 2);
        assert_eq!(claim("a").0, first);
        // Held, it is nobody else's, though the directory is gone.
        fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert!(held.0.is_some());
        assert_ne!(claim("c").0, first);
    }
}
