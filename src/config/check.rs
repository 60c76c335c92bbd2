//! Checks a section against a plugin's table: names, values, repetitions.
//!
//! Enters: a section. Leaves: [`Settings`], or errors with file, line, key and the nearest right spelling.

use super::diag::Diagnostics;
use super::kind::{Key, PluginInfo, Settings, Type};
use super::section::{Entry, Section, SectionKind};
use super::{names, value};

const LATER: &str = "accepted; no effect yet";

/// Keys every input takes (Fluent Bit's common input keys).
pub const CORE_INPUT: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("tag", Type::Str, "tag of the records; the instance name (tcp.0) when it is not set"),
    Key::new("alias", Type::Str, "name for logs and counters"),
    Key::new("mem_buf_limit", Type::Size, "most bytes of this input inside; above it the source is not read")
        .default("0"),
    Key::new("log_level", Type::Str, LATER),
    Key::new("log_suppress_interval", Type::Str, LATER),
    Key::new("routable", Type::Bool, LATER),
    Key::new("storage.type", Type::Str, LATER),
    Key::new("storage.pause_on_chunks_overlimit", Type::Bool, LATER),
    Key::new("threaded", Type::Bool, "accepted; inputs share the data threads"),
    Key::new("thread.ring_buffer.capacity", Type::Str, LATER),
    Key::new("thread.ring_buffer.window", Type::Str, LATER),
    Key::new("workers", Type::Int, "accepted; inputs share the data threads"),
];

/// Keys every filter takes.
pub const CORE_FILTER: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("match", Type::Str, "tags it applies to; * stands for any run"),
    Key::new(
        "match_regex",
        Type::Str,
        "tags it applies to, by a pattern anchored at their start; either is enough",
    ),
    Key::new("alias", Type::Str, "name for logs and counters"),
    Key::new("log_level", Type::Str, LATER),
    Key::new("log_suppress_interval", Type::Str, LATER),
];

/// Keys every output takes.
pub const CORE_OUTPUT: &[Key] = &[
    Key::new("name", Type::Str, "the plugin"),
    Key::new("match", Type::Str, "tags it takes; * stands for any run"),
    Key::new(
        "match_regex",
        Type::Str,
        "tags it takes, by a pattern anchored at their start; either is enough",
    ),
    Key::new("alias", Type::Str, "name for logs and counters"),
    Key::new("log_level", Type::Str, LATER),
    Key::new("log_suppress_interval", Type::Str, LATER),
    Key::new(
        "retry_limit",
        Type::Str,
        "accepted; without it an output never gives up, and file, stdout and null never do",
    ),
    Key::new("workers", Type::Int, "accepted; every output is a task of its own"),
    Key::new("storage.total_limit_size", Type::Str, LATER),
];

/// Keys of inputs that listen on the network.
pub const NET_INPUT: &[Key] = &[
    Key::new("listen", Type::Str, "address to listen on").default("0.0.0.0"),
    Key::new("host", Type::Str, LATER),
    Key::new("ipv6", Type::Bool, LATER),
    Key::new("net.share_port", Type::Bool, LATER),
    Key::new("net.backlog", Type::Int, LATER),
    Key::new("net.io_timeout", Type::Time, LATER),
    Key::new("net.accept_timeout", Type::Time, LATER),
    Key::new("net.accept_timeout_log_error", Type::Bool, LATER),
    Key::new("net.keepalive", Type::Bool, LATER),
];

/// TLS keys of inputs.
pub const TLS_INPUT: &[Key] = &[
    Key::new("tls", Type::Bool, "TLS on the listener").default("off"),
    Key::new("tls.crt_file", Type::Str, "certificate chain, PEM"),
    Key::new("tls.key_file", Type::Str, "its key, PEM"),
    Key::new("tls.ca_file", Type::Str, "who signs clients' certificates, PEM"),
    Key::new("tls.verify_client_cert", Type::Bool, "ask clients for a certificate").default("off"),
    Key::new("tls.min_version", Type::Str, "TLSv1.2 or TLSv1.3"),
    Key::new("tls.max_version", Type::Str, "TLSv1.2 or TLSv1.3"),
    Key::new("tls.verify", Type::Bool, "accepted; a server verifies clients by tls.verify_client_cert"),
    Key::new("tls.verify_hostname", Type::Bool, LATER),
    Key::new("tls.debug", Type::Int, LATER),
    Key::new("tls.vhost", Type::Str, LATER),
];

/// Keys of multiline parsers, filters and the like that name emitters; rewriting happens in line here.
pub const EMITTER: &[Key] = &[
    Key::new("emitter_name", Type::Str, "accepted; records re-enter the chain in line, there is no emitter"),
    Key::new(
        "emitter_storage.type",
        Type::Str,
        "accepted; records re-enter the chain in line, there is no emitter",
    ),
];

