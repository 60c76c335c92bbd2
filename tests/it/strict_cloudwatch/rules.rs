//! What CloudWatch Logs takes: shapes, limits and names, as its API reference states them.
//!
//! Enters: a request body. Leaves: a call. Can go wrong: whatever the service answers with an error; the message says
//! which rule was broken.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Sum of a batch: each event counts as its UTF-8 length and this.
pub(crate) const OVERHEAD: usize = 26;
pub(crate) const BATCH_BYTES: usize = 1_048_576;
pub(crate) const BATCH_EVENTS: usize = 10_000;
pub(crate) const DAY_MS: i64 = 86_400_000;
/// Later than now by more than this is too new, earlier by more than that too old.
pub(crate) const AHEAD_MS: i64 = 2 * 3_600_000;
pub(crate) const OLD_MS: i64 = 14 * DAY_MS;
const RETENTIONS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

/// An event of a batch.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    /// Milliseconds.
    pub(crate) timestamp: i64,
    pub(crate) message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Put {
    log_group_name: String,
    log_stream_name: String,
    log_events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CreateGroup {
    log_group_name: String,
    log_group_class: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CreateStream {
    log_group_name: String,
    log_stream_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Retention {
    log_group_name: String,
    retention_in_days: u32,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) operation: String,
    pub(crate) group: String,
    /// Empty where the operation has none.
    pub(crate) stream: String,
    pub(crate) events: Vec<Event>,
    pub(crate) class: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) days: Option<u32>,
}

/// An error of AWS's: its name, and what is wrong.
pub(crate) type Broken = (&'static str, String);

fn invalid(message: impl Into<String>) -> Broken {
    ("InvalidParameterException", message.into())
}

fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, Broken> {
    serde_json::from_str(body).map_err(|e| ("SerializationException", e.to_string()))
}

/// Reads the body of a request, and checks everything that does not depend on what is stored.
pub(crate) fn asked(operation: &str, body: &[u8]) -> Result<Asked, Broken> {
    let body = std::str::from_utf8(body)
        .map_err(|e| ("SerializationException", format!("body is no UTF-8: {e}")))?;
    let mut asked = Asked { operation: operation.to_owned(), ..Asked::default() };
    match operation {
        "PutLogEvents" => {
            let put: Put = read(body)?;
            (asked.group, asked.stream, asked.events) =
                (put.log_group_name, put.log_stream_name, put.log_events);
            batch(&asked.events)?;
        }
        "CreateLogGroup" => {
            let create: CreateGroup = read(body)?;
            (asked.group, asked.class) = (create.log_group_name, create.log_group_class);
            if let Some(class) = &asked.class
                && !["STANDARD", "INFREQUENT_ACCESS", "DELIVERY"].contains(&class.as_str())
            {
                return Err(invalid(format!("logGroupClass {class}")));
            }
            if let Some(given) = create.tags {
                tags(&given)?;
                asked.tags = given;
            }
        }
        "CreateLogStream" => {
            let create: CreateStream = read(body)?;
            (asked.group, asked.stream) = (create.log_group_name, create.log_stream_name);
        }
        "PutRetentionPolicy" => {
            let policy: Retention = read(body)?;
            asked.group = policy.log_group_name;
            asked.days = Some(policy.retention_in_days);
            if !RETENTIONS.contains(&policy.retention_in_days) {
                return Err(invalid(format!("retentionInDays {}", policy.retention_in_days)));
            }
        }
        other => return Err(("UnknownOperationException", format!("{other} is not expected of the output"))),
    }
    let group = &asked.group;
    let letter = |c: char| c.is_ascii_alphanumeric() || "._-/#".contains(c);
    if !(1..=512).contains(&group.chars().count()) || !group.chars().all(letter) || group.starts_with("aws/")
    {
        return Err(invalid(format!("logGroupName {group:?}")));
    }
    let stream = &asked.stream;
    if ["PutLogEvents", "CreateLogStream"].contains(&operation)
        && (!(1..=512).contains(&stream.chars().count()) || stream.contains([':', '*']))
    {
        return Err(invalid(format!("logStreamName {stream:?}")));
    }
    Ok(asked)
}

fn tags(tags: &BTreeMap<String, String>) -> Result<(), Broken> {
    let letter = |c: char| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c);
    let good = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&text.chars().count()) && text.chars().all(letter) && !text.starts_with("aws:")
    };
    match tags.iter().find(|(k, v)| !good(k, 1..=128) || !good(v, 0..=256)) {
        Some(tag) => Err(invalid(format!("tag {tag:?}"))),
        None if (1..=50).contains(&tags.len()) => Ok(()),
        None => Err(invalid(format!("{} tags", tags.len()))),
    }
}

fn batch(events: &[Event]) -> Result<(), Broken> {
    if !(1..=BATCH_EVENTS).contains(&events.len()) {
        return Err(invalid(format!("{} events", events.len())));
    }
    let bytes: usize = events.iter().map(|e| e.message.len() + OVERHEAD).sum();
    if bytes > BATCH_BYTES {
        return Err(invalid(format!("Upload too large: {bytes} bytes")));
    }
    if let Some(at) = events.iter().position(|e| e.message.is_empty()) {
        return Err(invalid(format!("event {at} has an empty message")));
    }
    if let Some(at) = events.iter().position(|e| e.timestamp < 0) {
        return Err(invalid(format!("event {at} has a negative timestamp")));
    }
    if !events.is_sorted_by_key(|e| e.timestamp) {
        return Err(invalid("Log events in a single PutLogEvents request must be in chronological order."));
    }
    let times = || events.iter().map(|e| e.timestamp);
    if times().max().unwrap() - times().min().unwrap() >= DAY_MS {
        return Err(invalid(
            "The batch of log events in a single PutLogEvents request spans 24 hours or more.",
        ));
    }
    Ok(())
}
