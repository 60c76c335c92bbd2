//! `dummy`: the same record again and again, for trying a configuration.
//!
//! Enters: a clock. Leaves: records. Can go wrong: a `Dummy` that is no JSON (the default record is sent instead, with a
//! warning, as Fluent Bit does).

use std::time::Duration;

use tokio::time::Instant;

use super::read::until;
use super::{BoxFuture, BuildContext, Input, InputContext, InputKind};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::record::Time;
use crate::wire::json_in;
use crate::wire::json_scan::{Scan, Scanner};

const DEFAULT: &str = r#"{"message":"dummy"}"#;
/// Records are handed over at least this often, in bytes.
const BATCH: usize = 64 * 1024;
/// What a stalled pipeline made it miss beyond this is not made up for.
const CATCH_UP: Duration = Duration::from_secs(1);

pub(super) const KIND: InputKind = InputKind {
    info: PluginInfo {
        name: "dummy",
        aliases: &[],
        summary: "The same record again and again, for trying a configuration.",
        keys: &[
            Key::new("dummy", Type::Str, "the record, a JSON map; of several each is sent").default(DEFAULT),
            Key::new("metadata", Type::Str, "its metadata, a JSON map").default("{}"),
            Key::new("samples", Type::Int, "how many times; 0: without end").default("0"),
            Key::new("rate", Type::Int, "times a second").default("1"),
            Key::new("interval_sec", Type::Int, "seconds between two times; wins over Rate").default("0"),
            Key::new("interval_nsec", Type::Int, "nanoseconds between two times").default("0"),
            Key::new("copies", Type::Int, "records each time").default("1"),
            Key::new("start_time_sec", Type::Int, "time of the first record, seconds since 1970")
                .default("-1"),
            Key::new("start_time_nsec", Type::Int, "and its nanoseconds").default("-1"),
            Key::new("fixed_timestamp", Type::Bool, "every record has the time of the first").default("off"),
            Key::new("flush_on_startup", Type::Bool, "send the first time at once").default("off"),
        ],
        groups: &[],
    },
    build,
};

struct Dummy {
    /// Encoded maps.
    records: Vec<Vec<u8>>,
    metadata: Option<Vec<u8>>,
    /// 0: without end.
    samples: u64,
    interval: Duration,
    copies: u64,
    start_time: Option<Time>,
    fixed: bool,
    at_once: bool,
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Box<dyn Input>> {
    let records = maps(s.str("dummy").unwrap_or(DEFAULT)).or_else(|| {
        diags.strict(
            Some(s.pos_of("dummy")),
            "Dummy is no JSON map",
            format!("the default record {DEFAULT} is sent"),
        );
        maps(DEFAULT)
    })?;
    let metadata = maps(s.str("metadata").unwrap_or("{}")).and_then(|m| m.into_iter().next());
    if metadata.is_none() {
        diags.strict(Some(s.pos_of("metadata")), "Metadata is no JSON map", "records carry no metadata");
    }
    let number = |key: &str| s.int(key).unwrap_or(0);
    let count = |key: &str| u64::try_from(number(key)).unwrap_or(0);
    // Fluent Bit takes a negative interval for none.
    let (sec, nsec) = if number("interval_sec") < 0 || number("interval_nsec") < 0 {
        (0, 0)
    } else {
        (count("interval_sec"), count("interval_nsec"))
    };
    let interval = match (sec, nsec) {
        (0, 0) => Duration::from_secs(1) / u32::try_from(count("rate").clamp(1, 1_000_000_000)).unwrap_or(1),
        (sec, nsec) => Duration::from_secs(sec).saturating_add(Duration::from_nanos(nsec)),
    };
    let (start_sec, start_nsec) = (number("start_time_sec"), number("start_time_nsec"));
    let start_time = (start_sec >= 0 || start_nsec >= 0)
        .then(|| Time::new(start_sec.max(0), u32::try_from(start_nsec.max(0)).unwrap_or(0)));
    Some(Box::new(Dummy {
        records,
        metadata: metadata.filter(|m| m.as_slice() != [0x80]),
        samples: count("samples"),
        interval,
        copies: count("copies"),
        start_time,
        fixed: s.bool("fixed_timestamp"),
        at_once: s.bool("flush_on_startup"),
    }))
}

/// The JSON maps of a text, encoded; `None` when it holds anything else.
fn maps(text: &str) -> Option<Vec<Vec<u8>>> {
    let mut scanner = Scanner::default();
    let mut found = Vec::new();
    loop {
        let range = match scanner.next(text.as_bytes()) {
            Scan::Value(range) => range,
            Scan::NeedMore if !scanner.within() && !found.is_empty() => return Some(found),
            Scan::NeedMore | Scan::Invalid(_) => return None,
        };
        let value = text.as_bytes().get(range)?;
        let mut encoded = Vec::new();
        let whole = matches!(json_in::value_into(value, &mut encoded), Ok(n) if n == value.len());
        if !whole || value.first() != Some(&b'{') {
            return None;
        }
        found.push(encoded);
    }
}

impl Input for Dummy {
    fn start(self: Box<Self>, cx: InputContext) -> BoxFuture<'static, Result<(), String>> {
        let tasks = cx.tasks.clone();
        tasks.spawn(format!("{} generator", cx.label), run(*self, cx));
        Box::pin(async { Ok(()) })
    }
}

