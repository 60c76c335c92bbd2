//! A task whose containers do what a script says, on a clock that stands still.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;

use super::*;
use crate::agent::definition::{ContainerDefinition, Dependency, HealthCheck, RestartPolicy};
use crate::agent::runtime::{ContainerState, Health, HealthStatus};
use crate::rt::Tasks;

/// What a container does once it is started.
#[derive(Clone, Default)]
struct Act {
    /// Ends by itself after so long, with this code; `None`: runs until it is stopped.
    ends: Option<(u64, i32)>,
    /// Healthy after so many seconds.
    healthy: Option<u64>,
    /// Ignores SIGTERM.
    stubborn: bool,
    /// Cannot be created.
    broken: bool,
    /// Each start warns of this.
    warns: Option<&'static str>,
    /// Has an address so many seconds after the task's begin.
    address: Option<u64>,
}

struct Fake {
    acts: BTreeMap<String, Act>,
    states: watch::Sender<States>,
    calls: Mutex<Vec<String>>,
    begun: Instant,
}

impl Fake {
    fn new(acts: &[(&str, Act)]) -> Arc<Fake> {
        let acts = acts.iter().map(|(name, act)| ((*name).to_owned(), act.clone())).collect();
        Arc::new(Fake {
            acts,
            states: watch::channel(States::default()).0,
            calls: Mutex::default(),
            begun: Instant::now(),
        })
    }

    fn note(&self, what: &str, name: &str) {
        let at = self.begun.elapsed().as_secs();
        self.calls.lock().unwrap().push(format!("{at} {what} {name}"));
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut ContainerState)) {
        self.states.send_modify(|states| change(states.containers.entry(name.to_owned()).or_default()));
    }
}

impl TaskHandle for Arc<Fake> {
    async fn create(&self, container: &ContainerPlan) -> Result<Vec<String>, Failure> {
        let name = &container.definition.name;
        let host = container.environment.iter().find(|(name, _)| name == "FLUENT_HOST");
        match host {
            Some((_, address)) => self.note(&format!("create with {address}"), name),
            None => self.note("create", name),
        }
        if self.acts.get(name).is_some_and(|act| act.broken) {
            return Err(Failure::new("CannotCreateContainerError", "no such image"));
        }
        self.change(name, |_| {});
        Ok(Vec::new())
    }

    async fn start(&self, name: &str) -> Result<Vec<String>, Failure> {
        self.note("start", name);
        let act = self.acts.get(name).cloned().unwrap_or_default();
        let mut run = 0;
        self.change(name, |state| {
            state.starts += 1;
            (state.status, state.exit_code) = (Status::Running, None);
            run = state.starts;
        });
        let (fake, name) = (Arc::clone(self), name.to_owned());
        Tasks::new().spawn("act", async move {
            if let Some(after) = act.healthy {
                sleep(Duration::from_secs(after)).await;
                let health = Health { status: HealthStatus::Healthy, ..Health::default() };
                fake.change(&name, |state| state.health = Some(health));
            }
            if let Some((after, code)) = act.ends {
                sleep(Duration::from_secs(after)).await;
                fake.change(&name, |state| {
                    if state.status == Status::Running && state.starts == run {
                        (state.status, state.exit_code) = (Status::Exited, Some(code));
                    }
                });
            }
        });
        Ok(act.warns.into_iter().map(str::to_owned).collect())
    }

    async fn stop(&self, name: &str, timeout: Duration) -> Result<(), Failure> {
        self.note("stop", name);
        let stubborn = self.acts.get(name).is_some_and(|act| act.stubborn);
        if stubborn {
            sleep(timeout).await;
        }
        self.change(name, |state| {
            if state.status == Status::Running {
                (state.status, state.exit_code) = (Status::Exited, Some(if stubborn { 137 } else { 143 }));
            }
        });
        Ok(())
    }

    async fn address(&self, name: &str) -> Option<IpAddr> {
        let after = self.acts.get(name)?.address?;
        (self.begun.elapsed() >= Duration::from_secs(after)).then(|| IpAddr::from([172, 17, 0, 2]))
    }

    async fn stats(&self, _name: &str) -> Option<serde_json::Value> {
        None
    }

    async fn last_words(&self, _name: &str) -> Vec<String> {
        Vec::new()
    }

