//! AWS Signature Version 4 in its header form: was this request signed with that secret? And the signature of our own.
//!
//! Enters: the `Authorization` header, the request's parts, the hash of its body, a secret. Leaves: who signed, and
//! whether the signature is right, compared in constant time; or the header that says so of a request of ours. Can go
//! wrong: what [`Malformed`] says.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// The one algorithm.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a header lacks, in AWS's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another scheme, or none.
    #[error("Authorization header requires the algorithm 'AWS4-HMAC-SHA256'.")]
    Algorithm,
    /// No `Credential`.
    #[error("Authorization header requires 'Credential' parameter.")]
    Credential,
    /// No `SignedHeaders`.
    #[error("Authorization header requires 'SignedHeaders' parameter.")]
    SignedHeaders,
    /// No `Signature`.
    #[error("Authorization header requires 'Signature' parameter.")]
    Signature,
    /// The credential is not `KEY/DATE/REGION/SERVICE/aws4_request`.
    #[error("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")]
    Scope,
    /// The last part of the credential is another word.
    #[error("Credential should be scoped with a valid terminator: 'aws4_request'.")]
    Terminator,
}

/// An `Authorization` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// Whose secret it was signed with.
    pub access_key_id: &'a str,
    /// `20150830`
    pub date: &'a str,
    /// `us-east-1`
    pub region: &'a str,
    /// `logs`
    pub service: &'a str,
    /// Names in lower case, `;` between them, as they came.
    pub signed_headers: &'a str,
    /// Hexadecimal digits, as they came.
    pub signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads the header. Blanks around the parts do not matter, nor does their order.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn parse(header: &'a str) -> Result<Self, Malformed> {
        let parts = header.trim().strip_prefix(ALGORITHM).ok_or(Malformed::Algorithm)?;
        if !parts.starts_with([' ', '\t']) {
            return Err(Malformed::Algorithm);
        }
        let part = |name: &str| {
            parts.split(',').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('=')).map(str::trim)
        };
        let credential = part("Credential").ok_or(Malformed::Credential)?;
        let signed_headers =
            part("SignedHeaders").filter(|s| !s.is_empty()).ok_or(Malformed::SignedHeaders)?;
        let signature = part("Signature").filter(|s| !s.is_empty()).ok_or(Malformed::Signature)?;
        let mut scope = credential.split('/');
        let mut next = || scope.next().filter(|s| !s.is_empty()).ok_or(Malformed::Scope);
        let (access_key_id, date, region, service, end) = (next()?, next()?, next()?, next()?, next()?);
        if scope.next().is_some() {
            return Err(Malformed::Scope);
        }
        if end != "aws4_request" {
            return Err(Malformed::Terminator);
        }
        Ok(Authorization { access_key_id, date, region, service, signed_headers, signature })
    }

    /// Whether a header (in lower case) was signed.
    pub fn signs(&self, header: &str) -> bool {
        self.signed_headers.split(';').any(|h| h == header)
    }
}

/// A request as it came over the wire.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `POST`
    pub method: &'a str,
    /// The path as it stands in the request line.
    pub path: &'a str,
    /// What follows `?` there, or nothing.
    pub query: &'a str,
    /// Names in lower case, with their values, in the order of the wire.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// SHA-256 of the body as it came, in hexadecimal digits.
    pub payload_hash: &'a str,
    /// `x-amz-date`: `20150830T123600Z`
    pub timestamp: &'a str,
}

/// A key for one day, region and service: the secret itself is not needed any more.
#[derive(Clone)]
pub struct SigningKey([u8; 32]);

impl SigningKey {
    /// Derives it. Worth keeping: four rounds of hashing.
    pub fn derive(secret: &str, date: &str, region: &str, service: &str) -> Self {
        let first = hmac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
        let key =
            [region, service, "aws4_request"].iter().fold(first, |key, part| hmac(&key, part.as_bytes()));
        SigningKey(key)
    }

