//! The names of groups and streams: record accessor templates, and the `$(...)` of AWS's Go plugin.

use crate::strict_cloudwatch::CloudWatch;
use crate::support::cloudwatch::{
    LETTERS, Sender, conf, conf_of, directory, entry_of, environment, key, line, line_with, nested, now,
    start, stop,
};
use crate::support::forward::{ack, map, text};
use crate::support::router::{Client, Router};

/// The groups and streams that have events.
fn names(aws: &CloudWatch) -> Vec<(String, String)> {
    aws.with(|store| {
        let of = |(name, group): (&String, &crate::strict_cloudwatch::Group)| {
            let full = group.streams.iter().filter(|(_, events)| !events.is_empty());
            full.map(|(stream, _)| (name.clone(), stream.clone())).collect::<Vec<_>>()
        };
        store.groups.iter().flat_map(of).collect()
    })
}

/// What comes of one record with these names.
fn name_of(plugin: &str, lines: &str, tag: &str, record: Vec<u8>) -> (String, String) {
    let aws = CloudWatch::start();
    let router = start(&conf_of(plugin, &aws, LETTERS, &format!("auto_create_group on\n{lines}")));
    Sender::new(&router).deliver(tag, &[record]);
    stop(router);
    names(&aws).pop().unwrap()
}

fn pair(group: &str, stream: &str) -> (String, String) {
    (group.to_owned(), stream.to_owned())
}

#[test]
fn a_prefix_and_the_tag_are_the_stream() {
    for plugin in ["cloudwatch_logs", "cloudwatch"] {
        let got = name_of(plugin, "log_group_name g\nlog_stream_prefix from-", "app.web", line("a"));
        assert_eq!(got, pair("g", "from-app.web"));
    }
}

#[test]
fn templates_take_fields_and_parts_of_the_tag() {
    let lines = "log_group_name fallback\nlog_stream_name other\nlog_group_template /app/$kube['ns'].logs\n\
                 log_stream_template $kube['pod'].$TAG[1]";
    let kube = nested("kube", &map(&[(b"ns", b"shop"), (b"pod", b"web-1")]));
    let got = name_of("cloudwatch_logs", lines, "app.web.1", entry_of(now(), &kube));
    assert_eq!(got, pair("/app/shop.logs", "web-1.web"));
    let without = nested("kube", &map(&[(b"x", b"y")]));
    let got = name_of("cloudwatch_logs", lines, "app.web.1", entry_of(now(), &without));
    assert_eq!(got, pair("fallback", "other"));
}

#[test]
fn the_go_plugins_names_take_fields_and_parts_of_the_tag() {
    let lines = "log_group_name /$(app)/$(kube['ns'])\nlog_stream_name $(tag[0])-$(tag[2])-$(tag)";
    let record =
        [&[0x82][..], &map(&[(b"app", b"web")])[1..], &nested("kube", &map(&[(b"ns", b"shop")]))[1..]]
            .concat();
    let got = name_of("cloudwatch", lines, "a.b.c", entry_of(now(), &record));
    assert_eq!(got, pair("/web/shop", "a-c-a.b.c"));
}

#[test]
fn a_record_that_lacks_a_field_goes_to_the_default_names() {
    let lines = "log_group_name /x/$(nothing)\nlog_stream_name $(tag[9])";
    assert_eq!(name_of("cloudwatch", lines, "a", line("a")), pair("fluentbit-default", "/fluentbit-default"));
    let lines = format!("{lines}\ndefault_log_group_name dg\ndefault_log_stream_name ds");
    assert_eq!(name_of("cloudwatch", &lines, "a", line("a")), pair("dg", "ds"));
}

#[test]
fn what_is_inserted_is_cleaned_and_what_is_configured_is_not() {
    let record = || line_with("a", &[("f", "a:b*c d/é")]);
    let lines = "log_group_name #g/$(f)\nlog_stream_name s $(f)";
    let (group, stream) = name_of("cloudwatch", lines, "a", record());
    assert!(group.starts_with("#g/a.b.c.d/") && group.ends_with('.') && group.is_ascii(), "{group}");
    assert_eq!(stream, "s a.b.c d/é");
    let got = name_of("cloudwatch_logs", "log_group_name g\nlog_stream_prefix p-", "a:b*c", line("a"));
    assert_eq!(got, pair("g", "p-a.b.c"));
}

#[test]
fn a_name_is_cut_at_what_the_service_takes() {
    let long = "é".repeat(600);
    let lines = "log_group_name g-$(f)\nlog_stream_name s-$(f)";
    let (group, stream) = name_of("cloudwatch", lines, "a", line_with("a", &[("f", &long)]));
    assert_eq!((group.chars().count(), stream.chars().count()), (512, 512));
}

#[test]
fn the_task_comes_from_the_metadata_endpoint() {
    let aws = CloudWatch::start();
    let lines = "auto_create_group on\nlog_group_name /ecs/$(ecs_cluster)\nlog_stream_name $(container)/$(ecs_task_id)";
    let mut env = key();
    env.push(("ECS_CONTAINER_METADATA_URI_V4", aws.metadata_uri()));
    let router = Router::start_with(directory(), &conf_of("cloudwatch", &aws, LETTERS, lines), &env);
    let mut client = Sender::new(&router);
    (0..3).for_each(|_| client.deliver("a", &[line_with("a", &[("container", "web")])]));
    assert_eq!(names(&aws), [pair("/ecs/shop", "web/0f1e2d3c4b5a69788796a5b4c3d2e1f0")]);
    assert_eq!(aws.identity().task, 1);
    stop(router);
}

