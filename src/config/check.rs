//! Checks a section against a plugin's table: names, values, repetitions.
//!
//! Enters: a section. Leaves: [`Settings`], or errors with file, line, key and the nearest right spelling.

use super::core_keys::{self, Unheeded, Verdict};
use super::diag::Diagnostics;
use super::kind::{Key, PluginInfo, Settings, Type};
use super::section::{Entry, Section, SectionKind};
use super::{names, value};
use crate::text::Regex;

/// Checks keys and values. `None` after an error.
pub fn check(
    section: &Section,
    instance: String,
    info: &'static PluginInfo,
    core: &'static [Key],
    diags: &mut Diagnostics,
) -> Option<Settings> {
    let title = format!("{} {}", section.kind.title(), info.name);
    let mut kept = Section { entries: Vec::with_capacity(section.entries.len()), ..section.clone() };
    let mut good = true;
    for entry in &section.entries {
        let own = info.all_keys().find(|k| k.is(&entry.key));
        // What the core knows, the core judges, also where a plugin lists it to give it a default. Of the keys that it
        // only lets pass, a plugin may have one of its own.
        let of_core = core
            .iter()
            .find(|k| k.is(&entry.key))
            .filter(|k| own.is_none() || !core_keys::LET_PASS.contains(&k.name));
        let Some(key) = of_core.or(own) else {
            unknown_key(entry, &title, info, core, diags);
            good = false;
            continue;
        };
        let again = !key.multi && kept.entries.iter().any(|e| e.key == entry.key);
        let checked = if of_core.is_some() {
            if again {
                let message = format!("key \"{}\" of {title} is set twice", entry.written);
                diags.strict(Some(&entry.pos), message, "the last one counts");
            }
            core_entry(key, own.is_some(), section.kind, entry, &title, diags)
        } else if again {
            let message = format!("key \"{}\" of {title} is set twice", entry.written);
            diags.error_hint(Some(&entry.pos), message, "it takes one value: remove a line");
            None
        } else {
            own_entry(key, section.kind, entry, &title, diags)
        };
        match checked {
            Some(Checked::Keep(entry)) => kept.entries.push(entry),
            Some(Checked::Leave) => {}
            None => good = false,
        }
    }
    good &= matched(&kept, &title, diags);
    good.then(|| Settings::new(instance, info, core, kept))
}

/// An entry that is not refused.
enum Checked {
    Keep(Entry),
    /// It counts as if it were not there.
    Leave,
}

/// A key of the core. `None` after an error.
fn core_entry(
    key: &Key,
    has: bool,
    kind: SectionKind,
    entry: &Entry,
    title: &str,
    diags: &mut Diagnostics,
) -> Option<Checked> {
    let bad = format!("bad value \"{}\" of \"{}\" in {title}", entry.value, entry.written);
    if entry.value.is_empty() {
        if core_keys::may_be_empty(kind, key.name) {
            return Some(Checked::Keep(entry.clone()));
        }
        let message = format!("key \"{}\" of {title} has an empty value", entry.written);
        diags.error_hint(
            Some(&entry.pos),
            message,
            "give it a value (is a variable unset?) or remove the line",
        );
        return None;
    }
    if key.name == "tls" && value::boolean(&entry.value) == Some(true) && !has {
        diags.error_hint(Some(&entry.pos), format!("{title} does not support TLS"), "remove tls on");
        return None;
    }
    match core_keys::judge(key, &entry.value) {
        Verdict::Good => {
            // A plugin that has the key itself does something with it.
            match core_keys::unheeded(key, &entry.value).filter(|_| !has) {
                Some(Unheeded::Said(what)) => {
                    diags.warn(Some(&entry.pos), format!("\"{}\" of {title} {what}", entry.written));
                }
                Some(Unheeded::Matters(does)) => {
                    let message = format!("\"{} {}\" of {title} has no effect", entry.written, entry.value);
                    diags.strict(Some(&entry.pos), message, does);
                }
                None => {}
            }
            Some(Checked::Keep(entry.clone()))
        }
        Verdict::Refused(hint) => {
            diags.error_hint(Some(&entry.pos), bad, hint);
            None
        }
        Verdict::Taken(value, does) => {
            diags.strict(Some(&entry.pos), bad, does);
            Some(Checked::Keep(Entry { value, ..entry.clone() }))
        }
        Verdict::PassedOver => {
            diags.strict(Some(&entry.pos), bad, "it is passed over, the default counts");
            Some(Checked::Leave)
        }
    }
}

