//! The loop: take deliveries, sort their records by stream, make batches and calls, settle.
//!
//! Enters: the output's queue. Leaves: calls, and a verdict for every delivery. Can go wrong: see [`Outcome`]. A stream
//! whose batch is not through waits with everything behind it, the others go on. What is left when the task is aborted has
//! no verdict: it counts as given up, or stays in the log.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{self, JoinError, JoinSet};

use super::api::{Api, Outcome, Rejected};
use super::batch::{Batch, Item, Run, Unsent, Writer};
use super::names::Name;
use super::streams::{StreamId, Streams};
use super::window::Window;
use crate::observe::counters::Drop as DropReason;
use crate::outputs::parcels::{ParcelId, Parcels, Settled};
use crate::outputs::{RetryPolicy, count_replaced_keys};
use crate::record::{Chunk, Record, Scratch};
use crate::rt::{Delivery, Receiver};
use crate::wire::msgpack;

/// At shutdown no back-off is waited out for longer.
const NAP: Duration = Duration::from_millis(100);
/// A batch that was put off is sent again after this at first, after [`PATIENCE`] at last.
const PUT_OFF: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(20);
/// The same where somebody has to do something first.
const LASTING: Duration = Duration::from_secs(5);
const LASTING_MOST: Duration = Duration::from_secs(60);
/// Words of a cause that say of what kind it is: the call, the status and the error's name.
const KIND_WORDS: usize = 3;
/// Bodies kept to be used again.
const SPARE: usize = 4;

/// The output at work.
pub(super) struct Runner {
    group: Name,
    stream: Name,
    of_tag: bool,
    api: Arc<Api>,
    retry: RetryPolicy,
    writer: Writer,
    parcels: Parcels,
    streams: Streams,
    window: Window,
    calls: JoinSet<Outcome>,
    /// What the calls carry.
    carried: HashMap<task::Id, (StreamId, Batch)>,
    /// What is being sorted.
    cursor: Option<Cursor>,
    scratch: Scratch,
    names: (Vec<u8>, Vec<u8>),
    /// The stream found last, by its names.
    last: Option<(Vec<u8>, Vec<u8>, StreamId)>,
    spare: Vec<Vec<u8>>,
    settled: Vec<Settled>,
    /// Streams whose last call did not go well, and why.
    troubled: HashMap<StreamId, String>,
}

/// How far a delivery has been sorted.
struct Cursor {
    parcel: ParcelId,
    chunk: Arc<Chunk>,
    urgent: bool,
    segment: usize,
    at: usize,
}

enum Event {
    Called(Option<Result<(task::Id, Outcome), JoinError>>),
    Delivery(Option<Delivery>),
    Due,
}

impl Runner {
    pub(super) fn new(
        group: Name,
        stream: Name,
        api: Api,
        writer: Writer,
        linger: Duration,
        retry: RetryPolicy,
    ) -> Runner {
        Runner {
            of_tag: group.is_of_tag() && stream.is_of_tag(),
            group,
            stream,
            api: Arc::new(api),
            retry,
            writer,
            parcels: Parcels::default(),
            streams: Streams::new(linger),
            window: Window::new(),
            calls: JoinSet::new(),
            carried: HashMap::new(),
            cursor: None,
            scratch: Scratch::default(),
            names: Default::default(),
            last: None,
            spare: Vec::new(),
            settled: Vec::new(),
            troubled: HashMap::new(),
        }
    }

