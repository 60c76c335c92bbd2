//! What parsers find, as Fluent Bit 5.1.1 does (the corpus' parser cases and what the binary showed beside them).

use super::*;
use crate::wire::json::Json;
use proptest::prelude::*;

const NOW: Time = Time { sec: 1_760_000_000, nsec: 0 };

fn json_of(fields: &Fields) -> String {
    let mut map = Vec::new();
    msgpack::write_map(&mut map, fields.list.len());
    for (key, value) in &fields.list {
        map.extend_from_slice(&fields.bytes[key.clone()]);
        map.extend_from_slice(&fields.bytes[value.clone()]);
    }
    let mut out = Vec::new();
    Json { escape_unicode: false }.write_value(&mut out, &map, 0);
    String::from_utf8(out).unwrap()
}

fn spec(format: &str) -> ParserSpec {
    ParserSpec { format: format.to_owned(), ..ParserSpec::default() }
}

fn timed(format: &str, time: &str) -> ParserSpec {
    ParserSpec { time_format: Some(TimeFormat::new(time).unwrap()), ..spec(format) }
}

fn regex(pattern: &str) -> ParserSpec {
    ParserSpec { regex: Some(pattern.to_owned()), ..spec("regex") }
}

fn typed(spec: ParserSpec, types: &[(&str, &str)]) -> ParserSpec {
    let types = types.iter().map(|(k, t)| (k.to_string(), FieldType::from_word(t).unwrap())).collect();
    ParserSpec { types, ..spec }
}

/// Each text with the record (empty: no match) and the seconds of its time (0: none).
#[track_caller]
fn check(spec: ParserSpec, rows: &[(&str, &str, f64)]) {
    let parser = Parser::new(spec).unwrap();
    let mut out = Fields::default();
    for (text, record, time) in rows {
        match parser.parse(text.as_bytes(), &mut out, NOW) {
            Some(t) => {
                assert_eq!(json_of(&out), *record, "{text}");
                assert_eq!(t.map_or(0.0, Time::as_f64), *time, "{text}");
            }
            None => {
                assert_eq!(*record, "", "{text}");
                assert!(out.list.is_empty() && out.bytes.is_empty());
            }
        }
    }
}

