//! One task of the process runtime, as the engine sees it.
//!
//! Enters: plans of containers and what is to become of them. Leaves: their states. Can go wrong: what the supervisor says,
//! and that it is gone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::addresses;
use super::client::{self, Client};
use super::convert::{self, CONFIG};
use super::image;
use super::router;
use super::spec::{Call, Mount, Stats};
use crate::agent::drivers::random_id;
use crate::agent::firelens;
use crate::agent::plan::{ContainerPlan, TaskPlan};
use crate::agent::runtime::{Failure, States, Status, TaskHandle};
use crate::record::Time;

/// A task and its supervisor.
#[derive(Debug)]
pub struct ProcessTask {
    plan: TaskPlan,
    program: PathBuf,
    client: Client,
    /// Where its router listens.
    loopback: Option<(Ipv4Addr, addresses::Hold)>,
    /// What was last said of each container's use: docker says what it was before, too.
    used: Mutex<BTreeMap<String, Value>>,
}

impl ProcessTask {
    pub(super) fn new(
        plan: TaskPlan,
        program: PathBuf,
        client: Client,
        loopback: Option<(Ipv4Addr, addresses::Hold)>,
    ) -> Self {
        ProcessTask { plan, program, client, loopback, used: Mutex::default() }
    }

    /// Nothing is known of a container whose supervisor is gone.
    fn loopback(&self) -> Option<Ipv4Addr> {
        self.loopback.as_ref().map(|(address, _)| *address)
    }

    fn known(&self, name: &str) -> Option<Status> {
        let states = self.client.states();
        let states = states.borrow();
        states.containers.get(name).filter(|_| !states.gone).map(|c| c.status)
    }

    /// Waits until the router has its socket. Docker takes longer to start the next container than a router takes to
    /// listen; here the next one could have printed all and be gone before.
    async fn router_listens(&self, name: &str) {
        let router = self.plan.containers.iter().find(|c| c.definition.name == name);
        let run = router.and_then(|r| r.binds.iter().find(|(_, target, _)| target == "/var/run"));
        let Some((dir, ..)) = run else { return };
        firelens::listens(&dir.join("fluent.sock"), || self.known(name) == Some(Status::Exited)).await;
    }

    /// Makes the directories of volumes; docker makes those of the host that are missing, too.
    fn prepare(&self, mounts: &mut Vec<Mount>, is_router: bool) -> io::Result<()> {
        fs::create_dir_all(self.plan.dir.join("logs"))?;
        if is_router {
            let taken = |target: &Path| target.exists() || mounts.iter().any(|m| m.target == target);
            let of_image = image::mounts(&self.plan.dir, taken)?;
            // Below what the definition and whoever runs it put there.
            mounts.splice(..0, of_image);
        }
        for mount in mounts {
            let Some(source) = &mut mount.source else { continue };
            if !source.exists() {
                fs::create_dir_all(&source)?;
            }
            if is_router
                && mount.target == Path::new(CONFIG)
                && let Some(address) = self.loopback()
            {
                let text = router::on_loopback(&fs::read_to_string(&source)?, address);
                *source = self.plan.dir.join("router.conf");
                fs::write(&source, text)?;
            }
        }
        Ok(())
    }
}

impl TaskHandle for ProcessTask {
    async fn create(&self, container: &ContainerPlan) -> Result<Vec<String>, Failure> {
        let name = &container.definition.name;
        if self.known(name).is_some() {
            return Ok(Vec::new());
        }
        let (mut spec, mut warnings) = convert::spec(&self.plan, container, &self.program, random_id())?;
        let is_router = self.plan.firelens.as_deref() == Some(name);
        if let Some(check) = spec.health.as_mut().filter(|_| is_router)
            && let Some(address) = self.loopback()
        {
            check.argv = router::health_on(&check.argv, address);
        }
        self.prepare(&mut spec.mounts, is_router).map_err(|e| {
            Failure::new("CannotCreateContainerError", format!("cannot prepare container {name}: {e}"))
        })?;
        warnings.extend(self.client.call(Call::Create { spec: Box::new(spec) }).await?.warnings);
        Ok(warnings)
    }