/// A key of the plugin's own. `None` after an error.
fn own_entry(
    key: &Key,
    kind: SectionKind,
    entry: &Entry,
    title: &str,
    diags: &mut Diagnostics,
) -> Option<Checked> {
    // In inputs and outputs an empty value (an unset variable) leaves the key as if it were not set.
    if entry.value.is_empty() && kind != SectionKind::Filter {
        return Some(Checked::Keep(entry.clone()));
    }
    if let Err(wanted) = fits(key.ty, &entry.value) {
        let message = format!("bad value \"{}\" of \"{}\" in {title}", entry.value, entry.written);
        diags.error_hint(Some(&entry.pos), message, wanted);
        return None;
    }
    if let Type::Words(n) = key.ty
        && value::words(&entry.value).len() > n
    {
        let message = format!("\"{}\" of {title} takes {n} words, not more: {}", entry.written, entry.value);
        diags.strict(Some(&entry.pos), message, "put double quotes around one that holds spaces");
    }
    Some(Checked::Keep(entry.clone()))
}

/// A filter without a Match is refused, as in Fluent Bit; what outputs get, the whole document shows.
fn matched(section: &Section, title: &str, diags: &mut Diagnostics) -> bool {
    if section.kind != SectionKind::Filter {
        return true;
    }
    let (plain, regex) = (section.last("match"), section.last("match_regex"));
    let hint = "say which tags: Match *";
    match (plain, regex) {
        (None, None) => {
            diags.error_hint(Some(&section.pos), format!("{title} has no Match"), hint);
            false
        }
        (None, Some(entry)) if Regex::new(&entry.value).is_err() => {
            let message =
                format!("{title} has no Match and its Match_Regex \"{}\" is no pattern", entry.value);
            diags.error_hint(Some(&entry.pos), message, hint);
            false
        }
        (Some(entry), None) | (None, Some(entry)) if entry.value.is_empty() => {
            let message = format!("{} of {title} is empty", entry.written);
            diags.strict(Some(&entry.pos), message, "the filter applies to nothing");
            true
        }
        _ => true,
    }
}

/// Keys of Fluent Bit's plugins that are not built: plugin, keys, what to do instead.
const UNBUILT: &[(&str, &[&str], &str)] = &[
    (
        "file",
        &["rotate", "rotate_max_size", "rotate_max_files", "rotate_gzip"],
        "let logrotate do it (firelane opens a file that was moved anew) and remove the line",
    ),
    (
        "file",
        &[
            "enable_strftime",
            "max_dynamic_files",
            "on_missing_field",
            "on_limit_reached",
            "fallback_path",
            "fallback_file",
        ],
        "names made from records or times are not built: name the file by its tag, which rewrite_tag can make from a record",
    ),
];

fn unknown_key(entry: &Entry, title: &str, info: &PluginInfo, core: &[Key], diags: &mut Diagnostics) {
    let unbuilt = |(plugin, keys, _): &&(&str, &[&str], &str)| {
        *plugin == info.name && keys.contains(&entry.key.as_str())
    };
    if let Some((_, _, hint)) = UNBUILT.iter().find(unbuilt) {
        diags.error_hint(
            Some(&entry.pos),
            format!("key \"{}\" of {title} is not built yet", entry.written),
            *hint,
        );
        return;
    }
    let own: Vec<&str> = info.all_keys().map(|k| k.name).collect();
    let hint = match nearest(&entry.key, own.iter().copied().chain(core.iter().map(|k| k.name))) {
        _ if entry.key.starts_with('@') => "a directive begins in the first column".to_owned(),
        _ if entry.key.contains('\t') => "separate key and value by a space, not by a tab".to_owned(),
        Some(meant) => format!("did you mean \"{}\"?", capital(meant)),
        None if own.is_empty() => "the plugin has no keys of its own".to_owned(),
        None => format!("its keys are {}", own.iter().map(|k| capital(k)).collect::<Vec<_>>().join(", ")),
    };
    diags.error_hint(Some(&entry.pos), format!("unknown key \"{}\" in {title}", entry.written), hint);
}

/// As users write keys: `match_regex` is `Match_Regex`.
fn capital(key: &str) -> String {
    let mut out = String::new();
    let mut start = true;
    for c in key.chars() {
        out.push(if start { c.to_ascii_uppercase() } else { c });
        start = c == '_';
    }
    out
}

/// What the value should have been.
fn fits(ty: Type, text: &str) -> Result<(), String> {
    let good = match ty {
        Type::Str | Type::List | Type::Regex => true,
        Type::Bool => value::boolean(text).is_some(),
        Type::Int => value::int(text).is_some(),
        Type::Float => value::float(text).is_some(),
        Type::Size => value::size(text).is_some(),
        Type::Time => value::time(text).is_some(),
        Type::Words(n) => value::words(text).len() >= n,
    };
    if good {
        return Ok(());
    }
    Err(match ty {
        Type::Bool => "use on or off".to_owned(),
        Type::Int => "use a whole number".to_owned(),
        Type::Float => "use a number".to_owned(),
        Type::Size => core_keys::SIZE_HINT.to_owned(),
        Type::Time => "use seconds, or a number with s, m, h or d".to_owned(),
        Type::Words(n) => format!("it takes {n} words; put double quotes around one that holds spaces"),
        Type::Str | Type::List | Type::Regex => String::new(),
    })
}

