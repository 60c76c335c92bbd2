//! The CloudWatch Logs output and a service that is well: what a record becomes, what is created, how it is reached.

use crate::strict_cloudwatch::{Answer, CloudWatch, Options, Rule};
use crate::support::cloudwatch::{
    LETTERS, NAMES, Sender, conf, directory, entry_of, key, letters, line, line_with, log_of, nested, now,
    plain, start, stop, stored,
};
use crate::support::eventually;
use crate::support::forward::{map, text};
use crate::support::router::Router;

#[test]
fn a_record_is_stored_as_json_with_its_time_in_a_group_and_a_stream_that_are_created_once() {
    let aws = CloudWatch::start();
    let router = plain(&aws, "");
    let mut client = Sender::new(&router);
    let at = now() - 1234;
    let record =
        [&[0x82][..], &text(b"log"), &text("é \"x\"\n".as_bytes()), &text(b"n"), &[0xcd, 1, 2]].concat();
    client.deliver("app", &[entry_of(at, &record)]);
    let events = aws.events("g", "s");
    assert_eq!((events.len(), events[0].timestamp), (1, at));
    // As Fluent Bit writes it, unless json.escape_unicode is off.
    assert_eq!(events[0].message, "{\"log\":\"\\u00e9 \\\"x\\\"\\n\",\"n\":258}");
    (0..10).for_each(|i| client.deliver("app", &[line(&i.to_string())]));
    let logs: Vec<String> = aws.messages("g", "s")[1..].iter().map(|m| log_of(m)).collect();
    assert_eq!(logs, (0..10).map(|i| i.to_string()).collect::<Vec<_>>());
    for operation in ["CreateLogGroup", "CreateLogStream"] {
        let made = aws.calls(operation).iter().filter(|c| c.outcome == "ok").count();
        assert_eq!((made, aws.calls(operation).len() <= 2), (1, true), "{operation}");
    }
    assert_eq!(aws.calls("PutRetentionPolicy").len(), 0);
    let ended = stop(router);
    assert_eq!(ended.ledger.output("cloudwatch_logs.0", "delivered"), 11);
}

#[test]
fn a_group_is_created_with_its_retention_class_and_tags() {
    let aws = CloudWatch::start();
    let router = plain(
        &aws,
        "log_retention_days 30\nlog_group_class INFREQUENT_ACCESS\nnew_log_group_tags team=web,env=a b",
    );
    Sender::new(&router).deliver("app", &[line("a")]);
    let group = aws.group("g");
    assert_eq!((group.days, group.class.as_deref()), (Some(30), Some("INFREQUENT_ACCESS")));
    let tags: Vec<_> = group.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(tags, [("env", "a b"), ("team", "web")]);
    stop(router);
}

#[test]
fn with_log_key_the_message_is_that_field() {
    let aws = CloudWatch::start();
    let router = plain(&aws, "log_key log");
    let mut client = Sender::new(&router);
    let of = |value: &[u8]| entry_of(now(), &nested("log", value));
    client.deliver(
        "app",
        &[
            of(&text(b"plain text")),
            of(&[0xcd, 0x04, 0xd2]),
            of(&map(&[(b"a", b"b")])),
            of(&[0xc3]),
            of(&[0xa4, b'b', 0xff, b'd', b'!']),
        ],
    );
    assert_eq!(aws.messages("g", "s"), ["plain text", "1234", "{\"a\":\"b\"}", "true", "b\u{fffd}d!"]);
    stop(router);
}

#[test]
fn a_record_without_the_field_or_with_nothing_in_it_is_not_lost_in_silence() {
    let aws = CloudWatch::start();
    let router = plain(&aws, "log_key log");
    let mut client = Sender::new(&router);
    // A key of which log_key is only a part, and the other way round.
    let other = |key: &str| entry_of(now(), &map(&[(key.as_bytes(), b"x")]));
    client.deliver("app", &[other("lo"), other("logs"), line(""), line("good")]);
    assert_eq!(aws.messages("g", "s"), ["good"]);
    let ended = stop(router);
    let label = "cloudwatch_logs.0";
    assert_eq!(ended.ledger.output(label, "delivered"), 1, "{}", ended.messages);
    let given_up: u64 = ["dead_lettered", "dropped_empty", "dropped_rejected"]
        .iter()
        .map(|name| ended.ledger.output(label, name))
        .sum();
    assert_eq!(given_up, 3, "{}", ended.messages);
    assert!(letters(ended.dir.path()).len() >= 2);
}

