//! `forward`: the Fluent forward protocol to one peer, over TCP, TLS or a unix socket.
//!
//! Enters: deliveries. Leaves: messages, several in flight on one connection; verdicts when the peer has acked, or where
//! no ack is required when they are written. Can go wrong: the peer is away or refuses; then records are kept, sent again
//! in order, and the log says what to do.

mod link;
mod pack;
mod run;
mod window;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use self::pack::{Format, Packer, TagChoice};
use self::run::{Runner, Timing};
use self::window::Window;
use super::peer::{Net, client_tls, net};
use super::{BuildContext, Output, OutputKind};
use crate::config::{
    Diagnostics, Key, NET_OUTPUT, PEER, PluginInfo, Settings, TLS_FILES, TLS_OUTPUT, Type, value,
};
use crate::net::{Dialer, Target, random_printable};
use crate::rt::Receiver;
use crate::text::Template;
use crate::wire::forward_send::Ids;
use crate::wire::handshake_client::Login;

pub(super) const KIND: OutputKind = OutputKind {
    info: PluginInfo {
        name: "forward",
        aliases: &[],
        summary: "Fluent forward protocol to one peer.",
        keys: &[
            Key::new("port", Type::Int, "TCP port of the peer").default("24224"),
            Key::new("unix_path", Type::Str, "unix socket of the peer; host and port do not count then"),
            Key::new(
                "tag",
                Type::Str,
                "the tag to send instead of the record's own; with $fields one message a record",
            ),
            Key::new("require_ack_response", Type::Bool, "a record is delivered when the peer has acked it")
                .default("off"),
            Key::new("ack_timeout", Type::Time, "how long an ack may take")
                .otherwise("190, or net.io_timeout"),
            Key::new("send_options", Type::Bool, "send an option map; acks, gzip and add_option imply it")
                .default("off"),
            Key::new("add_option", Type::Words(2), "KEY VALUE added to the option map").multi(),
            Key::new("compress", Type::Str, "text or gzip").default("text"),
            Key::new("time_as_integer", Type::Bool, "whole seconds, for fluentd 0.12").default("off"),
            Key::new(
                "retain_metadata_in_forward_mode",
                Type::Bool,
                "send records' metadata; fluentd wants it off",
            )
            .default("on"),
            Key::new("shared_key", Type::Str, "key that both sides must prove to know"),
            Key::new("empty_shared_key", Type::Bool, "handshake with an empty shared key").default("off"),
            Key::new("self_hostname", Type::Str, "our name in the handshake").default("localhost"),
            Key::new("username", Type::Str, "user to give in the handshake; needs a shared key"),
            Key::new("password", Type::Str, "the user's password"),
            Key::new("fluentd_compat", Type::Bool, "accepted; it concerns metrics and traces only")
                .default("off"),
            Key::new("upstream", Type::Str, "not built yet: refused; use host and port"),
        ],
        groups: &[PEER, NET_OUTPUT, TLS_OUTPUT, TLS_FILES],
    },
    build,
};

/// How long an ack may take unless it is set: fluentd's time.
const ACK_TIMEOUT: Duration = Duration::from_secs(190);

struct Forward {
    dialer: Dialer,
    login: Option<Login>,
    format: Format,
    timing: Timing,
    retry: super::RetryPolicy,
}

fn build(s: &Settings, cx: &BuildContext, diags: &mut Diagnostics) -> Option<Box<dyn Output>> {
    if s.str("upstream").is_some() {
        s.error(diags, "upstream", "upstream is not built yet, use host and port");
        return None;
    }
    let format = format(s, diags)?;
    let login = login(s, diags)?;
    let net = net(s, diags)?;
    let dialer = dialer(s, &net, diags)?;
    let timing = Timing {
        ack: s.time("ack_timeout").filter(|t| !t.is_zero()).or(net.io).unwrap_or(ACK_TIMEOUT),
        io: net.io,
        idle: net.idle,
        recycle: net.recycle,
    };
    Some(Box::new(Forward { dialer, login, format, timing, retry: cx.retry }))
}

