//! What a YAML tree means: top keys into sections, pipeline entries into inputs, filters and outputs. Pure.
//!
//! Enters: the text of one file. Leaves: [`Part`]s in the order written, as Fluent Bit applies them. Can go wrong: broken
//! YAML and shapes that Fluent Bit refuses, each with its line.

use std::sync::Arc;

use super::check::nearest;
use super::diag::{Diagnostics, Pos};
use super::headers;
use super::section::{Entry, Section, SectionKind};
use super::streams;
use super::yaml::{self, Node, Value};

const TOP_KEYS: &[&str] = &["service", "env", "includes", "pipeline", "parsers", "multiline_parsers"];

/// One thing that a file says.
pub(super) enum Part {
    /// Another file to read here.
    Include(String, Pos),
    /// A variable.
    Set(String, String, Pos),
    /// A section, values not expanded.
    Section(Section),
}

/// A map as the tree holds it: key, line, value.
type Pairs = Vec<(String, u32, Node)>;

/// Reads one file.
pub(super) fn read(text: &str, file: &str, diags: &mut Diagnostics) -> Vec<Part> {
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(r) => {
            diags.error(Some(&Pos::new(file, r.line)), r.message);
            return Vec::new();
        }
    };
    let mut reader = Reader { diags, file: file.into(), parts: Vec::new() };
    match root.value {
        Value::Map(pairs) => {
            for (key, line, node) in pairs {
                reader.top(&key, line, node);
            }
        }
        Value::Scalar(text) if text.is_empty() => {}
        Value::Scalar(_) | Value::List(_) => {
            reader.error(
                root.line,
                "not a YAML configuration: the file must be a map that begins with service: or pipeline:",
            );
        }
    }
    reader.parts
}

struct Reader<'a> {
    diags: &'a mut Diagnostics,
    file: Arc<str>,
    parts: Vec<Part>,
}

