//! `cloudwatch_logs` and `cloudwatch`: records to CloudWatch Logs.
//!
//! Enters: deliveries. Leaves: PutLogEvents calls, one at a time for each stream, and verdicts when the service has
//! answered. Can go wrong: what the service and the network can do (see [`api`]); records are kept, or go to the dead
//! letters when the service names them as what it will not take.

mod api;
mod batch;
mod message;
mod names;
mod run;
mod settings;
mod streams;
mod task;
mod window;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use self::api::{Api, Creation};
use self::batch::Writer;
use self::message::Message;
use self::names::Name;
use self::run::Runner;
use super::{Output, OutputKind, RetryPolicy};
use crate::config::{Key, NET_OUTPUT, PluginInfo, TLS_FILES, Type};
use crate::net::{AwsOptions, HttpClient, HttpOptions, aws};
use crate::rt::Receiver;

/// Fluent Bit's plugin.
pub(super) const LOGS: OutputKind = OutputKind {
    info: PluginInfo {
        name: "cloudwatch_logs",
        aliases: &[],
        summary: "Amazon CloudWatch Logs.",
        keys: &[
            Key::new("log_group_name", Type::Str, "log group; also the fallback of log_group_template"),
            Key::new("log_stream_name", Type::Str, "log stream; this or log_stream_prefix"),
            Key::new("log_stream_prefix", Type::Str, "the log stream is this and the tag"),
            Key::new(
                "log_group_template",
                Type::Str,
                "log group made from the record: app.$kubernetes['namespace_name']",
            ),
            Key::new("log_stream_template", Type::Str, "log stream made from the record or the tag: $TAG[1]"),
            Key::new("port", Type::Int, "port of the endpoint, if it has none itself"),
            Key::new("auto_retry_requests", Type::Bool, "accepted; what fails is always sent again")
                .default("on"),
            Key::new("metric_namespace", Type::Str, "accepted; it concerns metrics only"),
            Key::new("metric_dimensions", Type::Str, "accepted; it concerns metrics only"),
            Key::new("add_entity", Type::Bool, "accepted; entities are not sent").default("off"),
            Key::new(
                "log_group_class",
                Type::Str,
                "of groups that are created: STANDARD or INFREQUENT_ACCESS",
            )
            .otherwise("STANDARD"),
        ],
        groups: &[KEYS, NET_OUTPUT, TLS_FILES],
    },
    build: settings::build_logs,
};

/// AWS's plugin in Go, whose name many configurations still have.
pub(super) const GO: OutputKind = OutputKind {
    info: PluginInfo {
        name: "cloudwatch",
        aliases: &[],
        summary: "Amazon CloudWatch Logs, with the keys and $(...) names of AWS's Go plugin.",
        keys: &[
            Key::new(
                "log_group_name",
                Type::Str,
                "log group; may have $(field), $(tag), $(tag[1]), $(ecs_cluster)",
            ),
            Key::new(
                "log_stream_name",
                Type::Str,
                "log stream; may have $(ecs_task_id), $(uuid) and so on; this or log_stream_prefix",
            ),
            Key::new("log_stream_prefix", Type::Str, "the log stream is this and the tag"),
            Key::new(
                "default_log_group_name",
                Type::Str,
                "log group of records that lack a field of its name",
            )
            .default("fluentbit-default"),
            Key::new("default_log_stream_name", Type::Str, "log stream of such records")
                .default("/fluentbit-default"),
            Key::new(
                "credentials_endpoint",
                Type::Str,
                "address that gives credentials as the endpoint of ECS does",
            ),
        ],
        groups: &[KEYS, NET_OUTPUT, TLS_FILES],
    },
    build: settings::build_go,
};

/// What both have.
const KEYS: &[Key] = &[
    Key::new("region", Type::Str, "AWS region, required: eu-central-1"),
    Key::new("log_key", Type::Str, "the message is this field of the record, not all of it as JSON"),
    Key::new("log_format", Type::Str, "json/emf: metrics are extracted by CloudWatch"),
    Key::new("auto_create_group", Type::Bool, "create log groups that do not exist").default("off"),
    Key::new("auto_create_stream", Type::Bool, "create log streams that do not exist").default("on"),
    Key::new("log_retention_days", Type::Int, "of groups that are created; 0: for ever").default("0"),
    Key::new("new_log_group_tags", Type::Str, "of groups that are created: key=value,key2=value2"),
    Key::new("role_arn", Type::Str, "role to take on"),
    Key::new("external_id", Type::Str, "what the role's owner asks for"),
    Key::new("sts_endpoint", Type::Str, "address of STS, for role_arn"),
    Key::new(
        "endpoint",
        Type::Str,
        "address of CloudWatch Logs instead of the region's; http:// is without TLS",
    ),
    Key::new("profile", Type::Str, "profile of the AWS configuration files"),
    Key::new("extra_user_agent", Type::Str, "appended to the user agent of requests"),
    Key::new("compress", Type::Str, "off or gzip: fewer bytes on the way").default("off"),
    Key::new("oversize_events", Type::Str, "messages that are too long for an event: split or truncate")
        .default("split"),
    Key::new("max_event_size", Type::Int, "longest message of one event in bytes, at most 1,000,000")
        .default("1000000"),
    Key::new("tls", Type::Bool, "TLS to the service").default("on"),
    Key::new("tls.verify_hostname", Type::Bool, "its certificate must be for its name").default("on"),
];

/// An output as configured.
struct CloudWatch {
    group: Name,
    stream: Name,
    message: Message,
    creation: Creation,
    format: Option<String>,
    gzip: bool,
    aws: AwsOptions,
    http: HttpOptions,
    linger: Duration,
    retry: RetryPolicy,
}

impl Output for CloudWatch {
    fn run(mut self: Box<Self>, queue: Receiver) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let http = HttpClient::new(self.http);
            if self.group.wants_task() || self.stream.wants_task() {
                let task = task::ask(&http, queue.label()).await;
                self.group.fill_in(&task);
                self.stream.fill_in(&task);
            }
            let aws = aws(&self.aws, http).await;
            let api = Api::new(aws, self.creation, self.format, self.gzip);
            let writer = Writer::new(self.message);
            let runner = Runner::new(self.group, self.stream, api, writer, self.linger, self.retry);
            runner.run(queue).await;
        })
    }
}
