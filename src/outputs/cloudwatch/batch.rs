//! One PutLogEvents call: which records are in it, and its body.
//!
//! Enters: runs of records that go to one stream, in the order they came. Leaves: a body that the service takes: at most
//! 1,048,576 bytes (each event counts as its UTF-8 length and 26), 10,000 events, less than 24 hours from the first to the
//! last, sorted by time (stably). Limits: <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html>.
//! Can go wrong: a record has no message; it gets its fate here.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use super::message::{Found, Head, Message, Oversize, TRUNCATED, cut, head};
use crate::observe::counters::Drop as DropReason;
use crate::outputs::parcels::{ParcelId, Parcels};
use crate::rt::Charge;
use crate::wire::json::Json;

/// What a batch may count.
const BATCH: usize = 1_048_576;
/// What each event counts beside its message.
const EVENT: usize = 26;
/// Most events of a batch.
pub(super) const EVENTS: usize = 10_000;
/// The time from the first event of a batch to its last must be less, in milliseconds.
const SPAN: i64 = 24 * 60 * 60 * 1000;

/// Names and messages in the body: UTF-8 as it is.
const PLAIN: Json = Json { escape_unicode: false };

/// Records of one delivery for one stream, back to back.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) parcel: ParcelId,
    /// Where the next record begins.
    pub(super) start: usize,
    pub(super) end: usize,
    /// How much of the next record's message has been sent.
    pub(super) sent: usize,
}

impl Run {
    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }
}

/// An event of a batch.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) parcel: ParcelId,
    /// The record it is made of.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Which piece of its message.
    piece: (u32, u32),
    /// The record is through with it.
    pub(super) last: bool,
}

/// What goes out in one call.
#[derive(Debug)]
pub(super) struct Batch {
    /// In the order of the events in the body.
    pub(super) items: Vec<Item>,
    /// The request's body; made again from the items when it is empty.
    pub(super) body: Bytes,
    /// The memory it takes.
    charge: Option<Charge>,
    /// Attempts that failed.
    pub(super) failures: u32,
    /// When the oldest of its records came here.
    pub(super) since: Option<Instant>,
    /// What its messages hold, if their sender said so.
    pub(super) format: Option<String>,
}

/// Makes bodies.
pub(super) struct Writer {
    message: Message,
    /// Text that has to be made.
    room: Vec<u8>,
    /// Bytes of each event, as far as they have been written, with their times.
    spans: Vec<(i64, Range<usize>)>,
    items: Vec<Item>,
}

/// Counts what is in a batch.
struct Load {
    bytes: usize,
    first: i64,
    last: i64,
    sorted: bool,
    newest: i64,
}

/// A record that is not sent.
pub(super) struct Unsent {
    pub(super) parcel: ParcelId,
    pub(super) range: (usize, usize),
    pub(super) why: DropReason,
    pub(super) detail: &'static str,
}

impl Load {
    fn new() -> Load {
        Load { bytes: 0, first: i64::MAX, last: i64::MIN, sorted: true, newest: i64::MIN }
    }

    /// Whether an event fits besides the others.
    fn has_room(&self, events: usize, time: i64, len: usize) -> bool {
        events < EVENTS
            && self.bytes + len + EVENT <= BATCH
            && (events == 0 || self.last.max(time).saturating_sub(self.first.min(time)) < SPAN)
    }

    fn add(&mut self, time: i64, len: usize) {
        self.bytes += len + EVENT;
        self.first = self.first.min(time);
        self.last = self.last.max(time);
        self.sorted &= time >= self.newest;
        self.newest = time;
    }
}

impl Writer {
    pub(super) fn new(message: Message) -> Writer {
        Writer { message, room: Vec::new(), spans: Vec::new(), items: Vec::new() }
    }

