//! Records in the log: what is acknowledged survives the process, whatever the outputs do.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use tempfile::TempDir;

use crate::support::eventually;
use crate::support::forward::{ack, entry, map, message, message_to_ack, packed};
use crate::support::router::{Client, Ended, Router};

/// A stored forward input and a file.
const STORED: &str = "
[SERVICE]
    Flush 0.1
    Grace 3
    storage.path {dir}/storage
[INPUT]
    Name forward
    Unix_Path {dir}/in.sock
    storage.type filesystem
[OUTPUT]
    Name file
    Match *
    Path {dir}
    File out.log
    Format plain
";

/// Bytes of a segment where there is room.
const SEGMENT: u64 = 16 << 20;

/// A second output, whose file may be made a full disk.
fn two(one: &str, other: &str) -> String {
    STORED.replace("Match *\n", &format!("Match {one}\n"))
        + &format!(
            "[OUTPUT]\n    Name file\n    Match {other}\n    Path {{dir}}\n    File dead.log\n    Format plain\n"
        )
}

fn with_dead_output() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("dead.log")).unwrap();
    dir
}

/// How often each line is there.
fn counted(lines: Vec<String>) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for line in lines {
        *found.entry(line).or_default() += 1;
    }
    found
}

#[test]
fn nothing_acked_is_lost_however_often_the_process_is_killed() {
    let mut dir = tempfile::tempdir().unwrap();
    let mut acked = Vec::new();
    let mut next = 0;
    for _ in 0..10 {
        let router = Router::start_in(dir, STORED);
        let mut client = router.unix();
        // Lines are acked one by one; at the kill a few more are on the way.
        for _ in 0..20 {
            let line = format!("line {next}");
            client.send(&message_to_ack("t", &line, &line));
            client.expect(&ack(&line));
            acked.push(line);
            next += 1;
        }
        for _ in 0..5 {
            client.send(&message_to_ack("t", &format!("line {next}"), "on the way"));
            next += 1;
        }
        dir = router.kill();
    }
    let router = Router::start_in(dir, STORED);
    let ended = eventually_all(router, &acked);
    let found = counted(ended.logs("out.log"));
    assert!(acked.iter().all(|line| found.contains_key(line)));
    // What was delivered in the last moment before a kill comes again; how much that is depends on the disk.
    assert_eq!(ended.code, Some(0));
}

/// Stops the router once all lines are out.
fn eventually_all(router: Router, lines: &[String]) -> Ended {
    eventually("every line is out", || {
        let text = fs::read_to_string(router.path("out.log")).unwrap_or_default();
        lines.iter().all(|line| text.contains(&format!("\"{line}\""))).then_some(())
    });
    router.stop()
}

#[test]
fn what_a_dead_output_owes_stays_on_disk_and_comes_once_after_the_next_start() {
    let router = Router::start_in(with_dead_output(), &two("none", "*"));
    let mut client = router.unix();
    for i in 0..3000 {
        client.send(&message("t", &format!("{i} {}", "x".repeat(100))));
    }
    client.send(&message_to_ack("t", "the last", "id"));
    client.expect(&ack("id"));
    let ended = router.stop();
    assert_eq!(ended.code, Some(0), "records in the log are not lost: {}", ended.messages);
    assert_eq!(ended.ledger.output("file.1", "held"), 3001);
    fs::remove_file(ended.dir.path().join("dead.log")).unwrap();
    let router = Router::start_in(ended.dir, &two("none", "*"));
    let logs = router.logs("dead.log", 3001);
    assert_eq!(logs.len(), 3001);
    assert!(logs[..3000].iter().enumerate().all(|(i, l)| l.starts_with(&format!("{i} "))));
    let ended = router.stop();
    assert_eq!(
        (ended.ledger.output("file.1", "recovered"), ended.ledger.output("file.1", "held")),
        (3001, 0)
    );
    let router = Router::start_in(ended.dir, &two("none", "*"));
    let ended = router.stop();
    assert_eq!(ended.ledger.output("file.1", "recovered"), 0, "delivered is delivered");
    assert_eq!(ended.logs("dead.log").len(), 3001);
}

