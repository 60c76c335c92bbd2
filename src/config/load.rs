//! Reads the main file and everything it includes into one [`Document`].
//!
//! Enters: a path. Leaves: sections with places, values expanded. Can go wrong: a file is missing, includes itself, or
//! holds what Fluent Bit refuses; every finding names file and line.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classic::{self, Item};
use super::diag::{Diagnostics, Pos};
use super::env::Env;
use super::section::{Document, Entry, Section, SectionKind};
use super::yaml_sections;

/// Most files of one configuration.
const MAX_FILES: usize = 1000;
/// Largest file.
const MAX_BYTES: u64 = 32 << 20;
/// Deepest include.
const MAX_DEPTH: usize = 64;

/// Reads `path` (YAML by its extension, else classic) and what it includes; `parsers` are further parsers files (`-R`).
/// What could not be read is reported in `diags`; the document holds the rest.
pub fn load(path: &Path, parsers: &[PathBuf], env: &mut Env, diags: &mut Diagnostics) -> Document {
    let top_dir =
        fs::canonicalize(path).ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
    let mut loader = Loader { top_dir, seen: HashSet::new(), raw: Raw::default(), env, diags };
    let pos = Pos::new(path.display().to_string(), 0);
    loader.file(path, None, &pos, 0, Place::Main);
    loader.parsers_files(parsers);
    let mut document = loader.finish();
    document.main = path.display().to_string();
    document
}

/// Where a file stands: what sections it may hold.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// The main file or one it includes.
    Main,
    /// Named by `Parsers_File` or `-R`.
    Parsers,
}

/// A section before variables are expanded.
pub(super) struct RawSection {
    pub(super) name: String,
    pub(super) pos: Pos,
    pub(super) entries: Vec<(String, String, Pos)>,
}

/// Everything read so far. `@SET` may stand after its use, so nothing is expanded before all is read.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) sections: Vec<RawSection>,
}

pub(super) struct Loader<'a> {
    top_dir: PathBuf,
    seen: HashSet<(u64, u64)>,
    pub(super) raw: Raw,
    pub(super) env: &'a mut Env,
    pub(super) diags: &'a mut Diagnostics,
}

