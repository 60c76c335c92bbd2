//! Who may call: SigV4 signatures against the configured keys.
//!
//! Enters: the head of a request, later the hash of its body. Leaves: nothing, or AWS's error. Can go wrong: no
//! signature, an unknown key, a clock that is off, a header that should have been signed, a wrong signature; a body that
//! is not the one that was signed. What can be known from the head is refused before the body is read.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;

use super::answer::Error;
use crate::wire::sigv4::{Authorization, Request, SigningKey, hex};

/// A key that may write.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) id: String,
    pub(super) secret: String,
    /// Calls must bring it along.
    pub(super) token: Option<String>,
}

/// Reads an AWS shared-credentials file: every profile that has a key.
///
/// # Errors
/// Names the line or the profile.
pub(super) fn read_file(text: &str) -> Result<Vec<Credentials>, String> {
    fn close(
        profile: Option<(String, HashMap<String, String>)>,
        all: &mut Vec<Credentials>,
    ) -> Result<(), String> {
        let Some((name, mut values)) = profile else { return Ok(()) };
        let token = values.remove("aws_session_token");
        match (values.remove("aws_access_key_id"), values.remove("aws_secret_access_key")) {
            (Some(id), Some(secret)) => all.push(Credentials { id, secret, token }),
            // A profile may get its credentials elsewhere.
            (None, None) => {}
            _ => {
                return Err(format!(
                    "profile [{name}] has one of aws_access_key_id and aws_secret_access_key, not both"
                ));
            }
        }
        Ok(())
    }
    let mut all = Vec::new();
    let mut profile: Option<(String, HashMap<String, String>)> = None;
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().unwrap_or_default().trim();
            close(profile.replace((name.to_owned(), HashMap::new())), &mut all)?;
            continue;
        }
        let (Some((key, value)), Some((_, values))) = (line.split_once('='), profile.as_mut()) else {
            return Err(format!("line {}: neither [PROFILE] nor KEY = VALUE within one", n + 1));
        };
        values.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    close(profile, &mut all)?;
    Ok(all)
}

/// The keys of an input.
pub(super) struct Access {
    keys: HashMap<String, Credentials>,
    /// How far a client's clock may be off.
    skew: Duration,
    /// The last derived key of each access key, with its date and region.
    derived: Mutex<HashMap<String, (String, SigningKey)>>,
}

/// What the head of a request says; the signature is still to be looked at.
pub(super) struct Claim {
    header: String,
    timestamp: String,
    /// `us-east-1`
    pub(super) region: String,
}

impl Access {
    pub(super) fn new(keys: Vec<Credentials>, skew: Duration) -> Self {
        let keys = keys.into_iter().map(|k| (k.id.clone(), k)).collect();
        Access { keys, skew, derived: Mutex::default() }
    }

