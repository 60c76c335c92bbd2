//! The calls that are small: making, listing and deleting groups and streams.
//!
//! Enters: the operation and its JSON. Leaves: AWS's answer. Can go wrong: what AWS refuses, in its words.

use serde_json::{Value, json};

use super::answer::Error;
use super::hub::Hub;
use super::names::{self, Stream};
use super::read;
use crate::record::Time;

/// Every operation there is.
pub(super) const OPERATIONS: &[&str] = &[
    "CreateLogGroup",
    "CreateLogStream",
    "DeleteLogGroup",
    "DeleteLogStream",
    "DescribeLogGroups",
    "DescribeLogStreams",
    "FilterLogEvents",
    "GetLogEvents",
    "PutLogEvents",
    "PutRetentionPolicy",
];
/// Days that the service keeps events for.
const RETENTIONS: &[i64] = &[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];
/// Classes of groups. All are kept alike here, in the window.
const CLASSES: &[&str] = &["STANDARD", "INFREQUENT_ACCESS", "DELIVERY"];
/// Most tags of a group.
const TAGS: usize = 50;
/// Most names of an answer.
const PAGE: i64 = 50;

/// What a call asks for.
pub(super) struct Params(Value);

impl Params {
    pub(super) fn read(body: &[u8]) -> Result<Params, Error> {
        let shape = |message: &str| Error::new("SerializationException", message);
        // Some clients send nothing where there is nothing to say.
        let body = if body.is_empty() { b"{}" } else { body };
        match serde_json::from_slice(body) {
            Ok(value @ Value::Object(_)) => Ok(Params(value)),
            Ok(_) => Err(shape("The request body must be a JSON object.")),
            Err(_) => Err(shape("The request body is not valid JSON.")),
        }
    }

