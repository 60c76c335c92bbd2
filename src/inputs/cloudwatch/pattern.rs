//! Filter patterns of FilterLogEvents: words that a message must, may, or must not hold.
//!
//! Enters: a pattern, then messages. Leaves: whether a message matches. Can go wrong: patterns for JSON, for columns and
//! regular expressions are refused by AWS's name; an open quote.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html>

use memchr::memmem;

use super::answer::Error;

/// A compiled pattern. Upper and lower case differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pattern {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, Error> {
        let refused = |what: &str| Err(Error::parameter(format!("Invalid filter pattern: {what}")));
        let mut pattern = Pattern::default();
        let mut rest = text.trim();
        if rest.len() > 1024 {
            return refused("it is longer than 1024 characters");
        }
        if rest.starts_with('{') {
            return refused("patterns for JSON are not supported here; use terms");
        }
        if rest.starts_with('[') {
            return refused("patterns for columns are not supported here; use terms");
        }
        while !rest.is_empty() {
            let kind = rest.chars().next().filter(|c| matches!(c, '?' | '-'));
            let term = if kind.is_some() { rest.get(1..).unwrap_or_default() } else { rest };
            let (word, left) = if let Some(quoted) = term.strip_prefix('"') {
                match quoted.split_once('"') {
                    Some(parts) => parts,
                    None => return refused("a quote is not closed"),
                }
            } else {
                term.split_once(char::is_whitespace).unwrap_or((term, ""))
            };
            if word.len() > 1 && word.starts_with('%') && word.ends_with('%') && !term.starts_with('"') {
                return refused("regular expressions are not supported here; use terms");
            }
            if !word.is_empty() {
                match kind {
                    Some('?') => &mut pattern.any,
                    Some(_) => &mut pattern.none,
                    None => &mut pattern.all,
                }
                .push(word.to_owned());
            }
            rest = left.trim_start();
        }
        Ok(pattern)
    }

    pub(super) fn matches(&self, message: &[u8]) -> bool {
        let has = |word: &String| memmem::find(message, word.as_bytes()).is_some();
        // Where some words must be there, AWS does not look at those that may.
        let any = self.any.is_empty() || !self.all.is_empty() || self.any.iter().any(has);
        any && self.all.iter().all(has) && !self.none.iter().any(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_quotes_optional_and_excluded_words_match_as_documented() {
        for (pattern, message, want) in [
            ("", "anything", true),
            ("ERROR", "an ERROR here", true),
            ("ERROR", "an error here", false),
            ("ERROR ARGUMENTS", "ARGUMENTS in ERROR", true),
            ("ERROR ARGUMENTS", "ERROR only", false),
            ("?ERROR ?ARGUMENTS", "ARGUMENTS only", true),
            ("?ERROR ?ARGUMENTS", "neither", false),
            ("ERROR ?ARGUMENTS", "ERROR only", true),
            ("ERROR -ARGUMENTS", "ERROR", true),
            ("ERROR -ARGUMENTS", "ERROR ARGUMENTS", false),
            ("-\"EXITING WITH\"", "EXITING now", true),
            ("-\"EXITING WITH\"", "EXITING WITH 1", false),
            ("\"INTERNAL SERVER ERROR\"", "an INTERNAL SERVER ERROR", true),
            ("\"INTERNAL SERVER ERROR\"", "SERVER INTERNAL ERROR", false),
            ("?\"a b\"?c", "x c", true),
            ("?", "x", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).unwrap().matches(message.as_bytes()),
                want,
                "{pattern} {message}"
            );
        }
    }

    #[test]
    fn other_patterns_are_refused_by_name() {
        for (pattern, want) in [
            ("{ $.level = \"x\" }", "JSON"),
            ("[ip, user]", "columns"),
            ("%AUTH.*%", "regular expressions"),
            ("\"open", "not closed"),
            (&"x".repeat(1025), "longer"),
        ] {
            let e = Pattern::new(pattern).unwrap_err();
            assert!(e.name == "InvalidParameterException" && e.message.contains(want), "{e:?}");
        }
    }
}
