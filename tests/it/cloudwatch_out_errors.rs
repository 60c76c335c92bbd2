//! The CloudWatch Logs output and a service or a network that is not well: nothing is lost, nothing but what was in doubt
//! comes twice, and what the service will never take goes to the dead letters.

use std::time::Duration;

use crate::strict_cloudwatch::{Answer, CloudWatch, Options, Rule};
use crate::support::cloudwatch::{
    LETTERS, NAMES, Sender, called, conf, entry_at, first_of_each, key, letters, line, now, plain, start,
    stop, stored,
};
use crate::support::eventually;
use crate::support::forward::{map, time};
use crate::support::router::{Ended, free_port};

const LABEL: &str = "cloudwatch_logs.0";

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

fn lines(count: usize) -> Vec<Vec<u8>> {
    let at = now();
    (0..count).map(|i| entry_at(at, i.to_string())).collect()
}

/// Counters of the output by name.
fn counted(ended: &Ended, names: &[&str]) -> Vec<u64> {
    names.iter().map(|name| ended.ledger.output(LABEL, name)).collect()
}

/// A server where the group and the stream are there already.
fn ready() -> CloudWatch {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    aws
}

#[test]
fn throttling_is_no_attempt_and_loses_nothing() {
    for answer in [Answer::THROTTLING, Answer::LIMIT_EXCEEDED, Answer::TOO_MANY] {
        let aws = ready();
        aws.fault(Rule::put(answer).always());
        let router = plain(&aws, "log_key log\nRetry_Limit 1");
        let mut client = Sender::new(&router);
        client.send_to_ack("app", &lines(100), "1");
        called(&aws, "PutLogEvents", 4);
        aws.heal();
        client.expect("1");
        assert_eq!(aws.messages("g", "s"), numbers(100));
        let ended = stop(router);
        assert_eq!(counted(&ended, &["delivered", "dead_lettered", "dropped_retries"]), [100, 0, 0]);
    }
}

#[test]
fn an_answer_that_says_when_to_come_back_is_obeyed() {
    let aws = ready();
    aws.fault(Rule::put(Answer::Error {
        status: 429,
        name: "TooManyRequestsException",
        retry_after: Some(2),
    }));
    let router = plain(&aws, "log_key log");
    Sender::new(&router).deliver("app", &lines(1));
    let calls = aws.calls("PutLogEvents");
    assert_eq!(calls.len(), 2);
    let apart = calls[1].began - calls[0].began;
    assert!(apart >= Duration::from_secs(2), "{apart:?}");
    stop(router);
}

/// Ten records arrive once each where no failed attempt is allowed.
fn ten_arrive_without_a_retry(aws: &CloudWatch) {
    let router = plain(aws, "log_key log\nRetry_Limit no_retries");
    Sender::new(&router).deliver("app", &lines(10));
    assert_eq!(aws.messages("g", "s"), numbers(10));
    let ended = stop(router);
    assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [10, 0]);
}

#[test]
fn throttled_creation_is_no_attempt_either() {
    let aws = CloudWatch::start();
    aws.fault(Rule::on("CreateLogStream", Answer::THROTTLING).times(3));
    aws.fault(Rule::on("CreateLogGroup", Answer::LIMIT_EXCEEDED).times(2));
    aws.fault(Rule::on("CreateLogGroup", Answer::ABORTED).times(1));
    ten_arrive_without_a_retry(&aws);
}

#[test]
fn what_fails_before_it_is_stored_is_sent_again_and_arrives_once() {
    for answer in [
        Answer::INTERNAL,
        Answer::UNAVAILABLE,
        Answer::ABORTED,
        Answer::Reset,
        Answer::ResetBeforeBody,
        Answer::Html(200),
        Answer::Html(503),
        Answer::Html(404),
    ] {
        let aws = ready();
        aws.fault(Rule::put(answer.clone()).after(1).times(3));
        let router = plain(&aws, "log_key log");
        let mut client = Sender::new(&router);
        for i in 0..5 {
            client.send_to_ack("app", &[line(&i.to_string())], "x");
        }
        (0..5).for_each(|_| client.expect("x"));
        assert_eq!(aws.messages("g", "s"), numbers(5), "{answer:?}");
        let ended = stop(router);
        assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [5, 0], "{answer:?}");
    }
}

