//! The life of a task: what starts when, what follows from an end, what stops when.
//!
//! Enters: a plan, the states of its containers, the wish to stop. Leaves: calls of the runtime, and a [`View`] whenever
//! something changes; the last one says how it ended. Can go wrong: containers do, by ECS's rules and names; a runtime that
//! loses sight of the task ends it. States only go upward, but for a container that its restart policy starts again.

mod member;
mod view;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use self::member::{Known, Member, Verdict};
pub use self::view::{ContainerView, StopCode, View};
use super::definition::{Condition, NetworkMode};
use super::plan::{ContainerPlan, TaskPlan};
use super::runtime::{Failure, States, Status, TaskHandle};

/// From SIGTERM to SIGKILL, unless the definition says otherwise.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a stop that fails is tried.
const STOP_TRIES: u32 = 5;
/// How long the router may take to have an address.
const ADDRESS: Duration = Duration::from_secs(60);
const ADDRESS_AGAIN: Duration = Duration::from_millis(100);
const VANISHED: &str = "ContainerVanishedError: the runtime has lost sight of the container";

/// What was asked of the runtime for a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Op {
    Start,
    Restart,
    Stop,
}

struct Done {
    at: usize,
    op: Op,
    result: Result<Vec<String>, Failure>,
}

/// The task's router, as a container that starts needs to know it.
struct Router {
    name: String,
    /// It has an address, or soon will.
    known: bool,
    /// Somebody is to be told its address.
    wanted: bool,
}

/// A task at work.
struct Engine<'p, T> {
    plan: &'p TaskPlan,
    task: Arc<T>,
    members: Vec<Member>,
    /// Why the task stops, once it does.
    stopping: Option<(StopCode, String)>,
    /// When the first essential container had ended, milliseconds since 1970.
    execution_stopped: Option<i64>,
    warnings: Vec<String>,
    ops: JoinSet<Done>,
}

/// Runs a task to its end. `before`: how an agent that is gone last saw it; what it had decided stands. `stop` turns to a
/// reason when somebody wants it to end. `report` hears of every change.
pub async fn run<T: TaskHandle>(
    plan: &TaskPlan,
    task: Arc<T>,
    before: &View,
    mut stop: watch::Receiver<Option<String>>,
    mut report: impl FnMut(&View),
) -> View {
    let mut states = task.states();
    let seen = states.borrow().clone();
    let mut engine = Engine {
        plan,
        task,
        members: plan.containers.iter().map(|c| remember(before, &c.definition.name, &seen)).collect(),
        stopping: before.stop_code.map(|code| (code, before.stopped_reason.clone().unwrap_or_default())),
        execution_stopped: before.execution_stopped_at,
        warnings: before.warnings.clone(),
        ops: JoinSet::new(),
    };
    let mut last = View::default();
    loop {
        let wish = stop.borrow_and_update().clone();
        if let Some(reason) = wish {
            engine.stop(StopCode::UserInitiated, reason);
        }
        let now = Instant::now();
        let seen = states.borrow_and_update().clone();
        engine.observe(&seen, now);
        engine.decide(&seen, now);
        let view = engine.view(&seen);
        if view != last {
            report(&view);
            last = view;
        }
        if engine.is_over() {
            return last;
        }
        let due = engine.next_due(now);
        tokio::select! {
            biased;
            done = engine.ops.join_next(), if !engine.ops.is_empty() => {
                if let Some(Ok(done)) = done {
                    engine.done(done);
                }
            }
            // A runtime whose sender is gone says so in its last state.
            changed = states.changed() => if changed.is_err() && !seen.gone {
                engine.lost();
            },
            changed = stop.changed() => if changed.is_err() {
                // Nobody can ask any more: the task goes on.
                stop = watch::channel(None).1;
            },
            () = until(due) => {}
        }
    }
}