#[test]
fn without_auto_create_group_records_wait_until_somebody_creates_it() {
    let aws = CloudWatch::start();
    let router = start(&conf(&aws, LETTERS, "log_group_name g\nlog_stream_name s\nlog_key log"));
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &[line("a")], "1");
    router.says("log group g does not exist");
    assert_eq!(aws.calls("CreateLogGroup").len(), 0);
    aws.create("g", &[]);
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), ["a"]);
    stop(router);
}

#[test]
fn groups_and_streams_that_are_there_are_used_as_they_are() {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    let router = plain(&aws, "");
    Sender::new(&router).deliver("app", &[line("a")]);
    assert_eq!((aws.calls("CreateLogGroup").len(), aws.stored()), (0, 1));
    stop(router);
}

#[test]
fn many_streams_of_a_missing_group_create_it_once() {
    let aws = CloudWatch::start();
    aws.fault(Rule::on("CreateLogGroup", Answer::Slow(std::time::Duration::from_millis(300))).always());
    let names =
        "log_group_name g\nlog_stream_prefix p-\nauto_create_group on\nlog_key log\nlog_retention_days 7";
    let router = start(&conf(&aws, LETTERS, names));
    let mut client = Sender::new(&router);
    (0..20).for_each(|i| client.send(&format!("t{i}"), &[line("a")]));
    stored(&aws, 20);
    assert_eq!(aws.calls("CreateLogGroup").len(), 1);
    assert_eq!(aws.calls("PutRetentionPolicy").len(), 1);
    assert_eq!(
        (aws.calls("CreateLogStream").len() - 1) / 20,
        1,
        "once each, and those before the group was there"
    );
    assert_eq!(aws.group("g").streams.len(), 20);
    stop(router);
}

#[test]
fn the_format_header_and_the_user_agent_are_sent() {
    let aws = CloudWatch::start();
    let router = plain(&aws, "log_format json/emf\nextra_user_agent my-tag/1");
    Sender::new(&router).deliver("app", &[line("a")]);
    let put = aws.calls("PutLogEvents").pop().unwrap();
    assert_eq!(put.format, "json/emf");
    assert!(put.user_agent.contains("my-tag/1"), "{}", put.user_agent);
    stop(router);
}

#[test]
fn bodies_are_gzipped_when_that_is_wanted_and_only_then() {
    for (lines, want) in [("compress gzip", true), ("compress off", false), ("", false)] {
        let aws = CloudWatch::start();
        let router = plain(&aws, lines);
        let many: Vec<Vec<u8>> = (0..3000).map(|i| line(&format!("{i} {}", "x".repeat(500)))).collect();
        Sender::new(&router).deliver("app", &many);
        assert_eq!(aws.stored(), 3000);
        assert!(aws.calls("PutLogEvents").iter().all(|c| c.gzip == want), "{lines}");
        stop(router);
    }
}

/// A server with TLS, and a router with these lines.
fn over_tls(lines: &str) -> (CloudWatch, Router) {
    let aws = CloudWatch::start_with(Options { tls: true, ..Options::default() });
    let router = Router::start_with(directory(), &conf(&aws, LETTERS, &format!("{NAMES}\n{lines}")), &key());
    (aws, router)
}

#[test]
fn over_tls_the_certificate_is_verified_unless_told_otherwise() {
    for lines in
        ["tls.ca_file {dir}/ca.pem", "tls.verify off", "tls on\ntls.verify on\ntls.ca_file {dir}/ca.pem"]
    {
        let (aws, router) = over_tls(lines);
        let mut client = Sender::new(&router);
        (0..3).for_each(|_| client.deliver("app", &[line("a")]));
        assert_eq!(aws.stored(), 3, "{lines}");
        stop(router);
    }
    let (aws, router) = over_tls("Retry_Limit no_retries");
    Sender::new(&router).deliver("app", &[line("a")]);
    let ended = stop(router);
    assert!(ended.messages.contains("certificate"), "{}", ended.messages);
    assert_eq!(
        (letters(ended.dir.path()), aws.calls("PutLogEvents").len()),
        (vec![("retries".into(), "a".into())], 0)
    );
}

