//! `rewrite_tag`: send records on under another tag.
//!
//! Enters: any record. Leaves: the record, or under a new tag the record (or a copy of it) that passes the filters of that
//! tag from the first. The first rule that matches decides. Can go wrong at run time: a new tag is empty or too long, or the
//! record has come under too many tags already (rules in a loop); then it stays under its tag, and the log says so once.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{BuildContext, Context, Filter, FilterKind, Verdict, rule};
use crate::config::{Diagnostics, EMITTER, Entry, Key, PluginInfo, Settings, Type, value};
use crate::record::{Record, Tag};
use crate::text::{Accessor, Regex, Template};

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "rewrite_tag",
        aliases: &[],
        summary: "Send records on under another tag.",
        keys: &[
            Key::new(
                "rule",
                Type::Str,
                "$FIELD PATTERN NEW_TAG KEEP: the first that matches sends the record on; KEEP true leaves it here too",
            )
            .multi(),
            Key::new(
                "emitter_mem_buf_limit",
                Type::Size,
                "accepted; records re-enter the chain in line, there is no emitter",
            )
            .default("10M"),
        ],
        groups: &[EMITTER],
    },
    build,
};

/// Fluent Bit cannot store longer tags either.
const MAX_TAG: usize = 65_535;

struct Rule {
    field: Accessor,
    pattern: Regex,
    tag: Template,
    groups: bool,
    keep: bool,
}

struct RewriteTag {
    rules: Vec<Rule>,
    label: String,
    /// What has been said in the log.
    looped: AtomicBool,
    no_tag: AtomicBool,
}

thread_local! {
    /// New tags are put together here.
    static NAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let entries: Vec<&Entry> = s.all("rule").collect();
    let rules: Vec<Rule> = entries.iter().filter_map(|e| read(e, diags)).collect();
    let mut good = rules.len() == entries.len();
    if entries.is_empty() {
        diags.warn(Some(s.pos()), "[FILTER] rewrite_tag has no Rule: records pass unchanged");
    }
    if let Some(kind) = s.str("emitter_storage.type")
        && !["memory", "filesystem"].iter().any(|k| k.eq_ignore_ascii_case(kind))
    {
        diags.error_hint(
            Some(s.pos_of("emitter_storage.type")),
            format!("unknown Emitter_Storage.type \"{kind}\" in [FILTER] rewrite_tag"),
            "use memory or filesystem",
        );
        good = false;
    }
    if s.str("match") == Some("*") && !rules.is_empty() {
        diags.warn(
            Some(s.pos_of("match")),
            "[FILTER] rewrite_tag matches every tag: with another such filter, records could go round for ever; each \
             stays where it is after 16 tags",
        );
    }
    good.then(|| {
        Arc::new(RewriteTag {
            rules,
            label: s.label.clone(),
            looped: AtomicBool::new(false),
            no_tag: AtomicBool::new(false),
        }) as Arc<dyn Filter>
    })
}

