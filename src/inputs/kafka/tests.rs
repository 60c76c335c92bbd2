//! What sections of the input are built and refused.

use super::*;
use crate::inputs::testing::settings;
use crate::text::Library;

fn built(keys: &[(&str, &str)]) -> (bool, String) {
    let mut diags = Diagnostics::new();
    let library = Library::default();
    let input = build(&settings(&KIND.info, keys), &BuildContext { library: &library }, &mut diags);
    (input.is_some(), diags.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn keys_are_checked_before_anything_is_opened() {
    assert_eq!(built(&[("topics", "a,^b.*")]), (true, String::new()));
    assert_eq!(built(&[("topics", "a"), ("buffer_max_size", "64K")]), (true, String::new()));
    let iam = "arn:aws:kafka:eu-west-1:1:cluster/x/y";
    let all = [("topics", "a"), ("format", "json"), ("payload_only", "on"), ("aws_msk_iam_cluster_arn", iam)];
    assert_eq!(built(&all), (true, String::new()));
    for (keys, words) in [
        (vec![], "topics is not set"),
        (vec![("topics", "a"), ("format", "xml")], "unknown format \"xml\""),
        (vec![("topics", "a"), ("payload_only", "on")], "needs format json"),
        (vec![("topics", "a"), ("buffer_max_size", "1K")], "between 64K and 1G"),
        (
            vec![("topics", "a"), ("rdkafka.nope", "1")],
            "test.conf:3: [INPUT] kafka: No such configuration property",
        ),
        (vec![("topics", "a"), ("rdkafka.session.timeout.ms", "900000")], "max.poll.interval.ms"),
    ] {
        let (good, said) = built(&keys);
        assert!(!good && said.contains(words), "{keys:?}: {said}");
    }
    let (good, said) = built(&[("topics", "a"), ("rdkafka.enable.auto.commit", "false")]);
    assert!(good && said.contains("enable.auto.commit is true whatever is set"), "{said}");
}

#[test]
fn many_inputs_leave_room_for_what_they_read() {
    let budget = Budget::new(32 << 20);
    let mut charges = Vec::new();
    for _ in 0..20 {
        charges.push(budget.take(share(&budget, 4_000_000)));
    }
    let taken: Vec<u64> = charges.iter().map(crate::rt::Charge::bytes).collect();
    assert_eq!((taken[0], taken[1], taken[19]), (4_000_000, 4_000_000, LEAST));
    assert!(budget.used() < budget.source_limit() * 3 / 4, "{taken:?}");
}