#[test]
fn outputs_in_another_order_get_what_is_theirs() {
    let conf = two("a", "b");
    let router = Router::start_in(with_dead_output(), &conf);
    let mut client = router.unix();
    for i in 0..100 {
        client.send(&message("b", &format!("b{i}")));
    }
    client.send(&message_to_ack("a", "a", "id"));
    client.expect(&ack("id"));
    let ended = router.stop();
    fs::remove_file(ended.dir.path().join("dead.log")).unwrap();
    let (head, outputs) = conf.split_once("[OUTPUT]").unwrap();
    let (first, second) = outputs.split_once("[OUTPUT]").unwrap();
    let swapped = format!("{head}[OUTPUT]{second}[OUTPUT]{first}");
    let router = Router::start_in(ended.dir, &swapped);
    assert_eq!(router.logs("dead.log", 100), (0..100).map(|i| format!("b{i}")).collect::<Vec<_>>());
    let ended = router.stop();
    assert_eq!((ended.logs("out.log"), ended.code), (vec!["a".to_owned()], Some(0)));
    assert_eq!(ended.ledger.output("file.0", "recovered"), 100);
}

#[test]
fn a_dead_output_pauses_only_the_sources_that_route_to_it() {
    let conf =
        two("good", "bad").replace("File dead.log\n", "File dead.log\n    storage.total_limit_size 1M\n");
    let router = Router::start_in(with_dead_output(), &conf);
    let mut bad = router.unix();
    bad.set_nonblocking(true).unwrap();
    let line = message("bad", &"x".repeat(10_000));
    // Until the socket takes no more.
    eventually("the source of the dead output is paused", || {
        for _ in 0..1000 {
            if std::io::Write::write_all(&mut bad, &line).is_err() {
                return Some(());
            }
        }
        None
    });
    let mut good = router.unix();
    for i in 0..2000 {
        let id = i.to_string();
        good.send(&message_to_ack("good", &id, &id));
        good.expect(&ack(&id));
    }
    assert_eq!(router.logs("out.log", 2000).len(), 2000);
    drop((good, bad));
    assert_eq!(router.stop().code, Some(0));
}

#[test]
fn overflow_drops_the_newest_or_the_oldest_and_counts_them() {
    for (overflow, first_stays) in [("drop_newest", true), ("drop_oldest", false)] {
        let conf = two("none", "bad").replace(
            "File dead.log\n",
            &format!("File dead.log\n    storage.total_limit_size 1M\n    overflow {overflow}\n"),
        );
        let router = Router::start_in(with_dead_output(), &conf);
        let mut client = router.unix();
        for i in 0..3000 {
            client.send(&message("bad", &format!("{i} {}", "x".repeat(1000))));
        }
        client.send(&message_to_ack("bad", "the last", "id"));
        client.expect(&ack("id"));
        fs::remove_file(router.path("dead.log")).unwrap();
        let logs = eventually("what is left is out", || {
            let logs = router.logs("dead.log", 1);
            (logs.len() > 20).then_some(logs)
        });
        assert!(!first_stays || logs[0].starts_with("0 "), "the oldest stay: {overflow}");
        let ended = router.stop();
        let logs = ended.logs("dead.log");
        let dropped = ended.ledger.output("file.1", "dropped_overflow");
        assert_eq!(logs.len() as u64 + dropped, 3001, "{overflow}");
        assert!(dropped > 100, "{overflow}: {dropped}");
        assert!(first_stays || logs.contains(&"the last".to_owned()), "the newest stay: {overflow}");
    }
}

