//! The documents of the metadata endpoints: a container and a task, as version 4 has them and as version 3 has them.
//!
//! Enters: plan, view and states of a task. Leaves: JSON with the fields, the names and the omissions of the ECS agent.
//! Can go wrong: nothing; what is not known is left out where the agent leaves it out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::directory::Snapshot;
use crate::agent::definition::NetworkMode;
use crate::agent::engine::ContainerView;
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::process;
use crate::agent::runtime::{self, ContainerState, HealthStatus};

/// Docker gives no container less.
const CPU_MIN: u64 = 2;
/// Ranges of ports are written out, as far as this.
const PORTS_MAX: usize = 4096;

/// Of the metadata endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    V3,
    V4,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Container<'a> {
    docker_id: &'a str,
    name: &'a str,
    docker_name: &'a str,
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    desired_status: &'static str,
    known_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    limits: Limits,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Volume>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_driver: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    log_options: BTreeMap<&'a str, &'a str>,
    #[serde(rename = "ContainerARN", skip_serializing_if = "Option::is_none")]
    container_arn: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_count: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    container_port: u16,
    protocol: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    host_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_ip: Option<String>,
}

#[derive(Serialize)]
struct Limits {
    #[serde(rename = "CPU", skip_serializing_if = "Option::is_none")]
    cpu: Option<Value>,
    #[serde(rename = "Memory", skip_serializing_if = "Option::is_none")]
    memory: Option<u64>,
}

/// Alone among all of them, its names begin in lower case.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health<'a> {
    /// Nothing is said while it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    output: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    #[serde(skip_serializing_if = "String::is_empty")]
    docker_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    destination: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    network_mode: String,
    #[serde(rename = "IPv4Addresses", skip_serializing_if = "Vec::is_empty")]
    ipv4: Vec<String>,
    #[serde(rename = "IPv6Addresses", skip_serializing_if = "Vec::is_empty")]
    ipv6: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachment_index: Option<u32>,
    #[serde(rename = "MACAddress", skip_serializing_if = "String::is_empty")]
    mac: String,
    #[serde(rename = "IPv4SubnetCIDRBlock", skip_serializing_if = "String::is_empty")]
    ipv4_subnet: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domain_name_servers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domain_name_search_list: Vec<String>,
    #[serde(rename = "PrivateDNSName", skip_serializing_if = "String::is_empty")]
    private_dns_name: String,
    #[serde(rename = "SubnetGatewayIpv4Address", skip_serializing_if = "String::is_empty")]
    gateway: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Task<'a> {
    cluster: &'a str,
    #[serde(rename = "TaskARN")]
    task_arn: &'a str,
    family: &'a str,
    revision: String,
    desired_status: &'static str,
    known_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_stopped_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_stopped_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    launch_type: Option<&'static str>,
    containers: Vec<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault_injection_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_tags: Option<&'a BTreeMap<String, String>>,
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

/// As Go writes a float: 2, 0.25.
fn number(n: f64) -> Value {
    let whole = n as u64;
    if whole as f64 == n { Value::from(whole) } else { Value::from(n) }
}

/// RFC 3339 in UTC, with no more digits than it has.
fn time(millis: Option<i64>) -> Option<String> {
    let at = millis.filter(|ms| *ms > 0)?;
    jiff::Timestamp::from_millisecond(at).ok().map(|at| at.to_string())
}

/// The agent's words for what DescribeTasks calls otherwise.
fn known(last: &str) -> &'static str {
    match last {
        "CREATED" => "CREATED",
        "RUNNING" => "RUNNING",
        "STOPPED" => "STOPPED",
        _ => "NONE",
    }
}

fn desired(status: &str) -> &'static str {
    if status == "STOPPED" { "STOPPED" } else { "RUNNING" }
}

/// A container, if it has been made.
pub(super) fn container(now: &Snapshot<'_>, at: usize, version: Version) -> Option<Value> {
    document(now, at, version).and_then(|document| serde_json::to_value(document).ok())
}

