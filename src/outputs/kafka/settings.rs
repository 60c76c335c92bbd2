//! The keys of the output, read and checked.

use rdkafka::ClientConfig;

use super::Kafka;
use super::encode::{Encoder, Format, Header, Keys, Topics};
use super::gelf::Gelf;
use super::producer;
use crate::config::{Diagnostics, Entry, Settings, value};
use crate::net::kafka::{KafkaConfig, Refused, Shared};
use crate::outputs::format::JsonDate;
use crate::outputs::{BuildContext, Output};
use crate::text::Accessor;
use crate::wire::json::Json;

/// What we set unless the configuration does. Messages never time out in librdkafka: whether a message that did has
/// arrived cannot be known; `retry.max_age` is ours. Its queue is bounded by what we give it.
const OURS: &[(&str, &str)] = &[
    ("compression.codec", "lz4"),
    ("message.timeout.ms", "0"),
    ("queue.buffering.max.messages", "0"),
    ("queue.buffering.max.kbytes", "65536"),
    ("topic.metadata.refresh.interval.ms", "60000"),
];

type Built = Option<Box<dyn Output>>;

pub(super) fn build(s: &Settings, cx: &BuildContext, diags: &mut Diagnostics) -> Built {
    let json = Json { escape_unicode: cx.escape_unicode };
    let topics = topics(s, diags)?;
    let format = format(s, json, diags)?;
    let headers = headers(s, diags)?;
    let config = config(s, diags)?;
    let idempotent = idempotent(&config, s, diags);
    if config.get("message.timeout.ms").is_some_and(|ms| ms != "0") {
        diags.warn(
            Some(s.pos_of("rdkafka.message.timeout.ms")),
            "[OUTPUT] kafka: messages that time out on their way are sent again and may arrive twice; better set retry.max_age",
        );
    }
    // All properties together, as a client that meets nobody.
    if let Err(message) = producer::check(&properties(&config, idempotent)) {
        s.error(diags, "rdkafka", message);
        return None;
    }
    let text = |key: &str| s.str(key).map(|t| t.as_bytes().into());
    let tag_header = s.str("tag_header").filter(|h| value::boolean(h) != Some(false)).map(str::to_owned);
    let keys =
        Keys { fixed: text("message_key"), field: text("message_key_field"), topic: text("topic_key") };
    let encoder = Encoder::new(format, json, topics, keys, headers, tag_header);
    Some(Box::new(Kafka { config, idempotent, encoder, retry: cx.retry }))
}

fn properties(config: &KafkaConfig, idempotent: bool) -> ClientConfig {
    let mut properties = config.alone();
    producer::promise(&mut properties, idempotent);
    properties
}

fn topics(s: &Settings, diags: &mut Diagnostics) -> Option<Topics> {
    let names = s.list("topics");
    if names.is_empty() {
        s.error(diags, "topics", "there is no topic");
        return None;
    }
    if let Some(bad) = names.iter().find(|name| !Topics::is_name(name.as_bytes())) {
        s.error(
            diags,
            "topics",
            format_args!(
                "\"{bad}\" is no name of a topic: up to 249 letters, digits, dots, underscores and hyphens"
            ),
        );
        return None;
    }
    Some(Topics::new(names, s.bool("dynamic_topic")))
}

fn format(s: &Settings, json: Json, diags: &mut Diagnostics) -> Option<Format> {
    let format = s.str("format").unwrap_or("json");
    let key = s.str("timestamp_key").unwrap_or("@timestamp");
    let written = s.str("timestamp_format").unwrap_or("double");
    let date = JsonDate::named(key, written, json).or_else(|| {
        diags.strict(
            Some(s.pos_of("timestamp_format")),
            format!("unknown timestamp_format \"{written}\" in [OUTPUT] kafka"),
            "double is used; choose double, iso8601 or iso8601_ns",
        );
        JsonDate::named(key, "double", json)
    })?;
    let is_double = !["iso8601", "iso8601_ns"].contains(&written.to_ascii_lowercase().as_str());
    let name = |key: &str| s.str(key).unwrap_or_default().as_bytes().into();
    Some(match format.to_ascii_lowercase().as_str() {
        "json" => Format::Json(date),
        "msgpack" => Format::Msgpack { date, is_double },
        "raw" => match s.str("raw_log_key") {
            Some(key) => Format::Raw(key.as_bytes().into()),
            None => {
                s.error(diags, "format", "format raw needs raw_log_key, the field that is the message");
                return None;
            }
        },
        "gelf" => Format::Gelf(Gelf {
            timestamp: name("gelf_timestamp_key"),
            host: name("gelf_host_key"),
            short: name("gelf_short_message_key"),
            full: name("gelf_full_message_key"),
            level: name("gelf_level_key"),
            json,
        }),
        "avro" | "otlp_json" | "otlp_proto" => {
            s.error(diags, "format", format_args!("format {format} is not built yet, use json or msgpack"));
            return None;
        }
        _ => {
            diags.strict(
                Some(s.pos_of("format")),
                format!("unknown format \"{format}\" in [OUTPUT] kafka"),
                "json is used; choose json, msgpack, raw or gelf",
            );
            Format::Json(date)
        }
    })
}

