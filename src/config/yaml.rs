//! The YAML format: text into a small tree with lines. Every scalar is a string, as Fluent Bit reads it.
//!
//! Enters: the text of one file. Leaves: a [`Node`]. Can go wrong: broken YAML (file, line, column), aliases (Fluent Bit
//! has none either), nesting past `MAX_DEPTH`.

use saphyr_parser::{Event, Parser};

use super::value::trim;

/// A configuration nests far less.
const MAX_DEPTH: usize = 32;

/// A value and the line it begins on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Line, from 1.
    pub line: u32,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text; an empty value is empty text.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order written: key, line of the key, value.
    Map(Vec<(String, u32, Node)>),
}

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Line, from 1.
    pub line: u32,
    /// What is wrong, with the column where it helps.
    pub message: String,
}

enum Open {
    List(Vec<Node>),
    Map(Vec<(String, u32, Node)>, Option<(String, u32)>),
}

#[derive(Default)]
struct Builder {
    open: Vec<(u32, Open)>,
    root: Option<Node>,
    refused: Option<Refused>,
}

impl Builder {
    fn refuse(&mut self, line: u32, message: &str) {
        self.refused.get_or_insert(Refused { line, message: message.to_owned() });
    }

    fn add(&mut self, node: Node) {
        let line = node.line;
        match self.open.last_mut() {
            None => self.document(node),
            Some((_, Open::List(list))) => list.push(node),
            Some((_, Open::Map(pairs, key))) => match key.take() {
                Some((name, at)) => pairs.push((name, at, node)),
                None => match node.value {
                    Value::Scalar(name) => *key = Some((name, line)),
                    Value::List(_) | Value::Map(_) => self.refuse(line, "a key must be text"),
                },
            },
        }
    }

    /// Several documents in one file count as one, as in Fluent Bit.
    fn document(&mut self, node: Node) {
        match (&mut self.root, node.value) {
            (None, value) => self.root = Some(Node { line: node.line, value }),
            (Some(Node { value: Value::Map(all), .. }), Value::Map(more)) => all.extend(more),
            (Some(_), Value::Scalar(text)) if text.is_empty() => {}
            (Some(_), _) => self.refuse(node.line, "every document of a file must be a map"),
        }
    }

    fn open(&mut self, line: u32, open: Open) {
        if self.open.len() >= MAX_DEPTH {
            self.refuse(line, "nested too deeply");
        }
        self.open.push((line, open));
    }
}

impl Builder {
    fn event(&mut self, event: Event<'_>, line: u32) {
        match event {
            // Text, whatever it looks like: `name: null` is the output of that name.
            Event::Scalar(text, ..) => self.add(Node { line, value: Value::Scalar(trim(&text).to_owned()) }),
            Event::SequenceStart(..) => self.open(line, Open::List(Vec::new())),
            Event::MappingStart(..) => self.open(line, Open::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((line, open)) = self.open.pop() {
                    let value = match open {
                        Open::List(list) => Value::List(list),
                        Open::Map(pairs, _) => Value::Map(pairs),
                    };
                    self.add(Node { line, value });
                }
            }
            Event::Alias(_) => self.refuse(line, "aliases (*name) are not supported"),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd => {}
        }
    }
}

/// Reads one file. An empty one is an empty map, several documents are one map.
///
/// # Errors
/// The first thing that cannot be read.
pub fn parse(text: &str) -> Result<Node, Refused> {
    let mut builder = Builder::default();
    // Event by event: the parser's own tree walk would recurse over the input.
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let (event, span) = event.map_err(|e| Refused {
            line: e.marker().line() as u32,
            message: format!(
                "broken YAML at line {}, column {}: {}{}",
                e.marker().line(),
                e.marker().col() + 1,
                e.info(),
                if e.info().contains("anchor or alias") { "; put a * in quotes: match: '*'" } else { "" }
            ),
        })?;
        builder.event(event, span.start.line() as u32);
        if let Some(refused) = builder.refused {
            return Err(refused);
        }
    }
    Ok(builder.root.unwrap_or(Node { line: 1, value: Value::Map(Vec::new()) }))
}

/// A key as Fluent Bit compares it: camelCase becomes snake_case, all lower case.
pub fn key(written: &str) -> String {
    let camel = written.starts_with(|c: char| c.is_ascii_lowercase()) && !written.contains('_');
    let mut out = String::with_capacity(written.len() + 4);
    for c in written.chars() {
        if camel && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scalars_are_text_with_lines() {
        let node = parse("a: on\nb:\n  - 1\n  - {c: x}\n").unwrap();
        let Value::Map(pairs) = node.value else { panic!() };
        assert_eq!(
            (pairs[0].0.as_str(), pairs[0].1, &pairs[0].2.value),
            ("a", 1, &Value::Scalar("on".into()))
        );
        let Value::List(list) = &pairs[1].2.value else { panic!() };
        assert_eq!((list[0].line, &list[0].value), (3, &Value::Scalar("1".into())));
    }

    #[test]
    fn null_is_text_and_values_are_trimmed() {
        for (text, want) in [
            ("a: null", "null"),
            ("a: ~", "~"),
            ("a:", ""),
            ("a: ' d '", "d"),
            ("a: |\n  d\n", "d"),
            ("a: on", "on"),
        ] {
            let Value::Map(pairs) = parse(text).unwrap().value else { panic!() };
            assert_eq!(pairs[0].2.value, Value::Scalar(want.into()), "{text}");
        }
    }

    #[test]
    fn documents_of_one_file_are_one_map() {
        let Value::Map(pairs) = parse("a: 1\n---\nb: 2\n---\n").unwrap().value else { panic!() };
        assert_eq!(pairs.iter().map(|p| (p.0.as_str(), p.1)).collect::<Vec<_>>(), [("a", 1), ("b", 3)]);
        assert_eq!(parse("a: 1\n---\n- b\n").unwrap_err().line, 3);
    }

    #[test]
    fn broken_yaml_names_line_and_column() {
        for (text, line, message) in [
            ("a:\n  - b\n c: [\n", 3, "broken YAML at line 3, column"),
            ("a:\n\tb: c\n", 2, "broken YAML at line 2"),
            ("a: *\n", 1, "broken YAML at line 1, column"),
            ("a: &x b\nc: *x\n", 2, "aliases (*name) are not supported"),
            ("? [a]\n: b\n", 1, "a key must be text"),
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.line == line && e.message.starts_with(message), "{text:?}: {e:?}");
        }
        let deep = "[".repeat(40) + &"]".repeat(40);
        assert_eq!(parse(&deep).unwrap_err().message, "nested too deeply");
        assert!(parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn camel_case_keys_become_snake_case() {
        assert_eq!(key("logLevel"), "log_level");
        assert_eq!(key("Match_Regex"), "match_regex");
        assert_eq!(key("storage.type"), "storage.type");
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "\\PC*|[ a-c:\\-\\[\\]{}\n\"'*&]{0,100}") {
            let _ = parse(&text);
        }
    }
}
