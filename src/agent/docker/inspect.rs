//! From what the engine says of a container to its state.
//!
//! Enters: `docker inspect`, and the state before. Leaves: the state. Can go wrong: nothing; what is missing is not known.

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};
use jiff::Timestamp;

use crate::agent::runtime::{ContainerState, Health, HealthStatus, Made, Network, Port, Status};

/// Bytes of a health check's output that ECS keeps.
const OUTPUT_MAX: usize = 1024;

/// The state of a container. Each new time of a start counts as one: the engine counts only those of its own policy.
pub(super) fn state(before: &ContainerState, found: &ContainerInspectResponse) -> ContainerState {
    let now = found.state.clone().unwrap_or_default();
    let status = match now.status {
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::STOPPING,
        ) => Status::Running,
        Some(
            ContainerStateStatusEnum::EXITED
            | ContainerStateStatusEnum::DEAD
            | ContainerStateStatusEnum::REMOVING,
        ) => Status::Exited,
        _ => Status::Created,
    };
    let (started, finished) = (millis(now.started_at.as_deref()), millis(now.finished_at.as_deref()));
    let again = started.is_some() && started != before.started;
    let ended = status == Status::Exited;
    ContainerState {
        id: found.id.clone().unwrap_or_else(|| before.id.clone()),
        status,
        pid: now.pid.filter(|pid| *pid > 0 && !ended).and_then(|pid| i32::try_from(pid).ok()),
        created: millis(found.created.as_deref()),
        started,
        finished,
        exit_code: now.exit_code.filter(|_| ended).and_then(|code| i32::try_from(code).ok()),
        oom: now.oom_killed.unwrap_or(false),
        error: now.error.filter(|e| !e.is_empty()).map(|e| format!("CannotStartContainerError: {e}")),
        health: now.health.and_then(|health| self::health(before.health.as_ref(), &health)),
        starts: before.starts + u32::from(again),
        pulled: before.pulled,
        made: Some(Box::new(made(found))),
    }
}

/// What the metadata endpoint says of image, networks, ports and volumes.
fn made(found: &ContainerInspectResponse) -> Made {
    let settings = found.network_settings.as_ref();
    let networks = settings.iter().flat_map(|s| s.networks.iter().flatten());
    let mut networks: Vec<Network> = networks
        .map(|(mode, network)| Network {
            mode: mode.clone(),
            ipv4: vec![network.ip_address.clone().unwrap_or_default()],
            ipv6: network.global_ipv6_address.clone().filter(|a| !a.is_empty()).into_iter().collect(),
            ..Network::default()
        })
        .collect();
    networks.sort_by(|a, b| a.mode.cmp(&b.mode));
    let mut ports = Vec::new();
    for (inside, outside) in settings.iter().flat_map(|s| s.ports.iter().flatten()) {
        let (port, kind) = inside.split_once('/').unwrap_or((inside, "tcp"));
        let Ok(container) = port.parse() else { continue };
        ports.extend(outside.iter().flatten().map(|binding| Port {
            container,
            udp: kind == "udp",
            host: binding.host_port.as_deref().and_then(|p| p.parse().ok()).unwrap_or(0),
            host_ip: binding.host_ip.clone().unwrap_or_default(),
        }));
    }
    ports.sort_by(|a, b| (a.container, a.udp, &a.host_ip).cmp(&(b.container, b.udp, &b.host_ip)));
    let volumes = found.mounts.iter().flatten().map(|mount| {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        (text(&mount.name), text(&mount.source), text(&mount.destination))
    });
    Made { image_id: found.image.clone().unwrap_or_default(), networks, ports, volumes: volumes.collect() }
}

fn health(before: Option<&Health>, found: &bollard::models::Health) -> Option<Health> {
    let status = match found.status? {
        HealthStatusEnum::HEALTHY => HealthStatus::Healthy,
        HealthStatusEnum::UNHEALTHY => HealthStatus::Unhealthy,
        HealthStatusEnum::STARTING => HealthStatus::Unknown,
        HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => return None,
    };
    let last = found.log.iter().flatten().last();
    let same = before.filter(|b| b.status == status);
    let end = last.and_then(|check| millis(check.end.as_deref()));
    let output = last.and_then(|check| check.output.as_deref()).unwrap_or_default();
    Some(Health {
        status,
        since: same.map(|b| b.since).or(end).unwrap_or(0),
        exit_code: last
            .and_then(|c| c.exit_code)
            .filter(|code| *code != 0)
            .and_then(|c| i32::try_from(c).ok()),
        output: output.get(..output.floor_char_boundary(OUTPUT_MAX)).unwrap_or_default().to_owned(),
    })
}

