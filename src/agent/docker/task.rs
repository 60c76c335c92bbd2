//! One task of the docker runtime, as the engine of tasks sees it.
//!
//! Enters: plans of containers and what is to become of them. Leaves: containers, and their states. Can go wrong: what the
//! Docker engine says, by ECS's names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::api::Api;
use super::network::{self, PAUSE};
use super::watcher::Watcher;
use super::{LABELS, Lines, body, images, lines, mounts};
use crate::agent::endpoints::namespace::Serving;
use crate::agent::endpoints::{self, Base, Directory};
use crate::agent::firelens;
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::runtime::{Failure, States, Status, TaskHandle};
use crate::rt::Tasks;

/// A removal that another one is in the way of is tried again.
const REMOVALS: u32 = 20;
const REMOVE_AGAIN: Duration = Duration::from_millis(250);

/// A task and the engine that runs it.
#[derive(Debug)]
pub struct DockerTask {
    api: Api,
    plan: TaskPlan,
    watcher: Arc<Watcher>,
    /// The id of its pause container.
    pause: Option<String>,
    lines: Option<Lines>,
    tasks: Tasks,
    /// What containers ask, and by which container's network it is served now.
    directory: Option<Arc<Directory>>,
    serving: Mutex<BTreeMap<String, Serving>>,
    /// Dropped, it ends the watcher.
    _follows: oneshot::Sender<()>,
}

/// What all of a task's containers and volumes bear.
fn label(plan: &TaskPlan) -> String {
    format!("{LABELS}task-arn={}", plan.arn)
}

impl DockerTask {
    /// Finds what is there of a task, and makes what its containers share.
    ///
    /// # Errors
    /// What could not be made; nothing of it is left.
    pub(super) async fn open(
        api: &Api,
        plan: &TaskPlan,
        lines: Option<Lines>,
        tasks: &Tasks,
    ) -> Result<Self, Failure> {
        let names = plan.containers.iter().map(|c| c.definition.name.clone());
        let watcher = Watcher::new(api.clone(), label(plan), names);
        let found = api.list(&label(plan)).await?;
        let mut pause = None;
        for container in &found {
            let Some(id) = &container.id else { continue };
            let name = container.labels.as_ref().and_then(|l| l.get(&format!("{LABELS}container-name")));
            match name.map(String::as_str) {
                Some(PAUSE) => pause = Some(id.clone()),
                Some(name) if plan.containers.iter().any(|c| c.definition.name == name) => {
                    watcher.add(name, id)
                }
                _ => {}
            }
        }
        let adopted = !found.is_empty();
        match share(api, plan, pause).await {
            Ok(pause) => {
                let (keep, ended) = oneshot::channel();
                for container in &plan.containers {
                    watcher.look(&container.definition.name).await;
                }
                tasks.spawn(format!("docker-{}", plan.id), Arc::clone(&watcher).follow(ended));
                Ok(DockerTask {
                    api: api.clone(),
                    plan: plan.clone(),
                    watcher,
                    pause,
                    lines,
                    tasks: tasks.clone(),
                    directory: None,
                    serving: Mutex::default(),
                    _follows: keep,
                })
            }
            Err(e) => {
                if !adopted && let Err(more) = remove_all(api, plan).await {
                    tracing::warn!(task = %plan.id, cause = %more, "not everything of the task could be taken down");
                }
                Err(e)
            }
        }
    }

    /// Lets containers ask: those that share a network from the beginning, also those that an earlier agent started.
    pub(super) async fn serve(&mut self, directory: Option<&Arc<Directory>>) {
        self.directory = directory.filter(|_| wants_endpoints(&self.plan)).cloned();
        if self.pause.is_some() {
            self.serve_network(PAUSE).await;
            return;
        }
        for container in &self.plan.containers {
            if self.watcher.known(&container.definition.name).is_some_and(|c| c.status == Status::Running) {
                self.serve_network(&container.definition.name).await;
            }
        }
    }

    /// Opens the endpoints in the network of a container.
    async fn serve_network(&self, name: &str) {
        let Some(directory) = &self.directory else { return };
        let Some(pid) = self.network_pid(name).await else { return };
        match endpoints::namespace::serve_in(pid, directory).await {
            Ok(serving) => {
                // Nothing can leave the map half-changed.
                let mut all = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert(name.to_owned(), serving);
            }
            Err(e) => tracing::warn!(
                task = %self.plan.id, container = name, cause = %e, "the container finds no task metadata and no credentials"
            ),
        }
    }

    fn id(&self, name: &str) -> Result<String, Failure> {
        self.watcher
            .known(name)
            .map(|c| c.id)
            .ok_or_else(|| Failure::new("NoSuchContainerError", format!("container {name} was never made")))
    }

    fn plan(&self, name: &str) -> Option<&ContainerPlan> {
        self.plan.containers.iter().find(|c| c.definition.name == name)
    }

    /// A process of the container's network, for who opens listeners in it: the container's own, or the pause container's.
    pub async fn network_pid(&self, name: &str) -> Option<i32> {
        let joined = network::Network::of(&self.plan, self.pause.as_deref()).is_joined();
        match (&self.pause, joined) {
            (Some(pause), true) => {
                let found = self.api.inspect(pause).await.ok()?;
                i32::try_from(found.state?.pid?).ok().filter(|pid| *pid > 0)
            }
            _ => self.watcher.known(name)?.pid,
        }
    }

    /// Docker takes longer to start the next container than a router takes to listen, but not always: the driver discards
    /// what it has not sent when its container ends, so the next one waits.
    async fn router_listens(&self, name: &str) {
        let run = self.plan(name).and_then(|r| r.binds.iter().find(|(_, target, _)| target == "/var/run"));
        let Some((dir, ..)) = run else { return };
        let ended = || self.watcher.known(name).is_none_or(|c| c.status == Status::Exited);
        firelens::listens(&Path::new(dir).join("fluent.sock"), ended).await;
    }

