//! The states of a task's containers, as the engine's events tell of them.
//!
//! Enters: events, and an inspection after each that changes something. Leaves: [`States`], in order. Can go wrong: the
//! engine goes away; it is asked again until it answers, for some minutes; then the task is given up as lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::api::{self, Api};
use super::inspect;
use crate::agent::runtime::{ContainerState, States, Status};
use crate::record::Time;

/// Waits between attempts to hear from the engine again: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long an engine may be away before its containers count as lost.
const AWAY: Duration = Duration::from_secs(10 * 60);
/// Even without an event the containers are looked at so often.
const LOOK: Duration = Duration::from_secs(60);

/// What is known of the containers of a task.
#[derive(Debug)]
pub(super) struct Watcher {
    api: Api,
    /// `com.amazonaws.ecs.task-arn=ARN`
    label: String,
    /// One inspection of a container at a time, or an old answer could come after a new one.
    turns: BTreeMap<String, Mutex<()>>,
    states: watch::Sender<States>,
}

impl Watcher {
    /// For the containers of these names.
    pub(super) fn new(api: Api, label: String, names: impl Iterator<Item = String>) -> Arc<Watcher> {
        let turns = names.map(|name| (name, Mutex::new(()))).collect();
        Arc::new(Watcher { api, label, turns, states: watch::Sender::new(States::default()) })
    }

    pub(super) fn states(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    /// A container is there from now on. `pulled`: when its image was.
    pub(super) fn add(&self, name: &str, id: &str, pulled: Option<(i64, i64)>) {
        let state = ContainerState { id: id.to_owned(), pulled, ..ContainerState::default() };
        self.states.send_modify(|states| {
            states.containers.insert(name.to_owned(), state);
        });
    }

    /// A container as it was seen last.
    pub(super) fn known(&self, name: &str) -> Option<ContainerState> {
        self.states.borrow().containers.get(name).cloned()
    }

    /// Looks at a container. False: the engine did not answer.
    pub(super) async fn look(&self, name: &str) -> bool {
        let Some(turn) = self.turns.get(name) else { return true };
        let _turn = turn.lock().await;
        let Some(before) = self.known(name) else { return true };
        let now = match self.api.inspect(&before.id).await {
            Ok(found) => inspect::state(&before, &found),
            Err(e) if e.status == Some(404) => vanished(before.clone()),
            Err(e) => {
                tracing::debug!(container = name, cause = %e.failure, "cannot look at a container");
                return e.status.is_some();
            }
        };
        if now != before {
            self.states.send_modify(|states| {
                states.containers.insert(name.to_owned(), now);
            });
        }
        true
    }

    async fn look_at_all(&self) -> bool {
        let names: Vec<String> = self.states.borrow().containers.keys().cloned().collect();
        for name in names {
            if !self.look(&name).await {
                return false;
            }
        }
        true
    }

    /// Follows the engine until `ended` resolves: its sender is dropped.
    pub(super) async fn follow(self: Arc<Self>, mut ended: oneshot::Receiver<()>) {
        let (mut wait, mut heard) = (AGAIN.0, Instant::now());
        loop {
            let answered = tokio::select! {
                biased;
                _ = &mut ended => return,
                answered = self.listen() => answered,
            };
            if answered {
                (wait, heard) = (AGAIN.0, Instant::now());
            } else if heard.elapsed() > AWAY {
                tracing::error!(
                    "the Docker engine is away for {} s: its containers are given up",
                    AWAY.as_secs()
                );
                self.states.send_modify(|states| states.gone = true);
                return;
            }
            tokio::select! {
                biased;
                _ = &mut ended => return,
                () = sleep(wait) => wait = (wait * 2).min(AGAIN.1),
            }
        }
    }

    /// Hears events until there are no more. False: the engine did not answer.
    async fn listen(&self) -> bool {
        // From before the look, so that nothing falls between; what comes twice changes nothing.
        let since = Time::now().millis() / 1000 - 1;
        let began = Instant::now();
        let mut events = Box::pin(self.api.events(&self.label, since));
        if !self.look_at_all().await {
            return false;
        }
        loop {
            tokio::select! {
                event = api::next(&mut events) => match event {
                    Some(Ok(event)) => {
                        let action = event.action.unwrap_or_default();
                        let id = event.actor.and_then(|actor| actor.id).unwrap_or_default();
                        if let Some(name) = self.of_interest(&action, &id) {
                            self.look(&name).await;
                        }
                    }
                    Some(Err(e)) => {
                        tracing::debug!(cause = %api::chain(&e), "the engine's events have ended");
                        return began.elapsed() > AGAIN.1;
                    }
                    None => return began.elapsed() > AGAIN.1,
                },
                () = sleep(LOOK) => if !self.look_at_all().await {
                    return false;
                },
            }
        }
    }

    /// Health checks are programs that start and end in the container: that is not its own life.
    fn of_interest(&self, action: &str, id: &str) -> Option<String> {
        if action.starts_with("exec_") {
            return None;
        }
        let states = self.states.borrow();
        states.containers.iter().find(|(_, state)| state.id == id).map(|(name, _)| name.clone())
    }
}

/// Somebody else has removed it.
fn vanished(before: ContainerState) -> ContainerState {
    if before.status == Status::Exited {
        return before;
    }
    let error = "ContainerVanishedError: the container is no longer there".to_owned();
    ContainerState { status: Status::Exited, pid: None, error: Some(error), ..before }
}
