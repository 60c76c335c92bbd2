//! The CloudWatch Logs input over plain sockets: what goes wrong, and what an answer promises. Real clients have their own
//! tests beside this directory.

use std::io::Write;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::forward;
use crate::support::http::{Http, put, request};
use crate::support::peer::{Peer, Reply};
use crate::support::router::{Router, free_port};

/// Everybody on this machine may call; a file `out.log`.
const OPEN: &str = "
[SERVICE]
    Flush 0.1
    Grace 10
    {service}
[INPUT]
    Name cloudwatch_logs
    Listen 127.0.0.1
    Port {port}
    Auth none
    {keys}
[OUTPUT]
    Name file
    Match awslogs.*
    Path {dir}
    File out.log
    Format plain
";

fn open(keys: &str) -> String {
    OPEN.replace("{service}", "").replace("{keys}", keys)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    w.write_all(bytes).unwrap();
    w.finish().unwrap()
}

#[test]
fn whatever_is_malformed_gets_awss_error_in_awss_shape() {
    let router = Router::start(&open("Max_Body 2000"));
    let mut http = Http::connect(router.port());
    http.make("g", "s");
    let ok = put("g", "s", &["m"]).to_string();
    let put_with = |headers: &str, body: &[u8]| request("PutLogEvents", headers, body);
    let asked = |operation: &str, body: serde_json::Value, want: &'static str| {
        (request(operation, "", body.to_string().as_bytes()), 400, want)
    };
    let filter = |body, want| asked("FilterLogEvents", body, want);
    let sixty: serde_json::Map<_, _> = (0..60).map(|n| (n.to_string(), json!("v"))).collect();
    let old = json!({"logGroupName": "g", "logStreamName": "s", "logEvents": [{"timestamp": 2, "message": "m"}, {"timestamp": 1, "message": "m"}]});
    for (sent, status, want) in [
        (request("Nonsense", "", b"{}"), 400, "UnknownOperationException"),
        (request("TagResource", "", b"{}"), 400, "UnknownOperationException"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 404, "UnknownOperationException"),
        (
            b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
            404,
            "UnknownOperationException",
        ),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
            400,
            "UnknownOperationException",
        ),
        (put_with("", b""), 400, "SerializationException"),
        (put_with("", b"{\"logGroupName\":"), 400, "SerializationException"),
        (put_with("", b"\xff\xfe"), 400, "SerializationException"),
        (put_with("", b"{\"logGroupName\":1}"), 400, "SerializationException"),
        (put_with("", b"{}"), 400, "InvalidParameterException"),
        (put_with("", put("g", "s", &[""]).to_string().as_bytes()), 400, "InvalidParameterException"),
        (put_with("", put("g", "s", &[]).to_string().as_bytes()), 400, "InvalidParameterException"),
        (put_with("", put("a b", "s", &["m"]).to_string().as_bytes()), 400, "InvalidParameterException"),
        (put_with("", put("g", "a:b", &["m"]).to_string().as_bytes()), 400, "InvalidParameterException"),
        (put_with("", old.to_string().as_bytes()), 400, "InvalidParameterException"),
        (put_with("", put("no", "s", &["m"]).to_string().as_bytes()), 400, "ResourceNotFoundException"),
        (put_with("", put("g", "no", &["m"]).to_string().as_bytes()), 400, "ResourceNotFoundException"),
        (put_with("Content-Encoding: gzip\r\n", ok.as_bytes()), 400, "SerializationException"),
        (put_with("Content-Encoding: br\r\n", ok.as_bytes()), 400, "SerializationException"),
        (
            put_with("Content-Encoding: gzip\r\n", &gzip(&[b' '; 100_000])),
            413,
            "RequestEntityTooLargeException",
        ),
        (put_with("", &[b' '; 2001]), 413, "RequestEntityTooLargeException"),
        (request("CreateLogGroup", "", b"[]"), 400, "SerializationException"),
        (request("CreateLogGroup", "", b"{}"), 400, "InvalidParameterException"),
        (request("CreateLogGroup", "", b"{\"logGroupName\":\"g\"}"), 400, "ResourceAlreadyExistsException"),
        (request("DescribeLogGroups", "", b"{\"limit\":51}"), 400, "InvalidParameterException"),
        (request("GetLogEvents", "", b"{\"logGroupName\":\"g\"}"), 400, "InvalidParameterException"),
        (
            request("FilterLogEvents", "", b"{\"logGroupName\":\"g\",\"filterPattern\":\"{ $.a = 1 }\"}"),
            400,
            "InvalidParameterException",
        ),
        (
            request("FilterLogEvents", "", b"{\"logGroupName\":\"g\",\"nextToken\":\"x\"}"),
            400,
            "InvalidParameterException",
        ),
        filter(json!({"logGroupName": "g", "logStreamNames": []}), "InvalidParameterException"),
        filter(json!({"logGroupName": "g", "logStreamNames": vec!["s"; 101]}), "InvalidParameterException"),
        filter(json!({"logGroupName": "g", "logStreamNames": ["no"]}), "ResourceNotFoundException"),
        filter(json!({"logGroupName": "g", "startTime": -1}), "InvalidParameterException"),
        filter(json!({"logGroupName": "g", "logGroupIdentifier": "g"}), "InvalidParameterException"),
        asked("DescribeLogGroups", json!({"nextToken": "!!!!"}), "InvalidParameterException"),
        asked("DescribeLogGroups", json!({"limit": 1.5}), "SerializationException"),
        asked("DescribeLogGroups", json!({"logGroupClass": "CHEAP"}), "InvalidParameterException"),
        asked(
            "DescribeLogGroups",
            json!({"logGroupNamePrefix": "g", "logGroupNamePattern": "g"}),
            "InvalidParameterException",
        ),
        asked("DescribeLogGroups", json!({"logGroupNamePrefix": "a b"}), "InvalidParameterException"),
        asked(
            "DescribeLogStreams",
            json!({"logGroupName": "g", "logStreamNamePrefix": "a:b"}),
            "InvalidParameterException",
        ),
        asked(
            "CreateLogGroup",
            json!({"logGroupName": "n", "logGroupClass": "CHEAP"}),
            "InvalidParameterException",
        ),
        asked("CreateLogGroup", json!({"logGroupName": "n", "tags": "x"}), "SerializationException"),
        asked("CreateLogGroup", json!({"logGroupName": "n", "tags": sixty}), "InvalidParameterException"),
        asked("DeleteLogGroup", json!({"logGroupName": "a b"}), "InvalidParameterException"),
        asked(
            "DeleteLogStream",
            json!({"logGroupName": "g", "logStreamName": "a:b"}),
            "InvalidParameterException",
        ),
        asked(
            "PutRetentionPolicy",
            json!({"logGroupName": "a b", "retentionInDays": 7}),
            "InvalidParameterException",
        ),
        asked(
            "PutRetentionPolicy",
            json!({"logGroupName": "g", "retentionInDays": 7.9}),
            "SerializationException",
        ),
        asked(
            "GetLogEvents",
            json!({"logGroupName": "g", "logStreamName": "s", "unmask": "x"}),
            "SerializationException",
        ),
    ] {
        let shown = String::from_utf8_lossy(&sent).into_owned();
        let mut http = Http::connect(router.port());
        http.send(&sent);
        let answer = http.answer().unwrap_or_else(|| panic!("no answer to {shown}"));
        assert_eq!((answer.status, answer.error()), (status, want), "{shown}: {answer:?}");
        assert!(answer.body["message"].is_string(), "{answer:?}");
        assert!(answer.head.contains("x-amzn-requestid: "), "{answer:?}");
        assert!(answer.head.contains(&format!("x-amzn-errortype: {want}")), "{answer:?}");
    }
    // This one is still good.
    assert_eq!(http.call("PutLogEvents", &put("g", "s", &["m"])).status, 200);
    let ended = router.stop();
    assert_eq!((ended.code, ended.ledger.get("received")), (Some(0), 1));
}

