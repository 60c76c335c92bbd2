//! Whole documents, against the ECS agent's field lists.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::*;
use crate::agent::definition::{
    ContainerDefinition, HealthCheck, LogConfiguration, PortMapping, RestartPolicy, Secret,
};
use crate::agent::engine::View;
use crate::agent::runtime::{Made, States, Status};

const ARN: &str = "arn:aws:ecs:eu-west-1:111122223333:task/default/0f1e";

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn plan() -> TaskPlan {
    let web = ContainerDefinition {
        name: "web".to_owned(),
        image: "busybox:1".to_owned(),
        cpu: 10,
        memory: Some(128),
        health_check: Some(HealthCheck::default()),
        restart_policy: Some(RestartPolicy::default()),
        port_mappings: vec![PortMapping { container_port: (8080, 8081), ..PortMapping::default() }],
        log_configuration: Some(LogConfiguration {
            log_driver: "awsfirelens".to_owned(),
            options: map(&[("Name", "stdout")]),
            secret_options: vec![Secret { name: "apikey".to_owned(), value_from: "x".to_owned() }],
        }),
        ..ContainerDefinition::default()
    };
    let web = ContainerPlan {
        definition: web,
        arn: "arn:aws:ecs:eu-west-1:111122223333:container/default/0f1e/u".to_owned(),
        docker_name: "ecs-shop-7-web-aa".to_owned(),
        labels: map(&[("com.amazonaws.ecs.cluster", "default")]),
        log_driver: "fluentd".to_owned(),
        log_options: map(&[("fluentd-address", "unix:///s"), ("apikey", "secret")]),
        binds: vec![("/host".into(), "/inside".to_owned(), true)],
        ..ContainerPlan::default()
    };
    let mut later = web.clone();
    later.definition.name = "later".to_owned();
    TaskPlan {
        arn: ARN.to_owned(),
        cluster: "default".to_owned(),
        family: "shop".to_owned(),
        revision: 7,
        cpu: Some(256),
        memory: Some(512),
        containers: vec![web, later],
        ..TaskPlan::default()
    }
}

fn running() -> ContainerState {
    ContainerState {
        id: "ab12".to_owned(),
        status: Status::Running,
        created: Some(1_600_000_000_000),
        started: Some(1_600_000_000_250),
        ..ContainerState::default()
    }
}

/// The task's documents, with this of `web`, and nothing yet of `later`.
fn documents(plan: &TaskPlan, state: ContainerState, version: Version) -> (Value, Value) {
    let states = States { containers: [("web".to_owned(), state)].into(), gone: false };
    let view = View {
        last_status: "RUNNING".to_owned(),
        desired_status: "RUNNING".to_owned(),
        containers: vec![ContainerView {
            name: "web".to_owned(),
            last_status: "RUNNING".to_owned(),
            restart_count: 2,
            ..ContainerView::default()
        }],
        ..View::default()
    };
    let addresses = [("web".to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST))].into();
    let now = Snapshot { plan, view: &view, states: &states, addresses: &addresses };
    assert_eq!(container(&now, 1, version), None);
    (container(&now, 0, version).unwrap(), task(&now, version, false).unwrap())
}

fn golden_v4() -> Value {
    json!({
        "DockerId": "ab12", "Name": "web", "DockerName": "ecs-shop-7-web-aa", "Image": "busybox:1", "ImageID": "",
        "Ports": [
            {"ContainerPort": 8080, "Protocol": "tcp", "HostPort": 8080},
            {"ContainerPort": 8081, "Protocol": "tcp", "HostPort": 8081},
        ],
        "Labels": {"com.amazonaws.ecs.cluster": "default"},
        "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING",
        "Limits": {"CPU": 10, "Memory": 128},
        "CreatedAt": "2020-09-13T12:26:40Z", "StartedAt": "2020-09-13T12:26:40.25Z",
        "Type": "NORMAL",
        "Health": {},
        "Volumes": [{"Source": "/host", "Destination": "/inside"}],
        "LogDriver": "awsfirelens", "LogOptions": {"Name": "stdout"},
        "ContainerARN": "arn:aws:ecs:eu-west-1:111122223333:container/default/0f1e/u",
        "Networks": [{"NetworkMode": "bridge", "IPv4Addresses": ["127.0.0.1"]}],
        "RestartCount": 2,
    })
}

fn golden_v3() -> Value {
    let mut v3 = golden_v4();
    for key in ["LogDriver", "LogOptions", "ContainerARN", "RestartCount"] {
        v3.as_object_mut().unwrap().remove(key);
    }
    v3
}

#[test]
fn a_task_whose_images_were_pulled_says_from_when_to_when() {
    let plan = plan();
    let pulled = ContainerState { pulled: Some((1_600_000_000_000, 1_600_000_001_500)), ..running() };
    let (_, task) = documents(&plan, pulled, Version::V4);
    assert_eq!(task["PullStartedAt"], "2020-09-13T12:26:40Z");
    assert_eq!(task["PullStoppedAt"], "2020-09-13T12:26:41.5Z");
    let (_, task) = documents(&plan, running(), Version::V4);
    assert!(task.get("PullStartedAt").is_none() && task.get("PullStoppedAt").is_none());
}

