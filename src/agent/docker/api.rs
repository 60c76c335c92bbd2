//! What is asked of the Docker engine, each with a limit of time and ECS's name for its failure.
//!
//! Enters: names, ids, bodies. Leaves: the engine's answers. Can go wrong: the engine says no, does not answer in time, or
//! is not there; a [`Trouble`] says which, with the engine's own text.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerSummary, EventMessage,
    SystemInfoCgroupDriverEnum, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder,
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StatsOptionsBuilder, StopContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures_core::Stream;
use serde_json::Value;

use crate::agent::open_files;
use crate::agent::runtime::Failure;

/// Where the engine is unless `DOCKER_HOST` says otherwise.
pub(super) const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// ECS gives up creating a container after it (`ECS_CONTAINER_CREATE_TIMEOUT`).
const CREATE: Duration = Duration::from_secs(4 * 60);
/// ECS gives up starting a container after it (`ECS_CONTAINER_START_TIMEOUT`).
const START: Duration = Duration::from_secs(3 * 60);
/// What a stop may take beyond its own timeout.
const STOP_MORE: Duration = Duration::from_secs(2 * 60);
/// Silence of a pull after which ECS gives up (`ECS_IMAGE_PULL_INACTIVITY_TIMEOUT`).
const PULL_SILENCE: Duration = Duration::from_secs(60);
/// The longest pull.
const PULL: Duration = Duration::from_secs(2 * 60 * 60);
/// Everything that the engine knows without looking further.
const QUICK: Duration = Duration::from_secs(30);
/// How long an engine may take to say which it is.
const VERSION: Duration = Duration::from_secs(5);
/// bollard's own limit, above all of ours.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the engine did not do it.
#[derive(Debug)]
pub(super) struct Trouble {
    /// HTTP's status, where the engine answered.
    pub(super) status: Option<u16>,
    /// In ECS's terms.
    pub(super) failure: Failure,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        trouble.failure
    }
}

/// A call: ECS's name for its failure, and the transition in ECS's text of a timeout.
#[derive(Clone, Copy, Debug)]
struct Call(&'static str, &'static str);

const PULLED: Call = Call("CannotPullContainerError", "pulled");
const CREATED: Call = Call("CannotCreateContainerError", "created");
const STARTED: Call = Call("CannotStartContainerError", "started");
const STOPPED: Call = Call("CannotStopContainerError", "stopped");
const REMOVED: Call = Call("CannotRemoveContainerError", "removing");
const INSPECTED: Call = Call("CannotInspectContainerError", "inspecting");
const LISTED: Call = Call("CannotListContainersError", "listing");
const VOLUME: Call = Call("InvalidVolumeError", "created");
const CONNECTED: Call = Call("DockerClientConfigError", "connected");

/// A Docker engine. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Api {
    docker: Docker,
    /// Major and minor version of the engine.
    pub(super) version: (u32, u32),
    /// The most open files that it can give a container, where that is known and not any number.
    pub(super) files: Option<i64>,
}

impl Api {
    /// Looks for an engine at `unix://PATH`.
    ///
    /// # Errors
    /// `DockerClientConfigError`: there is none, or it does not answer.
    pub(super) async fn connect(host: &str) -> Result<Api, Failure> {
        let refused = |text: String| Failure::new(CONNECTED.0, text);
        if !host.starts_with("unix://") {
            return Err(refused(format!(
                "the Docker engine at {host} cannot be used: only unix:// sockets are, because logs go through sockets of this machine"
            )));
        }
        let cannot = |e: Error| {
            refused(format!(
                "Cannot connect to the Docker daemon at {host}. Is the docker daemon running? ({})",
                chain(&e)
            ))
        };
        let docker = Docker::connect_with_unix(host, NEVER.as_secs(), API_DEFAULT_VERSION).map_err(cannot)?;
        let version = async {
            let docker = docker.negotiate_version().await?;
            let version = docker.version().await?;
            Ok((docker, version))
        };
        match tokio::time::timeout(VERSION, version).await {
            Ok(Ok((docker, version))) => {
                let version = numbers(version.version.as_deref().unwrap_or_default());
                let socket = Path::new(host.strip_prefix("unix://").unwrap_or(host));
                let files = open_files::listener_max(socket).await;
                Ok(Api { docker, version, files })
            }
            Ok(Err(e)) => Err(cannot(e)),
            Err(_) => Err(refused(format!(
                "the Docker engine at {host} did not answer within {} s",
                VERSION.as_secs()
            ))),
        }
    }

