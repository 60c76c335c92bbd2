//! What our drivers send and write is what real dockerd's did (`tests/docker/drivers.py capture`), byte for byte but for
//! ids, times and the order of a record's fields, which is chance with docker.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::options::of;
use super::{Driver, Info, Options, Source, copy};
use crate::rt::Tasks;
use crate::wire::{msgpack, sigv4::hex};

type Messages = BTreeMap<String, Vec<String>>;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/docker_drivers.json")).unwrap()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// `[[text, times], ...]`
fn bytes(runs: &Value) -> Vec<u8> {
    let runs: Vec<(String, usize)> = serde_json::from_value(runs.clone()).unwrap();
    runs.iter()
        .flat_map(|(text, times)| text.repeat(*times).chars().map(|c| c as u8).collect::<Vec<_>>())
        .collect()
}

fn short(bytes: &[u8]) -> String {
    match bytes.len() {
        ..=400 => latin1(bytes),
        n => format!("sha256 {} of {n}", hex(&Sha256::digest(bytes))),
    }
}

/// Sends the case's streams through a driver, one after the other, as its script does.
async fn send(driver: Driver, streams: &Value) {
    let driver = Arc::new(driver);
    for (n, source) in [Source::Stdout, Source::Stderr].into_iter().enumerate() {
        let (read, write) = std::io::pipe().unwrap();
        let (read, write) =
            (Receiver::from_owned_fd(read.into()).unwrap(), Sender::from_owned_fd(write.into()).unwrap());
        let content = bytes(&streams[n]);
        let writer = async {
            let mut write = write;
            write.write_all(&content).await.unwrap();
        };
        let (copied, ()) = tokio::join!(copy(read, source, Arc::clone(&driver), Arc::default()), writer);
        copied.unwrap();
    }
    driver.close().await;
}

/// An id as a letter: I the container's, A, B, ... those of long lines.
fn letter(key: &[u8], value: &[u8], ids: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let content = msgpack::content(value);
    let letter = if msgpack::content(key) == b"container_id" {
        b'I'
    } else {
        let at = ids.iter().position(|id| id == content).unwrap_or_else(|| {
            ids.push(content.to_vec());
            ids.len() - 1
        });
        b'A' + u8::try_from(at).unwrap()
    };
    [&value[..value.len() - content.len()], &vec![letter; content.len()]].concat()
}

fn normal(b: &[u8], ids: &mut Vec<Vec<u8>>) -> String {
    let tag = msgpack::skip(b, 1).unwrap();
    let time = msgpack::skip(b, tag).unwrap();
    let record = msgpack::skip(b, time).unwrap();
    let kind = if b[tag] == 0xd7 { 2 } else { 1 };
    let (mut at, mut fields) = (time + 1, Vec::new());
    for _ in 0..b[time] & 15 {
        let middle = msgpack::skip(b, at).unwrap();
        let end = msgpack::skip(b, middle).unwrap();
        let (key, value) = (&b[at..middle], &b[middle..end]);
        let is_id = [&b"container_id"[..], b"partial_id"].contains(&msgpack::content(key));
        fields.push([key, &if is_id { letter(key, value, ids) } else { value.to_vec() }].concat());
        at = end;
    }
    fields.sort();
    short(&[&b[..tag], &b[tag..tag + kind], &b[time..=time], &fields.concat(), &b[record..]].concat())
}

fn wire(stream: &[u8]) -> Messages {
    let (mut at, mut all) = (0, Vec::new());
    while at < stream.len() {
        let end = msgpack::skip(stream, at).unwrap();
        all.push(&stream[at..end]);
        at = end;
    }
    let (mut ids, mut out) = (Vec::new(), Messages::new());
    for source in ["stdout", "stderr"] {
        let sign = format!("\u{a6}source\u{a6}{source}").chars().map(|c| c as u8).collect::<Vec<u8>>();
        for message in all.iter().filter(|m| m.windows(sign.len()).any(|w| w == sign)) {
            out.entry(source.to_owned()).or_default().push(normal(message, &mut ids));
        }
    }
    out
}

fn lines(file: &[u8]) -> Messages {
    let mut out = Messages::new();
    for line in file.split_inclusive(|b| *b == b'\n') {
        let text = latin1(line);
        let (head, time) = text.rsplit_once("\"time\":\"").unwrap();
        assert!(time.ends_with("Z\"}\n") && !time.ends_with("0Z\"}\n"), "{time}");
        let (_, stream) = head.rsplit_once("\",\"stream\":\"").unwrap();
        let line = format!("{head}\"time\":\"T\"}}\n").chars().map(|c| c as u8).collect::<Vec<u8>>();
        out.entry(stream.split('"').next().unwrap().to_owned()).or_default().push(short(&line));
    }
    out
}

async fn of_fluentd(options: &Options, info: &Info, streams: &Value, path: &std::path::Path) -> Messages {
    let listener = UnixListener::bind(path).unwrap();
    let mut options = options.clone();
    options.insert("fluentd-address".into(), format!("unix://{}", path.display()));
    options.insert("tag".into(), "golden-tag".into());
    let receiver = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        got
    };
    let sender = async {
        send(Driver::start("fluentd", &options, info, &Tasks::new()).await.unwrap(), streams).await;
    };
    let (got, ()) = tokio::join!(receiver, sender);
    wire(&got)
}

#[tokio::test]
async fn drivers_send_and_write_what_dockerds_do() {
    let golden = golden();
    let dir = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for (driver, cases) in golden["messages"].as_object().unwrap() {
        for (case, want) in cases.as_object().unwrap() {
            let streams = &golden["streams"][case];
            let path = dir.path().join(compared.to_string());
            let info =
                Info { id: "c".repeat(64), name: "golden".into(), log_path: path.clone(), ..Info::default() };
            let got = match driver.as_str() {
                "json-file" => {
                    send(Driver::start("json-file", &of(&[]), &info, &Tasks::new()).await.unwrap(), streams)
                        .await;
                    lines(&std::fs::read(&path).unwrap())
                }
                "fluentd" => of_fluentd(&of(&[]), &info, streams, &path).await,
                "fluentd sub-second" => {
                    of_fluentd(&of(&[("fluentd-sub-second-precision", "true")]), &info, streams, &path).await
                }
                "fluentd async" => {
                    let options = of(&[("fluentd-async", "true"), ("fluentd-sub-second-precision", "true")]);
                    of_fluentd(&options, &info, streams, &path).await
                }
                other => panic!("{other} is in the golden file and not here"),
            };
            let want: Messages = serde_json::from_value(want.clone()).unwrap();
            assert_eq!(got, want, "{driver}: {case}");
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
}
