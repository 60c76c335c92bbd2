//! `firelane exec-stage`: the moment between a supervisor's child and a container's first instruction.
//!
//! Enters: an order on standard input, one JSON document. Leaves: the container's program, in its session, control group,
//! namespaces, limits, user and directory. Can go wrong: any of these; a line of JSON on the same socket says which, with
//! docker's exit code (126 cannot be run, 127 not found), and the socket closes by itself when the program has begun.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::{Gid, Mode, Uid};
use rustix::process::{
    Resource, Rlimit, Signal, chdir, geteuid, set_parent_process_death_signal, setrlimit, setsid,
};
use serde::{Deserialize, Serialize};

use super::convert::CONFIG;
use super::spec::{Mount, Ulimit};
use super::{rootfs, router, users};
use crate::agent::plan::names;

/// docker's search path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to become. `Debug` prints no values of its variables.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Order {
    pub(super) argv: Vec<String>,
    /// As given; PATH, HOSTNAME and HOME are added as docker does.
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: Option<String>,
    pub(super) user: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) ulimits: Vec<Ulimit>,
    pub(super) mounts: Vec<Mount>,
    pub(super) no_new_privileges: bool,
    /// `cgroup.procs` files.
    pub(super) doors: Vec<PathBuf>,
    /// The process whose namespaces are to be entered; `None`: make new ones.
    pub(super) join: Option<i32>,
    /// An empty directory to build a root in.
    pub(super) scratch: PathBuf,
    /// End with the supervisor.
    pub(super) die_with_parent: bool,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("argv", &self.argv)
            .field("env", &names(&self.env))
            .field("join", &self.join)
            .finish_non_exhaustive()
    }
}

/// What the stage says before it is gone.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    Warning(String),
    Failed { code: u8, text: String },
}

struct Failed(u8, String);

/// A failure that has nothing to do with the program: docker's client ends with 128 then.
fn failed(text: impl Into<String>) -> Failed {
    Failed(128, text.into())
}

/// Runs the stage. Comes back only when something went wrong.
pub fn run() -> ExitCode {
    let Ok(mut socket) = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3).map(File::from) else {
        return ExitCode::from(128);
    };
    let mut text = String::new();
    let result = match socket.read_to_string(&mut text) {
        Ok(_) => serde_json::from_str::<Order>(&text).map_err(|e| failed(format!("the order is none: {e}"))),
        Err(e) => Err(failed(format!("cannot read the order: {e}"))),
    };
    let mut say = |word: &Word| {
        let line = serde_json::to_string(word).unwrap_or_default();
        // Without a supervisor there is nobody to tell.
        let _gone = writeln!(socket, "{line}");
    };
    let Failed(code, text) = match result {
        Ok(order) => become_it(&order, &mut |text| say(&Word::Warning(text))),
        Err(e) => e,
    };
    say(&Word::Failed { code, text });
    ExitCode::from(code)
}

fn become_it(order: &Order, warn: &mut dyn FnMut(String)) -> Failed {
    match prepare(order, warn) {
        Ok(mut command) => {
            let e = command.exec();
            let name = order.argv.first().map_or("", String::as_str);
            cannot_run(name, &e)
        }
        Err(e) => e,
    }
}

fn prepare(order: &Order, warn: &mut dyn FnMut(String)) -> Result<Command, Failed> {
    let null = File::open("/dev/null").map_err(|e| failed(format!("/dev/null: {e}")))?;
    rustix::stdio::dup2_stdin(&null).map_err(|e| failed(format!("/dev/null: {e}")))?;
    setsid().map_err(|e| failed(format!("no session of its own: {e}")))?;
    for door in &order.doors {
        if let Err(e) = fs::write(door, "0") {
            warn(format!("{}: {e}; its limits do not hold", door.display()));
        }
    }
    let root = geteuid().is_root();
    let argv = match order.join {
        Some(pid) => {
            rootfs::join(pid).map_err(failed)?;
            order.argv.clone()
        }
        None => see(order, root, warn)?,
    };
    for ulimit in &order.ulimits {
        limit(ulimit)?;
    }
    let user = whom(order, root)?;
    let mut env = default_env(order);
    if let Some(user) = &user
        && !env.iter().any(|(name, _)| name == "HOME")
    {
        env.push(("HOME".to_owned(), user.home.clone()));
    }
    // In a user namespace there is one user, and this process is it.
    if let Some(user) = user.filter(|_| root && !rootfs::in_user_namespace()) {
        change(&user)?;
    }
    let cwd = order.cwd.as_deref().filter(|c| !c.is_empty()).unwrap_or("/");
    chdir(cwd).map_err(|e| failed(format!("chdir to cwd ({cwd:?}) set in config.json failed: {e}")))?;
    if order.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(|e| failed(format!("no-new-privileges: {e}")))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // After the user was changed, because that forgets it.
    if order.die_with_parent {
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| failed(format!("prctl: {e}")))?;
    }
    let (name, rest) = argv.split_first().ok_or_else(|| failed("no command specified"))?;
    let path = env.iter().rev().find(|(n, _)| n == "PATH").map_or(PATH, |(_, v)| v.as_str());
    let program = find(name, path)?;
    let mut command = Command::new(program);
    command.arg0(name).args(rest).env_clear().envs(env);
    Ok(command)
}

