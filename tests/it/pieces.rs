//! Bytes arrive as the network likes: one at a time, or many messages in one read.

use crate::support::forward::{ack, entry, map, message, message_to_ack, packed};
use crate::support::router::{Client, Router, TO_FILE};

#[test]
fn a_frame_in_pieces_of_one_byte_costs_linear_work() {
    let router = Router::start(TO_FILE);
    let mut client = router.tcp();
    client.set_nodelay(true).unwrap();
    // 3,500 records. Looking again at everything for each byte would be 30,000,000,000 steps: past every limit here.
    let payload: Vec<u8> = (0..3_500).flat_map(|i| entry(&format!("{i:060}"))).collect();
    let frame = packed("t", &payload, &map(&[(b"chunk", b"pieces")]));
    assert!(frame.len() > 250_000);
    for byte in &frame {
        client.send(std::slice::from_ref(byte));
    }
    client.expect(&ack("pieces"));
    let logs = router.stop().logs("out.log");
    assert_eq!(logs, (0..3_500).map(|i| format!("{i:060}")).collect::<Vec<_>>());
}

#[test]
fn messages_cut_anywhere_come_out_whole() {
    let router = Router::start(TO_FILE);
    let mut client = router.unix();
    let all: Vec<u8> =
        (0..2_000).flat_map(|i| message("t", &format!("{i} é{}", "y".repeat(i % 300)))).collect();
    for piece in all.chunks(97) {
        client.send(piece);
    }
    client.send(&message_to_ack("t", "end", "id"));
    client.expect(&ack("id"));
    let logs = router.stop().logs("out.log");
    assert_eq!(logs.len(), 2_001);
    assert!(logs.iter().take(2_000).enumerate().all(|(i, l)| *l == format!("{i} é{}", "y".repeat(i % 300))));
}

/// Each keeps its own place in its own frame.
#[test]
fn interleaved_connections_do_not_mix() {
    let router = Router::start(TO_FILE);
    let mut clients: Vec<_> = (0..20).map(|_| router.unix()).collect();
    let frames: Vec<Vec<u8>> =
        (0..20).map(|c| (0..50).flat_map(|i| message("t", &format!("{c} {i}"))).collect()).collect();
    for at in (0..frames.iter().map(Vec::len).max().unwrap()).step_by(13) {
        for (client, frame) in clients.iter_mut().zip(&frames) {
            client.send(&frame[at.min(frame.len())..(at + 13).min(frame.len())]);
        }
    }
    drop(clients);
    let logs = router.logs("out.log", 1_000);
    for c in 0..20 {
        let prefix = format!("{c} ");
        let own: Vec<&str> = logs.iter().filter_map(|l| l.strip_prefix(&prefix)).collect();
        assert_eq!(own, (0..50).map(|i| i.to_string()).collect::<Vec<_>>(), "connection {c}");
    }
    assert_eq!(router.stop().code, Some(0));
}
