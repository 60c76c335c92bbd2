//! The router's configuration on a machine that several tasks share.
//!
//! Enters: a generated configuration and the task's loopback address. Leaves: the same, with its listeners there. Nothing
//! can go wrong: what a user has written (another address, another spelling) is left as it is.

use std::net::Ipv4Addr;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_listeners_are_moved_and_nothing_else() {
        let text = "\n[INPUT]\n    Name forward\n    Listen 0.0.0.0\n    Port 24224\n\n[INPUT]\n    Listen 127.0.0.1\n    Listen 10.0.0.1\n";
        assert_eq!(
            on_loopback(text, Ipv4Addr::new(127, 0, 0, 2)),
            "\n[INPUT]\n    Name forward\n    Listen 127.0.0.2\n    Port 24224\n\n[INPUT]\n    Listen 127.0.0.2\n    Listen 10.0.0.1\n"
        );
    }
}
