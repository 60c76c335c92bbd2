//! The filter program on FireLens-shaped records: what ECS's own configuration costs on each of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use firelane::config::{CORE_FILTER, Diagnostics, SectionKind, check, section};
use firelane::filters::program::{Program, Step, Workspace};
use firelane::filters::{BuildContext, find};
use firelane::record::{Seg, Tag};
use firelane::text::Library;

mod records;

const ARN: &str = "arn:aws:ecs:us-west-2:111122223333:task/my-cluster/4ec9c9f5";

fn step(index: usize, name: &str, keys: &[(&str, &str)]) -> Option<Step> {
    let kind = find(name)?;
    let mut entries = vec![("Name".to_owned(), name.to_owned()), ("Match".to_owned(), "*".to_owned())];
    entries.extend(keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let mut diags = Diagnostics::new();
    let section = section(SectionKind::Filter, entries, "bench");
    let settings = check(&section, format!("{name}.{index}"), &kind.info, CORE_FILTER, &mut diags)?;
    let cx = BuildContext { library: &Library::default(), multiline_buffer_limit: 2 << 20 };
    let filter = (kind.build)(&settings, &cx, &mut diags)?;
    Some(Step { index, filter, counters: Arc::default() })
}

fn run(c: &mut Criterion) {
    let (entries, n) = records::entries(10_000);
    let segs = [Seg { tag: Tag::new(b"web-firelens-0"), end: entries.len(), count: n }];
    let ecs = [("Record", "ecs_cluster c"), ("Record", ARN), ("Record", "ecs_task_definition t:8")];
    let ecs = ecs.map(|(k, v)| if v == ARN { (k, format!("ecs_task_arn {v}")) } else { (k, v.to_owned()) });
    let ecs: Vec<(&str, &str)> = ecs.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let grep = || step(1, "grep", &[("Exclude", "log /healthz/")]);
    let programs = [
        ("grep keeps or drops", vec![grep()]),
        ("record_modifier adds three fields", vec![step(0, "record_modifier", &ecs)]),
        ("both, as on FireLens", vec![step(0, "record_modifier", &ecs), grep()]),
    ];
    let mut group = c.benchmark_group("program");
    group.throughput(Throughput::Elements(n));
    for (name, steps) in programs {
        let program = Program::new(steps.into_iter().flatten().collect());
        let (mut lanes, mut work) = (HashMap::default(), Workspace::default());
        group.bench_function(name, |b| {
            b.iter(|| program.run(&entries, &segs, &mut lanes, &mut work, Instant::now(), (0, None)).count);
        });
    }
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);
