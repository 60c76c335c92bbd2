//! The memory and the CPU time that the containers of a task have together, as the ECS agent gives them: a control group
//! above theirs.
//!
//! Enters: a task's plan. Leaves: the group that docker is to put containers into. Can go wrong: the engine leaves groups to
//! systemd, or the machine does not let us; then only what containers have of their own is a limit, with a warning.

use std::fs;
use std::path::Path;

use super::api::Api;
use crate::agent::plan::TaskPlan;
use crate::agent::process::cgroup::{Group, Limits, ROOT};

const MIB: u64 = 1 << 20;

fn is_limited(task: &TaskPlan) -> bool {
    task.memory.is_some() || task.cpu.is_some_and(|units| units > 0)
}

fn name(task: &TaskPlan) -> String {
    format!("firelane/{}", task.id)
}

/// Makes the group, where the task has memory or cpu. It may be there. Gives docker's `CgroupParent`.
///
/// # Errors
/// A warning.
pub(super) async fn make(api: &Api, task: &TaskPlan) -> Result<Option<String>, String> {
    if !is_limited(task) {
        return Ok(None);
    }
    let cannot =
        |why: &str| format!("the task's memory and cpu are no limits for its containers together: {why}");
    if !api.has_plain_groups().await {
        return Err(cannot("the Docker engine leaves control groups to systemd"));
    }
    let memory = task.memory.map(|mib| mib.saturating_mul(MIB));
    let limits = Limits { memory, cpu: task.cpu.filter(|units| *units > 0), ..Limits::default() };
    Group::make(Path::new(ROOT), &name(task), limits).map_err(|e| cannot(&e))?;
    Ok(Some(format!("/{}", name(task))))
}

/// Removes the group in all hierarchies: docker has made it in those that we have not.
pub(super) fn remove(task: &TaskPlan) {
    if !is_limited(task) {
        return;
    }
    let hierarchies = fs::read_dir(ROOT).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    for hierarchy in hierarchies.chain([ROOT.into()]) {
        // What is not there, or is not empty, stays as it is.
        let _stays = fs::remove_dir(hierarchy.join(name(task)));
    }
}
