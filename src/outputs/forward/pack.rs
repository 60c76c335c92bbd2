//! Deliveries into messages.
//!
//! Enters: chunks. Leaves: messages as lists of byte runs, most of them slices of the chunks themselves. Small runs of
//! the same tag share a message, very large ones are cut: receivers have a limit. Copied is only what must be written
//! anew: times that are no EventTime, integer times, metadata that is not wanted, gzip, Message mode.

use std::io::Write;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::window::{Message, Window};
use crate::record::{Chunk, Scratch, Tag, Time};
use crate::rt::Delivery;
use crate::text::Template;
use crate::wire::entry::{self, TimeForm};
use crate::wire::forward_send::{self as send, Ids, Options};
use crate::wire::msgpack;

/// Runs of one tag are put together up to this size ...
const TOGETHER: usize = 256 << 10;
/// ... and this many entries.
const TOGETHER_ENTRIES: u64 = 1000;
/// A longer run is cut: Fluent Bit's forward input takes frames of 6,144,000 bytes.
const CUT: usize = 2 << 20;
/// Records put together are of about the same age, so that `retry.max_age` does not take a young one along.
const SAME_AGE: Duration = Duration::from_secs(1);

/// The tag that is sent.
pub(super) enum TagChoice {
    /// The record's own.
    Own,
    /// The same for all.
    Fixed(Vec<u8>),
    /// Made from each record: Message mode.
    Made(Template),
}

/// How messages look.
pub(super) struct Format {
    pub(super) tag: TagChoice,
    /// Times as whole seconds, without metadata (fluentd 0.12).
    pub(super) integer_times: bool,
    pub(super) keep_metadata: bool,
    pub(super) gzip: bool,
    pub(super) options: bool,
    pub(super) acks: bool,
    pub(super) added: Vec<(String, String)>,
}

/// Makes messages.
pub(super) struct Packer {
    format: Format,
    ids: Ids,
    next: u64,
    scratch: Scratch,
    /// What is being put together.
    open: Option<Open>,
}

struct Open {
    tag: Tag,
    runs: Vec<Bytes>,
    size: usize,
    entries: u64,
    parcels: Range<u64>,
    since: Instant,
}

impl Packer {
    pub(super) fn new(format: Format, ids: Ids) -> Packer {
        Packer { format, ids, next: 0, scratch: Scratch::default(), open: None }
    }

    /// Whether every message is to be acked.
    pub(super) fn acks(&self) -> bool {
        self.format.acks
    }

    /// The number of the message that an id stands for.
    pub(super) fn number(&self, id: &[u8]) -> Option<u64> {
        self.ids.number(id)
    }

    /// Takes a delivery; what it becomes goes to the window at once or with the next one.
    pub(super) fn add(&mut self, delivery: Delivery, window: &mut Window) {
        let (chunk, since) = (std::sync::Arc::clone(&delivery.chunk), delivery.since);
        let parcel = window.take(delivery);
        let mut start = 0;
        for segment in &chunk.segs {
            let run = start..segment.end;
            start = segment.end;
            match self.format.tag {
                TagChoice::Made(_) => self.messages(&chunk, run, &segment.tag, parcel, window),
                _ if run.len() > CUT => {
                    for (run, count) in cut(&chunk.bytes, run) {
                        self.run(&chunk, run, count, &segment.tag, (parcel, since), window);
                    }
                }
                _ => self.run(&chunk, run, segment.count, &segment.tag, (parcel, since), window),
            }
        }
    }

    /// Nothing more is there now: what is open is a message.
    pub(super) fn finish(&mut self, window: &mut Window) {
        let Some(open) = self.open.take() else { return };
        let tag = match &self.format.tag {
            TagChoice::Fixed(tag) => tag.as_slice(),
            _ => open.tag.as_bytes(),
        };
        let with_options = self.format.options;
        let mut head = Vec::with_capacity(tag.len() + 16);
        let mut pieces = Vec::with_capacity(open.runs.len() + 2);
        if self.format.gzip {
            send::write_packed(&mut head, tag, &gzip(&open.runs), with_options);
            pieces.push(head.into());
        } else {
            send::write_forward_head(&mut head, tag, open.entries as usize, with_options);
            pieces.push(head.into());
            pieces.extend(open.runs);
        }
        let ids = self.next..self.next + u64::from(self.format.acks);
        self.next = ids.end;
        if with_options {
            let id = self.ids.text(ids.start);
            let mut tail = Vec::with_capacity(64);
            Options {
                chunk: self.format.acks.then_some(&id),
                size: Some(open.entries),
                gzip: self.format.gzip,
                added: &self.format.added,
                metadata: None,
            }
            .write(&mut tail);
            pieces.push(tail.into());
        }
        window.push(Message::new(pieces, ids, open.entries, open.parcels));
    }

    fn run(
        &mut self,
        chunk: &Chunk,
        run: Range<usize>,
        entries: u64,
        tag: &Tag,
        (parcel, since): (u64, Instant),
        window: &mut Window,
    ) {
        if run.is_empty() {
            return;
        }
        if let Some(open) = &self.open
            && (open.tag != *tag
                || open.size + run.len() > TOGETHER
                || open.entries + entries > TOGETHER_ENTRIES
                || since.saturating_duration_since(open.since) > SAME_AGE)
        {
            self.finish(window);
        }
        let bytes = self.rewritten(&chunk.bytes, run);
        let open = self.open.get_or_insert_with(|| Open {
            tag: tag.clone(),
            runs: Vec::new(),
            size: 0,
            entries: 0,
            parcels: parcel..parcel,
            since,
        });
        open.size += bytes.len();
        open.entries += entries;
        open.parcels.end = parcel + 1;
        open.runs.push(bytes);
    }

