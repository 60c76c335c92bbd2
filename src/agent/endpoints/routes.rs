//! From a path to an answer: the routes of the ECS agent's task metadata service.
//!
//! Enters: a path and a query. Leaves: a status and a body, JSON wherever the agent gives JSON. Can go wrong: nobody has
//! the id, or there is no such path. Version 4 says 404 of an id that nobody has, version 3 says 500, or 400 of what is no
//! metadata; the texts are the agent's, because programs show them.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::directory::{Directory, Entry};
use super::documents::{self, Version};
use super::role::Refused;

/// What is sent.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) json: bool,
    pub(super) body: String,
    pub(super) location: Option<String>,
}

impl Answer {
    fn json(status: StatusCode, body: &Value) -> Answer {
        Answer { status, json: true, body: body.to_string(), location: None }
    }

    /// What is no metadata, as Go's server says it.
    pub(super) fn plain(status: StatusCode, text: &str) -> Answer {
        Answer { status, body: text.to_owned(), ..Answer::default() }
    }
}

/// What the agent says when a client asks too often.
pub(super) fn too_often() -> Answer {
    Answer::plain(StatusCode::TOO_MANY_REQUESTS, "You have reached maximum request limit.")
}

fn unknown_path() -> Answer {
    Answer::plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The path as it should have been asked for, if that is another: no empty parts, no dots. A slash at the end stays.
pub(super) fn cleaned(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// Answers a request.
pub(super) async fn answer(
    directory: &Arc<Directory>,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Answer {
    if let Some(clean) = cleaned(path) {
        let query = query.map(|q| format!("?{q}")).unwrap_or_default();
        let location = Some(clean + &query);
        return Answer { status: StatusCode::MOVED_PERMANENTLY, location, ..Answer::default() };
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["v1", "credentials"] => credentials(directory, 1, &query_id(query.unwrap_or_default())).await,
        // Whatever follows is the id.
        ["v2", "credentials", ..] if parts.len() > 2 => {
            credentials(directory, 2, parts.get(2..).unwrap_or_default().join("/").as_str()).await
        }
        ["v3", id, rest @ ..] => metadata(directory, Version::V3, id, rest).await,
        ["v4", id, rest @ ..] => metadata(directory, Version::V4, id, rest).await,
        // Alone among all of them it is registered with its methods; the others answer to any.
        ["api", id, "task-protection", "v1", "state"] => match *method {
            Method::GET | Method::PUT => protection(directory, id),
            _ => Answer { status: StatusCode::METHOD_NOT_ALLOWED, ..Answer::default() },
        },
        _ => unknown_path(),
    }
}

/// `id` of a query.
fn query_id(query: &str) -> String {
    query.split('&').find_map(|pair| pair.strip_prefix("id=")).unwrap_or_default().to_owned()
}

#[derive(Serialize)]
struct CredentialsError {
    code: &'static str,
    message: String,
    #[serde(rename = "HTTPErrorCode")]
    status: u16,
}

async fn credentials(directory: &Arc<Directory>, version: u8, id: &str) -> Answer {
    let error = |status: StatusCode, code: &'static str, text: &str| {
        let message = format!("CredentialsV{version}Request: {text}");
        let body = serde_json::to_value(CredentialsError { code, message, status: status.as_u16() });
        Answer::json(status, &body.unwrap_or_default())
    };
    if id.is_empty() {
        return error(StatusCode::BAD_REQUEST, "NoIdInRequest", "No Credential ID in the request");
    }
    let Some(role) = directory.role(id) else {
        return error(StatusCode::BAD_REQUEST, "InvalidIdInRequest", "Credentials not found");
    };
    match role.get().await {
        Ok(handed) => Answer::json(StatusCode::OK, &serde_json::to_value(handed).unwrap_or_default()),
        Err(Refused::NotYet) => error(
            StatusCode::SERVICE_UNAVAILABLE,
            "CredentialsUninitialized",
            "Credentials uninitialized for ID",
        ),
        Err(Refused::Failed(why)) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            &format!("the agent cannot take on the task's role: {why}"),
        ),
    }
}

async fn metadata(directory: &Arc<Directory>, version: Version, id: &str, rest: &[&str]) -> Answer {
    let found = directory.container(id);
    match rest {
        [] => match found.filter(|(entry, at)| entry.runtime_id(*at).is_some()) {
            Some((entry, at)) => {
                let document = entry.look(|now| documents::container(now, at, version)).await;
                document.map_or_else(unknown_path, |document| Answer::json(StatusCode::OK, &document))
            }
            None => lookup(version, "container metadata", Missing::Container, id),
        },
        ["task" | "taskWithTags"] => match found {
            // The machine has no tags: ContainerInstanceTags is left out, as it is where there are none.
            Some((entry, _)) => {
                let tags = rest == ["taskWithTags"];
                let document = entry.look(|now| documents::task(now, version, tags)).await;
                document.map_or_else(unknown_path, |document| Answer::json(StatusCode::OK, &document))
            }
            None => lookup(version, "task metadata", Missing::Task, id),
        },
        ["stats"] => match found {
            Some((entry, at)) if entry.runtime_id(at).is_some() => {
                Answer::json(StatusCode::OK, &of_version(entry.stats(at).await, version))
            }
            Some(_) => lookup(version, "container stats", Missing::Container, id),
            None => lookup(version, "container stats", Missing::Task, id),
        },
        ["task", "stats"] => match found {
            Some((entry, _)) => Answer::json(StatusCode::OK, &all_stats(&entry, version).await),
            None => lookup(version, "task stats", Missing::Task, id),
        },
        // Tasks have associations where the backend gives them (Elastic Inference). None of ours does.
        ["associations", _kind] => match found {
            Some(_) => Answer::json(StatusCode::OK, &json!({ "Associations": [] })),
            None => {
                unassociated(version, &format!("unable to get container id from request: {}", docker(id)))
            }
        },
        ["associations", kind, name @ ..] => {
            let name = name.join("/");
            match found {
                Some(_) => {
                    let text = format!(
                        "Unable to write container association response: unable to get association from association type {kind} and association name {name}"
                    );
                    Answer::json(StatusCode::BAD_REQUEST, &Value::from(text))
                }
                None => unassociated(version, &format!("unable to get task arn from request: {}", arn(id))),
            }
        }
        _ => unknown_path(),
    }
}

/// `network_rate_stats` came with version 4.
fn of_version(mut stats: Value, version: Version) -> Value {
    if version == Version::V3
        && let Some(map) = stats.as_object_mut()
    {
        map.remove("network_rate_stats");
    }
    stats
}

async fn all_stats(entry: &Entry, version: Version) -> Value {
    let mut all = Map::new();
    for at in 0..entry.plan.containers.len() {
        if let Some(id) = entry.runtime_id(at) {
            all.insert(id, of_version(entry.stats(at).await, version));
        }
    }
    Value::Object(all)
}

/// What is not found under an id.
#[derive(Clone, Copy)]
enum Missing {
    Container,
    Task,
}

fn docker(id: &str) -> String {
    format!("unable to get docker ID from v3 endpoint ID: {id}")
}

fn arn(id: &str) -> String {
    format!("unable to get task Arn from v3 endpoint ID: {id}")
}

fn lookup(version: Version, what: &str, missing: Missing, id: &str) -> Answer {
    let why = match missing {
        Missing::Container => format!("unable to get container ID from request: {}", docker(id)),
        Missing::Task => format!("unable to get task arn from request: {}", arn(id)),
    };
    let (name, status) = match version {
        Version::V4 => ("V4", StatusCode::NOT_FOUND),
        Version::V3 if what.ends_with("stats") => ("V3", StatusCode::BAD_REQUEST),
        Version::V3 => ("V3", StatusCode::INTERNAL_SERVER_ERROR),
    };
    Answer::json(status, &Value::from(format!("{name} {what} handler: {why}")))
}

fn unassociated(version: Version, why: &str) -> Answer {
    let text = format!("{version:?} container associations handler: {why}");
    Answer::json(StatusCode::BAD_REQUEST, &Value::from(text))
}

/// Task protection is a matter of services of ECS: it can neither be asked for here nor be set.
fn protection(directory: &Directory, id: &str) -> Answer {
    match directory.container(id) {
        Some((entry, _)) => Answer::json(
            StatusCode::BAD_REQUEST,
            &json!({ "error": {
                "Arn": entry.plan.arn,
                "Code": "UnsupportedFeatureException",
                "Message": "task protection is for tasks of a service of ECS; this task runs on one machine, which cannot protect it",
            }}),
        ),
        None => Answer::json(
            StatusCode::NOT_FOUND,
            &json!({ "error": {
                "Code": "ResourceNotFoundException",
                "Message": "Failed to find a task for the request",
            }}),
        ),
    }
}

#[cfg(test)]
mod tests;
