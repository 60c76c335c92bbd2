//! Signed calls to services of AWS.
//!
//! Enters: service, region, path and body. Leaves: the body of a good answer. Calls that failed on the way, or that the
//! service was too busy for, are made at most [`ATTEMPTS`] times, all of a task's within [`LIMIT`]. Can go wrong: there are
//! no credentials, nobody answers, the service refuses; the error has its name for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::endpoints::{Endpoints, Service};
use crate::net::{self, AwsOptions, HttpClient, HttpError, HttpOptions};
use crate::wire::sigv4::{Authorization, Request, SigningKey, hex};

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(20);
/// For everything that a task needs of AWS: what the ECS agent gives to one download.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
pub(super) const ATTEMPTS: u32 = 3;
/// Calls under way at once.
const AT_ONCE: usize = 8;
/// The wait before the second attempt is at most this, before the third twice as much.
const WAIT: Duration = Duration::from_millis(400);

/// So much of what a service says is told on, in characters.
const SAID_MAX: usize = 500;

/// An account, and where its services are.
pub(super) struct Api {
    http: HttpClient,
    who: Credentials,
    pub(super) endpoints: Endpoints,
    deadline: Instant,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) service: Service,
    pub(super) region: &'a str,
    /// Encoded, as it stands on the wire.
    pub(super) path: &'a str,
    /// The operation of a JSON service; `None`: it is a GET.
    pub(super) target: Option<&'a str>,
    pub(super) body: Bytes,
}

/// An error of a service, or on the way to it (then without a name).
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    pub(super) name: String,
    pub(super) said: String,
    /// How often the call was made.
    pub(super) attempts: u32,
    /// Where S3 says that the bucket is.
    pub(super) region: Option<String>,
    /// Another attempt may do better.
    pub(super) again: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => f.write_str(&self.said),
            name => write!(f, "{name}: {}", self.said),
        }
    }
}

impl Api {
    /// Gets credentials of the agent's own chain, or of `role` in its name.
    pub(super) async fn new(region: &str, role: Option<String>, endpoints: Endpoints) -> Result<Api, String> {
        let deadline = Instant::now() + LIMIT;
        let http = HttpClient::new(HttpOptions::verified(CONNECT, ANSWER, Some(IDLE))?);
        let options = AwsOptions {
            region: region.to_owned(),
            role_arn: role,
            sts_endpoint: endpoints.set(Service::Sts).map(str::to_owned),
            ..AwsOptions::default()
        };
        let asked = Box::pin(async {
            let aws = net::aws(&options, http.clone()).await;
            aws.credentials.get().await.map_err(|e| net::causes(&e))
        });
        let who = match tokio::time::timeout_at(deadline, asked).await {
            Ok(who) => who?,
            Err(_) => return Err(format!("no credentials within {} s", LIMIT.as_secs())),
        };
        Ok(Api { http, who, endpoints, deadline })
    }

    #[cfg(test)]
    pub(super) fn with(who: Credentials, endpoints: Endpoints, limit: Duration) -> Api {
        let options = HttpOptions::verified(CONNECT, ANSWER, Some(IDLE)).unwrap();
        Api { http: HttpClient::new(options), who, endpoints, deadline: Instant::now() + limit }
    }

    #[cfg(test)]
    pub(super) fn hurry(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
    }

