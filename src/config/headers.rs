//! What a section name means: one of ours, one of Fluent Bit's that is not built, or none.
//!
//! Enters: the name as written. Leaves: a [`SectionKind`], or nothing and a finding.

use super::check::nearest;
use super::diag::{Diagnostics, Pos};
use super::section::SectionKind;
use super::streams;

/// Fluent Bit's sections. It compares only as many letters as were written, and the first that fits counts.
const KNOWN: &[(&str, Meaning)] = &[
    ("SERVICE", Meaning::Ours(SectionKind::Service)),
    ("PARSER", Meaning::Ours(SectionKind::Parser)),
    ("MULTILINE_PARSER", Meaning::Ours(SectionKind::MultilineParser)),
    ("STREAM_PROCESSOR", Meaning::Streams),
    ("PLUGINS", Meaning::Plugins),
    ("UPSTREAM_SERVERS", Meaning::Upstream),
    ("CUSTOM", Meaning::Custom),
    ("CUSTOMS", Meaning::Custom),
    ("INPUT", Meaning::Ours(SectionKind::Input)),
    ("INPUTS", Meaning::Ours(SectionKind::Input)),
    ("FILTER", Meaning::Ours(SectionKind::Filter)),
    ("FILTERS", Meaning::Ours(SectionKind::Filter)),
    ("OUTPUT", Meaning::Ours(SectionKind::Output)),
    ("OUTPUTS", Meaning::Ours(SectionKind::Output)),
];

#[derive(Clone, Copy)]
enum Meaning {
    Ours(SectionKind),
    Streams,
    Plugins,
    Upstream,
    Custom,
}

/// Resolves a name. `None`: its keys are passed over (a finding says so) or the configuration is refused.
pub(super) fn resolve(name: &str, pos: &Pos, diags: &mut Diagnostics) -> Option<SectionKind> {
    let upper = name.to_ascii_uppercase();
    let exact = KNOWN.iter().find(|(known, _)| *known == upper);
    let short = || KNOWN.iter().find(|(known, _)| known.starts_with(&upper)).filter(|_| !upper.is_empty());
    let Some((full, meaning)) = exact.or_else(short) else {
        let meant = nearest(&upper, KNOWN.iter().map(|(known, _)| *known));
        let does = match meant {
            Some(meant) => format!("it is passed over with all its keys; did you mean [{meant}]?"),
            None => "it is passed over with all its keys".to_owned(),
        };
        diags.strict(Some(pos), format!("unknown section [{name}]"), does);
        return None;
    };
    if exact.is_none() {
        diags.strict(
            Some(pos),
            format!("section [{name}] is cut short"),
            format!("it is taken as [{full}]; write the whole name"),
        );
    }
    match meaning {
        Meaning::Ours(kind) => return Some(*kind),
        Meaning::Streams => diags.error_hint(
            Some(pos),
            "the stream processor is not supported: the records it would make would go nowhere",
            streams::HINT,
        ),
        Meaning::Plugins => {
            diags.warn(Some(pos), "[PLUGINS] is passed over: firelane loads no shared objects");
        }
        Meaning::Upstream => diags.strict(
            Some(pos),
            "upstream servers are not built into firelane yet",
            "they are passed over with all their keys",
        ),
        Meaning::Custom => {
            diags.error_hint(Some(pos), "custom plugins are not built into firelane", "remove the section")
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_in_any_case_in_the_plural_and_cut_short() {
        for (name, kind, finding) in [
            ("input", Some(SectionKind::Input), ""),
            ("Filters", Some(SectionKind::Filter), ""),
            ("MULTILINE_PARSER", Some(SectionKind::MultilineParser), ""),
            ("IN", Some(SectionKind::Input), "Strict section [IN] is cut short; it is taken as [INPUT]"),
            ("serv", Some(SectionKind::Service), "Strict section [serv] is cut short"),
            (
                "FILTRE",
                None,
                "Strict unknown section [FILTRE]; it is passed over with all its keys; did you mean [FILTER]?",
            ),
            (" INPUT", None, "Strict unknown section [ INPUT]"),
            ("", None, "Strict unknown section []"),
            ("STREAM_TASK", None, "Strict unknown section"),
            ("STREAM_PROCESSOR", None, "Error the stream processor is not supported"),
            ("customs", None, "Error custom plugins"),
            ("UPSTREAM", None, "Strict section [UPSTREAM] is cut short"),
            ("PLUGINS", None, "Warning [PLUGINS] is passed over"),
        ] {
            let mut diags = Diagnostics::new();
            assert_eq!(resolve(name, &Pos::new("f", 1), &mut diags), kind, "{name}");
            let found = diags.iter().next().map(|d| format!("{:?} {d}", d.level)).unwrap_or_default();
            assert!(found.replace("f:1: ", "").starts_with(finding), "{name}: {found}");
            assert_eq!(finding.is_empty(), found.is_empty(), "{name}: {found}");
        }
    }
}
