//! Logs written by released versions are read for ever: `tests/golden/wal-v1` was written by version 1, with cursors of
//! version 1 and then of version 2 (`cursors-v2`: the same log, with records of an unsettled frame that are settled).
//!
//! `WAL_GOLDEN_WRITE=1 cargo test golden` writes the newest anew, which only a new version of the format may do, under a
//! new name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Dir, Kind, Log, NewFrame, Options, OwnerId, Seq};
use crate::record::{Seg, Tag, Time};
use crate::rt::Marks;
use crate::wire::{entry, msgpack};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn options() -> Options {
    Options { segment_bytes: Some(256 << 10), background: false, ..Options::default() }
}

fn record(log: &str) -> Vec<u8> {
    let mut out = Vec::new();
    entry::write_head(&mut out, Time::new(1_760_000_000, 7), None);
    msgpack::write_map(&mut out, 1);
    msgpack::write_str(&mut out, b"log");
    msgpack::write_str(&mut out, log.as_bytes());
    out
}

fn frame_of(tag: &str, logs: &[&str], owners: &[OwnerId]) -> NewFrame {
    let body: Bytes = logs.iter().flat_map(|log| record(log)).collect::<Vec<u8>>().into();
    let mut segs = SmallVec::new();
    segs.push(Seg { tag: Tag::new(tag.as_bytes()), end: body.len(), count: logs.len() as u64 });
    let owners = SmallVec::from_slice(owners);
    NewFrame {
        kind: Kind::Records,
        owners,
        segs,
        body,
        holds: Vec::new(),
        frees: Vec::new(),
        time_ms: 1_760_000_000_000,
    }
}

/// Of three frames of `a` the second is settled; of the first, records 0 to 39 and 41 to 99; of the third, every other.
fn write_parts(path: &Path) {
    let (mut log, _) = Log::open(Arc::new(Dir::open(path).unwrap()), options()).unwrap();
    let a = log.owner("alias \"a\"", 1_760_000_000).unwrap();
    let lines: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let frame = || frame_of("t", &lines, &[a]);
    log.append(&[frame(), frame(), frame()]).unwrap();
    log.handed_out(a, &[1, 2, 3], 4);
    log.settle(a, &[2]);
    log.settle_partly(a, vec![(1, marks(|n| n != 40)), (3, marks(|n| n % 2 == 0))]);
    log.close().unwrap();
}

fn marks(is_done: impl Fn(usize) -> bool) -> Marks {
    let mut marks = Marks::default();
    (0..100).filter(|n| is_done(*n)).for_each(|n| marks.set(n));
    marks
}

fn copy(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

fn logs(log: &Log, owner: OwnerId, from: Seq) -> Vec<String> {
    let mut reader = log.reader(owner);
    let mut found = Vec::new();
    let mut from = from;
    loop {
        let read = reader.read(from, 1 << 20);
        assert!(read.damage.is_empty() && read.failed.is_none());
        found.extend(read.frames.iter().map(|f| (f.segs.clone(), f.body.clone())));
        from = read.next;
        if read.caught_up {
            break;
        }
    }
    found
        .into_iter()
        .map(|(segs, body)| {
            let at = body.windows(4).position(|w| w == b"\xa3log").unwrap();
            format!("{}:{}", segs[0].tag, String::from_utf8_lossy(msgpack::content(&body[at + 4..])))
        })
        .collect()
}

/// Three frames of which `a` has settled the first, one frame of `b`, two held records of which one was let go.
#[test]
fn a_log_of_version_1_opens_with_all_that_was_owed_and_held() {
    let dir = copy(&golden("wal-v1"));
    let (mut log, opened) = Log::open(Arc::new(Dir::open(dir.path()).unwrap()), options()).unwrap();
    assert!(opened.damage.is_empty(), "{:?}", opened.damage);
    let b = log.owner("alias \"b\"", 1_770_000_000).unwrap();
    let a = log.owner("file match=\"*\" path=\"/a\"", 1_770_000_000).unwrap();
    assert_eq!((a, b), (OwnerId(1), OwnerId(2)));
    let from = |id| opened.backlog.iter().find(|(owner, ..)| *owner == id).map(|(_, from, _)| *from).unwrap();
    assert_eq!(logs(&log, a, from(a)), ["t:two", "u:three", "t:four"]);
    assert_eq!(logs(&log, b, from(b)), ["t:two"]);
    let holds: Vec<_> = opened.holds.iter().map(|h| (h.id, h.tag.to_string(), h.entry.to_vec())).collect();
    assert_eq!(holds, [(9, "held".to_owned(), record("still held"))]);
    assert_eq!(opened.next_seq, 7);
}

#[test]
fn a_cursor_of_version_1_is_written_on_in_its_file() {
    let dir = copy(&golden("wal-v1"));
    let cursor = dir.path().join("owner-0001.cur");
    let size = fs::metadata(&cursor).unwrap().len();
    let open = || Log::open(Arc::new(Dir::open(dir.path()).unwrap()), options()).unwrap();
    let (mut log, opened) = open();
    let a = log.owner("file match=\"*\" path=\"/a\"", 1_770_000_000).unwrap();
    let (_, from, _) = opened.backlog.iter().find(|(owner, ..)| *owner == a).unwrap();
    let seqs: Vec<Seq> = log.reader(a).read(*from, 1 << 20).frames.iter().map(|frame| frame.seq).collect();
    log.handed_out(a, &seqs, 7);
    log.settle(a, &seqs[1..2]);
    log.close().unwrap();
    assert_eq!(fs::metadata(&cursor).unwrap().len(), size);
    let (log, opened) = open();
    let (_, from, _) = opened.backlog.iter().find(|(owner, ..)| *owner == a).unwrap();
    assert_eq!(logs(&log, a, *from), ["t:two", "t:four"]);
}

#[test]
fn a_cursor_of_version_2_knows_the_records_that_are_settled() {
    if std::env::var_os("WAL_GOLDEN_WRITE").is_some() {
        write_parts(&golden("cursors-v2"));
    }
    let dir = copy(&golden("cursors-v2"));
    let (mut log, opened) = Log::open(Arc::new(Dir::open(dir.path()).unwrap()), options()).unwrap();
    let a = log.owner("alias \"a\"", 1_770_000_000).unwrap();
    assert_eq!(opened.backlog.iter().map(|(owner, from, _)| (*owner, *from)).collect::<Vec<_>>(), [(a, 1)]);
    let frames = log.reader(a).read(1, 1 << 20).frames;
    let found: Vec<_> = frames.into_iter().map(|frame| (frame.seq, frame.done)).collect();
    let of = |n: Seq, is_done: fn(usize) -> bool| (n, Some(marks(is_done)));
    assert_eq!(found, [of(1, |n| n != 40), of(3, |n| n % 2 == 0)]);
}
