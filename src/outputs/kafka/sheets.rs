//! Deliveries that are on their way, in the order they came, and what of them failed.
//!
//! Enters: deliveries, and the fate of their records. Leaves: which records go again, and deliveries that have their
//! verdict. Nothing is kept for a record that arrives; where one that failed lies is looked for then. Bounded by the
//! output's share.

use std::sync::Arc;
use std::time::Instant;

use rdkafka::types::RDKafkaErrorCode as Code;

use super::reports::Failure;
use crate::observe::counters::Drop as DropReason;
use crate::outputs::parcels::{ParcelId, Parcels, Settled};
use crate::record::Chunk;
use crate::rt::{Charge, Delivery, Receiver};
use crate::wire::msgpack;

/// The place of a record in the order of all: its delivery's number, and its own within.
pub(super) type Key = (u64, u32);

/// A record and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slip {
    pub(super) parcel: ParcelId,
    pub(super) index: u32,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What is known of a delivery.
struct Sheet {
    number: u64,
    live: bool,
    taken: Instant,
    /// What its messages take in librdkafka's queue.
    bytes: u64,
    charge: Option<Charge>,
    failures: u32,
    /// The wave in which it failed last.
    wave: u64,
    old: bool,
}

/// All that are unsettled.
#[derive(Default)]
pub(super) struct Sheets {
    parcels: Parcels,
    sheets: Vec<Sheet>,
    next: u64,
    weight: u64,
    wave: u64,
    settled: Vec<Settled>,
}

