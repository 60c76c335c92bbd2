//! A librdkafka producer with the thread that hears its reports.
//!
//! Enters: messages. Leaves: [`Reports`]. Can go wrong: the configuration does not go together (found out by [`check`]), or
//! the producer declares itself dead; then whoever holds it makes another. It is closed on its own thread, since that may
//! take a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, ClientContext};

use super::encode::Message;
use super::reports::Reports;
use crate::net::kafka::{self, KafkaConfig, Tokens, Trouble, cause};
use crate::rt::Tasks;

/// How long the thread listens before it looks whether it should end.
const LISTEN: Duration = Duration::from_millis(50);
/// Batches are made no smaller than this, however small the topic's limit is.
const SMALLEST: u32 = 1000;
/// librdkafka's own `batch.size`.
const BATCH: u32 = 1_000_000;

/// How batches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As the configuration says. A refused batch ends the producer before anything overtakes it.
    Bulk,
    /// Every message is a batch of its own, to find out which of them is refused.
    Alone,
}

/// Properties that make the promise true.
pub(super) fn promise(properties: &mut ClientConfig, idempotent: bool) {
    if idempotent {
        properties.set("enable.idempotence", "true");
        // Without this, what stands behind a refused batch would be sent before we hear of it.
        properties.set("enable.gapless.guarantee", "true");
    }
}

/// Whether a producer of these properties can be made.
pub(super) fn check(properties: &ClientConfig) -> Result<(), String> {
    let listener =
        Listener { label: String::new(), reports: Arc::default(), tokens: None, met: Arc::default() };
    let made: Result<BaseProducer<Listener>, _> = properties.create_with_context(listener);
    made.map(drop).map_err(|e| words(&e))
}

fn words(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientCreation(words) => words.trim_end().to_owned(),
        KafkaError::ClientConfig(_, words, ..) => words.trim_end().to_owned(),
        e => e.to_string(),
    }
}

/// Makes producers.
pub(super) struct Factory {
    label: String,
    config: KafkaConfig,
    idempotent: bool,
    tokens: Option<Arc<Tokens>>,
    /// A smaller `batch.size` than configured, once a topic has called batches too large.
    batch: Option<u32>,
    /// Something has arrived since the start.
    pub(super) met: Arc<AtomicBool>,
    pub(super) tasks: Tasks,
}

impl Factory {
    pub(super) fn new(
        label: String,
        config: KafkaConfig,
        idempotent: bool,
        tokens: Option<Tokens>,
    ) -> Factory {
        Factory {
            label,
            config,
            idempotent,
            tokens: tokens.map(Arc::new),
            batch: None,
            met: Arc::default(),
            tasks: Tasks::new(),
        }
    }

    /// Batches are larger than their topic takes them: smaller ones from here on. Gives their size.
    pub(super) fn shrink(&mut self) -> u32 {
        let now = self.batch.or_else(|| self.config.get("batch.size")?.parse().ok()).unwrap_or(BATCH);
        *self.batch.insert((now / 8).max(SMALLEST))
    }

