//! The output against librdkafka's mock cluster, with faults injected.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey as Api, RDKafkaRespErr as Err};

use super::super::encode::{Encoder, Format, Keys, Topics};
use super::super::run::Runner;
use super::*;
use crate::net::kafka::Shared;
use crate::observe::counters::Output as Counters;
use crate::outputs::RetryPolicy;
use crate::outputs::format::JsonDate;
use crate::record::{Ack, AckWait, Chunk, Seg, Tag, Verdict};
use crate::rt::{Budget, Letters, queue};
use crate::wire::entry;
use crate::wire::json::Json;

type Cluster = MockCluster<'static, DefaultProducerContext>;

struct Bench {
    cluster: Cluster,
    sender: crate::rt::Sender,
    counters: Arc<Counters>,
    tasks: Tasks,
    letters: crate::rt::LetterBox,
}

/// Entries `{"n": from..}`, so many.
fn chunk(from: u32, count: u32) -> Arc<Chunk> {
    let mut bytes = Vec::new();
    for n in from..from + count {
        entry::write_head(&mut bytes, crate::record::Time::now(), None);
        bytes.push(0x81);
        crate::wire::msgpack::write_str(&mut bytes, b"n");
        crate::wire::msgpack::write_uint(&mut bytes, n.into());
    }
    let seg = Seg { tag: Tag::new(b"t"), end: bytes.len(), count: count.into() };
    let charge = Budget::new(1 << 30).take(bytes.len() as u64);
    let (segs, count) = ([seg].into_iter().collect(), count.into());
    Arc::new(Chunk { bytes: bytes.into(), segs, count, charge, meter: None })
}

impl Bench {
    fn new(retry: RetryPolicy, more: &[(&str, &str)]) -> Bench {
        let cluster = Cluster::new(1).unwrap();
        cluster.create_topic("logs", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let shared = Shared { brokers: &brokers, ..Shared::default() };
        let ours =
            [("message.timeout.ms", "0"), ("linger.ms", "1"), ("topic.metadata.propagation.max.ms", "100")];
        let config = KafkaConfig::new(shared, &ours, more.iter().copied()).unwrap();
        let json = Json { escape_unicode: false };
        let encoder = Encoder::new(
            Format::Json(JsonDate::named("@timestamp", "double", json).unwrap()),
            json,
            Topics::new(vec!["logs".to_owned()], false),
            Keys { fixed: None, field: None, topic: None },
            Vec::new(),
            Some("fluent-tag".to_owned()),
        );
        let counters: Arc<Counters> = Arc::default();
        let (letters, inbox) = Letters::new();
        let (sender, receiver) = queue("kafka.0", 1 << 20, Arc::clone(&counters), Some(letters));
        let factory = Factory::new("kafka.0".to_owned(), config, true, None);
        let runner = Runner::new(factory, encoder, retry).unwrap();
        let tasks = Tasks::new();
        tasks.spawn("runner", runner.run(receiver));
        Bench { cluster, sender, counters, tasks, letters: inbox }
    }

    async fn push(&self, from: u32, count: u32) -> AckWait {
        let (wait, ack): (AckWait, Ack) = AckWait::new(Arc::default());
        self.sender.push(self.sender.deliver(chunk(from, count), Some(ack))).await;
        wait
    }

    async fn settled(&self, waits: &[AckWait], what: &str) {
        let all = async {
            while waits.iter().any(|w| w.verdict() == Verdict::Pending) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(30), all).await.is_ok(),
            "{what}: {:?}",
            self.counters
        );
    }

    /// Ends it; gives delivered, dead-lettered, dropped and held records.
    async fn end(self) -> [u64; 4] {
        let Bench { sender, tasks, counters, cluster, letters } = self;
        drop(sender);
        tokio::time::timeout(Duration::from_secs(20), tasks.all_ended()).await.unwrap();
        assert_eq!(tasks.panicked(), 0);
        drop((cluster, letters));
        [
            counters.delivered.load(Relaxed),
            counters.dead_lettered.load(Relaxed),
            counters.all_dropped(),
            counters.held.load(Relaxed),
        ]
    }
}