    /// Looks at the head. `now` is in seconds since 1970.
    pub(super) fn claim(&self, headers: &HeaderMap, now: i64) -> Result<Claim, Error> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Err(Error::new("MissingAuthenticationTokenException", "Missing Authentication Token"));
        };
        let header = header.to_str().unwrap_or_default();
        let incomplete = |message: String| Error::new("IncompleteSignatureException", message);
        let auth = Authorization::parse(header).map_err(|e| incomplete(e.to_string()))?;
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let timestamp = text("x-amz-date").ok_or_else(|| {
            incomplete(
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.".into(),
            )
        })?;
        let token = text("x-amz-security-token");
        let unknown = || {
            Error::new(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )
        };
        let key = self.keys.get(auth.access_key_id).ok_or_else(unknown)?;
        // Whether a token is the right one cannot be asked of anybody: it must be the one that is configured.
        if token != key.token.as_deref() {
            return Err(unknown());
        }
        let wrong = |message: String| Error::new("InvalidSignatureException", message);
        let signed = seconds(timestamp).ok_or_else(|| {
            incomplete(format!("Date must be in ISO-8601 'basic format'. Got '{timestamp}'."))
        })?;
        if !timestamp.starts_with(auth.date) {
            return Err(wrong(format!(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '{}' != '{}'.",
                auth.date,
                timestamp.get(..8).unwrap_or_default()
            )));
        }
        if auth.service != "logs" {
            return Err(wrong("Credential should be scoped to correct service: 'logs'.".to_owned()));
        }
        if now.abs_diff(signed) > self.skew.as_secs() {
            let minutes = self.skew.as_secs() / 60;
            return Err(wrong(if signed < now {
                format!(
                    "Signature expired: {timestamp} is now earlier than the clock here allows ({minutes} min.)"
                )
            } else {
                format!(
                    "Signature not yet current: {timestamp} is still later than the clock here allows ({minutes} min.)"
                )
            }));
        }
        for name in headers.keys().map(http::HeaderName::as_str) {
            if (name == "host" || name.starts_with("x-amz-")) && !auth.signs(name) {
                return Err(wrong(format!("'{name}' must be a 'SignedHeader' in the AWS Authorization.")));
            }
        }
        if !auth.signs("host") {
            return Err(wrong("'Host' must be a 'SignedHeader' in the AWS Authorization.".to_owned()));
        }
        Ok(Claim {
            header: header.to_owned(),
            timestamp: timestamp.to_owned(),
            region: auth.region.to_owned(),
        })
    }

    /// Looks at the signature, now that the body is here. `hash` is of the body as it came over the wire.
    pub(super) fn verify(&self, claim: &Claim, head: &Parts, hash: &[u8; 32]) -> Result<(), Error> {
        let wrong = |message: &str| Error::new("InvalidSignatureException", message);
        let auth = Authorization::parse(&claim.header).map_err(|e| wrong(&e.to_string()))?;
        let payload_hash = hex(hash);
        if let Some(said) = head.headers.get("x-amz-content-sha256")
            && !said.as_bytes().eq_ignore_ascii_case(payload_hash.as_bytes())
        {
            return Err(wrong(
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            ));
        }
        let headers: Vec<(&str, &[u8])> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let request = Request {
            method: head.method.as_str(),
            path: head.uri.path(),
            query: head.uri.query().unwrap_or_default(),
            headers: &headers,
            payload_hash: &payload_hash,
            timestamp: &claim.timestamp,
        };
        let Some(key) = self.key(&auth) else { return Err(wrong("The key is not known.")) };
        if key.verify(&auth, &request) {
            return Ok(());
        }
        Err(wrong(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        ))
    }

    /// The derived key; kept, because deriving costs as much as verifying a small call.
    fn key(&self, auth: &Authorization<'_>) -> Option<SigningKey> {
        let scope = format!("{}/{}", auth.date, auth.region);
        // The table is whole whenever the lock is free.
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, key)) = derived.get(auth.access_key_id)
            && *of == scope
        {
            return Some(key.clone());
        }
        let secret = &self.keys.get(auth.access_key_id)?.secret;
        let key = SigningKey::derive(secret, auth.date, auth.region, auth.service);
        // One for each configured key: bounded.
        derived.insert(auth.access_key_id.to_owned(), (scope, key.clone()));
        Some(key)
    }
}

