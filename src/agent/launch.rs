//! One task from its plan to its end.
//!
//! Enters: what was planned, a runtime. Leaves: the view of how it ended. Can go wrong: what the runtime or the disk says;
//! then the task has failed to start, by ECS's name for it, and nothing is left behind but its logs.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::endpoints::Directory;
use super::engine::{self, View};
use super::firelens;
use super::planning::Planned;
use super::runtime::{Failure, Runtime, TaskHandle};

/// Makes what the task needs, runs it to its end and takes down what was made. `firelens_dir`: for the router's files;
/// `directory`: where the endpoints find the task. `before`: how an agent that is gone last saw it; what runs goes on, what
/// it had decided stands.
///
/// # Errors
/// It could not be begun. What happens later is in the view.
pub async fn run<R: Runtime>(
    runtime: &R,
    planned: &Planned,
    firelens_dir: &Path,
    directory: Option<&Arc<Directory>>,
    before: &View,
    stop: watch::Receiver<Option<String>>,
    mut report: impl FnMut(&View),
) -> Result<View, Failure> {
    let plan = &planned.plan;
    let opened = match configure(planned, firelens_dir, before) {
        Ok(()) => runtime.open(plan).await,
        Err(e) => Err(e),
    };
    let view = match opened {
        Ok(task) => {
            let task = Arc::new(task);
            let listed = directory.map(|directory| directory.list(plan, &task));
            let report = |view: &View| {
                if let Some(listed) = &listed {
                    listed.show(view);
                }
                report(view);
            };
            let mut view = engine::run(plan, Arc::clone(&task), before, stop, report).await;
            let bad: Vec<bool> = view.containers.iter().map(|c| view.ended_badly(c)).collect();
            for (c, _) in view.containers.iter_mut().zip(bad).filter(|(_, bad)| *bad) {
                c.last_words = task.last_words(&c.name).await;
            }
            drop(listed);
            if let Err(e) = task.close().await {
                tracing::warn!(task = %plan.id, cause = %e, "not everything of the task could be taken down");
            }
            Ok(view)
        }
        Err(e) => Err(e),
    };
    if planned.configuration.is_some()
        && let Err(e) = fs::remove_dir_all(firelens_dir)
        && e.kind() != ErrorKind::NotFound
    {
        tracing::warn!(task = %plan.id, cause = %e, "cannot remove {}", firelens_dir.display());
    }
    view
}

/// Writes the router's files, unless a router runs that has them already.
fn configure(planned: &Planned, dir: &Path, before: &View) -> Result<(), Failure> {
    let begun = before.containers.iter().any(|c| c.last_status != "PENDING");
    let Some(text) = planned.configuration.as_ref().filter(|_| !begun) else { return Ok(()) };
    let plan = &planned.plan;
    let router = plan.containers.iter().find(|c| Some(&c.definition.name) == plan.firelens.as_ref());
    let user = router.and_then(|r| r.definition.user.as_deref());
    firelens::write(dir, text, planned.external.as_deref().map(str::as_bytes), user)
        .map_err(|e| Failure::new("ResourceInitializationError", e))
}
