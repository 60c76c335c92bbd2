//! Passing over records: what every byte that comes in costs at least.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use firelane::wire::forward::{Decoder, Next, check};

mod records;

fn scan(c: &mut Criterion) {
    let (entries, n) = records::entries(10_000);
    let mut group = c.benchmark_group("msgpack");
    group.throughput(Throughput::Elements(n));
    group.bench_function("check entries", |b| b.iter(|| assert_eq!(check(black_box(&entries)).good, n)));
    let messages = records::messages(10_000);
    group.bench_function("decode messages", |b| {
        b.iter(|| {
            let mut decoder = Decoder::new(6_144_000);
            let (mut pos, mut frames) = (0, 0);
            while let Ok(Next::Frame(f)) = decoder.next(black_box(&messages[pos..])) {
                pos += f.end;
                frames += 1;
            }
            assert_eq!(frames, n);
        });
    });
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
