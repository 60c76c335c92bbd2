//! What messages are made of records.

use super::*;
use rdkafka::message::Headers;

const NOW: i64 = 1_760_000_000;

fn json() -> Json {
    Json { escape_unicode: false }
}

fn format(name: &str) -> Format {
    let date = || JsonDate::named("@timestamp", "double", json()).unwrap();
    match name {
        "json" => Format::Json(date()),
        "iso" => Format::Json(JsonDate::named("t:s", "iso8601_ns", json()).unwrap()),
        "msgpack" => Format::Msgpack { date: date(), is_double: true },
        "msgpack-iso" => {
            Format::Msgpack { date: JsonDate::named("t:s", "iso8601", json()).unwrap(), is_double: false }
        }
        "raw" => Format::Raw(b"log"[..].into()),
        _ => Format::Gelf(Gelf {
            timestamp: b"timestamp"[..].into(),
            host: b"host"[..].into(),
            short: b"log"[..].into(),
            full: b"full_message"[..].into(),
            level: b"level"[..].into(),
            json: json(),
        }),
    }
}

fn encoder(name: &str, dynamic: bool) -> Encoder {
    let keys = Keys {
        fixed: Some(b"fixed"[..].into()),
        field: Some(b"id"[..].into()),
        topic: Some(b"topic"[..].into()),
    };
    let topics = Topics::new(vec!["logs".into(), "audit".into()], dynamic);
    let headers = vec![Header { name: "trace".into(), field: Accessor::field("$m['trace']").unwrap() }];
    Encoder::new(format(name), json(), topics, keys, headers, Some("fluent-tag".into()))
}

/// `[time, record]`; the record is given as JSON.
fn entry_of(sec: i64, record: &str) -> Vec<u8> {
    let mut out = Vec::new();
    entry::write_head(&mut out, Time::new(sec, 500_000_000), None);
    crate::wire::json_in::value_into(record.as_bytes(), &mut out).unwrap();
    out
}

/// Topic, key, payload and headers as text.
fn made(encoder: &mut Encoder, sec: i64, record: &str) -> (String, String, Vec<u8>, String, Option<i64>) {
    let bytes = entry_of(sec, record);
    let (message, end) = encoder.message(&bytes, 0, b"app.web", NOW).unwrap();
    assert_eq!(end, bytes.len());
    let m = message.unwrap_or_else(|e| panic!("{e:?}"));
    let headers = m.headers.map_or(String::new(), |h| {
        h.as_borrowed()
            .iter()
            .map(|h| format!("{}={} ", h.key, String::from_utf8_lossy(h.value.unwrap())))
            .collect()
    });
    let key = String::from_utf8_lossy(m.key.unwrap_or_default()).into_owned();
    (m.topic.to_owned(), key, m.payload.to_vec(), headers, m.time)
}

