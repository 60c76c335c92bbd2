//! The multiline parsers that every configuration has: java, python, go, ruby, docker, cri.
//!
//! Enters: a name. Leaves: a compiled parser. The patterns are our own; tests compare whole traces.

use std::sync::Arc;

use super::spec::{How, LineParser, MultilineParser, Rule, Spec};
use crate::text::{Parser, ParserSpec, TimeFormat};

/// Their names.
pub const BUILTIN_NAMES: &[&str] = &["java", "python", "go", "ruby", "docker", "cri"];

/// States, pattern, next state.
type Row = (&'static str, &'static str, &'static str);

/// A headline, its message over several lines if it must be, frames; causes are headlines within.
const JAVA: &[Row] = &[
    ("start_state, cause", r".(?:Exception|Error|Throwable|V8 errors stack trace)[:\r\n]", "headline"),
    ("headline", r"^[ \t]*nested exception is:[ \t]*", "cause"),
    ("headline", r"\A[\r\n]*\z", "headline"),
    ("headline, frames", r"^[ \t]+(?:eval )?at ", "frames"),
    ("headline, frames", r"^[ \t]+--- End of inner exception stack trace ---$", "frames"),
    (
        "headline, frames",
        r"^--- End of stack trace from previous location where exception was thrown ---$",
        "frames",
    ),
    ("headline, frames", r"^[ \t]*(?:Caused by|Suppressed):", "headline"),
    ("headline, frames", r"^[ \t]*... \d+ (?:more|common frames omitted)", "frames"),
];

/// Pairs of a place and its code, until a line that names the exception.
const PYTHON: &[Row] = &[
    ("start_state", r"^Traceback \(most recent call last\):$", "places"),
    ("places", r"^[ \t]+File ", "code"),
    ("code", r"[^ \t]", "places"),
    ("places", r"^(?:[^\s.():]+\.)*[^\s.():]+:", "start_state"),
];

/// The panic, perhaps a signal, then goroutines: a call and its place in turn.
const GO: &[Row] = &[
    ("start_state", r"\bpanic: ", "panic"),
    ("start_state", r"http: panic serving", "goroutine"),
    ("panic", r"^$", "goroutine"),
    ("panic, signal, call", r"^$", "goroutine"),
    ("panic", r"^\[signal ", "signal"),
    ("goroutine", r"^goroutine \d+ \[[^\]]+\]:$", "call"),
    ("call", r"^(?:[^\s.:]+\.)*[^\s.():]+\(|^created by ", "place"),
    ("place", r"^\s", "call"),
];

/// Ruby's own report of an exception that nobody caught.
const RUBY: &[Row] =
    &[("start_state", r"^.+:\d+:in .*", "frames"), ("frames", r"^\s+from .*:\d+:in ", "frames")];

fn rules(rows: &[Row]) -> How {
    How::Rules(rows.iter().map(|(from, pattern, to)| Rule::new(from, pattern, to)).collect())
}

/// What docker's json-file driver writes: `{"log":"text\n","stream":"stdout","time":"..."}`; a line that was cut has no
/// line end.
fn json_file() -> Option<Arc<dyn LineParser>> {
    let parser = Parser::new(ParserSpec {
        name: "docker".into(),
        format: "json".into(),
        time_format: TimeFormat::new("%Y-%m-%dT%H:%M:%S.%L").ok(),
        time_keep: true,
        time_strict: false,
        ..ParserSpec::default()
    });
    Some(Arc::new(parser.ok()?))
}

/// The built-in parser of this name.
pub fn builtin(name: &str) -> Option<MultilineParser> {
    let spec = match name {
        "java" => Spec::new(name, rules(JAVA)),
        "python" => Spec::new(name, rules(PYTHON)),
        "go" => Spec::new(name, rules(GO)),
        "ruby" => Spec::new(name, rules(RUBY)),
        "docker" => Spec {
            parser: json_file(),
            key_content: Some("log".into()),
            key_group: Some("stream".into()),
            ..Spec::new(name, How::EndsWith { text: "\n".into(), negate: false })
        },
        "cri" => Spec {
            parser: Some(Arc::new(super::container::Cri)),
            key_content: Some("log".into()),
            key_pattern: Some("_p".into()),
            key_group: Some("stream".into()),
            ..Spec::new(name, How::Equal { text: "F".into(), negate: false })
        },
        _ => return None,
    };
    MultilineParser::new(spec).ok()
}
