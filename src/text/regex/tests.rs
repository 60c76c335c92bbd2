//! What patterns match, as the Onigmo of Fluent Bit 5.1.1 does.

use super::Regex;
use proptest::prelude::*;

/// The named groups that took part, in order; `None` when nothing matches.
fn named(pattern: &str, text: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let regex = Regex::new(pattern).unwrap();
    let groups = regex.groups(text);
    assert_eq!(groups.is_some(), regex.is_match(text), "{pattern}");
    let groups = groups?;
    let named = regex.names().iter();
    Some(named.filter_map(|(n, i)| Some((n.clone(), text[groups[*i].clone()?].to_vec()))).collect())
}

#[track_caller]
fn check(pattern: &str, text: &str, want: Option<&[(&str, &str)]>) {
    let want =
        want.map(|w| w.iter().map(|(n, v)| (n.to_string(), v.as_bytes().to_vec())).collect::<Vec<_>>());
    assert_eq!(named(pattern, text.as_bytes()), want, "{pattern} on {text:?}");
}

#[test]
fn lines_options_and_slashes_are_rubys() {
    check(r"^b(?<x>.*)$", "a\nbc\nd", Some(&[("x", "c")]));
    check(r"/^a(?<x>.*)z/m", "a\nbcz", Some(&[("x", "\nbc")]));
    check(r"/^A(?<x>.*)z/i", "abZ", Some(&[("x", "b")]));
    check("/^ a (?<x> .*) z # end\n/x", "abz", Some(&[("x", "b")]));
    check(r"/^(?<a>x)/(?<b>.)$/", "x/y", Some(&[("a", "x"), ("b", "y")]));
    check(r"/^(?<a>x)/g", "xy", None);
    check(r"^(?i)(?<a>x)(?-i)Y$", "XY", Some(&[("a", "X")]));
    check(r"^(?i)(?<a>x)(?-i)Y$", "Xy", None);
    check(r"^(?i:(?<a>x))(?<b>(?m:.))", "X\n", Some(&[("a", "X"), ("b", "\n")]));
    check(r"^(?<a>p(?i)q|r)$", "R", None);
    check(r"^(?<a>p(?i)q|r)$", "pR", Some(&[("a", "pR")]));
    check(r"^(?<a>x(?#comment)y)", "xy", Some(&[("a", "xy")]));
}

#[test]
fn short_sets_are_ascii_and_named_sets_are_not() {
    check(r"^(?<x>\h+)-(?<y>\H+)$", "af09-xyz", Some(&[("x", "af09"), ("y", "xyz")]));
    check(r"^(?<a>\w+)$", "éa1", None);
    check(r"^(?<a>\d+)$", "٣", None);
    check(r"^a\s(?<a>.*)$", "a\u{a0}b", None);
    check(r"^a\s(?<a>.*)$", "a\u{b}b", Some(&[("a", "b")]));
    check(r"^(?<a>[[:alpha:]]+)(?<b>[[:^alpha:]]+)$", "é1", Some(&[("a", "é"), ("b", "1")]));
    check(r"^(?<a>\p{Alpha}+)(?<b>\p{^Alpha})", "aé1", Some(&[("a", "aé"), ("b", "1")]));
    check(r"^(?<a>\p{Han}+)", "漢x", Some(&[("a", "漢")]));
}

