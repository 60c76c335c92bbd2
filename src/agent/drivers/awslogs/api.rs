//! A small client of CloudWatch Logs, for the three calls that docker's driver makes.
//!
//! Enters: names and events. Leaves: answers; calls that failed on the way, or that the service was too busy for, are made
//! three times. Can go wrong: there are no credentials, nobody answers, the service refuses; the error has its name for it.

use std::fmt::Write;
use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::batch::{Event, repaired};
use super::settings::Settings;
use crate::net::{self, Aws, AwsOptions, HttpClient, HttpError, HttpOptions};
use crate::wire::sigv4::{Authorization, Request, SigningKey, hex};

const CONNECT: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(60);
const IDLE: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
/// Between attempts, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// The service, as one container's driver sees it.
pub(super) struct Api {
    http: HttpClient,
    aws: Aws,
    region: String,
    endpoint: String,
    host: String,
    format: Option<String>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Api({})", self.endpoint)
    }
}

/// An error of the service, or on the way to it (then without a name).
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) name: String,
    pub(super) said: String,
    /// `expectedSequenceToken`, where the service still knows of such.
    pub(super) expected: Option<String>,
    again: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.as_str() {
            "" => f.write_str(&self.said),
            name => write!(f, "{name}: {}", self.said),
        }
    }
}

impl Api {
    pub(super) async fn new(settings: &Settings) -> Result<Api, String> {
        let of_env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let region =
            settings.region.clone().or_else(|| of_env("AWS_REGION")).or_else(|| of_env("AWS_DEFAULT_REGION"));
        let region = region.ok_or_else(|| {
            "could not get region: set log opt 'awslogs-region', or AWS_REGION in the agent's environment"
                .to_owned()
        })?;
        let http = HttpClient::new(HttpOptions::verified(CONNECT, ANSWER, Some(IDLE))?);
        let standard = match region.starts_with("cn-") {
            true => format!("https://logs.{region}.amazonaws.com.cn"),
            false => format!("https://logs.{region}.amazonaws.com"),
        };
        let endpoint = settings.endpoint.clone().unwrap_or(standard);
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let uri: http::Uri =
            endpoint.parse().map_err(|e| format!("invalid awslogs-endpoint ({endpoint}): {e}"))?;
        let authority =
            uri.authority().ok_or_else(|| format!("invalid awslogs-endpoint ({endpoint}): no host"))?;
        let standard = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let host = match authority.port_u16() {
            Some(port) if port != standard => format!("{}:{port}", authority.host()),
            _ => authority.host().to_owned(),
        };
        let options = AwsOptions {
            region: region.clone(),
            credentials_endpoint: settings.credentials_endpoint.clone(),
            ..AwsOptions::default()
        };
        let aws = net::aws(&options, http.clone()).await;
        Ok(Api { http, aws, region, endpoint, host, format: settings.format.clone() })
    }

    pub(super) async fn create_stream(&self, group: &str, stream: &str) -> Result<(), Failure> {
        let body = json!({ "logGroupName": group, "logStreamName": stream });
        self.call("CreateLogStream", body.to_string()).await.map(drop)
    }

    pub(super) async fn create_group(&self, group: &str) -> Result<(), Failure> {
        self.call("CreateLogGroup", json!({ "logGroupName": group }).to_string()).await.map(drop)
    }

