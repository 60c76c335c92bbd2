//! Outputs: chunks in, the world out.
//!
//! Enters: deliveries from the output's own queue. Leaves: bytes somewhere else, and a verdict for each delivery.
//! Can go wrong: the destination refuses, is slow or away. An output retries and blocks its queue (and through it the
//! sources that route to it); it never drops without a counter and a reason.
//!
//! To add one: a file with a `KIND`, a row in [`KINDS`].

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::config::{Diagnostics, PluginInfo, Settings};
use crate::rt::Receiver;
use crate::wire::json;
pub use retry::RetryPolicy;

mod batch;
mod cloudwatch;
mod drive;
mod file;
mod format;
mod forward;
#[cfg(feature = "kafka")]
mod kafka;
mod null;
mod parcels;
mod peer;
mod retry;
mod stdout;

/// Every output there is.
pub const KINDS: &[&OutputKind] = &[
    &file::KIND,
    &stdout::KIND,
    &null::KIND,
    &forward::KIND,
    &cloudwatch::LOGS,
    &cloudwatch::GO,
    #[cfg(feature = "kafka")]
    &kafka::KIND,
];

/// A row of the table.
pub struct OutputKind {
    /// Name, keys, words for `explain`.
    pub info: PluginInfo,
    /// Reads the settings. `None` only after an error was reported. Must not touch the world.
    pub build: fn(&Settings, &BuildContext, &mut Diagnostics) -> Option<Box<dyn Output>>,
}

/// What `build` may look at besides its own settings.
#[derive(Clone, Debug)]
pub struct BuildContext {
    /// `json.escape_unicode`: non-ASCII as `\uXXXX` in JSON (on by default, as in Fluent Bit).
    pub escape_unicode: bool,
    /// `Flush`: the longest that records without an ack may wait for company.
    pub flush: Duration,
    /// When this output's failed batches are tried again.
    pub retry: RetryPolicy,
}

/// A destination.
pub trait Output: Send {
    /// Takes deliveries until the queue is closed and empty, then ends. Every delivery gets a verdict.
    fn run(self: Box<Self>, queue: Receiver) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Finds an output by its name in configurations.
pub fn find(name: &str) -> Option<&'static OutputKind> {
    KINDS.iter().copied().find(|k| {
        k.info.name.eq_ignore_ascii_case(name) || k.info.aliases.iter().any(|a| a.eq_ignore_ascii_case(name))
    })
}

/// Counts the keys that were no UTF-8 in what this thread has just written as JSON, and says so the first time.
fn count_replaced_keys(queue: &Receiver) {
    let keys = json::take_replaced_keys();
    if keys > 0 && queue.counters().replaced_keys.fetch_add(keys, Relaxed) == 0 {
        tracing::warn!(output = %queue.label(), keys, "keys that are no UTF-8 are written with U+FFFD in JSON; how many there are is counted in replaced_keys");
    }
}

/// Whether an output ever gives a batch up because it failed. Those that write on this machine do not: their disk is
/// full, or their pipe is slow, and they wait for that to end.
pub fn gives_up(name: &str) -> bool {
    !["file", "stdout", "null"].contains(&name)
}
