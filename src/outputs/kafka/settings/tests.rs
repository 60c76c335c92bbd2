//! What sections of the output are built, refused, and warned of.

use std::time::Duration;

use super::super::KIND;
use super::*;
use crate::config::{self, CORE_OUTPUT, Entry, Pos, Section, SectionKind};
use crate::outputs::RetryPolicy;

/// Whether it was built, and what was said.
fn built(keys: &[(&str, &str)]) -> (bool, String) {
    let entry = |(line, (key, value)): (usize, &(&str, &str))| Entry {
        key: key.to_lowercase(),
        written: (*key).into(),
        value: (*value).into(),
        pos: Pos::new("k.conf", 2 + line as u32),
    };
    let entries = keys.iter().enumerate().map(entry).collect();
    let section = Section { kind: SectionKind::Output, pos: Pos::new("k.conf", 1), entries };
    let mut diags = Diagnostics::new();
    let cx =
        BuildContext { escape_unicode: true, flush: Duration::from_secs(1), retry: RetryPolicy::default() };
    let output = config::check(&section, "kafka.0".into(), &KIND.info, CORE_OUTPUT, &mut diags)
        .and_then(|settings| build(&settings, &cx, &mut diags));
    let said = diags.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    (output.is_some(), said)
}

#[test]
fn a_plain_section_is_built_without_a_word() {
    assert_eq!(built(&[]), (true, String::new()));
    let keys = [
        ("Brokers", "a:9092,b:9092"),
        ("Topics", "logs, audit"),
        ("Topic_Key", "topic"),
        ("Dynamic_Topic", "on"),
        ("Message_Key_Field", "id"),
        ("Timestamp_Format", "iso8601_ns"),
        ("Queue_Full_Retries", "3"),
        ("Header", "trace $ctx['trace']"),
        ("rdkafka.linger.ms", "50"),
        ("rdkafka.compression.codec", "zstd"),
        ("rdkafka.log.connection.close", "false"),
    ];
    assert_eq!(built(&keys), (true, String::new()));
}

#[test]
fn a_bad_property_is_refused_with_librdkafkas_words_and_its_place() {
    for (key, value, words) in [
        ("rdkafka.lingr.ms", "5", "No such configuration property"),
        ("rdkafka.compression.codec", "brotli", "Invalid value"),
        ("rdkafka.linger.ms", "soon", "Invalid value"),
    ] {
        let (good, said) = built(&[("Topics", "t"), (key, value)]);
        assert!(!good && said.starts_with("k.conf:3: [OUTPUT] kafka: ") && said.contains(words), "{said}");
    }
    // Each by itself is good.
    let together = [("rdkafka.enable.idempotence", "true"), ("rdkafka.acks", "1")];
    let (good, said) = built(&together);
    assert!(!good && said.contains("acks") && said.contains("idempotence"), "{said}");
    let (good, said) =
        built(&[("rdkafka.ssl.ca.location", "/no/such/file"), ("rdkafka.security.protocol", "ssl")]);
    assert!(!good && said.contains("ssl.ca.location"), "{said}");
}

#[test]
fn what_does_not_go_with_idempotence_ends_it_with_a_warning() {
    for key in ["rdkafka.acks", "rdkafka.request.required.acks"] {
        let (good, said) = built(&[(key, "1")]);
        assert!(good && said.contains("acks 1 does not go with an idempotent producer"), "{said}");
    }
    assert_eq!(built(&[("rdkafka.acks", "all")]), (true, String::new()));
    assert_eq!(
        built(&[("rdkafka.enable.idempotence", "false"), ("rdkafka.acks", "0")]),
        (true, String::new())
    );
    let (good, said) = built(&[("rdkafka.message.timeout.ms", "1000")]);
    assert!(good && said.contains("retry.max_age"), "{said}");
}

#[test]
fn what_is_not_built_or_makes_no_sense_is_refused() {
    for (keys, words) in [
        (vec![("Format", "avro")], "format avro is not built yet"),
        (vec![("Format", "raw")], "raw_log_key"),
        (vec![("Topics", "a b")], "\"a b\" is no name of a topic"),
        (vec![("Schema_Registry_Url", "http://x")], "schema registry is not built yet"),
        (vec![("Header", "h $a[")], "bad field"),
        (vec![("AWS_MSK_IAM", "on")], "set aws_msk_iam_cluster_arn"),
        (vec![("Tls", "on")], "does not support TLS"),
    ] {
        let (good, said) = built(&keys);
        assert!(!good && said.contains(words), "{keys:?}: {said}");
    }
    let (good, said) = built(&[("Format", "xml")]);
    assert!(good && said.contains("unknown format \"xml\""), "{said}");
    let (good, said) = built(&[("Timestamp_Format", "epoch")]);
    assert!(good && said.contains("double is used"), "{said}");
}
