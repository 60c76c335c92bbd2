//! The log on a directory whose files were changed at will: opening and reading never panic, and never give a frame that
//! was not written.
#![no_main]

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use firelane::buffer::wal::{File, Kind, Lock, Log, NewFrame, Options, Vfs};
use firelane::record::{Seg, Tag};
use libfuzzer_sys::fuzz_target;

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Bytes>>>);
struct Open(Bytes);
struct Free;

impl Lock for Free {}

impl Vfs for Memory {
    fn lock(&self) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(Free))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut files = self.0.lock().unwrap();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Bytes::default();
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(Arc::new(Open(file)))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.0.lock().unwrap().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Open(file)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }
    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
    fn space(&self) -> io::Result<(u64, u64)> {
        Ok((4 << 20, 8 << 20))
    }
}

impl File for Open {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.0.lock().unwrap();
        let rest = file.get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut file = self.0.lock().unwrap();
        let mut at = offset as usize;
        for part in parts {
            if file.len() < at + part.len() {
                file.resize(at + part.len(), 0);
            }
            file[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(size as usize, 0);
        Ok(())
    }
}

fn options() -> Options {
    Options { segment_bytes: Some(16 << 10), background: false, ..Options::default() }
}

fn body(i: u8) -> Vec<u8> {
    // A fixstr: one msgpack value, which is all that the log asks of a record.
    let mut out = vec![0xd9, 200];
    out.extend(std::iter::repeat_n(i, 200));
    out
}

fuzz_target!(|edits: &[u8]| {
    let disk = Memory::default();
    {
        let (mut log, _) = Log::open(Arc::new(disk.clone()), options()).unwrap();
        let owners = [log.owner("a", 1).unwrap(), log.owner("b", 1).unwrap()];
        for i in 0..120u8 {
            let body = body(i);
            let segs = [Seg { tag: Tag::new(b"t"), end: body.len(), count: 1 }].into_iter().collect();
            let held = i % 10 == 9;
            let owed = if held { vec![] } else { owners[..1 + usize::from(i % 2)].to_vec() };
            let frame = NewFrame {
                kind: if held { Kind::Held } else { Kind::Records },
                owners: owed.into_iter().collect(),
                segs,
                body: body.into(),
                holds: if held { vec![u64::from(i)] } else { vec![] },
                frees: if i == 55 { vec![9, 19] } else { vec![] },
                time_ms: 1,
            };
            let seqs = log.append(&[frame]).unwrap();
            log.handed_out(owners[0], &[seqs.start], seqs.end);
            if i < 40 {
                log.settle(owners[0], &[seqs.start]);
            }
            let _ = log.maintain(Instant::now());
        }
        let _ = log.close();
    }
    let names: Vec<String> = disk.list().unwrap();
    for edit in edits.chunks_exact(6) {
        let file = disk.0.lock().unwrap()[&names[usize::from(edit[0]) % names.len()]].clone();
        let mut file = file.lock().unwrap();
        if file.is_empty() {
            continue;
        }
        let at = u32::from_le_bytes([edit[1], edit[2], edit[3], 0]) as usize % file.len();
        match edit[4] % 4 {
            0 => file[at] ^= edit[5],
            1 => file.truncate(at),
            2 => file[at..].iter_mut().take(64).for_each(|b| *b = edit[5]),
            _ => {
                let end = (at + 512).min(file.len());
                let block = file[at..end].to_vec();
                let to = at / 2;
                file[to..to + block.len()].copy_from_slice(&block);
            }
        }
    }
    let Ok((mut log, opened)) = Log::open(Arc::new(disk), options()) else { return };
    for name in ["a", "b"] {
        let Ok(owner) = log.owner(name, 2) else { continue };
        let from = opened.backlog.iter().find(|(id, ..)| *id == owner).map_or(1, |(_, from, _)| *from);
        let mut reader = log.reader(owner);
        let mut from = from;
        for _ in 0..1000 {
            let read = reader.read(from, 4096);
            for frame in &read.frames {
                assert_eq!(frame.body, body(frame.body[2]), "a frame that was not written");
            }
            if read.caught_up {
                break;
            }
            assert!(read.next > from || !read.frames.is_empty(), "a reader that stands still");
            from = read.next;
        }
    }
    let body = bytes::Bytes::from(body(200));
    let segs = [Seg { tag: Tag::new(b"t"), end: body.len(), count: 1 }].into_iter().collect();
    let frame = NewFrame { kind: Kind::Records, owners: Default::default(), segs, body, holds: vec![], frees: vec![], time_ms: 1 };
    log.append(&[frame]).unwrap();
});
