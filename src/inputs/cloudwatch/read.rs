//! GetLogEvents and FilterLogEvents over the window: enough for `aws logs tail`.
//!
//! Enters: what is asked for. Leaves: a page of events, at most [`PAGE_BYTES`] of messages, and where the next one begins.
//! Can go wrong: unknown groups and streams, bad tokens and patterns.

use serde_json::{Value, json};

use super::answer::Error;
use super::calls::Params;
use super::hub::Hub;
use super::pattern::Pattern;
use super::window::{Event, Place};

/// Most events of a page.
const PAGE: i64 = 10_000;
/// Bytes of messages after which a page ends.
const PAGE_BYTES: usize = 1 << 20;

/// `startTime` and `endTime`: the first is within, the second is not.
fn span(params: &Params) -> Result<std::ops::Range<i64>, Error> {
    let time = |key: &str, default: i64| match params.number(key)? {
        Some(time) if time < 0 => Err(Error::parameter(format!(
            "1 validation error detected: Value '{time}' at '{key}' failed to satisfy constraint: Member must have value \
             greater than or equal to 0"
        ))),
        time => Ok(time.unwrap_or(default)),
    };
    Ok(time("startTime", i64::MIN)?..time("endTime", i64::MAX)?)
}

fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}

/// A place as a token, and back.
fn token((time, id): Place) -> String {
    format!("{time:020}{id:020}")
}

fn place(token: &str) -> Result<Place, Error> {
    let part = |range| token.get(range).filter(|_| token.len() == 40);
    let time = part(0..20).and_then(|t| t.parse().ok());
    let id = part(20..40).and_then(|t| t.parse().ok());
    time.zip(id).ok_or_else(|| Error::parameter("The specified nextToken is invalid."))
}

fn at(event: &Event) -> Place {
    (event.time, event.id)
}

/// How many events, taken in this order, make a page.
fn page<'e>(events: impl Iterator<Item = &'e Event>, limit: usize) -> usize {
    let mut bytes = 0;
    events
        .take(limit)
        .take_while(|event| {
            let fits = bytes < PAGE_BYTES;
            bytes += event.message.len();
            fits
        })
        .count()
}

/// FilterLogEvents.
pub(super) fn filter(hub: &Hub, params: &Params) -> Result<Vec<u8>, Error> {
    let group = params.group()?;
    hub.names().group(group)?;
    let streams = params.texts("logStreamNames")?;
    let prefix = params.text("logStreamNamePrefix")?;
    if streams.is_some() && prefix.is_some() {
        return Err(Error::parameter(
            "logStreamNames and logStreamNamePrefix are mutually exclusive parameters.",
        ));
    }
    if let Some(names) = &streams {
        if !(1..=STREAMS).contains(&names.len()) {
            return Err(Error::parameter(format!(
                "1 validation error detected: Value with {} entries at 'logStreamNames' failed to satisfy constraint: Member \
                 must have length from 1 to {STREAMS}",
                names.len()
            )));
        }
        let known = hub.names();
        let known = &known.group(group)?.streams;
        if names.iter().any(|name| !known.contains_key(*name)) {
            return Err(Error::not_found("log stream"));
        }
    }
    let prefix = prefix.unwrap_or_default();
    let span = span(params)?;
    let pattern = Pattern::new(params.text("filterPattern")?.unwrap_or_default())?;
    let after = params.text("nextToken")?.map(place).transpose()?;
    let limit = params.limit("limit", PAGE, PAGE)?;
    let found = hub.window().select(|event| {
        *event.key.group == *group
            && event.key.stream.starts_with(prefix)
            && streams.as_ref().is_none_or(|names| names.contains(&&*event.key.stream))
            && span.contains(&event.time)
            && after.is_none_or(|after| at(event) > after)
            && pattern.matches(&event.message)
    });
    let count = page(found.iter(), limit);
    let shown = found.get(..count).unwrap_or_default();
    let events: Vec<Value> = shown
        .iter()
        .map(|event| {
            json!({
                "logStreamName": event.key.stream,
                "timestamp": event.time,
                "message": text(&event.message),
                "ingestionTime": event.ingested,
                // Digits as at the service, where clients take them for numbers.
                "eventId": format!("{:056}", event.id),
            })
        })
        .collect();
    let mut answer = json!({"events": events, "searchedLogStreams": []});
    if let (true, Some(last), Some(answer)) = (count < found.len(), shown.last(), answer.as_object_mut()) {
        answer.insert("nextToken".to_owned(), token(at(last)).into());
    }
    Ok(answer.to_string().into_bytes())
}

/// Most streams that one call may name.
const STREAMS: usize = 100;

/// GetLogEvents.
pub(super) fn get(hub: &Hub, params: &Params) -> Result<Vec<u8>, Error> {
    let (group, stream) = (params.group()?, params.required("logStreamName")?);
    if !hub.names().group(group)?.streams.contains_key(stream) {
        return Err(Error::not_found("log stream"));
    }
    let span = span(params)?;
    params.flag("unmask")?;
    let limit = params.limit("limit", PAGE, PAGE)?;
    let given = params.text("nextToken")?;
    // Forward from a place, or backward from it.
    let (forward, from) = match given {
        None => (params.flag("startFromHead")?, None),
        Some(given) => match given.split_at_checked(2) {
            Some(("f/", rest)) => (true, Some(place(rest)?)),
            Some(("b/", rest)) => (false, Some(place(rest)?)),
            _ => return Err(Error::parameter("The specified nextToken is invalid.")),
        },
    };
    let found = hub.window().select(|event| {
        *event.key.group == *group
            && *event.key.stream == *stream
            && span.contains(&event.time)
            && from.is_none_or(|from| if forward { at(event) > from } else { at(event) < from })
    });
    let shown = if forward {
        found.get(..page(found.iter(), limit))
    } else {
        found.get(found.len() - page(found.iter().rev(), limit)..)
    };
    let shown = shown.unwrap_or_default();
    let events: Vec<Value> = shown
        .iter()
        .map(|event| {
            json!({
                "timestamp": event.time,
                "message": text(&event.message),
                "ingestionTime": event.ingested,
            })
        })
        .collect();
    // At an end the token is the one that was given: that is how clients know.
    let nowhere = from.unwrap_or((0, 0));
    let answer = json!({
        "events": events,
        "nextForwardToken": format!("f/{}", token(shown.last().map_or(nowhere, at))),
        "nextBackwardToken": format!("b/{}", token(shown.first().map_or(nowhere, at))),
    });
    Ok(answer.to_string().into_bytes())
}
