//! The loop: take deliveries, send their records, wait for the reports, settle.
//!
//! Enters: the output's queue. Leaves: messages, and a verdict for every delivery once all its reports have come. Can go
//! wrong: see [`Fate`]. When messages fail, everything that is not on its way is taken back first and nothing new is sent;
//! when the last report is there, what has not arrived goes again in order, and new records follow when that has arrived.
//! So a failure neither loses, repeats nor overtakes anything. What is left when the task is aborted has no verdict: it
//! counts as given up, or stays in the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use super::encode::Encoder;
use super::producer::{Factory, Fate, Mode, Producer, Untaken, fate, say};
use super::reports::{Failure, opaque};
use super::sheets::{Key, Letters, Sheets, Slip};
use crate::net::kafka::{Trouble, cause};
use crate::observe::counters::Drop as DropReason;
use crate::outputs::parcels::ParcelId;
use crate::outputs::{RetryPolicy, count_replaced_keys};
use crate::record::{Chunk, Time};
use crate::rt::{Delivery, Receiver};

/// What may be in librdkafka's queue, its own overhead counted.
const FULL: u64 = 8 << 20;
/// What librdkafka takes for a message besides its bytes, and for its headers.
const OVERHEAD: u64 = 256;
/// How often it is looked whether something is to be done that nobody reports.
const TICK: Duration = Duration::from_millis(200);
/// At shutdown no back-off is waited out for longer.
const NAP: Duration = Duration::from_millis(100);
/// How long a producer that is to end may wait for answers on their way, and one that goes on (its requests time out
/// after a minute).
const FAREWELL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(90);
/// How long closing the last producer may take.
const CLOSE: Duration = Duration::from_secs(1);

/// The output at work.
pub(super) struct Runner {
    factory: Factory,
    encoder: Encoder,
    retry: RetryPolicy,
    producer: Producer,
    /// Another producer is to be made first.
    wanted: Option<Mode>,
    sheets: Sheets,
    /// What goes again, in order.
    again: VecDeque<Slip>,
    /// So many of them, from the front, go alone.
    suspects: usize,
    /// Nothing new is sent until what goes again has arrived.
    confirming: bool,
    cursor: Option<Cursor>,
    failed: Vec<Failure>,
    phase: Phase,
    /// The brokers cannot be reached, since when.
    trouble: Option<(Instant, Trouble)>,
    /// Why records wait for somebody to do something.
    hindered: Option<String>,
    /// Times in a row that nothing arrived.
    waves: u32,
    letters: Letters,
}

/// How far a delivery has been sent.
struct Cursor {
    parcel: ParcelId,
    chunk: Arc<Chunk>,
    segment: usize,
    at: usize,
    index: u32,
}

enum Phase {
    Flowing,
    /// Until everything that is out is reported. `fatal`: the producer is dead; `resign`: what is too old is given up.
    Draining {
        since: Instant,
        fatal: Option<String>,
        resign: bool,
    },
    Waiting {
        since: Instant,
        until: Instant,
    },
}

impl Phase {
    fn waiting(time: Duration) -> Phase {
        let since = Instant::now();
        Phase::Waiting { since, until: since + time }
    }
}

/// What became of a record that was to be sent.
enum Sent {
    Out {
        bytes: u64,
    },
    /// It stays, with all behind it.
    Full,
    Dead,
    /// As if it had been reported: its topic is known not to be there.
    Failed(Code),
    Bad(String),
}

impl Runner {
    pub(super) fn new(factory: Factory, encoder: Encoder, retry: RetryPolicy) -> Result<Runner, String> {
        let producer = factory.make(Mode::Bulk)?;
        Ok(Runner {
            factory,
            encoder,
            retry,
            producer,
            wanted: None,
            sheets: Sheets::default(),
            again: VecDeque::new(),
            suspects: 0,
            confirming: false,
            cursor: None,
            failed: Vec::new(),
            phase: Phase::Flowing,
            trouble: None,
            hindered: None,
            waves: 0,
            letters: Letters::default(),
        })
    }