    /// Control groups are made by the engine itself, not by systemd.
    pub(super) async fn has_plain_groups(&self) -> bool {
        let info = limited(INSPECTED, QUICK, self.docker.info()).await;
        info.is_ok_and(|info| info.cgroup_driver == Some(SystemInfoCgroupDriverEnum::CGROUPFS))
    }

    /// All containers with a label, whatever they do.
    pub(super) async fn list(&self, label: &str) -> Result<Vec<ContainerSummary>, Trouble> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&labelled(label)).build();
        limited(LISTED, QUICK, self.docker.list_containers(Some(options))).await
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, Trouble> {
        limited(INSPECTED, QUICK, self.docker.inspect_container(id, None)).await
    }

    /// Makes a container. Gives its id and the engine's warnings.
    pub(super) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<(String, Vec<String>), Trouble> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let made = limited(CREATED, CREATE, self.docker.create_container(Some(options), body)).await?;
        Ok((made.id, made.warnings))
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), Trouble> {
        limited(STARTED, START, self.docker.start_container(id, None)).await
    }

    pub(super) async fn stop(&self, id: &str, timeout: Duration) -> Result<(), Trouble> {
        let seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        limited(STOPPED, timeout + STOP_MORE, self.docker.stop_container(id, Some(options))).await
    }

    /// Removes a container with its anonymous volumes, also when it runs.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Trouble> {
        let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
        limited(REMOVED, STOP_MORE, self.docker.remove_container(id, Some(options))).await
    }

    /// Whether the engine has an image.
    pub(super) async fn has_image(&self, image: &str) -> Result<bool, Trouble> {
        found(limited(PULLED, QUICK, self.docker.inspect_image(image)).await)
    }

    /// Pulls an image. `registry`: user and password.
    pub(super) async fn pull(&self, image: &str, registry: Option<&(String, String)>) -> Result<(), Trouble> {
        let options = CreateImageOptionsBuilder::new().from_image(image).build();
        let credentials = registry.map(|(user, password)| DockerCredentials {
            username: Some(user.clone()),
            password: Some(password.clone()),
            ..DockerCredentials::default()
        });
        self.drain(self.docker.create_image(Some(options), None, credentials)).await
    }

    /// Makes an image of a tar file.
    pub(super) async fn import(&self, repository: &str, tag: &str, tar: Vec<u8>) -> Result<(), Trouble> {
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repository).tag(tag).build();
        let body = bollard::body_full(Bytes::from(tar));
        self.drain(self.docker.create_image(Some(options), Some(body), None)).await
    }

    async fn drain<T>(&self, stream: impl Stream<Item = Result<T, Error>>) -> Result<(), Trouble> {
        let mut stream = Box::pin(stream);
        let all = async {
            loop {
                match tokio::time::timeout(PULL_SILENCE, next(&mut stream)).await {
                    Ok(None) => return Ok(()),
                    Ok(Some(Ok(_))) => {}
                    Ok(Some(Err(e))) => return Err(trouble(PULLED, &e)),
                    Err(_) => return Err(timed_out(PULLED, PULL_SILENCE)),
                }
            }
        };
        tokio::time::timeout(PULL, all).await.unwrap_or_else(|_| Err(timed_out(PULLED, PULL)))
    }

    pub(super) async fn create_volume(&self, volume: VolumeCreateRequest) -> Result<(), Trouble> {
        limited(VOLUME, QUICK, self.docker.create_volume(volume)).await.map(drop)
    }

    pub(super) async fn has_volume(&self, name: &str) -> Result<bool, Trouble> {
        found(limited(VOLUME, QUICK, self.docker.inspect_volume(name)).await)
    }

    /// Names of the volumes with a label.
    pub(super) async fn volumes(&self, label: &str) -> Result<Vec<String>, Trouble> {
        let options = ListVolumesOptionsBuilder::new().filters(&labelled(label)).build();
        let list = limited(VOLUME, QUICK, self.docker.list_volumes(Some(options))).await?;
        Ok(list.volumes.unwrap_or_default().into_iter().map(|v| v.name).collect())
    }

    pub(super) async fn remove_volume(&self, name: &str) -> Result<(), Trouble> {
        limited(VOLUME, QUICK, self.docker.remove_volume(name, None::<RemoveVolumeOptions>)).await
    }

    /// Resource use, one look, as docker's `/stats` has it.
    pub(super) async fn stats(&self, id: &str) -> Option<Value> {
        let options = StatsOptionsBuilder::new().stream(false).build();
        let mut stream = Box::pin(self.docker.stats(id, Some(options)));
        let stats = tokio::time::timeout(QUICK, next(&mut stream)).await.ok()??.ok()?;
        serde_json::to_value(stats).ok()
    }

    /// What happens to containers with a label, from `since` (seconds since 1970) on.
    pub(super) fn events(
        &self,
        label: &str,
        since: i64,
    ) -> impl Stream<Item = Result<EventMessage, Error>> + use<> {
        let mut filters = labelled(label);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let options = EventsOptionsBuilder::new().since(&since.to_string()).filters(&filters).build();
        self.docker.events(Some(options))
    }

    /// What a container has printed from `since` (seconds since 1970) on; `follow`: what it will, too, to its end.
    pub(super) fn logs(
        &self,
        id: &str,
        since: i32,
        follow: bool,
    ) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let options = LogsOptionsBuilder::new().follow(follow).since(since).stdout(true).stderr(true).build();
        self.docker.logs(id, Some(options))
    }

    /// What a container has printed, each line after its time.
    pub(super) fn logs_until_now(&self, id: &str) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let options = LogsOptionsBuilder::new().timestamps(true).stdout(true).stderr(true).build();
        self.docker.logs(id, Some(options))
    }

    /// So many lines that a container has printed last.
    pub(super) fn last_logs(
        &self,
        id: &str,
        lines: usize,
    ) -> impl Stream<Item = Result<LogOutput, Error>> + use<> {
        let options = LogsOptionsBuilder::new().tail(&lines.to_string()).stdout(true).stderr(true).build();
        self.docker.logs(id, Some(options))
    }
}