#[test]
fn a_group_that_a_filter_holds_at_a_kill_is_joined_with_what_comes_after_the_start() {
    let conf = STORED.replace(
        "[OUTPUT]",
        "[FILTER]\n    Name multiline\n    Match *\n    multiline.parser java\n    multiline.key_content log\n    flush_ms 60000\n[OUTPUT]",
    );
    let router = Router::start_in(tempfile::tempdir().unwrap(), &conf);
    let mut client = router.unix();
    for (i, line) in
        ["one line", "Exception in thread \"main\" java.lang.Error: boom", "    at a.B(C.java:1)"]
            .iter()
            .enumerate()
    {
        let id = i.to_string();
        client.send(&message_to_ack("t", line, &id));
        client.expect(&ack(&id));
    }
    let router = Router::start_in(router.kill(), &conf);
    let mut client = router.unix();
    client.send(&message_to_ack("t", "    at d.E(F.java:2)", "more"));
    client.expect(&ack("more"));
    client.send(&message_to_ack("t", "another line", "next"));
    client.expect(&ack("next"));
    let joined =
        "Exception in thread \"main\" java.lang.Error: boom\n    at a.B(C.java:1)\n    at d.E(F.java:2)";
    // The first line may come again after the kill; the group is whole, and once.
    let logs = eventually("the line behind the group", || {
        let logs = router.logs("out.log", 2);
        (logs.last()? == "another line").then_some(logs)
    });
    assert_eq!(logs.iter().filter(|l| l.contains("Exception")).collect::<Vec<_>>(), [joined]);
    assert_eq!(router.stop().code, Some(0));
}

#[test]
fn what_a_filter_holds_at_a_stop_goes_out_after_the_next_start_when_its_sender_is_gone() {
    let conf = STORED.replace(
        "[OUTPUT]",
        "[FILTER]\n    Name multiline\n    Match *\n    multiline.parser java\n    multiline.key_content log\n    flush_ms 60000\n[OUTPUT]",
    );
    let router = Router::start_in(tempfile::tempdir().unwrap(), &conf);
    let mut client = router.unix();
    client.send(&message_to_ack("t", "Exception in thread \"main\" java.lang.Error: boom", "id"));
    client.expect(&ack("id"));
    let ended = router.stop();
    assert_eq!((ended.code, ended.logs("out.log").len()), (Some(0), 0), "{}", ended.messages);
    let router = Router::start_in(ended.dir, &conf);
    assert_eq!(router.logs("out.log", 1).len(), 1);
    let router = Router::start_in(router.stop().dir, &conf);
    assert_eq!(router.stop().logs("out.log").len(), 1, "once");
}

