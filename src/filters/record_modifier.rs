//! `record_modifier`: append constant keys, remove keys or keep only some.
//!
//! Enters: any record. Leaves: the record without the keys that had to go and with the appended ones at its end, or
//! nothing when no key is left. This is what ECS adds a task's identity with, so it looks at each key once and copies what
//! it appends from bytes encoded at start.

use std::sync::Arc;

use super::{BuildContext, Context, Filter, FilterKind, Verdict};
use crate::config::{Diagnostics, Entry, Key, PluginInfo, Settings, Type, value};
use crate::record::{Fields, Record};

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "record_modifier",
        aliases: &[],
        summary: "Append constant keys, remove keys or keep only some.",
        keys: &[
            Key::new("record", Type::Str, "KEY VALUE: append a key; quote a value with blanks").multi(),
            Key::new(
                "remove_key",
                Type::Str,
                "remove this key, in any case; a * at the end stands for any rest",
            )
            .multi(),
            Key::new(
                "allowlist_key",
                Type::Str,
                "keep only these keys, in any case; a * at the end stands for any rest",
            )
            .multi(),
            Key::new("whitelist_key", Type::Str, "the same as Allowlist_Key").multi(),
            Key::new("uuid_key", Type::Str, "append a random UUID under this key"),
        ],
        groups: &[],
    },
    build,
};

/// A key to compare with, case-insensitive (ASCII).
struct Name {
    text: Box<[u8]>,
    prefix: bool,
}

/// Which keys go.
enum Which {
    None,
    These(Vec<Name>),
    AllBut(Vec<Name>),
}

struct RecordModifier {
    which: Which,
    /// Appended fields, encoded.
    added: Fields,
    /// Their keys and that of the UUID: a field of that name makes room for the new one.
    replaced: Vec<Box<[u8]>>,
    /// Bit n is set when a replaced key has n bytes (modulo 64): most keys need no comparison.
    lengths: u64,
    uuid: Option<Box<[u8]>>,
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let names = |keys: [&str; 2]| -> Vec<Name> {
        let chosen = s.entries().iter().filter(|e| keys.contains(&e.key.as_str()) && !e.value.is_empty());
        chosen.map(|e| Name::new(&e.value)).collect()
    };
    let (removed, allowed) = (names(["remove_key"; 2]), names(["allowlist_key", "whitelist_key"]));
    let which = match (removed.is_empty(), allowed.is_empty()) {
        (true, true) => Which::None,
        (false, true) => Which::These(removed),
        (true, false) => Which::AllBut(allowed),
        (false, false) => {
            diags.error_hint(
                Some(s.pos_of("remove_key")),
                "Remove_key and Allowlist_key (or Whitelist_key) exclude each other in [FILTER] record_modifier",
                "use two filters, or only one of them",
            );
            return None;
        }
    };
    let mut records: Vec<(String, String)> = Vec::new();
    let mut good = true;
    for entry in s.all("record") {
        match words(entry, diags) {
            Ok(Some(pair)) => {
                // Of a key that is given twice the last one stays, at its place.
                records.retain(|(key, _)| *key != pair.0);
                records.push(pair);
            }
            Ok(None) => {}
            Err(()) => good = false,
        }
    }
    if !good {
        return None;
    }
    let uuid: Option<Box<[u8]>> = s.str("uuid_key").map(|k| k.as_bytes().into());
    let mut added = Fields::default();
    for (key, value) in &records {
        added.push_str(key.as_bytes(), value.as_bytes());
    }
    let mut replaced: Vec<Box<[u8]>> = records.iter().map(|(key, _)| key.as_bytes().into()).collect();
    replaced.extend(uuid.clone());
    let lengths = replaced.iter().fold(0, |bits, key| bits | 1 << (key.len() % 64));
    Some(Arc::new(RecordModifier { which, added, replaced, lengths, uuid }))
}