    /// A value that is there and not null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        let wrong = || Error::new("SerializationException", format!("{key} must be a string."));
        self.get(key).map(|v| v.as_str().ok_or_else(wrong)).transpose()
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<i64>, Error> {
        let wrong = || Error::new("SerializationException", format!("{key} must be a whole number."));
        // Clients of languages that have no others write whole numbers as 5.0.
        let whole =
            |v: &Value| v.as_i64().or_else(|| v.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64));
        self.get(key).map(|v| whole(v).ok_or_else(wrong)).transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, Error> {
        let wrong = || Error::new("SerializationException", format!("{key} must be a boolean."));
        self.get(key).map_or(Ok(false), |v| v.as_bool().ok_or_else(wrong))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, Error> {
        let wrong = || Error::new("SerializationException", format!("{key} must be a list of strings."));
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(wrong)?;
        list.iter().map(|v| v.as_str().ok_or_else(wrong)).collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn required(&self, key: &str) -> Result<&str, Error> {
        self.text(key)?.ok_or_else(|| {
            Error::parameter(format!(
                "1 validation error detected: Value null at '{key}' failed to satisfy constraint: Member must not be null"
            ))
        })
    }

    /// A whole number within bounds, as for `limit`.
    pub(super) fn limit(&self, key: &str, default: i64, most: i64) -> Result<usize, Error> {
        let limit = self.number(key)?.unwrap_or(default);
        if !(1..=most).contains(&limit) {
            return Err(Error::parameter(format!(
                "1 validation error detected: Value '{limit}' at '{key}' failed to satisfy constraint: Member must have \
                 value from 1 to {most}"
            )));
        }
        Ok(limit as usize)
    }

    /// Two that exclude one another.
    pub(super) fn not_both(&self, one: &str, other: &str) -> Result<(), Error> {
        match self.get(one).and(self.get(other)) {
            Some(_) => Err(Error::parameter(format!("{one} and {other} are mutually exclusive parameters."))),
            None => Ok(()),
        }
    }

    /// One of a few words; `None` where it is not given.
    fn word(&self, key: &str, words: &[&str]) -> Result<Option<&str>, Error> {
        match self.text(key)? {
            Some(text) if !words.contains(&text) => Err(Error::parameter(format!(
                "1 validation error detected: Value '{text}' at '{key}' failed to satisfy constraint: Member must satisfy \
                 enum value set: [{}]",
                words.join(", ")
            ))),
            text => Ok(text),
        }
    }

    /// Tags of a group: they are checked, and not kept.
    fn tags(&self) -> Result<(), Error> {
        let wrong = || Error::new("SerializationException", "tags must be a map of strings.");
        let Some(tags) = self.get("tags") else { return Ok(()) };
        let tags = tags.as_object().filter(|t| t.values().all(Value::is_string)).ok_or_else(wrong)?;
        match tags.len() {
            0..=TAGS => Ok(()),
            n => Err(Error::parameter(format!(
                "1 validation error detected: Value with {n} entries at 'tags' failed to satisfy constraint: Member must \
                 have length less than or equal to {TAGS}"
            ))),
        }
    }

    /// A group by its name, or by its ARN.
    pub(super) fn group(&self) -> Result<&str, Error> {
        if let Some(name) = self.text("logGroupName")? {
            self.not_both("logGroupName", "logGroupIdentifier")?;
            names::check_group(name)?;
            return Ok(name);
        }
        let Some(id) = self.text("logGroupIdentifier")? else { return self.required("logGroupName") };
        let name = match id.split_once(":log-group:") {
            Some((_, name)) if id.starts_with("arn:") => name.trim_end_matches(":*"),
            _ => id,
        };
        names::check_group(name)?;
        Ok(name)
    }
}

/// Answers a call. `region` is that of its signature.
pub(super) fn call(hub: &Hub, operation: &str, body: &[u8], region: &str) -> Result<Option<Vec<u8>>, Error> {
    let params = Params::read(body)?;
    let now = Time::now().millis();
    let answer = match operation {
        "CreateLogGroup" => {
            let group = params.required("logGroupName")?;
            params.word("logGroupClass", CLASSES)?;
            params.tags()?;
            hub.names().create_group(group, now)?;
            return Ok(None);
        }
        "CreateLogStream" => {
            let (group, stream) = (params.required("logGroupName")?, params.required("logStreamName")?);
            names::check_group(group)?;
            hub.names().create_stream(group, stream, now)?;
            return Ok(None);
        }
        "DeleteLogGroup" => {
            let group = params.required("logGroupName")?;
            names::check_group(group)?;
            hub.names().delete_group(group)?;
            hub.forget(|key| &*key.group == group);
            return Ok(None);
        }
        "DeleteLogStream" => {
            let (group, stream) = (params.required("logGroupName")?, params.required("logStreamName")?);
            names::check_group(group)?;
            names::check_stream(stream)?;
            hub.names().delete_stream(group, stream)?;
            hub.forget(|key| &*key.group == group && &*key.stream == stream);
            return Ok(None);
        }
        "PutRetentionPolicy" => {
            let group = params.required("logGroupName")?;
            names::check_group(group)?;
            let days = params.number("retentionInDays")?.unwrap_or(0);
            if !RETENTIONS.contains(&days) {
                return Err(Error::parameter(format!(
                    "1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy constraint: \
                     Member must satisfy enum value set: {RETENTIONS:?}"
                )));
            }
            hub.names().set_retention(group, days as u32)?;
            return Ok(None);
        }
        "DescribeLogGroups" => groups(hub, &params, region)?,
        "DescribeLogStreams" => streams(hub, &params, region)?,
        "GetLogEvents" => return read::get(hub, &params).map(Some),
        "FilterLogEvents" => return read::filter(hub, &params).map(Some),
        _ => return Err(unknown()),
    };
    Ok(Some(answer.to_string().into_bytes()))
}

/// An operation that is not there.
pub(super) fn unknown() -> Error {
    Error::new(
        "UnknownOperationException",
        "The requested operation is not supported in the called API version.",
    )
}

fn arn(region: &str, group: &str) -> String {
    format!("arn:aws:logs:{region}:000000000000:log-group:{group}")
}

fn groups(hub: &Hub, params: &Params, region: &str) -> Result<Value, Error> {
    params.not_both("logGroupNamePrefix", "logGroupNamePattern")?;
    let prefix = params.text("logGroupNamePrefix")?;
    prefix.map_or(Ok(()), names::check_group)?;
    let prefix = prefix.unwrap_or_default();
    let pattern = params.text("logGroupNamePattern")?.unwrap_or_default().to_lowercase();
    let class = params.word("logGroupClass", CLASSES)?;
    // It is the last name of the page before.
    let after = params.text("nextToken")?;
    if after.is_some_and(|after| names::check_group(after).is_err()) {
        return Err(Error::parameter("The specified nextToken is invalid."));
    }
    let limit = params.limit("limit", PAGE, PAGE)?;
    let names = hub.names();
    let mut found = names.groups.iter().filter(|(name, _)| {
        name.starts_with(prefix)
            && class.is_none_or(|class| class == "STANDARD")
            && (pattern.is_empty() || name.to_lowercase().contains(&pattern))
            && after.is_none_or(|after| &***name > after)
    });
    let page: Vec<_> = found.by_ref().take(limit).collect();
    let list: Vec<Value> = page
        .iter()
        .map(|(name, group)| {
            let mut value = json!({
                "logGroupName": name,
                "creationTime": group.created,
                "metricFilterCount": 0,
                "arn": format!("{}:*", arn(region, name)),
                "logGroupArn": arn(region, name),
                "storedBytes": 0,
                "logGroupClass": "STANDARD",
            });
            if let (Some(days), Some(value)) = (group.retention, value.as_object_mut()) {
                value.insert("retentionInDays".to_owned(), days.into());
            }
            value
        })
        .collect();
    let next = found.next().and(page.last()).map(|(name, _)| name.to_string());
    Ok(paged("logGroups", list, next))
}

fn streams(hub: &Hub, params: &Params, region: &str) -> Result<Value, Error> {
    let group = params.group()?;
    let prefix = params.text("logStreamNamePrefix")?;
    prefix.map_or(Ok(()), names::check_stream)?;
    let prefix = prefix.unwrap_or_default();
    let limit = params.limit("limit", PAGE, PAGE)?;
    let skip = match params.text("nextToken")?.map(str::parse::<usize>) {
        None => 0,
        Some(Ok(skip)) => skip,
        Some(Err(_)) => return Err(Error::parameter("The specified nextToken is invalid.")),
    };
    let by_time = match params.text("orderBy")?.unwrap_or("LogStreamName") {
        "LogStreamName" => false,
        "LastEventTime" if prefix.is_empty() => true,
        "LastEventTime" => {
            return Err(Error::parameter("Cannot order by LastEventTime with a logStreamNamePrefix."));
        }
        other => {
            return Err(Error::parameter(format!(
                "1 validation error detected: Value '{other}' at 'orderBy' failed to satisfy constraint: Member must \
                 satisfy enum value set: [LogStreamName, LastEventTime]"
            )));
        }
    };
    let names = hub.names();
    let mut found: Vec<(&str, &Stream)> = names
        .group(group)?
        .streams
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .map(|(name, stream)| (&**name, stream))
        .collect();
    if by_time {
        found.sort_by_key(|(_, stream)| stream.last);
    }
    if params.flag("descending")? {
        found.reverse();
    }
    let list: Vec<Value> = found
        .iter()
        .skip(skip)
        .take(limit)
        .map(|(name, stream)| {
            let mut value = json!({
                "logStreamName": name,
                "creationTime": stream.created,
                "uploadSequenceToken": names.token(group, name),
                "arn": format!("{}:log-stream:{name}", arn(region, group)),
                "storedBytes": 0,
            });
            let times = [
                ("firstEventTimestamp", stream.first),
                ("lastEventTimestamp", stream.last),
                ("lastIngestionTime", stream.ingested),
            ];
            for (key, time) in times {
                if let (Some(time), Some(value)) = (time, value.as_object_mut()) {
                    value.insert(key.to_owned(), time.into());
                }
            }
            value
        })
        .collect();
    let end = skip.saturating_add(list.len());
    let next = (end < found.len()).then(|| end.to_string());
    Ok(paged("logStreams", list, next))
}

fn paged(key: &str, list: Vec<Value>, next: Option<String>) -> Value {
    let mut value = json!({ key: list });
    if let (Some(next), Some(value)) = (next, value.as_object_mut()) {
        value.insert("nextToken".to_owned(), next.into());
    }
    value
}
