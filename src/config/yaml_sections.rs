//! What a YAML tree means: top keys into sections, pipeline entries into inputs, filters and outputs.

use super::diag::Pos;
use super::load::{Loader, RawSection, STREAMS_HINT, refuse_section};
use super::yaml::{self, Node, Value};

/// What one file holds.
#[derive(Default)]
pub(super) struct Read {
    /// The files it includes, which Fluent Bit reads before it.
    pub(super) includes: Vec<(String, Pos)>,
    /// Its own sections.
    pub(super) sections: Vec<RawSection>,
}

/// Reads one file; its variables go to the loader at once.
pub(super) fn read(loader: &mut Loader<'_>, text: &str, file: &str) -> Read {
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(r) => {
            loader.diags.error(Some(&Pos::new(file, r.line)), r.message);
            return Read::default();
        }
    };
    let mut reader = Reader { loader, file: file.into(), read: Read::default() };
    match root.value {
        Value::Map(pairs) => {
            for (key, line, node) in pairs {
                reader.top(&key, line, node);
            }
        }
        Value::Scalar(text) if text.is_empty() => {}
        Value::Scalar(_) | Value::List(_) => {
            let pos = reader.pos(root.line);
            reader.loader.diags.error_hint(
                Some(&pos),
                "not a configuration: the file must be a map",
                "begin with service: or pipeline:",
            );
        }
    }
    reader.read
}

struct Reader<'a, 'b> {
    loader: &'a mut Loader<'b>,
    file: std::sync::Arc<str>,
    read: Read,
}

impl Reader<'_, '_> {
    fn pos(&self, line: u32) -> Pos {
        Pos { file: self.file.clone(), line }
    }

    fn error(&mut self, line: u32, message: impl Into<String>) {
        let pos = self.pos(line);
        self.loader.diags.error(Some(&pos), message);
    }

    fn top(&mut self, key: &str, line: u32, node: Node) {
        match key.to_ascii_lowercase().as_str() {
            "service" => {
                if let Value::Map(pairs) = node.value {
                    self.section("SERVICE", line, pairs);
                }
            }
            "env" => self.env(node),
            "includes" => {
                for item in self.list("includes", node) {
                    match item.value {
                        Value::Scalar(path) => {
                            let pos = self.pos(item.line);
                            self.read.includes.push((path, pos));
                        }
                        Value::List(_) | Value::Map(_) => self.error(item.line, "an include is a path"),
                    }
                }
            }
            "pipeline" => self.pipeline(node),
            "parsers" => self.sections("PARSER", node),
            "multiline_parsers" => self.sections("MULTILINE_PARSER", node),
            "stream_processor" => {
                let pos = self.pos(line);
                self.loader.diags.error_hint(Some(&pos), "stream_processor is not supported", STREAMS_HINT);
            }
            _ => {
                let pos = self.pos(line);
                refuse_section(key, &pos, self.loader.diags);
            }
        }
    }

    fn list(&mut self, what: &str, node: Node) -> Vec<Node> {
        match node.value {
            Value::List(list) => list,
            Value::Scalar(text) if text.is_empty() => Vec::new(),
            Value::Scalar(_) | Value::Map(_) => {
                self.error(node.line, format!("{what} must be a list"));
                Vec::new()
            }
        }
    }