/// Key and value of a `Record` line. `Ok(None)` is skipped, as in Fluent Bit.
fn words(entry: &Entry, diags: &mut Diagnostics) -> Result<Option<(String, String)>, ()> {
    let found = value::words(&entry.value);
    match <[String; 2]>::try_from(found) {
        Ok([key, value]) => Ok(Some((key, value))),
        Err(found) if found.len() < 2 => {
            diags.error_hint(
                Some(&entry.pos),
                format!("{} in [FILTER] record_modifier needs a key and a value", entry.written),
                "write Record KEY VALUE; an unset variable leaves no value, ${NAME:-none} does",
            );
            Err(())
        }
        Err(found) => {
            diags.strict(
                Some(&entry.pos),
                format!(
                    "{} \"{}\" in [FILTER] record_modifier has {} words, not a key and a value",
                    entry.written,
                    entry.value,
                    found.len()
                ),
                format!(
                    "the key is not added; quote the value: {} {} \"{}\"",
                    entry.written,
                    found.first().map_or("KEY", String::as_str),
                    found.get(1..).unwrap_or_default().join(" ")
                ),
            );
            Ok(None)
        }
    }
}

impl Name {
    fn new(text: &str) -> Name {
        let stem = text.strip_suffix('*');
        Name { text: stem.unwrap_or(text).as_bytes().into(), prefix: stem.is_some() }
    }

    fn is(&self, key: &[u8]) -> bool {
        let start = if self.prefix { key.get(..self.text.len()) } else { Some(key) };
        start.is_some_and(|start| start.eq_ignore_ascii_case(&self.text))
    }
}

impl RecordModifier {
    #[inline]
    fn goes(&self, key: &[u8]) -> bool {
        let chosen = match &self.which {
            Which::None => false,
            Which::These(names) => names.iter().any(|n| n.is(key)),
            Which::AllBut(names) => !names.iter().any(|n| n.is(key)),
        };
        chosen
            || (self.lengths >> (key.len() % 64) & 1 == 1 && self.replaced.iter().any(|r| r.as_ref() == key))
    }
}

impl Filter for RecordModifier {
    fn apply(&self, record: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
        if (0..record.len()).any(|i| self.goes(record.key(i))) {
            record.retain(|key, _| !self.goes(key));
            if record.is_empty() && self.replaced.is_empty() {
                // All of it had to go: an empty record says nothing, and passing it on unchanged would leak it.
                return Verdict::Drop;
            }
        }
        record.append(&self.added);
        if let Some(key) = &self.uuid
            && let Some(uuid) = uuid()
        {
            let (key, value) = (record.write_str(key), record.write_str(&uuid));
            let field = record.field(key, value);
            record.push(field);
        }
        Verdict::Keep
    }
}