#[tokio::test]
async fn errors_that_pass_are_librdkafkas_to_retry() {
    let bench = Bench::new(RetryPolicy::default(), &[("retry.backoff.ms", "10")]);
    let errors = [
        Err::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        Err::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        Err::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Err::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ];
    bench.cluster.request_errors(Api::Produce, &errors);
    let waits = [bench.push(0, 50).await, bench.push(50, 50).await];
    bench.settled(&waits, "all").await;
    assert!(waits.iter().all(|w| w.verdict() == Verdict::Delivered));
    assert_eq!(bench.counters.retries.load(Relaxed), 0, "no message was reported as failed");
    assert_eq!(bench.end().await, [100, 0, 0, 0]);
}

#[tokio::test]
async fn a_refused_batch_goes_one_by_one_and_nothing_is_lost() {
    let bench = Bench::new(RetryPolicy::default(), &[]);
    bench.cluster.request_errors(Api::Produce, &[Err::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    let waits = [bench.push(0, 200).await, bench.push(200, 100).await];
    bench.settled(&waits, "all").await;
    assert!(bench.counters.retries.load(Relaxed) >= 1);
    assert_eq!(bench.end().await, [300, 0, 0, 0]);
}

#[tokio::test]
async fn a_producer_that_has_given_up_is_replaced() {
    let bench = Bench::new(RetryPolicy::default(), &[]);
    let first = [bench.push(0, 10).await];
    bench.settled(&first, "the first").await;
    bench.cluster.request_errors(Api::Produce, &[Err::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
    let waits = [bench.push(10, 100).await, bench.push(110, 100).await];
    bench.settled(&waits, "all").await;
    assert_eq!(bench.end().await, [210, 0, 0, 0]);
}

#[tokio::test]
async fn a_topic_that_is_not_for_us_is_waited_for() {
    let bench = Bench::new(RetryPolicy::default(), &[]);
    bench.cluster.topic_error("logs", Err::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    let waits = [bench.push(0, 10).await];
    let retried = async {
        while bench.counters.retries.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), retried).await.unwrap();
    assert_eq!(waits[0].verdict(), Verdict::Pending);
    bench.cluster.topic_error("logs", Err::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    bench.settled(&waits, "allowed").await;
    assert_eq!(bench.end().await, [10, 0, 0, 0]);
}

#[tokio::test]
async fn while_brokers_are_away_records_are_kept_and_given_up_at_their_age_alone() {
    let policy = RetryPolicy { max_age: Some(Duration::from_secs(2)), ..RetryPolicy::default() };
    let mut bench = Bench::new(policy, &[]);
    let first = [bench.push(0, 10).await];
    bench.settled(&first, "before").await;
    bench.cluster.broker_down(1).unwrap();
    let old = [bench.push(10, 10).await];
    let letter = tokio::time::timeout(Duration::from_secs(20), bench.letters.recv()).await.unwrap().unwrap();
    assert_eq!(letter.reason, "retries");
    (letter.kept)();
    bench.settled(&old, "given up").await;
    bench.cluster.broker_up(1).unwrap();
    let young = [bench.push(20, 10).await];
    bench.settled(&young, "after").await;
    assert_eq!(bench.end().await, [20, 10, 0, 0]);
}

#[test]
fn every_error_has_a_fate_and_what_may_pass_is_not_suspect() {
    assert_eq!(fate(Code::PurgeQueue), Fate::Again);
    assert_eq!(fate(Code::UnknownTopic), Fate::Hindered);
    assert_eq!(fate(Code::MessageSizeTooLarge), Fate::Suspect);
    assert_eq!(fate(Code::InvalidRecord), Fate::Suspect);
    assert!(say(Code::UnknownTopic, "logs").starts_with("topic logs: "));
}