    /// Makes a call.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Bytes, Refusal> {
        let mut attempts = 1;
        loop {
            let once = tokio::time::timeout_at(self.deadline, Box::pin(self.once(call))).await;
            let late = || Refusal {
                said: format!(
                    "no answer from {} within {} s for all that the task needs",
                    self.endpoints.of(call.service, call.region),
                    LIMIT.as_secs()
                ),
                ..Refusal::default()
            };
            let failed = match once {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(e)) => e,
                Err(_) => late(),
            };
            if !failed.again || attempts == ATTEMPTS || Instant::now() >= self.deadline {
                return Err(Refusal { attempts, ..failed });
            }
            tracing::debug!(service = call.service.name(), cause = %failed, "a call is made once more");
            let chance = f64::from(net::random::<1>().unwrap_or([128])[0]) / 256.0;
            tokio::time::sleep(WAIT.mul_f64(chance * f64::from(attempts))).await;
            attempts += 1;
        }
    }

    async fn once(&self, call: &Call<'_>) -> Result<Bytes, Refusal> {
        let here = |said: String, again| Refusal { said, again, ..Refusal::default() };
        let request = self.signed(call).map_err(|said| here(said, false))?;
        let answer = self.http.send(request).await.map_err(|e| match e {
            HttpError::Late(_) => {
                let at = self.endpoints.of(call.service, call.region);
                here(format!("no answer from {at} within {} s", ANSWER.as_secs()), true)
            }
            e => here(e.to_string(), !matches!(e, HttpError::Request(_))),
        })?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            return Err(Refusal::read(&head, &body));
        }
        let said = head.headers.get("content-length").and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        match said {
            Some(length) if length != body.len() => {
                Err(here(format!("the answer has {length} bytes, and at most 1 MiB is read"), false))
            }
            None if body.is_empty() => {
                Err(here("the answer is empty, or larger than 1 MiB".to_owned(), false))
            }
            _ => Ok(body),
        }
    }

    fn signed(&self, call: &Call<'_>) -> Result<http::Request<SdkBody>, String> {
        let endpoint = self.endpoints.of(call.service, call.region);
        let bad = |what: &str| format!("cannot call {endpoint}: {what}");
        let uri: http::Uri = format!("{endpoint}{}", call.path).parse().map_err(|e| bad(&format!("{e}")))?;
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        let standard = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let host = match authority.port_u16() {
            Some(port) if port != standard => format!("{}:{port}", authority.host()),
            _ => authority.host().to_owned(),
        };
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let date = now.get(..8).unwrap_or_default();
        let payload_hash = hex(&Sha256::digest(&call.body));
        // In the order of their names, as they are signed.
        let mut headers: Vec<(&str, &str)> = Vec::new();
        headers.extend(call.target.map(|_| ("content-type", "application/x-amz-json-1.1")));
        headers.extend([
            ("host", host.as_str()),
            ("x-amz-content-sha256", &payload_hash),
            ("x-amz-date", &now),
        ]);
        headers.extend(self.who.session_token().map(|token| ("x-amz-security-token", token)));
        headers.extend(call.target.map(|target| ("x-amz-target", target)));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let bytes: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        let auth = Authorization {
            access_key_id: self.who.access_key_id(),
            date,
            region: call.region,
            service: call.service.name(),
            signed_headers: &names,
            signature: "",
        };
        let method = if call.target.is_some() { "POST" } else { "GET" };
        let signed = Request {
            method,
            path: uri.path(),
            query: "",
            headers: &bytes,
            payload_hash: &payload_hash,
            timestamp: &now,
        };
        let key = SigningKey::derive(self.who.secret_access_key(), date, call.region, call.service.name());
        let mut request = http::Request::builder().method(method).uri(uri.clone());
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        if call.target.is_some() {
            request = request.header("content-length", call.body.len());
        }
        request
            .header("authorization", key.authorization(&auth, &signed))
            .header("user-agent", concat!("firelane/", env!("CARGO_PKG_VERSION")))
            .body(SdkBody::from(call.body.clone()))
            .map_err(|e| bad(&e.to_string()))
    }
}

impl Refusal {
    /// Reads an answer that is none: JSON of most services, XML of S3.
    fn read(head: &http::response::Parts, body: &[u8]) -> Refusal {
        let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |keys: &[&str]| keys.iter().find_map(|k| json.get(k)?.as_str().map(str::to_owned));
        let xml = |element: &str| {
            let body = std::str::from_utf8(body).ok()?;
            let (_, rest) = body.split_once(&format!("<{element}>"))?;
            rest.split_once("</").map(|(text, _)| text.trim().to_owned())
        };
        let name = header("x-amzn-errortype").or_else(|| text(&["__type", "code"])).or_else(|| xml("Code"));
        let name = name.unwrap_or_default();
        // `com.amazonaws#Name`, `Name:http://...`
        let name =
            name.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
        let status = head.status;
        let busy = ["Throttl", "SlowDown", "RequestLimitExceeded"].iter().any(|word| name.contains(word));
        let said = text(&["message", "Message"]).or_else(|| xml("Message")).filter(|text| !text.is_empty());
        let nothing = || format!("the answer is {status} and says nothing; is it the right endpoint?");
        Refusal {
            said: said.map_or_else(nothing, |text| text.chars().take(SAID_MAX).collect()),
            again: status.is_server_error() || status.as_u16() == 429 || busy,
            region: header("x-amz-bucket-region"),
            attempts: 0,
            name,
        }
    }
}

/// Waits for all of them, [`AT_ONCE`] at a time. The answers are in their order.
pub(super) async fn together<T, F: Future<Output = T>>(calls: impl IntoIterator<Item = F>) -> Vec<T> {
    let mut calls = calls.into_iter();
    let mut answers = Vec::new();
    loop {
        let mut batch: Vec<(Pin<Box<F>>, Option<T>)> =
            calls.by_ref().take(AT_ONCE).map(|f| (Box::pin(f), None)).collect();
        if batch.is_empty() {
            return answers;
        }
        std::future::poll_fn(|cx| {
            let mut waiting = false;
            for (call, answer) in batch.iter_mut().filter(|(_, answer)| answer.is_none()) {
                match call.as_mut().poll(cx) {
                    Poll::Ready(done) => *answer = Some(done),
                    Poll::Pending => waiting = true,
                }
            }
            if waiting { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        answers.extend(batch.into_iter().filter_map(|(_, answer)| answer));
    }
}