impl Loader<'_> {
    /// Reads a file, once. `from` is where it was named.
    fn file(&mut self, path: &Path, from: Option<&Pos>, pos: &Pos, depth: usize, place: Place) {
        let name = path.display().to_string();
        let at = from.unwrap_or(pos);
        let text = match self.open(path, at, depth) {
            Ok(text) => text,
            Err(Some((message, hint))) => return self.diags.error_hint(Some(at), message, hint),
            Err(None) => return,
        };
        let yaml =
            path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
        if yaml {
            let read = yaml_sections::read(self, &text, &name);
            let base = path.parent().unwrap_or(Path::new("")).to_owned();
            for (include, at) in read.includes {
                self.include(&include, &at, depth + 1, place, &base);
            }
            self.raw.sections.extend(read.sections);
            return;
        }
        match classic::parse(&text, &name) {
            Ok(items) => self.items(items, depth, place),
            Err(r) => self.diags.error_hint(Some(&r.pos), r.message, r.hint),
        }
    }

    #[allow(clippy::type_complexity, reason = "message and hint; none when a finding was already made")]
    fn open(&mut self, path: &Path, at: &Pos, depth: usize) -> Result<String, Option<(String, String)>> {
        let shown = path.display();
        let meta = fs::metadata(path).map_err(|e| {
            Some((
                format!("cannot read {shown}: {e}"),
                "check the path; relative paths start at the main file".into(),
            ))
        })?;
        if meta.is_dir() {
            if depth == 0 {
                return Err(Some((format!("{shown} is a directory"), "name a configuration file".into())));
            }
            self.diags.strict(
                Some(at),
                format!("{shown} is a directory"),
                "nothing is read from it; include its files",
            );
            return Err(None);
        }
        if !self.seen.insert((meta.dev(), meta.ino())) {
            return Err(Some((
                format!("{shown} is included a second time (a cycle, or twice)"),
                "include every file once".into(),
            )));
        }
        if self.seen.len() > MAX_FILES || depth > MAX_DEPTH {
            return Err(Some((format!("{shown}: too many included files"), "include fewer".into())));
        }
        if meta.len() > MAX_BYTES {
            return Err(Some((
                format!("{shown} is larger than 32 MiB"),
                "is it a configuration file?".into(),
            )));
        }
        let bytes =
            fs::read(path).map_err(|e| Some((format!("cannot read {shown}: {e}"), "check it".into())))?;
        String::from_utf8(bytes).map_err(|e| {
            let line = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
            let line = line.iter().filter(|b| **b == b'\n').count() + 1;
            Some((format!("{shown}:{line}: not UTF-8"), "save the file as UTF-8".into()))
        })
    }

    fn items(&mut self, items: Vec<Item>, depth: usize, place: Place) {
        // The section that keys of this file go to; an included file begins without one.
        let mut current: Option<usize> = None;
        for item in items {
            match item {
                Item::Include(path, pos) => {
                    let base = self.top_dir.clone();
                    self.include(&path, &pos, depth + 1, place, &base);
                }
                Item::Set(name, value, pos) => self.set(&name, &value, &pos),
                Item::UnknownMeta(name, pos) => {
                    self.diags.strict(Some(&pos), format!("unknown directive {name}"), "it is passed over");
                }
                Item::Header(name, pos) => {
                    current = self.section(name, pos, place);
                }
                Item::Entry(key, value, pos) => {
                    if let Some(section) = current.and_then(|i| self.raw.sections.get_mut(i)) {
                        section.entries.push((key, value, pos));
                    }
                }
            }
        }
    }

    /// Opens a section; `None` when it is one that is passed over or refused.
    fn section(&mut self, name: String, pos: Pos, place: Place) -> Option<usize> {
        match kind(&name) {
            Some(SectionKind::Parser | SectionKind::MultilineParser) if place == Place::Main => {
                self.diags.error_hint(
                    Some(&pos),
                    format!("[{name}] cannot stand in a main configuration file"),
                    "move it to a file of its own and name that with Parsers_File in [SERVICE]",
                );
                None
            }
            Some(_) => {
                self.raw.sections.push(RawSection { name, pos, entries: Vec::new() });
                Some(self.raw.sections.len() - 1)
            }
            None => {
                refuse_section(&name, &pos, self.diags);
                None
            }
        }
    }

    pub(super) fn set(&mut self, name: &str, value: &str, pos: &Pos) {
        match value.strip_prefix("file://").filter(|p| !p.is_empty()) {
            None => self.env.set(name, value),
            Some(path) => match fs::read_to_string(path) {
                Ok(text) if !text.is_empty() => {
                    let text = text.strip_suffix('\n').unwrap_or(&text);
                    self.env.set(name, text.strip_suffix('\r').unwrap_or(text));
                }
                Ok(_) => self.diags.error(Some(pos), format!("{path}, the value of {name}, is empty")),
                Err(e) => {
                    self.diags.error(Some(pos), format!("cannot read {path}, the value of {name}: {e}"))
                }
            },
        }
    }

    fn include(&mut self, pattern: &str, pos: &Pos, depth: usize, place: Place, base: &Path) {
        if !pattern.contains('*') {
            // As given from the working directory first, as Fluent Bit does.
            let given = PathBuf::from(pattern);
            let path = if given.exists() { given } else { base.join(pattern) };
            return self.file(&path, Some(pos), pos, depth, place);
        }
        let full = base.join(pattern);
        let found: Vec<PathBuf> = match glob::glob(&full.display().to_string()) {
            // The glob crate gives paths in alphabetical order.
            Ok(paths) => paths.filter_map(Result::ok).collect(),
            Err(e) => return self.diags.error(Some(pos), format!("bad pattern {pattern}: {e}")),
        };
        if found.is_empty() {
            let hint = format!("it is looked for in {}", base.display());
            return self.diags.error_hint(Some(pos), format!("no file matches {pattern}"), hint);
        }
        for path in found {
            self.file(&path, Some(pos), pos, depth, place);
        }
    }

    /// Reads the files that `Parsers_File` names, and those of the command line.
    fn parsers_files(&mut self, more: &[PathBuf]) {
        let named: Vec<(String, Pos)> = self
            .raw
            .sections
            .iter()
            .filter(|s| kind(&s.name) == Some(SectionKind::Service))
            .flat_map(|s| &s.entries)
            .filter(|(key, ..)| key.eq_ignore_ascii_case("parsers_file"))
            .map(|(_, value, pos)| (value.clone(), pos.clone()))
            .collect();
        for (value, pos) in named {
            let value = self.expand(&value, &pos);
            let given = PathBuf::from(&value);
            let path = if given.exists() { given } else { self.top_dir.join(&value) };
            self.file(&path, Some(&pos), &pos, 1, Place::Parsers);
        }
        for path in more {
            self.file(path, None, &Pos::new("-R", 0), 1, Place::Parsers);
        }
    }

    fn expand(&mut self, value: &str, pos: &Pos) -> String {
        let diags = &mut *self.diags;
        self.env.expand(value, |name| {
            diags.strict(
                Some(pos),
                format!("variable ${{{name}}} is used but not set"),
                format!("it is taken as empty; set it, or write ${{{name}:-DEFAULT}}"),
            );
        })
    }

    /// Expands variables and sorts sections by kind.
    fn finish(mut self) -> Document {
        let mut document = Document::default();
        for RawSection { name, pos, entries } in std::mem::take(&mut self.raw.sections) {
            let Some(kind) = kind(&name) else { continue };
            let entries: Vec<Entry> = entries
                .into_iter()
                .map(|(written, value, pos)| Entry {
                    key: written.to_ascii_lowercase(),
                    value: self.expand(&value, &pos),
                    written,
                    pos,
                })
                .collect();
            if entries.is_empty() {
                self.diags.warn(Some(&pos), format!("section [{name}] has no keys"));
            }
            let section = Section { kind, pos, entries };
            match kind {
                SectionKind::Service => document.service.extend(section.entries),
                SectionKind::Input => document.inputs.push(section),
                SectionKind::Filter => document.filters.push(section),
                SectionKind::Output => document.outputs.push(section),
                SectionKind::Parser => document.parsers.push(section),
                SectionKind::MultilineParser => document.multiline_parsers.push(section),
            }
        }
        document
    }
}