#[test]
fn version_4_has_all_fields_of_a_task_and_of_its_containers_that_are_there() {
    let (container, task) = documents(&plan(), running(), Version::V4);
    assert_eq!(container, golden_v4());
    let want = json!({
        "Cluster": "default", "TaskARN": ARN, "Family": "shop", "Revision": "7",
        "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING",
        "Limits": {"CPU": 0.25, "Memory": 512},
        "LaunchType": "EC2",
        "Containers": [golden_v4()],
        "FaultInjectionEnabled": false,
    });
    assert_eq!(task, want);
}

#[test]
fn version_3_lacks_what_came_later() {
    let (container, task) = documents(&plan(), running(), Version::V3);
    assert_eq!(container, golden_v3());
    let want = json!({
        "Cluster": "default", "TaskARN": ARN, "Family": "shop", "Revision": "7",
        "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING",
        "Limits": {"CPU": 0.25, "Memory": 512},
        "Containers": [golden_v3()],
    });
    assert_eq!(task, want);
}

#[test]
fn a_container_without_anything_has_what_is_always_there_and_nothing_else() {
    let mut plan = plan();
    (plan.cpu, plan.memory) = (Some(1024), None);
    plan.network_mode = NetworkMode::Host;
    plan.containers[0].definition =
        ContainerDefinition { name: "web".to_owned(), ..ContainerDefinition::default() };
    plan.containers[0].labels.clear();
    plan.containers[0].binds.clear();
    let state = ContainerState { id: "ab12".to_owned(), ..ContainerState::default() };
    let (container, task) = documents(&plan, state, Version::V4);
    let want = json!({
        "DockerId": "ab12", "Name": "web", "DockerName": "ecs-shop-7-web-aa", "Image": "", "ImageID": "",
        "DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Limits": {"CPU": 2, "Memory": 0}, "Type": "NORMAL",
        "ContainerARN": "arn:aws:ecs:eu-west-1:111122223333:container/default/0f1e/u",
        "Networks": [{"NetworkMode": "host", "IPv4Addresses": [""]}],
    });
    assert_eq!(container, want);
    assert_eq!(task["Limits"], json!({"CPU": 1}));
}

#[test]
fn what_the_runtime_made_is_shown_and_health_is_in_lower_camel_case() {
    let network = runtime::Network {
        mode: "awsvpc".to_owned(),
        ipv4: vec!["172.17.0.2".to_owned()],
        mac: "02:42:ac:11:00:02".to_owned(),
        ipv4_subnet: "172.17.0.0/16".to_owned(),
        gateway: "172.17.0.1/16".to_owned(),
        ..runtime::Network::default()
    };
    let made = Made {
        image_id: "sha256:1".to_owned(),
        networks: vec![network],
        ports: vec![runtime::Port { container: 53, udp: true, host: 9, host_ip: "0.0.0.0".to_owned() }],
        volumes: vec![("v".to_owned(), "/s".to_owned(), "/d".to_owned())],
    };
    let health = runtime::Health {
        status: HealthStatus::Unhealthy,
        since: 1_600_000_000_000,
        exit_code: Some(1),
        output: "no".to_owned(),
    };
    let state = ContainerState { made: Some(Box::new(made)), health: Some(health), ..running() };
    let mut plan = plan();
    plan.network_mode = NetworkMode::Awsvpc;
    let (v4, _) = documents(&plan, state.clone(), Version::V4);
    assert_eq!(v4["ImageID"], "sha256:1");
    let port = json!([{"ContainerPort": 53, "Protocol": "udp", "HostPort": 53, "HostIp": "0.0.0.0"}]);
    assert_eq!(v4["Ports"], port);
    assert_eq!(v4["Volumes"], json!([{"DockerName": "v", "Source": "/s", "Destination": "/d"}]));
    let network = json!([{
        "NetworkMode": "awsvpc", "IPv4Addresses": ["172.17.0.2"], "AttachmentIndex": 0, "MACAddress": "02:42:ac:11:00:02",
        "IPv4SubnetCIDRBlock": "172.17.0.0/16", "SubnetGatewayIpv4Address": "172.17.0.1/16",
    }]);
    assert_eq!(v4["Networks"], network);
    let health =
        json!({"status": "UNHEALTHY", "statusSince": "2020-09-13T12:26:40Z", "exitCode": 1, "output": "no"});
    assert_eq!(v4["Health"], health);
    let (v3, _) = documents(&plan, state, Version::V3);
    assert_eq!(v3["Networks"], json!([{"NetworkMode": "awsvpc", "IPv4Addresses": ["172.17.0.2"]}]));
    assert_eq!(v3["Ports"], json!([{"ContainerPort": 53, "Protocol": "udp", "HostPort": 53}]));
}

#[test]
fn awslogs_shows_the_stream_that_came_of_its_prefix() {
    let mut plan = plan();
    let log = plan.containers[0].definition.log_configuration.as_mut().unwrap();
    log.log_driver = "awslogs".to_owned();
    log.options = map(&[("awslogs-group", "/g"), ("awslogs-stream-prefix", "p")]);
    plan.containers[0].log_options =
        map(&[("awslogs-group", "/g"), ("awslogs-stream", "p/web/0f1e"), ("mode", "x")]);
    let (v4, _) = documents(&plan, running(), Version::V4);
    assert_eq!(v4["LogDriver"], "awslogs");
    assert_eq!(v4["LogOptions"], json!({"awslogs-group": "/g", "awslogs-stream": "p/web/0f1e"}));
}
