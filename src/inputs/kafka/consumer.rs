//! librdkafka's side: a thread that polls, and holds partitions back while there is no room.
//!
//! Enters: messages. Leaves: batches to the lane; positions to librdkafka, which commits them. Can go wrong: the brokers
//! are away, or the group changes: both are librdkafka's business, and what it says is logged when it is news. The thread
//! polls also while there is no room, or the group would take us for dead.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::control::Control;
use super::lane::Work;
use super::record::{Batch, Shape};
use crate::inputs::InputContext;
use crate::net::kafka::{self, KafkaConfig, Tokens, Trouble};
use crate::rt::Charge;

/// A batch is passed on from here on.
const BATCH: usize = 64 << 10;
/// How long a poll may wait.
const POLL: Duration = Duration::from_millis(100);
/// There may be no room for so long before partitions are held back: librdkafka forgets what it has fetched then.
const PATIENCE: Duration = Duration::from_millis(500);
/// Before the group is joined again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the lane may take to end beyond the time of sources.
const CLOSE: Duration = Duration::from_secs(5);

/// Whether a consumer of this configuration can be made.
pub(super) fn check(config: &KafkaConfig) -> Result<(), String> {
    let listener = Listener::new(String::new(), Arc::new(Control::new()), None);
    make(&config.alone(), listener).map(drop)
}

fn make(properties: &ClientConfig, listener: Listener) -> Result<BaseConsumer<Listener>, String> {
    properties.create_with_context(listener).map_err(|e| match e {
        KafkaError::ClientCreation(words) | KafkaError::ClientConfig(_, words, ..) => {
            words.trim_end().to_owned()
        }
        e => e.to_string(),
    })
}

/// The thread.
pub(super) struct Reader {
    pub(super) config: KafkaConfig,
    pub(super) topics: Vec<String>,
    pub(super) shape: Shape,
    pub(super) tokens: Option<Arc<Tokens>>,
    pub(super) batches: mpsc::Sender<Work>,
    pub(super) control: Arc<Control>,
    pub(super) _queue: Charge,
    pub(super) cx: InputContext,
    pub(super) runtime: tokio::runtime::Handle,
}

impl Reader {
    /// Reads until the process stops; then leaves the group, once the lane has ended.
    pub(super) fn run(self) {
        while !self.cx.stop.is_draining() {
            let generation = self.control.generation();
            match self.join() {
                Ok(consumer) => {
                    self.read(&consumer, generation);
                    if self.cx.stop.is_draining() {
                        return self.leave(consumer);
                    }
                }
                Err(cause) => {
                    tracing::error!(input = %self.cx.label, %cause, "cannot join the group; tried again");
                }
            }
            self.pause(PAUSE);
        }
    }

    fn pause(&self, time: Duration) {
        let mut stop = self.cx.stop.clone();
        self.runtime.block_on(async move { drop(timeout(time, stop.draining()).await) });
    }

    fn join(&self) -> Result<BaseConsumer<Listener>, String> {
        let listener = Listener::new(self.cx.label.clone(), Arc::clone(&self.control), self.tokens.clone());
        let consumer = make(&self.config.properties, listener)?;
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|e| e.to_string())?;
        Ok(consumer)
    }

    /// Until the process stops, or what was read does not count any more.
    fn read(&self, consumer: &BaseConsumer<Listener>, generation: u64) {
        let fresh = || Batch { generation, ..Batch::default() };
        let mut batch = fresh();
        while !self.cx.stop.is_draining() && self.control.generation() == generation {
            store(consumer, &self.control);
            let wait = if batch.is_empty() { POLL } else { Duration::ZERO };
            match consumer.poll(wait) {
                Some(Ok(message)) => {
                    if batch.is_empty() {
                        consumer.context().fine();
                    }
                    batch.add(&self.shape, &message);
                    if batch.bytes.len() < BATCH {
                        continue;
                    }
                }
                Some(Err(e)) => consumer.context().trouble(&e),
                None => {}
            }
            if !batch.is_empty() {
                batch = self.pass_on(consumer, batch).unwrap_or_else(fresh);
            }
        }
    }

    /// Hands a batch over. Gives it back, with what may have come to it, when the process stops or the batch does not
    /// count any more.
    fn pass_on(&self, consumer: &BaseConsumer<Listener>, batch: Batch) -> Option<Batch> {
        let mut batch = Some(batch);
        if self.offer(&mut batch, PATIENCE) {
            return None;
        }
        let held = &consumer.context().held;
        held.store(true, Relaxed);
        let assigned = consumer.assignment();
        if let Ok(assigned) = &assigned
            && let Err(e) = consumer.pause(assigned)
        {
            tracing::debug!(input = %self.cx.label, cause = %e, "cannot pause");
        }
        while !self.cx.stop.is_draining()
            && batch.as_ref().is_some_and(|b| b.generation == self.control.generation())
        {
            store(consumer, &self.control);
            // What comes all the same was on its way already.
            match (consumer.poll(Duration::ZERO), &mut batch) {
                (Some(Ok(message)), Some(batch)) => batch.add(&self.shape, &message),
                (Some(Err(e)), _) => consumer.context().trouble(&e),
                _ => {}
            }
            if self.offer(&mut batch, POLL) {
                break;
            }
        }
        held.store(false, Relaxed);
        if let Ok(assigned) = consumer.assignment()
            && let Err(e) = consumer.resume(&assigned)
        {
            tracing::debug!(input = %self.cx.label, cause = %e, "cannot resume");
        }
        batch
    }

    /// Waits a while for room. Says whether the batch is gone.
    fn offer(&self, batch: &mut Option<Batch>, patience: Duration) -> bool {
        let bytes = batch.as_ref().map_or(0, |b| b.bytes.len() as u64);
        let room = async {
            self.cx.meter.below_limit().await;
            let charge = self.cx.budget.wait_take(bytes).await;
            self.batches.reserve().await.ok().map(|permit| (permit, charge))
        };
        match self.runtime.block_on(timeout_of(patience, room)) {
            Some(Some((permit, charge))) => {
                if let Some(batch) = batch.take() {
                    permit.send((batch, charge));
                }
                true
            }
            // The lane is gone: nothing is committed that it does not know of.
            Some(None) => batch.take().is_some(),
            None => false,
        }
    }

    /// The last positions, then goodbye.
    fn leave(self, consumer: BaseConsumer<Listener>) {
        let Reader { batches, control, runtime, cx, .. } = self;
        drop(batches);
        let mut stop = cx.stop.clone();
        runtime.block_on(async {
            let at = stop.draining().await + CLOSE;
            drop(tokio::time::timeout_at(at, control.ended.notified()).await);
        });
        store(&consumer, &control);
        // Closing commits what is stored and leaves the group.
        drop(consumer);
    }
}

