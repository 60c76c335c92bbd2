//! Reading a configuration: it happens once, within the 20 ms from exec to the first accept.

use criterion::{Criterion, criterion_group, criterion_main};
use firelane::config::{classic, yaml};

fn parse(c: &mut Criterion) {
    let mut classic_text = String::from("[SERVICE]\n    Flush 1\n");
    let mut yaml_text = String::from("service:\n  flush: 1\npipeline:\n  filters:\n");
    for i in 0..100 {
        classic_text.push_str(&format!("[FILTER]\n    Name grep\n    Match app{i}-firelens*\n    Exclude log /health{i}\n"));
        yaml_text.push_str(&format!("    - name: grep\n      match: app{i}-firelens*\n      exclude: log /health{i}\n"));
    }
    c.bench_function("config/classic, 100 filters", |b| b.iter(|| classic::parse(&classic_text, "bench.conf")));
    c.bench_function("config/yaml, 100 filters", |b| b.iter(|| yaml::parse(&yaml_text)));
}

criterion_group!(benches, parse);
criterion_main!(benches);