/// Section names, singular and plural.
pub(super) fn kind(name: &str) -> Option<SectionKind> {
    Some(match name.to_ascii_uppercase().as_str() {
        "SERVICE" => SectionKind::Service,
        "INPUT" | "INPUTS" => SectionKind::Input,
        "FILTER" | "FILTERS" => SectionKind::Filter,
        "OUTPUT" | "OUTPUTS" => SectionKind::Output,
        "PARSER" => SectionKind::Parser,
        "MULTILINE_PARSER" => SectionKind::MultilineParser,
        _ => return None,
    })
}

/// What is said of a section that is not ours.
pub(super) fn refuse_section(name: &str, pos: &Pos, diags: &mut Diagnostics) {
    match name.to_ascii_uppercase().as_str() {
        "STREAM_PROCESSOR" | "STREAM_TASK" => diags.error_hint(
            Some(pos),
            format!(
                "[{name}] (stream processor) is not supported: the records it would make would go nowhere"
            ),
            STREAMS_HINT,
        ),
        "PLUGINS" => {
            diags.warn(Some(pos), "[PLUGINS] is passed over: firelane loads no shared objects".to_owned())
        }
        "UPSTREAM" | "UPSTREAM_SERVERS" | "CUSTOM" | "CUSTOMS" => {
            diags.error(Some(pos), format!("[{name}] is not built into firelane yet"));
        }
        _ => {
            let known = ["SERVICE", "INPUT", "FILTER", "OUTPUT", "PARSER", "MULTILINE_PARSER"];
            let meant = super::check::nearest(&name.to_ascii_uppercase(), known.into_iter());
            let hint = match meant {
                Some(meant) => format!("it is passed over with all its keys; did you mean [{meant}]?"),
                None => "it is passed over with all its keys".to_owned(),
            };
            diags.strict(Some(pos), format!("unknown section [{name}]"), hint);
        }
    }
}

/// The rule that does what most stream processor tasks are written for.
pub(super) const STREAMS_HINT: &str =
    "use a filter instead: [FILTER] Name rewrite_tag, Match TAG, Rule $KEY REGEX NEW_TAG true";

