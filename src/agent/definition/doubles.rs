//! What stands twice in a task definition, where once is meant.
//!
//! Enters: the containers, each read. Leaves: notes: an error where ECS or docker refuses it, else a warning that says what
//! holds. Can go wrong: nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::json::{CLIENT, Object};
use super::model::{ContainerDefinition, NetworkMode, TaskDefinition};

/// Within one container.
pub(super) fn container(o: &Object<'_>, c: &ContainerDefinition) {
    let at = |list: &str, n: usize, field: &str| format!("{}[{n}].{field}", o.at(list));
    let mut names = BTreeSet::new();
    for (n, (name, _)) in c.environment.iter().enumerate() {
        if !name.is_empty() && !names.insert(name.as_str()) {
            let text = format!("{name:?} is the name of an earlier variable, too; the last one holds");
            o.notes.warn(at("environment", n, "name"), text);
        }
    }
    for (n, secret) in c.secrets.iter().enumerate() {
        if !secret.name.is_empty() && !names.insert(secret.name.as_str()) {
            let text = format!(
                "The secret name must be unique and not shared with any new or existing environment variables set on the \
                 container, such as '{}'.",
                secret.name
            );
            o.notes.error(CLIENT, at("secrets", n, "name"), text);
        }
    }
    let mut known = BTreeSet::new();
    for (n, dependency) in c.depends_on.iter().enumerate() {
        let name = &dependency.container_name;
        if !name.is_empty() && !known.insert(name.as_str()) {
            let text = format!(
                "container {name} stands in an earlier dependency, too; both conditions must come true"
            );
            o.notes.warn(at("dependsOn", n, "containerName"), text);
        }
    }
    // docker's words: `Duplicate mount point`.
    let tmpfs = &c.linux_parameters.tmpfs;
    let mut places = BTreeSet::new();
    let mut place = |path: &str, at: String| {
        let clean = clean(path);
        if !path.is_empty() && !places.insert(clean.clone()) {
            let text =
                format!("Duplicate mount point: {clean}; something else of this container is mounted there");
            o.notes.error(CLIENT, at, text);
        }
    };
    for (n, mount) in c.mount_points.iter().enumerate() {
        place(&mount.container_path, at("mountPoints", n, "containerPath"));
    }
    for (n, (path, ..)) in tmpfs.iter().enumerate() {
        place(path, at("linuxParameters.tmpfs", n, "containerPath"));
    }
}

/// `/a//b/` is `/a/b`.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    format!("/{}", parts.join("/"))
}

/// Ports of the machine, of all containers. Where these have networks of their own, docker cannot give a port to two of them;
/// where they share one it is for them to say who listens.
pub(super) fn ports(d: &TaskDefinition, o: &Object<'_>, containers: &str) {
    let mut taken: BTreeMap<(u16, bool), &str> = BTreeMap::new();
    for (n, c) in d.container_definitions.iter().enumerate() {
        for (m, port) in c.port_mappings.iter().enumerate() {
            let Some(host) = port.host_port.filter(|host| *host != 0) else { continue };
            let Some(other) = taken.insert((host, port.udp), &c.name) else { continue };
            let kind = if port.udp { "udp" } else { "tcp" };
            let text = format!("port {host}/{kind} is taken already, by container {other}");
            let at = format!("{containers}[{n}].portMappings[{m}].hostPort");
            match d.network_mode {
                NetworkMode::Bridge => o.notes.error(CLIENT, at, text),
                _ => o.notes.warn(at, format!("{text}: only one of them can listen there")),
            }
        }
    }
}
