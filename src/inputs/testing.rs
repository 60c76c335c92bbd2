//! A bench for inputs in tests: an intake that records what it is given, and the context to run an input in.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{BoxFuture, InputContext, Intake, Meter};
use crate::config::{self, CORE_INPUT, Diagnostics, Entry, PluginInfo, Pos, Section, SectionKind, Settings};
use crate::observe::counters::{Refusal, Totals};
use crate::record::{Ack, AckWait, Time};
use crate::rt::{Budget, Stop, Stopper, Tasks};
use crate::wire::{entry, msgpack};

/// What an input has passed on.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Tag, time, metadata, record as text: one line of a debugging notation close to JSON.
    pub(crate) records: Vec<(String, Option<Time>, Option<String>, String)>,
    /// Refused records.
    pub(crate) refused: u64,
    /// Their bytes.
    pub(crate) refused_bytes: Vec<String>,
    /// Flushes that had something.
    pub(crate) flushes: usize,
    /// Sources that have ended.
    pub(crate) finished: usize,
}

struct Recorder {
    passed: Arc<Mutex<Passed>>,
    changed: Arc<Notify>,
    collected: usize,
}

impl Recorder {
    fn note(&self, change: impl FnOnce(&mut Passed)) {
        change(&mut self.passed.lock().unwrap());
        self.changed.notify_waiters();
    }
}

impl Intake for Recorder {
    fn push(&mut self, tag: &[u8], time: Option<Time>, metadata: Option<&[u8]>, record: &[u8]) {
        assert_eq!(msgpack::skip(record, 0), Ok(record.len()), "a record must be one whole value");
        assert!(!msgpack::deeper_than(record, 0, entry::MAX_DEPTH), "a record must not be too deep");
        self.collected += record.len();
        let tag = String::from_utf8_lossy(tag).into_owned();
        let (metadata, record) = (metadata.map(show), show(record));
        self.note(|p| p.records.push((tag, time, metadata, record)));
    }

    fn push_raw(&mut self, _: &[u8], _: &[u8]) {
        unreachable!("text inputs do not use it");
    }

    fn push_entries(&mut self, _: &[u8], _: Bytes, _: u64) {
        unreachable!("text inputs do not use it");
    }

    fn refuse(&mut self, _: Refusal, count: u64, _: &[u8], bytes: &[u8], _: &str) {
        self.note(|p| {
            p.refused += count;
            p.refused_bytes.push(String::from_utf8_lossy(bytes).into_owned());
        });
    }

    fn collected(&self) -> usize {
        self.collected
    }

    fn flush(&mut self, ack: bool) -> BoxFuture<'_, Option<AckWait>> {
        if std::mem::take(&mut self.collected) > 0 {
            self.note(|p| p.flushes += 1);
        }
        let wait = ack.then(|| {
            let (wait, token) = AckWait::new(Arc::default());
            Ack::done(token);
            wait
        });
        Box::pin(async { wait })
    }

    fn settled(&self) -> Arc<Notify> {
        Arc::default()
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn expire(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn finish(&mut self) -> BoxFuture<'_, ()> {
        self.note(|p| p.finished += 1);
        Box::pin(async {})
    }
}

/// Checked settings of a section with these keys.
pub(crate) fn settings(info: &'static PluginInfo, keys: &[(&str, &str)]) -> Settings {
    let entry = |(line, (key, value)): (usize, &(&str, &str))| Entry {
        key: (*key).into(),
        written: (*key).into(),
        value: (*value).into(),
        pos: Pos::new("test.conf", 2 + line as u32),
    };
    let entries = keys.iter().enumerate().map(entry).collect();
    let section = Section { kind: SectionKind::Input, pos: Pos::new("test.conf", 1), entries };
    let mut diags = Diagnostics::new();
    let settings = config::check(&section, "test.0".into(), info, CORE_INPUT, &mut diags);
    settings.unwrap_or_else(|| panic!("{:?}", diags.iter().map(ToString::to_string).collect::<Vec<_>>()))
}

/// What an input under test works with.
pub(crate) struct Bench {
    cx: InputContext,
    passed: Arc<Mutex<Passed>>,
    changed: Arc<Notify>,
    stopper: Stopper,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::with(32 << 20, 0)
    }

    pub(crate) fn with_budget(bytes: u64) -> Bench {
        Bench::with(bytes, 0)
    }

    pub(crate) fn with_limit(bytes: u64) -> Bench {
        Bench::with(32 << 20, bytes)
    }

    fn with(budget: u64, limit: u64) -> Bench {
        let (stopper, stop): (Stopper, Stop) = Stopper::new();
        let passed: Arc<Mutex<Passed>> = Arc::default();
        let changed: Arc<Notify> = Arc::default();
        let (p, c) = (Arc::clone(&passed), Arc::clone(&changed));
        let cx = InputContext {
            label: "test.0".into(),
            tag: "t".into(),
            tag_is_set: true,
            meter: Arc::new(Meter::new(limit)),
            budget: Budget::new(budget),
            stop,
            tasks: Tasks::new(),
            totals: Arc::new(Totals::default()),
            intakes: Arc::new(move |_| {
                Box::new(Recorder { passed: Arc::clone(&p), changed: Arc::clone(&c), collected: 0 })
            }),
            state: None,
            end_process: Arc::default(),
        };
        Bench { cx, passed, changed, stopper }
    }

    pub(crate) fn context(&self) -> InputContext {
        self.cx.clone()
    }

    /// Waits until what was passed on satisfies `enough`.
    pub(crate) async fn until(&self, enough: impl Fn(&Passed) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if enough(&self.passed.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
            panic!("this is all that came: {:?}", self.passed.lock().unwrap());
        }
    }

    /// The records so far, in the notation of [`Passed`].
    pub(crate) fn records(&self) -> Vec<String> {
        self.passed.lock().unwrap().records.iter().map(|r| r.3.clone()).collect()
    }

    /// What was passed on so far.
    pub(crate) fn passed<T>(&self, look: impl FnOnce(&Passed) -> T) -> T {
        look(&self.passed.lock().unwrap())
    }

    /// Begins a drain with this much time for sources, and waits for every task.
    pub(crate) async fn drain(&self, sources: Duration) {
        let end = tokio::time::Instant::now() + sources;
        self.stopper.drain(end, end);
        self.cx.tasks.all_ended().await;
    }
}

/// A value in a notation close to JSON.
pub(crate) fn show(bytes: &[u8]) -> String {
    fn write(bytes: &[u8], pos: usize, out: &mut String) -> usize {
        use msgpack::Value;
        let (value, end) = msgpack::read(bytes, pos).unwrap();
        match value {
            Value::Map { count, at } => {
                out.push('{');
                let mut pos = at;
                for i in 0..count {
                    out.push_str(if i > 0 { "," } else { "" });
                    pos = write(bytes, pos, out);
                    out.push(':');
                    pos = write(bytes, pos, out);
                }
                out.push('}');
                pos
            }
            Value::Array { count, at } => {
                out.push('[');
                let mut pos = at;
                for i in 0..count {
                    out.push_str(if i > 0 { "," } else { "" });
                    pos = write(bytes, pos, out);
                }
                out.push(']');
                pos
            }
            other => {
                match other.text() {
                    Some(text) => out.push_str(&format!("{:?}", String::from_utf8_lossy(text))),
                    None => out.push_str(&format!("{other:?}")),
                }
                end
            }
        }
    }
    let mut out = String::new();
    write(bytes, 0, &mut out);
    out
}
