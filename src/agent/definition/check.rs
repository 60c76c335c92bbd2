//! What must go together in a task definition.
//!
//! Enters: the containers and the task, each read. Leaves: notes. Can go wrong: nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::doubles;
use super::json::{CLIENT, Object};
use super::model::{Condition, ContainerDefinition, LaunchType, NetworkMode, TaskDefinition, VolumeKind};
use crate::agent::firelens::implicit_dependency;

/// Fargate's pairs: CPU units; least MiB, most MiB, and the step between.
const FARGATE: &[(u64, u64, u64, u64)] = &[
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];

/// CPU units of a task that is not on Fargate: an eighth to 192 vCPUs.
const CPU: std::ops::RangeInclusive<u64> = 128..=196_608;

pub(super) fn task(d: &TaskDefinition, o: &Object<'_>, containers: &str) {
    let path = |n: usize, field: &str| format!("{containers}[{n}]{field}");
    let error = |path: String, text: String| o.notes.error(CLIENT, path, text);
    let all = &d.container_definitions;
    if !all.is_empty() && !all.iter().any(|c| c.essential) {
        error(containers.to_owned(), "at least one container must be essential".to_owned());
    }
    let mut names = BTreeSet::new();
    for (n, c) in all.iter().enumerate() {
        if !c.name.is_empty() && !names.insert(c.name.as_str()) {
            error(path(n, ".name"), format!("{:?} is the name of another container, too", c.name));
        }
    }
    let mut volumes = BTreeSet::new();
    for (n, v) in d.volumes.iter().enumerate() {
        if !v.name.is_empty() && !volumes.insert(v.name.as_str()) {
            error(
                format!("{}[{n}].name", o.at("volumes")),
                format!("{:?} is the name of another volume, too", v.name),
            );
        }
        if d.launch_type == LaunchType::Fargate && matches!(v.kind, VolumeKind::Host(_)) {
            let at = format!("{}[{n}].host.sourcePath", o.at("volumes"));
            error(at, "is not supported on Fargate".to_owned());
        }
    }
    if let Some(cpu) = d.cpu.filter(|cpu| d.launch_type != LaunchType::Fargate && !CPU.contains(cpu)) {
        let text = format!("must be {} to {} CPU units, not {cpu}", CPU.start(), CPU.end());
        o.notes.error(CLIENT, o.at("cpu"), text);
    }
    if d.launch_type == LaunchType::Fargate {
        fargate(d, o);
    }
    if let Some(memory) = d.memory {
        for (n, c) in all.iter().enumerate().filter(|(_, c)| c.memory.is_some_and(|m| m > memory)) {
            let text = format!("container {} has more memory than the task ({memory} MiB)", c.name);
            error(path(n, ".memory"), text);
        }
    }
    for (n, c) in all.iter().enumerate() {
        container(d, c, &|field: &str, text: String| error(path(n, field), text));
    }
    doubles::ports(d, o, containers);
    cycles(d, &|n, field, text| error(path(n, field), text));
    firelens(d, &|n: usize, field: &str, text: String| error(path(n, field), text));
}

fn fargate(d: &TaskDefinition, o: &Object<'_>) {
    if d.network_mode != NetworkMode::Awsvpc {
        o.notes.error(CLIENT, o.at("networkMode"), "Fargate only supports network mode 'awsvpc'.");
    }
    for field in ["cpu", "memory"] {
        // What is there and no size has been refused as such.
        if !o.has(field) {
            let text = format!("Fargate requires that '{field}' be defined at the task level.");
            o.notes.error(CLIENT, o.at(field), text);
        }
    }
    let good = |cpu, memory: u64| match cpu {
        256 => [512, 1024, 2048].contains(&memory),
        _ => FARGATE.iter().any(|(c, least, most, step)| {
            *c == cpu && (*least..=*most).contains(&memory) && (memory - least).is_multiple_of(*step)
        }),
    };
    if let (Some(cpu), Some(memory)) = (d.cpu, d.memory)
        && !good(cpu, memory)
    {
        let text = format!("No Fargate configuration exists for given values: {cpu} CPU, {memory} memory.");
        o.notes.error(CLIENT, o.at("memory"), text);
    }
    if d.pid_mode.as_deref() == Some("host") {
        o.notes.error(CLIENT, o.at("pidMode"), "host is not supported on Fargate");
    }
    if d.ipc_mode.is_some() {
        o.notes.error(CLIENT, o.at("ipcMode"), "is not supported on Fargate");
    }
}

