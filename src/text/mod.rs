//! What inputs and filters share about text: patterns, parsers, the multiline engine, time formats, record accessors.
//! Pure: no I/O; files named by `Parsers_File` have been read by `config`.

mod accessor;
mod library;
pub mod multiline;
pub mod number;
mod parser;
mod pattern;
mod regex;
mod template;
mod timefmt;

pub use accessor::Accessor;
pub use library::Library;
pub use multiline::MultilineParser;
pub use parser::{Decoder, FieldType, Parser, ParserSpec, boolean};
pub use pattern::TagPattern;
pub use regex::{Groups, Regex};
pub use template::Template;
pub use timefmt::{TimeFormat, Zone};
