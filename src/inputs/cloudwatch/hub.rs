//! What the connections of one input share, and the put itself.
//!
//! Enters: a PutLogEvents body. Leaves: its events to the stream's lane; the answer when their ack is there. Can go wrong:
//! what AWS refuses; no room in time (nothing was taken); an output gives the batch up, or has it for longer than
//! `hold_max` (a repeat of the call joins it).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use tokio::sync::mpsc;

use super::access::Access;
use super::answer::Error;
use super::body::Received;
use super::inside::{Inside, Waiter};
use super::journal::Journal;
use super::lane::{self, Shared, Work};
use super::names::Names;
use super::room::{Patience, Room, full};
use super::settings::Settings;
use super::window::{Key, Window};
use crate::inputs::InputContext;
use crate::record::Time;
use crate::wire::cloudwatch_in::{Batch, Frame, Outline, Refused, Times, entries};
use crate::wire::msgpack;

const DAY: i64 = 24 * 3600 * 1000;
/// The service takes nothing older.
const TOO_OLD: i64 = 14 * DAY;
/// And nothing from further ahead.
const TOO_NEW: i64 = 2 * 3600 * 1000;
/// Says what is in the messages (`json/emf`).
const FORMAT: &str = "x-amzn-logs-format";
/// Longest value of it that is kept.
const FORMAT_MOST: usize = 64;

/// A body that was read.
enum Parsed {
    /// It is inside already.
    Joined(Arc<Key>, Waiter),
    /// Its entries.
    New(Arc<Key>, Vec<u8>, Batch),
    /// Its names are not where they seemed to be.
    Misled,
}

/// One input at work.
pub(super) struct Hub {
    pub(super) cx: InputContext,
    pub(super) settings: Settings,
    /// `None`: everybody may call.
    pub(super) access: Option<Access>,
    names: Mutex<Names>,
    /// Locked after `names`. `None`: names live as long as the process.
    journal: Mutex<Option<Journal>>,
    lanes: Mutex<HashMap<Arc<Key>, mpsc::Sender<Work>>>,
    shared: Shared,
    /// When a call of a stranger was last reported, in seconds since 1970.
    reported: AtomicI64,
}

