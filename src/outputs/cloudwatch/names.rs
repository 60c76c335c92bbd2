//! The names of log groups and streams: fixed, of the tag, or made from the record.
//!
//! Enters: what the configuration says, once; then tags and records. Leaves: names that CloudWatch takes. Can go wrong: a
//! record lacks a field; then the default name is used, and the log says so once.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::record::{Record, Tag};
use crate::text::{Accessor, Template};
use crate::wire::msgpack::{self, Value};

/// The longest name, of either kind, in characters.
const NAME_MAX: usize = 512;

/// Which of the two, for what is cleaned and what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Group,
    Stream,
}

/// How a name is made.
#[derive(Debug)]
pub(super) struct Name {
    kind: Kind,
    parts: Vec<Part>,
    /// When a field is missing.
    fallback: Option<Vec<Part>>,
    warned: AtomicBool,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Vec<u8>),
    Tag,
    /// The n-th part of the tag between dots.
    Between(usize),
    Field(Accessor),
    /// What follows the last `/` of a field: the task id in a task's ARN.
    LastOf(Accessor),
    /// A record accessor template of Fluent Bit's.
    Template(Template),
    Ecs(Fact),
}

/// What is known about the task that this process is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fact {
    TaskId,
    Cluster,
    TaskArn,
}

/// The task, as its metadata endpoint tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Task {
    /// Name or ARN.
    pub(super) cluster: Option<String>,
    pub(super) arn: Option<String>,
}

impl Task {
    fn id(&self) -> Option<&str> {
        self.arn.as_deref().and_then(|arn| arn.rsplit('/').next())
    }
}

impl Name {
    /// A name that is always the same.
    pub(super) fn fixed(kind: Kind, text: &str) -> Name {
        Name::of(kind, vec![Part::Text(text.as_bytes().to_vec())])
    }

    /// A prefix and the tag.
    pub(super) fn prefixed(kind: Kind, prefix: &str) -> Name {
        Name::of(kind, vec![Part::Text(prefix.as_bytes().to_vec()), Part::Tag])
    }

    /// A template of record accessors (`$field['sub'].$TAG[1]`), and what is used when it cannot be filled in.
    pub(super) fn template(kind: Kind, text: &str, fallback: Name) -> Result<Name, String> {
        let template = Template::new(text)?;
        if template.has_groups() {
            return Err("there is no regular expression that $0 to $9 could stand for".to_owned());
        }
        let mut name = Name::of(kind, vec![Part::Template(template)]);
        name.fallback = Some(fallback.parts);
        Ok(name)
    }