    async fn start(&self, name: &str) -> Result<Vec<String>, Failure> {
        if self.known(name) == Some(Status::Running) {
            return Ok(Vec::new());
        }
        let done = self.client.call(Call::Start { name: name.to_owned() }).await?;
        if self.plan.firelens.as_deref() == Some(name) {
            self.router_listens(name).await;
        }
        Ok(done.warnings.into_iter().map(|warning| format!("container {name}: {warning}")).collect())
    }

    async fn stop(&self, name: &str, timeout: Duration) -> Result<(), Failure> {
        if self.client.states().borrow().gone {
            // It has ended with its supervisor.
            return Ok(());
        }
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.client.call(Call::Stop { name: name.to_owned(), timeout }).await.map(drop)
    }

    async fn address(&self, name: &str) -> Option<IpAddr> {
        let router = self.loopback().filter(|_| self.plan.firelens.as_deref() == Some(name));
        Some(IpAddr::V4(router.unwrap_or(Ipv4Addr::LOCALHOST)))
    }

    async fn stats(&self, name: &str) -> Option<Value> {
        let done = self.client.call(Call::Stats { name: name.to_owned() }).await.ok()?;
        let id = self.client.states().borrow().containers.get(name)?.id.clone();
        let plan = self.plan.containers.iter().find(|c| c.definition.name == name)?;
        let mut now = docker_stats(&plan.docker_name, &id, &done.stats?);
        // Nothing can leave the map half-changed.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let before = used.insert(name.to_owned(), now.clone()).unwrap_or_default();
        let of = |key: &str| before.get(key).cloned();
        now["preread"] = of("read").unwrap_or_else(|| json!("0001-01-01T00:00:00Z"));
        now["precpu_stats"] = of("cpu_stats").unwrap_or_else(|| json!({ "cpu_usage": { "total_usage": 0 } }));
        Some(now)
    }

    async fn last_words(&self, name: &str) -> Vec<String> {
        let done = self.client.call(Call::Words { name: name.to_owned() }).await;
        done.map(|done| done.words).unwrap_or_default()
    }

    fn states(&self) -> watch::Receiver<States> {
        self.client.states()
    }

    async fn close(&self) -> Result<(), Failure> {
        if !self.client.states().borrow().gone {
            self.client.call(Call::End).await?;
            let mut states = self.client.states();
            // Its last words are written by then; the sender is the client's and lives.
            let _gone = states.wait_for(|s| s.gone).await;
        }
        let dir = &self.plan.dir;
        let removed =
            client::clean(dir).and_then(|()| addresses::free(dir)).and_then(|()| image::remove(dir));
        removed.map_err(|e| {
            Failure::new("CannotRemoveContainerError", format!("{}: {e}", self.plan.dir.display()))
        })
    }
}

/// As docker's `/stats` has it, where a process has such a thing.
fn docker_stats(name: &str, id: &str, stats: &Stats) -> Value {
    let at = jiff::Timestamp::from_millisecond(Time::now().millis()).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    json!({
        "read": at.to_string(),
        "id": id,
        "name": format!("/{name}"),
        "pids_stats": { "current": stats.processes },
        "num_procs": 0,
        "cpu_stats": {
            "cpu_usage": { "total_usage": stats.cpu },
            "system_cpu_usage": system_cpu(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            "online_cpus": cpus,
        },
        "memory_stats": { "usage": stats.memory, "limit": stats.memory_limit, "stats": {} },
    })
}

/// Nanoseconds that all CPUs of the machine have counted, as docker adds them up: user, nice, system, idle, iowait, irq and
/// softirq of the first line of `/proc/stat`.
fn system_cpu(stat: &str) -> u64 {
    let first = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: u64 = first.split_whitespace().take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_said_as_docker_says_it() {
        let second = rustix::param::clock_ticks_per_second();
        let stat = format!("cpu  {second} 0 0 {second} 0 0 0 99 99 99\ncpu0 1 1\n");
        assert_eq!((system_cpu(&stat), system_cpu("")), (2_000_000_000, 0));
        let stats = Stats { cpu: 5, memory: 7, memory_limit: Some(9), processes: 2 };
        let said = docker_stats("ecs-shop-1-web-aa", "ab", &stats);
        assert_eq!((&said["name"], &said["id"]), (&json!("/ecs-shop-1-web-aa"), &json!("ab")));
        assert_eq!(said["memory_stats"], json!({"usage": 7, "limit": 9, "stats": {}}));
        assert!(said["cpu_stats"]["system_cpu_usage"].as_u64() > Some(0));
    }
}
