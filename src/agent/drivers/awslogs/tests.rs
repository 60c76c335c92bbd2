//! The driver against a service of its own: what it calls, in which order, and with what.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::options::of;
use super::super::{Driver, Source};
use super::*;

/// Answers calls by a script of `(status, body)`, and notes `operation body`.
async fn service(script: &'static [(u16, &'static str)]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&seen);
    Tasks::new().spawn("service", async move {
        let mut answers = script.iter();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                if head.starts_with("GET") {
                    let body = r#"{"AccessKeyId":"id","SecretAccessKey":"secret","Token":"token"}"#;
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    bytes.clear();
                    continue;
                }
                let header = |name: &str| {
                    head.lines()
                        .find_map(|l| l.to_ascii_lowercase().strip_prefix(name).map(|v| v.trim().to_owned()))
                };
                if body.len() < header("content-length:").unwrap().parse().unwrap() {
                    continue;
                }
                assert!(header("authorization:").unwrap().contains("/us-east-1/logs/aws4_request"));
                let operation = header("x-amz-target: logs_20140328.").unwrap();
                calls.lock().unwrap().push(format!("{operation} {body}"));
                let (status, body) = answers.next().unwrap_or(&(200, "{}"));
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                bytes.clear();
            }
        }
    });
    (address, seen)
}

/// A driver whose credentials come from the service too.
async fn driver(
    address: &str,
    more: &[(&str, &str)],
    tasks: &Tasks,
    non_blocking: bool,
) -> Result<Driver, String> {
    let mut options = of(more);
    for (k, v) in [
        ("awslogs-group", "g"),
        ("awslogs-stream", "s"),
        ("awslogs-region", "us-east-1"),
        ("awslogs-endpoint", address),
    ] {
        options.insert(k.into(), v.into());
    }
    let mut settings = Settings::read(&options)?;
    settings.credentials_endpoint = Some(format!("{address}/credentials"));
    Awslogs::start(settings, &options, &Info::default(), tasks, non_blocking).await.map(Driver::Awslogs)
}

async fn log(driver: &Driver, lines: &[&str]) {
    for (n, line) in lines.iter().enumerate() {
        let time = Time::new(1, 1_000_000 * u32::try_from(n).unwrap());
        driver
            .log(Message { line: line.as_bytes().to_vec(), source: Source::Stdout, time, partial: None })
            .await;
    }
}

#[tokio::test]
async fn group_and_stream_are_created_and_lines_are_put_once_the_container_ends() {
    let (address, calls) = service(&[
        (400, r#"{"__type":"ResourceNotFoundException"}"#),
        (200, "{}"),
        (400, r#"{"__type":"ResourceAlreadyExistsException"}"#),
        (400, r#"{"__type":"InvalidSequenceTokenException","expectedSequenceToken":"7"}"#),
        (200, r#"{"nextSequenceToken":"8"}"#),
    ])
    .await;
    let tasks = Tasks::new();
    let driver = driver(&address, &[("awslogs-create-group", "true")], &tasks, false).await.unwrap();
    log(&driver, &["a\"", "", "b"]).await;
    driver.close().await;
    tasks.all_ended().await;
    let events = r#"{"logEvents":[{"message":"a\"","timestamp":1000},{"message":"b","timestamp":1002}],"logGroupName":"g","logStreamName":"s""#;
    assert_eq!(
        *calls.lock().unwrap(),
        [
            r#"createlogstream {"logGroupName":"g","logStreamName":"s"}"#.to_owned(),
            r#"createloggroup {"logGroupName":"g"}"#.to_owned(),
            r#"createlogstream {"logGroupName":"g","logStreamName":"s"}"#.to_owned(),
            format!("putlogevents {events}}}"),
            format!("putlogevents {events},\"sequenceToken\":\"7\"}}"),
        ]
    );
}

#[tokio::test]
async fn a_stream_that_cannot_be_created_fails_the_start_unless_in_non_blocking_mode() {
    let (address, _) = service(&[(400, r#"{"__type":"AccessDeniedException","message":"no"}"#)]).await;
    let error = driver(&address, &[], &Tasks::new(), false).await.unwrap_err();
    assert_eq!(error, "failed to create Cloudwatch log stream: AccessDeniedException: no");
    let (address, calls) = service(&[(400, r#"{"__type":"AccessDeniedException"}"#)]).await;
    let tasks = Tasks::new();
    let driver = driver(&address, &[], &tasks, true).await.unwrap();
    log(&driver, &["x"]).await;
    driver.close().await;
    tasks.all_ended().await;
    assert!(calls.lock().unwrap().iter().any(|c| c.starts_with("putlogevents")));
}
