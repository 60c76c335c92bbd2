//! The decision about one line: does it begin a group, go on with one, end one, or belong to none.
//!
//! Enters: the state of a group and a line. Leaves: a [`Step`]. Rules from Fluent Bit 5.1.1: in a state the rules of that
//! state are tried in order, those that may begin a group left out; then those that begin one. A group is complete at
//! once when a group may begin in the state it has reached.

use super::spec::{How, Rule, SpecError};
use crate::text::Regex;

/// The state in which a group may begin.
const START: &str = "start_state";

/// A state by number.
pub(super) type StateId = u16;

/// What a line is to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It belongs to nothing.
    No,
    /// It begins a group; what was collected before is complete.
    Starts(StateId),
    /// It goes on with what was collected (or begins a group, when that has been flushed).
    Continues(StateId),
}

#[derive(Debug)]
pub(super) struct State {
    /// Rules tried in this state, in order, and the state each leads to.
    rules: Vec<(Regex, StateId)>,
    /// A group that has reached this state is complete.
    complete: bool,
}

#[derive(Debug)]
pub(super) enum Machine {
    Rules {
        starts: Vec<(Regex, StateId)>,
        states: Vec<State>,
    },
    /// The last line of a group ends with (or is) the text, or does not.
    Last {
        text: Vec<u8>,
        whole: bool,
        negate: bool,
    },
}

/// States of [`Machine::Last`].
const OPEN: StateId = 0;
const DONE: StateId = 1;

fn error(rule: Option<usize>, message: impl Into<String>, hint: impl Into<String>) -> SpecError {
    SpecError { rule, message: message.into(), hint: hint.into() }
}

impl Machine {
    pub(super) fn new(how: &How) -> Result<Machine, SpecError> {
        match how {
            How::Rules(rules) => Machine::of_rules(rules),
            How::EndsWith { text, negate } => Ok(Machine::last(text, false, *negate)),
            How::Equal { text, negate } => Ok(Machine::last(text, true, *negate)),
        }
    }

    fn last(text: &str, whole: bool, negate: bool) -> Machine {
        Machine::Last { text: text.as_bytes().to_vec(), whole, negate }
    }

    fn of_rules(rules: &[Rule]) -> Result<Machine, SpecError> {
        let begins = |rule: &Rule| rule.from.iter().any(|s| s == START);
        if rules.first().is_some_and(|first| !begins(first)) {
            return Err(error(
                Some(0),
                format!("invalid mapping rules: the first rule must apply in {START}"),
                format!("name {START} among its states, or move the rule that begins a group to the front"),
            ));
        }
        // State numbers in order of appearance; `start_state` is one like any other, in which no rule goes on.
        let mut names: Vec<&str> = Vec::new();
        for name in rules.iter().flat_map(|r| r.from.iter()) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        if names.len() > usize::from(StateId::MAX) {
            return Err(error(None, "invalid mapping rules: more than 65,535 states", "use fewer"));
        }
        let mut starts = Vec::new();
        let mut states: Vec<State> =
            names.iter().map(|name| State { rules: Vec::new(), complete: *name == START }).collect();
        for (i, rule) in rules.iter().enumerate() {
            let Some(to) = names.iter().position(|n| *n == rule.to) else {
                return Err(error(
                    Some(i),
                    format!(
                        "invalid mapping rules, check the states: no rule applies in next_state \"{}\"",
                        rule.to
                    ),
                    format!("add a rule for it, or use one of: {}", names.join(", ")),
                ));
            };
            let to = to as StateId;
            let pattern = Regex::new(&rule.pattern).map_err(|e| {
                error(Some(i), format!("bad regular expression in a rule: {e}"), "correct the pattern")
            })?;
            if begins(rule) {
                starts.push((pattern, to));
            } else {
                for (name, state) in names.iter().zip(&mut states) {
                    if rule.from.iter().any(|f| f == name) {
                        state.rules.push((pattern.clone(), to));
                    }
                }
                continue;
            }
            for (name, state) in names.iter().zip(&mut states) {
                state.complete |= rule.from.iter().any(|f| f == name);
            }
        }
        Ok(Machine::Rules { starts, states })
    }

