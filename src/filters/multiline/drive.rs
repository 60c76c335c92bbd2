//! Drives a [`Hold`] without the pipeline: records in, records out, and the account of both.

use std::time::{Duration, Instant};

use crate::config::{self, CORE_FILTER, Diagnostics, SectionKind};
use crate::filters::{BuildContext, Context, Emitter, Hold, Verdict};
use crate::record::{Record, Scratch, Tag, Time};
use crate::text::Library;
use crate::wire::entry;
use crate::wire::msgpack::{self, Value};

/// A record: seconds, keys and texts in order.
pub(super) type Rec = (i64, Vec<(String, String)>);

/// A record of `key=value` texts; `true` alone is the boolean.
pub(super) fn rec(sec: i64, fields: &[(&str, &str)]) -> Rec {
    (sec, fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
}

/// The filter of these lines, or what is wrong with them.
pub(super) fn build(lines: &[&str], library: &Library, limit: usize) -> Result<Box<dyn Hold>, String> {
    let mut entries = vec![("Name".to_owned(), "multiline".to_owned()), ("Match".to_owned(), "*".to_owned())];
    entries.extend(lines.iter().map(|l| {
        let (key, value) = l.split_once(' ').unwrap_or((l, ""));
        (key.to_owned(), value.to_owned())
    }));
    let section = config::section(SectionKind::Filter, entries, "test.conf");
    let mut diags = Diagnostics::new();
    let built = config::check(&section, "multiline.0".into(), &super::KIND.info, CORE_FILTER, &mut diags)
        .and_then(|s| {
            let cx = BuildContext { library, multiline_buffer_limit: limit };
            (super::KIND.build)(&s, &cx, &mut diags)
        });
    let found: Vec<String> = diags.iter().map(ToString::to_string).collect();
    match built {
        Some(filter) if found.is_empty() => Ok(filter.hold().unwrap()),
        _ => Err(found.join(" | ")),
    }
}

pub(super) struct Drive {
    pub(super) hold: Box<dyn Hold>,
    pub(super) now: Instant,
    pub(super) out: Vec<Rec>,
    /// Metadata of each record that came out.
    pub(super) metadata: Vec<Option<Vec<u8>>>,
    pub(super) received: u64,
    pub(super) joined: u64,
    pub(super) holding: u64,
}

impl Drive {
    pub(super) fn new(hold: Box<dyn Hold>) -> Drive {
        Drive {
            hold,
            now: Instant::now(),
            out: Vec::new(),
            metadata: Vec::new(),
            received: 0,
            joined: 0,
            holding: 0,
        }
    }

    /// A filter that must build without a finding, built-in parsers only.
    pub(super) fn of(lines: &[&str]) -> Drive {
        Drive::new(build(lines, &Library::default(), 2 << 20).unwrap())
    }

    fn came(&mut self, bytes: &[u8]) {
        let e = entry::read(bytes, 0).unwrap().unwrap();
        assert_eq!(e.end, bytes.len(), "one whole entry");
        let entry::TimeForm::At(time) = e.time else { panic!("a time") };
        let Some((Value::Map { count, at }, _)) = msgpack::read(bytes, e.record.start) else {
            panic!("a map")
        };
        let mut pos = at;
        let mut fields = Vec::new();
        for _ in 0..count {
            let (key, value) = msgpack::read(bytes, pos).unwrap();
            let end = msgpack::skip(bytes, value).unwrap();
            let text = match msgpack::read(bytes, value).unwrap().0 {
                Value::Str(s) => String::from_utf8_lossy(s).into_owned(),
                other => format!("{other:?}"),
            };
            fields.push((String::from_utf8_lossy(key.text().unwrap()).into_owned(), text));
            pos = end;
        }
        assert_eq!(pos, e.end, "as many fields as it says");
        self.out.push((time.sec, fields));
        self.metadata.push(e.metadata.map(|m| bytes[m].to_vec()));
    }

    fn settle(&mut self, emitter: Emitter) {
        let mut start = 0;
        for e in &emitter.list {
            assert!(e.tag.is_none() && !e.made && e.parts > 0);
            self.holding = self.holding.checked_sub(e.parts).expect("no more parts than are held");
            self.joined += e.parts - 1;
            self.came(&emitter.bytes[start..e.end]);
            start = e.end;
        }
        if self.holding == 0 {
            assert_eq!((self.hold.bytes(), self.hold.deadline()), (0, None), "nothing held, nothing due");
        } else {
            assert!(self.hold.deadline().is_some());
        }
        assert_eq!(self.received, self.joined + self.holding + self.out.len() as u64, "the account");
    }

    pub(super) fn push_bytes(&mut self, bytes: &[u8]) -> Verdict {
        let mut scratch = Scratch::default();
        let (mut record, _) = Record::open_next(bytes, 0, &mut scratch).unwrap();
        let mut emitter = Emitter::default();
        let tag = Tag::new(b"t");
        let mut cx = Context { tag: &tag, now: self.now, emit: &mut emitter, may_move: true, id: 0 };
        let verdict = self.hold.push(&mut record, &mut cx);
        assert!(!record.changed());
        self.received += 1;
        if verdict == Verdict::Hold {
            self.holding += 1;
            self.settle(emitter);
        } else {
            assert_eq!(verdict, Verdict::Keep);
            // What was emitted stands before the record at hand.
            self.received -= 1;
            self.settle(emitter);
            self.received += 1;
            self.came(bytes);
        }
        verdict
    }

    pub(super) fn push(&mut self, (sec, fields): &Rec) -> Verdict {
        let mut bytes = Vec::new();
        entry::write_head(&mut bytes, Time::new(*sec, 0), None);
        msgpack::write_map(&mut bytes, fields.len());
        for (key, value) in fields {
            msgpack::write_str(&mut bytes, key.as_bytes());
            match value.as_str() {
                "(true)" => msgpack::write_bool(&mut bytes, true),
                "(false)" => msgpack::write_bool(&mut bytes, false),
                text => msgpack::write_str(&mut bytes, text.as_bytes()),
            }
        }
        self.push_bytes(&bytes)
    }

    /// Records with nothing but `log`, a second apart from 1.
    pub(super) fn lines(&mut self, lines: &[&str]) -> &mut Self {
        for (i, line) in lines.iter().enumerate() {
            self.push(&rec(i as i64 + 1, &[("log", line)]));
        }
        self
    }

    pub(super) fn wait(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        let mut emitter = Emitter::default();
        self.hold.expire(self.now, &mut emitter);
        self.settle(emitter);
        self
    }

    pub(super) fn end_of_chunk(&mut self) -> &mut Self {
        let mut emitter = Emitter::default();
        self.hold.end_of_chunk(&mut emitter);
        self.settle(emitter);
        self
    }

    pub(super) fn release(&mut self) -> &mut Self {
        let mut emitter = Emitter::default();
        self.hold.release(&mut emitter);
        self.settle(emitter);
        assert_eq!(self.holding, 0);
        self
    }

    /// Second and `log` of each record that came out.
    pub(super) fn logs(&self) -> Vec<(i64, &str)> {
        self.out
            .iter()
            .map(|(sec, fields)| {
                (*sec, fields.iter().find(|(k, _)| k == "log").map_or("", |(_, v)| v.as_str()))
            })
            .collect()
    }
}