impl Reader<'_> {
    fn pos(&self, line: u32) -> Pos {
        Pos { file: Arc::clone(&self.file), line }
    }

    fn error(&mut self, line: u32, message: impl Into<String>) {
        let pos = self.pos(line);
        self.diags.error(Some(&pos), message);
    }

    fn top(&mut self, key: &str, line: u32, node: Node) {
        match key.to_ascii_lowercase().as_str() {
            "service" => match node.value {
                Value::Map(pairs) => self.section(SectionKind::Service, line, pairs),
                Value::Scalar(_) | Value::List(_) => self.error(line, "service must be a map of keys"),
            },
            "env" => self.env(line, node),
            "includes" => {
                for item in self.list("includes", line, node) {
                    let pos = self.pos(item.line);
                    match item.value {
                        Value::Scalar(path) => self.parts.push(Part::Include(path, pos)),
                        Value::List(_) | Value::Map(_) => self.error(item.line, "an include is a path"),
                    }
                }
            }
            "pipeline" => self.pipeline(line, node),
            "parsers" => self.sections(SectionKind::Parser, key, line, node),
            "multiline_parsers" => self.sections(SectionKind::MultilineParser, key, line, node),
            "extensions" => {
                let pos = self.pos(line);
                self.diags.warn(Some(&pos), "extensions are passed over");
            }
            "stream_processor" => {
                let queries: Vec<&str> = maps(&node).filter_map(|pairs| text(pairs, "exec")).collect();
                let pos = self.pos(line);
                self.diags.error_hint(
                    Some(&pos),
                    "stream_processor is not supported: the records it would make would go nowhere",
                    streams::hint(queries.into_iter()),
                );
            }
            "plugins" | "upstream_servers" | "customs" => {
                let pos = self.pos(line);
                headers::resolve(key, &pos, self.diags);
            }
            other => {
                let does = match nearest(other, TOP_KEYS.iter().copied()) {
                    Some(meant) => format!("it is passed over; did you mean {meant}?"),
                    None => "it is passed over; inputs, filters and outputs stand under pipeline:".to_owned(),
                };
                let pos = self.pos(line);
                self.diags.strict(Some(&pos), format!("unknown top key \"{key}\""), does);
            }
        }
    }

    fn list(&mut self, what: &str, line: u32, node: Node) -> Vec<Node> {
        match node.value {
            Value::List(list) => list,
            Value::Scalar(_) | Value::Map(_) => {
                self.error(line, format!("{what} must be a list: begin each item with \"- \""));
                Vec::new()
            }
        }
    }

    fn env(&mut self, line: u32, node: Node) {
        match node.value {
            Value::Map(pairs) => {
                for (name, line, node) in pairs {
                    let pos = self.pos(line);
                    match node.value {
                        Value::Scalar(value) => self.parts.push(Part::Set(name, value, pos)),
                        Value::List(_) | Value::Map(_) => {
                            self.error(line, format!("env {name} must be text"));
                        }
                    }
                }
            }
            Value::List(items) => {
                for item in items {
                    self.env_item(item);
                }
            }
            Value::Scalar(_) => self.error(line, "env must be a map of names and values"),
        }
    }

    /// `{name, value}` or `{name, uri}`; the file is read once.
    fn env_item(&mut self, item: Node) {
        let pairs = match item.value {
            Value::Map(pairs) => pairs,
            Value::Scalar(_) | Value::List(_) => Vec::new(),
        };
        let get = |key: &str| {
            pairs.iter().find(|(k, ..)| k.eq_ignore_ascii_case(key)).and_then(|(_, _, n)| match &n.value {
                Value::Scalar(text) => Some(text.clone()),
                Value::List(_) | Value::Map(_) => None,
            })
        };
        match (get("name"), get("uri").or_else(|| get("value"))) {
            (Some(name), Some(value)) => {
                let pos = self.pos(item.line);
                self.parts.push(Part::Set(name, value, pos));
            }
            _ => self.error(item.line, "an item of env has name and value (or uri)"),
        }
    }

    fn pipeline(&mut self, line: u32, node: Node) {
        let Value::Map(pairs) = node.value else {
            return self.error(line, "pipeline must be a map of inputs, filters and outputs");
        };
        for (key, line, node) in pairs {
            match key.to_ascii_lowercase().as_str() {
                "inputs" => self.sections(SectionKind::Input, &key, line, node),
                "filters" => self.sections(SectionKind::Filter, &key, line, node),
                "outputs" => self.sections(SectionKind::Output, &key, line, node),
                _ => self.error(
                    line,
                    format!("unknown plugin category \"{key}\" in pipeline; use inputs, filters or outputs"),
                ),
            }
        }
    }

    fn sections(&mut self, kind: SectionKind, key: &str, line: u32, node: Node) {
        for item in self.list(key, line, node) {
            match item.value {
                Value::Map(pairs) => self.section(kind, item.line, pairs),
                Value::Scalar(_) | Value::List(_) => {
                    self.error(item.line, format!("each item of {key} must be a map of keys: - name: ..."));
                }
            }
        }
    }

    fn section(&mut self, kind: SectionKind, line: u32, pairs: Pairs) {
        let mut entries = Vec::new();
        for (written, line, node) in pairs {
            let key = yaml::key(&written);
            match key.as_str() {
                "processors" | "routes" | "telemetry" => self.block(kind, &key, line, &node),
                "rules" if kind == SectionKind::MultilineParser => self.rules(line, node, &mut entries),
                _ => self.values(kind, &key, &written, line, node, &mut entries),
            }
        }
        let pos = self.pos(line);
        self.parts.push(Part::Section(Section { kind, pos, entries }));
    }

    fn values(
        &mut self,
        kind: SectionKind,
        key: &str,
        written: &str,
        line: u32,
        node: Node,
        entries: &mut Vec<Entry>,
    ) {
        let lists = matches!(kind, SectionKind::Input | SectionKind::Filter | SectionKind::Output);
        let items = match node.value {
            Value::List(items) if lists && !items.is_empty() => items,
            value @ Value::Scalar(_) => vec![Node { line, value }],
            Value::List(_) | Value::Map(_) => {
                let takes = if lists { "text, or a list of texts" } else { "text" };
                return self.error(line, format!("\"{written}\" of {} takes {takes}", kind.title()));
            }
        };
        for item in items {
            let pos = self.pos(item.line);
            match item.value {
                Value::Scalar(value) => {
                    entries.push(Entry { key: key.to_owned(), written: written.to_owned(), value, pos });
                }
                Value::Map(_) | Value::List(_) => {
                    self.error(item.line, format!("\"{written}\" of {} takes a list of texts", kind.title()));
                }
            }
        }
    }

    /// Nested blocks of Fluent Bit's that firelane does not have.
    fn block(&mut self, kind: SectionKind, key: &str, line: u32, node: &Node) {
        let pos = self.pos(line);
        match (key, kind) {
            ("telemetry", _) => {
                self.diags.warn(Some(&pos), "telemetry is accepted, without effect yet");
            }
            ("processors", SectionKind::Filter) => {
                let does = "they are passed over; a filter has none";
                self.diags.strict(Some(&pos), "processors of [FILTER]", does);
            }
            ("processors", _) => {
                let names = processors(node);
                let what = if names.is_empty() {
                    "processors are".to_owned()
                } else {
                    format!("processors ({}) are", names.join(", "))
                };
                self.diags.error_hint(
                    Some(&pos),
                    format!("{what} not built into firelane yet"),
                    "write them as filters with a match under pipeline: filters:",
                );
            }
            _ => self.diags.error_hint(
                Some(&pos),
                "routes are not built into firelane yet",
                "give the outputs a match instead",
            ),
        }
    }

    fn rules(&mut self, line: u32, node: Node, entries: &mut Vec<Entry>) {
        for item in self.list("rules", line, node) {
            let rule = match &item.value {
                Value::Map(pairs) => rule(pairs),
                Value::Scalar(_) | Value::List(_) => Err("state, regex and next_state"),
            };
            let pos = self.pos(item.line);
            match rule {
                Ok(value) => entries.push(Entry { key: "rule".into(), written: "rule".into(), value, pos }),
                Err(missing) => self.error(
                    item.line,
                    format!("a multiline rule needs state, regex and next_state; {missing} missing"),
                ),
            }
        }
    }
}

