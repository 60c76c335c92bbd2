//! FireLens-shaped records for the benches: 7 in 10 log JSON, 2 in 10 access lines, 1 in 10 text with escapes.
#![allow(dead_code, reason = "each bench uses its part")]

use firelane::record::Time;
use firelane::wire::{entry, msgpack};

const TAG: &[u8] = b"web-firelens-0123456789abcdef0123456789abcdef";
const ID: &[u8] = b"8f1d3c5a7b9e0f2a4c6d8e0b1a3c5e7f9b0d2f4a6c8e0a1b3d5f7c9e1b3a5d70";

fn line(i: u64) -> String {
    match i % 10 {
        0..=6 => format!(
            r#"{{"level":"info","ts":"2026-11-23T01:02:03.{i:06}Z","msg":"request served","path":"/api/v1/items/{}","status":200,"ms":{}.25,"seq":"{i:012}"}}"#,
            i * 7 % 1_000_000,
            i % 100
        ),
        7 | 8 => format!(
            r#"10.0.{}.1 - - [23/Nov/2026:01:02:03 +0000] "GET /healthz/{} HTTP/1.1" 200 {} "-" "curl/8.5.0" seq={i:012}"#,
            i % 256,
            i % 100,
            i * 31 % 100_000
        ),
        _ => format!(
            "plain text \"quoted\" \\ back\tslash and unicode \u{e9}\u{4e2d} seq={i:012} {}",
            "x".repeat(110)
        ),
    }
}

fn record(out: &mut Vec<u8>, i: u64) {
    msgpack::write_map(out, 4);
    for (key, value) in [
        (&b"container_id"[..], ID.to_vec()),
        (b"container_name", b"/ecs-app-1-web-8f1d3c5a7b9e0f2a4c6d".to_vec()),
        (b"source", b"stdout".to_vec()),
        (b"log", line(i).into_bytes()),
    ] {
        msgpack::write_str(out, key);
        msgpack::write_str(out, &value);
    }
}

/// Entries back to back, and how many.
pub(crate) fn entries(n: u64) -> (Vec<u8>, u64) {
    let mut out = Vec::new();
    for i in 0..n {
        entry::write_head(&mut out, Time::new(1_760_000_000 + i as i64, 5), None);
        record(&mut out, i);
    }
    (out, n)
}

/// Message frames as docker's driver sends them.
pub(crate) fn messages(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..n {
        out.push(0x94);
        msgpack::write_str(&mut out, TAG);
        entry::write_time(&mut out, Time::new(1_760_000_000 + i as i64, 5));
        record(&mut out, i);
        out.push(0x80);
    }
    out
}