/// `FIELD PATTERN TAG KEEP`, each of them in double quotes if it has blanks.
fn read(entry: &Entry, diags: &mut Diagnostics) -> Option<Rule> {
    let words = value::words(&entry.value);
    let (Some(field), Some(pattern), Some(tag), Some(keep)) =
        (words.first(), words.get(1), words.get(2), words.get(3))
    else {
        diags.error_hint(
            Some(&entry.pos),
            format!("{} of [FILTER] rewrite_tag has {} words, not four", entry.written, words.len()),
            "write Rule $FIELD PATTERN NEW_TAG KEEP, where KEEP is true or false; quote what has blanks",
        );
        return None;
    };
    // Fluent Bit takes the rest of the line for KEEP, and what is no boolean for false.
    let keep = match (value::boolean(keep), words.len()) {
        (Some(keep), 4) => keep,
        _ => {
            diags.strict(
                Some(&entry.pos),
                format!(
                    "\"{}\" at the end of {} in [FILTER] rewrite_tag is neither true nor false",
                    words.get(3..).unwrap_or_default().join(" "),
                    entry.written
                ),
                "it counts as false; quote a pattern or a tag with blanks",
            );
            false
        }
    };
    let field = rule::field(field, entry, "rewrite_tag", diags);
    let pattern = rule::regex(pattern, entry, "rewrite_tag", diags);
    let template = match Template::new(tag) {
        Ok(template) => Some(template),
        Err(e) => {
            diags.error_hint(
                Some(&entry.pos),
                format!("bad new tag \"{tag}\" in {} of [FILTER] rewrite_tag: {e}", entry.written),
                "use text, $key, $key['sub'], $TAG, $TAG[0] and $0 to $9; a dot, comma or blank ends a $key",
            );
            None
        }
    };
    let (field, pattern, tag) = (field?, pattern?, template?);
    Some(Rule { field, pattern, groups: tag.has_groups(), tag, keep })
}

impl Rule {
    /// Appends the new tag. `None`: the rule does not match.
    fn rewrite(&self, tag: &Tag, record: &Record<'_>, out: &mut Vec<u8>) -> Option<()> {
        let text = self.field.string(record)?;
        if self.groups {
            let groups = self.pattern.groups(text)?;
            self.tag.render(tag, record, Some((text, &groups)), out);
        } else if self.pattern.is_match(text) {
            self.tag.render(tag, record, None, out);
        } else {
            return None;
        }
        Some(())
    }
}

impl RewriteTag {
    fn say(&self, said: &AtomicBool, what: &str, tag: &Tag) {
        if !said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: {what}; records stay under their tag, the first under {tag} (said once)",
                self.label
            );
        }
    }
}

impl RewriteTag {
    fn route(&self, record: &Record<'_>, cx: &mut Context<'_>, name: &mut Vec<u8>) -> Verdict {
        let Some(rule) = self.rules.iter().find(|r| r.rewrite(cx.tag, record, name).is_some()) else {
            return Verdict::Keep;
        };
        if !cx.may_move {
            self.say(&self.looped, "the rules send records round in a loop", cx.tag);
            Verdict::Keep
        } else if name.is_empty() || name.len() > MAX_TAG {
            self.say(&self.no_tag, "a rule makes an empty or a far too long tag", cx.tag);
            Verdict::Keep
        } else if rule.keep {
            cx.emit.copied(Tag::new(name), record);
            Verdict::Keep
        } else {
            cx.emit.moved(Tag::new(name), record);
            Verdict::Moved
        }
    }
}