#[test]
fn a_second_process_on_the_same_storage_is_refused() {
    let router = Router::start_in(tempfile::tempdir().unwrap(), STORED);
    let other = tempfile::tempdir().unwrap();
    let conf = STORED
        .replace("{dir}/storage", router.path("storage").to_str().unwrap())
        .replace("{dir}", other.path().to_str().unwrap());
    fs::write(other.path().join("other.conf"), conf).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_firelane"))
        .args(["run", "-c"])
        .arg(other.path().join("other.conf"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another process"), "{said}");
    assert_eq!(router.stop().code, Some(0));
}

#[test]
fn what_is_owed_to_an_output_that_is_gone_is_kept_for_a_while_and_then_counted_as_dropped() {
    let router = Router::start_in(with_dead_output(), &two("none", "*"));
    let mut client = router.unix();
    for i in 0..100 {
        client.send(&message("t", &i.to_string()));
    }
    client.send(&message_to_ack("t", "the last", "id"));
    client.expect(&ack("id"));
    let ended = router.stop();
    let router = Router::start_in(ended.dir, STORED);
    assert!(
        router.messages().contains("no longer configured and is owed stored records"),
        "{}",
        router.messages()
    );
    let ended = router.stop();
    assert_eq!((ended.ledger.get("orphaned"), ended.code), (0, Some(0)));
    let at_once = STORED.replace("[INPUT]", "    storage.orphan_ttl 0\n[INPUT]");
    let ended = Router::start_in(ended.dir, &at_once).stop();
    assert_eq!((ended.ledger.get("orphaned"), ended.code), (101, Some(1)), "{}", ended.messages);
    let ended = Router::start_in(ended.dir, &two("none", "*")).stop();
    assert_eq!(ended.ledger.output("file.1", "recovered"), 0, "it begins anew");
}

/// Bytes that the files of the log take.
fn used(router: &Router) -> u64 {
    let files = fs::read_dir(router.path("storage")).unwrap().map(|e| e.unwrap());
    // A segment may go in this moment.
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|m| m.len()).sum()
}

#[test]
fn a_dead_output_pins_no_space_for_the_other_and_its_acks_go_on() {
    let router = Router::start_in(with_dead_output(), &two("good", "bad"));
    let mut client = router.unix();
    let entry = entry(&"x".repeat(1000));
    let payload = entry.repeat(500);
    let mut owed = 0;
    // Six segments and more pass by what the dead output is owed.
    for i in 0..220 {
        if i % 20 == 0 {
            let line = format!("{i} {}", "y".repeat(10_000));
            client.send(&message_to_ack("bad", &line, "bad"));
            client.expect(&ack("bad"));
            owed += line.len() as u64;
        }
        client.send(&packed("good", &payload, &map(&[(b"chunk", b"good")])));
        client.expect(&ack("good"));
    }
    let passed = 220 * payload.len() as u64;
    assert!(passed > 6 * SEGMENT);
    // Four times what is owed, and two segments; how soon the others go depends on the disk.
    let allowed = 4 * owed + 2 * SEGMENT;
    let used = eventually("the log is small", || Some(used(&router)).filter(|used| *used <= allowed));
    assert!(used > owed);
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.output("file.1", "held")), (Some(0), 11), "{}", ended.messages);
    fs::remove_file(ended.dir.path().join("dead.log")).unwrap();
    let router = Router::start_in(ended.dir, &two("good", "bad"));
    let logs = router.logs("dead.log", 11);
    assert!(logs.iter().enumerate().all(|(i, l)| l.starts_with(&format!("{} ", i * 20))));
    assert_eq!(router.stop().ledger.output("file.0", "recovered"), 0);
}

#[test]
fn a_sender_whose_stored_record_is_damaged_is_told_so_and_nothing_stays_held() {
    let conf = two("none", "*")
        .replace("storage.type filesystem", "storage.type filesystem\n    ack delivered")
        .replace("Grace 3", "Grace 3\n    memory.limit 8M");
    let router = Router::start_in(with_dead_output(), &conf);
    let mut client = router.unix();
    // More than the output may hold in memory: what comes last is read back from the disk.
    let names: Vec<String> = (0..40).map(|n| format!("chunk-{n:02}")).collect();
    for name in &names {
        let payload = entry(&format!("{name} {}", "x".repeat(1000))).repeat(300);
        client.send(&packed("t", &payload, &map(&[(b"chunk", name.as_bytes())])));
    }
    let damaged = eventually("the last chunk is stored", || {
        let files = fs::read_dir(router.path("storage")).unwrap().map(|e| e.unwrap().path());
        files.filter(|f| f.extension().is_some_and(|e| e == "wal")).find_map(|file| {
            let mut bytes = fs::read(&file).unwrap();
            let at = bytes.windows(8).position(|w| w == names[39].as_bytes())?;
            bytes[at + 100] ^= 1;
            Some((file, at as u64 + 100, bytes[at + 100]))
        })
    });
    let file = fs::OpenOptions::new().write(true).open(&damaged.0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[damaged.2], damaged.1).unwrap();
    fs::remove_file(router.path("dead.log")).unwrap();
    for name in &names[..39] {
        client.expect(&ack(name));
    }
    client.expect_close();
    let ended = router.stop();
    let output = |name| ended.ledger.output("file.1", name);
    assert!(ended.messages.contains("a damaged frame was skipped"), "{}", ended.messages);
    assert!(output("dropped_damaged") > 0 && output("held") == 0, "{}", ended.messages);
    assert_eq!(output("delivered") + output("dropped_damaged"), 40 * 300, "{}", ended.messages);
}

