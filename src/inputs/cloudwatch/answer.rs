//! What clients are answered: AWS JSON 1.1, AWS's error names, a request id on everything.
//!
//! Enters: a result. Leaves: a response. Nothing can go wrong.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use crate::wire::cloudwatch_in::Refused;

/// What hyper sends.
pub(super) type Answer = Response<Full<Bytes>>;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) status: StatusCode,
    /// AWS's name of it, without a namespace: some clients compare it as it is.
    pub(super) name: &'static str,
    pub(super) message: String,
}

impl Error {
    /// Status 400, as most.
    pub(super) fn new(name: &'static str, message: impl Into<String>) -> Self {
        Error { status: StatusCode::BAD_REQUEST, name, message: message.into() }
    }

    pub(super) fn parameter(message: impl Into<String>) -> Self {
        Error::new("InvalidParameterException", message)
    }

    pub(super) fn not_found(what: &str) -> Self {
        Error::new("ResourceNotFoundException", format!("The specified {what} does not exist."))
    }

    pub(super) fn exists(what: &str) -> Self {
        Error::new("ResourceAlreadyExistsException", format!("The specified {what} already exists"))
    }

    /// Try again later; SDKs do.
    pub(super) fn unavailable(why: &str) -> Self {
        Error {
            status: StatusCode::SERVICE_UNAVAILABLE,
            name: "ServiceUnavailableException",
            message: format!("The service cannot complete the request: {why}."),
        }
    }

    pub(super) fn too_large(limit: usize) -> Self {
        Error {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            name: "RequestEntityTooLargeException",
            message: format!("The request body is larger than {limit} bytes."),
        }
    }

    pub(super) fn slow() -> Self {
        Error {
            status: StatusCode::REQUEST_TIMEOUT,
            name: "RequestTimeoutException",
            message: "The request body did not arrive in time.".to_owned(),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Shape(message) => Error::new("SerializationException", message),
            Refused::Value(message) => Error::parameter(message),
            // Whoever reads a body reads it again then.
            Refused::Misled => Error::new("SerializationException", refused.to_string()),
        }
    }
}

/// The response for a result: a JSON document, nothing, or a refusal.
pub(super) fn answer(result: Result<Option<Vec<u8>>, Error>) -> Answer {
    let (status, name, body) = match result {
        Ok(body) => (StatusCode::OK, None, body.unwrap_or_default()),
        Err(e) => {
            let body = json!({"__type": e.name, "message": e.message}).to_string();
            (e.status, Some(e.name), body.into_bytes())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if let Ok(id) = HeaderValue::from_str(&request_id()) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(name) = name {
        headers.insert(ERROR_TYPE, HeaderValue::from_static(name));
    }
    response
}

/// A random UUID. Fluent Bit takes a 200 without an id for a failure.
fn request_id() -> String {
    let mut b = [0_u8; 16];
    // Without randomness the id is poor, but there is one.
    let _ = rustix::rand::getrandom(&mut b, rustix::rand::GetRandomFlags::empty());
    let n = u128::from_be_bytes(b);
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        n >> 96,
        n >> 80 & 0xffff,
        n >> 68 & 0xfff,
        n >> 48 & 0x3fff | 0x8000,
        n & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn refusals_have_awss_shape_and_a_request_id() {
        let response = answer(Err(Error::not_found("log group")));
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["x-amzn-errortype"], "ResourceNotFoundException");
        assert_eq!(response.headers()["content-type"], "application/x-amz-json-1.1");
        let id = response.headers()["x-amzn-requestid"].to_str().unwrap().to_owned();
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_ne!(id, request_id());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({"__type": "ResourceNotFoundException", "message": "The specified log group does not exist."})
        );
    }

    #[tokio::test]
    async fn a_call_without_a_result_is_answered_by_an_empty_body() {
        let response = answer(Ok(None));
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
