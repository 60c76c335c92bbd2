//! What `modify` does to records; the expected ones are what Fluent Bit 5.1.1 answered.

use crate::config::Level;
use crate::filters::testing::{build, expect, findings, run};

const RECORD: &str = r#"{"a":1,"b":"two","k1":1,"k2":2,"z":true}"#;
const SAME: &str = r#"{"a"=>1, "b"=>"two", "k1"=>1, "k2"=>2, "z"=>true}"#;
const TWICE: &str = r#"{"a":1,"b":2,"a":3,"k1":1,"k1":2}"#;

fn expect_one(lines: &[&str], record: &str, want: &str) {
    expect("modify", lines, &[(record, want)]);
}

#[test]
fn set_add_remove_rename_and_copy_respect_what_is_there() {
    expect(
        "modify",
        &[
            "Set s new",
            "Add a ignored",
            "Add fresh 1",
            "Remove gone",
            "Rename r renamed",
            "Rename r2 a",
            "Copy c copied",
            "Copy c a",
            "Rename missing nothing",
        ],
        &[
            (
                r#"{"s":"old","a":"old","gone":1,"r":[1],"r2":2,"c":{"x":1}}"#,
                r#"{"a"=>"old", "renamed"=>[1], "r2"=>2, "c"=>{"x"=>1}, "copied"=>{"x"=>1}, "s"=>"new", "fresh"=>"1"}"#,
            ),
            (
                r#"{"log":"none of them"}"#,
                r#"{"log"=>"none of them", "s"=>"new", "a"=>"ignored", "fresh"=>"1"}"#,
            ),
        ],
    );
}

#[test]
fn rules_apply_in_the_order_written_and_see_what_was_done_before() {
    expect_one(
        &["Rename a b", "Rename b c", "Set b again", "Copy c d", "Remove c", "Add c last"],
        r#"{"a":"start"}"#,
        r#"{"d"=>"start", "b"=>"again", "c"=>"last"}"#,
    );
}

