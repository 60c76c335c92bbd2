//! A client of the CloudWatch Logs API over a plain socket: it can send what no library would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::LIMIT;

/// One connection, over TCP or whatever else.
pub(crate) struct Http<S: Read + Write = TcpStream>(BufReader<S>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// Null when the body is empty.
    pub(crate) body: Value,
}

impl Answer {
    /// AWS's name of the error, or nothing.
    pub(crate) fn error(&self) -> &str {
        self.body.get("__type").and_then(Value::as_str).unwrap_or_default()
    }
}

impl Http {
    pub(crate) fn connect(port: u16) -> Http {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Http(BufReader::new(stream))
    }
}

impl<S: Read + Write> Http<S> {
    /// Over a connection that is there.
    pub(crate) fn over(stream: S) -> Http<S> {
        Http(BufReader::new(stream))
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Reads one answer; `None` when the connection was closed instead.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        if status == 100 {
            return Some(Answer { status, head, body: Value::Null });
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length:").nth(1).and_then(|t| t.lines().next()).unwrap_or("0");
        let mut body = vec![0; length.trim().parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Some(Answer { status, head, body })
    }

    /// A call, and its answer.
    pub(crate) fn call(&mut self, operation: &str, body: &Value) -> Answer {
        self.send(&request(operation, "", body.to_string().as_bytes()));
        self.answer().expect("an answer")
    }

    /// Makes a group and a stream.
    pub(crate) fn make(&mut self, group: &str, stream: &str) {
        let made = self.call("CreateLogGroup", &json!({ "logGroupName": group }));
        assert_eq!((made.status, &made.body), (200, &Value::Null), "{made:?}");
        let made = self.call("CreateLogStream", &json!({"logGroupName": group, "logStreamName": stream}));
        assert_eq!(made.status, 200, "{made:?}");
    }
}

/// A request with more header lines (each with its end).
pub(crate) fn request(operation: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-amz-json-1.1\r\nX-Amz-Target: \
         Logs_20140328.{operation}\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The body of a put of these messages, at the current time.
pub(crate) fn put(group: &str, stream: &str, messages: &[&str]) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let events: Vec<Value> = messages.iter().map(|m| json!({"timestamp": now, "message": m})).collect();
    json!({"logGroupName": group, "logStreamName": stream, "logEvents": events})
}
