//! Frames into records: what a frame's body means to the intake.
//!
//! Enters: a decoded frame with its bytes. Leaves: records, or counted refusals with a log line. Can go wrong: a payload
//! that does not decompress, entries that are no records; the good ones go on.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::inputs::Intake;
use crate::observe::counters::Refusal;
use crate::wire::entry::TimeForm;
use crate::wire::forward::{self, Body, Compressed, Frame, check, each};
use crate::wire::inflate::{self, Compression};

/// What connections need of the input's settings.
#[derive(Debug)]
pub(super) struct Settings {
    /// `Buffer_Max_Size`: the largest frame and the largest decompressed payload, bytes.
    pub(super) max_frame: usize,
    /// `Tag_Prefix`: put before the incoming tag, no dot added.
    pub(super) tag_prefix: Vec<u8>,
    /// `Tag`: replaces the incoming tag.
    pub(super) tag: Option<Vec<u8>>,
}

impl Settings {
    /// The tag of records that came under this one.
    fn tag<'a>(&'a self, incoming: &'a [u8]) -> Cow<'a, [u8]> {
        match &self.tag {
            _ if !self.tag_prefix.is_empty() => Cow::Owned([self.tag_prefix.as_slice(), incoming].concat()),
            Some(tag) => Cow::Borrowed(tag),
            None => Cow::Borrowed(incoming),
        }
    }
}

fn report(input: &str, peer: &str, reason: &str, records: u64) {
    tracing::warn!(input = %input, %peer, records, reason, "records refused: undecodable");
}

/// Refuses a whole frame that is none.
pub(super) fn bad(
    intake: &mut dyn Intake,
    settings: &Settings,
    input: &str,
    peer: &str,
    reason: &str,
    bytes: &[u8],
) {
    let tag = settings.tag(forward::tag(bytes));
    intake.refuse(Refusal::Undecodable, 1, &tag, bytes, reason);
    report(input, peer, reason, 1);
}

/// Passes the records of one frame to the intake. `bytes` is the frame.
pub(super) fn take(
    intake: &mut dyn Intake,
    settings: &Settings,
    input: &str,
    peer: &str,
    frame: &Frame,
    bytes: BytesMut,
) {
    let incoming = bytes.get(frame.tag.clone()).unwrap_or_default();
    if settings.tag_prefix.is_empty() && settings.tag.is_none() {
        // The common case borrows the tag where it lies.
        if let Body::Message { time, time_and_record, record } = &frame.body {
            let metadata = frame.metadata.clone().and_then(|m| bytes.get(m));
            if let (TimeForm::At(_), None) = (time, metadata) {
                intake.push_raw(incoming, bytes.get(time_and_record.clone()).unwrap_or_default());
            } else {
                message(intake, incoming, *time, metadata, bytes.get(record.clone()).unwrap_or_default());
            }
            return;
        }
    }
    let tag = settings.tag(incoming).into_owned();
    if frame.signal != 0 {
        let what = if frame.signal == 1 { "metrics, not logs" } else { "traces, not logs" };
        intake.refuse(Refusal::Undecodable, 1, &tag, &bytes, what);
        return report(input, peer, what, 1);
    }
    match &frame.body {
        Body::Message { time, record, .. } => {
            let metadata = frame.metadata.clone().and_then(|m| bytes.get(m));
            message(intake, &tag, *time, metadata, bytes.get(record.clone()).unwrap_or_default());
        }
        Body::Forward(range) => entries(intake, input, peer, &tag, bytes, range.clone()),
        Body::Packed(range) => {
            let payload = bytes.get(range.clone()).unwrap_or_default();
            // The payload's own magic wins over the option: a run of entries never begins like that.
            let kind = inflate::sniff(payload).or(match frame.compressed {
                Compressed::Gzip => Some(Compression::Gzip),
                Compressed::Zstd => Some(Compression::Zstd),
                Compressed::No | Compressed::Unknown => None,
            });
            let Some(kind) = kind else {
                return entries(intake, input, peer, &tag, bytes, range.clone());
            };
            match inflate::inflate(kind, payload, settings.max_frame) {
                Ok(plain) => {
                    let all = 0..plain.len();
                    entries(intake, input, peer, &tag, BytesMut::from(bytes::Bytes::from(plain)), all);
                }
                Err(e) => {
                    let reason = e.to_string();
                    intake.refuse(Refusal::Undecodable, 1, &tag, payload, &reason);
                    report(input, peer, &reason, 1);
                }
            }
        }
    }
}

fn message(intake: &mut dyn Intake, tag: &[u8], time: TimeForm, metadata: Option<&[u8]>, record: &[u8]) {
    let time = match time {
        TimeForm::At(time) => Some(time),
        TimeForm::Now => None,
    };
    intake.push(tag, time, metadata, record);
}

/// A run of entries: as it is when all are good, else one by one.
fn entries(
    intake: &mut dyn Intake,
    input: &str,
    peer: &str,
    tag: &[u8],
    bytes: BytesMut,
    range: std::ops::Range<usize>,
) {
    let run = bytes.get(range.clone()).unwrap_or_default();
    let found = check(run);
    if found.clean {
        return intake.push_entries(tag, bytes.freeze().slice(range), found.good);
    }
    each(run, |entry| match entry {
        Ok(entry) => {
            let metadata = entry.metadata.and_then(|m| run.get(m));
            message(intake, tag, entry.time, metadata, run.get(entry.record).unwrap_or_default());
        }
        Err(bad) => {
            let bytes = run.get(bad.bytes).unwrap_or_default();
            intake.refuse(Refusal::Undecodable, 1, tag, bytes, bad.reason);
        }
    });
    if found.bad > 0 {
        report(input, peer, found.reason.unwrap_or("bad entry"), found.bad);
    }
}