    /// Runs until the queue is closed and everything has a verdict.
    pub(super) async fn run(mut self, mut queue: Receiver) {
        let mut ended = false;
        loop {
            self.hear(&queue);
            self.step(&queue);
            while self.has_room()
                && let Some(delivery) = queue.try_recv()
            {
                self.take(delivery);
                self.flow();
                count_replaced_keys(&queue);
                tokio::task::yield_now().await;
            }
            count_replaced_keys(&queue);
            self.settle().await;
            if ended && self.sheets.is_empty() {
                break;
            }
            let room = self.has_room();
            let changed = Arc::clone(&self.producer.reports.changed);
            let due = self.due(queue.closed());
            tokio::select! {
                biased;
                () = changed.notified() => {}
                () = self.factory.tasks.any_panicked() => {
                    tracing::error!(output = %queue.label(), "output ended: the thread for reports has panicked");
                    return;
                }
                delivery = queue.recv(), if room && !ended => match delivery {
                    Some(delivery) => {
                        self.take(delivery);
                        self.flow();
                    }
                    None => ended = true,
                },
                () = until(due) => {}
            }
        }
        let tasks = self.factory.tasks.clone();
        drop(self);
        // Closing the connections is polite, and no reason to wait for long.
        drop(tokio::time::timeout(CLOSE, tasks.all_ended()).await);
    }

    async fn settle(&mut self) {
        for settled in self.sheets.settled() {
            settled.settle().await;
        }
    }

    fn has_room(&self) -> bool {
        matches!(self.phase, Phase::Flowing)
            && !self.confirming
            && self.wanted.is_none()
            && self.cursor.is_none()
            && self.sheets.weight() < FULL
    }

    /// When to look again though nothing is reported.
    fn due(&self, closing: bool) -> Option<Instant> {
        let now = Instant::now();
        match &self.phase {
            Phase::Draining { .. } => Some(now + TICK),
            // It is seen soon when the process is to stop.
            Phase::Waiting { until, .. } if closing => Some((now + NAP).min(*until)),
            Phase::Waiting { until, .. } => Some((now + TICK).min(*until)),
            Phase::Flowing if self.cursor.is_some() || self.wanted.is_some() || !self.again.is_empty() => {
                Some(now + TICK)
            }
            Phase::Flowing if self.trouble.is_some() && self.retry.patience().is_some() => Some(now + TICK),
            Phase::Flowing => None,
        }
    }

    fn take(&mut self, delivery: Delivery) {
        let chunk = Arc::clone(&delivery.chunk);
        let parcel = self.sheets.add(delivery);
        if chunk.count == 0 {
            return self.sheets.finish(parcel, 0);
        }
        self.cursor = Some(Cursor { parcel, chunk, segment: 0, at: 0, index: 0 });
    }

    /// Hears what has been reported.
    fn hear(&mut self, queue: &Receiver) {
        let news = self.producer.reports.take();
        for (parcel, arrived) in news.done {
            self.sheets.finish(parcel, arrived);
        }
        if news.arrived {
            self.factory.met.store(true, Relaxed);
            self.waves = 0;
            if self.trouble.take().is_some() {
                tracing::info!(output = %queue.label(), "sending again");
            }
        }
        if let Some(trouble) = news.trouble
            && !news.arrived
        {
            let cause = &trouble.cause;
            if news.out == 0 && self.factory.met.load(Relaxed) {
                // Brokers close connections that are idle; who has nothing to send is not in trouble.
                tracing::debug!(output = %queue.label(), %cause, "an idle connection is gone");
            } else if self.trouble.as_ref().is_none_or(|(_, known)| trouble.tells_more_than(known)) {
                tracing::error!(output = %queue.label(), %cause, "cannot reach Kafka; records are kept and sent when it is there");
                let since = self.trouble.as_ref().map_or_else(Instant::now, |(since, _)| *since);
                self.trouble = Some((since, trouble));
            } else {
                tracing::debug!(output = %queue.label(), %cause, "still cannot reach Kafka");
            }
        }
        for failure in news.failed {
            if self.producer.mode == Mode::Alone && fate(failure.code) == Fate::Suspect {
                self.letters.refused(failure, cause(failure.code));
            } else {
                self.failed.push(failure);
            }
        }
        self.letters.send(&mut self.sheets, queue);
        // A producer that is to be replaced may say so for long.
        let fatal = news.fatal.filter(|_| self.wanted.is_none());
        match &mut self.phase {
            Phase::Draining { fatal: known, .. } => *known = known.take().or(fatal),
            _ if fatal.is_some() || !self.failed.is_empty() => self.drain(fatal, false),
            _ => {}
        }
    }

    /// Stops sending, until everything that is out is reported.
    fn drain(&mut self, fatal: Option<String>, resign: bool) {
        self.producer.take_back(resign);
        self.phase = Phase::Draining { since: Instant::now(), fatal, resign };
    }