#[test]
fn json_has_its_time_first_and_the_tag_rides_in_a_header() {
    let mut e = encoder("json", false);
    let (topic, key, payload, headers, time) =
        made(&mut e, NOW, r#"{"log":"hi","id":"k1","m":{"trace":"t9"}}"#);
    assert_eq!((topic.as_str(), key.as_str(), time), ("logs", "k1", Some(NOW * 1000 + 500)));
    let text = String::from_utf8(payload).unwrap();
    assert_eq!(text, r#"{"@timestamp":1760000000.5,"log":"hi","id":"k1","m":{"trace":"t9"}}"#);
    assert_eq!(headers, "fluent-tag=app.web trace=t9 ");
}

#[test]
fn a_time_that_brokers_would_not_keep_rides_in_a_header() {
    let mut e = encoder("json", false);
    let (_, key, _, headers, time) = made(&mut e, 5, r#"{"a":1,"m":{"trace":[1]}}"#);
    assert_eq!((key.as_str(), time), ("fixed", None));
    assert_eq!(headers, "fluent-tag=app.web fluent-time=5.500000000 trace=[1] ");
}

#[test]
fn keys_are_strings_and_the_last_of_a_name_counts() {
    let mut e = encoder("json", false);
    assert_eq!(made(&mut e, NOW, r#"{"id":7}"#).1, "fixed");
    assert_eq!(made(&mut e, NOW, r#"{"id":"a","x":1,"id":"b"}"#).1, "b");
}

#[test]
fn a_record_names_its_topic_among_those_that_are_configured_or_any() {
    let mut e = encoder("json", false);
    for (record, topic) in [
        (r#"{"topic":"audit"}"#, "audit"),
        (r#"{"topic":"new"}"#, "logs"),
        (r#"{"topic":1}"#, "logs"),
        ("{}", "logs"),
    ] {
        assert_eq!(made(&mut e, NOW, record).0, topic, "{record}");
    }
    let mut e = encoder("json", true);
    for (record, topic) in [
        (r#"{"topic":"new"}"#, "new"),
        (r#"{"topic":"a,b"}"#, "logs"),
        (r#"{"topic":"a b"}"#, "logs"),
        (r#"{"topic":""}"#, "logs"),
        (r#"{"topic":".."}"#, "logs"),
    ] {
        assert_eq!(made(&mut e, NOW, record).0, topic, "{record}");
    }
    assert!(!Topics::is_name(&[b'x'; 250]) && Topics::is_name(&[b'x'; 249]));
    for n in 0..DYNAMIC + 5 {
        made(&mut e, NOW, &format!(r#"{{"topic":"t{n}"}}"#));
    }
    assert_eq!(made(&mut e, NOW, r#"{"topic":"too-many"}"#).0, "logs");
    assert_eq!(made(&mut e, NOW, r#"{"topic":"t5"}"#).0, "t5");
}

#[test]
fn msgpack_is_the_record_with_its_time_first() {
    let mut e = encoder("msgpack", false);
    let payload = made(&mut e, NOW, r#"{"a":"b"}"#).2;
    let mut text = Vec::new();
    assert_eq!(json().write_value(&mut text, &payload, 0), payload.len());
    assert_eq!(String::from_utf8(text).unwrap(), r#"{"@timestamp":1760000000.5,"a":"b"}"#);
    let mut e = encoder("msgpack-iso", false);
    let payload = made(&mut e, NOW, r#"{"a":"b"}"#).2;
    let mut text = Vec::new();
    json().write_value(&mut text, &payload, 0);
    assert_eq!(String::from_utf8(text).unwrap(), r#"{"t:s":"2025-10-09T08:53:20.500000Z","a":"b"}"#);
}

#[test]
fn other_formats_of_the_time() {
    let mut e = encoder("iso", false);
    let text = String::from_utf8(made(&mut e, NOW, "{}").2).unwrap();
    assert_eq!(text, r#"{"t:s":"2025-10-09T08:53:20.500000000Z"}"#);
}

#[test]
fn raw_is_one_field_and_a_record_without_it_is_none() {
    let mut e = encoder("raw", false);
    assert_eq!(made(&mut e, NOW, r#"{"log":"the line\n","id":"k"}"#).2, b"the line\n");
    for record in [r#"{"log":1}"#, r#"{"message":"x"}"#] {
        let bytes = entry_of(NOW, record);
        let (message, end) = e.message(&bytes, 0, b"t", NOW).unwrap();
        assert!(message.is_err());
        assert_eq!(end, bytes.len());
    }
}

#[test]
fn gelf_is_graylogs() {
    let mut e = encoder("gelf", false);
    let record = r#"{"log":"hi","host":"h","level":3,"id":"k","m":{"a":1,"b":{"c":"x"}},"t":true,"n":null,"l":[1,"q"]}"#;
    let text = String::from_utf8(made(&mut e, NOW, record).2).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"version":"1.1","short_message":"hi","host":"h","level":3,"__id":"k","_m_a":1,"_m_b_c":"x","#,
            r#""_t":"true","_l":"[1,\"q\"]","timestamp":1760000000.500}"#
        )
    );
    for (level, written) in [(r#""Warning""#, "4"), (r#""7""#, "7"), (r#""fatal""#, r#""fatal""#), ("9", "9")]
    {
        let record = format!(
            r#"{{"log":"a","log":"b","level":{level},"host":null,"a b/ü":1,"full_message":{{"x":true}}}}"#
        );
        let text = String::from_utf8(made(&mut e, NOW, &record).2).unwrap();
        let rest = r#""_a_b___":1,"_full_message_x":"true","timestamp":1760000000.500}"#;
        assert_eq!(text, format!(r#"{{"version":"1.1","short_message":"a","level":{written},{rest}"#));
    }
    for unfit in [r#"{"log":"x","level":1.5}"#, r#"{"log":null}"#] {
        assert!(e.message(&entry_of(NOW, unfit), 0, b"t", NOW).unwrap().0.is_err(), "{unfit}");
    }
    let bytes = entry_of(NOW, r#"{"host":"h"}"#);
    let (message, end) = e.message(&bytes, 0, b"t", NOW).unwrap();
    assert!(message.is_err());
    assert_eq!(end, bytes.len());
}

proptest::proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
        for name in ["json", "msgpack", "raw", "gelf"] {
            drop(encoder(name, true).message(&bytes, 0, b"t", NOW));
        }
    }
}