/// The log's file in which some text stands, and where.
fn stored(dir: &std::path::Path, text: &str) -> (std::path::PathBuf, usize) {
    let files = fs::read_dir(dir.join("storage")).unwrap().map(|e| e.unwrap().path());
    let mut segments = files.filter(|f| f.extension().is_some_and(|e| e == "wal"));
    let find = |file: std::path::PathBuf| {
        let bytes = fs::read(&file).unwrap();
        Some((file, bytes.windows(text.len()).position(|w| w == text.as_bytes())?))
    };
    segments.find_map(find).unwrap()
}

#[test]
fn what_the_disk_has_damaged_is_named_kept_and_counted_for_the_output_that_was_owed_it() {
    // In the midst of the log, and at its end, where it could be taken for a torn write.
    for damaged in ["line 0", "line 2"] {
        let router = Router::start_in(with_dead_output(), &two("none", "*"));
        let mut client = router.unix();
        for n in 0..3 {
            let id = n.to_string();
            client.send(&message_to_ack("t", &format!("line {n}"), &id));
            client.expect(&ack(&id));
        }
        let dir = router.kill();
        let (segment, at) = stored(dir.path(), damaged);
        let mut bytes = fs::read(&segment).unwrap();
        bytes[at] ^= 1;
        fs::write(&segment, bytes).unwrap();
        fs::remove_file(dir.path().join("dead.log")).unwrap();
        let router = Router::start_in(dir, &two("none", "*"));
        let logs = router.logs("dead.log", 2);
        assert!(logs.len() == 2 && !logs.contains(&damaged.to_owned()), "{logs:?}");
        let ended = router.stop();
        let output = |name| ended.ledger.output("file.1", name);
        assert_eq!((output("recovered"), output("dropped_damaged")), (3, 1), "{}", ended.messages);
        assert_eq!((ended.ledger.get("damaged_frames"), ended.ledger.get("damaged_records")), (1, 1));
        assert!((60..200).contains(&ended.ledger.get("damaged_bytes")), "{}", ended.messages);
        let said = ended.messages.lines().find(|line| line.contains("a damaged frame was skipped")).unwrap();
        assert!(said.contains(segment.file_name().unwrap().to_str().unwrap()), "{said}");
        let (_, kept) = said.split_once("kept=").unwrap();
        let kept = fs::read(ended.dir.path().join("storage").join(kept.split(' ').next().unwrap())).unwrap();
        let changed = [damaged.as_bytes()[0] ^ 1, b'i', b'n', b'e'];
        assert!(kept.windows(4).any(|w| w == changed), "{said}");
        assert_eq!(ended.code, Some(0));
    }
}

#[test]
fn an_output_whose_position_somebody_has_removed_gets_what_it_was_owed() {
    let router = Router::start_in(with_dead_output(), &two("none", "*"));
    let mut client = router.unix();
    for n in 0..100 {
        client.send(&message("t", &n.to_string()));
    }
    client.send(&message_to_ack("t", "100", "id"));
    client.expect(&ack("id"));
    let ended = router.stop();
    let files = fs::read_dir(ended.dir.path().join("storage")).unwrap().map(|e| e.unwrap().path());
    let removed = files.filter(|f| f.extension().is_some_and(|e| e == "cur")).map(fs::remove_file);
    assert_eq!(removed.map(Result::unwrap).count(), 3, "of two outputs and of the log");
    fs::remove_file(ended.dir.path().join("dead.log")).unwrap();
    let router = Router::start_in(ended.dir, &two("none", "*"));
    let expected: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    assert_eq!(router.logs("dead.log", 101), expected);
    router.says("what is stored for it comes again");
    let ended = router.stop();
    assert_eq!((ended.ledger.output("file.1", "recovered"), ended.code), (101, Some(0)));
    let ended = Router::start_in(ended.dir, &two("none", "*")).stop();
    assert_eq!(ended.logs("dead.log").len(), 101, "once");
}
