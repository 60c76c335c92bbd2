//! The multiline engine: lines that belong together become one.
//!
//! Enters: lines, each with the moment it came. Leaves: groups of lines joined, and for each line whether it was taken
//! or passes alone. Pure: no clock, no I/O. Can go wrong: a definition with bad rules is refused when it is compiled;
//! at run time a group over its limit is cut and says so.
//!
//! `spec` is what a `[MULTILINE_PARSER]` section says, `machine` decides about one line, `group` collects, `lane` keeps
//! the groups of one parser, `joiner` the state of one stream, `builtin` defines java, python, go, ruby, docker and cri.

mod builtin;
mod container;
mod group;
mod joiner;
mod lane;
mod machine;
mod named;
mod parsed;
mod spec;

pub use builtin::{BUILTIN_NAMES, builtin};
pub use group::Joined;
pub use joiner::{Joiner, Limits, Line, Outcome, Parsed};
pub use spec::{How, LineParser, MultilineParser, Rule, Spec, SpecError};
