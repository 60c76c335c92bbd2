//! Deliveries on their way: who is owed what.
//!
//! Enters: deliveries, and the fate of their records, in any order. Leaves: a verdict for each delivery once every record of
//! it has its fate. Bounded by the output's share: a delivery counts there until its verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::observe::counters::Drop as DropReason;
use crate::record::Chunk;
use crate::rt::{Delivery, Lost};
use crate::wire::msgpack;

/// So long after the first records of a stored delivery were through and others were not, the log hears of all such: one
/// of their streams may be stuck. Where none is, most are settled before.
const STUCK: Duration = Duration::from_secs(1);

/// A delivery's number here. Given again once it is settled.
pub(super) type ParcelId = u32;

struct Parcel {
    delivery: Delivery,
    /// Records without a fate.
    left: u64,
    bad: Vec<Bad>,
    /// Where records begin that the peer has and the log does not know of.
    through: Vec<u32>,
}

/// A record that the output does not have.
pub(super) struct Bad {
    start: usize,
    end: usize,
    why: DropReason,
    detail: Arc<str>,
    /// None of its pieces is still on its way.
    over: bool,
}

/// All that are unsettled.
#[derive(Default)]
pub(super) struct Parcels {
    slots: Vec<Option<Parcel>>,
    free: Vec<ParcelId>,
    /// When the log is to be told what is through.
    tell: Option<Instant>,
}

impl Parcels {
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    pub(super) fn add(&mut self, delivery: Delivery) -> ParcelId {
        let left = delivery.chunk.count;
        let parcel = Some(Parcel { delivery, left, bad: Vec::new(), through: Vec::new() });
        match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.slots.get_mut(id as usize) {
                    *slot = parcel;
                }
                id
            }
            None => {
                self.slots.push(parcel);
                (self.slots.len() - 1) as ParcelId
            }
        }
    }

    fn get(&self, id: ParcelId) -> Option<&Parcel> {
        self.slots.get(id as usize)?.as_ref()
    }

    /// Its records.
    pub(super) fn chunk(&self, id: ParcelId) -> Option<&Arc<Chunk>> {
        self.get(id).map(|p| &p.delivery.chunk)
    }

    /// When this output was first owed it.
    pub(super) fn since(&self, id: ParcelId) -> Option<Instant> {
        self.get(id).map(|p| p.delivery.since)
    }

    /// The record at `start..end` will not be delivered. Says so once, however many pieces it was cut into; it still counts
    /// as unfinished until [`Parcels::finish`].
    pub(super) fn bad(&mut self, id: ParcelId, range: (usize, usize), why: DropReason, detail: &Arc<str>) {
        let Some(Some(parcel)) = self.slots.get_mut(id as usize) else { return };
        let (start, end) = range;
        if !parcel.bad.iter().rev().any(|b| b.start == start) {
            parcel.bad.push(Bad { start, end, why, detail: Arc::clone(detail), over: false });
        }
    }

    /// Where the `records` begin that are about to be finished: through, unless they became [`Parcels::bad`]. Remembered
    /// only while others of the delivery are not finished.
    pub(super) fn through(
        &mut self,
        id: ParcelId,
        records: u64,
        begin: impl Iterator<Item = u32>,
        now: Instant,
    ) {
        let Some(Some(parcel)) = self.slots.get_mut(id as usize) else { return };
        if parcel.left > records && parcel.delivery.is_stored() {
            for at in begin {
                match parcel.bad.iter_mut().find(|b| b.start == at as usize) {
                    Some(bad) => bad.over = true,
                    None => parcel.through.push(at),
                }
            }
            self.tell.get_or_insert(now + STUCK);
        }
    }

    /// So many of its records have their fate. Gives the delivery back when that was the last.
    pub(super) fn finish(&mut self, id: ParcelId, records: u64) -> Option<Settled> {
        let slot = self.slots.get_mut(id as usize)?;
        let parcel = slot.as_mut()?;
        parcel.left = parcel.left.saturating_sub(records);
        if parcel.left > 0 {
            return None;
        }
        let parcel = slot.take()?;
        self.free.push(id);
        Some(Settled::Whole(parcel.delivery, parcel.bad))
    }

    /// When [`Parcels::tell`] has something to do.
    pub(super) fn next_tell(&self) -> Option<Instant> {
        self.tell
    }

    /// Tells the log what is through of deliveries that wait for a stuck stream, so that it does not come again. What is
    /// bad of them is settled now, for the same reason.
    pub(super) fn tell(&mut self, now: Instant) -> Vec<Settled> {
        if self.tell.is_none_or(|first| now < first) {
            return Vec::new();
        }
        self.tell = None;
        let parcels = self.slots.iter_mut().flatten();
        parcels
            .flat_map(|parcel| {
                parcel.tell_log();
                parcel.take_bad()
            })
            .collect()
    }
}

