//! Everything that a task wants, from a service of this test's own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_credential_types::Credentials;
use serde_json::json;

use super::*;
use crate::agent::definition::{
    ContainerDefinition, FirelensConfiguration, LogConfiguration, Secret as Named,
};

const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:db-AbCdEf";

/// What was asked: the request line and headers, and the body.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// Answers every request on a connection of its own; `None` is silence.
fn service(answer: impl Fn(&str, &str, usize) -> Option<(u16, String)> + Send + 'static) -> (Api, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (head, body) = request(&mut stream);
            let n = seen.lock().unwrap().len();
            seen.lock().unwrap().push((head.clone(), body.clone()));
            match answer(&head, &body, n) {
                None => silent.push(stream),
                Some((status, text)) => {
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        text.len()
                    );
                    // Who reads less than everything may be gone.
                    let _ =
                        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
                }
            }
        }
    });
    let endpoints = Endpoints::read(&[url], |_| None).unwrap();
    let who = Credentials::new("AKID", "no secret", Some("session".to_owned()), None, "test");
    (Api::with(who, endpoints, Duration::from_secs(20)), asked)
}

fn request(stream: &mut TcpStream) -> (String, String) {
    let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return (head.to_owned(), body.to_owned());
            }
        }
        let n = stream.read(&mut part).unwrap();
        assert!(n > 0, "the request ends in {text:?}");
        bytes.extend_from_slice(&part[..n]);
    }
}

fn named(name: &str, value_from: &str) -> Named {
    Named { name: name.to_owned(), value_from: value_from.to_owned() }
}

fn task(secrets: Vec<Named>) -> TaskDefinition {
    let app = ContainerDefinition { name: "app".to_owned(), secrets, ..Default::default() };
    TaskDefinition { container_definitions: vec![app], ..Default::default() }
}

fn choices() -> Choices {
    Choices { region: "us-east-1".to_owned(), account: "111122223333".to_owned(), ..Default::default() }
}

async fn get(api: &Api, definition: &TaskDefinition) -> Result<Fetched, String> {
    let wanted = Wanted::of(definition, &choices());
    let mut fetched = Fetched::default();
    everything(api, &wanted, "us-east-1", &mut fetched).await.map_err(|e| e.to_string())?;
    Ok(fetched)
}

fn secret(text: &str) -> Option<(u16, String)> {
    Some((200, json!({ "ARN": ARN, "SecretString": text }).to_string()))
}

