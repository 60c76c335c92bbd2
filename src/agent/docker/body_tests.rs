//! One rich definition, and what docker is asked to make of it.

use serde_json::json;

use super::*;
use crate::agent::planning::{self, Choices};

const DEFINITION: &str = r#"{
  "family": "shop", "pidMode": "host",
  "volumes": [
    { "name": "data" },
    { "name": "conf", "host": { "sourcePath": "/srv/conf" } },
    { "name": "common", "dockerVolumeConfiguration": { "scope": "shared", "autoprovision": true } }
  ],
  "containerDefinitions": [
    {
      "name": "web", "image": "shop/web:3", "cpu": 256, "memory": 128, "memoryReservation": 64,
      "entryPoint": ["/bin/web"], "command": ["--port", "80"],
      "environment": [{ "name": "MODE", "value": "a=b" }],
      "user": "1000:1000", "workingDirectory": "/srv", "hostname": "web", "links": ["db:database"],
      "portMappings": [
        { "containerPort": 80, "hostPort": 8080 },
        { "containerPort": 53, "protocol": "udp" },
        { "containerPortRange": "9000-9001" }
      ],
      "mountPoints": [
        { "sourceVolume": "data", "containerPath": "/data" },
        { "sourceVolume": "conf", "containerPath": "/etc/web", "readOnly": true },
        { "sourceVolume": "common", "containerPath": "/common" }
      ],
      "volumesFrom": [{ "sourceContainer": "db", "readOnly": true }],
      "ulimits": [{ "name": "nofile", "softLimit": 1024, "hardLimit": 4096 }],
      "linuxParameters": {
        "capabilities": { "add": ["SYS_PTRACE"], "drop": ["MKNOD"] },
        "devices": [{ "hostPath": "/dev/null", "permissions": ["read", "write"] }],
        "initProcessEnabled": true, "sharedMemorySize": 32, "maxSwap": 64, "swappiness": 10,
        "tmpfs": [{ "containerPath": "/run", "size": 16, "mountOptions": ["noexec"] }]
      },
      "dnsServers": ["10.0.0.2"], "dnsSearchDomains": ["shop.local"],
      "extraHosts": [{ "hostname": "peer", "ipAddress": "10.0.0.9" }],
      "dockerSecurityOptions": ["no-new-privileges"],
      "systemControls": [{ "namespace": "net.core.somaxconn", "value": "1024" }],
      "readonlyRootFilesystem": true, "interactive": true, "pseudoTerminal": true,
      "dockerLabels": { "team": "shop" },
      "healthCheck": { "command": ["CMD-SHELL", "true"] },
      "logConfiguration": { "logDriver": "awsfirelens", "options": { "Name": "null", "log-driver-buffer-limit": "9" } }
    },
    { "name": "db", "image": "db", "memory": 64, "essential": false },
    { "name": "router", "image": "firelane", "memory": 64, "firelensConfiguration": { "type": "fluentbit" } }
  ]
}"#;

fn planned(definition: &str) -> TaskPlan {
    let definition = crate::agent::definition::read(definition.as_bytes()).unwrap().definition;
    let choices = Choices {
        id: "0123456789abcdef0123456789abcdef".into(),
        cluster: "shop".into(),
        region: "eu-west-1".into(),
        account: "111122223333".into(),
        data: "/var/lib/f".into(),
        ..Choices::default()
    };
    let mut plan = planning::plan(&definition, &choices).unwrap().plan;
    for container in &mut plan.containers {
        // The rest of the name is chance.
        container.docker_name = format!("ecs-shop-1-{}-0", container.definition.name);
    }
    plan
}

