//! Control groups, versions 1 and 2: limits, what a container uses, and a sure way to end all of its processes.
//!
//! Enters: limits. Leaves: a group of its own under `firelane/TASK/CONTAINER`. Can go wrong: the machine does not let us;
//! then there are no limits, and a warning says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::spec::Stats;

/// Where control groups are.
pub(in crate::agent) const ROOT: &str = "/sys/fs/cgroup";
/// Microseconds in which a quota of CPU time is counted, as the ECS agent sets it (`ECS_CGROUP_CPU_PERIOD`).
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller quota.
const QUOTA_MIN: u64 = 1000;
/// Rounds of killing: a process that forks while it is killed needs another.
const ROUNDS: usize = 10;

/// What a group may use.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::agent) struct Limits {
    /// Bytes.
    pub(in crate::agent) memory: Option<u64>,
    /// Bytes.
    pub(in crate::agent) reservation: Option<u64>,
    /// 2 to 262,144, as `docker run --cpu-shares`.
    pub(in crate::agent) shares: Option<u64>,
    /// CPU units of which no more are given, also when the machine has time: 1024 are one CPU.
    pub(in crate::agent) cpu: Option<u64>,
}

/// A group; in version 1 there is one in each hierarchy.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Group {
    unified: bool,
    dirs: Vec<PathBuf>,
}

