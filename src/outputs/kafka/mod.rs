//! `kafka`: records to Apache Kafka, through librdkafka.
//!
//! Enters: deliveries. Leaves: messages, one for each record, and verdicts when the delivery reports have come. Can go
//! wrong: the brokers are away (records are kept, in order, and nothing is sent twice), they refuse a batch (its records
//! go again one by one) or a record (it goes to the dead letters), or the producer gives up (a new one takes over).

mod encode;
mod gelf;
mod producer;
mod reports;
mod run;
mod settings;
mod sheets;

use std::future::Future;
use std::pin::Pin;

use self::encode::Encoder;
use self::run::Runner;
use super::{Output, OutputKind, RetryPolicy};
use crate::config::{Key, PluginInfo, Type};
use crate::net::kafka::{KafkaConfig, Tokens};
use crate::rt::Receiver;

const LATER: &str = "refused: Avro and the schema registry are not built yet";

pub(super) const KIND: OutputKind = OutputKind {
    info: PluginInfo {
        name: "kafka",
        aliases: &[],
        summary: "Apache Kafka, through librdkafka.",
        keys: &[
            Key::new("brokers", Type::Str, "where to begin: host:port, several with commas")
                .default("127.0.0.1"),
            Key::new("topics", Type::Str, "topics, with commas; the first one is the default")
                .default("fluent-bit"),
            Key::new("topic_key", Type::Str, "field of the record that names its topic, one of topics"),
            Key::new("dynamic_topic", Type::Bool, "the field may also name other topics").default("off"),
            Key::new("format", Type::Str, "json, msgpack, raw or gelf").default("json"),
            Key::new("message_key", Type::Str, "key of every message"),
            Key::new(
                "message_key_field",
                Type::Str,
                "field of the record, a string, that is the message's key; messages of one key keep their order",
            ),
            Key::new("timestamp_key", Type::Str, "field that the time goes into, in json and msgpack")
                .default("@timestamp"),
            Key::new("timestamp_format", Type::Str, "double, iso8601 or iso8601_ns").default("double"),
            Key::new("raw_log_key", Type::Str, "format raw: the field of the record that is the message"),
            Key::new(
                "queue_full_retries",
                Type::Int,
                "accepted; a full queue holds sources back and nothing is given up for it",
            )
            .default("10"),
            Key::new("client_id", Type::Str, "our name in the brokers' logs and quotas").otherwise("rdkafka"),
            Key::new("group_id", Type::Str, "accepted; it concerns consumers"),
            Key::new("gelf_timestamp_key", Type::Str, "format gelf: field with the time")
                .default("timestamp"),
            Key::new("gelf_host_key", Type::Str, "format gelf: field with the host").default("host"),
            Key::new("gelf_short_message_key", Type::Str, "format gelf: field with the message")
                .default("short_message"),
            Key::new("gelf_full_message_key", Type::Str, "format gelf: field with the long message")
                .default("full_message"),
            Key::new("gelf_level_key", Type::Str, "format gelf: field with the level").default("level"),
            Key::new("schema_str", Type::Str, LATER),
            Key::new("schema_id", Type::Str, LATER),
            Key::new("schema_registry_", Type::Str, LATER).multi().prefix(),
            Key::new("otlp_logs_partition_by_resource", Type::Bool, "accepted; it concerns OTLP only")
                .default("off"),
            Key::new("aws_msk_iam", Type::Bool, "sign in to Amazon MSK with AWS credentials").default("off"),
            Key::new("aws_msk_iam_cluster_arn", Type::Str, "the cluster's ARN, for its region"),
            Key::new(
                "tag_header",
                Type::Str,
                "header that carries the tag of the record; off: none (firelane's own)",
            )
            .default("fluent-tag"),
            Key::new(
                "header",
                Type::Words(2),
                "NAME FIELD: a header with the value of a field (firelane's own)",
            )
            .multi(),
            Key::new("rdkafka.", Type::Str, "any property of librdkafka: rdkafka.linger.ms 50")
                .multi()
                .prefix(),
        ],
        groups: &[],
    },
    build: settings::build,
};

/// An output as configured.
struct Kafka {
    config: KafkaConfig,
    /// Nothing is delivered twice or out of order by librdkafka's own retries.
    idempotent: bool,
    encoder: Encoder,
    retry: RetryPolicy,
}

impl Output for Kafka {
    fn run(self: Box<Self>, queue: Receiver) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let tokens = match self.config.region.clone() {
                None => None,
                Some(region) => match Tokens::new(region).await {
                    Ok(tokens) => Some(tokens),
                    Err(cause) => {
                        tracing::error!(output = %queue.label(), %cause, "output ended");
                        return;
                    }
                },
            };
            let factory =
                producer::Factory::new(queue.label().to_owned(), self.config, self.idempotent, tokens);
            match Runner::new(factory, self.encoder, self.retry) {
                Ok(runner) => runner.run(queue).await,
                Err(cause) => tracing::error!(output = %queue.label(), %cause, "output ended"),
            }
        })
    }
}
