//! Parsers: a line of text into fields and a time.
//!
//! Enters: a [`ParserSpec`] at start, texts at run time. Leaves: [`Fields`], and the time when the text has one. Can go
//! wrong: the specification (refused), or the text does not fit (`None`). What a parser does is what Fluent Bit 5.1.1's
//! does.

mod decode;
mod logfmt;
mod ltsv;
mod types;
mod unescape;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use smallvec::SmallVec;

pub use decode::Decoder;
pub use types::{FieldType, boolean};

use super::{Regex, TimeFormat, Zone};
use crate::record::{Fields, Time};
use crate::wire::{json_in, msgpack};

thread_local! {
    /// Resolved escapes of one logfmt value.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a `[PARSER]` section says.
#[derive(Clone, Debug)]
pub struct ParserSpec {
    /// What filters and inputs call it.
    pub name: String,
    /// `json`, `regex`, `logfmt` or `ltsv`.
    pub format: String,
    /// The pattern of the format `regex`.
    pub regex: Option<String>,
    /// The field that has the time.
    pub time_key: String,
    /// How the time is written; `None`: it is not looked for.
    pub time_format: Option<TimeFormat>,
    /// The zone of times that name none.
    pub zone: Zone,
    /// The time stays among the fields.
    pub time_keep: bool,
    /// A time that fits its format in part only is none.
    pub time_strict: bool,
    /// Empty groups are left out (regex).
    pub skip_empty_values: bool,
    /// What becomes of fields (not of json).
    pub types: Vec<(String, FieldType)>,
    /// Decoders in order.
    pub decoders: Vec<Decoder>,
    /// A key without `=` means that the text does not fit (logfmt).
    pub logfmt_no_bare_keys: bool,
}

impl Default for ParserSpec {
    fn default() -> Self {
        ParserSpec {
            name: String::new(),
            format: String::new(),
            regex: None,
            time_key: "time".to_owned(),
            time_format: None,
            zone: Zone::Utc,
            time_keep: false,
            time_strict: true,
            skip_empty_values: true,
            types: Vec::new(),
            decoders: Vec::new(),
            logfmt_no_bare_keys: false,
        }
    }
}

/// A compiled parser.
#[derive(Debug)]
pub struct Parser {
    name: String,
    format: Format,
    time: Option<TimeRule>,
    types: Vec<(Vec<u8>, FieldType)>,
    decoders: Vec<Decoder>,
}

#[derive(Debug)]
enum Format {
    Json,
    Regex { regex: Regex, groups: Vec<Group>, skip_empty: bool },
    Logfmt { bare_keys: bool },
    Ltsv,
}

/// A named group; the name may stand for several, of which the last that took part counts.
#[derive(Debug)]
struct Group {
    name: Vec<u8>,
    numbers: SmallVec<[usize; 1]>,
    ty: Option<FieldType>,
    is_time: bool,
}

#[derive(Debug)]
struct TimeRule {
    key: Vec<u8>,
    format: TimeFormat,
    zone: Zone,
    keep: bool,
    strict: bool,
    /// Texts that were no time.
    unread: AtomicU64,
}

impl TimeRule {
    fn read(&self, text: &[u8], now: Time) -> Option<Time> {
        let time = self.format.read(text, &self.zone, now, self.strict);
        if time.is_none() {
            self.unread.fetch_add(1, Relaxed);
        }
        time
    }

    /// As [`TimeRule::read`] for an encoded value. Only text is a time: a number stays a field, whatever the format.
    fn read_value(&self, value: &[u8], now: Time) -> Option<Time> {
        match msgpack::value(value)? {
            msgpack::Value::Str(text) => self.read(text, now),
            _ => None,
        }
    }
}

impl Parser {
    /// Compiles a parser.
    ///
    /// # Errors
    /// Says what is wrong with the specification.
    pub fn new(spec: ParserSpec) -> Result<Parser, String> {
        let types: Vec<_> = spec.types.into_iter().map(|(key, ty)| (key.into_bytes(), ty)).collect();
        let time = spec.time_format.map(|format| TimeRule {
            key: spec.time_key.into_bytes(),
            format,
            zone: spec.zone,
            keep: spec.time_keep,
            strict: spec.time_strict,
            unread: AtomicU64::new(0),
        });
        let format = match spec.format.to_ascii_lowercase().as_str() {
            "json" => Format::Json,
            "regex" => {
                let pattern = spec.regex.ok_or("a parser of format regex needs a Regex")?;
                let regex = Regex::new(&pattern)?;
                let groups = groups(&regex, time.as_ref(), &types);
                Format::Regex { regex, groups, skip_empty: spec.skip_empty_values }
            }
            "logfmt" => Format::Logfmt { bare_keys: !spec.logfmt_no_bare_keys },
            "ltsv" => Format::Ltsv,
            other => return Err(format!("\"{other}\" is no format; there are json, regex, logfmt and ltsv")),
        };
        Ok(Parser { name: spec.name, format, time, types, decoders: spec.decoders })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Texts so far that stood where the time is and were none by its format.
    pub fn unread_times(&self) -> u64 {
        self.time.as_ref().map_or(0, |rule| rule.unread.load(Relaxed))
    }

    /// Whether it can match at all: a regular expression without named groups never does.
    pub fn finds_fields(&self) -> bool {
        !matches!(&self.format, Format::Regex { groups, .. } if groups.is_empty())
    }

    /// Puts the fields of `text` into `out`, which is emptied first. `None`: the text does not fit, and `out` is empty.
    /// Else the time that the text says, if it says one. `now` gives what the time format leaves out.
    pub fn parse(&self, text: &[u8], out: &mut Fields, now: Time) -> Option<Option<Time>> {
        out.clear();
        let time = match &self.format {
            Format::Json => self.json(text, out, now),
            Format::Regex { regex, groups, skip_empty } => {
                self.regex(regex, groups, *skip_empty, text, out, now)
            }
            Format::Logfmt { bare_keys } => self.logfmt(*bare_keys, text, out, now),
            Format::Ltsv => self.ltsv(text, out, now),
        };
        if time.is_none() {
            out.clear();
        }
        // Fluent Bit takes 0 for none.
        time.map(|time| time.filter(|t| *t != Time::default()))
    }

    fn json(&self, text: &[u8], out: &mut Fields, now: Time) -> Option<Option<Time>> {
        json_in::object_into(text, out).ok()?;
        decode::run(&self.decoders, out);
        let Some(rule) = &self.time else { return Some(None) };
        let Some(i) = (0..out.list.len()).rev().find(|i| out.key(*i) == rule.key) else { return Some(None) };
        let time = rule.read_value(out.value(i), now);
        if time.is_some() && !rule.keep {
            out.remove(i);
        }
        Some(time)
    }

    fn regex(
        &self,
        regex: &Regex,
        names: &[Group],
        skip_empty: bool,
        text: &[u8],
        out: &mut Fields,
        now: Time,
    ) -> Option<Option<Time>> {
        if names.is_empty() {
            return None;
        }
        let found = regex.groups(text)?;
        let mut time = None;
        for group in names {
            let bounds = group.numbers.iter().rev().find_map(|n| found.get(*n)?.clone());
            let value = bounds.and_then(|b| text.get(b)).unwrap_or_default();
            if value.is_empty() && skip_empty {
                continue;
            }
            if let (true, Some(rule)) = (group.is_time, &self.time) {
                time = rule.read(value, now);
                // It goes even when it could not be read.
                if !rule.keep {
                    continue;
                }
            }
            push(out, &group.name, group.ty, value);
        }
        decode::run(&self.decoders, out);
        Some(time)
    }

    fn logfmt(&self, bare_keys: bool, text: &[u8], out: &mut Fields, now: Time) -> Option<Option<Time>> {
        let mut time = None;
        let mut spare = SPARE.take();
        for (key, value) in logfmt::Pairs::of(text) {
            let none = matches!(value, logfmt::Value::Bare | logfmt::Value::Missing);
            if value == logfmt::Value::Bare && !bare_keys {
                return None;
            }
            // With Types, Fluent Bit gives every value as it stands in the line.
            let text = if self.types.is_empty() { value.text(&mut spare) } else { value.raw() };
            if !none && self.takes_time(key, text, now, &mut time)? {
                continue;
            }
            match self.type_of(key) {
                None if none && self.types.is_empty() => out.push(key, |out| msgpack::write_bool(out, true)),
                ty => push(out, key, ty, text),
            }
        }
        SPARE.set(spare);
        self.pairs(out, time)
    }

    fn ltsv(&self, text: &[u8], out: &mut Fields, now: Time) -> Option<Option<Time>> {
        let mut time = None;
        for (key, value) in ltsv::Pairs::of(text) {
            if !self.takes_time(key, value, now, &mut time)? {
                push(out, key, self.type_of(key), value);
            }
        }
        self.pairs(out, time)
    }

    /// Whether a pair of logfmt or ltsv is the time and goes with it. `None`: it is no time, and so the line does not fit.
    fn takes_time(&self, key: &[u8], text: &[u8], now: Time, time: &mut Option<Time>) -> Option<bool> {
        let Some(rule) = self.time.as_ref().filter(|rule| rule.key == key) else { return Some(false) };
        let read = rule.read(text, now);
        if read.is_none() && rule.strict {
            return None;
        }
        *time = read;
        Some(read.is_some() && !rule.keep)
    }

    /// The end of logfmt and ltsv: a line without pairs does not fit.
    fn pairs(&self, out: &mut Fields, time: Option<Time>) -> Option<Option<Time>> {
        if out.list.is_empty() {
            return None;
        }
        decode::run(&self.decoders, out);
        Some(time)
    }

    fn type_of(&self, key: &[u8]) -> Option<FieldType> {
        self.types.iter().find(|(name, _)| name == key).map(|(_, ty)| *ty)
    }
}

fn groups(regex: &Regex, time: Option<&TimeRule>, types: &[(Vec<u8>, FieldType)]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (name, number) in regex.names() {
        let name = name.as_bytes();
        if let Some(group) = groups.iter_mut().find(|g| g.name == name) {
            group.numbers.push(*number);
            continue;
        }
        groups.push(Group {
            name: name.to_vec(),
            numbers: SmallVec::from_elem(*number, 1),
            ty: types.iter().find(|(key, _)| key == name).map(|(_, ty)| *ty),
            is_time: time.is_some_and(|rule| rule.key == name),
        });
    }
    groups
}

fn push(out: &mut Fields, key: &[u8], ty: Option<FieldType>, text: &[u8]) {
    match ty {
        Some(ty) => out.push(key, |out| ty.write(out, text)),
        None => out.push_str(key, text),
    }
}

#[cfg(test)]
mod tests;
