//! What was taken from the queue and has no verdict yet: deliveries in order, and the messages that carry them.
//!
//! Enters: deliveries and messages, how many bytes were written, acks. Leaves: the next bytes to write, verdicts. A
//! delivery is settled when all of its messages are. When the connection is lost, everything unsettled is written again
//! from the oldest. Bounded: [`Window::has_room`] says when to take no more.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use crate::rt::Delivery;

/// No more is taken when so many bytes ...
const FULL: usize = 2 << 20;
/// ... or so many messages are in flight.
const FULL_MESSAGES: usize = 512;

/// One or, in Message mode, several messages of the protocol, as byte runs.
pub(super) struct Message {
    pieces: Vec<Bytes>,
    size: usize,
    /// Numbers of the acks it asks for; none: it is settled when written.
    ids: Range<u64>,
    /// Which of them have come.
    acked: Vec<u64>,
    /// How many have not.
    owed: u64,
    records: u64,
    /// Deliveries that it carries parts of.
    parcels: Range<u64>,
    /// When its last byte was written.
    sent: Option<Instant>,
    settled: bool,
}

impl Message {
    pub(super) fn new(pieces: Vec<Bytes>, ids: Range<u64>, records: u64, parcels: Range<u64>) -> Message {
        let size = pieces.iter().map(Bytes::len).sum();
        let owed = ids.end - ids.start;
        let acked = vec![0; owed.div_ceil(64) as usize];
        Message { pieces, size, ids, acked, owed, records, parcels, sent: None, settled: false }
    }

    /// Its bytes in one run.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// A delivery on its way.
struct Parcel {
    /// Gone once it is settled.
    delivery: Option<Delivery>,
    /// Messages that carry it and are not settled.
    owed: usize,
    /// Attempts that failed.
    failures: u32,
}

/// What an ack meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acked {
    /// A message was waiting for it.
    Good,
    /// It had come before, or was not asked for.
    Unknown,
}

