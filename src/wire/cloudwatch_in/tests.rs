//! What clients send, what the service refuses, and that any bytes are survived.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::wire::json::Json;

const NOW: i64 = 1_760_000_000_123;

fn frame() -> Frame {
    Frame::new(&[("log_group", "/g"), ("log_stream", "s")], None)
}

/// The entries as `time record` lines, and the batch.
fn read(body: &[u8], times: Times) -> Result<(Vec<String>, Batch), Refused> {
    let outline = Outline::read(body, false)?;
    let mut out = b"before".to_vec();
    let mut batch = entries(body, &outline, &frame(), times, &mut out);
    if batch == Err(Refused::Misled) {
        assert!(outline.is_guessed());
        batch = entries(body, &Outline::read(body, true)?, &frame(), times, &mut out);
    }
    let batch = batch.inspect_err(|_| assert_eq!(out, b"before"))?;
    let (mut lines, mut pos) = (Vec::new(), 6);
    while pos < out.len() {
        let entry = entry::read(&out, pos).unwrap().unwrap();
        let entry::TimeForm::At(time) = entry.time else { panic!("{entry:?}") };
        let mut text = format!("{} ", time.millis()).into_bytes();
        Json { escape_unicode: false }.write_value(&mut text, &out, entry.record.start);
        lines.push(String::from_utf8(text).unwrap());
        pos = entry.end;
    }
    assert_eq!(lines.len(), batch.taken);
    Ok((lines, batch))
}

fn body(events: &Value) -> Vec<u8> {
    json!({"logGroupName": "/g", "logStreamName": "s", "logEvents": events}).to_string().into_bytes()
}

/// Events at these times.
fn at(times: &[i64]) -> Vec<u8> {
    body(&times.iter().map(|t| json!({"timestamp": t, "message": "m"})).collect())
}

fn refusal(body: &[u8]) -> String {
    read(body, Times::ANY).unwrap_err().to_string()
}

#[test]
fn keys_may_come_in_any_order_and_unknown_ones_are_passed_over() {
    let want = format!(r#"{NOW} {{"log":"hi \"you\"\n","log_group":"/g","log_stream":"s"}}"#);
    for body in [
        r#"{"logGroupName":"/g","logStreamName":"s","logEvents":[{"timestamp":T,"message":"hi \"you\"\n"}]}"#,
        r#"{"logEvents":[{"message":"hi \"you\"\n","timestamp":T}],"logGroupName":"/g","logStreamName":"s","sequenceToken":"1"}"#,
        r#" { "entity" : {"a":[1,{"b":"}]"}],"c":null} , "logStreamName":"s", "logEvents" :
           [ { "x":[[]], "message":"wrong" , "message" : "hi \u0022you\"\u000a", "timestamp" : T } ] ,
           "logGroupName":"\/g", "z":-1.5e3 } "#,
    ] {
        let body = body.replace('T', &NOW.to_string());
        let (lines, batch) = read(body.as_bytes(), Times::ANY).unwrap();
        assert_eq!(lines, [want.as_str()], "{body}");
        assert_eq!((batch.taken, batch.events, batch.span), (1, 1, Some((NOW, NOW))));
    }
}

#[test]
fn the_token_is_found_where_it_is_looked_for() {
    let body = br#"{"logGroupName":"g","logStreamName":"s","logEvents":[],"sequenceToken":"49\u0031"}"#;
    assert_eq!(Outline::read(body, false).unwrap().token, None);
    assert_eq!(Outline::read(body, true).unwrap().token.as_deref(), Some("491"));
}

