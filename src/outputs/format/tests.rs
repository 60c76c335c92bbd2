//! Lines as Fluent Bit 5.1.1 writes them.

use super::*;
use crate::config::{Diagnostics, Entry, Key, PluginInfo, Pos, Section, SectionKind, Settings, Type};

fn entry_of(time: Time, fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    entry::write_head(&mut out, time, None);
    msgpack::write_map(&mut out, fields.len());
    for (key, value) in fields {
        msgpack::write_str(&mut out, key.as_bytes());
        out.extend_from_slice(value);
    }
    out
}

fn text(s: &str) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_str(&mut out, s.as_bytes());
    out
}

fn float(v: f64) -> Vec<u8> {
    let mut out = Vec::new();
    msgpack::write_float(&mut out, v);
    out
}

fn written(shape: Shape, entries: &[Vec<u8>]) -> String {
    let mut formatter = Formatter::new(shape, true);
    formatter.tag(&Tag::new(b"t.x"));
    let mut out = Vec::new();
    let buf = entries.concat();
    let mut pos = 0;
    let mut nth = 0;
    while pos < buf.len() {
        pos = formatter.record(&mut out, nth, &buf, pos).unwrap();
        nth += 1;
    }
    formatter.end_group(&mut out);
    String::from_utf8(out).unwrap()
}

fn sample() -> Vec<Vec<u8>> {
    vec![
        entry_of(
            Time::new(1_760_000_000, 123_456_789),
            &[("a", text("x\"y")), ("b", vec![1]), ("c", text("y z"))],
        ),
        entry_of(Time::new(1_760_000_001, 7), &[("a", text("q")), ("d", float(1.5))]),
    ]
}

fn date(key: &str, form: &str) -> Option<JsonDate> {
    const INFO: PluginInfo = PluginInfo {
        name: "stdout",
        aliases: &[],
        summary: "",
        keys: &[Key::new("json_date_key", Type::Str, ""), Key::new("json_date_format", Type::Str, "")],
        groups: &[],
    };
    let pos = Pos::new("f", 1);
    let entries = [("json_date_key", key), ("json_date_format", form)].map(|(k, v)| Entry {
        key: k.into(),
        written: k.into(),
        value: v.into(),
        pos: pos.clone(),
    });
    let section = Section { kind: SectionKind::Output, pos: pos.clone(), entries: entries.into() };
    json_date(&Settings::new("stdout.0".into(), &INFO, &[], section), true, &mut Diagnostics::new())
}

#[test]
fn the_default_line_has_tag_time_and_record() {
    assert_eq!(
        written(Shape::OutFile, &sample()),
        "t.x: [1760000000.123456789, {\"a\":\"x\\\"y\",\"b\":1,\"c\":\"y z\"}]\n\
         t.x: [1760000001.000000007, {\"a\":\"q\",\"d\":1.5}]\n"
    );
}

#[test]
fn a_tag_with_line_ends_cannot_begin_a_line() {
    let mut formatter = Formatter::new(Shape::OutFile, true);
    formatter.tag(&Tag::new(b"a\nroot: [\0"));
    let mut out = Vec::new();
    formatter.record(&mut out, 0, &entry_of(Time::new(5, 0), &[]), 0).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "a\\x0aroot: [\\x00: [5.000000000, {}]\n");
}

#[test]
fn json_frames_differ_in_what_stands_between() {
    let json =
        |frame| written(Shape::Json { frame, date: None }, &[sample()[1].clone(), sample()[1].clone()]);
    let one = "{\"a\":\"q\",\"d\":1.5}";
    assert_eq!(json(Frame::Lines), format!("{one}\n{one}\n"));
    assert_eq!(json(Frame::Stream), format!("{one}{one}\n"));
    assert_eq!(json(Frame::Array), format!("[{one},{one}]\n"));
}

#[test]
fn every_date_format_is_as_fluent_bits() {
    for (form, want) in [
        ("double", "1760000000.123457"),
        ("iso8601", "\"2025-10-09T08:53:20.123456Z\""),
        ("java_sql_timestamp", "\"2025-10-09 08:53:20.123456\""),
        ("epoch", "1760000000"),
        ("epoch_ms", "1760000000123"),
        ("epoch_millis", "1760000000123"),
        ("ISO8601", "\"2025-10-09T08:53:20.123456Z\""),
    ] {
        let shape = Shape::Json { frame: Frame::Lines, date: date("ts", form) };
        let entry = entry_of(Time::new(1_760_000_000, 123_456_789), &[]);
        assert_eq!(written(shape, &[entry]), format!("{{\"ts\":{want}}}\n"));
    }
    for (nsec, want) in [(250_000_000, "5.25"), (0, "5.0"), (999_999_999, "6.0")] {
        let shape = Shape::Json { frame: Frame::Lines, date: date("date", "double") };
        assert_eq!(written(shape, &[entry_of(Time::new(5, nsec), &[])]), format!("{{\"date\":{want}}}\n"));
    }
}

