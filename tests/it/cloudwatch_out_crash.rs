//! The CloudWatch Logs output and the end of the process: kill -9 loses nothing that was acked, SIGTERM drains.

use std::time::Duration;

use crate::strict_cloudwatch::{Answer, CloudWatch, Rule};
use crate::support::cloudwatch::{
    NAMES, Sender, conf, directory, entry_of, first_of_each, key, letters, line, line_with, now, stop,
};
use crate::support::eventually;
use crate::support::forward::map;
use crate::support::router::Router;

fn stored_conf(aws: &CloudWatch) -> String {
    conf(aws, "storage.path {dir}/storage\nstorage.sync full", &format!("{NAMES}\nlog_key log"))
}

#[test]
fn nothing_acked_is_lost_at_a_kill_and_only_what_was_on_its_way_comes_twice() {
    let aws = CloudWatch::start();
    let mut dir = directory();
    let mut next = 0;
    // What was stored twice may have been in one call for each kill.
    let mut doubt = 0;
    for round in 0..6 {
        let router = Router::start_with(dir, &stored_conf(&aws), &key());
        if round % 2 == 0 {
            aws.fault(Rule::put(Answer::Slow(Duration::from_millis(20))).times(40));
        } else {
            aws.fault(Rule::put(Answer::HangAfter).after(3));
        }
        let mut client = Sender::new(&router);
        for _ in 0..30 {
            let entries: Vec<_> = (0..20).map(|i| line(&(next + i).to_string())).collect();
            client.send_to_ack("app", &entries, "x");
            client.expect("x");
            next += 20;
        }
        dir = router.kill();
        aws.heal();
        doubt += 1;
    }
    let router = Router::start_with(dir, &stored_conf(&aws), &key());
    let want: Vec<String> = (0..next).map(|i| i.to_string()).collect();
    let messages = eventually("all that was acked is there", || {
        let messages = aws.messages("g", "s");
        (first_of_each(&messages).len() >= want.len()).then_some(messages)
    });
    assert_eq!(first_of_each(&messages), want);
    let most = aws.calls("PutLogEvents").iter().map(|c| c.events).max().unwrap();
    let twice = messages.len() - want.len();
    assert!(twice <= 2 * doubt * most, "{twice} events came twice, calls have {most} at most");
    assert_eq!(stop(router).ledger.output("cloudwatch_logs.0", "held"), 0);
}

