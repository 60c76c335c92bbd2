//! The driver against a receiver of its own.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::super::options::of;
use super::super::{Driver, Source};
use super::*;
use crate::record::Time;
use crate::wire::msgpack;

fn message(text: &str) -> Message {
    Message { line: text.as_bytes().to_vec(), source: Source::Stdout, time: Time::new(1, 2), partial: None }
}

fn info() -> Info {
    Info { id: "c".repeat(64), name: "web".into(), ..Info::default() }
}

async fn driver(path: &std::path::Path, more: &[(&str, &str)]) -> Result<Driver, String> {
    let address = format!("unix://{}", path.display());
    let mut options = of(more);
    options.insert("fluentd-address".into(), address);
    options.insert("tag".into(), "t".into());
    Driver::start("fluentd", &options, &info(), &Tasks::new()).await
}

/// Reads whole messages until there are `n`, and gives their `log` values.
async fn read(stream: &mut UnixStream, n: usize) -> Vec<String> {
    let (mut bytes, mut found) = (Vec::new(), Vec::new());
    loop {
        while let Ok(end) = msgpack::skip(&bytes, 0) {
            let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
            found.push(text.rsplit_once("\u{fffd}log\u{fffd}").map_or(text.clone(), |(_, l)| l.to_owned()));
            bytes.drain(..end);
        }
        if found.len() >= n {
            return found.iter().map(|f| f.chars().filter(char::is_ascii_digit).collect()).collect();
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "closed after {} of {n}", found.len());
    }
}

#[tokio::test]
async fn without_async_mode_the_receiver_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let error = driver(&dir.path().join("s"), &[]).await.unwrap_err();
    assert!(error.starts_with("dial unix "), "{error}");
    driver(&dir.path().join("s"), &[("fluentd-async", "true")]).await.unwrap().close().await;
}

#[tokio::test]
async fn a_socket_that_lies_too_deep_for_its_address_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(60)).join("e".repeat(60));
    std::fs::create_dir_all(&deep).unwrap();
    let held = std::fs::File::open(&deep).unwrap();
    let listener =
        UnixListener::bind(format!("/proc/self/fd/{}/s", std::os::fd::AsRawFd::as_raw_fd(&held))).unwrap();
    let driver = driver(&deep.join("s"), &[]).await.unwrap();
    driver.log(message("7")).await;
    assert_eq!(read(&mut listener.accept().await.unwrap().0, 1).await, ["7"]);
}

#[tokio::test]
async fn async_mode_counts_messages_drops_the_newest_and_delivers_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let more = [("fluentd-async", "true"), ("fluentd-buffer-limit", "3"), ("fluentd-retry-wait", "10ms")];
    let driver = driver(&path, &more).await.unwrap();
    // One is in the writer's hand before the queue counts.
    driver.log(message("0")).await;
    tokio::task::yield_now().await;
    for n in 1..9 {
        driver.log(message(&n.to_string())).await;
    }
    let listener = UnixListener::bind(&path).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(read(&mut stream, 4).await, ["0", "1", "2", "3"]);
    driver.log(message("9")).await;
    assert_eq!(read(&mut stream, 1).await, ["9"]);
    driver.close().await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn close_discards_what_no_receiver_takes_and_does_not_wait_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let stalled = driver(&path, &[("fluentd-async", "true")]).await.unwrap();
    stalled.log(message("1")).await;
    let begun = std::time::Instant::now();
    stalled.close().await;
    assert!(begun.elapsed() < LAST_MOMENT);

    let listener = UnixListener::bind(&path).unwrap();
    let driver = driver(&path, &[("fluentd-async", "true")]).await.unwrap();
    for n in 0..100_000 {
        driver.log(message(&n.to_string())).await;
    }
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), driver.close()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    assert!(!bytes.is_empty() && bytes.len() < 100_000 * 100, "{}", bytes.len());
}

#[tokio::test]
async fn an_ack_is_waited_for_and_a_wrong_one_makes_it_send_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let receiver = async {
        let mut seen = Vec::new();
        for wrong in [true, false] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let n = stream.read(&mut bytes).await.unwrap();
            let at = bytes.windows(6).position(|w| w == b"\xa5chunk").unwrap() + 7;
            let id = bytes[at..n].to_vec();
            let answer = [&b"\x81\xa3ack\xb8"[..], if wrong { &[b'x'; 24][..] } else { &id }].concat();
            stream.write_all(&answer).await.unwrap();
            seen.push(id);
        }
        assert_eq!(seen[0], seen[1]);
    };
    let sender = async {
        let driver = driver(&path, &[("fluentd-request-ack", "true")]).await.unwrap();
        driver.log(message("1")).await;
        driver.close().await;
    };
    tokio::join!(receiver, sender);
}