    /// The `Authorization` header of a request that we make; `auth.signature` does not matter.
    pub fn authorization(&self, auth: &Authorization<'_>, request: &Request<'_>) -> String {
        let signature = hex(&hmac(&self.0, string_to_sign(auth, request).as_bytes()));
        format!(
            "{ALGORITHM} Credential={}/{}/{}/{}/aws4_request, SignedHeaders={}, Signature={signature}",
            auth.access_key_id, auth.date, auth.region, auth.service, auth.signed_headers
        )
    }

    /// Whether the request was signed with this key. Takes as long whatever part of the signature is wrong.
    pub fn verify(&self, auth: &Authorization<'_>, request: &Request<'_>) -> bool {
        let Some(theirs) = unhex(auth.signature) else { return false };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return false };
        mac.update(string_to_sign(auth, request).as_bytes());
        mac.verify_slice(&theirs).is_ok()
    }

    /// The signature of a request in hexadecimal digits; `scope` says with what it is signed, its own signature does not
    /// count.
    pub fn sign(&self, scope: &Authorization<'_>, request: &Request<'_>) -> String {
        hex(&hmac(&self.0, string_to_sign(scope, request).as_bytes()))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey")
    }
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    // A key of any length is a key.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a string does not fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.as_chunks::<2>().0) {
        let digit = |d: u8| char::from(d).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(out)
}

/// What is signed in the end.
fn string_to_sign(auth: &Authorization<'_>, request: &Request<'_>) -> String {
    let canonical = Sha256::digest(canonical_request(auth, request));
    format!(
        "{ALGORITHM}\n{}\n{}/{}/{}/aws4_request\n{}",
        request.timestamp,
        auth.date,
        auth.region,
        auth.service,
        hex(&canonical)
    )
}

fn canonical_request(auth: &Authorization<'_>, request: &Request<'_>) -> Vec<u8> {
    let signed_headers = auth.signed_headers;
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(request.method.as_bytes());
    out.push(b'\n');
    match auth.service {
        // A key of S3 may have dots and slashes anywhere: the path is signed as it stands on the wire.
        "s3" => out.extend_from_slice(request.path.as_bytes()),
        _ => canonical_path(request.path, &mut out),
    }
    out.push(b'\n');
    canonical_query(request.query, &mut out);
    out.push(b'\n');
    for name in signed_headers.split(';') {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        let mut values = request.headers.iter().filter(|(n, _)| *n == name);
        if let Some((_, first)) = values.next() {
            fold_blanks(first, &mut out);
        }
        for (_, more) in values {
            out.push(b',');
            fold_blanks(more, &mut out);
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(request.payload_hash.as_bytes());
    out
}

/// Without blanks at the ends, and one for each run within.
fn fold_blanks(value: &[u8], out: &mut Vec<u8>) {
    let words = value.split(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).filter(|w| !w.is_empty());
    for (i, word) in words.enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// Dots are resolved, and what the wire carried is encoded once more, as every service but S3 wants it.
fn canonical_path(path: &str, out: &mut Vec<u8>) {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    for part in &parts {
        out.push(b'/');
        encode(part.as_bytes(), out);
    }
    if parts.is_empty() || ["/", "/.", "/.."].iter().any(|end| path.ends_with(end)) {
        out.push(b'/');
    }
}

/// Pairs in the order of their encoded names and values.
fn canonical_query(query: &str, out: &mut Vec<u8>) {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let recode = |text| {
                let mut out = Vec::new();
                encode(&decode(text), &mut out);
                out
            };
            (recode(name), recode(value))
        })
        .collect();
    pairs.sort();
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

/// Text as it stands in a query.
pub fn encoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    encode(text.as_bytes(), &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn encode(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for b in text {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(*b),
            b => out.extend_from_slice(&[b'%', DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]),
        }
    }
}

fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|d| char::from(*d).to_digit(16));
        if *first == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
        {
            out.push((high << 4 | low) as u8);
            rest = after.get(2..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests;