    /// A name with `$(...)`, as the Go plugin has them; `uuid` is what `$(uuid)` stands for.
    pub(super) fn dollars(kind: Kind, text: &str, default: &str, uuid: &str) -> Result<Name, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("$(") {
            if !before.is_empty() {
                parts.push(Part::Text(before.as_bytes().to_vec()));
            }
            let (inside, left) =
                after.split_once(')').ok_or_else(|| format!("$({after}: the bracket is not closed"))?;
            parts.push(Part::dollar(inside.trim(), uuid).map_err(|e| format!("$({inside}): {e}"))?);
            rest = left;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.as_bytes().to_vec()));
        }
        let mut name = Name::of(kind, parts);
        name.fallback = Some(vec![Part::Text(default.as_bytes().to_vec())]);
        Ok(name)
    }

    fn of(kind: Kind, parts: Vec<Part>) -> Name {
        Name { kind, parts, fallback: None, warned: AtomicBool::new(false) }
    }

    /// What of its fixed text CloudWatch would never take.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        for part in self.parts.iter().chain(self.fallback.iter().flatten()) {
            let Part::Text(text) = part else { continue };
            let text = String::from_utf8_lossy(text);
            if text.chars().count() > NAME_MAX {
                return Err(format!("a name has at most {NAME_MAX} characters"));
            }
            let bad = text.chars().find(|c| match self.kind {
                Kind::Group => !c.is_ascii_alphanumeric() && !"_/.-#".contains(*c),
                Kind::Stream => matches!(c, ':' | '*'),
            });
            match (bad, self.kind) {
                (Some('$'), _) if text.contains("$(") => {
                    return Err(format!(
                        "\"{text}\": $(...) is for the plugin cloudwatch; here it is log_group_template"
                    ));
                }
                (Some(c), Kind::Group) => {
                    return Err(format!(
                        "\"{text}\": a log group's name has letters, digits and _ / . - # only, not {c:?}"
                    ));
                }
                (Some(c), Kind::Stream) => {
                    return Err(format!("\"{text}\": a log stream's name cannot have {c:?}"));
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Whether the tag alone decides.
    pub(super) fn is_of_tag(&self) -> bool {
        self.parts.iter().all(|part| match part {
            Part::Text(_) | Part::Tag | Part::Between(_) => true,
            Part::Template(template) => template.is_of_tag(),
            Part::Field(_) | Part::LastOf(_) | Part::Ecs(_) => false,
        })
    }

    /// Whether it asks for the task.
    pub(super) fn wants_task(&self) -> bool {
        self.parts.iter().any(|p| matches!(p, Part::Ecs(_)))
    }

    /// Puts in what is known of the task; what is not comes from the records' `ecs_*` fields.
    pub(super) fn fill_in(&mut self, task: &Task) {
        for part in &mut self.parts {
            let Part::Ecs(fact) = part else { continue };
            let (known, field) = match fact {
                Fact::TaskId => (task.id(), Part::LastOf(Accessor::key("ecs_task_arn"))),
                Fact::Cluster => (task.cluster.as_deref(), Part::Field(Accessor::key("ecs_cluster"))),
                Fact::TaskArn => (task.arn.as_deref(), Part::Field(Accessor::key("ecs_task_arn"))),
            };
            *part = known.map_or(field, |text| Part::Text(text.as_bytes().to_vec()));
        }
    }

    /// Appends the name for a record; without one for its tag (see [`Name::is_of_tag`]).
    pub(super) fn render(&self, tag: &Tag, record: Option<&Record<'_>>, out: &mut Vec<u8>) {
        let start = out.len();
        let complete = self.put(&self.parts, tag, record, out);
        if (!complete || out.len() == start)
            && let Some(fallback) = &self.fallback
        {
            if !self.warned.swap(true, Relaxed) {
                let what = if self.kind == Kind::Group { "log group" } else { "log stream" };
                tracing::warn!(tag = %String::from_utf8_lossy(tag.as_bytes()),
                    "a record lacks a field that the name of its {what} is made of; the default name is used (said once)");
            }
            out.truncate(start);
            self.put(fallback, tag, record, out);
        }
        cut(out, start);
    }

    /// Appends parts. Says whether every one of them had its text.
    fn put(&self, parts: &[Part], tag: &Tag, record: Option<&Record<'_>>, out: &mut Vec<u8>) -> bool {
        let mut complete = true;
        for part in parts {
            let start = out.len();
            complete &= part.render(tag, record, out);
            if !matches!(part, Part::Text(_)) {
                clean(self.kind, out.get_mut(start..).unwrap_or_default());
            }
        }
        complete
    }
}

impl Part {
    fn dollar(inside: &str, uuid: &str) -> Result<Part, String> {
        if let Some(number) = inside.strip_prefix("tag[").and_then(|rest| rest.strip_suffix(']')) {
            return number.parse().map(Part::Between).map_err(|_| format!("{number} is no number"));
        }
        Ok(match inside {
            "tag" => Part::Tag,
            "uuid" => Part::Text(uuid.as_bytes().to_vec()),
            "ecs_task_id" => Part::Ecs(Fact::TaskId),
            "ecs_cluster" => Part::Ecs(Fact::Cluster),
            "ecs_task_arn" => Part::Ecs(Fact::TaskArn),
            field => Part::Field(Accessor::field(field)?),
        })
    }

    /// Appends its text. Says whether there was any.
    fn render(&self, tag: &Tag, record: Option<&Record<'_>>, out: &mut Vec<u8>) -> bool {
        match self {
            Part::Text(text) => out.extend_from_slice(text),
            Part::Tag => out.extend_from_slice(tag.as_bytes()),
            Part::Between(n) => match tag.as_bytes().split(|b| *b == b'.').nth(*n) {
                Some(part) => out.extend_from_slice(part),
                None => return false,
            },
            Part::Field(field) => match record.and_then(|r| field.value(r)) {
                Some(value) => return scalar(value, out),
                None => return false,
            },
            Part::LastOf(field) => match record.and_then(|r| field.text(r)) {
                Some(text) => out.extend_from_slice(text.rsplit(|b| *b == b'/').next().unwrap_or_default()),
                None => return false,
            },
            Part::Template(template) => match record {
                Some(record) => return template.render(tag, record, None, out),
                None => return template.render_tag(tag, out),
            },
            Part::Ecs(_) => return false,
        }
        true
    }
}

/// Appends what has an obvious text.
fn scalar(encoded: &[u8], out: &mut Vec<u8>) -> bool {
    match msgpack::value(encoded) {
        Some(Value::Str(text) | Value::Bin(text)) => out.extend_from_slice(text),
        Some(Value::Int(v)) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
        Some(Value::UInt(v)) => out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes()),
        Some(Value::Bool(v)) => out.extend_from_slice(if v { b"true" } else { b"false" }),
        _ => return false,
    }
    true
}

/// Replaces by dots, in what was inserted, what the Go plugin replaces: the service would refuse it.
fn clean(kind: Kind, text: &mut [u8]) {
    for b in text {
        let good = match kind {
            Kind::Group => b.is_ascii_alphanumeric() || b"_/.-".contains(b),
            Kind::Stream => !b":*".contains(b),
        };
        if !good {
            *b = b'.';
        }
    }
}

