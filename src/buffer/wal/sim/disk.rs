//! A simulated directory on a simulated disk, with faults and power cuts on demand.
//!
//! Enters: the log's calls, and a test's wishes (crash after call n, fail calls by chance, this size of volume). Leaves:
//! what a real disk would answer. Can go wrong: exactly what the test asked for.
//!
//! A [`Disk`] outlives processes: every [`Disk::mount`] is one life of a process, whose handles are dead after the next
//! crash or kill.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};

use super::image::{Image, Mood};
use super::rng::Rng;
use crate::buffer::wal::{File, Lock, Vfs};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What may fail, each in thousandths of the calls it concerns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// A write changes nothing and says EIO.
    pub(super) write: u64,
    /// A write does a part and says EIO or ENOSPC.
    pub(super) short_write: u64,
    /// A sync says EIO, and what was not synced is gone; the next one says it worked.
    pub(super) sync: u64,
    /// Making, renaming, removing a file or syncing the directory says EIO.
    pub(super) names: u64,
    /// Reading a file, its size or the list of names says EIO.
    pub(super) read: u64,
}

#[derive(Clone)]
enum NameOp {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone)]
struct State {
    files: Vec<Image>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the last sync of the directory, in order.
    pending: Vec<NameOp>,
    volume: Option<u64>,
    life: u64,
    locked: bool,
    /// Calls that change something, since the disk was made.
    changes: u64,
    /// All calls.
    calls: u64,
    crash_at: Option<u64>,
    crashed: bool,
    faults: Faults,
    fail_calls: Vec<u64>,
    faults_hit: u64,
    rng: Rng,
    trace: Option<Vec<String>>,
    lie: Option<Lie>,
}

/// A sync that says it worked and does nothing: the disk as a log sees it that forgets the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// Of segments.
    Segments,
    /// Of cursors.
    Cursors,
    /// Of the directory.
    Names,
}

