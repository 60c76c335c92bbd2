//! What the Kafka output and input share: librdkafka's configuration, its log, its tokens.
//!
//! Enters: keys of a section. Leaves: a checked configuration, and the words for librdkafka's errors. Can go wrong: a
//! property that librdkafka does not have or a value that it refuses; its own words say which.

mod iam;
mod words;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

pub use iam::Tokens;
pub use words::{Trouble, cause};

/// The name under which the MSK IAM mechanism is asked for.
const MSK_IAM: &str = "aws_msk_iam";
/// How long a token may take to be made: credentials may have to be fetched.
const TOKEN: Duration = Duration::from_secs(20);

/// A property that is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The key of the section: `rdkafka.linger.ms`, `brokers`.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

/// A checked configuration of a librdkafka client.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    /// The properties.
    pub properties: ClientConfig,
    /// The region that MSK's tokens are made for, where IAM is used.
    pub region: Option<String>,
}

/// What both sections have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared<'a> {
    /// `brokers`
    pub brokers: &'a str,
    /// `client_id`
    pub client_id: Option<&'a str>,
    /// `group_id`
    pub group_id: Option<&'a str>,
    /// `aws_msk_iam`
    pub iam: bool,
    /// `aws_msk_iam_cluster_arn`
    pub cluster: Option<&'a str>,
}

impl KafkaConfig {
    /// Puts ours, then theirs (`rdkafka.*` without the prefix) into a configuration; theirs win.
    ///
    /// # Errors
    /// The first property that librdkafka refuses, in its words.
    pub fn new<'a>(
        shared: Shared<'a>,
        ours: &[(&str, &str)],
        theirs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<KafkaConfig, Refused> {
        let mut properties = ClientConfig::new();
        properties.set("bootstrap.servers", shared.brokers);
        // Why a listener closes connections is told to the log only.
        properties.set_log_level(RDKafkaLogLevel::Info);
        // A broker that comes back is found within a second, not within ten.
        properties.set("reconnect.backoff.max.ms", "1000");
        for (key, value) in [("client.id", shared.client_id), ("group.id", shared.group_id)] {
            if let Some(value) = value {
                properties.set(key, value);
            }
        }
        for (key, value) in ours {
            properties.set(*key, *value);
        }
        let mut iam = shared.iam;
        let mut trusts = false;
        for (key, value) in theirs {
            let mechanism = ["sasl.mechanism", "sasl.mechanisms"].contains(&key);
            if mechanism && value.eq_ignore_ascii_case(MSK_IAM) {
                iam = true;
                continue;
            }
            property(key, value).map_err(|message| Refused { key: format!("rdkafka.{key}"), message })?;
            trusts |= key.starts_with("ssl.ca.");
            properties.set(plain(key), value);
        }
        if !trusts {
            // OpenSSL is linked into us and knows nothing of this machine's paths.
            properties.set("ssl.ca.location", "probe");
        }
        let mut region = None;
        if iam {
            region = Some(iam::region(shared.cluster, shared.brokers).ok_or_else(|| Refused {
                key: "aws_msk_iam_cluster_arn".to_owned(),
                message: "MSK IAM needs the cluster's region: set aws_msk_iam_cluster_arn".to_owned(),
            })?);
            properties.set("sasl.mechanism", "OAUTHBEARER");
            if properties.get("security.protocol").is_none() {
                properties.set("security.protocol", "SASL_SSL");
            }
        }
        Ok(KafkaConfig { properties, region })
    }

    /// Whether a property has been set by whoever wrote the configuration, or by us.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.properties.get(key)
    }

    /// The same without brokers: a client of it meets nobody. To find out whether the properties go together.
    pub fn alone(&self) -> ClientConfig {
        let mut properties = self.properties.clone();
        properties.remove("bootstrap.servers");
        properties
    }
}

