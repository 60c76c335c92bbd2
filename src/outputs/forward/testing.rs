//! Deliveries for unit tests.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::observe::counters::Output as Counters;
use crate::record::{Chunk, Seg, Tag, Time};
use crate::rt::{Budget, Delivery, Receiver, Sender};
use crate::wire::entry;

pub(super) struct Queue {
    pub(super) sender: Sender,
    _receiver: Receiver,
}

pub(super) fn queue() -> Queue {
    let (sender, _receiver) = crate::rt::queue("forward.0", 1 << 30, Arc::new(Counters::default()), None);
    Queue { sender, _receiver }
}

/// Delivered and held records.
pub(super) fn counters(queue: &Queue) -> (u64, u64) {
    let c = queue.sender.counters();
    (c.delivered.load(Relaxed), c.held.load(Relaxed))
}

/// `[time, {"k": n}]`, with metadata `{"m": 1}` for odd seconds if asked for.
pub(super) fn entry(sec: i64, n: u8, metadata: bool) -> Vec<u8> {
    let mut out = Vec::new();
    entry::write_head(&mut out, Time::new(sec, 7), metadata.then_some(b"\x81\xa1m\x01"));
    out.extend_from_slice(&[0x81, 0xa1, b'k', n & 0x7f]);
    out
}

/// A delivery of segments: a tag and its entries.
pub(super) fn segments(queue: &Queue, segments: &[(&[u8], Vec<Vec<u8>>)]) -> Delivery {
    let (mut bytes, mut segs, mut count) = (Vec::new(), Vec::new(), 0);
    for (tag, entries) in segments {
        entries.iter().for_each(|e| bytes.extend_from_slice(e));
        count += entries.len() as u64;
        segs.push(Seg { tag: Tag::new(tag), end: bytes.len(), count: entries.len() as u64 });
    }
    let charge = Budget::new(1 << 30).take(bytes.len() as u64);
    let chunk = Chunk { bytes: bytes.into(), segs: segs.into_iter().collect(), count, charge, meter: None };
    queue.sender.deliver(Arc::new(chunk), None)
}

/// A delivery of so many entries of one tag.
pub(super) fn delivery(queue: &Queue, tag: &[u8], count: u8) -> Delivery {
    segments(queue, &[(tag, (0..count).map(|n| entry(5, n, false)).collect())])
}
