//! Reading what one owner is owed, in order, while the log goes on.
//!
//! Enters: the number to read from. Leaves: frames, a block at a time, their records as slices of that block. A side log
//! comes before the main log: it holds the beginning of what its owner is owed. Can go wrong: damage, which is reported
//! with its place and kept beside the log; a read that fails, which is tried again by whoever asked.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Acquire};
use std::sync::{Arc, PoisonError, RwLock};

use super::frame::{HEAD, Uuid};
use super::scan::{Gap, Step, Walk};
use super::segment::FRAMES;
use super::vfs::{File, Vfs};
use super::{Harm, Kind, OwnerId, Read, Seq, StoredFrame, quarantine};
use crate::rt::Marks;

/// A segment as readers see it.
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) file: Arc<dyn File>,
    pub(super) uuid: Uuid,
    pub(super) first: Seq,
    /// The number of the last frame that counts; 0: there is none.
    pub(super) last: AtomicU64,
    /// Where the frames that count end.
    pub(super) end: AtomicU64,
}

/// All segments, in order.
#[derive(Default)]
pub(super) struct Index {
    pub(super) main: Vec<Arc<Piece>>,
    pub(super) side: BTreeMap<OwnerId, Vec<Arc<Piece>>>,
}

impl Index {
    /// The segment with the first frame from `from` on that `owner` may be owed.
    fn find(&self, owner: OwnerId, from: Seq) -> Option<Arc<Piece>> {
        let behind = |p: &Arc<Piece>| p.last.load(Acquire) < from;
        let side = self.side.get(&owner).map_or(&[][..], Vec::as_slice);
        side.iter().find(|p| !behind(p)).or_else(|| self.main.iter().find(|p| !behind(p))).cloned()
    }

    fn has(&self, piece: &Arc<Piece>) -> bool {
        self.main.iter().chain(self.side.values().flatten()).any(|p| Arc::ptr_eq(p, piece))
    }
}

/// What was settled when the log was opened.
#[derive(Default)]
pub(super) struct Start {
    pub(super) read: Seq,
    pub(super) unsettled: HashSet<Seq>,
    /// Of unsettled frames: records that the owner has.
    pub(super) partly: BTreeMap<Seq, Marks>,
}

impl Start {
    fn is_settled(&self, seq: Seq) -> bool {
        seq < self.read && !self.unsettled.contains(&seq)
    }
}

/// One owner's reader. A clone reads on its own.
#[derive(Clone)]
pub struct Reader {
    pub(super) index: Arc<RwLock<Index>>,
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) owner: OwnerId,
    pub(super) start: Arc<Start>,
    /// Where the last read ended: segment, place, number.
    pub(super) place: Option<(Uuid, u64, Seq)>,
}

impl Reader {
    /// Frames that are owed, from number `from` on: about `max` bytes of the file, at least one frame if there is one.
    pub fn read(&mut self, from: Seq, max: usize) -> Read {
        let mut read = Read { next: from, ..Read::default() };
        while read.frames.is_empty() && read.failed.is_none() {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            let Some(piece) = index.find(self.owner, read.next) else {
                read.caught_up = true;
                break;
            };
            drop(index);
            self.read_piece(&piece, max, &mut read);
        }
        read
    }

    fn read_piece(&mut self, piece: &Arc<Piece>, max: usize, read: &mut Read) {
        let (last, end) = (piece.last.load(Acquire), piece.end.load(Acquire));
        let (at, before) = match self.place {
            Some((uuid, at, next)) if uuid == piece.uuid && next == read.next => (at, next.saturating_sub(1)),
            _ => (FRAMES, piece.first.saturating_sub(1)),
        };
        let mut walk = Walk::new(Arc::clone(&piece.file), piece.uuid, at, end, before).reading(max);
        let from = read.next;
        let mut damage = Vec::new();
        loop {
            match walk.step() {
                // Written after this look began: it counts next time.
                Ok(Step::Frame(_, parsed, _)) if parsed.seq > last => break,
                Ok(Step::Frame(_, parsed, whole)) => {
                    if parsed.seq >= from {
                        read.next = parsed.seq + 1;
                        let mine = parsed.kind == Kind::Records && parsed.owners.contains(&self.owner);
                        if mine && !self.start.is_settled(parsed.seq) {
                            read.frames.push(StoredFrame {
                                seq: parsed.seq,
                                segs: parsed.segs(),
                                body: whole.slice(parsed.body.clone()),
                                count: parsed.count,
                                time_ms: parsed.time_ms,
                                done: self.start.partly.get(&parsed.seq).cloned(),
                            });
                        }
                    }
                    if !read.frames.is_empty() && !walk.is_at_hand() {
                        break;
                    }
                }
                Ok(Step::Damage(gap)) => damage.push(gap),
                Ok(Step::End { at, torn }) => {
                    if at + HEAD as u64 <= end {
                        let unknown = Gap { at, bytes: end - at, records: 0, first: read.next, next: None };
                        damage.push(torn.unwrap_or(unknown));
                    }
                    read.next = read.next.max(last + 1);
                    break;
                }
                Err(e) => {
                    read.failed = Some(format!("{}: {e}", piece.name));
                    break;
                }
            }
            if read.next > last {
                break;
            }
        }
        if !damage.is_empty() {
            // A segment that was freed meanwhile holds other frames now: nothing is wrong with it.
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            if !index.has(piece) {
                *read = Read { next: from, ..Read::default() };
                self.place = None;
                return;
            }
            drop(index);
            for gap in damage {
                read.damage.push(quarantine::keep(&*self.vfs, &*piece.file, &piece.name, gap, Harm::Damaged));
            }
        }
        self.place = Some((piece.uuid, walk.at(), read.next));
    }
}