    /// Runs until the queue is closed and everything has a verdict.
    pub(super) async fn run(mut self, mut queue: Receiver) {
        let mut ended = false;
        loop {
            while self.sort()
                && let Some(delivery) = queue.try_recv()
            {
                self.take(delivery);
            }
            let now = Instant::now();
            let closing = queue.closed();
            self.streams.wake(now, closing, closing.then_some(NAP));
            self.settled.extend(self.parcels.tell(now));
            while self.window.has_room() {
                if let Some(id) = self.streams.next(now) {
                    self.call(id, now);
                    continue;
                }
                // Too much lingers for the memory there is, or in too many streams.
                let pressed = self.cursor.is_some() || queue.is_pressed();
                if !pressed || !self.streams.hurry_one() {
                    break;
                }
            }
            count_replaced_keys(&queue);
            for settled in std::mem::take(&mut self.settled) {
                settled.settle().await;
            }
            if ended && self.parcels.is_empty() {
                return;
            }
            let room = self.cursor.is_none();
            let due = self.streams.next_due().filter(|_| self.window.has_room());
            let due = due.into_iter().chain(self.parcels.next_tell()).min();
            let event = tokio::select! {
                biased;
                called = self.calls.join_next_with_id(), if !self.calls.is_empty() => Event::Called(called),
                delivery = queue.recv(), if room && !ended => Event::Delivery(delivery),
                () = until(due) => Event::Due,
            };
            match event {
                Event::Called(Some(Ok((id, outcome)))) => self.called(id, outcome, &queue),
                Event::Called(Some(Err(e))) if e.is_panic() => {
                    // What made it panic would do so again, also after a start: halves find the record, the others go on.
                    let cause = format!("the call came to no end, which is a mistake of firelane: {e}");
                    tracing::error!(output = %queue.label(), %cause, "call failed");
                    self.called(e.id(), Outcome::Refused(cause), &queue);
                }
                // The runtime is ending: what it carried is settled by nobody.
                Event::Called(Some(Err(_))) => return,
                Event::Called(None) | Event::Due => {}
                Event::Delivery(Some(delivery)) => self.take(delivery),
                Event::Delivery(None) => ended = true,
            }
        }
    }

    fn take(&mut self, delivery: Delivery) {
        let (chunk, urgent) = (Arc::clone(&delivery.chunk), delivery.wants_ack());
        let parcel = self.parcels.add(delivery);
        if chunk.count == 0 {
            self.settled.extend(self.parcels.finish(parcel, 0));
            return;
        }
        self.cursor = Some(Cursor { parcel, chunk, urgent, segment: 0, at: 0 });
    }

    /// Sorts what was taken. Says whether it is through: else there are too many streams.
    fn sort(&mut self) -> bool {
        let Some(mut cursor) = self.cursor.take() else { return true };
        let chunk = Arc::clone(&cursor.chunk);
        let now = Instant::now();
        while let Some(seg) = chunk.segs.get(cursor.segment) {
            while cursor.at < seg.end {
                if !self.streams.has_room() {
                    self.cursor = Some(cursor);
                    return false;
                }
                self.names.0.clear();
                self.names.1.clear();
                let (start, mut end, mut count) = (cursor.at, seg.end, seg.count);
                if self.of_tag {
                    self.group.render(&seg.tag, None, &mut self.names.0);
                    self.stream.render(&seg.tag, None, &mut self.names.1);
                } else {
                    count = 1;
                    let read = Record::open_next(&chunk.bytes, cursor.at, &mut self.scratch);
                    end = read.as_ref().map_or(seg.end, |(_, end)| *end);
                    let record = read.as_ref().map(|(record, _)| record);
                    self.group.render(&seg.tag, record, &mut self.names.0);
                    self.stream.render(&seg.tag, record, &mut self.names.1);
                }
                let Some(id) = self.find() else {
                    self.cursor = Some(cursor);
                    return false;
                };
                let run = Run { parcel: cursor.parcel, start, end, sent: 0 };
                self.streams.add(id, run, count, cursor.urgent, now);
                cursor.at = end;
            }
            cursor.segment += 1;
        }
        true
    }

    fn find(&mut self) -> Option<StreamId> {
        let (group, stream) = &self.names;
        if let Some((g, s, id)) = &self.last
            && g == group
            && s == stream
            && self.streams.is(*id, group, stream)
        {
            return Some(*id);
        }
        let id = self.streams.find(group, stream)?;
        self.last = Some((group.clone(), stream.clone(), id));
        Some(id)
    }

    /// Makes a batch for a stream whose turn it is, and a call for it.
    fn call(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get(id) else { return };
        let names = (Arc::clone(&stream.group), Arc::clone(&stream.name));
        let again = stream.again.pop_front();
        let batch = match again {
            Some(mut batch) => {
                if batch.body.is_empty() {
                    self.writer.write((&names.0, &names.1), &mut batch, &self.parcels);
                }
                Some(batch)
            }
            None => {
                let mut unsent = Vec::new();
                let size = |runs: &VecDeque<Run>| (runs.iter().map(Run::len).sum::<usize>(), runs.len());
                let before = size(&stream.pending);
                let batch = self.writer.take(
                    (&names.0, &names.1),
                    &mut stream.pending,
                    &self.parcels,
                    self.spare.pop().unwrap_or_default(),
                    &mut unsent,
                );
                let after = size(&stream.pending);
                let events = batch.as_ref().map_or(0, |b| b.items.len());
                self.streams.took(id, before.0 - after.0, before.1 - after.1, (events + unsent.len()) as u64);
                self.unsent(unsent);
                batch
            }
        };
        let Some(batch) = batch else {
            self.streams.done(id, now);
            return;
        };
        self.window.begin(batch.body.len());
        let api = Arc::clone(&self.api);
        let (body, events, format) = (batch.body.clone(), batch.items.len(), batch.format.clone());
        let call = async move { api.put((&names.0, &names.1), body, events, format.as_deref()).await };
        self.carried.insert(self.calls.spawn(call).id(), (id, batch));
    }

