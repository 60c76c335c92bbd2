//! The output on real files, behind the real queue.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tempfile::{TempDir, tempdir};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::super::batch::{Cursor, Text};
use super::super::drive::Sink;
use super::super::format::Beginning;
use super::open::OPEN_MAX;
use super::*;
use crate::config::{Entry, Pos, Section, SectionKind};
use crate::observe::counters::Output as Counters;
use crate::outputs::RetryPolicy;
use crate::record::{AckWait, Chunk, Seg, Tag, Time, Verdict};
use crate::rt::Budget;
use crate::rt::{Delivery, Sender, queue};
use crate::wire::{entry, msgpack};

fn record(out: &mut Vec<u8>, text: &str) {
    entry::write_head(out, Time::new(1_760_000_000, 5), None);
    msgpack::write_map(out, 1);
    msgpack::write_str(out, b"log");
    msgpack::write_str(out, text.as_bytes());
}

fn line(tag: &str, text: &str) -> String {
    format!("{tag}: [1760000000.000000005, {{\"log\":\"{text}\"}}]\n")
}

fn chunk(records: &[(&str, &str)]) -> Arc<Chunk> {
    let mut bytes = Vec::new();
    let segs = records
        .iter()
        .map(|(tag, text)| {
            record(&mut bytes, text);
            Seg { tag: Tag::new(tag.as_bytes()), end: bytes.len(), count: 1 }
        })
        .collect();
    let charge = Budget::new(1 << 30).take(bytes.len() as u64);
    Arc::new(Chunk { bytes: bytes.into(), segs, count: records.len() as u64, charge, meter: None })
}

fn settings(keys: &[(&str, &str)]) -> Settings {
    let pos = Pos::new("f.conf", 1);
    let entries = keys
        .iter()
        .map(|(k, v)| Entry { key: (*k).into(), written: (*k).into(), value: (*v).into(), pos: pos.clone() })
        .collect();
    Settings::new("file.0".into(), &KIND.info, &[], Section { kind: SectionKind::Output, pos, entries })
}

fn built(keys: &[(&str, &str)]) -> Option<Box<dyn Output>> {
    let cx =
        BuildContext { escape_unicode: true, flush: Duration::from_secs(1), retry: RetryPolicy::default() };
    build(&settings(keys), &cx, &mut Diagnostics::new())
}

struct Running {
    to: Sender,
    task: JoinHandle<()>,
    counters: Arc<Counters>,
    settled: Arc<Notify>,
}

fn run(keys: &[(&str, &str)]) -> Running {
    let counters = Arc::new(Counters::default());
    let (to, from) = queue("file.0", 64 << 20, Arc::clone(&counters), None);
    #[allow(clippy::disallowed_methods, reason = "a test awaits it")]
    let task = tokio::spawn(built(keys).unwrap().run(from));
    Running { to, task, counters, settled: Arc::default() }
}

impl Running {
    async fn push(&self, records: &[(&str, &str)]) {
        self.to.push(self.to.deliver(chunk(records), None)).await;
    }

    /// Pushes with an ack and waits for the verdict.
    async fn acked(&self, records: &[(&str, &str)]) -> Verdict {
        let (wait, token) = AckWait::new(Arc::clone(&self.settled));
        self.to.push(self.to.deliver(chunk(records), Some(token))).await;
        while wait.verdict() == Verdict::Pending {
            self.settled.notified().await;
        }
        wait.verdict()
    }

    async fn end(self) -> Arc<Counters> {
        drop(self.to);
        self.task.await.unwrap();
        assert_eq!(self.counters.held.load(Relaxed), 0);
        self.counters
    }

