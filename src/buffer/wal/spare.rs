//! Empty segments ready for use: zeros on disk, so that an append never waits for the file system to find blocks.
//!
//! Enters: freed segments, and the wish for one more. Leaves: files of the standard size. At most [`KEPT`] are kept. Zeros
//! are written by a thread of their own. Can go wrong: no room; then there is none, and the log says that it is full.
//!
//! A log with a backlog gives its space back while the volume is short: an output may write to the same volume, and
//! could not deliver anything if the log took what is freed for new records.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::vfs::{File, Vfs};

/// Spares kept: the next one must be there when a segment is full. More would be space that nobody owes.
pub(super) const KEPT: usize = 1;
const ZEROS: usize = 1 << 20;
/// Files that could not be removed and are tried again; more than that are left to the next start.
const LEFT: usize = 64;

/// A file of the standard size that nobody uses.
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) file: Arc<dyn File>,
}

#[derive(Default)]
struct Stock {
    ready: Vec<Spare>,
    /// One is being made.
    making: bool,
    /// Files that nobody wants and that could not be removed.
    left: Vec<String>,
}

/// The stock.
#[derive(Clone)]
pub(super) struct Spares {
    vfs: Arc<dyn Vfs>,
    /// Bytes of each.
    size: u64,
    /// Bytes of the volume that stay free.
    reserve: u64,
    background: bool,
    stock: Arc<Mutex<Stock>>,
    number: Arc<AtomicU64>,
}

/// Whether the name is a spare's.
pub(super) fn is_spare(name: &str) -> bool {
    name.starts_with("spare-")
}

impl Spares {
    pub(super) fn new(vfs: Arc<dyn Vfs>, size: u64, reserve: u64, background: bool) -> Spares {
        let (stock, number) = (Arc::default(), Arc::new(AtomicU64::new(1)));
        Spares { vfs, size, reserve, background, stock, number }
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        // Whole whenever the lock is free.
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// One, if there is any. `backlog`: the log has more than it works with.
    pub(super) fn take(&self, backlog: bool) -> Option<Spare> {
        if !backlog || !self.is_short() {
            return self.lock().ready.pop();
        }
        let ready = std::mem::take(&mut self.lock().ready);
        for spare in ready {
            self.discard(spare.name);
        }
        None
    }

    /// Removes a spare that nobody wants; one that resists is tried again by [`Spares::sweep`]. Says whether there was one.
    pub(super) fn discard(&self, name: String) -> bool {
        match self.vfs.remove(&name) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(_) => {
                let mut stock = self.lock();
                if stock.left.len() < LEFT {
                    stock.left.push(name);
                }
                true
            }
        }
    }

    /// Tries again to remove what could not be removed. Nothing to do, nearly always.
    pub(super) fn sweep(&self) {
        let left = std::mem::take(&mut self.lock().left);
        for name in left {
            self.discard(name);
        }
    }

    /// Whether less of the volume is free than appends have to leave.
    fn is_short(&self) -> bool {
        self.vfs.space().is_ok_and(|(free, _)| free < self.reserve)
    }

    /// Bytes of the volume that appends leave free.
    pub(super) fn reserve(&self) -> u64 {
        self.reserve
    }

    pub(super) fn count(&self) -> usize {
        self.lock().ready.len()
    }

    /// Keeps a file that is no longer used, if it is wanted; gives it another name or none. `backlog`: the log has more
    /// than it works with. The caller syncs the directory.
    pub(super) fn keep(&self, name: &str, file: Arc<dyn File>, size: u64, backlog: bool) -> io::Result<()> {
        let spare = self.name();
        let wanted = size == self.size && self.count() < KEPT;
        let kept = wanted && !(backlog && self.is_short());
        match if kept { self.vfs.rename(name, &spare) } else { self.vfs.remove(name) } {
            // An attempt that was reported as failed had done it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        if kept {
            self.lock().ready.push(Spare { name: spare, file });
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("spare-{}.wal", self.number.fetch_add(1, Relaxed))
    }

    /// Makes a file of `size` zeros, on disk. `StorageFull` when less than `reserve` would stay free.
    pub(super) fn make(&self, size: u64, reserve: u64) -> io::Result<Spare> {
        let (free, _) = self.vfs.space()?;
        if free < size + reserve {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut name = self.name();
        let file = loop {
            match self.vfs.create(&name) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => name = self.name(),
                other => break other?,
            }
        };
        let fill = || {
            let zeros = vec![0; ZEROS.min(usize::try_from(size).unwrap_or(ZEROS))];
            let mut at = 0;
            while at < size {
                let n = (size - at).min(zeros.len() as u64);
                let part = zeros.get(..usize::try_from(n).unwrap_or(0)).unwrap_or_default();
                file.write_at(&[IoSlice::new(part)], at)?;
                at += n;
            }
            file.sync()
        };
        if let Err(e) = fill() {
            self.discard(name);
            return Err(e);
        }
        Ok(Spare { name, file })
    }

    /// Has one made, unless there is one or there is no room.
    pub(super) fn want(&self) {
        {
            let mut stock = self.lock();
            if stock.making || !stock.ready.is_empty() {
                return;
            }
            stock.making = true;
        }
        let me = self.clone();
        let work = move || {
            let made = me.make(me.size, me.reserve);
            let mut stock = me.lock();
            stock.making = false;
            // Without one the next append makes its own, or finds out that there is no room.
            stock.ready.extend(made.ok());
        };
        if !self.background {
            return work();
        }
        let thread = std::thread::Builder::new().name("firelane-prealloc".into()).spawn(work);
        if thread.is_err() {
            self.lock().making = false;
        }
    }
}