#[test]
fn names_at_the_end_are_guessed_and_a_wrong_guess_is_found_out() {
    let body = |end: &str| format!(r#"{{"logEvents":[{{"message":"m","timestamp":1}}]{end}}}"#).into_bytes();
    let check = |end: &str| {
        let body = body(end);
        let outline = Outline::read(&body, false).unwrap();
        let read = entries(&body, &outline, &frame(), Times::ANY, &mut Vec::new());
        (outline.guessed, outline.group.into_owned(), outline.stream.into_owned(), read.err())
    };
    let names = (true, "g".to_owned(), "s".to_owned(), None);
    assert_eq!(check(r#","logGroupName":"g","logStreamName":"s""#), names);
    assert_eq!(check(r#","logStreamName" : "s", "logGroupName" : "g" , "sequenceToken":"1""#), names);
    let nested = r#","logGroupName":"g","logStreamName":"s","x":{"logGroupName":"h","logStreamName":"t"}"#;
    assert_eq!(check(nested).3, Some(Refused::Misled));
    let said = r#","logGroupName":"g","logStreamName":"s","x":"\"logGroupName\":\"h\"""#;
    assert_eq!(check(said), names);
    // A body that is read all over has no guesses.
    let body = body(nested);
    let outline = Outline::read(&body, true).unwrap();
    assert_eq!((outline.guessed, &*outline.group, &*outline.stream), (false, "g", "s"));
    entries(&body, &outline, &frame(), Times::ANY, &mut Vec::new()).unwrap();
}

#[test]
fn numbers_are_whole_whatever_their_form() {
    for (text, want) in
        [("1760000000123", NOW), ("1760000000123.9", NOW), ("1.760000000123e12", NOW), ("1", 1)]
    {
        let body = format!(
            r#"{{"logGroupName":"g","logStreamName":"s","logEvents":[{{"timestamp":{text},"message":"m"}}]}}"#
        );
        assert_eq!(read(body.as_bytes(), Times::ANY).unwrap().1.span, Some((want, want)), "{text}");
    }
}

#[test]
fn what_is_no_text_becomes_the_replacement_character() {
    let escaped = br#"{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"a\ud800b\ude00\ud83d\ude00"}]}"#;
    let (lines, _) = read(escaped, Times::ANY).unwrap();
    assert!(lines[0].contains("a\u{fffd}b\u{fffd}\u{1f600}"), "{lines:?}");
    let raw = b"{\"logGroupName\":\"g\",\"logStreamName\":\"s\",\"logEvents\":[{\"timestamp\":1,\"message\":\"a\xffb\"},{\"timestamp\":1,\"message\":\"ok\"}]}";
    let (lines, _) = read(raw, Times::ANY).unwrap();
    assert!(lines[0].contains("a\u{fffd}b") && lines[1].contains("ok"), "{lines:?}");
}

#[test]
fn events_outside_the_window_are_named_and_not_taken() {
    let times = Times { oldest: 100, kept: 200, newest: 300 };
    let (lines, batch) = read(&at(&[50, 99, 100, 150, 200, 300, 301, 400]), times).unwrap();
    assert_eq!((lines.len(), batch.taken, batch.events), (2, 2, 8));
    assert_eq!(batch.too_old_end, Some(2));
    assert_eq!(batch.expired_end, Some(4));
    assert_eq!(batch.too_new_start, Some(6));
    assert_eq!(batch.span, Some((200, 300)));
    let (_, batch) = read(&at(&[200]), times).unwrap();
    assert_eq!((batch.too_old_end, batch.expired_end, batch.too_new_start), (None, None, None));
    let (_, batch) = read(&at(&[1, 2]), times).unwrap();
    assert_eq!((batch.taken, batch.too_old_end, batch.span), (0, Some(2), None));
}

#[test]
fn a_time_that_no_event_time_holds_is_whole_seconds() {
    let late = (i64::from(u32::MAX) + 5) * 1000;
    let (lines, _) = read(&at(&[late, late + 999]), Times::ANY).unwrap();
    assert!(lines.iter().all(|l| l.starts_with(&late.to_string())), "{lines:?}");
}

#[test]
fn metadata_stands_beside_the_time() {
    let body = at(&[NOW]);
    let outline = Outline::read(&body, false).unwrap();
    let mut out = Vec::new();
    let frame = Frame::new(&[], Some(b"\x81\xa1k\xa1v"));
    entries(&body, &outline, &frame, Times::ANY, &mut out).unwrap();
    let entry = entry::read(&out, 0).unwrap().unwrap();
    assert_eq!(out.get(entry.metadata.unwrap()), Some(&b"\x81\xa1k\xa1v"[..]));
    assert_eq!(entry.time, entry::TimeForm::At(Time::new(NOW / 1000, 123_000_000)));
    assert_eq!(&out[entry.record], b"\x81\xa3log\xa1m");
}

#[test]
fn what_the_service_refuses_is_refused_in_its_words() {
    for (body, want) in [
        (at(&[2, 1]), "must be in chronological order"),
        (at(&[0, MAX_SPAN + 1]), "cannot span more than 24 hours"),
        (at(&[-1]), "Value '-1' at 'logEvents.1.member.timestamp'"),
        (at(&[]), "Value '[]' at 'logEvents'"),
        (at(&[1; MAX_EVENTS + 1]), "length less than or equal to 10000"),
        (body(&json!([{"timestamp": 1, "message": ""}])), "Value '' at 'logEvents.1.member.message'"),
        (body(&json!([{"timestamp": 1}])), "Value null at 'logEvents.1.member.message'"),
        (body(&json!([{"timestamp": 1, "message": null}])), "Value null at 'logEvents.1.member.message'"),
        (body(&json!([{"message": "m"}])), "Value null at 'logEvents.1.member.timestamp'"),
        (body(&json!([{"timestamp": "1", "message": "m"}])), "cannot be converted to a Long"),
        (body(&json!([{"timestamp": 1, "message": 5}])), "cannot be converted to a String"),
        (body(&json!([[]])), "cannot be converted to a log event"),
        (body(&json!({})), "cannot be converted to a list"),
        (body(&json!(null)), "Value null at 'logEvents'"),
        (json!({"logStreamName": "s", "logEvents": []}).to_string().into(), "Value null at 'logGroupName'"),
        (json!({"logGroupName": 1}).to_string().into(), "cannot be converted to a String"),
        (b"[]".to_vec(), "must be a JSON object"),
        (b"".to_vec(), "not valid JSON"),
        (b"{\"a\":1".to_vec(), "not valid JSON"),
        (b"{\"a\":}".to_vec(), "not valid JSON"),
        (b"{\"a\":[}]}".to_vec(), "not valid JSON"),
        ([&at(&[1])[..], b"x"].concat(), "not valid JSON"),
        (format!("{{\"a\":{}}}", "[".repeat(100_000)).into_bytes(), "not valid JSON"),
    ] {
        let said = refusal(&body);
        assert!(said.contains(want), "{want}: {said}");
    }
}

#[test]
fn a_batch_may_be_as_large_as_the_limit_and_no_larger() {
    let events = |last: usize| {
        let message = |n: usize| json!({"timestamp": 1, "message": "é".repeat(n)});
        body(&json!([message((MAX_BATCH / 2 - EVENT_OVERHEAD) / 2), message((last - EVENT_OVERHEAD) / 2)]))
    };
    assert_eq!(read(&events(MAX_BATCH / 2), Times::ANY).unwrap().1.taken, 2);
    assert!(refusal(&events(MAX_BATCH / 2 + 2)).contains("Upload too large: 1048578 bytes"));
}

proptest! {
    #[test]
    fn what_a_client_sends_comes_out_as_it_was(
        events in proptest::collection::vec((0..1000_i64, ".{1,40}"), 1..20),
        pretty in any::<bool>(),
    ) {
        let mut events = events;
        events.sort_by_key(|(time, _)| *time);
        let list: Value = events.iter().map(|(t, m)| json!({"timestamp": t + 1, "message": m})).collect();
        let call = json!({"logGroupName": "/g", "logStreamName": "s", "logEvents": list});
        let text = if pretty { serde_json::to_string_pretty(&call) } else { serde_json::to_string(&call) };
        let (lines, _) = read(text.unwrap().as_bytes(), Times::ANY).unwrap();
        for (line, (time, message)) in lines.iter().zip(&events) {
            let (at, record) = line.split_once(' ').unwrap();
            prop_assert_eq!(at, (time + 1).to_string());
            let record: Value = serde_json::from_str(record).unwrap();
            prop_assert_eq!(record, json!({"log": message, "log_group": "/g", "log_stream": "s"}));
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = read(&bytes, Times::ANY);
    }

    #[test]
    fn a_call_with_damage_never_panics(at in 0..130_usize, byte in any::<u8>(), cut in any::<bool>()) {
        let mut call = br#"{"logEvents":[{"message":"a\u00e9\n","timestamp":12},{"timestamp":13,"message":"b"}],"logGroupName":"/g","logStreamName":"s"}"#.to_vec();
        let at = at.min(call.len() - 1);
        call[at] = byte;
        if cut {
            call.truncate(at);
        }
        let _ = read(&call, Times::ANY);
    }
}
