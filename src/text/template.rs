//! Templates: text with values of the record, of its tag and of a match in it, `alert.$level.$TAG[1].$1`.
//!
//! Enters: the template, once; then a tag, a record and captures. Leaves: text. Can go wrong: a template that is none is
//! refused when it is read; what a record does not have contributes nothing and is reported.
//!
//! Forms of values: strings as they are, integers in decimal, floats with six decimals, `true`, `false`, `null`, maps as
//! JSON, binaries in hexadecimal. Arrays and extensions have none: they count as missing.

use super::{Accessor, Groups};
use crate::record::{Record, Tag};
use crate::wire::json::Json;
use crate::wire::msgpack::{self, Value};
use crate::wire::print;

/// A compiled template.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Vec<u8>),
    Field(Accessor),
    Tag,
    /// The n-th part of the tag between dots.
    Between(usize),
    /// What group n of the expression matched.
    Group(usize),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn new(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            if !before.is_empty() {
                parts.push(Part::Text(before.as_bytes().to_vec()));
            }
            rest = after;
            if after.is_empty() {
                break;
            }
            let (part, left) = Part::read(after).map_err(|e| format!("${after}: {e}"))?;
            parts.push(part);
            rest = left;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.as_bytes().to_vec()));
        }
        Ok(Template { parts })
    }

    /// Whether it asks for groups of a match.
    pub fn has_groups(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::Group(_)))
    }

    /// Whether it depends on the tag alone.
    pub fn is_of_tag(&self) -> bool {
        self.parts.iter().all(|p| matches!(p, Part::Text(_) | Part::Tag | Part::Between(_)))
    }

    /// Appends the text for a tag, where it depends on nothing else ([`Template::is_of_tag`]). Says whether that was so.
    pub fn render_tag(&self, tag: &Tag, out: &mut Vec<u8>) -> bool {
        let tag = tag.as_bytes();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Tag => out.extend_from_slice(tag),
                Part::Between(n) => {
                    out.extend_from_slice(tag.split(|b| *b == b'.').nth(*n).unwrap_or_default())
                }
                Part::Field(_) | Part::Group(_) => return false,
            }
        }
        true
    }

    /// Appends the text for one record; `captures` is the text that was matched and where its groups are. Says whether
    /// every field was there (a group or a part of the tag that is not is simply empty).
    pub fn render(
        &self,
        tag: &Tag,
        record: &Record<'_>,
        captures: Option<(&[u8], &Groups)>,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut complete = true;
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Field(field) => complete &= write_value(out, field.value(record)),
                Part::Tag => out.extend_from_slice(tag.as_bytes()),
                Part::Between(n) => {
                    out.extend_from_slice(tag.as_bytes().split(|b| *b == b'.').nth(*n).unwrap_or_default())
                }
                Part::Group(n) => {
                    let found = captures.and_then(|(text, groups)| text.get(groups.get(*n)?.clone()?));
                    out.extend_from_slice(found.unwrap_or_default());
                }
            }
        }
        complete
    }
}

impl Part {
    /// Reads what stands after a `$`; returns what follows it.
    fn read(text: &str) -> Result<(Part, &str), String> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            // Fluent Bit's reading: the whole number says which group, the text goes on after its first digit. There are
            // at most ten groups, so that $10 is nothing followed by 0.
            let digits = text.bytes().take_while(u8::is_ascii_digit).count();
            let (number, _) = text.split_at_checked(digits).unwrap_or_default();
            let rest = text.get(1..).unwrap_or_default();
            return Ok((Part::Group(number.parse().unwrap_or(usize::MAX)), rest));
        }
        if let Some(rest) = text.strip_prefix("TAG") {
            let index = rest.strip_prefix('[').and_then(|inside| inside.split_once(']'));
            return match index {
                None => Ok((Part::Tag, rest)),
                // What is no number counts as 0, as in Fluent Bit.
                Some((number, rest)) => Ok((Part::Between(number.parse().unwrap_or(0)), rest)),
            };
        }
        let (accessor, rest) = Accessor::token(text)?;
        Ok((Part::Field(accessor), rest))
    }
}

