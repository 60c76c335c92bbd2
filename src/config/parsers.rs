//! `[PARSER]` and `[MULTILINE_PARSER]` sections into a [`Library`].
//!
//! Enters: a document. Leaves: every parser, compiled. Can go wrong: no name, a name twice, an unknown format, a bad
//! pattern, zone or offset: refused, as Fluent Bit does. A bad time format, type, decoder, boolean or key is a strict
//! finding: Fluent Bit starts all the same.

use std::sync::Arc;

use super::check::nearest;
use super::diag::Diagnostics;
use super::multiline::multiline_parsers;
use super::section::{Document, Entry, Section};
use super::value;
use crate::text::{Decoder, FieldType, Library, Parser, ParserSpec, TimeFormat, Zone};

const KEYS: &[&str] = &[
    "name",
    "format",
    "regex",
    "time_key",
    "time_format",
    "time_keep",
    "time_strict",
    "time_offset",
    "time_zone",
    "time_system_timezone",
    "skip_empty_values",
    "types",
    "decode_field",
    "decode_field_as",
    "logfmt_no_bare_keys",
];

/// Compiles every parser.
pub fn library(document: &Document, diags: &mut Diagnostics) -> Library {
    let mut library = Library::default();
    for section in &document.parsers {
        parser(section, &mut library, diags);
    }
    multiline_parsers(document, &mut library, diags);
    library
}

/// Compiles one and adds it.
fn parser(section: &Section, library: &mut Library, diags: &mut Diagnostics) {
    let Some(name) = set(section, "name") else {
        diags.error_hint(Some(&section.pos), "section [PARSER] is missing the 'name' property", "add Name");
        return;
    };
    if library.parsers.contains_key(&name.value) {
        diags.error_hint(
            Some(&name.pos),
            format!("there is another parser \"{}\"", name.value),
            "give it another name or take it out",
        );
        return;
    }
    let mut reader = Reader { section, name: &name.value, diags };
    reader.keys();
    let Some(parser) = reader.spec().and_then(|spec| reader.compile(spec)) else { return };
    library.parsers.insert(name.value.clone(), Arc::new(parser));
}

/// The last entry of a key, when it has a value.
fn set<'s>(section: &'s Section, key: &str) -> Option<&'s Entry> {
    section.last(key).filter(|e| !e.value.is_empty())
}

struct Reader<'a> {
    section: &'a Section,
    name: &'a str,
    diags: &'a mut Diagnostics,
}

impl<'a> Reader<'a> {
    fn error(&mut self, entry: Option<&Entry>, message: impl std::fmt::Display) {
        let pos = entry.map_or(&self.section.pos, |e| &e.pos);
        self.diags.error(Some(pos), format!("[PARSER] {}: {message}", self.name));
    }

    fn strict(&mut self, entry: &Entry, message: impl std::fmt::Display, does: impl Into<String>) {
        self.diags.strict(Some(&entry.pos), format!("[PARSER] {}: {message}", self.name), does);
    }

    fn keys(&mut self) {
        for entry in self.section.entries.iter().filter(|e| !KEYS.contains(&e.key.as_str())) {
            let does = match nearest(&entry.key, KEYS.iter().copied()) {
                Some(meant) => format!("it is passed over; did you mean \"{meant}\"?"),
                None => format!("it is passed over; the keys are {}", KEYS.join(", ")),
            };
            self.strict(entry, format_args!("unknown key \"{}\"", entry.written), does);
        }
    }

    /// A boolean; anything else counts as Fluent Bit takes it, as on.
    fn boolean(&mut self, key: &str, default: bool) -> bool {
        let Some(entry) = set(self.section, key) else { return default };
        value::boolean(&entry.value).unwrap_or_else(|| {
            self.strict(
                entry,
                format_args!("bad value \"{}\" of \"{}\"", entry.value, entry.written),
                "it is taken as on; write on or off",
            );
            true
        })
    }