#[test]
fn rename_and_copy_leave_an_existing_target_alone_and_their_hard_forms_replace_it() {
    let record = r#"{"a":1,"b":2}"#;
    expect_one(&["Rename a b"], record, r#"{"a"=>1, "b"=>2}"#);
    expect_one(&["Hard_rename a b"], record, r#"{"b"=>1}"#);
    expect_one(&["Copy a c"], record, r#"{"a"=>1, "c"=>1, "b"=>2}"#);
    expect_one(&["Copy a b"], record, r#"{"a"=>1, "b"=>2}"#);
    expect_one(&["Hard_copy b a"], record, r#"{"b"=>2, "a"=>2}"#);
    expect_one(&["Set a x"], record, r#"{"b"=>2, "a"=>"x"}"#);
    expect_one(
        &["Set a x", "Hard_rename k1 b", "Hard_copy b k2"],
        RECORD,
        r#"{"b"=>1, "k2"=>1, "z"=>true, "a"=>"x"}"#,
    );
    expect_one(&["Rename a a", "Copy a a", "Hard_copy b b", "Hard_rename z z"], RECORD, SAME);
}

#[test]
fn keys_are_removed_and_moved_by_their_beginning_or_a_pattern() {
    let without = r#"{"a"=>1, "b"=>"two", "z"=>true}"#;
    expect_one(&["Remove_wildcard k"], RECORD, without);
    expect_one(&["Remove_regex ^k\\d"], RECORD, without);
    expect_one(&["Move_to_start k"], RECORD, r#"{"k1"=>1, "k2"=>2, "a"=>1, "b"=>"two", "z"=>true}"#);
    expect_one(&["Move_to_end k"], RECORD, r#"{"a"=>1, "b"=>"two", "z"=>true, "k1"=>1, "k2"=>2}"#);
    expect_one(&["Move_to_start a", "Move_to_end z", "Move_to_end none", "Remove A"], RECORD, SAME);
    expect_one(&["Remove_regex ."], r#"{"int:5":1,"x":2,"":3}"#, r#"{5=>1, ""=>3}"#);
    expect_one(&["Remove a"], r#"{"a":1}"#, "{}");
}

#[test]
fn a_star_after_a_prefix_is_left_out_with_a_warning() {
    for line in ["Remove_wildcard k*", "Move_to_end k*"] {
        assert!(findings("modify", &[line], Level::Warning)[0].contains("star"));
    }
    let filter = build("modify", &["Remove_wildcard k*"]).0.unwrap();
    assert_eq!(run(&filter, r#"{"k1":1,"x":2}"#), r#"{"x"=>2}"#);
}

#[test]
fn keys_that_occur_twice_are_handled_as_in_fluent_bit() {
    expect_one(&["Rename a c"], TWICE, r#"{"c"=>1, "b"=>2, "c"=>3, "k1"=>1, "k1"=>2}"#);
    expect_one(&["Hard_rename a b"], TWICE, r#"{"b"=>1, "b"=>3, "k1"=>1, "k1"=>2}"#);
    let same = r#"{"a"=>1, "b"=>2, "a"=>3, "k1"=>1, "k1"=>2}"#;
    expect_one(&["Copy a c"], TWICE, same);
    expect_one(&["Hard_copy a b"], TWICE, same);
    expect_one(&["Set a x"], TWICE, r#"{"b"=>2, "k1"=>1, "k1"=>2, "a"=>"x"}"#);
    expect_one(&["Remove k1"], TWICE, r#"{"a"=>1, "b"=>2, "a"=>3}"#);
    expect_one(&["Move_to_end a"], TWICE, r#"{"b"=>2, "k1"=>1, "k1"=>2, "a"=>1, "a"=>3}"#);
}

#[test]
fn quotes_hold_keys_and_values_together() {
    expect_one(
        &[r#"Add "a key" "a  value""#, r#"Rename "old key" new"#, r#"Set plain "x""#, "Set s 'a b'"],
        r#"{"old key":1}"#,
        r#"{"new"=>1, "a key"=>"a  value", "plain"=>"x", "s"=>"a b"}"#,
    );
}

/// Whether a record with `{"a":1,"b":"two","k1":"1","k2":2,"z":true,"m":{"x":"1"},"n":bin abc}` meets the condition.
fn holds(condition: &str) -> bool {
    let line = format!("Condition {condition}");
    let filter = build("modify", &[&line, "Set done 1"]).0.unwrap();
    let record = r#"{"a":1,"b":"two","k1":"1","k2":2,"z":true,"m":{"x":"1"},"n":{"$bin":"abc"}}"#;
    run(&filter, record).contains("done")
}

#[test]
fn every_condition_holds_when_fluent_bits_does() {
    for (condition, want) in [
        ("key_exists a", true),
        ("Key_Exists 'k1'", true),
        ("key_exists $m['x']", true),
        ("key_exists m['x']", false),
        ("key_exists m.x", false),
        ("key_exists $m.x", true),
        ("key_exists (", false),
        ("key_does_not_exist $m['y']", true),
        ("key_does_not_exist a", false),
        ("a_key_matches 1$", true),
        ("a_key_matches ^1", false),
        ("no_key_matches ^1", true),
        ("key_value_equals b two", true),
        ("key_value_equals n abc", true),
        ("key_value_equals k2 2", false),
        ("key_value_equals z true", false),
        ("key_value_equals $m['x'] 1", true),
        ("key_value_does_not_equal b two", false),
        ("key_value_does_not_equal a x", true),
        ("key_value_does_not_equal m x", true),
        ("key_value_does_not_equal missing x", false),
        ("key_value_matches b 't.o'", true),
        ("key_value_matches z true", true),
        ("key_value_matches z TRUE", false),
        ("key_value_matches k2 2", false),
        ("key_value_matches n abc", false),
        ("key_value_does_not_match a 5", true),
        ("key_value_does_not_match z fal", true),
        ("key_value_does_not_match m x", true),
        ("key_value_does_not_match missing x", false),
        ("matching_keys_have_matching_values ^k \\d", false),
        ("matching_keys_have_matching_values ^k1 \\d", true),
        ("matching_keys_have_matching_values ^q \\d", true),
        ("matching_keys_have_matching_values ^z true", true),
        ("matching_keys_do_not_have_matching_values ^k x", true),
        ("matching_keys_do_not_have_matching_values ^k \\d", true),
        ("matching_keys_do_not_have_matching_values ^k1 1", false),
        ("matching_keys_do_not_have_matching_values ^q 1", false),
    ] {
        assert_eq!(holds(condition), want, "{condition}");
    }
}

#[test]
fn conditions_are_judged_once_on_the_record_as_it_came() {
    expect_one(&["Set c 1", "Condition key_exists c", "Set d 1"], r#"{"a":1}"#, r#"{"a"=>1}"#);
    expect_one(&["Condition key_exists a", "Remove a", "Set d 1"], r#"{"a":1}"#, r#"{"d"=>"1"}"#);
    expect_one(&["Condition key_exists a", "Condition key_exists b", "Set d 1"], r#"{"a":1}"#, r#"{"a"=>1}"#);
}

#[test]
fn what_fluent_bit_refuses_is_refused_with_the_reason() {
    for (line, reason) in [
        ("Set a", "takes two words, not 1"),
        ("Set a b c d", "takes two words, not 4"),
        ("Rename a", "takes two words"),
        ("Remove a b", "takes one word, not 2"),
        ("Remove_regex k\\d x", "takes one word"),
        ("Remove_regex (x", "bad regex \"(x\""),
        ("Set a \"b", "not closed"),
        ("Condition foo b", "unknown condition \"foo\""),
        ("Condition key_exist b", "did you mean \"key_exists\""),
        ("Condition key_value_equals b two extra", "takes two words"),
        ("Condition key_value_matches b", "takes two words after its name, not 1"),
        ("Condition key_value_matches b (", "bad regex"),
        ("Condition no_key_matches (", "bad regex"),
        ("Condition key_exists $a['", "not closed"),
    ] {
        let errors = findings("modify", &[line], Level::Error);
        assert!(errors.len() == 1 && errors[0].contains(reason), "{line}: {errors:?}");
    }
}

#[test]
fn what_fluent_bit_starts_with_all_the_same_is_a_finding() {
    for (line, reason) in [
        ("Add m hello world", "the rule is skipped"),
        ("Condition key_exists a b", "the last word is ignored"),
        ("Condition key_exists", "taken as empty"),
        ("Condition a_key_matches", "taken as empty"),
        ("Condition key_value_equals b", "taken as empty"),
        ("Condition key_exists $m.x", ".x"),
    ] {
        let (filter, found) = build("modify", &[line]);
        assert!(filter.is_some(), "{line}");
        assert!(found.len() == 1 && found[0].0 == Level::Strict && found[0].1.contains(reason), "{found:?}");
    }
    assert!(!holds("key_exists") && !holds("a_key_matches") && holds("no_key_matches"));
    assert!(holds("key_value_does_not_equal b"));
}
