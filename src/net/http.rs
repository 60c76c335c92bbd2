//! Our HTTP/1.1 client: what stands behind the AWS libraries, and whatever else makes requests.
//!
//! Enters: requests with absolute addresses (`http://`, `https://`). Leaves: whole answers, at most [`ANSWER_MAX`] bytes.
//! Connections are kept per address and used again. Can go wrong: no connection, no answer in time, an answer that is
//! none; the error says which, and whether the request may have arrived.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use aws_smithy_runtime_api::client::http::{
    HttpClient as SmithyClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::{ClientConn, ClientTls, ClientTlsFiles, Dialer, Proxies, Target, TcpKeepalive};

/// The largest answer that is read. Those of APIs are a few hundred bytes.
const ANSWER_MAX: usize = 1 << 20;
/// Connections kept for one address.
const KEPT: usize = 32;

/// How connections are made and kept (`net.*`, `tls.*`).
#[derive(Clone)]
pub struct HttpOptions {
    /// TLS of `https://` addresses.
    pub tls: ClientTls,
    /// Proxies on the way: tunnels for `https://`, whole addresses to the proxy for `http://`.
    pub proxies: Proxies,
    /// `net.connect_timeout`, TLS included.
    pub connect: Duration,
    /// The longest from the request's first byte to the answer's last.
    pub answer: Duration,
    /// `net.source_address`
    pub source: Option<std::net::IpAddr>,
    /// `net.tcp_keepalive`
    pub keepalive: Option<TcpKeepalive>,
    /// How long an idle connection is kept; `None`: not at all.
    pub idle: Option<Duration>,
    /// A connection carries so many requests; 0: any number.
    pub recycle: u64,
    /// Appended to the user agent.
    pub user_agent: Option<String>,
}

impl HttpOptions {
    /// For a service of AWS: its certificate and its name are verified, connections are kept for `idle`.
    ///
    /// # Errors
    /// The trusted certificates of this machine cannot be read, or the environment names a proxy that is none.
    pub fn verified(connect: Duration, answer: Duration, idle: Option<Duration>) -> Result<Self, String> {
        let files = ClientTlsFiles { verify: true, verify_hostname: true, ..ClientTlsFiles::default() };
        let tls = ClientTls::new(&files)?;
        Ok(HttpOptions {
            tls,
            proxies: Proxies::from_env()?,
            connect,
            answer,
            idle,
            source: None,
            keepalive: None,
            recycle: 0,
            user_agent: None,
        })
    }
}

/// The client. Clones share their connections.
#[derive(Clone)]
pub struct HttpClient(Arc<Shared>);