/// Milliseconds since 1970; the engine's year 1 is never.
fn millis(text: Option<&str>) -> Option<i64> {
    let time: Timestamp = text?.parse().ok()?;
    Some(time.as_millisecond()).filter(|ms| *ms > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after(before: &ContainerState, found: serde_json::Value) -> ContainerState {
        state(before, &serde_json::from_value(found).unwrap())
    }

    #[test]
    fn a_container_is_made_starts_ends_and_starts_again() {
        let never = "0001-01-01T00:00:00Z";
        let made = after(
            &ContainerState::default(),
            json!({"Id": "abc", "Created": "2026-11-26T05:00:00.5Z", "State":
                {"Status": "created", "Pid": 0, "ExitCode": 0, "StartedAt": never, "FinishedAt": never, "Error": ""}}),
        );
        assert_eq!((made.status, made.starts, made.exit_code, made.pid), (Status::Created, 0, None, None));
        assert_eq!((made.created, made.started), (Some(1_795_669_200_500), None));
        let running = json!({"Id": "abc", "State":
            {"Status": "running", "Pid": 7, "ExitCode": 0, "StartedAt": "2026-11-26T05:00:01Z", "FinishedAt": never}});
        let runs = after(&made, running.clone());
        assert_eq!((runs.status, runs.starts, runs.pid, runs.exit_code), (Status::Running, 1, Some(7), None));
        assert_eq!(after(&runs, running.clone()).starts, 1);
        // The engine does not say when the image came.
        let pulled = ContainerState { pulled: Some((1, 2)), ..runs.clone() };
        assert_eq!(after(&pulled, running).pulled, Some((1, 2)));
        let ended = json!({"Id": "abc", "State": {"Status": "exited", "Pid": 0, "ExitCode": 137, "OOMKilled": true,
            "StartedAt": "2026-11-26T05:00:01Z", "FinishedAt": "2026-11-26T05:00:02Z"}});
        let ended = after(&runs, ended);
        assert_eq!(
            (ended.status, ended.exit_code, ended.oom, ended.starts),
            (Status::Exited, Some(137), true, 1)
        );
        // A short second run that nobody saw.
        let again = json!({"Id": "abc", "State": {"Status": "exited", "ExitCode": 3,
            "StartedAt": "2026-11-26T05:00:03Z", "FinishedAt": "2026-11-26T05:00:04Z"}});
        assert_eq!(after(&ended, again).starts, 2);
    }

    #[test]
    fn health_keeps_its_time_while_it_stays_and_its_output_is_cut() {
        let check = |status: &str, end: &str, code: i64| {
            json!({"Id": "a", "State": {"Status": "running", "Health": {"Status": status, "Log": [
                {"Start": end, "End": end, "ExitCode": code, "Output": "é".repeat(1000)}]}}})
        };
        let first = after(&ContainerState::default(), check("unhealthy", "2026-11-26T05:00:01Z", 1));
        let health = first.health.clone().unwrap();
        assert_eq!(
            (health.status, health.exit_code, health.output.len()),
            (HealthStatus::Unhealthy, Some(1), 1024)
        );
        let second = after(&first, check("unhealthy", "2026-11-26T05:00:09Z", 1)).health.unwrap();
        assert_eq!(second.since, health.since);
        let third = after(&first, check("healthy", "2026-11-26T05:00:09Z", 0)).health.unwrap();
        assert_eq!((third.since, third.exit_code), (health.since + 8000, None));
        let none = after(&first, check("none", "2026-11-26T05:00:09Z", 0));
        assert_eq!(none.health, None);
    }

    #[test]
    fn what_docker_made_of_image_network_ports_and_volumes_is_kept_for_the_metadata() {
        let found = json!({"Id": "a", "Image": "sha256:1",
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}, "Ports": {
                "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}, {"HostIp": "::", "HostPort": "32768"}], "80/tcp": null}},
            "Mounts": [{"Type": "volume", "Name": "v", "Source": "/var/lib/v", "Destination": "/data"}]});
        let made = after(&ContainerState::default(), found).made.unwrap();
        assert_eq!((made.image_id.as_str(), made.networks[0].mode.as_str()), ("sha256:1", "bridge"));
        assert_eq!(made.networks[0].ipv4, ["172.17.0.2"]);
        let first = Port { container: 53, udp: true, host: 32768, host_ip: "0.0.0.0".to_owned() };
        assert_eq!((made.ports.len(), &made.ports[0]), (2, &first));
        assert_eq!(made.volumes, [("v".to_owned(), "/var/lib/v".to_owned(), "/data".to_owned())]);
    }
}
