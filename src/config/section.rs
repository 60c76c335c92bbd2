//! The one model that both syntaxes are read into: sections of keys and values with their places.
//!
//! Enters: lines of a classic file or events of a YAML file. Leaves: a [`Document`].
//! Values are already expanded (`${ENV}`), names are not yet checked.

use super::diag::Pos;

/// One `key value` line.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key in lower case (keys are case-insensitive).
    pub key: String,
    /// The key as written, for messages.
    pub written: String,
    /// The value after expansion of variables, trimmed.
    pub value: String,
    /// Where the key stands.
    pub pos: Pos,
}

/// What kind of section it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// `[SERVICE]`, all of them appended into one.
    Service,
    /// `[INPUT]`
    Input,
    /// `[FILTER]`
    Filter,
    /// `[OUTPUT]`
    Output,
    /// `[PARSER]`
    Parser,
    /// `[MULTILINE_PARSER]`
    MultilineParser,
}

impl SectionKind {
    /// As written in a classic file, for messages: `[INPUT]`.
    pub fn title(self) -> &'static str {
        match self {
            SectionKind::Service => "[SERVICE]",
            SectionKind::Input => "[INPUT]",
            SectionKind::Filter => "[FILTER]",
            SectionKind::Output => "[OUTPUT]",
            SectionKind::Parser => "[PARSER]",
            SectionKind::MultilineParser => "[MULTILINE_PARSER]",
        }
    }
}

/// One section, entries in the order written.
#[derive(Clone, Debug)]
pub struct Section {
    /// What it is.
    pub kind: SectionKind,
    /// Where its header stands.
    pub pos: Pos,
    /// Its keys.
    pub entries: Vec<Entry>,
}

impl Section {
    /// The last value of `key` (lower case), if it is set.
    pub fn last(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|e| e.key == key)
    }
}

/// A whole configuration, includes and parsers files followed.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The main file's name.
    pub main: String,
    /// Every `[SERVICE]` entry in order (the last of a key wins).
    pub service: Vec<Entry>,
    /// Parsers, in order of definition.
    pub parsers: Vec<Section>,
    /// Multiline parsers, in order of definition.
    pub multiline_parsers: Vec<Section>,
    /// Inputs in order; the position is the instance number.
    pub inputs: Vec<Section>,
    /// Filters in order.
    pub filters: Vec<Section>,
    /// Outputs in order.
    pub outputs: Vec<Section>,
}