/// The names under `processors: {logs: [{name: x}], ...}`.
fn processors(node: &Node) -> Vec<&str> {
    let Value::Map(signals) = &node.value else { return Vec::new() };
    signals.iter().flat_map(|(_, _, list)| maps(list)).filter_map(|pairs| text(pairs, "name")).collect()
}

/// The maps of a list.
fn maps(node: &Node) -> impl Iterator<Item = &Pairs> {
    let items: &[Node] = if let Value::List(items) = &node.value { items } else { &[] };
    items.iter().filter_map(|item| if let Value::Map(pairs) = &item.value { Some(pairs) } else { None })
}

fn text<'n>(pairs: &'n Pairs, key: &str) -> Option<&'n str> {
    match pairs.iter().find(|(k, ..)| yaml::key(k) == key).map(|(_, _, n)| &n.value) {
        Some(Value::Scalar(text)) => Some(text),
        _ => None,
    }
}

/// A multiline rule as the classic format writes it: `"state" "/regex/" "next"`. The error names what is missing.
fn rule(pairs: &Pairs) -> Result<String, &'static str> {
    let state = text(pairs, "state").ok_or("state is")?;
    let regex = text(pairs, "regex").ok_or("regex is")?;
    let next = text(pairs, "next_state").ok_or("next_state is")?;
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\\\""));
    // A backslash at the end would take the closing quote with it.
    let regex = if regex.ends_with('\\') { format!("/{regex}/") } else { regex.to_owned() };
    Ok(format!("{} {} {}", quoted(state), quoted(&regex), quoted(next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::words;
    use proptest::prelude::*;

    fn findings(text: &str) -> Vec<String> {
        let mut diags = Diagnostics::new();
        read(text, "f", &mut diags);
        diags.iter().map(|d| format!("{:?} {d}", d.level)).collect()
    }

    /// Each row was tried with Fluent Bit 5.1.1, which refuses it too (processors and routes apart).
    #[test]
    fn shapes_that_are_none_are_refused_with_their_line() {
        for (text, want) in [
            ("- a\n", "Error f:1: not a YAML configuration"),
            ("includes: a.yaml\n", "Error f:1: includes must be a list"),
            ("includes:\n", "Error f:1: includes must be a list"),
            ("parsers:\n  name: j\n", "Error f:1: parsers must be a list"),
            ("service:\n", "Error f:1: service must be a map"),
            ("service:\n  - flush: 1\n", "Error f:1: service must be a map"),
            ("service:\n  parsers_file:\n    - a\n", "Error f:2: \"parsers_file\" of [SERVICE] takes text"),
            ("service:\n  foo: {a: b}\n", "Error f:2: \"foo\" of [SERVICE] takes text"),
            ("parsers:\n  - name: [a]\n", "Error f:2: \"name\" of [PARSER] takes text"),
            ("env:\n", "Error f:1: env must be a map"),
            ("env:\n  a: {b: c}\n", "Error f:2: env a must be text"),
            ("pipeline:\n  inputs:\n    name: x\n", "Error f:2: inputs must be a list"),
            ("pipeline:\n  inputs:\n", "Error f:2: inputs must be a list"),
            ("pipeline:\n  inputs:\n    - dummy\n", "Error f:3: each item of inputs must be a map"),
            ("pipeline:\n  sinks: []\n", "Error f:2: unknown plugin category \"sinks\""),
            ("pipeline:\n  inputs: [{name: x, y: {a: b}}]\n", "Error f:2: \"y\" of [INPUT] takes text"),
            ("pipeline:\n  inputs: [{name: x, y: [{a: b}]}]\n", "Error f:2: \"y\" of [INPUT] takes a list"),
            ("pipeline:\n  inputs: [{name: x, y: []}]\n", "Error f:2: \"y\" of [INPUT] takes text"),
            ("customs:\n  - name: x\n", "Error f:1: custom plugins"),
            (
                "pipeline:\n  inputs:\n    - processors: {logs: [{name: labels}]}\n",
                "Error f:3: processors (labels) are not built",
            ),
            ("pipeline:\n  inputs:\n    - routes: {logs: []}\n", "Error f:3: routes are not built"),
            (
                "multiline_parsers: [{rules: [{state: a, regex: b}]}]\n",
                "Error f:1: a multiline rule needs state, regex and next_state; next_state is missing",
            ),
            (
                "stream_processor:\n  - exec: CREATE STREAM x WITH (tag='n') AS SELECT * FROM TAG:'a'\n",
                "Error f:1: stream_processor is not supported: the records it would make would go nowhere; use a filter instead: [FILTER] Name rewrite_tag, Match a,",
            ),
            ("foo:\n  bar: 1\n", "Strict f:1: unknown top key \"foo\"; it is passed over"),
            (
                "pipelines: {}\n",
                "Strict f:1: unknown top key \"pipelines\"; it is passed over; did you mean pipeline?",
            ),
            ("inputs:\n  - name: x\n", "Strict f:1: unknown top key \"inputs\""),
        ] {
            let found = findings(text);
            assert!(found.first().is_some_and(|f| f.starts_with(want)), "{text:?}: {found:?}");
        }
    }

    #[test]
    fn rules_survive_the_way_through_the_classic_form() {
        for regex in ["/^\\d+ \"x\"/", "a\\", "say \\\"hi\\\"", "^\\s+at "] {
            let pairs = [("state", "start_state"), ("regex", regex), ("next_state", "cont")]
                .map(|(k, v)| (k.to_owned(), 1, Node { line: 1, value: Value::Scalar(v.to_owned()) }));
            let back = words(&rule(&pairs.to_vec()).unwrap());
            let want = if regex.ends_with('\\') { format!("/{regex}/") } else { regex.to_owned() };
            assert_eq!(back, ["start_state", &want, "cont"]);
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(
            text in "(service|pipeline|inputs|env|includes|parsers|name|rules|[ \n:\\-\\[\\]{},a]){0,60}"
        ) {
            findings(&text);
        }
    }
}