async fn timeout_of<T>(patience: Duration, what: impl Future<Output = T>) -> Option<T> {
    timeout(patience, what).await.ok()
}

/// Tells librdkafka which positions are safe.
fn store(consumer: &BaseConsumer<Listener>, control: &Control) {
    let safe = control.take();
    if safe.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::with_capacity(safe.len());
    for ((topic, partition), offset) in safe {
        if let Err(e) = list.add_partition_offset(&topic, partition, Offset::Offset(offset)) {
            tracing::debug!(cause = %e, "cannot store a position");
        }
    }
    // A partition that is somebody else's by now: they begin at what was committed.
    if let Err(e) = consumer.store_offsets(&list) {
        tracing::debug!(cause = %e, "positions of partitions that are not ours any more");
    }
}

/// Hears what librdkafka says, on the thread that polls.
struct Listener {
    label: String,
    control: Arc<Control>,
    tokens: Option<Arc<Tokens>>,
    /// Partitions are held back: new ones, too.
    held: AtomicBool,
    /// Partitions or messages have come.
    met: AtomicBool,
    /// The trouble that has been told.
    told: Mutex<Option<Trouble>>,
}

impl Listener {
    fn new(label: String, control: Arc<Control>, tokens: Option<Arc<Tokens>>) -> Listener {
        let (held, met, told) = Default::default();
        Listener { label, control, tokens, held, met, told }
    }

    fn told(&self) -> MutexGuard<'_, Option<Trouble>> {
        // It is one value: nothing can leave it half-changed.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, trouble: Trouble) {
        let (mut told, cause) = (self.told(), &trouble.cause);
        if told.as_ref().is_none_or(|told| trouble.tells_more_than(told)) {
            tracing::error!(input = %self.label, %cause, "cannot read from Kafka; tried again");
            *told = Some(trouble);
        } else {
            tracing::debug!(input = %self.label, %cause, "still cannot read from Kafka");
        }
    }

    fn trouble(&self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(code) => self.say(Trouble::new(error, &code.to_string(), true)),
            None => self.say(Trouble { cause: error.to_string(), telling: true }),
        }
    }

    fn fine(&self) {
        self.met.store(true, Relaxed);
        if self.told().take().is_some() {
            tracing::info!(input = %self.label, "reading again");
        }
    }

    fn partitions(list: &TopicPartitionList) -> String {
        let names: Vec<String> =
            list.elements().iter().map(|e| format!("{}[{}]", e.topic(), e.partition())).collect();
        names.join(" ")
    }
}

impl ClientContext for Listener {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(&self.label, level, facility, message);
        if let Some(trouble) = Trouble::of_log(facility, message, self.met.load(Relaxed)) {
            self.say(trouble);
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        tracing::info!(input = %self.label, "librdkafka: {}", String::from_utf8_lossy(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.say(Trouble::new(&error, reason, self.met.load(Relaxed)));
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        kafka::token(self.tokens.as_deref(), config)
    }
}

impl ConsumerContext for Listener {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            tracing::info!(input = %self.label, partitions = %Listener::partitions(list), "partitions given up");
            // What is safe by now is committed before they go.
            store(consumer, &self.control);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            tracing::info!(input = %self.label, partitions = %Listener::partitions(list), "partitions taken");
            self.fine();
            if self.held.load(Relaxed)
                && let Err(e) = consumer.pause(list)
            {
                tracing::debug!(input = %self.label, cause = %e, "cannot pause");
            }
        }
    }
}