struct Shared {
    options: HttpOptions,
    idle: Mutex<HashMap<Address, Vec<Link>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Address {
    secure: bool,
    host: String,
    port: u16,
}

/// A connection with its protocol. It is driven only while a request is on it, so it needs no task of its own.
struct Link {
    sender: SendRequest<SdkBody>,
    driver: Pin<Box<Connection<TokioIo<ClientConn>, SdkBody>>>,
    over: bool,
    requests: u64,
    since: Instant,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpError {
    /// The request is none.
    Request(String),
    /// No connection: the request was not sent.
    Connect(String),
    /// The connection broke: the request may have arrived.
    Broken(String),
    /// No answer in time: the request may have arrived.
    Late(String),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Request(text)
            | HttpError::Connect(text)
            | HttpError::Broken(text)
            | HttpError::Late(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for HttpError {}

impl HttpClient {
    /// A client without connections.
    pub fn new(options: HttpOptions) -> HttpClient {
        HttpClient(Arc::new(Shared { options, idle: Mutex::default() }))
    }

    /// Makes a request and reads its answer.
    ///
    /// # Errors
    /// [`HttpError`]; an answer with a bad status is an answer.
    pub async fn send(&self, mut request: Request<SdkBody>) -> Result<Response<bytes::Bytes>, HttpError> {
        let address = self.prepare(&mut request)?;
        loop {
            let kept = self.kept(&address);
            let reused = kept.is_some();
            let mut link = match kept {
                Some(link) => link,
                None => self.connect(&address).await?,
            };
            let exchange = tokio::time::timeout(self.0.options.answer, link.exchange(request)).await;
            match exchange {
                Ok(Ok(response)) => {
                    self.keep(address, link);
                    return Ok(response);
                }
                // The peer had closed a connection that we kept, and has not seen the request.
                Ok(Err(Unanswered { unsent: Some(unsent), .. })) if reused => request = *unsent,
                Ok(Err(e)) => {
                    return Err(HttpError::Broken(format!("{address} broke the connection: {}", e.cause)));
                }
                Err(_) => {
                    let limit = self.0.options.answer;
                    return Err(HttpError::Late(format!(
                        "no answer from {address} within {limit:?} (net.io_timeout)"
                    )));
                }
            }
        }
    }

    /// Makes the request one that goes over a connection to its address.
    fn prepare(&self, request: &mut Request<SdkBody>) -> Result<Address, HttpError> {
        let bad = |what: &str| HttpError::Request(format!("bad address {}: {what}", request.uri()));
        let uri = request.uri();
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("it begins with neither http:// nor https://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        let standard = if secure { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(standard);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = match port == standard {
            true => authority.host().to_owned(),
            false => format!("{}:{port}", authority.host()),
        };
        let name = HeaderValue::from_str(&name).map_err(|_| bad("its host is none"))?;
        let via = self.0.options.proxies.of(secure, &host, port).filter(|_| !secure).cloned();
        if via.is_none() {
            let path = uri.path_and_query().map_or("/", |p| p.as_str());
            let path = Uri::try_from(path).map_err(|_| bad("its path is none"))?;
            *request.uri_mut() = path;
        }
        request.headers_mut().entry(HOST).or_insert(name);
        if let Some(value) = via.and_then(|proxy| proxy.authorization) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        if let Some(extra) = &self.0.options.user_agent {
            let old = request.headers().get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
            if let Ok(value) = HeaderValue::from_str(format!("{old} {extra}").trim()) {
                request.headers_mut().insert(USER_AGENT, value);
            }
        }
        Ok(Address { secure, host, port })
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Vec<Link>>> {
        // The map is whole whenever the lock is free.
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is still open as far as anybody can know. The one used last comes first.
    fn kept(&self, address: &Address) -> Option<Link> {
        loop {
            let mut link = self.pool().get_mut(address)?.pop()?;
            let idle = self.0.options.idle.unwrap_or_default();
            if link.since.elapsed() < idle && link.is_open() {
                return Some(link);
            }
        }
    }

    fn keep(&self, address: Address, mut link: Link) {
        link.requests += 1;
        link.since = Instant::now();
        let options = &self.0.options;
        let Some(idle) = options.idle else { return };
        if options.recycle > 0 && link.requests >= options.recycle || !link.is_open() {
            return;
        }
        let mut pool = self.pool();
        for links in pool.values_mut() {
            links.retain(|l| l.since.elapsed() < idle);
        }
        pool.retain(|_, links| !links.is_empty());
        let links = pool.entry(address).or_default();
        if links.len() < KEPT {
            links.push(link);
        }
    }

    async fn connect(&self, address: &Address) -> Result<Link, HttpError> {
        let options = &self.0.options;
        let mut target = Target::Tcp(address.host.clone(), address.port);
        let mut via = options.proxies.of(address.secure, &address.host, address.port).cloned();
        if !address.secure
            && let Some(proxy) = via.take()
        {
            // It is sent the whole address, and makes the request itself.
            target = Target::Tcp(proxy.host, proxy.port);
        }
        let dialer = Dialer {
            target,
            via,
            tls: address.secure.then(|| options.tls.clone()),
            timeout: options.connect,
            source: options.source,
            keepalive: options.keepalive,
        };
        let conn = dialer.connect().await.map_err(HttpError::Connect)?;
        let (sender, driver) = http1::handshake(TokioIo::new(conn))
            .await
            .map_err(|e| HttpError::Connect(format!("no HTTP with {address}: {e}")))?;
        Ok(Link { sender, driver: Box::pin(driver), over: false, requests: 0, since: Instant::now() })
    }
}

/// Why an exchange failed, and the request if it was not sent.
struct Unanswered {
    cause: hyper::Error,
    unsent: Option<Box<Request<SdkBody>>>,
}

impl Link {
    /// Lets the protocol look at the socket: has the peer closed it?
    fn is_open(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.over && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.over && self.driver.as_mut().poll(cx).is_ready() {
            self.over = true;
        }
    }

    /// Waits for a part of an exchange while the connection is driven.
    async fn with<T>(&mut self, part: impl Future<Output = T>) -> T {
        let mut part = pin!(part);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = part.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            self.drive(cx);
            part.as_mut().poll(cx)
        })
        .await
    }

    async fn exchange(&mut self, request: Request<SdkBody>) -> Result<Response<bytes::Bytes>, Unanswered> {
        let answer = self.sender.try_send_request(request);
        let answer: Response<Incoming> = self.with(answer).await.map_err(|mut e| {
            let unsent = e.take_message().map(Box::new);
            Unanswered { cause: e.into_error(), unsent }
        })?;
        let (head, body) = answer.into_parts();
        match self.with(Limited::new(body, ANSWER_MAX).collect()).await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(e) => {
                // Larger than allowed: cut off here, whoever reads it finds that it is no answer.
                self.over = true;
                match e.downcast::<hyper::Error>() {
                    Ok(cause) => Err(Unanswered { cause: *cause, unsent: None }),
                    Err(_) => Ok(Response::from_parts(head, bytes::Bytes::new())),
                }
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Target::Tcp(self.host.clone(), self.port))
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}

impl HttpConnector for HttpClient {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|e| ConnectorError::user(e.into()))?;
            let response = client.send(request).await.map_err(|e| match e {
                HttpError::Request(_) => ConnectorError::user(e.into()),
                HttpError::Late(_) => ConnectorError::timeout(e.into()),
                HttpError::Connect(_) => ConnectorError::io(e.into()).never_connected(),
                HttpError::Broken(_) => ConnectorError::io(e.into()),
            })?;
            HttpResponse::try_from(response.map(SdkBody::from)).map_err(|e| ConnectorError::user(e.into()))
        })
    }
}

impl SmithyClient for HttpClient {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