impl Sheets {
    pub(super) fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.settled.is_empty()
    }

    /// Bytes in librdkafka's queue, about.
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    pub(super) fn add(&mut self, delivery: Delivery) -> ParcelId {
        let parcel = self.parcels.add(delivery);
        let sheet = Sheet {
            number: self.next,
            live: true,
            taken: Instant::now(),
            bytes: 0,
            charge: None,
            failures: 0,
            wave: 0,
            old: false,
        };
        self.next += 1;
        match self.sheets.get_mut(parcel as usize) {
            Some(place) => *place = sheet,
            // Numbers are given without a gap.
            None => self.sheets.push(sheet),
        }
        parcel
    }

    fn get(&self, parcel: ParcelId) -> Option<&Sheet> {
        self.sheets.get(parcel as usize)
    }

    /// Its messages are in librdkafka's queue, and take that much memory.
    pub(super) fn weigh(&mut self, parcel: ParcelId, bytes: u64, chunk: &Chunk) {
        let Some(sheet) = self.sheets.get_mut(parcel as usize) else { return };
        sheet.bytes += bytes;
        self.weight += bytes;
        let total = sheet.bytes;
        sheet.charge.get_or_insert_with(|| chunk.charge.beside(0)).grow_to(total);
    }

    /// So many of its records have their fate.
    pub(super) fn finish(&mut self, parcel: ParcelId, records: u64) {
        let Some(settled) = self.parcels.finish(parcel, records) else { return };
        self.settled.push(settled);
        if let Some(sheet) = self.sheets.get_mut(parcel as usize) {
            sheet.live = false;
            sheet.charge = None;
            self.weight = self.weight.saturating_sub(std::mem::take(&mut sheet.bytes));
        }
    }

    /// Deliveries whose records all have their fate.
    pub(super) fn settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    pub(super) fn chunk(&self, parcel: ParcelId) -> Option<Arc<Chunk>> {
        self.parcels.chunk(parcel).map(Arc::clone)
    }

    pub(super) fn key(&self, slip: &Slip) -> Key {
        (self.get(slip.parcel).map_or(u64::MAX, |sheet| sheet.number), slip.index)
    }

    /// Where the records lie whose messages failed.
    pub(super) fn slips(&self, failed: &[Failure]) -> Vec<(Key, Slip, Option<Code>)> {
        let mut failed = failed.to_vec();
        failed.sort_unstable_by_key(|f| (f.parcel, f.index));
        let mut out = Vec::with_capacity(failed.len());
        for of_one in failed.chunk_by(|a, b| a.parcel == b.parcel) {
            let Some(parcel) = of_one.first().map(|f| f.parcel) else { continue };
            let Some(chunk) = self.chunk(parcel) else { continue };
            let mut wanted = of_one.iter().peekable();
            walk(&chunk, |index, start, end| {
                if let Some(failure) = wanted.next_if(|f| f.index == index) {
                    let slip = Slip { parcel, index, start, end };
                    out.push((self.key(&slip), slip, Some(failure.code)));
                }
                wanted.peek().is_some()
            });
        }
        out
    }

    /// Its records from `from` on.
    pub(super) fn rest(&self, parcel: ParcelId, from: u32) -> Vec<Slip> {
        let mut out = Vec::new();
        if let Some(chunk) = self.chunk(parcel) {
            walk(&chunk, |index, start, end| {
                if index >= from {
                    out.push(Slip { parcel, index, start, end });
                }
                true
            });
        }
        out
    }

    /// Failures from here on count once more.
    pub(super) fn begin_wave(&mut self) {
        self.wave += 1;
    }

    /// A record of it failed: an attempt of the delivery, however many failed with it.
    pub(super) fn failed(&mut self, slip: &Slip) {
        let wave = self.wave;
        if let Some(sheet) = self.sheets.get_mut(slip.parcel as usize)
            && sheet.wave != wave
        {
            sheet.wave = wave;
            sheet.failures = sheet.failures.saturating_add(1);
        }
    }

    /// Failed attempts.
    pub(super) fn failures(&self, parcel: ParcelId) -> u32 {
        self.get(parcel).map_or(0, |sheet| sheet.failures)
    }

    /// Marks those that `is_old` says it of, by when they were taken and when they were owed first. Says whether there are
    /// some.
    pub(super) fn mark_old(&mut self, is_old: impl Fn(Instant, Instant) -> bool) -> bool {
        let mut some = false;
        for (parcel, sheet) in self.sheets.iter_mut().enumerate().filter(|(_, sheet)| sheet.live) {
            let since = self.parcels.since(parcel as ParcelId).unwrap_or(sheet.taken);
            sheet.old = is_old(sheet.taken, since);
            some |= sheet.old;
        }
        some
    }

    /// Whether it was marked.
    pub(super) fn is_old(&self, parcel: ParcelId) -> bool {
        self.get(parcel).is_some_and(|sheet| sheet.old)
    }
}

/// Calls `each` with the number and the bounds of each record, until it says no.
fn walk(chunk: &Chunk, mut each: impl FnMut(u32, usize, usize) -> bool) {
    let (mut at, mut index) = (0, 0);
    while at < chunk.bytes.len() {
        let Ok(end) = msgpack::skip(&chunk.bytes, at) else { return };
        if !each(index, at, end) {
            return;
        }
        (at, index) = (end, index + 1);
    }
}

/// Records that will not be delivered.
struct Lost {
    slip: Slip,
    records: u64,
    why: DropReason,
    detail: Arc<str>,
}

/// What is on its way out of here without having been delivered.
#[derive(Default)]
pub(super) struct Letters {
    lost: Vec<Lost>,
    refused: Vec<(Failure, String)>,
}

impl Letters {
    /// This record will not be delivered.
    pub(super) fn slip(&mut self, slip: &Slip, why: DropReason, detail: String) {
        self.run(slip, 1, why, detail);
    }

    /// Nor will these, which lie together.
    pub(super) fn run(&mut self, slip: &Slip, records: u64, why: DropReason, detail: String) {
        let same =
            self.lost.last().filter(|last| *last.detail == *detail).map(|last| Arc::clone(&last.detail));
        let detail = same.unwrap_or_else(|| Arc::from(detail));
        self.lost.push(Lost { slip: *slip, records, why, detail });
    }