    /// What the section says; `None` after an error.
    fn spec(&mut self) -> Option<ParserSpec> {
        let text = |key: &str| set(self.section, key).map(|e| e.value.clone());
        let (Some(format), regex, time_key) = (text("format"), text("regex"), text("time_key")) else {
            self.error(None, "Format is missing; it is json, regex, logfmt or ltsv");
            return None;
        };
        let defaults = ParserSpec::default();
        Some(ParserSpec {
            name: self.name.to_owned(),
            format,
            regex,
            time_key: time_key.unwrap_or(defaults.time_key),
            time_format: self.time_format(),
            zone: self.zone()?,
            time_keep: self.boolean("time_keep", defaults.time_keep),
            time_strict: self.boolean("time_strict", defaults.time_strict),
            skip_empty_values: self.boolean("skip_empty_values", defaults.skip_empty_values),
            types: self.types(),
            decoders: self.decoders(),
            logfmt_no_bare_keys: self.boolean("logfmt_no_bare_keys", defaults.logfmt_no_bare_keys),
        })
    }

    fn compile(&mut self, spec: ParserSpec) -> Option<Parser> {
        let parser = match Parser::new(spec) {
            Ok(parser) => parser,
            Err(e) => {
                let at = set(self.section, "regex").or(set(self.section, "format"));
                self.error(at, e);
                return None;
            }
        };
        if let (false, Some(entry)) = (parser.finds_fields(), set(self.section, "regex")) {
            self.strict(
                entry,
                "the pattern has no named group, (?<name>...)",
                "no text ever fits this parser",
            );
        }
        Some(parser)
    }

    fn time_format(&mut self) -> Option<TimeFormat> {
        let entry = set(self.section, "time_format")?;
        match TimeFormat::new(&entry.value) {
            Ok(format) => Some(format),
            Err(e) => {
                self.strict(
                    entry,
                    format_args!("bad {} \"{}\": {e}", entry.written, entry.value),
                    "times are not read by this parser",
                );
                None
            }
        }
    }

    /// The zone of times that name none; `None` after an error.
    fn zone(&mut self) -> Option<Zone> {
        let (offset, named) = (set(self.section, "time_offset"), set(self.section, "time_zone"));
        let system = self.boolean("time_system_timezone", false);
        if let Some(entry) = named
            && (system || offset.is_some())
        {
            let other = if offset.is_some() { "Time_Offset" } else { "Time_System_Timezone" };
            self.error(Some(entry), format_args!("Time_Zone cannot go together with {other}"));
            return None;
        }
        let (entry, zone) = match (named, offset) {
            // Fluent Bit asks the system first.
            _ if system => return Some(Zone::system()),
            (Some(entry), _) => (entry, Zone::named(&entry.value)),
            (None, Some(entry)) => (entry, Zone::offset(&entry.value)),
            (None, None) => return Some(Zone::Utc),
        };
        zone.map_err(|e| self.error(Some(entry), format_args!("bad {}: {e}", entry.written))).ok()
    }

    /// `Types code:integer ratio:float`.
    fn types(&mut self) -> Vec<(String, FieldType)> {
        let Some(entry) = set(self.section, "types") else { return Vec::new() };
        let mut types = Vec::new();
        for word in entry.value.split_ascii_whitespace() {
            let parts = word.rsplit_once(':').filter(|(key, _)| !key.is_empty());
            match parts.and_then(|(key, ty)| Some((key.to_owned(), FieldType::from_word(ty)?))) {
                Some(ty) => types.push(ty),
                None => self.strict(
                    entry,
                    format_args!("bad type \"{word}\""),
                    "the field stays text; write KEY:integer, float, bool, hex or string",
                ),
            }
        }
        types
    }

    fn decoders(&mut self) -> Vec<Decoder> {
        let mut decoders = Vec::new();
        for entry in self.section.entries.iter().filter(|e| e.key.starts_with("decode_field")) {
            match Decoder::new(&entry.value, entry.key == "decode_field_as") {
                Ok(decoder) => decoders.push(decoder),
                Err(e) => {
                    self.strict(
                        entry,
                        format_args!("bad {}: {e}", entry.written),
                        "nothing is decoded by it",
                    );
                }
            }
        }
        decoders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, Level, load};
    use crate::record::{Fields, Time};

