//! What an input could not decode, on its way to the dead letters.
//!
//! Enters: bytes with their tag, as an intake refuses them. Leaves: letters, with the ack of who sent them. Nothing is
//! copied where there are no dead letters. Bounded: a letter holds at most [`MOST`] bytes, and what a source refuses
//! after [`SINGLE`] letters within one pass is put together, so that a frame of a million broken bytes is not a million
//! letters.

use std::sync::Arc;

use crate::record::{Ack, Tag};
use crate::rt::{Budget, Charge, Content, Letter, Letters};

/// Bytes of one letter.
const MOST: usize = 1 << 20;
/// Letters of one pass that stand alone.
const SINGLE: usize = 64;
/// What a letter takes beside its bytes.
const OVERHEAD: u64 = 256;

struct Refused {
    tag: Tag,
    reason: String,
    bytes: Vec<u8>,
    count: u64,
    /// Bytes that came.
    all: usize,
    charge: Charge,
}

/// One source's refused bytes.
pub(super) struct Refusals {
    letters: Option<(Letters, Arc<str>, Budget)>,
    pending: Vec<Refused>,
}

impl Refusals {
    /// `from` is who refuses: `input forward.0`.
    pub(super) fn new(letters: Option<Letters>, from: Arc<str>, budget: Budget) -> Self {
        Refusals { letters: letters.map(|letters| (letters, from, budget)), pending: Vec::new() }
    }

    /// Keeps the bytes for the next pass. Gives how many it has taken in, at least 1, or 0 without dead letters.
    pub(super) fn add(&mut self, count: u64, tag: &[u8], bytes: &[u8], reason: &str) -> usize {
        let Some((_, _, budget)) = &self.letters else { return 0 };
        if self.pending.len() >= SINGLE
            && let Some(last) = self.pending.last_mut().filter(|last| last.tag.as_bytes() == tag)
        {
            last.append(count, bytes);
        } else {
            let mut refused = Refused {
                tag: Tag::new(tag),
                reason: reason.to_owned(),
                bytes: Vec::new(),
                count: 0,
                all: 0,
                charge: budget.take(OVERHEAD),
            };
            refused.append(count, bytes);
            self.pending.push(refused);
        }
        bytes.len().clamp(1, MOST)
    }

    /// Letters of everything kept. Who sent it is answered when they are on disk.
    pub(super) fn take(&mut self, ack: Option<&Ack>) -> Vec<Letter> {
        let Some((_, from, _)) = &self.letters else { return Vec::new() };
        let letter = |refused: Refused| {
            let ack = ack.map(Ack::split);
            Letter {
                from: Arc::clone(from),
                reason: "undecodable",
                detail: refused.detail(),
                content: Content::Raw {
                    tag: refused.tag,
                    bytes: refused.bytes.into(),
                    count: refused.count,
                    charge: refused.charge,
                },
                kept: Box::new(move || ack.into_iter().for_each(Ack::done)),
            }
        };
        std::mem::take(&mut self.pending).into_iter().map(letter).collect()
    }

    /// The way on.
    pub(super) fn letters(&self) -> Option<Letters> {
        self.letters.as_ref().map(|(letters, ..)| letters.clone())
    }
}

impl Refused {
    fn append(&mut self, count: u64, bytes: &[u8]) {
        let room = MOST - self.bytes.len();
        self.bytes.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        self.charge.grow_to(OVERHEAD + self.bytes.capacity() as u64);
        self.count += count;
        self.all += bytes.len();
    }

    fn detail(&self) -> String {
        let mut detail = self.reason.clone();
        if self.count > 1 {
            detail += &format!("; {} of the kind or like it, one after the other", self.count);
        }
        if self.all > self.bytes.len() {
            detail += &format!("; the first {} of {} bytes", self.bytes.len(), self.all);
        }
        detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AckWait, Verdict};

    fn refusals() -> (Refusals, crate::rt::LetterBox, Budget) {
        let (letters, inbox) = Letters::new();
        let budget = Budget::new(10 << 20);
        (Refusals::new(Some(letters), "input x.0".into(), budget.clone()), inbox, budget)
    }

    #[test]
    fn without_dead_letters_nothing_is_kept() {
        let mut refusals = Refusals::new(None, "x".into(), Budget::new(1000));
        assert_eq!(refusals.add(1, b"t", b"bytes", "torn"), 0);
        assert!(refusals.take(None).is_empty());
    }

    #[test]
    fn a_flood_of_broken_bytes_is_few_letters_and_its_memory_is_charged() {
        let (mut refusals, _inbox, budget) = refusals();
        for _ in 0..100_000 {
            assert_eq!(refusals.add(1, b"t", b"\xc1", "reserved"), 1);
        }
        let letters = refusals.take(None);
        assert_eq!(letters.len(), SINGLE);
        let Content::Raw { bytes, count, .. } = &letters.last().unwrap().content else { panic!() };
        assert_eq!((bytes.len(), *count), (100_000 - SINGLE + 1, (100_000 - SINGLE + 1) as u64));
        assert!(budget.used() >= 100_000, "{}", budget.used());
        drop(letters);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_large_payload_is_cut_and_says_so() {
        let (mut refusals, _inbox, _) = refusals();
        refusals.add(1, b"t", &vec![7; MOST + 5], "a bomb");
        let letter = refusals.take(None).remove(0);
        assert_eq!(letter.detail, "a bomb; the first 1048576 of 1048581 bytes");
        let Content::Raw { bytes, .. } = letter.content else { panic!() };
        assert_eq!(bytes.len(), MOST);
    }

    #[test]
    fn the_sender_is_answered_when_the_letter_is_kept_and_told_when_it_is_not() {
        for keep in [true, false] {
            let (mut refusals, _inbox, _) = refusals();
            refusals.add(1, b"t", b"x", "torn");
            let (wait, ack) = AckWait::new(Arc::default());
            let letter = refusals.take(Some(&ack)).remove(0);
            ack.done();
            assert_eq!(wait.verdict(), Verdict::Pending);
            if keep {
                (letter.kept)();
            } else {
                drop(letter);
            }
            assert_eq!(wait.verdict(), if keep { Verdict::Delivered } else { Verdict::Failed });
        }
    }
}
