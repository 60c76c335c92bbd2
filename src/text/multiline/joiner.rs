//! The state of one stream of lines under a list of multiline parsers.
//!
//! Enters: lines in order. Leaves: joined groups. What one parser collects goes out before another one takes a line, and
//! everything before a line that passes alone, so that the order of the lines stays (only groups of different
//! `key_group` values overlap). Bounded: one group by [`Limits::group`], all together by [`Limits::total`], and their
//! number; over a bound the oldest goes out early.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::group::{Group, Joined};
use super::lane::Lane;
use super::spec::MultilineParser;
use crate::record::{Fields, Time};

/// How much may be held back, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one joined text; what is over is cut off.
    pub group: usize,
    /// Bytes of all groups.
    pub total: usize,
    /// How long a group waits for its next line; `None`: as its parser says.
    pub flush: Option<Duration>,
}

/// A line that was parsed first.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<'a> {
    /// Its fields.
    pub fields: &'a Fields,
    /// Which of them is joined.
    pub content: usize,
    /// The time in it.
    pub time: Option<Time>,
}

/// A line as a source gives it; `F` is what the source needs to remember of the first line of a group.
pub trait Line<F> {
    /// The text.
    fn text(&self) -> &[u8];

    /// When it came: gives what the time in it leaves out (a year).
    fn time(&self) -> Time;

    /// The number of its stored copy; 0: it has none.
    fn id(&self) -> u64 {
        0
    }

    /// Another field beside it, if the source has fields and it holds text.
    fn field(&self, key: &[u8]) -> Option<&[u8]>;

    /// Remembers what the joined line needs, in memory that is used again. Says how many bytes that is.
    fn remember(&self, parsed: Option<Parsed<'_>>, first: &mut F) -> usize;
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It belongs to no group, or is a whole one: pass it on, after what was emitted.
    Alone,
    /// It is in a group (which may have been emitted already).
    Taken,
}

/// The state of one stream.
#[derive(Debug)]
pub struct Joiner<F> {
    lanes: Vec<Lane<F>>,
    /// The parser that took a line last is asked first.
    last: usize,
    key_content: Option<Vec<u8>>,
    limits: Limits,
    fields: Fields,
    /// Counts lines: the order of groups.
    clock: u64,
}

impl<F: Default> Joiner<F> {
    /// Nothing held. `key_content` is the name of the content in lines that are parsed first, where the source sets it
    /// instead of the parser.
    pub fn new(parsers: &[Arc<MultilineParser>], key_content: Option<&[u8]>, limits: Limits) -> Self {
        Joiner {
            lanes: parsers.iter().map(|parser| Lane::new(parser, limits.flush)).collect(),
            last: 0,
            key_content: key_content.map(<[u8]>::to_vec),
            limits,
            fields: Fields::default(),
            clock: 0,
        }
    }

    /// Looks at one line. Groups that it ends, or that are older than it, are emitted before the call returns.
    pub fn push(
        &mut self,
        line: &impl Line<F>,
        now: Instant,
        emit: &mut dyn FnMut(Joined<'_, F>),
    ) -> Outcome {
        self.clock += 1;
        // Out of `self` for the time being: what is seen of a parsed line borrows from them.
        let mut fields = std::mem::take(&mut self.fields);
        let mut outcome = None;
        let last = self.last;
        for i in std::iter::once(last).chain((0..self.lanes.len()).filter(|i| *i != last)) {
            let seen = self.lanes.get(i).and_then(|l| l.view(line, self.key_content.as_deref(), &mut fields));
            let Some(view) = seen else { continue };
            self.last = i;
            if self.lanes.iter().enumerate().any(|(other, lane)| other != i && !lane.is_empty()) {
                self.flush_lanes(|other| other != i, |_| true, emit);
            }
            let at = (self.clock, now, self.limits.group);
            let taken = self.lanes.get_mut(i).is_some_and(|lane| lane.take(&view, line, at, emit));
            outcome = Some(if taken { Outcome::Taken } else { Outcome::Alone });
            break;
        }
        self.fields = fields;
        match outcome {
            Some(Outcome::Taken) => {
                while self.bytes() > self.limits.total && self.flush_oldest(|_| true, |_| true, emit) {}
                Outcome::Taken
            }
            Some(Outcome::Alone) => Outcome::Alone,
            None => {
                self.flush(emit);
                Outcome::Alone
            }
        }
    }

    /// Emits the oldest group that is wanted; says whether there was one.
    fn flush_oldest(
        &mut self,
        lane: impl Fn(usize) -> bool,
        group: impl Fn(&Group<F>) -> bool,
        emit: &mut dyn FnMut(Joined<'_, F>),
    ) -> bool {
        let wanted = self.lanes.iter().enumerate().filter(|(i, _)| lane(*i));
        let oldest = wanted.filter_map(|(i, l)| Some((l.oldest(&group)?, i))).min();
        let Some((since, i)) = oldest else { return false };
        if let Some(lane) = self.lanes.get_mut(i) {
            lane.flush_since(since, emit);
        }
        true
    }

    fn flush_lanes(
        &mut self,
        lane: impl Fn(usize) -> bool,
        group: impl Fn(&Group<F>) -> bool,
        emit: &mut dyn FnMut(Joined<'_, F>),
    ) {
        while self.flush_oldest(&lane, &group, emit) {}
    }

    /// Emits everything held, oldest first.
    pub fn flush(&mut self, emit: &mut dyn FnMut(Joined<'_, F>)) {
        self.flush_lanes(|_| true, |_| true, emit);
    }

    /// Emits what has waited long enough.
    pub fn expire(&mut self, now: Instant, emit: &mut dyn FnMut(Joined<'_, F>)) {
        self.flush_lanes(|_| true, |g| g.deadline <= now, emit);
    }

    /// When [`Joiner::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(Lane::deadline).min()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().map(|l| l.bytes).sum()
    }
}