impl Filter for RewriteTag {
    fn apply(&self, record: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict {
        NAME.with_borrow_mut(|name| {
            name.clear();
            let verdict = self.route(record, cx, name);
            if name.capacity() > MAX_TAG {
                // A long value has passed through; its memory is not kept.
                *name = Vec::new();
            }
            verdict
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Level;
    use crate::filters::Verdict;
    use crate::filters::testing::{apply_entry, build, clean, findings, packed};

    /// The verdict and the new tags of a record under `t.one`.
    fn rewritten(rules: &[&str], record: &str) -> (Verdict, Vec<String>) {
        let filter = build("rewrite_tag", rules).0.unwrap();
        let bytes = packed(record);
        let outcome = apply_entry(filter.as_ref(), &bytes, true);
        assert!(outcome.emitted.iter().all(|(_, entry)| *entry == bytes) && outcome.left == bytes);
        let tags = outcome.emitted.into_iter().map(|(tag, _)| tag.unwrap().to_str().into_owned());
        (outcome.verdict, tags.collect())
    }

    #[test]
    fn the_first_rule_that_matches_moves_the_record() {
        let rules = ["Rule $level ^(error|fatal)$ alert.$1 false", "Rule $level ^e never false"];
        assert_eq!(
            rewritten(&rules, r#"{"level":"error"}"#),
            (Verdict::Moved, vec!["alert.error".to_owned()])
        );
        for record in [r#"{"level":"info"}"#, r#"{"n":4}"#, r#"{"level":5}"#, r#"{"level":{"$bin":"error"}}"#]
        {
            assert_eq!(rewritten(&rules, record), (Verdict::Keep, vec![]), "{record}");
        }
    }

    #[test]
    fn keep_leaves_the_record_and_sends_a_copy() {
        let rules = ["Rule $log ^A(.)(.) new.$2.$1.$0 true"];
        assert_eq!(
            rewritten(&rules, r#"{"log":"Auv tail"}"#),
            (Verdict::Keep, vec!["new.v.u.Auv".to_owned()])
        );
        assert_eq!(rewritten(&["Rule $a ^abc n on"], r#"{"a":"abc"}"#).0, Verdict::Keep);
    }

    #[test]
    fn tags_are_made_of_the_record_its_tag_and_groups() {
        let to = |rule: &str| rewritten(&[rule], r#"{"a":"abc def","m":{"x":"v"}}"#).1;
        assert_eq!(to("Rule a ^abc new.$TAG[1].$m['x'].$nosuch false"), ["new.one.v."]);
        assert_eq!(to("Rule $m['x'] v \"n $a\" false"), ["n abc def"]);
        assert_eq!(to("Rule $a \"c d\" n false"), ["n"]);
    }

    #[test]
    fn a_path_into_a_string_is_missing() {
        let rules = ["Rule $k8s['ns'] ^prod k8s.prod false"];
        assert_eq!(rewritten(&rules, r#"{"k8s":"prod-shop"}"#).0, Verdict::Keep);
        assert_eq!(rewritten(&rules, r#"{"k8s":{"ns":"prod"}}"#).0, Verdict::Moved);
    }

    #[test]
    fn a_record_that_may_not_move_and_one_with_an_empty_tag_stay() {
        let filter = clean("rewrite_tag", &["Rule $a . $e false"]);
        let bytes = packed(r#"{"a":"x","e":"new"}"#);
        assert_eq!(apply_entry(filter.as_ref(), &bytes, true).verdict, Verdict::Moved);
        let empty = packed(r#"{"a":"x","e":""}"#);
        for (bytes, may_move) in [(bytes, false), (empty, true)] {
            let outcome = apply_entry(filter.as_ref(), &bytes, may_move);
            assert_eq!((outcome.verdict, outcome.emitted.len()), (Verdict::Keep, 0));
        }
    }

    #[test]
    fn what_fluent_bit_refuses_is_refused_with_the_reason() {
        for (line, reason) in [
            ("Rule $a ^abc n", "has 3 words, not four"),
            ("Rule $a ( n false", "bad regex \"(\""),
            ("Rule $a['x b n false", "not closed"),
            ("Rule $a b n$$a false", "bad new tag \"n$$a\""),
            ("Emitter_Storage.type bogus", "use memory or filesystem"),
        ] {
            let errors = findings("rewrite_tag", &[line], Level::Error);
            assert!(errors.len() == 1 && errors[0].contains(reason), "{errors:?}");
        }
    }

    #[test]
    fn what_fluent_bit_lets_pass_is_a_finding() {
        for line in ["Rule $a ^abc n maybe", "Rule $a ^abc n true extra"] {
            assert!(findings("rewrite_tag", &[line], Level::Strict)[0].contains("neither true nor false"));
            assert_eq!(rewritten(&[line], r#"{"a":"abc"}"#).0, Verdict::Moved);
        }
        assert!(findings("rewrite_tag", &[], Level::Warning)[0].contains("no Rule"));
        let emitter = ["Emitter_Name e", "Emitter_Storage.type filesystem", "Emitter_Mem_Buf_Limit 5M"];
        assert!(findings("rewrite_tag", &emitter, Level::Error).is_empty());
    }
}
