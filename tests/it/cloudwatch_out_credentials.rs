//! Who the CloudWatch Logs output is: AWS's chain, roles, and what happens when credentials end.

use std::fs;
use std::time::Duration;

use crate::strict_cloudwatch::{Answer, CloudWatch, KEY, Options, Rule, TOKEN};
use crate::support::cloudwatch::{
    LETTERS, NAMES, Sender, conf, conf_of, directory, environment, key, letters, line, plain, stop,
};
use crate::support::eventually;
use crate::support::router::Router;

/// A router whose credentials come from the container endpoint.
fn in_a_container(aws: &CloudWatch, lines: &str) -> Router {
    let env = environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", aws.credentials_uri()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN.to_owned()),
    ]);
    Router::start_with(directory(), &conf(aws, LETTERS, &format!("{NAMES}\nlog_key log\n{lines}")), &env)
}

#[test]
fn credentials_of_the_container_endpoint_are_asked_for_once() {
    let aws = CloudWatch::start();
    let router = in_a_container(&aws, "");
    let mut client = Sender::new(&router);
    (0..20).for_each(|i| client.deliver("app", &[line(&i.to_string())]));
    assert_eq!((aws.identity().container, aws.stored()), (1, 20));
    assert!(aws.calls("PutLogEvents").iter().all(|c| c.key.starts_with("ASIA")));
    stop(router);
}

#[test]
fn credentials_that_end_are_renewed_and_no_record_is_lost_or_counted_as_failed() {
    let aws = CloudWatch::start_with(Options { lifetime: Duration::from_secs(3), ..Options::default() });
    let router = in_a_container(&aws, "Retry_Limit no_retries");
    let mut client = Sender::new(&router);
    let mut sent = 0;
    eventually("credentials are renewed", || {
        client.deliver("app", &[line(&sent.to_string())]);
        sent += 1;
        (aws.identity().container >= 3).then_some(())
    });
    assert_eq!(aws.messages("g", "s"), (0..sent).map(|i| i.to_string()).collect::<Vec<_>>());
    let ended = stop(router);
    assert!(letters(ended.dir.path()).is_empty());
}

#[test]
fn credentials_that_the_service_does_not_take_any_more_are_asked_for_anew() {
    for answer in [Answer::EXPIRED, Answer::UNRECOGNIZED] {
        let aws = CloudWatch::start();
        let router = in_a_container(&aws, "Retry_Limit no_retries");
        let mut client = Sender::new(&router);
        client.deliver("app", &[line("0")]);
        // Until it comes with others.
        let old = aws.calls("PutLogEvents").pop().unwrap().key;
        aws.with(|store| store.keys.remove(&old));
        aws.fault(Rule::put(answer).times(1));
        client.deliver("app", &[line("1")]);
        let last = aws.calls("PutLogEvents").pop().unwrap();
        assert!(last.key != old && last.outcome == "ok", "{last:?}");
        assert_eq!(aws.messages("g", "s"), ["0", "1"]);
        let ended = stop(router);
        assert!(letters(ended.dir.path()).is_empty());
    }
}

#[test]
fn a_container_endpoint_in_trouble_costs_no_record() {
    let aws = CloudWatch::start();
    aws.with(|store| store.identity.failing = 6);
    let router = in_a_container(&aws, "Retry_Limit no_retries");
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &[line("0")], "1");
    router.says("redentials");
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), ["0"]);
    stop(router);
}

#[test]
fn a_role_that_may_not_be_taken_on_is_told_and_costs_no_record() {
    let aws = CloudWatch::start();
    aws.with(|store| store.keys.get_mut(KEY.0).unwrap().allowed = false);
    let lines = format!(
        "{NAMES}\nlog_key log\nRetry_Limit no_retries\nrole_arn arn:aws:iam::1:role/r\nsts_endpoint {}",
        aws.endpoint()
    );
    let router = Router::start_with(directory(), &conf(&aws, LETTERS, &lines), &key());
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &[line("0")], "1");
    router.says("cannot send");
    aws.with(|store| store.keys.get_mut(KEY.0).unwrap().allowed = true);
    client.expect("1");
    let ended = stop(router);
    assert!(ended.messages.contains("AccessDenied"), "{}", ended.messages);
}

#[test]
fn without_permission_records_wait_and_the_log_says_why() {
    let aws = CloudWatch::start();
    aws.with(|store| store.keys.get_mut(KEY.0).unwrap().allowed = false);
    let router = plain(&aws, "log_key log\nRetry_Limit no_retries");
    let mut client = Sender::new(&router);
    client.send_to_ack("app", &[line("a")], "1");
    router.says("AccessDeniedException");
    aws.with(|store| store.keys.get_mut(KEY.0).unwrap().allowed = true);
    client.expect("1");
    assert_eq!(aws.messages("g", "s"), ["a"]);
    stop(router);
}

#[test]
fn without_any_credentials_records_wait_and_the_log_says_so() {
    let aws = CloudWatch::start();
    let dir = directory();
    let router = Router::start_with(dir, &conf(&aws, "Grace 2", NAMES), &environment(&[]));
    let mut client = Sender::new(&router);
    client.send("app", &[line("a")]);
    router.says("redentials");
    let ended = router.stop();
    assert_eq!((ended.code, aws.calls("PutLogEvents").len()), (Some(1), 0));
    assert_eq!(ended.ledger.output("cloudwatch_logs.0", "dropped_shutdown"), 1);
}