/// A task, with the containers that have been made. `tags`: those of the task, too, where it has some.
pub(super) fn task(now: &Snapshot<'_>, version: Version, tags: bool) -> Option<Value> {
    let plan = now.plan;
    let containers = (0..plan.containers.len()).filter_map(|at| document(now, at, version)).collect();
    let limits = Limits { cpu: plan.cpu.map(|units| number(units as f64 / 1024.0)), memory: plan.memory };
    let v4 = version == Version::V4;
    let pulls = || now.states.containers.values().filter_map(|state| state.pulled);
    let document = Task {
        cluster: &plan.cluster,
        task_arn: &plan.arn,
        family: &plan.family,
        revision: plan.revision.to_string(),
        desired_status: desired(&now.view.desired_status),
        known_status: task_status(now),
        limits: (limits.cpu.is_some() || limits.memory.is_some()).then_some(limits),
        // From the first image to the last; absent where none was pulled.
        pull_started_at: time(pulls().map(|(from, _)| from).min()),
        pull_stopped_at: time(pulls().map(|(_, to)| to).max()),
        execution_stopped_at: time(now.view.execution_stopped_at),
        launch_type: v4.then(|| plan.launch_type.name()),
        containers,
        fault_injection_enabled: v4.then_some(false),
        task_tags: Some(&plan.tags).filter(|given| tags && !given.is_empty()),
    };
    serde_json::to_value(document).ok()
}

/// The lowest of its containers' statuses; one that has ended does not count while others run.
fn task_status(now: &Snapshot<'_>) -> &'static str {
    let all = ["NONE", "CREATED", "RUNNING", "STOPPED"];
    let rank = |c: &ContainerView| all.iter().position(|s| *s == known(&c.last_status)).unwrap_or(0);
    let lowest = now.view.containers.iter().map(rank).min().unwrap_or(0);
    all.get(lowest).copied().unwrap_or("NONE")
}

fn document<'a>(now: &Snapshot<'a>, at: usize, version: Version) -> Option<Container<'a>> {
    let (plan, d) = (now.plan.containers.get(at)?, &now.plan.containers.get(at)?.definition);
    let state = now.states.containers.get(&d.name).filter(|state| !state.id.is_empty())?;
    let view = now.view.containers.iter().find(|c| c.name == d.name);
    let v4 = version == Version::V4;
    let last = view.map_or("CREATED", |v| v.last_status.as_str());
    // The states are ahead of the view, which is made of them.
    let known_status = match (known(last), state.status) {
        ("NONE" | "CREATED", runtime::Status::Running) => "RUNNING",
        ("NONE", _) => "CREATED",
        (status, _) => status,
    };
    let (log_driver, log_options) = if v4 { log(plan) } else { (None, BTreeMap::new()) };
    Some(Container {
        docker_id: &state.id,
        name: &d.name,
        docker_name: &plan.docker_name,
        image: &d.image,
        image_id: state.made.as_ref().map_or("", |made| &made.image_id),
        ports: ports(now.plan, plan, state, v4),
        labels: &plan.labels,
        desired_status: desired(&now.view.desired_status),
        known_status,
        exit_code: view.and_then(|v| v.exit_code),
        limits: Limits {
            cpu: Some(Value::from(d.cpu.max(CPU_MIN))),
            memory: Some(d.memory.unwrap_or_default()),
        },
        created_at: time(state.created),
        started_at: time(state.started),
        finished_at: time(state.finished),
        r#type: "NORMAL",
        health: d.health_check.as_ref().map(|_| health(state)),
        volumes: volumes(now.plan, plan, state),
        log_driver,
        log_options,
        container_arn: v4.then_some(&plan.arn),
        networks: networks(now, plan, state, v4),
        restart_count: d.restart_policy.as_ref().filter(|_| v4).map(|_| view.map_or(0, |v| v.restart_count)),
    })
}

fn health(state: &ContainerState) -> Health<'_> {
    let Some(health) = &state.health else {
        return Health { status: None, status_since: None, exit_code: None, output: "" };
    };
    Health {
        status: match health.status {
            HealthStatus::Unknown => None,
            HealthStatus::Healthy => Some("HEALTHY"),
            HealthStatus::Unhealthy => Some("UNHEALTHY"),
        },
        status_since: time(Some(health.since)),
        exit_code: health.exit_code.filter(|code| *code != 0),
        output: &health.output,
    }
}

