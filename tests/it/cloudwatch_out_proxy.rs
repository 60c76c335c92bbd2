//! The CloudWatch Logs output behind an HTTP proxy: names that only the proxy knows, tunnels for TLS, and what is never
//! asked through one.

use crate::strict_cloudwatch::{CloudWatch, Options, TOKEN};
use crate::support::cloudwatch::{
    LETTERS, NAMES, Sender, conf, directory, environment, key, letters, line, stop,
};
use crate::support::proxy::Proxy;
use crate::support::router::Router;

/// `user:p@ss`
const USER: &str = "dXNlcjpwQHNz";

fn through(vars: &[(&'static str, String)], aws: &CloudWatch, endpoint: &str, lines: &str) -> Router {
    let lines = format!("{NAMES}\nlog_key log\nendpoint {endpoint}\n{lines}");
    Router::start_with(directory(), &conf(aws, LETTERS, &lines), &[&key()[..], vars].concat())
}

#[test]
fn calls_with_tls_go_through_a_tunnel_to_a_name_that_the_proxy_alone_knows() {
    let aws = CloudWatch::start_with(Options { tls: true, ..Options::default() });
    let proxy = Proxy::to(aws.port(), Some(USER));
    // Fluent Bit knows HTTP_PROXY alone, and uses it for TLS as well.
    for var in ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy"] {
        let address = format!("http://user:p%40ss@127.0.0.1:{}", proxy.port());
        let lines = "tls.ca_file {dir}/ca.pem\ntls.vhost localhost\nnet.keepalive_max_recycle 2";
        let router = through(&[(var, address)], &aws, "https://logs.test", lines);
        let mut client = Sender::new(&router);
        (0..5).for_each(|n| client.deliver("app", &[line(&n.to_string())]));
        let ended = stop(router);
        assert!(!ended.messages.contains("p%40ss") && !ended.messages.contains(USER), "{}", ended.messages);
    }
    assert_eq!(aws.stored(), 15);
    let asked = proxy.asked();
    assert!(
        asked.len() >= 9 && asked.iter().all(|line| line == "CONNECT logs.test:443 HTTP/1.1"),
        "{asked:?}"
    );
}

#[test]
fn calls_without_tls_are_sent_to_the_proxy_with_their_whole_address() {
    let aws = CloudWatch::start();
    let proxy = Proxy::to(aws.port(), Some(USER));
    let address = format!("http://user:p%40ss@127.0.0.1:{}", proxy.port());
    let router = through(&[("HTTP_PROXY", address)], &aws, "http://logs.test:8080", "net.keepalive off");
    let mut client = Sender::new(&router);
    (0..3).for_each(|n| client.deliver("app", &[line(&n.to_string())]));
    let ended = stop(router);
    assert_eq!(aws.messages("g", "s"), ["0", "1", "2"], "{}", ended.messages);
    let asked = proxy.asked();
    assert!(asked.iter().all(|line| line == "POST http://logs.test:8080/ HTTP/1.1"), "{asked:?}");
}

#[test]
fn what_is_exempt_and_credentials_of_this_machine_are_asked_directly() {
    let aws = CloudWatch::start();
    let proxy = Proxy::to(aws.port(), None);
    let address = || format!("http://127.0.0.1:{}", proxy.port());
    let container = environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", aws.credentials_uri()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN.to_owned()),
    ]);
    let endpoint = format!("http://localhost:{}", aws.port());
    for (vars, lines) in [
        // The machine itself, whatever NO_PROXY says.
        (vec![("HTTP_PROXY", address()), ("NO_PROXY", String::new())], ""),
        (vec![("HTTP_PROXY", "http://127.0.0.1:1".to_owned())], "net.proxy_env_ignore on"),
    ] {
        let lines = format!("{NAMES}\nlog_key log\nendpoint {endpoint}\n{lines}");
        let vars = [&container[..], &vars].concat();
        let router = Router::start_with(directory(), &conf(&aws, LETTERS, &lines), &vars);
        Sender::new(&router).deliver("app", &[line("a")]);
        stop(router);
    }
    assert_eq!((aws.stored(), aws.identity().container, proxy.asked().len()), (2, 2, 0));
}

#[test]
fn a_proxy_that_refuses_costs_no_record_and_the_log_says_what_to_do() {
    let aws = CloudWatch::start_with(Options { tls: true, ..Options::default() });
    let proxy = Proxy::to(aws.port(), Some(USER));
    let address = format!("http://127.0.0.1:{}", proxy.port());
    let router = through(
        &[("HTTPS_PROXY", address)],
        &aws,
        "https://logs.test",
        "Retry_Limit no_retries\ntls.verify off",
    );
    Sender::new(&router).deliver("app", &[line("a")]);
    let ended = stop(router);
    assert!(ended.messages.contains("407 Who are you?; put user and password"), "{}", ended.messages);
    assert_eq!(letters(ended.dir.path()), [("retries".to_owned(), "a".to_owned())]);
}
