//! What a plugin accepts: a table of keys, and the settings read through it.
//!
//! Enters: a [`Section`]. Leaves: [`Settings`] whose keys are known and whose values parse.
//! One table row gives a plugin both syntaxes, unknown-key errors with the nearest spelling,
//! `explain` and its defaults.

use std::time::Duration;

use super::diag::{Diagnostics, Pos};
use super::section::{Entry, Section};
use super::value;

/// What a value must look like (Fluent Bit's types; sizes are decimal, `K` = 1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Any text.
    Str,
    /// `on/true/yes`, `off/false/no`.
    Bool,
    /// A whole number.
    Int,
    /// A number with decimals.
    Float,
    /// Bytes: `10`, `5K`, `1.5M`, `2GB`; `false` is 0.
    Size,
    /// Seconds: `10`, `10s`, `5m`, `2h`, `1d`.
    Time,
    /// Comma-separated list.
    List,
    /// This many words, each may stand in double quotes (`Record key "two words"`). Fewer are refused; with more, Fluent
    /// Bit's plugins differ, so [`super::check()`] reports them and the plugin says what it does.
    Words(usize),
    /// A pattern in Ruby's syntax.
    Regex,
}

/// One key of a plugin.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in lower case.
    pub name: &'static str,
    /// What its value looks like.
    pub ty: Type,
    /// Shown by `explain` and used by the getters when the key is not set.
    pub default: Option<&'static str>,
    /// Shown by `explain` alone: what counts when the key is not set and that is no value of it, or depends.
    pub otherwise: Option<&'static str>,
    /// May be given several times.
    pub multi: bool,
    /// Stands for every key that begins with its name and goes on (`rdkafka.`).
    pub prefix: bool,
    /// One line for a person.
    pub help: &'static str,
}

impl Key {
    /// A key with no default.
    pub const fn new(name: &'static str, ty: Type, help: &'static str) -> Key {
        Key { name, ty, default: None, otherwise: None, multi: false, prefix: false, help }
    }
    /// With a default.
    pub const fn default(self, default: &'static str) -> Key {
        Key { default: Some(default), ..self }
    }
    /// With words for what counts when it is not set.
    pub const fn otherwise(self, words: &'static str) -> Key {
        Key { otherwise: Some(words), ..self }
    }
    /// May be given several times.
    pub const fn multi(self) -> Key {
        Key { multi: true, ..self }
    }
    /// Stands for every key that begins with its name.
    pub const fn prefix(self) -> Key {
        Key { prefix: true, ..self }
    }
    /// Whether a key in lower case is this one.
    pub fn is(&self, key: &str) -> bool {
        if self.prefix { key.len() > self.name.len() && key.starts_with(self.name) } else { key == self.name }
    }
}

/// A plugin as users see it.
#[derive(Clone, Copy, Debug)]
pub struct PluginInfo {
    /// Its name in configurations.
    pub name: &'static str,
    /// Other names it answers to.
    pub aliases: &'static [&'static str],
    /// One line for a person.
    pub summary: &'static str,
    /// Its own keys. Core keys (tag, match, ...) are in `core_keys`.
    pub keys: &'static [Key],
    /// Groups of shared keys it also takes (network, TLS).
    pub groups: &'static [&'static [Key]],
}

impl PluginInfo {
    /// Its own keys and those of its groups.
    pub fn all_keys(&self) -> impl Iterator<Item = &'static Key> {
        let own: &'static [Key] = self.keys;
        own.iter().chain(self.groups.iter().flat_map(|g| g.iter()))
    }
}

/// A section whose keys and values have been checked against a plugin's table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Instance name, `grep.0`: plugin and position among all of its kind.
    pub instance: String,
    /// `Alias` if set, else the instance name: what logs and counters call it.
    pub label: String,
    info: &'static PluginInfo,
    core: &'static [Key],
    section: Section,
}

impl Settings {
    /// Wraps a section that [`super::check()`] has accepted.
    pub fn new(instance: String, info: &'static PluginInfo, core: &'static [Key], section: Section) -> Self {
        let label = section.last("alias").map_or_else(|| instance.clone(), |e| e.value.clone());
        Settings { instance, label, info, core, section }
    }

    /// The plugin's table row.
    pub fn info(&self) -> &'static PluginInfo {
        self.info
    }

    /// Where the section's header stands.
    pub fn pos(&self) -> &Pos {
        &self.section.pos
    }

    /// All entries in the order written (for rules whose order across keys matters).
    pub fn entries(&self) -> &[Entry] {
        &self.section.entries
    }

    /// Every entry of `key`, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Entry> + 'a {
        self.section.entries.iter().filter(move |e| e.key == key)
    }

    /// The entry that counts for a single-valued key: the last one.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.section.last(key)
    }

    /// Where `key` was set, else the section.
    pub fn pos_of(&self, key: &str) -> &Pos {
        self.entry(key).map_or(&self.section.pos, |e| &e.pos)
    }

    /// The value as text: set and not empty, else the table's default.
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.section.last(key) {
            Some(e) if !e.value.is_empty() => Some(&e.value),
            _ => self.info.all_keys().chain(self.core.iter()).find(|k| k.name == key).and_then(|k| k.default),
        }
    }

    /// A boolean; false when neither set nor defaulted.
    pub fn bool(&self, key: &str) -> bool {
        self.str(key).and_then(value::boolean).unwrap_or(false)
    }

    /// A whole number.
    pub fn int(&self, key: &str) -> Option<i64> {
        self.str(key).and_then(value::int)
    }

    /// A number.
    pub fn float(&self, key: &str) -> Option<f64> {
        self.str(key).and_then(value::float)
    }

    /// Bytes.
    pub fn size(&self, key: &str) -> Option<u64> {
        self.str(key).and_then(value::size)
    }

    /// A duration.
    pub fn time(&self, key: &str) -> Option<Duration> {
        self.str(key).and_then(value::time)
    }

    /// A comma-separated list, items trimmed, empty ones left out; the lists of all entries joined.
    pub fn list(&self, key: &str) -> Vec<String> {
        let mut out: Vec<String> = self.all(key).flat_map(|e| value::list(&e.value)).collect();
        if out.is_empty() {
            out = self.str(key).map(value::list).unwrap_or_default();
        }
        out
    }

    /// As [`Settings::error`], at the one of `keys` that the message speaks of, by name or by value; else at the first.
    pub fn error_among(&self, diags: &mut Diagnostics, keys: &[&str], message: &str) {
        let set = || keys.iter().skip(1).filter_map(|key| Some((*key, self.entry(key)?)));
        let named = set().find(|(key, _)| message.contains(key));
        // One key's message may list the values that another has.
        let at = named.or_else(|| set().find(|(_, e)| !e.value.is_empty() && message.contains(&e.value)));
        let key = at.map(|(key, _)| key).or(keys.first().copied());
        self.error(diags, key.unwrap_or_default(), message);
    }

    /// Reports an error at `key`, naming the plugin: `bad value: ...`.
    pub fn error(&self, diags: &mut Diagnostics, key: &str, message: impl std::fmt::Display) {
        diags.error(
            Some(self.pos_of(key)),
            format!("{} {}: {message}", self.section.kind.title(), self.info.name),
        );
    }
}
