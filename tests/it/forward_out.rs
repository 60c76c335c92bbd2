//! From one router to another, over everything that both speak: what the first has acked is in the second's file.

use std::fs;

use crate::support::certs;
use crate::support::forward::{ack, entry, map, message_to_ack, packed};
use crate::support::router::{Client, Router, TO_FILE};

/// A receiver whose TCP input has these lines more.
fn receiver(lines: &str) -> Router {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("ca.pem", certs::CA),
        ("server.pem", certs::SERVER),
        ("server.key", certs::SERVER_KEY),
        ("client.pem", certs::CLIENT),
        ("client.key", certs::CLIENT_KEY),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    Router::start_in(dir, &TO_FILE.replace("[OUTPUT]", &format!("{lines}\n[OUTPUT]")))
}

/// A router that sends on to the receiver; `{there}` in the lines is the receiver's directory.
fn sender(to: &Router, lines: &str) -> Router {
    let conf = format!(
        "[SERVICE]\n    Flush 0.1\n    Grace 10\n[INPUT]\n    Name forward\n    Unix_Path {{dir}}/in.sock\n\
         [OUTPUT]\n    Name forward\n    Match *\n    Port {}\n{}\n",
        to.port(),
        lines.replace("{there}", to.path("").to_str().unwrap())
    );
    Router::start(&conf)
}

/// Sends messages and a packed chunk through both and checks what arrives, and that acks came after it.
fn through(receiver_has: &str, sender_has: &str) {
    let to = receiver(receiver_has);
    let from = sender(&to, &format!("    Require_ack_response on\n{sender_has}"));
    let mut client = from.unix();
    for i in 0..20 {
        client.send(&message_to_ack("a.b", &format!("{i}"), &format!("id{i}")));
        client.expect(&ack(&format!("id{i}")));
        assert_eq!(fs::read_to_string(to.path("out.log")).unwrap().lines().count(), i + 1);
    }
    let payload: Vec<u8> = (20..3000).flat_map(|i| entry(&i.to_string())).collect();
    client.send(&packed("a.b", &payload, &map(&[(b"chunk", b"all")])));
    client.expect(&ack("all"));
    let ended = from.stop();
    assert_eq!((ended.code, ended.ledger.output("forward.0", "delivered")), (Some(0), 3000));
    assert!(!ended.messages.contains(" ERROR "), "{}", ended.messages);
    assert_eq!(to.stop().logs("out.log"), (0..3000).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn over_tcp() {
    through("", "    Host 127.0.0.1");
}

#[test]
fn over_a_unix_socket() {
    through("", "    Unix_Path {there}/in.sock");
}

#[test]
fn gzipped() {
    through("", "    Compress gzip");
}

#[test]
fn with_a_connection_for_each_flush_and_with_few_messages_on_each() {
    through("", "    net.keepalive off");
    through("", "    net.keepalive_max_recycle 3");
}

#[test]
fn with_a_shared_key_and_a_user() {
    through(
        "    Shared_Key secret\n    Self_Hostname there\n    Security.Users me pass",
        "    Shared_Key secret\n    Self_Hostname here\n    Username me\n    Password pass",
    );
    through("    Empty_Shared_Key on", "    Empty_Shared_Key on");
}

#[test]
fn over_tls_with_everything_verified() {
    through(
        "    tls on\n    tls.crt_file {dir}/server.pem\n    tls.key_file {dir}/server.key\n    \
         tls.ca_file {dir}/ca.pem\n    tls.verify_client_cert on\n    Shared_Key secret",
        "    tls on\n    tls.ca_file {there}/ca.pem\n    tls.verify_hostname on\n    tls.vhost localhost\n    \
         tls.crt_file {there}/client.pem\n    tls.key_file {there}/client.key\n    Shared_Key secret",
    );
}

#[test]
fn without_acks_everything_written_arrives_in_order() {
    let to = receiver("");
    let from = sender(&to, "");
    let mut client = from.unix();
    let payload: Vec<u8> = (0..5000).flat_map(|i| entry(&i.to_string())).collect();
    client.send(&packed("t", &payload, &map(&[(b"chunk", b"all")])));
    client.expect(&ack("all"));
    assert_eq!(from.stop().code, Some(0));
    assert_eq!(to.logs("out.log", 5000), (0..5000).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_tag_made_from_a_field_decides_the_receivers_route() {
    let to = receiver("");
    let from = sender(&to, "    Tag made.$log\n    Require_ack_response on");
    let mut client = from.unix();
    let payload: Vec<u8> = (0..1500).flat_map(|i| entry(&i.to_string())).collect();
    client.send(&packed("t", &payload, &map(&[(b"chunk", b"all")])));
    client.expect(&ack("all"));
    assert_eq!(from.stop().code, Some(0));
    assert_eq!(to.stop().logs("out.log").len(), 1500);
}

#[test]
fn a_wrong_key_or_an_untrusted_certificate_is_told_with_what_to_look_at() {
    let to = receiver("    Shared_Key secret");
    for (lines, words) in [
        ("    Shared_Key other", "check Shared_Key"),
        ("", "set Shared_Key"),
        ("    tls on\n    tls.ca_file {there}/ca.pem", "TLS with 127.0.0.1"),
    ] {
        let from = sender(&to, &format!("    Require_ack_response on\n{lines}"));
        let mut client = from.unix();
        client.send(&message_to_ack("t", "x", "id"));
        from.says(words);
    }
}

#[test]
fn what_cannot_be_configured_is_refused_with_the_reason() {
    for (lines, words) in [
        ("    Upstream nodes.conf", "upstream is not built yet"),
        ("    Compress gzip\n    Time_as_Integer on", "gzip goes neither"),
        ("    Compress lz4", "use text or gzip"),
        ("    Username me", "set Shared_Key"),
        ("    tls on\n    tls.ca_file /nowhere/ca", "/nowhere/ca"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("c.conf");
        fs::write(
            &conf,
            format!("[INPUT]\n    Name stdin\n[OUTPUT]\n    Name forward\n    Match *\n{lines}\n"),
        )
        .unwrap();
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_firelane"))
            .args(["check", "-c"])
            .arg(&conf)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.code() == Some(2) && said.contains(words), "{said}");
    }
}