/// What to say about a plugin name that is not in the table: message and hint.
pub fn unknown_plugin(
    kind: SectionKind,
    name: &str,
    known: impl Iterator<Item = &'static str>,
) -> (String, String) {
    let (what, theirs) = match kind {
        SectionKind::Input => ("input", names::INPUTS),
        SectionKind::Filter => ("filter", names::FILTERS),
        _ => ("output", names::OUTPUTS),
    };
    let lower = name.to_ascii_lowercase();
    let known: Vec<&str> = known.collect();
    let list = format!("firelane has {}", known.join(", "));
    if lower == "kafka" && !cfg!(feature = "kafka") {
        return (format!("{what} \"{name}\" was left out of this build of firelane"), list);
    }
    if theirs.contains(&lower.as_str()) {
        return (format!("{what} \"{name}\" of Fluent Bit is not built into firelane yet"), list);
    }
    let hint = match nearest(&lower, known.iter().copied().chain(theirs.iter().copied())) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => list,
    };
    (format!("unknown {what} \"{name}\""), hint)
}

/// The candidate closest to `word`, if one is close enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // One slip in a short word, one for every three letters in a longer one.
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .map(|c| (distance(word, c), c))
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Edit distance in which swapped neighbours count once.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CORE_FILTER, CORE_INPUT, CORE_OUTPUT, TLS_INPUT};

    const INFO: PluginInfo = PluginInfo {
        name: "probe",
        aliases: &[],
        summary: "",
        keys: &[
            Key::new("size", Type::Size, ""),
            Key::new("flag", Type::Bool, ""),
            Key::new("rule", Type::Words(2), "").multi(),
            Key::new("rdkafka.", Type::Str, "").multi().prefix(),
        ],
        groups: &[],
    };
    const LISTENER: PluginInfo =
        PluginInfo { name: "listener", aliases: &[], summary: "", keys: &[], groups: &[TLS_INPUT] };

    fn findings(kind: SectionKind, entries: &[(&str, &str)]) -> Vec<String> {
        checked(kind, &INFO, entries).1
    }

    fn checked(
        kind: SectionKind,
        info: &'static PluginInfo,
        entries: &[(&str, &str)],
    ) -> (Option<Settings>, Vec<String>) {
        let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let section = super::super::load::section(kind, entries, "f.conf");
        let core = match kind {
            SectionKind::Input => CORE_INPUT,
            SectionKind::Filter => CORE_FILTER,
            _ => CORE_OUTPUT,
        };
        let mut diags = Diagnostics::new();
        let settings = check(&section, "probe.0".into(), info, core, &mut diags);
        let found = diags.iter().map(|d| format!("{:?} {d}", d.level)).collect();
        (settings, found)
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_spelling() {
        let found = findings(SectionKind::Output, &[("Name", "probe"), ("Mathc", "*")]);
        assert_eq!(found, ["Error f.conf: unknown key \"Mathc\" in [OUTPUT] probe; did you mean \"Match\"?"]);
    }

    #[test]
    fn a_plugin_key_set_twice_is_refused_and_a_core_key_only_under_strict() {
        let found = findings(
            SectionKind::Output,
            &[
                ("match", "a"),
                ("match", "b"),
                ("flag", "on"),
                ("flag", "off"),
                ("rule", "a b"),
                ("rule", "c d"),
            ],
        );
        assert!(found[0].starts_with("Strict") && found[1].starts_with("Error"), "{found:?}");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn values_must_fit_their_type() {
        let found = findings(
            SectionKind::Input,
            &[("size", "64MiB"), ("flag", "1"), ("rule", "one"), ("mem_buf_limit", "64MiB"), ("size2", "x")],
        );
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].contains("decimal"));
        assert!(found[4].contains("did you mean \"Size\""));
    }

    #[test]
    fn a_core_key_that_does_nothing_here_is_named_where_it_asks_for_something() {
        let found = findings(
            SectionKind::Input,
            &[
                ("routable", "off"),
                ("rate_gate", "on"),
                ("net.backlog", "9"),
                ("ipv6", "off"),
                ("log_level", "debug"),
            ],
        );
        assert_eq!(
            found,
            [
                "Strict f.conf: \"routable off\" of [INPUT] probe has no effect; its records are routed all the same",
                "Strict f.conf: \"rate_gate on\" of [INPUT] probe has no effect; nothing limits its rate; the filter throttle does that, by dropping",
                "Warning f.conf: \"net.backlog\" of [INPUT] probe has no effect yet",
                "Warning f.conf: \"log_level\" of [INPUT] probe has no effect: the level of [SERVICE] counts for all",
            ]
        );
        let silent = findings(
            SectionKind::Input,
            &[("routable", "on"), ("rate_gate", "off"), ("mem_buf_limit", "5M")],
        );
        assert!(silent.is_empty(), "{silent:?}");
    }

    #[test]
    fn too_few_words_are_refused_and_too_many_only_under_strict() {
        let found = findings(SectionKind::Output, &[("rule", "a"), ("rule", "a b c"), ("rule", "a \"b c\"")]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("Error") && found[1].starts_with("Strict"), "{found:?}");
    }

    #[test]
    fn a_key_may_stand_for_all_that_begin_with_it() {
        let found = findings(
            SectionKind::Output,
            &[("rdkafka.acks", "1"), ("rdkafka.", "1"), ("oauth2.x", "y"), ("@include", "x")],
        );
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("unknown key \"rdkafka.\""), "{found:?}");
        assert!(
            found[1].starts_with("Strict f.conf: \"oauth2.x y\" of [OUTPUT] probe has no effect"),
            "{found:?}"
        );
        assert!(found[2].contains("a directive begins in the first column"), "{found:?}");
    }

    #[test]
    fn an_unknown_key_that_is_like_none_gets_the_list() {
        let found = findings(SectionKind::Output, &[("nonsense", "1")]);
        assert!(found[0].ends_with("its keys are Size, Flag, Rule, Rdkafka."), "{found:?}");
    }

    #[test]
    fn tls_is_refused_where_there_is_none() {
        assert!(findings(SectionKind::Output, &[("tls", "on")])[0].contains("does not support TLS"));
        assert_eq!(
            findings(SectionKind::Output, &[("tls", "off"), ("tls.verify", "off")]),
            Vec::<String>::new()
        );
        let (settings, found) = checked(SectionKind::Input, &LISTENER, &[("tls", "off"), ("tls", "on")]);
        assert!(settings.unwrap().bool("tls"));
        assert!(found.len() == 1 && found[0].contains("the last one counts"), "{found:?}");
    }

    #[test]
    fn a_bad_core_value_that_is_passed_over_leaves_the_default() {
        let (settings, found) = checked(SectionKind::Input, &LISTENER, &[("tls", "maybe"), ("port", "80x")]);
        let settings = settings.unwrap();
        assert_eq!((settings.bool("tls"), settings.int("port")), (false, Some(80)));
        assert!(found.len() == 2 && found.iter().all(|f| f.starts_with("Strict")), "{found:?}");
    }

    #[test]
    fn empty_values_count_as_unset_or_are_refused_as_in_fluent_bit() {
        for (kind, key, want) in [
            (SectionKind::Input, "tag", "Error"),
            (SectionKind::Input, "listen", ""),
            (SectionKind::Input, "flag", ""),
            (SectionKind::Input, "tls.crt_file", ""),
            (SectionKind::Input, "tls.verify", "Error"),
            (SectionKind::Output, "match", ""),
            (SectionKind::Output, "retry_limit", ""),
            (SectionKind::Output, "alias", "Error"),
            (SectionKind::Filter, "match", "Strict"),
        ] {
            let found = findings(kind, &[(key, "")]).concat();
            assert_eq!(found.split(' ').next(), Some(want), "{key}: {found}");
        }
        assert!(findings(SectionKind::Filter, &[("match", "*"), ("flag", "")])[0].contains("bad value"));
    }

    #[test]
    fn a_filter_needs_a_match_that_works() {
        for (entries, want) in [
            (&[][..], "Error f.conf: [FILTER] probe has no Match"),
            (&[("match_regex", "(x")][..], "Error f.conf: [FILTER] probe has no Match and its Match_Regex"),
            (&[("match_regex", "(x"), ("match", "*")][..], ""),
            (&[("match_regex", "^x")][..], ""),
        ] {
            let found = findings(SectionKind::Filter, entries).concat();
            assert!(found.starts_with(want) && found.is_empty() == want.is_empty(), "{found}");
        }
    }

    #[test]
    fn plugins_of_fluent_bit_that_are_missing_are_named_as_such() {
        let (message, _) = unknown_plugin(SectionKind::Output, "s3", ["file"].into_iter());
        assert_eq!(message, "output \"s3\" of Fluent Bit is not built into firelane yet");
        let (message, hint) = unknown_plugin(SectionKind::Output, "fiel", ["file"].into_iter());
        assert_eq!((message.as_str(), hint.as_str()), ("unknown output \"fiel\"", "did you mean \"file\"?"));
    }
}