fn container(d: &TaskDefinition, c: &ContainerDefinition, error: &dyn Fn(&str, String)) {
    let find = |name: &str| d.container_definitions.iter().find(|other| other.name == name);
    for (n, dependency) in c.depends_on.iter().enumerate() {
        let name = &dependency.container_name;
        let at = |field: &str| format!(".dependsOn[{n}].{field}");
        let Some(other) = find(name) else {
            error(&at("containerName"), format!("there is no container {name:?}"));
            continue;
        };
        match dependency.condition {
            Condition::Healthy if other.health_check.is_none() => {
                error(&at("condition"), format!("HEALTHY needs a healthCheck of container {name}"));
            }
            Condition::Complete | Condition::Success if other.essential => {
                let text = format!(
                    "container {name} is essential: its end is the task's, so that nothing can wait for it"
                );
                error(&at("condition"), text);
            }
            _ => {}
        }
    }
    for (n, mount) in c.mount_points.iter().enumerate() {
        if !d.volumes.iter().any(|v| v.name == mount.source_volume) {
            let text = format!("Unknown volume '{}'.", mount.source_volume);
            error(&format!(".mountPoints[{n}].sourceVolume"), text);
        }
    }
    for (n, from) in c.volumes_from.iter().enumerate() {
        if find(&from.source_container).is_none() || from.source_container == c.name {
            error(
                &format!(".volumesFrom[{n}].sourceContainer"),
                format!("there is no other container {:?}", from.source_container),
            );
        }
    }
    for (n, link) in c.links.iter().enumerate() {
        let name = link.split(':').next().unwrap_or(link);
        if d.network_mode != NetworkMode::Bridge {
            error(
                &format!(".links[{n}]"),
                format!("links are for network mode bridge, not {}", d.network_mode.name()),
            );
        } else if find(name).is_none() || name == c.name {
            error(&format!(".links[{n}]"), format!("there is no other container {name:?}"));
        }
    }
    let awsvpc = d.network_mode == NetworkMode::Awsvpc;
    for (field, set) in [("hostname", c.hostname.is_some()), ("extraHosts", !c.extra_hosts.is_empty())] {
        if awsvpc && set {
            error(&format!(".{field}"), "cannot be used with network mode awsvpc".to_owned());
        }
    }
    for (n, port) in c.port_mappings.iter().enumerate() {
        let at = format!(".portMappings[{n}].hostPort");
        match (d.network_mode, port.host_port) {
            (NetworkMode::None, _) => {
                error(&format!(".portMappings[{n}]"), "cannot be used with network mode none".to_owned());
            }
            (NetworkMode::Awsvpc | NetworkMode::Host, Some(host))
                if host != 0 && port.container_port.0 != 0 && host != port.container_port.0 =>
            {
                let text = format!(
                    "must be {}, as containerPort is, with network mode {}",
                    port.container_port.0,
                    d.network_mode.name()
                );
                error(&at, text);
            }
            (NetworkMode::Host, _) if port.container_port.0 != port.container_port.1 => {
                let text = "is for network modes bridge and awsvpc, not host".to_owned();
                error(&format!(".portMappings[{n}].containerPortRange"), text);
            }
            (_, Some(host)) if host != 0 && port.container_port.0 != port.container_port.1 => {
                error(&at, "cannot stand beside containerPortRange".to_owned());
            }
            _ => {}
        }
    }
}

