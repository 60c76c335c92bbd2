//! Fargate's limit of open files on a machine that has less.
//!
//! Enters: who starts processes here, and a container's limits. Leaves: the same limits, or those that can be had, and a
//! warning. Can go wrong: nothing; what is not known is taken to be enough.

use std::fs;
use std::path::Path;

use tokio::net::UnixStream;

use super::definition::{ContainerDefinition, LaunchType, Ulimit};

/// `CAP_SYS_RESOURCE`: who has it sets any limit.
const RESOURCE: u32 = 24;

/// The most open files that the processes of this one can be given; `None`: as many as anybody wants.
pub(super) fn own_max() -> Option<i64> {
    max_of("self")
}

/// The same of whoever listens on a socket, such as dockerd; with socket activation that is systemd.
pub(super) async fn listener_max(socket: &Path) -> Option<i64> {
    let peer = UnixStream::connect(socket).await.ok()?.peer_cred().ok()?;
    // 0: it is in another namespace, and cannot be looked at.
    max_of(&peer.pid().filter(|pid| *pid > 0)?.to_string())
}

fn max_of(pid: &str) -> Option<i64> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    max(&read("status")?, &read("limits")?)
}

fn max(status: &str, limits: &str) -> Option<i64> {
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    if u64::from_str_radix(rights.trim(), 16).ok()? >> RESOURCE & 1 == 1 {
        return None;
    }
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    // The soft one, and the hard one, which may be `unlimited`.
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Puts `most` in place of what Fargate gives by itself where that is more: no reason to refuse a container. What a definition
/// asks for outside Fargate is left as it is.
pub(super) fn fit(launch: LaunchType, d: &mut ContainerDefinition, most: Option<i64>) -> Option<String> {
    let fargate = Ulimit::fargate_files();
    let most = most.filter(|most| launch == LaunchType::Fargate && *most < fargate.hard_limit)?;
    let limit = d.ulimits.iter_mut().find(|limit| **limit == fargate)?;
    (limit.soft_limit, limit.hard_limit) = (most, most);
    Some(format!(
        "container {}: it may have {most} files open, and on Fargate {}: that is the limit of what starts it here \
         (ulimit -Hn), which may not raise it",
        d.name, fargate.hard_limit
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_may_set_limits_has_none_and_else_the_hard_one_holds() {
        let status = |rights: &str| format!("Name:\tdockerd\nCapPrm:\t0\nCapEff:\t{rights}\nCapBnd:\t0\n");
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(max(&status("000001ffffffffff"), limits), None);
        assert_eq!(max(&status("00000000a80425fb"), limits), Some(4096));
        assert_eq!(max(&status("0"), &limits.replace("4096", "unlimited")), None);
        assert_eq!((max("", limits), max(&status("0"), "")), (None, None));
        let dir = tempfile::tempdir().unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        assert_eq!(listener_max(&dir.path().join("s")).await, own_max());
        assert_eq!(listener_max(&dir.path().join("none")).await, None);
    }

    #[test]
    fn fargates_limit_of_open_files_is_what_the_machine_has_of_it() {
        let of = |launch, most| {
            let limit = Ulimit::fargate_files();
            let mut d =
                ContainerDefinition { name: "app".into(), ulimits: vec![limit], ..Default::default() };
            let warning = fit(launch, &mut d, most);
            (d.ulimits[0].hard_limit, warning.is_some())
        };
        assert_eq!(of(LaunchType::Fargate, None), (65_535, false));
        assert_eq!(of(LaunchType::Fargate, Some(1 << 20)), (65_535, false));
        assert_eq!(of(LaunchType::Fargate, Some(4096)), (4096, true));
        // Who says it on EC2 wants it.
        assert_eq!(of(LaunchType::Ec2, Some(4096)), (65_535, false));
    }
}
