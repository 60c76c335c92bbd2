//! Against serde_json and a model of what JSON can hold.

use proptest::prelude::*;
use serde_json::Value as Model;

use super::{First, Json, take_replaced_keys};
use crate::wire::msgpack::{self as mp, Value};

fn json(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    assert_eq!(Json { escape_unicode: true }.write_value(&mut out, bytes, 0), bytes.len());
    String::from_utf8(out).unwrap()
}

fn raw(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    Json { escape_unicode: false }.write_value(&mut out, bytes, 0);
    String::from_utf8(out).unwrap()
}

fn text(s: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    mp::write_str(&mut out, s);
    out
}

#[test]
fn control_characters_quotes_and_unicode_are_escaped() {
    assert_eq!(json(&text(b"a\"b\\c/\n\t\r\x08\x0c\0\x1b\x7f")), r#""a\"b\\c/\n\t\r\b\f\u0000\u001b\u007f""#);
    assert_eq!(json(&text("é😀\u{2028}".as_bytes())), r#""\u00e9\ud83d\ude00\u2028""#);
    assert_eq!(raw(&text("é😀\n".as_bytes())), "\"é😀\\n\"");
}

#[test]
fn what_is_no_utf8_becomes_one_replacement_for_each_maximal_subpart() {
    let bytes = b"a\xff\xc3(\xe2\x82\xf0\x9f\x98z\xed\xa0\x80q\xc0\x80\xf4\x90\x80\x80!\xe2";
    assert_eq!(raw(&text(bytes)), format!("\"{}\"", String::from_utf8_lossy(bytes)));
}

#[test]
fn keys_that_are_no_utf8_are_counted_wherever_they_stand_and_values_are_not() {
    assert_eq!(take_replaced_keys(), 0);
    json(&text(b"\xff"));
    // {"a": BAD, BAD: [{BAD: 1, "b": {"c": BAD}}], "\u{fffd}": 2}
    let map = b"\x83\xa1a\xa1\xff\xa1\xff\x91\x82\xa2x\xc3\x01\xa1b\x81\xa1c\xa1\xff\xa3\xef\xbf\xbd\x02";
    json(map);
    assert_eq!(take_replaced_keys(), 2);
    let mut inside = Vec::new();
    Json { escape_unicode: true }.write_inside(&mut inside, map, 0);
    assert_eq!((take_replaced_keys(), take_replaced_keys()), (2, 0));
}

#[test]
fn numbers_keep_their_type_and_their_last_digit() {
    let mut b = Vec::new();
    mp::write_array(&mut b, 9);
    for v in [2.0, 1e-7, 1e21, 0.1, -0.0, f64::NAN, f64::NEG_INFINITY] {
        mp::write_float(&mut b, v);
    }
    mp::write_uint(&mut b, u64::MAX);
    mp::write_int(&mut b, i64::MIN);
    assert_eq!(
        json(&b),
        "[2.0,1e-07,1e+21,0.1,-0.0,null,null,18446744073709551615,-9223372036854775808]"
            .replace("1e-07", "1e-7")
    );
}

#[test]
fn extensions_are_text_that_parses() {
    assert_eq!(json(&[0xc7, 3, 5, b'a', b'b', 0xff]), r#""\\x61\\x62\\xff""#);
    assert_eq!(json(&[0xc4, 2, b'h', b'i']), r#""hi""#);
}

#[test]
fn keys_that_are_no_strings_become_strings() {
    let b = [
        0x86, 0x01, 0x02, 0xc0, 0xc0, 0xc3, 0xc2, 0x91, 0x05, 0x06, 0x81, 0xa1, b'"', 0x02, 0x03, 0x91, 0xc0,
        0x00,
    ];
    assert_eq!(json(&b), r#"{"1":2,"null":null,"true":false,"[5]":6,"{\":2}":3,"[null]":0}"#);
}

#[test]
fn a_repeated_key_is_written_once_at_its_last_place() {
    let b = [
        0x85, 0xa1, b'a', 1, 0xa1, b'b', 2, 0xa1, b'a', 3, 0xa1, b'c', 0x82, 0xa1, b'x', 1, 0xd9, 1, b'x', 2,
        0xa1, b'b', 9,
    ];
    assert_eq!(json(&b), r#"{"a":3,"c":{"x":2},"b":9}"#);
    assert_eq!(json(&[0x82, 0x01, 0x05, 0xa1, b'1', 0x06]), r#"{"1":6}"#);
}

#[test]
fn a_large_map_is_searched_for_repeated_keys_too() {
    let mut b = Vec::new();
    mp::write_map(&mut b, 3000);
    for i in 0..3000 {
        mp::write_str(&mut b, format!("k{}", i % 2999).as_bytes());
        mp::write_int(&mut b, i);
    }
    let v: Model = serde_json::from_str(&json(&b)).unwrap();
    assert_eq!((v.as_object().unwrap().len(), &v["k0"]), (2999, &Model::from(2999)));
    assert_eq!(json(&b).matches("\"k0\"").count(), 1);
}

#[test]
fn repeated_keys_on_every_level_do_not_double_the_work_level_by_level() {
    let mut b = vec![0xc0];
    let mut want = "null".to_owned();
    for _ in 0..32 {
        b = [&[0x83, 0xa1, b'x'][..], &b, &[0xa1, b'a', 1, 0xa1, b'a', 2]].concat();
        want = format!("{{\"x\":{want},\"a\":2}}");
    }
    assert_eq!(json(&b), want);
}

#[test]
fn the_first_pair_gives_way_to_the_records_own() {
    let write = |record: &[u8]| {
        let mut out = Vec::new();
        let first = First { key: b"date", json: b"\"date\":1.5" };
        Json { escape_unicode: true }.write_map_with(&mut out, first, record, 0);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(write(&[0x80]), r#"{"date":1.5}"#);
    assert_eq!(write(&[0x81, 0xa1, b'k', 6]), r#"{"date":1.5,"k":6}"#);
    assert_eq!(write(&[0x82, 0xa1, b'k', 6, 0xa4, b'd', b'a', b't', b'e', 5]), r#"{"k":6,"date":5}"#);
    assert_eq!(
        write(&[0x81, 0xa1, b'k', 0x81, 0xa4, b'd', b'a', b't', b'e', 5]),
        r#"{"date":1.5,"k":{"date":5}}"#
    );
}

#[test]
fn cut_off_and_bottomless_values_still_end_as_json() {
    for bytes in [
        &[0xdf, 0xff, 0xff, 0xff, 0xff][..],
        &[0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0],
        &[0xa5, b'a'],
        &[0xdb, 0xff, 0xff, 0xff, 0xff, b'a'],
        &[0x82, 0xa1, b'k'],
        &[0x91; 100_000],
        &[0xc1],
        &[],
    ] {
        let mut out = Vec::new();
        let end = Json { escape_unicode: true }.write_value(&mut out, bytes, 0);
        assert!(end <= bytes.len());
        serde_json::from_slice::<Model>(&out).unwrap();
    }
}

/// What the JSON of a value should hold.
fn model(buf: &[u8], pos: usize) -> (Model, usize) {
    let (value, end) = mp::read(buf, pos).unwrap();
    let m = match value {
        Value::Nil => Model::Null,
        Value::Bool(b) => b.into(),
        Value::Int(v) => v.into(),
        Value::UInt(v) => v.into(),
        Value::Float(v) => v.into(),
        Value::Str(s) | Value::Bin(s) => String::from_utf8_lossy(s).into_owned().into(),
        Value::Ext(_, p) => p.iter().map(|b| format!("\\x{b:02x}")).collect::<String>().into(),
        Value::Array { count, mut at } => {
            let mut list = Vec::new();
            for _ in 0..count {
                let (v, end) = model(buf, at);
                list.push(v);
                at = end;
            }
            return (list.into(), at);
        }
        Value::Map { count, mut at } => {
            let mut map = serde_json::Map::new();
            for _ in 0..count {
                let (k, end) = model(buf, at);
                let (v, end) = model(buf, end);
                map.insert(k.as_str().map_or_else(|| k.to_string(), str::to_owned), v);
                at = end;
            }
            return (map.into(), at);
        }
    };
    (m, end)
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        "\\PC{0,60}".prop_map(String::into_bytes),
        "[a-c\"\\\\\n é]{0,90}".prop_map(String::into_bytes),
        proptest::collection::vec(0x1eu8..0x24, 0..70),
    ]
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    fn encoded(f: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        f(&mut out);
        out
    }
    let leaf = prop_oneof![
        Just(vec![0xc0]),
        any::<bool>().prop_map(|v| encoded(|o| mp::write_bool(o, v))),
        any::<i64>().prop_map(|v| encoded(|o| mp::write_int(o, v))),
        any::<i32>().prop_map(|v| encoded(|o| mp::write_float(o, f64::from(v) / 8.0))),
        any_text().prop_map(|v| encoded(|o| mp::write_str(o, &v))),
        any_text().prop_map(|v| encoded(|o| mp::write_bin(o, &v))),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(|list| encoded(|o| {
                mp::write_array(o, list.len());
                list.iter().for_each(|v| o.extend_from_slice(v));
            })),
            proptest::collection::vec(
                (prop_oneof![any_text(), "[a-d]".prop_map(String::into_bytes)], inner),
                0..40
            )
            .prop_map(|list| encoded(|o| {
                mp::write_map(o, list.len());
                for (k, v) in &list {
                    mp::write_str(o, k);
                    o.extend_from_slice(v);
                }
            })),
        ]
    })
}

proptest! {
    #[test]
    fn the_json_holds_what_the_value_holds(bytes in any_value(), escape_unicode in any::<bool>(), after in any_text()) {
        let mut buf = bytes.clone();
        buf.extend_from_slice(&after);
        let mut out = b"before".to_vec();
        let end = Json { escape_unicode }.write_value(&mut out, &buf, 0);
        prop_assert_eq!(end, bytes.len());
        prop_assert_eq!(&out[..6], b"before");
        prop_assert!(!escape_unicode || out.is_ascii());
        let read: Model = serde_json::from_slice(&out[6..]).unwrap();
        prop_assert_eq!(read, model(&bytes, 0).0);
    }

    #[test]
    fn floats_round_trip_and_stay_floats(v in any::<f64>()) {
        prop_assume!(v.is_finite());
        let mut b = Vec::new();
        mp::write_float(&mut b, v);
        let text = json(&b);
        prop_assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(v.to_bits()));
        prop_assert!(text.contains(['.', 'e']));
    }

    #[test]
    fn json_within_a_string_is_what_two_passes_would_write(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), value in any_value(), escape_unicode in any::<bool>(),
    ) {
        for buf in [bytes, value] {
            let (mut text, mut want, mut got) = (Vec::new(), Vec::new(), Vec::new());
            let end = Json { escape_unicode }.write_value(&mut text, &buf, 0);
            Json { escape_unicode: false }.write_str(&mut want, &text);
            prop_assert_eq!(Json { escape_unicode }.write_inside(&mut got, &buf, 0), (end, text.len()));
            prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(&want));
        }
    }

    #[test]
    fn any_bytes_never_panic_and_give_json(bytes in proptest::collection::vec(any::<u8>(), 0..300), escape_unicode in any::<bool>()) {
        let mut out = Vec::new();
        let end = Json { escape_unicode }.write_value(&mut out, &bytes, 0);
        prop_assert!(end <= bytes.len());
        prop_assert!(serde_json::from_slice::<Model>(&out).is_ok(), "{:?}", String::from_utf8_lossy(&out));
    }
}
