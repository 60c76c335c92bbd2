//! Reads the main file and everything it includes into one [`Document`].
//!
//! Enters: a path. Leaves: sections with places, values expanded. Can go wrong: a file is missing, includes itself, or
//! holds what Fluent Bit refuses; every finding names file and line.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classic::{self, Item};
use super::diag::{Diagnostics, Pos};
use super::env::Env;
use super::headers;
use super::section::{Document, Entry, Section, SectionKind};
use super::streams;
use super::yaml_sections::{self, Part};

/// Most files of one configuration.
const MAX_FILES: usize = 1000;
/// Largest file.
const MAX_BYTES: u64 = 32 << 20;
/// Deepest include.
const MAX_DEPTH: usize = 64;

/// Reads `path` (YAML by its extension, else classic) and what it includes; `parsers` are further parsers files (`-R`).
/// What could not be read is reported in `diags`; the document holds the rest.
pub fn load(path: &Path, parsers: &[PathBuf], env: &mut Env, diags: &mut Diagnostics) -> Document {
    load_with(Some(path), parsers, Vec::new(), env, diags)
}

/// As [`load`], with sections made of command-line flags. They come first, as in Fluent Bit: their instances get the
/// first numbers, and what the file says in `[SERVICE]` counts.
pub fn load_with(
    path: Option<&Path>,
    parsers: &[PathBuf],
    flags: Vec<Section>,
    env: &mut Env,
    diags: &mut Diagnostics,
) -> Document {
    let top_dir = path.map(directory).unwrap_or_default();
    let mut loader =
        Loader { top_dir, seen: HashSet::new(), sections: flags, yaml_service: false, env, diags };
    let main = path.map_or_else(|| "command line".to_owned(), |p| p.display().to_string());
    if let Some(path) = path {
        loader.file(
            path,
            &Named { at: &Pos::new(main.as_str(), 0), depth: 0, place: Place::Main, yaml: is_yaml(path) },
        );
    }
    loader.parsers_files(parsers);
    Document { main, ..loader.finish() }
}

/// Where a file stands: what sections it may hold.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// The main file or one it includes.
    Main,
    /// Named by `Parsers_File` or `-R`.
    Parsers,
}

/// How a file came to be read.
struct Named<'a> {
    at: &'a Pos,
    depth: usize,
    place: Place,
    /// Included files are read as the file that includes them, whatever they are called.
    yaml: bool,
}

/// Sections hold values as written until all is read: `@SET` may stand after its use.
struct Loader<'a> {
    /// The directory of the main file (of the parsers file, while one is read).
    top_dir: PathBuf,
    seen: HashSet<(u64, u64)>,
    sections: Vec<Section>,
    yaml_service: bool,
    env: &'a mut Env,
    diags: &'a mut Diagnostics,
}