/// The output ends and some are unsettled: they stay in the log, less what is through.
impl Drop for Parcels {
    fn drop(&mut self) {
        self.slots.iter_mut().flatten().for_each(Parcel::tell_log);
    }
}

impl Parcel {
    fn tell_log(&mut self) {
        let mut through = std::mem::take(&mut self.through);
        if through.is_empty() {
            return;
        }
        through.sort_unstable();
        let mut through = through.into_iter().peekable();
        self.delivery.partly(numbered(&self.delivery.chunk).filter_map(|(n, begins)| {
            while through.next_if(|t| (*t as usize) < begins).is_some() {}
            through.next_if(|t| *t as usize == begins).map(|_| n)
        }));
    }

    /// The bad records that have their fate, each run of them as a delivery of its own. What is merely empty stays: nobody
    /// would notice it again.
    fn take_bad(&mut self) -> Vec<Settled> {
        let over = |b: &Bad| b.over && b.why != DropReason::Empty;
        let Parcel { delivery, bad, .. } = self;
        let (taken, kept) = std::mem::take(bad).into_iter().partition(over);
        *bad = kept;
        let chunk = Arc::clone(&delivery.chunk);
        let runs = runs(taken, &chunk);
        let begins: Vec<usize> =
            if runs.is_empty() { Vec::new() } else { numbered(&chunk).map(|(_, at)| at).collect() };
        let number = |at: usize| begins.partition_point(|begins| *begins < at);
        let of = |(bad, count): (Bad, u64)| {
            let records = number(bad.start)..number(bad.end);
            let part = delivery.take_part(chunk.part(bad.start, bad.end, count), records);
            Settled::Bad(part, bad.why, bad.detail.to_string())
        };
        runs.into_iter().map(of).collect()
    }
}

/// The records of a chunk: their number, and where they begin.
fn numbered(chunk: &Chunk) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    (0..).map_while(move |n| {
        let begins = at;
        at = msgpack::skip(&chunk.bytes, at).ok()?;
        Some((n, begins))
    })
}

/// What has its fate.
pub(super) enum Settled {
    /// A delivery, all of it, and what is bad of it.
    Whole(Delivery, Vec<Bad>),
    /// Records that were taken from a delivery, all bad for one reason, with what was wrong.
    Bad(Delivery, DropReason, String),
}

impl Settled {
    /// Gives it its verdict.
    pub(super) async fn settle(self) {
        match self {
            Settled::Whole(delivery, bad) if bad.is_empty() => delivery.delivered(),
            Settled::Whole(delivery, bad) => {
                let chunk = Arc::clone(&delivery.chunk);
                let lost = |(bad, count): (Bad, u64)| Lost {
                    part: chunk.part(bad.start, bad.end, count),
                    why: bad.why,
                    detail: bad.detail.to_string(),
                };
                delivery.divided(runs(bad, &chunk).into_iter().map(lost).collect()).await;
            }
            Settled::Bad(part, why, detail) => part.give_up(why, detail).await,
        }
    }
}

/// Bad records that can stand in one letter, as one, with their number.
fn runs(mut bad: Vec<Bad>, chunk: &Chunk) -> Vec<(Bad, u64)> {
    bad.sort_unstable_by_key(|b| b.start);
    let mut runs: Vec<(Bad, u64)> = Vec::new();
    for next in bad {
        match runs.last_mut() {
            Some((first, count)) if first.end == next.start && first.same(&next, chunk) => {
                first.end = next.end;
                *count += 1;
            }
            _ => runs.push((next, 1)),
        }
    }
    runs
}

