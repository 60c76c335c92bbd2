//! What stays in memory: rings that drop their oldest, and connections that hold no more than they have received.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::eventually;
use crate::support::forward::{ack, entry, message, message_to_ack, packed};
use crate::support::router::{Client, Router, TO_FILE};

#[test]
fn a_ring_drops_its_oldest_records_and_never_makes_a_sender_wait() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("out.log")).unwrap();
    let conf = TO_FILE.replacen(
        "in.sock\n",
        "in.sock\n    storage.type memrb\n    Mem_Buf_Limit 1M\n[INPUT]\n    Name forward\n    Unix_Path {dir}/other.sock\n",
        1,
    );
    let router = Router::start_in(dir, &conf);
    let mut client = router.unix();
    let line = |i: usize| format!("{i} {}", "x".repeat(1000));
    // Ten times what the ring holds: the sends would not come to an end if the socket were not read.
    let count = 10_000;
    for i in 0..count {
        client.send(&message("t", &line(i)));
    }
    // What another input has inside is not the ring's to drop.
    let mut other = std::os::unix::net::UnixStream::connect(router.path("other.sock")).unwrap();
    other.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
    other.send(&message_to_ack("t", "of another input", "id"));
    other.expect_silence();
    client.send(&message("t", "the last"));
    drop(client);
    router.says("cannot write");
    fs::remove_file(router.path("out.log")).unwrap();
    other.expect(&ack("id"));
    let logs = eventually("the newest line is out", || {
        let logs = router.logs("out.log", 1);
        logs.contains(&"the last".to_owned()).then_some(logs)
    });
    let kept: Vec<usize> = logs.iter().filter_map(|l| l.split_once(' ')?.0.parse().ok()).collect();
    assert!(kept.is_sorted() && kept.len() < count, "{kept:?}");
    // The newest stay, without a gap; before them only what the output had begun with.
    assert!(kept.ends_with(&(count - 300..count).collect::<Vec<_>>()), "{kept:?}");
    let ended = router.stop();
    let dropped = ended.ledger.output("file.0", "dropped_overflow");
    assert_eq!((kept.len() as u64 + dropped, ended.code), (count as u64, Some(1)), "{}", ended.messages);
}

#[test]
fn connections_that_are_quiet_within_a_line_hold_what_they_have_sent_and_stay_open() {
    // Sources may fill 6 MiB: less than half of one read's room for each connection.
    let conf = TO_FILE.replacen("Flush 0.1", "Flush 0.1\n    memory.limit 8M", 1);
    let router = Router::start(&conf);
    let line = |i: usize| message_to_ack("t", &format!("{i} {}", "x".repeat(300)), &i.to_string());
    let mut quiet: Vec<_> = (0..200).map(|_| router.unix()).collect();
    for (i, client) in quiet.iter_mut().enumerate() {
        client.send(&line(i)[..200]);
    }
    // Others are served as if they were not there, also with frames much larger than a read.
    let mut busy = router.tcp();
    for i in 0..20 {
        let large = format!("{i} {}", "y".repeat(1_000_000));
        busy.send(&message_to_ack("t", &large, "large"));
        busy.expect(&ack("large"));
    }
    for (i, client) in quiet.iter_mut().enumerate() {
        client.send(&line(i)[200..]);
        client.expect(&ack(&i.to_string()));
    }
    drop((quiet, busy));
    let ended = router.stop();
    assert_eq!((ended.ledger.get("broken_connections"), ended.code), (0, Some(0)), "{}", ended.messages);
    assert_eq!(ended.logs("out.log").len(), 220);
    let peak: u64 = ended
        .messages
        .lines()
        .find_map(|l| l.split_once("memory budget peak=")?.1.split(' ').next()?.parse().ok())
        .unwrap();
    assert!(peak <= 8 << 20, "{peak} bytes of the budget of 8 MiB");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "no runtime here: the length of the wait is what is tested")]
fn connections_within_a_frame_stay_open_however_long_an_output_makes_them_wait() {
    const COUNT: usize = 6 * 10 * 300;
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("out.log")).unwrap();
    let router = Router::start_in(dir, &TO_FILE.replacen("Flush 0.1", "Flush 0.1\n    memory.limit 8M", 1));
    // Together twice what fits: each of them is stopped within a frame.
    let frame = packed("t", &entry(&"x".repeat(1000)).repeat(300), &[0x80]);
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let (mut client, frame) = (router.tcp(), frame.clone());
            std::thread::spawn(move || (0..10).for_each(|_| client.send(&frame)))
        })
        .collect();
    router.says("cannot write");
    // Longer than a client may be quiet within a frame for which others wait. Nothing can be seen of a wait but its length.
    std::thread::sleep(std::time::Duration::from_secs(12));
    fs::remove_file(router.path("out.log")).unwrap();
    clients.into_iter().for_each(|c| c.join().unwrap());
    eventually("every record is out", || {
        (fs::metadata(router.path("out.log")).map_or(0, |m| m.len()) > COUNT as u64 * 1000).then_some(())
    });
    let ended = router.stop();
    assert_eq!((ended.ledger.get("broken_connections"), ended.code), (0, Some(0)), "{}", ended.messages);
    assert_eq!(ended.logs("out.log").len(), COUNT);
}

#[test]
fn an_idle_router_has_given_back_what_only_its_start_needed() {
    let router = Router::start(TO_FILE);
    router.says("ready");
    // How much that is depends on how it was built; most of it are pages of the binary.
    eventually("half of what the start had mapped of files is given back", || {
        (router.status_kib("RssFile") < router.peak_kib() / 2).then_some(())
    });
    let mut client = router.unix();
    client.send(&message_to_ack("t", "and it works on", "1"));
    client.expect(&ack("1"));
    assert_eq!(router.stop().code, Some(0));
}