fn format(s: &Settings, diags: &mut Diagnostics) -> Option<Format> {
    let tag = match s.str("tag") {
        None => TagChoice::Own,
        Some(text) if !text.contains('$') => TagChoice::Fixed(text.as_bytes().to_vec()),
        Some(text) => match Template::new(text) {
            Ok(template) => TagChoice::Made(template),
            Err(e) => {
                s.error(diags, "tag", format_args!("bad tag \"{text}\": {e}"));
                return None;
            }
        },
    };
    let integer_times = s.bool("time_as_integer");
    let gzip = match s.str("compress").unwrap_or("text").to_ascii_lowercase().as_str() {
        "text" => false,
        "gzip" => true,
        other => {
            s.error(diags, "compress", format_args!("unknown compression \"{other}\", use text or gzip"));
            return None;
        }
    };
    if gzip && (integer_times || matches!(tag, TagChoice::Made(_))) {
        s.error(diags, "compress", "gzip goes neither with time_as_integer nor with a tag made from fields");
        return None;
    }
    let added: Vec<(String, String)> = s
        .all("add_option")
        .filter_map(|e| match value::words(&e.value).as_slice() {
            [key, value, ..] => Some((key.clone(), value.clone())),
            _ => None,
        })
        .collect();
    let acks = s.bool("require_ack_response");
    Some(Format {
        tag,
        integer_times,
        keep_metadata: s.bool("retain_metadata_in_forward_mode") && !integer_times,
        gzip,
        options: acks || gzip || !added.is_empty() || s.bool("send_options"),
        acks,
        added,
    })
}

/// The outer `None` is an error, the inner one no handshake.
#[allow(clippy::option_option, reason = "refused, or absent, or present")]
fn login(s: &Settings, diags: &mut Diagnostics) -> Option<Option<Login>> {
    let key = match s.str("shared_key") {
        Some(key) => key.to_owned(),
        None if s.bool("empty_shared_key") => String::new(),
        None if s.str("username").is_none() => return Some(None),
        None => {
            diags.error_hint(
                Some(s.pos_of("username")),
                "username without a shared key in [OUTPUT] forward",
                "set Shared_Key, or Empty_Shared_Key on",
            );
            return None;
        }
    };
    let text = |key| s.str(key).unwrap_or_default().to_owned();
    Some(Some(Login {
        shared_key: key,
        hostname: text("self_hostname"),
        user: text("username"),
        password: text("password"),
    }))
}

fn dialer(s: &Settings, net: &Net, diags: &mut Diagnostics) -> Option<Dialer> {
    let target = match s.str("unix_path") {
        Some(path) => Target::Unix(path.to_owned()),
        None => {
            let Some(port) = s.int("port").and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) else {
                s.error(diags, "port", "a port is a number from 1 to 65535");
                return None;
            };
            Target::Tcp(s.str("host").unwrap_or("127.0.0.1").to_owned(), port)
        }
    };
    let tls = match (&target, s.bool("tls")) {
        (_, false) => None,
        (Target::Unix(_), true) => {
            let message = "tls on with unix_path in [OUTPUT] forward";
            diags.strict(Some(s.pos_of("tls")), message, "a unix socket is used without TLS");
            None
        }
        (Target::Tcp(..), true) => Some(client_tls(s, s.bool("tls.verify_hostname"), diags)?),
    };
    Some(Dialer {
        target,
        via: None,
        tls,
        timeout: net.connect,
        source: net.source,
        keepalive: net.keepalive,
    })
}

impl Output for Forward {
    fn run(self: Box<Self>, queue: Receiver) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let own = match random_printable::<8>() {
                Ok(text) => text.into_bytes().try_into().unwrap_or_default(),
                Err(e) => {
                    // Without randomness nothing else works either; the queue's end says what is lost.
                    tracing::error!(output = %queue.label(), cause = %e, "output ended");
                    return;
                }
            };
            let runner = Runner {
                dialer: self.dialer,
                login: self.login,
                packer: Packer::new(self.format, Ids::new(own)),
                timing: self.timing,
                retry: self.retry,
                window: Window::default(),
                trouble: None,
                is_new: true,
            };
            runner.run(queue).await;
        })
    }
}

#[cfg(test)]
mod testing;