/// Namespaces and mounts. Without the right to either, a container sees the machine as it is, and is told so; a router's
/// fixed paths become those of this machine. Gives what is to be run.
fn see(order: &Order, root: bool, warn: &mut dyn FnMut(String)) -> Result<Vec<String>, Failed> {
    let wants_root = order.user.as_deref().is_some_and(|u| matches!(u.split(':').next(), Some("0" | "root")));
    let inside = (root || wants_root).then_some((0, 0));
    // Root may lack the right to a mount namespace and still have that to a user namespace; but there is one user in it.
    let alone = wants_root || order.user.as_deref().is_none_or(str::is_empty);
    let refused = match rootfs::unshare(order.hostname.as_deref(), inside, !root || alone) {
        Ok(()) => {
            let cwd = order.cwd.as_deref().filter(|c| c.starts_with('/')).map(Path::new);
            let needed: Vec<&Path> = cwd.into_iter().collect();
            rootfs::build(&order.mounts, &needed, &order.scratch).map_err(failed)?;
            return Ok(order.argv.clone());
        }
        Err(e) => e,
    };
    if order.mounts.is_empty() {
        warn(format!("{refused}; the container sees the machine's file system"));
        return Ok(order.argv.clone());
    }
    let config = order.mounts.iter().find(|m| m.target == Path::new(CONFIG)).and_then(|m| m.source.clone());
    let Some(config) = config else {
        return Err(failed(format!("{refused}; its volumes cannot be mounted")));
    };
    let unreadable = |e: io::Error| failed(format!("{}: {e}", config.display()));
    let text = router::as_here(&fs::read_to_string(&config).map_err(unreadable)?, &order.mounts);
    let own = order.scratch.with_file_name("router-here.conf");
    fs::write(&own, text).map_err(unreadable)?;
    warn(format!(
        "{refused}; {CONFIG} and /var/run/fluent.sock are paths of this machine in the router's configuration: {}",
        own.display()
    ));
    let own = own.to_string_lossy();
    Ok(order.argv.iter().map(|word| if word == CONFIG { own.to_string() } else { word.clone() }).collect())
}

/// `None`: as the agent's own user.
fn whom(order: &Order, root: bool) -> Result<Option<users::User>, Failed> {
    let text = order.user.as_deref().unwrap_or_default();
    if !root && text.is_empty() {
        return Ok(None);
    }
    // A machine without these files has numbers all the same.
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let user = users::find(text, &read("/etc/passwd"), &read("/etc/group")).map_err(failed)?;
    if !root && user.uid != geteuid().as_raw() {
        return Err(failed(format!("user {text:?}: only an agent that runs as root can change the user")));
    }
    Ok(Some(user))
}

fn change(user: &users::User) -> Result<(), Failed> {
    let refused = |e| failed(format!("cannot become user {}:{}: {e}", user.uid, user.gid));
    let groups: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    rustix::thread::set_thread_groups(&groups).map_err(refused)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(refused)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(refused)
}

/// PATH and HOSTNAME before what is given.
fn default_env(order: &Order) -> Vec<(String, String)> {
    let mut env = vec![("PATH".to_owned(), PATH.to_owned())];
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    env.push(("HOSTNAME".to_owned(), order.hostname.clone().unwrap_or_else(machine)));
    env.extend(order.env.iter().cloned());
    env
}

fn limit(ulimit: &Ulimit) -> Result<(), Failed> {
    let resource = match ulimit.name.as_str() {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        name => return Err(failed(format!("invalid ulimit type: {name}"))),
    };
    let value = |n: i64| u64::try_from(n).ok();
    let limits = Rlimit { current: value(ulimit.soft), maximum: value(ulimit.hard) };
    setrlimit(resource, limits).map_err(|e| {
        failed(format!("error setting rlimit {} to {}:{}: {e}", ulimit.name, ulimit.soft, ulimit.hard))
    })
}

/// The file that a name means.
fn find(name: &str, path: &str) -> Result<PathBuf, Failed> {
    let check = |file: &Path| -> io::Result<()> {
        let meta = fs::metadata(file)?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        match meta.permissions().mode() & 0o111 {
            0 => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        }
    };
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(e) => Err(cannot_run(name, &e)),
        };
    }
    let mut denied = None;
    for dir in path.split(':') {
        let file = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => denied = Some(e),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(e) => cannot_run(name, &e),
        None => Failed(127, format!("exec: {name:?}: executable file not found in $PATH")),
    })
}

/// docker's sentence and exit code.
fn cannot_run(name: &str, e: &io::Error) -> Failed {
    match e.kind() {
        io::ErrorKind::NotFound => {
            Failed(127, format!("exec: {name:?}: stat {name}: no such file or directory"))
        }
        io::ErrorKind::IsADirectory => Failed(126, format!("exec: {name:?}: is a directory")),
        io::ErrorKind::PermissionDenied => Failed(126, format!("exec: {name:?}: permission denied")),
        _ => Failed(126, format!("exec: {name:?}: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_or_refused_with_dockers_codes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let file = dir.path().join("tool");
        fs::write(&file, "").unwrap();
        let code = |name: &str| find(name, path).map(drop).map_err(|e| e.0);
        assert_eq!((code("tool"), code("none"), code("/none")), (Err(126), Err(127), Err(127)));
        assert_eq!(code(path), Err(126));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(code("tool"), Ok(()));
    }

    #[test]
    fn the_environment_is_what_is_given_and_what_docker_adds() {
        let order = Order {
            env: vec![("A".into(), "b".into()), ("PATH".into(), "/x".into())],
            hostname: Some("h".into()),
            ..Order::default()
        };
        let env = default_env(&order);
        assert_eq!(env.len(), 4);
        assert_eq!(env.last().unwrap().1, "/x");
    }
}