    /// Waits until an attempt has failed.
    async fn failed(&self) {
        while self.counters.retries.load(Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn in_dir() -> (TempDir, String) {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn an_unknown_format_is_refused_and_an_unknown_delimiter_is_not() {
    assert!(built(&[("format", "jsonn")]).is_none());
    let cx =
        BuildContext { escape_unicode: true, flush: Duration::from_secs(1), retry: RetryPolicy::default() };
    let mut diags = Diagnostics::new();
    assert!(build(&settings(&[("format", "csv"), ("delimiter", ";")]), &cx, &mut diags).is_some());
    assert!(!diags.refused(false) && diags.refused(true));
}

#[tokio::test]
async fn one_file_takes_all_tags_in_order() {
    let (dir, path) = in_dir();
    let out = run(&[("path", &path), ("file", "out.log")]);
    out.push(&[("a", "1"), ("b", "2")]).await;
    assert_eq!(out.acked(&[("a", "3")]).await, Verdict::Delivered);
    let counters = out.end().await;
    assert_eq!(read(dir.path().join("out.log")), line("a", "1") + &line("b", "2") + &line("a", "3"));
    assert_eq!(counters.delivered.load(Relaxed), 3);
}

#[tokio::test]
async fn without_file_each_tag_has_its_own_and_none_leaves_the_directory() {
    let (dir, path) = in_dir();
    let out = run(&[("path", &format!("{path}/deep/er")), ("mkdir", "on")]);
    out.push(&[("app.one", "1"), ("../up", "2"), ("app.one", "3")]).await;
    out.end().await;
    let inner = dir.path().join("deep/er");
    assert_eq!(read(inner.join("app.one")), line("app.one", "1") + &line("app.one", "3"));
    assert_eq!(read(inner.join("..%2Fup")), line("../up", "2"));
    assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 2);
}

#[tokio::test]
async fn many_tags_keep_their_order() {
    let (dir, path) = in_dir();
    let out = run(&[("path", &path)]);
    let tags: Vec<String> = (0..OPEN_MAX * 2).map(|i| format!("tag{i}")).collect();
    for round in ["1", "2", "3"] {
        let records: Vec<_> = tags.iter().map(|t| (t.as_str(), round)).collect();
        out.push(&records).await;
    }
    out.end().await;
    for tag in &tags {
        assert_eq!(read(dir.path().join(tag)), line(tag, "1") + &line(tag, "2") + &line(tag, "3"));
    }
}

#[test]
fn many_tags_need_few_open_files() {
    let dir = tempdir().unwrap();
    let (to, _from) = queue("file.0", 64 << 20, Arc::default(), None);
    let tags: Vec<String> = (0..OPEN_MAX * 2).map(|i| format!("tag{i}")).collect();
    let records: Vec<_> = tags.iter().map(|t| (t.as_str(), "1")).collect();
    let mut text = text_of(&[], vec![to.deliver(chunk(&records), None)]);
    let mut writer = Writer::new(Some(dir.path().into()), None, false, Some(Beginning::TagAndTime));
    writer.write(&mut text).unwrap();
    assert_eq!(writer.files.len(), OPEN_MAX);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), tags.len());
}

#[tokio::test]
async fn a_delivery_larger_than_a_batch_arrives_whole() {
    let (dir, path) = in_dir();
    let out = run(&[("path", &path), ("file", "x")]);
    let (long, short) = ("l".repeat(700_000), "s".repeat(1000));
    let mut records = vec![("t", short.as_str()); 2000];
    records[1000].1 = &long;
    assert_eq!(out.acked(&records).await, Verdict::Delivered);
    out.end().await;
    let want: String = records.iter().map(|(t, r)| line(t, r)).collect();
    assert!(read(dir.path().join("x")) == want);
}

#[tokio::test]
async fn a_full_disk_holds_records_and_fails_nothing() {
    let out = run(&[("path", "/dev"), ("file", "full")]);
    out.push(&[("t", "1")]).await;
    out.failed().await;
    assert_eq!(out.counters.held.load(Relaxed), 1);
    assert_eq!(out.counters.all_dropped(), 0);
    // The pipeline aborts at its deadline: what has no verdict counts as given up.
    out.task.abort();
    assert!(out.task.await.unwrap_err().is_cancelled());
    assert_eq!((out.counters.held.load(Relaxed), out.counters.all_dropped()), (0, 1));
}

#[tokio::test]
async fn records_wait_for_a_missing_directory_and_shutdown_tries_at_once() {
    let (dir, path) = in_dir();
    let out = run(&[("path", &format!("{path}/later")), ("file", "x")]);
    out.push(&[("t", "1")]).await;
    out.failed().await;
    out.push(&[("t", "2")]).await;
    std::fs::create_dir(dir.path().join("later")).unwrap();
    let counters = out.end().await;
    assert_eq!(read(dir.path().join("later/x")), line("t", "1") + &line("t", "2"));
    assert_eq!(counters.delivered.load(Relaxed), 2);
}

#[tokio::test]
async fn a_renamed_file_is_replaced_within_a_second() {
    let (dir, path) = in_dir();
    let file = dir.path().join("x");
    let out = run(&[("path", &path), ("file", "x")]);
    out.acked(&[("t", "1")]).await;
    std::fs::rename(&file, dir.path().join("x.1")).unwrap();
    let inode = std::fs::metadata(dir.path().join("x.1")).unwrap().ino();
    let begun = std::time::Instant::now();
    let mut n = 1;
    while !file.exists() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        n += 1;
        out.acked(&[("t", &n.to_string())]).await;
    }
    out.end().await;
    assert_ne!(std::fs::metadata(&file).unwrap().ino(), inode);
    let want: String = (1..=n).map(|i| line("t", &i.to_string())).collect();
    assert_eq!(read(dir.path().join("x.1")) + &read(&file), want);
    assert_eq!(read(&file), line("t", &n.to_string()));
}