    /// A new producer.
    pub(super) fn make(&self, mode: Mode) -> Result<Producer, String> {
        let mut properties = self.config.properties.clone();
        match mode {
            Mode::Bulk => {
                promise(&mut properties, self.idempotent);
                if let Some(batch) = self.batch {
                    properties.set("batch.size", batch.to_string());
                }
            }
            Mode::Alone => {
                if self.idempotent {
                    properties.set("enable.idempotence", "true");
                }
                properties.set("batch.num.messages", "1");
                properties.set("linger.ms", "0");
            }
        }
        let reports: Arc<Reports> = Arc::default();
        let listener = Listener {
            label: self.label.clone(),
            reports: Arc::clone(&reports),
            tokens: self.tokens.clone(),
            met: Arc::clone(&self.met),
        };
        let producer: BaseProducer<Listener> =
            properties.create_with_context(listener).map_err(|e| words(&e))?;
        let producer = Arc::new(producer);
        let end = Arc::new(AtomicBool::new(false));
        let (mine, ends, heard) = (Arc::clone(&producer), Arc::clone(&end), Arc::clone(&reports));
        self.tasks
            .thread("kafka reports", move || {
                while !ends.load(Relaxed) {
                    mine.poll(LISTEN);
                    if let Some((_, words)) = mine.client().fatal_error() {
                        heard.fatal(words);
                    }
                }
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Producer { inner: Some(producer), end, reports, mode })
    }
}

/// A producer at work.
pub(super) struct Producer {
    inner: Option<Arc<BaseProducer<Listener>>>,
    end: Arc<AtomicBool>,
    pub(super) reports: Arc<Reports>,
    pub(super) mode: Mode,
}

/// Why a message was not taken.
pub(super) enum Untaken {
    /// There is no room.
    Full,
    /// Never.
    Refused(Code),
    /// The producer is dead.
    Dead,
}

impl Producer {
    /// Hands a message over; it is copied.
    #[inline]
    pub(super) fn send(&self, message: Message<'_>, opaque: usize) -> Result<(), Untaken> {
        let Some(inner) = &self.inner else { return Err(Untaken::Dead) };
        let record = BaseRecord {
            topic: message.topic,
            partition: None,
            payload: Some(message.payload),
            key: message.key,
            timestamp: message.time,
            headers: message.headers,
            delivery_opaque: opaque,
        };
        match inner.send(record) {
            Ok(()) => Ok(()),
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => Err(Untaken::Full),
            Err((KafkaError::MessageProduction(Code::Fatal), _)) => Err(Untaken::Dead),
            Err((KafkaError::MessageProduction(code), _)) => Err(Untaken::Refused(code)),
            Err(_) => Err(Untaken::Refused(Code::InvalidArgument)),
        }
    }

    /// Takes back what has not been sent: it is reported as failed. With `flying` also what is on its way; whether that
    /// arrives is not known then.
    pub(super) fn take_back(&self, flying: bool) {
        if let Some(inner) = &self.inner {
            let what = PurgeConfig::default().queue().non_blocking();
            inner.purge(if flying { what.inflight() } else { what });
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Ours first: the thread's is the last one, and closing happens there.
        self.inner = None;
        self.end.store(true, Relaxed);
    }
}

/// Hears what librdkafka says, on its thread.
struct Listener {
    label: String,
    reports: Arc<Reports>,
    tokens: Option<Arc<Tokens>>,
    met: Arc<AtomicBool>,
}

impl ClientContext for Listener {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::log(&self.label, level, facility, message);
        if let Some(trouble) = Trouble::of_log(facility, message, self.met.load(Relaxed)) {
            self.reports.trouble(trouble);
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        tracing::info!(output = %self.label, "librdkafka: {}", String::from_utf8_lossy(statistics));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error {
            // The thread looks for the end of its producer.
            KafkaError::Global(code) if fate(code) != Fate::Hindered => {}
            error => self.reports.trouble(Trouble::new(&error, reason, self.met.load(Relaxed))),
        }
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        kafka::token(self.tokens.as_deref(), config)
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let result = match result {
            Ok(_) => Ok(()),
            Err((KafkaError::MessageProduction(code), _)) => Err(*code),
            Err(_) => Err(Code::Unknown),
        };
        self.reports.report(opaque, result);
    }
}

/// What became of a message that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was taken back, or its producer ended: it goes again.
    Again,
    /// Its topic is not there, or not for us: it goes again after a while, until somebody has done something.
    Hindered,
    /// The broker did not take the batch that it was in: it goes again by itself.
    Suspect,
}

/// Sorts errors by what is to be done.
pub(super) fn fate(code: Code) -> Fate {
    match code {
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::Fenced
        | Code::DestroyBroker
        | Code::BrokerDestroy => Fate::Again,
        Code::MessageTimedOut
        | Code::BrokerTransportFailure
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::RequestTimedOut
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::UnknownTopicId
        | Code::InvalidTopic
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::KafkaStorageError
        | Code::ThrottlingQuotaExceeded
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::SSL => Fate::Hindered,
        _ => Fate::Suspect,
    }
}

/// What to say of a failure.
pub(super) fn say(code: Code, topic: &str) -> String {
    format!("topic {topic}: {}", cause(code))
}

#[cfg(test)]
mod tests;