    /// Lines of containers whose logs docker keeps.
    fn follow(&self, name: &str, id: &str) {
        let Some(lines) = self.lines.clone() else { return };
        let driver = self.plan(name).map(|c| c.log_driver.as_str());
        let terminal = self.plan(name).is_some_and(|c| c.definition.pseudo_terminal);
        if matches!(driver, Some("json-file" | "local" | "journald")) && !terminal {
            let run = self.watcher.known(name).filter(|c| c.starts > 1).and_then(|c| c.started).unwrap_or(0);
            let since = i32::try_from(run / 1000).unwrap_or(0);
            let follow = lines::follow(self.api.clone(), name.to_owned(), id.to_owned(), since, lines);
            self.tasks.spawn(format!("logs-{name}"), follow);
        }
    }
}

/// It was told of ECS's own address, and not of one of the machine.
fn wants_endpoints(plan: &TaskPlan) -> bool {
    let own = Base::link_local();
    plan.containers.iter().any(|c| !c.endpoint_id.is_empty() && own.is_told(&c.environment))
}

/// Volumes, and the pause container. Gives its id.
async fn share(api: &Api, plan: &TaskPlan, pause: Option<String>) -> Result<Option<String>, Failure> {
    mounts::make(api, plan).await?;
    let Some(body) = network::pause(plan) else { return Ok(None) };
    let id = match pause {
        Some(id) => id,
        None => {
            images::pause(api).await?;
            let digits: String = crate::agent::planning::hex(20);
            let name = format!("ecs-{}-{}-internalecspause-{digits}", plan.family, plan.revision);
            api.create(&name, body).await?.0
        }
    };
    api.start(&id).await?;
    Ok(Some(id))
}

/// Containers, then the volumes that they had.
async fn remove_all(api: &Api, plan: &TaskPlan) -> Result<(), Failure> {
    let mut first = Ok(());
    let mut found = api.list(&label(plan)).await?;
    // Members of a network before its owner.
    let is_pause = |labels: &Option<std::collections::HashMap<String, String>>| {
        labels.iter().flatten().any(|(_, value)| value == PAUSE)
    };
    found.sort_by_key(|c| is_pause(&c.labels));
    for id in found.into_iter().filter_map(|c| c.id) {
        if let Err(e) = remove(api, &id).await {
            first = first.and(Err(e));
        }
    }
    for name in api.volumes(&label(plan)).await? {
        match api.remove_volume(&name).await {
            Err(e) if e.status != Some(404) => first = first.and(Err(e.into())),
            _ => {}
        }
    }
    first
}

async fn remove(api: &Api, id: &str) -> Result<(), Failure> {
    for _ in 0..REMOVALS {
        match api.remove(id).await {
            Ok(()) => return Ok(()),
            Err(e) if e.status == Some(404) => return Ok(()),
            // Its removal is under way.
            Err(e) if e.status == Some(409) => sleep(REMOVE_AGAIN).await,
            Err(e) => return Err(e.into()),
        }
    }
    Err(Failure::new("CannotRemoveContainerError", format!("container {id} is still being removed")))
}

impl TaskHandle for DockerTask {
    async fn create(&self, container: &ContainerPlan) -> Result<Vec<String>, Failure> {
        let name = &container.definition.name;
        if self.watcher.known(name).is_some() {
            return Ok(Vec::new());
        }
        let (body, mut warnings) =
            body::body(&self.plan, container, self.pause.as_deref(), self.api.version)?;
        images::ensure(&self.api, &container.definition.image, None).await?;
        let (id, more) = self.api.create(&container.docker_name, body).await?;
        warnings.extend(more.into_iter().map(|warning| format!("container {name}: docker says: {warning}")));
        self.watcher.add(name, &id);
        self.watcher.look(name).await;
        Ok(warnings)
    }

    async fn start(&self, name: &str) -> Result<(), Failure> {
        let id = self.id(name)?;
        if self.watcher.known(name).is_some_and(|c| c.status == Status::Running) {
            return Ok(());
        }
        let started = self.api.start(&id).await;
        // Before anybody acts on it, the old state is gone.
        self.watcher.look(name).await;
        started?;
        if self.pause.is_none() {
            self.serve_network(name).await;
        }
        self.follow(name, &id);
        if self.plan.firelens.as_deref() == Some(name) {
            self.router_listens(name).await;
        }
        Ok(())
    }

    async fn stop(&self, name: &str, timeout: Duration) -> Result<(), Failure> {
        let Ok(id) = self.id(name) else { return Ok(()) };
        let stopped = self.api.stop(&id, timeout).await;
        self.watcher.look(name).await;
        match stopped {
            Err(e) if e.status == Some(404) => Ok(()),
            stopped => Ok(stopped?),
        }
    }

    async fn address(&self, name: &str) -> Option<IpAddr> {
        let joined = network::Network::of(&self.plan, self.pause.as_deref()).is_joined();
        // The address is whose the network is.
        let id = self.pause.clone().filter(|_| joined).or_else(|| self.id(name).ok())?;
        let found = self.api.inspect(&id).await.ok()?;
        let networks = found.network_settings?.networks?;
        networks.values().find_map(|n| n.ip_address.as_ref()?.parse().ok())
    }

    async fn stats(&self, name: &str) -> Option<Value> {
        self.api.stats(&self.id(name).ok()?).await
    }

    fn states(&self) -> watch::Receiver<States> {
        self.watcher.states()
    }

    async fn close(&self) -> Result<(), Failure> {
        remove_all(&self.api, &self.plan).await
    }
}