/// How many records of unsettled frames the log's cursor knows to be through (docs/wal.md).
fn marked(storage: &std::path::Path) -> usize {
    let bytes = std::fs::read(storage.join("owner-0001.cur")).unwrap();
    let size = (bytes.len() - 8192) / 2;
    let slot = [0, 1]
        .map(|i| &bytes[8192 + i * size..][..size])
        .into_iter()
        .max_by_key(|s| u64::from_le_bytes(s[8..16].try_into().unwrap()))
        .unwrap();
    let word = |at: usize| u32::from_le_bytes(slot[at..at + 4].try_into().unwrap());
    if word(4) & 1 << 30 == 0 {
        return 0;
    }
    let mut at = 28;
    let number = |at: &mut usize| {
        let len = slot[*at..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        *at += len;
        slot[*at - len..*at].iter().rev().fold(0, |n, byte| n << 7 | usize::from(byte & 0x7f))
    };
    let mut marked = 0;
    while at < 28 + word(24) as usize {
        number(&mut at);
        let length = number(&mut at);
        let end = at + length / 2;
        if length % 2 == 0 {
            marked += slot[at..end].iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
            at = end;
        }
        let mut settled = true;
        while at < end {
            let run = number(&mut at);
            marked += if settled { run } else { 0 };
            settled = !settled;
        }
    }
    marked
}

#[test]
fn a_stream_that_is_stuck_does_not_make_others_come_twice_after_the_next_start() {
    // A chunk for each call: more than four kilobytes of marks.
    let chunks = 400;
    for (killed, answer) in [(false, Answer::INTERNAL), (true, Answer::INTERNAL), (true, Answer::THROTTLING)]
    {
        let aws = CloudWatch::start();
        aws.create("g", &["good", "stuck"]);
        aws.fault(Rule::put(answer).stream("stuck").always());
        let lines = "log_group_name g\nlog_stream_name none\nlog_stream_template $pod\nlog_key log";
        let conf = conf(&aws, "storage.path {dir}/storage", lines).replace("Grace 10", "Grace 2");
        let router = Router::start_with(directory(), &conf, &key());
        let mut client = Sender::new(&router);
        let pod = |i: usize| if i % 10 == 9 { "stuck" } else { "good" };
        for n in 0..chunks {
            let entries: Vec<_> =
                (0..10).map(|i| line_with(&(n * 10 + i).to_string(), &[("pod", pod(i))])).collect();
            client.send_to_ack("app", &entries, "x");
            client.expect("x");
        }
        eventually("the good ones", || (aws.messages("g", "good").len() >= chunks * 9).then_some(()));
        if killed {
            // What came through within the last second may come again.
            eventually("the log knows of them", || {
                (marked(&router.path("storage")) >= chunks * 9).then_some(())
            });
        }
        let dir = if killed { router.kill() } else { stop(router).dir };
        aws.heal();
        let router = Router::start_with(dir, &conf, &key());
        let stuck = eventually("the stuck ones", || {
            let messages = aws.messages("g", "stuck");
            (messages.len() >= chunks).then_some(messages)
        });
        assert_eq!(stop(router).ledger.output("cloudwatch_logs.0", "held"), 0);
        assert_eq!(stuck, (0..chunks).map(|n| (n * 10 + 9).to_string()).collect::<Vec<_>>());
        let twice = aws.messages("g", "good").len() - chunks * 9;
        assert!(twice <= 10, "killed {killed}: {twice} came twice");
    }
}

#[test]
fn what_was_rejected_beside_a_stream_that_is_stuck_is_not_rejected_again_after_the_next_start() {
    let chunks = 20;
    for killed in [false, true] {
        let aws = CloudWatch::start();
        aws.create("g", &["good", "stuck"]);
        aws.fault(Rule::put(Answer::INTERNAL).stream("stuck").always());
        let lines = "log_group_name g\nlog_stream_name none\nlog_stream_template $pod\nlog_key log";
        let service = "storage.path {dir}/storage\ndead_letter.path {dir}/dead";
        let conf = conf(&aws, service, lines).replace("Grace 10", "Grace 2");
        let router = Router::start_with(directory(), &conf, &key());
        let mut client = Sender::new(&router);
        let at = |days: i64, log: &str, pod: &str| {
            entry_of(now() + days * 86_400_000, &map(&[(b"log", log.as_bytes()), (b"pod", pod.as_bytes())]))
        };
        for n in 0..chunks {
            let text = |i: usize| (n * 10 + i).to_string();
            let mut entries: Vec<_> = (0..5).map(|i| at(0, &text(i), "good")).collect();
            entries.extend((5..9).map(|i| at(-20, &text(i), "good")));
            entries.push(at(0, &text(9), "stuck"));
            client.send_to_ack("app", &entries, "x");
            client.expect("x");
        }
        eventually("the old ones are dead letters", || {
            (letters(&router.path("")).len() >= chunks * 4).then_some(())
        });
        eventually("the log knows of them", || (marked(&router.path("storage")) >= chunks * 9).then_some(()));
        let dir = if killed { router.kill() } else { stop(router).dir };
        aws.heal();
        let router = Router::start_with(dir, &conf, &key());
        eventually("the stuck ones", || (aws.messages("g", "stuck").len() >= chunks).then_some(()));
        let dir = stop(router).dir;
        let mut old: Vec<usize> = letters(dir.path())
            .into_iter()
            .map(|(reason, text)| {
                assert_eq!(reason, "too_old");
                text.parse().unwrap()
            })
            .collect();
        old.sort_unstable();
        assert_eq!(old, (0..chunks * 10).filter(|n| (5..9).contains(&(n % 10))).collect::<Vec<_>>());
        assert_eq!(aws.messages("g", "good").len(), chunks * 5);
    }
}

#[test]
fn a_kill_in_the_middle_of_the_search_for_a_poisoned_event_loses_nothing() {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    aws.fault(Rule::put(Answer::INVALID).containing("poison").always());
    aws.fault(Rule::put(Answer::Slow(Duration::from_millis(50))).always());
    let mut dir = directory();
    let entries: Vec<_> =
        (0..500).map(|i| line(&if i % 100 == 7 { format!("poison {i}") } else { i.to_string() })).collect();
    for round in 0..3 {
        let router = Router::start_with(dir, &stored_conf(&aws), &key());
        if round == 0 {
            Sender::new(&router).deliver("app", &entries);
        }
        let before = aws.calls("PutLogEvents").len();
        eventually("a few more calls", || (aws.calls("PutLogEvents").len() > before + 5).then_some(()));
        dir = router.kill();
    }
    let router = Router::start_with(dir, &stored_conf(&aws), &key());
    let want: Vec<String> = (0..500).filter(|i| i % 100 != 7).map(|i| i.to_string()).collect();
    eventually("all that is good", || {
        let mut all = first_of_each(&aws.messages("g", "s"));
        all.sort_by_key(|m| m.parse::<u32>().unwrap());
        (all == want).then_some(())
    });
    let ended = stop(router);
    let file = ended.dir.path().join("storage/dead_letter/dead-letters.jsonl");
    let kept = std::fs::read_to_string(file).unwrap();
    (0..500).filter(|i| i % 100 == 7).for_each(|i| assert!(kept.contains(&format!("poison {i}")), "{i}"));
}

#[test]
fn with_storage_a_stop_in_an_outage_keeps_records_and_they_come_once_after_the_next_start() {
    let aws = CloudWatch::start();
    aws.fault(Rule::put(Answer::UNAVAILABLE).always());
    let conf = stored_conf(&aws).replace("Grace 10", "Grace 2");
    let router = Router::start_with(directory(), &conf, &key());
    let mut client = Sender::new(&router);
    for n in 0..50 {
        let entries: Vec<_> = (0..20).map(|i| line(&(n * 20 + i).to_string())).collect();
        client.send_to_ack("app", &entries, "x");
        client.expect("x");
    }
    let ended = stop(router);
    assert_eq!((aws.stored(), ended.ledger.output("cloudwatch_logs.0", "held")), (0, 1000));
    aws.heal();
    let router = Router::start_with(ended.dir, &conf, &key());
    eventually("all of it", || (aws.stored() >= 1000).then_some(()));
    let ended = stop(router);
    assert_eq!(aws.messages("g", "s"), (0..1000).map(|i| i.to_string()).collect::<Vec<_>>());
    assert_eq!(ended.ledger.output("cloudwatch_logs.0", "recovered"), 1000);
}

#[test]
fn a_stop_while_the_service_throttles_sends_what_there_is() {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    aws.fault(Rule::put(Answer::THROTTLING).times(5));
    let router = Router::start_with(directory(), &conf(&aws, "", &format!("{NAMES}\nlog_key log")), &key());
    let mut client = Sender::new(&router);
    (0..100).for_each(|i| client.send("app", &[line(&i.to_string())]));
    router.says("throttled");
    let ended = stop(router);
    assert_eq!(aws.messages("g", "s"), (0..100).map(|i| i.to_string()).collect::<Vec<_>>());
    assert_eq!(ended.ledger.output("cloudwatch_logs.0", "delivered"), 100);
}

#[test]
fn a_stop_without_an_answer_in_time_is_accounted_for() {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    aws.fault(Rule::put(Answer::Hang).always());
    let conf = conf(&aws, "", NAMES).replace("Grace 10", "Grace 1");
    let router = Router::start_with(directory(), &conf, &key());
    let mut client = Sender::new(&router);
    client.send("app", &[line("a"), line("b")]);
    eventually("a call", || (!aws.calls("PutLogEvents").is_empty()).then_some(()));
    let ended = router.stop();
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.ledger.output("cloudwatch_logs.0", "dropped_shutdown"), 2);
}