#[test]
fn a_captive_page_is_told_and_is_no_success() {
    let aws = ready();
    aws.fault(Rule::put(Answer::Html(200)).always());
    let router = plain(&aws, "log_key log");
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &lines(3), "1");
    router.says("not CloudWatch's");
    assert_eq!(aws.stored(), 0);
    aws.heal();
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), numbers(3));
    stop(router);
}

#[test]
fn an_answer_that_never_comes_is_given_up_in_time_and_repeats_one_call_at_most() {
    for (answer, twice) in [(Answer::Hang, false), (Answer::HangAfter, true), (Answer::ResetAfter, true)] {
        let aws = ready();
        let router = plain(&aws, "log_key log\nnet.io_timeout 1");
        let mut client = Sender::new(&router);
        client.deliver("app", &[line("before")]);
        aws.fault(Rule::put(answer.clone()));
        let chunk = |n: usize| (0..10).map(|i| line(&format!("{n} {i}"))).collect::<Vec<_>>();
        for n in 0..20 {
            client.send_to_ack("app", &chunk(n), "x");
        }
        (0..20).for_each(|_| client.expect("x"));
        let messages = aws.messages("g", "s");
        let want: Vec<String> = (0..200).map(|i| format!("{} {}", i / 10, i % 10)).collect();
        assert_eq!(first_of_each(&messages)[1..], want, "{answer:?}");
        let calls = aws.calls("PutLogEvents");
        let of_doubt: usize = calls.iter().filter(|c| c.outcome.ends_with(" after")).map(|c| c.events).sum();
        assert_eq!(messages.len() - 201, of_doubt, "{answer:?}");
        assert_eq!(of_doubt > 0, twice, "{answer:?}");
        let ended = stop(router);
        assert_eq!(counted(&ended, &["delivered"]), [201]);
    }
}

#[test]
fn a_connection_that_breaks_during_a_call_costs_nothing() {
    let aws = ready();
    let router = plain(&aws, "log_key log");
    let mut client = Sender::new(&router);
    client.deliver("app", &[line("0")]);
    aws.fault(Rule::put(Answer::Slow(Duration::from_secs(20))));
    client.send_to_ack("app", &[line("1")], "1");
    // The call is on its way.
    eventually("a call in flight", || (aws.with(|store| store.puts.now()) == 1).then_some(()));
    aws.cut();
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), ["0", "1"]);
    stop(router);
}

#[test]
fn a_service_that_is_away_for_a_while_gets_everything_once() {
    let aws = ready();
    aws.away(true);
    let router = plain(&aws, "log_key log");
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &lines(500), "1");
    router.says("cannot send");
    aws.away(false);
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), numbers(500));
    router.says("sending again");
    stop(router);
}

#[test]
fn poisoned_events_are_found_and_kept_and_all_others_arrive_once() {
    for answer in [
        Answer::INVALID,
        Answer::Error { status: 400, name: "SerializationException", retry_after: None },
        Answer::Error { status: 413, name: "RequestEntityTooLarge", retry_after: None },
        Answer::Html(413),
    ] {
        let aws = ready();
        aws.fault(Rule::put(answer.clone()).containing("poison").always());
        let router = plain(&aws, "log_key log\nRetry_Limit no_retries");
        let mut entries = lines(1000);
        for at in [17, 18, 999] {
            entries[at] = entry_at(now(), format!("poison {at}"));
        }
        let mut client = Sender::new(&router);
        client.deliver("app", &entries);
        client.deliver("app", &[line("after")]);
        let want: Vec<String> = (0..999).filter(|i| ![17, 18].contains(i)).map(|i| i.to_string()).collect();
        let messages = aws.messages("g", "s");
        assert_eq!(messages[..messages.len() - 1], want, "{answer:?}");
        let calls = aws.calls("PutLogEvents").len();
        assert!(calls <= 50, "{calls} calls to find three events in a thousand");
        let ended = stop(router);
        assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [998, 3]);
        let kept: Vec<_> = letters(ended.dir.path());
        let want: Vec<_> =
            [17, 18, 999].iter().map(|i| ("rejected".to_owned(), format!("poison {i}"))).collect();
        assert_eq!(kept, want);
    }
}

