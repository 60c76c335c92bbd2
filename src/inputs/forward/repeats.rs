//! Chunks that come a second time while the first copy is still inside.
//!
//! Enters: the bytes of each frame that asks for an ack, and the connection it came on. Leaves: whether it is new, or a
//! repeat that hears the verdict of the first. A client that was not acked in time closes its connection and sends the
//! chunk again on another; when an output was away for longer than that, each of its chunks would come out twice.
//!
//! A repeat has every byte of the first, its chunk id among them, and the connection of one of the two has been closed by
//! the client. A client that sends equal frames on connections that it keeps means each of them.
//!
//! Can go wrong: the first is given up, then its repeats are, too. The first comes and goes while its repeat has not been
//! read, or the other way round: delivered frames are remembered while that may be, for [`MEMORY`] at most, [`MOST`] of
//! them. Bounded besides by the acks that are due on all connections.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::net::{Conn, HangUp};
use crate::record::Verdict;

/// How long a delivered frame whose ack may not have been heard is remembered.
const MEMORY: Duration = Duration::from_secs(60);
/// Delivered frames that are remembered, of all connections.
const MOST: usize = 8192;

/// A frame by its bytes: two hashes with keys of this process's own, so that nobody can make two frames meet.
pub(super) type Key = (u64, u64);

/// The frames of an input that asked for an ack.
#[derive(Default)]
pub(super) struct Repeats {
    hashers: [foldhash::quality::RandomState; 2],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<Key, Known, foldhash::fast::RandomState>,
    /// Delivered frames that are remembered, oldest first.
    delivered: VecDeque<(Instant, Key)>,
    /// Connections that asked for acks.
    open: Vec<Weak<HangUp>>,
}

enum Known {
    /// Its records are inside.
    Inside { from: Arc<HangUp>, repeats: Vec<Arc<Repeat>> },
    /// They were delivered. `unheard`: the sender had gone by then, so that whoever sends it repeats it; else only one
    /// that has gone itself can have sent it before.
    Delivered { unheard: bool },
}

/// A repeat, and where its verdict is heard.
pub(super) struct Repeat {
    verdict: AtomicU8,
    settled: Arc<Notify>,
}

const PENDING: u8 = 0;
const DELIVERED: u8 = 1;
const FAILED: u8 = 2;

impl Repeat {
    /// The verdict of the first so far.
    pub(super) fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Acquire) {
            PENDING => Verdict::Pending,
            DELIVERED => Verdict::Delivered,
            _ => Verdict::Failed,
        }
    }

    fn settle(&self, verdict: u8) {
        self.verdict.store(verdict, Ordering::Release);
        self.settled.notify_one();
    }
}

/// What a frame turned out to be.
pub(super) enum Met {
    /// To be taken. The claim, if any, wants to know what becomes of it.
    New(Option<Claim>),
    /// Not to be taken: the first is inside, and its verdict is this one's.
    Repeat(Arc<Repeat>),
    /// Not to be taken: the first was delivered.
    Delivered,
}

/// One connection's share of it.
pub(super) struct Sender {
    all: Arc<Repeats>,
    /// From the first frame that asks for an ack.
    known: Option<Arc<HangUp>>,
    /// Connections that had been closed by their clients when this one came, and from which there is more to read: it may
    /// repeat what comes here.
    elders: Vec<Weak<HangUp>>,
}

impl Sender {
    pub(super) fn new(all: Arc<Repeats>) -> Self {
        Sender { all, known: None, elders: Vec::new() }
    }

