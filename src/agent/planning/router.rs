//! What the router's image would bring and do, where there is none, or another one in its place.
//!
//! Enters: a definition, and who runs it. Leaves: variables that the `init` images of aws-for-fluent-bit set, and warnings
//! about what is not there. Nothing can go wrong.

use std::path::Path;

use super::Choices;
use crate::agent::definition::{ContainerDefinition, LaunchType, TaskDefinition};
use crate::agent::firelens::{self, Source};

/// How the tags of images begin that prepare the router's configuration before they run it.
const INIT: &str = "init-";
/// Variables that name files for them.
const FILES: [&str; 2] = ["aws_fluent_bit_init_s3", "aws_fluent_bit_init_file"];

fn is_init(container: &ContainerDefinition) -> bool {
    let image = container.image.rsplit('/').next().unwrap_or_default();
    image.split_once(':').is_some_and(|(_, tag)| tag.starts_with(INIT))
}

/// What such an image finds out about its task and sets.
pub(super) fn variables(
    definition: &TaskDefinition,
    container: &ContainerDefinition,
    choices: &Choices,
) -> Vec<(String, String)> {
    if !is_init(container) {
        return Vec::new();
    }
    let launched = match definition.launch_type {
        LaunchType::Fargate => "FARGATE",
        _ => "EC2",
    };
    [
        ("AWS_REGION", choices.region.clone()),
        ("ECS_CLUSTER", choices.cluster.clone()),
        ("ECS_FAMILY", definition.family.clone()),
        ("ECS_LAUNCH_TYPE", launched.to_owned()),
        ("ECS_REVISION", definition.revision.to_string()),
        ("ECS_TASK_ARN", choices.arn("task", &choices.id)),
        ("ECS_TASK_DEFINITION", format!("{}:{}", definition.family, definition.revision)),
        ("ECS_TASK_ID", choices.id.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// What is said of the router, and of choices for containers that are not there.
pub(super) fn warnings(
    definition: &TaskDefinition,
    options: Option<&firelens::Options>,
    choices: &Choices,
) -> Vec<String> {
    let mut all = Vec::new();
    let is_there = |name: &str| definition.container_definitions.iter().any(|c| c.name == name);
    let named = [
        ("--exec", choices.exec.keys().collect::<Vec<_>>()),
        ("--image", choices.images.keys().collect()),
        ("--mount", choices.mounts.keys().collect()),
    ];
    for (flag, names) in named {
        let strangers = names.into_iter().filter(|name| !is_there(name));
        all.extend(strangers.map(|name| format!("{flag} {name}: the task definition has no such container")));
    }
    for name in choices.volumes.keys().filter(|name| !definition.volumes.iter().any(|v| v.name == **name)) {
        all.push(format!("--volume {name}: the task definition has no such volume"));
    }
    let unused = choices.meant_secrets.iter().filter(|name| !is_wanted(definition, name));
    all.extend(unused.map(|name| format!("--secret {name}: the task definition has no such secret")));
    let Some(router) = firelens::router(definition) else { return all };
    let name = &router.name;
    // With Docker its image may be the one that does it.
    if is_init(router) && (choices.process || choices.images.contains_key(name)) {
        let files = router.environment.iter().filter(|(variable, _)| {
            let variable = variable.to_ascii_lowercase();
            FILES.iter().any(|known| variable.contains(known))
        });
        all.extend(files.map(|(variable, value)| {
            format!(
                "container {name}: {variable} has no effect: firelane does not include {value} as the init images do; \
                 use config-file-type file or s3"
            )
        }));
    }
    if choices.process
        && let Some(Source::File(path)) = options.and_then(|o| o.source.as_ref())
        && !is_seen(definition, router, choices, path)
    {
        all.push(format!(
            "container {name}: {path} is in its image, and processes have none; give it with --mount {name}:{path}=FILE"
        ));
    }
    all
}

/// Whether a secret is asked for by this name, or from this place.
fn is_wanted(definition: &TaskDefinition, name: &str) -> bool {
    definition.container_definitions.iter().any(|c| {
        let options = c.log_configuration.iter().flat_map(|log| &log.secret_options);
        let mut secrets = c.secrets.iter().chain(options);
        // Who may pull an image is known by its place alone.
        secrets.any(|s| s.name == name || s.value_from == name)
            || c.repository_credentials.as_deref() == Some(name)
    })
}

/// Whether the router finds a file of its image here.
fn is_seen(definition: &TaskDefinition, router: &ContainerDefinition, choices: &Choices, path: &str) -> bool {
    let below = |folder: &str| Path::new(path).starts_with(folder);
    let mounted = choices.mounts.get(&router.name).into_iter().flatten().any(|(target, _)| below(target));
    let volume = router.mount_points.iter().any(|point| below(&point.container_path));
    let others = router.volumes_from.iter().any(|from| {
        let other = definition.container_definitions.iter().find(|c| c.name == from.source_container);
        other.is_some_and(|c| c.mount_points.iter().any(|point| below(&point.container_path)))
    });
    // What the router itself brings along.
    let own = ["/fluent-bit/configs", "/ecs", "/fluent-bit/parsers"].iter().any(|folder| below(folder));
    mounted || volume || others || own || Path::new(path).exists()
}