    fn states(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    async fn close(&self) -> Result<(), Failure> {
        Ok(())
    }
}

fn container(name: &str, depends_on: &[(&str, Condition)]) -> ContainerPlan {
    let definition = ContainerDefinition { name: name.to_owned(), essential: true, ..Default::default() };
    let depends_on = depends_on
        .iter()
        .map(|(name, condition)| Dependency { container_name: (*name).to_owned(), condition: *condition })
        .collect();
    ContainerPlan { definition, depends_on, ..Default::default() }
}

fn plan(containers: Vec<ContainerPlan>) -> TaskPlan {
    TaskPlan { containers, ..Default::default() }
}

fn ends(after: u64, code: i32) -> Act {
    Act { ends: Some((after, code)), ..Act::default() }
}

async fn run_all(plan: &TaskPlan, fake: &Arc<Fake>) -> View {
    let (_keep, stop) = watch::channel(None);
    run(plan, Arc::new(Arc::clone(fake)), &View::default(), stop, |_| {}).await
}

fn code(view: &View, name: &str) -> Option<i32> {
    view.containers.iter().find(|c| c.name == name).unwrap().exit_code
}

#[tokio::test(start_paused = true)]
async fn who_logs_through_the_router_starts_after_it_and_stops_before_it() {
    let plan = plan(vec![container("app", &[("router", Condition::Start)]), container("router", &[])]);
    let fake = Fake::new(&[("app", ends(10, 3))]);
    let view = run_all(&plan, &fake).await;
    let want = ["0 create router", "0 start router", "0 create app", "0 start app", "10 stop router"];
    assert_eq!(fake.calls(), want);
    assert_eq!((code(&view, "app"), code(&view, "router")), (Some(3), Some(143)));
    assert_eq!((view.stop_code, view.exit_code()), (Some(StopCode::EssentialContainerExited), Some(3)));
    assert_eq!(view.stopped_reason.as_deref(), Some("Essential container in task exited"));
    assert_eq!((view.last_status.as_str(), view.execution_stopped_at.is_some()), ("STOPPED", true));
}

/// An app that wants the address of its router.
fn bridged(app: ContainerPlan) -> TaskPlan {
    let app = ContainerPlan { wants_router_address: true, ..app };
    TaskPlan { firelens: Some("router".to_owned()), ..plan(vec![app, container("router", &[])]) }
}

#[tokio::test(start_paused = true)]
async fn the_start_of_a_router_is_done_when_it_has_an_address_for_those_who_depend_on_it() {
    let plan = bridged(container("app", &[("router", Condition::Start)]));
    let late = Act { address: Some(40), ..Act::default() };
    let fake = Fake::new(&[("app", ends(1, 0)), ("router", late)]);
    run_all(&plan, &fake).await;
    let want = [
        "0 create router",
        "0 start router",
        "40 create with 172.17.0.2 app",
        "40 start app",
        "41 stop router",
    ];
    assert_eq!(fake.calls(), want);

    let never = Fake::new(&[]);
    let view = run_all(&plan, &never).await;
    let reason = view.containers[1].reason.clone().unwrap();
    assert!(reason.starts_with("CannotStartContainerError: Bridge IP not available"), "{reason}");
    assert_eq!(view.stop_code, Some(StopCode::EssentialContainerExited));
    assert!(!never.calls().iter().any(|c| c.contains("app")), "{:?}", never.calls());

    let ended = Fake::new(&[("router", ends(2, 9))]);
    let view = run_all(&plan, &ended).await;
    assert_eq!((code(&view, "router"), view.containers[1].reason.clone()), (Some(9), None));
    assert_eq!(ended.begun.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_wants_the_routers_address_and_does_not_wait_for_the_router_fails_at_once() {
    let mut plan = bridged(container("app", &[]));
    let fake = Fake::new(&[("router", Act { address: Some(0), ..Act::default() })]);
    let view = run_all(&plan, &fake).await;
    let reason = view.containers[0].reason.clone().unwrap();
    assert!(reason.starts_with("DockerClientConfigError: unable to get BridgeIP"), "{reason}");
    assert_eq!(view.stop_code, Some(StopCode::TaskFailedToStart));
    assert!(fake.calls().iter().all(|c| c.starts_with("0 ") && !c.contains("app")), "{:?}", fake.calls());

    // In awsvpc mode there is nothing to wait for.
    plan.network_mode = NetworkMode::Awsvpc;
    let fake = Fake::new(&[("app", ends(1, 0)), ("router", Act { address: Some(0), ..Act::default() })]);
    assert_eq!(code(&run_all(&plan, &fake).await, "app"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_conditions_is_gone_through_in_order() {
    let mut init = container("init", &[]);
    init.definition.essential = false;
    let mut migrate = container("migrate", &[("init", Condition::Complete)]);
    migrate.definition.essential = false;
    let mut db = container("db", &[("migrate", Condition::Success)]);
    db.definition.health_check = Some(HealthCheck::default());
    let plan = plan(vec![container("app", &[("db", Condition::Healthy)]), db, migrate, init]);
    let healthy = Act { healthy: Some(7), ..Act::default() };
    let fake =
        Fake::new(&[("init", ends(2, 9)), ("migrate", ends(3, 0)), ("db", healthy), ("app", ends(1, 0))]);
    let view = run_all(&plan, &fake).await;
    let starts: Vec<String> = fake.calls().into_iter().filter(|c| !c.contains("create")).collect();
    assert_eq!(starts, ["0 start init", "2 start migrate", "5 start db", "12 start app", "13 stop db"]);
    assert_eq!(view.health_status, HealthStatus::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_cannot_be_met_fails_who_waits_and_an_essential_one_the_task() {
    let mut first = container("first", &[]);
    first.definition.essential = false;
    let plan = plan(vec![first, container("app", &[("first", Condition::Success)])]);
    let fake = Fake::new(&[("first", ends(1, 5))]);
    let view = run_all(&plan, &fake).await;
    assert_eq!(view.stop_code, Some(StopCode::TaskFailedToStart));
    let reason = view.containers[1].reason.clone().unwrap();
    assert!(reason.starts_with("TaskDependencyError") && reason.contains("exited with 5"), "{reason}");
    assert!(!fake.calls().iter().any(|c| c.contains("app")));
}

#[tokio::test(start_paused = true)]
async fn start_timeout_counts_from_the_start_of_the_dependency() {
    let mut db = container("db", &[]);
    db.definition.start_timeout = Some(20);
    let plan = plan(vec![db, container("app", &[("db", Condition::Healthy)])]);
    let fake = Fake::new(&[]);
    let view = run_all(&plan, &fake).await;
    assert_eq!(fake.calls(), ["0 create db", "0 start db", "20 stop db"]);
    let reason = view.containers[1].reason.clone().unwrap();
    assert!(reason.contains("not healthy within its startTimeout of 20 s"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_made_stops_the_task_if_it_is_essential() {
    for essential in [true, false] {
        let mut broken = container("broken", &[]);
        broken.definition.essential = essential;
        let plan = plan(vec![broken, container("app", &[])]);
        let act = Act { broken: true, ..Act::default() };
        let fake = Fake::new(&[("broken", act), ("app", ends(4, 0))]);
        let view = run_all(&plan, &fake).await;
        assert_eq!(view.containers[0].reason.as_deref(), Some("CannotCreateContainerError: no such image"));
        let (code, stopped) = if essential {
            (StopCode::TaskFailedToStart, true)
        } else {
            (StopCode::EssentialContainerExited, false)
        };
        assert_eq!(view.stop_code, Some(code));
        assert_eq!(fake.calls().contains(&"0 stop app".to_owned()), stopped, "{:?}", fake.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_stop_gets_one_in_order_and_the_stubborn_are_killed() {
    let mut app = container("app", &[("router", Condition::Start)]);
    app.definition.stop_timeout = Some(5);
    let plan = plan(vec![app, container("router", &[])]);
    let fake = Fake::new(&[("app", Act { stubborn: true, ..Act::default() })]);
    let (ask, stop) = watch::channel(None);
    let new = View::default();
    let running = run(&plan, Arc::new(Arc::clone(&fake)), &new, stop, |view| {
        if view.last_status == "RUNNING" {
            ask.send_replace(Some("Task stopped by user".to_owned()));
        }
    });
    let view = running.await;
    assert_eq!(fake.calls()[4..], ["0 stop app".to_owned(), "5 stop router".to_owned()]);
    assert_eq!((view.stop_code, code(&view, "app")), (Some(StopCode::UserInitiated), Some(137)));
}

#[tokio::test(start_paused = true)]
async fn a_restart_policy_starts_what_ran_long_enough_and_did_not_end_as_it_may() {
    let policy = |ignored: &[i64], period| {
        Some(RestartPolicy { ignored_exit_codes: ignored.to_vec(), restart_attempt_period: period })
    };
    let mut worker = container("worker", &[]);
    worker.definition.essential = false;
    worker.definition.restart_policy = policy(&[], 60);
    let mut quick = container("quick", &[]);
    quick.definition.essential = false;
    quick.definition.restart_policy = policy(&[], 300);
    let mut done = container("done", &[]);
    done.definition.essential = false;
    done.definition.restart_policy = policy(&[0], 60);
    let plan = plan(vec![container("app", &[]), worker, quick, done]);
    let fake = Fake::new(&[
        ("app", ends(200, 0)),
        ("worker", ends(90, 1)),
        ("quick", ends(90, 1)),
        ("done", ends(90, 0)),
    ]);
    let view = run_all(&plan, &fake).await;
    let restarts: Vec<u32> = view.containers.iter().map(|c| c.restart_count).collect();
    assert_eq!(restarts, [0, 2, 0, 0], "{:?}", fake.calls());
    assert_eq!(code(&view, "quick"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_runs_already_is_taken_over_as_it_is() {
    let plan = plan(vec![container("app", &[("router", Condition::Start)]), container("router", &[])]);
    let fake = Fake::new(&[]);
    for name in ["app", "router"] {
        fake.change(name, |state| (state.status, state.starts, state.pid) = (Status::Running, 1, Some(7)));
    }
    let (ask, stop) = watch::channel(None);
    let view = run(&plan, Arc::new(Arc::clone(&fake)), &View::default(), stop, |view| {
        assert!(view.last_status != "PENDING");
        ask.send_replace(Some("Task stopped by user".to_owned()));
    })
    .await;
    assert_eq!(fake.calls(), ["0 stop app", "0 stop router"]);
    assert_eq!(view.last_status, "STOPPED");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_loses_the_task_ends_it() {
    let plan = plan(vec![container("app", &[])]);
    let fake = Fake::new(&[]);
    let other = Arc::clone(&fake);
    Tasks::new().spawn("gone", async move {
        sleep(Duration::from_secs(3)).await;
        other.states.send_modify(|states| states.gone = true);
    });
    let view = run_all(&plan, &fake).await;
    assert!(view.containers[0].reason.as_ref().unwrap().starts_with("ContainerVanishedError"));
    assert_eq!(view.last_status, "STOPPED");
}

fn known(name: &str, status: &str, exit_code: Option<i32>) -> ContainerView {
    ContainerView {
        name: name.to_owned(),
        last_status: status.to_owned(),
        started_at: Some(1),
        exit_code,
        ..ContainerView::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_agent_ran_and_the_runtime_has_not_is_not_made_again() {
    let plan = plan(vec![container("app", &[("router", Condition::Start)]), container("router", &[])]);
    let fake = Fake::new(&[]);
    let before = View {
        containers: vec![known("app", "RUNNING", None), known("router", "RUNNING", None)],
        ..View::default()
    };
    let (_keep, stop) = watch::channel(None);
    let view = run(&plan, Arc::new(Arc::clone(&fake)), &before, stop, |_| {}).await;
    assert_eq!(fake.calls(), Vec::<String>::new());
    assert_eq!(
        (view.last_status.as_str(), view.stop_code),
        ("STOPPED", Some(StopCode::EssentialContainerExited))
    );
    assert!(view.containers.iter().all(|c| c.reason.as_ref().unwrap().starts_with("ContainerVanishedError")));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_agent_saw_end_has_ended_and_its_exit_code_counts() {
    let mut init = container("init", &[]);
    init.definition.essential = false;
    let plan = plan(vec![init, container("app", &[("init", Condition::Success)])]);
    let fake = Fake::new(&[("app", ends(5, 0))]);
    let before = View {
        containers: vec![
            known("init", "STOPPED", Some(0)),
            ContainerView {
                name: "app".to_owned(),
                last_status: "PENDING".to_owned(),
                ..ContainerView::default()
            },
        ],
        warnings: vec!["one".to_owned()],
        ..View::default()
    };
    let (_keep, stop) = watch::channel(None);
    let view = run(&plan, Arc::new(Arc::clone(&fake)), &before, stop, |_| {}).await;
    assert_eq!(fake.calls(), ["0 create app", "0 start app"]);
    assert_eq!((code(&view, "init"), code(&view, "app"), view.warnings.len()), (Some(0), Some(0), 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_start_warns_of_is_in_the_view_once_however_often_it_is_started() {
    let mut worker = container("worker", &[]);
    worker.definition.essential = false;
    worker.definition.restart_policy =
        Some(RestartPolicy { ignored_exit_codes: Vec::new(), restart_attempt_period: 60 });
    let plan = plan(vec![container("app", &[]), worker]);
    let worker = Act { warns: Some("container worker: no limits"), ..ends(70, 1) };
    let fake = Fake::new(&[("app", ends(200, 0)), ("worker", worker)]);
    let view = run_all(&plan, &fake).await;
    assert!(view.containers[1].restart_count > 0, "{view:?}");
    assert_eq!(view.warnings, ["container worker: no limits"]);
}
