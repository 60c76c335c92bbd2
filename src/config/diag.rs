//! What is wrong with a configuration, where, and what to do about it.
//!
//! Enters: findings of the readers and of the plugins' `build` functions. Leaves: one line each,
//! `file:line: message; hint`. Nothing here fails.

use std::fmt;
use std::sync::Arc;

/// A place in a configuration file. `line` counts from 1; 0 means the file as a whole
/// (or a command-line flag, when `file` is not a path).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pos {
    /// The file's name as the user gave it (or as the include that named it resolved).
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

impl Pos {
    /// A position in `file`.
    pub fn new(file: impl Into<Arc<str>>, line: u32) -> Self {
        Pos { file: file.into(), line }
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { write!(f, "{}", self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Fluent Bit refuses it too: firelane does not start.
    Error,
    /// Fluent Bit starts all the same: a warning by default, an error under `check` and `--strict`.
    Strict,
    /// Worth a line, never a refusal.
    Warning,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// Where it is, if it is anywhere.
    pub pos: Option<Pos>,
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// What to do, or for `Strict` findings what firelane does instead.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pos) = &self.pos {
            write!(f, "{pos}: ")?;
        }
        write!(f, "{}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// All findings of one load, in the order they were made.
#[derive(Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, level: Level, pos: Option<&Pos>, message: String, hint: Option<String>) {
        self.list.push(Diagnostic { level, pos: pos.cloned(), message, hint });
    }

    /// Refuses the configuration.
    pub fn error(&mut self, pos: Option<&Pos>, message: impl Into<String>) {
        self.push(Level::Error, pos, message.into(), None);
    }

    /// Refuses the configuration and says what to do.
    pub fn error_hint(&mut self, pos: Option<&Pos>, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Level::Error, pos, message.into(), Some(hint.into()));
    }

    /// Fluent Bit would go on: `does` says what firelane does when it goes on too.
    pub fn strict(&mut self, pos: Option<&Pos>, message: impl Into<String>, does: impl Into<String>) {
        self.push(Level::Strict, pos, message.into(), Some(does.into()));
    }

    /// Worth a line in the log.
    pub fn warn(&mut self, pos: Option<&Pos>, message: impl Into<String>) {
        self.push(Level::Warning, pos, message.into(), None);
    }

    /// Whether the configuration must be refused.
    pub fn refused(&self, strict: bool) -> bool {
        self.list.iter().any(|d| d.level == Level::Error || (strict && d.level == Level::Strict))
    }

    /// Every finding, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }
}
