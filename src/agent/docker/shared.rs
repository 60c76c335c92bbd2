//! What containers of a task share, and its end: volumes, the pause container, holders of networks.
//!
//! Enters: a task's plan. Leaves: what the engine has of it, found by the label with the task's ARN, or made. Can go wrong:
//! what the engine says.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::api::Api;
use super::network::{self, HOLDS, PAUSE};
use super::{LABELS, images, limits, mounts};
use crate::agent::definition::NetworkMode;
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::planning::hex;
use crate::agent::runtime::Failure;

/// A removal that another one is in the way of is tried again.
const REMOVALS: u32 = 20;
const REMOVE_AGAIN: Duration = Duration::from_millis(250);

/// Ids of the containers that no definition has.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The pause container.
    pub(super) pause: Option<String>,
    /// Holders, by the names of those whose network they hold.
    holders: Mutex<BTreeMap<String, String>>,
    /// The control group above those of the containers.
    pub(super) group: Option<String>,
    /// What could not be made, for the first who asks.
    warning: Mutex<Option<String>>,
}

/// What all of a task's containers and volumes bear.
pub(super) fn label(plan: &TaskPlan) -> String {
    format!("{LABELS}task-arn={}", plan.arn)
}

/// What the engine has of a task: names and ids of its containers, and those that hold something for them.
pub(super) async fn find(api: &Api, plan: &TaskPlan) -> Result<(Vec<(String, String)>, Shared), Failure> {
    let (mut members, mut shared) = (Vec::new(), Shared::default());
    for container in api.list(&label(plan)).await? {
        let (Some(id), Some(labels)) = (container.id, container.labels) else { continue };
        let name = labels.get(&format!("{LABELS}container-name"));
        match (name, labels.get(HOLDS)) {
            (Some(name), Some(whom)) if name == PAUSE => {
                shared.holders().insert(whom.clone(), id);
            }
            (Some(name), None) if name == PAUSE => shared.pause = Some(id),
            (Some(name), _) if plan.containers.iter().any(|c| c.definition.name == *name) => {
                members.push((name.clone(), id));
            }
            _ => {}
        }
    }
    Ok((members, shared))
}

impl Shared {
    fn holders(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // The map is whole whenever the lock is free.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not as on ECS with what containers share; once.
    pub(super) fn warning(&self) -> Option<String> {
        self.warning.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes what is missing: volumes, a control group, and the pause container where one is needed.
    pub(super) async fn make(&mut self, api: &Api, plan: &TaskPlan) -> Result<(), Failure> {
        mounts::make(api, plan).await?;
        match limits::make(api, plan).await {
            Ok(group) => self.group = group,
            Err(warning) => self.warning = Mutex::new(Some(warning)),
        }
        let Some(body) = network::pause(plan) else { return Ok(()) };
        let id = match &self.pause {
            Some(id) => id.clone(),
            None => {
                images::pause(api).await?;
                let name = format!("ecs-{}-{}-internalecspause-{}", plan.family, plan.revision, hex(20));
                api.create(&name, body).await?.0
            }
        };
        api.start(&id).await?;
        self.pause = Some(id);
        Ok(())
    }

    /// Makes the holder of a container's network, where it would have one of its own.
    pub(super) async fn hold(
        &self,
        api: &Api,
        plan: &TaskPlan,
        container: &ContainerPlan,
    ) -> Result<(), Failure> {
        let d = &container.definition;
        if plan.network_mode != NetworkMode::Bridge || d.disable_networking {
            return Ok(());
        }
        let known = self.holders().get(&d.name).cloned();
        let id = match known {
            Some(id) => id,
            None => {
                images::pause(api).await?;
                let name = network::holder_name(&container.docker_name);
                let id = api.create(&name, network::holder(plan, container)?).await?.0;
                self.holders().insert(d.name.clone(), id.clone());
                id
            }
        };
        Ok(api.start(&id).await?)
    }

    /// Who holds a container's network for it.
    pub(super) fn network(&self, plan: &TaskPlan, name: &str) -> Option<String> {
        match plan.network_mode {
            NetworkMode::Awsvpc => self.pause.clone(),
            _ => self.holders().get(name).cloned(),
        }
    }
}

/// Containers, then the volumes that they had.
pub(super) async fn remove_all(api: &Api, plan: &TaskPlan) -> Result<(), Failure> {
    let mut first = Ok(());
    let mut found = api.list(&label(plan)).await?;
    // Members of a network before its owner.
    let owns =
        |labels: &Option<HashMap<String, String>>| labels.iter().flatten().any(|(_, value)| value == PAUSE);
    found.sort_by_key(|c| owns(&c.labels));
    for id in found.into_iter().filter_map(|c| c.id) {
        if let Err(e) = remove(api, &id).await {
            first = first.and(Err(e));
        }
    }
    limits::remove(plan);
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
