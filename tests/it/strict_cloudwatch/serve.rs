//! Sockets and HTTP: connections, what a request is, what its answer looks like.

use std::convert::Infallible;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::faults::{Answer, fault};
use super::rules::{Asked, OVERHEAD};
use super::store::Call;
use super::{Shared, identity, rules, sigv4};

pub(crate) type Body = Full<Bytes>;

/// More than any request needs: JSON makes six bytes of one at most.
const BODY_MAX: usize = 8 << 20;

/// A socket that is reset, not closed, when it was told so.
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Relaxed) {
            let zero = Some(std::time::Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(&self.stream, zero).unwrap();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

/// Accepts for ever.
pub(crate) async fn listen(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.cut.notified() => {
                connections.shutdown().await;
                continue;
            }
        };
        let Ok((stream, _)) = stream else { continue };
        if shared.with(|store| store.away) {
            continue;
        }
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let reset = Arc::new(AtomicBool::new(false));
            let socket = Socket { stream, reset: Arc::clone(&reset) };
            match tls {
                None => serve(socket, shared, reset).await,
                // A client that does not trust us goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(socket).await {
                        serve(stream, shared, reset).await;
                    }
                }
            }
        });
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>, reset: Arc<AtomicBool>) {
    let service = service_fn(|request| {
        let (shared, reset) = (Arc::clone(&shared), Arc::clone(&reset));
        async move {
            match handle(&shared, request).await {
                Some(response) => Ok::<_, io::Error>(response),
                None => {
                    reset.store(true, Relaxed);
                    Err(io::Error::other("reset as told"))
                }
            }
        }
    });
    // The client may break the connection as well.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service).await);
}

/// An answer without the marks of a service.
pub(crate) fn answer(status: StatusCode, kind: &str, body: Bytes) -> Response<Body> {
    Response::builder().status(status).header("content-type", kind).body(Full::new(body)).unwrap()
}

fn with_id(mut response: Response<Body>) -> Response<Body> {
    let id = http::HeaderValue::from_static("b7d2f1e0-0000-4000-8000-strictserver");
    response.headers_mut().insert("x-amzn-requestid", id);
    response
}

const JSON: &str = "application/x-amz-json-1.1";