    /// Takes as many records of `runs` as one batch holds. Those that have no message are told to `unsent`. `None` when no
    /// record became an event. `spare` is memory for the body.
    pub(super) fn take(
        &mut self,
        (group, stream): (&str, &str),
        runs: &mut VecDeque<Run>,
        parcels: &Parcels,
        spare: Vec<u8>,
        unsent: &mut Vec<Unsent>,
    ) -> Option<Batch> {
        let mut out = begin(group, stream, spare);
        let mut load = Load::new();
        let mut since: Option<Instant> = None;
        let mut format: Option<String> = None;
        self.spans.clear();
        self.items.clear();
        'full: while let Some(run) = runs.front_mut() {
            let Some(chunk) = parcels.chunk(run.parcel) else {
                runs.pop_front();
                continue;
            };
            let buf = &chunk.bytes[..];
            if let Some(at) = parcels.since(run.parcel) {
                since = Some(since.map_or(at, |s| s.min(at)));
            }
            while run.start < run.end {
                let head = head(buf, run.start);
                let of_head = head.as_ref().and_then(|h| h.format);
                if self.items.is_empty() {
                    format = of_head.and_then(|f| std::str::from_utf8(f).ok()).map(str::to_owned);
                } else if of_head != format.as_ref().map(String::as_bytes) {
                    // It goes with a header of its own.
                    break 'full;
                }
                if run.sent == 0
                    && let Some(&Head { time, record, .. }) = head.as_ref()
                    && let Some(whole) = self.message.put_whole(&mut out, time, buf, record)
                {
                    if !load.has_room(self.items.len(), time, whole.len) {
                        out.truncate(whole.at);
                        break 'full;
                    }
                    load.add(time, whole.len);
                    self.spans.push((time, whole.at..out.len()));
                    self.items.push(Item {
                        parcel: run.parcel,
                        start: run.start as u32,
                        end: whole.end as u32,
                        piece: (0, whole.len as u32),
                        last: true,
                    });
                    run.start = whole.end;
                    continue;
                }
                let read =
                    head.and_then(|h| Some((h.time, self.message.find(buf, h.record, &mut self.room)?)));
                // Chunks are validated; if one is broken all the same, its run ends here.
                let Some((time, (found, end))) = read else {
                    let range = (run.start, run.end);
                    let detail = "its bytes are no record";
                    unsent.push(Unsent { parcel: run.parcel, range, why: DropReason::Rejected, detail });
                    run.start = run.end;
                    continue;
                };
                let (why, detail) = match found {
                    Found::Text(text) => {
                        let end_of = |from| match self.message.oversize {
                            Oversize::Split => cut(text, from, self.message.limit),
                            Oversize::Truncate if text.len() <= self.message.limit => text.len(),
                            Oversize::Truncate => {
                                cut(text, 0, self.message.limit.saturating_sub(TRUNCATED.len()))
                            }
                        };
                        loop {
                            let (from, to) = (run.sent, end_of(run.sent));
                            let cut_off = self.message.oversize == Oversize::Truncate && to < text.len();
                            let len = to - from + if cut_off { TRUNCATED.len() } else { 0 };
                            if !load.has_room(self.items.len(), time, len) {
                                break 'full;
                            }
                            load.add(time, len);
                            let piece = text.get(from..to).unwrap_or_default();
                            let last = cut_off || to >= text.len();
                            let at = out.len();
                            put(&mut out, time, piece, cut_off);
                            self.spans.push((time, at..out.len()));
                            self.items.push(Item {
                                parcel: run.parcel,
                                start: run.start as u32,
                                end: end as u32,
                                piece: (from as u32, to as u32),
                                last,
                            });
                            if last {
                                break;
                            }
                            run.sent = to;
                        }
                        (run.start, run.sent) = (end, 0);
                        continue;
                    }
                    Found::Empty => (DropReason::Empty, "its message is empty"),
                    Found::Missing => (DropReason::Rejected, "it does not have the field that log_key names"),
                };
                unsent.push(Unsent { parcel: run.parcel, range: (run.start, end), why, detail });
                run.start = end;
            }
            runs.pop_front();
        }
        if self.items.is_empty() {
            return None;
        }
        let body = self.finish(out, load.sorted);
        let charge = self
            .items
            .first()
            .and_then(|item| parcels.chunk(item.parcel))
            .map(|chunk| chunk.charge.beside(body.len() as u64));
        let items = std::mem::take(&mut self.items);
        Some(Batch { items, body, charge, failures: 0, since, format })
    }

    /// Ends the body; its events in the order of their times.
    fn finish(&mut self, mut out: Vec<u8>, sorted: bool) -> Bytes {
        if !sorted {
            let mut order: Vec<usize> = (0..self.spans.len()).collect();
            // Stable: events of one millisecond stay in the order they came, or a stack trace would be shuffled.
            order.sort_by_key(|i| self.spans.get(*i).map(|s| s.0));
            let start = self.spans.first().map_or(out.len(), |s| s.1.start);
            let mut new = Vec::with_capacity(out.len() + 2);
            new.extend_from_slice(out.get(..start).unwrap_or_default());
            let mut items = Vec::with_capacity(self.items.len());
            for i in order {
                if let (Some((_, span)), Some(item)) = (self.spans.get(i), self.items.get(i)) {
                    new.extend_from_slice(out.get(span.clone()).unwrap_or_default());
                    items.push(item.clone());
                }
            }
            (out, self.items) = (new, items);
        }
        end(out)
    }

    /// Makes the body of a batch from its items.
    pub(super) fn write(&mut self, (group, stream): (&str, &str), batch: &mut Batch, parcels: &Parcels) {
        let mut out = begin(group, stream, Vec::new());
        for item in &batch.items {
            let Some(chunk) = parcels.chunk(item.parcel) else { continue };
            let buf = &chunk.bytes[..];
            let Some(Head { time, record, .. }) = head(buf, item.start as usize) else { continue };
            let Some((Found::Text(text), _)) = self.message.find(buf, record, &mut self.room) else {
                continue;
            };
            let (from, to) = (item.piece.0 as usize, item.piece.1 as usize);
            let cut_off = self.message.oversize == Oversize::Truncate && to < text.len();
            put(&mut out, time, text.get(from..to).unwrap_or_default(), cut_off);
        }
        batch.body = end(out);
        if let Some(charge) = &mut batch.charge {
            charge.grow_to(batch.body.len() as u64);
        }
    }
}

