//! The classic format: lines into items. Pure: files are opened by `load`.
//!
//! Enters: the text of one file. Leaves: items with their lines, in order. Can go wrong: what Fluent Bit's reader refuses
//! (indentation, a header without `]`, a key without a value), each with its line.

use super::diag::Pos;

/// One meaningful line.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// `@INCLUDE path`
    Include(String, Pos),
    /// `@SET name=value`
    Set(String, String, Pos),
    /// `@OTHER ...`: Fluent Bit passes over it in silence.
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

/// Reads one file.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str, file: &str) -> Result<Vec<Item>, Refused> {
    let file: std::sync::Arc<str> = file.into();
    let mut items = Vec::new();
    // The first key line fixes the indentation of the whole file.
    let mut indent: Option<&str> = None;
    for (n, line) in text.lines().enumerate() {
        let pos = Pos { file: file.clone(), line: n as u32 + 1 };
        let refused =
            |message: String, hint: &str| Refused { pos: pos.clone(), message, hint: hint.to_owned() };
        let line = line.strip_suffix('\r').unwrap_or(line);
        let content = line.trim_start_matches([' ', '\t']);
        if content.trim().is_empty() || content.starts_with('#') {
            continue;
        }
        if let Some(meta) = line.strip_prefix('@') {
            items.push(self::meta(meta, pos.clone()).ok_or_else(|| {
                refused(format!("\"{line}\" is no directive"), "write @INCLUDE PATH or @SET NAME=VALUE")
            })?);
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let Some((name, _)) = header.split_once(']') else {
                return Err(refused(
                    format!("bad header definition \"{line}\""),
                    "close the section name with ]",
                ));
            };
            items.push(Item::Header(name.trim().to_owned(), pos));
            continue;
        }
        let blank = line.get(..line.len() - content.len()).unwrap_or_default();
        check_indent(blank, &mut indent, line).map_err(|(message, hint)| refused(message, hint))?;
        if !items.iter().any(|i| matches!(i, Item::Header(..))) {
            return Err(refused(
                format!("key \"{content}\" stands before any section"),
                "open a section such as [INPUT] first",
            ));
        }
        let Some((key, value)) = content.split_once(' ') else {
            let hint = if content.contains('\t') {
                "separate key and value by a space, not by a tab"
            } else {
                "write KEY VALUE in valid classic format"
            };
            return Err(refused(format!("undefined value: key \"{}\" has none", content.trim()), hint));
        };
        if value.is_empty() {
            return Err(refused(
                format!("key \"{key}\" has an empty value"),
                "give it a value or remove the line",
            ));
        }
        items.push(Item::Entry(key.trim().to_owned(), value.trim().to_owned(), pos));
    }
    Ok(items)
}

fn meta(text: &str, pos: Pos) -> Option<Item> {
    let (name, rest) = text.split_once(' ')?;
    Some(match name.to_ascii_uppercase().as_str() {
        "INCLUDE" => Item::Include(rest.to_owned(), pos),
        "SET" => {
            let (key, value) = rest.split_once('=')?;
            Item::Set(key.to_owned(), value.to_owned(), pos)
        }
        _ => Item::UnknownMeta(format!("@{name}"), pos),
    })
}

fn check_indent<'t>(
    blank: &'t str,
    indent: &mut Option<&'t str>,
    line: &str,
) -> Result<(), (String, &'static str)> {
    if blank.is_empty() {
        return Err((
            format!("key \"{line}\" must be indented"),
            "indent keys below their section, by four spaces",
        ));
    }
    let Some(wanted) = *indent else {
        *indent = Some(blank);
        return Ok(());
    };
    if blank == wanted {
        return Ok(());
    }
    let hint = "indent every key of this file exactly as the first one";
    Err((
        if blank.chars().any(|c| !wanted.contains(c)) {
            "inconsistent use of tab and space in the indentation"
        } else if blank.len() < wanted.len() {
            "the indentation level is too low"
        } else {
            "extra indentation level found"
        }
        .to_owned(),
        hint,
    ))
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
        let items = parse("@SET a=b\n[INPUT]\n    Name   dummy \r\n\n# x\n@include y.conf\n", "f").unwrap();
        let pos = |n| Pos::new("f", n);
        assert_eq!(
            items,
            [
                Item::Set("a".into(), "b".into(), pos(1)),
                Item::Header("INPUT".into(), pos(2)),
                Item::Entry("Name".into(), "dummy".into(), pos(3)),
                Item::Include("y.conf".into(), pos(6)),
            ]
        );
    }

    #[test]
    fn indentation_is_fixed_by_the_first_key_of_the_file() {
        assert!(refused("[A]\n    a b\n  c d\n").contains("f.conf:3: the indentation level is too low"));
        assert!(refused("[A]\n  a b\n    c d\n").contains("extra indentation"));
        assert!(refused("[A]\n  a b\n\tc d\n").contains("tab and space"));
        assert!(refused("[A]\na b\n").contains("must be indented"));
    }

    #[test]
    fn what_has_no_value_or_no_section_is_refused_with_its_line() {
        assert!(refused("[A]\n  ADD\n").starts_with("f.conf:2: undefined value"));
        assert!(refused("[A]\n  a \n").contains("empty value"));
        assert!(refused("[A\n").contains("bad header"));
        assert!(refused("  a b\n").contains("before any section"));
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "\\PC*|[ \t\\[\\]@#a-zA-Z=\n]{0,200}") {
            let _ = parse(&text, "f");
        }
    }
}
