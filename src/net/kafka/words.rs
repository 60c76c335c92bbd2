//! What librdkafka's errors mean and what to do about them.
//!
//! Enters: error codes. Leaves: sentences. Can go wrong: nothing.

use rdkafka::types::RDKafkaErrorCode as Code;

/// What a person can do, if it is known.
pub fn advice(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::BrokerTransportFailure | Code::AllBrokersDown => {
            "check that the brokers run and can be reached"
        }
        Code::Resolve => "check the names in Brokers, and advertised.listeners of the brokers",
        Code::SSL => "check rdkafka.security.protocol and rdkafka.ssl.ca.location",
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
            "give the user IdempotentWrite on the cluster (MSK IAM: kafka-cluster:WriteDataIdempotently), or set rdkafka.enable.idempotence false"
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
