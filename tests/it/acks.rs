//! An acknowledgement is a promise: when it comes, in which order, and that it is the chunk id byte for byte.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::forward::{ack, entry, map, message_to_ack, message_with, packed};
use crate::support::router::{Client, Router, TO_FILE};

#[test]
fn acks_come_in_order_and_byte_for_byte() {
    let router = Router::start(TO_FILE);
    let mut client = router.unix();
    // fluentd's ids end in a newline, others are longer than one msgpack str8 holds; some senders use bin.
    let ids: Vec<String> = (0..300).map(|i| format!("{}{i}\n", "p".repeat(i))).collect();
    let all: Vec<u8> =
        ids.iter().enumerate().flat_map(|(i, id)| message_to_ack("t", &i.to_string(), id)).collect();
    client.send(&all);
    for id in &ids {
        client.expect(&ack(id));
    }
    let bin = [&[0x81][..], &[0xa5], b"chunk", &[0xc4, 3, 0, 0xff, b'z']].concat();
    client.send(&message_with("t", b"300", &bin));
    client.expect(&[&[0x81, 0xa3][..], b"ack", &[0xc4, 3, 0, 0xff, b'z']].concat());
    let ended = router.stop();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.logs("out.log"), (0..=300).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn an_ack_means_that_the_line_is_in_the_file() {
    let router = Router::start(TO_FILE);
    let mut client = router.tcp();
    for i in 0..50 {
        client.send(&message_to_ack("t", &format!("line {i}"), &format!("id{i}")));
        client.expect(&ack(&format!("id{i}")));
        let text = fs::read_to_string(router.path("out.log")).unwrap();
        assert!(text.ends_with(&format!("{{\"log\":\"line {i}\"}}\n")), "{text}");
    }
    assert_eq!(router.stop().ledger.get("routed"), 50);
}

#[test]
fn a_packed_chunk_is_acked_once_for_all_its_records() {
    let router = Router::start(TO_FILE);
    let mut client = router.tcp();
    let payload: Vec<u8> = (0..1000).flat_map(|i| entry(&i.to_string())).collect();
    client.send(&packed("t", &payload, &map(&[(b"chunk", b"all")])));
    client.expect(&ack("all"));
    client.expect_silence();
    assert_eq!(router.stop().logs("out.log").len(), 1000);
}

#[test]
fn what_a_filter_drops_or_nothing_takes_is_acked_at_once() {
    let conf =
        TO_FILE.replace("[OUTPUT]", "[FILTER]\n    Name grep\n    Match *\n    Exclude log health\n[OUTPUT]");
    let router = Router::start(&conf.replace("Match *\n    Path", "Match kept*\n    Path"));
    let mut client = router.unix();
    client.send(&message_to_ack("kept", "health", "filtered"));
    client.expect(&ack("filtered"));
    client.send(&message_to_ack("other", "nobody's", "unrouted"));
    client.expect(&ack("unrouted"));
    let ledger = router.stop().ledger;
    assert_eq!((ledger.get("filtered"), ledger.get("unrouted"), ledger.get("routed")), (1, 1, 0));
}

#[test]
fn an_ack_waits_for_every_output() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("slow.log")).unwrap();
    let conf = format!(
        "{TO_FILE}[OUTPUT]\n    Name file\n    Match *\n    Path {{dir}}\n    File slow.log\n    Format plain\n"
    );
    let router = Router::start_in(dir, &conf);
    let mut client = router.unix();
    client.send(&message_to_ack("t", "both", "id"));
    router.logs("out.log", 1);
    client.expect_silence();
    fs::remove_file(router.path("slow.log")).unwrap();
    client.expect(&ack("id"));
    let ended = router.stop();
    assert_eq!(
        (ended.logs("out.log"), ended.logs("slow.log")),
        (vec!["both".to_owned()], vec!["both".to_owned()])
    );
    assert_eq!(ended.code, Some(0));
}

#[test]
fn a_client_that_writes_all_it_has_before_it_reads_an_ack_is_read_to_the_end() {
    let router = Router::start(TO_FILE);
    let mut client = router.unix();
    // A unix socket holds less than three hundred acks that nobody reads.
    let count = 20_000;
    for i in 0..count {
        client.send(&message_to_ack("t", &format!("line {i}"), &i.to_string()));
    }
    for i in 0..count {
        client.expect(&ack(&i.to_string()));
    }
    let ended = router.stop();
    let lines: Vec<String> = (0..count).map(|i| format!("line {i}")).collect();
    assert_eq!((ended.code, ended.logs("out.log") == lines), (Some(0), true));
}

#[test]
fn a_client_that_never_takes_its_acks_is_left_at_the_stop_with_a_word() {
    let router = Router::start(TO_FILE);
    let mut client = router.unix();
    for i in 0..1_000 {
        client.send(&message_to_ack("t", "x", &i.to_string()));
    }
    router.logs("out.log", 1_000);
    let ended = router.stop();
    assert!(ended.messages.contains("the client does not take its acks"), "{}", ended.messages);
    assert_eq!((ended.code, ended.logs("out.log").len()), (Some(0), 1_000));
}