#[test]
fn without_dead_letters_a_poisoned_event_is_dropped_counted_and_told() {
    let aws = ready();
    aws.fault(Rule::put(Answer::INVALID).containing("poison").always());
    let router = start(&conf(&aws, "", &format!("{NAMES}\nlog_key log")));
    let mut client = Sender::new(&router);
    client.send("app", &[line("a"), line("poison"), line("b")]);
    stored(&aws, 2);
    client.send("app", &[line("c")]);
    stored(&aws, 3);
    let ended = router.stop();
    assert_eq!(ended.code, Some(1), "accepted records were given up");
    assert_eq!(counted(&ended, &["delivered", "dropped_rejected"]), [3, 1]);
}

#[test]
fn one_text_in_several_events_of_which_one_is_poisoned_is_one_dead_letter() {
    let aws = ready();
    aws.fault(Rule::put(Answer::INVALID).containing("poison").always());
    let router = plain(&aws, "log_key log\nmax_event_size 1000");
    let text = format!("{}poison{}", "x".repeat(1500), "y".repeat(2000));
    Sender::new(&router).deliver("app", &[line("a"), line(&text), line("b")]);
    let ended = stop(router);
    assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [2, 1]);
    assert_eq!(letters(ended.dir.path()), [("rejected".to_owned(), text)]);
}

#[test]
fn rejected_ranges_are_kept_and_counted_by_their_reason_and_not_sent_again() {
    let aws = ready();
    aws.fault(Rule::put(Answer::Rejected { too_old: Some(2), expired: Some(3), too_new: Some(8) }));
    let router = plain(&aws, "log_key log");
    let mut client = Sender::new(&router);
    client.deliver("app", &lines(10));
    client.deliver("app", &[line("after")]);
    let want: Vec<String> = (3..8).map(|i| i.to_string()).chain(["after".to_owned()]).collect();
    assert_eq!(aws.messages("g", "s"), want);
    assert_eq!(aws.calls("PutLogEvents").len(), 2);
    let ended = stop(router);
    assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [6, 5]);
    let mut kept = letters(ended.dir.path());
    kept.sort();
    let want = [("expired", "2"), ("too_new", "8"), ("too_new", "9"), ("too_old", "0"), ("too_old", "1")];
    assert_eq!(kept, want.map(|(r, l)| (r.to_owned(), l.to_owned())));
}

#[test]
fn events_that_the_service_really_rejects_are_kept_with_their_reason() {
    let aws = ready();
    aws.with(|store| store.groups.get_mut("g").unwrap().days = Some(3));
    let router = start(&conf(&aws, "", &format!("{NAMES}\nlog_key log")));
    let hour = 3_600_000;
    let at = |hours: i64, text: &str| entry_at(now() + hours * hour, text);
    let mut client = Sender::new(&router);
    client.send(
        "app",
        &[at(0, "good"), at(3, "new"), at(-15 * 24, "old"), at(-4 * 24, "expired"), at(1, "good")],
    );
    stored(&aws, 2);
    let ended = router.stop();
    assert_eq!(counted(&ended, &["delivered", "dropped_too_new"]), [2, 1], "{}", ended.messages);
    // What is older than 14 days is older than the retention, too.
    let old: u64 = counted(&ended, &["dropped_too_old", "dropped_expired"]).iter().sum();
    assert_eq!((old, counted(&ended, &["dropped_rejected"])), (2, vec![0]));
    assert_eq!(ended.code, Some(1));
}