fn write_value(out: &mut Vec<u8>, encoded: Option<&[u8]>) -> bool {
    let Some(encoded) = encoded else { return false };
    let Some(value) = msgpack::value(encoded) else { return false };
    match value {
        Value::Str(text) => out.extend_from_slice(text),
        Value::Int(v) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
        Value::UInt(v) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
        Value::Float(v) => print::print_float(out, v),
        Value::Bool(v) => out.extend_from_slice(if v { b"true" } else { b"false" }),
        Value::Nil => out.extend_from_slice(b"null"),
        Value::Map { .. } => {
            Json { escape_unicode: true }.write_value(out, encoded, 0);
        }
        Value::Bin(bytes) => {
            for b in bytes {
                let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
                out.extend_from_slice(&[digit(b >> 4), digit(b & 0x0f)]);
            }
        }
        Value::Array { .. } | Value::Ext(..) => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Scratch;
    use crate::text::Regex;
    use crate::wire::entry;

    /// `{"a": "abc", "i": -5, "f": 1.5, "t": true, "n": nil, "m": {"x": "v"}, "b": bin, "l": [1], "my-key": "dash"}`
    fn entry() -> Vec<u8> {
        let mut b = Vec::new();
        entry::write_head(&mut b, crate::record::Time::new(1, 0), None);
        msgpack::write_map(&mut b, 9);
        let key = |b: &mut Vec<u8>, s: &str| msgpack::write_str(b, s.as_bytes());
        key(&mut b, "a");
        key(&mut b, "abc");
        key(&mut b, "i");
        msgpack::write_int(&mut b, -5);
        key(&mut b, "f");
        msgpack::write_float(&mut b, 1.5);
        key(&mut b, "t");
        msgpack::write_bool(&mut b, true);
        key(&mut b, "n");
        msgpack::write_nil(&mut b);
        key(&mut b, "m");
        b.extend_from_slice(&[0x81, 0xa1, b'x', 0xa1, b'v']);
        key(&mut b, "b");
        msgpack::write_bin(&mut b, &[0, 0xff, 0x41]);
        key(&mut b, "l");
        b.extend_from_slice(&[0x91, 1]);
        key(&mut b, "my-key");
        key(&mut b, "dash");
        b
    }

    fn render(template: &str, tag: &str) -> (String, bool) {
        let bytes = entry();
        let mut scratch = Scratch::default();
        let (record, _) = Record::open_next(&bytes, 0, &mut scratch).unwrap();
        let groups = Regex::new("^(a)(b)?(x)?").unwrap().groups(b"abc").unwrap();
        let mut out = Vec::new();
        let complete = Template::new(template).unwrap().render(
            &Tag::new(tag.as_bytes()),
            &record,
            Some((b"abc", &groups)),
            &mut out,
        );
        (String::from_utf8(out).unwrap(), complete)
    }

    /// All as Fluent Bit 5.1.1 answered.
    #[test]
    fn every_part_renders_as_in_fluent_bit() {
        for (template, want) in [
            ("new.$TAG", "new.t.one.two"),
            ("n.$TAG[0].$TAG[2].$TAG[9]", "n.t.two."),
            ("n$TAG[1]x", "nonex"),
            ("n.$TAGS", "n.t.one.twoS"),
            ("n.$a.x", "n.abc.x"),
            ("n.$i.$f.$t.$n", "n.-5.1.500000.true.null"),
            ("n.$m['x']", "n.v"),
            ("n.$m['x'] y", "n.v y"),
            ("n.$m", "n.{\"x\":\"v\"}"),
            ("n.$b", "n.00ff41"),
            ("n.$my-key", "n.dash"),
            ("n.$0-$1-$2-$3-$4", "n.ab-a-b--"),
            ("n.$1a", "n.aa"),
            ("n.$10", "n.0"),
            ("n.$", "n."),
            ("n,$a,x", "n,abc,x"),
            ("n\"$a\"x", "n\"abc\"x"),
            ("plain", "plain"),
        ] {
            assert_eq!(render(template, "t.one.two"), (want.to_owned(), true), "{template}");
        }
        assert_eq!(render("n.$TAG[0]|$TAG[1]|$TAG[2]", "t..x").0, "n.t||x");
    }

    #[test]
    fn what_is_missing_is_empty_and_reported() {
        for template in ["n.$nosuch", "n.$m['nosuch']", "n.$l", "n.$a['q']"] {
            assert_eq!(render(template, "t"), ("n.".to_owned(), false), "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in ["n$$a", "n.$a/$i", "n.$a['x", "n.$m[\"x\"]", "n.$m['x']y", "n.$a:b"] {
            assert!(Template::new(template).is_err(), "{template}");
        }
    }
}
