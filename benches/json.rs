//! The JSON writer on the records it is made for: plain text lines, and JSON inside a string (many quotes); and the two forms
//! of its masks.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use firelane::wire::json::Json;
use firelane::wire::json::mask::{RUN, mask, portable, structure, structure_portable};
use firelane::wire::msgpack::{write_map, write_str};

fn record(out: &mut Vec<u8>, log: &str) {
    write_map(out, 4);
    for (key, value) in [
        ("container_id", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("container_name", "/ecs-shop-web-42-app-d0c0b0a0908070605040"),
        ("source", "stdout"),
        ("log", log),
    ] {
        write_str(out, key.as_bytes());
        write_str(out, value.as_bytes());
    }
}

fn records(log: impl Fn(usize) -> String) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let count = 2000;
    for i in 0..count {
        record(&mut bytes, &log(i));
    }
    (bytes, count)
}

fn benches(c: &mut Criterion) {
    let plain = records(|i| {
        format!(
            "2025-10-09T08:53:20.123Z INFO  [worker-{i}] com.example.shop.OrderService - order {i} accepted for customer {} in {} ms, {} items, total {}.{:02} EUR, warehouse fra-{}, carrier dhl",
            i * 7,
            i % 90,
            i % 9,
            i % 1000,
            i % 100,
            i % 4
        )
    });
    let nested = records(|i| {
        format!(
            r#"{{"level":"info","ts":"2025-10-09T08:53:20.123Z","msg":"order accepted","order_id":{i},"customer":"c-{}","path":"/api/v1/orders/{i}","status":200,"ms":{},"ua":"Mozilla/5.0 (X11)"}}"#,
            i * 7,
            i % 90
        )
    });
    let cyrillic =
        records(|i| format!("заказ {i} принят, клиент {}, склад номер {}, доставка завтра", i * 7, i % 4));
    let mut group = c.benchmark_group("json");
    for (name, (bytes, count)) in [("plain", &plain), ("json in string", &nested), ("cyrillic", &cyrillic)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        for escape_unicode in [true, false] {
            let json = Json { escape_unicode };
            let mut out = Vec::new();
            let id = BenchmarkId::new(name, if escape_unicode { "escaped" } else { "utf-8" });
            group.bench_function(id, |b| {
                b.iter(|| {
                    out.clear();
                    let mut pos = 0;
                    for _ in 0..*count {
                        pos = json.write_value(&mut out, bytes, pos);
                        out.push(b'\n');
                    }
                    assert_eq!(pos, bytes.len());
                });
            });
        }
    }
    group.finish();
    forms(c);
}

/// What the vector form of the masks is for: each beside the portable one, on JSON inside a string as bodies have it.
fn forms(c: &mut Criterion) {
    let line = br#"{\"level\":\"info\",\"msg\":\"request done\",\"path\":\"/items/42\",\"status\":200,\"user\":\"anna\"} "#;
    let text: Vec<u8> = line.iter().copied().cycle().take(1 << 20).collect();
    let mut group = c.benchmark_group("masks");
    group.throughput(Throughput::Bytes(text.len() as u64));
    // As a reader steps from one special byte to the next.
    let steps = |mut left: u32| {
        let mut sum = 0;
        while left != 0 {
            sum += u64::from(left.trailing_zeros());
            left &= left - 1;
        }
        sum
    };
    let mut form = |name: &str, bits: fn(&[u8; RUN]) -> u32| {
        group.bench_function(name, |b| {
            b.iter(|| text.as_chunks::<RUN>().0.iter().map(|run| steps(bits(run))).sum::<u64>());
        });
    };
    form("mask", mask);
    form("mask portable", portable);
    form("structure", |run| either(structure(run)));
    form("structure portable", |run| either(structure_portable(run)));
    group.finish();
}

fn either((backslashes, quotes): (u32, u32)) -> u32 {
    backslashes | quotes
}

criterion_group! { name = all; config = Criterion::default().without_plots(); targets = benches }
criterion_main!(all);