/// Properties that have two names, under the one that we use.
fn plain(key: &str) -> &str {
    match key {
        "metadata.broker.list" => "bootstrap.servers",
        "request.required.acks" => "acks",
        "queue.buffering.max.ms" => "linger.ms",
        "compression.type" => "compression.codec",
        "max.in.flight" => "max.in.flight.requests.per.connection",
        "message.send.max.retries" => "retries",
        "sasl.mechanisms" => "sasl.mechanism",
        "delivery.timeout.ms" => "message.timeout.ms",
        "max.partition.fetch.bytes" => "fetch.message.max.bytes",
        key => key,
    }
}

/// Asks librdkafka what it thinks of one property.
fn property(key: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(key, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(_, words, ..)) => Err(words.trim_end().to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// What a client of librdkafka says, for our log. Its warnings are about properties; the rest it says once a second
/// during an outage, and outages have lines of our own.
pub fn log(label: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    if facility == "CONFWARN" {
        // What we set ourselves is no news: it is called experimental since its beginning.
        if !message.contains("enable.gapless.guarantee") {
            tracing::warn!(plugin = %label, "librdkafka: {message}");
            return;
        }
    }
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical
            if facility != "FATAL" =>
        {
            tracing::error!(plugin = %label, %facility, "librdkafka: {message}");
        }
        _ => tracing::debug!(plugin = %label, %facility, "librdkafka: {message}"),
    }
}

/// A token for librdkafka, made where its thread waits for it.
///
/// # Errors
/// Why there is none.
pub fn token(
    tokens: Option<&Tokens>,
    config: Option<&str>,
) -> Result<OAuthToken, Box<dyn std::error::Error>> {
    match tokens {
        Some(tokens) => tokens.token(TOKEN).map_err(Into::into),
        None => iam::unsecured(config.unwrap_or_default()).map_err(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, value: &str) -> Refused {
        KafkaConfig::new(Shared::default(), &[], [(key, value)].into_iter()).unwrap_err()
    }

    #[test]
    fn what_librdkafka_refuses_is_refused_in_its_words() {
        let unknown = refused("lingr.ms", "5");
        assert_eq!(unknown.key, "rdkafka.lingr.ms");
        assert!(unknown.message.contains("No such configuration property"), "{unknown:?}");
        let range = refused("linger.ms", "1e9");
        assert!(range.message.contains("outside allowed range"), "{range:?}");
    }

    #[test]
    fn theirs_win_over_ours_under_either_name() {
        let ours = [("linger.ms", "5"), ("acks", "all")];
        let theirs = [("queue.buffering.max.ms", "50"), ("request.required.acks", "1")];
        let config = KafkaConfig::new(Shared::default(), &ours, theirs.into_iter()).unwrap();
        assert_eq!((config.get("linger.ms"), config.get("acks")), (Some("50"), Some("1")));
        assert_eq!(config.get("reconnect.backoff.max.ms"), Some("1000"));
    }

    #[test]
    fn msk_iam_is_oauthbearer_over_tls_in_the_region_of_the_cluster() {
        let arn = "arn:aws:kafka:eu-west-1:111122223333:cluster/demo/0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0-2";
        let shared = Shared { iam: true, cluster: Some(arn), ..Shared::default() };
        let config = KafkaConfig::new(shared, &[], [].into_iter()).unwrap();
        assert_eq!(config.region.as_deref(), Some("eu-west-1"));
        assert_eq!(config.get("sasl.mechanism"), Some("OAUTHBEARER"));
        assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));

        let brokers = "b-1.demo.ab12cd.c3.kafka.us-east-2.amazonaws.com:9098";
        let theirs = [("sasl.mechanism", "aws_msk_iam"), ("security.protocol", "sasl_plaintext")];
        let shared = Shared { brokers, ..Shared::default() };
        let config = KafkaConfig::new(shared, &[], theirs.into_iter()).unwrap();
        assert_eq!(config.region.as_deref(), Some("us-east-2"));
        assert_eq!(config.get("security.protocol"), Some("sasl_plaintext"));

        let shared = Shared { iam: true, brokers: "broker:9098", ..Shared::default() };
        let refused = KafkaConfig::new(shared, &[], [].into_iter()).unwrap_err();
        assert_eq!(refused.key, "aws_msk_iam_cluster_arn");
    }
}