#[derive(Default)]
pub(super) struct Window {
    parcels: VecDeque<Parcel>,
    /// Number of the first parcel.
    first: u64,
    messages: VecDeque<Message>,
    /// The message being written, and how many of its bytes are out.
    at: usize,
    offset: usize,
    /// Messages before this one are flushed.
    flushed: usize,
    bytes: usize,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < FULL && self.messages.len() < FULL_MESSAGES
    }

    /// Takes a delivery and gives its number.
    pub(super) fn take(&mut self, delivery: Delivery) -> u64 {
        self.parcels.push_back(Parcel { delivery: Some(delivery), owed: 0, failures: 0 });
        self.first + self.parcels.len() as u64 - 1
    }

    /// Takes a message that carries the newest deliveries.
    pub(super) fn push(&mut self, message: Message) {
        for n in message.parcels.clone() {
            if let Some(parcel) = self.parcel(n) {
                parcel.owed += 1;
            }
        }
        self.bytes += message.size;
        self.messages.push_back(message);
    }

    fn parcel(&mut self, n: u64) -> Option<&mut Parcel> {
        self.parcels.get_mut(n.checked_sub(self.first)? as usize)
    }

    /// A delivery that became no message has nothing that could be lost.
    pub(super) fn settle_empty(&mut self) {
        for parcel in &mut self.parcels {
            if parcel.owed == 0
                && let Some(delivery) = parcel.delivery.take()
            {
                delivery.delivered();
            }
        }
        self.tidy();
    }

    /// The next bytes to write.
    pub(super) fn unwritten<'w>(&'w self, slices: &mut Vec<IoSlice<'w>>, most: usize) {
        let mut skip = self.offset;
        for message in self.messages.iter().skip(self.at) {
            for piece in &message.pieces {
                if slices.len() >= most {
                    return;
                }
                match piece.get(skip..) {
                    Some(rest) if !rest.is_empty() => {
                        slices.push(IoSlice::new(rest));
                        skip = 0;
                    }
                    _ => skip -= piece.len(),
                }
            }
        }
    }

    /// Whether there are bytes to write.
    pub(super) fn has_unwritten(&self) -> bool {
        self.at < self.messages.len()
    }

    /// Whether a message has been written in part.
    pub(super) fn is_within(&self) -> bool {
        self.offset > 0
    }

    /// So many bytes were written. Gives how many messages were completed.
    pub(super) fn wrote(&mut self, mut n: usize, now: Instant) -> u64 {
        let mut completed = 0;
        while let Some(message) = self.messages.get_mut(self.at) {
            let left = message.size - self.offset;
            if n < left {
                self.offset += n;
                break;
            }
            n -= left;
            message.sent = Some(now);
            self.at += 1;
            self.offset = 0;
            completed += 1;
        }
        completed
    }

    /// Whether messages have been written that are not known to be out.
    pub(super) fn is_unflushed(&self) -> bool {
        self.flushed < self.at
    }

    /// Everything written is out: what needs no ack is settled.
    pub(super) fn flush(&mut self) {
        let range = self.flushed..self.at;
        self.flushed = self.at;
        for i in range {
            if self.messages.get(i).is_some_and(|m| m.owed == 0 && !m.settled) {
                self.settle(i);
            }
        }
        self.tidy();
    }

    /// The ack with this number has come.
    pub(super) fn ack(&mut self, number: u64) -> Acked {
        // Numbers grow from message to message.
        let i = self.messages.partition_point(|m| m.ids.end <= number);
        let written = i < self.at;
        let Some(message) = self.messages.get_mut(i) else { return Acked::Unknown };
        let Some(bit) = number.checked_sub(message.ids.start) else { return Acked::Unknown };
        let Some(word) = message.acked.get_mut((bit / 64) as usize) else { return Acked::Unknown };
        // An ack for what was not sent on this connection is none.
        if message.settled || !written || *word & 1 << (bit % 64) != 0 {
            return Acked::Unknown;
        }
        *word |= 1 << (bit % 64);
        message.owed -= 1;
        if message.owed == 0 {
            self.settle(i);
            self.tidy();
        }
        Acked::Good
    }

    fn settle(&mut self, i: usize) {
        let Some(message) = self.messages.get_mut(i) else { return };
        message.settled = true;
        message.pieces = Vec::new();
        self.bytes -= message.size;
        let parcels = message.parcels.clone();
        for n in parcels {
            if let Some(parcel) = self.parcel(n) {
                parcel.owed -= 1;
                if parcel.owed == 0
                    && let Some(delivery) = parcel.delivery.take()
                {
                    delivery.delivered();
                }
            }
        }
    }

    /// Forgets what is settled at the front.
    fn tidy(&mut self) {
        while self.messages.front().is_some_and(|m| m.settled) {
            self.messages.pop_front();
            self.at = self.at.saturating_sub(1);
            self.flushed = self.flushed.saturating_sub(1);
        }
        while self.parcels.front().is_some_and(|p| p.delivery.is_none()) {
            self.parcels.pop_front();
            self.first += 1;
        }
    }

    /// When the oldest message without an ack was sent; `None` while none is.
    pub(super) fn oldest_sent(&self) -> Option<Instant> {
        self.messages.front().and_then(|m| m.sent)
    }

    /// The connection is lost: everything unsettled is to be written again. Gives how many records had been written,
    /// in whole or in part.
    pub(super) fn lost(&mut self) -> u64 {
        let touched = self.at + usize::from(self.offset > 0);
        let again = self.messages.iter().take(touched).filter(|m| !m.settled).map(|m| m.records).sum();
        self.messages.retain(|m| !m.settled);
        for message in &mut self.messages {
            message.sent = None;
            // What was acked on the old connection is written again with the rest, and acked again.
            message.owed = message.ids.end - message.ids.start;
            message.acked.fill(0);
        }
        (self.at, self.offset, self.flushed) = (0, 0, 0);
        again
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self) {
        for parcel in &mut self.parcels {
            parcel.failures = parcel.failures.saturating_add(1);
        }
    }

    /// Failed attempts of the oldest delivery.
    pub(super) fn failures(&self) -> u32 {
        self.parcels.front().map_or(0, |p| p.failures)
    }

    /// Takes out deliveries from the oldest on as long as `hopeless` says so of them, with what shares a message with
    /// them. Not between [`Window::wrote`] and [`Window::lost`].
    pub(super) fn give_up(&mut self, mut hopeless: impl FnMut(&Delivery, u32) -> bool) -> Vec<Delivery> {
        let given = self
            .parcels
            .iter()
            .take_while(|p| p.delivery.as_ref().is_none_or(|d| hopeless(d, p.failures)))
            .count();
        let mut end = self.first + given as u64;
        if given == 0 {
            return Vec::new();
        }
        while let Some(message) = self.messages.front().filter(|m| m.parcels.start < end) {
            end = end.max(message.parcels.end);
            if !message.settled {
                self.bytes -= message.size;
            }
            self.messages.pop_front();
        }
        let out = (end - self.first) as usize;
        self.first = end;
        self.parcels.drain(..out.min(self.parcels.len())).filter_map(|p| p.delivery).collect()
    }

    #[cfg(test)]
    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outputs::forward::testing::{counters, delivery, queue};

    /// A window with one delivery for each message size; message `n` has ack `n`, if acks are wanted.
    fn window(sizes: &[usize], acks: bool) -> (Window, crate::outputs::forward::testing::Queue) {
        let queue = queue();
        let mut window = Window::default();
        for (n, size) in sizes.iter().enumerate() {
            let parcel = window.take(delivery(&queue, b"t", 1));
            let ids = if acks { n as u64..n as u64 + 1 } else { 0..0 };
            window.push(Message::new(vec![vec![n as u8; *size].into()], ids, 1, parcel..parcel + 1));
        }
        (window, queue)
    }

    fn unwritten(window: &Window) -> Vec<u8> {
        let mut slices = Vec::new();
        window.unwritten(&mut slices, usize::MAX);
        slices.iter().flat_map(|s| s.to_vec()).collect()
    }

    #[test]
    fn without_acks_a_message_is_settled_once_it_is_out() {
        let (mut w, queue) = window(&[2, 2], false);
        assert_eq!(w.wrote(3, Instant::now()), 1);
        assert_eq!(counters(&queue), (0, 2));
        w.flush();
        assert_eq!(counters(&queue), (1, 1));
        assert_eq!(unwritten(&w), [1]);
        w.wrote(1, Instant::now());
        w.flush();
        assert!(w.is_empty() && !w.has_unwritten());
    }

    #[test]
    fn acks_may_come_in_any_order_and_once() {
        let (mut w, queue) = window(&[1, 1, 1], true);
        assert_eq!(w.ack(0), Acked::Unknown);
        w.wrote(3, Instant::now());
        w.flush();
        assert_eq!((w.ack(2), w.ack(2), w.ack(7)), (Acked::Good, Acked::Unknown, Acked::Unknown));
        assert_eq!(w.ack(0), Acked::Good);
        assert_eq!(counters(&queue), (2, 1));
        assert_eq!(w.ack(1), Acked::Good);
        assert!(w.is_empty());
    }

    #[test]
    fn after_a_loss_everything_unsettled_is_written_again_in_order() {
        let (mut w, _queue) = window(&[1, 2, 1, 1], true);
        w.wrote(2, Instant::now());
        w.ack(0);
        assert!(w.is_within());
        assert_eq!(w.lost(), 1);
        assert_eq!(unwritten(&w), [1, 1, 2, 3]);
        w.wrote(5, Instant::now());
        w.ack(2);
        assert_eq!(w.lost(), 2);
        assert_eq!(unwritten(&w), [1, 1, 3]);
        w.wrote(3, Instant::now());
        assert_eq!((w.ack(1), w.ack(3), w.is_empty()), (Acked::Good, Acked::Good, true));
    }

    #[test]
    fn a_message_acked_out_of_order_in_the_midst_leaves_the_rest_in_place() {
        let (mut w, queue) = window(&[2, 2, 2], true);
        w.wrote(5, Instant::now());
        w.ack(1);
        w.ack(0);
        assert_eq!(unwritten(&w), [2]);
        w.wrote(1, Instant::now());
        assert_eq!(w.ack(2), Acked::Good);
        assert_eq!(counters(&queue), (3, 0));
    }

    #[test]
    fn giving_up_takes_what_shares_a_message() {
        let queue = queue();
        let mut w = Window::default();
        let (a, _) = (w.take(delivery(&queue, b"t", 1)), w.take(delivery(&queue, b"t", 1)));
        w.push(Message::new(vec![vec![1].into()], 0..1, 2, a..a + 2));
        let c = w.take(delivery(&queue, b"t", 1));
        w.push(Message::new(vec![vec![2].into()], 1..2, 1, c..c + 1));
        w.failed();
        let mut once = true;
        let given = w.give_up(|_, failures| failures == 1 && std::mem::take(&mut once));
        assert_eq!(given.len(), 2);
        assert_eq!(unwritten(&w), [2]);
        w.wrote(1, Instant::now());
        assert_eq!((w.ack(1), w.is_empty()), (Acked::Good, true));
    }
}