    /// Gives `nextSequenceToken`.
    pub(super) async fn put(
        &self,
        (group, stream): (&str, &str),
        events: &[Event],
        token: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let mut body = String::from("{\"logEvents\":[");
        for (n, event) in events.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let message = Value::String(repaired(&event.text));
            // Writing to a string does not fail.
            let _ = write!(body, "{comma}{{\"message\":{message},\"timestamp\":{}}}", event.time);
        }
        let names = (Value::from(group), Value::from(stream));
        let _ = write!(body, "],\"logGroupName\":{},\"logStreamName\":{}", names.0, names.1);
        if let Some(token) = token {
            let _ = write!(body, ",\"sequenceToken\":{}", Value::from(token));
        }
        body.push('}');
        let answer = self.call("PutLogEvents", body).await?;
        Ok(answer.get("nextSequenceToken").and_then(Value::as_str).map(str::to_owned))
    }

    async fn call(&self, operation: &str, body: String) -> Result<Value, Failure> {
        let body = bytes::Bytes::from(body);
        let mut attempt = 1;
        loop {
            match self.call_once(operation, body.clone()).await {
                Err(e) if e.again && attempt < ATTEMPTS => {
                    tracing::debug!(operation, cause = %e, "a CloudWatch call is made once more");
                    let chance = f64::from(net::random::<1>().unwrap_or([128])[0]) / 256.0;
                    let wait = Duration::from_secs_f64(chance * f64::from(1 << attempt));
                    tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn call_once(&self, operation: &str, body: bytes::Bytes) -> Result<Value, Failure> {
        let request = self.signed(operation, body).await.map_err(|said| Failure::here(said, false))?;
        let answer = self.http.send(request).await.map_err(|e| {
            let again = !matches!(e, HttpError::Request(_));
            Failure::here(format!("{operation}: {e}"), again)
        })?;
        let value: Option<Value> = serde_json::from_slice(answer.body()).ok();
        if answer.status().is_success() {
            return Ok(value.unwrap_or_default());
        }
        let header =
            answer.headers().get("x-amzn-errortype").and_then(|v| v.to_str().ok()).map(str::to_owned);
        if header.is_some() || value.is_some() {
            return Err(Failure::read(answer.status().as_u16(), header, &value.unwrap_or_default()));
        }
        let status = answer.status();
        let said =
            format!("{operation}: the answer {status} is not CloudWatch's; is there a proxy on the way?");
        Err(Failure::here(said, status.is_server_error()))
    }

    async fn signed(&self, operation: &str, body: bytes::Bytes) -> Result<http::Request<SdkBody>, String> {
        let provider =
            self.aws.config.credentials_provider().ok_or("there is no source of AWS credentials")?;
        let who =
            provider.provide_credentials().await.map_err(|e| format!("{operation}: {}", net::causes(&e)))?;
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let date = now.get(..8).unwrap_or_default();
        let target = format!("Logs_20140328.{operation}");
        // In the order of their names, as they are signed.
        let mut headers =
            vec![("content-type", "application/x-amz-json-1.1"), ("host", &self.host), ("x-amz-date", &now)];
        headers.extend(who.session_token().map(|token| ("x-amz-security-token", token)));
        headers.push(("x-amz-target", &target));
        headers.extend(self.format.as_deref().map(|format| ("x-amzn-logs-format", format)));
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let bytes: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        let auth = Authorization {
            access_key_id: who.access_key_id(),
            date,
            region: &self.region,
            service: "logs",
            signed_headers: &names,
            signature: "",
        };
        let payload_hash = hex(&Sha256::digest(&body));
        let signed = Request {
            method: "POST",
            path: "/",
            query: "",
            headers: &bytes,
            payload_hash: &payload_hash,
            timestamp: &now,
        };
        let key = SigningKey::derive(who.secret_access_key(), date, &self.region, "logs");
        let mut request = http::Request::post(format!("{}/", self.endpoint));
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        request
            .header("authorization", key.authorization(&auth, &signed))
            .header("user-agent", concat!("firelane/", env!("CARGO_PKG_VERSION")))
            .header("content-length", body.len())
            .body(SdkBody::from(body))
            .map_err(|e| format!("{operation}: cannot make the request: {e}"))
    }
}

impl Failure {
    fn here(said: String, again: bool) -> Failure {
        Failure { name: String::new(), said, expected: None, again }
    }

    fn read(status: u16, header: Option<String>, body: &Value) -> Failure {
        let text = |keys: &[&str]| keys.iter().find_map(|k| body.get(k)?.as_str().map(str::to_owned));
        let name = header.or_else(|| text(&["__type", "code"])).unwrap_or_default();
        // `com.amazonaws#Name`, `Name:http://...`
        let name =
            name.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
        let again =
            status >= 500 || status == 429 || name.contains("Throttl") || name == "RequestLimitExceeded";
        let said = text(&["message", "Message"]).unwrap_or_else(|| format!("status {status}"));
        Failure { name, said, expected: text(&["expectedSequenceToken"]), again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_named_by_body_or_header_and_busy_services_are_asked_again() {
        let body = json!({ "__type": "com.amazonaws#InvalidSequenceTokenException", "message": "m", "expectedSequenceToken": "7" });
        let e = Failure::read(400, None, &body);
        assert_eq!(
            (e.to_string().as_str(), e.expected.as_deref(), e.again),
            ("InvalidSequenceTokenException: m", Some("7"), false)
        );
        let e = Failure::read(400, Some("ThrottlingException:http://x".into()), &Value::Null);
        assert!(e.name == "ThrottlingException" && e.again);
        assert!(Failure::read(503, None, &Value::Null).again);
    }
}