    /// Kafka refused this message when it was alone.
    pub(super) fn refused(&mut self, failure: Failure, detail: String) {
        self.refused.push((failure, detail));
    }

    /// Gives them their fate.
    pub(super) fn send(&mut self, sheets: &mut Sheets, queue: &Receiver) {
        for (failure, detail) in std::mem::take(&mut self.refused) {
            if let Some((_, slip, _)) = sheets.slips(&[failure]).first() {
                self.slip(slip, DropReason::Rejected, detail);
            }
        }
        let lost = std::mem::take(&mut self.lost);
        if let Some(first) = lost.first() {
            let records: u64 = lost.iter().map(|l| l.records).sum();
            tracing::warn!(output = %queue.label(), records, reason = first.why.name(), detail = %first.detail,
                "records given up");
        }
        for l in lost {
            sheets.parcels.bad(l.slip.parcel, (l.slip.start, l.slip.end), l.why, &l.detail);
            sheets.finish(l.slip.parcel, l.records);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Seg, Tag};
    use crate::rt::{Budget, queue};

    /// `n` records of three bytes each.
    fn delivery(sender: &crate::rt::Sender, n: u64) -> Delivery {
        let bytes = b"\x92\x05\x80".repeat(n as usize);
        let seg = Seg { tag: Tag::new(b"t"), end: bytes.len(), count: n };
        let charge = Budget::new(1 << 20).take(bytes.len() as u64);
        let segs = [seg].into_iter().collect();
        sender.deliver(Arc::new(Chunk { bytes: bytes.into(), segs, count: n, charge, meter: None }), None)
    }

    fn failure(parcel: ParcelId, index: u32) -> Failure {
        Failure { parcel, index, code: Code::PurgeQueue }
    }

    #[test]
    fn what_failed_goes_again_in_the_order_it_came_in_whatever_the_slots() {
        let (sender, _receiver) = queue("k", 1 << 20, Arc::default(), None);
        let mut sheets = Sheets::default();
        let (a, b) = (sheets.add(delivery(&sender, 3)), sheets.add(delivery(&sender, 3)));
        sheets.finish(a, 3);
        // Takes the slot of the first.
        let c = sheets.add(delivery(&sender, 3));
        assert_eq!(a, c);
        let mut slips = sheets.slips(&[failure(c, 0), failure(b, 2), failure(b, 0)]);
        slips.sort_unstable_by_key(|(key, ..)| *key);
        let found: Vec<_> = slips.iter().map(|(_, s, _)| (s.parcel, s.index, s.start..s.end)).collect();
        assert_eq!(found, [(b, 0, 0..3), (b, 2, 6..9), (c, 0, 0..3)]);
        assert_eq!(sheets.rest(b, 1).iter().map(|s| s.index).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_wave_of_failures_counts_once_for_each_delivery() {
        let (sender, _receiver) = queue("k", 1 << 20, Arc::default(), None);
        let mut sheets = Sheets::default();
        let a = sheets.add(delivery(&sender, 2));
        for _ in 0..2 {
            sheets.begin_wave();
            sheets.rest(a, 0).iter().for_each(|slip| sheets.failed(slip));
        }
        assert_eq!(sheets.failures(a), 2);
    }

    #[test]
    fn memory_is_charged_until_the_verdict() {
        let (sender, _receiver) = queue("k", 1 << 20, Arc::default(), None);
        let mut sheets = Sheets::default();
        let a = sheets.add(delivery(&sender, 2));
        let chunk = sheets.chunk(a).unwrap();
        sheets.weigh(a, 500, &chunk);
        sheets.finish(a, 1);
        assert_eq!((sheets.weight(), sheets.is_empty()), (500, false));
        sheets.finish(a, 1);
        assert_eq!((sheets.weight(), sheets.settled().len(), sheets.is_empty()), (0, 1, true));
    }
}
