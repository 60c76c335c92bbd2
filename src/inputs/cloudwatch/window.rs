//! The latest events, for those who read.
//!
//! Enters: entries that were taken. Leaves: events in the order of their times, page by page. Bounded in events and in
//! bytes, the oldest to arrive go first; its memory is charged to the budget.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::rt::Charge;
use crate::wire::{entry, msgpack};

/// What an event takes beside its message.
const OVERHEAD: usize = 96;

/// A stream by its names.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) group: Box<str>,
    pub(super) stream: Box<str>,
}

/// An event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) key: Arc<Key>,
    /// Milliseconds since 1970.
    pub(super) time: i64,
    pub(super) ingested: i64,
    pub(super) message: Arc<[u8]>,
    /// In the order of arrival.
    pub(super) id: u64,
}

/// The events.
pub(super) struct Window {
    events: VecDeque<Event>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    next: u64,
    charge: Charge,
}

/// A place between events: those at this time up to this id lie before it.
pub(super) type Place = (i64, u64);

impl Window {
    pub(super) fn new(most: usize, most_bytes: usize, charge: Charge) -> Self {
        Window { events: VecDeque::new(), bytes: 0, most, most_bytes, next: 1, charge }
    }

    /// Adds the entries of a batch.
    pub(super) fn add(&mut self, key: &Arc<Key>, entries: &[u8], count: usize, ingested: i64) {
        // What would not stay is not copied.
        let mut skip = count.saturating_sub(self.most);
        let mut pos = 0;
        while let Ok(Ok(entry)) = entry::read(entries, pos) {
            pos = entry.end;
            if skip > 0 {
                skip -= 1;
                continue;
            }
            let (entry::TimeForm::At(time), Some(message)) =
                (entry.time, message(entries, entry.record.start))
            else {
                continue;
            };
            let event = Event {
                key: Arc::clone(key),
                time: time.millis(),
                ingested,
                message: message.into(),
                id: self.next,
            };
            self.next += 1;
            self.bytes += message.len() + OVERHEAD;
            self.events.push_back(event);
            while self.events.len() > self.most || self.bytes > self.most_bytes {
                let Some(gone) = self.events.pop_front() else { break };
                self.bytes -= gone.message.len() + OVERHEAD;
            }
        }
        self.weigh();
    }

    /// Forgets the events of a stream or of a group.
    pub(super) fn forget(&mut self, of: impl Fn(&Key) -> bool) {
        self.events.retain(|e| !of(&e.key));
        self.bytes = self.events.iter().map(|e| e.message.len() + OVERHEAD).sum();
        self.weigh();
    }

    fn weigh(&mut self) {
        self.charge.grow_to(self.bytes as u64);
        self.charge.shrink_to(self.bytes as u64);
    }

    /// Events that `wanted` takes, in the order of their times.
    pub(super) fn select(&self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut found: Vec<Event> = self.events.iter().filter(|e| wanted(e)).cloned().collect();
        found.sort_by_key(|e| (e.time, e.id));
        found
    }
}

/// The message of a record: its first field.
fn message(entries: &[u8], record: usize) -> Option<&[u8]> {
    let (_, key) = msgpack::read(entries, record)?;
    let (_, value) = msgpack::read(entries, key)?;
    msgpack::read(entries, value)?.0.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::Budget;
    use crate::wire::cloudwatch_in::{Frame, Outline, Times, entries};

    fn add(window: &mut Window, stream: &str, events: &[(i64, &str)]) {
        let events: Vec<_> =
            events.iter().map(|(t, m)| format!("{{\"timestamp\":{t},\"message\":\"{m}\"}}")).collect();
        let body = format!(
            "{{\"logGroupName\":\"g\",\"logStreamName\":\"{stream}\",\"logEvents\":[{}]}}",
            events.join(",")
        );
        let mut out = Vec::new();
        let outline = Outline::read(body.as_bytes(), false).unwrap();
        let frame = Frame::new(&[("log_group", "g")], None);
        let batch = entries(body.as_bytes(), &outline, &frame, Times::ANY, &mut out).unwrap();
        let key = Key { group: "g".into(), stream: stream.into() };
        window.add(&Arc::new(key), &out, batch.taken, 99);
    }

    fn texts(window: &Window) -> Vec<String> {
        window.select(|_| true).iter().map(|e| String::from_utf8_lossy(&e.message).into_owned()).collect()
    }

    #[test]
    fn events_come_in_the_order_of_their_times_and_the_first_to_arrive_go_first() {
        let budget = Budget::new(1 << 20);
        let mut window = Window::new(3, 1 << 16, budget.take(0));
        add(&mut window, "s", &[(5, "a"), (7, "b")]);
        add(&mut window, "t", &[(6, "c"), (7, "d")]);
        assert_eq!(texts(&window), ["c", "b", "d"]);
        add(&mut window, "t", &[(1, "e"), (2, "f"), (3, "g"), (4, "h")]);
        assert_eq!(texts(&window), ["f", "g", "h"]);
        assert_eq!(budget.used(), 3 * (1 + OVERHEAD as u64));
        window.forget(|key| &*key.stream == "t");
        assert!(texts(&window).is_empty());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn its_bytes_are_bounded() {
        let budget = Budget::new(1 << 20);
        let mut window = Window::new(1000, 500, budget.take(0));
        for _ in 0..10 {
            add(&mut window, "s", &[(5, &"x".repeat(100))]);
        }
        assert_eq!(texts(&window).len(), 2);
        add(&mut window, "s", &[(5, &"x".repeat(1000))]);
        assert!(texts(&window).is_empty());
    }
}
