//! `parser`: the text of a field becomes fields. In: any record. Out: the same record, or one made of what the parser
//! found; the record's time becomes the one in the text.
//!
//! The first parser that takes the text counts. When none does, or the field is missing or no text, the record stays as
//! it is. With `Reserve_Data` the other fields stand behind the parsed ones, and one of the same name wins over those.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{BuildContext, Context, Filter, FilterKind, Verdict};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type, nearest};
use crate::record::Record;
use crate::text::{Accessor, Library, Parser};
use crate::wire::msgpack;

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "parser",
        aliases: &[],
        summary: "Parse the text of a field into fields.",
        keys: &[
            Key::new(
                "key_name",
                Type::Str,
                "the field with the text, a key or an accessor: log, $log['text']",
            ),
            Key::new(
                "parser",
                Type::Str,
                "name of a parser; of several the first that takes the text counts",
            )
            .multi(),
            Key::new("preserve_key", Type::Bool, "keep the field itself").default("off"),
            Key::new("reserve_data", Type::Bool, "keep the other fields").default("off"),
            Key::new("unescape_key", Type::Str, "accepted, without effect"),
        ],
        groups: &[],
    },
    build,
};

enum Source {
    /// A key as it is written, dots included.
    Key(Vec<u8>),
    /// `$log['text']`. The field that it is part of is one of the other fields, even if it is all of it.
    Path(Accessor),
}

struct ParserFilter {
    source: Source,
    parsers: Vec<Arc<Parser>>,
    preserve_key: bool,
    reserve_data: bool,
    label: String,
    /// A time that could not be read was reported.
    said: AtomicBool,
}

fn build(s: &Settings, cx: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let key = s.str("key_name");
    let source = match key {
        None => {
            diags.error_hint(
                Some(s.pos()),
                "[FILTER] parser needs Key_Name",
                "say which field has the text: Key_Name log",
            );
            None
        }
        Some(key) if key.starts_with('$') => match Accessor::field(key) {
            Ok(path) => Some(Source::Path(path)),
            Err(e) => {
                s.error(diags, "key_name", format!("bad field \"{key}\": {e}"));
                None
            }
        },
        Some(key) => Some(Source::Key(key.as_bytes().to_vec())),
    };
    if let Some(entry) = s.entry("unescape_key") {
        diags.warn(Some(&entry.pos), format!("{} of [FILTER] parser has no effect any more", entry.written));
    }
    let parsers = parsers(s, cx.library, diags)?;
    Some(Arc::new(ParserFilter {
        source: source?,
        parsers,
        preserve_key: s.bool("preserve_key"),
        reserve_data: s.bool("reserve_data"),
        label: s.label.clone(),
        said: AtomicBool::new(false),
    }))
}

fn parsers(s: &Settings, library: &Library, diags: &mut Diagnostics) -> Option<Vec<Arc<Parser>>> {
    let named: Vec<_> = s.all("parser").filter(|e| !e.value.is_empty()).collect();
    if named.is_empty() {
        diags.error_hint(
            Some(s.pos()),
            "[FILTER] parser needs a Parser",
            "name one of a Parsers_File: Parser json",
        );
        return None;
    }
    let found: Vec<_> = named.iter().filter_map(|e| library.parsers.get(&e.value).cloned()).collect();
    for entry in named.iter().filter(|e| !library.parsers.contains_key(&e.value)) {
        let message = format!("parser \"{}\" of [FILTER] parser is not defined", entry.value);
        // Fluent Bit goes on as long as one of several is there.
        if found.is_empty() {
            diags.error_hint(Some(&entry.pos), message, which(&entry.value, library));
        } else {
            diags.strict(
                Some(&entry.pos),
                message,
                format!("it is left out; {}", which(&entry.value, library)),
            );
        }
    }
    (!found.is_empty()).then_some(found)
}

/// What the user may have meant.
fn which(name: &str, library: &Library) -> String {
    let mut names: Vec<&str> = library.parsers.keys().map(String::as_str).collect();
    names.sort_unstable();
    if let Some(meant) = nearest(name, names.iter().copied()) {
        return format!("did you mean \"{meant}\"?");
    }
    match names.len() {
        0 => "no parser is defined: name their file by Parsers_File in [SERVICE]".to_owned(),
        1..=8 => format!("defined are {}", names.join(", ")),
        n => format!("{n} others are defined in the parsers files"),
    }
}