    fn unsent(&mut self, unsent: Vec<Unsent>) {
        let now = Instant::now();
        for u in unsent {
            let records = match self.parcels.chunk(u.parcel) {
                // A run that is broken counts as all of its records; the rest of a chunk's arithmetic depends on it.
                Some(chunk) => count(chunk, u.range),
                None => continue,
            };
            self.parcels.bad(u.parcel, u.range, u.why, &Arc::from(u.detail));
            self.parcels.through(u.parcel, records, std::iter::once(u.range.0 as u32), now);
            self.settled.extend(self.parcels.finish(u.parcel, records));
        }
    }

    /// A call is over.
    fn called(&mut self, call: task::Id, outcome: Outcome, queue: &Receiver) {
        let Some((id, mut batch)) = self.carried.remove(&call) else { return };
        self.window.end(batch.body.len());
        let now = Instant::now();
        let counters = queue.counters();
        match outcome {
            Outcome::Done(rejected) => {
                self.window.good();
                if self.troubled.remove(&id).is_some() && self.troubled.is_empty() {
                    tracing::info!(output = %queue.label(), "sending again");
                }
                self.done(batch, rejected, queue);
                if let Some(stream) = self.streams.get(id) {
                    stream.put_off = 0;
                }
                self.streams.done(id, now);
            }
            Outcome::Throttled { after, cause } => {
                self.window.bad(now);
                counters.throttled.fetch_add(1, Relaxed);
                if self.is_news(id, &cause) {
                    tracing::warn!(output = %queue.label(), %cause, "throttled; records are kept and sent more slowly");
                }
                if self.is_old(&batch, now) {
                    return self.give_up(id, batch, now, queue);
                }
                let wait = after.unwrap_or(Duration::ZERO).max(self.put_off(id, PUT_OFF, PATIENCE));
                self.again(id, batch, now + wait);
            }
            Outcome::Hindered { cause, lasting } => {
                self.say(id, queue, &cause);
                let (first, most) = if lasting { (LASTING, LASTING_MOST) } else { (PUT_OFF, PATIENCE) };
                let wait = self.put_off(id, first, most);
                if self.is_old(&batch, now) {
                    return self.give_up(id, batch, now, queue);
                }
                self.again(id, batch, now + wait);
            }
            Outcome::Failed(cause) => {
                self.window.bad(now);
                counters.retries.fetch_add(1, Relaxed);
                self.say(id, queue, &cause);
                batch.failures = batch.failures.saturating_add(1);
                if self.retry.gives_up(batch.failures) || self.is_old(&batch, now) {
                    return self.give_up(id, batch, now, queue);
                }
                let wait = self.retry.wait(batch.failures);
                self.again(id, batch, now + wait);
            }
            Outcome::RefusedAll(cause) => {
                self.troubled.remove(&id);
                self.lose(batch, DropReason::Rejected, &Arc::from(cause), queue);
                self.streams.done(id, now);
            }
            Outcome::Refused(cause) if batch.items.len() <= 1 => {
                self.troubled.remove(&id);
                self.lose(batch, DropReason::Rejected, &Arc::from(cause), queue);
                self.streams.done(id, now);
            }
            // Something in it is not taken: halves find out what. They go before everything else of the stream.
            Outcome::Refused(cause) => {
                tracing::debug!(output = %queue.label(), %cause, events = batch.items.len(), "refused; sent again in halves");
                let (first, second) = batch.halves();
                if let Some(stream) = self.streams.get(id) {
                    stream.again.push_front(second);
                    stream.again.push_front(first);
                }
                self.streams.done(id, now);
            }
        }
    }

    /// How long a stream that was put off waits: longer each time, and not all for as long.
    fn put_off(&mut self, id: StreamId, first: Duration, most: Duration) -> Duration {
        let Some(stream) = self.streams.get(id) else { return first };
        stream.put_off = stream.put_off.saturating_add(1);
        let wait = first.saturating_mul(1 << (stream.put_off - 1).min(16)).min(most);
        // Half of it, and as much more as chance has it.
        let mut chance = [0; 2];
        // Without randomness all wait for the whole time.
        let n = rustix::rand::getrandom(&mut chance, rustix::rand::GetRandomFlags::NONBLOCK);
        let part = if n.is_ok() { u32::from(u16::from_ne_bytes(chance)) } else { 1 << 16 };
        wait / 2 + wait / 2 * part / (1 << 16)
    }

