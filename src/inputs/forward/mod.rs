//! `forward`: the Fluent forward protocol on TCP, TLS and unix sockets. What docker's `fluentd` log driver, Fluent Bit,
//! fluentd and the fluent-logger libraries speak.
//!
//! Enters: connections. Leaves: records, acks. Can go wrong: the address cannot be bound (refused at start with what to
//! do), a client breaks the protocol (its connection is closed, counted, logged; no other notices).

mod conn;
mod frames;
mod repeats;
mod room;
mod server;

use std::sync::Arc;

use super::listen::{Place, server_tls};
use super::{BoxFuture, BuildContext, Input, InputContext, InputKind};
use crate::config::{Diagnostics, Key, NET_INPUT, PluginInfo, Settings, TLS_INPUT, Type};
use crate::net::ServerTls;
use crate::wire::handshake::Credentials;

pub(super) const KIND: InputKind = InputKind {
    info: PluginInfo {
        name: "forward",
        aliases: &[],
        summary: "Fluent forward protocol on TCP, TLS or a unix socket.",
        keys: &[
            Key::new("port", Type::Int, "TCP port").default("24224"),
            Key::new("unix_path", Type::Str, "unix socket to listen on; TCP is not opened then"),
            Key::new("unix_perm", Type::Str, "permissions of the unix socket, octal (0666)"),
            Key::new("tag_prefix", Type::Str, "put before the incoming tag, no dot added"),
            Key::new("shared_key", Type::Str, "clients must prove that they know this key"),
            Key::new("empty_shared_key", Type::Bool, "handshake with an empty shared key").default("off"),
            Key::new("self_hostname", Type::Str, "name given to clients in the handshake")
                .default("localhost"),
            Key::new(
                "security.users",
                Type::Words(2),
                "USER PASSWORD that clients must give; needs a shared key",
            )
            .multi(),
            Key::new("buffer_chunk_size", Type::Size, "accepted; buffers grow as needed").default("1024000"),
            Key::new(
                "buffer_max_size",
                Type::Size,
                "largest frame, and largest decompressed payload, in bytes",
            )
            .default("6144000"),
            Key::new("udp_heartbeat", Type::Bool, "answer UDP heartbeats on the same port number")
                .default("off"),
        ],
        groups: &[NET_INPUT, TLS_INPUT],
    },
    build,
};

struct Forward {
    place: Place,
    tls: Option<ServerTls>,
    credentials: Option<Arc<Credentials>>,
    max_frame: usize,
    tag_prefix: String,
    tag: Option<String>,
    udp_heartbeat: bool,
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Box<dyn Input>> {
    let place = Place::read(s, diags)?;
    let credentials = credentials(s, diags)?;
    let tls = server_tls(s, diags)?;
    let max_frame = s.size("buffer_max_size").unwrap_or(6_144_000);
    if !(1024..=1 << 30).contains(&max_frame) {
        s.error(diags, "buffer_max_size", "the largest frame must be between 1K and 1G");
        return None;
    }
    Some(Box::new(Forward {
        place,
        tls,
        credentials: credentials.map(Arc::new),
        max_frame: max_frame as usize,
        tag_prefix: s.str("tag_prefix").unwrap_or_default().to_owned(),
        tag: s.str("tag").map(str::to_owned),
        udp_heartbeat: s.bool("udp_heartbeat"),
    }))
}

/// The outer `None` is an error, the inner one no handshake.
#[allow(clippy::option_option, reason = "refused, or absent, or present")]
fn credentials(s: &Settings, diags: &mut Diagnostics) -> Option<Option<Credentials>> {
    let users: Vec<(String, String)> = s
        .all("security.users")
        .filter_map(|e| match crate::config::value::words(&e.value).as_slice() {
            [user, password] => Some((user.clone(), password.clone())),
            _ => None,
        })
        .collect();
    let key = match s.str("shared_key") {
        Some(key) => key.to_owned(),
        None if s.bool("empty_shared_key") => String::new(),
        None if users.is_empty() => return Some(None),
        None => {
            diags.error_hint(
                Some(s.pos_of("security.users")),
                "security.users without a shared key in [INPUT] forward",
                "set Shared_Key, or Empty_Shared_Key on",
            );
            return None;
        }
    };
    Some(Some(Credentials {
        shared_key: key,
        hostname: s.str("self_hostname").unwrap_or("localhost").to_owned(),
        users,
    }))
}

impl Input for Forward {
    fn start(self: Box<Self>, cx: InputContext) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(server::start(*self, cx))
    }
}
