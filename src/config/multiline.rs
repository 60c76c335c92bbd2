//! `[MULTILINE_PARSER]` sections into multiline parsers.
//!
//! Enters: sections, and a [`Library`] that has the parsers. Leaves: the library with multiline parsers. Can go wrong:
//! no name, no type, rules that contradict each other, a bad pattern. What Fluent Bit 5.1.1 passes over in silence is a
//! strict finding.

use std::sync::Arc;
use std::time::Duration;

use super::check::nearest;
use super::diag::Diagnostics;
use super::section::{Document, Entry, Section};
use super::value;
use crate::text::Library;
use crate::text::multiline::{BUILTIN_NAMES, How, MultilineParser, Rule, Spec};

const KEYS: &[&str] = &[
    "name",
    "type",
    "match_string",
    "negate",
    "key_content",
    "key_pattern",
    "key_group",
    "parser",
    "flush_timeout",
    "rule",
];

/// Compiles every multiline parser of the document into the library.
pub(super) fn multiline_parsers(document: &Document, library: &mut Library, diags: &mut Diagnostics) {
    for section in &document.multiline_parsers {
        let Some(name) = section.last("name").filter(|e| !e.value.is_empty()) else {
            diags.error_hint(
                Some(&section.pos),
                "section [MULTILINE_PARSER] is missing the 'name' property",
                "add Name",
            );
            continue;
        };
        let mut read = Reader { section, name: &name.value, library, diags };
        let Some(parser) = read.parser() else { continue };
        let taken = if BUILTIN_NAMES.iter().any(|b| b.eq_ignore_ascii_case(&name.value)) {
            Some("the built-in one counts")
        } else if !library.add_multiline(parser) {
            Some("the first one counts")
        } else {
            None
        };
        if let Some(does) = taken {
            diags.strict(
                Some(&name.pos),
                format!("there is another multiline parser \"{}\"", name.value),
                does,
            );
        }
    }
}

struct Reader<'a> {
    section: &'a Section,
    name: &'a str,
    library: &'a Library,
    diags: &'a mut Diagnostics,
}

impl<'a> Reader<'a> {
    fn parser(&mut self) -> Option<Arc<MultilineParser>> {
        self.unknown_keys();
        let (how, rules) = self.how()?;
        let mut spec = Spec::new(self.name, how);
        spec.flush = self.flush();
        let section = self.section;
        let text = |key: &str| section.last(key).map(|e| e.value.clone());
        (spec.key_content, spec.key_pattern, spec.key_group) =
            (text("key_content"), text("key_pattern"), text("key_group"));
        if let Some(entry) = section.last("parser").filter(|e| !e.value.is_empty()) {
            match self.library.parsers.get(&entry.value) {
                Some(parser) => {
                    spec.parser = Some(Arc::clone(parser) as _);
                    if spec.key_content.is_none() {
                        spec.key_content = Some("log".to_owned());
                    }
                }
                None => self.strict(
                    entry,
                    format!("unknown parser \"{}\"", entry.value),
                    "lines are looked at unparsed; define the parser in a file named by Parsers_File",
                ),
            }
        }
        match MultilineParser::new(spec) {
            Ok(parser) => Some(Arc::new(parser)),
            Err(e) => {
                let pos = e.rule.and_then(|i| rules.get(i)).map_or(&self.section.pos, |rule| &rule.pos);
                self.diags.error_hint(
                    Some(pos),
                    format!("[MULTILINE_PARSER] {}: {}", self.name, e.message),
                    e.hint,
                );
                None
            }
        }
    }

    fn strict(&mut self, entry: &Entry, message: String, does: impl Into<String>) {
        self.diags.strict(Some(&entry.pos), format!("[MULTILINE_PARSER] {}: {message}", self.name), does);
    }

    fn unknown_keys(&mut self) {
        for entry in &self.section.entries {
            if !KEYS.contains(&entry.key.as_str()) {
                let does = match nearest(&entry.key, KEYS.iter().copied()) {
                    Some(meant) => format!("it is passed over; did you mean \"{meant}\"?"),
                    None => format!("it is passed over; the keys are {}", KEYS.join(", ")),
                };
                self.strict(entry, format!("unknown key \"{}\"", entry.written), does);
            }
        }
    }

    /// The kind, and the entries of its rules.
    fn how(&mut self) -> Option<(How, Vec<&'a Entry>)> {
        let section = self.section;
        let Some(kind) = section.last("type") else {
            self.diags.error_hint(
                Some(&section.pos),
                format!("[MULTILINE_PARSER] {} has no 'type'", self.name),
                "add Type regex, endswith or equal",
            );
            return None;
        };
        let whole = match kind.value.to_ascii_lowercase().as_str() {
            "regex" => return Some(self.rules(kind)),
            "endswith" => false,
            "equal" | "eq" => true,
            other => {
                self.diags.error_hint(
                    Some(&kind.pos),
                    format!("[MULTILINE_PARSER] {}: invalid type '{other}'", self.name),
                    "use regex, endswith or equal",
                );
                return None;
            }
        };
        let negate = self.negate();
        let Some(text) = self.section.last("match_string").map(|e| e.value.clone()).filter(|t| !t.is_empty())
        else {
            self.strict(kind, "match_string is missing".to_owned(), "nothing is joined; set match_string");
            return Some((How::Rules(Vec::new()), Vec::new()));
        };
        Some((if whole { How::Equal { text, negate } } else { How::EndsWith { text, negate } }, Vec::new()))
    }