async fn run(dummy: Dummy, cx: InputContext) {
    let mut intake = cx.intake();
    let mut stop = cx.stop.clone();
    let began = (Instant::now(), Time::now());
    let mut next = began.0 + if dummy.at_once { Duration::ZERO } else { dummy.interval };
    let mut left = if dummy.samples > 0 { dummy.samples } else { u64::MAX };
    while left > 0 {
        let expire = intake.deadline().map(Into::into);
        tokio::select! {
            biased;
            _ = stop.draining() => break,
            () = until(expire) => {
                intake.expire().await;
                continue;
            }
            () = due(next, &cx) => {}
        }
        // A fast one is due several times a wake-up.
        let now = Instant::now();
        while left > 0 && next <= now {
            let time = dummy.time(began);
            for _ in 0..dummy.copies {
                for record in &dummy.records {
                    intake.push(cx.tag.as_bytes(), Some(time), dummy.metadata.as_deref(), record);
                }
                if intake.collected() >= BATCH {
                    intake.flush(false).await;
                    if stop.is_draining() {
                        break;
                    }
                    cx.meter.below_limit().await;
                }
            }
            next += dummy.interval;
            left -= 1;
        }
        if next + CATCH_UP < now {
            next = now;
        }
        intake.flush(false).await;
        tokio::task::yield_now().await;
    }
    intake.finish().await;
}

/// Waits for the next time, and until the input is below its limit.
async fn due(next: Instant, cx: &InputContext) {
    tokio::time::sleep_until(next).await;
    cx.meter.below_limit().await;
}

impl Dummy {
    fn time(&self, began: (Instant, Time)) -> Time {
        match self.start_time {
            Some(start) if self.fixed => start,
            Some(start) => {
                let passed = began.0.elapsed();
                Time::new(
                    start.sec.saturating_add(passed.as_secs() as i64),
                    start.nsec + passed.subsec_nanos(),
                )
            }
            None if self.fixed => began.1,
            None => Time::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, settings};
    use super::*;
    use crate::text::Library;

    fn built(keys: &[(&str, &str)]) -> (Box<dyn Input>, String) {
        let mut diags = Diagnostics::new();
        let library = Library::default();
        let input =
            build(&settings(&KIND.info, keys), &BuildContext { library: &library }, &mut diags).unwrap();
        (input, diags.iter().map(ToString::to_string).collect())
    }

    async fn run_to_end(keys: &[(&str, &str)]) -> Bench {
        let bench = Bench::new();
        built(keys).0.start(bench.context()).await.unwrap();
        bench.until(|p| p.finished == 1).await;
        bench
    }

    #[tokio::test(start_paused = true)]
    async fn samples_and_copies_are_counted() {
        let keys = [("dummy", r#"{"a":1}{"b":2}"#), ("samples", "2"), ("copies", "2"), ("rate", "50")];
        let began = Instant::now();
        let bench = run_to_end(&keys).await;
        assert_eq!(bench.records().join(" "), r#"{"a":UInt(1)} {"b":UInt(2)} "#.repeat(4).trim_end());
        assert_eq!(began.elapsed().as_millis() / 10, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn times_and_metadata_are_as_asked() {
        let keys = [
            ("samples", "2"),
            ("start_time_sec", "100"),
            ("start_time_nsec", "5"),
            ("metadata", r#"{"m":"x"}"#),
            ("flush_on_startup", "on"),
        ];
        let began = Instant::now();
        let bench = run_to_end(&keys).await;
        assert_eq!(began.elapsed().as_secs(), 1);
        bench.passed(|p| {
            let (first, second) = (p.records[0].1.unwrap(), p.records[1].1.unwrap());
            assert_eq!((first.sec, second.sec), (100, 101));
            assert_eq!(p.records[0].2.as_deref(), Some(r#"{"m":"x"}"#));
            assert_eq!(p.records[0].3, r#"{"message":"dummy"}"#);
        });

        let keys =
            [("samples", "2"), ("start_time_sec", "100"), ("fixed_timestamp", "on"), ("interval_sec", "3")];
        let bench = run_to_end(&keys).await;
        bench.passed(|p| {
            assert_eq!((p.records[0].1, p.records[1].1), (Some(Time::new(100, 0)), p.records[0].1))
        });
    }

    #[tokio::test(start_paused = true)]
    async fn many_copies_are_handed_over_in_batches() {
        let bench = run_to_end(&[("samples", "1"), ("copies", "10000")]).await;
        assert_eq!(bench.records().len(), 10_000);
        assert!(bench.passed(|p| p.flushes) >= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_one_ends_with_the_process() {
        let bench = Bench::new();
        built(&[("rate", "1000")]).0.start(bench.context()).await.unwrap();
        bench.until(|p| p.records.len() > 100).await;
        bench.drain(Duration::from_secs(5)).await;
        assert_eq!(bench.passed(|p| p.finished), 1);
    }

    #[test]
    fn what_is_no_json_map_is_replaced_with_a_warning() {
        assert_eq!(built(&[]).1, "");
        for bad in ["plain", "{\"a\":", "[1]", "{\"a\":1} x"] {
            let (_, said) = built(&[("dummy", bad)]);
            assert!(said.contains("test.conf:2: Dummy is no JSON map; the default record"), "{bad}: {said}");
        }
    }
}