#[test]
fn the_date_key_can_be_turned_off_and_gives_way_to_the_records_own() {
    let shape = |key| Shape::Json { frame: Frame::Lines, date: date(key, "double") };
    assert_eq!(written(shape("false"), &[entry_of(Time::new(5, 0), &[])]), "{}\n");
    let own = entry_of(Time::new(5, 0), &[("date", vec![1]), ("k", vec![2])]);
    assert_eq!(written(shape("date"), &[own]), "{\"date\":1,\"k\":2}\n");
}

#[test]
fn text_is_numbered_and_shows_metadata() {
    let mut with_metadata = Vec::new();
    entry::write_head(&mut with_metadata, Time::new(6, 0), Some(&[0x81, 0xa1, b'm', 1]));
    with_metadata.push(0x80);
    assert_eq!(
        written(Shape::Text, &[sample().remove(1), with_metadata]),
        "[0] t.x: [[1760000001.000000007, {}], {\"a\"=>\"q\", \"d\"=>1.500000}]\n\
         [1] t.x: [[6.000000000, {\"m\"=>1}], {}]\n"
    );
}

#[test]
fn csv_and_ltsv_print_values_between_separators() {
    let separators = |field| Separators { field, label: b':', column_names: true };
    assert_eq!(
        written(Shape::Csv(separators(b',')), &sample()),
        "1760000000.123456789,\"x\"y\",1,\"y z\"\n1760000001.000000007,\"q\",1.500000\n"
    );
    assert_eq!(
        written(Shape::Ltsv(separators(b'\t')), &sample()),
        "\"time\":1760000000.123457\t\"a\":\"x\"y\"\t\"b\":1\t\"c\":\"y z\"\n\
         \"time\":1760000001.000000\t\"a\":\"q\"\t\"d\":1.500000\n"
    );
    let formatter = Formatter::new(Shape::Csv(separators(b',')), true);
    assert_eq!(formatter.header(&sample()[0], 0), b"timestamp,\"a\",\"b\",\"c\"\n");
}

#[test]
fn a_record_without_fields_has_no_line_in_csv_and_ltsv() {
    let separators = Separators { field: b',', label: b':', column_names: true };
    let empty = entry_of(Time::new(1, 0), &[]);
    assert_eq!(
        written(Shape::Csv(separators.clone()), &[empty.clone(), sample().remove(1)]),
        "1760000001.000000007,\"q\",1.500000\n"
    );
    assert_eq!(written(Shape::Ltsv(separators.clone()), std::slice::from_ref(&empty)), "");
    assert_eq!(Formatter::new(Shape::Csv(separators), true).header(&empty, 0), b"");
}

#[test]
fn a_template_leaves_unknown_keys_and_open_braces() {
    let template = |t: &str| written(Shape::Template(Template::new(t)), &sample()[1..]);
    assert_eq!(template("{time} [{a}] {nope} {d} {open"), "1760000001.000000 [q] {nope} 1.500000 {open\n");
    assert_eq!(template(""), "\n");
    assert_eq!(template("{\"t\":{time},\"a\":\"{a}\"}}"), "{\"t\":1760000001.000000,\"a\":\"q\"}}\n");
}

#[test]
fn msgpack_has_time_and_metadata_in_the_first_place() {
    let mut formatter = Formatter::new(Shape::Msgpack, true);
    let mut out = Vec::new();
    formatter.record(&mut out, 0, &entry_of(Time::new(5, 6), &[("a", vec![1])]), 0).unwrap();
    assert_eq!(out, [0x92, 0x92, 0xd7, 0, 0, 0, 0, 5, 0, 0, 0, 6, 0x80, 0x81, 0xa1, b'a', 1]);
}

#[test]
fn a_torn_line_of_our_own_is_known_by_its_beginning() {
    for (beginning, ours, not) in [
        (Beginning::TagAndTime, "t.x: [1760000000.5, {\"a", "some text: [info]"),
        (Beginning::Brace, "{\"a\":", "text"),
        (Beginning::Digits, "1760000000.5,\"", "2025-10-09"),
        (Beginning::TimeLabel, "\"time\":17", "time"),
    ] {
        assert!(beginning.fits(ours.as_bytes()), "{ours}");
        assert!(!beginning.fits(not.as_bytes()), "{not}");
    }
    assert!(!Beginning::Anything.fits(b"1760000000"));
}
