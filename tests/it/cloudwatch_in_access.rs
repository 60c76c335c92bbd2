//! The CloudWatch Logs input: who gets in and by which way, TLS, tokens, clocks; and answers that come in pages.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use http::Request;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::strict_cloudwatch::{TOKEN, signature};
use crate::support::LIMIT;
use crate::support::certs;
use crate::support::cloudwatch::{NAMES, Sender, environment, line};
use crate::support::http::{Answer, Http, put, request};
use crate::support::router::Router;

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// An input with these keys, out to `out.log`.
fn conf(keys: &str) -> String {
    let keys: String = keys.lines().map(|line| format!("    {}\n", line.trim())).collect();
    format!(
        "[SERVICE]\n    Flush 0.1\n    Grace 10\n[INPUT]\n    Name cloudwatch_logs\n    Listen 127.0.0.1\n    Port {{port}}\n{keys}\
         [OUTPUT]\n    Name file\n    Match awslogs.*\n    Path {{dir}}\n    File out.log\n    Format plain\n"
    )
}

/// A call signed by hand, `late` seconds ago; negative: not yet.
fn signed(operation: &str, body: &Value, late: i64, token: Option<&str>) -> Vec<u8> {
    let body = body.to_string();
    let at = Timestamp::from_second(Timestamp::now().as_second() - late).unwrap();
    let date = at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let target = format!("Logs_20140328.{operation}");
    let mut headers = vec![("host", "localhost"), ("x-amz-date", &date), ("x-amz-target", &target)];
    headers.extend(token.map(|token| ("x-amz-security-token", token)));
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let mut head = Request::post("/");
    for (name, value) in &headers {
        head = head.header(*name, *value);
    }
    let (parts, ()) = head.body(()).unwrap().into_parts();
    let (day, _) = date.split_once('T').unwrap();
    let scope = format!("{day}/eu-west-1/logs/aws4_request");
    let signature = signature(&parts, body.as_bytes(), &names, &scope, SECRET);
    let more: String = headers[1..]
        .iter()
        .filter(|(name, _)| *name != "x-amz-target")
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let authorization = format!(
        "Authorization: AWS4-HMAC-SHA256 Credential={ID}/{scope}, SignedHeaders={}, Signature={signature}\r\n{more}",
        names.join(";")
    );
    request(operation, &authorization, body.as_bytes())
}

fn answer<S: Read + Write>(http: &mut Http<S>, sent: &[u8]) -> Answer {
    http.send(sent);
    http.answer().expect("an answer")
}

#[test]
fn a_clock_may_be_off_by_five_minutes_or_as_much_as_is_configured() {
    let keys = format!("Access_Key_Id {ID}\nSecret_Access_Key {SECRET}\nCreate_On_Put on");
    let (usual, strict) =
        (Router::start(&conf(&keys)), Router::start(&conf(&format!("{keys}\nMax_Clock_Skew 30"))));
    let mut clients = [Http::connect(usual.port()), Http::connect(strict.port())];
    for (late, wants) in [
        (0, ["", ""]),
        (-240, ["", "InvalidSignatureException"]),
        (240, ["", "InvalidSignatureException"]),
        (400, ["InvalidSignatureException"; 2]),
        (-400, ["InvalidSignatureException"; 2]),
    ] {
        for (http, want) in clients.iter_mut().zip(wants) {
            let answer = answer(http, &signed("PutLogEvents", &put("g", "s", &["m"]), late, None));
            assert_eq!(answer.error(), want, "{late} s: {answer:?}");
            let says = if late > 0 { "Signature expired" } else { "Signature not yet current" };
            assert!(want.is_empty() || answer.body["message"].as_str().unwrap().contains(says), "{answer:?}");
        }
    }
    assert_eq!(usual.logs("out.log", 3).len(), 3);
    usual.stop();
    strict.stop();
}

#[test]
fn a_session_token_must_be_the_one_that_is_configured_and_signed() {
    let keys =
        format!("Access_Key_Id {ID}\nSecret_Access_Key {SECRET}\nSession_Token right\nCreate_On_Put on");
    let router = Router::start(&conf(&keys));
    let mut http = Http::connect(router.port());
    let body = put("g", "s", &["m"]);
    for (token, want) in [
        (Some("right"), ""),
        (Some("wrong"), "UnrecognizedClientException"),
        (None, "UnrecognizedClientException"),
    ] {
        assert_eq!(answer(&mut http, &signed("PutLogEvents", &body, 0, token)).error(), want, "{token:?}");
    }
    // One that somebody put in on the way.
    let sent = String::from_utf8(signed("PutLogEvents", &body, 0, None)).unwrap();
    let sent = sent.replacen("\r\n\r\n", "\r\nx-amz-security-token: right\r\n\r\n", 1);
    assert_eq!(answer(&mut http, sent.as_bytes()).error(), "InvalidSignatureException");
    router.stop();
}

/// A client's half of TLS, which trusts the certificates of the tests.
fn tls(port: u16) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(certs::CA.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = rustls::ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    rustls::StreamOwned::new(connection, stream)
}

