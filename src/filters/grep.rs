//! `grep`: keep or drop records by a pattern on a field.
//!
//! Enters: any record. Leaves: the same record or nothing. Fluent Bit's legacy logic: rules in file order, the first
//! `Regex` decides, an `Exclude` that matches drops. With `Logical_Op AND/OR` the rules are combined. A missing field or
//! one that is no string never matches.

use std::sync::Arc;

use super::{BuildContext, Context, Filter, FilterKind, Verdict, rule};
use crate::config::{Diagnostics, Entry, Key, PluginInfo, Settings, Type};
use crate::record::Record;
use crate::text::{Accessor, Regex};

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "grep",
        aliases: &[],
        summary: "Keep or drop records by a regular expression on a field.",
        keys: &[
            Key::new("regex", Type::Str, "FIELD PATTERN: keep records whose field matches").multi(),
            Key::new("exclude", Type::Str, "FIELD PATTERN: drop records whose field matches").multi(),
            Key::new(
                "logical_op",
                Type::Str,
                "legacy (the first Regex decides), AND or OR: how several rules combine",
            )
            .default("legacy"),
        ],
        groups: &[],
    },
    build,
};

#[derive(Clone, Copy, PartialEq)]
enum Logic {
    Legacy,
    And,
    Or,
}

struct Rule {
    exclude: bool,
    field: Accessor,
    pattern: Regex,
}

struct Grep {
    logic: Logic,
    rules: Vec<Rule>,
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let logic = match s.str("logical_op").unwrap_or("legacy").to_ascii_lowercase().as_str() {
        "legacy" => Logic::Legacy,
        "and" => Logic::And,
        "or" => Logic::Or,
        other => {
            diags.strict(
                Some(s.pos_of("logical_op")),
                format!("unknown Logical_Op \"{other}\" in [FILTER] grep"),
                "the rules are taken as legacy; use legacy, AND or OR",
            );
            Logic::Legacy
        }
    };
    let entries: Vec<&Entry> =
        s.entries().iter().filter(|e| matches!(e.key.as_str(), "regex" | "exclude")).collect();
    let rules: Vec<Rule> = entries.iter().filter_map(|e| read(e, diags)).collect();
    if rules.len() < entries.len() {
        return None;
    }
    if logic != Logic::Legacy && rules.iter().any(|r| r.exclude) && rules.iter().any(|r| !r.exclude) {
        diags.error_hint(
            Some(s.pos_of("logical_op")),
            "Regex and Exclude together cannot be combined by Logical_Op in [FILTER] grep",
            "use two grep filters",
        );
        return None;
    }
    if let (Logic::Legacy, Some(first)) = (logic, rules.iter().position(|r| !r.exclude))
        && let Some(dead) = entries.get(first + 1)
    {
        diags.warn(
            Some(&dead.pos),
            format!(
                "{} in [FILTER] grep has no effect: the first Regex decides alone; use Logical_Op, or a second grep",
                dead.written
            ),
        );
    }
    Some(Arc::new(Grep { logic, rules }))
}

/// `FIELD PATTERN`: everything after the first space is the pattern.
fn read(entry: &Entry, diags: &mut Diagnostics) -> Option<Rule> {
    let Some((field, pattern)) = entry.value.split_once(' ') else {
        diags.error_hint(
            Some(&entry.pos),
            format!("{} in [FILTER] grep needs a field and a pattern", entry.written),
            format!("write {} log PATTERN", entry.written),
        );
        return None;
    };
    if pattern.starts_with(' ') {
        diags.warn(
            Some(&entry.pos),
            format!(
                "the pattern of {} in [FILTER] grep begins with a blank, which must match too: one space separates it",
                entry.written
            ),
        );
    }
    let field = rule::field(field, entry, "grep", diags);
    let pattern = rule::regex(pattern, entry, "grep", diags);
    Some(Rule { exclude: entry.key == "exclude", field: field?, pattern: pattern? })
}

impl Rule {
    fn matches(&self, record: &Record<'_>) -> bool {
        self.field.string(record).is_some_and(|text| self.pattern.is_match(text))
    }
}