impl Loader<'_> {
    /// Reads a file, once.
    fn file(&mut self, path: &Path, named: &Named<'_>) {
        let Some(text) = self.open(path, named) else { return };
        let name = path.display().to_string();
        if named.yaml {
            let parts = yaml_sections::read(&text, &name, self.diags);
            self.yaml(parts, named, path.parent().unwrap_or(Path::new("")));
            return;
        }
        match classic::parse(&text, &name) {
            Ok(items) => self.items(items, named),
            Err(r) if is_yaml(path) => {
                let hint = "a classic file cannot include YAML; begin with a .yaml file and its includes";
                self.diags.error_hint(Some(&r.pos), r.message, hint);
            }
            Err(r) => self.diags.error_hint(Some(&r.pos), r.message, r.hint),
        }
    }

    /// The text of a file that may be read; what is wrong with it is reported where it was named.
    fn open(&mut self, path: &Path, named: &Named<'_>) -> Option<String> {
        let shown = path.display();
        let refused = match fs::metadata(path) {
            Err(e) => (format!("cannot read {shown}: {e}"), "check the path"),
            Ok(meta) if meta.is_dir() && named.depth == 0 => {
                (format!("{shown} is a directory"), "name a configuration file")
            }
            Ok(meta) if meta.is_dir() => {
                let does = "nothing is read from it; include its files: DIRECTORY/*.conf";
                self.diags.strict(Some(named.at), format!("{shown} is a directory"), does);
                return None;
            }
            Ok(meta) if !self.seen.insert((meta.dev(), meta.ino())) => {
                (format!("{shown} is included a second time (a cycle, or twice)"), "include every file once")
            }
            Ok(_) if self.seen.len() > MAX_FILES || named.depth > MAX_DEPTH => {
                (format!("{shown}: too many included files"), "include fewer")
            }
            Ok(_) => match read(path) {
                Err(e) => (format!("cannot read {shown}: {e}"), "check its permissions"),
                Ok(bytes) if bytes.len() as u64 > MAX_BYTES => {
                    (format!("{shown} is larger than 32 MiB"), "is it a configuration file?")
                }
                Ok(bytes) => return self.text(bytes, path, named.yaml),
            },
        };
        self.diags.error_hint(Some(named.at), refused.0, refused.1);
        None
    }

    /// Bytes as text. Fluent Bit's classic reader does not look at the encoding, its YAML reader does.
    fn text(&mut self, bytes: Vec<u8>, path: &Path, yaml: bool) -> Option<String> {
        let error = match String::from_utf8(bytes) {
            Ok(text) => return Some(text),
            Err(error) => error,
        };
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        let pos = Pos::new(path.display().to_string(), u32::try_from(line).unwrap_or(u32::MAX));
        if yaml {
            self.diags.error_hint(Some(&pos), "not UTF-8", "save the file as UTF-8");
            return None;
        }
        let does = "what cannot be read becomes U+FFFD; save the file as UTF-8";
        self.diags.strict(Some(&pos), "not UTF-8", does);
        Some(String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    fn items(&mut self, items: Vec<Item>, named: &Named<'_>) {
        // The section that keys of this file go to; an included file begins without one.
        let mut current: Option<usize> = None;
        for item in items {
            match item {
                Item::Include(path, pos) => {
                    // As given from the working directory first, then from the main file's directory.
                    let base = self.top_dir.clone();
                    let found = Some(PathBuf::from(&path)).filter(|p| p.exists());
                    self.include(&path, found, &base, &Named { at: &pos, depth: named.depth + 1, ..*named });
                }
                Item::Set(name, value, pos) => {
                    if let Err(message) = self.set(&name, &value, &pos, named.place) {
                        self.diags.strict(Some(&pos), message, format!("{name} stays unset"));
                    }
                }
                Item::UnknownMeta(line, pos) => {
                    self.diags.strict(
                        Some(&pos),
                        format!("unknown directive \"{line}\""),
                        "it is passed over",
                    );
                }
                Item::Header(name, pos) => {
                    current = self.header(&name, pos, named.place);
                }
                Item::Entry(written, value, pos) => {
                    if let Some(section) = current.and_then(|i| self.sections.get_mut(i)) {
                        section.entries.push(Entry {
                            key: written.to_ascii_lowercase(),
                            written,
                            value,
                            pos,
                        });
                    }
                }
            }
        }
    }

    fn yaml(&mut self, parts: Vec<Part>, named: &Named<'_>, base: &Path) {
        for part in parts {
            match part {
                Part::Include(path, pos) => {
                    self.include(&path, None, base, &Named { at: &pos, depth: named.depth + 1, ..*named });
                }
                Part::Set(name, value, pos) => {
                    if let Err(message) = self.set(&name, &value, &pos, named.place) {
                        self.diags.error(Some(&pos), message);
                    }
                }
                Part::Section(section) => {
                    if section.kind == SectionKind::Service && std::mem::replace(&mut self.yaml_service, true)
                    {
                        let hint = "put all its keys into one, also those of included files";
                        self.diags.error_hint(Some(&section.pos), "a second service section", hint);
                    } else if self.belongs(section.kind, &section.pos, named.place) {
                        self.sections.push(section);
                    }
                }
            }
        }
    }

    /// Opens a section; `None` when it is one that is passed over or refused.
    fn header(&mut self, name: &str, pos: Pos, place: Place) -> Option<usize> {
        let kind = headers::resolve(name, &pos, self.diags)?;
        if place == Place::Main && matches!(kind, SectionKind::Parser | SectionKind::MultilineParser) {
            self.diags.error_hint(
                Some(&pos),
                format!("[{name}] cannot stand in a main configuration file"),
                "move it to a file of its own and name that with Parsers_File in [SERVICE]",
            );
            return None;
        }
        if !self.belongs(kind, &pos, place) {
            return None;
        }
        self.sections.push(Section { kind, pos, entries: Vec::new() });
        Some(self.sections.len() - 1)
    }

    /// Whether a section counts where it stands.
    fn belongs(&mut self, kind: SectionKind, pos: &Pos, place: Place) -> bool {
        let good = place == Place::Main || matches!(kind, SectionKind::Parser | SectionKind::MultilineParser);
        if !good {
            self.diags.strict(
                Some(pos),
                format!("{} in a parsers file", kind.title()),
                "it is passed over; only parsers count there, move it to the main file",
            );
        }
        good
    }

    /// Sets a variable, `file://PATH` to what the file holds.
    fn set(&mut self, name: &str, value: &str, pos: &Pos, place: Place) -> Result<(), String> {
        if place == Place::Parsers {
            let does = "it is passed over; set variables in the main file";
            self.diags.strict(Some(pos), format!("variable {name} is set in a parsers file"), does);
            return Ok(());
        }
        let Some(path) = value.strip_prefix("file://").filter(|p| !p.is_empty()) else {
            self.env.set(name, value);
            return Ok(());
        };
        let bytes =
            read(Path::new(path)).map_err(|e| format!("cannot read {path}, the value of {name}: {e}"))?;
        let text =
            String::from_utf8(bytes).map_err(|_| format!("{path}, the value of {name}, is not UTF-8"))?;
        let text = text.strip_suffix(['\n', '\r']).unwrap_or(&text);
        if text.is_empty() || text.len() as u64 > MAX_BYTES {
            return Err(format!("{path}, the value of {name}, is empty or larger than 32 MiB"));
        }
        self.env.set(name, text);
        Ok(())
    }

    /// Reads a file or, with `*`, all that match, in alphabetical order.
    fn include(&mut self, pattern: &str, found: Option<PathBuf>, base: &Path, named: &Named<'_>) {
        if !pattern.contains('*') {
            return self.file(&found.unwrap_or_else(|| base.join(pattern)), named);
        }
        // `**` is nothing special for glob(3), nor are signs in the directory of the main file meant.
        let base = glob::Pattern::escape(&base.display().to_string());
        let mut full = Path::new(&base).join(pattern).display().to_string();
        while full.contains("**") {
            full = full.replace("**", "*");
        }
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let paths: Vec<PathBuf> = match glob::glob_with(&full, options) {
            Ok(paths) => paths.filter_map(Result::ok).take(MAX_FILES + 1).collect(),
            Err(e) => return self.diags.error(Some(named.at), format!("bad pattern {pattern}: {e}")),
        };
        if paths.is_empty() {
            let message = format!("no file matches {pattern}");
            if named.yaml {
                self.diags.strict(Some(named.at), message, "nothing is included");
            } else {
                self.diags.error_hint(Some(named.at), message, "relative patterns start at the main file");
            }
        }
        for path in paths {
            self.file(&path, named);
        }
    }

    /// Reads the files that `Parsers_File` names, and those of the command line.
    fn parsers_files(&mut self, more: &[PathBuf]) {
        let flags = more.iter().map(|path| (path.display().to_string(), Pos::new("-R", 0)));
        let keys = self
            .sections
            .iter()
            .filter(|s| s.kind == SectionKind::Service)
            .flat_map(|s| &s.entries)
            .filter(|e| e.key == "parsers_file")
            .map(|e| (e.value.clone(), e.pos.clone()));
        let all: Vec<(String, Pos)> = flags.chain(keys).collect();
        let main_dir = self.top_dir.clone();
        for (value, pos) in all {
            // Unset variables are reported once, when the section's values are expanded.
            let value = self.env.expand(&value, |_| {});
            let given = PathBuf::from(&value);
            let path = if given.exists() { given } else { main_dir.join(&value) };
            self.top_dir = directory(&path);
            let yaml = is_yaml(&path);
            self.file(&path, &Named { at: &pos, depth: 1, place: Place::Parsers, yaml });
        }
        self.top_dir = main_dir;
    }

    /// Expands variables and sorts sections by kind.
    fn finish(mut self) -> Document {
        let mut document = Document::default();
        for mut section in std::mem::take(&mut self.sections) {
            if section.entries.is_empty() && section.kind != SectionKind::Service {
                let message = format!("section {} has no keys", section.kind.title());
                self.diags.warn(Some(&section.pos), message);
            }
            self.first_counts(&mut section);
            for entry in section.entries.iter_mut().filter(|e| !verbatim(section.kind, &e.key)) {
                let diags = &mut *self.diags;
                entry.value = self.env.expand(&entry.value, |name| {
                    diags.strict(
                        Some(&entry.pos),
                        format!("variable ${{{name}}} is used but not set"),
                        format!("it is taken as empty; set it, or write ${{{name}:-DEFAULT}}"),
                    );
                });
            }
            match section.kind {
                SectionKind::Service => document.service.extend(section.entries),
                SectionKind::Input => document.inputs.push(section),
                SectionKind::Filter => document.filters.push(section),
                SectionKind::Output => document.outputs.push(section),
                SectionKind::Parser => document.parsers.push(section),
                SectionKind::MultilineParser => document.multiline_parsers.push(section),
            }
        }
        for entry in document.service.iter().filter(|e| e.key == "streams_file") {
            let given = PathBuf::from(&entry.value);
            let path = if given.exists() { given } else { self.top_dir.join(&entry.value) };
            self.diags.error_hint(
                Some(&entry.pos),
                "Streams_File (stream processor) is not supported: the records it would make would go nowhere",
                streams_hint(&path),
            );
        }
        document
    }

    /// Of `Name`, and of every single key of a parser, Fluent Bit takes the first; further ones go.
    fn first_counts(&mut self, section: &mut Section) {
        let kind = section.kind;
        let parser = matches!(kind, SectionKind::Parser | SectionKind::MultilineParser);
        let mut seen: HashSet<String> = HashSet::new();
        let diags = &mut *self.diags;
        section.entries.retain(|entry| {
            let single = if parser { !verbatim(kind, &entry.key) } else { entry.key == "name" };
            if kind == SectionKind::Service || !single || seen.insert(entry.key.clone()) {
                return true;
            }
            let message = format!("key \"{}\" of {} is set twice", entry.written, kind.title());
            diags.strict(Some(&entry.pos), message, "the first one counts");
            false
        });
    }
}

/// What to write instead of the tasks in a streams file.
fn streams_hint(path: &Path) -> String {
    let text = read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let items = classic::parse(&text, "").unwrap_or_default();
    streams::hint(items.iter().filter_map(|item| match item {
        Item::Entry(key, query, _) if key.eq_ignore_ascii_case("exec") => Some(query.as_str()),
        _ => None,
    }))
}

/// Keys of parsers that repeat and whose text is a pattern: `$` means something else there.
fn verbatim(kind: SectionKind, key: &str) -> bool {
    match kind {
        SectionKind::Parser => key.starts_with("decode_field"),
        SectionKind::MultilineParser => key == "rule",
        _ => false,
    }
}

/// Reads at most one byte more than a file may have: a pipe or device has no length to ask for.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"))
}