    fn again(&mut self, id: StreamId, mut batch: Batch, until: Instant) {
        self.keep(batch.forget_body());
        if let Some(stream) = self.streams.get(id) {
            stream.again.push_front(batch);
        }
        self.streams.back_off(id, until);
    }

    /// Says what is wrong if it is news.
    fn say(&mut self, id: StreamId, queue: &Receiver, cause: &str) {
        if self.is_news(id, cause) {
            let (group, stream) = self
                .streams
                .get(id)
                .map_or_else(Default::default, |s| (Arc::clone(&s.group), Arc::clone(&s.name)));
            tracing::error!(output = %queue.label(), %group, %stream, %cause, "cannot send; records are kept and sent again");
        } else {
            tracing::debug!(output = %queue.label(), %cause, "still cannot send");
        }
    }

    /// Notes a stream's trouble. It is news if no stream has one of its kind; of what has a number, a host or a name in it, the
    /// beginning says the kind.
    fn is_news(&mut self, id: StreamId, cause: &str) -> bool {
        let kind =
            |text: &str| text.split_whitespace().take(KIND_WORDS).map(str::to_owned).collect::<Vec<_>>();
        let (now, before) = (kind(cause), self.troubled.insert(id, cause.to_owned()));
        before.is_none_or(|before| kind(&before) != now)
            && !self.troubled.iter().any(|(other, of)| *other != id && kind(of) == now)
    }

    fn is_old(&self, batch: &Batch, now: Instant) -> bool {
        let age = batch.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        self.retry.max_age.is_some_and(|max| age >= max)
    }

    fn give_up(&mut self, id: StreamId, batch: Batch, now: Instant, queue: &Receiver) {
        let cause = self.troubled.remove(&id).unwrap_or_default();
        self.lose(batch, DropReason::Retries, &Arc::from(cause), queue);
        self.streams.done(id, now);
    }

    /// The service has the batch, but for what it rejected.
    fn done(&mut self, batch: Batch, rejected: Vec<Rejected>, queue: &Receiver) {
        for r in rejected {
            tracing::warn!(output = %queue.label(), events = r.events.len(), reason = r.why.name(), detail = r.detail,
                "CloudWatch rejected events");
            let detail = Arc::from(r.detail);
            for item in batch.items.get(r.events).unwrap_or_default() {
                let range = (item.start as usize, item.end as usize);
                self.parcels.bad(item.parcel, range, r.why, &detail);
            }
        }
        self.finish(batch);
    }

    /// Nobody will have the batch.
    fn lose(&mut self, batch: Batch, why: DropReason, detail: &Arc<str>, queue: &Receiver) {
        tracing::warn!(output = %queue.label(), events = batch.items.len(), reason = why.name(), %detail,
            "records given up");
        for item in &batch.items {
            self.parcels.bad(item.parcel, (item.start as usize, item.end as usize), why, detail);
        }
        self.finish(batch);
    }

    /// Every event of the batch has its fate.
    fn finish(&mut self, batch: Batch) {
        let now = Instant::now();
        for run in batch.items.chunk_by(|a, b| a.parcel == b.parcel) {
            // A record that was cut is through with its last piece.
            let whole = run.iter().filter(|item| item.last);
            if let Some(Item { parcel, .. }) = run.first() {
                let (records, begin) = (whole.clone().count() as u64, whole.map(|item| item.start));
                self.parcels.through(*parcel, records, begin, now);
                self.settled.extend(self.parcels.finish(*parcel, records));
            }
        }
        self.keep(batch.body);
    }

    /// Keeps a body's memory for the next one.
    fn keep(&mut self, body: Bytes) {
        if self.spare.len() < SPARE && body.is_unique() {
            self.spare.push(body.into());
        }
    }
}

/// The records in a range of a chunk: one, unless its bytes are none.
fn count(chunk: &Chunk, (start, end): (usize, usize)) -> u64 {
    let mut at = start;
    let mut n = 0;
    while at < end {
        match msgpack::skip(&chunk.bytes, at) {
            Ok(next) => (at, n) = (next, n + 1),
            Err(_) => break,
        }
    }
    n.max(1)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