#[tokio::test]
async fn a_secret_is_asked_for_once_in_its_own_region_whoever_wants_what_of_it() {
    let (api, asked) = service(|_, _, _| secret(r#"{"user":"shop","port":5432,"a":{"b":[1]}}"#));
    let key = |key: &str| format!("{ARN}:{key}::");
    let mut definition =
        task(vec![named("USER", &key("user")), named("PORT", &key("port")), named("A", &key("a"))]);
    definition.container_definitions.push(ContainerDefinition {
        log_configuration: Some(LogConfiguration {
            secret_options: vec![named("all", ARN), named("user", &key("user"))],
            ..Default::default()
        }),
        ..Default::default()
    });
    let fetched = get(&api, &definition).await.unwrap();
    let value = |from: &str| fetched.secrets[from].as_str();
    assert_eq!((value(&key("user")), value(&key("port")), value(&key("a"))), ("shop", "5432", "map[b:[1]]"));
    assert!(value(ARN).starts_with("{\"user\""));
    assert!(!format!("{fetched:?}").contains("shop"), "{fetched:?}");
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    let (head, body) = &asked[0];
    assert_eq!(body, &json!({ "SecretId": ARN }).to_string());
    assert!(head.contains("x-amz-target: secretsmanager.GetSecretValue"), "{head}");
    assert!(head.contains("/eu-west-1/secretsmanager/aws4_request"), "{head}");
    assert!(head.contains("x-amz-security-token: session"), "{head}");
}

#[tokio::test]
async fn parameters_are_asked_for_ten_at_a_time_and_once_more_by_arn() {
    let (api, asked) = service(|_, body, _| {
        let names = serde_json::from_str::<Value>(body).unwrap()["Names"].clone();
        let known = names.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).filter(|n| *n != "shared");
        let found = known.map(|name| match name.starts_with("arn:") {
            true => json!({ "Name": "/shared", "ARN": name, "Value": "by arn" }),
            false => {
                let (name, selector) =
                    name.split_once(':').map_or((name, String::new()), |(n, s)| (n, format!(":{s}")));
                json!({ "Name": name, "Selector": selector, "Value": format!("value of {name}{selector}") })
            }
        });
        Some((200, json!({ "Parameters": found.collect::<Vec<_>>() }).to_string()))
    });
    let shared = "arn:aws:ssm:us-east-1:999988887777:parameter/shared";
    let mut secrets: Vec<_> = (0..11).map(|n| named(&format!("P{n}"), &format!("/p/{n}"))).collect();
    secrets.extend([named("OLD", "/p/0:3"), named("SHARED", shared), named("AGAIN", "/p/0")]);
    let fetched = get(&api, &task(secrets)).await.unwrap();
    assert_eq!(fetched.secrets["/p/0"], "value of /p/0");
    assert_eq!(fetched.secrets["/p/0:3"], "value of /p/0:3");
    assert_eq!(fetched.secrets[shared], "by arn");
    assert_eq!((fetched.secrets.len(), asked.lock().unwrap().len()), (13, 3));
    let (api, _) =
        service(|_, _, _| Some((200, r#"{"Parameters":[],"InvalidParameters":["/none"]}"#.into())));
    let e = get(&api, &task(vec![named("N", "/none")])).await.unwrap_err();
    assert!(
        e.contains("from ssm")
            && e.contains("in us-east-1: invalid parameters: /none (for container app as N;"),
        "{e}"
    );
}

#[tokio::test]
async fn a_service_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let (api, asked) = service(|_, _, n| match n {
        0 => Some((400, r#"{"__type":"ThrottlingException","message":"slowly"}"#.into())),
        1 => Some((500, r#"{"__type":"InternalServiceError"}"#.into())),
        _ => secret("s"),
    });
    assert_eq!(get(&api, &task(vec![named("S", ARN)])).await.unwrap().secrets[ARN], "s");
    assert_eq!(asked.lock().unwrap().len(), 3);
    let refusal = r#"{"__type":"com.amazonaws#AccessDeniedException","Message":"you may not"}"#;
    let (api, asked) = service(move |_, _, _| Some((400, refusal.into())));
    let e = get(&api, &task(vec![named("S", ARN), named("T", ARN)])).await.unwrap_err();
    assert_eq!(
        e,
        format!(
            "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: \
             unable to retrieve secret from asm: service call has been retried 1 time(s): secret {ARN}: \
             AccessDeniedException: you may not (for container app as S, for container app as T; --secret S=VALUE stands \
             in for it)"
        )
    );
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_silent_service_ends_with_the_time_for_all() {
    let (mut api, _) = service(|_, _, _| None);
    api.hurry(Duration::from_millis(50));
    let e = get(&api, &task(vec![named("S", ARN)])).await.unwrap_err();
    assert!(e.contains("no answer from http://127.0.0.1:"), "{e}");
}

#[tokio::test]
async fn a_value_is_in_no_message() {
    for (text, key, what) in [
        ("pass-w0rd", "k", "is no JSON object, and json key k is wanted of it"),
        (r#"{"other":"pass-w0rd"}"#, "k", "did not contain json key k"),
    ] {
        let (api, _) = service(move |_, _, _| secret(text));
        let e = get(&api, &task(vec![named("S", &format!("{ARN}:{key}::"))])).await.unwrap_err();
        assert!(e.contains(what) && !e.contains("pass-w0rd"), "{e}");
    }
    let (api, _) = service(|_, _, _| Some((200, json!({ "SecretBinary": "cGFzcw==" }).to_string())));
    let e = get(&api, &task(vec![named("S", ARN)])).await.unwrap_err();
    assert!(e.contains("it has no SecretString") && !e.contains("cGFzcw"), "{e}");
}

#[tokio::test]
async fn files_are_got_by_paths_that_are_encoded_once() {
    let (api, asked) = service(|head, _, _| match head.lines().next().unwrap_or_default() {
        "GET /b/a%20b/first.env HTTP/1.1" => Some((200, "A=1\nB=1".into())),
        "GET /b/second.env HTTP/1.1" => Some((200, "B=2\nC=2".into())),
        "GET /b/big.conf HTTP/1.1" => Some((200, "x".repeat((1 << 20) + 1))),
        _ => Some((
            404,
            "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>none</Message></Error>".into(),
        )),
    });
    let files = |names: &[&str]| names.iter().map(|n| format!("arn:aws:s3:::b/{n}")).collect::<Vec<_>>();
    let mut definition = task(Vec::new());
    definition.container_definitions[0].environment_files = files(&["a b/first.env", "second.env"]);
    let fetched = get(&api, &definition).await.unwrap();
    let pairs: Vec<_> = fetched.environment["app"].iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(pairs, ["A=1", "B=1", "C=2"]);
    assert!(asked.lock().unwrap()[0].0.contains("x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb924"));
    definition.container_definitions[0].environment_files = files(&["none.env"]);
    let value = "arn:aws:s3:::b/big.conf".to_owned();
    let options = [("config-file-type".to_owned(), "s3".to_owned()), ("config-file-value".to_owned(), value)];
    definition.container_definitions.push(ContainerDefinition {
        firelens_configuration: Some(FirelensConfiguration {
            r#type: "fluentbit".to_owned(),
            options: options.into(),
        }),
        ..Default::default()
    });
    let e = get(&api, &definition).await.unwrap_err();
    for what in [
        "failed to download env files: unable to download env file with key none.env from bucket b, error: NoSuchKey: none \
         (for container app)",
        "unable to download firelens s3 config file: unable to download s3 config big.conf from bucket b: the answer has \
         1048577 bytes, and at most 1 MiB is read",
    ] {
        assert!(e.contains(what), "{e}");
    }
}

#[tokio::test]
async fn a_registrys_user_goes_to_the_container_and_is_not_asked_for_by_processes() {
    let (api, asked) = service(|_, _, _| secret(r#"{"Username":"u","password":"pass-w0rd"}"#));
    let mut definition = task(Vec::new());
    definition.container_definitions[0].repository_credentials = Some(ARN.to_owned());
    let fetched = get(&api, &definition).await.unwrap();
    let registry = &fetched.registry["app"];
    assert_eq!((registry.username.as_str(), registry.password.as_str()), ("u", "pass-w0rd"));
    assert!(!format!("{registry:?}").contains("pass-w0rd"));
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert!(Wanted::of(&definition, &Choices { process: true, ..choices() }).is_empty());
    let (api, _) = service(|_, _, _| secret(r#"{"username":"u","pass":"pass-w0rd"}"#));
    let e = get(&api, &definition).await.unwrap_err();
    assert!(e.contains("AuthorizationData is malformed, empty field (for container app)"), "{e}");
    let by_hand = [(ARN.to_owned(), r#"{"username":"u","password":"p"}"#.to_owned())];
    let given = Choices { secrets: by_hand.into(), ..choices() };
    let fetched = fetch(&definition, &given, &Settings::default()).await.unwrap();
    assert_eq!(fetched.registry["app"].password, "p");
}

#[tokio::test]
async fn what_is_given_is_not_asked_for_and_nothing_needs_no_credentials() {
    let given = Choices { secrets: [("S".to_owned(), "s".to_owned())].into(), ..choices() };
    let fetched = fetch(&task(vec![named("S", "anything")]), &given, &Settings::default()).await.unwrap();
    assert!(fetched.secrets.is_empty());
    let settings = Settings { assume_execution_role: true, ..Settings::default() };
    let e = fetch(&task(vec![named("S", "x")]), &choices(), &settings).await.unwrap_err();
    assert!(e.text.contains("needs executionRoleArn"), "{e}");
}