    fn env(&mut self, node: Node) {
        match node.value {
            Value::Map(pairs) => {
                for (name, line, node) in pairs {
                    match node.value {
                        Value::Scalar(value) => {
                            let pos = self.pos(line);
                            self.loader.set(&name, &value, &pos);
                        }
                        Value::List(_) | Value::Map(_) => {
                            self.error(line, format!("env {name} must be text"))
                        }
                    }
                }
            }
            Value::List(items) => {
                for item in items {
                    let line = item.line;
                    let Value::Map(pairs) = item.value else {
                        self.error(line, "an env item has name and value");
                        continue;
                    };
                    let get = |key: &str| {
                        pairs.iter().find(|(k, ..)| k == key).and_then(|(_, _, n)| match &n.value {
                            Value::Scalar(text) => Some(text.clone()),
                            Value::List(_) | Value::Map(_) => None,
                        })
                    };
                    match (get("name"), get("value").or_else(|| get("uri"))) {
                        (Some(name), Some(value)) => {
                            let pos = self.pos(line);
                            self.loader.set(&name, &value, &pos);
                        }
                        _ => self.error(line, "an env item has name and value (or uri)"),
                    }
                }
            }
            Value::Scalar(text) if text.is_empty() => {}
            Value::Scalar(_) => self.error(node.line, "env must be a map of names and values"),
        }
    }

    fn pipeline(&mut self, node: Node) {
        let line = node.line;
        let Value::Map(pairs) = node.value else {
            return self.error(line, "pipeline must be a map of inputs, filters and outputs");
        };
        for (key, line, node) in pairs {
            match key.to_ascii_lowercase().as_str() {
                "inputs" => self.sections("INPUT", node),
                "filters" => self.sections("FILTER", node),
                "outputs" => self.sections("OUTPUT", node),
                _ => self
                    .error(line, format!("unknown plugin category \"{key}\"; use inputs, filters, outputs")),
            }
        }
    }

    fn sections(&mut self, kind: &str, node: Node) {
        for item in self.list(kind, node) {
            let line = item.line;
            match item.value {
                Value::Map(pairs) => self.section(kind, line, pairs),
                Value::Scalar(_) | Value::List(_) => {
                    self.error(line, format!("each [{kind}] must be a map of keys"))
                }
            }
        }
    }

    fn section(&mut self, kind: &str, line: u32, pairs: Vec<(String, u32, Node)>) {
        let mut entries = Vec::new();
        for (key, line, node) in pairs {
            let pos = self.pos(line);
            let written = yaml::key(&key);
            match node.value {
                Value::Scalar(value) => entries.push((written, value, pos)),
                Value::List(items) => {
                    for item in items {
                        let pos = self.pos(item.line);
                        match item.value {
                            Value::Scalar(value) => entries.push((written.clone(), value, pos)),
                            Value::Map(rule) if written == "rules" && kind == "MULTILINE_PARSER" => {
                                if let Some(rule) = self.rule(item.line, &rule) {
                                    entries.push(("rule".into(), rule, pos));
                                }
                            }
                            Value::Map(_) | Value::List(_) => {
                                self.error(item.line, format!("\"{key}\" takes text or a list of texts"));
                            }
                        }
                    }
                }
                Value::Map(_) => {
                    let message = match written.as_str() {
                        "processors" => {
                            "processors are not built into firelane yet; write filters with a Match instead"
                                .to_owned()
                        }
                        "routes" => {
                            "routes are not built into firelane yet; give the outputs a Match instead"
                                .to_owned()
                        }
                        _ => format!("\"{key}\" takes text or a list of texts, not a map"),
                    };
                    self.error(line, message);
                }
            }
        }
        let pos = self.pos(line);
        self.read.sections.push(RawSection { name: kind.to_owned(), pos, entries });
    }

    /// A multiline rule as the classic format writes it: `"state" "regex" "next"`.
    fn rule(&mut self, line: u32, pairs: &[(String, u32, Node)]) -> Option<String> {
        let mut parts = Vec::new();
        for wanted in ["state", "regex", "next_state"] {
            match pairs.iter().find(|(k, ..)| yaml::key(k) == wanted).map(|(_, _, n)| &n.value) {
                Some(Value::Scalar(text)) => parts.push(format!("\"{}\"", text.replace('"', "\\\""))),
                _ => {
                    self.error(
                        line,
                        format!("a multiline rule needs state, regex and next_state; {wanted} is missing"),
                    );
                    return None;
                }
            }
        }
        Some(parts.join(" "))
    }
}
