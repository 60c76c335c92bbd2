//! One task of the docker runtime, as the engine of tasks sees it.
//!
//! Enters: plans of containers and what is to become of them. Leaves: containers, and their states. Can go wrong: what the
//! Docker engine says, by ECS's names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::api::Api;
use super::body::{self, Held};
use super::orphans::DIRECTORY;
use super::shared::{self, Shared};
use super::traffic::Traffic;
use super::watcher::Watcher;
use super::{DockerRuntime, images, lines};
use crate::agent::endpoints::namespace::{self, Serving};
use crate::agent::endpoints::{Base, Directory};
use crate::agent::firelens;
use crate::agent::open_files;
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::runtime::{Failure, States, Status, TaskHandle};

/// A task and the engine that runs it.
#[derive(Debug)]
pub struct DockerTask {
    runtime: DockerRuntime,
    api: Api,
    plan: TaskPlan,
    watcher: Arc<Watcher>,
    shared: Shared,
    /// What the networks of containers had carried when somebody last asked.
    traffic: Mutex<BTreeMap<String, Traffic>>,
    /// Whose network the endpoints are in now.
    serving: Mutex<BTreeMap<String, Serving>>,
    /// Dropped, it ends the watcher.
    _follows: oneshot::Sender<()>,
}

impl DockerTask {
    /// Finds what is there of a task, and makes what its containers share.
    ///
    /// # Errors
    /// What could not be made; nothing of it is left.
    pub(super) async fn open(runtime: &DockerRuntime, plan: &TaskPlan) -> Result<Self, Failure> {
        let api = &runtime.api;
        let names = plan.containers.iter().map(|c| c.definition.name.clone());
        let watcher = Watcher::new(api.clone(), shared::label(plan), names);
        let (members, mut shared) = shared::find(api, plan).await?;
        for (name, id) in &members {
            // Who pulled its image has gone, and what it knew of that.
            watcher.add(name, id, None);
            watcher.look(name).await;
        }
        if let Err(e) = shared.make(api, plan).await {
            if members.is_empty()
                && let Err(more) = shared::remove_all(api, plan).await
            {
                tracing::warn!(task = %plan.id, cause = %more, "not everything of the task could be taken down");
            }
            return Err(e);
        }
        let (keep, ended) = oneshot::channel();
        runtime.tasks.spawn(format!("docker-{}", plan.id), Arc::clone(&watcher).follow(ended));
        let (runtime, api, plan) = (runtime.clone(), api.clone(), plan.clone());
        let task = DockerTask {
            runtime,
            api,
            plan,
            watcher,
            shared,
            traffic: Mutex::default(),
            serving: Mutex::default(),
            _follows: keep,
        };
        for (name, _) in &members {
            if let Some(warning) = task.serve(name).await {
                tracing::warn!(task = %task.plan.id, "{warning}");
            }
        }
        Ok(task)
    }

    /// What containers ask, where they were told to ask at ECS's own address.
    fn directory(&self) -> Option<&Arc<Directory>> {
        let own = Base::link_local();
        let told = self.plan.containers.iter().any(|c| own.is_told(&c.environment));
        self.runtime.directory.as_ref().filter(|_| told)
    }