#[test]
fn retry_limit_counts_failures_of_one_batch_and_gives_it_to_the_dead_letters() {
    let aws = ready();
    aws.fault(Rule::put(Answer::INTERNAL).always());
    let service = format!("{LETTERS}\nscheduler.base 1\nscheduler.cap 2");
    let router = start(&conf(&aws, &service, &format!("{NAMES}\nlog_key log\nRetry_Limit 1")));
    assert!(router.messages().contains("gives a batch up"), "{}", router.messages());
    let mut client = Sender::new(&router);
    client.deliver("app", &lines(3));
    assert_eq!(aws.calls("PutLogEvents").len(), 2, "one, and one more");
    aws.heal();
    client.deliver("app", &[line("after")]);
    assert_eq!(aws.messages("g", "s"), ["after"]);
    let ended = stop(router);
    assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [1, 3]);
    assert!(letters(ended.dir.path()).iter().all(|(reason, _)| reason == "retries"));
}

#[test]
fn a_batch_is_given_up_by_its_age_where_that_is_configured_throttled_or_not() {
    for answer in [Answer::INTERNAL, Answer::THROTTLING, Answer::DENIED] {
        let aws = ready();
        aws.fault(Rule::put(answer.clone()).always());
        let router = plain(&aws, "log_key log\nretry.max_age 2");
        let mut client = Sender::new(&router);
        client.deliver("app", &lines(3));
        let ended = stop(router);
        assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [0, 3], "{answer:?}");
        assert!(letters(ended.dir.path()).iter().all(|(reason, _)| reason == "retries"));
    }
}

#[test]
fn a_group_or_a_stream_that_is_deleted_is_created_again_and_gets_the_same_batch() {
    for (answer, groups, streams) in [(Answer::DeleteGroup, 1, 1), (Answer::DeleteStream, 0, 1)] {
        let aws = ready();
        let router = plain(&aws, "log_key log\nlog_retention_days 7\nRetry_Limit no_retries");
        let mut client = Sender::new(&router);
        client.deliver("app", &[line("gone")]);
        aws.fault(Rule::put(answer.clone()));
        client.deliver("app", &lines(10));
        assert_eq!(aws.messages("g", "s"), numbers(10), "{answer:?}");
        let made = (
            aws.calls("CreateLogGroup").len(),
            aws.calls("CreateLogStream").iter().filter(|c| c.outcome == "ok").count(),
        );
        assert_eq!(made, (groups, streams), "{answer:?}");
        assert_eq!(aws.group("g").days, (groups == 1).then_some(7));
        stop(router);
    }
}

#[test]
fn somebody_else_who_creates_them_in_the_same_moment_does_no_harm() {
    let aws = CloudWatch::start();
    let exists = Answer::Error { status: 400, name: "ResourceAlreadyExistsException", retry_after: None };
    let router = plain(&aws, "log_key log");
    aws.fault(Rule::on("CreateLogGroup", exists.clone()));
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &lines(10), "1");
    called(&aws, "CreateLogGroup", 1);
    aws.create("g", &["s"]);
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), numbers(10));
    stop(router);
}

#[test]
fn a_retention_that_cannot_be_set_is_told_and_costs_no_record() {
    let aws = CloudWatch::start();
    aws.fault(Rule::on("PutRetentionPolicy", Answer::DENIED).always());
    let router = plain(&aws, "log_key log\nlog_retention_days 7");
    Sender::new(&router).deliver("app", &lines(10));
    assert_eq!((aws.messages("g", "s"), aws.group("g").days), (numbers(10), None));
    let ended = stop(router);
    assert!(ended.messages.contains("retention"), "{}", ended.messages);
}

