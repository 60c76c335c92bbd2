//! Reading JSON with its paths: what is there, what it should be, and what nobody asked for.
//!
//! Enters: objects of a parsed file. Leaves: values; everything that is wrong is noted with its path and reading goes on,
//! so that one run finds it all. `null` is as good as absent.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::config::nearest;

/// Something that ECS, or one machine, does not take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// `containerDefinitions[1].dependsOn[0].condition`; empty for the file as a whole.
    pub path: String,
    /// AWS's name for the error; `None` for a warning.
    pub kind: Option<&'static str>,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)?;
        self.kind.map_or(Ok(()), |kind| write!(f, " ({kind})"))
    }
}

/// A value has the wrong shape.
pub(super) const PARAMETER: &str = "InvalidParameterException";
/// Values do not go together.
pub(super) const CLIENT: &str = "ClientException";
/// More is not said of one file.
const MOST: usize = 1000;
/// Stands where an object should be.
static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Notes {
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    /// Elements of lists that are of the wrong kind. They keep their places, so that what is said of others names the index
    /// in the file; nothing more is said of themselves.
    broken: RefCell<HashSet<String>>,
}

impl Notes {
    pub(super) fn error(&self, kind: &'static str, path: impl Into<String>, text: impl Into<String>) {
        let problem = Problem { path: path.into(), kind: Some(kind), text: text.into() };
        if self.is_broken(&problem.path) {
            return;
        }
        let mut errors = self.errors.borrow_mut();
        if errors.len() < MOST {
            errors.push(problem);
        }
    }

    pub(super) fn warn(&self, path: impl Into<String>, text: impl Into<String>) {
        let problem = Problem { path: path.into(), kind: None, text: text.into() };
        if self.is_broken(&problem.path) {
            return;
        }
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MOST {
            warnings.push(problem);
        }
    }

    fn broken(&self, path: String, text: String) {
        self.error(PARAMETER, path.clone(), text);
        self.broken.borrow_mut().insert(path);
    }

    /// Whether a path is that of a broken element, or inside it.
    fn is_broken(&self, path: &str) -> bool {
        let broken = self.broken.borrow();
        let ends = path.match_indices(['.', '[']).map(|(at, _)| at).chain([path.len()]);
        !broken.is_empty() && ends.into_iter().any(|at| path.get(..at).is_some_and(|p| broken.contains(p)))
    }

    pub(super) fn into_both(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.errors.into_inner(), self.warnings.into_inner())
    }
}

