//! The fields of one container.
//!
//! Enters: an object of `containerDefinitions`. Leaves: a container with its defaults. Can go wrong: what ECS refuses in one
//! container; what concerns several is checked beside this.

use std::net::IpAddr;

use super::json::{CLIENT, Object};
use super::model::{
    Condition, ContainerDefinition, Dependency, HealthCheck, LaunchType, LinuxParameters, MountPoint,
    PortMapping, RestartPolicy, Secret, Ulimit, VolumeFrom,
};
use super::read::{check_name, is_placeholder, required};
use super::{doubles, extras, logs};
use crate::config::nearest;

const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
/// Those of Linux, and all of them.
const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
/// Characters of an image's name.
const IMAGE_MAX: usize = 255;
/// Port ranges of one container.
const RANGES_MAX: usize = 100;
/// Environment files of one container.
const FILES_MAX: usize = 10;
/// Any whole number from 0 on.
const COUNT: std::ops::RangeInclusive<i64> = 0..=i64::MAX;

/// `own_memory`: it needs memory of its own, because the task has none for it.
pub(super) fn read(o: Object<'_>, launch: LaunchType, own_memory: bool) -> ContainerDefinition {
    let fargate = launch == LaunchType::Fargate;
    let mut c = ContainerDefinition { name: required(&o, "name"), image: image(&o), ..Default::default() };
    check_name(&o, "name", &c.name);
    if c.image.chars().count() > IMAGE_MAX {
        let text = format!("must have at most {IMAGE_MAX} characters, not {}", c.image.chars().count());
        o.notes.error(CLIENT, o.at("image"), text);
    }
    c.essential = o.boolean("essential", true);
    c.cpu = o.unsigned("cpu", 0..=262_144).unwrap_or(0);
    c.memory = o.unsigned("memory", COUNT).filter(|m| *m > 0);
    if c.memory.is_some_and(|m| m < 6) {
        o.notes.error(CLIENT, o.at("memory"), "must be at least 6 MiB, which Docker asks for");
    }
    c.memory_reservation = o.unsigned("memoryReservation", COUNT).filter(|m| *m > 0);
    // What is no size has been refused as such: it is not missing, too.
    let given = |name| o.get(name).is_some_and(|value| value.as_u64() != Some(0));
    if own_memory && !given("memory") && !given("memoryReservation") {
        let text = format!(
            "Invalid setting for container '{}'. At least one of 'memory' or 'memoryReservation' must be specified.",
            c.name
        );
        o.notes.error(CLIENT, o.path.clone(), text);
    }
    if let (Some(limit), Some(soft)) = (c.memory, c.memory_reservation)
        && limit <= soft
    {
        let text = format!("must be more than memoryReservation ({soft}), not {limit}");
        o.notes.error(CLIENT, o.at("memory"), text);
    }
    c.entry_point = o.strings("entryPoint");
    c.command = o.strings("command");
    c.environment = pairs(&o, "environment", "name", "value");
    c.environment_files = environment_files(&o);
    c.secrets = secrets(&o, "secrets");
    c.repository_credentials = o.object("repositoryCredentials").map(|registry| {
        let secret = required(&registry, "credentialsParameter");
        registry.finish();
        secret
    });
    c.port_mappings = ports(&o);
    c.mount_points = o.objects("mountPoints").into_iter().map(mount_point).collect();
    c.volumes_from = o.objects("volumesFrom").into_iter().map(volume_from).collect();
    c.links = o.strings("links").unwrap_or_default();
    if let Some(linux) = o.object("linuxParameters") {
        c.linux_parameters = self::linux(linux, fargate);
    }
    c.depends_on = o.objects("dependsOn").into_iter().map(dependency).collect();
    let timeout = |name| o.unsigned(name, if fargate { 2..=120 } else { COUNT }).filter(|n| *n > 0);
    (c.start_timeout, c.stop_timeout) = (timeout("startTimeout"), timeout("stopTimeout"));
    c.health_check = o.object("healthCheck").map(health_check);
    c.ulimits = o.objects("ulimits").into_iter().map(ulimit).collect();
    c.user = o.string("user").filter(|s| !s.is_empty());
    c.working_directory = o.string("workingDirectory").filter(|s| !s.is_empty());
    c.hostname = o.string("hostname").filter(|s| !s.is_empty());
    c.readonly_root_filesystem = o.boolean("readonlyRootFilesystem", false);
    c.privileged = o.boolean("privileged", false);
    c.disable_networking = o.boolean("disableNetworking", false);
    c.interactive = o.boolean("interactive", false);
    c.pseudo_terminal = o.boolean("pseudoTerminal", false);
    c.docker_labels = o.map("dockerLabels");
    c.dns_servers = o.strings("dnsServers").unwrap_or_default();
    c.dns_search_domains = o.strings("dnsSearchDomains").unwrap_or_default();
    c.extra_hosts = o.objects("extraHosts").into_iter().map(extra_host).collect();
    c.docker_security_options = o.strings("dockerSecurityOptions").unwrap_or_default();
    security_options(&o, &c.docker_security_options);
    c.system_controls = pairs(&o, "systemControls", "namespace", "value");
    c.restart_policy = o.object("restartPolicy").and_then(restart_policy);
    c.log_configuration = o.object("logConfiguration").map(|log| logs::log_configuration(log, fargate));
    c.firelens_configuration = o.object("firelensConfiguration").map(|f| logs::firelens(f, fargate));
    if c.firelens_configuration.is_some() {
        logs::router_user(&o, c.user.as_deref());
    }
    extras::resources(&o, fargate);
    doubles::container(&o, &c);
    o.cannot(&[
        ("credentialSpecs", "there is no Active Directory"),
        ("versionConsistency", "an image is what its name stands for when the task starts"),
    ]);
    if fargate {
        for (field, set) in [
            ("privileged", c.privileged),
            ("links", !c.links.is_empty()),
            ("disableNetworking", c.disable_networking),
            ("dockerSecurityOptions", !c.docker_security_options.is_empty()),
            ("extraHosts", !c.extra_hosts.is_empty()),
            ("dnsServers", !c.dns_servers.is_empty()),
        ] {
            if set {
                o.notes.error(CLIENT, o.at(field), "is not supported on Fargate");
            }
        }
    }
    o.finish();
    c
}