    fn rules(&mut self, kind: &Entry) -> (How, Vec<&'a Entry>) {
        let (mut rules, mut entries) = (Vec::new(), Vec::new());
        let section = self.section;
        for entry in section.entries.iter().filter(|e| e.key == "rule") {
            match value::words(&entry.value).as_slice() {
                [from, pattern, to, rest @ ..] => {
                    if let Some(word) = rest.first() {
                        self.strict(
                            entry,
                            format!("a rule takes three texts; \"{word}\" is one too many"),
                            "what follows the third is passed over",
                        );
                    }
                    rules.push(Rule::new(from, pattern, to));
                    entries.push(entry);
                }
                _ => self.strict(
                    entry,
                    "a rule takes three texts".to_owned(),
                    "it is passed over; write \"state\" \"/pattern/\" \"next_state\"",
                ),
            }
        }
        if rules.is_empty() {
            self.strict(
                kind,
                "it has no rule".to_owned(),
                "nothing is joined; add Rule \"start_state\" \"/pattern/\" \"next_state\"",
            );
        }
        (How::Rules(rules), entries)
    }

    fn negate(&mut self) -> bool {
        let Some(entry) = self.section.last("negate").filter(|e| !e.value.is_empty()) else { return false };
        value::boolean(&entry.value).unwrap_or_else(|| {
            self.strict(
                entry,
                format!("bad value \"{}\" of negate", entry.value),
                "off is used; use on or off",
            );
            false
        })
    }

    fn flush(&mut self) -> Duration {
        let Some(entry) = self.section.last("flush_timeout").filter(|e| !e.value.is_empty()) else {
            return Spec::FLUSH;
        };
        match value::int(&entry.value).and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0) {
            Some(ms) => Duration::from_millis(ms),
            None => {
                self.strict(
                    entry,
                    format!("bad value \"{}\" of flush_timeout", entry.value),
                    "4000 is used; use whole milliseconds",
                );
                Spec::FLUSH
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Level, SectionKind, section};

    fn read(lines: &[&str]) -> (Library, Vec<(Level, String)>) {
        let entries = lines.iter().map(|l| {
            let (key, value) = l.split_once(' ').unwrap_or((l, ""));
            (key.to_owned(), value.to_owned())
        });
        let section = section(SectionKind::MultilineParser, entries.collect(), "p.conf");
        let document = Document { multiline_parsers: vec![section.clone(), section], ..Document::default() };
        let (mut library, mut diags) = (Library::default(), Diagnostics::new());
        multiline_parsers(&document, &mut library, &mut diags);
        // The second copy repeats every finding and is one too many itself.
        let mut found: Vec<_> = diags.iter().map(|d| (d.level, d.to_string())).collect();
        if library.find_multiline("one").is_some() {
            assert!(found.pop().is_some_and(|(_, text)| text.contains("another multiline parser")));
        }
        found.truncate(found.len() / 2);
        (library, found)
    }

    #[test]
    fn a_whole_definition_is_found_by_its_name_in_any_case() {
        let (library, found) = read(&[
            "Name one",
            "Type regex",
            "Flush_Timeout 700",
            r#"Rule "start_state" "/^B \"x/" "cont""#,
            r#"Rule "cont" "/^ /" "cont""#,
        ]);
        assert!(found.is_empty(), "{found:?}");
        assert_eq!(library.find_multiline("ONE").unwrap().name(), "one");
        assert!(library.find_multiline("Java").is_some() && library.find_multiline("two").is_none());
    }

    #[test]
    fn what_fluent_bit_refuses_is_refused() {
        for (lines, want) in [
            (&["Type regex"][..], "'name'"),
            (&["Name one", "Rule \"start_state\" \"x\" \"y\""], "no 'type'"),
            (&["Name one", "Type foo"], "invalid type 'foo'"),
            (&["Name one", "Type regex", "Rule \"start_state\" \"x\" \"y\""], "invalid mapping rules"),
            (&["Name one", "Type regex", "Rule \"y\" \"x\" \"y\""], "start_state"),
            (
                &["Name one", "Type regex", "Rule \"start_state\" \"(x\" \"start_state\""],
                "bad regular expression",
            ),
        ] {
            let (library, found) = read(lines);
            assert!(library.find_multiline("one").is_none());
            assert!(
                matches!(&found[..], [(Level::Error, text)] if text.contains(want) && text.starts_with("p.conf")),
                "{want}: {found:?}"
            );
        }
    }

    #[test]
    fn what_fluent_bit_passes_over_is_a_strict_finding() {
        for (lines, want) in [
            (&["Name one", "Type regex"][..], "no rule"),
            (&["Name one", "Type equal"], "match_string"),
            (&["Name one", "Type eq", "match_string x", "negate maybe"], "negate"),
            (&["Name one", "Type eq", "match_string x", "flush_timeout 4s"], "flush_timeout"),
            (&["Name one", "Type eq", "match_string x", "flush_timout 4"], "\"flush_timeout\"?"),
            (&["Name one", "Type eq", "match_string x", "parser nope"], "unknown parser \"nope\""),
            (
                &["Name one", "Type regex", "Rule a b", "Rule \"start_state\" \"x\" \"start_state\""],
                "three texts",
            ),
            (&["Name one", "Type regex", "Rule start_state x start_state more"], "\"more\""),
        ] {
            let (library, found) = read(lines);
            assert!(library.find_multiline("one").is_some(), "{want}");
            assert!(
                matches!(&found[..], [(Level::Strict, text)] if text.contains(want)),
                "{want}: {found:?}"
            );
        }
    }
}