    /// Does what is due.
    fn step(&mut self, queue: &Receiver) {
        match &mut self.phase {
            Phase::Draining { since, fatal, resign } => {
                if !self.producer.reports.is_empty() {
                    let patience = if fatal.is_some() { FAREWELL } else { PATIENCE };
                    // What was on its way and came back waits in the queue again.
                    self.producer.take_back(*resign || since.elapsed() > patience);
                    return;
                }
                let (fatal, resign) = (fatal.take(), *resign);
                // Reports that came after the last look.
                self.phase = Phase::waiting(Duration::ZERO);
                self.hear_last();
                self.drained(fatal, resign, queue);
            }
            Phase::Waiting { since, until } => {
                let until = if queue.closed() { (*since + NAP).min(*until) } else { *until };
                if Instant::now() < until {
                    return self.resign_if_hopeless();
                }
                self.phase = Phase::Flowing;
            }
            Phase::Flowing => {}
        }
        if matches!(self.phase, Phase::Flowing) {
            self.resign_if_hopeless();
        }
        if matches!(self.phase, Phase::Flowing) {
            self.remake(queue);
            self.flow();
            self.confirm(queue);
        }
    }

    fn hear_last(&mut self) {
        let news = self.producer.reports.take();
        for (parcel, arrived) in news.done {
            self.sheets.finish(parcel, arrived);
        }
        self.failed.extend(news.failed);
    }

    fn remake(&mut self, queue: &Receiver) {
        let Some(mode) = self.wanted else { return };
        match self.factory.make(mode) {
            Ok(producer) => {
                self.producer = producer;
                self.wanted = None;
            }
            Err(cause) => {
                tracing::error!(output = %queue.label(), %cause, "cannot make a producer; records are kept");
                self.waves = self.waves.saturating_add(1);
                self.phase = Phase::waiting(self.retry.wait(self.waves));
            }
        }
    }

    /// Everything is reported: sorts out what goes again, and how.
    fn drained(&mut self, fatal: Option<String>, resign: bool, queue: &Receiver) {
        let failed = std::mem::take(&mut self.failed);
        self.sheets.begin_wave();
        let mut slips: Vec<(Key, Slip, Option<Code>)> = self.sheets.slips(&failed);
        let waiting = self.again.drain(..).map(|slip| (self.sheets.key(&slip), slip, None));
        slips.extend(waiting.collect::<Vec<_>>());
        slips.sort_unstable_by_key(|(key, ..)| *key);

        let is_suspect = |code: Option<Code>| code.is_some_and(|code| fate(code) == Fate::Suspect);
        // A message that was refused in company may be innocent; of one alone the broker has said enough.
        let company = slips.iter().filter(|(.., code)| is_suspect(*code)).count() > 1;
        let (mut hindered, mut suspects) = (None, 0);
        let mut suspect = None;
        let mut kept = VecDeque::with_capacity(slips.len());
        for (_, slip, code) in slips {
            let what = code.map_or(Fate::Again, fate);
            if let Some(code) = code
                && what == Fate::Hindered
            {
                let (topic, dynamic) = self.topic(&slip);
                if dynamic && is_of_topic(code) {
                    // A name that came with a record must not hold up the others.
                    self.letters.slip(&slip, DropReason::Rejected, say(code, &topic));
                    continue;
                }
                self.sheets.failed(&slip);
                hindered = Some(say(code, &topic));
            }
            if self.is_hopeless(&slip, resign || what == Fate::Hindered) {
                let cause = hindered
                    .clone()
                    .or_else(|| self.trouble.as_ref().map(|(_, trouble)| trouble.cause.clone()));
                self.letters.slip(&slip, DropReason::Retries, cause.unwrap_or_else(|| "too old".to_owned()));
                continue;
            }
            if what == Fate::Suspect {
                suspect = code;
                if !company {
                    self.letters.slip(&slip, DropReason::Rejected, code.map(cause).unwrap_or_default());
                    continue;
                }
                suspects = kept.len() + 1;
            }
            kept.push_back(slip);
        }
        if resign && let Some(cursor) = self.cursor.take_if(|c| self.sheets.is_old(c.parcel)) {
            self.give_up_rest(&cursor);
        }
        self.letters.send(&mut self.sheets, queue);
        self.again = kept;
        self.suspects = suspects;
        self.confirming = true;
        queue.counters().retries.fetch_add(1, Relaxed);

        let gap = suspect.is_some();
        if company {
            let cause = suspect.map(cause).unwrap_or_default();
            tracing::warn!(output = %queue.label(), %cause, records = suspects,
                "Kafka refused a batch; its records are sent one by one");
            if suspect == Some(Code::MessageSizeTooLarge) {
                let batch = self.factory.shrink();
                tracing::warn!(output = %queue.label(), batch,
                    "batches are made smaller; set rdkafka.batch.size below max.message.bytes of the topic");
            }
            self.wanted = Some(Mode::Alone);
        } else if gap || fatal.is_some() || resign || self.producer.mode == Mode::Alone {
            self.wanted = Some(Mode::Bulk);
        }
        let mut wait = Duration::ZERO;
        if let Some(cause) = &hindered {
            self.waves = self.waves.saturating_add(1);
            wait = self.retry.wait(self.waves);
            if self.hindered.is_none() {
                tracing::error!(output = %queue.label(), %cause, "cannot send; records are kept and sent again");
            }
            self.hindered = hindered;
        } else if let Some(cause) = fatal.filter(|_| !gap) {
            tracing::warn!(output = %queue.label(), %cause, "the producer has given up; a new one sends what has not arrived");
            wait = if self.waves > 0 { self.retry.wait(self.waves) } else { wait };
            self.waves = self.waves.saturating_add(1);
        }
        self.phase = match wait {
            Duration::ZERO => Phase::Flowing,
            wait => Phase::waiting(wait),
        };
    }

