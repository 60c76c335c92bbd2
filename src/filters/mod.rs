//! Filters: records in, records out, dropped, held back or sent on under another tag.
//!
//! Enters: the view of one record ([`Record`]). Leaves: a [`Verdict`], edits in the view, and what the filter emits.
//! Can go wrong: nothing at run time. A filter that cannot do its work on a record leaves it unchanged; what is wrong
//! with a configuration is reported by `build`, before any port opens.
//!
//! To add one: a file with a `KIND`, a row in [`KINDS`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Diagnostics, PluginInfo, Settings};
use crate::record::{Record, Tag};
use crate::text::Library;

mod grep;
mod modify;
mod multiline;
mod nest;
mod parser;
pub mod program;
#[cfg(test)]
mod properties;
mod record_modifier;
mod rewrite_tag;
mod rule;
mod stdout;
#[cfg(test)]
mod testing;
mod throttle;
mod type_converter;

/// Every filter there is.
pub const KINDS: &[&FilterKind] = &[
    &grep::KIND,
    &modify::KIND,
    &multiline::KIND,
    &nest::KIND,
    &parser::KIND,
    &record_modifier::KIND,
    &rewrite_tag::KIND,
    &stdout::KIND,
    &throttle::KIND,
    &type_converter::KIND,
];

/// A row of the table.
pub struct FilterKind {
    /// Name, keys, words for `explain`.
    pub info: PluginInfo,
    /// Reads the settings. `None` only after an error was reported.
    pub build: fn(&Settings, &BuildContext<'_>, &mut Diagnostics) -> Option<Arc<dyn Filter>>,
}

/// What `build` may look at besides its own settings.
pub struct BuildContext<'a> {
    /// Parsers and multiline parsers by name.
    pub library: &'a Library,
    /// `[SERVICE] multiline_buffer_limit` in bytes: the cap of one joined record.
    pub multiline_buffer_limit: usize,
}

/// What becomes of the record that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, edited or not.
    Keep,
    /// Dropped on purpose; counted as filtered.
    Drop,
    /// Held back (the filter has copied what it needs); counted as holding until it is emitted.
    Hold,
    /// Sent on under another tag by [`Emitter::moved`]; it does not go on here.
    Moved,
}

/// A compiled filter: immutable and shared by all connections.
pub trait Filter: Send + Sync {
    /// Looks at one record. Not called for filters that have a [`Hold`]: their state is asked instead.
    fn apply(&self, record: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict;

    /// A filter that holds records back makes its state here, one for each connection and tag.
    fn hold(&self) -> Option<Box<dyn Hold>> {
        None
    }
}

/// The state of a filter that holds records back.
pub trait Hold: Send {
    /// Looks at one record, in the place of [`Filter::apply`].
    fn push(&mut self, record: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict;

    /// When [`Hold::expire`] wants to be called, if anything is held.
    fn deadline(&self) -> Option<Instant>;

    /// Emits what has waited long enough.
    fn expire(&mut self, now: Instant, emit: &mut Emitter);

    /// Emits everything: the connection has ended, or the process stops.
    fn release(&mut self, emit: &mut Emitter);

    /// The end of what came in one piece; for filters that join only within it.
    fn end_of_chunk(&mut self, _emit: &mut Emitter) {}

    /// Bytes held, for the budget.
    fn bytes(&self) -> usize;
}

/// What a filter may use besides the record.
pub struct Context<'a> {
    /// The tag of the record.
    pub tag: &'a Tag,
    /// Monotonic time, read once per chunk.
    pub now: Instant,
    /// Where emitted records go.
    pub emit: &'a mut Emitter,
    /// False when the record has been under too many tags: it may not be moved again (a rule loop).
    pub may_move: bool,
    /// The number of the stored copy that the record has while it is held back; 0: it has none. Whoever holds the record
    /// gives it back to [`Emitter::joined`].
    pub id: u64,
}

/// One emitted record.
#[derive(Debug)]
pub(crate) struct Emission {
    /// Bounds of the entry in the emitter's bytes.
    pub(crate) end: usize,
    /// The new tag; `None` for the same tag.
    pub(crate) tag: Option<Tag>,
    /// Held records it was made of (0: none; it is the record itself, or a copy).
    pub(crate) parts: u64,
    /// The numbers of their stored copies.
    pub(crate) ids: Vec<u64>,
    /// It did not exist before (a copy).
    pub(crate) made: bool,
    /// The step that emitted it; the program fills it in.
    pub(crate) step: usize,
}

/// Collects what a filter emits.
#[derive(Debug, Default)]
pub struct Emitter {
    pub(crate) bytes: Vec<u8>,
    pub(crate) list: Vec<Emission>,
}

impl Emitter {
    fn add(
        &mut self,
        tag: Option<Tag>,
        parts: u64,
        ids: &[u64],
        made: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        write(&mut self.bytes);
        self.list.push(Emission { end: self.bytes.len(), tag, parts, ids: ids.to_vec(), made, step: 0 });
    }

    /// Emits one record made of `parts` held ones under the same tag. It passes all filters of the tag again from the
    /// first, except this one, as Fluent Bit's emitter does. `ids` are those that came with them ([`Context::id`], but 0).
    /// `write` appends one whole entry.
    pub fn joined(&mut self, parts: u64, ids: &[u64], write: impl FnOnce(&mut Vec<u8>)) {
        self.add(None, parts, ids, false, write);
    }

    /// Moves the record at hand to another tag: it passes that tag's filters from the first, except this one.
    /// Return [`Verdict::Moved`] with it.
    pub fn moved(&mut self, tag: Tag, record: &Record<'_>) {
        self.add(Some(tag), 0, &[], false, |out| record.encode(out));
    }

    /// As [`Emitter::moved`], but a copy: the record itself goes on here ([`Verdict::Keep`]).
    pub fn copied(&mut self, tag: Tag, record: &Record<'_>) {
        self.add(Some(tag), 0, &[], true, |out| record.encode(out));
    }
}

/// Finds a filter by its name in configurations.
pub fn find(name: &str) -> Option<&'static FilterKind> {
    KINDS.iter().copied().find(|k| {
        k.info.name.eq_ignore_ascii_case(name) || k.info.aliases.iter().any(|a| a.eq_ignore_ascii_case(name))
    })
}

/// How long [`Hold`] states wait at least between two looks at the clock.
pub const TICK: Duration = Duration::from_millis(50);