    /// The entries as they are to be sent: a slice of the chunk, unless something in them must change.
    fn rewritten(&self, bytes: &Bytes, run: Range<usize>) -> Bytes {
        let Format { integer_times, keep_metadata, .. } = self.format;
        if !integer_times && as_is(bytes, run.clone(), keep_metadata) {
            return bytes.slice(run);
        }
        let mut out = Vec::with_capacity(run.len());
        each(bytes, run, |_, entry| {
            let metadata = entry.metadata.clone().filter(|_| keep_metadata).and_then(|m| bytes.get(m));
            out.push(0x92);
            if metadata.is_some() {
                out.push(0x92);
            }
            write_time(&mut out, &entry, integer_times);
            out.extend_from_slice(metadata.unwrap_or_default());
            out.extend_from_slice(bytes.get(entry.record).unwrap_or_default());
        });
        out.into()
    }

    /// Message mode: every record with a tag made from it.
    fn messages(&mut self, chunk: &Chunk, run: Range<usize>, tag: &Tag, parcel: u64, window: &mut Window) {
        let bytes = &chunk.bytes;
        let mut out = Vec::new();
        let (mut first, mut count) = (self.next, 0);
        let mut made = Vec::new();
        let mut pos = run.start;
        while pos < run.end {
            let Ok(Ok(entry)) = entry::read(bytes, pos) else { break };
            pos = entry.end;
            made.clear();
            if let TagChoice::Made(template) = &self.format.tag {
                let record = crate::record::Record::open(bytes, &entry, Time::default(), &mut self.scratch);
                // A part that is missing is left out; where nothing is left, the record's own tag is better than none.
                let _complete = template.render(tag, &record, None, &mut made);
                if made.is_empty() {
                    made.extend_from_slice(tag.as_bytes());
                }
            }
            msgpack::write_array(&mut out, 4);
            msgpack::write_str(&mut out, &made);
            write_time(&mut out, &entry, self.format.integer_times);
            out.extend_from_slice(bytes.get(entry.record.clone()).unwrap_or_default());
            let metadata = entry.metadata.clone().and_then(|m| bytes.get(m));
            let id = self.ids.text(self.next);
            Options {
                chunk: self.format.acks.then_some(&id),
                size: None,
                gzip: false,
                added: &self.format.added,
                metadata: metadata.filter(|m| self.format.keep_metadata && **m != [0x80]),
            }
            .write(&mut out);
            self.next += u64::from(self.format.acks);
            count += 1;
            if out.len() >= TOGETHER || count >= TOGETHER_ENTRIES {
                let pieces = vec![std::mem::take(&mut out).into()];
                window.push(Message::new(pieces, first..self.next, count, parcel..parcel + 1));
                (first, count) = (self.next, 0);
            }
        }
        if count > 0 {
            window.push(Message::new(vec![out.into()], first..self.next, count, parcel..parcel + 1));
        }
    }
}

/// Calls `see` for each entry and where it begins. Chunks are validated; if one is broken all the same, it ends there.
fn each(bytes: &[u8], run: Range<usize>, mut see: impl FnMut(usize, entry::Entry)) {
    let mut pos = run.start;
    while pos < run.end {
        let Ok(Ok(entry)) = entry::read(bytes, pos) else { return };
        let start = std::mem::replace(&mut pos, entry.end);
        see(start, entry);
    }
}

/// Whether every time is an EventTime (clients send others, receivers need not know them), and metadata stands only
/// where it may stay.
fn as_is(bytes: &[u8], run: Range<usize>, keep_metadata: bool) -> bool {
    let mut good = true;
    each(bytes, run, |start, _| {
        good &= match bytes.get(start..start + 4) {
            Some([0x92, 0xd7, 0, _]) => true,
            Some([0x92, 0x92, 0xd7, 0]) => keep_metadata,
            _ => false,
        };
    });
    good
}

fn write_time(out: &mut Vec<u8>, entry: &entry::Entry, integer: bool) {
    let time = match entry.time {
        TimeForm::At(time) => time,
        // Chunks have known times; a receiver reads 0 as "now".
        TimeForm::Now => Time::default(),
    };
    if integer {
        msgpack::write_uint(out, time.sec.max(0) as u64);
    } else {
        entry::write_time(out, time);
    }
}

/// Pieces of at most [`CUT`] bytes (a larger entry is a piece of its own), each with its number of entries.
fn cut(bytes: &[u8], run: Range<usize>) -> Vec<(Range<usize>, u64)> {
    let mut out = Vec::new();
    let (mut start, mut pos, mut count) = (run.start, run.start, 0);
    each(bytes, run, |_, entry| {
        if entry.end - start > CUT && count > 0 {
            out.push((start..pos, count));
            (start, count) = (pos, 0);
        }
        count += 1;
        pos = entry.end;
    });
    if count > 0 {
        out.push((start..pos, count));
    }
    out
}

/// One member.
fn gzip(runs: &[Bytes]) -> Vec<u8> {
    let size: usize = runs.iter().map(Bytes::len).sum();
    let room = Vec::with_capacity(size / 4 + 64);
    let mut encoder = flate2::write::GzEncoder::new(room, flate2::Compression::new(6));
    // Writing to memory does not fail.
    let written = runs.iter().try_for_each(|run| encoder.write_all(run));
    debug_assert!(written.is_ok());
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests;
