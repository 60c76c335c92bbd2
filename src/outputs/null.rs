//! `null`: takes everything and forgets it.

use std::future::Future;
use std::pin::Pin;

use super::{BuildContext, Output, OutputKind};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::rt::Receiver;

pub(super) const KIND: OutputKind = OutputKind {
    info: PluginInfo {
        name: "null",
        aliases: &[],
        summary: "Discard records.",
        keys: &[
            Key::new("format", Type::Str, "accepted for compatibility; nothing is written"),
            Key::new("json_date_key", Type::Str, "accepted for compatibility; nothing is written"),
            Key::new("json_date_format", Type::Str, "accepted for compatibility; nothing is written"),
        ],
        groups: &[],
    },
    build,
};

struct Null;

fn build(_: &Settings, _: &BuildContext, _: &mut Diagnostics) -> Option<Box<dyn Output>> {
    Some(Box::new(Null))
}

impl Output for Null {
    fn run(self: Box<Self>, mut queue: Receiver) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Some(delivery) = queue.recv().await {
                delivery.delivered();
            }
        })
    }
}
