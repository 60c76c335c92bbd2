//! The server itself, asked by hand: it takes what the service takes, refuses what the service refuses, and does wrong
//! only what it is told to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use http::Request;
use serde_json::{Value, json};

use super::sigv4::signature;
use super::{Answer, CloudWatch, KEY, Options, Rule};
use crate::support::LIMIT;

/// A request to be changed before it is signed.
struct Ask {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    key: (String, String),
    scope: String,
}

/// What came back.
struct Got {
    status: u16,
    head: String,
    body: String,
}

fn now_ms() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64
}

fn stamp(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let civil = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::from_second(seconds).unwrap());
    civil.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn ask(server: &CloudWatch, operation: &str, body: impl Into<Vec<u8>>) -> Ask {
    let date = stamp(SystemTime::now());
    let day = date.split('T').next().unwrap().to_owned();
    let mut ask = Ask {
        headers: Vec::new(),
        body: body.into(),
        key: (KEY.0.to_owned(), KEY.1.to_owned()),
        scope: format!("{day}/eu-west-1/logs/aws4_request"),
    };
    ask.set("host", &format!("127.0.0.1:{}", server.port()));
    ask.set("content-type", "application/x-amz-json-1.1");
    ask.set("x-amz-target", &format!("Logs_20140328.{operation}"));
    ask.set("x-amz-date", &date);
    ask
}