/// The state behind these locks is whole whenever they are free.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(super) fn new(cx: InputContext, settings: Settings, access: Option<Access>) -> Self {
        let now = Time::now().millis();
        // No more than an eighth of all memory: it serves whoever looks, not the logs.
        let most = settings.window_bytes.min(usize::try_from(cx.budget.limit() / 8).unwrap_or(usize::MAX));
        let window = Window::new(settings.window, most, cx.budget.take(0));
        let mut names = Names::new(settings.max_groups, settings.max_streams, now);
        let journal = cx.state.as_ref().map(|dir| {
            let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
            let file: String = cx.label.chars().map(plain).collect();
            Journal::open(dir.join("awslogs").join(file + ".jsonl"), &mut names)
        });
        Hub {
            names: Mutex::new(names),
            journal: Mutex::new(journal),
            lanes: Mutex::default(),
            shared: Shared { inside: Arc::new(Inside::default()), window: Arc::new(Mutex::new(window)) },
            reported: AtomicI64::new(0),
            access,
            settings,
            cx,
        }
    }

    /// Says, once a minute at most, that somebody was turned away.
    pub(super) fn report_stranger(&self, peer: &str, error: &Error) {
        let now = Time::now().sec;
        let last = self.reported.swap(now, Relaxed);
        if now - last < 60 {
            self.reported.store(last, Relaxed);
            return;
        }
        let (error, message) = (error.name, &error.message);
        tracing::warn!(input = %self.cx.label, %peer, error, cause = %message, "a call was refused");
    }

    pub(super) fn names(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }

    /// Writes down what has changed in the names.
    pub(super) fn save(&self) {
        let mut names = self.names();
        let changes = names.take_changes();
        if !changes.is_empty()
            && let Some(journal) = lock(&self.journal).as_mut()
        {
            journal.add(&changes, &names);
        }
    }

    pub(super) fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.shared.window)
    }

    /// Lets go the lanes and the events of what was deleted. What is on its way goes on.
    pub(super) fn forget(&self, of: impl Fn(&Key) -> bool) {
        lock(&self.lanes).retain(|key, _| !of(key));
        self.window().forget(of);
    }

    /// The way to a stream's lane, which is begun if it is not running.
    fn lane(&self, key: &Arc<Key>) -> mpsc::Sender<Work> {
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get(key).filter(|lane| !lane.is_closed()) {
            return lane.clone();
        }
        lanes.retain(|_, lane| !lane.is_closed());
        // One batch waits while another is at work; further calls wait outside, in their order.
        let (lane, batches) = mpsc::channel(1);
        lanes.insert(Arc::clone(key), lane.clone());
        let running = lane::run(Arc::clone(key), batches, self.shared.clone(), self.cx.clone());
        self.cx.tasks.spawn(format!("{} stream", self.cx.label), running);
        lane
    }

    /// PutLogEvents.
    pub(super) async fn put(
        &self,
        headers: &HeaderMap,
        received: Received,
        mut room: Room,
        patience: &Patience,
    ) -> Result<Vec<u8>, Error> {
        let mut parsed = self.parse(headers, &received, false, &mut room, patience).await?;
        if matches!(parsed, Parsed::Misled) {
            parsed = self.parse(headers, &received, true, &mut room, patience).await?;
        }
        let (key, waiter) = match parsed {
            Parsed::Joined(key, waiter) => (key, waiter),
            Parsed::New(key, out, batch) => {
                let hash = received.hash;
                drop(received);
                room.set(out.capacity());
                let (waiter, new) = self.shared.inside.enter(hash, batch);
                if new {
                    let work = Work {
                        tag: self.settings.tag.render(&key, &self.settings).into(),
                        entries: Bytes::from(out),
                        room,
                        pending: Arc::clone(&waiter.pending),
                    };
                    self.send(&key, work, patience).await?;
                }
                (key, waiter)
            }
            Parsed::Misled => return Err(Refused::Misled.into()),
        };
        match waiter.verdict(patience).await {
            Some(true) => {
                let batch = waiter.pending.batch;
                let token = self.names().note(&key.group, &key.stream, batch.span, Time::now().millis());
                Ok(answer(&token, &batch))
            }
            Some(false) => Err(Error::unavailable("an output gave the events up")),
            None => Err(Error::unavailable("the events are not delivered yet")),
        }
    }

    /// Reads a body; `all` of it before anything is believed of its names.
    async fn parse(
        &self,
        headers: &HeaderMap,
        received: &Received,
        all: bool,
        room: &mut Room,
        patience: &Patience,
    ) -> Result<Parsed, Error> {
        let body = &received.bytes;
        let outline = Outline::read(body, all)?;
        let now = Time::now().millis();
        let guessed = outline.is_guessed();
        // Nothing is made for names that are not certain.
        let create = self.settings.create_on_put && !guessed;
        let token = || {
            if guessed { None } else { Outline::read(body, true).ok()?.token.map(Cow::into_owned) }
        };
        let (group, stream) = (outline.group.as_ref(), outline.stream.as_ref());
        let retention = match self.names().find(group, stream, create, token, now) {
            Err(_) if guessed => return Ok(Parsed::Misled),
            found => found?,
        };
        self.save();
        let key = Arc::new(Key { group: group.into(), stream: stream.into() });
        if let Some(waiter) = self.shared.inside.join(&received.hash) {
            return Ok(Parsed::Joined(key, waiter));
        }
        let frame = self.frame(&key, headers);
        // Room for both, before anything is taken; what the entries take in truth is charged when it is known.
        room.grow_to(body.capacity() + frame.most(body), &self.cx, patience).await?;
        patience.within(self.cx.meter.below_limit()).await.ok_or_else(full)?;
        let mut out = Vec::with_capacity(body.len() + body.len() / 4);
        match entries(body, &outline, &frame, self.times(now, retention), &mut out) {
            Err(Refused::Misled) => Ok(Parsed::Misled),
            batch => {
                let batch = batch?;
                out.shrink_to_fit();
                Ok(Parsed::New(key, out, batch))
            }
        }
    }

    /// Hands a batch to its lane; it waits while the batches before it do.
    async fn send(&self, key: &Arc<Key>, work: Work, patience: &Patience) -> Result<(), Error> {
        loop {
            let lane = self.lane(key);
            // An error: it ended in this moment, and is begun anew.
            if let Ok(permit) = patience.within(lane.reserve()).await.ok_or_else(full)? {
                permit.send(work);
                return Ok(());
            }
        }
    }

    fn times(&self, now: i64, retention: Option<u32>) -> Times {
        if self.settings.accept_any_time {
            return Times::ANY;
        }
        let kept = retention.map_or(i64::MIN, |days| now - i64::from(days) * DAY);
        Times { oldest: now - TOO_OLD, kept, newest: now + TOO_NEW }
    }

    fn frame(&self, key: &Key, headers: &HeaderMap) -> Frame {
        let fields: [(&str, &str); 2] =
            [(&self.settings.group_key, &key.group), (&self.settings.stream_key, &key.stream)];
        let format = headers.get(FORMAT).map(|v| v.as_bytes()).filter(|v| v.len() <= FORMAT_MOST);
        let metadata = format.map(|format| {
            let mut map = Vec::new();
            msgpack::write_map(&mut map, 1);
            msgpack::write_str(&mut map, FORMAT.as_bytes());
            msgpack::write_str(&mut map, format);
            map
        });
        Frame::new(&fields, metadata.as_deref())
    }
}

fn answer(token: &str, batch: &Batch) -> Vec<u8> {
    let mut answer = json!({"nextSequenceToken": token});
    if batch.taken < batch.events {
        let parts = [
            ("tooNewLogEventStartIndex", batch.too_new_start),
            ("tooOldLogEventEndIndex", batch.too_old_end),
            ("expiredLogEventEndIndex", batch.expired_end),
        ];
        let info: serde_json::Map<_, _> =
            parts.into_iter().filter_map(|(key, at)| Some((key.to_owned(), at?.into()))).collect();
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("rejectedLogEventsInfo".to_owned(), info.into());
        }
    }
    answer.to_string().into_bytes()
}