#[test]
fn json_with_a_time() {
    check(
        timed("json", "%Y-%m-%dT%H:%M:%S.%L%z"),
        &[
            (r#"{"time":"2025-03-04T05:06:07.123456789Z","m":1}"#, r#"{"m":1}"#, 1_741_064_767.123_456_8),
            (r#"{"time":"2025-03-04T05:06:07.5+0530","m":2}"#, r#"{"m":2}"#, 1_741_044_967.5),
            (r#"{"time":"2025-03-04T05:06:07.250-07:00","m":3}"#, r#"{"m":3}"#, 1_741_089_967.25),
            (r#"{"time":"yesterday","m":4}"#, r#"{"time":"yesterday","m":4}"#, 0.0),
            (r#"{"m":5}"#, r#"{"m":5}"#, 0.0),
            (r#"{"time":{"a":1}}"#, r#"{"time":{"a":1}}"#, 0.0),
            ("plain", "", 0.0),
        ],
    );
    check(
        spec("JSON"),
        &[(r#"  {"time":"2025","a":1}"#, r#"{"time":"2025","a":1}"#, 0.0), ("{}", "{}", 0.0)],
    );
    let keep = ParserSpec { time_keep: true, zone: Zone::offset("+0200").unwrap(), ..timed("json", "%F %T") };
    check(
        keep,
        &[(r#"{"time":"2025-01-04 05:06:07"}"#, r#"{"time":"2025-01-04 05:06:07"}"#, 1_735_959_967.0)],
    );
    let lax = ParserSpec { time_strict: false, ..timed("json", "%F %T") };
    check(
        lax,
        &[
            (r#"{"time":"2025-03-04 xx","a":1}"#, r#"{"a":1}"#, 1_741_046_400.0),
            (r#"{"time":"bad","a":1}"#, r#"{"time":"bad","a":1}"#, 0.0),
        ],
    );
}

#[test]
fn only_text_is_a_time_and_a_number_stays() {
    check(
        timed("json", "%s"),
        &[
            (r#"{"time":1741064767,"a":1}"#, r#"{"time":1741064767,"a":1}"#, 0.0),
            (r#"{"time":1741064767.5,"a":1}"#, r#"{"time":1741064767.5,"a":1}"#, 0.0),
            (r#"{"time":"1741064767.5","a":1}"#, r#"{"a":1}"#, 1_741_064_767.0),
            (r#"{"time":"0","a":1}"#, r#"{"a":1}"#, 0.0),
        ],
    );
}

#[test]
fn nginx_lines() {
    let pattern = r#"^(?<remote>[^ ]*) (?<host>[^ ]*) (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^\"]*?)(?: +\S*)?)?" (?<code>[^ ]*) (?<size>[^ ]*)(?: "(?<referer>[^\"]*)" "(?<agent>[^\"]*)")?$"#;
    let spec = ParserSpec {
        regex: Some(pattern.to_owned()),
        ..typed(timed("regex", "%d/%b/%Y:%H:%M:%S %z"), &[("code", "integer"), ("size", "Integer")])
    };
    check(
        spec,
        &[
            (
                r#"10.1.2.3 - alice [09/Oct/2025:08:53:20 +0000] "GET /cart?x=1 HTTP/1.1" 200 512 "https://shop/" "Mozilla/5.0 (X11)""#,
                r#"{"remote":"10.1.2.3","host":"-","user":"alice","method":"GET","path":"/cart?x=1","code":200,"size":512,"referer":"https://shop/","agent":"Mozilla/5.0 (X11)"}"#,
                1_760_000_000.0,
            ),
            (
                r#"10.1.2.4 - - [09/Oct/2025:10:53:20 +0200] "POST /pay HTTP/1.1" 502 0"#,
                r#"{"remote":"10.1.2.4","host":"-","user":"-","method":"POST","path":"/pay","code":502,"size":0}"#,
                1_760_000_000.0,
            ),
            ("not an access line", "", 0.0),
            // A time that cannot be read goes all the same.
            (
                r#"- - - [bad time] "GET /" 404 9"#,
                r#"{"remote":"-","host":"-","user":"-","method":"GET","path":"/","code":404,"size":9}"#,
                0.0,
            ),
        ],
    );
}

#[test]
fn types_and_what_does_not_fit_them() {
    let types = [("i", "integer"), ("f", "float"), ("b", "bool"), ("h", "hex"), ("s", "string")];
    let spec = regex(r"^(?<i>[^ ]+) (?<f>[^ ]+) (?<b>[^ ]+) (?<h>[^ ]+) (?<s>.+)$");
    check(
        typed(spec, &types),
        &[
            ("100 0.5 true ff This is", r#"{"i":100,"f":0.5,"b":true,"h":255,"s":"This is"}"#, 0.0),
            ("-7 1e3 FALSE 0x1F x", r#"{"i":-7,"f":1000.0,"b":false,"h":31,"s":"x"}"#, 0.0),
            ("+3 .25 True 10 a b c", r#"{"i":3,"f":0.25,"b":true,"h":16,"s":"a b c"}"#, 0.0),
            ("abc abc abc zz 5", r#"{"i":0,"f":0.0,"b":"abc","h":0,"s":"5"}"#, 0.0),
            ("12abc 1.5x TRUEx ff 5", r#"{"i":12,"f":1.5,"b":true,"h":255,"s":"5"}"#, 0.0),
            ("1 1e400 t f 5", r#"{"i":1,"f":"1e400","b":"t","h":15,"s":"5"}"#, 0.0),
        ],
    );
    assert_eq!(FieldType::from_word("int"), None);
}

#[test]
fn empty_groups_repeated_names_and_no_names() {
    let pattern = "^(?<a>[^,]*),(?<b>[^,]*),(?<c>.*)$";
    check(regex(pattern), &[(",x,", r#"{"b":"x"}"#, 0.0), (",,", "{}", 0.0)]);
    let all = ParserSpec { skip_empty_values: false, ..typed(regex(pattern), &[("a", "integer")]) };
    check(all, &[(",x,", r#"{"a":0,"b":"x","c":""}"#, 0.0)]);
    check(
        ParserSpec { skip_empty_values: false, ..regex("^(?<x>a)?(?<y>b)$") },
        &[("b", r#"{"x":"","y":"b"}"#, 0.0)],
    );
    check(
        regex("^(?<x>a)?(?<y>b)?(?<x>c)?$"),
        &[
            ("abc", r#"{"x":"c","y":"b"}"#, 0.0),
            ("ab", r#"{"x":"a","y":"b"}"#, 0.0),
            ("b", r#"{"y":"b"}"#, 0.0),
        ],
    );
    check(regex(r"^(\w+) (\w+)$"), &[("ab cd", "", 0.0)]);
    assert!(!Parser::new(regex(r"(\w+)")).unwrap().finds_fields());
}

#[test]
fn logfmt() {
    let spec = ParserSpec { time_key: "ts".to_owned(), ..timed("logfmt", "%s.%L") };
    check(
        spec,
        &[
            (
                r#"level=info msg="hello \"world\"" n=5 ts=1741064767.250"#,
                r#"{"level":"info","msg":"hello \"world\"","n":"5"}"#,
                1_741_064_767.25,
            ),
            (r#"bare level=warn empty= q="""#, r#"{"bare":true,"level":"warn","empty":true,"q":""}"#, 0.0),
            ("path=/a/b é=ü", r#"{"path":"/a/b","é":"ü"}"#, 0.0),
            // A time that cannot be read spoils the line.
            ("a=1 ts=bad", "", 0.0),
            ("ts a=1", r#"{"ts":true,"a":"1"}"#, 0.0),
            ("ts=1741064767.250", "", 0.0),
            ("", "", 0.0),
            ("  ", "", 0.0),
        ],
    );
    let strict = ParserSpec { logfmt_no_bare_keys: true, ..self::spec("logfmt") };
    check(strict, &[("a=1 b", "", 0.0), ("a= b=2", r#"{"a":true,"b":"2"}"#, 0.0), ("plain", "", 0.0)]);
    let types = [("n", "integer"), ("f", "float"), ("b", "bool"), ("x", "hex")];
    check(
        typed(self::spec("logfmt"), &types),
        &[
            (r#"n= f b x="12" c"#, r#"{"n":0,"f":0.0,"b":"","x":18,"c":""}"#, 0.0),
            (r#"n=1 q="a\"b" c="#, r#"{"n":1,"q":"a\\\"b","c":""}"#, 0.0),
            (r#"n="7" b=trueish"#, r#"{"n":7,"b":true}"#, 0.0),
        ],
    );
}

#[test]
fn ltsv() {
    let spec = typed(timed("ltsv", "[%d/%b/%Y:%H:%M:%S %z]"), &[("code", "integer")]);
    check(
        spec,
        &[
            (
                "host:10.0.0.1\tcode:404\treq:GET /a:b",
                r#"{"host":"10.0.0.1","code":404,"req":"GET /a:b"}"#,
                0.0,
            ),
            ("single:x\tcode:7", r#"{"single":"x","code":7}"#, 0.0),
            ("time:[09/Oct/2025:08:53:20 +0000]\tcode:5", r#"{"code":5}"#, 1_760_000_000.0),
            ("time:bad\tcode:5", "", 0.0),
            ("no separator", "", 0.0),
        ],
    );
}

fn decoded(lines: &[(&str, bool)], spec: ParserSpec) -> ParserSpec {
    ParserSpec { decoders: lines.iter().map(|(l, as_)| Decoder::new(l, *as_).unwrap()).collect(), ..spec }
}

#[test]
fn json_within_a_field() {
    check(
        decoded(&[("json inner", true)], spec("json")),
        &[
            (r#"{"inner":"{\"a\":[1,2]}","o":1}"#, r#"{"inner":{"a":[1,2]},"o":1}"#, 0.0),
            (r#"{"inner":"plain"}"#, r#"{"inner":"plain"}"#, 0.0),
            (r#"{"inner":"[1]"}"#, r#"{"inner":"[1]"}"#, 0.0),
            (r#"{"inner":5}"#, r#"{"inner":5}"#, 0.0),
            (r#"{"inner":" {\"a\":1} x"}"#, r#"{"inner":{"a":1}}"#, 0.0),
        ],
    );
    check(
        decoded(&[("json log", false)], spec("json")),
        &[
            (r#"{"log":"{\"a\":1,\"z\":2}","z":5}"#, r#"{"log":"{\"a\":1,\"z\":2}","a":1,"z":2}"#, 0.0),
            (r#"{"log":"{\"log\":\"q\"}","z":5}"#, r#"{"z":5,"log":"q"}"#, 0.0),
        ],
    );
    // The time may come out of the decoded object.
    check(
        decoded(&[("json log", false)], timed("json", "%s")),
        &[(
            r#"{"log":"{\"time\":\"1741064767\",\"q\":1}"}"#,
            r#"{"log":"{\"time\":\"1741064767\",\"q\":1}","q":1}"#,
            1_741_064_767.0,
        )],
    );
    check(
        decoded(&[("json log", true)], regex(r"^(?<log>[^|]*)\| (?<m>.*)$")),
        &[(r#"{"a":1}| x"#, r#"{"log":{"a":1},"m":"x"}"#, 0.0)],
    );
    let deep = format!(r#"{{"log":"{}{}"}}"#, r#"{\"a\":"#.repeat(32), "1".to_owned() + &"}".repeat(32));
    check(decoded(&[("json log", true)], spec("json")), &[(&deep, &deep, 0.0)]);
}

#[test]
fn decoders_of_one_field_go_on_as_told() {
    let escaped_json = r#"{"log":"{\\\"a\\\":1}\\n"}"#;
    let json = r#"{"log":"{\"a\":1}"}"#;
    let plain = r#"{"log":"plain\\n"}"#;
    check(
        decoded(&[("escaped log do_next", true), ("json log", true)], spec("json")),
        &[
            (escaped_json, r#"{"log":{"a":1}}"#, 0.0),
            (json, r#"{"log":{"a":1}}"#, 0.0),
            (plain, r#"{"log":"plain\n"}"#, 0.0),
        ],
    );
    check(
        decoded(&[("json log try_next", true), ("escaped log", true)], spec("json")),
        &[(escaped_json, r#"{"log":"{\"a\":1}\n"}"#, 0.0), (json, r#"{"log":{"a":1}}"#, 0.0)],
    );
    check(decoded(&[("escaped log try_next", true), ("json log", true)], spec("json")), &[(json, json, 0.0)]);
    check(
        decoded(&[("json log", true), ("escaped z", true)], spec("json")),
        &[(r#"{"log":"{\"a\":1}","z":"a\\nb"}"#, r#"{"log":{"a":1},"z":"a\nb"}"#, 0.0)],
    );
    for (line, in_place, words) in [
        ("nope log", true, "\"nope\" is no decoder"),
        ("json", true, "a decoder and a field"),
        ("escaped log", false, "write Decode_Field_As"),
    ] {
        assert!(Decoder::new(line, in_place).unwrap_err().contains(words), "{line}");
    }
}

#[test]
fn bad_specifications_are_refused() {
    for (spec, words) in [
        (spec("jsn"), "\"jsn\" is no format"),
        (spec("regex"), "needs a Regex"),
        (regex("(unclosed"), "(unclosed"),
    ] {
        assert!(Parser::new(spec).unwrap_err().contains(words));
    }
}

proptest! {
    #[test]
    fn any_text_never_panics_and_leaves_whole_values(text in proptest::collection::vec(any::<u8>(), 0..80), like in r#"[{}"a:=, 0-9\t\\\[\]-]{0,60}"#) {
        let kinds = [
            decoded(&[("json a", true), ("escaped_utf8 b", true)], timed("json", "%s")),
            regex("^(?<a>.*)=(?<b>.+?)(?<c>[^ ]*)$"),
            timed("logfmt", "%F %T"),
            typed(spec("ltsv"), &[("a", "hex")]),
        ];
        let mut out = Fields::default();
        for spec in kinds {
            let parser = Parser::new(spec).unwrap();
            for text in [&text[..], like.as_bytes()] {
                if parser.parse(text, &mut out, NOW).is_some() {
                    for (key, value) in &out.list {
                        for range in [key, value] {
                            prop_assert_eq!(msgpack::skip(&out.bytes[range.clone()], 0), Ok(range.len()));
                        }
                    }
                }
            }
        }
    }
}
