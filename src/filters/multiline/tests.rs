//! What the filter makes of records: grouping, time and keys of the first record, bounds, and the account.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::drive::{Drive, Rec, build, rec};
use crate::filters::Verdict;
use crate::text::Library;
use crate::text::multiline::{BUILTIN_NAMES, How, MultilineParser, Rule, Spec};
use crate::wire::msgpack;

const JAVA: &[&str] = &["multiline.key_content log", "multiline.parser java", "Flush_Ms 600"];
const PARTIAL: &[&str] = &["multiline.key_content log", "mode partial_message", "Flush_Ms 800"];

fn library(specs: Vec<Spec>) -> Library {
    let mut library = Library::default();
    for spec in specs {
        assert!(library.add_multiline(Arc::new(MultilineParser::new(spec).unwrap())));
    }
    library
}

fn block() -> Spec {
    Spec::new(
        "block",
        How::Rules(vec![Rule::new("start_state", "^B", "body"), Rule::new("body", "^ ", "body")]),
    )
}

fn blocks(limit: usize) -> Drive {
    let lines = ["multiline.key_content log", "multiline.parser block"];
    Drive::new(build(&lines, &library(vec![block()]), limit).unwrap())
}

#[test]
fn a_joined_record_is_the_first_one_with_its_content_replaced() {
    let mut d = Drive::of(JAVA);
    let lines = ["ERROR failed", "a.BException: no", "\tat a.B.c(B.java:1)", "Caused by: d.E: x", "INFO"];
    for (i, log) in lines.iter().enumerate() {
        d.push(&rec(i as i64 + 1, &[("id", &i.to_string()), ("log", log), ("source", "stdout")]));
    }
    assert_eq!(d.out.len(), 3);
    assert_eq!(
        d.out[1],
        rec(
            2,
            &[
                ("id", "1"),
                ("log", "a.BException: no\n\tat a.B.c(B.java:1)\nCaused by: d.E: x"),
                ("source", "stdout")
            ]
        )
    );
    assert_eq!((d.joined, d.holding), (2, 0));
}

#[test]
fn the_last_group_comes_after_the_flush_time_or_with_the_end_of_the_connection() {
    let mut d = Drive::of(JAVA);
    d.lines(&["a.BException: no", "\tat c"]).wait(Duration::from_millis(599));
    assert_eq!(d.holding, 2);
    d.wait(Duration::from_millis(1));
    assert_eq!(d.logs(), [(1, "a.BException: no\n\tat c")]);
    d.lines(&["a.BException: no"]).release();
    assert_eq!(d.logs().last(), Some(&(1, "a.BException: no")));
}

#[test]
fn a_record_without_the_content_passes_after_what_came_before_it() {
    let mut d = Drive::of(JAVA);
    d.lines(&["a.BException: no", "\tat c"]);
    assert_eq!(d.push(&rec(7, &[("other", "x")])), Verdict::Keep);
    d.push(&rec(8, &[("log", "(true)")]));
    assert_eq!(d.out.iter().map(|(t, _)| *t).collect::<Vec<_>>(), [1, 7, 8]);
}

#[test]
fn a_python_traceback_comes_out_once() {
    let mut d = Drive::of(&["multiline.parser python"]);
    let trace =
        ["Traceback (most recent call last):", "  File \"x.py\", line 1", "    1/0", "ZeroDivisionError: x"];
    d.lines(&["start"]).lines(&trace).lines(&["end"]).lines(&trace).release();
    let joined = trace.join("\n");
    assert_eq!(d.logs(), [(1, "start"), (1, &*joined), (1, "end"), (1, &*joined)]);
}

#[test]
fn every_built_in_name_has_a_parser() {
    for name in BUILTIN_NAMES {
        assert!(Library::default().find_multiline(name).is_some(), "{name}");
    }
}