    /// The topic that a record goes to, and whether it chose it.
    fn topic(&mut self, slip: &Slip) -> (String, bool) {
        let chunk = self.sheets.chunk(slip.parcel);
        let message = chunk.as_ref().and_then(|c| self.encoder.message(&c.bytes, slip.start, b"", 0));
        match message {
            Some((Ok(message), _)) => (message.topic.to_owned(), message.dynamic),
            _ => (String::new(), false),
        }
    }

    /// Whether its delivery is to be given up: it failed as often, or is as old, as the policy allows.
    fn is_hopeless(&self, slip: &Slip, failing: bool) -> bool {
        failing && (self.retry.gives_up(self.sheets.failures(slip.parcel)) || self.sheets.is_old(slip.parcel))
    }

    /// While the brokers are away no message fails: whether records are too old is looked for here.
    fn resign_if_hopeless(&mut self) {
        let Some(patience) = self.retry.patience() else { return };
        let since = match (&self.trouble, &self.hindered) {
            (Some((since, _)), _) => Some(*since),
            (None, Some(_)) => None,
            (None, None) => return,
        };
        let (limit, max_age) = (self.retry.limit, self.retry.max_age);
        let found = self.sheets.mark_old(|taken, delivery| {
            let age = max_age.is_some_and(|max| delivery.elapsed() >= max);
            let limit = limit.is_some() && since.is_some_and(|since| taken.max(since).elapsed() >= patience);
            age || limit
        });
        if found {
            self.drain(None, true);
        }
    }

    /// Sends what goes again, then what is at hand.
    fn flow(&mut self) {
        if self.wanted.is_some() || !matches!(self.phase, Phase::Flowing) {
            return;
        }
        let now = Time::now().sec;
        let alone = self.producer.mode == Mode::Alone;
        while let Some(slip) = self.again.front().filter(|_| !alone || self.suspects > 0) {
            // What goes again has been in librdkafka's queue before: there is room for it.
            let Some(chunk) = self.sheets.chunk(slip.parcel) else {
                self.again.pop_front();
                continue;
            };
            self.producer.reports.expect(slip.parcel, 1);
            let (parcel, index, start) = (slip.parcel, slip.index, slip.start);
            let tag = chunk.segs.iter().find(|seg| slip.end <= seg.end).map(|seg| seg.tag.clone());
            let tag = tag.as_ref().map_or(&b""[..], |tag| tag.as_bytes());
            let (sent, _) = send(&mut self.encoder, &self.producer, &chunk, start, tag, (parcel, index), now);
            match sent {
                Sent::Out { .. } => {}
                Sent::Full | Sent::Dead => return self.producer.reports.unexpect(parcel, 1),
                Sent::Failed(code) => {
                    self.again.pop_front();
                    self.failed.push(Failure { parcel, index, code });
                    return self.producer.reports.unexpect(parcel, 1);
                }
                Sent::Bad(detail) => {
                    self.producer.reports.unexpect(parcel, 1);
                    self.letters.slip(slip, DropReason::Rejected, detail);
                }
            }
            self.again.pop_front();
            self.suspects = self.suspects.saturating_sub(1);
        }
        if self.confirming || !self.again.is_empty() {
            return;
        }
        if let Some(mut cursor) = self.cursor.take()
            && !self.send_rest(&mut cursor, now)
        {
            self.cursor = Some(cursor);
        }
    }

