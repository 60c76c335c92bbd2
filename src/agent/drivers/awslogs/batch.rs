//! Events of docker's `awslogs` driver, gathered into calls.
//!
//! Enters: lines with their times. Leaves: batches within CloudWatch's limits: 10,000 events, 1 MiB with 26 bytes for each,
//! no event longer than 262,118 bytes. Bytes that are no UTF-8 count as the three of U+FFFD, and are sent as that. Nothing
//! can go wrong: what does not fit into one batch goes into the next.

use regex_automata::meta;

/// Longest event.
pub(super) const EVENT_MAX: usize = 262_144 - EVENT_HEAD;
/// What the service adds to each event's length.
const EVENT_HEAD: usize = 26;
const EVENTS_MAX: usize = 10_000;
const BATCH_MAX: usize = 1_048_576;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Milliseconds since 1970.
    pub(super) time: i64,
    pub(super) text: Vec<u8>,
}

/// Events of one call.
#[derive(Debug, Default)]
pub(super) struct Batch {
    events: Vec<Event>,
    bytes: usize,
}

impl Batch {
    /// Takes an event of this effective length, or gives it back when the batch is full.
    fn push(&mut self, event: Event, length: usize) -> Option<Event> {
        if self.events.len() == EVENTS_MAX || self.bytes + length + EVENT_HEAD > BATCH_MAX {
            return Some(event);
        }
        self.bytes += length + EVENT_HEAD;
        self.events.push(event);
        None
    }
}

/// Lines on their way into batches.
#[derive(Debug)]
pub(super) struct Gather {
    batch: Batch,
    /// Of multi-line events: matches the first line.
    first_line: Option<meta::Regex>,
    /// The event at hand of several lines.
    open: Vec<u8>,
    open_time: Option<i64>,
}

impl Gather {
    pub(super) fn new(first_line: Option<meta::Regex>) -> Gather {
        Gather { batch: Batch::default(), first_line, open: Vec::new(), open_time: None }
    }

    /// Takes a line; gives batches that are full.
    pub(super) fn line(&mut self, mut line: Vec<u8>, time: i64) -> Vec<Vec<Event>> {
        let Some(first_line) = &self.first_line else { return self.event(line, time) };
        let length = effective(&line);
        let mut full = Vec::new();
        if first_line.is_match(&line) || effective(&self.open) + length > EVENT_MAX {
            full = self.close_event();
            self.open_time = Some(time);
        }
        self.open_time.get_or_insert(time);
        if length < EVENT_MAX {
            line.push(b'\n');
        }
        self.open.append(&mut line);
        full
    }

    /// Time has passed: the event at hand is whole if it is older than `interval`, and what there is goes out.
    pub(super) fn tick(&mut self, now: i64, interval: i64) -> Vec<Vec<Event>> {
        let age = now - self.open_time.unwrap_or(now);
        let mut full = if !self.open.is_empty() && !(0..interval).contains(&age) {
            self.close_event()
        } else {
            Vec::new()
        };
        full.extend(self.take());
        full
    }

    /// No more comes.
    pub(super) fn end(&mut self) -> Vec<Vec<Event>> {
        let mut full = self.close_event();
        full.extend(self.take());
        full
    }

    fn close_event(&mut self) -> Vec<Vec<Event>> {
        let text = std::mem::take(&mut self.open);
        let time = self.open_time.take().unwrap_or_default();
        self.event(text, time)
    }

    /// Nothing becomes no event; what is too long becomes several.
    fn event(&mut self, text: Vec<u8>, time: i64) -> Vec<Vec<Event>> {
        let mut full = Vec::new();
        let mut rest = text.as_slice();
        while !rest.is_empty() {
            let (at, length) = split(rest, EVENT_MAX);
            let (piece, after) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            rest = after;
            if let Some(event) = self.batch.push(Event { time, text: piece.to_vec() }, length) {
                full.extend(self.take());
                // An event always fits into an empty batch.
                let _fits = self.batch.push(event, length);
            }
        }
        full
    }

    fn take(&mut self) -> Option<Vec<Event>> {
        let batch = std::mem::take(&mut self.batch);
        let mut events = batch.events;
        events.sort_by_key(|e| e.time);
        (!events.is_empty()).then_some(events)
    }
}