fn image(o: &Object<'_>) -> String {
    let image = o.string("image");
    if image.as_ref().map_or(!o.has("image"), String::is_empty) {
        o.notes.error(CLIENT, o.at("image"), "Container.image should not be null or empty.");
    }
    image.unwrap_or_default()
}

/// docker takes an address, or what stands for the machine's own.
fn extra_host(o: Object<'_>) -> (String, String) {
    let (name, address) = (required(&o, "hostname"), required(&o, "ipAddress"));
    let good = address == "host-gateway" || address.parse::<IpAddr>().is_ok();
    if !address.is_empty() && !good && !is_placeholder(&address) {
        let text = format!("must be an IP address, or host-gateway, not {address:?}");
        o.notes.error(CLIENT, o.at("ipAddress"), text);
    }
    o.finish();
    (name, address)
}

/// docker refuses another: `mount path must be absolute`.
fn absolute(o: &Object<'_>, field: &str, path: &str) {
    if !path.is_empty() && !path.starts_with('/') && !is_placeholder(path) {
        o.notes.error(CLIENT, o.at(field), format!("must be an absolute path, not {path:?}"));
    }
}

fn pairs(
    o: &Object<'_>,
    list: &'static str,
    name: &'static str,
    value: &'static str,
) -> Vec<(String, String)> {
    let pair = |p: Object<'_>| {
        let found = (required(&p, name), p.string(value).unwrap_or_default());
        p.finish();
        found
    };
    o.objects(list).into_iter().map(pair).collect()
}

fn environment_files(o: &Object<'_>) -> Vec<String> {
    let list = o.objects("environmentFiles");
    if list.len() > FILES_MAX {
        let text = format!("has at most {FILES_MAX} files, not {}", list.len());
        o.notes.error(CLIENT, o.at("environmentFiles"), text);
    }
    let file = |f: Object<'_>| {
        let value = required(&f, "value");
        if !f.has("type") {
            f.notes.error(CLIENT, f.at("type"), "must be given: s3");
        }
        f.one_of("type", &["s3"]);
        if !value.is_empty() && !is_placeholder(&value) {
            let at = f.at("value");
            if !logs::is_object(&value) {
                let text = format!("must be the ARN of an S3 object: arn:aws:s3:::bucket/key, not {value:?}");
                f.notes.error(CLIENT, at, text);
            } else if !value.ends_with(".env") {
                f.notes.error(CLIENT, at, format!("{value:?} must end with .env"));
            }
        }
        f.finish();
        value
    };
    list.into_iter().map(file).collect()
}

/// What ECS passes on to docker.
fn security_options(o: &Object<'_>, all: &[String]) {
    for (n, option) in all.iter().enumerate() {
        let known = option == "no-new-privileges"
            || ["apparmor:", "label:", "credentialspec:"]
                .iter()
                .any(|kind| option.strip_prefix(kind).is_some_and(|value| !value.is_empty()));
        let at = format!("{}[{n}]", o.at("dockerSecurityOptions"));
        if !known && !is_placeholder(option) {
            let text = format!(
                "must be no-new-privileges, apparmor:PROFILE, label:VALUE or credentialspec:FILE, not {option:?}"
            );
            o.notes.error(CLIENT, at, text);
        } else if option.starts_with("credentialspec:") {
            o.notes.warn(at, "has no effect on one machine: there is no Active Directory");
        }
    }
}