#[test]
fn dockers_json_lines_are_joined_up_to_the_line_end_each_stream_for_itself() {
    let mut d = Drive::of(&["multiline.parser docker"]);
    let line = |log: &str, stream: &str, at: u32| {
        format!(r#"{{"log":"{log}","stream":"{stream}","time":"2021-02-01T16:45:0{at}.5Z"}}"#)
    };
    let lines = [
        line("one\\n", "stdout", 1),
        line("two ", "stdout", 2),
        line("err", "stderr", 3),
        line("three\\n", "stdout", 4),
        line("or\\n", "stderr", 5),
        "no such line".to_owned(),
    ];
    d.lines(&lines.each_ref().map(String::as_str)).release();
    let first = 1_612_197_901;
    assert_eq!(
        d.logs(),
        [(first, "one\n"), (first + 1, "two three\n"), (first + 2, "error\n"), (6, "no such line")]
    );
}

#[test]
fn pieces_of_a_container_runtimes_line_keep_their_blanks() {
    let mut d = Drive::of(&["multiline.parser cri"]);
    let at = "2019-05-07T18:57:50.904275087+00:00";
    let lines = [
        format!("{at} stdout P some "),
        format!("{at} stderr F whole\t"),
        format!("{at} stdout P long  "),
        format!("{at} stdout F line"),
    ];
    d.lines(&lines.each_ref().map(String::as_str)).release();
    let time = 1_557_255_470;
    assert_eq!(d.logs(), [(time, "whole\t"), (time, "some long  line")]);
}

#[test]
fn without_buffer_nothing_is_joined_across_chunks() {
    let mut d = Drive::of(&["multiline.parser java", "buffer off", "flush_ms 10"]);
    d.lines(&["a.BException: no", "\tat c"]).end_of_chunk().lines(&["\tat d", "\tat e"]).end_of_chunk();
    assert_eq!(d.logs(), [(1, "a.BException: no\n\tat c"), (1, "\tat d\n\tat e")]);
    let mut d = Drive::of(JAVA);
    d.lines(&["a.BException: no"]).end_of_chunk().lines(&["\tat d"]).release();
    assert_eq!(d.out.len(), 1);
}

#[test]
fn a_group_over_the_limit_is_cut_flushed_and_marked() {
    let mut d = blocks(32);
    d.lines(&["B12345678", " a1234567", " a7654321", " a999", " b", "Z"]);
    assert_eq!(d.logs(), [(1, "B12345678\n a1234567\n a7654321\n a"), (5, " b"), (6, "Z")]);
    let mut mark = vec![0x81];
    msgpack::write_str(&mut mark, b"multiline_truncated");
    msgpack::write_bool(&mut mark, true);
    assert_eq!(d.metadata, [Some(mark), None, None]);
}

#[test]
fn metadata_of_the_first_record_stays_beside_the_mark() {
    let mut d = blocks(4);
    let mut bytes = vec![0x92, 0x92, 0xce, 0, 0, 0, 9, 0x81, 0xa1, b'm', 1, 0x81, 0xa3];
    bytes.extend_from_slice(b"log\xa1B");
    d.push_bytes(&bytes);
    d.lines(&[" 3456"]);
    assert_eq!(d.logs(), [(9, "B\n 3")]);
    let metadata = d.metadata[0].clone().unwrap();
    assert!(metadata.starts_with(&[0x82, 0xa1, b'm', 1]), "{metadata:?}");
}

#[test]
fn groups_by_key_do_not_mix_and_the_oldest_goes_when_too_much_is_held() {
    let spec = Spec { key_group: Some("source".into()), ..block() };
    let lines = ["multiline.key_content log", "multiline.parser block", "emitter_mem_buf_limit 100"];
    let mut d = Drive::new(build(&lines, &library(vec![spec]), 1000).unwrap());
    for (log, source) in [("B1", "out"), ("B2", "err"), (" 1", "out"), (" 2", "err")] {
        d.push(&rec(1, &[("log", log), ("source", source)]));
    }
    assert!(d.out.is_empty());
    d.push(&rec(2, &[("log", &format!(" {}", "x".repeat(60))), ("source", "err")]));
    assert_eq!(d.logs(), [(1, "B1\n 1")]);
    d.push(&rec(2, &[("log", "none of it"), ("source", "out")]));
    assert_eq!(d.out.len(), 3);
}

#[test]
fn configurations_that_fluent_bit_refuses_are_refused() {
    let library = Library::default();
    for (lines, want) in [
        (&["multiline.parser jave"][..], "did you mean \"java\"?"),
        (&["multiline.parser java, nope"], "'nope' not registered"),
        (&["flush_ms 700"], "multiline.parser"),
        (&["multiline.parser java", "mode foo"], "unknown mode \"foo\""),
        (&["multiline.parser java", "flush_ms 499"], "too low"),
        (&["multiline.parser java", "emitter_storage.type tape"], "tape"),
        (&["mode partial_message"], "requires multiline.key_content"),
        (&["mode partial_message", "multiline.key_content log", "buffer off"], "requires buffer on"),
    ] {
        let found = build(lines, &library, 100).err().unwrap_or_default();
        assert!(found.contains(want), "{lines:?}: {found}");
    }
    assert!(build(&["mode PARTIAL_MESSAGE", "multiline.key_content log"], &library, 100).is_ok());
    assert!(build(&["multiline.parser JAVA", "multiline.parser go"], &library, 100).is_ok());
}

fn piece(id: &str, log: &str, last: &str) -> Rec {
    rec(
        5,
        &[
            ("log", log),
            ("partial_message", "true"),
            ("partial_id", id),
            ("partial_ordinal", "1"),
            ("partial_last", last),
            ("partial", "own key"),
        ],
    )
}

#[test]
fn pieces_are_joined_by_their_id_without_a_separator() {
    let mut d = Drive::of(PARTIAL);
    for (id, log, last) in [
        ("1", "a", "false"),
        ("2", "x", "false"),
        ("1", "b", "(false)"),
        ("2", "y", "true"),
        ("1", "c", "(true)"),
    ] {
        assert_eq!(d.push(&piece(id, log, last)), Verdict::Hold);
        if log == "b" {
            assert_eq!(d.push(&rec(6, &[("log", "between")])), Verdict::Keep);
        }
    }
    assert_eq!(
        d.out,
        [
            rec(6, &[("log", "between")]),
            rec(5, &[("partial", "own key"), ("log", "xy")]),
            rec(5, &[("partial", "own key"), ("log", "abc")])
        ]
    );
}

#[test]
fn a_line_whose_last_piece_never_comes_goes_out_as_far_as_it_is_joined() {
    let mut d = Drive::of(PARTIAL);
    d.push(&piece("1", "a", "false"));
    d.wait(Duration::from_millis(500));
    d.push(&piece("2", "x", "false"));
    d.push(&piece("1", "b", "false"));
    d.wait(Duration::from_millis(799));
    assert!(d.out.is_empty());
    d.wait(Duration::from_millis(1));
    assert_eq!(d.logs(), [(5, "ab"), (5, "x")]);
    d.push(&piece("3", "y", "false"));
    d.release();
    assert_eq!(d.logs().last(), Some(&(5, "y")));
}

#[test]
fn records_that_are_no_whole_piece_pass_unchanged() {
    let mut d = Drive::of(PARTIAL);
    for fields in [
        &[("log", "a"), ("partial_message", "false"), ("partial_id", "1")][..],
        &[("log", "a"), ("partial_message", "true"), ("partial_last", "true")],
        &[("partial_message", "true"), ("partial_id", "1")],
        &[("log", "(true)"), ("partial_message", "true"), ("partial_id", "1")],
        &[("log", "a"), ("partial", "true"), ("p", "true"), ("partial_id", "1")],
    ] {
        let record = rec(1, fields);
        assert_eq!(d.push(&record), Verdict::Keep);
    }
}

#[test]
fn too_many_or_too_long_lines_in_pieces_push_out_the_oldest() {
    let mut d = Drive::of(PARTIAL);
    for i in 0..1030 {
        d.push(&piece(&i.to_string(), "a", "false"));
    }
    assert_eq!((d.out.len(), d.holding), (6, 1024));
    let lines = ["multiline.key_content log", "mode partial_message", "emitter_mem_buf_limit 1K"];
    let mut d = Drive::of(&lines);
    for _ in 0..100 {
        d.push(&piece("1", &"a".repeat(100), "false"));
        assert!(d.hold.bytes() <= 1000);
    }
    d.release();
    assert_eq!(d.logs().iter().map(|(_, l)| l.len()).sum::<usize>(), 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever comes, every line comes out once, in order.
    #[test]
    fn every_line_comes_out_once_and_in_order(
        names in proptest::sample::subsequence(vec!["java", "python", "go", "ruby", "block"], 1..=5),
        lines in proptest::collection::vec((0usize..18, 0usize..9), 0..60),
    ) {
        let parsers = format!("multiline.parser {}", names.join(", "));
        let hold = build(&[&parsers], &library(vec![block()]), 1 << 20).unwrap();
        let mut d = Drive::new(hold);
        let kinds = [
            "x.Exception: ", "\tat a.b(", "Caused by: ", "... 3 more ", "Traceback (most recent call last):",
            "  File \"", "    code ", "ValueError: ", "panic: ", "goroutine 1 [running]:", "main.f(", "\t/a.go:1 ",
            "a.rb:1:in ", "\tfrom a.rb:2:in ", "B", " ", "INFO ", "nested exception is: ",
        ];
        let texts: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(n, (kind, _))| match kinds[*kind] {
                whole if whole.ends_with(':') => whole.to_owned(),
                kind => format!("{kind}{n}"),
            })
            .collect();
        for (n, ((_, event), text)) in lines.iter().zip(&texts).enumerate() {
            d.push(&rec(n as i64 + 1, &[("log", text)]));
            match event {
                0 => { d.wait(Duration::from_millis(1500)); }
                1 => { d.wait(Duration::from_millis(700)); }
                2 => { d.push(&rec(n as i64 + 1, &[("other", "x")])); }
                _ => {}
            }
        }
        d.release();
        let came: Vec<&str> = d.logs().into_iter().map(|(_, l)| l).filter(|l| !l.is_empty()).collect();
        let want = texts.join("\n");
        prop_assert_eq!(came.join("\n"), want);
        // And the time of each is that of its first line.
        let times: Vec<i64> = d.out.iter().map(|(t, _)| *t).collect();
        prop_assert!(times.is_sorted());
    }

    /// Pieces of several lines in any order: each line whole, once.
    #[test]
    fn pieces_of_several_lines_never_mix(order in proptest::collection::vec(0usize..4, 0..80), limit in 60usize..400) {
        let lines = format!("emitter_mem_buf_limit {limit}");
        let mut d = Drive::of(&["multiline.key_content log", "mode partial_message", &lines]);
        let mut sent = [const { String::new() }; 4];
        for (n, id) in order.iter().enumerate() {
            let text = format!("{id}:{n};");
            sent[*id].push_str(&text);
            let last = if n % 7 == 0 { "true" } else { "false" };
            d.push(&piece(&id.to_string(), &text, last));
            prop_assert!(d.hold.bytes() <= limit);
        }
        d.release();
        for (id, sent) in sent.iter().enumerate() {
            let start = format!("{id}:");
            let came: String = d.logs().iter().map(|(_, l)| *l).filter(|l| l.starts_with(&start)).collect();
            prop_assert_eq!(&came, sent);
        }
    }
}