#[test]
fn every_field_of_a_definition_reaches_docker_as_the_ecs_agent_sends_it() {
    let plan = planned(DEFINITION);
    let (body, warnings) = body(&plan, &plan.containers[0], Held::default(), (20, 10)).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let port = |host: Option<&str>| host.map_or(json!([{}]), |port| json!([{ "HostPort": port }]));
    let log = json!({
        "Type": "fluentd",
        "Config": {
            "tag": "web-firelens-0123456789abcdef0123456789abcdef",
            "fluentd-address": "unix:///var/lib/f/firelens/0123456789abcdef0123456789abcdef/socket/fluent.sock",
            "fluentd-async": "true",
            "fluentd-sub-second-precision": "true",
            "fluentd-buffer-limit": "9",
        },
    });
    let host = json!({
        "NetworkMode": "bridge",
        "PidMode": "host",
        "CpuShares": 256,
        "Memory": 134_217_728,
        "MemoryReservation": 67_108_864,
        "MemorySwap": 201_326_592,
        "MemorySwappiness": 10,
        "Binds": [
            "ecs-shop-1-data-0123456789abcdef:/data:rw", "/srv/conf:/etc/web:ro", "common:/common:rw",
        ],
        "VolumesFrom": ["ecs-shop-1-db-0:ro"],
        "Links": ["ecs-shop-1-db-0:database"],
        "PortBindings": {
            "80/tcp": port(Some("8080")), "53/udp": port(None), "9000/tcp": port(None), "9001/tcp": port(None),
        },
        "Ulimits": [{ "Name": "nofile", "Soft": 1024, "Hard": 4096 }],
        "CapAdd": ["SYS_PTRACE"],
        "CapDrop": ["MKNOD"],
        "Devices": [{ "PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "rw" }],
        "Init": true,
        "ShmSize": 33_554_432,
        "Tmpfs": { "/run": "noexec,size=16m" },
        "Dns": ["10.0.0.2"],
        "DnsSearch": ["shop.local"],
        "ExtraHosts": ["peer:10.0.0.9"],
        "SecurityOpt": ["no-new-privileges"],
        "Sysctls": { "net.core.somaxconn": "1024" },
        "ReadonlyRootfs": true,
        "LogConfig": log,
    });
    let want = json!({
        "Image": "shop/web:3",
        "Entrypoint": ["/bin/web"],
        "Cmd": ["--port", "80"],
        "Env": ["AWS_EXECUTION_ENV=AWS_ECS_EC2", "MODE=a=b"],
        "User": "1000:1000",
        "WorkingDir": "/srv",
        "Hostname": "web",
        "Tty": true,
        "OpenStdin": true,
        "Labels": {
            "team": "shop",
            "com.amazonaws.ecs.cluster": "shop",
            "com.amazonaws.ecs.container-name": "web",
            "com.amazonaws.ecs.task-arn":
                "arn:aws:ecs:eu-west-1:111122223333:task/shop/0123456789abcdef0123456789abcdef",
            "com.amazonaws.ecs.task-definition-family": "shop",
            "com.amazonaws.ecs.task-definition-version": "1",
        },
        "ExposedPorts": { "80/tcp": {}, "53/udp": {}, "9000/tcp": {}, "9001/tcp": {} },
        "Healthcheck": {
            "Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000_u64, "Timeout": 5_000_000_000_u64, "Retries": 3,
        },
        "HostConfig": host,
    });
    let mut got = serde_json::to_value(&body).unwrap();
    // Of a range: two in a row, wherever they are.
    let bindings = &mut got["HostConfig"]["PortBindings"];
    let mut chosen = ["9000/tcp", "9001/tcp"].map(|key| {
        let host = bindings[key][0]["HostPort"].take();
        bindings[key][0].as_object_mut().unwrap().remove("HostPort");
        host.as_str().unwrap().parse::<u16>().unwrap()
    });
    chosen[0] += 1;
    assert_eq!(chosen[0], chosen[1]);
    for (key, want) in want["HostConfig"].as_object().unwrap() {
        assert_eq!(&got["HostConfig"][key], want, "HostConfig.{key}");
    }
    assert_eq!(got, want);
}

#[test]
fn a_container_that_says_nothing_has_the_least_of_shares_and_docker_s_own_rest() {
    let plan = planned(DEFINITION);
    let (body, _) = body(&plan, &plan.containers[1], Held::default(), (20, 10)).unwrap();
    let got = serde_json::to_value(&body).unwrap();
    assert_eq!(got["HostConfig"]["CpuShares"], 2);
    assert_eq!(got["HostConfig"]["LogConfig"], json!({ "Type": "json-file" }));
    let keys: Vec<_> = got.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["Env", "HostConfig", "Image", "Labels"]);
}

#[test]
fn the_router_sees_its_configuration_and_the_directory_of_its_socket() {
    let plan = planned(DEFINITION);
    let (body, _) = body(&plan, &plan.containers[2], Held::default(), (20, 10)).unwrap();
    let dir = "/var/lib/f/firelens/0123456789abcdef0123456789abcdef";
    assert_eq!(
        body.host_config.unwrap().binds.unwrap(),
        [
            format!("{dir}/config/fluent.conf:/fluent-bit/etc/fluent-bit.conf:rw"),
            format!("{dir}/socket:/var/run:rw")
        ]
    );
}

#[test]
fn an_engine_before_20_10_has_the_older_name_of_the_async_option() {
    let plan = planned(DEFINITION);
    let (body, _) = body(&plan, &plan.containers[0], Held::default(), (19, 3)).unwrap();
    let options = body.host_config.unwrap().log_config.unwrap().config.unwrap();
    assert!(options.contains_key("fluentd-async-connect") && !options.contains_key("fluentd-async"));
}

#[test]
fn members_of_a_shared_network_ask_for_nothing_that_its_owner_has() {
    let mut plan = planned(DEFINITION);
    plan.network_mode = crate::agent::definition::NetworkMode::Awsvpc;
    (plan.pid_mode, plan.ipc_mode) = (Some("task".into()), Some("none".into()));
    let (body, warnings) = body(
        &plan,
        &plan.containers[0],
        Held { network: Some("abc"), task: Some("abc"), group: Some("/firelane/id") },
        (20, 10),
    )
    .unwrap();
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode.as_deref(), Some("container:abc"));
    assert_eq!(host.cgroup_parent.as_deref(), Some("/firelane/id"));
    assert_eq!((host.pid_mode.as_deref(), host.ipc_mode.as_deref()), (Some("container:abc"), Some("none")));
    assert!(
        host.dns.is_none() && host.dns_search.is_none() && host.extra_hosts.is_none() && host.links.is_none()
    );
    assert!(host.port_bindings.is_none() && host.sysctls.is_none() && body.hostname.is_none());
    assert!(warnings.iter().any(|w| w.contains("hostname")), "{warnings:?}");
}

#[test]
fn what_has_no_effect_is_said() {
    let mut plan = planned(DEFINITION);
    let d = &mut plan.containers[0].definition;
    d.memory = None;
    let (body, warnings) = body(&plan, &plan.containers[0], Held::default(), (20, 10)).unwrap();
    assert!(body.host_config.unwrap().memory_swappiness.is_none());
    assert!(warnings.iter().any(|w| w.contains("maxSwap")), "{warnings:?}");
}