/// A container as an earlier agent knew it. One that had been made and that the runtime does not have any more has vanished
/// (the machine was restarted): it is not made again.
fn remember(before: &View, name: &str, seen: &States) -> Member {
    let Some(before) = before.containers.iter().find(|c| c.name == name) else { return Member::default() };
    let mut member = Member::remember(before);
    if before.last_status != "PENDING"
        && member.known != Known::Stopped
        && !seen.containers.contains_key(name)
    {
        member.end(None, Some(VANISHED.to_owned()));
    }
    member
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl<T: TaskHandle> Engine<'_, T> {
    fn stop(&mut self, code: StopCode, reason: String) {
        self.stopping.get_or_insert((code, reason));
    }

    /// The runtime has lost the task.
    fn lost(&mut self) {
        for member in &mut self.members {
            if member.known != Known::Stopped {
                member.end(None, Some(VANISHED.to_owned()));
            }
        }
        self.stop(StopCode::EssentialContainerExited, "Essential container in task exited".to_owned());
    }

    /// Takes in how containers are.
    fn observe(&mut self, seen: &States, now: Instant) {
        for (member, plan) in self.members.iter_mut().zip(&self.plan.containers) {
            let Some(state) = seen.containers.get(&plan.definition.name) else { continue };
            match state.status {
                Status::Created => member.known = member.known.max(Known::Created),
                Status::Running => member.runs(state, now),
                Status::Exited if member.busy.is_none() && member.known != Known::Stopped => {
                    member.runs(state, now);
                    if self.stopping.is_none()
                        && member.starts_again(plan.definition.restart_policy.as_ref(), state, now)
                    {
                        member.restart = true;
                    } else {
                        let oom = "OutOfMemoryError: Container killed due to memory usage".to_owned();
                        member.end(state.exit_code, state.oom.then_some(oom).or_else(|| state.error.clone()));
                    }
                }
                Status::Exited => {}
            }
        }
        if seen.gone {
            self.lost();
        }
        let ended = self.members.iter().zip(&self.plan.containers);
        let essential =
            ended.filter(|(m, p)| p.definition.essential && m.known == Known::Stopped).map(|(m, _)| m.began);
        let essential: Vec<bool> = essential.collect();
        if !essential.is_empty() {
            self.execution_stopped.get_or_insert_with(view::now);
            if essential.contains(&true) {
                self.stop(
                    StopCode::EssentialContainerExited,
                    "Essential container in task exited".to_owned(),
                );
            } else {
                self.stop(StopCode::TaskFailedToStart, "Task failed to start".to_owned());
            }
        }
    }

    /// Asks the runtime for what is due.
    fn decide(&mut self, seen: &States, now: Instant) {
        for at in 0..self.members.len() {
            let (Some(plan), Some(member)) = (self.plan.containers.get(at), self.members.get(at)) else {
                continue;
            };
            if member.busy.is_some() || member.known == Known::Stopped {
                continue;
            }
            if self.stopping.is_some() {
                if member.known < Known::Running {
                    self.end(at, None);
                } else if self.nobody_needs(&plan.definition.name) {
                    self.ask(at, Op::Stop);
                }
            } else if member.restart {
                self.ask(at, Op::Restart);
            } else if member.known < Known::Running {
                match self.may_start(plan, seen, now) {
                    Verdict::Yes => self.ask(at, Op::Start),
                    Verdict::NotYet => {}
                    Verdict::Never(why) => self.end(at, Some(format!("TaskDependencyError: {why}"))),
                }
            }
        }
        // What follows from an end that was decided here.
        if self.stopping.is_none() && self.essential_has_ended() {
            self.observe(seen, now);
            self.decide(seen, now);
        }
    }

    fn essential_has_ended(&self) -> bool {
        let mut all = self.members.iter().zip(&self.plan.containers);
        all.any(|(member, plan)| plan.definition.essential && member.known == Known::Stopped)
    }

    fn end(&mut self, at: usize, why: Option<String>) {
        if let Some(member) = self.members.get_mut(at) {
            member.end(None, why);
        }
    }

    /// Whether everybody that depends on the container has stopped.
    fn nobody_needs(&self, name: &str) -> bool {
        let mut all = self.members.iter().zip(&self.plan.containers);
        all.all(|(member, plan)| {
            member.known == Known::Stopped || !plan.depends_on.iter().any(|d| d.container_name == name)
        })
    }

    fn find(&self, name: &str) -> Option<(&Member, &ContainerPlan)> {
        self.members.iter().zip(&self.plan.containers).find(|(_, plan)| plan.definition.name == name)
    }

    fn may_start(&self, plan: &ContainerPlan, seen: &States, now: Instant) -> Verdict {
        let mut all = Verdict::Yes;
        for dependency in &plan.depends_on {
            let name = &dependency.container_name;
            let Some((other, of)) = self.find(name) else {
                return Verdict::Never(format!("there is no container {name}"));
            };
            let health = seen.containers.get(name).and_then(|s| s.health.as_ref()).map(|h| h.status);
            match other.comes_to(dependency.condition, health, name) {
                Verdict::Yes => {}
                Verdict::Never(why) => return Verdict::Never(why),
                Verdict::NotYet => {
                    if other.timed_out(dependency.condition, of, now) {
                        let wanted = dependency.condition;
                        let limit = of.definition.start_timeout.unwrap_or_default();
                        return Verdict::Never(format!(
                            "container {name} was not {} within its startTimeout of {limit} s",
                            member::words(wanted)
                        ));
                    }
                    all = Verdict::NotYet;
                }
            }
        }
        all
    }

    fn ask(&mut self, at: usize, op: Op) {
        let (Some(plan), Some(member)) = (self.plan.containers.get(at), self.members.get_mut(at)) else {
            return;
        };
        member.busy = Some(op);
        member.restart = false;
        member.told |= op == Op::Stop;
        let (task, plan, router) = (Arc::clone(&self.task), plan.clone(), self.router());
        self.ops.spawn(async move {
            let result = match op {
                Op::Start => start(&*task, plan, router).await,
                Op::Restart => task.start(&plan.definition.name).await,
                Op::Stop => stop(&*task, &plan).await.map(|()| Vec::new()),
            };
            Done { at, op, result }
        });
    }

    /// The router, for a container that is about to start.
    fn router(&self) -> Option<Router> {
        let name = self.plan.firelens.clone()?;
        let (member, _) = self.find(&name)?;
        // In awsvpc mode its address is known before there is a router.
        let known = member.known >= Known::Running || self.plan.network_mode == NetworkMode::Awsvpc;
        let wanted = self.plan.containers.iter().any(|c| c.wants_router_address);
        Some(Router { name, known, wanted })
    }

    fn done(&mut self, done: Done) {
        let Some(member) = self.members.get_mut(done.at) else { return };
        member.busy = None;
        match (done.op, done.result) {
            (Op::Stop, Ok(_)) => {}
            (op, Ok(warnings)) => {
                member.restarts += u32::from(op == Op::Restart);
                // Each start of a container warns of the same.
                for warning in warnings {
                    if !self.warnings.contains(&warning) {
                        self.warnings.push(warning);
                    }
                }
            }
            // It could not be started, or cannot be stopped: its end, as far as anybody can tell.
            (_, Err(e)) => member.end(None, Some(view::reason(&e.to_string()))),
        }
    }

    /// When a wait for a dependency is over.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.stopping.is_some() {
            return None;
        }
        let waiting = self.members.iter().zip(&self.plan.containers);
        let waiting = waiting.filter(|(m, _)| m.known < Known::Running && m.busy.is_none());
        waiting
            .flat_map(|(_, plan)| &plan.depends_on)
            .filter(|d| d.condition != Condition::Start)
            .filter_map(|d| self.find(&d.container_name).and_then(|(other, of)| other.deadline(of)))
            .map(|at| at.max(now + Duration::from_millis(1)))
            .min()
    }

    fn is_over(&self) -> bool {
        self.ops.is_empty() && self.members.iter().all(|m| m.known == Known::Stopped)
    }

    fn view(&self, seen: &States) -> View {
        View::of(
            self.plan,
            &self.members,
            seen,
            self.stopping.as_ref(),
            self.execution_stopped,
            &self.warnings,
        )
    }
}