impl Ask {
    fn set(&mut self, name: &str, value: &str) -> &mut Ask {
        self.headers.retain(|(n, _)| n != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The whole request. `Connection` and `Content-Length` are not signed.
    fn signed(&self) -> Vec<u8> {
        let mut request = Request::post("/");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut names: Vec<&str> = self.headers.iter().map(|(n, _)| n.as_str()).collect();
        names.sort_unstable();
        let signature = signature(&parts, &self.body, &names, &self.scope, &self.key.1);
        let mut text = String::from("POST / HTTP/1.1\r\nconnection: close\r\n");
        self.headers.iter().for_each(|(n, v)| text += &format!("{n}: {v}\r\n"));
        text += &format!("content-length: {}\r\n", self.body.len());
        text += &format!(
            "authorization: AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}\r\n\r\n",
            self.key.0,
            self.scope,
            names.join(";")
        );
        [text.as_bytes(), &self.body].concat()
    }

    fn send(&self, server: &CloudWatch) -> Got {
        exchange(server, &self.signed()).unwrap()
    }
}

fn exchange(server: &CloudWatch, request: &[u8]) -> std::io::Result<Got> {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Got { status, head: head.to_owned(), body: body.to_owned() })
}

impl Got {
    fn error(&self) -> String {
        let json: Value = serde_json::from_str(&self.body).unwrap_or_default();
        json["__type"].as_str().unwrap_or("no error").to_owned()
    }
}

fn put(events: &[(i64, &str)]) -> String {
    let events: Vec<Value> = events.iter().map(|(t, m)| json!({"timestamp": t, "message": m})).collect();
    json!({"logGroupName": "g", "logStreamName": "s", "logEvents": events}).to_string()
}

fn ready() -> CloudWatch {
    let server = CloudWatch::start();
    server.create("g", &["s"]);
    server
}

/// Sends a batch and gives the error.
fn put_error(server: &CloudWatch, events: &[(i64, &str)]) -> String {
    ask(server, "PutLogEvents", put(events)).send(server).error()
}

/// A vector of AWS's published suite for signers: those whose path and query are in canonical form already.
#[derive(serde::Deserialize)]
struct Vector {
    name: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    signed: String,
    scope: String,
    signature: String,
}

#[test]
fn signatures_are_those_of_awss_test_suite() {
    let vectors: Vec<Vector> = include_str!("../../golden/sigv4.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(vectors.len(), 26);
    for v in vectors {
        let mut request = Request::builder().method(v.method.as_str()).uri(&v.target);
        for (name, value) in &v.headers {
            request = request.header(name, value);
        }
        let (parts, ()) = request.body(()).unwrap_or_else(|e| panic!("{}: {e}", v.name)).into_parts();
        let names: Vec<&str> = v.signed.split(';').collect();
        let got = signature(&parts, v.body.as_bytes(), &names, &v.scope, KEY.1);
        assert_eq!(got, v.signature, "{}", v.name);
    }
}

#[test]
fn a_good_batch_is_stored_and_answered_as_aws_does() {
    let server = ready();
    let now = now_ms();
    let got = ask(&server, "PutLogEvents", put(&[(now, "one"), (now, "zwei \u{1f600}")])).send(&server);
    assert_eq!((got.status, server.messages("g", "s")), (200, vec!["one".into(), "zwei \u{1f600}".into()]));
    assert!(
        got.head.contains("x-amzn-requestid: ") && got.body.contains("nextSequenceToken"),
        "{}",
        got.body
    );
    let call = &server.calls("PutLogEvents")[0];
    assert_eq!((call.events, call.bytes, call.outcome.as_str()), (2, 3 + 9 + 52, "ok"));
}

#[test]
fn what_breaks_a_rule_of_a_batch_is_refused_and_is_a_violation() {
    let server = ready();
    let now = now_ms();
    let many = vec![(now, "x"); 10_001];
    let (big, most) = ("x".repeat(1_048_576 - 25), "x".repeat(1_048_576 - 26));
    let day = 86_400_000;
    let invalid = "InvalidParameterException";
    for events in [
        &[][..],
        &many,
        &[(now, &*big)],
        &[(now, "")],
        &[(now, "later"), (now - 1, "sooner")],
        &[(now - day, "a"), (now, "b")],
        &[(-1, "a")],
    ] {
        assert_eq!(put_error(&server, events), invalid);
        assert_eq!(server.take_violations().len(), 1);
    }
    assert_eq!(put_error(&server, &many[..10_000]), "no error");
    assert_eq!(put_error(&server, &[(now, &*most)]), "no error");
    assert_eq!(put_error(&server, &[(now - day + 1, "a"), (now, "b")]), "no error");
    assert_eq!(server.stored(), 10_003);
}

#[test]
fn bodies_that_are_not_what_the_model_says_are_refused() {
    let server = ready();
    for body in [
        &b"{"[..],
        b"{\"logGroupName\":\"g\",\"logStreamName\":\"s\"}",
        b"{\"logGroupName\":\"g\",\"logStreamName\":\"s\",\"logEvents\":[{\"timestamp\":1.5,\"message\":\"a\"}]}",
        b"{\"logGroupName\":\"g\",\"logStreamName\":\"s\",\"logEvents\":[{\"timestamp\":1,\"message\":\"\xff\"}]}",
        b"{\"logGroupName\":\"g\",\"logStreamName\":\"s\",\"logEvents\":[{\"timestamp\":1,\"message\":\"\\ud800\"}]}",
        b"{\"logGroupName\":\"g\",\"logStreamName\":\"s\",\"logEvents\":[{\"timestamp\":1,\"message\":\"a\",\"x\":1}]}",
    ] {
        let got = ask(&server, "PutLogEvents", body).send(&server);
        assert_eq!(got.error(), "SerializationException", "{}", String::from_utf8_lossy(body));
        assert_eq!(server.take_violations().len(), 1);
    }
    assert_eq!(ask(&server, "GetLogEvents", "{}").send(&server).error(), "UnknownOperationException");
    assert_eq!(server.take_violations().len(), 1);
}

#[test]
fn groups_and_streams_have_to_be_there_once_and_to_have_good_names() {
    let server = CloudWatch::start();
    let now = now_ms();
    assert_eq!(put_error(&server, &[(now, "a")]), "ResourceNotFoundException");
    let call = |operation, body: Value| ask(&server, operation, body.to_string()).send(&server);
    let group = json!({"logGroupName": "g", "logGroupClass": "INFREQUENT_ACCESS", "tags": {"a": "b"}});
    let stream = json!({"logGroupName": "g", "logStreamName": "s"});
    assert_eq!(call("CreateLogStream", stream.clone()).error(), "ResourceNotFoundException");
    let got = call("CreateLogGroup", group.clone());
    assert!(got.status == 200 && got.body.is_empty(), "{}", got.body);
    assert_eq!(put_error(&server, &[(now, "a")]), "ResourceNotFoundException");
    assert_eq!(call("CreateLogStream", stream.clone()).status, 200);
    assert_eq!(call("PutRetentionPolicy", json!({"logGroupName": "g", "retentionInDays": 7})).status, 200);
    assert_eq!(put_error(&server, &[(now, "a")]), "no error");
    for (operation, body) in [("CreateLogGroup", group), ("CreateLogStream", stream)] {
        assert_eq!(call(operation, body).error(), "ResourceAlreadyExistsException");
    }
    let made = server.group("g");
    assert_eq!((made.class.as_deref(), made.days), (Some("INFREQUENT_ACCESS"), Some(7)));
    assert_eq!((made.tags.len(), server.take_violations().len()), (1, 0));
    for (operation, body) in [
        ("CreateLogGroup", json!({"logGroupName": "with space"})),
        ("CreateLogGroup", json!({"logGroupName": "x".repeat(513)})),
        ("CreateLogGroup", json!({"logGroupName": "h", "logGroupClass": "CHEAP"})),
        ("CreateLogGroup", json!({"logGroupName": "h", "tags": {"aws:x": "y"}})),
        ("CreateLogStream", json!({"logGroupName": "g", "logStreamName": "a:b"})),
        ("CreateLogStream", json!({"logGroupName": "g", "logStreamName": ""})),
        ("PutRetentionPolicy", json!({"logGroupName": "g", "retentionInDays": 8})),
    ] {
        assert_eq!(call(operation, body).error(), "InvalidParameterException");
    }
    assert_eq!(server.take_violations().len(), 7);
}

#[test]
fn what_is_too_old_too_new_or_expired_is_rejected_by_index_and_the_rest_is_taken() {
    let server = ready();
    let (now, hour) = (now_ms(), 3_600_000);
    let send = |events: &[(i64, &str)]| {
        let got = ask(&server, "PutLogEvents", put(events)).send(&server);
        serde_json::from_str::<Value>(&got.body).unwrap()["rejectedLogEventsInfo"].clone()
    };
    assert_eq!(send(&[(now, "good")]), Value::Null);
    let info = send(&[(now, "good too"), (now + 3 * hour, "new"), (now + 4 * hour, "new")]);
    assert_eq!(info, json!({"tooNewLogEventStartIndex": 1}));
    let old = now - 14 * 24 * hour;
    let info = send(&[(old - hour, "old"), (old - hour, "old"), (old + hour, "just in time")]);
    assert_eq!(info, json!({"tooOldLogEventEndIndex": 2}));
    server.with(|store| store.groups.get_mut("g").unwrap().days = Some(1));
    let info = send(&[(now - 25 * hour, "expired"), (now - 23 * hour, "not")]);
    assert_eq!(info, json!({"expiredLogEventEndIndex": 1}));
    assert_eq!(server.messages("g", "s"), ["good", "good too", "just in time", "not"]);
}

#[test]
fn requests_that_nobody_could_have_signed_are_refused() {
    let server = ready();
    let good = || ask(&server, "PutLogEvents", put(&[(now_ms(), "a")]));
    type Change = fn(&mut Ask);
    let cases: [(Change, &str, usize); 7] = [
        (|a| a.key.1 += "x", "InvalidSignatureException", 1),
        (|a| a.key.0 += "x", "UnrecognizedClientException", 0),
        (|a| _ = a.set("x-amz-security-token", "t"), "UnrecognizedClientException", 1),
        (|a| _ = a.set("x-amz-content-sha256", "00"), "InvalidSignatureException", 1),
        (|a| a.scope = a.scope.replace("logs", "s3"), "InvalidSignatureException", 1),
        (|a| a.scope = a.scope.replace("eu-west-1", "us-east-1"), "InvalidSignatureException", 1),
        (|a| _ = a.set("x-amz-date", &stamp(SystemTime::now() - Duration::from_secs(301))), "", 1),
    ];
    for (change, want, violations) in cases {
        let mut ask = good();
        change(&mut ask);
        let got = ask.send(&server).error();
        // Shortly after midnight the old date is of another day.
        assert!(got == want || want.is_empty() && got == "InvalidSignatureException", "{got} {want}");
        assert_eq!(server.take_violations().len(), violations);
    }
    let signed = good().signed();
    let text = String::from_utf8(signed).unwrap();
    for (old, new, want) in [
        ("authorization: ", "x-authorization: ", "MissingAuthenticationTokenException"),
        (";x-amz-target", "", "IncompleteSignatureException"),
        ("host;", "", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256", "AWS", "IncompleteSignatureException"),
        ("\"message\":\"a\"", "\"message\":\"b\"", "InvalidSignatureException"),
    ] {
        assert!(text.contains(old), "{text}");
        assert_eq!(exchange(&server, text.replace(old, new).as_bytes()).unwrap().error(), want, "{old}");
        assert_eq!(server.take_violations().len(), 1);
    }
    assert_eq!(server.stored(), 0);
}

#[test]
fn heads_that_the_service_does_not_read_are_refused() {
    let server = ready();
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-amz-target", "Logs.PutLogEvents"),
        ("host", "example.com"),
        ("x-amzn-logs-format", "json"),
        ("content-encoding", "zstd"),
    ] {
        let mut ask = ask(&server, "PutLogEvents", put(&[(now_ms(), "a")]));
        ask.set(name, value);
        assert_eq!(ask.send(&server).error(), "SerializationException", "{name}");
        assert_eq!(server.take_violations().len(), 1);
    }
}

#[test]
fn a_gzipped_body_is_read_and_has_to_be_whole() {
    let server = ready();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(put(&[(now_ms(), "packed")]).as_bytes()).unwrap();
    let packed = gz.finish().unwrap();
    let send = |body: &[u8]| {
        let mut ask = ask(&server, "PutLogEvents", body);
        ask.set("content-encoding", "gzip");
        ask.send(&server).error()
    };
    assert_eq!(send(&packed), "no error");
    assert!(server.calls("PutLogEvents")[0].gzip);
    for bad in [&packed[..packed.len() - 1], &[&packed[..], b"x"].concat(), b"no gzip"] {
        assert_eq!(send(bad), "SerializationException");
        assert_eq!(server.take_violations().len(), 1);
    }
    assert_eq!(server.messages("g", "s"), ["packed"]);
}

#[test]
fn rules_decide_which_calls_get_which_answer() {
    let server = ready();
    let one = |text: &str| put_error(&server, &[(now_ms(), text)]);
    server.fault(Rule::put(Answer::THROTTLING).after(1).times(2));
    server.fault(Rule::put(Answer::INVALID).containing("poison").always());
    server.fault(Rule::put(Answer::INTERNAL).stream("other").always());
    let got: Vec<String> = ["a", "b", "c", "d", "some poison", "e"].iter().map(|m| one(m)).collect();
    let (t, i) = ("ThrottlingException", "InvalidParameterException");
    assert_eq!(got, ["no error", t, t, "no error", i, "no error"]);
    server.heal();
    assert_eq!(one("poison"), "no error");
    server.fault(Rule::put(Answer::TOO_MANY));
    let got = ask(&server, "PutLogEvents", put(&[(now_ms(), "a")])).send(&server);
    assert!(got.status == 429 && got.head.contains("retry-after: 1"), "{}", got.head);
    server.fault(Rule::put(Answer::Html(200)));
    let got = ask(&server, "PutLogEvents", put(&[(now_ms(), "a")])).send(&server);
    assert!(got.status == 200 && !got.head.contains("requestid") && got.body.contains("<html>"));
    server.fault(Rule::put(Answer::Rejected { too_old: Some(1), expired: None, too_new: Some(2) }));
    let three = put(&[(now_ms(), "x"), (now_ms(), "y"), (now_ms(), "z")]);
    let got = ask(&server, "PutLogEvents", three).send(&server);
    assert!(got.body.contains("tooOldLogEventEndIndex\":1"), "{}", got.body);
    server.fault(Rule::put(Answer::DeleteStream));
    assert_eq!(server.messages("g", "s"), ["a", "d", "e", "poison", "y"]);
    assert_eq!(one("a"), "ResourceNotFoundException");
}

#[test]
fn connections_are_reset_and_left_without_an_answer_as_told() {
    let server = ready();
    let request = |text: &str| ask(&server, "PutLogEvents", put(&[(now_ms(), text)])).signed();
    for (fault, stored) in [(Answer::ResetBeforeBody, 0), (Answer::Reset, 0), (Answer::ResetAfter, 1)] {
        server.fault(Rule::put(fault));
        assert!(exchange(&server, &request("x")).is_err());
        assert_eq!(server.stored(), stored);
    }
    for (fault, stored) in [(Answer::Hang, 1), (Answer::HangAfter, 2)] {
        server.fault(Rule::put(fault));
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.write_all(&request("y")).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(stream.read(&mut [0; 1]).is_err());
        assert_eq!(server.stored(), stored);
    }
    let mut idle = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    idle.set_read_timeout(Some(LIMIT)).unwrap();
    // The connection has been accepted when another one is answered.
    assert_eq!(exchange(&server, &request("w")).unwrap().status, 200);
    server.cut();
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    server.away(true);
    assert!(exchange(&server, &request("z")).is_err());
    server.away(false);
    assert_eq!(exchange(&server, &request("z")).unwrap().status, 200);
    let outcomes: Vec<String> = server.calls("PutLogEvents").into_iter().map(|c| c.outcome).collect();
    assert_eq!(outcomes, ["reset before the body", "reset", "reset after", "hang", "hang after", "ok", "ok"]);
    assert_eq!(server.in_flight(), (1, 1));
}

#[test]
fn it_gives_credentials_and_takes_them_until_they_expire() {
    let server = CloudWatch::start_with(Options { lifetime: Duration::from_secs(2), ..Options::default() });
    server.create("g", &["s"]);
    let get = |path: &str, token: &str| {
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {token}\r\n\r\n");
        exchange(&server, head.as_bytes()).unwrap()
    };
    let path = super::identity::CREDENTIALS;
    assert_eq!(get(path, "wrong").status, 401);
    let given: Value = serde_json::from_str(&get(path, super::TOKEN).body).unwrap();
    let text = |key: &str| given[key].as_str().unwrap().to_owned();
    let send = || {
        let mut ask = ask(&server, "PutLogEvents", put(&[(now_ms(), "a")]));
        ask.key = (text("AccessKeyId"), text("SecretAccessKey"));
        ask.set("x-amz-security-token", &text("Token"));
        ask.send(&server).error()
    };
    assert_eq!(send(), "no error");
    crate::support::eventually("they expire", || (send() == "ExpiredTokenException").then_some(()));
    let task: Value = serde_json::from_str(&get("/v4/container/task", "").body).unwrap();
    assert_eq!(task["Cluster"], "shop");
    let asked = server.identity();
    assert_eq!((asked.container, asked.task), (2, 1));
}

#[test]
fn it_lets_a_known_key_take_on_a_role() {
    let server = ready();
    let form = "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=x\
                &ExternalId=a+b";
    let mut ask = ask(&server, "", form);
    ask.headers.retain(|(n, _)| n != "x-amz-target");
    ask.set("content-type", "application/x-www-form-urlencoded");
    let got = ask.send(&server);
    assert!(got.status == 403 && got.body.contains("<Code>SignatureDoesNotMatch<"), "{}", got.body);
    assert_eq!(server.take_violations().len(), 1, "the scope is another service's");
    ask.scope = ask.scope.replace("logs", "sts");
    let got = ask.send(&server);
    assert!(got.status == 200 && got.body.contains("<AccessKeyId>ASIA"), "{}", got.body);
    assert_eq!(server.identity().roles, [("arn:aws:iam::1:role/r".to_owned(), "a b".to_owned())]);
}
