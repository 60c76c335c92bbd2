//! What a `[MULTILINE_PARSER]` section says, and its compiled form.
//!
//! Enters: a [`Spec`]. Leaves: a [`MultilineParser`]. Can go wrong: rules that name unknown states, no start, a pattern
//! that is none; [`SpecError`] says which rule.

use std::sync::Arc;
use std::time::Duration;

use super::machine::Machine;
use crate::record::{Fields, Time};

/// What takes a line apart before it is looked at.
pub trait LineParser: std::fmt::Debug + Send + Sync {
    /// Puts the fields of the line into `fields`, which are empty. `None` when it is no such line, else the time in it,
    /// if there is one. `now` gives what that leaves out.
    fn parse(&self, line: &[u8], fields: &mut Fields, now: Time) -> Option<Option<Time>>;
}

/// One `rule "from, from" "pattern" "to"`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The states it is tried in; `start_state` means that a group may begin with it.
    pub from: Vec<String>,
    /// What the line must look like.
    pub pattern: String,
    /// The state after it.
    pub to: String,
}

impl Rule {
    /// From the three texts of a configuration.
    pub fn new(from: &str, pattern: &str, to: &str) -> Rule {
        Rule {
            from: from.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect(),
            pattern: pattern.to_owned(),
            to: to.trim().to_owned(),
        }
    }
}

/// How it is decided what belongs together.
#[derive(Clone, Debug)]
pub enum How {
    /// `type regex`: a state machine over the lines. Without rules nothing is joined.
    Rules(Vec<Rule>),
    /// `type endswith`: a line that ends with the text is the last of its group.
    EndsWith {
        /// `match_string`
        text: String,
        /// `negate`: a line that does *not* end with it is the last.
        negate: bool,
    },
    /// `type equal`: a line that equals the text is the last of its group.
    Equal {
        /// `match_string`
        text: String,
        /// `negate`: a line that does *not* equal it is the last.
        negate: bool,
    },
}

/// A definition as written.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// `type` and what goes with it.
    pub how: How,
    /// `flush_timeout`: how long a group waits for its next line.
    pub flush: Duration,
    /// `parser`: lines are parsed by it first; one that does not parse belongs to nothing.
    pub parser: Option<Arc<dyn LineParser>>,
    /// `key_content`: the field that is joined, of a parsed line.
    pub key_content: Option<String>,
    /// `key_pattern`: the field that is looked at; the content when it is not set.
    pub key_pattern: Option<String>,
    /// `key_group`: lines with different values here never mix.
    pub key_group: Option<String>,
}

impl Spec {
    /// Fluent Bit's `flush_timeout` when none is set.
    pub const FLUSH: Duration = Duration::from_millis(4000);

    /// With nothing but a name and how to decide.
    pub fn new(name: impl Into<String>, how: How) -> Spec {
        Spec {
            name: name.into(),
            how,
            flush: Spec::FLUSH,
            parser: None,
            key_content: None,
            key_pattern: None,
            key_group: None,
        }
    }
}

/// What is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// The position of the rule in question, from 0, if it is one.
    pub rule: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// A compiled multiline parser: immutable, shared by all streams.
#[derive(Debug)]
pub struct MultilineParser {
    name: String,
    pub(super) machine: Machine,
    pub(super) flush: Duration,
    pub(super) parser: Option<Arc<dyn LineParser>>,
    pub(super) key_content: Option<Vec<u8>>,
    pub(super) key_pattern: Option<Vec<u8>>,
    pub(super) key_group: Option<Vec<u8>>,
}

impl MultilineParser {
    /// Compiles a definition.
    ///
    /// # Errors
    /// Says which rule is wrong and why.
    pub fn new(spec: Spec) -> Result<MultilineParser, SpecError> {
        let bytes = |key: Option<String>| key.filter(|k| !k.is_empty()).map(String::into_bytes);
        Ok(MultilineParser {
            name: spec.name,
            machine: Machine::new(&spec.how)?,
            flush: spec.flush,
            parser: spec.parser,
            key_content: bytes(spec.key_content),
            key_pattern: bytes(spec.key_pattern),
            key_group: bytes(spec.key_group),
        })
    }

    /// Its name in configurations.
    pub fn name(&self) -> &str {
        &self.name
    }
}
