//! From a container's plan to docker's create body, as the ECS backend and agent make it.
//!
//! Enters: plans. Leaves: the body, and a warning for each thing that is not as on ECS. Can go wrong: a volume or a
//! container that it needs is not there.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig, ResourcesUlimits,
};

use super::mounts;
use super::network::{self, Network, some};
use crate::agent::definition::{ContainerDefinition, NetworkMode};
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::runtime::Failure;

const MIB: u64 = 1 << 20;
/// Docker's range of shares; ECS asks for the least where a definition has 0 or 1.
const SHARES: (u64, u64) = (2, 262_144);
const SECOND: u64 = 1_000_000_000;
/// Before it, docker's `fluentd` driver has `fluentd-async-connect` in place of `fluentd-async`.
const ASYNC: (u32, u32) = (20, 10);

/// Ids of containers that hold something for others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held<'h> {
    /// The container's network.
    pub(super) network: Option<&'h str>,
    /// Processes and memory segments of the task: its pause container.
    pub(super) task: Option<&'h str>,
    /// The control group above those of the task's containers: docker's `CgroupParent`.
    pub(super) group: Option<&'h str>,
}

/// What docker is asked to make. `version`: of the engine.
///
/// # Errors
/// `CannotCreateContainerError`, `InvalidVolumeError`
pub(super) fn body(
    task: &TaskPlan,
    plan: &ContainerPlan,
    held: Held<'_>,
    version: (u32, u32),
) -> Result<(ContainerCreateBody, Vec<String>), Failure> {
    let d = &plan.definition;
    let network = Network::of(task, held.network);
    let (exposed, bound) = match network.publishes() {
        true => network::ports(&d.port_mappings, false)?,
        false => (Vec::new(), HashMap::new()),
    };
    let (entrypoint, cmd) = match &plan.exec {
        Some(exec) => {
            (Some(exec.iter().take(1).cloned().collect()), Some(exec.iter().skip(1).cloned().collect()))
        }
        None => (d.entry_point.clone(), d.command.clone()),
    };
    let host = HostConfig {
        network_mode: Some(network.mode()),
        port_bindings: Some(bound).filter(|b| !b.is_empty()),
        ..host(task, plan, &network, held, version)?
    };
    let body = ContainerCreateBody {
        image: Some(d.image.clone()),
        entrypoint: entrypoint.filter(|words: &Vec<String>| !words.is_empty()),
        cmd: cmd.filter(|words: &Vec<String>| !words.is_empty()),
        env: some(plan.environment.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: d.user.clone(),
        working_dir: d.working_directory.clone(),
        hostname: d.hostname.clone().filter(|_| !network.is_joined()),
        labels: Some(plan.labels.clone().into_iter().collect()),
        exposed_ports: some(exposed),
        network_disabled: d.disable_networking.then_some(true),
        tty: d.pseudo_terminal.then_some(true),
        open_stdin: d.interactive.then_some(true),
        healthcheck: d.health_check.as_ref().map(|check| HealthConfig {
            test: Some(check.command.clone()),
            interval: nanoseconds(check.interval),
            timeout: nanoseconds(check.timeout),
            retries: i64::try_from(check.retries).ok(),
            start_period: nanoseconds(check.start_period).filter(|n| *n > 0),
            start_interval: None,
        }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    Ok((body, warnings(task, d, &network)))
}

fn host(
    task: &TaskPlan,
    plan: &ContainerPlan,
    network: &Network,
    held: Held<'_>,
    version: (u32, u32),
) -> Result<HostConfig, Failure> {
    let d = &plan.definition;
    let l = &d.linux_parameters;
    let own = !network.is_joined();
    let names = |list: &[String]| some(list.to_vec());
    let mut from = Vec::new();
    for volumes in &d.volumes_from {
        let mode = if volumes.read_only { "ro" } else { "rw" };
        from.push(format!("{}:{mode}", network::docker_name(task, &volumes.source_container)?));
    }
    let links = if own { network::links(task, plan, false)? } else { Vec::new() };
    let shared = |mode: Option<&str>| match mode {
        Some("task") => held.task.map(|id| format!("container:{id}")),
        other => other.map(str::to_owned),
    };
    let sysctls: HashMap<String, String> =
        d.system_controls.iter().filter(|(name, _)| own || !network::is_of_network(name)).cloned().collect();
    let tmpfs: HashMap<String, String> = l
        .tmpfs
        .iter()
        .map(|(path, size, options)| {
            let all: Vec<String> = options.iter().cloned().chain([format!("size={size}m")]).collect();
            (path.clone(), all.join(","))
        })
        .collect();
    let swap = l.max_swap.and_then(|swap| bytes(d.memory? + swap));
    Ok(HostConfig {
        cpu_shares: i64::try_from(d.cpu.clamp(SHARES.0, SHARES.1)).ok(),
        memory: d.memory.and_then(bytes),
        cgroup_parent: held.group.map(str::to_owned),
        memory_reservation: d.memory_reservation.and_then(bytes),
        memory_swap: swap,
        memory_swappiness: l.swappiness.filter(|_| swap.is_some()).and_then(|s| i64::try_from(s).ok()),
        binds: some(mounts::binds(task, plan)?),
        volumes_from: some(from),
        links: some(links),
        log_config: Some(log(plan, version)),
        cap_add: names(&l.add),
        cap_drop: names(&l.drop),
        dns: names(&d.dns_servers).filter(|_| own),
        dns_search: names(&d.dns_search_domains).filter(|_| own),
        extra_hosts: some(d.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect())
            .filter(|_| own),
        ipc_mode: shared(task.ipc_mode.as_deref()),
        pid_mode: shared(task.pid_mode.as_deref()),
        privileged: d.privileged.then_some(true),
        readonly_rootfs: d.readonly_root_filesystem.then_some(true),
        security_opt: names(&d.docker_security_options),
        sysctls: Some(sysctls).filter(|s| !s.is_empty()),
        tmpfs: Some(tmpfs).filter(|t| !t.is_empty()),
        shm_size: l.shared_memory_size.and_then(bytes),
        init: l.init_process_enabled.then_some(true),
        devices: Some(l.devices.iter().map(device).collect::<Vec<_>>()).filter(|devices| !devices.is_empty()),
        ulimits: Some(
            d.ulimits
                .iter()
                .map(|u| ResourcesUlimits {
                    name: Some(u.name.clone()),
                    soft: Some(u.soft_limit),
                    hard: Some(u.hard_limit),
                })
                .collect::<Vec<_>>(),
        )
        .filter(|limits| !limits.is_empty()),
        ..HostConfig::default()
    })
}

fn log(plan: &ContainerPlan, version: (u32, u32)) -> HostConfigLogConfig {
    let mut options: HashMap<String, String> = plan.log_options.clone().into_iter().collect();
    if plan.log_driver == "fluentd"
        && version < ASYNC
        && let Some(value) = options.remove("fluentd-async")
    {
        options.insert("fluentd-async-connect".to_owned(), value);
    }
    let typ = Some(plan.log_driver.clone()).filter(|driver| !driver.is_empty());
    HostConfigLogConfig { typ, config: Some(options).filter(|o| !o.is_empty()) }
}

fn device((host, container, permissions): &(String, String, String)) -> DeviceMapping {
    let or = |text: &String, other: &str| Some(if text.is_empty() { other.to_owned() } else { text.clone() });
    DeviceMapping {
        path_on_host: Some(host.clone()),
        path_in_container: or(container, host),
        cgroup_permissions: or(permissions, "rwm"),
    }
}

fn bytes(mib: u64) -> Option<i64> {
    i64::try_from(mib.checked_mul(MIB)?).ok()
}

fn nanoseconds(seconds: u64) -> Option<i64> {
    i64::try_from(seconds.checked_mul(SECOND)?).ok()
}

/// What is not as on ECS.
fn warnings(task: &TaskPlan, d: &ContainerDefinition, network: &Network) -> Vec<String> {
    let l = &d.linux_parameters;
    let mut all = Vec::new();
    let mut add = |set: bool, field: &str, why: &str| {
        if set {
            all.push(format!("container {}: {field} has no effect in the docker runtime: {why}", d.name));
        }
    };
    add(l.max_swap.is_some() && d.memory.is_none(), "linuxParameters.maxSwap", "it has no memory");
    add(l.swappiness.is_some() && l.max_swap.is_none(), "linuxParameters.swappiness", "it has no maxSwap");
    let joined = network.is_joined();
    let shared = task.network_mode == NetworkMode::Awsvpc;
    add(shared && d.hostname.is_some(), "hostname", "the containers of the task share one network");
    add(
        !joined && !network.publishes() && network.mode() == "none" && !d.port_mappings.is_empty(),
        "portMappings",
        "it has no network",
    );
    all
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