/// Makes the name text of a length that the service takes.
fn cut(out: &mut Vec<u8>, start: usize) {
    if simdutf8::basic::from_utf8(out.get(start..).unwrap_or_default()).is_err() {
        let repaired = String::from_utf8_lossy(out.get(start..).unwrap_or_default()).into_owned();
        out.truncate(start);
        out.extend_from_slice(repaired.as_bytes());
    }
    let text = std::str::from_utf8(out.get(start..).unwrap_or_default()).unwrap_or_default();
    if let Some((end, _)) = text.char_indices().nth(NAME_MAX) {
        out.truncate(start + end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Scratch;

    /// `{"log": "x", "kubernetes": {"pod": "p:1"}, "ecs_cluster": "c", "ecs_task_arn": "arn:aws:ecs:r:1:task/c/id9"}`
    fn entry() -> Vec<u8> {
        let mut b = vec![0x92, 0xd7, 0, 0, 0, 0, 5, 0, 0, 0, 7, 0x84];
        let str = |b: &mut Vec<u8>, s: &str| msgpack::write_str(b, s.as_bytes());
        str(&mut b, "log");
        str(&mut b, "x");
        str(&mut b, "kubernetes");
        msgpack::write_map(&mut b, 1);
        str(&mut b, "pod");
        str(&mut b, "p:1");
        str(&mut b, "ecs_cluster");
        str(&mut b, "c");
        str(&mut b, "ecs_task_arn");
        str(&mut b, "arn:aws:ecs:r:1:task/c/id9");
        b
    }

    fn render(name: &Name) -> String {
        let bytes = entry();
        let mut scratch = Scratch::default();
        let (record, _) = Record::open_next(&bytes, 0, &mut scratch).unwrap();
        let mut out = Vec::new();
        name.render(&Tag::new(b"app-firelens.web:1"), Some(&record), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn dollars(kind: Kind, text: &str) -> Name {
        Name::dollars(kind, text, "default", "u-u").unwrap()
    }

    #[test]
    fn go_templates_take_fields_the_tag_and_the_task() {
        for (text, want) in [
            ("plain", "plain"),
            ("/app/$(tag)", "/app/app-firelens.web.1"),
            ("$(tag[0])-$(tag[1])", "app-firelens-web.1"),
            ("x$(tag[7])", "default"),
            ("$(kubernetes['pod'])", "p.1"),
            ("$(log)/$(uuid)", "x/u-u"),
            ("$(nosuch)", "default"),
            ("$(kubernetes)", "default"),
        ] {
            assert_eq!(render(&dollars(Kind::Stream, text)), want, "{text}");
        }
        assert!(Name::dollars(Kind::Group, "$(log", "", "").is_err());
        assert!(Name::dollars(Kind::Group, "$(tag[x])", "", "").is_err());
    }

    #[test]
    fn the_task_comes_from_its_endpoint_else_from_the_record() {
        let text = "$(ecs_cluster)/$(ecs_task_id)";
        let mut name = dollars(Kind::Stream, text);
        assert!(name.wants_task() && !name.is_of_tag());
        name.fill_in(&Task::default());
        assert_eq!(render(&name), "c/id9");
        let mut name = dollars(Kind::Stream, text);
        name.fill_in(&Task {
            cluster: Some("prod".into()),
            arn: Some("arn:aws:ecs:r:1:task/prod/77".into()),
        });
        assert!(name.is_of_tag());
        assert_eq!(render(&name), "prod/77");
    }

    #[test]
    fn fixed_text_that_the_service_never_takes_is_found_at_once() {
        for (name, want) in [
            (Name::fixed(Kind::Group, "my group"), "not ' '"),
            (Name::fixed(Kind::Group, "g$(tag)"), "is for the plugin cloudwatch"),
            (Name::fixed(Kind::Stream, "s:1"), "cannot have ':'"),
            (Name::prefixed(Kind::Stream, "a*"), "cannot have '*'"),
            (Name::fixed(Kind::Group, &"x".repeat(513)), "at most 512"),
            (dollars(Kind::Group, "a b$(tag)"), "not ' '"),
        ] {
            let said = name.check().unwrap_err();
            assert!(said.contains(want), "{said}");
        }
        for name in [
            Name::fixed(Kind::Group, "/aws/ecs_1.a-b#c"),
            Name::fixed(Kind::Stream, "any thing/$x"),
            dollars(Kind::Stream, "$(tag[0])/$(uuid)"),
        ] {
            name.check().unwrap();
        }
    }

    #[test]
    fn record_accessors_fall_back_when_a_field_is_missing() {
        let with =
            |text| render(&Name::template(Kind::Group, text, Name::prefixed(Kind::Group, "fall-")).unwrap());
        assert_eq!(with("g.$kubernetes['pod']"), "g.p.1");
        assert_eq!(with("g.$nosuch"), "fall-app-firelens.web.1");
        assert!(Name::template(Kind::Group, "$1", Name::fixed(Kind::Group, "g")).is_err());
    }

    #[test]
    fn what_is_inserted_is_cleaned_and_names_are_cut_to_what_the_service_takes() {
        let tag = Tag::new("a b#/c*d:é".as_bytes());
        let of = |kind| {
            let mut out = Vec::new();
            Name::prefixed(kind, "p#").render(&tag, None, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(Kind::Group), "p#a.b./c.d...");
        assert_eq!(of(Kind::Stream), "p#a b#/c.d.é");
        assert_eq!(render(&Name::fixed(Kind::Stream, &"é".repeat(600))).chars().count(), NAME_MAX);
    }
}