impl Group {
    /// Makes a group. `name` is a path below the root, its parents are made too.
    ///
    /// # Errors
    /// What is refused.
    pub(in crate::agent) fn make(root: &Path, name: &str, limits: Limits) -> Result<Group, String> {
        let unified = root.join("cgroup.controllers").exists();
        let roots: Vec<PathBuf> = match unified {
            true => vec![root.to_owned()],
            false => {
                ["memory", "cpu", "cpuacct"].iter().map(|c| root.join(c)).filter(|d| d.exists()).collect()
            }
        };
        if roots.is_empty() {
            return Err(format!("there are no control groups at {}", root.display()));
        }
        let mut dirs: Vec<PathBuf> = Vec::new();
        for base in roots {
            let mut dir = base;
            for part in name.split('/') {
                if unified {
                    // What is not there cannot be handed down; the limit below says so.
                    let _missing = fs::write(dir.join("cgroup.subtree_control"), "+memory +cpu");
                }
                dir.push(part);
                match fs::create_dir(&dir) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(format!("cannot make the control group {}: {e}", dir.display()));
                    }
                    _ => {}
                }
                // Version 1: what is below counts here too. Refused where it is so already.
                let _already = fs::write(dir.join("memory.use_hierarchy"), "1");
            }
            // Controllers that are mounted together are one directory by two names.
            if !dirs.iter().any(|d| d.canonicalize().ok() == dir.canonicalize().ok()) {
                dirs.push(dir);
            }
        }
        let group = Group { unified, dirs };
        group.limit(limits)?;
        Ok(group)
    }

    fn limit(&self, limits: Limits) -> Result<(), String> {
        let write = |file: &str, value: &str| match self.file(file) {
            Some(path) => fs::write(&path, value)
                .map_err(|e| format!("cannot write {value} to {}: {e}", path.display())),
            None => Err(format!("the control groups of this machine have no {file}")),
        };
        let set = |file: &str, value: u64| write(file, &value.to_string());
        if let Some(memory) = limits.memory {
            if self.unified {
                set("memory.max", memory)?;
                // As docker: as much swap as memory. Without swap accounting there is no such file.
                let _without = set("memory.swap.max", memory);
            } else {
                set("memory.limit_in_bytes", memory)?;
                let _without = set("memory.memsw.limit_in_bytes", memory.saturating_mul(2));
            }
        }
        if let Some(reservation) = limits.reservation {
            set(if self.unified { "memory.low" } else { "memory.soft_limit_in_bytes" }, reservation)?;
        }
        if let Some(shares) = limits.shares {
            let shares = shares.clamp(2, 262_144);
            match self.unified {
                true => set("cpu.weight", 1 + (shares - 2) * 9999 / 262_142)?,
                false => set("cpu.shares", shares)?,
            }
        }
        if let Some(units) = limits.cpu {
            let quota = (units.saturating_mul(PERIOD) / 1024).max(QUOTA_MIN);
            if self.unified {
                write("cpu.max", &format!("{quota} {PERIOD}"))?;
            } else {
                set("cpu.cfs_period_us", PERIOD)?;
                set("cpu.cfs_quota_us", quota)?;
            }
        }
        Ok(())
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.dirs.iter().map(|d| d.join(name)).find(|p| p.exists())
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.file(name)?).ok()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.read(name)?.trim().parse().ok()
    }

    /// A process enters the group by writing `0` into each of these.
    pub(super) fn doors(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|d| d.join("cgroup.procs")).collect()
    }

    fn pids(&self) -> Vec<i32> {
        self.read("cgroup.procs").unwrap_or_default().lines().filter_map(|l| l.parse().ok()).collect()
    }

    /// Ends every process in it.
    pub(super) fn kill(&self) {
        for _ in 0..ROUNDS {
            let pids = self.pids();
            if pids.is_empty() {
                return;
            }
            for pid in pids.into_iter().filter_map(Pid::from_raw) {
                // It may have ended by itself.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// How often the kernel has killed a process here for want of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let file = if self.unified { "memory.events" } else { "memory.oom_control" };
        let text = self.read(file).unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or_default()
    }

    pub(super) fn stats(&self) -> Stats {
        let processes = self.pids().len() as u64;
        if self.unified {
            let cpu = self.read("cpu.stat").unwrap_or_default();
            let usec = cpu.lines().find_map(|l| l.strip_prefix("usage_usec ")?.trim().parse::<u64>().ok());
            return Stats {
                cpu: usec.unwrap_or_default().saturating_mul(1000),
                memory: self.number("memory.current").unwrap_or_default(),
                memory_limit: self.number("memory.max"),
                processes,
            };
        }
        // Without a limit the file holds the largest number that the kernel can think of.
        let limit = self.number("memory.limit_in_bytes").filter(|l| *l < 1 << 62);
        Stats {
            cpu: self.number("cpuacct.usage").unwrap_or_default(),
            memory: self.number("memory.usage_in_bytes").unwrap_or_default(),
            memory_limit: limit,
            processes,
        }
    }

    /// Removes it; it must be empty.
    pub(super) fn remove(&self) {
        for dir in &self.dirs {
            // A process that is just about to be gone keeps it: the next task of that name finds it empty.
            let _busy = fs::remove_dir(dir);
        }
    }
}

fn hierarchies(root: &Path, unified: bool) -> Vec<PathBuf> {
    match unified {
        true => vec![root.to_owned()],
        false => ["memory", "cpu", "cpuacct"].iter().map(|c| root.join(c)).filter(|d| d.exists()).collect(),
    }
}

/// Ends what is left in a task's groups, and removes them: a supervisor that was killed could not.
pub(super) fn sweep(root: &Path, name: &str) {
    let unified = root.join("cgroup.controllers").exists();
    for base in hierarchies(root, unified) {
        let task = base.join(name);
        // There are none, unless it was killed.
        let Ok(entries) = fs::read_dir(&task) else { continue };
        for dir in entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()) {
            let group = Group { unified, dirs: vec![dir] };
            group.kill();
            group.remove();
        }
        Group { unified, dirs: vec![task] }.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_version_2_has_dockers_limits() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "").unwrap();
        let dir = root.path().join("firelane/t/c");
        fs::create_dir_all(&dir).unwrap();
        for file in ["memory.max", "memory.swap.max", "memory.low", "cpu.weight", "cpu.max"] {
            fs::write(dir.join(file), "").unwrap();
        }
        let limits =
            Limits { memory: Some(100), reservation: Some(50), shares: Some(262_144), cpu: Some(512) };
        let group = Group::make(root.path(), "firelane/t/c", limits).unwrap();
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
        assert_eq!([read("memory.max"), read("memory.low"), read("cpu.weight")], ["100", "50", "10000"]);
        assert_eq!(read("cpu.max"), "50000 100000");
        fs::write(dir.join("memory.events"), "low 0\noom 2\noom_kill 3\n").unwrap();
        fs::write(dir.join("cpu.stat"), "usage_usec 5\nuser_usec 4\n").unwrap();
        assert_eq!((group.oom_kills(), group.stats().cpu), (3, 5000));
        assert_eq!(group.doors(), [dir.join("cgroup.procs")]);
    }

    #[test]
    fn a_machine_without_control_groups_says_so() {
        let root = tempfile::tempdir().unwrap();
        assert!(
            Group::make(root.path(), "firelane/t", Limits::default())
                .unwrap_err()
                .contains("no control groups")
        );
    }
}