#[test]
fn a_name_that_the_service_does_not_take_costs_only_its_own_records() {
    let aws = CloudWatch::start();
    let names = "log_group_name g\nlog_stream_prefix p-\nauto_create_group on\nlog_key log";
    aws.fault(Rule::on("CreateLogStream", Answer::INVALID).stream("p-bad").always());
    let router = start(&conf(&aws, LETTERS, names));
    let mut client = Sender::new(&router);
    client.deliver("bad", &lines(50));
    client.deliver("good", &lines(50));
    assert_eq!(aws.messages("g", "p-good"), numbers(50));
    assert!(aws.calls("CreateLogStream").len() <= 5);
    let ended = stop(router);
    assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [50, 50]);
}

#[test]
fn one_stream_in_trouble_does_not_hold_the_others() {
    let aws = CloudWatch::start();
    aws.fault(Rule::put(Answer::INTERNAL).stream("p-bad").always());
    let names = "log_group_name g\nlog_stream_prefix p-\nauto_create_group on\nlog_key log";
    let router = start(&conf(&aws, LETTERS, names));
    let mut client = Sender::new(&router);
    client.send_to_ack("bad", &lines(50), "bad");
    let mut other = Sender::new(&router);
    for _ in 0..20 {
        other.deliver("good", &lines(50));
    }
    assert_eq!(aws.messages("g", "p-good").len(), 1000);
    assert!(
        aws.calls("PutLogEvents").iter().any(|c| (c.group.as_str(), c.stream.as_str()) == ("g", "p-bad"))
    );
    aws.heal();
    client.expect("bad");
    assert_eq!(aws.messages("g", "p-bad"), numbers(50));
    stop(router);
}

#[test]
fn order_within_a_stream_holds_whatever_goes_wrong() {
    let aws = CloudWatch::start();
    let answers = [
        Answer::THROTTLING,
        Answer::INTERNAL,
        Answer::Reset,
        Answer::ResetBeforeBody,
        Answer::ABORTED,
        Answer::Slow(Duration::from_millis(50)),
        Answer::Html(200),
        Answer::DeleteStream,
    ];
    aws.fault(Rule::put(Answer::INVALID).containing("poison").always());
    // Every other call goes wrong, each time in another way, until there are no more of them.
    for (n, answer) in answers.iter().cycle().take(24).enumerate() {
        if !matches!(answer, Answer::DeleteStream) || n > 16 {
            aws.fault(Rule::put(answer.clone()).after(2 * n % 5));
        }
    }
    let names = "log_group_name g\nlog_stream_prefix p-\nauto_create_group on\nlog_key log";
    let router = start(&conf(&aws, LETTERS, names));
    let mut client = Sender::new(&router);
    let mut sent = Vec::new();
    for n in 0..60 {
        let entries: Vec<_> = (0..50)
            .map(|i| {
                let text = if i == 25 { format!("{n} poison") } else { format!("{n} {i}") };
                if i != 25 {
                    sent.push(text.clone());
                }
                entry_at(now(), text)
            })
            .collect();
        client.send_to_ack(["a", "b"][n % 2], &entries, &n.to_string());
    }
    let ended = {
        eventually("all is settled", || (router_settled(&aws, &sent) >= sent.len()).then_some(()));
        stop(router)
    };
    assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [60 * 49, 60]);
    let seen: Vec<Vec<String>> = ["p-a", "p-b"].iter().map(|s| aws.messages("g", s)).collect();
    for (stream, messages) in seen.iter().enumerate() {
        let order: Vec<(usize, usize)> = messages
            .iter()
            .map(|m| m.split_once(' ').unwrap())
            .map(|(n, i)| (n.parse().unwrap(), i.parse().unwrap()))
            .collect();
        assert!(order.is_sorted(), "stream {stream} is out of order");
    }
    assert_eq!(aws.in_flight().1, 1);
}

#[test]
fn a_stream_that_is_not_seen_at_once_after_it_was_created_is_waited_for() {
    let aws = CloudWatch::start();
    let missing = Answer::Error { status: 400, name: "ResourceNotFoundException", retry_after: None };
    aws.fault(Rule::put(missing).times(4));
    ten_arrive_without_a_retry(&aws);
}

