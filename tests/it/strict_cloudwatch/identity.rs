//! Who gives credentials: STS, and ECS's endpoints for a container: its credentials and its task.

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

/// `POST` of a form: AssumeRole.
pub(crate) fn sts(shared: &Shared, parts: &Parts, body: &[u8]) -> Response<Body> {
    let scope = (shared.options.region.as_str(), "sts");
    let checked = shared.with(|store| sigv4::verify(parts, body, &store.keys, scope, SystemTime::now()));
    if let Err(refusal) = checked {
        if refusal.violation {
            shared.violation(format!("STS: {}", refusal.message));
        }
        return sts_error(refusal.name, &refusal.message);
    }
    let form = form(body);
    let get = |name: &str| form.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()).unwrap_or_default();
    if get("Action") != "AssumeRole" || get("Version") != "2011-06-15" || get("RoleSessionName").is_empty() {
        shared.violation(format!("STS: {form:?}"));
        return sts_error("ValidationError", "not AssumeRole");
    }
    shared.with(|store| store.identity.roles.push((get("RoleArn"), get("ExternalId"))));
    let [id, secret, token, at] = issue(shared);
    let xml = format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
         <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{at}</Expiration></Credentials></AssumeRoleResult>\
         <ResponseMetadata><RequestId>of-sts</RequestId></ResponseMetadata></AssumeRoleResponse>",
        get("RoleArn")
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
