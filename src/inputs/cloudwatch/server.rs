//! One connection: HTTP/1.1, call after call.
//!
//! Enters: requests. Leaves: AWS's answers. Can go wrong: what is no call of this API, is not signed, is too large, too
//! slow or comes when there is no room; it gets an error in AWS's shape, and a body that is not wanted is read away as
//! far as it is small, because a client that is still sending would not see its answer. At shutdown calls that have
//! begun are answered, then the connection is closed.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::EXPECT;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::answer::{Error, answer};
use super::body::{Limits, receive};
use super::calls::{self, OPERATIONS};
use super::hub::Hub;
use super::room::{Patience, Room};
use crate::inputs::InputContext;
use crate::net::Conn;
use crate::record::Time;

/// What stands before the operation in its header.
const VERSION: &str = "Logs_20140328.";
/// Bodies of the calls that do not put events.
const SMALL: usize = 64 * 1024;
/// A drain ends idle connections after so long: what a client has just written is still read.
const QUIET: Duration = Duration::from_millis(200);
/// How long the rest of a body is read away.
const AWAY: Duration = Duration::from_secs(5);
/// Most bytes of heads and of what is read at once.
const BUFFER: usize = 64 * 1024;
/// What a connection takes of the budget while it is open.
const RESTING: u64 = 8 * 1024;

/// Serves one connection to its end.
pub(super) async fn serve(hub: Arc<Hub>, cx: InputContext, conn: Conn) {
    let peer = conn.peer().to_owned();
    let _charge = cx.budget.take(RESTING);
    let service = service_fn(|request| {
        let (hub, peer) = (Arc::clone(&hub), peer.as_str());
        async move { Ok::<_, Infallible>(answer(handle(&hub, request, peer).await)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(hub.settings.header_timeout)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(conn), service);
    let mut connection = pin!(connection);
    let mut stop = cx.stop.clone();
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { stop.draining().await; tokio::time::sleep(QUIET).await } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let Err(e) = ended else { return };
    let cause = crate::net::causes(&e);
    // A connection that is not used any more also ends by the time for a head: nothing is wrong with it.
    if e.is_parse() {
        cx.totals.pipeline.broken_connections.fetch_add(1, Relaxed);
        tracing::warn!(input = %cx.label, %peer, %cause, "connection closed");
    } else {
        tracing::debug!(input = %cx.label, %peer, %cause, "connection lost");
    }
}

/// Answers one request.
async fn handle(hub: &Hub, request: Request<Incoming>, peer: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut patience = Patience { until: Instant::now() + hub.settings.hold_max, stop: hub.cx.stop.clone() };
    let (head, mut body) = request.into_parts();
    let result = call(hub, &head, &mut body, &mut patience).await;
    if let Err(e) = &result {
        tracing::debug!(input = %hub.cx.label, %peer, error = e.name, cause = %e.message, "call refused");
        if e.name.ends_with("SignatureException") || e.name == "UnrecognizedClientException" {
            hub.report_stranger(peer, e);
        }
        // A client that waits to be told to go on has sent nothing; one that was too slow has had its time.
        if !head.headers.contains_key(EXPECT) && e.status != StatusCode::REQUEST_TIMEOUT {
            let _late = tokio::time::timeout(AWAY, read_away(&mut body, hub.settings.body.bytes)).await;
        }
    }
    result
}

async fn read_away(body: &mut Incoming, mut most: usize) {
    while let Some(Ok(frame)) = body.frame().await {
        let len = frame.data_ref().map_or(0, |data| data.len());
        match most.checked_sub(len) {
            Some(left) => most = left,
            None => return,
        }
    }
}

async fn call(
    hub: &Hub,
    head: &Parts,
    body: &mut Incoming,
    patience: &mut Patience,
) -> Result<Option<Vec<u8>>, Error> {
    if head.method != Method::POST || head.uri.path() != "/" {
        return Err(Error { status: StatusCode::NOT_FOUND, ..calls::unknown() });
    }
    let target = head.headers.get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix(VERSION).filter(|op| OPERATIONS.contains(op));
    let now = Time::now().sec;
    let claim = hub.access.as_ref().map(|access| access.claim(&head.headers, now)).transpose()?;
    let operation = operation.ok_or_else(calls::unknown)?;
    let puts = operation == "PutLogEvents";
    let limits = if puts {
        hub.settings.body
    } else {
        Limits { bytes: SMALL.min(hub.settings.body.bytes), ..hub.settings.body }
    };
    let mut room = Room::new(&hub.cx);
    let received = receive(body, &head.headers, limits, &mut room, &hub.cx, patience).await?;
    if let (Some(access), Some(claim)) = (&hub.access, &claim) {
        access.verify(claim, head, &received.hash)?;
    }
    if puts {
        return hub.put(&head.headers, received, room, patience).await.map(Some);
    }
    let region = claim.as_ref().map_or("us-east-1", |c| &c.region);
    let result = calls::call(hub, operation, &received.bytes, region);
    hub.save();
    result
}
