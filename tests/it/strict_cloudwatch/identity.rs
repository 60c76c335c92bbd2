//! Who gives credentials: STS, ECS's endpoints for a container (its credentials and its task), and the metadata service of
//! an EC2 instance in its second version.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{Response, StatusCode};
use jiff::Timestamp;

use super::Shared;
use super::serve::{Body, answer};
use super::sigv4::{self, Key};

/// Paths of the two endpoints of ECS, and the word that the first one asks for.
pub(crate) const CREDENTIALS: &str = "/v2/credentials/of-the-task";
pub(crate) const METADATA: &str = "/v4/container";
pub(crate) const TOKEN: &str = "let-me-in";

/// The role of the EC2 instance, and the word that its metadata service gives to whoever asks with PUT.
const INSTANCE_ROLE: &str = "instance-role";
const SESSION: &str = "a-session-of-imdsv2";

/// Makes a new key, and gives its id, secret, token and time of expiry.
fn issue(shared: &Shared) -> [String; 4] {
    let mut store = shared.store.lock().unwrap_or_else(PoisonError::into_inner);
    store.identity.issued += 1;
    let n = store.identity.issued;
    let [id, secret, token] = [format!("ASIA{n:016}"), format!("secret/{n}+"), format!("token=={n}")];
    // Only whole seconds are told.
    let at = (SystemTime::now() + shared.options.lifetime).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs());
    let at = Timestamp::from_second(i64::try_from(at.as_secs()).unwrap()).unwrap();
    let key =
        Key { secret: secret.clone(), token: Some(token.clone()), expires: Some(expires), allowed: true };
    store.keys.insert(id.clone(), key);
    [id, secret, token, at.to_string()]
}

/// `GET`: the endpoints of ECS.
pub(crate) fn ecs(shared: &Shared, parts: &Parts) -> Response<Body> {
    let text = |status: StatusCode, json: String| answer(status, "application/json", json.into());
    match parts.uri.path() {
        CREDENTIALS => {
            let failing = shared.with(|store| {
                store.identity.container += 1;
                let failing = store.identity.failing;
                store.identity.failing = failing.saturating_sub(1);
                failing > 0
            });
            if failing {
                return text(StatusCode::INTERNAL_SERVER_ERROR, String::new());
            }
            if parts.headers.get("authorization").is_none_or(|v| v != TOKEN) {
                return text(StatusCode::UNAUTHORIZED, r#"{"code":"401","message":"no token"}"#.to_owned());
            }
            let [id, secret, token, at] = issue(shared);
            let role = "arn:aws:iam::111122223333:role/task";
            let json = serde_json::json!({"RoleArn": role, "AccessKeyId": id, "SecretAccessKey": secret,
                "Token": token, "Expiration": at});
            text(StatusCode::OK, json.to_string())
        }
        path if path == format!("{METADATA}/task") => {
            shared.with(|store| store.identity.task += 1);
            let json = serde_json::json!({"Cluster": "shop", "Family": "web", "Revision": "42",
                "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/shop/0f1e2d3c4b5a69788796a5b4c3d2e1f0"});
            text(StatusCode::OK, json.to_string())
        }
        path => {
            shared.violation(format!("GET {path}"));
            text(StatusCode::NOT_FOUND, "{}".to_owned())
        }
    }
}

/// The metadata service of an EC2 instance: nothing without a session's token.
pub(crate) fn instance(shared: &Shared, parts: &Parts) -> Response<Body> {
    let text = |status: StatusCode, body: String| answer(status, "text/plain", body.into());
    let asked = format!("{} {}", parts.method, parts.uri.path());
    shared.with(|store| store.identity.instance.push(asked.clone()));
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let credentials = "GET /latest/meta-data/iam/security-credentials/";
    if asked == "PUT /latest/api/token" {
        let ttl = header("x-aws-ec2-metadata-token-ttl-seconds").to_owned();
        if !ttl.parse::<u32>().is_ok_and(|n| (1..=21_600).contains(&n)) {
            return text(StatusCode::BAD_REQUEST, String::new());
        }
        let mut response = text(StatusCode::OK, SESSION.to_owned());
        response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", ttl.parse().unwrap());
        return response;
    }
    if header("x-aws-ec2-metadata-token") != SESSION {
        return text(StatusCode::UNAUTHORIZED, String::new());
    }
    match asked.strip_prefix(credentials) {
        Some("") => text(StatusCode::OK, INSTANCE_ROLE.to_owned()),
        Some(INSTANCE_ROLE) => {
            let [id, secret, token, at] = issue(shared);
            let json = serde_json::json!({"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2025-01-01T00:00:00Z",
                "AccessKeyId": id, "SecretAccessKey": secret, "Token": token, "Expiration": at});
            text(StatusCode::OK, json.to_string())
        }
        _ => text(StatusCode::NOT_FOUND, String::new()),
    }
}

/// An error as STS writes it, and by its name for it.
fn sts_error(name: &str, message: &str) -> Response<Body> {
    let code = match name {
        "AccessDeniedException" => "AccessDenied",
        "ExpiredTokenException" => "ExpiredToken",
        "InvalidSignatureException" => "SignatureDoesNotMatch",
        "UnrecognizedClientException" => "InvalidClientTokenId",
        other => other,
    };
    let xml = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>of-sts</RequestId></ErrorResponse>"
    );
    answer(StatusCode::FORBIDDEN, "text/xml", xml.into())
}

