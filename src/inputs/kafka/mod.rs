//! `kafka`: records from Apache Kafka, as one of a consumer group.
//!
//! Enters: messages of the partitions that the group gives us. Leaves: records `{topic, partition, offset, error, key,
//! payload}`; a position is committed once every record before it is on disk or delivered. Can go wrong: the brokers are
//! away (librdkafka comes back by itself), a topic is missing (said, and looked for again), an output gives records up
//! (they are read again from the committed position).

mod consumer;
mod control;
mod lane;
mod record;

use std::sync::Arc;

use tokio::sync::mpsc;

use self::control::Control;
use self::record::Shape;
use super::{BoxFuture, BuildContext, Input, InputContext, InputKind};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::net::kafka::{KafkaConfig, Refused, Shared, Tokens};
use crate::rt::Budget;

/// Batches between librdkafka's thread and the lane.
const BATCHES: usize = 4;

pub(super) const KIND: InputKind = InputKind {
    info: PluginInfo {
        name: "kafka",
        aliases: &[],
        summary: "Apache Kafka, as one of a consumer group, through librdkafka.",
        keys: &[
            Key::new("brokers", Type::Str, "where to begin: host:port, several with commas")
                .default("127.0.0.1"),
            Key::new("topics", Type::Str, "topics, with commas; one that begins with ^ is a pattern"),
            Key::new("group_id", Type::Str, "the group that shares the topics").default("fluent-bit"),
            Key::new("client_id", Type::Str, "our name in the brokers' logs and quotas").otherwise("rdkafka"),
            Key::new("format", Type::Str, "none: the payload is text; json: it is parsed").default("none"),
            Key::new("poll_ms", Type::Int, "accepted; messages are taken when they come").default("500"),
            Key::new("poll_timeout_ms", Type::Int, "accepted; messages are taken when they come")
                .default("1"),
            Key::new("buffer_max_size", Type::Size, "most bytes that wait within librdkafka").default("4M"),
            Key::new(
                "enable_auto_commit",
                Type::Bool,
                "accepted; a position is committed when every record before it is on disk or delivered",
            )
            .default("off"),
            Key::new("threaded", Type::Bool, "accepted; librdkafka has threads of its own"),
            Key::new("aws_msk_iam", Type::Bool, "sign in to Amazon MSK with AWS credentials").default("off"),
            Key::new("aws_msk_iam_cluster_arn", Type::Str, "the cluster's ARN, for its region"),
            Key::new(
                "tag_header",
                Type::Str,
                "header with the tag of the record, fluent-tag from firelane's output; Tag where there is none (firelane's own)",
            ),
            Key::new(
                "payload_only",
                Type::Bool,
                "the record is the payload's JSON map itself; with format json (firelane's own)",
            )
            .default("off"),
            Key::new("rdkafka.", Type::Str, "any property of librdkafka: rdkafka.auto.offset.reset earliest")
                .multi()
                .prefix(),
        ],
        groups: &[],
    },
    build,
};

/// What we set unless the configuration does.
const OURS: &[(&str, &str)] = &[
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("auto.commit.interval.ms", "1000"),
    ("topic.metadata.refresh.interval.ms", "30000"),
];
/// The property that bounds what librdkafka holds.
const QUEUE: &str = "queued.max.messages.kbytes";
/// And the one that bounds an answer.
const FETCH: &str = "fetch.max.bytes";
/// librdkafka's `message.max.bytes`.
const MESSAGE: u64 = 1_000_000;
/// What the promise rests on: positions are stored by us, and committed by librdkafka.
const FIXED: &[(&str, &str)] = &[("enable.auto.offset.store", "false"), ("enable.auto.commit", "true")];

/// An input as configured.
struct Kafka {
    config: KafkaConfig,
    topics: Vec<String>,
    shape: Shape,
}

/// What librdkafka may hold for an input however little room there is: it fetches one message at least.
const LEAST: u64 = 256_000;

