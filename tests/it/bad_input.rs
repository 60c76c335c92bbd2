//! What is wrong on one connection: a counter and a log line, no crash, no growth, and no other connection notices.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::forward::{ack, entry, map, message, message_to_ack, packed, text, time};
use crate::support::router::{Client, Ended, Router, TO_FILE};

/// What becomes of the connection.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It is closed: where the next frame begins cannot be known.
    Closed,
    /// It goes on: the frame's end is known.
    GoesOn,
}

/// Sends `bytes` on a connection of its own while another one works, and stops. The other one must get its ack.
fn wrong(bytes: &[u8], then: Then) -> Ended {
    let router = Router::start(TO_FILE);
    let (mut good, mut bad) = (router.unix(), router.tcp());
    good.send(&message_to_ack("t", "before", "1"));
    good.expect(&ack("1"));
    // The router may close before it has read everything: then the rest cannot be sent.
    drop(bad.write_all(bytes));
    match then {
        Then::Closed => bad.expect_close(),
        Then::GoesOn => {
            bad.send(&message_to_ack("t", "same connection", "2"));
            bad.expect(&ack("2"));
        }
    }
    good.send(&message_to_ack("t", "after", "3"));
    good.expect(&ack("3"));
    // The default budget is 32 MiB; what the process takes besides is small, also in a debug build.
    assert!(router.peak_kib() < 64 << 10, "{} KiB at its peak", router.peak_kib());
    drop(bad);
    let ended = router.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages);
    let logs = ended.logs("out.log");
    assert_eq!((logs.first().unwrap().as_str(), logs.last().unwrap().as_str()), ("before", "after"));
    ended
}

/// The connection is closed, counted and logged.
fn breaks(bytes: &[u8]) {
    let ended = wrong(bytes, Then::Closed);
    assert_eq!(ended.ledger.get("broken_connections"), 1, "{}", ended.messages);
    assert!(ended.messages.contains("connection closed"), "{}", ended.messages);
}

/// So many records are refused, counted and logged, and the connection goes on.
fn refused(bytes: &[u8], records: u64) -> Ended {
    let ended = wrong(bytes, Then::GoesOn);
    assert_eq!(ended.ledger.get("refused"), records, "{}", ended.messages);
    assert_eq!(ended.ledger.get("broken_connections"), 0, "{}", ended.messages);
    assert!(ended.messages.contains("records refused"), "{}", ended.messages);
    ended
}