/// A section made by something else than a file (command-line flags).
pub fn section(kind: SectionKind, entries: Vec<(String, String)>, from: &str) -> Section {
    let pos = Pos { file: Arc::from(from), line: 0 };
    Section {
        kind,
        pos: pos.clone(),
        entries: entries
            .into_iter()
            .map(|(written, value)| Entry {
                key: written.to_ascii_lowercase(),
                written,
                value,
                pos: pos.clone(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes files, loads the first, gives the document and the findings.
    fn load_files(files: &[(&str, &str)]) -> (Document, Vec<String>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut diags = Diagnostics::new();
        let mut env = Env::of(&[("SET", "yes")]);
        let document = load(&dir.path().join(files[0].0), &[], &mut env, &mut diags);
        let prefix = format!("{}/", dir.path().display());
        let found = diags.iter().map(|d| format!("{:?} {d}", d.level).replace(&prefix, "")).collect();
        (document, found, dir)
    }

    fn names(sections: &[Section]) -> Vec<&str> {
        sections.iter().filter_map(|s| s.last("name")).map(|e| e.value.as_str()).collect()
    }

    #[test]
    fn an_included_file_begins_without_a_section_and_the_including_one_goes_on_in_its_own() {
        let (d, found, _dir) = load_files(&[
            ("main.conf", "[INPUT]\n    Name a\n@INCLUDE sub/x.conf\n    Tag t\n"),
            ("sub/x.conf", "[OUTPUT]\n  Name o\n"),
        ]);
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(d.inputs[0].last("tag").unwrap().value, "t");
        assert_eq!(names(&d.outputs), ["o"]);
    }

    #[test]
    fn a_cycle_and_a_missing_file_are_refused_where_they_are_named() {
        let (_, found, _dir) = load_files(&[
            ("a.conf", "@INCLUDE b.conf\n@INCLUDE no.conf\n@INCLUDE n*.conf\n"),
            ("b.conf", "@INCLUDE a.conf\n"),
        ]);
        assert!(found[0].starts_with("Error b.conf:1: a.conf is included a second time"), "{found:?}");
        assert!(found[1].starts_with("Error a.conf:2: cannot read no.conf"), "{found:?}");
        assert!(found[2].contains("a.conf:3: no file matches n*.conf"), "{found:?}");
    }

    #[test]
    fn globs_are_read_in_order_and_variables_may_be_set_after_their_use() {
        let (d, found, _dir) = load_files(&[
            ("m.conf", "@INCLUDE c/*.conf\n[INPUT]\n  Name ${N}-${SET}\n@SET N=x\n"),
            ("c/2.conf", "[FILTER]\n  Name two\n"),
            ("c/1.conf", "[FILTER]\n  Name one\n"),
        ]);
        assert_eq!(found, Vec::<String>::new());
        assert_eq!((names(&d.filters), names(&d.inputs)), (vec!["one", "two"], vec!["x-yes"]));
    }

    #[test]
    fn an_unset_variable_is_named_with_its_line_and_taken_as_empty() {
        let (d, found, _dir) = load_files(&[("m.conf", "[INPUT]\n  Name a${NO}b\n")]);
        assert!(found[0].starts_with("Strict m.conf:2: variable ${NO} is used but not set"), "{found:?}");
        assert_eq!(names(&d.inputs), ["ab"]);
    }

    #[test]
    fn parsers_belong_into_parsers_files() {
        let (d, found, _dir) = load_files(&[
            ("m.conf", "[SERVICE]\n  Parsers_File p.conf\n[PARSER]\n  Name x\n"),
            ("p.conf", "[PARSER]\n  Name good\n  Format json\n"),
        ]);
        assert!(found[0].starts_with("Error m.conf:3: [PARSER] cannot stand in a main"), "{found:?}");
        assert_eq!(names(&d.parsers), ["good"]);
    }

    #[test]
    fn unknown_sections_are_passed_over_with_their_keys_and_a_guess() {
        let (d, found, _dir) = load_files(&[("m.conf", "[FILTRE]\n  Name grep\n[INPUT]\n  Name a\n")]);
        assert!(found[0].contains("did you mean [FILTER]?"), "{found:?}");
        assert_eq!((d.filters.len(), d.inputs.len()), (0, 1));
    }

    #[test]
    fn yaml_becomes_the_same_sections_and_its_includes_come_first() {
        let (d, found, _dir) = load_files(&[
            (
                "m.yaml",
                "env: {T: tag1}\nincludes: [sub/i.yaml]\nservice: {logLevel: error}\npipeline:\n  inputs:\n    - name: dummy\n      tag: ${T}\n  filters:\n    - name: grep\n      regex: [log a, log b]\nparsers:\n  - name: p\n    format: json\n",
            ),
            ("sub/i.yaml", "pipeline: {inputs: [{name: first}]}\n"),
        ]);
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(names(&d.inputs), ["first", "dummy"]);
        assert_eq!(d.inputs[1].last("tag").unwrap().value, "tag1");
        assert_eq!(d.filters[0].entries.iter().filter(|e| e.key == "regex").count(), 2);
        assert_eq!((d.service[0].key.as_str(), d.parsers.len()), ("log_level", 1));
        assert_eq!(d.inputs[1].pos.line, 6);
    }

    #[test]
    fn yaml_that_is_not_built_yet_is_refused_by_name() {
        let (_, found, _dir) = load_files(&[(
            "m.yaml",
            "pipeline:\n  inputs:\n    - name: a\n      processors:\n        logs: []\n  sinks: []\n",
        )]);
        assert!(found[0].contains("m.yaml:4: processors are not built"), "{found:?}");
        assert!(found[1].contains("unknown plugin category \"sinks\""), "{found:?}");
    }
}
