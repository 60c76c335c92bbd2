//! FireLens's files of a task: where the router finds its configuration, and where its socket will be.
//!
//! Enters: a directory, the configuration's text, the router's user. Leaves: `config/fluent.conf` and `socket/`, as the ECS
//! agent makes them, and the moment when the router listens there. Can go wrong: the disk; a user that is no number, which the ECS agent refuses, too.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a router may take to have its socket, before the others are started all the same.
const LISTENS: Duration = Duration::from_secs(3);
const LISTENS_AGAIN: Duration = Duration::from_millis(2);

/// Waits until the router accepts at its socket, has `ended`, or takes too long. ECS does not wait; here nothing that a
/// short-lived container prints is to be lost to a router that is about to listen.
pub async fn listens(socket: &Path, ended: impl Fn() -> bool) {
    let deadline = Instant::now() + LISTENS;
    while !ended() && Instant::now() < deadline {
        if UnixStream::connect(socket).is_ok() {
            return;
        }
        tokio::time::sleep(LISTENS_AGAIN).await;
    }
}

/// Makes them. A file that is there is replaced whole.
///
/// # Errors
/// What could not be done, and why.
pub fn write(dir: &Path, text: &str, user: Option<&str>) -> Result<(), String> {
    let failed = |what: &Path| {
        let what = what.display().to_string();
        move |e: io::Error| format!("unable to create firelens config file: {what}: {e}")
    };
    let (config, socket) = (dir.join("config"), dir.join("socket"));
    fs::create_dir_all(&config).map_err(failed(&config))?;
    fs::create_dir_all(&socket).map_err(failed(&socket))?;
    if let Some(user) = user.filter(|user| !user.is_empty()) {
        let (uid, gid) = ids(user)?;
        chown(&socket, Some(uid), gid).map_err(failed(&socket))?;
    }
    let (file, made) = (config.join("fluent.conf"), dir.join("fluent.conf.new"));
    let write = || -> io::Result<()> {
        let mut out = File::create(&made)?;
        out.write_all(text.as_bytes())?;
        out.set_permissions(Permissions::from_mode(0o644))?;
        out.sync_all()?;
        fs::rename(&made, &file)
    };
    write().map_err(failed(&file))
}

/// `uid`, `uid:gid`; a group by name is the agent's own.
fn ids(user: &str) -> Result<(u32, Option<u32>), String> {
    let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
    let uid = uid.parse().map_err(|_| {
        format!(
            "unable to determine the UID of the firelens container: user {user:?} must begin with a number"
        )
    })?;
    Ok((uid, gid.and_then(|gid| gid.parse().ok())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_readable_and_replaced_and_the_sockets_directory_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("task");
        write(&dir, "first", None).unwrap();
        write(&dir, "second", Some("")).unwrap();
        let file = dir.join("config/fluent.conf");
        assert_eq!(fs::read_to_string(&file).unwrap(), "second");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(dir.join("socket").is_dir() && !dir.join("fluent.conf.new").exists());
    }

    #[test]
    fn a_user_is_a_number_with_or_without_a_group() {
        assert_eq!(ids("1000"), Ok((1000, None)));
        assert_eq!(ids("1000:1001"), Ok((1000, Some(1001))));
        assert_eq!(ids("1000:adm"), Ok((1000, None)));
        assert!(ids("fluent").unwrap_err().contains("must begin with a number"));
    }
}