#[test]
fn without_a_signature_nobody_writes() {
    let conf = open("").replace("Auth none", "Access_Key_Id a\n    Secret_Access_Key b");
    let router = Router::start(&conf);
    let mut http = Http::connect(router.port());
    let refused = http.call("CreateLogGroup", &json!({"logGroupName": "g"}));
    assert_eq!(refused.error(), "MissingAuthenticationTokenException");
    http.send(&request("CreateLogGroup", "Authorization: Basic x\r\n", b"{}"));
    assert_eq!(http.answer().unwrap().error(), "IncompleteSignatureException");
    router.stop();
}

#[test]
fn bodies_come_whole_packed_or_in_pieces() {
    let router = Router::start(&open("Create_On_Put on"));
    let mut http = Http::connect(router.port());
    let body = |text: &str| put("/g", "s", &[text]).to_string().into_bytes();
    assert_eq!(http.call("PutLogEvents", &put("/g", "s", &["plain"])).status, 200);
    http.send(&request("PutLogEvents", "Content-Encoding: gzip\r\n", &gzip(&body("packed"))));
    assert_eq!(http.answer().unwrap().status, 200);
    let whole = body("members");
    let (front, back) = whole.split_at(40);
    let members = [gzip(front), gzip(back)].concat();
    http.send(&request("PutLogEvents", "Content-Encoding: gzip\r\n", &members));
    assert_eq!(http.answer().unwrap().status, 200);
    // Told to go on, and a byte at a time.
    let sent = request("PutLogEvents", "Expect: 100-continue\r\n", &body("expected"));
    let head = sent.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    http.send(&sent[..head]);
    assert_eq!(http.answer().unwrap().status, 100);
    sent[head..].chunks(1).for_each(|byte| http.send(byte));
    assert_eq!(http.answer().unwrap().status, 200);
    let mut chunked = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: Logs_20140328.PutLogEvents\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body("chunked").chunks(7) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    http.send(&chunked);
    assert_eq!(http.answer().unwrap().status, 200);
    let logs = router.logs("out.log", 5);
    assert_eq!(logs, ["plain", "packed", "members", "expected", "chunked"]);
    router.stop();
}