impl ParserFilter {
    /// Parses the text into `parsed`; `None` when no parser takes it. `now` is the record's time.
    fn parse(&self, record: &Record<'_>, parsed: &mut crate::record::Fields) -> Option<Parsed> {
        let (at, text) = match &self.source {
            Source::Key(key) => {
                let at = record.find(key)?;
                (Some(at), msgpack::value(record.value(at))?.text()?)
            }
            Source::Path(path) => (None, path.text(record)?),
        };
        let time = self.parsers.iter().find_map(|parser| {
            let found = parser.parse(text, parsed, record.time());
            if !matches!(found, Some(Some(_))) && parser.unread_times() > 0 && !self.said.swap(true, Relaxed) {
                tracing::warn!(
                    "{}: parser \"{}\": a time does not fit Time_Format and the record keeps its own, in {:.100} (said once)",
                    self.label,
                    parser.name(),
                    String::from_utf8_lossy(text)
                );
            }
            found
        })?;
        Some(Parsed { source: at, time })
    }
}

struct Parsed {
    source: Option<usize>,
    time: Option<crate::record::Time>,
}

impl Filter for ParserFilter {
    fn apply(&self, record: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
        // Taken out, so that the text can be read from the record meanwhile.
        let mut parsed = std::mem::take(record.parsed);
        let found = self.parse(record, &mut parsed);
        *record.parsed = parsed;
        let Some(Parsed { source, time }) = found else { return Verdict::Keep };
        if self.reserve_data {
            record.take_parsed_before(|i| self.preserve_key || Some(i) != source);
        } else if self.preserve_key && source.is_some() {
            record.take_parsed_before(|i| Some(i) == source);
        } else {
            record.take_parsed();
        }
        if let Some(time) = time {
            record.set_time(time);
        }
        Verdict::Keep
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{apply_entry, build_with, map, packed};
    use crate::config::Level;
    use crate::record::Time;
    use crate::text::{Library, Parser, ParserSpec, TimeFormat};
    use crate::wire::entry::{self, TimeForm};

    fn library() -> Library {
        let mut library = Library::default();
        let spec = |name: &str, format: &str| ParserSpec {
            name: name.to_owned(),
            format: format.to_owned(),
            ..ParserSpec::default()
        };
        let time_format = Some(TimeFormat::new("%s.%L").unwrap());
        let regex = Some(r#"^(?<ip>[^ ]+) "(?<verb>\S+)"$"#.to_owned());
        for spec in [
            spec("j", "json"),
            ParserSpec { time_format, time_key: "ts".to_owned(), ..spec("kv", "logfmt") },
            ParserSpec { regex, ..spec("access", "regex") },
        ] {
            library.parsers.insert(spec.name.clone(), Arc::new(Parser::new(spec).unwrap()));
        }
        library
    }

    /// The record after the filter, and its time when that is another one.
    fn run(lines: &[&str], record: &str) -> (String, Option<Time>) {
        let (filter, found) = build_with(&library(), "parser", lines);
        assert!(found.is_empty(), "{found:?}");
        let out = apply_entry(filter.unwrap().as_ref(), &packed(record), true).left;
        let TimeForm::At(time) = entry::read(&out, 0).unwrap().unwrap().time else { panic!("no time") };
        (map(&out), Some(time).filter(|t| *t != Time::new(1_760_000_000, 0)))
    }

    #[track_caller]
    fn check(lines: &[&str], rows: &[(&str, &str)]) {
        for (record, want) in rows {
            assert_eq!(run(lines, record), ((*want).to_owned(), None), "{lines:?} on {record}");
        }
    }

    const JSON: &str = r#"{"first":1,"log":"{\"a\":1,\"first\":\"parsed\"}","last":2}"#;

    #[test]
    fn reserve_data_and_preserve_key_in_all_four_combinations() {
        let base = ["Key_Name log", "Parser j"];
        for (more, want) in [
            (&["Reserve_Data off", "Preserve_Key off"][..], r#"{"a"=>1, "first"=>"parsed"}"#),
            (&["Reserve_Data on"], r#"{"a"=>1, "first"=>1, "last"=>2}"#),
            (&["Preserve_Key on"], r#"{"a"=>1, "first"=>"parsed", "log"=>"{"a":1,"first":"parsed"}"}"#),
            (
                &["Reserve_Data on", "Preserve_Key on"],
                r#"{"a"=>1, "first"=>1, "log"=>"{"a":1,"first":"parsed"}", "last"=>2}"#,
            ),
        ] {
            check(
                &[&base[..], more].concat(),
                &[(JSON, want), (r#"{"log":"no json"}"#, r#"{"log"=>"no json"}"#)],
            );
        }
        let record = r#"{"log":"{\"log\":\"new\"}","q":1}"#;
        check(&["Key_Name log", "Parser j", "Reserve_Data on"], &[(record, r#"{"log"=>"new", "q"=>1}"#)]);
    }

    #[test]
    fn a_record_without_a_text_that_fits_stays_as_it_is() {
        check(
            &["Key_Name log", "Parser j"],
            &[
                (r#"{"log":"{\"cut\":","src":"c"}"#, r#"{"log"=>"{"cut":", "src"=>"c"}"#),
                (r#"{"other":1}"#, r#"{"other"=>1}"#),
                (r#"{"log":5}"#, r#"{"log"=>5}"#),
                (r#"{"LOG":"{}"}"#, r#"{"LOG"=>"{}"}"#),
                (r#"{"log":"  {\"a\":1}","src":"g"}"#, r#"{"a"=>1}"#),
                (r#"{"log":{"$bin":"{\"a\":1}"}}"#, r#"{"a"=>1}"#),
            ],
        );
    }

    #[test]
    fn an_accessor_reaches_into_the_record_and_keeps_its_source() {
        let record = r#"{"x":1,"k":{"log":"{\"n\":5}"}}"#;
        let base = ["Key_Name $k['log']", "Parser j"];
        check(&base, &[(record, r#"{"n"=>5}"#)]);
        check(&[base[0], base[1], "Preserve_Key on"], &[(record, r#"{"n"=>5}"#)]);
        let want = r#"{"n"=>5, "x"=>1, "k"=>{"log"=>"{"n":5}"}}"#;
        check(&[base[0], base[1], "Reserve_Data on"], &[(record, want)]);
        // Without a dollar it is a key as it stands.
        check(
            &["Key_Name a.b", "Parser j"],
            &[(r#"{"a.b":"{\"x\":1}"}"#, r#"{"x"=>1}"#), (r#"{"a":{"b":"{}"}}"#, r#"{"a"=>{"b"=>"{}"}}"#)],
        );
    }

    #[test]
    fn the_first_parser_that_takes_the_text_counts_and_gives_the_time() {
        let lines = ["Key_Name log", "Parser access", "Parser j", "Parser kv"];
        check(
            &lines,
            &[
                (r#"{"log":"10.0.0.7 \"GET\""}"#, r#"{"ip"=>"10.0.0.7", "verb"=>"GET"}"#),
                (r#"{"log":"{\"a\":1}"}"#, r#"{"a"=>1}"#),
            ],
        );
        let (record, time) = run(&lines, r#"{"log":"level=info ts=1741064767.250"}"#);
        assert_eq!(
            (record.as_str(), time),
            (r#"{"level"=>"info"}"#, Some(Time::new(1_741_064_767, 250_000_000)))
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_the_names_that_there_are() {
        for (lines, level, words) in [
            (&["Parser j"][..], Level::Error, "[FILTER] parser needs Key_Name"),
            (&["Key_Name log"], Level::Error, "[FILTER] parser needs a Parser"),
            (
                &["Key_Name log", "Parser nowhere"],
                Level::Error,
                "parser \"nowhere\" of [FILTER] parser is not defined; defined are access, j, kv",
            ),
            (&["Key_Name log", "Parser acces"], Level::Error, "did you mean \"access\"?"),
            (&["Key_Name log", "Parser j", "Parser nowhere"], Level::Strict, "it is left out"),
            (&["Key_Name log", "Parser j", "Unescape_Key on"], Level::Warning, "no effect"),
        ] {
            let (_, found) = build_with(&library(), "parser", lines);
            let [(got, text)] = found.as_slice() else { panic!("{lines:?}: {found:?}") };
            assert!(*got == level && text.contains(words), "{found:?}");
        }
        let (_, found) = build_with(&Library::default(), "parser", &["Key_Name log", "Parser j"]);
        assert!(found[0].1.contains("no parser is defined: name their file by Parsers_File"), "{found:?}");
    }
}
