//! The body of a call: read with its hash taken on the way, then decompressed.
//!
//! Enters: frames of HTTP. Leaves: the plain body, and the SHA-256 of what came over the wire. Can go wrong: it is larger
//! than allowed, packed or not; it comes too slowly; there is no memory for it in time; it does not decompress.

use std::time::Duration;

use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::answer::Error;
use super::room::{Patience, Room, full};
use crate::inputs::InputContext;
use crate::wire::inflate::{Compression, InflateError, inflate};

/// First piece of a body of unknown size.
const FIRST: usize = 16 * 1024;

/// A body.
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    /// SHA-256 of what came over the wire.
    pub(super) hash: [u8; 32],
}

/// What a body may be.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Most bytes, packed or not.
    pub(super) bytes: usize,
    /// How long the client may take to send it.
    pub(super) time: Duration,
}

/// Reads a body. It begins when there is room for it.
pub(super) async fn receive(
    body: &mut Incoming,
    headers: &HeaderMap,
    limits: Limits,
    room: &mut Room,
    cx: &InputContext,
    patience: &mut Patience,
) -> Result<Received, Error> {
    let packed = is_packed(headers)?;
    let declared = body.size_hint().upper().and_then(|n| usize::try_from(n).ok());
    if declared.is_some_and(|n| n > limits.bytes) {
        return Err(Error::too_large(limits.bytes));
    }
    // What counts is inside already: a call that has begun is read to its end.
    patience.within(cx.meter.below_limit()).await.ok_or_else(full)?;
    let plenty = |n: &usize| cx.budget.used() + *n as u64 <= cx.budget.limit() / 2;
    let first = declared.map_or(FIRST, |n| if plenty(&n) { n } else { n.min(FIRST) });
    room.grow_to(first, cx, patience).await?;
    let mut bytes = Vec::with_capacity(first);
    let mut hash = Sha256::new();
    let mut left = limits.time;
    loop {
        let began = Instant::now();
        let frame = patience.for_client(tokio::time::timeout(left, body.frame())).await.ok_or_else(full)?;
        let Some(frame) = frame.map_err(|_| Error::slow())? else { break };
        left = left.saturating_sub(began.elapsed());
        let cut = |_| Error::new("SerializationException", "The request body ended early.");
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        let len = bytes.len() + data.len();
        if len > limits.bytes {
            return Err(Error::too_large(limits.bytes));
        }
        if len > bytes.capacity() {
            let target = (bytes.capacity() * 2).max(len).min(declared.unwrap_or(limits.bytes)).max(len);
            room.grow_to(target, cx, patience).await?;
            bytes.reserve_exact(target - bytes.len());
        }
        hash.update(&data);
        bytes.extend_from_slice(&data);
    }
    let hash = hash.finalize().into();
    if packed {
        room.grow_to(bytes.capacity() + limits.bytes, cx, patience).await?;
        bytes = inflate(Compression::Gzip, &bytes, limits.bytes).map_err(|e| match e {
            InflateError::TooLarge(limit) => Error::too_large(limit),
            e => Error::new("SerializationException", format!("The request body is no gzip: {e}.")),
        })?;
    }
    room.set(bytes.capacity());
    Ok(Received { bytes, hash })
}

fn is_packed(headers: &HeaderMap) -> Result<bool, Error> {
    match headers.get(CONTENT_ENCODING).map(|v| v.as_bytes()) {
        None | Some(b"") => Ok(false),
        Some(v) if v.eq_ignore_ascii_case(b"identity") => Ok(false),
        Some(v) if v.eq_ignore_ascii_case(b"gzip") => Ok(true),
        Some(other) => Err(Error::new(
            "SerializationException",
            format!("Content-Encoding {} is not supported; use gzip.", String::from_utf8_lossy(other)),
        )),
    }
}
