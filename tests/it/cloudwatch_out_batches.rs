//! Batches of the CloudWatch Logs output: exactly as large as the service takes, in order, and as few as can be. The server
//! refuses every call that breaks a limit.

use std::time::Duration;

use crate::strict_cloudwatch::{Answer, BATCH_BYTES, BATCH_EVENTS, CloudWatch, OVERHEAD, Rule};
use crate::support::cloudwatch::{
    LETTERS, NAMES, Sender, conf, entry_at, entry_of, letters, line, line_with, now, plain, start, stop,
    stored,
};

use crate::support::forward::text;

/// Numbers that look random and are the same each time.
fn numbers() -> impl FnMut(usize) -> usize {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

/// Sends chunks of about 200 KB.
fn send_all(client: &mut Sender, entries: &[Vec<u8>]) {
    let (mut from, mut bytes) = (0, 0);
    for (i, entry) in entries.iter().enumerate() {
        bytes += entry.len();
        if bytes > 200_000 || i + 1 == entries.len() {
            client.send("app", &entries[from..=i]);
            (from, bytes) = (i + 1, 0);
        }
    }
}

#[test]
fn texts_of_all_lengths_and_alphabets_arrive_whole_and_in_order_in_full_batches() {
    for lines in ["", "compress gzip"] {
        texts_of_all_lengths(&format!("log_key log\n{lines}"));
    }
}

fn texts_of_all_lengths(lines: &str) {
    let aws = CloudWatch::start();
    let router = plain(&aws, lines);
    let mut random = numbers();
    let pieces: [&[u8]; 7] =
        [b"a", "é".as_bytes(), "中".as_bytes(), "🙂".as_bytes(), b"\xff", b"\"\\", b"\x01\n"];
    let texts: Vec<Vec<u8>> = (0..300)
        .map(|i| {
            let length = [10, 100, 1000, 10_000, 60_000][random(5)];
            let mut text = format!("{i} ").into_bytes();
            while text.len() < length {
                text.extend_from_slice(pieces[random(pieces.len())]);
            }
            text
        })
        .collect();
    let at = now();
    let entries: Vec<_> = texts.iter().map(|t| entry_at(at, t)).collect();
    send_all(&mut Sender::new(&router), &entries);
    stored(&aws, texts.len());
    let want: Vec<String> = texts.iter().map(|t| String::from_utf8_lossy(t).into_owned()).collect();
    assert!(aws.messages("g", "s") == want);
    let bytes: usize = want.iter().map(|m| m.len() + OVERHEAD).sum();
    let calls = aws.calls("PutLogEvents").iter().filter(|c| c.outcome == "ok").count();
    let least = bytes.div_ceil(BATCH_BYTES);
    assert!(calls <= least * 3 / 2 + 3, "{calls} calls for {bytes} bytes, {least} would do");
    stop(router);
}

#[test]
fn a_text_that_is_too_long_for_an_event_becomes_several_cut_between_characters() {
    let aws = CloudWatch::start();
    let router = plain(&aws, "log_key log");
    let long: String = (0..900_000).map(|i| ['x', 'é', '中', '🙂'][i % 4]).collect();
    let exact = "y".repeat(999_999);
    let at = now();
    let mut client = Sender::new(&router);
    for text in ["before", &long, &exact, "after"] {
        client.send_to_ack("app", &[entry_at(at, text)], "1");
        client.expect("1");
    }
    let messages = aws.messages("g", "s");
    assert!(messages.concat() == format!("before{long}{exact}after"), "{} parts", messages.len());
    assert!(messages.len() <= 7 && messages.iter().all(|m| !m.contains('\u{fffd}')), "{}", messages.len());
    let ended = stop(router);
    assert_eq!(ended.ledger.output("cloudwatch_logs.0", "delivered"), 4);
}

#[test]
fn a_text_that_is_too_long_is_cut_where_that_is_configured() {
    let aws = CloudWatch::start();
    let router = plain(&aws, "log_key log\noversize_events truncate\nmax_event_size 262118");
    let long = "é".repeat(200_000);
    Sender::new(&router).deliver("app", &[line(&long), line("short")]);
    let messages = aws.messages("g", "s");
    let cut = messages[0].strip_suffix("[Truncated...]").unwrap();
    assert!(
        long.starts_with(cut) && (262_100..=262_118).contains(&messages[0].len()),
        "{}",
        messages[0].len()
    );
    assert_eq!(messages[1..], ["short"]);
    stop(router);
}

#[test]
fn a_batch_has_at_most_so_many_events_and_not_many_fewer() {
    let aws = CloudWatch::start();
    let router = plain(&aws, "log_key log");
    let at = now();
    let count = 25_000;
    let entries: Vec<_> = (0..count).map(|i| entry_at(at, i.to_string())).collect();
    Sender::new(&router).deliver("app", &entries);
    assert_eq!(aws.messages("g", "s"), (0..count).map(|i| i.to_string()).collect::<Vec<_>>());
    let calls: Vec<usize> =
        aws.calls("PutLogEvents").iter().filter(|c| c.outcome == "ok").map(|c| c.events).collect();
    assert!(calls.len() <= 4 && calls.contains(&BATCH_EVENTS), "{calls:?}");
    stop(router);
}

#[test]
fn events_of_many_days_go_in_calls_of_less_than_a_day_sorted_and_with_equal_times_as_they_came() {
    let aws = CloudWatch::start();
    let router = plain(&aws, "log_key log");
    let mut random = numbers();
    let hour = 3_600_000;
    let base = now() - 9 * 24 * hour;
    // Shuffled over a week, three at each time; at the borders exactly a day apart.
    let mut times: Vec<i64> = (0..7 * 24).map(|h| base + h * hour).collect();
    for i in (1..times.len()).rev() {
        times.swap(i, random(i + 1));
    }
    let entries: Vec<_> =
        times.iter().flat_map(|t| (0..3).map(move |n| entry_at(*t, format!("{t} {n}")))).collect();
    Sender::new(&router).deliver("app", &entries);
    let events = aws.events("g", "s");
    assert_eq!(events.len(), entries.len());
    for t in &times {
        let got: Vec<&str> =
            events.iter().filter(|e| e.timestamp == *t).map(|e| e.message.as_str()).collect();
        assert_eq!(got, [format!("{t} 0"), format!("{t} 1"), format!("{t} 2")]);
    }
    stop(router);
}

#[test]
fn records_that_alternate_between_streams_make_no_small_calls() {
    let aws = CloudWatch::start();
    let lines =
        "log_group_name g\nlog_stream_name none\nlog_stream_template $pod\nauto_create_group on\nlog_key log";
    let router = start(&conf(&aws, LETTERS, lines));
    let count = 6000;
    let entries: Vec<_> =
        (0..count).map(|i| line_with(&i.to_string(), &[("pod", ["a", "b", "c"][i % 3])])).collect();
    Sender::new(&router).deliver("app", &entries);
    for (n, name) in ["a", "b", "c"].iter().enumerate() {
        let want: Vec<String> = (0..count).filter(|i| i % 3 == n).map(|i| i.to_string()).collect();
        assert_eq!(aws.messages("g", name), want);
    }
    let calls = aws.calls("PutLogEvents").iter().filter(|c| c.outcome == "ok").count();
    assert!(calls <= 6, "{calls} calls for 3 streams");
    stop(router);
}

#[test]
fn a_thousand_streams_get_their_own_records_in_order_and_no_stream_has_two_calls_at_once() {
    let aws = CloudWatch::start();
    let lines =
        "log_group_name g\nlog_stream_name none\nlog_stream_template $pod\nauto_create_group on\nlog_key log";
    let (streams, each) = (1000, 20);
    let names: Vec<String> = (0..streams).map(|s| format!("pod-{s}")).collect();
    aws.create("g", &names.iter().map(String::as_str).collect::<Vec<_>>());
    // So long that calls could meet.
    aws.fault(Rule::put(Answer::Slow(Duration::from_millis(10))).always());
    let router = start(&conf(&aws, "", lines));
    let mut client = Sender::new(&router);
    for round in 0..each {
        let entries: Vec<_> = (0..streams)
            .map(|s| line_with(&format!("{s} {round}"), &[("pod", &format!("pod-{s}"))]))
            .collect();
        client.send("app", &entries);
    }
    stored(&aws, streams * each);
    for s in 0..streams {
        let want: Vec<String> = (0..each).map(|round| format!("{s} {round}")).collect();
        assert_eq!(aws.messages("g", &format!("pod-{s}")), want);
    }
    let (most, of_one) = aws.in_flight();
    assert!(most > 1 && of_one == 1, "{most} calls at once, {of_one} in one stream");
    let calls = aws.calls("PutLogEvents").iter().filter(|c| c.outcome == "ok").count();
    assert!(calls <= streams * 4, "{calls} calls for {streams} streams of {each} records");
    stop(router);
}

#[test]
fn an_idle_stream_sends_at_once_and_a_busy_one_collects() {
    let aws = CloudWatch::start();
    let router = start(&conf(&aws, "Flush 1", &format!("{NAMES}\nlog_key log")));
    let mut client = Sender::new(&router);
    (0..500).for_each(|i| client.send("app", &[line(&i.to_string())]));
    stored(&aws, 500);
    assert_eq!(aws.messages("g", "s"), (0..500).map(|i| i.to_string()).collect::<Vec<_>>());
    let calls = aws.calls("PutLogEvents").iter().filter(|c| c.outcome == "ok").count();
    assert!(calls <= 8, "{calls} calls for 500 records within a moment");
    stop(router);
}

#[test]
fn a_full_batch_is_full_to_the_last_byte() {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    let router = plain(&aws, "log_key log");
    let at = now();
    let text = "é".repeat((BATCH_BYTES / 8 - OVERHEAD) / 2);
    let entries: Vec<_> = (0..24).map(|_| entry_at(at, &text)).collect();
    Sender::new(&router).deliver("app", &entries);
    let bytes: Vec<usize> = aws.calls("PutLogEvents").iter().map(|c| c.bytes).collect();
    assert_eq!((aws.stored(), bytes), (24, vec![BATCH_BYTES; 3]));
    // One byte more than a batch may have.
    let entries: Vec<_> =
        (0..8).map(|n| entry_at(at, if n == 7 { format!("{text}x") } else { text.clone() })).collect();
    Sender::new(&router).deliver("app", &entries);
    let bytes: Vec<usize> = aws.calls("PutLogEvents")[3..].iter().map(|c| c.bytes).collect();
    assert_eq!(bytes, [BATCH_BYTES / 8 * 7, BATCH_BYTES / 8 + 1]);
    stop(router);
}

#[test]
fn times_that_the_service_cannot_have_spoil_no_batch() {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    let router = plain(&aws, "log_key log");
    let log = |text: &str| crate::support::forward::map(&[(b"log", text.as_bytes())]);
    // An integer before 1970, which is no time to the input; 0, which means now; far ahead in seconds, and more seconds
    // than milliseconds can count.
    let before = [&[0x92, 0xfb][..], &log("before")].concat();
    let zero = [&[0x92, 0x00][..], &log("zero")].concat();
    let ahead = [&[0x92, 0xce, 0xff, 0xff, 0xff, 0xff][..], &log("ahead")].concat();
    let most = [&[0x92, 0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &log("most")].concat();
    Sender::new(&router).deliver("app", &[line("a"), before, zero, line("b"), ahead, most, line("c")]);
    let mut messages = aws.messages("g", "s");
    messages.sort();
    assert_eq!(messages, ["a", "b", "c", "zero"]);
    let ended = stop(router);
    assert_eq!(ended.ledger.output("cloudwatch_logs.0", "delivered"), 4, "{}", ended.messages);
    let mut kept: Vec<String> = letters(ended.dir.path()).into_iter().map(|(_, log)| log).collect();
    kept.sort();
    assert_eq!(kept, ["", "ahead", "most"]);
}

/// A msgpack value of any kind, also such as no client should send.
fn any_value(random: &mut impl FnMut(usize) -> usize, depth: usize) -> Vec<u8> {
    let bytes = |random: &mut dyn FnMut(usize) -> usize| {
        let pieces: [&[u8]; 8] = [
            b"a",
            "\u{e9}".as_bytes(),
            "\u{1f600}".as_bytes(),
            b"\xff",
            b"\"",
            b"\\",
            b"\0",
            "\u{2028}".as_bytes(),
        ];
        (0..random(12)).flat_map(|_| pieces[random(8)].to_vec()).collect::<Vec<u8>>()
    };
    let kinds = if depth == 0 { 10 } else { 12 };
    match random(kinds) {
        0 => vec![0xc0],
        1 => vec![0xc2 + random(2) as u8],
        2 => vec![0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, random(256) as u8],
        3 => vec![0xd3, 0x80, 0, 0, 0, 0, 0, 0, random(256) as u8],
        4 => vec![random(128) as u8],
        5 => {
            let values = [0.5, -1e300, f64::MIN_POSITIVE, 1e21, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
            [&[0xcb][..], &values[random(7)].to_be_bytes()].concat()
        }
        6 => [&[0xca][..], &(random(1000) as f32 / 7.0).to_be_bytes()].concat(),
        7 => {
            let bytes = bytes(random);
            [&[0xc4, bytes.len() as u8][..], &bytes].concat()
        }
        8 => vec![0xd4, random(128) as u8, 7],
        9 => text(&bytes(random)),
        10 => {
            let n = random(4);
            let items: Vec<u8> = (0..n).flat_map(|_| any_value(random, depth - 1)).collect();
            [&[0x90 | n as u8][..], &items].concat()
        }
        _ => {
            let n = random(4);
            let items: Vec<u8> =
                (0..n).flat_map(|_| [text(&bytes(random)), any_value(random, depth - 1)].concat()).collect();
            [&[0x80 | n as u8][..], &items].concat()
        }
    }
}

#[test]
fn records_of_every_kind_are_json_in_a_body_that_is_json() {
    for lines in ["", "log_key log"] {
        let aws = CloudWatch::start();
        let router = plain(&aws, lines);
        let mut random = numbers();
        let count = 400;
        let entries: Vec<_> = (0..count)
            .map(|n| {
                let value = any_value(&mut random, 3);
                let record =
                    [&[0x82][..], &text(b"n"), &[0xcd, (n >> 8) as u8, n as u8], &text(b"log"), &value];
                entry_of(now(), &record.concat())
            })
            .collect();
        Sender::new(&router).deliver("app", &entries);
        let messages = aws.messages("g", "s");
        if lines.is_empty() {
            assert_eq!(messages.len(), count);
            for (n, message) in messages.iter().enumerate() {
                let record: serde_json::Value =
                    serde_json::from_str(message).unwrap_or_else(|e| panic!("{e} in {message}"));
                assert_eq!(record["n"], n);
            }
        }
        let ended = stop(router);
        let sum: u64 = ["delivered", "dropped_empty", "dead_lettered"]
            .iter()
            .map(|name| ended.ledger.output("cloudwatch_logs.0", name))
            .sum();
        assert_eq!(sum, count as u64);
        assert_eq!(ended.ledger.output("cloudwatch_logs.0", "delivered"), messages.len() as u64);
    }
}
