//! One container in the life of its task.
//!
//! Enters: its states as the runtime tells them. Leaves: what it has come to, and what others make of that. Can go wrong:
//! nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::Op;
use super::view::{self, ContainerView};
use crate::agent::definition::{Condition, RestartPolicy};
use crate::agent::plan::ContainerPlan;
use crate::agent::runtime::{ContainerState, HealthStatus};

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Known {
    #[default]
    None,
    Created,
    Running,
    Stopped,
}

/// Whether a container may start.
pub(super) enum Verdict {
    Yes,
    NotYet,
    Never(String),
}

#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) known: Known,
    /// What the runtime was asked for and has not done.
    pub(super) busy: Option<Op>,
    /// It is to be started again.
    pub(super) restart: bool,
    /// It has run.
    pub(super) began: bool,
    /// The task stops, and it was asked to.
    pub(super) told: bool,
    pub(super) exit_code: Option<i32>,
    pub(super) reason: Option<String>,
    pub(super) restarts: u32,
    /// When it was started, last and first.
    started: Option<Instant>,
    first: Option<Instant>,
    starts: u32,
}

impl Member {
    /// As an earlier agent left it.
    pub(super) fn remember(before: &ContainerView) -> Member {
        let mut member = Member {
            began: before.started_at.is_some(),
            told: before.told_to_stop,
            restarts: before.restart_count,
            ..Member::default()
        };
        if before.last_status == "STOPPED" {
            member.end(before.exit_code, before.reason.clone());
        }
        member
    }

    /// It runs, or has run.
    pub(super) fn runs(&mut self, state: &ContainerState, now: Instant) {
        if self.known == Known::Stopped {
            return;
        }
        self.known = Known::Running;
        if state.starts > 0 || state.pid.is_some() || state.started.is_some() {
            self.began = true;
        }
        if self.started.is_none() || state.starts > self.starts {
            // An agent that has just come finds it at work.
            let age = state.started.map_or(0, |at| view::now().saturating_sub(at));
            let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
            let since = now.checked_sub(age).unwrap_or(now);
            self.started = Some(since);
            self.first.get_or_insert(since);
            self.starts = state.starts;
        }
    }

    pub(super) fn end(&mut self, exit_code: Option<i32>, reason: Option<String>) {
        self.known = Known::Stopped;
        self.restart = false;
        self.exit_code = exit_code;
        self.reason = reason;
    }

    /// Whether its restart policy starts it again after this end.
    pub(super) fn starts_again(
        &self,
        policy: Option<&RestartPolicy>,
        state: &ContainerState,
        now: Instant,
    ) -> bool {
        let Some(policy) = policy else { return false };
        let Some(code) = state.exit_code else { return false };
        // By the runtime's clock where it tells: the end may have come while no agent was there.
        let ran = match (state.started, state.finished) {
            (Some(from), Some(to)) => {
                Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
            }
            _ => self.started.map_or(Duration::ZERO, |since| now.duration_since(since)),
        };
        !policy.ignored_exit_codes.contains(&i64::from(code))
            && ran >= Duration::from_secs(policy.restart_attempt_period)
    }

    /// Whether it has come to what another waits for.
    pub(super) fn comes_to(&self, condition: Condition, health: Option<HealthStatus>, name: &str) -> Verdict {
        let stopped = self.known == Known::Stopped;
        let never = |what: &str| Verdict::Never(format!("container {name} {what}"));
        match condition {
            Condition::Start if stopped && !self.began => never("has not and will not start"),
            // The runtime says when a start is done: of a router, once it listens.
            Condition::Start if self.known >= Known::Running && self.busy != Some(Op::Start) => Verdict::Yes,
            Condition::Complete | Condition::Success if stopped => match self.exit_code {
                None => never("has ended without an exit code"),
                Some(code) if condition == Condition::Success && code != 0 => {
                    never(&format!("has exited with {code}, and must exit with 0"))
                }
                Some(_) => Verdict::Yes,
            },
            Condition::Healthy if stopped => never("has stopped and will not be healthy"),
            Condition::Healthy if health == Some(HealthStatus::Healthy) => Verdict::Yes,
            _ => Verdict::NotYet,
        }
    }

    /// When those that wait for more than its start give up.
    pub(super) fn deadline(&self, plan: &ContainerPlan) -> Option<Instant> {
        let limit = plan.definition.start_timeout.filter(|s| *s > 0)?;
        self.first.map(|first| first + Duration::from_secs(limit))
    }

    pub(super) fn timed_out(&self, condition: Condition, plan: &ContainerPlan, now: Instant) -> bool {
        condition != Condition::Start && self.deadline(plan).is_some_and(|at| now >= at)
    }
}

pub(super) fn words(condition: Condition) -> &'static str {
    match condition {
        Condition::Start => "running",
        Condition::Complete => "complete",
        Condition::Success => "successful",
        Condition::Healthy => "healthy",
    }
}
