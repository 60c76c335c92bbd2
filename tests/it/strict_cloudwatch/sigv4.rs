//! Signature version 4 as AWS documents it, checked from the receiver's side.
//!
//! Enters: the head and the bytes of a request, the keys that are known, the service. Leaves: the access key that signed
//! it. Can go wrong: everything that AWS refuses, each with AWS's name for it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use sha2::{Digest, Sha256};

/// The clocks may differ by this much.
const SKEW: Duration = Duration::from_secs(300);

/// A key that is known to the service.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) secret: String,
    /// Of temporary credentials.
    pub(crate) token: Option<String>,
    pub(crate) expires: Option<SystemTime>,
    /// Whether it may do anything.
    pub(crate) allowed: bool,
}

/// Why a request is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) name: &'static str,
    pub(crate) message: String,
    /// No correct client does this, whatever its credentials.
    pub(crate) violation: bool,
}

fn refuse<T>(name: &'static str, message: impl Into<String>, violation: bool) -> Result<T, Refusal> {
    Err(Refusal { name, message: message.into(), violation })
}

fn incomplete<T>(message: impl Into<String>) -> Result<T, Refusal> {
    refuse("IncompleteSignatureException", message, true)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn mac(key: &[u8], data: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(data.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// What an `Authorization` header says.
struct Authorization<'a> {
    id: &'a str,
    /// `date/region/service/aws4_request`
    scope: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
}

fn authorization(text: &str) -> Option<Authorization<'_>> {
    let rest = text.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let mut found = HashMap::new();
    for part in rest.split(',') {
        let (name, value) = part.trim().split_once('=')?;
        found.insert(name, value).is_none().then_some(())?;
    }
    let (id, scope) = found.remove("Credential")?.split_once('/')?;
    let signed = found.remove("SignedHeaders")?.split(';').collect();
    let signature = found.remove("Signature")?;
    found.is_empty().then_some(Authorization { id, scope, signed, signature })
}

/// The signature that a request has to have.
pub(crate) fn signature(parts: &Parts, body: &[u8], signed: &[&str], scope: &str, secret: &str) -> String {
    let mut canonical = format!("{}\n{}\n", parts.method, parts.uri.path());
    let mut query: Vec<&str> = parts.uri.query().unwrap_or_default().split('&').collect();
    query.sort_unstable();
    canonical += &(query.join("&") + "\n");
    for name in signed {
        let values: Vec<String> = parts
            .headers
            .get_all(*name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()).split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        canonical += &format!("{name}:{}\n", values.join(","));
    }
    canonical += &format!("\n{}\n{}", signed.join(";"), hex(&Sha256::digest(body)));
    let date = header(parts, "x-amz-date").unwrap_or_default();
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    hex(&mac(&key, &text))
}

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name)?.to_str().ok()
}

/// When the request says that it was signed.
fn signed_at(date: &str) -> Option<SystemTime> {
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok()?;
    let seconds = jiff::tz::Offset::UTC.to_timestamp(civil).ok()?.as_second();
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Checks a request and gives the access key that signed it.
pub(crate) fn verify(
    parts: &Parts,
    body: &[u8],
    keys: &HashMap<String, Key>,
    (region, service): (&str, &str),
    now: SystemTime,
) -> Result<String, Refusal> {
    let Some(text) = header(parts, "authorization") else {
        return refuse("MissingAuthenticationTokenException", "Missing Authentication Token", true);
    };
    let Some(auth) = authorization(text) else { return incomplete(format!("cannot read {text}")) };
    let Some(date) = header(parts, "x-amz-date") else { return incomplete("no x-amz-date") };
    let Some(at) = signed_at(date) else { return incomplete(format!("bad x-amz-date {date}")) };
    let want = format!("{}/{region}/{service}/aws4_request", date.split('T').next().unwrap());
    if auth.scope != want {
        return refuse("InvalidSignatureException", format!("scope {} is not {want}", auth.scope), true);
    }
    if !auth.signed.is_sorted() || auth.signed.iter().any(|n| *n != n.to_ascii_lowercase()) {
        return incomplete(format!("SignedHeaders are not sorted and lower case: {:?}", auth.signed));
    }
    let mut must: Vec<&str> =
        parts.headers.keys().map(|n| n.as_str()).filter(|n| n.starts_with("x-amz-")).collect();
    must.push("host");
    if let Some(name) = must.iter().find(|n| !auth.signed.contains(n)) {
        return incomplete(format!("{name} is not signed"));
    }
    if let Some(name) = auth.signed.iter().find(|n| !parts.headers.contains_key(**n)) {
        return incomplete(format!("{name} is signed and not there"));
    }
    if let Some(hash) = header(parts, "x-amz-content-sha256")
        && hash != hex(&Sha256::digest(body))
    {
        return refuse("InvalidSignatureException", "x-amz-content-sha256 is not the body's", true);
    }
    let apart = now.duration_since(at).unwrap_or_else(|e| e.duration());
    if apart > SKEW {
        return refuse("InvalidSignatureException", format!("Signature expired: {date}"), true);
    }
    let unknown = "The security token included in the request is invalid.";
    let Some(key) = keys.get(auth.id) else { return refuse("UnrecognizedClientException", unknown, false) };
    if signature(parts, body, &auth.signed, auth.scope, &key.secret) != auth.signature {
        let message = "The request signature we calculated does not match the signature you provided.";
        return refuse("InvalidSignatureException", message, true);
    }
    if header(parts, "x-amz-security-token") != key.token.as_deref() {
        return refuse("UnrecognizedClientException", unknown, true);
    }
    if key.expires.is_some_and(|at| at <= now) {
        let message = "The security token included in the request is expired";
        return refuse("ExpiredTokenException", message, false);
    }
    if !key.allowed {
        return refuse("AccessDeniedException", "no identity-based policy allows it", false);
    }
    Ok(auth.id.to_owned())
}
