//! Rules of `modify`: what is done to a record.

use smallvec::SmallVec;

use super::condition::string;
use crate::config::{Diagnostics, Entry};
use crate::filters::rule;
use crate::record::{Field, Fields, Record};
use crate::text::Regex;

/// One rule.
pub(super) enum Rule {
    /// The field, encoded, at the end; fields of that name go.
    Set(Fields),
    /// The field, encoded, at the end unless its key is there.
    Add(Fields),
    Remove(Vec<u8>),
    RemovePrefix(Vec<u8>),
    RemoveRegex(Regex),
    MoveToStart(Vec<u8>),
    MoveToEnd(Vec<u8>),
    Rename(Names),
    Copy(Names),
}

/// From which key to which; `hard` when the target makes room.
pub(super) struct Names {
    from: Vec<u8>,
    to: Vec<u8>,
    hard: bool,
}

impl Rule {
    /// Reads a rule. `Ok(None)` is skipped with a finding, `Err` after an error was reported.
    pub(super) fn new(
        entry: &Entry,
        words: Vec<String>,
        diags: &mut Diagnostics,
    ) -> Result<Option<Rule>, ()> {
        let one = matches!(
            entry.key.as_str(),
            "remove" | "remove_wildcard" | "remove_regex" | "move_to_start" | "move_to_end"
        );
        let (given, takes) = (words.len(), if one { 1 } else { 2 });
        if given != takes {
            let report = format!(
                "{} in [FILTER] modify takes {}, not {given}: {}",
                entry.written,
                if one { "one word" } else { "two words" },
                entry.value
            );
            let quote = "quote a key or a value with blanks";
            // Fluent Bit starts with three words, and then does something else than any of its rules.
            if given == 3 && !one {
                diags.strict(Some(&entry.pos), report, format!("the rule is skipped; {quote}"));
                return Ok(None);
            }
            diags.error_hint(Some(&entry.pos), report, quote);
            return Err(());
        }
        let mut words = words.into_iter().map(String::into_bytes);
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let field = |key: &[u8], value: &[u8]| {
            let mut fields = Fields::default();
            fields.push_str(key, value);
            fields
        };
        Ok(Some(match entry.key.as_str() {
            "set" => Rule::Set(field(&first, &second)),
            "add" => Rule::Add(field(&first, &second)),
            "remove" => Rule::Remove(first),
            "remove_wildcard" => Rule::RemovePrefix(prefix(first, entry, diags)),
            "remove_regex" => {
                let pattern = String::from_utf8_lossy(&first);
                Rule::RemoveRegex(rule::regex(&pattern, entry, "modify", diags).ok_or(())?)
            }
            "move_to_start" => Rule::MoveToStart(prefix(first, entry, diags)),
            "move_to_end" => Rule::MoveToEnd(prefix(first, entry, diags)),
            key => {
                let names = Names { from: first, to: second, hard: key.starts_with("hard_") };
                if key.ends_with("rename") { Rule::Rename(names) } else { Rule::Copy(names) }
            }
        }))
    }

    /// Edits the record.
    pub(super) fn apply(&self, record: &mut Record<'_>) {
        match self {
            Rule::Set(field) => {
                record.remove_key(field.key(0));
                record.append(field);
            }
            Rule::Add(field) => {
                if record.find(field.key(0)).is_none() {
                    record.append(field);
                }
            }
            Rule::Remove(key) => {
                if record.find(key).is_some() {
                    record.remove_key(key);
                }
            }
            // The text of a key that is no string is empty: no prefix but the empty one begins it.
            Rule::RemovePrefix(prefix) => record.retain(|key, _| !key.starts_with(prefix)),
            Rule::RemoveRegex(pattern) => {
                let goes =
                    |r: &Record<'_>, f: &Field| string(r.bytes(f.key)).is_some_and(|k| pattern.is_match(k));
                if record.fields().iter().any(|f| goes(record, f)) {
                    let left: SmallVec<[Field; 16]> =
                        record.fields().iter().filter(|f| !goes(record, f)).copied().collect();
                    record.set_fields(left);
                }
            }
            Rule::MoveToStart(prefix) => gather(record, prefix, true),
            Rule::MoveToEnd(prefix) => gather(record, prefix, false),
            Rule::Rename(names) => names.rename(record),
            Rule::Copy(names) => names.copy(record),
        }
    }
}

/// Prefixes are written without a star; one at the end is what the writer of `log_*` meant.
fn prefix(mut text: Vec<u8>, entry: &Entry, diags: &mut Diagnostics) -> Vec<u8> {
    if text.last() == Some(&b'*') {
        text.pop();
        diags.warn(
            Some(&entry.pos),
            format!(
                "{} in [FILTER] modify takes the beginning of keys: the * at the end is left out; Fluent Bit would look \
                 for keys with a star",
                entry.written
            ),
        );
    }
    text
}

/// Moves the fields whose keys begin with `prefix` to one end, in their order.
fn gather(record: &mut Record<'_>, prefix: &[u8], first: bool) {
    let is = |i: usize| record.key(i).starts_with(prefix) == first;
    // Already where they belong, or none of them: nothing is written anew.
    let others = (0..record.len()).find(|i| !is(*i)).unwrap_or(record.len());
    if !(others..record.len()).any(is) {
        return;
    }
    let mut fields: SmallVec<[Field; 16]> = SmallVec::new();
    for side in [true, false] {
        fields.extend(
            (0..record.len()).filter(|i| is(*i) == side).filter_map(|i| record.fields().get(i).copied()),
        );
    }
    record.set_fields(fields);
}

impl Names {
    /// Whether the source is there and the target is free, or made so.
    fn ready(&self, record: &mut Record<'_>, sources: usize) -> bool {
        if sources == 0 || self.from == self.to {
            return false;
        }
        if record.find(&self.to).is_some() {
            if !self.hard {
                return false;
            }
            record.remove_key(&self.to);
        }
        true
    }

    fn count(&self, record: &Record<'_>) -> usize {
        (0..record.len()).filter(|i| record.key(*i) == self.from).count()
    }

    fn rename(&self, record: &mut Record<'_>) {
        let sources = self.count(record);
        if !self.ready(record, sources) {
            return;
        }
        let key = record.write_str(&self.to);
        for i in 0..record.len() {
            if record.key(i) == self.from
                && let Some(old) = record.fields().get(i).copied()
            {
                record.replace(i, record.field(key, old.value));
            }
        }
    }

    /// Of a key that is there several times it is not clear which to copy: then nothing is done, as in Fluent Bit.
    fn copy(&self, record: &mut Record<'_>) {
        let sources = self.count(record);
        if sources > 1 || !self.ready(record, sources) {
            return;
        }
        if let Some(i) = record.find(&self.from)
            && let Some(source) = record.fields().get(i).copied()
        {
            let key = record.write_str(&self.to);
            record.insert(i + 1, record.field(key, source.value));
        }
    }
}