/// Bytes of a text in UTF-8, U+FFFD for each byte that belongs to no character.
fn effective(text: &[u8]) -> usize {
    text.utf8_chunks().map(|c| c.valid().len() + 3 * c.invalid().len()).sum()
}

/// Where to cut so that at most `most` bytes stand before, and how many those are.
fn split(text: &[u8], most: usize) -> (usize, usize) {
    let (mut at, mut length) = (0, 0);
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid();
        if length + valid.len() > most {
            let room = valid.floor_char_boundary(most - length);
            return (at + room, length + room);
        }
        at += valid.len();
        length += valid.len();
        for _ in chunk.invalid() {
            if length + 3 > most {
                return (at, length);
            }
            at += 1;
            length += 3;
        }
    }
    (at, length)
}

/// The text as it is sent: U+FFFD for each byte that belongs to no character.
pub(super) fn repaired(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(batches: Vec<Vec<Event>>) -> Vec<String> {
        batches.into_iter().flatten().map(|e| format!("{}@{}", repaired(&e.text), e.time)).collect()
    }

    #[test]
    fn lines_are_events_in_the_order_of_their_times_and_empty_ones_are_none() {
        let mut gather = Gather::new(None);
        for (line, time) in [(&b"b"[..], 2), (b"", 2), (b"a", 1), (b"c\xff\xfe", 2)] {
            assert!(gather.line(line.to_vec(), time).is_empty());
        }
        assert_eq!(texts(gather.tick(9, 5)), ["a@1", "b@2", "c\u{fffd}\u{fffd}@2"]);
        assert!(gather.tick(9, 5).is_empty());
    }

    #[test]
    fn a_batch_is_full_by_number_or_by_bytes() {
        let mut gather = Gather::new(None);
        for n in 0..EVENTS_MAX {
            assert!(gather.line(vec![b'x'], 0).is_empty(), "{n}");
        }
        assert_eq!(gather.line(vec![b'x'], 0)[0].len(), EVENTS_MAX);
        let mut gather = Gather::new(None);
        for _ in 0..4 {
            assert!(gather.line(vec![b'x'; EVENT_MAX], 0).is_empty());
        }
        assert_eq!(gather.line(vec![b'x'], 0)[0].len(), 4);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_bad_bytes_count_three() {
        assert_eq!(split("äöü".as_bytes(), 5), (4, 4));
        assert_eq!(split(b"a\xff\xffb", 7), (3, 7));
        assert_eq!(split(b"a\xff\xffb", 6), (2, 4));
        assert_eq!(split(b"abc", 3), (3, 3));
        let mut gather = Gather::new(None);
        gather.line(vec![b'x'; EVENT_MAX + 5], 0);
        assert_eq!(gather.end()[0].iter().map(|e| e.text.len()).collect::<Vec<_>>(), [EVENT_MAX, 5]);
    }

    #[test]
    fn several_lines_are_one_event_that_ends_with_the_next_or_with_time() {
        let mut gather = Gather::new(Some(meta::Regex::new("^INFO").unwrap()));
        for (line, time) in [("x", 1), ("INFO a", 2), (" at b", 3), ("INFO c", 4)] {
            assert!(gather.line(line.as_bytes().to_vec(), time).is_empty());
        }
        assert_eq!(texts(gather.tick(8, 5)), ["x\n@1", "INFO a\n at b\n@2"]);
        assert_eq!(texts(gather.tick(9, 5)), ["INFO c\n@4"]);
        gather.line(b"INFO d".to_vec(), 9);
        assert_eq!(texts(gather.tick(8, 5)), ["INFO d\n@9"], "a clock that was set back");
        gather.line(b"INFO e".to_vec(), 10);
        assert_eq!(texts(gather.end()), ["INFO e\n@10"]);
    }

    #[test]
    fn an_event_of_several_lines_ends_before_it_is_too_long() {
        let mut gather = Gather::new(Some(meta::Regex::new("^INFO").unwrap()));
        gather.line([&b"INFO "[..], &[b'x'; 200_000]].concat(), 1);
        gather.line(vec![b'y'; 100_000], 2);
        assert_eq!(
            gather.end()[0].iter().map(|e| (e.time, e.text.len())).collect::<Vec<_>>(),
            [(1, 200_006), (2, 100_001)]
        );
    }
}
