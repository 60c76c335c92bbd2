//! The bytes of one simulated file, twice: as programs see it, and as the disk would give it back after a power cut.
//!
//! Enters: writes, cuts, syncs. Leaves: what a crash makes of them. Can go wrong: nothing; faults are the file system's.
//!
//! A crash is as unkind as a real disk may be: every 512-byte sector with unsynced bytes is, independently of all
//! others, as it was, as it should be, zeros or garbage. Bytes of a sector that were not written since the last sync keep
//! their value: a disk that tears a sector so that its neighbours' bytes change has no fix but a log in whole sectors,
//! and neither Linux nor SQLite expects it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rng::Rng;

pub(super) const PAGE: usize = 4096;
const SECTOR: u64 = 512;

/// Bytes in pages that copies share until one is written.
#[derive(Clone, Default)]
pub(super) struct Pages {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    len: u64,
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that take room on the disk: holes do not.
    pub(super) fn allocated(&self) -> u64 {
        (self.pages.iter().filter(|page| page.is_some()).count() * PAGE) as u64
    }

    /// How many bytes a write at `offset` would newly take.
    pub(super) fn needs(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (offset as usize / PAGE, (offset + len - 1) as usize / PAGE);
        let holes = (first..=last).filter(|&page| self.pages.get(page).is_none_or(Option::is_none)).count();
        (holes * PAGE) as u64
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let n = self.len.saturating_sub(offset).min(out.len() as u64) as usize;
        let mut done = 0;
        while done < n {
            let at = offset as usize + done;
            let (page, within) = (at / PAGE, at % PAGE);
            let take = (PAGE - within).min(n - done);
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(bytes) => out[done..done + take].copy_from_slice(&bytes[within..within + take]),
                None => out[done..done + take].fill(0),
            }
            done += take;
        }
        n
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset as usize + done;
            let (page, within) = (at / PAGE, at % PAGE);
            let take = (PAGE - within).min(bytes.len() - done);
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            let target = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(target)[within..within + take].copy_from_slice(&bytes[done..done + take]);
            done += take;
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.truncate(len.div_ceil(PAGE as u64) as usize);
            let within = len as usize % PAGE;
            if within > 0
                && let Some(Some(page)) = self.pages.get_mut(len as usize / PAGE)
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![0; self.len as usize];
        self.read(0, &mut out);
        out
    }
}

/// One file.
#[derive(Clone, Default)]
pub(super) struct Image {
    /// What programs see.
    pub(super) seen: Pages,
    /// What the last successful sync brought to the disk.
    durable: Pages,
    /// Ranges written since, start to end, apart from each other.
    dirty: BTreeMap<u64, u64>,
}

impl Image {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut seen = Pages::default();
        seen.write(0, bytes);
        Image { durable: seen.clone(), seen, dirty: BTreeMap::new() }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.seen.write(offset, bytes);
        self.mark(offset, offset + bytes.len() as u64);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let old = self.seen.len();
        self.seen.set_len(len);
        // A cut and a later growth leave zeros where the disk still has the old bytes.
        if len < old {
            self.mark(len, old);
        }
    }

    fn mark(&mut self, mut start: u64, mut end: u64) {
        if start == end {
            return;
        }
        while let Some((&s, &e)) = self.dirty.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.dirty.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.dirty.insert(start, end);
    }

    pub(super) fn sync(&mut self) {
        self.durable = self.seen.clone();
        self.dirty.clear();
    }

    /// What the disk has after the power went: also what programs see from then on.
    pub(super) fn crash(&mut self, rng: &mut Rng, mood: Mood) {
        let (old, new) = (self.durable.len(), self.seen.len());
        let mut after = self.durable.clone();
        let grown = new.max(old);
        for (&start, &end) in &self.dirty {
            let mut at = start;
            while at < end {
                let stop = ((at / SECTOR + 1) * SECTOR).min(end);
                let mut bytes = vec![0; (stop - at) as usize];
                match mood.fate(rng) {
                    Fate::Old => {
                        self.durable.read(at, &mut bytes);
                    }
                    Fate::New => {
                        self.seen.read(at, &mut bytes);
                    }
                    Fate::Zero => {}
                    Fate::Garbage => rng.fill(&mut bytes),
                    Fate::Elsewhere => {
                        let sectors = grown / SECTOR;
                        let from = rng.below(sectors.max(1)) * SECTOR + at % SECTOR;
                        self.seen.read(from, &mut bytes);
                    }
                }
                after.write(at, &bytes);
                at = stop;
            }
        }
        let len = match mood.fate(rng) {
            Fate::Old => old,
            Fate::New => new,
            _ => old.min(new) + rng.below(grown - old.min(new) + 1),
        };
        after.set_len(len);
        self.seen = after.clone();
        self.durable = after;
        self.dirty.clear();
    }

    /// A sync that failed: the kernel drops what it could not write and calls the pages clean.
    pub(super) fn lose_unsynced(&mut self, rng: &mut Rng) {
        let len = self.seen.len();
        let mood = if rng.chance(500) { Mood::AllOld } else { Mood::OldOrNew };
        self.crash(rng, mood);
        // The length is metadata and has a journal of its own.
        self.seen.set_len(len);
        self.durable.set_len(len);
    }
}

/// How one crash treats unsynced sectors. Pure cases find bugs that a mix of everything hides, and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    AllOld,
    AllNew,
    OldOrNew,
    Anything,
}

impl Mood {
    pub(super) fn any(rng: &mut Rng) -> Self {
        match rng.below(6) {
            0 => Mood::AllOld,
            1 => Mood::AllNew,
            2 => Mood::OldOrNew,
            _ => Mood::Anything,
        }
    }

    fn fate(self, rng: &mut Rng) -> Fate {
        match self {
            Mood::AllOld => Fate::Old,
            Mood::AllNew => Fate::New,
            Mood::OldOrNew if rng.chance(500) => Fate::Old,
            Mood::OldOrNew => Fate::New,
            Mood::Anything => match rng.below(9) {
                0 | 1 => Fate::Old,
                2..=4 => Fate::New,
                5 | 6 => Fate::Zero,
                7 => Fate::Garbage,
                _ => Fate::Elsewhere,
            },
        }
    }

    /// Whether an unsynced name made it.
    pub(super) fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Mood::AllOld => false,
            Mood::AllNew => true,
            Mood::OldOrNew | Mood::Anything => rng.chance(500),
        }
    }
}

enum Fate {
    Old,
    New,
    Zero,
    Garbage,
    /// The bytes of another sector of the file: what a misdirected write or a recycled block looks like.
    Elsewhere,
}
