//! `cloudwatch_logs`: the API of CloudWatch Logs, for docker's `awslogs` driver, the AWS CLI and SDKs, and whatever else
//! writes there.
//!
//! Enters: calls over HTTP/1.1, with or without TLS, on TCP or a unix socket. Leaves: records `{log, log_group,
//! log_stream}`, and answers once they are on disk or delivered. Can go wrong: the address cannot be bound (refused at
//! start with what to do); a call that the service would refuse is refused in its words and disturbs nobody.

mod access;
mod answer;
mod body;
mod calls;
mod hub;
mod inside;
mod journal;
mod lane;
mod names;
mod pattern;
mod read;
mod room;
mod server;
mod settings;
mod tag;
mod window;

use std::sync::Arc;

use self::access::Access;
use self::hub::Hub;
use self::settings::Settings;
use super::listen::Address;
use super::{BoxFuture, BuildContext, Input, InputContext, InputKind};
use crate::config::{self, Diagnostics, Key, NET_INPUT, PluginInfo, TLS_INPUT, Type};

pub(super) const KIND: InputKind = InputKind {
    info: PluginInfo {
        name: "cloudwatch_logs",
        aliases: &["awslogs"],
        summary: "The API of CloudWatch Logs, for docker's awslogs driver, the AWS CLI and SDKs (firelane's own).",
        keys: &[
            Key::new(
                "tag",
                Type::Str,
                "tag of the records; may hold $log_group and $log_stream, in which / becomes .; awslogs.GROUP.STREAM when it is not set",
            ),
            Key::new("port", Type::Int, "TCP port").default("4586"),
            Key::new("unix_path", Type::Str, "unix socket to listen on; TCP is not opened then"),
            Key::new("unix_perm", Type::Str, "permissions of the unix socket, octal (0666)"),
            Key::new(
                "auth",
                Type::Str,
                "sigv4: calls must be signed with a key below; none: everybody may call, on a loopback address or a unix socket",
            )
            .default("sigv4"),
            Key::new("access_key_id", Type::Str, "a key that may call"),
            Key::new("secret_access_key", Type::Str, "its secret"),
            Key::new("session_token", Type::Str, "token that calls with this key must bring along"),
            Key::new(
                "credentials_file",
                Type::Str,
                "AWS shared-credentials file; every profile in it may call",
            ),
            Key::new("allow_remote_without_auth", Type::Bool, "Auth none on any address").default("off"),
            Key::new("max_clock_skew", Type::Time, "how far a client's clock may be off").default("300"),
            Key::new("create_on_put", Type::Bool, "a put makes the group and the stream that are missing")
                .default("off"),
            Key::new("group_key", Type::Str, "key of the record that the group goes under")
                .default("log_group"),
            Key::new("stream_key", Type::Str, "key of the record that the stream goes under")
                .default("log_stream"),
            Key::new("accept_any_time", Type::Bool, "take events of any time, not only what the service takes")
                .default("off"),
            Key::new("hold_max", Type::Time, "how long an answer may be put off before it is a 503")
                .default("20"),
            Key::new("window", Type::Int, "latest events kept for GetLogEvents and FilterLogEvents; 0: none")
                .default("10000"),
            Key::new(
                "window_size",
                Type::Size,
                "most bytes of them; never more than an eighth of memory.limit",
            )
            .default("8388608"),
            Key::new("max_body", Type::Size, "largest body, packed or not").default("8388608"),
            Key::new("max_connections", Type::Int, "connections at a time; more wait to be accepted")
                .default("1000"),
            Key::new("header_timeout", Type::Time, "a connection without a whole request head is closed after")
                .default("60"),
            Key::new("body_timeout", Type::Time, "how long a client may take to send a body").default("60"),
            Key::new("max_groups", Type::Int, "groups that are known at a time").default("1000"),
            Key::new(
                "max_streams",
                Type::Int,
                "streams that are known at a time; beyond, the one silent the longest is forgotten",
            )
            .default("10000"),
        ],
        groups: &[NET_INPUT, TLS_INPUT],
    },
    build,
};

struct CloudWatch {
    address: Address,
    settings: Settings,
    access: Option<Access>,
}

fn build(s: &config::Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Box<dyn Input>> {
    let address = Address::read(s, diags);
    let settings = Settings::read(s, diags);
    let address = address?;
    let access = settings::access(s, address.is_local(), diags);
    let most = match s.int("max_connections") {
        Some(n @ 1..=100_000) => n as usize,
        _ => {
            s.error(diags, "max_connections", "a number of connections from 1 to 100000");
            return None;
        }
    };
    Some(Box::new(CloudWatch { address: address.most(most), settings: settings?, access: access? }))
}

impl Input for CloudWatch {
    fn start(self: Box<Self>, cx: InputContext) -> BoxFuture<'static, Result<(), String>> {
        let CloudWatch { address, settings, access } = *self;
        let hub = Arc::new(Hub::new(cx.clone(), settings, access));
        Box::pin(address.start(cx, move |cx, conn| server::serve(Arc::clone(&hub), cx, conn)))
    }
}