#[test]
fn another_protocol_is_closed() {
    breaks(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
}

#[test]
fn the_byte_that_msgpack_never_uses_is_closed() {
    breaks(&[0x93, 0xa1, b't', 0xc1]);
}

#[test]
fn a_declared_length_past_the_limit_is_closed_and_not_allocated() {
    // Arrays, maps, strings and binaries of 4 GiB: nobody waits for them, and nobody makes room for them.
    for header in [&[0xdd][..], &[0x93, 0xdb], &[0x93, 0xa1, b't', 0xc6], &[0x93, 0xa1, b't', 0x01, 0xdf]] {
        breaks(&[header, &[0xff, 0xff, 0xff, 0xff]].concat());
    }
}

#[test]
fn a_frame_that_goes_on_past_the_limit_is_closed() {
    // 8 MB of small strings in an array that says 16,000,000; Buffer_Max_Size is 6 MB.
    let frame = [&[0x92, 0xa1, b't', 0xdd][..], &16_000_000_u32.to_be_bytes(), &[0xa1; 8_000_000]].concat();
    breaks(&frame);
}

#[test]
fn a_million_levels_are_closed_or_refused_without_recursion() {
    breaks(&[&[0x93, 0xa1, b't', 0x01][..], &vec![0x91; 7_000_000]].concat());
    let deep = [&[0x81, 0xa1, b'k'][..], &vec![0x91; 1_000_000], &[0xc0]].concat();
    refused(&[&[0x93][..], &text(b"t"), &time(1), &deep].concat(), 1);
}

#[test]
fn a_record_may_nest_32_levels_and_no_more() {
    let nested = |levels: usize| {
        let inner = [&vec![0x91; levels - 1][..], &[0xc0]].concat();
        let record = [&[0x82][..], &text(b"log"), &text(b"deep"), &text(b"k"), &inner].concat();
        [&[0x93][..], &text(b"t"), &time(1), &record].concat()
    };
    refused(&[nested(32), nested(33)].concat(), 1);
}

#[test]
fn a_record_that_is_no_map_is_refused() {
    refused(&[&[0x93][..], &text(b"t"), &time(1), &text(b"bare")].concat(), 1);
    refused(&[&[0x93][..], &text(b"t"), &time(1), &[0xc0]].concat(), 1);
}

#[test]
fn a_time_or_a_tag_of_another_type_is_refused() {
    refused(&[&[0x93][..], &text(b"t"), &[0xc3], &map(&[(b"log", b"x")])].concat(), 1);
    refused(&[&[0x93, 0x05][..], &time(1), &map(&[(b"log", b"x")])].concat(), 1);
}

#[test]
fn a_bad_frame_that_asks_for_an_ack_gets_it_or_its_sender_would_repeat_it_for_ever() {
    let router = Router::start(TO_FILE);
    let mut client = router.tcp();
    let option = map(&[(b"chunk", b"bad")]);
    client.send(&[&[0x94][..], &text(b"t"), &time(1), &text(b"bare"), &option].concat());
    client.expect(&ack("bad"));
    client.send(&packed("t", b"\x92\x01", &map(&[(b"chunk", b"torn")])));
    client.expect(&ack("torn"));
    assert_eq!(router.stop().ledger.get("refused"), 2);
}

#[test]
fn the_good_entries_of_a_packed_chunk_go_on_and_the_bad_are_counted() {
    let payload =
        [entry("one"), vec![0x92, 0x01, 0xa1, b'x'], entry("two"), vec![0xc0], entry("three")].concat();
    let ended = refused(&packed("t", &payload, &[0x80]), 2);
    assert_eq!(ended.logs("out.log"), ["before", "one", "two", "three", "same connection", "after"]);
}

#[test]
fn a_packed_chunk_that_is_cut_off_keeps_what_is_whole() {
    let whole = [entry("one"), entry("two")].concat();
    let ended = refused(&packed("t", &whole[..whole.len() - 2], &[0x80]), 1);
    assert_eq!(ended.logs("out.log"), ["before", "one", "same connection", "after"]);
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_compressed_bomb_is_refused_before_it_is_large() {
    let option = map(&[(b"compressed", b"gzip")]);
    // 300 MB in one member, and the same in many members, each of which is within the limit.
    let bomb = gzip(&vec![0xc0; 300_000_000]);
    assert!(bomb.len() < 1_000_000);
    refused(&packed("t", &bomb, &option), 1);
    refused(&packed("t", &gzip(&vec![0xc0; 5_000_000]).repeat(60), &option), 1);
}

#[test]
fn a_compressed_payload_that_is_torn_or_no_gzip_is_refused() {
    let option = map(&[(b"compressed", b"gzip")]);
    let good = gzip(&entry("x").repeat(1_000));
    refused(&packed("t", &good[..good.len() / 2], &option), 1);
    refused(&packed("t", b"\x1f\x8b not gzip at all", &option), 1);
}

#[test]
fn text_that_is_no_utf_8_is_replaced_in_keys_and_values() {
    let router = Router::start(TO_FILE);
    let mut client = router.unix();
    let record = map(&[(b"k\xff", b"v\xc3("), (b"log", b"a\xffb \xe4\xb8 c")]);
    client.send(&[&[0x93][..], &text(b"t"), &time(1), &record].concat());
    // A value that is no UTF-8 is no matter for the counter: only keys can become one.
    client.send(&[&[0x93][..], &text(b"t\xff"), &time(1), &map(&[(b"log", b"bad tag \xff")])].concat());
    router.logs("out.log", 2);
    let text = std::fs::read_to_string(router.path("out.log")).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first, serde_json::json!({"k\u{fffd}": "v\u{fffd}(", "log": "a\u{fffd}b \u{fffd} c"}));
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.get("refused")), (Some(0), 0));
    assert_eq!(ended.ledger.output("file.0", "replaced_keys"), 1, "{}", ended.messages);
    assert!(ended.messages.contains("keys that are no UTF-8"), "{}", ended.messages);
}

#[test]
fn options_that_cannot_be_used_are_counted_and_the_records_are_taken() {
    let router = Router::start(TO_FILE);
    let mut client = router.unix();
    let whole = message("t", "no map");
    // A text where the empty map of options is.
    client.send(&[&whole[..whole.len() - 1], b"\xa1x"].concat());
    let entries = [&[0x93][..], &text(b"t"), &[0x91], &entry("a number as its chunk id")].concat();
    client.send(&[&entries[..], b"\x81\xa5chunk\x07"].concat());
    router.logs("out.log", 2);
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.get("odd_options"), ended.ledger.get("refused")), (Some(0), 2, 0));
    assert_eq!(ended.messages.matches("a frame's options cannot be used").count(), 2, "{}", ended.messages);
}

#[test]
fn metadata_that_is_no_map_is_refused_with_its_record_alone() {
    let bad = [&[0x92, 0x92][..], &time(1), &text(b"m"), &map(&[(b"log", b"x")])].concat();
    let body = [&entry("good")[..], &bad, &entry("good too")].concat();
    let ended = refused(&packed("t", &body, &[0x80]), 1);
    // Three on this connection, and what the others of `wrong` send.
    assert_eq!((ended.ledger.get("received"), ended.logs("out.log").len()), (3 + 3, 2 + 3));
}

#[test]
fn a_client_that_goes_away_within_a_message_leaves_what_it_had_sent_whole() {
    let router = Router::start(TO_FILE);
    let mut client = router.unix();
    let second = message("t", "torn");
    client.send(&message("t", "whole"));
    client.send(&second[..second.len() - 1]);
    drop(client);
    router.says("connection ended within a frame: what was in it comes only if the client sends it again");
    let ended = router.stop();
    assert_eq!((ended.logs("out.log"), ended.code), (vec!["whole".to_owned()], Some(0)));
    assert_eq!((ended.ledger.get("cut_frames"), ended.ledger.get("broken_connections")), (1, 0));
}