fn headers(s: &Settings, diags: &mut Diagnostics) -> Option<Vec<Header>> {
    let mut headers = Vec::new();
    for entry in s.all("header") {
        let words = value::words(&entry.value);
        let [name, field, ..] = words.as_slice() else { continue };
        match Accessor::field(field) {
            Ok(field) => headers.push(Header { name: name.clone(), field }),
            Err(e) => {
                diags.error(
                    Some(&entry.pos),
                    format!("[OUTPUT] kafka: bad field \"{field}\" of a header: {e}"),
                );
                return None;
            }
        }
    }
    Some(headers)
}

/// Properties that would break what the output promises.
const NEVER: [(&str, &str); 2] = [
    (
        "transactional.id",
        "firelane makes no transactions, and librdkafka takes messages in one only; remove the line",
    ),
    (
        "delivery.report.only.error",
        "a record is done when its delivery report says so, and there would be none; remove the line",
    ),
];

fn config(s: &Settings, diags: &mut Diagnostics) -> Option<KafkaConfig> {
    for key in ["schema_str", "schema_id"] {
        if s.str(key).is_some() {
            s.error(diags, key, "Avro is not built yet, use format json or msgpack");
            return None;
        }
    }
    if let Some(entry) = s.entries().iter().find(|e| e.key.starts_with("schema_registry_")) {
        s.error(diags, &entry.key, "the schema registry is not built yet, use format json or msgpack");
        return None;
    }
    for (property, why) in NEVER {
        let on = |e: &&Entry| {
            e.key.strip_prefix("rdkafka.") == Some(property) && !e.value.eq_ignore_ascii_case("false")
        };
        if let Some(entry) = s.entries().iter().find(on) {
            s.error(diags, &entry.key, format_args!("{} cannot be set: {why}", entry.written));
            return None;
        }
    }
    let theirs = s.entries().iter().filter_map(|e| Some((e.key.strip_prefix("rdkafka.")?, e.value.as_str())));
    let shared = Shared {
        brokers: s.str("brokers").unwrap_or_default(),
        client_id: s.str("client_id"),
        group_id: None,
        iam: s.bool("aws_msk_iam"),
        cluster: s.str("aws_msk_iam_cluster_arn"),
    };
    match KafkaConfig::new(shared, OURS, theirs) {
        Ok(config) => Some(config),
        Err(Refused { key, message }) => {
            s.error(diags, &key, message);
            None
        }
    }
}

/// Whether the producer is idempotent: unless the configuration says no, or asks for what does not go with it.
fn idempotent(config: &KafkaConfig, s: &Settings, diags: &mut Diagnostics) -> bool {
    if let Some(set) = config.get("enable.idempotence") {
        return set.eq_ignore_ascii_case("true");
    }
    let number = |key: &str| config.get(key).and_then(|v| v.parse::<i64>().ok());
    let against = [
        ("acks", config.get("acks").is_some_and(|a| !["all", "-1"].contains(&a))),
        ("retries", number("retries") == Some(0)),
        (
            "max.in.flight.requests.per.connection",
            number("max.in.flight.requests.per.connection").is_some_and(|n| n > 5),
        ),
        ("queuing.strategy", config.get("queuing.strategy") == Some("lifo")),
    ];
    match against.iter().find(|(_, against)| *against) {
        None => true,
        Some((key, _)) => {
            let value = config.get(key).unwrap_or_default();
            diags.warn(
                Some(s.pos()),
                format!("[OUTPUT] kafka: {key} {value} does not go with an idempotent producer: after errors messages may come twice or out of order"),
            );
            false
        }
    }
}

#[cfg(test)]
mod tests;
