//! SIGTERM: what was accepted goes out, what was not is told to its sender, and the exit code says whether all is well.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::thread;

use rustix::process::Signal;

use crate::support::forward::{map, message, message_to_ack, text, time};
use crate::support::router::{Client, Router, TO_FILE};

/// A client on a unix socket that is still writing gets EPIPE, and all that its writes took arrives: exactly once.
#[test]
fn all_that_a_unix_client_could_write_arrives() {
    let router = Router::start(TO_FILE);
    let mut client = router.unix();
    let writer = thread::spawn(move || {
        // One write a message, as docker's driver. A message that was taken in part only does not count.
        (0..).take_while(|i| client.write_all(&message("t", &i.to_string())).is_ok()).count()
    });
    router.logs("out.log", 1000);
    let ended = router.stop();
    let written = writer.join().unwrap();
    let want: Vec<String> = (0..written).map(|i| i.to_string()).collect();
    assert!(ended.logs("out.log") == want, "{written} written, {} came", ended.logs("out.log").len());
    assert_eq!(ended.code, Some(0));
}

/// The kernel has accepted these connections for us: their clients believe that they are connected.
#[test]
fn connections_that_wait_in_the_listeners_queue_are_served() {
    let router = Router::start(TO_FILE);
    router.signal(Signal::STOP);
    for i in 0..5 {
        router.unix().send(&message("t", &format!("unix {i}")));
        router.tcp().send(&message("t", &format!("tcp {i}")));
    }
    router.signal(Signal::TERM);
    router.signal(Signal::CONT);
    let ended = router.ended();
    assert_eq!(ended.logs("out.log").len(), 10);
    assert_eq!(ended.code, Some(0));
}

#[test]
fn idle_connections_do_not_hold_the_process() {
    let router = Router::start(TO_FILE);
    let mut clients = (router.unix(), router.tcp());
    clients.0.send(&message("t", "a"));
    clients.1.send(&message("t", "b"));
    let ended = router.stop();
    assert_eq!((ended.code, ended.logs("out.log").len()), (Some(0), 2));
    clients.0.expect_close();
    clients.1.expect_close();
}

#[test]
fn sigint_drains_too() {
    let router = Router::start(TO_FILE);
    router.unix().send(&message("t", "a"));
    router.signal(Signal::INT);
    let ended = router.ended();
    assert_eq!((ended.code, ended.logs("out.log")), (Some(0), vec!["a".to_owned()]));
}

#[test]
fn a_partial_message_that_a_filter_holds_goes_out_as_it_is() {
    let join = "[FILTER]\n    Name multiline\n    Match *\n    mode partial_message\n    multiline.key_content log\n    \
                flush_ms 600000\n[OUTPUT]";
    let router = Router::start(&TO_FILE.replace("[OUTPUT]", join));
    let mut client = router.unix();
    for (ordinal, part) in [(b"1", "first "), (b"2", "second")] {
        let record = map(&[
            (b"log", part.as_bytes()),
            (b"partial_message", b"true"),
            (b"partial_id", b"abc"),
            (b"partial_ordinal", ordinal),
            (b"partial_last", b"false"),
        ]);
        client.send(&[&[0x94][..], &text(b"t"), &time(1), &record, &[0x80]].concat());
    }
    client.send(&message("t", "whole"));
    router.logs("out.log", 1);
    let ended = router.stop();
    assert_eq!(ended.logs("out.log"), ["whole", "first second"]);
    assert_eq!((ended.code, ended.ledger.get("holding")), (Some(0), 0));
}

fn blocked(grace: &str) -> Router {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("out.log")).unwrap();
    let router = Router::start_in(dir, &TO_FILE.replace("Grace 10", grace));
    let mut client = router.unix();
    client.send(&message("t", "accepted"));
    client.send(&message_to_ack("t", "accepted, ack due", "id"));
    router.says("out.log");
    router
}

#[test]
fn what_cannot_be_delivered_within_the_grace_period_is_counted_and_exits_with_1() {
    let ended = blocked("Grace 1").stop();
    assert_eq!(ended.code, Some(1), "{}", ended.messages);
    assert_eq!(ended.ledger.output("file.0", "dropped_shutdown"), 2, "{}", ended.messages);
}

#[test]
fn a_second_sigterm_stops_at_once() {
    // The test's own limit is far below this.
    let router = blocked("Grace 3600");
    router.signal(Signal::TERM);
    router.says("stopping");
    let ended = router.stop();
    assert_eq!(ended.code, Some(1), "{}", ended.messages);
    assert_eq!(ended.ledger.output("file.0", "dropped_shutdown"), 2, "{}", ended.messages);
}