/// The disk; clones share it, [`Disk::fork`] does not.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Disk(Arc::new(Mutex::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            volume: None,
            life: 0,
            locked: false,
            changes: 0,
            calls: 0,
            crash_at: None,
            crashed: false,
            faults: Faults::default(),
            fail_calls: Vec::new(),
            faults_hit: 0,
            rng: Rng::new(seed),
            trace: None,
            lie: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// An independent copy, bytes shared until one side writes. No process works on it, and nothing is planned for it.
    pub(super) fn fork(&self) -> Disk {
        let mut copy = self.state().clone();
        copy.next_life();
        copy.trace = None;
        Disk(Arc::new(Mutex::new(copy)))
    }

    /// A new process comes to the directory.
    pub(super) fn mount(&self) -> Arc<dyn Vfs> {
        Arc::new(SimVfs { disk: self.clone(), life: self.state().life })
    }

    /// The size of the volume in bytes; `None`: as large as one likes.
    pub(super) fn set_volume(&self, bytes: Option<u64>) {
        self.state().volume = bytes;
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Nothing fails from now on, also not what was planned to.
    pub(super) fn repair(&self) {
        let mut state = self.state();
        state.faults = Faults::default();
        state.fail_calls.clear();
    }

    pub(super) fn set_lie(&self, lie: Lie) {
        self.state().lie = Some(lie);
    }

    /// Fails the `n`-th call from now (0: the next one), whatever it is.
    pub(super) fn fail_call(&self, n: u64) {
        let mut state = self.state();
        let call = state.calls + n;
        state.fail_calls.push(call);
    }

    /// How many calls have failed because the test wanted it.
    pub(super) fn faults_hit(&self) -> u64 {
        self.state().faults_hit
    }

    /// Cuts the power during the `n`-th changing call from now (0: the next one): the call may have done its work or
    /// not, it and all after it fail. Call [`Disk::crash`] to come back.
    pub(super) fn crash_at(&self, n: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.changes + n);
    }

    pub(super) fn crashed(&self) -> bool {
        self.state().crashed
    }

    pub(super) fn changes(&self) -> u64 {
        self.state().changes
    }

    /// The power goes (if it has not gone yet) and comes back.
    pub(super) fn crash(&self, seed: u64) -> Mood {
        let mut rng = Rng::new(seed);
        let mood = Mood::any(&mut rng);
        self.crash_as(&mut rng, mood);
        mood
    }

    pub(super) fn crash_as(&self, rng: &mut Rng, mood: Mood) {
        let mut state = self.state();
        for op in std::mem::take(&mut state.pending) {
            if !mood.keeps(rng) {
                continue;
            }
            state.apply_durable(op);
        }
        state.names = state.durable_names.clone();
        let live: Vec<usize> = state.names.values().copied().collect();
        for id in live {
            state.files[id].crash(rng, mood);
        }
        state.next_life();
        state.note(|| format!("-- power cut, {mood:?}"));
    }

    /// The process dies, the machine goes on.
    pub(super) fn kill(&self) {
        let mut state = self.state();
        // A power cut that is planned still comes.
        let plan = state.crash_at;
        state.next_life();
        state.crash_at = plan;
        state.note(|| "-- kill".to_owned());
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(super) fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|&id| state.files[id].seen.to_vec())
    }

    pub(super) fn size_of(&self, name: &str) -> u64 {
        let state = self.state();
        state.names.get(name).map_or(0, |&id| state.files[id].seen.len())
    }

    /// Puts a file there, durably.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let id = state.files.len();
        state.files.push(Image::of(bytes));
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    /// Takes a file away, durably.
    pub(super) fn take(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Bytes of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        self.state().used()
    }

    /// Bytes that may still be written.
    pub(super) fn room(&self) -> u64 {
        self.state().free()
    }

    /// Records each call in words from now on.
    pub(super) fn set_trace(&self, on: bool) {
        self.state().trace = on.then(Vec::new);
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.state().trace.clone().unwrap_or_default()
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|&id| self.files[id].seen.allocated()).sum()
    }

    fn free(&self) -> u64 {
        self.volume.map_or(u64::MAX, |volume| volume.saturating_sub(self.used()))
    }

    fn next_life(&mut self) {
        self.life += 1;
        self.locked = false;
        self.crashed = false;
        self.crash_at = None;
        self.fail_calls.clear();
    }

    fn apply_durable(&mut self, op: NameOp) {
        match op {
            NameOp::Create(name, id) => {
                self.durable_names.insert(name, id);
            }
            // A journal renames as a whole or not at all; if the file itself did not make it, neither does its name.
            NameOp::Rename(from, to) => {
                if let Some(id) = self.durable_names.remove(&from) {
                    self.durable_names.insert(to, id);
                }
            }
            NameOp::Remove(name) => {
                self.durable_names.remove(&name);
            }
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    fn fault(&mut self, code: i32) -> io::Error {
        self.faults_hit += 1;
        self.note(|| format!("   ^ fails with {code}"));
        io::Error::from_raw_os_error(code)
    }

    /// Before each call: is the process dead, does the power go now, does this call fail?
    fn begin(&mut self, life: u64, changes: bool, per_mille: u64) -> Result<bool, io::Error> {
        if life != self.life || self.crashed {
            return Err(io::Error::other("the power is cut"));
        }
        let call = self.calls;
        self.calls += 1;
        if changes {
            let change = self.changes;
            self.changes += 1;
            if self.crash_at == Some(change) {
                self.crashed = true;
                return Ok(true);
            }
        }
        if self.fail_calls.contains(&call) || (per_mille > 0 && self.rng.chance(per_mille)) {
            return Err(self.fault(EIO));
        }
        Ok(false)
    }
}

fn cut<T>(power: bool, value: T) -> io::Result<T> {
    if power { Err(io::Error::other("the power is cut")) } else { Ok(value) }
}

struct SimVfs {
    disk: Disk,
    life: u64,
}

struct SimLock {
    disk: Disk,
    life: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked = false;
        }
    }
}

