//! Processes of a session, and children, from `/proc`: for machines without control groups.
//!
//! Enters: a session. Leaves: what its processes use; or their end. Can go wrong: a process that comes or goes meanwhile is
//! seen or not.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::spec::Stats;

/// Nanoseconds of a clock tick; Linux shows 100 a second.
const TICK: u64 = 10_000_000;

/// One process, of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    session: i32,
    /// Ticks of CPU.
    cpu: u64,
    /// Pages in memory.
    pages: u64,
}

fn parse(stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(')')?;
    let pid = head.split(' ').next()?.parse().ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let session = fields.get(3)?.parse().ok()?;
    Some(Process { pid, session, cpu: number(11)? + number(12)?, pages: number(21)? })
}

fn of_session(session: Pid) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|e| fs::read_to_string(e.ok()?.path().join("stat")).ok())
        .filter_map(|stat| parse(&stat))
        .filter(|p| p.session == session.as_raw_nonzero().get())
        .collect()
}

/// Ends every process of a session.
pub(super) fn kill_session(session: Pid) {
    for process in of_session(session) {
        if let Some(pid) = Pid::from_raw(process.pid) {
            // It may have ended by itself.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
}

/// Ends every child of this process: those that lost their parents, and left their sessions.
pub(super) fn kill_children() {
    let own = rustix::process::getpid().as_raw_nonzero();
    // Kernels without CONFIG_PROC_CHILDREN do not tell.
    let Ok(children) = fs::read_to_string(format!("/proc/self/task/{own}/children")) else { return };
    for pid in children.split_ascii_whitespace().filter_map(|p| Pid::from_raw(p.parse().ok()?)) {
        // It may have ended by itself.
        let _gone = kill_process(pid, Signal::KILL);
    }
}

/// What the processes of a session use.
pub(super) fn stats(session: Pid) -> Stats {
    let page = rustix::param::page_size() as u64;
    of_session(session).iter().fold(Stats::default(), |sum, p| Stats {
        cpu: sum.cpu + p.cpu * TICK,
        memory: sum.memory + p.pages * page,
        memory_limit: None,
        processes: sum.processes + 1,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_confuse() {
        let stat =
            "42 (a b) c)) S 1 42 41 0 -1 4194560 1 0 0 0 7 5 0 0 20 0 1 0 99 1000 33 18446744073709551615";
        assert_eq!(parse(stat), Some(Process { pid: 42, session: 41, cpu: 12, pages: 33 }));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn a_process_is_found_in_its_session_and_ends_with_it() {
        // A session of its own: that of this test may have begun outside the container it runs in, and is then called 0.
        let mut child = Command::new("setsid").args(["sleep", "600"]).spawn().unwrap();
        let session = Pid::from_child(&child);
        // setsid takes the session before it becomes sleep; while it does, it has no memory.
        let mut used = stats(session);
        while used.memory == 0 {
            thread::yield_now();
            used = stats(session);
        }
        assert_eq!(used.processes, 1);
        kill_session(session);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        assert!(of_session(session).is_empty());
    }
}
