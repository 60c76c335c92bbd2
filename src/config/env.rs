//! `@SET` variables, `env:` of YAML and the process environment: `${NAME}`, `${NAME:-default}`.

use std::collections::HashMap;

/// Longest `NAME:-default`.
const MAX_NAME: usize = 4095;

/// Variables for `${NAME}`. `@SET` shadows the process; a variable of the process that is empty counts as unset.
#[derive(Clone, Debug, Default)]
pub struct Env {
    set: HashMap<String, String>,
    process: HashMap<String, String>,
}

impl Env {
    /// The environment of this process. `HOSTNAME` is always there.
    pub fn of_process() -> Env {
        let mut process: HashMap<String, String> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        process.entry("HOSTNAME".into()).or_insert(host);
        Env { set: HashMap::new(), process }
    }

    /// An environment of these variables alone.
    pub fn of(pairs: &[(&str, &str)]) -> Env {
        let process = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Env { set: HashMap::new(), process }
    }

    /// `@SET name=value`.
    pub fn set(&mut self, name: &str, value: &str) {
        self.set.insert(name.to_owned(), value.to_owned());
    }

    /// A variable that is set; one of the process also not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let process = || self.process.get(name).filter(|v| !v.is_empty());
        self.set.get(name).or_else(process).map(String::as_str)
    }

    /// Replaces every `${...}` once; `unset` is told each name that has neither value nor default (it becomes empty).
    pub fn expand(&self, text: &str, mut unset: impl FnMut(&str)) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((inner, tail)) =
                after.split_once('}').filter(|(inner, _)| (1..=MAX_NAME).contains(&inner.len()))
            else {
                // Unterminated, or nothing inside: left as it is.
                out.push_str("${");
                rest = after;
                continue;
            };
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            match (self.get(name), default) {
                (Some(""), Some(default)) | (None, Some(default)) => out.push_str(default),
                (Some(value), _) => out.push_str(value),
                (None, None) => unset(name),
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_expand_once_with_defaults_and_unset_ones_are_named() {
        let mut env = Env::of(&[("A", "1"), ("EMPTY", ""), ("AGAIN", "${A}")]);
        for (name, value) in [("B", "2"), ("SET_EMPTY", ""), ("A", "one")] {
            env.set(name, value);
        }
        for (text, want, unset) in [
            ("${A}-${B}", "one-2", ""),
            ("a${NO}b", "ab", "NO"),
            ("${EMPTY}", "", "EMPTY"),
            ("${EMPTY:-x}${NO:-d-e-f}${NO:-}", "xd-e-f", ""),
            ("${SET_EMPTY}${SET_EMPTY:-y}", "y", ""),
            ("${AGAIN}", "${A}", ""),
            ("$A $5 a$", "$A $5 a$", ""),
            ("${A:B}", "", "A:B"),
            ("${}${open", "${}${open", ""),
            ("^[0-9]{1}$ ${A}", "^[0-9]{1}$ one", ""),
        ] {
            let mut missing = Vec::new();
            assert_eq!(env.expand(text, |n| missing.push(n.to_owned())), want, "{text}");
            assert_eq!(missing.join(","), unset, "{text}");
        }
    }
}
