//! What nobody else would keep: it is on disk before it is acked, with its bytes, within a limit, and `replay` sends it
//! once more.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::eventually;
use crate::support::forward::{ack, entry, map, message_to_ack, packed, text, time};
use crate::support::router::{Client, Router, TO_FILE};

/// [`TO_FILE`] with dead letters.
fn conf() -> String {
    TO_FILE.replace("Grace 10", "Grace 10\n    dead_letter.path {dir}/dead\n    dead_letter.limit 1M")
}

/// Letters of one file.
fn letters(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
}

/// A frame whose record is no map, and that asks for an ack.
fn poison(log: &str, chunk: &str) -> Vec<u8> {
    let option = map(&[(b"chunk", chunk.as_bytes())]);
    [&[0x94][..], &text(b"app"), &time(1), &text(log.as_bytes()), &option].concat()
}

/// Runs `replay` and gives its exit code and what it said.
fn replay(args: &[&Path], flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firelane"));
    let (conf, files) = args.split_first().unwrap();
    let out = command.arg("replay").args(files).arg("-c").arg(conf).args(flags).output().unwrap();
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn poisoned_frames_are_acked_when_their_bytes_are_on_disk() {
    let router = Router::start(&conf());
    let file = router.path("dead/dead-letters.jsonl");
    let mut client = router.tcp();
    let frame = poison("no map", "1");
    client.send(&frame);
    client.expect(&ack("1"));
    let raw = |letter: &Value| STANDARD.decode(letter["raw"].as_str().unwrap()).unwrap();
    let first = letters(&file).remove(0);
    assert_eq!(raw(&first), frame);
    let said = ["tag", "from", "reason", "detail"].map(|key| first[key].as_str().unwrap().to_owned());
    assert_eq!(said, ["app", "input forward.1", "undecodable", "record is not a map"]);
    assert!(first["record"].is_null() && first["time"].is_null(), "{first}");

    // Bad entries with their own bytes, a payload that does not decompress with all of its bytes.
    let run = [entry("good"), vec![0x92, 0x01, 0xa1, b'x'], entry("too")].concat();
    client.send(&packed("app", &run, &map(&[(b"chunk", b"2")])));
    client.expect(&ack("2"));
    let torn = b"\x1f\x8b no gzip at all";
    client.send(&packed("app", torn, &map(&[(b"chunk", b"3"), (b"compressed", b"gzip")])));
    client.expect(&ack("3"));
    let all = letters(&file);
    assert_eq!((raw(&all[1]), raw(&all[2])), (vec![0x92, 0x01, 0xa1, b'x'], torn.to_vec()));
    let ended = router.stop();
    assert_eq!((ended.code, ended.logs("out.log")), (Some(0), vec!["good".to_owned(), "too".to_owned()]));
    assert_eq!((ended.ledger.get("refused"), ended.ledger.get("dead_letters")), (3, 3));
}

#[test]
fn text_that_cannot_be_read_is_a_letter_too() {
    let conf = conf().replace("Name forward\n    Listen", "Name tcp\n    Listen");
    let router = Router::start(&conf);
    let mut client = router.tcp();
    client.send(b"{\"log\": nonsense}\n{\"log\":\"good\"}\n");
    router.logs("out.log", 1);
    let file = router.path("dead/dead-letters.jsonl");
    let letter = eventually("a letter", || letters(&file).pop());
    assert_eq!(STANDARD.decode(letter["raw"].as_str().unwrap()).unwrap(), b"{\"log\": nonsense}");
    assert_eq!(router.stop().code, Some(0));
}

#[test]
fn while_dead_letters_cannot_be_written_nothing_is_acked_and_then_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dead/dead-letters.jsonl");
    fs::create_dir(dir.path().join("dead")).unwrap();
    symlink("/dev/full", &file).unwrap();
    let router = Router::start_in(dir, &conf());
    let (mut bad, mut good) = (router.tcp(), router.unix());
    bad.send(&poison("x", "bad"));
    router.says("cannot write dead letters");
    bad.expect_silence();
    good.send(&message_to_ack("t", "others go on", "good"));
    good.expect(&ack("good"));
    fs::remove_file(&file).unwrap();
    bad.expect(&ack("bad"));
    assert_eq!(letters(&file).len(), 1);
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.get("dead_letters")), (Some(0), 1));
}