/// A random UUID (version 4) as text; none when the system has no random bytes yet.
fn uuid() -> Option<[u8; 36]> {
    let mut bytes = [0u8; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
    if got < bytes.len() {
        return None;
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        for nibble in [byte >> 4, byte & 0x0f] {
            text[at] = b"0123456789abcdef"[usize::from(nibble)];
            at += 1;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use crate::config::Level;
    use crate::filters::testing::{build, clean, expect, findings, run};

    #[test]
    fn appended_keys_end_up_once_at_the_end() {
        expect(
            "record_modifier",
            &["Record a 1", "Record host h-1", "Record log again"],
            &[
                (r#"{"log":"x","z":1}"#, r#"{"z"=>1, "a"=>"1", "host"=>"h-1", "log"=>"again"}"#),
                (
                    r#"{"LOG":"x","log":1,"log":2}"#,
                    r#"{"LOG"=>"x", "a"=>"1", "host"=>"h-1", "log"=>"again"}"#,
                ),
                ("{}", r#"{"a"=>"1", "host"=>"h-1", "log"=>"again"}"#),
            ],
        );
        expect(
            "record_modifier",
            &["Record log again", "Record b 2", "Record log twice"],
            &[(r#"{"log":1}"#, r#"{"b"=>"2", "log"=>"twice"}"#)],
        );
    }

    #[test]
    fn removal_compares_whole_names_in_any_case_and_a_final_star_as_a_prefix() {
        expect(
            "record_modifier",
            &["Remove_key secret", "Remove_key TMP_*", "Remove_key m.inner"],
            &[
                (
                    r#"{"Secret":1,"secret2":2,"tmp_a":3,"tmp_":4,"m":{"secret":5},"log":"x"}"#,
                    r#"{"secret2"=>2, "m"=>{"secret"=>5}, "log"=>"x"}"#,
                ),
                (r#"{"log":"y"}"#, r#"{"log"=>"y"}"#),
            ],
        );
        expect("record_modifier", &["Remove_key a*b"], &[(r#"{"a*b":1,"axb":2}"#, r#"{"axb"=>2}"#)]);
        expect("record_modifier", &["Remove_key a b"], &[(r#"{"a":1,"a b":2}"#, r#"{"a"=>1}"#)]);
    }

    #[test]
    fn an_allowlist_keeps_only_its_keys() {
        expect(
            "record_modifier",
            &["Allowlist_key l*", "Whitelist_key B"],
            &[
                (r#"{"log":1,"Lo":2,"b":3,"bb":4,"int:5":1}"#, r#"{"log"=>1, "Lo"=>2, "b"=>3}"#),
                (r#"{"x":1}"#, "dropped"),
            ],
        );
        expect("record_modifier", &["Allowlist_key x", "Record k v"], &[(r#"{"l":1}"#, r#"{"k"=>"v"}"#)]);
    }

    #[test]
    fn a_record_disappears_when_all_its_keys_went_and_none_came() {
        expect(
            "record_modifier",
            &["Remove_key log"],
            &[
                (r#"{"log":"my secret"}"#, "dropped"),
                (r#"{"log":"a","keep":1}"#, r#"{"keep"=>1}"#),
                ("{}", "{}"),
            ],
        );
        expect("record_modifier", &["Remove_key *"], &[(r#"{"log":1,"int:5":1}"#, "dropped")]);
        expect("record_modifier", &["Remove_key log", "Record a b"], &[(r#"{"log":1}"#, r#"{"a"=>"b"}"#)]);
    }

    #[test]
    fn a_uuid_is_random_and_stands_at_the_end() {
        let filter = clean("record_modifier", &["Uuid_key id", "Record a b"]);
        let (one, two) = (run(&filter, r#"{"id":"old","x":1}"#), run(&filter, r#"{"id":"old","x":1}"#));
        let uuid =
            one.strip_prefix(r#"{"x"=>1, "a"=>"b", "id"=>""#).and_then(|r| r.strip_suffix("\"}")).unwrap();
        assert_eq!((uuid.len(), uuid.as_bytes()[14], uuid.matches('-').count()), (36, b'4', 4));
        assert_ne!(one, two);
    }

    #[test]
    fn quotes_hold_a_value_together() {
        expect(
            "record_modifier",
            &["Record a  \"b c\"", r#"Record "k k" "a \" q""#, r#"Record e """#, "Record g a\"b"],
            &[("{}", r#"{"a"=>"b c", "k k"=>"a " q", "e"=>"", "g"=>"a"b"}"#)],
        );
    }

    #[test]
    fn too_many_words_skip_the_key_and_say_how_to_quote() {
        let lines = ["Record title log router", "Record a b"];
        let found = findings("record_modifier", &lines, Level::Strict);
        assert!(
            found[0].contains("Record \"title log router\"") && found[0].contains("title \"log router\"")
        );
        let filter = build("record_modifier", &lines).0.unwrap();
        assert_eq!(run(&filter, "{}"), r#"{"a"=>"b"}"#);
    }

    #[test]
    fn what_fluent_bit_refuses_is_refused() {
        for (lines, reason) in [
            (vec!["Record a"], "needs a key and a value"),
            (vec!["Remove_key a", "Allowlist_key b"], "Allowlist_key"),
            (vec!["Remove_key a", "Whitelist_key b"], "exclude each other"),
            (vec!["Uuid_key a", "Uuid_key b"], "set twice"),
        ] {
            let errors = findings("record_modifier", &lines, Level::Error);
            assert!(errors.iter().any(|e| e.contains(reason)), "{errors:?}");
        }
    }
}