/// Checks keys and values. `None` after an error.
pub fn check(
    section: &Section,
    instance: String,
    info: &'static PluginInfo,
    core: &'static [Key],
    diags: &mut Diagnostics,
) -> Option<Settings> {
    let title = format!("{} {}", section.kind.title(), info.name);
    let mut good = true;
    let mut seen: Vec<&str> = Vec::new();
    for entry in &section.entries {
        let own = info.all_keys().find(|k| k.name == entry.key);
        let Some(key) = own.or_else(|| core.iter().find(|k| k.name == entry.key)) else {
            unknown_key(entry, &title, info, core, diags);
            good = false;
            continue;
        };
        if seen.contains(&entry.key.as_str()) && !key.multi {
            if own.is_some() {
                diags.error_hint(
                    Some(&entry.pos),
                    format!("key \"{}\" of {title} is set twice", entry.written),
                    "it takes one value: remove a line",
                );
                good = false;
            } else {
                diags.strict(
                    Some(&entry.pos),
                    format!("key \"{}\" of {title} is set twice", entry.written),
                    "the last one counts",
                );
            }
        }
        seen.push(&entry.key);
        // An empty value (an unset variable) leaves the key as if it were not set.
        if !entry.value.is_empty()
            && let Err(wanted) = fits(key.ty, &entry.value)
        {
            diags.error_hint(
                Some(&entry.pos),
                format!("bad value \"{}\" of \"{}\" in {title}", entry.value, entry.written),
                wanted,
            );
            good = false;
        }
    }
    good &= matched(section, &title, diags);
    good.then(|| Settings::new(instance, info, core, section.clone()))
}

/// A filter without a Match is refused; an output without one gets nothing (but see the pipeline for one-to-one).
fn matched(section: &Section, title: &str, diags: &mut Diagnostics) -> bool {
    let has = ["match", "match_regex"].iter().any(|k| section.last(k).is_some_and(|e| !e.value.is_empty()));
    match section.kind {
        SectionKind::Filter if !has => {
            diags.error_hint(Some(&section.pos), format!("{title} has no Match"), "say which tags: Match *");
            false
        }
        _ => true,
    }
}

fn unknown_key(entry: &Entry, title: &str, info: &PluginInfo, core: &[Key], diags: &mut Diagnostics) {
    let own: Vec<&str> = info.all_keys().map(|k| k.name).collect();
    let hint = match nearest(&entry.key, own.iter().copied().chain(core.iter().map(|k| k.name))) {
        Some(meant) => format!("did you mean \"{}\"?", capital(meant)),
        None if own.is_empty() => "the plugin has no keys of its own".to_owned(),
        None => format!(
            "its keys are {}",
            info.keys.iter().map(|k| capital(k.name)).collect::<Vec<_>>().join(", ")
        ),
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
        Type::Words(n) => value::words(text).len() == n,
    };
    if good {
        return Ok(());
    }
    Err(match ty {
        Type::Bool => "use on or off".to_owned(),
        Type::Int => "use a whole number".to_owned(),
        Type::Float => "use a number".to_owned(),
        Type::Size if text.to_ascii_lowercase().contains("ib") => {
            "sizes are decimal: use K, M or G (KB, MB, GB), not KiB".to_owned()
        }
        Type::Size => "use bytes, or a number with K, M or G".to_owned(),
        Type::Time => "use seconds, or a number with s, m, h or d".to_owned(),
        Type::Words(n) => format!("it takes exactly {n} words; quote a longer one with \"\""),
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
    // Two slips in a short word, one more for every four letters.
    let allowed = 1 + word.chars().count() / 3;
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

    const INFO: PluginInfo = PluginInfo {
        name: "probe",
        aliases: &[],
        summary: "",
        keys: &[
            Key::new("size", Type::Size, ""),
            Key::new("flag", Type::Bool, ""),
            Key::new("rule", Type::Words(2), "").multi(),
        ],
        groups: &[],
    };

    fn findings(kind: SectionKind, entries: &[(&str, &str)]) -> Vec<String> {
        let entries = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let section = super::super::load::section(kind, entries, "f.conf");
        let core = if kind == SectionKind::Input { CORE_INPUT } else { CORE_OUTPUT };
        let mut diags = Diagnostics::new();
        check(&section, "probe.0".into(), &INFO, core, &mut diags);
        diags.iter().map(|d| format!("{:?} {d}", d.level)).collect()
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
    fn plugins_of_fluent_bit_that_are_missing_are_named_as_such() {
        let (message, _) = unknown_plugin(SectionKind::Output, "s3", ["file"].into_iter());
        assert_eq!(message, "output \"s3\" of Fluent Bit is not built into firelane yet");
        let (message, hint) = unknown_plugin(SectionKind::Output, "fiel", ["file"].into_iter());
        assert_eq!((message.as_str(), hint.as_str()), ("unknown output \"fiel\"", "did you mean \"file\"?"));
    }
}
