//! logfmt: `key=value key2="quoted value" bare`.
//!
//! Enters: a line. Leaves: pairs. Can go wrong: nothing; what stands between pairs and is neither key nor value is passed
//! over. A bare key, and one whose value is missing (`k=`), has none; `k=""` has an empty one. Unlike Fluent Bit a `?` is
//! a character like any other.

use super::unescape;

/// A value as it stands in the line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'t> {
    /// `k`
    Bare,
    /// `k=`
    Missing,
    /// `k=v`, and `k="v"` without escapes.
    Plain(&'t [u8]),
    /// `k="v\n"`
    Escaped(&'t [u8]),
}

impl<'t> Value<'t> {
    /// The text as it stands in the line.
    pub(super) fn raw(self) -> &'t [u8] {
        match self {
            Value::Bare | Value::Missing => &[],
            Value::Plain(text) | Value::Escaped(text) => text,
        }
    }

    /// The text; escapes are resolved in `spare`.
    pub(super) fn text<'s>(self, spare: &'s mut Vec<u8>) -> &'s [u8]
    where
        't: 's,
    {
        match self {
            Value::Bare | Value::Missing => &[],
            Value::Plain(text) => text,
            Value::Escaped(text) => {
                spare.clear();
                unescape::utf8(text, spare);
                spare
            }
        }
    }
}

/// The pairs of a line.
pub(super) struct Pairs<'t> {
    rest: &'t [u8],
}

impl<'t> Pairs<'t> {
    pub(super) fn of(line: &'t [u8]) -> Pairs<'t> {
        Pairs { rest: line }
    }
}

fn is_word(byte: u8) -> bool {
    byte > b' ' && byte != b'=' && byte != b'"'
}

fn word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|b| !is_word(*b)).unwrap_or(text.len()))
}

impl<'t> Iterator for Pairs<'t> {
    type Item = (&'t [u8], Value<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest.iter().position(|b| is_word(*b))?;
        let (key, rest) = word(self.rest.get(start..)?);
        let (value, rest) = match rest {
            [b'=', b'"', rest @ ..] => quoted(rest),
            [b'=', rest @ ..] => match word(rest) {
                ([], rest) => (Value::Missing, rest),
                (value, rest) => (Value::Plain(value), rest),
            },
            _ => (Value::Bare, rest),
        };
        // A line that ends just after a pair is the last one.
        self.rest = if matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]) { &[] } else { rest };
        Some((key, value))
    }
}

/// From after the opening quote; one that is never closed goes to the end of the line.
fn quoted(text: &[u8]) -> (Value<'_>, &[u8]) {
    let mut at = 0;
    let mut escapes = false;
    while let Some(found) = text.get(at..).and_then(|t| memchr::memchr2(b'"', b'\\', t)) {
        at += found;
        if text.get(at) == Some(&b'"') {
            break;
        }
        escapes = true;
        at += 2;
    }
    if text.get(at) != Some(&b'"') {
        at = text.len();
    }
    let (value, rest) = text.split_at(at);
    let value = if escapes { Value::Escaped(value) } else { Value::Plain(value) };
    (value, rest.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(line: &str) -> Vec<(String, String)> {
        let text = |v: Value<'_>| match v {
            Value::Bare => "BARE".to_owned(),
            Value::Missing => "MISSING".to_owned(),
            v => String::from_utf8(v.text(&mut Vec::new()).to_vec()).unwrap(),
        };
        Pairs::of(line.as_bytes()).map(|(k, v)| (String::from_utf8(k.to_vec()).unwrap(), text(v))).collect()
    }

    #[track_caller]
    fn check(line: &str, want: &[(&str, &str)]) {
        let want: Vec<_> = want.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(pairs(line), want, "{line}");
    }

    #[test]
    fn pairs_are_found_as_fluent_bit_finds_them() {
        check(r#"a=1 b="x y" c"#, &[("a", "1"), ("b", "x y"), ("c", "BARE")]);
        check("a= b=1", &[("a", "MISSING"), ("b", "1")]);
        check("=1 a=2", &[("1", "BARE"), ("a", "2")]);
        check("a=1=2 b", &[("a", "1"), ("2", "BARE"), ("b", "BARE")]);
        check(r#"a="unterminated"#, &[("a", "unterminated")]);
        check(r#"a="x"y b=1"#, &[("a", "x"), ("y", "BARE"), ("b", "1")]);
        check(r#"a=b"c d=1"#, &[("a", "b"), ("c", "BARE"), ("d", "1")]);
        check("a = 1\tb\n", &[("a", "BARE"), ("1", "BARE"), ("b", "BARE")]);
        check(r#"k="a"b="c""#, &[("k", "a"), ("b", "c")]);
        check("a==b", &[("a", "MISSING"), ("b", "BARE")]);
        check(r#"a="", b=2"#, &[("a", ""), (",", "BARE"), ("b", "2")]);
        check(r#"a="\n\t\u00e9\x41\\ \q" é=x\ny"#, &[("a", "\n\té\u{41}\\ q"), ("é", r"x\ny")]);
        check(r#"a="x\"y\\" b"#, &[("a", r#"x"y\"#), ("b", "BARE")]);
        check("path=/a?x&y", &[("path", "/a?x&y")]);
        check("\na=1\nb=2", &[("a", "1")]);
        check("a=\r\nb=2", &[("a", "MISSING")]);
        check("  ", &[]);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(line in proptest::collection::vec(any::<u8>(), 0..60), like in r#"[a= "\\u0]{0,30}"#) {
            for line in [&line[..], like.as_bytes()] {
                for (_, value) in Pairs::of(line) {
                    value.text(&mut Vec::new());
                }
            }
        }
    }
}
