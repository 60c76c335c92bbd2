//! Logs written by released versions are read for ever: `tests/golden/wal-v1` was written by version 1.
//!
//! `WAL_GOLDEN_WRITE=1 cargo test golden` writes it anew, which only a new version of the format may do, under a new name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Dir, Kind, Log, NewFrame, Options, OwnerId, Seq};
use crate::record::{Seg, Tag, Time};
use crate::wire::{entry, msgpack};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wal-v1")
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

fn frame(tag: &str, log: &str, owners: &[OwnerId]) -> NewFrame {
    let body: Bytes = record(log).into();
    let mut segs = SmallVec::new();
    segs.push(Seg { tag: Tag::new(tag.as_bytes()), end: body.len(), count: 1 });
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

fn held(log: &str, id: u64) -> NewFrame {
    NewFrame { kind: Kind::Held, holds: vec![id], ..frame("held", log, &[]) }
}

/// Three frames of which `a` has settled the first, one frame of `b`, two held records of which one was let go.
fn write(path: &Path) {
    let (mut log, _) = Log::open(Arc::new(Dir::open(path).unwrap()), options()).unwrap();
    let a = log.owner("file match=\"*\" path=\"/a\"", 1_760_000_000).unwrap();
    let b = log.owner("alias \"b\"", 1_760_000_000).unwrap();
    let first = log
        .append(&[frame("t", "one", &[a]), frame("t", "two", &[a, b]), frame("u", "three", &[a])])
        .unwrap();
    let letting_go = NewFrame { frees: vec![7], ..frame("t", "four", &[a]) };
    log.append(&[held("let go", 7), held("still held", 9)]).unwrap();
    log.append(&[letting_go]).unwrap();
    log.handed_out(a, &[first.start, first.start + 1], first.start + 2);
    log.settle(a, &[first.start]);
    log.close().unwrap();
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

#[test]
fn a_log_of_version_1_opens_with_all_that_was_owed_and_held() {
    if std::env::var_os("WAL_GOLDEN_WRITE").is_some() {
        write(&golden());
    }
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(golden()).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
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
