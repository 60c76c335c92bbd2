//! Calls to CloudWatch Logs, and what their answers mean.
//!
//! Enters: the body of a batch. Leaves: an [`Outcome`]. Creates the stream and, where that is allowed, the group when the
//! service says that they are missing, and sends the same batch again. Signing, endpoints and error shapes are the AWS
//! library's; the body is ours, and so are retries. Can go wrong: everything that a service and a network can do; see the
//! outcomes.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatchlogs::operation::RequestId;
use aws_sdk_cloudwatchlogs::types::{LogGroupClass, RejectedLogEventsInfo};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use super::message::FORMAT;
use crate::net::{Aws, causes};
use crate::observe::counters::Drop as DropReason;

/// What came of a call. Only [`Outcome::Failed`] is an attempt in the sense of `Retry_Limit`.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The service has the batch, but for these events.
    Done(Vec<Rejected>),
    /// It asks for patience.
    Throttled { after: Option<Duration>, cause: String },
    /// It may not have arrived, or the service has trouble.
    Failed(String),
    /// Nothing is wrong with the batch, but with what is around it: credentials, permissions, a missing group.
    Hindered {
        cause: String,
        /// Somebody has to do something.
        lasting: bool,
    },
    /// The service does not take something in it.
    Refused(String),
    /// It does not take anything under these names.
    RefusedAll(String),
}

/// Events that the service did not take, by their place in the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) events: Range<usize>,
    pub(super) why: DropReason,
    pub(super) detail: &'static str,
}

/// What is created, and how.
#[derive(Clone, Debug)]
pub(super) struct Creation {
    /// `auto_create_group`
    pub(super) groups: bool,
    /// `auto_create_stream`
    pub(super) streams: bool,
    /// `log_retention_days`; `None`: for ever.
    pub(super) retention: Option<i32>,
    /// `log_group_class`
    pub(super) class: Option<LogGroupClass>,
    /// `new_log_group_tags`
    pub(super) tags: Vec<(String, String)>,
}

/// The service.
pub(super) struct Api {
    client: Client,
    aws: Aws,
    creation: Creation,
    /// `log_format`, sent as `x-amzn-logs-format`.
    format: Option<String>,
    /// `compress gzip`
    gzip: bool,
    /// Groups being created: one at a time each.
    groups: Mutex<HashMap<String, Arc<tokio::sync::Mutex<bool>>>>,
}

/// An error of the service or on the way to it.
enum Trouble {
    Throttled(Option<Duration>),
    Missing,
    Exists,
    Busy,
    Denied,
    Refused,
    Failed,
}

impl Api {
    pub(super) fn new(aws: Aws, creation: Creation, format: Option<String>, gzip: bool) -> Api {
        Api { client: Client::new(&aws.config), aws, creation, format, gzip, groups: Mutex::default() }
    }

    /// Sends a batch of `events` events. `format`: what their sender says of it, unless the configuration does.
    pub(super) async fn put(
        &self,
        (group, stream): (&str, &str),
        body: Bytes,
        events: usize,
        format: Option<&str>,
    ) -> Outcome {
        let format = self.format.as_deref().or(format);
        let wire = match self.gzip {
            false => body,
            true => {
                let packed = tokio::task::spawn_blocking(move || gzip(&body)).await;
                match packed {
                    Ok(Ok(packed)) => packed,
                    Ok(Err(e)) => return Outcome::Failed(format!("cannot compress a batch: {e}")),
                    Err(e) => return Outcome::Failed(format!("cannot compress a batch: {e}")),
                }
            }
        };
        let (mut created, mut renewed) = (false, false);
        loop {
            let (trouble, cause) = match self.put_once((group, stream), wire.clone(), events, format).await {
                Ok(rejected) => return Outcome::Done(rejected),
                Err(e) => e,
            };
            match trouble {
                Trouble::Missing if !created => {
                    if let Err(outcome) = self.create(group, stream).await {
                        return outcome;
                    }
                    created = true;
                }
                // They may have expired just now, or been replaced: one more try with what the chain gives today.
                Trouble::Denied if !renewed => {
                    self.aws.credentials.forget();
                    renewed = true;
                }
                // Every part of the batch would be refused as well.
                Trouble::Refused if speaks_of_names(&cause) => return Outcome::RefusedAll(cause),
                trouble => return outcome(trouble, cause),
            }
        }
    }