    fn serving(&self) -> MutexGuard<'_, BTreeMap<String, Serving>> {
        // The map is whole whenever the lock is free.
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the endpoints in a container's network. Gives a warning.
    async fn serve(&self, name: &str) -> Option<String> {
        let directory = self.directory()?;
        let owner = self.shared.network(&self.plan, name)?;
        // In awsvpc mode all have the same.
        if self.serving().contains_key(&owner) {
            return None;
        }
        let failed =
            |why: String| Some(format!("container {name} finds no task metadata and no credentials: {why}"));
        let Some(pid) = self.network_pid(name).await else {
            return failed("the holder of its network does not run".to_owned());
        };
        match namespace::serve_in(pid, directory).await {
            Ok(serving) => {
                self.serving().insert(owner, serving);
                None
            }
            Err(e) => failed(e.to_string()),
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

    /// A process of the container's network, for who opens listeners in it: of who holds it, or the container's own.
    pub async fn network_pid(&self, name: &str) -> Option<i32> {
        let Some(owner) = self.shared.network(&self.plan, name) else { return self.watcher.known(name)?.pid };
        let found = self.api.inspect(&owner).await.ok()?;
        i32::try_from(found.state?.pid?).ok().filter(|pid| *pid > 0)
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
        let Some(lines) = self.runtime.lines.clone() else { return };
        let terminal = self.plan(name).is_some_and(|c| c.definition.pseudo_terminal);
        if self.plan(name).is_some_and(is_kept) && !terminal {
            let run = self.watcher.known(name).filter(|c| c.starts > 1).and_then(|c| c.started).unwrap_or(0);
            let since = i32::try_from(run / 1000).unwrap_or(0);
            let follow = lines::follow(self.api.clone(), name.to_owned(), id.to_owned(), since, lines);
            self.runtime.tasks.spawn(format!("logs-{name}"), follow);
        }
    }
}

/// Docker keeps what the container prints, and can be asked for it.
fn is_kept(container: &ContainerPlan) -> bool {
    matches!(container.log_driver.as_str(), "json-file" | "local" | "journald")
}

impl TaskHandle for DockerTask {
    async fn create(&self, container: &ContainerPlan) -> Result<Vec<String>, Failure> {
        let name = &container.definition.name;
        if self.watcher.known(name).is_some() {
            return Ok(Vec::new());
        }
        let registry = container.registry.as_ref().map(|r| (r.username.clone(), r.password.clone()));
        let pulled = images::ensure(&self.api, &container.definition.image, registry.as_ref()).await?;
        if self.directory().is_some() {
            self.shared.hold(&self.api, &self.plan, container).await?;
        }
        let network = self.shared.network(&self.plan, name);
        let held = Held {
            network: network.as_deref(),
            task: self.shared.pause.as_deref(),
            group: self.shared.group.as_deref(),
        };
        let mut fitted = container.clone();
        let fewer = open_files::fit(self.plan.launch_type, &mut fitted.definition, self.api.files);
        let (mut body, mut warnings) = body::body(&self.plan, &fitted, held, self.api.version)?;
        if let Some(lease) = &self.runtime.lease {
            let dir = lease.dir.display().to_string();
            body.labels.get_or_insert_default().insert(DIRECTORY.to_owned(), dir);
        }
        warnings.extend(fewer);
        warnings.extend(self.shared.warning());
        warnings.extend(self.serve(name).await);
        let (id, more) = self.api.create(&container.docker_name, body).await?;
        warnings.extend(more.into_iter().map(|warning| format!("container {name}: docker says: {warning}")));
        self.watcher.add(name, &id, pulled);
        self.watcher.look(name).await;
        Ok(warnings)
    }

    async fn start(&self, name: &str) -> Result<Vec<String>, Failure> {
        let id = self.id(name)?;
        if self.watcher.known(name).is_some_and(|c| c.status == Status::Running) {
            return Ok(Vec::new());
        }
        let started = self.api.start(&id).await;
        // Before anybody acts on it, the old state is gone.
        self.watcher.look(name).await;
        started?;
        self.follow(name, &id);
        if self.plan.firelens.as_deref() == Some(name) {
            self.router_listens(name).await;
        }
        Ok(Vec::new())
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
        let owner = match self.shared.network(&self.plan, name) {
            Some(owner) => owner,
            None => self.id(name).ok()?,
        };
        let found = self.api.inspect(&owner).await.ok()?;
        let networks = found.network_settings?.networks?;
        networks.values().find_map(|n| n.ip_address.as_ref()?.parse().ok())
    }

    async fn stats(&self, name: &str) -> Option<Value> {
        let id = self.id(name).ok()?;
        let owner = self.shared.network(&self.plan, name);
        let networks = async {
            match &owner {
                Some(owner) => self.api.stats(owner).await?.get("networks").cloned(),
                None => None,
            }
        };
        let (stats, networks) = tokio::join!(self.api.stats(&id), networks);
        let mut stats = stats?;
        // Docker counts what a network carries for who owns it.
        if let Some(networks) = networks {
            stats["networks"] = networks;
        }
        let now = Traffic::of(&stats);
        // Nothing can leave the map half-changed.
        let mut before = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let before = now.and_then(|now| before.insert(name.to_owned(), now));
        if let Some(rate) = now.and_then(|now| now.since(before?)) {
            stats["network_rate_stats"] = rate;
        }
        Some(stats)
    }

    async fn last_words(&self, name: &str) -> Vec<String> {
        match self.id(name) {
            Ok(id) => lines::last(&self.api, &id).await,
            Err(_) => Vec::new(),
        }
    }

    fn states(&self) -> watch::Receiver<States> {
        self.watcher.states()
    }

    async fn close(&self) -> Result<(), Failure> {
        for container in self.plan.containers.iter().filter(|c| is_kept(c)) {
            let name = &container.definition.name;
            let Ok(id) = self.id(name) else { continue };
            let file = self.plan.dir.join("logs").join(format!("{name}-json.log"));
            if let Err(e) = lines::keep(&self.api, &id, &file).await {
                tracing::warn!(task = %self.plan.id, container = name, cause = %e, "cannot keep its log");
            }
        }
        shared::remove_all(&self.api, &self.plan).await
    }
}
