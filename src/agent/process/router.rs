//! The router's configuration on a machine that several tasks share.
//!
//! Enters: a generated configuration and the task's loopback address, or its mounts where nothing can be mounted. Leaves:
//! the same, with its listeners there, or with the paths of this machine. Nothing can go wrong: what a user has written
//! (another address, another spelling) is left as it is.

use std::net::Ipv4Addr;

use super::spec::Mount;

/// The lines that ECS generates for bridge and awsvpc.
const LISTEN: &[&str] = &["    Listen 0.0.0.0", "    Listen 127.0.0.1"];
/// Of the input that ECS generates for a router with a health check.
pub(super) const HEALTH_PORT: u16 = 8877;
/// Where a health check looks for it.
const HERE: &[&str] = &["127.0.0.1", "localhost"];

/// Puts the listeners of a generated configuration on `address`.
pub(super) fn on_loopback(text: &str, address: Ipv4Addr) -> String {
    let line = |line: &str| match LISTEN.contains(&line.trim_end_matches('\n')) {
        true => format!("    Listen {address}\n"),
        false => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// Puts a health check of the router where it asks for the generated input, on the first loopback address, on `address`:
/// `nc 127.0.0.1 8877`, as AWS's documents have it, in one word or in several. Another port is not a generated one.
pub(super) fn health_on(argv: &[String], address: Ipv4Addr) -> Vec<String> {
    let port = HEALTH_PORT.to_string();
    let follows = |n: usize| argv.get(n + 1).is_some_and(|next| *next == port);
    argv.iter()
        .enumerate()
        .map(|(n, word)| match HERE.contains(&word.as_str()) && follows(n) {
            true => address.to_string(),
            false => HERE.iter().fold(word.clone(), |word, host| health_in(&word, host, &port, address)),
        })
        .collect()
}

/// The same within one word: a host, a blank, a colon or a slash (as bash's `/dev/tcp` has it), and the port.
fn health_in(word: &str, host: &str, port: &str, address: Ipv4Addr) -> String {
    let (mut out, mut rest) = (String::new(), word);
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    while let Some((before, after)) = rest.split_once(host) {
        out.push_str(before);
        let number = after.trim_start_matches([' ', '\t']);
        let number = if number.len() == after.len() { number.strip_prefix([':', '/']) } else { Some(number) };
        let end = number.and_then(|number| number.strip_prefix(port));
        let whole = !out.ends_with(part) && end.is_some_and(|end| !end.starts_with(part));
        match whole {
            true => out.push_str(&address.to_string()),
            false => out.push_str(host),
        }
        rest = after;
    }
    out + rest
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
    fn a_health_check_asks_the_tasks_own_router() {
        let on = |words: &[&str]| {
            let argv: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            health_on(&argv, Ipv4Addr::new(127, 0, 0, 2)).join("|")
        };
        for (words, want) in [
            (
                &["/bin/sh", "-c", r#"echo '{"health": "check"}' | nc 127.0.0.1 8877 || exit 1"#][..],
                r#"/bin/sh|-c|echo '{"health": "check"}' | nc 127.0.0.2 8877 || exit 1"#,
            ),
            (&["nc -z localhost  8877"], "nc -z 127.0.0.2  8877"),
            (&["nc", "-z", "127.0.0.1", "8877"], "nc|-z|127.0.0.2|8877"),
            (&["nc", "-z", "localhost", "8877"], "nc|-z|127.0.0.2|8877"),
            (
                &["curl http://127.0.0.1:8877/ && x localhost:8877"],
                "curl http://127.0.0.2:8877/ && x 127.0.0.2:8877",
            ),
            (&["echo > /dev/tcp/127.0.0.1/8877"], "echo > /dev/tcp/127.0.0.2/8877"),
            // What is not the generated input is left as it is.
            (&["curl localhost:2020/api/v1/health"], "curl localhost:2020/api/v1/health"),
            (&["nc 127.0.0.1 88770"], "nc 127.0.0.1 88770"),
            (&["nc 127.0.0.1 || 8877"], "nc 127.0.0.1 || 8877"),
            (&["nc my.localhost 8877"], "nc my.localhost 8877"),
            (&["nc 1127.0.0.1 8877"], "nc 1127.0.0.1 8877"),
            (&["nc", "127.0.0.1", "24224"], "nc|127.0.0.1|24224"),
        ] {
            assert_eq!(on(words), want, "{words:?}");
        }
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