impl Filter for Grep {
    fn apply(&self, record: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
        let Some(first) = self.rules.first() else { return Verdict::Keep };
        let keep = match self.logic {
            // The first Regex decides alone; before it, every Exclude may drop.
            Logic::Legacy => self
                .rules
                .iter()
                .find_map(|rule| match (rule.exclude, rule.matches(record)) {
                    (true, true) => Some(false),
                    (true, false) => None,
                    (false, found) => Some(found),
                })
                .unwrap_or(true),
            Logic::And => self.rules.iter().all(|r| r.matches(record)) != first.exclude,
            Logic::Or => self.rules.iter().any(|r| r.matches(record)) != first.exclude,
        };
        if keep { Verdict::Keep } else { Verdict::Drop }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Level;
    use crate::filters::testing::{build, expect, findings, run};

    /// Runs each record and says whether it was kept.
    fn kept(lines: &[&str], records: &[&str]) -> Vec<bool> {
        let filter = build("grep", lines).0.unwrap();
        records.iter().map(|r| run(&filter, r) != "dropped").collect()
    }

    #[test]
    fn regex_searches_and_a_missing_key_or_a_non_string_never_matches() {
        let records = [
            r#"{"log":"an error here"}"#,
            r#"{"log":"WARN upper"}"#,
            r#"{"log":"warning"}"#,
            r#"{"msg":"error"}"#,
            r#"{"log":42}"#,
            r#"{"log":["error"]}"#,
            r#"{"log":{"$bin":"error"}}"#,
            r#"{"log":"x\nerror on line 2"}"#,
        ];
        let want = [true, false, true, false, false, false, false, true];
        assert_eq!(kept(&["Regex log error|warn"], &records), want);
        assert_eq!(kept(&["Exclude log error|warn"], &records), want.map(|k| !k));
        assert_eq!(kept(&[], &records), [true; 8]);
    }

    #[test]
    fn the_first_regex_decides_alone_and_excludes_before_it_may_drop() {
        let records = [r#"{"log":"deprecated","val":"x"}"#, r#"{"log":"deprecated"}"#, r#"{"val":"x"}"#];
        let rules = ["Regex log deprecated", "Regex val ."];
        assert_eq!(kept(&rules, &records), [true, true, false]);
        assert_eq!(kept(&[rules[0], rules[1], "Logical_Op AND"], &records), [true, false, false]);
        assert_eq!(kept(&[rules[0], rules[1], "Logical_Op or"], &records), [true, true, true]);
        assert_eq!(kept(&["Exclude val .", rules[0]], &records), [false, true, false]);
        assert_eq!(kept(&[rules[0], "Exclude val ."], &records), [true, true, false]);
    }

    #[test]
    fn excludes_combine_by_the_truth_of_all_rules() {
        let records = [r#"{"a":"x","b":"x"}"#, r#"{"a":"x"}"#, "{}"];
        let rules = ["Exclude a x", "Exclude b x"];
        assert_eq!(kept(&[rules[0], rules[1], "Logical_Op and"], &records), [false, true, true]);
        assert_eq!(kept(&[rules[0], rules[1], "Logical_Op or"], &records), [false, false, true]);
        assert_eq!(kept(&rules, &records), [false, false, true]);
    }

    #[test]
    fn fields_may_be_paths() {
        expect(
            "grep",
            &["Regex $kubernetes['labels']['app'] ^web-"],
            &[
                (
                    r#"{"kubernetes":{"labels":{"app":"web-1"}}}"#,
                    r#"{"kubernetes"=>{"labels"=>{"app"=>"web-1"}}}"#,
                ),
                (r#"{"kubernetes":{"labels":{"app":"db"}}}"#, "dropped"),
                (r#"{"kubernetes":{"labels":"web-1"}}"#, "dropped"),
                (r#"{"n":6}"#, "dropped"),
            ],
        );
        assert_eq!(
            kept(&["Exclude $tags[1] ^skip$"], &[r#"{"tags":["a","b"]}"#, r#"{"tags":["x","skip"]}"#]),
            [true, false]
        );
        assert_eq!(kept(&["Regex m['x'] v"], &[r#"{"m":{"x":"v"}}"#]), [true]);
    }

    #[test]
    fn a_pattern_is_everything_after_the_first_space() {
        assert_eq!(kept(&["Regex a c d"], &[r#"{"a":"abc def"}"#]), [true]);
        assert_eq!(kept(&["Regex a  ^abc"], &[r#"{"a":"abc"}"#]), [false]);
        assert!(findings("grep", &["Regex a  ^abc"], Level::Warning)[0].contains("begins with a blank"));
    }

    #[test]
    fn what_fluent_bit_refuses_is_refused_with_the_reason() {
        for (lines, reason) in [
            (vec!["Regex log"], "needs a field and a pattern"),
            (vec!["Regex log (unclosed"], "(unclosed"),
            (vec!["Regex $a['x abc"], "not closed"),
            (vec!["Regex a b", "Exclude a b", "Logical_Op and"], "use two grep filters"),
            (vec!["Regexp a b"], "did you mean \"Regex\""),
        ] {
            let errors = findings("grep", &lines, Level::Error);
            assert!(errors.iter().any(|e| e.contains(reason)), "{errors:?}");
        }
    }

    #[test]
    fn what_fluent_bit_lets_pass_is_a_finding() {
        assert!(findings("grep", &["Logical_Op xor", "Regex a b"], Level::Strict)[0].contains("xor"));
        assert!(findings("grep", &["Regex $a.b c"], Level::Strict)[0].contains(".b"));
        assert!(findings("grep", &["Regex a b", "Regex c d"], Level::Warning)[0].contains("no effect"));
    }
}