pub(super) fn secrets(o: &Object<'_>, list: &'static str) -> Vec<Secret> {
    let secret = |s: Object<'_>| {
        let found = Secret { name: required(&s, "name"), value_from: required(&s, "valueFrom") };
        s.finish();
        found
    };
    o.objects(list).into_iter().map(secret).collect()
}

fn ports(o: &Object<'_>) -> Vec<PortMapping> {
    let list = o.objects("portMappings");
    let ranges = list.iter().filter(|p| p.has("containerPortRange")).count();
    if ranges > RANGES_MAX {
        let text = format!("has at most {RANGES_MAX} port ranges, not {ranges}");
        o.notes.error(CLIENT, o.at("portMappings"), text);
    }
    list.into_iter().map(port).collect()
}

/// A port; 0 where it is none, so that those after it keep their places.
fn port(o: Object<'_>) -> PortMapping {
    let port = |name| o.unsigned(name, 0..=65_535).and_then(|p| u16::try_from(p).ok());
    let (inside, outside) = (port("containerPort"), port("hostPort"));
    let range = o.string("containerPortRange");
    let udp = o.one_of("protocol", &["tcp", "udp"]) == Some("udp");
    if let Some(name) = o.string("name") {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.len() > 64 || !name.chars().all(good) {
            let text = "must be at most 64 lowercase letters, numbers, underscores, and hyphens";
            o.notes.error(CLIENT, o.at("name"), text);
        }
    }
    o.one_of("appProtocol", &["http", "http2", "grpc"]);
    let why = "there is no Service Connect";
    o.cannot(&[("name", why), ("appProtocol", why)]);
    let container_port = match (inside, &range) {
        (Some(_), Some(_)) => {
            o.notes.error(CLIENT, o.at("containerPortRange"), "cannot stand beside containerPort");
            None
        }
        (Some(0), None) | (None, None) => {
            o.notes.error(CLIENT, o.at("containerPort"), "must be 1 to 65535");
            None
        }
        (Some(port), None) => Some((port, port)),
        (None, Some(range)) => {
            let bounds = range.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            let bounds = bounds.filter(|(a, b): &(u16, u16)| *a > 0 && a <= b);
            if bounds.is_none() {
                o.notes.error(
                    CLIENT,
                    o.at("containerPortRange"),
                    format!("must be FIRST-LAST, not {range:?}"),
                );
            }
            bounds
        }
    };
    o.finish();
    PortMapping { container_port: container_port.unwrap_or_default(), host_port: outside, udp }
}

fn mount_point(o: Object<'_>) -> MountPoint {
    let found = MountPoint {
        source_volume: required(&o, "sourceVolume"),
        container_path: required(&o, "containerPath"),
        read_only: o.boolean("readOnly", false),
    };
    absolute(&o, "containerPath", &found.container_path);
    o.finish();
    found
}

fn volume_from(o: Object<'_>) -> VolumeFrom {
    let found = VolumeFrom {
        source_container: required(&o, "sourceContainer"),
        read_only: o.boolean("readOnly", false),
    };
    o.finish();
    found
}

fn linux(o: Object<'_>, fargate: bool) -> LinuxParameters {
    let mut l = LinuxParameters::default();
    if let Some(c) = o.object("capabilities") {
        (l.add, l.drop) = (c.strings("add").unwrap_or_default(), c.strings("drop").unwrap_or_default());
        for (list, names) in [("add", &l.add), ("drop", &l.drop)] {
            capabilities(&c, list, names);
        }
        if fargate && l.add.iter().any(|name| name != "SYS_PTRACE") {
            c.notes.error(CLIENT, c.at("add"), "on Fargate only SYS_PTRACE can be added");
        }
        c.finish();
    }
    for d in o.objects("devices") {
        let host = required(&d, "hostPath");
        let inside = d.string("containerPath").unwrap_or_else(|| host.clone());
        let letter = |p: &String| match p.as_str() {
            "read" => "r",
            "write" => "w",
            "mknod" => "m",
            other => {
                let text = format!("must be read, write or mknod, not {other:?}");
                d.notes.error(CLIENT, d.at("permissions"), text);
                ""
            }
        };
        let rights =
            d.strings("permissions").map_or("rwm".to_owned(), |all| all.iter().map(letter).collect());
        l.devices.push((host, inside, rights));
        d.finish();
    }
    l.init_process_enabled = o.boolean("initProcessEnabled", false);
    l.max_swap = o.unsigned("maxSwap", COUNT);
    l.swappiness = o.unsigned("swappiness", 0..=100);
    l.shared_memory_size = o.unsigned("sharedMemorySize", COUNT).filter(|n| *n > 0);
    for t in o.objects("tmpfs") {
        let path = required(&t, "containerPath");
        absolute(&t, "containerPath", &path);
        if !t.has("size") {
            t.notes.error(CLIENT, t.at("size"), "must be given");
        }
        l.tmpfs.push((
            path,
            t.unsigned("size", 1..=i64::MAX).unwrap_or(1),
            t.strings("mountOptions").unwrap_or_default(),
        ));
        t.finish();
    }
    if fargate {
        let set = [
            ("devices", !l.devices.is_empty()),
            ("maxSwap", l.max_swap.is_some()),
            ("swappiness", l.swappiness.is_some()),
            ("sharedMemorySize", l.shared_memory_size.is_some()),
            ("tmpfs", !l.tmpfs.is_empty()),
        ];
        for (field, _) in set.into_iter().filter(|(_, set)| *set) {
            o.notes.error(CLIENT, o.at(field), "is not supported on Fargate");
        }
    }
    o.finish();
    l
}