/// An error as AWS writes it.
fn named_error(
    status: StatusCode,
    name: &str,
    message: &str,
    more: &[(&'static str, String)],
) -> Response<Body> {
    let body = serde_json::json!({"__type": name, "message": message}).to_string();
    let mut response = with_id(answer(status, JSON, body.into()));
    for (name, value) in more {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

/// `None`: the connection is to be reset.
async fn handle(shared: &Shared, request: Request<Incoming>) -> Option<Response<Body>> {
    let (parts, body) = request.into_parts();
    if parts.uri.path().starts_with("/latest/") {
        return Some(identity::instance(shared, &parts));
    }
    if parts.method == Method::GET {
        return Some(identity::ecs(shared, &parts));
    }
    let operation = header(&parts.headers, "x-amz-target").unwrap_or_default();
    let operation = operation.strip_prefix("Logs_20140328.").unwrap_or_default().to_owned();
    if shared.with(|store| fault(&mut store.rules, &operation, None)).is_some() {
        let asked = Asked { operation, ..Asked::default() };
        note(shared, &parts, &asked, "", "reset before the body", Instant::now());
        return None;
    }
    let began = Instant::now();
    let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
        // The client has gone; or it has sent too much, which is one of the server's own limits.
        return Some(named_error(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", "", &[]));
    };
    let body = body.to_bytes();
    if operation.is_empty()
        && header(&parts.headers, "content-type")
            .is_some_and(|t| t.starts_with("application/x-www-form-urlencoded"))
    {
        return Some(identity::sts(shared, &parts, &body));
    }
    logs(shared, &parts, &operation, body, began).await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Writes a call down.
fn note(shared: &Shared, parts: &Parts, asked: &Asked, key: &str, outcome: &str, began: Instant) {
    let text = |name: &str| header(&parts.headers, name).unwrap_or_default().to_owned();
    let call = Call {
        operation: asked.operation.clone(),
        group: asked.group.clone(),
        stream: asked.stream.clone(),
        events: asked.events.len(),
        bytes: asked.events.iter().map(|e| e.message.len() + OVERHEAD).sum(),
        outcome: outcome.to_owned(),
        key: key.to_owned(),
        user_agent: text("user-agent"),
        format: text("x-amzn-logs-format"),
        gzip: text("content-encoding") == "gzip",
        began,
    };
    shared.with(|store| store.calls.push(call));
}

/// What is wrong with the head of a request.
fn bad_head(shared: &Shared, parts: &Parts, operation: &str) -> Option<String> {
    let get = |name: &str| header(&parts.headers, name);
    if parts.method != Method::POST || parts.uri.path() != "/" || parts.uri.query().is_some() {
        return Some(format!("{} {}", parts.method, parts.uri));
    }
    if operation.is_empty() {
        return Some(format!("X-Amz-Target {:?}", get("x-amz-target")));
    }
    if get("content-type") != Some(JSON) {
        return Some(format!("Content-Type {:?}", get("content-type")));
    }
    if get("content-length").is_none() {
        return Some("no Content-Length".to_owned());
    }
    // The last two are what it is called behind a proxy.
    let hosts = [format!("127.0.0.1:{}", shared.port), format!("localhost:{}", shared.port)];
    let hosts = hosts.iter().map(String::as_str).chain(["logs.test", "logs.test:8080"]);
    if !get("host").is_some_and(|host| hosts.clone().any(|h| h == host)) {
        return Some(format!("Host {:?}", get("host")));
    }
    if !matches!(get("x-amzn-logs-format"), None | Some("json/emf")) {
        return Some(format!("x-amzn-logs-format {:?}", get("x-amzn-logs-format")));
    }
    // The service's own: whoever sends it has copied an answer.
    get("x-amzn-requestid").map(|_| "x-amzn-RequestId in a request".to_owned())
}

/// The body as it was before it was compressed.
fn decoded(headers: &HeaderMap, body: Bytes) -> Result<Bytes, String> {
    match header(headers, "content-encoding") {
        None => Ok(body),
        Some("gzip") => {
            let mut rest = &body[..];
            let mut plain = Vec::new();
            let decoder = flate2::bufread::GzDecoder::new(&mut rest);
            let read = decoder.take(BODY_MAX as u64 + 1).read_to_end(&mut plain);
            match read {
                Err(e) => Err(format!("gzip: {e}")),
                Ok(_) if !rest.is_empty() => Err(format!("{} bytes after the gzip member", rest.len())),
                Ok(_) if plain.len() > BODY_MAX => Err("more than 8 MiB".to_owned()),
                Ok(_) => Ok(plain.into()),
            }
        }
        Some(other) => Err(format!("Content-Encoding {other}")),
    }
}

/// Counts a call as on its way until it is dropped.
struct OnItsWay<'a> {
    shared: &'a Shared,
    stream: (String, String),
}

impl<'a> OnItsWay<'a> {
    fn begin(shared: &'a Shared, asked: &Asked) -> Option<OnItsWay<'a>> {
        (asked.operation == "PutLogEvents").then(|| {
            let stream = (asked.group.clone(), asked.stream.clone());
            shared.with(|store| {
                store.puts.begin();
                store.by_stream.entry(stream.clone()).or_default().begin();
            });
            OnItsWay { shared, stream }
        })
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.shared.with(|store| {
            store.puts.end();
            store.by_stream.entry(self.stream.clone()).or_default().end();
        });
    }
}

/// A call of CloudWatch Logs.
async fn logs(
    shared: &Shared,
    parts: &Parts,
    operation: &str,
    body: Bytes,
    began: Instant,
) -> Option<Response<Body>> {
    let mut asked = Asked { operation: operation.to_owned(), ..Asked::default() };
    let mut key = String::new();
    let error = |asked: &Asked, key: &str, name: &str, message: &str| {
        note(shared, parts, asked, key, name, began);
        Some(named_error(StatusCode::BAD_REQUEST, name, message, &[]))
    };
    if let Some(wrong) = bad_head(shared, parts, operation) {
        shared.violation(wrong.clone());
        return error(&asked, &key, "SerializationException", &wrong);
    }
    let scope = (shared.options.region.as_str(), "logs");
    match shared.with(|store| sigv4::verify(parts, &body, &store.keys, scope, SystemTime::now())) {
        Ok(id) => key = id,
        Err(refusal) => {
            if refusal.violation {
                shared.violation(format!("{operation}: {}", refusal.message));
            }
            return error(&asked, &key, refusal.name, &refusal.message);
        }
    }
    let read = decoded(&parts.headers, body).map_err(|e| ("SerializationException", e));
    asked = match read.and_then(|body| rules::asked(operation, &body)) {
        Ok(asked) => asked,
        Err((name, message)) => {
            shared.violation(format!("{operation}: {name}: {message}"));
            return error(&asked, &key, name, &message);
        }
    };
    let on_its_way = OnItsWay::begin(shared, &asked);
    let fault = shared.with(|store| fault(&mut store.rules, operation, Some(&asked)));
    let response = respond(shared, parts, &asked, &key, fault, began).await;
    drop(on_its_way);
    match response {
        Ok(response) => response,
        Err(Never) => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
    }
}

/// There is to be no answer.
struct Never;

async fn respond(
    shared: &Shared,
    parts: &Parts,
    asked: &Asked,
    key: &str,
    fault: Option<Answer>,
    began: Instant,
) -> Result<Option<Response<Body>>, Never> {
    let noted = |outcome: &str| note(shared, parts, asked, key, outcome, began);
    match &fault {
        Some(Answer::Error { status, name, retry_after }) => {
            noted(name);
            let more: Vec<_> = retry_after.iter().map(|s| ("retry-after", s.to_string())).collect();
            let status = StatusCode::from_u16(*status).unwrap();
            return Ok(Some(named_error(status, name, "as told", &more)));
        }
        Some(Answer::Html(status)) => {
            noted("html");
            let page = Bytes::from_static(b"<html><body>Please sign in</body></html>");
            return Ok(Some(answer(StatusCode::from_u16(*status).unwrap(), "text/html", page)));
        }
        Some(Answer::Reset | Answer::ResetBeforeBody) => {
            noted("reset");
            return Ok(None);
        }
        Some(Answer::Hang) => {
            noted("hang");
            return Err(Never);
        }
        Some(Answer::Slow(time)) => tokio::time::sleep(*time).await,
        Some(Answer::DeleteGroup) => drop(shared.with(|store| store.groups.remove(&asked.group))),
        Some(Answer::DeleteStream) => drop(
            shared.with(|store| store.groups.get_mut(&asked.group).map(|g| g.streams.remove(&asked.stream))),
        ),
        Some(Answer::ResetAfter | Answer::HangAfter | Answer::Rejected { .. }) | None => {}
    }
    match shared.with(|store| store.perform(asked, fault.as_ref())) {
        Err((name, message)) => {
            noted(name);
            Ok(Some(named_error(StatusCode::BAD_REQUEST, name, &message, &[])))
        }
        Ok(body) => match fault {
            Some(Answer::ResetAfter) => {
                noted("reset after");
                Ok(None)
            }
            Some(Answer::HangAfter) => {
                noted("hang after");
                Err(Never)
            }
            _ => {
                noted("ok");
                let body = body.map(|json| json.to_string()).unwrap_or_default();
                Ok(Some(with_id(answer(StatusCode::OK, JSON, body.into()))))
            }
        },
    }
}
