//! Whose network a container has, and the containers that do nothing but hold one: the pause container of a task, and in
//! bridge mode a holder for each container, where something is to listen in its network before its first instruction.
//!
//! Enters: a task's plan. Leaves: docker's network mode, and the bodies of such containers. Can go wrong: a link to nobody.
//! What the owner of a network has (ports, names, addresses, sysctls of the network) its members must not ask for.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{ContainerCreateBody, HostConfig, PortBinding, PortMap};

use super::pause;
use super::ports::contiguous;
use crate::agent::definition::{NetworkMode, PortMapping};
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::runtime::Failure;

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
    /// Of a container. `owner`: the id of who holds the network for it.
    pub(super) fn of(task: &TaskPlan, owner: Option<&str>) -> Network {
        match (task.network_mode, owner) {
            (NetworkMode::Awsvpc | NetworkMode::Bridge, Some(id)) => {
                Network::Joined(format!("container:{id}"))
            }
            (NetworkMode::Bridge | NetworkMode::Awsvpc, None) => Network::Own("bridge"),
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

/// Docker's ports for mappings. Without a port of the machine docker chooses one, and for a range we choose as many in a row;
/// where `only_given`, none is opened.
///
/// # Errors
/// `HostConfigError`
pub(super) fn ports(mappings: &[PortMapping], only_given: bool) -> Result<(Vec<String>, PortMap), Failure> {
    let (mut exposed, mut bound) = (Vec::new(), PortMap::new());
    for mapping in mappings {
        let protocol = if mapping.udp { "udp" } else { "tcp" };
        let (first, last) = mapping.container_port;
        let mut given = mapping.host_port.filter(|port| *port > 0);
        if given.is_none() && last > first && !only_given {
            let count = last - first + 1;
            let none =
                || format!("error retrieving docker port map: {count} contiguous host ports unavailable");
            let found = contiguous(count, mapping.udp).ok_or_else(none);
            given = Some(found.map_err(|text| Failure::new("HostConfigError", text))?);
        }
        for port in first..=last {
            let key = format!("{port}/{protocol}");
            let host = given.map(|host| host + (port - first));
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
    Ok((exposed, bound))
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
    // Only those that are given: nothing is looked for.
    let (exposed, bound) = ports(&mappings, true).unwrap_or_default();
    let sysctls: HashMap<String, String> =
        all().flat_map(|d| d.system_controls.clone()).filter(|(name, _)| is_of_network(name)).collect();
    let labels = task.containers.first().map(internal).unwrap_or_default();
    Some(ContainerCreateBody {
        image: Some(image()),
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

/// Whom a holder holds the network for: a label.
pub(super) const HOLDS: &str = "firelane.holds";

/// What docker calls the holder of a container.
pub(super) fn holder_name(docker_name: &str) -> String {
    format!("{docker_name}-network")
}

/// Docker's links of a container. `holders`: the others' networks belong to their holders.
///
/// # Errors
/// `CannotCreateContainerError`
pub(super) fn links(task: &TaskPlan, plan: &ContainerPlan, holders: bool) -> Result<Vec<String>, Failure> {
    let link = |link: &String| {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        let name = docker_name(task, name)?;
        Ok(format!("{}:{alias}", if holders { holder_name(name) } else { name.to_owned() }))
    };
    plan.definition.links.iter().map(link).collect()
}

/// What docker calls another container of the task.
///
/// # Errors
/// `CannotCreateContainerError`
pub(super) fn docker_name<'t>(task: &'t TaskPlan, name: &str) -> Result<&'t str, Failure> {
    let found = task.containers.iter().find(|c| c.definition.name == name).map(|c| c.docker_name.as_str());
    found.ok_or_else(|| Failure::new("CannotCreateContainerError", format!("there is no container {name}")))
}

/// The holder of a container in bridge mode.
///
/// # Errors
/// `CannotCreateContainerError`
pub(super) fn holder(task: &TaskPlan, plan: &ContainerPlan) -> Result<ContainerCreateBody, Failure> {
    let d = &plan.definition;
    let (exposed, bound) = ports(&d.port_mappings, false)?;
    let sysctls: HashMap<String, String> =
        d.system_controls.iter().filter(|(name, _)| is_of_network(name)).cloned().collect();
    let mut labels = internal(plan);
    labels.insert(HOLDS.to_owned(), d.name.clone());
    Ok(ContainerCreateBody {
        image: Some(image()),
        entrypoint: Some(vec![pause::PROGRAM.to_owned()]),
        hostname: d.hostname.clone(),
        labels: Some(labels),
        exposed_ports: some(exposed),
        host_config: Some(HostConfig {
            network_mode: Some("bridge".to_owned()),
            port_bindings: Some(bound).filter(|b| !b.is_empty()),
            dns: some(d.dns_servers.clone()),
            dns_search: some(d.dns_search_domains.clone()),
            extra_hosts: some(
                d.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect(),
            ),
            links: some(links(task, plan, true)?),
            sysctls: Some(sysctls).filter(|s| !s.is_empty()),
            readonly_rootfs: Some(true),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

fn image() -> String {
    format!("{}:{}", pause::REPOSITORY, pause::TAG)
}

/// Labels of a container that no definition has.
fn internal(plan: &ContainerPlan) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = plan.labels.clone().into_iter().collect();
    labels.retain(|key, _| key.starts_with(super::LABELS));
    labels.insert(format!("{}container-name", super::LABELS), PAUSE.to_owned());
    labels
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
        let (exposed, bound) = ports(&all, false).unwrap();
        assert_eq!(exposed, ["80/tcp", "53/udp", "9000/tcp", "9001/tcp"]);
        let host = |key: &str| bound[key].as_ref().unwrap()[0].host_port.clone();
        assert_eq!((host("80/tcp"), host("53/udp")), (Some("8080".into()), None));
        let number = |key: &str| host(key).unwrap().parse::<u16>().unwrap();
        assert_eq!(number("9001/tcp"), number("9000/tcp") + 1);
        let (exposed, bound) = ports(&all, true).unwrap();
        assert_eq!((exposed.len(), bound.len()), (4, 1));
    }

    #[test]
    fn a_holder_has_what_its_container_would_have_and_links_to_the_others_holders() {
        let named = |name: &str| {
            let mut plan = ContainerPlan { docker_name: format!("ecs-{name}"), ..ContainerPlan::default() };
            plan.definition.name = name.into();
            plan
        };
        let mut app = named("app");
        app.definition.links = vec!["db".into(), "db:backend".into()];
        app.definition.hostname = Some("shop".into());
        app.definition.port_mappings =
            vec![PortMapping { container_port: (80, 80), host_port: Some(8080), udp: false }];
        let task = TaskPlan { containers: vec![app, named("db")], ..TaskPlan::default() };
        let body = holder(&task, &task.containers[0]).unwrap();
        assert_eq!(body.labels.unwrap()[HOLDS], "app");
        assert_eq!(body.hostname.as_deref(), Some("shop"));
        let host = body.host_config.unwrap();
        assert_eq!(host.links.unwrap(), ["ecs-db-network:db", "ecs-db-network:backend"]);
        assert_eq!(host.port_bindings.unwrap().len(), 1);
        assert_eq!(links(&task, &task.containers[0], false).unwrap()[0], "ecs-db:db");
        assert_eq!(Network::of(&task, Some("abc")), Network::Joined("container:abc".into()));
        assert!(docker_name(&task, "nobody").unwrap_err().text.contains("nobody"));
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