/// `POST` of a form: AssumeRole, and AssumeRoleWithWebIdentity, which nobody signs.
pub(crate) fn sts(shared: &Shared, parts: &Parts, body: &[u8]) -> Response<Body> {
    let form = form(body);
    let get = |name: &str| form.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()).unwrap_or_default();
    if get("Action") == "AssumeRoleWithWebIdentity" {
        if get("RoleSessionName").is_empty() || parts.headers.contains_key("authorization") {
            shared.violation(format!("STS: {form:?}"));
        }
        shared.with(|store| store.identity.web.push((get("RoleArn"), get("WebIdentityToken"))));
        return assumed(shared, "AssumeRoleWithWebIdentity", &get("RoleArn"));
    }
    let scope = (shared.options.region.as_str(), "sts");
    let checked = shared.with(|store| sigv4::verify(parts, body, &store.keys, scope, SystemTime::now()));
    if let Err(refusal) = checked {
        if refusal.violation {
            shared.violation(format!("STS: {}", refusal.message));
        }
        return sts_error(refusal.name, &refusal.message);
    }
    if get("Action") != "AssumeRole" || get("Version") != "2011-06-15" || get("RoleSessionName").is_empty() {
        shared.violation(format!("STS: {form:?}"));
        return sts_error("ValidationError", "not AssumeRole");
    }
    shared.with(|store| store.identity.roles.push((get("RoleArn"), get("ExternalId"))));
    assumed(shared, "AssumeRole", &get("RoleArn"))
}

fn assumed(shared: &Shared, action: &str, role: &str) -> Response<Body> {
    let [id, secret, token, at] = issue(shared);
    let xml = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>{role}</Arn></AssumedRoleUser><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{at}</Expiration></Credentials></{action}Result>\
         <ResponseMetadata><RequestId>of-sts</RequestId></ResponseMetadata></{action}Response>"
    );
    answer(StatusCode::OK, "text/xml", xml.into())
}

/// Reads `application/x-www-form-urlencoded`.
fn form(body: &[u8]) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(b) = bytes.next() {
            out.push(match b {
                b'+' => b' ',
                b'%' => {
                    let digits = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap_or("?"), 16).unwrap_or(b'?')
                }
                b => b,
            });
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let text = String::from_utf8_lossy(body);
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (plain(k), plain(v))).collect()
}
