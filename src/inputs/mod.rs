//! Inputs: bytes in, records out to an [`Intake`].
//!
//! Enters: sockets, standard input, a clock. Leaves: validated msgpack entries. Can go wrong: bytes that cannot be
//! decoded; they are counted and reported, and never disturb another connection.
//!
//! To add one: a file with a `KIND`, a row in [`KINDS`].

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::config::{Diagnostics, PluginInfo, Settings};
use crate::observe::counters::{Refusal, Totals};
use crate::record::{AckWait, Time};
pub use crate::rt::Meter;
use crate::rt::{Budget, Stop, Tasks};
use crate::text::Library;

mod cloudwatch;
mod dummy;
mod forward;
#[cfg(feature = "kafka")]
mod kafka;
mod listen;
mod read;
mod split;
mod stdin;
mod tcp;
#[cfg(test)]
mod testing;

/// Every input there is.
pub const KINDS: &[&InputKind] = &[
    &cloudwatch::KIND,
    &dummy::KIND,
    &forward::KIND,
    #[cfg(feature = "kafka")]
    &kafka::KIND,
    &stdin::KIND,
    &tcp::KIND,
];

/// A row of the table.
pub struct InputKind {
    /// Name, keys, words for `explain`.
    pub info: PluginInfo,
    /// Reads the settings. `None` only after an error was reported. Must not touch the world.
    pub build: fn(&Settings, &BuildContext<'_>, &mut Diagnostics) -> Option<Box<dyn Input>>,
}

/// What `build` may look at besides its own settings.
pub struct BuildContext<'a> {
    /// Parsers by name.
    pub library: &'a Library,
}

/// A future that does not borrow.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A source of records, not yet open.
pub trait Input: Send {
    /// Opens what it listens on or reads from, starts its tasks (`cx.tasks`) and returns. Its tasks end by themselves
    /// after `cx.stop` says drain, having passed on what was on the way.
    ///
    /// # Errors
    /// A sentence that names the address or path and what to do.
    fn start(self: Box<Self>, cx: InputContext) -> BoxFuture<'static, Result<(), String>>;
}

/// Makes an intake for one connection or source of an input.
pub type IntakeMaker = dyn Fn(&InputContext) -> Box<dyn Intake> + Send + Sync;

/// What a running input works with.
#[derive(Clone)]
pub struct InputContext {
    /// `Alias` or instance name, for log lines and task names.
    pub label: String,
    /// `Tag`, else the instance name (`tcp.0`).
    pub tag: String,
    /// Whether `Tag` was set.
    pub tag_is_set: bool,
    /// `Mem_Buf_Limit` in bytes and what this input has inside.
    pub meter: Arc<Meter>,
    /// The process's byte budget: charge read buffers before they grow.
    pub budget: Budget,
    /// When to drain.
    pub stop: Stop,
    /// Where to spawn.
    pub tasks: Tasks,
    /// Counters.
    pub totals: Arc<Totals>,
    /// Makes an intake, one for each connection or source.
    pub intakes: Arc<IntakeMaker>,
    /// Where an input may keep what it must know after a restart, in a directory of its own: `storage.path`.
    pub state: Option<PathBuf>,
    /// Asks the process to drain and end (standard input has ended).
    pub end_process: Arc<Notify>,
}

impl InputContext {
    /// An intake for one connection or source.
    pub fn intake(&self) -> Box<dyn Intake> {
        (self.intakes)(self)
    }
}

/// Where one connection or source puts its records. Collects until [`Intake::flush`], which filters and routes.
pub trait Intake: Send {
    /// One record: `record` is one encoded map, validated. `None` as time means now.
    fn push(&mut self, tag: &[u8], time: Option<Time>, metadata: Option<&[u8]>, record: &[u8]);

    /// One record whose time (a known point in time) and map lie back to back as they came.
    fn push_raw(&mut self, tag: &[u8], time_and_record: &[u8]);

    /// A run of `count` validated entries with known times; kept without a copy when nothing else is collected.
    fn push_entries(&mut self, tag: &[u8], entries: Bytes, count: u64);

    /// Counts records that could not be taken in; they count as received, too. With dead letters their bytes go there
    /// at the next flush, and an ack waits until they are on disk. `reason` is for a person.
    fn refuse(&mut self, why: Refusal, count: u64, tag: &[u8], bytes: &[u8], reason: &str);

    /// Bytes collected since the last flush.
    fn collected(&self) -> usize;

    /// Filters and routes what is collected; waits while the share of an output it routes to is full. With `ack` the
    /// handle tells when every output has these records (settled at once when there are none); `settled` of
    /// [`Intake::settled`] is notified.
    fn flush(&mut self, ack: bool) -> BoxFuture<'_, Option<AckWait>>;

    /// Notified when an ack handle of this intake may have been settled.
    fn settled(&self) -> Arc<Notify>;

    /// When [`Intake::expire`] wants to be called: a filter holds records back.
    fn deadline(&self) -> Option<Instant>;

    /// Lets filters emit what has waited long enough.
    fn expire(&mut self) -> BoxFuture<'_, ()>;

    /// The source has ended: flushes, and lets filters emit everything they hold.
    fn finish(&mut self) -> BoxFuture<'_, ()>;
}

/// Finds an input by its name in configurations.
pub fn find(name: &str) -> Option<&'static InputKind> {
    KINDS.iter().copied().find(|k| {
        k.info.name.eq_ignore_ascii_case(name) || k.info.aliases.iter().any(|a| a.eq_ignore_ascii_case(name))
    })
}