#[tokio::test]
async fn a_torn_line_of_our_own_is_cut_and_any_other_gets_its_end() {
    let (dir, path) = in_dir();
    std::fs::write(dir.path().join("ours"), format!("{}ours: [1760000000.0000", line("ours", "0"))).unwrap();
    std::fs::write(dir.path().join("notes"), "no line end").unwrap();
    let out = run(&[("path", &path)]);
    out.push(&[("ours", "1"), ("notes", "1")]).await;
    out.end().await;
    assert_eq!(read(dir.path().join("ours")), line("ours", "0") + &line("ours", "1"));
    assert_eq!(read(dir.path().join("notes")), format!("no line end\n{}", line("notes", "1")));
}

#[tokio::test]
async fn two_outputs_may_share_a_file() {
    let (dir, path) = in_dir();
    let (a, b) = (run(&[("path", &path), ("file", "x")]), run(&[("path", &path), ("file", "x")]));
    for _ in 0..20 {
        a.acked(&[("a", "1")]).await;
        b.acked(&[("b", "2")]).await;
    }
    a.end().await;
    b.end().await;
    assert_eq!(read(dir.path().join("x")), (line("a", "1") + &line("b", "2")).repeat(20));
}

#[tokio::test]
async fn column_names_stand_once_at_the_beginning() {
    let (dir, path) = in_dir();
    for _ in 0..2 {
        let out = run(&[("path", &path), ("file", "x"), ("format", "csv"), ("csv_column_names", "on")]);
        out.acked(&[("a", "1")]).await;
        out.acked(&[("b", "2")]).await;
        out.end().await;
    }
    let one = "1760000000.000000005,\"1\"\n1760000000.000000005,\"2\"\n";
    assert_eq!(read(dir.path().join("x")), format!("timestamp,\"log\"\n{one}{one}"));
}

#[tokio::test(start_paused = true)]
async fn small_writes_without_acks_are_gathered_and_the_first_is_not_delayed() {
    let (dir, path) = in_dir();
    let out = run(&[("path", &path), ("file", "x")]);
    let begun = tokio::time::Instant::now();
    let delivered = async |n: u64| {
        while out.counters.delivered.load(Relaxed) < n {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        begun.elapsed()
    };
    out.push(&[("t", "1")]).await;
    assert!(delivered(1).await < LINGER);
    out.push(&[("t", "2")]).await;
    out.push(&[("t", "3")]).await;
    let gathered = delivered(3).await;
    assert!(gathered >= LINGER && gathered < 2 * LINGER, "{gathered:?}");
    let before = tokio::time::Instant::now();
    out.acked(&[("t", "4")]).await;
    assert!(before.elapsed() < LINGER);
    out.end().await;
    assert_eq!(read(dir.path().join("x")).lines().count(), 4);
}

fn text_of(keys: &[(&str, &str)], deliveries: Vec<Delivery>) -> Text {
    let mut formatter = Formatter::new(Shape::OutFile, true);
    let mut text = Text::new(keys.iter().any(|(k, _)| *k == "file"));
    for delivery in deliveries {
        let mut cursor = Cursor::new(delivery);
        assert!(text.fill(&mut cursor, &mut formatter));
        cursor.delivery.delivered();
    }
    text
}

/// Runs within the child that the next test starts: a file may not grow beyond 64 KiB there.
#[test]
fn short_write_child() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Ok(path) = std::env::var("SHORT_WRITE_DIR") else { return };
    let (to, _from) = queue("file.0", 64 << 20, Arc::default(), None);
    let long = "l".repeat(999);
    let records = vec![("t", long.as_str()); 200];
    let mut text = text_of(&[("file", "x")], vec![to.deliver(chunk(&records), None)]);
    let mut writer =
        Writer::new(Some(path.clone().into()), Some("x".into()), false, Some(Beginning::TagAndTime));
    for _ in 0..3 {
        assert!(writer.write(&mut text).unwrap_err().cause.contains("/x: "));
        let partial = read(Path::new(&path).join("x"));
        assert!(partial.len() > 60_000 && partial.ends_with("}]\n"));
    }
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).unwrap();
    writer.write(&mut text).unwrap();
    assert!(read(Path::new(&path).join("x")) == line("t", &long).repeat(200));
}

#[test]
fn a_write_that_stops_half_way_neither_tears_nor_doubles_a_line() {
    let dir = tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let child = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 128; exec \"$0\" --exact outputs::file::tests::short_write_child --nocapture"])
        .arg(exe)
        .env("SHORT_WRITE_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}
