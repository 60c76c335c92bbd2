//! The memory that the containers of a task have together, as the ECS agent gives it: a control group above theirs.
//!
//! Enters: a task's plan. Leaves: the group that docker is to put containers into. Can go wrong: the engine leaves groups to
//! systemd, or the machine does not let us; then only containers with a memory of their own have a limit, with a warning.

use std::fs;
use std::path::Path;

use super::api::Api;
use crate::agent::plan::TaskPlan;
use crate::agent::process::cgroup::{Group, Limits, ROOT};

const MIB: u64 = 1 << 20;

fn name(task: &TaskPlan) -> String {
    format!("firelane/{}", task.id)
}

/// Makes the group, where the task has a memory. It may be there. Gives docker's `CgroupParent`.
///
/// # Errors
/// A warning.
pub(super) async fn make(api: &Api, task: &TaskPlan) -> Result<Option<String>, String> {
    let Some(memory) = task.memory else { return Ok(None) };
    let cannot = |why: &str| format!("the task's memory is no limit for its containers together: {why}");
    if !api.has_plain_groups().await {
        return Err(cannot("the Docker engine leaves control groups to systemd"));
    }
    let limits = Limits { memory: Some(memory.saturating_mul(MIB)), ..Limits::default() };
    Group::make(Path::new(ROOT), &name(task), limits).map_err(|e| cannot(&e))?;
    Ok(Some(format!("/{}", name(task))))
}

/// Removes the group in all hierarchies: docker has made it in those that we have not.
pub(super) fn remove(task: &TaskPlan) {
    if task.memory.is_none() {
        return;
    }
    let hierarchies = fs::read_dir(ROOT).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for hierarchy in hierarchies.chain([ROOT.into()]) {
        // What is not there, or is not empty, stays as it is.
        let _stays = fs::remove_dir(hierarchy.join(name(task)));
    }
}