    async fn put_once(
        &self,
        (group, stream): (&str, &str),
        body: Bytes,
        events: usize,
        format: Option<&str>,
    ) -> Result<Vec<Rejected>, (Trouble, String)> {
        let length = body.len().to_string();
        let (format, gzip) = (format.map(str::to_owned), self.gzip);
        // The library serialises a request without events and signs the body that is put in its place: its own copy of a
        // batch would cost more than all the rest.
        let call = self
            .client
            .put_log_events()
            .log_group_name(group)
            .log_stream_name(stream)
            .set_log_events(Some(Vec::new()))
            .customize()
            .mutate_request(move |request| {
                *request.body_mut() = SdkBody::from(body.clone());
                let headers = request.headers_mut();
                headers.insert("content-length", length.clone());
                if gzip {
                    headers.insert("content-encoding", "gzip");
                }
                // What cannot stand there was passed over before.
                if let Some(format) = &format {
                    let _same = headers.try_insert(FORMAT, format.clone());
                }
            });
        match call.send().await {
            // What answers without a request id is something on the way, a captive page perhaps.
            Ok(output) if output.request_id().is_none() => {
                Err((Trouble::Failed, "the answer is not CloudWatch's: it has no request id".to_owned()))
            }
            Ok(output) => {
                Ok(output.rejected_log_events_info().map_or_else(Vec::new, |i| rejected(i, events)))
            }
            // The service has had this very batch before.
            Err(e) if code(&e) == Some("DataAlreadyAcceptedException") => Ok(Vec::new()),
            Err(e) => Err(read("PutLogEvents", &e)),
        }
    }

    /// Creates the stream, and the group if need be.
    async fn create(&self, group: &str, stream: &str) -> Result<(), Outcome> {
        if !self.creation.streams {
            let cause = format!(
                "log stream {stream} of {group} does not exist; create it, or set auto_create_stream on"
            );
            return Err(Outcome::Hindered { cause, lasting: true });
        }
        let mut with_group = false;
        loop {
            let call = self.client.create_log_stream().log_group_name(group).log_stream_name(stream);
            let Err(e) = call.send().await else {
                tracing::info!(group, stream, "log stream created");
                return Ok(());
            };
            match read("CreateLogStream", &e) {
                (Trouble::Exists, _) => return Ok(()),
                (Trouble::Missing, _) if !with_group => {
                    self.create_group(group).await?;
                    with_group = true;
                }
                (trouble, cause) => return Err(of_names(trouble, cause)),
            }
        }
    }

    async fn create_group(&self, group: &str) -> Result<(), Outcome> {
        if !self.creation.groups {
            let cause = format!("log group {group} does not exist; create it, or set auto_create_group on");
            return Err(Outcome::Hindered { cause, lasting: true });
        }
        let turn = {
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(groups.entry(group.to_owned()).or_default())
        };
        let mut created = turn.lock().await;
        // Whoever waited for another's turn is done; if the group is gone again, the next batch finds that out.
        if !std::mem::replace(&mut *created, true) {
            let result = self.create_group_once(group).await;
            self.groups.lock().unwrap_or_else(PoisonError::into_inner).remove(group);
            if result.is_err() {
                *created = false;
            }
            return result;
        }
        Ok(())
    }

    async fn create_group_once(&self, group: &str) -> Result<(), Outcome> {
        let tags = &self.creation.tags;
        let call = self
            .client
            .create_log_group()
            .log_group_name(group)
            .set_log_group_class(self.creation.class.clone())
            .set_tags((!tags.is_empty()).then(|| tags.iter().cloned().collect()));
        match call.send().await {
            Ok(_) => tracing::info!(group, "log group created"),
            Err(e) => match read("CreateLogGroup", &e) {
                (Trouble::Exists, _) => {}
                // The records are good, and so is the name: somebody has to change what groups are created with.
                (Trouble::Refused, cause)
                    if (!tags.is_empty() || self.creation.class.is_some()) && !speaks_of_names(&cause) =>
                {
                    let cause = format!(
                        "{cause}; check new_log_group_tags and log_group_class, or create group {group} by hand"
                    );
                    return Err(Outcome::Hindered { cause, lasting: true });
                }
                (trouble, cause) => return Err(of_names(trouble, cause)),
            },
        }
        let Some(days) = self.creation.retention else { return Ok(()) };
        let call = self.client.put_retention_policy().log_group_name(group).retention_in_days(days);
        if let Err(e) = call.send().await {
            // The records matter more than how long they are kept.
            let (_, cause) = read("PutRetentionPolicy", &e);
            tracing::error!(group, days, %cause, "cannot set the retention; set it by hand");
        }
        Ok(())
    }
}

