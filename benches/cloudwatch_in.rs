//! Bodies of PutLogEvents to the bytes of a chunk, beside what serde_json needs to read them into a `Value`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use firelane::wire::cloudwatch_in::{Frame, Outline, Times, entries};
use serde_json::json;

/// A full batch of such lines. `names_first` is how boto3 sends it, else as Go's SDK does.
fn body(names_first: bool, line: impl Fn(usize) -> String) -> Vec<u8> {
    let mut events = Vec::new();
    let mut size = 0;
    for i in 0..10_000 {
        let message = line(i);
        size += message.len() + 26;
        if size > 1_048_576 {
            break;
        }
        events.push(if names_first {
            format!("{{\"timestamp\":{},\"message\":{}}}", 1_760_000_000_000_u64 + i as u64, json!(message))
        } else {
            format!("{{\"message\":{},\"timestamp\":{}}}", json!(message), 1_760_000_000_000_u64 + i as u64)
        });
    }
    let (events, names) =
        (events.join(","), "\"logGroupName\":\"/ecs/shop\",\"logStreamName\":\"web/app/0f1e2d3c4b5a\"");
    let text = if names_first {
        format!("{{{names},\"logEvents\":[{events}]}}")
    } else {
        format!("{{\"logEvents\":[{events}],{names}}}")
    };
    text.into_bytes()
}

fn benches(c: &mut Criterion) {
    let plain = |i: usize| {
        format!(
            "2025-10-09T08:53:20.123Z INFO  [worker-{i}] com.example.shop.OrderService - order {i} accepted for customer {} in {} ms, {} items, carrier dhl",
            i * 7,
            i % 90,
            i % 9
        )
    };
    let nested = |i: usize| {
        format!(
            r#"{{"level":"info","ts":"2025-10-09T08:53:20.123Z","msg":"order accepted","order_id":{i},"customer":"c-{}","path":"/api/v1/orders/{i}","status":200,"ms":{}}}"#,
            i * 7,
            i % 90
        )
    };
    let bodies = [
        ("plain, names first", body(true, plain)),
        ("plain, events first", body(false, plain)),
        ("json in string", body(false, nested)),
        ("short", body(false, |i| format!("line {i}"))),
    ];
    let mut group = c.benchmark_group("cloudwatch_in");
    let frame = Frame::new(&[("log_group", "/ecs/shop"), ("log_stream", "web/app/0f1e2d3c4b5a")], None);
    for (name, body) in &bodies {
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("entries", name), |b| {
            b.iter(|| {
                out.clear();
                Outline::read(body, false).and_then(|o| entries(body, &o, &frame, Times::ANY, &mut out))
            });
        });
        group.bench_function(BenchmarkId::new("serde_json", name), |b| {
            b.iter(|| serde_json::from_slice::<serde_json::Value>(body));
        });
    }
    group.finish();
}

criterion_group! { name = all; config = Criterion::default().without_plots(); targets = benches }
criterion_main!(all);