#[test]
fn a_role_is_taken_on_with_its_external_id() {
    let aws = CloudWatch::start();
    let role = "arn:aws:iam::111122223333:role/logs";
    let lines = format!("{NAMES}\nrole_arn {role}\nexternal_id abc-1\nsts_endpoint {}", aws.endpoint());
    let router = Router::start_with(directory(), &conf(&aws, LETTERS, &lines), &key());
    let mut client = Sender::new(&router);
    (0..5).for_each(|i| client.deliver("app", &[line(&i.to_string())]));
    assert_eq!(aws.identity().roles, [(role.to_owned(), "abc-1".to_owned())]);
    assert!(aws.calls("PutLogEvents").iter().all(|c| c.key.starts_with("ASIA")));
    stop(router);
}

#[test]
fn a_role_ends_and_is_taken_on_again() {
    let aws = CloudWatch::start_with(Options { lifetime: Duration::from_secs(2), ..Options::default() });
    let lines =
        format!("{NAMES}\nlog_key log\nrole_arn arn:aws:iam::1:role/r\nsts_endpoint {}", aws.endpoint());
    let router = Router::start_with(directory(), &conf(&aws, LETTERS, &lines), &key());
    let mut client = Sender::new(&router);
    let mut sent = 0;
    eventually("the role is taken on again", || {
        client.deliver("app", &[line(&sent.to_string())]);
        sent += 1;
        (aws.identity().roles.len() >= 2).then_some(())
    });
    assert_eq!(aws.stored(), sent);
    stop(router);
}

#[test]
fn a_profile_of_the_shared_file_is_used() {
    let aws = CloudWatch::start();
    let dir = directory();
    let file = dir.path().join("credentials");
    let other = "[default]\naws_access_key_id = X\naws_secret_access_key = y\n";
    let ours = format!("[mine]\naws_access_key_id = {}\naws_secret_access_key = {}\n", KEY.0, KEY.1);
    fs::write(&file, format!("{other}{ours}")).unwrap();
    let env = environment(&[("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap().to_owned())]);
    let router = Router::start_with(dir, &conf(&aws, LETTERS, &format!("{NAMES}\nprofile mine")), &env);
    Sender::new(&router).deliver("app", &[line("a")]);
    assert_eq!(aws.calls("PutLogEvents").last().unwrap().key, KEY.0);
    stop(router);
}

#[test]
fn the_go_plugins_own_credentials_endpoint_is_asked() {
    let aws = CloudWatch::start();
    let lines = format!("{NAMES}\ncredentials_endpoint {}", aws.credentials_uri());
    let env = environment(&[("AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN.to_owned())]);
    let router = Router::start_with(directory(), &conf_of("cloudwatch", &aws, LETTERS, &lines), &env);
    let mut client = Sender::new(&router);
    (0..3).for_each(|i| client.deliver("app", &[line(&i.to_string())]));
    assert_eq!((aws.identity().container, aws.stored()), (1, 3));
    stop(router);
}

#[test]
fn an_instance_gives_credentials_to_who_opens_a_session_first() {
    let aws = CloudWatch::start();
    let mut env = environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.endpoint())]);
    env.retain(|(name, _)| *name != "AWS_EC2_METADATA_DISABLED");
    let router = Router::start_with(directory(), &conf(&aws, LETTERS, NAMES), &env);
    let mut client = Sender::new(&router);
    (0..3).for_each(|i| client.deliver("app", &[line(&i.to_string())]));
    let asked = aws.identity().instance;
    assert_eq!(asked.first().map(String::as_str), Some("PUT /latest/api/token"), "{asked:?}");
    assert_eq!(asked.iter().filter(|a| a.ends_with("/instance-role")).count(), 1, "{asked:?}");
    assert!(aws.calls("PutLogEvents").iter().all(|c| c.key.starts_with("ASIA")));
    assert_eq!(aws.stored(), 3);
    stop(router);
}

#[test]
fn a_web_identity_takes_on_its_role_and_is_read_anew_when_the_role_ends() {
    let aws = CloudWatch::start_with(Options { lifetime: Duration::from_secs(2), ..Options::default() });
    let dir = directory();
    let token = dir.path().join("token");
    fs::write(&token, "first").unwrap();
    let role = "arn:aws:iam::111122223333:role/of-the-pod";
    let env = environment(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap().to_owned()),
        ("AWS_ROLE_ARN", role.to_owned()),
        ("AWS_ENDPOINT_URL_STS", aws.endpoint()),
    ]);
    let router = Router::start_with(dir, &conf(&aws, LETTERS, NAMES), &env);
    let mut client = Sender::new(&router);
    client.deliver("app", &[line("0")]);
    fs::write(&token, "second").unwrap();
    let mut sent = 1;
    let asked = eventually("the role is taken on again", || {
        client.deliver("app", &[line(&sent.to_string())]);
        sent += 1;
        let asked = aws.identity().web;
        (asked.len() >= 2).then_some(asked)
    });
    assert_eq!(asked[0], (role.to_owned(), "first".to_owned()));
    assert_eq!(asked[1], (role.to_owned(), "second".to_owned()));
    assert_eq!(aws.stored(), sent);
    stop(router);
}