    /// Says what a frame that asks for an ack is; `settled` hears of a repeat's verdict.
    pub(super) fn meet(&mut self, conn: &Conn, frame: &[u8], settled: &Arc<Notify>) -> Met {
        let from = match &self.known {
            Some(from) => Arc::clone(from),
            None => {
                // Out of descriptors: then repeats are not known, and come twice.
                let Ok(from) = conn.hang_up().map(Arc::new) else { return Met::New(None) };
                self.elders = self.all.state().enter(&from);
                self.known = Some(Arc::clone(&from));
                from
            }
        };
        let [one, two] = &self.all.hashers;
        let key = (one.hash_one(frame), two.hash_one(frame));
        let mut state = self.all.state();
        state.forget(Instant::now());
        match state.known.get_mut(&key) {
            Some(Known::Inside { from: first, repeats }) => {
                if !first.is_hung_up() && !from.is_hung_up() {
                    return Met::New(None);
                }
                let repeat =
                    Arc::new(Repeat { verdict: AtomicU8::new(PENDING), settled: Arc::clone(settled) });
                // Those of connections that have ended.
                repeats.retain(|repeat| Arc::strong_count(repeat) > 1);
                repeats.push(Arc::clone(&repeat));
                Met::Repeat(repeat)
            }
            Some(Known::Delivered { unheard }) if *unheard || from.is_hung_up() => Met::Delivered,
            Some(Known::Delivered { .. }) | None => {
                state.known.insert(key, Known::Inside { from, repeats: Vec::new() });
                Met::New(Some(Claim { all: Arc::clone(&self.all), key, open: true }))
            }
        }
    }

    /// Tells what became of frames. `written`: their acks were written.
    pub(super) fn delivered(&mut self, claims: Vec<Claim>, written: bool) {
        if claims.is_empty() {
            return;
        }
        self.elders.retain(|elder| elder.strong_count() > 0);
        let unheard = !written || self.known.as_ref().is_some_and(|known| known.is_hung_up());
        let remembered = unheard || !self.elders.is_empty();
        for claim in claims {
            claim.delivered(remembered.then_some(unheard));
        }
    }
}

/// Knows that a frame is inside. Dropped, it means that the frame was given up: its repeats are new.
pub(super) struct Claim {
    all: Arc<Repeats>,
    key: Key,
    open: bool,
}

impl Claim {
    /// `remembered`: whether nobody heard the ack, if that matters.
    fn delivered(mut self, remembered: Option<bool>) {
        self.open = false;
        let mut state = self.all.state();
        settle(state.known.remove(&self.key), DELIVERED);
        if let Some(unheard) = remembered {
            state.known.insert(self.key, Known::Delivered { unheard });
            state.delivered.push_back((Instant::now(), self.key));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.open {
            settle(self.all.state().known.remove(&self.key), FAILED);
        }
    }
}

fn settle(known: Option<Known>, verdict: u8) {
    if let Some(Known::Inside { repeats, .. }) = known {
        repeats.iter().for_each(|repeat| repeat.settle(verdict));
    }
}

impl Repeats {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is half done when somebody panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A connection asks for acks. Gives those that their clients have left and that are still here.
    fn enter(&mut self, from: &Arc<HangUp>) -> Vec<Weak<HangUp>> {
        self.open.retain(|open| open.strong_count() > 0);
        let left = |open: &&Weak<HangUp>| open.upgrade().is_some_and(|open| open.is_hung_up());
        let elders = self.open.iter().filter(left).cloned().collect();
        self.open.push(Arc::downgrade(from));
        elders
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, key)) = self.delivered.front()
            && (self.delivered.len() > MOST || now.duration_since(*at) > MEMORY)
        {
            // The same frame may be inside again, as a new one.
            if matches!(self.known.get(key), Some(Known::Delivered { .. })) {
                self.known.remove(key);
            }
            self.delivered.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_delivered_is_forgotten_by_age_and_number_but_not_what_is_inside_again() {
        let mut state = State::default();
        let begin = Instant::now();
        for n in 0..=MOST as u64 {
            state.known.insert((n, 0), Known::Delivered { unheard: true });
            state.delivered.push_back((begin, (n, 0)));
        }
        state.forget(begin);
        assert_eq!((state.known.len(), state.known.contains_key(&(0, 0))), (MOST, false));
        let pipe = std::io::pipe().unwrap();
        let from = Arc::new(HangUp::of(pipe.0.into()));
        state.known.insert((1, 0), Known::Inside { from, repeats: Vec::new() });
        state.forget(begin + MEMORY + Duration::from_secs(1));
        assert!(matches!(state.known.get(&(1, 0)), Some(Known::Inside { .. })));
        assert_eq!((state.known.len(), state.delivered.len()), (1, 0));
    }
}