/// As ECS does it: the router's start is done when it has an address, where others want that. Who logs through it and starts
/// before, because nothing makes it wait, fails.
async fn start<T: TaskHandle>(
    task: &T,
    mut plan: ContainerPlan,
    router: Option<Router>,
) -> Result<Vec<String>, Failure> {
    let name = plan.definition.name.clone();
    if plan.wants_router_address
        && let Some(router) = &router
    {
        let address = if router.known { task.address(&router.name).await } else { None };
        let Some(address) = address else {
            let text = format!(
                "unable to get BridgeIP for task in bridge mode: container {name} logs through container {router}, \
                 which does not run yet; let it depend on {router}",
                router = router.name
            );
            return Err(Failure::new("DockerClientConfigError", text));
        };
        plan.environment.push(("FLUENT_HOST".to_owned(), address.to_string()));
        plan.environment.push(("FLUENT_PORT".to_owned(), super::firelens::PORT.to_string()));
    }
    let mut warnings = task.create(&plan).await?;
    warnings.extend(task.start(&name).await?);
    if router.is_some_and(|router| router.wanted && router.name == name) {
        has_address(task, &name).await?;
    }
    Ok(warnings)
}

/// Waits until the router has an address. One that has ended gets none, and its end says more than that.
async fn has_address<T: TaskHandle>(task: &T, router: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + ADDRESS;
    let states = task.states();
    let ended = || states.borrow().containers.get(router).is_some_and(|c| c.status == Status::Exited);
    while !ended() && task.address(router).await.is_none() {
        if Instant::now() >= deadline {
            let text = format!(
                "Bridge IP not available to use for firelens: container {router} has none after {} s",
                ADDRESS.as_secs()
            );
            return Err(Failure::new("CannotStartContainerError", text));
        }
        sleep(ADDRESS_AGAIN).await;
    }
    Ok(())
}

/// How long a container has from SIGTERM to SIGKILL.
pub(super) fn stop_timeout(plan: &ContainerPlan) -> Duration {
    plan.definition.stop_timeout.filter(|s| *s > 0).map_or(STOP_TIMEOUT, Duration::from_secs)
}

async fn stop<T: TaskHandle>(task: &T, plan: &ContainerPlan) -> Result<(), Failure> {
    let timeout = stop_timeout(plan);
    let mut tries = 1;
    loop {
        match task.stop(&plan.definition.name, timeout).await {
            Err(_) if tries < STOP_TRIES => {
                sleep(Duration::from_secs(u64::from(tries))).await;
                tries += 1;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
