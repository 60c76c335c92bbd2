//! The docker runtime against a real engine, whose socket `FIRELANE_TEST_DOCKER` names: tests/docker starts one and runs
//! these. What the command line does not show: a task that outlives its agent, restarts, health, resource use, endpoints.

use std::fs;
use std::path::Path;
use std::time::Duration;

use firelane::agent::definition::{ContainerDefinition, HealthCheck, NetworkMode, Volume, VolumeKind};
use firelane::agent::docker::{DockerRuntime, DockerTask};
use firelane::agent::endpoints::{Base, Directory};
use firelane::agent::plan::{ContainerPlan, TaskPlan};
use firelane::agent::runtime::{ContainerState, HealthStatus, Runtime, Status, TaskHandle};
use firelane::rt::Tasks;

const PATIENCE: Duration = Duration::from_secs(60);

async fn runtime() -> DockerRuntime {
    let host = std::env::var("FIRELANE_TEST_DOCKER").expect("FIRELANE_TEST_DOCKER=unix://SOCKET");
    DockerRuntime::connect(&host, &Tasks::new()).await.unwrap()
}

fn shell(name: &str, script: &str) -> ContainerPlan {
    ContainerPlan {
        definition: ContainerDefinition {
            name: name.into(),
            image: "busybox".into(),
            ..ContainerDefinition::default()
        },
        exec: Some(vec!["sh".into(), "-c".into(), script.into()]),
        log_driver: "json-file".into(),
        ..ContainerPlan::default()
    }
}

fn plan(dir: &Path, id: &str, network_mode: NetworkMode, mut containers: Vec<ContainerPlan>) -> TaskPlan {
    let id = format!("{id}{}", std::process::id());
    let arn = format!("arn:aws:ecs:us-east-1:000000000000:task/test/{id}");
    for container in &mut containers {
        let name = container.definition.name.clone();
        container.docker_name = format!("ecs-test-1-{name}-{id}");
        container.labels = [("task-arn", arn.clone()), ("container-name", name)]
            .map(|(key, value)| (format!("com.amazonaws.ecs.{key}"), value))
            .into();
    }
    let volumes = vec![Volume { name: "data".into(), kind: VolumeKind::Task }];
    TaskPlan { dir: dir.join(&id), id, arn, network_mode, volumes, containers, ..TaskPlan::default() }
}

/// Waits for a state of a container.
async fn until(task: &DockerTask, name: &str, done: impl Fn(&ContainerState) -> bool) -> ContainerState {
    let mut states = task.states();
    let waited =
        tokio::time::timeout(PATIENCE, states.wait_for(|s| s.containers.get(name).is_some_and(&done))).await;
    let states = waited.unwrap_or_else(|_| panic!("{name}: {:?}", task.states().borrow())).unwrap().clone();
    states.containers[name].clone()
}