/// The next item of a stream.
pub(super) async fn next<S: Stream + ?Sized>(stream: &mut Pin<Box<S>>) -> Option<S::Item> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}

async fn limited<T>(
    call: Call,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, Box::pin(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(trouble(call, &e)),
        Err(_) => Err(timed_out(call, limit)),
    }
}

fn found<T>(answer: Result<T, Trouble>) -> Result<bool, Trouble> {
    match answer {
        Ok(_) => Ok(true),
        Err(e) if e.status == Some(404) => Ok(false),
        Err(e) => Err(e),
    }
}

fn labelled(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}

fn timed_out(call: Call, limit: Duration) -> Trouble {
    let text = format!("Could not transition to {}; timed out after waiting {}", call.1, go_duration(limit));
    Trouble { status: None, failure: Failure::new("DockerTimeoutError", text) }
}

fn trouble(call: Call, e: &Error) -> Trouble {
    let (status, text) = match e {
        Error::DockerResponseServerError { status_code, message } => {
            (Some(*status_code), format!("Error response from daemon: {}", message.trim_end()))
        }
        Error::DockerStreamError { error } => (None, error.trim_end().to_owned()),
        Error::RequestTimeoutError => return timed_out(call, NEVER),
        e => (None, chain(e)),
    };
    let vanished = status == Some(404) && text.contains("No such container");
    let name = if vanished && call.0 != CREATED.0 { "NoSuchContainerError" } else { call.0 };
    Trouble { status, failure: Failure::new(name, text) }
}

/// An error with its causes.
pub(super) fn chain(e: &Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = e.source();
    }
    text
}

/// As Go writes it, which ECS's texts have: `2m30s`.
fn go_duration(time: Duration) -> String {
    let all = time.as_secs();
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Major and minor of `20.10.24+dfsg1`.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_says_has_ecs_s_name_and_the_engine_s_text() {
        let e = Error::DockerResponseServerError {
            status_code: 500,
            message: "port is already allocated\n".into(),
        };
        assert_eq!(
            trouble(STARTED, &e).failure.to_string(),
            "CannotStartContainerError: Error response from daemon: port is already allocated"
        );
        let e = Error::DockerResponseServerError { status_code: 404, message: "No such container: x".into() };
        assert_eq!(trouble(STARTED, &e).failure.name, "NoSuchContainerError");
        let e = Error::DockerStreamError { error: "unexpected EOF".into() };
        assert_eq!(trouble(PULLED, &e).failure.to_string(), "CannotPullContainerError: unexpected EOF");
        assert_eq!(
            timed_out(STARTED, START).failure.to_string(),
            "DockerTimeoutError: Could not transition to started; timed out after waiting 3m0s"
        );
    }

    #[test]
    fn times_are_written_as_go_writes_them_and_versions_are_read() {
        let texts = [5, 150, 7200].map(|s| go_duration(Duration::from_secs(s)));
        assert_eq!(texts, ["5s", "2m30s", "2h0m0s"]);
        assert_eq!(numbers("20.10.24+dfsg1"), (20, 10));
        assert_eq!(numbers("dev"), (0, 0));
    }
}
