//! A task that ends with its agent: what its supervisor does when that has gone.
//!
//! Enters: a plan, when the supervisor is started. Leaves: containers stopped in the engine's order, and nothing of the task
//! but its logs. Can go wrong: a container that does not stop, a file that cannot be removed; the supervisor's log says so,
//! and what still runs is killed with the supervisor.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::container::Container;
use super::{addresses, client, image};
use crate::agent::engine;
use crate::agent::plan::{ContainerPlan, TaskPlan};

/// What has to be known of a task to end it without its agent.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(super) struct Tether {
    stops: Vec<Stop>,
    /// Where the router's files are.
    firelens: Option<PathBuf>,
}

/// How a container is stopped.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
struct Stop {
    name: String,
    /// Milliseconds from SIGTERM to SIGKILL.
    timeout: u64,
    /// Those that stop before it.
    needed_by: Vec<String>,
}

impl Tether {
    pub(super) fn of(plan: &TaskPlan) -> Tether {
        let needs = |other: &ContainerPlan, name: &str| {
            other.depends_on.iter().any(|dependency| dependency.container_name == name)
        };
        let stop = |container: &ContainerPlan| {
            let name = container.definition.name.clone();
            let needed_by = plan.containers.iter().filter(|other| needs(other, &name));
            let needed_by = needed_by.map(|other| other.definition.name.clone()).collect();
            let timeout = u64::try_from(engine::stop_timeout(container).as_millis()).unwrap_or(u64::MAX);
            Stop { name, timeout, needed_by }
        };
        let router = plan.containers.iter().find(|c| Some(&c.definition.name) == plan.firelens.as_ref());
        // The first is the planning's: what a person mounts there comes behind it.
        let socket = router.and_then(|r| r.binds.iter().find(|(_, target, _)| target == "/var/run"));
        Tether {
            stops: plan.containers.iter().map(stop).collect(),
            firelens: socket.and_then(|(socket, ..)| socket.parent()).map(Path::to_owned),
        }
    }

    /// Stops what runs, each container when those that need it have stopped.
    pub(super) async fn stop(&self, find: impl Fn(&str) -> Option<Arc<Container>>) {
        let stopped = watch::Sender::new(BTreeSet::new());
        let mut all = JoinSet::new();
        for stop in self.stops.clone() {
            let (container, stopped) = (find(&stop.name), stopped.clone());
            all.spawn(async move {
                let mut seen = stopped.subscribe();
                let all_have =
                    |seen: &BTreeSet<String>| stop.needed_by.iter().all(|name| seen.contains(name));
                // The sender is ours and lives.
                let _ended = seen.wait_for(all_have).await.is_ok();
                if let Some(container) = container
                    && let Err(e) = container.stop(Duration::from_millis(stop.timeout)).await
                {
                    tracing::error!(container = stop.name, cause = %e, "cannot stop a container");
                }
                stopped.send_modify(|seen| {
                    seen.insert(stop.name);
                });
            });
        }
        while all.join_next().await.is_some() {}
    }

    /// Removes what an agent would remove at the end of the task in `dir`.
    pub(super) fn clean(&self, dir: &Path) {
        let router = match self.firelens.as_deref().map(fs::remove_dir_all) {
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        // The socket last: whoever finds it gone finds nothing else.
        for removed in [router, addresses::free(dir), image::remove(dir), client::clean(dir)] {
            if let Err(e) = removed {
                tracing::warn!(cause = %e, "not everything of the task could be removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::definition::{Condition, ContainerDefinition, Dependency};

    #[test]
    fn containers_stop_after_those_that_need_them_in_their_own_time() {
        let container = |name: &str, needs: &[&str], stop_timeout| {
            let depends_on = needs.iter().map(|needed| Dependency {
                container_name: (*needed).to_owned(),
                condition: Condition::Start,
            });
            ContainerPlan {
                definition: ContainerDefinition {
                    name: name.to_owned(),
                    stop_timeout,
                    ..ContainerDefinition::default()
                },
                depends_on: depends_on.collect(),
                ..ContainerPlan::default()
            }
        };
        let mut router = container("router", &[], None);
        router.binds = ["/d/firelens/1/socket", "/home"]
            .map(|source| (source.into(), "/var/run".to_owned(), false))
            .to_vec();
        let plan = TaskPlan {
            containers: vec![
                router,
                container("app", &["router", "db"], Some(2)),
                container("db", &["router"], None),
            ],
            firelens: Some("router".to_owned()),
            ..TaskPlan::default()
        };
        let tether = Tether::of(&plan);
        let stops: Vec<_> =
            tether.stops.iter().map(|s| (s.name.as_str(), s.timeout, s.needed_by.join(" "))).collect();
        let want = [("router", 30_000, "app db"), ("app", 2_000, ""), ("db", 30_000, "app")];
        assert_eq!(stops, want.map(|(name, timeout, by)| (name, timeout, by.to_owned())));
        assert_eq!(tether.firelens, Some(PathBuf::from("/d/firelens/1")));
    }
}
