//! What the service keeps: groups, streams, their events, and every call that was made.

use std::collections::{BTreeMap, HashMap};
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use super::faults::{Answer, Rule};
use super::rules::{AHEAD_MS, Asked, Broken, DAY_MS, Event, OLD_MS};
use super::sigv4::Key;

/// A log group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) class: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) days: Option<u32>,
    pub(crate) streams: BTreeMap<String, Vec<Event>>,
}

/// A call that has been answered, or that never will be.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) operation: String,
    pub(crate) group: String,
    pub(crate) stream: String,
    /// How many events it had, and how many bytes as the service counts them.
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// `ok`, the name of an error, or what was done to it.
    pub(crate) outcome: String,
    pub(crate) key: String,
    pub(crate) user_agent: String,
    /// `x-amzn-logs-format`
    pub(crate) format: String,
    pub(crate) gzip: bool,
    pub(crate) began: Instant,
}

/// Calls on their way, now and at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InFlight {
    now: usize,
    pub(crate) most: usize,
}

impl InFlight {
    pub(crate) fn now(&self) -> usize {
        self.now
    }

    pub(crate) fn begin(&mut self) {
        self.now += 1;
        self.most = self.most.max(self.now);
    }

    pub(crate) fn end(&mut self) {
        self.now -= 1;
    }
}

/// Who asked whom for what besides logs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// Calls of the container credentials endpoint.
    pub(crate) container: usize,
    /// `RoleArn` and `ExternalId` of each AssumeRole.
    pub(crate) roles: Vec<(String, String)>,
    /// What was asked of the metadata service of an EC2 instance, in order.
    pub(crate) instance: Vec<String>,
    /// `RoleArn` and token of each AssumeRoleWithWebIdentity.
    pub(crate) web: Vec<(String, String)>,
    /// Calls of the task metadata endpoint.
    pub(crate) task: usize,
    pub(super) issued: usize,
    /// The container endpoint fails so many times more.
    pub(crate) failing: usize,
}

/// Everything that changes.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) calls: Vec<Call>,
    pub(crate) violations: Vec<String>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) keys: HashMap<String, Key>,
    pub(crate) identity: Identity,
    pub(crate) puts: InFlight,
    pub(crate) by_stream: HashMap<(String, String), InFlight>,
    /// Nobody is there: connections are closed as they come.
    pub(crate) away: bool,
}

fn no_group() -> Broken {
    ("ResourceNotFoundException", "The specified log group does not exist.".to_owned())
}

fn no_stream() -> Broken {
    ("ResourceNotFoundException", "The specified log stream does not exist.".to_owned())
}

fn exists(what: &str) -> Broken {
    ("ResourceAlreadyExistsException", format!("The specified {what} already exists"))
}

impl Store {
    /// Does what was asked for. `None`: an answer without a body.
    pub(crate) fn perform(&mut self, asked: &Asked, fault: Option<&Answer>) -> Result<Option<Value>, Broken> {
        match asked.operation.as_str() {
            "PutLogEvents" => self.put(asked, fault).map(Some),
            "CreateLogGroup" => {
                if self.groups.contains_key(&asked.group) {
                    return Err(exists("log group"));
                }
                let group =
                    Group { class: asked.class.clone(), tags: asked.tags.clone(), ..Group::default() };
                self.groups.insert(asked.group.clone(), group);
                Ok(None)
            }
            "CreateLogStream" => {
                let group = self.groups.get_mut(&asked.group).ok_or_else(no_group)?;
                if group.streams.contains_key(&asked.stream) {
                    return Err(exists("log stream"));
                }
                group.streams.insert(asked.stream.clone(), Vec::new());
                Ok(None)
            }
            _ => {
                self.groups.get_mut(&asked.group).ok_or_else(no_group)?.days = asked.days;
                Ok(None)
            }
        }
    }

    fn put(&mut self, asked: &Asked, fault: Option<&Answer>) -> Result<Value, Broken> {
        let group = self.groups.get_mut(&asked.group).ok_or_else(no_group)?;
        let kept = group.days.map_or(i64::MAX, |days| i64::from(days) * DAY_MS);
        let stream = group.streams.get_mut(&asked.stream).ok_or_else(no_stream)?;
        let now = i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        let older =
            |ms: i64| Some(asked.events.partition_point(|e| now - e.timestamp > ms)).filter(|n| *n > 0);
        let newer = asked.events.partition_point(|e| e.timestamp - now <= AHEAD_MS);
        let (old, expired, new) = match fault {
            Some(Answer::Rejected { too_old, expired, too_new }) => (*too_old, *expired, *too_new),
            _ => (older(OLD_MS), older(kept), Some(newer).filter(|n| *n < asked.events.len())),
        };
        let first = old.max(expired).unwrap_or(0);
        let last = new.unwrap_or(asked.events.len()).max(first);
        stream.extend_from_slice(&asked.events[first..last]);
        let mut answer = json!({"nextSequenceToken": format!("{:056}", stream.len())});
        let mut info = serde_json::Map::new();
        for (name, at) in [
            ("tooOldLogEventEndIndex", old),
            ("expiredLogEventEndIndex", expired),
            ("tooNewLogEventStartIndex", new),
        ] {
            if let Some(at) = at {
                info.insert(name.to_owned(), at.into());
            }
        }
        if !info.is_empty() {
            answer["rejectedLogEventsInfo"] = info.into();
        }
        Ok(answer)
    }
}