/// How many bytes librdkafka may hold for this input, which wants so many: inputs must not take from each other, and from
/// the sources, what they need to go on.
fn share(budget: &Budget, wanted: u64) -> u64 {
    let left = (budget.source_limit() / 2).saturating_sub(budget.used());
    wanted.min((left / 2).max(LEAST))
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Box<dyn Input>> {
    let topics = s.list("topics");
    if topics.is_empty() {
        s.error(diags, "topics", "topics is not set");
        return None;
    }
    let json = match s.str("format").unwrap_or("none").to_ascii_lowercase().as_str() {
        "none" => false,
        "json" => true,
        other => {
            s.error(diags, "format", format_args!("unknown format \"{other}\", use none or json"));
            return None;
        }
    };
    let payload_only = s.bool("payload_only");
    if payload_only && !json {
        s.error(diags, "payload_only", "payload_only needs format json");
        return None;
    }
    let buffer = s.size("buffer_max_size").unwrap_or_default();
    if !(64_000..=1_000_000_000).contains(&buffer) {
        s.error(diags, "buffer_max_size", "it must be between 64K and 1G");
        return None;
    }
    // librdkafka wants it to be no less than one message.
    let buffer = buffer / 1000 * 1000;
    let (kilobytes, bytes) = ((buffer / 1000).to_string(), buffer.max(MESSAGE).to_string());
    let mut ours = OURS.to_vec();
    ours.push((QUEUE, &kilobytes));
    ours.push((FETCH, &bytes));
    let theirs = s.entries().iter().filter_map(|e| Some((e.key.strip_prefix("rdkafka.")?, e.value.as_str())));
    let shared = Shared {
        brokers: s.str("brokers").unwrap_or_default(),
        client_id: s.str("client_id"),
        group_id: s.str("group_id"),
        iam: s.bool("aws_msk_iam"),
        cluster: s.str("aws_msk_iam_cluster_arn"),
    };
    let mut config = match KafkaConfig::new(shared, &ours, theirs) {
        Ok(config) => config,
        Err(Refused { key, message }) => {
            s.error(diags, &key, message);
            return None;
        }
    };
    for (key, value) in FIXED {
        if config.get(key).is_some_and(|set| !set.eq_ignore_ascii_case(value)) {
            diags.warn(
                Some(s.pos_of(&format!("rdkafka.{key}"))),
                format!("[INPUT] kafka: {key} is {value} whatever is set: positions are committed after the records are safe"),
            );
        }
        config.properties.set(*key, *value);
    }
    if let Err(message) = consumer::check(&config) {
        s.error(diags, "rdkafka", message);
        return None;
    }
    let tag_header = s.str("tag_header").map(str::to_owned);
    Some(Box::new(Kafka { config, topics, shape: Shape { json, payload_only, tag_header } }))
}

impl Input for Kafka {
    fn start(self: Box<Self>, cx: InputContext) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let Kafka { mut config, topics, shape } = *self;
            let wanted = config.get(QUEUE).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() * 1000;
            let queue = share(&cx.budget, wanted);
            if queue < wanted {
                tracing::warn!(input = %cx.label, wanted, given = queue,
                    "memory.limit has no room for all that librdkafka may hold; it holds less");
                config.properties.set(QUEUE, (queue / 1000).to_string());
                // An answer is smaller, too, unless somebody has set how large it may be.
                if config.get(FETCH) == Some(&wanted.max(MESSAGE).to_string()) {
                    config.properties.set(FETCH, queue.max(MESSAGE).to_string());
                }
            }
            let tokens = match config.region.clone() {
                None => None,
                Some(region) => Some(Arc::new(Tokens::new(region).await?)),
            };
            let (batches, inbox) = mpsc::channel(BATCHES);
            let control = Arc::new(Control::new());
            let reader = consumer::Reader {
                config,
                topics,
                shape,
                tokens,
                batches,
                control: Arc::clone(&control),
                // What waits within librdkafka is charged for as long as it may.
                _queue: cx.budget.take(queue),
                cx: cx.clone(),
                runtime: tokio::runtime::Handle::current(),
            };
            cx.tasks
                .thread("kafka consumer", move || reader.run())
                .map_err(|e| format!("cannot start a thread: {e}"))?;
            let tasks = cx.tasks.clone();
            tasks.spawn(format!("{} records", cx.label), lane::run(inbox, control, cx));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