/// Says it of each container that waits for itself: by dependsOn, or because what shares its volumes, what it links to and
/// its log router start before it.
fn cycles(d: &TaskDefinition, error: &dyn Fn(usize, &str, String)) {
    let all = &d.container_definitions;
    let find = |name: &str| all.iter().position(|c| c.name == name);
    // Of each container: for whom it waits, and which field says so.
    let waits: Vec<BTreeMap<usize, String>> = all
        .iter()
        .enumerate()
        .map(|(n, c)| {
            let mut found = BTreeMap::new();
            for other in c.depends_on.iter().filter_map(|d| find(&d.container_name)) {
                found.entry(other).or_insert_with(|| ".dependsOn".to_owned());
            }
            for (at, from) in c.volumes_from.iter().enumerate() {
                if let Some(other) = find(&from.source_container).filter(|other| *other != n) {
                    found.entry(other).or_insert_with(|| format!(".volumesFrom[{at}].sourceContainer"));
                }
            }
            for (at, link) in c.links.iter().enumerate() {
                if let Some(other) = find(link.split(':').next().unwrap_or(link)).filter(|other| *other != n)
                {
                    found.entry(other).or_insert_with(|| format!(".links[{at}]"));
                }
            }
            if let Some(other) = implicit_dependency(d, c).and_then(|d| find(&d.container_name)) {
                found.entry(other).or_insert_with(|| ".logConfiguration".to_owned());
            }
            found
        })
        .collect();
    let reaches = |from: usize, goal: usize| {
        let mut seen = BTreeSet::new();
        let mut todo = vec![from];
        while let Some(at) = todo.pop() {
            if at == goal {
                return true;
            }
            if seen.insert(at) {
                todo.extend(waits.get(at).into_iter().flat_map(BTreeMap::keys));
            }
        }
        false
    };
    for (n, (c, waits)) in all.iter().zip(&waits).enumerate() {
        let mut said = BTreeSet::new();
        for (other, field) in waits.iter().filter(|(other, _)| reaches(**other, n)) {
            let name = all.get(*other).map_or("", |c| c.name.as_str());
            if said.insert(field) {
                error(n, field, format!("container {} waits for itself, by way of {name}", c.name));
            }
        }
    }
}

fn firelens(d: &TaskDefinition, error: &dyn Fn(usize, &str, String)) {
    let all = &d.container_definitions;
    let routers: Vec<usize> =
        all.iter().enumerate().filter(|(_, c)| c.firelens_configuration.is_some()).map(|(n, _)| n).collect();
    for n in routers.iter().skip(1) {
        error(
            *n,
            ".firelensConfiguration",
            "a task has one log router, and another container is it".to_owned(),
        );
    }
    let kind =
        routers.first().and_then(|n| all.get(*n)?.firelens_configuration.as_ref()).map(|f| f.r#type.as_str());
    for (n, c) in all.iter().enumerate() {
        let Some(log) = c.log_configuration.as_ref().filter(|log| log.log_driver == "awsfirelens") else {
            continue;
        };
        let Some(kind) = kind else {
            let text = "When awsfirelens log driver is specified in log configuration, a firelens configuration object must be configured in one of the containers.";
            error(n, ".logConfiguration.logDriver", text.to_owned());
            continue;
        };
        // ECS registers it, and its agent then fails every task: it wants the router's address before there is a router.
        if routers.contains(&n) && d.network_mode == NetworkMode::Bridge {
            let text = "unable to get BridgeIP for task in bridge mode: the log router cannot log through itself; \
                        give it another log driver, or the task network mode awsvpc";
            error(n, ".logConfiguration.logDriver", text.to_owned());
        }
        let key = if kind == "fluentd" { "@type" } else { "Name" };
        let consumed = ["include-pattern", "exclude-pattern", "log-driver-buffer-limit"];
        let others =
            log.options.keys().any(|k| !consumed.contains(&k.as_str())) || !log.secret_options.is_empty();
        if others && !log.options.contains_key(key) {
            let text = format!(
                "missing output key {key} which is required for firelens configuration of type {kind}"
            );
            error(n, ".logConfiguration.options", text);
        }
    }
}
