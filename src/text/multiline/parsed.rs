//! Text parsers as the first step of a multiline parser.

use super::LineParser;
use crate::record::{Fields, Time};
use crate::text::Parser;

impl LineParser for Parser {
    fn parse(&self, line: &[u8], fields: &mut Fields, now: Time) -> Option<Option<Time>> {
        Parser::parse(self, line, fields, now)
    }
}