#[test]
fn without_the_endpoint_the_task_comes_from_the_records_fields() {
    let arn = "arn:aws:ecs:eu-west-1:111122223333:task/shop/abcdef";
    let record = line_with("a", &[("ecs_cluster", "shop"), ("ecs_task_arn", arn)]);
    let lines = "log_group_name $(ecs_cluster)\nlog_stream_name $(ecs_task_id)";
    assert_eq!(name_of("cloudwatch", lines, "a", record.clone()), pair("shop", "abcdef"));
    let (_, stream) = name_of("cloudwatch", "log_group_name g\nlog_stream_name $(ecs_task_arn)", "a", record);
    assert_eq!(stream, arn.replace(':', "."));
}

#[test]
fn an_empty_field_is_as_good_as_none() {
    let lines = "log_group_name g\nlog_stream_name none\nlog_stream_template $pod";
    assert_eq!(name_of("cloudwatch_logs", lines, "a", line_with("a", &[("pod", "")])), pair("g", "none"));
    let lines = "log_group_name $(app)\nlog_stream_name $(pod)";
    let got = name_of("cloudwatch", lines, "a", line_with("a", &[("pod", ""), ("app", "")]));
    assert_eq!(got, pair("fluentbit-default", "/fluentbit-default"));
}

#[test]
fn a_field_that_is_no_text_is_written_out_or_as_good_as_none() {
    let record = |value: &[u8]| entry_of(now(), &nested("pod", value));
    let lines = "log_group_name g\nlog_stream_name $(pod)";
    assert_eq!(name_of("cloudwatch", lines, "a", record(&[0xcd, 1, 2])), pair("g", "258"));
    assert_eq!(name_of("cloudwatch", lines, "a", record(&[0xc0])), pair("g", "/fluentbit-default"));
    // A byte that is no UTF-8: the name is, in whatever way.
    let (_, stream) = name_of("cloudwatch", lines, "a", record(&[0xa3, b'x', 0xff, b'y']));
    assert!(stream.starts_with('x') && stream.ends_with('y'), "{stream}");
}

#[test]
fn a_uuid_is_one_for_each_output_and_start() {
    let lines = "auto_create_group on\nlog_group_name g\nlog_stream_name s-$(uuid)";
    let aws = CloudWatch::start();
    for starts in 1..=2 {
        let router = start(&conf_of("cloudwatch", &aws, LETTERS, lines));
        let mut client = Sender::new(&router);
        (0..3).for_each(|_| client.deliver("a", &[line("a")]));
        stop(router);
        let made = names(&aws);
        assert_eq!(made.len(), starts);
        assert!(made.iter().all(|(_, s)| s.len() == 2 + 36 && s.matches('-').count() == 5), "{made:?}");
    }
}

#[test]
fn names_that_cannot_be_are_refused_before_the_start() {
    let aws = CloudWatch::start();
    for (plugin, lines, words) in [
        ("cloudwatch_logs", "log_stream_name s", "log_group_name"),
        ("cloudwatch_logs", "log_group_name g", "log_stream"),
        ("cloudwatch_logs", "log_group_name g\nlog_stream_name s\nlog_stream_prefix p", "log_stream_prefix"),
        ("cloudwatch_logs", "log_group_name g\nlog_stream_name s\nlog_group_class CHEAP", "unknown class"),
        ("cloudwatch_logs", "log_group_name g\nlog_stream_name s\ncompress zstd", "compress"),
        ("cloudwatch_logs", "log_group_name g\nlog_stream_name s\nendpoint ftp://x", "neither http://"),
        ("cloudwatch", "log_group_name g\nlog_stream_name s-$(", "not closed"),
        ("cloudwatch", "log_group_name g\nlog_stream_name s\nnew_log_group_tags a", "key=value"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.conf");
        let conf = match plugin {
            "cloudwatch" => conf_of(plugin, &aws, "", lines),
            _ => conf(&aws, "", lines),
        };
        std::fs::write(&file, conf.replace("{dir}", dir.path().to_str().unwrap())).unwrap();
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_firelane"))
            .args(["check", "-c"])
            .arg(&file)
            .envs(environment(&[]))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        assert!(out.status.code() == Some(2) && said.contains(words), "{lines}: {said}");
    }
}

#[test]
fn a_tag_that_is_no_text_is_a_stream_all_the_same() {
    let aws = CloudWatch::start();
    let router = start(&conf(&aws, LETTERS, "auto_create_group on\nlog_group_name g\nlog_stream_prefix p-"));
    let mut client = router.unix();
    let option = map(&[(b"chunk", b"1")]);
    let run = line("a");
    let message = [&[0x93][..], &text(b"a\xffb"), &[0xc4, run.len() as u8], &run, &option].concat();
    client.send(&message);
    client.expect(&ack("1"));
    let made = names(&aws).pop().unwrap();
    assert!(made.1.starts_with("p-a") && made.1.ends_with('b'), "{made:?}");
    stop(router);
}