/// The directory a file lies in, links followed.
fn directory(path: &Path) -> PathBuf {
    fs::canonicalize(path).ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default()
}

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
        let flags = vec![section(SectionKind::Input, vec![("Name".into(), "${SET}".into())], "flags")];
        let flags = if files[0].0 == "flags.conf" { flags } else { Vec::new() };
        let main = dir.path().join(files[0].0);
        let document = load_with(Some(&main), &[], flags, &mut env, &mut diags);
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

    #[test]
    fn yaml_parts_count_in_the_order_written_and_includes_start_at_the_including_file() {
        let (d, found, _dir) = load_files(&[
            (
                "m.yaml",
                "includes: [sub/a.inc, none*.yaml]\nenv: {X: main}\npipeline:\n  filters: [{name: \"${X}\"}]\nincludes: [b.yaml]\n",
            ),
            ("sub/a.inc", "env: {X: inc}\nincludes: [c.yaml]\npipeline: {filters: [{name: a}]}\n"),
            ("sub/c.yaml", "pipeline: {filters: [{name: c}]}\n"),
            ("b.yaml", "pipeline: {filters: [{name: null}]}\n"),
        ]);
        assert_eq!(names(&d.filters), ["c", "a", "main", "null"]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("Strict m.yaml:1: no file matches none*.yaml"), "{found:?}");
    }

    #[test]
    fn a_second_yaml_service_is_refused_also_in_another_file() {
        let (_, found, _dir) = load_files(&[
            ("m.yaml", "includes: [i.yaml]\nservice: {flush: 1}\n"),
            ("i.yaml", "service: {grace: 1}\n"),
        ]);
        assert!(found[0].starts_with("Error m.yaml:2: a second service section"), "{found:?}");
    }

    #[test]
    fn of_names_and_of_parsers_keys_the_first_counts() {
        let (d, found, _dir) = load_files(&[
            ("m.conf", "[SERVICE]\n  Parsers_File p.conf\n[INPUT]\n  Name a\n  Name b\n  Tag x\n  Tag y\n"),
            (
                "p.conf",
                "[PARSER]\n  Name j\n  Format json\n  Format regex\n  Decode_Field json a\n  Decode_Field json ${b}\n",
            ),
        ]);
        assert_eq!(names(&d.inputs), ["a"]);
        assert_eq!(d.inputs[0].entries.len(), 3);
        assert_eq!(d.parsers[0].last("format").unwrap().value, "json");
        assert_eq!(d.parsers[0].last("decode_field").unwrap().value, "json ${b}");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("m.conf:5: key \"Name\" of [INPUT] is set twice; the first one counts"));
    }

    #[test]
    fn only_parsers_count_in_a_parsers_file_and_its_includes_start_at_its_directory() {
        let (d, found, _dir) = load_files(&[
            ("m.conf", "[SERVICE]\n  Parsers_File sub/p.conf\n  Parsers_File y.yaml\n"),
            ("sub/p.conf", "@SET A=b\n[FILTER]\n  Name x\n[SERVICE]\n  Flush 0\n@INCLUDE more.conf\n"),
            ("sub/more.conf", "[PARSER]\n  Name good\n  Format json\n"),
            ("y.yaml", "parsers: [{name: second, format: json}]\npipeline: {inputs: [{name: x}]}\n"),
        ]);
        assert_eq!(names(&d.parsers), ["good", "second"]);
        assert_eq!((d.service.len(), d.filters.len(), d.inputs.len()), (2, 0, 0));
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().all(|f| f.starts_with("Strict")), "{found:?}");
    }

    #[test]
    fn a_variable_may_be_a_file_and_one_that_is_missing_stays_unset() {
        let (d, found, dir) = load_files(&[("s.txt", ""), ("x", "")]);
        drop((d, found));
        fs::write(dir.path().join("secret"), "key\n").unwrap();
        let text = format!(
            "@SET A=file://{}/secret\n@SET B=file:///no/such\n[INPUT]\n  Name ${{A}}${{B:-x}}\n",
            dir.path().display()
        );
        fs::write(dir.path().join("m.conf"), text).unwrap();
        let mut diags = Diagnostics::new();
        let d = load(&dir.path().join("m.conf"), &[], &mut Env::of(&[]), &mut diags);
        assert_eq!(names(&d.inputs), ["keyx"]);
        assert!(diags.iter().next().unwrap().to_string().contains("cannot read /no/such, the value of B"));
    }

    #[test]
    fn globs_leave_hidden_files_and_deeper_ones_out() {
        let (d, _, _dir) = load_files(&[
            ("m.conf", "@INCLUDE c[1]/**.conf\n@INCLUDE c/*\n"),
            ("c/.hidden.conf", "[BROKEN\n"),
            ("c/a.conf", "[FILTER]\n  Name a\n"),
            ("c1/b.conf", "[FILTER]\n  Name b\n"),
            ("c1/d/c.conf", "[BROKEN\n"),
        ]);
        assert_eq!(names(&d.filters), ["b", "a"]);
    }

    #[test]
    fn sections_of_flags_come_first_and_expand_variables() {
        let (d, found, _dir) = load_files(&[("flags.conf", "[INPUT]\n  Name file\n")]);
        assert_eq!((names(&d.inputs), found), (vec!["yes", "file"], vec![]));
    }

    #[test]
    fn a_classic_file_in_another_encoding_is_read_with_a_finding() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.conf");
        fs::write(&path, b"# gr\xfcn\n[INPUT]\n  Name a\n").unwrap();
        let mut diags = Diagnostics::new();
        let d = load(&path, &[], &mut Env::of(&[]), &mut diags);
        assert_eq!(names(&d.inputs), ["a"]);
        assert!(diags.refused(true) && !diags.refused(false));
        assert!(diags.iter().next().unwrap().to_string().contains("m.conf:1: not UTF-8"));
    }

    #[test]
    fn a_streams_file_is_refused_with_the_rules_to_use() {
        let task = |value: &str| {
            format!(
                "[STREAM_TASK]\n  Name x\n  Exec CREATE STREAM x WITH (tag='n') AS SELECT * FROM TAG:'a' WHERE k = '{value}';\n"
            )
        };
        let (_, found, _dir) = load_files(&[
            ("m.conf", "[SERVICE]\n  Streams_File s.conf\n"),
            ("s.conf", &(task("v") + &task("w"))),
        ]);
        assert!(found[0].starts_with("Error m.conf:2: Streams_File"), "{found:?}");
        assert!(
            found[0].ends_with("Rule $k ^v$ n true; [FILTER] Name rewrite_tag, Match a, Rule $k ^w$ n true"),
            "{found:?}"
        );
        let (_, found, _dir) = load_files(&[("m.conf", "[SERVICE]\n  Streams_File none.conf\n")]);
        assert!(found[0].contains("Name rewrite_tag, Match TAG"), "{found:?}");
    }
}