impl Batch {
    /// Gives the body's memory back while the batch waits; it can be made again.
    pub(super) fn forget_body(&mut self) -> Bytes {
        if let Some(charge) = &mut self.charge {
            charge.shrink_to(0);
        }
        std::mem::take(&mut self.body)
    }

    /// Two halves, to find out which event is not taken.
    pub(super) fn halves(mut self) -> (Batch, Batch) {
        let second = self.items.split_off(self.items.len() / 2);
        let charge = self.charge.as_ref().map(|c| c.beside(0));
        let (since, format) = (self.since, self.format.clone());
        let second = Batch { items: second, body: Bytes::new(), charge, failures: 0, since, format };
        (Batch { body: Bytes::new(), failures: 0, ..self }, second)
    }
}

fn begin(group: &str, stream: &str, mut out: Vec<u8>) -> Vec<u8> {
    out.clear();
    out.extend_from_slice(b"{\"logGroupName\":");
    PLAIN.write_str(&mut out, group.as_bytes());
    out.extend_from_slice(b",\"logStreamName\":");
    PLAIN.write_str(&mut out, stream.as_bytes());
    out.extend_from_slice(b",\"logEvents\":[");
    out
}

/// An event that has been written.
struct Whole {
    /// Where it begins in the body.
    at: usize,
    /// How long its message is.
    len: usize,
    /// Where its record ends.
    end: usize,
}

impl Message {
    /// Writes the event of a record that is the message itself, in one pass. `None`, and nothing written, when it is
    /// not, or is empty, or too long.
    #[inline]
    fn put_whole(&self, out: &mut Vec<u8>, time: i64, buf: &[u8], record: usize) -> Option<Whole> {
        if self.key.is_some() || buf.get(record) == Some(&0x80) {
            return None;
        }
        let at = out.len();
        begin_event(out, time);
        let (end, len) = self.json.write_inside(out, buf, record);
        if len > self.limit {
            out.truncate(at);
            return None;
        }
        out.extend_from_slice(b"},");
        Some(Whole { at, len, end })
    }
}

fn begin_event(out: &mut Vec<u8>, time: i64) {
    out.extend_from_slice(b"{\"timestamp\":");
    out.extend_from_slice(itoa::Buffer::new().format(time).as_bytes());
    out.extend_from_slice(b",\"message\":");
}

fn put(out: &mut Vec<u8>, time: i64, text: &[u8], cut_off: bool) {
    begin_event(out, time);
    if cut_off {
        PLAIN.write_str(out, &[text, TRUNCATED.as_bytes()].concat());
    } else {
        PLAIN.write_str(out, text);
    }
    out.extend_from_slice(b"},");
}

fn end(mut out: Vec<u8>) -> Bytes {
    // The last comma.
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(b"]}");
    out.into()
}

#[cfg(test)]
mod tests;
