//! What librdkafka's errors mean and what to do about them.
//!
//! Enters: error codes, librdkafka's own words. Leaves: sentences. Can go wrong: nothing.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// What librdkafka says of the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In its words, with what to do.
    pub cause: String,
    /// It says why. That brokers are away comes with it, before and after, and says nothing.
    pub telling: bool,
}

impl Trouble {
    /// Makes it of an error that librdkafka hands to its client. `met`: the brokers have answered with records or taken some
    /// before, so the listener is the right one, and a closed connection says nothing more.
    pub fn new(error: &KafkaError, reason: &str, met: bool) -> Trouble {
        let Some(code) = error.rdkafka_error_code() else {
            return Trouble { cause: format!("{error}: {reason}"), telling: false };
        };
        let away = matches!(code, Code::BrokerTransportFailure | Code::AllBrokersDown);
        let guess = listener(reason).filter(|_| away && !met);
        let advice = guess.or_else(|| advice(code));
        Trouble {
            cause: advice.map_or_else(|| reason.to_owned(), |advice| format!("{reason}; {advice}")),
            telling: advice.is_some() && (!away || guess.is_some()),
        }
    }

    /// Makes it of a line of librdkafka's log: that a connection was closed right away it says only there.
    pub fn of_log(facility: &str, message: &str, met: bool) -> Option<Trouble> {
        let advice = listener(message).filter(|_| facility == "FAIL" && !met)?;
        let message = message.split_once("]: ").map_or(message, |(_, message)| message);
        Some(Trouble { cause: format!("{message}; {advice}"), telling: true })
    }

    /// Whether it is worth a line of its own after the other.
    pub fn tells_more_than(&self, other: &Trouble) -> bool {
        self.telling && !other.telling
    }
}

/// What to do when a listener that is not the right one closes the connection: librdkafka has no code for it, only words.
fn listener(reason: &str) -> Option<&'static str> {
    let has = |words: &[&str]| words.iter().any(|w| reason.contains(w));
    if has(&[
        "alert bad certificate",
        "alert certificate required",
        "alert unknown ca",
        "alert handshake failure",
    ]) {
        return Some(
            "the brokers want a certificate that they trust: set rdkafka.ssl.certificate.location and rdkafka.ssl.key.location",
        );
    }
    has(&["Disconnected", "PLAINTEXT broker listener"]).then_some(
        "check rdkafka.security.protocol: plaintext, ssl, sasl_plaintext or sasl_ssl, as this listener of the brokers has it",
    )
}

/// What a person can do, if it is known.
fn advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::BrokerTransportFailure | Code::AllBrokersDown => {
            "check that the brokers run and can be reached"
        }
        Code::Resolve => "check the names in Brokers, and advertised.listeners of the brokers",
        Code::SSL => {
            "check rdkafka.security.protocol, rdkafka.ssl.ca.location, and that the certificate is for the name in Brokers"
        }
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "check rdkafka.sasl.mechanism, the user and the password, or the AWS credentials"
        }
        Code::UnsupportedSASLMechanism => "use a rdkafka.sasl.mechanism that the brokers have",
        Code::UnknownTopic | Code::UnknownTopicOrPartition => {
            "create the topic, or set auto.create.topics.enable at the brokers"
        }
        Code::UnknownPartition => "the topic lost a partition: create it again",
        Code::InvalidTopic => "a topic's name has up to 249 letters, digits, dots, underscores and hyphens",
        Code::TopicAuthorizationFailed => {
            "give the user Read or Write on the topic (MSK IAM: kafka-cluster:ReadData, WriteData)"
        }
        Code::ClusterAuthorizationFailed => {
            "give the user IdempotentWrite on the cluster (before Kafka 3.0; MSK IAM: kafka-cluster:WriteDataIdempotently), or set rdkafka.enable.idempotence false"
        }
        Code::GroupAuthorizationFailed => {
            "give the user Read on the group (MSK IAM: kafka-cluster:AlterGroup, DescribeGroup)"
        }
        Code::MessageSizeTooLarge => {
            "raise max.message.bytes of the topic, and rdkafka.message.max.bytes above 1,000,000"
        }
        Code::InvalidTimestamp => "see message.timestamp.before.max.ms and after.max.ms of the topic",
        _ => return None,
    })
}

/// A code in librdkafka's words, with what to do.
pub fn cause(code: Code) -> String {
    match advice(code) {
        Some(advice) => format!("{code}: {advice}"),
        None => code.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: Code, reason: &str, met: bool) -> (String, bool) {
        let Trouble { cause, telling } = Trouble::new(&KafkaError::Global(code), reason, met);
        (cause, telling)
    }

    #[test]
    fn a_listener_that_is_not_the_right_one_is_told_until_it_has_been() {
        let gone = Code::BrokerTransportFailure;
        let guess = "localhost:9: Disconnected: connection closed by peer: receive 0 after POLLIN";
        let (cause, telling) = told(gone, guess, false);
        assert!(telling && cause.contains("rdkafka.security.protocol"), "{cause}");
        let (cause, telling) = told(gone, guess, true);
        assert!(!telling && cause.ends_with("; check that the brokers run and can be reached"), "{cause}");
        let (cause, telling) = told(gone, "Receive failed: sslv3 alert bad certificate", false);
        assert!(telling && cause.contains("rdkafka.ssl.key.location"), "{cause}");
        assert!(!told(gone, "Connection refused", false).1);
        assert!(told(Code::Authentication, "no", true).1);

        let line = "[thrd:localhost:9/bootstrap]: localhost:9: Disconnected: connection closed by peer";
        let trouble = Trouble::of_log("FAIL", line, false).unwrap();
        assert!(trouble.telling && trouble.cause.starts_with("localhost:9: Disconnected"), "{trouble:?}");
        assert_eq!(
            (Trouble::of_log("FAIL", line, true), Trouble::of_log("CONNECT", line, false)),
            (None, None)
        );
    }
}
