//! Volumes of a task, and where its containers see them.
//!
//! Enters: a task's plan. Leaves: the volumes that docker is to make, and docker's binds. Can go wrong: a volume that is
//! not there and that nobody may make; by ECS's name for it.

use std::collections::HashMap;

use bollard::models::VolumeCreateRequest;

use super::api::Api;
use crate::agent::definition::{Volume, VolumeKind};
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::runtime::Failure;

/// Digits of the task's id in the name of a volume.
const ID: usize = 16;

/// What docker calls a volume, or the path of this machine.
fn source(task: &TaskPlan, volume: &Volume) -> Result<String, Failure> {
    match &volume.kind {
        VolumeKind::Host(path) => Ok(path.clone()),
        VolumeKind::Docker { shared: true, .. } => Ok(volume.name.clone()),
        VolumeKind::Task | VolumeKind::Docker { .. } => {
            let id = task.id.get(..ID).unwrap_or(&task.id);
            Ok(format!("ecs-{}-{}-{}-{id}", task.family, task.revision, volume.name))
        }
        VolumeKind::Elsewhere(what) => {
            let name = &volume.name;
            let text =
                format!("volume {name} is {what}, which is not on this machine; say --volume {name}=PATH");
            Err(Failure::new("InvalidVolumeError", text))
        }
    }
}

/// A volume that docker makes.
#[derive(Debug, PartialEq)]
struct Wanted {
    request: VolumeCreateRequest,
    /// It outlives the task, and may be there.
    shared: bool,
    /// It may be made.
    made: bool,
}

fn wanted(task: &TaskPlan, volume: &Volume) -> Result<Option<Wanted>, Failure> {
    let mut request =
        VolumeCreateRequest { name: Some(source(task, volume)?), ..VolumeCreateRequest::default() };
    let own = || HashMap::from([(format!("{}task-arn", super::LABELS), task.arn.clone())]);
    let (shared, made) = match &volume.kind {
        VolumeKind::Host(_) | VolumeKind::Elsewhere(_) => return Ok(None),
        VolumeKind::Task => {
            request.labels = Some(own());
            (false, true)
        }
        VolumeKind::Docker { shared, autoprovision, driver, driver_opts, labels } => {
            request.driver.clone_from(driver);
            request.driver_opts =
                Some(driver_opts.clone().into_iter().collect()).filter(|o: &HashMap<_, _>| !o.is_empty());
            let mut all: HashMap<String, String> = labels.clone().into_iter().collect();
            if !shared {
                all.extend(own());
            }
            request.labels = Some(all);
            (*shared, !shared || *autoprovision)
        }
    };
    Ok(Some(Wanted { request, shared, made }))
}

/// Makes what is missing.
///
/// # Errors
/// `InvalidVolumeError`
pub(super) async fn make(api: &Api, task: &TaskPlan) -> Result<(), Failure> {
    for volume in &task.volumes {
        let Some(Wanted { request, shared, made }) = wanted(task, volume)? else { continue };
        let name = request.name.clone().unwrap_or_default();
        if shared && api.has_volume(&name).await? {
            continue;
        }
        if !made {
            let text = format!(
                "there is no docker volume {name}, and its autoprovision is false; make it with docker volume create"
            );
            return Err(Failure::new("InvalidVolumeError", text));
        }
        api.create_volume(request).await?;
    }
    Ok(())
}

/// Docker's binds for a container: volumes first, then files and directories of the plan, which win.
///
/// # Errors
/// `CannotCreateContainerError`, `InvalidVolumeError`
pub(super) fn binds(task: &TaskPlan, plan: &ContainerPlan) -> Result<Vec<String>, Failure> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |source: String, target: &str, read_only: bool| {
        let target = target.trim_end_matches('/');
        all.retain(|(other, _)| other != target);
        let mode = if read_only { "ro" } else { "rw" };
        all.push((
            target.to_owned(),
            format!("{source}:{}:{mode}", if target.is_empty() { "/" } else { target }),
        ));
    };
    for point in &plan.definition.mount_points {
        let volume = task.volumes.iter().find(|v| v.name == point.source_volume);
        let Some(volume) = volume else {
            let text = format!("there is no volume {}", point.source_volume);
            return Err(Failure::new("CannotCreateContainerError", text));
        };
        add(source(task, volume)?, &point.container_path, point.read_only);
    }
    for (source, target, read_only) in &plan.binds {
        add(source.to_string_lossy().into_owned(), target, *read_only);
    }
    Ok(all.into_iter().map(|(_, bind)| bind).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::definition::MountPoint;

    fn task() -> TaskPlan {
        let docker = |shared, autoprovision| VolumeKind::Docker {
            shared,
            autoprovision,
            driver: Some("local".into()),
            driver_opts: [("type".to_owned(), "tmpfs".to_owned())].into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
        };
        let volume = |name: &str, kind| Volume { name: name.into(), kind };
        TaskPlan {
            id: "0123456789abcdef0123456789abcdef".into(),
            arn: "arn".into(),
            family: "shop".into(),
            revision: 3,
            volumes: vec![
                volume("own", VolumeKind::Task),
                volume("host", VolumeKind::Host("/srv".into())),
                volume("common", docker(true, false)),
                volume("scratch", docker(false, false)),
            ],
            ..TaskPlan::default()
        }
    }

    #[test]
    fn a_volume_of_the_task_bears_its_name_and_label_and_a_shared_one_its_own() {
        let task = task();
        let all: Vec<_> = task.volumes.iter().filter_map(|v| wanted(&task, v).unwrap()).collect();
        let names: Vec<_> = all.iter().map(|w| w.request.name.as_deref().unwrap()).collect();
        assert_eq!(
            names,
            ["ecs-shop-3-own-0123456789abcdef", "common", "ecs-shop-3-scratch-0123456789abcdef"]
        );
        assert_eq!(
            all.iter().map(|w| (w.shared, w.made)).collect::<Vec<_>>(),
            [(false, true), (true, false), (false, true)]
        );
        let labels =
            all.iter().map(|w| w.request.labels.as_ref().unwrap().contains_key("com.amazonaws.ecs.task-arn"));
        assert_eq!(labels.collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(all[2].request.driver_opts.as_ref().unwrap()["type"], "tmpfs");
        let efs = Volume { name: "efs".into(), kind: VolumeKind::Elsewhere("an EFS file system".into()) };
        assert!(wanted(&task, &efs).unwrap_err().text.contains("--volume efs=PATH"));
    }

    #[test]
    fn what_the_plan_binds_wins_over_a_volume_of_the_same_place() {
        let point = |v: &str, path: &str| MountPoint {
            source_volume: v.into(),
            container_path: path.into(),
            read_only: true,
        };
        let mut plan = ContainerPlan::default();
        plan.definition.mount_points = vec![point("own", "/a"), point("host", "/b/")];
        plan.binds = vec![("/file".into(), "/b".into(), false)];
        assert_eq!(binds(&task(), &plan).unwrap(), ["ecs-shop-3-own-0123456789abcdef:/a:ro", "/file:/b:rw"]);
        plan.definition.mount_points = vec![point("none", "/a")];
        assert_eq!(binds(&task(), &plan).unwrap_err().text, "there is no volume none");
    }
}
