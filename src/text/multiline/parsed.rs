//! Text parsers as the first step of a multiline parser.

use super::LineParser;
use crate::record::{Fields, Time};
use crate::text::Parser;

impl LineParser for Parser {
    fn parse(&self, _line: &[u8], _fields: &mut Fields) -> Option<Option<Time>> {
        None
    }
}