/// Numbers that look random and are the same for a seed.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

/// Whatever happens, in any order: nothing acked is lost, every stream's records first come in their order, and only
/// calls in doubt come twice.
#[test]
fn chaos_loses_nothing_and_keeps_the_order_of_every_stream() {
    for seed in 1..=4 {
        let mut random = numbers(seed);
        let aws = CloudWatch::start();
        let lines =
            "log_group_name g\nlog_stream_prefix p-\nauto_create_group on\nlog_key log\nnet.io_timeout 1";
        let conf = conf(&aws, "storage.path {dir}/storage", lines);
        let mut dir = directory();
        let (mut next, mut kills) = (0, 0);
        for _ in 0..3 {
            let router = Router::start_with(dir, &conf, &key());
            let mut client = Sender::new(&router);
            for _ in 0..25 {
                let answer = match random(12) {
                    0 => Answer::THROTTLING,
                    1 => Answer::INTERNAL,
                    2 => Answer::Reset,
                    3 => Answer::ResetBeforeBody,
                    4 => Answer::ResetAfter,
                    5 => Answer::HangAfter,
                    6 => Answer::Html(200),
                    7 => Answer::ABORTED,
                    8 => Answer::EXPIRED,
                    _ => Answer::Slow(Duration::from_millis(30)),
                };
                aws.fault(Rule::put(answer).after(random(4)));
                let stream = random(5);
                let entries: Vec<_> = (0..10).map(|i| line(&format!("{stream} {}", next + i))).collect();
                client.send_to_ack(&format!("t{stream}"), &entries, "x");
                client.expect("x");
                next += 10;
            }
            dir = router.kill();
            kills += 1;
        }
        aws.heal();
        let router = Router::start_with(dir, &conf, &key());
        let all = eventually(&format!("seed {seed}: all that was acked is there"), || {
            let all: Vec<Vec<String>> =
                (0..5).map(|s| first_of_each(&aws.messages("g", &format!("p-t{s}")))).collect();
            (all.iter().map(Vec::len).sum::<usize>() == next).then_some(all)
        });
        for (s, messages) in all.iter().enumerate() {
            let numbers: Vec<usize> =
                messages.iter().map(|m| m.strip_prefix(&format!("{s} ")).unwrap().parse().unwrap()).collect();
            assert!(numbers.is_sorted(), "seed {seed}, stream {s}: {numbers:?}");
        }
        let calls = aws.calls("PutLogEvents");
        let doubt: usize = calls.iter().filter(|c| c.outcome.ends_with(" after")).map(|c| c.events).sum();
        let most = calls.iter().map(|c| c.events).max().unwrap();
        let twice = aws.stored() - next;
        // At a kill up to 32 calls may be on their way, one for each of five streams, and as many verdicts.
        assert!(twice <= doubt + kills * 2 * 5 * most, "seed {seed}: {twice} twice, {doubt} in doubt");
        stop(router);
    }
}