/// A forward output, so that a test decides when something is delivered.
fn to_peer(peer: u16, keys: &str) -> String {
    let (input, _) = OPEN.split_once("[OUTPUT]").unwrap();
    let output = format!(
        "[OUTPUT]\n    Name forward\n    Match *\n    Host 127.0.0.1\n    Port {peer}\n    Require_ack_response on\n"
    );
    input.replace("{service}", "").replace("{keys}", keys) + &output
}

#[test]
fn an_answer_waits_for_the_ack_and_a_repeat_joins_the_batch_that_is_inside() {
    let at = free_port();
    let router = Router::start(&to_peer(at, "Create_On_Put on\n    Hold_Max 1"));
    let mut http = Http::connect(router.port());
    let batch = put("g", "s", &["one", "two"]);
    for _ in 0..2 {
        let answer = http.call("PutLogEvents", &batch);
        assert_eq!((answer.status, answer.error()), (503, "ServiceUnavailableException"), "{answer:?}");
    }
    // Another batch of the stream waits behind it and is not taken.
    assert_eq!(http.call("PutLogEvents", &put("g", "s", &["three"])).status, 503);
    let peer = Peer::start(at, |_, _| Reply::Ack);
    assert_eq!(peer.logs(2), ["one", "two"]);
    let token = eventually("the repeat is answered", || {
        let answer = http.call("PutLogEvents", &batch);
        (answer.status == 200).then(|| answer.body["nextSequenceToken"].as_str().unwrap().len())
    });
    assert_eq!(token, 56);
    assert_eq!(http.call("PutLogEvents", &put("g", "s", &["three"])).status, 200);
    let ended = router.stop();
    assert_eq!(ended.ledger.get("received"), 3);
    assert_eq!(peer.logs(3), ["one", "two", "three"]);
}

#[test]
fn what_was_answered_survives_a_kill_and_so_do_names() {
    let conf = OPEN
        .replace("{service}", "storage.path {dir}/storage")
        .replace("{keys}", "storage.type filesystem")
        // Nothing gets out before the kill.
        .replace("Path {dir}", "Path {dir}/not-yet");
    let router = Router::start(&conf);
    let mut http = Http::connect(router.port());
    http.make("/g", "s");
    let answer = http.call("PutLogEvents", &put("/g", "s", &["kept"]));
    assert_eq!(answer.status, 200, "{answer:?}");
    let dir = router.kill();
    let router = Router::start_in(dir, &conf.replace("/not-yet", ""));
    let mut http = Http::connect(router.port());
    let again = http.call("CreateLogStream", &json!({"logGroupName": "/g", "logStreamName": "s"}));
    assert_eq!(again.error(), "ResourceAlreadyExistsException");
    assert_eq!(http.call("PutLogEvents", &put("/g", "s", &["after"])).status, 200);
    let ended = router.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.messages);
}

#[test]
fn docker_goes_on_after_a_restart_without_storage_because_it_brings_its_token() {
    let router = Router::start(&open(""));
    let mut http = Http::connect(router.port());
    http.make("g", "s");
    let token = http.call("PutLogEvents", &put("g", "s", &["one"])).body["nextSequenceToken"].clone();
    drop(router);
    let router = Router::start(&open(""));
    let mut http = Http::connect(router.port());
    assert_eq!(http.call("PutLogEvents", &put("g", "s", &["two"])).error(), "ResourceNotFoundException");
    let mut batch = put("g", "s", &["two"]);
    batch["sequenceToken"] = token;
    assert_eq!(http.call("PutLogEvents", &batch).status, 200);
    router.stop();
}