/// An object.
pub(super) struct Object<'v> {
    map: &'v Map<String, Value>,
    pub(super) path: String,
    pub(super) notes: &'v Notes,
    asked: RefCell<BTreeSet<&'static str>>,
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl<'v> Object<'v> {
    pub(super) fn new(map: &'v Map<String, Value>, path: String, notes: &'v Notes) -> Self {
        Object { map, path, notes, asked: RefCell::default() }
    }

    /// Path of a field.
    pub(super) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn get(&self, name: &'static str) -> Option<&'v Value> {
        self.asked.borrow_mut().insert(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &'static str) -> bool {
        self.get(name).is_some()
    }

    fn wrong(&self, name: &str, wanted: &str, found: &Value) {
        self.notes.error(PARAMETER, self.at(name), format!("must be {wanted}, not {}", kind(found)));
    }

    pub(super) fn string(&self, name: &'static str) -> Option<String> {
        let value = self.get(name)?;
        let text = value.as_str();
        if text.is_none() {
            self.wrong(name, "a string", value);
        }
        text.map(str::to_owned)
    }

    /// One of a set, as written.
    pub(super) fn one_of(&self, name: &'static str, all: &[&'static str]) -> Option<&'static str> {
        let text = self.string(name)?;
        let found = all.iter().copied().find(|one| *one == text);
        if found.is_none() {
            let near = nearest(&text, all.iter().copied());
            let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            self.notes.error(
                CLIENT,
                self.at(name),
                format!("must be one of {}, not {text:?}{hint}", all.join(", ")),
            );
        }
        found
    }

    pub(super) fn boolean(&self, name: &'static str, default: bool) -> bool {
        match self.get(name) {
            None => default,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                self.wrong(name, "true or false", other);
                default
            }
        }
    }

    pub(super) fn integer(&self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.get(name)?;
        let Some(number) = value.as_i64() else {
            match value {
                // 32.5 is a number.
                Value::Number(n) => {
                    self.notes.error(PARAMETER, self.at(name), format!("must be a whole number, not {n}"));
                }
                other => self.wrong(name, "a whole number", other),
            }
            return None;
        };
        if range.contains(&number) {
            return Some(number);
        }
        let text = format!("must be {} to {}, not {number}", range.start(), range.end());
        self.notes.error(CLIENT, self.at(name), text);
        None
    }

    pub(super) fn unsigned(&self, name: &'static str, range: RangeInclusive<i64>) -> Option<u64> {
        self.integer(name, range).and_then(|n| u64::try_from(n).ok())
    }

    /// The elements of a list, with their paths.
    pub(super) fn list(&self, name: &'static str) -> Vec<(String, &'v Value)> {
        let path = self.at(name);
        match self.get(name) {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().enumerate().map(|(n, v)| (format!("{path}[{n}]"), v)).collect()
            }
            Some(other) => {
                self.wrong(name, "a list", other);
                Vec::new()
            }
        }
    }

    /// The texts of a list. What is no text keeps its place, as an empty one.
    pub(super) fn strings(&self, name: &'static str) -> Option<Vec<String>> {
        self.get(name)?;
        let text = |(path, value): (String, &Value)| {
            if value.as_str().is_none() {
                self.notes.broken(path, format!("must be a string, not {}", kind(value)));
            }
            value.as_str().unwrap_or_default().to_owned()
        };
        Some(self.list(name).into_iter().map(text).collect())
    }

    /// The objects of a list. What is none keeps its place, as an empty one.
    pub(super) fn objects(&self, name: &'static str) -> Vec<Object<'v>> {
        let object = |(path, value): (String, &'v Value)| match value {
            Value::Object(map) => Object::new(map, path, self.notes),
            other => {
                self.notes.broken(path.clone(), format!("must be an object, not {}", kind(other)));
                Object::new(&NOTHING, path, self.notes)
            }
        };
        self.list(name).into_iter().map(object).collect()
    }

    pub(super) fn object(&self, name: &'static str) -> Option<Object<'v>> {
        match self.get(name)? {
            Value::Object(map) => Some(Object::new(map, self.at(name), self.notes)),
            other => {
                self.wrong(name, "an object", other);
                None
            }
        }
    }

    pub(super) fn map(&self, name: &'static str) -> BTreeMap<String, String> {
        let Some(object) = self.object(name) else { return BTreeMap::new() };
        let mut all = BTreeMap::new();
        for (key, value) in object.map {
            match value {
                Value::String(text) => drop(all.insert(key.clone(), text.clone())),
                Value::Null => {}
                other => {
                    let text = format!("must be a string, not {}; write it in quotes", kind(other));
                    self.notes.error(PARAMETER, object.at(key), text);
                }
            }
        }
        all
    }

    /// Fields that are known and mean nothing to one machine.
    pub(super) fn pass_over(&self, names: &[&'static str]) {
        self.asked.borrow_mut().extend(names);
    }

    /// Whether a field says anything: `[]`, `{}`, `""` and false are what a field holds that nobody set.
    pub(super) fn says(&self, name: &'static str) -> bool {
        self.get(name).is_some_and(|value| match value {
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::String(text) => !text.is_empty(),
            Value::Bool(value) => *value,
            _ => true,
        })
    }

    /// Fields that one machine cannot honour: a warning for each that says anything.
    pub(super) fn cannot(&self, names: &[(&'static str, &str)]) {
        for (name, why) in names {
            if self.says(name) {
                self.notes.warn(self.at(name), format!("has no effect on one machine: {why}"));
            }
        }
    }

    /// Everything has been asked for: what else is there is a mistake.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.map.keys().filter(|key| !asked.contains(key.as_str())) {
            let hint = match nearest(key, asked.iter().copied()) {
                Some(near) => format!("unknown field; did you mean {near:?}?"),
                None => "unknown field".to_owned(),
            };
            self.notes.error(PARAMETER, self.at(key), hint);
        }
    }
}