/// docker takes them in either case, and with `CAP_` before them.
fn capabilities(o: &Object<'_>, list: &str, names: &[String]) {
    for (n, name) in names.iter().enumerate() {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if !CAPABILITIES.contains(&short) && !is_placeholder(name) {
            let near = nearest(short, CAPABILITIES.iter().copied());
            let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            let text = format!("there is no capability {name:?}{hint}");
            o.notes.error(CLIENT, format!("{}[{n}]", o.at(list)), text);
        }
    }
}

/// A dependency; one without a condition is checked as if it had the weakest.
fn dependency(o: Object<'_>) -> Dependency {
    let container_name = required(&o, "containerName");
    if !o.has("condition") {
        o.notes.error(CLIENT, o.at("condition"), "must be given");
    }
    let condition = match o.one_of("condition", &["START", "COMPLETE", "SUCCESS", "HEALTHY"]) {
        Some("COMPLETE") => Condition::Complete,
        Some("SUCCESS") => Condition::Success,
        Some("HEALTHY") => Condition::Healthy,
        _ => Condition::Start,
    };
    o.finish();
    Dependency { container_name, condition }
}

fn health_check(o: Object<'_>) -> HealthCheck {
    let h = HealthCheck {
        command: o.strings("command").unwrap_or_default(),
        interval: o.unsigned("interval", 5..=300).unwrap_or(30),
        timeout: o.unsigned("timeout", 2..=60).unwrap_or(5),
        retries: o.unsigned("retries", 1..=10).unwrap_or(3),
        start_period: o.unsigned("startPeriod", 0..=300).unwrap_or(0),
    };
    match h.command.first().map(String::as_str) {
        Some("CMD" | "CMD-SHELL") if h.command.len() > 1 => {}
        Some("CMD" | "CMD-SHELL") => {
            o.notes.error(CLIENT, o.at("command"), "has no command after its first word")
        }
        _ => o.notes.error(CLIENT, o.at("command"), "must begin with CMD or CMD-SHELL"),
    }
    o.finish();
    h
}

fn ulimit(o: Object<'_>) -> Ulimit {
    let limit = |name| {
        if !o.has(name) {
            o.notes.error(CLIENT, o.at(name), "must be given");
        }
        o.integer(name, -1..=i64::MAX).unwrap_or(-1)
    };
    let name = o.one_of("name", ULIMITS).unwrap_or_default().to_owned();
    let u = Ulimit { name, soft_limit: limit("softLimit"), hard_limit: limit("hardLimit") };
    if u.hard_limit >= 0 && (u.soft_limit > u.hard_limit || u.soft_limit < 0) {
        o.notes.error(CLIENT, o.at("softLimit"), format!("must be at most hardLimit ({})", u.hard_limit));
    }
    o.finish();
    u
}

fn restart_policy(o: Object<'_>) -> Option<RestartPolicy> {
    if !o.has("enabled") {
        o.notes.error(CLIENT, o.at("enabled"), "must be given");
    }
    let enabled = o.boolean("enabled", false);
    let codes = o.list("ignoredExitCodes");
    if codes.len() > 50 {
        o.notes.error(CLIENT, o.at("ignoredExitCodes"), format!("has at most 50 codes, not {}", codes.len()));
    }
    let code = |(path, value): (String, &serde_json::Value)| {
        if value.as_i64().is_none() {
            o.notes.error(CLIENT, path, format!("must be a whole number, not {value}"));
        }
        value.as_i64()
    };
    let policy = RestartPolicy {
        ignored_exit_codes: codes.into_iter().filter_map(code).collect(),
        restart_attempt_period: o.unsigned("restartAttemptPeriod", 60..=1800).unwrap_or(300),
    };
    o.finish();
    enabled.then_some(policy)
}