impl SimVfs {
    fn file(&self, id: usize, name: &str) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.disk.clone(), life: self.life, id, name: name.to_owned() })
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Vfs for SimVfs {
    fn lock(&self) -> io::Result<Box<dyn Lock>> {
        let mut state = self.disk.state();
        state.begin(self.life, false, 0)?;
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        Ok(Box::new(SimLock { disk: self.disk.clone(), life: self.life }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.disk.state();
        state.note(|| format!("create {name}"));
        let chance = state.faults.names;
        let power = state.begin(self.life, true, chance)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.files.len();
        state.files.push(Image::default());
        state.names.insert(name.to_owned(), id);
        state.pending.push(NameOp::Create(name.to_owned(), id));
        drop(state);
        cut(power, self.file(id, name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.disk.state();
        let chance = state.faults.read;
        state.begin(self.life, false, chance)?;
        let id = *state.names.get(name).ok_or_else(|| missing(name))?;
        drop(state);
        Ok(self.file(id, name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.state();
        state.note(|| format!("rename {from} {to}"));
        let chance = state.faults.names;
        let power = state.begin(self.life, true, chance)?;
        let id = state.names.remove(from).ok_or_else(|| missing(from))?;
        state.names.insert(to.to_owned(), id);
        state.pending.push(NameOp::Rename(from.to_owned(), to.to_owned()));
        cut(power, ())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.state();
        state.note(|| format!("remove {name}"));
        let chance = state.faults.names;
        let power = state.begin(self.life, true, chance)?;
        state.names.remove(name).ok_or_else(|| missing(name))?;
        state.pending.push(NameOp::Remove(name.to_owned()));
        cut(power, ())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.disk.state();
        let chance = state.faults.read;
        state.begin(self.life, false, chance)?;
        // In no order, as directories are.
        let mut names: Vec<String> = state.names.keys().cloned().collect();
        state.rng.shuffle(&mut names);
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.note(|| "sync_dir".to_owned());
        let chance = state.faults.names;
        if state.begin(self.life, true, chance)? {
            return cut(true, ());
        }
        if state.lie != Some(Lie::Names) {
            state.durable_names = state.names.clone();
            state.pending.clear();
        }
        Ok(())
    }

    fn space(&self) -> io::Result<(u64, u64)> {
        let mut state = self.disk.state();
        state.begin(self.life, false, 0)?;
        Ok(match state.volume {
            Some(volume) => (state.free(), volume),
            None => (1 << 40, 1 << 40),
        })
    }
}

struct SimFile {
    disk: Disk,
    life: u64,
    id: usize,
    /// It was opened or made under; for the trace only.
    name: String,
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let chance = state.faults.read;
        state.begin(self.life, false, chance)?;
        Ok(state.files[self.id].seen.read(offset, buf))
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            bytes.extend_from_slice(part);
        }
        let mut state = self.disk.state();
        state.note(|| format!("write {} at {offset}, {} bytes", self.name, bytes.len()));
        let chance = state.faults.write;
        let power = state.begin(self.life, true, chance)?;
        if state.faults.short_write > 0 && !power {
            let short = state.faults.short_write;
            if state.rng.chance(short) {
                let part = state.rng.index(bytes.len() + 1);
                let code = if state.rng.chance(500) { EIO } else { ENOSPC };
                state.files[self.id].write(offset, &bytes[..part]);
                return Err(state.fault(code));
            }
        }
        let room = state.free();
        let file = &mut state.files[self.id];
        if file.seen.needs(offset, bytes.len() as u64) > room {
            // As much as there is room for, as the real call does.
            let mut part = bytes.len() as u64;
            while file.seen.needs(offset, part) > room {
                let end = offset + part;
                part = ((end - 1) / 4096 * 4096).saturating_sub(offset);
            }
            file.write(offset, &bytes[..part as usize]);
            state.note(|| "   ^ no space".to_owned());
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        file.write(offset, &bytes);
        cut(power, ())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.note(|| format!("sync {}", self.name));
        let chance = state.faults.sync;
        match state.begin(self.life, true, chance) {
            Ok(false) => {
                let kind = if self.name.contains(".cur") { Lie::Cursors } else { Lie::Segments };
                if state.lie != Some(kind) {
                    state.files[self.id].sync();
                }
                Ok(())
            }
            Ok(true) => cut(true, ()),
            Err(e) => {
                if self.life == state.life && !state.crashed {
                    let mut rng = state.rng.clone();
                    state.files[self.id].lose_unsynced(&mut rng);
                    state.rng = rng;
                }
                Err(e)
            }
        }
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        let chance = state.faults.read;
        state.begin(self.life, false, chance)?;
        Ok(state.files[self.id].seen.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.note(|| format!("set_size {} {size}", self.name));
        let chance = state.faults.write;
        let power = state.begin(self.life, true, chance)?;
        state.files[self.id].set_len(size);
        cut(power, ())
    }
}
