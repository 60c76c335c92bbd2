//! The classic format: lines into items. Pure: files are opened by `load`.
//!
//! Enters: the text of one file. Leaves: items with their lines, in order. Can go wrong: what Fluent Bit's reader refuses
//! (indentation, a header without `]`, a key without a value), each with its line.

use std::sync::Arc;

use super::diag::Pos;
use super::value::trim;

/// One meaningful line.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `@INCLUDE path`
    Include(String, Pos),
    /// `@SET name=value`
    Set(String, String, Pos),
    /// `@OTHER ...`, or `@SET` without `=`: Fluent Bit goes on without it.
    UnknownMeta(String, Pos),
    /// `[NAME]`
    Header(String, Pos),
    /// `    key value`
    Entry(String, String, Pos),
}

/// Why a file is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// The line.
    pub pos: Pos,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What is wrong with one line, and what to do.
type Bad = (String, &'static str);

/// Reads one file.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str, file: &str) -> Result<Vec<Item>, Refused> {
    let file: Arc<str> = file.into();
    let mut items = Vec::new();
    let mut indent = None;
    let mut in_section = false;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (n, line) in text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let pos = Pos { file: Arc::clone(&file), line: u32::try_from(n + 1).unwrap_or(u32::MAX) };
        let read = match line.as_bytes().first() {
            None | Some(b'#') => continue,
            Some(b'@') if line.len() > 3 => meta(line, pos.clone()).map(Some),
            Some(b'[') => header(line, pos.clone()).map(Some),
            Some(_) => entry(line, &mut indent, in_section, pos.clone()),
        };
        match read {
            Ok(item) => {
                in_section |= matches!(item, Some(Item::Header(..)));
                items.extend(item);
            }
            Err((message, hint)) => return Err(Refused { pos, message, hint: hint.to_owned() }),
        }
    }
    Ok(items)
}

/// `@NAME rest`; the rest is taken as it stands.
fn meta(line: &str, pos: Pos) -> Result<Item, Bad> {
    let hint = "write @INCLUDE PATH or @SET NAME=VALUE";
    let (name, rest) = line
        .split_once(' ')
        .filter(|(_, rest)| !rest.is_empty())
        .ok_or_else(|| (format!("\"{line}\" is no directive"), hint))?;
    if name.eq_ignore_ascii_case("@INCLUDE") {
        return Ok(Item::Include(rest.to_owned(), pos));
    }
    match rest.split_once('=') {
        Some((key, value)) if name.eq_ignore_ascii_case("@SET") => {
            Ok(Item::Set(key.to_owned(), value.to_owned(), pos))
        }
        _ => Ok(Item::UnknownMeta(line.to_owned(), pos)),
    }
}

/// `[NAME]`; what follows the bracket is passed over.
fn header(line: &str, pos: Pos) -> Result<Item, Bad> {
    match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => Ok(Item::Header(name.to_owned(), pos)),
        None => Err((format!("bad header definition \"{line}\""), "close the section name with ]")),
    }
}

/// `    key value`, a comment at the file's indentation, or blanks. The first such line fixes the indentation.
fn entry<'t>(
    line: &'t str,
    indent: &mut Option<&'t str>,
    in_section: bool,
    pos: Pos,
) -> Result<Option<Item>, Bad> {
    let content = line.trim_start_matches([' ', '\t']);
    let blank = line.get(..line.len() - content.len()).unwrap_or_default();
    if blank.is_empty() {
        let hint = "indent keys below their section, by four spaces";
        return Err(if indent.is_some() {
            (format!("\"{line}\": the indentation level is too low, a key must be indented"), hint)
        } else {
            (format!("\"{line}\": a key must be indented"), hint)
        });
    }
    let wanted = *indent.get_or_insert(blank);
    check_indent(blank, wanted)?;
    if content.is_empty() || content.starts_with('#') {
        return Ok(None);
    }
    let Some((key, value)) = content.split_once(' ') else {
        let hint = if content.contains('\t') {
            "separate key and value by a space, not by a tab"
        } else {
            "write KEY VALUE in valid classic format"
        };
        return Err((format!("undefined value: key \"{}\" has none", content.trim()), hint));
    };
    if key.starts_with('[') {
        return Err((
            format!("\"{content}\": groups inside a section are not supported"),
            "begin sections in the first column",
        ));
    }
    let (key, value) = (trim(key), trim(value));
    if key.is_empty() || value.is_empty() {
        return Err((format!("key \"{key}\" has an empty value"), "give it a value or remove the line"));
    }
    if !in_section {
        return Err((
            format!("key \"{key}\" stands before any section"),
            "open a section such as [INPUT] first; an included file begins without one",
        ));
    }
    Ok(Some(Item::Entry(key.to_owned(), value.to_owned(), pos)))
}

