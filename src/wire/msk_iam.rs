//! Tokens of Amazon MSK's IAM mechanism: a presigned address in base64.
//!
//! Enters: a region, keys, a time. Leaves: a token. Can go wrong: nothing; a wrong key is refused by the broker.
//! <https://docs.aws.amazon.com/msk/latest/developerguide/iam-access-control.html>

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::sigv4::{Authorization, Request, SigningKey, encoded};

/// How long a token holds, in seconds.
pub const EXPIRES: i64 = 900;
/// SHA-256 of nothing.
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who signs.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// Access key id.
    pub id: &'a str,
    /// Secret access key.
    pub secret: &'a str,
    /// Session token, of temporary credentials.
    pub session: Option<&'a str>,
}

/// A token that holds for [`EXPIRES`] seconds from `now` (seconds since 1970).
pub fn token(region: &str, keys: &Keys<'_>, now: i64) -> String {
    let timestamp = timestamp(now);
    let date = timestamp.get(..8).unwrap_or_default();
    let host = format!("kafka.{region}.amazonaws.com");
    let credential = format!("{}/{date}/{region}/kafka-cluster/aws4_request", keys.id);
    let mut query = format!(
        "Action={}&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={timestamp}&X-Amz-Expires={EXPIRES}&X-Amz-SignedHeaders=host",
        encoded("kafka-cluster:Connect"),
        encoded(&credential)
    );
    if let Some(session) = keys.session {
        query.push_str("&X-Amz-Security-Token=");
        query.push_str(&encoded(session));
    }
    let scope = Authorization {
        access_key_id: keys.id,
        date,
        region,
        service: "kafka-cluster",
        signed_headers: "host",
        signature: "",
    };
    let request = Request {
        method: "GET",
        path: "/",
        query: &query,
        headers: &[("host", host.as_bytes())],
        payload_hash: NOTHING,
        timestamp: &timestamp,
    };
    let signature = SigningKey::derive(keys.secret, date, region, "kafka-cluster").sign(&scope, &request);
    // The user agent is no part of what is signed.
    let address = format!(
        "https://{host}/?{query}&X-Amz-Signature={signature}&User-Agent={}",
        encoded(concat!("firelane/", env!("CARGO_PKG_VERSION")))
    );
    URL_SAFE_NO_PAD.encode(address)
}

/// `20250309T174620Z`
fn timestamp(now: i64) -> String {
    let time = jiff::Timestamp::from_second(now).unwrap_or_default();
    let t = jiff::tz::Offset::UTC.to_datetime(time);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        t.year(),
        t.month(),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    )
}

#[cfg(test)]
mod tests;