/// The driver and the options of the definition: `awsfirelens`, not what docker was told. Secrets are not among them.
/// Only the stream of `awslogs` is there as it came to be (AWS's own example shows it so).
fn log(plan: &ContainerPlan) -> (Option<&str>, BTreeMap<&str, &str>) {
    let Some(log) = &plan.definition.log_configuration else { return (None, BTreeMap::new()) };
    let mut options: BTreeMap<&str, &str> =
        log.options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    if log.log_driver == "awslogs" {
        options.remove("awslogs-stream-prefix");
        let resolved = plan.log_options.get_key_value("awslogs-stream");
        options.extend(resolved.map(|(key, value)| (key.as_str(), value.as_str())));
    }
    (Some(&log.log_driver), options)
}

fn ports(task: &TaskPlan, plan: &ContainerPlan, state: &ContainerState, v4: bool) -> Vec<Port> {
    let protocol = |udp: bool| if udp { "udp" } else { "tcp" };
    let awsvpc = task.network_mode == NetworkMode::Awsvpc;
    let made = match state.made.as_ref().filter(|made| !awsvpc || !made.ports.is_empty()) {
        Some(made) => made.ports.clone(),
        // What has the machine's own network, or one that it shares, is reached where it listens.
        None => {
            let mappings = plan.definition.port_mappings.iter();
            mappings
                .flat_map(|m| {
                    let (first, last) = m.container_port;
                    (first..=last).map(|port| runtime::Port {
                        container: port,
                        udp: m.udp,
                        host: port,
                        host_ip: String::new(),
                    })
                })
                .take(PORTS_MAX)
                .collect()
        }
    };
    made.into_iter()
        .map(|port| Port {
            container_port: port.container,
            protocol: protocol(port.udp),
            host_port: if awsvpc { port.container } else { port.host },
            host_ip: Some(port.host_ip).filter(|ip| v4 && !ip.is_empty()),
        })
        .collect()
}

fn volumes(task: &TaskPlan, plan: &ContainerPlan, state: &ContainerState) -> Vec<Volume> {
    if let Some(made) = &state.made {
        let all = made.volumes.iter().cloned();
        return all
            .map(|(docker_name, source, destination)| Volume { docker_name, source, destination })
            .collect();
    }
    let mounts = process::mounts(task, plan).into_iter();
    mounts
        .map(|(source, destination)| Volume {
            docker_name: String::new(),
            source: source.display().to_string(),
            destination: destination.display().to_string(),
        })
        .collect()
}

fn networks(now: &Snapshot<'_>, plan: &ContainerPlan, state: &ContainerState, v4: bool) -> Vec<Network> {
    let awsvpc = now.plan.network_mode == NetworkMode::Awsvpc;
    let made = match state.made.as_ref().filter(|made| !made.networks.is_empty()) {
        Some(made) => made.networks.clone(),
        None => {
            // Docker gives an empty address where a container has none of its own.
            let own = matches!(now.plan.network_mode, NetworkMode::Bridge | NetworkMode::Awsvpc);
            let address = now.addresses.get(&plan.definition.name).filter(|_| own);
            let ipv4 = vec![address.map(ToString::to_string).unwrap_or_default()];
            let mode = now.plan.network_mode.name().to_owned();
            vec![runtime::Network { mode, ipv4, ..runtime::Network::default() }]
        }
    };
    let of = |network: runtime::Network| match awsvpc && v4 {
        true => Network {
            network_mode: network.mode,
            ipv4: network.ipv4,
            ipv6: network.ipv6,
            attachment_index: Some(0),
            mac: network.mac,
            ipv4_subnet: network.ipv4_subnet,
            domain_name_servers: network.name_servers,
            domain_name_search_list: network.search,
            private_dns_name: network.private_dns_name,
            gateway: network.gateway,
        },
        false => Network {
            network_mode: network.mode,
            ipv4: network.ipv4,
            ipv6: network.ipv6,
            attachment_index: None,
            mac: String::new(),
            ipv4_subnet: String::new(),
            domain_name_servers: Vec::new(),
            domain_name_search_list: Vec::new(),
            private_dns_name: String::new(),
            gateway: String::new(),
        },
    };
    made.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests;