#[test]
fn sets_take_what_rubys_take() {
    check(r"^(?<a>[a-z&&[^aeiou]]+)(?<b>.*)$", "bcde", Some(&[("a", "bcd"), ("b", "e")]));
    check(r"^(?<a>[^]]+)](?<b>.*)$", "bc]de", Some(&[("a", "bc"), ("b", "de")]));
    check(r"^(?<a>[]a]+)(?<b>.*)$", "]ade", Some(&[("a", "]a"), ("b", "de")]));
    check(r"^(?<a>[a\-z~~b-]+)$", "a-z~b-", Some(&[("a", "a-z~b-")]));
    check(r"^(?<a>[\w.-]+)@", "a.b-c@", Some(&[("a", "a.b-c")]));
    check(r"^(?<a>[a-\d]+)$", "a-1", Some(&[("a", "a-1")]));
    check(r"^(?<a>[\s\S]+)$", "a\né", Some(&[("a", "a\né")]));
    check(r#"^(?<a>[^\"]*)""#, "x y\"", Some(&[("a", "x y")]));
    check(r"^(?<a>[\x41-\x43\n]+)", "AB\n", Some(&[("a", "AB\n")]));
}

#[test]
fn escapes_and_braces_stand_for_what_they_stand_for_in_ruby() {
    check(r"^{(?<a>[^}]*)}(?<b>.*)$", "{x}y", Some(&[("a", "x"), ("b", "y")]));
    check(r#"^\<(?<a>\d+)\>\ (?<b>\"x\"\:)"#, "<5> \"x\":", Some(&[("a", "5"), ("b", "\"x\":")]));
    check(r"^(?<a>a{,2})(?<b>a{1}?)(?<c>.*)$", "aaaab", Some(&[("a", "aa"), ("b", "a"), ("c", "ab")]));
    check(r"^(?<a>\x41\u0042\x{43}\103)", "ABCC", Some(&[("a", "ABCC")]));
    check(r"^(?<a>\xC3\xA9)$", "é", Some(&[("a", "é")]));
    check(r"\A(?<a>.*)\Z", "aab\n", Some(&[("a", "aab")]));
    check(r"^(?<a>\w+)\R(?<b>.*)$", "x\r\ny", Some(&[("a", "x"), ("b", "y")]));
    check(r"^(?<a>x{2}{2})", "xxxxx", Some(&[("a", "xxxx")]));
    check(r"^(?<a>(?:ab)*?)c", "ababc", Some(&[("a", "abab")]));
}

#[test]
fn names_may_repeat_and_plain_groups_do_not_count_beside_them() {
    check(r"^(\w+) (?<x>\w+)$", "ab cd", Some(&[("x", "cd")]));
    check(r"^(?<x>a)?(?<y>b)?(?<x>c)?$", "abc", Some(&[("x", "a"), ("y", "b"), ("x", "c")]));
    check("^(?'ab'x)", "xy", Some(&[("ab", "x")]));
    let plain = Regex::new(r"^(\w+) (\w+)$").unwrap();
    let groups = plain.groups(b"ab cd").unwrap();
    assert_eq!(groups.as_slice(), [Some(0..5), Some(0..2), Some(3..5)]);
    assert!(plain.names().is_empty());
}

#[test]
fn what_needs_backtracking_gets_it() {
    check(r"^(?<x>a++)(?<y>b*+)", "aabb", Some(&[("x", "aa"), ("y", "bb")]));
    check(r"(?<=x)(?<a>\d+)(?!y)", "x123y", Some(&[("a", "12")]));
    check(r"(?<=x)(?<a>\d+)(?!y)", "x1y", None);
    check(r"^(?<a>.)\k<a>(?<b>.*)", "aab", Some(&[("a", "a"), ("b", "b")]));
    check(r"^(?<a>(?>a|ab))c", "abc", None);
    check(r"^(?<a>\((?:[^()]|\g<a>)*\))", "(a(b)c)", Some(&[("a", "(a(b)c)")]));
    check(r"^(?<a>x)?(?(<a>)y|z)", "xy", Some(&[("a", "x")]));
    check(r"^(?<a>(?~b))", "aab", Some(&[("a", "aa")]));
    check(r"^(?<a>[^ ]*+) (?<b>\S+?)\Z", "é x\n", Some(&[("a", "é"), ("b", "x")]));
}

#[test]
fn backtracking_has_a_limit() {
    let regex = Regex::new(r"^(a|aa)+$(?<!b)\1").unwrap();
    assert!(!regex.is_match("a".repeat(3000).as_bytes()));
}

#[test]
fn text_that_is_no_utf_8_matches() {
    let one = |p, t: &[u8]| named(p, t).map(|g| g.into_iter().map(|(_, v)| v).collect::<Vec<_>>());
    assert_eq!(
        one(r"^a(?<m>.*)z(?<n>[^ ]*)$", b"ax\xffyz\xfe"),
        Some(vec![b"x\xffy".to_vec(), b"\xfe".to_vec()])
    );
    assert_eq!(one(r"^(?<m>.+) (?<n>.)$", b"\xff \xfe"), Some(vec![b"\xff".to_vec(), b"\xfe".to_vec()]));
    assert_eq!(one(r"^(?<m>\S+) (?<n>x)", b"\xc3 x"), Some(vec![b"\xc3".to_vec(), b"x".to_vec()]));
    assert_eq!(one(r"(?<=a)(?<m>\w)", b"\xffab"), Some(vec![b"b".to_vec()]));
    assert_eq!(one(r"^(?<m>..)$", b"a\xff"), Some(vec![b"a\xff".to_vec()]));
}

#[test]
fn a_character_is_never_cut_in_two() {
    check(r"^(?<a>.+)(?<b>.+)$", "éü", Some(&[("a", "é"), ("b", "ü")]));
    check(r"^(?<a>.*)(?<b>.)$", "éü", Some(&[("a", "é"), ("b", "ü")]));
    check(r"^(?<a>.{1})(?<b>[^ ]*)", "éü x", Some(&[("a", "é"), ("b", "ü")]));
    check(r"^(?<a>[^=]*?)(?<b>[^ ]+)$", "é=ü", Some(&[("a", ""), ("b", "é=ü")]));
}

#[test]
fn what_cannot_be_expressed_is_refused_in_words() {
    for (pattern, words) in [
        ("(unclosed", "a ( has no )"),
        ("a)b", "a ) has no ("),
        ("[a-", "missing ]"),
        ("*a", "nothing stands before *"),
        (r"\X", r"\X is not supported"),
        ("(?P<a>x)", "write (?<name>...)"),
        ("(?<a-b>x)", "is no name for a group"),
        ("(?<1a>x)", "is no name for a group"),
        (r"(?<a>x)\k<b>", "there is no group \"b\""),
        ("[[:foo:]]", "[:foo:] is not known"),
        ("x{100000}{1000}", "too large"),
        ("[z-a]", "range"),
        (r"a\", "ends in a backslash"),
    ] {
        let e = Regex::new(pattern).unwrap_err();
        assert!(e.contains(words) && e.contains(pattern) && !e.contains('\n'), "{pattern}: {e}");
    }
}

#[test]
fn at_the_start_means_not_empty_and_not_later() {
    let regex = Regex::new("app|x*").unwrap();
    assert!(regex.is_match_at_start(b"app.1") && !regex.is_match_at_start(b"b.app"));
    assert!(!Regex::new("b").unwrap().is_match_at_start(b"ab"));
    assert!(Regex::new("(?=a)a").unwrap().is_match_at_start(b"ab"));
}

#[test]
fn the_parsers_that_come_with_fluent_bit_compile() {
    for pattern in [
        r#"^(?<host>[^ ]*) [^ ]* (?<user>[^ ]*) \[(?<time>[^\]]*)\] "(?<method>\S+)(?: +(?<path>[^ ]*) +\S*)?" (?<code>[^ ]*) (?<size>[^ ]*)(?: "(?<referer>[^\"]*)" "(?<agent>.*)")?$"#,
        r"^\[[^ ]* (?<time>[^\]]*)\] \[(?<level>[^\]]*)\](?: \[pid (?<pid>[^\]]*)\])?( \[client (?<client>[^\]]*)\])? (?<message>.*)$",
        r"^\<(?<pri>[0-9]{1,5})\>1 (?<time>[^ ]+) (?<host>[^ ]+) (?<ident>[^ ]+) (?<pid>[-0-9]+) (?<msgid>[^ ]+) (?<extradata>(\[(.*?)\]|-)) (?<message>.+)$",
        r"/^\<(?<pri>[0-9]+)\>(?<time>[^ ]* {1,2}[^ ]* [^ ]*) (?<host>[^ ]*) (?<ident>[a-zA-Z0-9_\/\.\-]*)(?:\[(?<pid>[0-9]+)\])?(?:[^\:]*\:)? *(?<message>.*)$/",
        r"^(?<time>[^ ]*)\s+(?<severity>\w)\s+(?<component>[^ ]+)\s+\[(?<context>[^\]]+)]\s+(?<message>.*?) *(?<ms>(\d+))?(:?ms)?$",
        r"(?<tag>[^.]+)?\.?(?<pod_name>[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)_(?<namespace_name>[^_]+)_(?<container_name>.+)-(?<docker_id>[a-z0-9]{64})\.log$",
        r"^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>[^ ]*) (?<message>.*)$",
    ] {
        assert!(!Regex::new(pattern).unwrap().names().is_empty());
    }
    check(
        r"^\<(?<pri>[0-9]{1,5})\>1 (?<time>[^ ]+) (?<rest>(\[(.*?)\]|-)) (?<message>.+)$",
        "<13>1 t [x y] msg é",
        Some(&[("pri", "13"), ("time", "t"), ("rest", "[x y]"), ("message", "msg é")]),
    );
}

proptest! {
    #[test]
    fn any_pattern_compiles_or_is_refused(
        pattern in r#"[a-c(){}\[\]|*+?^$.\\:<>!=,0-2pkghdwsAZ&#~'/ é-]{0,24}"#,
        text in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        if let Ok(regex) = Regex::new(&pattern) {
            let groups = regex.groups(&text);
            if let Some(groups) = groups {
                prop_assert!(groups.iter().flatten().all(|g| g.end <= text.len() && g.start <= g.end));
                prop_assert!(regex.names().iter().all(|(_, i)| *i < groups.len()));
            }
            regex.is_match_at_start(&text);
        }
    }
}