    /// Sends the rest of a delivery. Says whether all of it is out.
    fn send_rest(&mut self, cursor: &mut Cursor, now: i64) -> bool {
        let chunk = Arc::clone(&cursor.chunk);
        let parcel = cursor.parcel;
        let mut unsent = chunk.count.saturating_sub(u64::from(cursor.index));
        self.producer.reports.expect(parcel, unsent);
        let mut bytes = 0;
        let mut whole = true;
        'all: while let Some(seg) = chunk.segs.get(cursor.segment) {
            while cursor.at < seg.end {
                let id = (parcel, cursor.index);
                let (sent, end) =
                    send(&mut self.encoder, &self.producer, &chunk, cursor.at, seg.tag.as_bytes(), id, now);
                match sent {
                    Sent::Out { bytes: more } => {
                        bytes += more;
                        unsent = unsent.saturating_sub(1);
                    }
                    Sent::Full | Sent::Dead => {
                        whole = false;
                        break 'all;
                    }
                    Sent::Failed(code) => {
                        self.failed.push(Failure { parcel, index: cursor.index, code });
                        cursor.at = end.unwrap_or(seg.end);
                        cursor.index += 1;
                        whole = false;
                        break 'all;
                    }
                    Sent::Bad(detail) => {
                        // Chunks are validated; of one that is broken all the same, the segment ends here.
                        let records = if end.is_some() { 1 } else { left(&chunk, cursor) };
                        let (start, end) = (cursor.at, end.unwrap_or(seg.end));
                        let slip = Slip { parcel, index: cursor.index, start, end };
                        self.letters.run(&slip, records, DropReason::Rejected, detail);
                        cursor.index += (records as u32).saturating_sub(1);
                    }
                }
                cursor.at = end.unwrap_or(seg.end);
                cursor.index += 1;
            }
            cursor.segment += 1;
        }
        self.sheets.weigh(parcel, bytes, &chunk);
        self.producer.reports.unexpect(parcel, unsent);
        whole
    }

    /// What of a delivery was not sent yet is given up.
    fn give_up_rest(&mut self, cursor: &Cursor) {
        let cause =
            self.trouble.as_ref().map_or_else(|| "too old".to_owned(), |(_, trouble)| trouble.cause.clone());
        for slip in self.sheets.rest(cursor.parcel, cursor.index) {
            self.letters.slip(&slip, DropReason::Retries, cause.clone());
        }
    }

    /// What went again has arrived, or not all of it may go yet.
    fn confirm(&mut self, queue: &Receiver) {
        self.letters.send(&mut self.sheets, queue);
        if !self.confirming || !self.failed.is_empty() || self.wanted.is_some() {
            return;
        }
        if !self.producer.reports.is_empty() {
            return;
        }
        if self.producer.mode == Mode::Alone && self.suspects == 0 {
            // The last of their reports may not be heard yet.
            self.hear(queue);
            if !matches!(self.phase, Phase::Flowing) {
                return;
            }
            self.wanted = Some(Mode::Bulk);
            self.remake(queue);
            self.flow();
        }
        if self.again.is_empty() && self.producer.reports.is_empty() {
            self.confirming = false;
            if self.hindered.take().is_some() {
                tracing::info!(output = %queue.label(), "sending again");
            }
            self.flow();
        }
    }
}

/// Sends one record. The end of its entry is unknown when it is none.
fn send(
    encoder: &mut Encoder,
    producer: &Producer,
    chunk: &Chunk,
    at: usize,
    tag: &[u8],
    (parcel, index): (ParcelId, u32),
    now: i64,
) -> (Sent, Option<usize>) {
    match encoder.message(&chunk.bytes, at, tag, now) {
        None => (Sent::Bad("it is no record".to_owned()), None),
        Some((Err(unfit), end)) => (Sent::Bad(unfit.detail.to_owned()), Some(end)),
        Some((Ok(message), end)) => {
            let bytes = (message.payload.len() + message.key.map_or(0, <[u8]>::len) + message.head) as u64;
            let sent = match producer.send(message, opaque(parcel, index)) {
                Ok(()) => Sent::Out { bytes: bytes + OVERHEAD },
                Err(Untaken::Full) => Sent::Full,
                Err(Untaken::Dead) => Sent::Dead,
                Err(Untaken::Refused(code)) if fate(code) == Fate::Hindered => Sent::Failed(code),
                Err(Untaken::Refused(code)) => Sent::Bad(cause(code)),
            };
            (sent, Some(end))
        }
    }
}

/// Records of the segment at hand from the cursor on.
fn left(chunk: &Chunk, cursor: &Cursor) -> u64 {
    let upto: u64 = chunk.segs.iter().take(cursor.segment + 1).map(|seg| seg.count).sum();
    upto.saturating_sub(u64::from(cursor.index)).max(1)
}

/// Whether it is the topic's name that is wrong, not the brokers' state.
fn is_of_topic(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed
    )
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
