//! Whose network a container has, and the pause container that holds what a task shares.
//!
//! Enters: a task's plan. Leaves: docker's network mode, and the body of the pause container. Can go wrong: nothing here.
//! What a pause container owns (ports, names, addresses, sysctls of the network) its members must not ask for.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding, PortMap};

use super::pause;
use crate::agent::definition::{NetworkMode, PortMapping};
use crate::agent::plan::{ContainerPlan, TaskPlan};

/// What the ECS agent calls its pause container; no container of a definition can have the name.
pub(super) const PAUSE: &str = "~internal~ecs~pause";

/// Where a container's network comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Network {
    /// Its own, or the machine's: docker's mode.
    Own(&'static str),
    /// That of another container: docker's mode.
    Joined(String),
}

impl Network {
    /// Of the task's containers. `pause`: the id of its pause container.
    pub(super) fn of(task: &TaskPlan, pause: Option<&str>) -> Network {
        match (task.network_mode, pause) {
            (NetworkMode::Awsvpc, Some(id)) => Network::Joined(format!("container:{id}")),
            (NetworkMode::Bridge | NetworkMode::Awsvpc, _) => Network::Own("bridge"),
            (NetworkMode::Host, _) => Network::Own("host"),
            (NetworkMode::None, _) => Network::Own("none"),
        }
    }

    pub(super) fn mode(&self) -> String {
        match self {
            Network::Own(mode) => (*mode).to_owned(),
            Network::Joined(mode) => mode.clone(),
        }
    }

    /// The container's ports are its own to publish.
    pub(super) fn publishes(&self) -> bool {
        *self == Network::Own("bridge")
    }

    pub(super) fn is_joined(&self) -> bool {
        matches!(self, Network::Joined(_))
    }
}

/// Sysctls of a network belong to who owns it.
pub(super) fn is_of_network(sysctl: &str) -> bool {
    sysctl.starts_with("net.")
}

/// Docker's ports for mappings. Without a port of the machine docker chooses one, or, where `only_given`, none is opened.
pub(super) fn ports(mappings: &[PortMapping], only_given: bool) -> (Vec<String>, PortMap) {
    let (mut exposed, mut bound) = (Vec::new(), PortMap::new());
    for mapping in mappings {
        let protocol = if mapping.udp { "udp" } else { "tcp" };
        for port in mapping.container_port.0..=mapping.container_port.1 {
            let key = format!("{port}/{protocol}");
            let host = mapping.host_port.filter(|port| *port > 0);
            if host.is_some() || !only_given {
                let binding = PortBinding { host_ip: None, host_port: host.map(|port| port.to_string()) };
                bound
                    .entry(key.clone())
                    .or_insert_with(|| Some(Vec::new()))
                    .get_or_insert_default()
                    .push(binding);
            }
            if !exposed.contains(&key) {
                exposed.push(key);
            }
        }
    }
    (exposed, bound)
}

/// The pause container of a task, where one is needed: all share a network (awsvpc), processes, or memory segments.
pub(super) fn pause(task: &TaskPlan) -> Option<ContainerCreateBody> {
    let shared = |mode: &Option<String>| mode.as_deref() == Some("task");
    let network = task.network_mode == NetworkMode::Awsvpc;
    if !network && !shared(&task.pid_mode) && !shared(&task.ipc_mode) {
        return None;
    }
    let all = || task.containers.iter().map(|c: &ContainerPlan| &c.definition).filter(|_| network);
    let once = |values: Vec<String>| {
        let mut seen = BTreeSet::new();
        values.into_iter().filter(|v| seen.insert(v.clone())).collect::<Vec<_>>()
    };
    let mappings: Vec<PortMapping> = all().flat_map(|d| d.port_mappings.clone()).collect();
    let (exposed, bound) = ports(&mappings, true);
    let sysctls: HashMap<String, String> =
        all().flat_map(|d| d.system_controls.clone()).filter(|(name, _)| is_of_network(name)).collect();
    let mut labels: HashMap<String, String> =
        task.containers.first().map(|c| c.labels.clone()).unwrap_or_default().into_iter().collect();
    labels.retain(|key, _| key.starts_with(super::LABELS));
    labels.insert(format!("{}container-name", super::LABELS), PAUSE.to_owned());
    Some(ContainerCreateBody {
        image: Some(format!("{}:{}", pause::REPOSITORY, pause::TAG)),
        entrypoint: Some(vec![pause::PROGRAM.to_owned()]),
        labels: Some(labels),
        exposed_ports: Some(exposed).filter(|e| !e.is_empty()),
        host_config: Some(HostConfig {
            network_mode: Some(if network { "bridge" } else { "none" }.to_owned()),
            ipc_mode: Some("shareable".to_owned()),
            port_bindings: Some(bound).filter(|b| !b.is_empty()),
            dns: some(once(all().flat_map(|d| d.dns_servers.clone()).collect())),
            dns_search: some(once(all().flat_map(|d| d.dns_search_domains.clone()).collect())),
            extra_hosts: some(once(
                all().flat_map(|d| &d.extra_hosts).map(|(n, a)| format!("{n}:{a}")).collect(),
            )),
            sysctls: Some(sysctls).filter(|s| !s.is_empty()),
            readonly_rootfs: Some(true),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

/// Nothing rather than an empty list.
pub(super) fn some(list: Vec<String>) -> Option<Vec<String>> {
    Some(list).filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_published_each_where_it_is_wanted() {
        let mapping =
            |first, last, host_port, udp| PortMapping { container_port: (first, last), host_port, udp };
        let all = [
            mapping(80, 80, Some(8080), false),
            mapping(53, 53, None, true),
            mapping(9000, 9001, Some(0), false),
        ];
        let (exposed, bound) = ports(&all, false);
        assert_eq!(exposed, ["80/tcp", "53/udp", "9000/tcp", "9001/tcp"]);
        let host = |key: &str| bound[key].as_ref().unwrap()[0].host_port.clone();
        assert_eq!((host("80/tcp"), host("53/udp"), host("9001/tcp")), (Some("8080".into()), None, None));
        let (exposed, bound) = ports(&all, true);
        assert_eq!((exposed.len(), bound.len()), (4, 1));
    }

    #[test]
    fn a_pause_container_owns_what_the_members_of_its_network_cannot_have() {
        let mut plan = ContainerPlan::default();
        plan.labels.insert("com.amazonaws.ecs.task-arn".into(), "arn".into());
        plan.labels.insert("own".into(), "label".into());
        plan.definition.dns_servers = vec!["10.0.0.2".into(), "10.0.0.2".into()];
        plan.definition.system_controls =
            vec![("net.core.somaxconn".into(), "9".into()), ("kernel.shm_rmid_forced".into(), "1".into())];
        let mut task = TaskPlan { containers: vec![plan], ..TaskPlan::default() };
        assert!(pause(&task).is_none());
        task.network_mode = NetworkMode::Awsvpc;
        let body = pause(&task).unwrap();
        let host = body.host_config.unwrap();
        assert_eq!(host.dns.unwrap(), ["10.0.0.2"]);
        assert_eq!(host.sysctls.unwrap().len(), 1);
        let labels = body.labels.unwrap();
        assert_eq!((labels.len(), labels["com.amazonaws.ecs.container-name"].as_str()), (2, PAUSE));
        assert_eq!(Network::of(&task, Some("abc")), Network::Joined("container:abc".into()));
        task.network_mode = NetworkMode::Host;
        task.pid_mode = Some("task".into());
        assert_eq!(pause(&task).unwrap().host_config.unwrap().network_mode.as_deref(), Some("none"));
    }
}