/// Keys stand at the file's indentation, or (Fluent Bit's groups) at exactly twice as much.
fn check_indent(blank: &str, wanted: &str) -> Result<(), Bad> {
    let hint = "indent every key and comment of this file exactly as the first one";
    match blank.strip_prefix(wanted) {
        Some(extra) if extra.is_empty() || extra.len() == wanted.len() => Ok(()),
        Some(_) => Err(("extra indentation level found".to_owned(), hint)),
        None if wanted.starts_with(blank) => Err(("the indentation level is too low".to_owned(), hint)),
        None => Err(("inconsistent use of tab and space in the indentation".to_owned(), hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> String {
        let r = parse(text, "f.conf").unwrap_err();
        format!("{}: {}", r.pos, r.message)
    }

    #[test]
    fn lines_become_items_with_their_places() {
        let items = parse(
            "\u{feff}@SET a=b=c\n[INPUT] x\n    Name   dummy \r\n\n# x\n    #y\n@include y.conf\n@SET x\n",
            "f",
        )
        .unwrap();
        let pos = |n| Pos::new("f", n);
        assert_eq!(
            items,
            [
                Item::Set("a".into(), "b=c".into(), pos(1)),
                Item::Header("INPUT".into(), pos(2)),
                Item::Entry("Name".into(), "dummy".into(), pos(3)),
                Item::Include("y.conf".into(), pos(7)),
                Item::UnknownMeta("@SET x".into(), pos(8)),
            ]
        );
    }

    /// Each row was tried with Fluent Bit 5.1.1, which refuses it too.
    #[test]
    fn what_fluent_bit_refuses_is_refused_with_its_line() {
        for (text, want) in [
            ("[A]\n    a b\n  c d\n", "f.conf:3: the indentation level is too low"),
            ("[A]\n  a b\n   c d\n", "f.conf:3: extra indentation level found"),
            ("[A]\n  a b\n\tc d\n", "f.conf:3: inconsistent use of tab and space"),
            ("[A]\n    a b\n  \n", "f.conf:3: the indentation level is too low"),
            ("[A]\n    a b\n      \n", "f.conf:3: extra indentation level found"),
            ("[A]\n    a b\n  # c\n", "f.conf:3: the indentation level is too low"),
            ("[A]\n    a b\n      # c\n", "f.conf:3: extra indentation level found"),
            ("[A]\n   \n    a b\n", "f.conf:3: extra indentation level found"),
            ("[A]\na b\n", "f.conf:2: \"a b\": a key must be indented"),
            ("[A]\n  ADD\n", "f.conf:2: undefined value: key \"ADD\" has none"),
            ("[A]\n  a\tb\n", "f.conf:2: undefined value"),
            ("[A]\n  a \n", "f.conf:2: key \"a\" has an empty value"),
            ("[A]\n  a   \n", "f.conf:2: key \"a\" has an empty value"),
            ("[A]\n  \u{b} x\n", "f.conf:2: key \"\" has an empty value"),
            ("[A\n", "f.conf:1: bad header definition"),
            ("  a b\n", "f.conf:1: key \"a\" stands before any section"),
            ("@FOO\n", "f.conf:1: \"@FOO\" is no directive"),
            ("@FOO \n", "f.conf:1: \"@FOO \" is no directive"),
            ("@a\n", "f.conf:1: \"@a\": a key must be indented"),
        ] {
            assert!(refused(text).starts_with(want), "{text:?}: {}", refused(text));
        }
    }

    /// Each row was tried with Fluent Bit 5.1.1, which reads it too.
    #[test]
    fn what_fluent_bit_reads_is_read() {
        for (text, keys) in [
            ("[A]\n  a b\n    c d\n", "a=b c=d"),
            ("[A]\n  \n    a b\n", "a=b"),
            ("[A]\n    a b\n        \n", "a=b"),
            ("[A]\n\ta b c\n\t@INCLUDE x\n", "a=b c @INCLUDE=x"),
            ("[A]\n  a \"b  c\" # d\n", "a=\"b  c\" # d"),
            ("[A]\n  a b", "a=b"),
        ] {
            let read: Vec<String> = parse(text, "f")
                .unwrap()
                .into_iter()
                .filter_map(|i| match i {
                    Item::Entry(k, v, _) => Some(format!("{k}={v}")),
                    _ => None,
                })
                .collect();
            assert_eq!(read.join(" "), keys, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "\\PC*|[ \t\\[\\]@#a-zA-Z=\n]{0,200}") {
            let _ = parse(&text, "f");
        }
    }
}