#[test]
fn letters_stay_within_their_limit_and_what_went_is_counted() {
    let router = Router::start(&conf());
    let mut client = router.tcp();
    let count = 60;
    for i in 0..count {
        let id = i.to_string();
        client.send(&poison(&"x".repeat(50_000), &id));
        client.expect(&ack(&id));
    }
    let dead = router.path("dead");
    let files: Vec<_> = fs::read_dir(&dead).unwrap().map(|e| e.unwrap().path()).collect();
    let bytes: u64 = files.iter().map(|f| fs::metadata(f).unwrap().len()).sum();
    let left: usize = files.iter().map(|f| letters(f).len()).sum();
    assert!(files.len() >= 3 && bytes <= 1_000_000 && left >= 9, "{files:?}: {bytes} bytes, {left} letters");
    let ended = router.stop();
    assert!(ended.messages.contains("the oldest dead letters were removed"), "{}", ended.messages);
    assert_eq!(ended.ledger.get("dead_letters"), count);
    assert_eq!(ended.ledger.get("dead_letters_removed") + left as u64, count);
}

#[test]
fn what_an_output_gives_up_is_acked_and_comes_back_with_replay() {
    // Nobody listens at port 1.
    let away = "[OUTPUT]\n    Name forward\n    Alias away\n    Match *\n    Host 127.0.0.1\n    Port 1\n    \
                Retry_Limit no_retries\n";
    let conf = conf() + away;
    let router = Router::start(&conf);
    assert!(router.messages().contains("gives a batch up"), "{}", router.messages());
    let file = router.path("dead/dead-letters.jsonl");
    let mut client = router.unix();
    for i in 0..3 {
        let id = i.to_string();
        client.send(&message_to_ack("t", &format!("line {i}"), &id));
        client.expect(&ack(&id));
    }
    let all = letters(&file);
    assert_eq!(all.len(), 3);
    assert_eq!((&all[0]["from"], &all[0]["reason"]), (&"output away".into(), &"retries".into()));
    // What it is, whatever its number.
    assert_eq!(all[0]["output"], "alias \"away\"");
    assert_eq!((&all[2]["record"]["log"], &all[2]["tag"]), (&"line 2".into(), &"t".into()));
    assert_eq!(all[0]["time"], "2025-10-09T08:53:20.000000007Z");

    // Beside the running router, at whose ports nobody else may listen. The output is still away.
    let before = fs::read(&file).unwrap();
    let (code, said) = replay(&[&router.path("router.conf"), &file], &[]);
    assert_eq!((code, fs::read(&file).unwrap() == before), (Some(1), true), "{said}");
    let (code, said) = replay(&[&router.path("router.conf"), &file], &["--remove"]);
    assert!(code == Some(2) && said.contains("a router writes to"), "{said}");

    // The output is somewhere else now. It gets what it had given up, and no other output does.
    let (dead, other) = (router.path("dead"), router.path("other.conf"));
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.output("away", "dead_lettered")), (Some(0), 3));
    let outputs = "[INPUT]\n    Name dummy\n[FILTER]\n    Name modify\n    Match *\n    Add seen twice\n\
        [OUTPUT]\n    Name file\n    Alias away\n    Match no*\n    Path {dir}\n    File back.log\n    Format plain\n\
        [OUTPUT]\n    Name file\n    Match *\n    Path {dir}\n    File other.log\n    Format plain\n";
    fs::write(&other, outputs.replace("{dir}", ended.dir.path().to_str().unwrap())).unwrap();
    let (code, said) = replay(&[&other, &dead], &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(ended.logs("back.log"), ["line 0", "line 1", "line 2"]);
    assert!(
        fs::read_to_string(ended.dir.path().join("back.log")).unwrap().starts_with("{\"log\":\"line 0\"}")
    );
    assert!(!ended.dir.path().join("other.log").exists(), "{said}");
    assert!(file.exists());
    let (code, said) = replay(&[&other, &dead], &["--remove", "--filters"]);
    assert_eq!((code, file.exists()), (Some(0), false), "{said}");
    assert!(fs::read_to_string(ended.dir.path().join("back.log")).unwrap().contains("\"seen\":\"twice\""));
}

#[test]
fn replay_leaves_a_file_with_bytes_that_are_no_record() {
    let router = Router::start(&conf());
    let mut client = router.tcp();
    client.send(&poison("x", "1"));
    client.expect(&ack("1"));
    let (conf, file) = (router.path("router.conf"), router.path("dead/dead-letters.jsonl"));
    let ended = router.stop();
    let (code, said) = replay(&[&conf, &file], &["--remove"]);
    assert!(
        code == Some(0) && file.exists() && said.contains("left out: these bytes are no record"),
        "{said}"
    );
    drop(ended);
}