    /// What a line is to a group in `state` (`None`: nothing has matched yet).
    #[inline]
    pub(super) fn step(&self, state: Option<StateId>, line: &[u8]) -> Step {
        match self {
            Machine::Rules { starts, states } => {
                let find = |rules: &[(Regex, StateId)]| {
                    rules.iter().find(|(pattern, _)| pattern.is_match(line)).map(|(_, to)| *to)
                };
                if let Some(to) =
                    state.and_then(|s| states.get(usize::from(s))).and_then(|state| find(&state.rules))
                {
                    return Step::Continues(to);
                }
                find(starts).map_or(Step::No, Step::Starts)
            }
            Machine::Last { text, whole, negate } => {
                let found = if *whole { line == text.as_slice() } else { line.ends_with(text) };
                Step::Continues(if found == *negate { OPEN } else { DONE })
            }
        }
    }

    /// Whether a group that has reached this state is complete.
    #[inline]
    pub(super) fn complete(&self, state: StateId) -> bool {
        match self {
            Machine::Rules { states, .. } => states.get(usize::from(state)).is_none_or(|s| s.complete),
            Machine::Last { .. } => state == DONE,
        }
    }

    /// Whether lines are joined by `\n`; otherwise they are pieces of one line.
    #[inline]
    pub(super) fn joins_lines(&self) -> bool {
        matches!(self, Machine::Rules { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &[(&str, &str, &str)]) -> Result<Machine, SpecError> {
        Machine::new(&How::Rules(list.iter().map(|(f, p, t)| Rule::new(f, p, t)).collect()))
    }

    #[test]
    fn bad_rules_are_named() {
        let e = rules(&[("a", "x", "a")]).unwrap_err();
        assert!(e.rule == Some(0) && e.message.contains("start_state"), "{e}");
        let e = rules(&[("start_state", "x", "a"), ("b", "y", "b")]).unwrap_err();
        assert!(e.rule == Some(0) && e.message.contains("\"a\""), "{e}");
        let e =
            rules(&[("start_state", "x", "start_state"), ("start_state", "(", "start_state")]).unwrap_err();
        assert!(e.rule == Some(1) && e.message.contains("regular expression"), "{e}");
    }

    #[test]
    fn rules_of_the_state_come_first_and_then_those_that_begin_a_group() {
        let m = rules(&[
            ("start_state", "^B", "x"),
            ("x", "^B2", "y"),
            ("x, y", "^ a", "x"),
            ("y", "^e", "start_state"),
        ])
        .unwrap();
        let Step::Starts(x) = m.step(None, b"B2") else { panic!() };
        let Step::Continues(y) = m.step(Some(x), b"B2") else { panic!() };
        assert_eq!(m.step(Some(y), b" a"), Step::Continues(x));
        assert_eq!(m.step(Some(y), b"B2"), Step::Starts(x));
        assert_eq!(m.step(None, b" a"), Step::No);
        let Step::Continues(end) = m.step(Some(y), b"e") else { panic!() };
        assert!(m.complete(end) && !m.complete(x) && !m.complete(y));
        assert_eq!(m.step(Some(end), b" a"), Step::No);
    }

    #[test]
    fn the_last_line_ends_with_or_equals_the_text_unless_negated() {
        let done = |m: &Machine, line: &[u8]| match m.step(None, line) {
            Step::Continues(s) => m.complete(s),
            other => panic!("{other:?}"),
        };
        let ends = Machine::new(&How::EndsWith { text: ".".into(), negate: false }).unwrap();
        assert!(done(&ends, b"a.") && !done(&ends, b"a") && !done(&ends, b""));
        let open = Machine::new(&How::EndsWith { text: "\\".into(), negate: true }).unwrap();
        assert!(done(&open, b"a") && !done(&open, b"a\\"));
        let whole = Machine::new(&How::Equal { text: "F".into(), negate: false }).unwrap();
        assert!(done(&whole, b"F") && !done(&whole, b"FF"));
    }
}
