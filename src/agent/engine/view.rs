//! A task as DescribeTasks would show it.
//!
//! Enters: the engine's state. Leaves: plain values, for tables and files. Can go wrong: nothing.

use serde::{Deserialize, Serialize};

use super::member::{Known, Member};
use crate::agent::plan::TaskPlan;
use crate::agent::runtime::{HealthStatus, States};

/// The longest reason that ECS keeps.
const REASON_MAX: usize = 1024;

/// Exit codes of containers that were told to stop: SIGTERM, SIGKILL.
const STOPPED: [i32; 2] = [143, 137];

/// Why a task stopped.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum StopCode {
    /// An essential container could not be started.
    TaskFailedToStart,
    /// An essential container has ended.
    EssentialContainerExited,
    /// Somebody wanted it.
    UserInitiated,
}

/// A task.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct View {
    /// `PENDING`, `RUNNING`, `DEACTIVATING`, `STOPPED`
    pub last_status: String,
    /// `RUNNING`, `STOPPED`
    pub desired_status: String,
    /// Of the essential containers together.
    pub health_status: HealthStatus,
    /// In the order of the definition.
    pub containers: Vec<ContainerView>,
    /// Why it stops, once it does.
    pub stop_code: Option<StopCode>,
    /// The same in words.
    pub stopped_reason: Option<String>,
    /// When the first essential container had ended, milliseconds since 1970.
    pub execution_stopped_at: Option<i64>,
    /// What this machine could not honour.
    pub warnings: Vec<String>,
}

/// A container.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerView {
    /// In the definition.
    pub name: String,
    /// The runtime's, 64 hexadecimal digits.
    pub runtime_id: String,
    /// `PENDING`, `CREATED`, `RUNNING`, `STOPPED`
    pub last_status: String,
    /// Its end takes the task with it.
    pub essential: bool,
    /// Of its last run.
    pub exit_code: Option<i32>,
    /// Why it ended, where its code does not say it.
    pub reason: Option<String>,
    /// What its health check says, where it has one.
    pub health_status: Option<HealthStatus>,
    /// How often its restart policy has started it again.
    pub restart_count: u32,
    /// Milliseconds since 1970.
    pub started_at: Option<i64>,
    /// Milliseconds since 1970.
    pub finished_at: Option<i64>,
    /// Its first process.
    pub pid: Option<i32>,
    /// It ran when the task stopped, and was told to end: not a field of ECS's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub told_to_stop: bool,
    /// What it printed last, where it ended badly: not a field of ECS's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<String>,
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    crate::record::Time::now().millis()
}

/// No longer than ECS keeps it.
pub(super) fn reason(text: &str) -> String {
    text.chars().take(REASON_MAX).collect()
}

impl View {
    pub(super) fn of(
        plan: &TaskPlan,
        members: &[Member],
        seen: &States,
        stopping: Option<&(StopCode, String)>,
        execution_stopped_at: Option<i64>,
        warnings: &[String],
    ) -> View {
        let containers: Vec<ContainerView> = members
            .iter()
            .zip(&plan.containers)
            .map(|(member, plan)| {
                let state = seen.containers.get(&plan.definition.name).cloned().unwrap_or_default();
                let health = plan
                    .definition
                    .health_check
                    .as_ref()
                    .map(|_| state.health.map_or(HealthStatus::Unknown, |h| h.status));
                ContainerView {
                    name: plan.definition.name.clone(),
                    runtime_id: state.id,
                    last_status: name(member.known).to_owned(),
                    essential: plan.definition.essential,
                    exit_code: member.exit_code,
                    reason: member.reason.clone(),
                    health_status: health,
                    restart_count: member.restarts,
                    started_at: state.started,
                    finished_at: state.finished,
                    pid: state.pid,
                    told_to_stop: member.told,
                    last_words: Vec::new(),
                }
            })
            .collect();
        let lowest = members.iter().map(|m| m.known).min().unwrap_or(Known::Stopped);
        let last_status = match (lowest, stopping) {
            (Known::Stopped, _) => "STOPPED",
            (_, Some(_)) => "DEACTIVATING",
            (Known::Running, None) => "RUNNING",
            _ => "PENDING",
        };
        View {
            last_status: last_status.to_owned(),
            desired_status: if stopping.is_some() { "STOPPED" } else { "RUNNING" }.to_owned(),
            health_status: health(&containers),
            containers,
            stop_code: stopping.map(|(code, _)| *code),
            stopped_reason: stopping.map(|(_, reason)| reason.clone()),
            execution_stopped_at,
            warnings: warnings.to_vec(),
        }
    }

    /// The code of the first essential container that ended badly, else of the first that ended by itself, else of the
    /// first.
    pub fn exit_code(&self) -> Option<i32> {
        let mut essential: Vec<&ContainerView> = self.containers.iter().filter(|c| c.essential).collect();
        essential.sort_by_key(|c| c.finished_at.unwrap_or(i64::MAX));
        let bad = essential.iter().copied().filter(|c| self.ended_badly(c));
        let by_itself = essential.iter().copied().filter(|c| !c.told_to_stop);
        bad.chain(by_itself).chain(essential.iter().copied()).find_map(|c| c.exit_code)
    }

    /// A container that ended with another code than 0 by itself: not because the task had ended and it was told to stop.
    pub fn ended_badly(&self, c: &ContainerView) -> bool {
        let Some(code) = c.exit_code else { return c.reason.is_some() };
        let stopped = c.told_to_stop && c.reason.is_none() && STOPPED.contains(&code);
        code != 0 && !stopped
    }
}

fn name(known: Known) -> &'static str {
    match known {
        Known::None => "PENDING",
        Known::Created => "CREATED",
        Known::Running => "RUNNING",
        Known::Stopped => "STOPPED",
    }
}

/// Unhealthy as soon as one essential container is; healthy when all that have a check are.
fn health(containers: &[ContainerView]) -> HealthStatus {
    let checks: Vec<HealthStatus> =
        containers.iter().filter(|c| c.essential).filter_map(|c| c.health_status).collect();
    if checks.contains(&HealthStatus::Unhealthy) {
        HealthStatus::Unhealthy
    } else if !checks.is_empty() && checks.iter().all(|c| *c == HealthStatus::Healthy) {
        HealthStatus::Healthy
    } else {
        HealthStatus::Unknown
    }
}
