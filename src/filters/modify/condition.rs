//! Conditions of `modify`: what must hold of a record before its rules apply.

use crate::config::{Diagnostics, Entry};
use crate::filters::rule;
use crate::record::Record;
use crate::text::{Accessor, Regex};
use crate::wire::msgpack::{self, Value};

/// For `explain`.
pub(super) const HELP: &str = "TEST A [B], all must hold: Key_exists KEY, Key_does_not_exist KEY, A_key_matches PATTERN, \
    No_key_matches PATTERN, Key_value_equals KEY VALUE, Key_value_does_not_equal KEY VALUE, \
    Key_value_matches KEY PATTERN, Key_value_does_not_match KEY PATTERN, \
    Matching_keys_have_matching_values PATTERN PATTERN, Matching_keys_do_not_have_matching_values PATTERN PATTERN";

const TESTS: [&str; 10] = [
    "key_exists",
    "key_does_not_exist",
    "a_key_matches",
    "no_key_matches",
    "key_value_equals",
    "key_value_does_not_equal",
    "key_value_matches",
    "key_value_does_not_match",
    "matching_keys_have_matching_values",
    "matching_keys_do_not_have_matching_values",
];

/// A pattern that nothing matches.
const NO_TEXT: &str = r"[^\s\S]";

/// One condition; `want` false is the negative form.
pub(super) struct Condition {
    test: Test,
    want: bool,
}

enum Test {
    Exists(Accessor),
    AnyKey(Regex),
    /// False in both forms when the key is missing.
    Equals(Accessor, String),
    /// False in both forms when the key is missing.
    Matches(Accessor, Regex),
    /// Every value whose key matches matches; true when no key does.
    Pairs(Regex, Regex),
}

impl Condition {
    /// Reads a `Condition` line. `None` after an error was reported.
    pub(super) fn new(entry: &Entry, words: Vec<String>, diags: &mut Diagnostics) -> Option<Condition> {
        let mut words = words.into_iter();
        let name = words.next().unwrap_or_default();
        let Some(which) = TESTS.iter().position(|t| t.eq_ignore_ascii_case(&name)) else {
            diags.error_hint(
                Some(&entry.pos),
                format!("unknown condition \"{name}\" in [FILTER] modify"),
                match crate::config::nearest(&name.to_ascii_lowercase(), TESTS.into_iter()) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("conditions are {}", TESTS.join(", ")),
                },
            );
            return None;
        };
        let takes = if which < 4 { 1 } else { 2 };
        let (first, second) = (words.next(), words.next());
        let given = usize::from(first.is_some()) + usize::from(second.is_some()) + words.count();
        // Fluent Bit refuses a third word, and a pattern for values that is missing, no more.
        let refused = given > 2 || (given < takes && which >= 6);
        let report = format!(
            "condition {name} in [FILTER] modify takes {} after its name, not {given}",
            if takes == 1 { "one word" } else { "two words" }
        );
        if refused {
            diags.error_hint(Some(&entry.pos), report, "quote a key or a value with blanks");
            return None;
        } else if given < takes {
            diags.strict(Some(&entry.pos), report, "what is missing is taken as empty, and no key is that");
        } else if given > takes {
            diags.strict(Some(&entry.pos), report, "the last word is ignored");
        }
        let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
        let field = |diags: &mut Diagnostics| match first.as_str() {
            // Findings about a missing word were made above.
            "" => Some(Accessor::key("")),
            // Here, unlike in grep, brackets without the dollar sign are part of the key.
            key if !key.starts_with('$') => Some(Accessor::key(key)),
            _ => rule::field(&first, entry, "modify", diags),
        };
        let test = match which / 2 {
            0 => Test::Exists(field(diags)?),
            1 if first.is_empty() => Test::AnyKey(rule::regex(NO_TEXT, entry, "modify", diags)?),
            1 => Test::AnyKey(rule::regex(&first, entry, "modify", diags)?),
            2 => Test::Equals(field(diags)?, second),
            3 => Test::Matches(field(diags)?, rule::regex(&second, entry, "modify", diags)?),
            _ => Test::Pairs(
                rule::regex(&first, entry, "modify", diags)?,
                rule::regex(&second, entry, "modify", diags)?,
            ),
        };
        Some(Condition { test, want: which % 2 == 0 })
    }

    /// Whether it holds of the record.
    pub(super) fn holds(&self, record: &Record<'_>) -> bool {
        let found = match &self.test {
            Test::Exists(field) => field.value(record).is_some(),
            Test::AnyKey(pattern) => record
                .fields()
                .iter()
                .any(|f| string(record.bytes(f.key)).is_some_and(|k| pattern.is_match(k))),
            Test::Equals(field, text) => {
                let Some(value) = field.value(record) else { return false };
                msgpack::value(value).and_then(Value::text) == Some(text.as_bytes())
            }
            Test::Matches(field, pattern) => {
                let Some(value) = field.value(record) else { return false };
                matches(pattern, value)
            }
            Test::Pairs(keys, values) => record
                .fields()
                .iter()
                .filter(|f| string(record.bytes(f.key)).is_some_and(|k| keys.is_match(k)))
                .all(|f| matches(values, record.bytes(f.value))),
        };
        found == self.want
    }
}

/// Patterns look at strings and at booleans, spelt out.
fn matches(pattern: &Regex, encoded: &[u8]) -> bool {
    match msgpack::value(encoded) {
        Some(Value::Str(text)) => pattern.is_match(text),
        Some(Value::Bool(v)) => pattern.is_match(if v { b"true" } else { b"false" }),
        _ => false,
    }
}

/// The text of an encoded string.
pub(super) fn string(encoded: &[u8]) -> Option<&[u8]> {
    match msgpack::value(encoded) {
        Some(Value::Str(text)) => Some(text),
        _ => None,
    }
}