    /// Reads a parsers file that a main file names.
    fn read(parsers: &str) -> (Library, Vec<(Level, String)>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("p.conf"), parsers).unwrap();
        let main = dir.path().join("main.conf");
        std::fs::write(&main, "[SERVICE]\n    Parsers_File p.conf\n").unwrap();
        let mut diags = Diagnostics::new();
        let document = load(&main, &[], &mut Env::default(), &mut diags);
        let library = library(&document, &mut diags);
        (library, diags.iter().map(|d| (d.level, d.to_string())).collect())
    }

    #[track_caller]
    fn finds(parsers: &str, level: Level, words: &str) -> Library {
        let (library, found) = read(parsers);
        let [(got, text)] = found.as_slice() else { panic!("{found:?}") };
        assert!(*got == level && text.contains(words), "{found:?}");
        library
    }

    #[test]
    fn a_parser_with_every_key_is_compiled() {
        let (library, found) = read(
            "# nginx\n[PARSER]\n    Name n\n    Format Regex\n    Regex ^(?<t>\\S+ \\S+) (?<code>\\d*) (?<m>.*)$\n    Time_Key t\n    Time_Format %F %T\n    \
             Time_Keep on\n    Time_Strict off\n    Time_Offset +0200\n    Skip_Empty_Values off\n    Types code:integer\n    Decode_Field_As json m\n\
             [PARSER]\n    Name l\n    Format logfmt\n    Logfmt_No_Bare_Keys on\n[PARSER]\n    Name z\n    Format json\n    Time_Zone Europe/Warsaw\n",
        );
        assert!(found.is_empty(), "{found:?}");
        let mut fields = Fields::default();
        let now = Time::default();
        let time = library.parsers["n"].parse(b"2025-01-04 05:06:07 200 {\"a\":1}", &mut fields, now);
        assert_eq!(time, Some(Some(Time::new(1_735_959_967, 0))));
        let keys: Vec<_> = (0..fields.list.len()).map(|i| fields.key(i).to_vec()).collect();
        assert_eq!(keys, [&b"t"[..], b"code", b"m"]);
        assert_eq!((fields.value(1), fields.value(2)), (&[0xcc, 200][..], &[0x81, 0xa1, b'a', 1][..]));
        assert_eq!(library.parsers["l"].parse(b"a=1 b", &mut fields, now), None);
        assert_eq!(library.parsers["z"].name(), "z");
    }

    #[test]
    fn what_fluent_bit_refuses_is_refused() {
        for (section, words) in [
            ("Format json", "p.conf:1: section [PARSER] is missing the 'name' property"),
            ("Name p", "p.conf:1: [PARSER] p: Format is missing"),
            ("Name p\n    Format jsn", "p.conf:3: [PARSER] p: \"jsn\" is no format"),
            ("Name p\n    Format regex", "p.conf:3: [PARSER] p: a parser of format regex needs a Regex"),
            ("Name p\n    Format regex\n    Regex (unclosed", "p.conf:4: [PARSER] p: regex \"(unclosed\""),
            ("Name p\n    Format json\n    Time_Offset 0200", "p.conf:4: [PARSER] p: bad Time_Offset"),
            (
                "Name p\n    Format json\n    Time_Zone No/Where",
                "p.conf:4: [PARSER] p: bad Time_Zone: \"No/Where\"",
            ),
            (
                "Name p\n    Format json\n    Time_Zone UTC\n    Time_Offset +0200",
                "p.conf:4: [PARSER] p: Time_Zone cannot go together with Time_Offset",
            ),
            (
                "Name p\n    Format json\n[PARSER]\n    Name p\n    Format json",
                "p.conf:5: there is another parser \"p\"",
            ),
        ] {
            finds(&format!("[PARSER]\n    {section}\n"), Level::Error, words);
        }
    }

    #[test]
    fn what_fluent_bit_passes_over_is_a_strict_finding() {
        for (line, words) in [
            ("Time_Format %Y.%f", "p.conf:4: [PARSER] p: bad Time_Format \"%Y.%f\": %f is not a specifier"),
            ("Time_Kepp on", "unknown key \"Time_Kepp\"; it is passed over; did you mean \"time_keep\"?"),
            ("Time_Keep maybe", "bad value \"maybe\" of \"Time_Keep\""),
            ("Types a:int", "bad type \"a:int\"; the field stays text"),
            ("Decode_Field_As nope log", "bad Decode_Field_As: \"nope\" is no decoder"),
        ] {
            let library =
                finds(&format!("[PARSER]\n    Name p\n    Format json\n    {line}\n"), Level::Strict, words);
            assert!(library.parsers.contains_key("p"));
        }
        finds("[PARSER]\n    Name p\n    Format regex\n    Regex (\\w+)\n", Level::Strict, "no named group");
    }
}