fn gzip(body: &[u8]) -> std::io::Result<Bytes> {
    let out = Vec::with_capacity(body.len() / 4);
    let mut packer = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    packer.write_all(body)?;
    Ok(packer.finish()?.into())
}

fn outcome(trouble: Trouble, cause: String) -> Outcome {
    match trouble {
        Trouble::Throttled(after) => Outcome::Throttled { after, cause },
        Trouble::Failed => Outcome::Failed(cause),
        Trouble::Refused => Outcome::Refused(cause),
        Trouble::Missing | Trouble::Exists | Trouble::Busy => Outcome::Hindered { cause, lasting: false },
        Trouble::Denied => Outcome::Hindered { cause, lasting: true },
    }
}

/// A name that the service does not take will not be taken tomorrow: no use in looking for the event that is at fault.
fn of_names(trouble: Trouble, cause: String) -> Outcome {
    match trouble {
        Trouble::Refused => Outcome::RefusedAll(cause),
        trouble => outcome(trouble, cause),
    }
}

fn speaks_of_names(cause: &str) -> bool {
    cause.contains("logGroupName") || cause.contains("logStreamName")
}

/// The ranges of events that an answer with status 200 rejects. The end of the old ones is exclusive, the start of the new
/// ones inclusive; both refer to the events as they were sent.
fn rejected(info: &RejectedLogEventsInfo, events: usize) -> Vec<Rejected> {
    let place = |n: Option<i32>| n.and_then(|n| usize::try_from(n).ok()).map(|n| n.min(events));
    let old = place(info.too_old_log_event_end_index).unwrap_or(0);
    let expired = place(info.expired_log_event_end_index).unwrap_or(0);
    let new = place(info.too_new_log_event_start_index).unwrap_or(events).max(old).max(expired);
    [
        (0..old, DropReason::TooOld, "CloudWatch takes no events older than 14 days"),
        (old..expired, DropReason::Expired, "it is older than the retention of its log group"),
        (
            new..events,
            DropReason::TooNew,
            "CloudWatch takes no events more than 2 hours ahead; check the clock",
        ),
    ]
    .into_iter()
    .filter(|(events, ..)| !events.is_empty())
    .map(|(events, why, detail)| Rejected { events, why, detail })
    .collect()
}

fn code<E: ProvideErrorMetadata>(e: &SdkError<E, HttpResponse>) -> Option<&str> {
    e.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// What an error means, and how to say it.
fn read<E>(call: &str, e: &SdkError<E, HttpResponse>) -> (Trouble, String)
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = e.raw_response().map(|r| r.status().as_u16());
    match e {
        SdkError::ServiceError(_) => {
            let name = code(e).unwrap_or_default();
            let said = e.as_service_error().and_then(ProvideErrorMetadata::message).unwrap_or_default();
            let status = status.unwrap_or_default();
            let after = e.raw_response().and_then(retry_after);
            let cause = match name {
                "" => foreign(call, e.raw_response()),
                "AccessDenied" | "AccessDeniedException" => {
                    format!("{call}: {status} {name} {said}; the role's policy has to allow logs:{call}")
                }
                name => format!("{call}: {status} {name} {said}").trim_end().to_owned(),
            };
            (judge(name, status, after), cause)
        }
        // There are no credentials, or the request could not be made for another reason that lies here.
        SdkError::ConstructionFailure(_) => (Trouble::Denied, format!("{call}: {}", causes(e))),
        SdkError::DispatchFailure(failure) if !failure.is_io() && !failure.is_timeout() => {
            (Trouble::Denied, format!("{call}: {}", causes(e)))
        }
        SdkError::DispatchFailure(failure) => {
            let cause = failure.as_connector_error().map_or_else(|| causes(e), |c| causes(c));
            (Trouble::Failed, format!("{call}: {cause}"))
        }
        SdkError::ResponseError(_) => (Trouble::Failed, foreign(call, e.raw_response())),
        _ => (Trouble::Failed, format!("{call}: {}", causes(e))),
    }
}

