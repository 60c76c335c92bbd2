//! The router's configuration on a machine that several tasks share.
//!
//! Enters: a generated configuration and the task's loopback address, or its mounts where nothing can be mounted. Leaves:
//! the same, with its listeners there, or with the paths of this machine. Nothing can go wrong: what a user has written
//! (another address, another spelling) is left as it is.

use std::net::Ipv4Addr;

use super::spec::Mount;

/// The lines that ECS generates for bridge and awsvpc.
const LISTEN: &[&str] = &["    Listen 0.0.0.0", "    Listen 127.0.0.1"];

/// Puts the listeners of a generated configuration on `address`.
pub(super) fn on_loopback(text: &str, address: Ipv4Addr) -> String {
    let line = |line: &str| match LISTEN.contains(&line.trim_end_matches('\n')) {
        true => format!("    Listen {address}\n"),
        false => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// Puts the paths of what would be mounted in place of those where it would be seen: in `unix_path` and in includes.
pub(super) fn as_here(text: &str, mounts: &[Mount]) -> String {
    let mut out = text.to_owned();
    for mount in mounts {
        let Some(source) = &mount.source else { continue };
        let (target, source) = (mount.target.to_string_lossy(), source.to_string_lossy());
        let (target, source) = (target.trim_end_matches('/'), source.trim_end_matches('/'));
        // Only at a word's start, and whole parts of a path.
        for end in ["/", "\n"] {
            out = out.replace(&format!(" {target}{end}"), &format!(" {source}{end}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_mounts_become_those_of_the_machine() {
        let mount = |source: &str, target: &str| Mount {
            source: Some(source.into()),
            target: target.into(),
            ..Mount::default()
        };
        let mounts =
            [mount("/t/socket", "/var/run/"), mount("/t/more.conf", "/fluent-bit/etc/external.conf")];
        let text = "\n[INPUT]\n    unix_path /var/run/fluent.sock\n\n@INCLUDE /fluent-bit/etc/external.conf\n    x /var/running/a\n";
        assert_eq!(
            as_here(text, &mounts),
            "\n[INPUT]\n    unix_path /t/socket/fluent.sock\n\n@INCLUDE /t/more.conf\n    x /var/running/a\n"
        );
    }

    #[test]
    fn generated_listeners_are_moved_and_nothing_else() {
        let text = "\n[INPUT]\n    Name forward\n    Listen 0.0.0.0\n    Port 24224\n\n[INPUT]\n    Listen 127.0.0.1\n    Listen 10.0.0.1\n";
        assert_eq!(
            on_loopback(text, Ipv4Addr::new(127, 0, 0, 2)),
            "\n[INPUT]\n    Name forward\n    Listen 127.0.0.2\n    Port 24224\n\n[INPUT]\n    Listen 127.0.0.2\n    Listen 10.0.0.1\n"
        );
    }
}
