//! What containers of a task print, read from the engine while the task runs, by whoever may ask it.
//!
//! Enters: a task's ARN. Leaves: lines, and a sentence for each container whose lines the engine does not have: since 20.10
//! it keeps a copy whatever the log driver is, but for `none` and where `cache-disabled` says so. Can go wrong: the engine
//! does not answer.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bollard::models::ContainerSummary;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::api::{self, Api};
use super::lines::{Lines, Pieces};
use super::network::PAUSE;
use super::{DockerRuntime, LABELS};
use crate::agent::runtime::Failure;

/// How often new containers are looked for.
const LOOK: Duration = Duration::from_millis(200);
/// How long lines may come after the end of their task.
const LAST: Duration = Duration::from_secs(5);
/// When docker says that something has never been.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A container of a task.
struct Member {
    id: String,
    name: String,
    /// When it was started last, as docker writes it.
    started: String,
    driver: String,
}

impl DockerRuntime {
    /// Shows what has been printed so far. `only`: by this container.
    ///
    /// # Errors
    /// The engine's.
    pub async fn logs(
        &self,
        arn: &str,
        only: Option<&str>,
        lines: &Lines,
        why_not: impl Fn(String),
    ) -> Result<(), Failure> {
        for member in members(&self.api, arn, only).await? {
            if let Some(why) = print(self.api.clone(), member, 0, false, lines.clone()).await {
                why_not(why);
            }
        }
        Ok(())
    }

    /// Shows it, and goes on until `task` is done; containers that are made or started again meanwhile are found.
    ///
    /// # Errors
    /// The engine's, at the start; later it is asked again.
    pub async fn logs_beside<T>(
        &self,
        arn: &str,
        only: Option<&str>,
        lines: &Lines,
        why_not: impl Fn(String),
        task: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let (mut runs, mut printing) = (BTreeMap::new(), JoinSet::new());
        let mut found = members(&self.api, arn, only).await?;
        tokio::pin!(task);
        loop {
            for member in found {
                let before = runs.insert(member.id.clone(), member.started.clone());
                if before.as_ref() != Some(&member.started) {
                    let since = before.map_or(0, |_| seconds(&member.started));
                    printing.spawn(print(self.api.clone(), member, since, true, lines.clone()));
                }
            }
            tokio::select! {
                biased;
                ended = &mut task => {
                    let rest = async {
                        while let Some(printed) = printing.join_next().await {
                            printed.ok().flatten().into_iter().for_each(&why_not);
                        }
                    };
                    if timeout(LAST, rest).await.is_err() {
                        tracing::debug!(arn, "the engine goes on with the lines of a task that has ended");
                    }
                    return Ok(ended);
                }
                Some(printed) = printing.join_next(), if !printing.is_empty() => {
                    printed.ok().flatten().into_iter().for_each(&why_not);
                    found = Vec::new();
                }
                () = sleep(LOOK) => found = members(&self.api, arn, only).await.unwrap_or_default(),
            }
        }
    }
}

/// The containers of a task that have begun, by name.
async fn members(api: &Api, arn: &str, only: Option<&str>) -> Result<Vec<Member>, Failure> {
    let mut all = Vec::new();
    for ContainerSummary { id, labels, .. } in api.list(&format!("{LABELS}task-arn={arn}")).await? {
        let (Some(id), Some(mut labels)) = (id, labels) else { continue };
        let Some(name) = labels.remove(&format!("{LABELS}container-name")) else { continue };
        if name == PAUSE || only.is_some_and(|only| only != name) {
            continue;
        }
        // It may have gone meanwhile.
        let Ok(found) = api.inspect(&id).await else { continue };
        let started = found.state.and_then(|s| s.started_at).unwrap_or_default();
        if started.is_empty() || started == NEVER {
            continue;
        }
        let driver = found.host_config.and_then(|h| h.log_config).and_then(|l| l.typ).unwrap_or_default();
        all.push(Member { id, name, started, driver });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Shows what a container prints, from `since` (seconds since 1970) on. Gives why it cannot.
async fn print(api: Api, member: Member, since: i32, follow: bool, lines: Lines) -> Option<String> {
    let Member { id, name, driver, .. } = member;
    let mut stream = Box::pin(api.logs(&id, since, follow));
    let mut pieces = Pieces::default();
    loop {
        match api::next(&mut stream).await {
            Some(Ok(piece)) => pieces.take(&piece, |line| lines.show(&name, line)),
            Some(Err(e)) => {
                let why = api::chain(&e);
                return Some(format!(
                    "container {name}: docker does not show its lines (log driver {driver}): {why}"
                ));
            }
            None => break,
        }
    }
    pieces.end(|line| lines.show(&name, line));
    None
}

/// Of docker's time.
fn seconds(time: &str) -> i32 {
    let at = time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
    i32::try_from(at).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_begins_at_its_second() {
        assert_eq!(seconds("2026-11-26T05:00:00.123456789Z"), 1_795_669_200);
        assert_eq!(seconds("nonsense"), 0);
    }
}