/// `20150830T123600Z` in seconds since 1970.
fn seconds(timestamp: &str) -> Option<i64> {
    let time = timestamp.strip_suffix('Z')?;
    if time.len() != 15 {
        return None;
    }
    let civil: jiff::civil::DateTime = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", time).ok()?;
    Some(jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use sha2::Digest;

    const NOW: i64 = 1_440_938_160;

    fn access(token: Option<&str>) -> Access {
        let credentials = Credentials {
            id: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            token: token.map(str::to_owned),
        };
        Access::new(vec![credentials], Duration::from_secs(300))
    }

    /// Signed by botocore for this key, region us-east-1, body `{}`.
    fn head() -> Parts {
        let request = http::Request::post("/")
            .header("host", "127.0.0.1:4586")
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-date", "20150830T123600Z")
            .header("x-amz-target", "Logs_20140328.DescribeLogGroups")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/logs/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
                 Signature=146e2ac9272b37d7455569393f69c0189a9674fb0e4d9673d00b859f09619f60",
            );
        request.body(()).unwrap().into_parts().0
    }

    fn with(name: &'static str, value: &str) -> Parts {
        let mut head = head();
        head.headers.insert(name, HeaderValue::from_str(value).unwrap());
        head
    }

    fn hash(body: &str) -> [u8; 32] {
        sha2::Sha256::digest(body).into()
    }

    /// The error's name and message, or nothing.
    fn verdict(access: &Access, head: &Parts, now: i64, body: &str) -> String {
        let claim = access.claim(&head.headers, now);
        match claim.and_then(|claim| access.verify(&claim, head, &hash(body))) {
            Ok(()) => String::new(),
            Err(e) => format!("{}: {}", e.name, e.message),
        }
    }

    #[test]
    fn what_botocore_signs_is_accepted_and_the_key_is_kept() {
        let access = access(None);
        for _ in 0..2 {
            assert_eq!(verdict(&access, &head(), NOW, "{}"), "");
        }
        assert_eq!(access.derived.lock().unwrap().len(), 1);
        assert_eq!(verdict(&access, &head(), NOW + 299, "{}"), "");
    }

    #[test]
    fn what_is_wrong_is_said_in_awss_names() {
        let auth = |old: &str, new: &str| {
            let text = head().headers["authorization"].to_str().unwrap().replace(old, new);
            with("authorization", &text)
        };
        let mut missing = head();
        missing.headers.remove("authorization");
        let mut undated = head();
        undated.headers.remove("x-amz-date");
        for (head, now, body, want) in [
            (missing, NOW, "{}", "MissingAuthenticationTokenException"),
            (with("authorization", "Bearer x"), NOW, "{}", "IncompleteSignatureException"),
            (undated, NOW, "{}", "IncompleteSignatureException"),
            (with("x-amz-date", "20150830"), NOW, "{}", "IncompleteSignatureException"),
            (auth("AKIDEXAMPLE", "AKIDOTHER"), NOW, "{}", "UnrecognizedClientException"),
            (with("x-amz-security-token", "t"), NOW, "{}", "UnrecognizedClientException"),
            (auth("/logs/", "/s3/"), NOW, "{}", "Credential should be scoped to correct service"),
            (auth("/20150830/", "/20150831/"), NOW, "{}", "Date in Credential scope does not match"),
            (head(), NOW + 301, "{}", "InvalidSignatureException: Signature expired"),
            (head(), NOW - 301, "{}", "InvalidSignatureException: Signature not yet current"),
            (auth(";x-amz-target", ""), NOW, "{}", "'x-amz-target' must be a 'SignedHeader'"),
            (auth("host;", ""), NOW, "{}", "'host' must be a 'SignedHeader'"),
            (head(), NOW, "{ }", "InvalidSignatureException: The request signature we calculated"),
            (with("host", "other"), NOW, "{}", "InvalidSignatureException: The request signature"),
            (auth("us-east-1", "eu-west-1"), NOW, "{}", "InvalidSignatureException: The request signature"),
        ] {
            let said = verdict(&access(None), &head, now, body);
            assert!(said.contains(want), "{want}: {said}");
        }
        assert!(verdict(&access(Some("t")), &head(), NOW, "{}").contains("UnrecognizedClient"));
    }

    #[test]
    fn every_profile_of_a_credentials_file_may_write() {
        let text = "# mine\n[default]\naws_access_key_id = AK1\naws_secret_access_key=s=1\n\n[ other ]\n\
                    AWS_ACCESS_KEY_ID=AK2\n; no\naws_secret_access_key = s2\naws_session_token = t\nregion = x\n[sso]\n\
                    sso_session = y\n";
        let all = read_file(text).unwrap_or_default();
        let all: Vec<_> =
            all.iter().map(|c| (c.id.as_str(), c.secret.as_str(), c.token.as_deref())).collect();
        assert_eq!(all, [("AK1", "s=1", None), ("AK2", "s2", Some("t"))]);
        assert!(read_file("x = y").err().unwrap().contains("line 1"));
        assert!(read_file("[a]\nnonsense").err().unwrap().contains("line 2"));
        assert!(read_file("[a]\naws_access_key_id = x\n[b]").err().unwrap().contains("profile [a]"));
    }
}