fn with_certificate() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in
        [("ca.pem", certs::CA), ("server.pem", certs::SERVER), ("server.key", certs::SERVER_KEY)]
    {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

const TLS: &str = "tls on\ntls.crt_file {dir}/server.pem\ntls.key_file {dir}/server.key";

#[test]
fn over_tls_calls_are_answered_and_without_it_nobody_is() {
    let router = Router::start_in(with_certificate(), &conf(&format!("Auth none\nCreate_On_Put on\n{TLS}")));
    let mut http = Http::over(tls(router.port()));
    for text in ["one", "two"] {
        let body = put("g", "s", &[text]).to_string();
        assert_eq!(answer(&mut http, &request("PutLogEvents", "", body.as_bytes())).status, 200);
    }
    let mut bare = TcpStream::connect(("127.0.0.1", router.port())).unwrap();
    bare.set_read_timeout(Some(LIMIT)).unwrap();
    bare.write_all(&request("PutLogEvents", "", put("g", "s", &["bare"]).to_string().as_bytes())).unwrap();
    let mut rest = Vec::new();
    // An alert of TLS, and the end, which may be a reset.
    let _end = bare.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    assert_eq!(router.logs("out.log", 2), ["one", "two"]);
    router.stop();
}

#[test]
fn firelane_writes_to_firelane_over_tls_with_temporary_credentials() {
    let keys = format!("{TLS}\nAccess_Key_Id {ID}\nSecret_Access_Key {SECRET}\nSession_Token {TOKEN}");
    let receiver = Router::start_in(with_certificate(), &conf(&keys));
    let out = format!(
        "[SERVICE]\n    Flush 0.1\n    Grace 10\n[INPUT]\n    Name forward\n    Unix_Path {{dir}}/in.sock\n[OUTPUT]\n    Name cloudwatch_logs\n    Match *\n    \
         region eu-west-1\n    endpoint https://localhost:{}\n    tls.ca_file {{dir}}/ca.pem\n    log_key log\n    {}\n",
        receiver.port(),
        NAMES.replace('\n', "\n    ")
    );
    let key = environment(&[
        ("AWS_ACCESS_KEY_ID", ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("AWS_SESSION_TOKEN", TOKEN.to_owned()),
    ]);
    let sender = Router::start_with(with_certificate(), &out, &key);
    let mut client = Sender::new(&sender);
    (0..20).for_each(|n| client.deliver("app", &[line(&n.to_string())]));
    assert_eq!(sender.stop().code, Some(0));
    assert_eq!(receiver.logs("out.log", 20), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    receiver.stop();
}

#[test]
fn a_unix_socket_takes_calls_in_place_of_the_port() {
    let router = Router::start(&conf("Auth none\nCreate_On_Put on\nUnix_Path {dir}/logs.sock"));
    let stream = UnixStream::connect(router.path("logs.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut http = Http::over(stream);
    assert_eq!(http.call("PutLogEvents", &put("g", "s", &["m"])).status, 200);
    assert_eq!(router.logs("out.log", 1), ["m"]);
    router.stop();
}

#[test]
fn groups_and_streams_come_in_pages_each_once_and_in_order() {
    let router = Router::start(&conf("Auth none"));
    let mut http = Http::connect(router.port());
    let names: Vec<String> = (0..7).map(|n| format!("g{n}")).collect();
    // Not in their order.
    for name in [3, 0, 6, 1, 5, 2, 4].map(|n: usize| &names[n]) {
        http.make(name, "s");
        let stream = json!({"logGroupName": "g3", "logStreamName": format!("of-{name}")});
        assert_eq!(http.call("CreateLogStream", &stream).status, 200);
    }
    let mut all = |operation: &str, list: &str, name: &str, limit: usize| {
        let (mut found, mut pages, mut token) = (Vec::new(), 0, Value::Null);
        loop {
            let mut ask = json!({"limit": limit, "logGroupName": "g3"});
            if operation == "DescribeLogGroups" {
                ask = json!({ "limit": limit });
            }
            if !token.is_null() {
                ask["nextToken"] = token;
            }
            let answer = http.call(operation, &ask);
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.body[list].as_array().unwrap();
            assert!(page.len() <= limit && !page.is_empty(), "{answer:?}");
            found.extend(page.iter().map(|item| item[name].as_str().unwrap().to_owned()));
            pages += 1;
            token = answer.body["nextToken"].clone();
            if token.is_null() {
                return (found, pages);
            }
        }
    };
    for (limit, pages) in [(1, 7), (3, 3), (7, 1), (50, 1)] {
        assert_eq!(all("DescribeLogGroups", "logGroups", "logGroupName", limit), (names.clone(), pages));
    }
    let (streams, _) = all("DescribeLogStreams", "logStreams", "logStreamName", 2);
    assert!(streams.is_sorted_by(|a, b| a < b) && streams.len() == 8, "{streams:?}");
    router.stop();
}

#[test]
fn what_is_no_http_gets_a_bare_400_and_the_end_of_its_connection() {
    let router = Router::start(&conf("Auth none\nCreate_On_Put on"));
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"put these logs\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
    ] {
        let mut http = Http::connect(router.port());
        http.send(nonsense);
        let refused = http.answer().unwrap();
        assert_eq!((refused.status, &refused.body), (400, &Value::Null), "{refused:?}");
        assert!(http.answer().is_none());
    }
    assert_eq!(Http::connect(router.port()).call("PutLogEvents", &put("g", "s", &["m"])).status, 200);
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.get("received")), (Some(0), 1));
}