#[test]
fn nobody_listens_at_first_and_again_in_the_middle_and_all_arrives() {
    let port = free_port();
    let aws = CloudWatch::start_with(Options { port, ..Options::default() });
    let router_conf = conf(&aws, LETTERS, &format!("{NAMES}\nlog_key log"));
    drop(aws);
    let router = start(&router_conf);
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &[line("0")], "1");
    router.says("nobody listens there");
    let aws = CloudWatch::start_with(Options { port, ..Options::default() });
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), ["0"]);
    drop(aws);
    client.send_to_ack("app", &[line("1")], "2");
    client.expect_silence();
    let aws = CloudWatch::start_with(Options { port, ..Options::default() });
    client.expect("2");
    assert_eq!(aws.messages("g", "s"), ["1"]);
    stop(router);
}

#[test]
fn what_was_given_up_comes_back_with_replay() {
    let aws = ready();
    aws.fault(Rule::put(Answer::INTERNAL).always());
    let router = plain(&aws, "log_key log\nRetry_Limit no_retries");
    Sender::new(&router).deliver("app", &lines(10));
    let ended = stop(router);
    assert_eq!(letters(ended.dir.path()).len(), 10);
    aws.heal();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_firelane"))
        .arg("replay")
        .arg(ended.dir.path().join("dead"))
        .arg("-c")
        .arg(ended.dir.path().join("router.conf"))
        .arg("--remove")
        .envs(key())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(aws.messages("g", "s"), numbers(10));
}

#[test]
fn an_ack_comes_after_the_answer() {
    let aws = ready();
    let router = plain(&aws, "log_key log");
    aws.fault(Rule::put(Answer::Slow(Duration::from_secs(1))));
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &lines(3), "1");
    client.expect_silence();
    client.expect("1");
    assert_eq!(aws.stored(), 3);
    stop(router);
}

#[test]
fn a_batch_of_which_nothing_is_taken_is_settled() {
    let aws = ready();
    aws.fault(Rule::put(Answer::Rejected { too_old: Some(10), expired: None, too_new: None }));
    aws.fault(Rule::put(Answer::INVALID).times(200));
    let router = plain(&aws, "log_key log");
    let mut client = Sender::new(&router);
    client.deliver("app", &lines(10));
    client.deliver("app", &lines(60));
    let ended = stop(router);
    assert_eq!((aws.stored(), counted(&ended, &["delivered", "dead_lettered"])), (0, vec![0, 70]));
}

#[test]
fn a_service_that_throttles_is_not_hammered() {
    let aws = CloudWatch::start();
    let names: Vec<String> = (0..50).map(|n| format!("p-t{n}")).collect();
    aws.create("g", &names.iter().map(String::as_str).collect::<Vec<_>>());
    aws.fault(Rule::put(Answer::THROTTLING).always());
    let router = start(&conf(&aws, LETTERS, "log_group_name g\nlog_stream_prefix p-\nlog_key log"));
    let mut client = Sender::new(&router);
    (0..50).for_each(|n| client.send(&format!("t{n}"), &lines(2)));
    router.says("throttled");
    // A few seconds of it.
    (0..8).for_each(|_| client.expect_silence());
    let calls = aws.calls("PutLogEvents").len();
    assert!((2..=300).contains(&calls), "{calls} calls in three seconds");
    aws.heal();
    stored(&aws, 100);
    stop(router);
}

#[test]
fn an_output_whose_service_is_away_does_not_hold_another_one() {
    let (aws, other) = (ready(), ready());
    other.away(true);
    let lines_of = |aws: &CloudWatch| conf(aws, "", &format!("{NAMES}\nlog_key log"));
    let second = lines_of(&other);
    let (_, second) = second.split_once("[OUTPUT]").unwrap();
    let router = start(&format!("{}[OUTPUT]{second}", lines_of(&aws)));
    let mut client = Sender::new(&router);
    (0..20).for_each(|_| client.send("app", &lines(10)));
    stored(&aws, 200);
    assert_eq!(other.stored(), 0);
    other.away(false);
    stored(&other, 200);
    stop(router);
}