/// An answer that does not read like AWS's.
fn foreign(call: &str, answer: Option<&HttpResponse>) -> String {
    let status = answer.map_or(0, |a| a.status().as_u16());
    let kind = answer.and_then(|a| a.headers().get("content-type")).unwrap_or("no content type");
    format!(
        "{call}: the answer {status} ({kind}) is not CloudWatch's; is there a proxy or a captive page on the way?"
    )
}

/// Classes of errors by name, else by status.
fn judge(name: &str, status: u16, after: Option<Duration>) -> Trouble {
    match name {
        "ThrottlingException"
        | "ThrottledException"
        | "Throttling"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "LimitExceededException" => Trouble::Throttled(after),
        "ResourceNotFoundException" => Trouble::Missing,
        "ResourceAlreadyExistsException" => Trouble::Exists,
        "OperationAbortedException" => Trouble::Busy,
        "InvalidParameterException"
        | "SerializationException"
        | "ValidationException"
        | "InvalidParameterCombinationException" => Trouble::Refused,
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "AccessDenied"
        | "AccessDeniedException"
        | "NotAuthorizedException"
        | "OptInRequired" => Trouble::Denied,
        _ => match status {
            429 => Trouble::Throttled(after),
            401 | 403 => Trouble::Denied,
            413 => Trouble::Refused,
            _ => Trouble::Failed,
        },
    }
}

/// `Retry-After` in seconds, or AWS's own in milliseconds.
fn retry_after(response: &HttpResponse) -> Option<Duration> {
    let number = |name| response.headers().get(name)?.trim().parse::<u64>().ok();
    let seconds = number("retry-after").map(Duration::from_secs);
    seconds.or_else(|| number("x-amz-retry-after").map(Duration::from_millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_ranges_are_read_as_the_service_means_them() {
        let info = RejectedLogEventsInfo::builder()
            .too_old_log_event_end_index(2)
            .expired_log_event_end_index(3)
            .too_new_log_event_start_index(8)
            .build();
        let ranges: Vec<_> = rejected(&info, 10).into_iter().map(|r| (r.events, r.why)).collect();
        assert_eq!(
            ranges,
            [(0..2, DropReason::TooOld), (2..3, DropReason::Expired), (8..10, DropReason::TooNew)]
        );
        let all = RejectedLogEventsInfo::builder().too_old_log_event_end_index(99).build();
        assert_eq!(rejected(&all, 4).len(), 1);
        assert!(rejected(&RejectedLogEventsInfo::builder().build(), 4).is_empty());
    }

    #[test]
    fn what_the_service_throttles_refuses_or_forbids_is_no_failed_attempt() {
        assert!(matches!(judge("ThrottlingException", 400, None), Trouble::Throttled(None)));
        assert!(matches!(judge("", 429, None), Trouble::Throttled(None)));
        assert!(matches!(judge("ExpiredTokenException", 400, None), Trouble::Denied));
        assert!(matches!(judge("", 403, None), Trouble::Denied));
        assert!(matches!(judge("InvalidParameterException", 400, None), Trouble::Refused));
        assert!(matches!(judge("", 413, None), Trouble::Refused));
        assert!(matches!(judge("InternalFailure", 500, None), Trouble::Failed));
        assert!(matches!(judge("", 404, None), Trouble::Failed));
    }

    #[test]
    fn a_compressed_body_is_one_gzip_member() {
        let packed = gzip(b"body body body").unwrap();
        let text =
            crate::wire::inflate::inflate(crate::wire::inflate::Compression::Gzip, &packed, 100).unwrap();
        assert_eq!(text, b"body body body");
    }
}