#[test]
fn events_that_are_not_taken_are_named_and_counted() {
    let router = Router::start(&open("Create_On_Put on"));
    let mut http = Http::connect(router.port());
    let mut batch = put("g", "s", &["old", "now", "ahead"]);
    for (event, days) in [(0, -15), (2, 1)] {
        let time = &mut batch["logEvents"][event]["timestamp"];
        *time = json!(time.as_i64().unwrap() + days * 86_400_000);
    }
    let answer = http.call("PutLogEvents", &batch);
    let info = json!({"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 2});
    assert_eq!((answer.status, &answer.body["rejectedLogEventsInfo"]), (200, &info));
    let ended = router.stop();
    assert_eq!((ended.ledger.get("received"), ended.ledger.get("refused")), (3, 2));
    assert_eq!(ended.ledger.output("file.0", "delivered"), 1);
}

#[test]
fn who_sends_too_slowly_is_turned_away_and_disturbs_nobody() {
    let router = Router::start(&open("Create_On_Put on\n    Body_Timeout 1\n    Header_Timeout 1"));
    let mut slow = Http::connect(router.port());
    slow.send(&request("PutLogEvents", "", &[b' '; 100])[..200]);
    let mut silent = Http::connect(router.port());
    silent.send(b"POST / HTTP/1.1\r\nHost: ");
    let mut good = Http::connect(router.port());
    assert_eq!(good.call("PutLogEvents", &put("g", "s", &["m"])).status, 200);
    let answer = slow.answer().unwrap();
    assert_eq!((answer.status, answer.error()), (408, "RequestTimeoutException"));
    assert!(silent.answer().is_none_or(|a| a.status == 408));
    let ended = router.stop();
    assert_eq!(ended.code, Some(0));
}

#[test]
fn more_connections_than_allowed_wait_for_their_turn() {
    let router = Router::start(&open("Max_Connections 1"));
    let mut first = Http::connect(router.port());
    first.make("g", "s");
    let mut second = Http::connect(router.port());
    second.send(&request("PutLogEvents", "", put("g", "s", &["second"]).to_string().as_bytes()));
    assert_eq!(first.call("PutLogEvents", &put("g", "s", &["first"])).status, 200);
    drop(first);
    assert_eq!(second.answer().unwrap().status, 200);
    assert_eq!(router.logs("out.log", 2), ["first", "second"]);
    router.stop();
}

#[test]
fn a_call_that_has_begun_is_answered_at_shutdown() {
    let router = Router::start(&open("Create_On_Put on"));
    let mut http = Http::connect(router.port());
    let sent = request("PutLogEvents", "", put("g", "s", &["last"]).to_string().as_bytes());
    let (begun, rest) = sent.split_at(sent.len() - 10);
    http.send(begun);
    // Its head has been read when another call has been answered.
    Http::connect(router.port()).make("other", "s");
    router.signal(Signal::TERM);
    router.says("stopping");
    http.send(rest);
    assert_eq!(http.answer().unwrap().status, 200);
    assert!(http.answer().is_none());
    let ended = router.ended();
    assert_eq!((ended.code, ended.ledger.output("file.0", "delivered")), (Some(0), 1));
}

#[test]
fn at_its_memory_limit_it_answers_late_and_takes_nothing_it_cannot_hold() {
    let at = free_port();
    let conf = to_peer(at, "Create_On_Put on\n    Hold_Max 1\n    Mem_Buf_Limit 100K");
    let router = Router::start(&conf);
    let large = "x".repeat(60_000);
    let mut taken = 0;
    // A stream each: they do not wait for one another.
    for i in 0..4 {
        let mut http = Http::connect(router.port());
        let answer = http.call("PutLogEvents", &put("g", &format!("s{i}"), &[&large]));
        assert_eq!(answer.status, 503, "{answer:?}");
        taken += i32::from(answer.body["message"].as_str().unwrap().contains("not delivered yet"));
    }
    assert_eq!(taken, 2, "two fit, the others were refused before they were taken");
    let peer = Peer::start(at, |_, _| Reply::Ack);
    peer.logs(2);
    let ended = router.stop();
    assert_eq!(ended.ledger.get("received"), 2);
}

#[test]
fn forward_and_cloudwatch_live_side_by_side() {
    let conf = open("Create_On_Put on")
        + "\n[INPUT]\n    Name forward\n    Unix_Path {dir}/in.sock\n    Tag_Prefix awslogs.\n";
    let router = Router::start(&conf);
    let mut http = Http::connect(router.port());
    assert_eq!(http.call("PutLogEvents", &put("g", "s", &["one"])).status, 200);
    router.unix().write_all(&forward::message("x", "two")).unwrap();
    assert_eq!(router.logs("out.log", 2), ["one", "two"]);
    let seen = http.call("FilterLogEvents", &json!({"logGroupName": "g"}));
    let texts: Vec<&Value> = seen.body["events"].as_array().unwrap().iter().map(|e| &e["message"]).collect();
    assert_eq!(texts, ["one"]);
    router.stop();
}
