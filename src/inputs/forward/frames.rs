//! Frames into records: what a frame's body means to the intake.
//!
//! Enters: a decoded frame with its bytes. Leaves: records, or counted refusals with a log line. Can go wrong: a payload
//! that does not decompress, entries that are no records; the good ones go on.

use bytes::BytesMut;

use crate::inputs::Intake;
use crate::observe::counters::Refusal;
use crate::wire::entry::TimeForm;
use crate::wire::forward::{Body, Compressed, Frame, check, each};
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

/// Counts records that could not be taken in, and says why.
pub(super) fn refuse(intake: &mut dyn Intake, input: &str, peer: &str, reason: &str, count: u64) {
    intake.refuse(Refusal::Undecodable, count);
    tracing::warn!(input = %input, %peer, records = count, reason, "records refused: undecodable");
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
    let tag = match &settings.tag {
        _ if !settings.tag_prefix.is_empty() => [settings.tag_prefix.as_slice(), incoming].concat(),
        Some(tag) => tag.clone(),
        None => incoming.to_vec(),
    };
    if frame.signal != 0 {
        let what = if frame.signal == 1 { "metrics, not logs" } else { "traces, not logs" };
        return refuse(intake, input, peer, what, 1);
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
                Err(e) => refuse(intake, input, peer, &e.to_string(), 1),
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
    each(run, |entry| {
        if let Ok(entry) = entry {
            let metadata = entry.metadata.and_then(|m| run.get(m));
            message(intake, tag, entry.time, metadata, run.get(entry.record).unwrap_or_default());
        }
    });
    if found.bad > 0 {
        refuse(intake, input, peer, found.reason.unwrap_or("bad entry"), found.bad);
    }
}
