//! The groups of one parser in one stream.
//!
//! Enters: what the parser makes of a line. Leaves: joined groups. Counts what it holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::group::{Group, Joined};
use super::joiner::{Line, Parsed};
use super::machine::{StateId, Step};
use super::spec::MultilineParser;
use crate::record::{Fields, Time};
use crate::wire::msgpack;

/// At most so many values of `key_group` are told apart at a time.
pub(super) const MAX_GROUPS: usize = 256;

#[derive(Debug)]
pub(super) struct Lane<F> {
    parser: Arc<MultilineParser>,
    flush: Duration,
    groups: Vec<Group<F>>,
    /// Groups that hold something.
    held: usize,
    /// Bytes they hold.
    pub(super) bytes: usize,
}

/// What a parser makes of a line that belongs to one of its groups.
pub(super) struct View<'l> {
    fields: &'l Fields,
    /// Where its content is among the fields, and its time; `None` when it is not parsed first.
    parsed: Option<(usize, Option<Time>)>,
    content: &'l [u8],
    /// The value of `key_group`.
    key: &'l [u8],
    /// It begins a group: what is collected goes out.
    starts: bool,
    state: StateId,
}

fn text_of<'f>(fields: &'f Fields, key: &[u8]) -> Option<(usize, &'f [u8])> {
    let at = (0..fields.list.len()).rev().find(|i| fields.key(*i) == key)?;
    Some((at, msgpack::value(fields.value(at))?.text()?))
}

impl<F: Default> Lane<F> {
    pub(super) fn new(parser: &Arc<MultilineParser>, flush: Option<Duration>) -> Self {
        Lane {
            parser: Arc::clone(parser),
            flush: flush.unwrap_or(parser.flush),
            groups: Vec::new(),
            held: 0,
            bytes: 0,
        }
    }

    /// Looks at a line; `None` when it belongs to no group here.
    pub(super) fn view<'l>(
        &self,
        line: &'l impl Line<F>,
        key_content: Option<&[u8]>,
        fields: &'l mut Fields,
    ) -> Option<View<'l>> {
        let parser = &*self.parser;
        let mut time = None;
        if let Some(first) = &parser.parser {
            fields.clear();
            time = first.parse(line.text(), fields, line.time())?;
        }
        let fields: &'l Fields = fields;
        let (parsed, content) = match &parser.parser {
            None => (None, line.text()),
            Some(_) => {
                let (at, text) = text_of(fields, key_content.or(parser.key_content.as_deref())?)?;
                (Some((at, time)), text)
            }
        };
        let of = |key: &Option<Vec<u8>>| match parsed {
            Some(_) => Some(text_of(fields, key.as_deref()?)?.1),
            None => line.field(key.as_deref()?),
        };
        let looked_at = of(&parser.key_pattern).unwrap_or(content);
        let key = of(&parser.key_group).unwrap_or_default();
        let state = self.groups.iter().find(|g| g.key == key).and_then(|g| g.state);
        let (starts, state) = match parser.machine.step(state, looked_at) {
            Step::No => return None,
            Step::Starts(state) => (true, state),
            Step::Continues(state) => (false, state),
        };
        Some(View { fields, parsed, content, key, starts, state })
    }

    /// Puts the line into its group. False: it is a whole group by itself and was not taken.
    pub(super) fn take(
        &mut self,
        view: &View<'_>,
        line: &impl Line<F>,
        (clock, now, limit): (u64, Instant, usize),
        emit: &mut dyn FnMut(Joined<'_, F>),
    ) -> bool {
        let at = self.group(view.key, now, emit);
        let lines = self.parser.machine.joins_lines();
        let complete = self.parser.machine.complete(view.state);
        if view.starts {
            self.flush(at, false, emit);
        }
        let full = |g: &Group<F>| g.parts > 0 && g.text.len() + 1 >= limit && !view.content.is_empty();
        let full = self.groups.get(at).is_some_and(full);
        if full {
            // Not even a part of it fits. The group ends here, and its state with it.
            self.flush(at, true, emit);
        }
        let Some(group) = self.groups.get_mut(at) else { return false };
        group.state = (!full).then_some(view.state);
        let whole = group.parts == 0 && (complete || full) && view.content.len() <= limit;
        if whole && view.parsed.is_none() {
            return false;
        }
        if group.parts == 0 {
            let parsed = view.parsed.map(|(content, time)| Parsed { fields: view.fields, content, time });
            group.since = clock;
            group.first_len = line.remember(parsed, &mut group.first);
            self.held += 1;
        }
        let before = group.bytes();
        let cut = group.append(view.content, lines, limit);
        if line.id() != 0 {
            group.ids.push(line.id());
        }
        group.deadline = now + self.flush;
        self.bytes = self.bytes + group.bytes() - before;
        if cut {
            group.state = None;
        }
        if cut || complete || full {
            self.flush(at, cut, emit);
        }
        true
    }

    /// The position of the group of this key, made when it is new. There is room: the least recent one goes.
    fn group(&mut self, key: &[u8], now: Instant, emit: &mut dyn FnMut(Joined<'_, F>)) -> usize {
        if let Some(at) = self.groups.iter().position(|g| g.key == key) {
            return at;
        }
        if self.groups.len() >= MAX_GROUPS
            && let Some(oldest) =
                (0..self.groups.len()).min_by_key(|i| self.groups.get(*i).map_or(0, |g| g.since))
        {
            self.flush(oldest, false, emit);
            self.groups.swap_remove(oldest);
        }
        self.groups.push(Group::new(key, now));
        self.groups.len() - 1
    }

    /// Emits what a group holds.
    fn flush(&mut self, at: usize, truncated: bool, emit: &mut dyn FnMut(Joined<'_, F>)) {
        if let Some(group) = self.groups.get_mut(at)
            && group.parts > 0
        {
            self.held -= 1;
            self.bytes -= group.bytes();
            group.flush(truncated, emit);
        }
    }

    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// The oldest group that is wanted: when its first line came.
    pub(super) fn oldest(&self, wanted: impl Fn(&Group<F>) -> bool) -> Option<u64> {
        if self.held == 0 {
            return None;
        }
        self.groups.iter().filter(|g| g.parts > 0 && wanted(g)).map(|g| g.since).min()
    }

    /// Emits the group whose first line came then.
    pub(super) fn flush_since(&mut self, since: u64, emit: &mut dyn FnMut(Joined<'_, F>)) {
        if let Some(at) = self.groups.iter().position(|g| g.parts > 0 && g.since == since) {
            self.flush(at, false, emit);
        }
    }

    /// When the first group has waited long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.held == 0 {
            return None;
        }
        self.groups.iter().filter(|g| g.parts > 0).map(|g| g.deadline).min()
    }
}
