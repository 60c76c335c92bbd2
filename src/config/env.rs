//! `@SET` variables, `env:` of YAML and the process environment: `${NAME}`, `${NAME:-default}`.

use std::collections::HashMap;

/// Longest `NAME:-default`.
const MAX_NAME: usize = 4095;

/// Variables for `${NAME}`. `@SET` shadows the process; set but empty counts as unset.
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

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.set.get(name).or_else(|| self.process.get(name)).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// Replaces every `${...}` once; `unset` is told each name that has neither value nor default (it becomes empty).
    pub fn expand(&self, text: &str, mut unset: impl FnMut(&str)) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((inner, tail)) = after.split_once('}').filter(|(inner, _)| inner.len() <= MAX_NAME)
            else {
                // Unterminated: left as it is.
                out.push_str("${");
                rest = after;
                continue;
            };
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            match (self.get(name), default) {
                (Some(value), _) => out.push_str(value),
                (None, Some(default)) => out.push_str(default),
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
    fn variables_expand_with_defaults_and_unset_ones_are_named() {
        let mut env = Env::of(&[("A", "1"), ("EMPTY", "")]);
        env.set("B", "2");
        let mut missing = Vec::new();
        let out = env.expand("${A}-${B}-${EMPTY:-x}-${NO}-$A-${open", |n| missing.push(n.to_owned()));
        assert_eq!(out, "1-2-x--$A-${open");
        assert_eq!(missing, ["NO"]);
    }
}