#[tokio::test]
#[ignore = "needs a Docker engine; tests/docker runs it"]
async fn docker_runtime_finds_a_task_again_whose_agent_has_gone() {
    let runtime = runtime().await;
    let dir = tempfile::tempdir().unwrap();
    let app = shell("app", "trap 'exit 7' TERM; while :; do sleep 0.1; done");
    let plan = plan(dir.path(), "adopted", NetworkMode::Awsvpc, vec![app.clone(), shell("other", "true")]);
    let task = runtime.open(&plan).await.unwrap();
    task.create(&plan.containers[0]).await.unwrap();
    task.start("app").await.unwrap();
    let before = until(&task, "app", |s| s.pid.is_some()).await;
    let holder = task.network_pid("app").await;
    // The agent's end is nothing but this to the engine.
    drop(task);

    let task = runtime.open(&plan).await.unwrap();
    // The states are there at once: nobody may take it for a task that is to be started.
    let found = task.states().borrow().containers.get("app").cloned().unwrap();
    assert_eq!((&found.id, found.pid, found.status), (&before.id, before.pid, Status::Running));
    assert_eq!(task.network_pid("app").await, holder);
    assert!(holder.is_some() && holder != before.pid);
    // What is there already is no error.
    task.create(&plan.containers[0]).await.unwrap();
    task.start("app").await.unwrap();
    assert_eq!(until(&task, "app", |_| true).await.starts, 1);
    assert!(!task.states().borrow().containers.contains_key("other"));
    task.create(&plan.containers[1]).await.unwrap();
    task.start("other").await.unwrap();
    assert_eq!(until(&task, "other", |s| s.status == Status::Exited).await.exit_code, Some(0));
    task.stop("app", Duration::from_secs(20)).await.unwrap();
    task.stop("app", Duration::from_secs(20)).await.unwrap();
    assert_eq!(until(&task, "app", |_| true).await.exit_code, Some(7));
    task.close().await.unwrap();
    task.close().await.unwrap();
    let gone = runtime.open(&plan).await.unwrap();
    assert!(gone.states().borrow().containers.is_empty());
    gone.close().await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Docker engine; tests/docker runs it"]
async fn docker_runtime_tells_of_restarts_health_kills_and_resource_use() {
    let runtime = runtime().await;
    let dir = tempfile::tempdir().unwrap();
    let mut app = shell("app", "echo run; touch /tmp/well; while :; do sleep 0.1; done");
    app.definition.health_check = Some(HealthCheck {
        command: vec!["CMD-SHELL".into(), "echo looked; test -e /tmp/well".into()],
        interval: 1,
        timeout: 5,
        retries: 1,
        start_period: 0,
    });
    let plan =
        plan(dir.path(), "states", NetworkMode::Bridge, vec![app, shell("short", "sleep 0.2; exit 3")]);
    let task = runtime.open(&plan).await.unwrap();
    for container in &plan.containers {
        task.create(container).await.unwrap();
        assert_eq!(until(&task, &container.definition.name, |_| true).await.status, Status::Created);
    }
    task.start("app").await.unwrap();
    let healthy = |s: &ContainerState| s.health.as_ref().is_some_and(|h| h.status == HealthStatus::Healthy);
    let state = until(&task, "app", healthy).await;
    assert_eq!(state.health.unwrap().output, "looked\n");
    assert!(task.address("app").await.is_some());
    let stats = task.stats("app").await.unwrap();
    assert!(stats["memory_stats"]["usage"].as_u64().unwrap() > 0, "{stats}");
    for starts in 1..=3 {
        task.start("short").await.unwrap();
        let state = until(&task, "short", |s| s.status == Status::Exited && s.starts == starts).await;
        assert_eq!(state.exit_code, Some(3));
        // Of a program that ends at once the engine tells an end before its start: it writes the start down later.
        assert!(state.finished >= state.started && state.started >= state.created, "{state:?}");
    }
    let pid = until(&task, "app", |_| true).await.pid.unwrap();
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(until(&task, "app", |s| s.status == Status::Exited).await.exit_code, Some(137));
    task.close().await.unwrap();
    // What docker had of its output is kept.
    let log = fs::read_to_string(plan.dir.join("logs/app-json.log")).unwrap();
    assert!(log.starts_with(r#"{"log":"run\n","stream":"stdout","time":"20"#), "{log}");
}

#[tokio::test]
#[ignore = "needs a Docker engine; tests/docker runs it"]
async fn docker_runtime_serves_the_endpoints_in_each_network_before_its_container_runs() {
    let dir = tempfile::tempdir().unwrap();
    let ask = "wget -S -O - http://169.254.170.2/v4/nobody 2>&1";
    let mut a = shell("a", &format!("{ask}; hostname; cat /etc/hosts; ip addr; while :; do sleep 0.1; done"));
    a.definition.hostname = Some("shop".into());
    a.definition.links = vec!["b:backend".into()];
    a.definition.extra_hosts = vec![("peer".into(), "10.9.9.9".into())];
    let mut both = [a, shell("b", "sleep 60")];
    for container in &mut both {
        container.environment = Base::link_local().variables("id", None);
    }
    let plan = plan(dir.path(), "served", NetworkMode::Bridge, both.to_vec());
    let (tasks, runtime) = (Tasks::new(), runtime().await);
    let served = |runtime: DockerRuntime| runtime.with_endpoints(&Directory::new(&tasks));
    let task = served(runtime.clone()).open(&plan).await.unwrap();
    for at in [1, 0] {
        let warnings = task.create(&plan.containers[at]).await.unwrap();
        assert!(!warnings.iter().any(|w| w.contains("no task metadata")), "{warnings:?}");
        task.start(&plan.containers[at].definition.name).await.unwrap();
    }
    let pid = until(&task, "a", |s| s.pid.is_some()).await.pid.unwrap();
    // Each container is in the network of its own holder.
    let network = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let (of_a, of_b) = (task.network_pid("a").await.unwrap(), task.network_pid("b").await.unwrap());
    assert_eq!(network(pid), network(of_a));
    assert_ne!(network(pid), network(of_b));
    let address = task.address("a").await.unwrap().to_string();
    drop(task);

    // The next agent finds the holders again.
    let task = served(runtime).open(&plan).await.unwrap();
    assert_eq!(task.network_pid("a").await, Some(of_a));
    task.close().await.unwrap();
    let log = fs::read_to_string(plan.dir.join("logs/a-json.log")).unwrap();
    for word in ["404 Not Found", "shop", "backend", "peer", &address] {
        assert!(log.contains(word), "{word}: {log}");
    }
}