impl Bad {
    /// Whether both can stand in one letter: same reason, same segment.
    fn same(&self, other: &Bad, chunk: &Chunk) -> bool {
        let segment = |end: usize| chunk.segs.iter().position(|seg| end <= seg.end);
        self.why == other.why && self.detail == other.detail && segment(self.end) == segment(other.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AckWait, Seg, Tag, Verdict};
    use crate::rt::{Budget, Keeper, Letters, Marks, queue};
    use std::sync::atomic::Ordering::Relaxed;

    fn chunk() -> Arc<Chunk> {
        // Four records of ten bytes under two tags.
        let seg = |tag: &[u8], end| Seg { tag: Tag::new(tag), end, count: 2 };
        Arc::new(Chunk {
            bytes: vec![0; 40].into(),
            segs: [seg(b"a", 20), seg(b"b", 40)].into_iter().collect(),
            count: 4,
            charge: Budget::new(1000).take(40),
            meter: None,
        })
    }

    #[tokio::test]
    async fn a_delivery_is_settled_when_its_last_record_has_its_fate_and_its_letters_are_kept() {
        let (letters, mut inbox) = Letters::new();
        let (tx, mut rx) = queue("o", 1000, Arc::default(), Some(letters));
        let (wait, ack) = AckWait::new(Arc::default());
        tx.push(tx.deliver(chunk(), Some(ack))).await;
        let mut parcels = Parcels::default();
        let id = parcels.add(rx.recv().await.unwrap());
        let detail: Arc<str> = "bad".into();
        assert!(parcels.finish(id, 1).is_none());
        // Three in a row, over the border between two tags; one of them in two pieces.
        for range in [(10, 20), (20, 30), (30, 40), (30, 40)] {
            parcels.bad(id, range, DropReason::Rejected, &detail);
        }
        parcels.finish(id, 3).unwrap().settle().await;
        assert!(parcels.is_empty());
        assert_eq!(wait.verdict(), Verdict::Pending);
        let counts: Vec<u64> = std::iter::from_fn(|| inbox.try_recv())
            .map(|letter| {
                let crate::rt::Content::Chunk(part) = &letter.content else { panic!() };
                let count = part.count;
                (letter.kept)();
                count
            })
            .collect();
        assert_eq!(counts, [1, 2]);
        assert_eq!(wait.verdict(), Verdict::Delivered);
        let counters = tx.counters();
        let all = [&counters.delivered, &counters.dead_lettered, &counters.held].map(|c| c.load(Relaxed));
        assert_eq!(all, [1, 3, 0]);
    }

    /// Four entries of ten bytes.
    fn entries(tag: &[u8]) -> Arc<Chunk> {
        let mut bytes = Vec::new();
        (0..4).for_each(|_| msgpack::write_str(&mut bytes, b"123456789"));
        let seg = Seg { tag: Tag::new(tag), end: 40, count: 4 };
        let charge = Budget::new(1000).take(40);
        Arc::new(Chunk {
            bytes: bytes.into(),
            segs: [seg].into_iter().collect(),
            count: 4,
            charge,
            meter: None,
        })
    }

    #[derive(Default)]
    struct Log(std::sync::Mutex<Vec<(u64, Option<Vec<usize>>)>>);

    impl Keeper for Log {
        fn settled(&self, number: u64) {
            self.0.lock().unwrap().push((number, None));
        }

        fn partly(&self, number: u64, done: Marks) {
            self.0.lock().unwrap().push((number, Some((0..50).filter(|n| done.has(*n)).collect())));
        }
    }

    #[tokio::test]
    async fn the_log_hears_what_is_through_of_a_delivery_that_is_stuck_and_nothing_that_is_bad() {
        let (tx, mut rx) = queue("o", 1000, Arc::default(), None);
        let log = Arc::new(Log::default());
        let keeper = || Arc::clone(&log) as Arc<dyn Keeper>;
        let heard = || std::mem::take(&mut *log.0.lock().unwrap());
        let now = Instant::now();
        // Of the second, a start has left out records 0 and 2 of its frame.
        tx.push(tx.stored(entries(b"a"), now, None, keeper(), (7, None))).await;
        tx.push(tx.stored(entries(b"b"), now, None, keeper(), (8, Some(vec![1, 3, 4, 5].into())))).await;
        let mut parcels = Parcels::default();
        let (a, b) = (parcels.add(rx.recv().await.unwrap()), parcels.add(rx.recv().await.unwrap()));
        parcels.bad(a, (10, 20), DropReason::Empty, &"bad".into());
        parcels.through(a, 3, [20, 10, 0].into_iter(), now);
        parcels.through(b, 1, [10].into_iter(), now);
        assert!(parcels.finish(a, 3).is_none() && parcels.finish(b, 1).is_none());
        assert!(parcels.tell(now).is_empty());
        assert_eq!(heard(), []);
        assert!(parcels.tell(parcels.next_tell().unwrap()).is_empty());
        assert_eq!(heard(), [(7, Some(vec![0, 2])), (8, Some(vec![3]))]);
        assert_eq!(parcels.next_tell(), None);
        parcels.through(a, 1, [30].into_iter(), now);
        parcels.finish(a, 1).unwrap().settle().await;
        assert_eq!(heard(), [(7, None)]);
        // The process ends.
        parcels.through(b, 1, [30].into_iter(), now);
        assert!(parcels.finish(b, 1).is_none());
        drop(parcels);
        assert_eq!(heard(), [(8, Some(vec![5]))]);
    }

    #[tokio::test]
    async fn bad_records_of_a_stuck_delivery_are_lettered_at_once_and_the_log_hears_when_they_are_on_disk() {
        let (letters, mut inbox) = Letters::new();
        let (tx, mut rx) = queue("o", 1000, Arc::default(), Some(letters));
        let log = Arc::new(Log::default());
        let heard = || std::mem::take(&mut *log.0.lock().unwrap());
        let (wait, ack) = AckWait::new(Arc::default());
        // A start has left out record 1 of the frame.
        let places = Some(vec![0, 2, 3, 4].into());
        let keeper = Arc::clone(&log) as Arc<dyn Keeper>;
        tx.push(tx.stored(entries(b"a"), Instant::now(), Some(ack), keeper, (7, places))).await;
        let mut parcels = Parcels::default();
        let id = parcels.add(rx.recv().await.unwrap());
        let now = Instant::now();
        let detail: Arc<str> = "bad".into();
        // The last but one has a second piece on its way.
        for range in [(0, 10), (10, 20), (20, 30)] {
            parcels.bad(id, range, DropReason::TooOld, &detail);
        }
        parcels.through(id, 2, [0, 10].into_iter(), now);
        assert!(parcels.finish(id, 2).is_none());
        let settled = parcels.tell(parcels.next_tell().unwrap());
        assert_eq!(settled.len(), 1);
        for s in settled {
            s.settle().await;
        }
        let letter = inbox.try_recv().unwrap();
        let crate::rt::Content::Chunk(part) = &letter.content else { panic!() };
        assert_eq!((part.count, part.bytes.len(), letter.reason), (2, 20, "too_old"));
        assert_eq!(heard(), []);
        (letter.kept)();
        assert_eq!(heard(), [(7, Some(vec![0, 2]))]);
        // The others follow; the frame is given up when their letter, too, is on disk.
        parcels.finish(id, 2).unwrap().settle().await;
        assert_eq!((heard(), wait.verdict()), (vec![], Verdict::Pending));
        (inbox.try_recv().unwrap().kept)();
        assert_eq!((heard(), wait.verdict()), (vec![(7, None)], Verdict::Delivered));
        let counters = tx.counters();
        let all = [&counters.delivered, &counters.dead_lettered, &counters.held].map(|c| c.load(Relaxed));
        // What came from the log was counted as held by whoever stored it.
        assert_eq!(all, [1, 3, 0u64.wrapping_sub(4)]);
    }

    #[tokio::test]
    async fn a_frame_is_kept_while_a_letter_of_it_is_not_on_disk() {
        let (letters, mut inbox) = Letters::new();
        let (tx, mut rx) = queue("o", 1000, Arc::default(), Some(letters));
        let log = Arc::new(Log::default());
        let heard = || std::mem::take(&mut *log.0.lock().unwrap());
        let keeper = Arc::clone(&log) as Arc<dyn Keeper>;
        tx.push(tx.stored(entries(b"a"), Instant::now(), None, keeper, (7, None))).await;
        let mut parcels = Parcels::default();
        let id = parcels.add(rx.recv().await.unwrap());
        parcels.bad(id, (30, 40), DropReason::Rejected, &"bad".into());
        parcels.through(id, 1, [30].into_iter(), Instant::now());
        assert!(parcels.finish(id, 1).is_none());
        for s in parcels.tell(parcels.next_tell().unwrap()) {
            s.settle().await;
        }
        parcels.finish(id, 3).unwrap().settle().await;
        assert_eq!(heard(), []);
        // A writer that ends without it leaves the frame in the log.
        let letter = inbox.try_recv().unwrap();
        drop(letter);
        assert_eq!(heard(), []);
    }
}