#[test]
fn a_format_that_no_header_can_hold_is_passed_over_and_its_record_arrives() {
    let aws = ready();
    let router = plain(&aws, "log_key log");
    let mut client = Sender::new(&router);
    let formats: [&[u8]; 5] = [b"a\nb", b"\0", b"\x7f", b"\xff", b""];
    let odd = |format: &&[u8]| {
        let metadata = map(&[(b"x-amzn-logs-format", *format)]);
        [&[0x92, 0x92][..], &time((now() / 1000) as u32), &metadata, &map(&[(b"log", b"odd")])].concat()
    };
    client.deliver("app", &formats.iter().map(odd).collect::<Vec<_>>());
    client.deliver("app", &lines(3));
    assert_eq!(aws.messages("g", "s").len(), 8);
    assert!(aws.calls("PutLogEvents").iter().all(|c| c.format.is_empty()));
    let ended = stop(router);
    assert_eq!(counted(&ended, &["delivered", "dead_lettered"]), [8, 0]);
}

#[test]
fn a_group_that_is_refused_for_its_tags_costs_no_record() {
    let aws = CloudWatch::start();
    aws.fault(Rule::on("CreateLogGroup", Answer::INVALID).always());
    let router = plain(&aws, "log_key log\nnew_log_group_tags owner=me");
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &lines(10), "1");
    router.says("check new_log_group_tags and log_group_class, or create group g by hand");
    aws.create("g", &["s"]);
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), numbers(10));
    let ended = stop(router);
    assert_eq!(counted(&ended, &["delivered", "dropped_rejected"]), [10, 0]);
}

#[test]
fn each_kind_of_trouble_is_told_once_and_the_end_of_it_when_no_stream_has_any() {
    let aws = CloudWatch::start();
    aws.create("g", &["p-bad", "p-good"]);
    aws.fault(Rule::put(Answer::DENIED).stream("p-bad").always());
    let names = "log_group_name g\nlog_stream_prefix p-\nlog_key log";
    let router = start(&conf(&aws, LETTERS, names));
    let mut client = Sender::new(&router);
    client.send_to_ack("bad", &lines(5), "bad");
    router.says("the role's policy has to allow logs:PutLogEvents");
    let mut other = Sender::new(&router);
    for _ in 0..3 {
        other.deliver("good", &lines(5));
    }
    assert!(!router.messages().contains("sending again"), "{}", router.messages());
    aws.heal();
    aws.fault(Rule::put(Answer::INTERNAL).stream("p-bad"));
    client.expect("bad");
    router.says("sending again");
    let ended = stop(router);
    let told = |words: &str| ended.messages.matches(words).count();
    assert_eq!(
        (told("cannot send;"), told("stream=p-bad"), told("sending again")),
        (2, 2, 1),
        "{}",
        ended.messages
    );
    assert!(ended.messages.contains("InternalFailure"), "{}", ended.messages);
}

#[test]
fn streams_are_not_created_where_that_is_not_wanted() {
    let aws = CloudWatch::start();
    aws.create("g", &[]);
    let router = start(&conf(&aws, LETTERS, "log_group_name g\nlog_stream_name s\nauto_create_stream off"));
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &lines(3), "1");
    router.says("auto_create_stream");
    assert_eq!(aws.calls("CreateLogStream").len(), 0);
    aws.create("g", &["s"]);
    client.expect("1");
    stop(router);
}

/// How many of these were taken by a call, also those of a stream that was deleted later.
fn router_settled(aws: &CloudWatch, sent: &[String]) -> usize {
    let taken: usize = aws.calls("PutLogEvents").iter().filter(|c| c.outcome == "ok").map(|c| c.events).sum();
    taken.min(sent.len())
}