#[test]
fn a_certificate_for_another_name_is_refused_unless_told_otherwise() {
    for lines in ["tls.vhost localhost", "tls.verify_hostname off"] {
        let aws = CloudWatch::start_with(Options { tls: true, ..Options::default() });
        let ip = format!("endpoint https://127.0.0.1:{}\ntls.ca_file {{dir}}/ca.pem", aws.port());
        let router = start(&conf(&aws, LETTERS, &format!("{NAMES}\n{ip}\n{lines}")));
        Sender::new(&router).deliver("app", &[line("a")]);
        assert_eq!(aws.stored(), 1);
        stop(router);
        let router = start(&conf(&aws, LETTERS, &format!("{NAMES}\n{ip}\nRetry_Limit no_retries")));
        Sender::new(&router).deliver("app", &[line("a")]);
        assert_eq!(aws.stored(), 1);
        let ended = stop(router);
        assert!(ended.messages.contains("certificate"), "{}", ended.messages);
    }
}

#[test]
fn an_endpoint_may_be_a_host_with_the_port_in_a_key_of_its_own() {
    let aws = CloudWatch::start_with(Options { tls: true, ..Options::default() });
    for endpoint in ["https://localhost", "localhost"] {
        let lines = format!("{NAMES}\nendpoint {endpoint}\nport {}\ntls.ca_file {{dir}}/ca.pem", aws.port());
        let router = start(&conf(&aws, LETTERS, &lines));
        Sender::new(&router).deliver("app", &[line("a")]);
        stop(router);
    }
    assert_eq!(aws.stored(), 2);
}

#[test]
fn without_tls_an_endpoint_needs_no_scheme() {
    let aws = CloudWatch::start();
    let lines = format!("{NAMES}\nendpoint 127.0.0.1\nport {}\ntls off", aws.port());
    let router = start(&conf(&aws, LETTERS, &lines));
    Sender::new(&router).deliver("app", &[line("a")]);
    stop(router);
    assert_eq!(aws.stored(), 1);
}

#[test]
fn a_stop_sends_what_lingers_and_waits_for_the_answer() {
    let aws = CloudWatch::start();
    let router = start(&conf(&aws, "Flush 60", NAMES));
    let mut client = Sender::new(&router);
    client.deliver("app", &[line("first")]);
    aws.fault(Rule::put(Answer::Slow(std::time::Duration::from_millis(700))).always());
    (0..50).for_each(|i| client.send("app", &[line(&i.to_string())]));
    eventually("the router has them", || router.messages().contains(" ready ").then_some(()));
    let ended = stop(router);
    assert_eq!((aws.stored(), ended.ledger.output("cloudwatch_logs.0", "delivered")), (51, 51));
}

#[test]
fn connections_are_used_again_or_not_as_configured() {
    for lines in ["net.keepalive off", "net.keepalive_max_recycle 2", ""] {
        let aws = CloudWatch::start();
        let router = plain(&aws, lines);
        let mut client = Sender::new(&router);
        (0..5).for_each(|i| client.deliver("app", &[line_with(&i.to_string(), &[("stream", "stdout")])]));
        assert_eq!(aws.stored(), 5);
        stop(router);
    }
}

#[test]
fn connections_that_the_service_has_closed_meanwhile_are_no_failure() {
    let aws = CloudWatch::start();
    aws.create("g", &["s"]);
    let router = plain(&aws, "log_key log\nRetry_Limit no_retries");
    let mut client = Sender::new(&router);
    for i in 0..10 {
        client.deliver("app", &[line(&i.to_string())]);
        aws.cut();
        client.expect_silence();
    }
    assert_eq!(aws.messages("g", "s"), (0..10).map(|i| i.to_string()).collect::<Vec<_>>());
    let ended = stop(router);
    assert!(!ended.messages.contains("cannot send"), "{}", ended.messages);
}

#[test]
fn many_groups_are_created_once_each() {
    let aws = CloudWatch::start();
    let lines = "log_group_name g\nlog_group_template /t/$team\nlog_stream_name s\nauto_create_group on\nlog_key log\n\
                 log_retention_days 1";
    let router = start(&conf(&aws, LETTERS, lines));
    let mut client = Sender::new(&router);
    for round in 0..5 {
        let entries: Vec<_> =
            (0..60).map(|n| line_with(&format!("{n} {round}"), &[("team", &format!("team {n}"))])).collect();
        client.send("app", &entries);
    }
    stored(&aws, 300);
    for n in 0..60 {
        let group = format!("/t/team.{n}");
        assert_eq!(aws.messages(&group, "s"), (0..5).map(|r| format!("{n} {r}")).collect::<Vec<_>>());
        assert_eq!(aws.group(&group).days, Some(1));
    }
    for operation in ["CreateLogGroup", "PutRetentionPolicy"] {
        assert_eq!(aws.calls(operation).len(), 60, "{operation}");
    }
    stop(router);
}
