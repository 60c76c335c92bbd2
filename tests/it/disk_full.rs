//! A disk that is full blocks, loses nothing and recovers by itself; one output's disk does not stop the others.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::eventually;
use crate::support::forward::{ack, message, message_to_ack};
use crate::support::router::{Client, Router, TO_FILE};

#[test]
fn a_write_error_blocks_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("out.log")).unwrap();
    let router = Router::start_in(dir, TO_FILE);
    let mut client = router.unix();
    client.send(&message("t", "first"));
    client.send(&message_to_ack("t", "second", "id"));
    router.says("out.log");
    client.expect_silence();
    fs::remove_file(router.path("out.log")).unwrap();
    client.expect(&ack("id"));
    let ended = router.stop();
    assert_eq!((ended.code, ended.logs("out.log")), (Some(0), vec!["first".to_owned(), "second".to_owned()]));
    assert!(ended.ledger.output("file.0", "retries") > 0);
}

#[test]
fn one_full_disk_does_not_stop_the_other_output() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("full.log")).unwrap();
    let conf = TO_FILE.replace("Match *\n    Path", "Match good*\n    Path").replace("Grace 10", "Grace 1")
        + "[OUTPUT]\n    Name file\n    Match bad*\n    Path {dir}\n    File full.log\n    Format plain\n";
    let router = Router::start_in(dir, &conf);
    let mut client = router.unix();
    for i in 0..1000 {
        client.send(&message("bad", &"x".repeat(100)));
        client.send(&message("good", &i.to_string()));
    }
    router.logs("out.log", 1000);
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.output("file.1", "dropped_shutdown")), (Some(1), 1000));
}

/// A small file system of its own. Unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// `None` where this process may not mount.
    fn mount(path: &Path, size: &str) -> Option<Tmpfs> {
        fs::create_dir(path).unwrap();
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        done.is_ok_and(|out| out.status.success()).then(|| Tmpfs(path.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Writes stop in the middle of a line here, which `/dev/full` cannot show.
#[test]
#[expect(clippy::print_stderr, reason = "says why it did nothing")]
fn a_disk_that_fills_up_and_is_freed_holds_every_line_once() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let Some(_mounted) = Tmpfs::mount(&disk, "1m") else {
        eprintln!("skipped: only root may mount a small file system");
        return;
    };
    fs::write(disk.join("ballast"), vec![0; 800_000]).unwrap();
    let router = Router::start_in(dir, &TO_FILE.replace("Path {dir}\n", "Path {dir}/disk\n"));
    let mut client = router.unix();
    let line = |i: usize| format!("{i} {}", "x".repeat(90));
    let (count, last) = (6_000, "the last");
    for i in 0..count {
        client.send(&message("t", &line(i)));
    }
    client.send(&message_to_ack("t", last, "id"));
    eventually("the disk is full", || {
        let size = fs::metadata(disk.join("out.log")).map_or(0, |m| m.len());
        (size > 100_000 && router.messages().contains("No space left")).then_some(())
    });
    client.expect_silence();
    fs::remove_file(disk.join("ballast")).unwrap();
    client.expect(&ack("id"));
    let logs = router.logs("disk/out.log", count + 1);
    assert!(
        logs == (0..count).map(line).chain([last.to_owned()]).collect::<Vec<_>>(),
        "{} lines",
        logs.len()
    );
    assert_eq!(router.stop().code, Some(0));
}

/// A task whose files find no room is refused in ECS's words, and nothing of it stays.
#[test]
#[expect(clippy::print_stderr, reason = "says why it did nothing")]
fn a_task_on_a_full_disk_is_refused_in_ecss_words_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("d");
    let Some(_mounted) = Tmpfs::mount(&disk, "256k,nr_inodes=100") else {
        eprintln!("skipped: only root may mount a small file system");
        return;
    };
    let task = r#"{"family":"full","containerDefinitions":[
            {"name":"app","image":"b","memory":32,"command":["true"],"logConfiguration":{"logDriver":"awsfirelens","options":{"Name":"null"}}},
            {"name":"router","image":"b","memory":32,"firelensConfiguration":{"type":"fluentbit"}}]}"#;
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firelane"));
        command.args(["task", "run", "--runtime", "process", "--dir"]).arg(&disk).arg(dir.path().join("f"));
        let output = command.output().unwrap();
        let (said, table) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        (output.status.code(), format!("{said}{table}"))
    };
    let left = || {
        let below = fs::read_dir(&disk).unwrap().map(|e| e.unwrap().path());
        below.filter(|path| path.is_dir() && fs::read_dir(path).unwrap().count() > 0).count()
    };
    fs::write(dir.path().join("f"), task).unwrap();
    // No room for the router's configuration: it ends where there is none.
    let filled = fs::write(disk.join("ballast"), vec![0; 1 << 20]);
    assert!(filled.is_err());
    let (code, said) = run();
    assert!(
        code == Some(1) && said.contains("ResourceInitializationError: unable to create"),
        "{code:?} {said}"
    );
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(left(), 0);
    // No room for directories either.
    fs::remove_file(disk.join("ballast")).unwrap();
    let mut inodes = 0;
    while fs::write(disk.join(format!("file-{inodes}")), "").is_ok() {
        inodes += 1;
    }
    let (code, said) = run();
    assert!(code == Some(1) && said.contains("No space left on device"), "{code:?} {said}");
    assert_eq!(left(), 0);
    // With room it is an ordinary task.
    (0..inodes).for_each(|n| fs::remove_file(disk.join(format!("file-{n}"))).unwrap());
    let (code, said) = run();
    assert_eq!(code, Some(0), "{said}");
}
