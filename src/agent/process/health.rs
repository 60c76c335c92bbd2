//! Health checks, as docker makes them.
//!
//! Enters: a check. Leaves: UNKNOWN until the first success or enough failures, then HEALTHY or UNHEALTHY; `retries`
//! failures in a row are enough, those within `startPeriod` do not count before a success. Can go wrong: the check does not
//! end in time (it is killed) or cannot be started: both are failures.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch::Receiver as Watch;

use super::container::{Container, now};
use super::launch::launch;
use super::reap::Reaper;
use super::spec::HealthCheck;
use super::stage::Order;
use crate::agent::runtime::{Health, HealthStatus};

/// What is kept of a check's output.
const OUTPUT_MAX: usize = 1024;

/// What one check came to.
#[derive(Debug, PartialEq, Eq)]
struct Probe {
    code: i32,
    output: String,
}

/// Checks until the container has ended.
pub(super) async fn watch(
    container: Arc<Container>,
    check: HealthCheck,
    order: Order,
    reaper: Reaper,
    mut running: Watch<bool>,
) {
    let order = Order { argv: check.argv.clone(), ..order };
    let begun = tokio::time::Instant::now();
    let mut judge = Judge { retries: check.retries, failures: 0, health: Health::default() };
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(check.interval)) => {}
            // Its sender lives in the container.
            _ = running.wait_for(|r| !*r) => return,
        }
        let early = begun.elapsed() < Duration::from_millis(check.start_period);
        let probe = probe(&order, Duration::from_millis(check.timeout), &reaper, &mut running).await;
        if !*running.borrow() {
            return;
        }
        judge.add(probe, early, now());
        container.set_health(judge.health.clone());
    }
}

#[derive(Debug)]
struct Judge {
    retries: u32,
    failures: u32,
    health: Health,
}

impl Judge {
    fn add(&mut self, probe: Probe, early: bool, now: i64) {
        let status = if probe.code == 0 {
            self.failures = 0;
            HealthStatus::Healthy
        } else {
            if !(early && self.health.status == HealthStatus::Unknown) {
                self.failures += 1;
            }
            if self.failures >= self.retries { HealthStatus::Unhealthy } else { self.health.status }
        };
        if status != self.health.status || self.health.since == 0 {
            self.health.since = now;
        }
        self.health.status = status;
        self.health.exit_code = Some(probe.code);
        self.health.output = probe.output;
    }
}

async fn probe(order: &Order, timeout: Duration, reaper: &Reaper, running: &mut Watch<bool>) -> Probe {
    let broken = |text: String| Probe { code: -1, output: text };
    let pipe = || {
        let (out, end) = io::pipe()?;
        let again = end.try_clone()?;
        Ok::<_, io::Error>((Receiver::from_owned_fd(out.into())?, end, again))
    };
    let (out, end, again) = match pipe() {
        Ok(pipe) => pipe,
        Err(e) => return broken(format!("cannot make a pipe: {e}")),
    };
    let started = match launch(order, end.into(), again.into(), reaper).await {
        Ok(started) => started,
        Err(e) => return Probe { code: e.code, output: e.text },
    };
    let mut output = Vec::new();
    let both = async {
        read(&out, &mut output).await;
        started.exit.await
    };
    let code = tokio::select! {
        code = both => Some(code),
        () = tokio::time::sleep(timeout) => None,
        _ = running.wait_for(|r| !*r) => None,
    };
    if let Some(pid) = Pid::from_raw(started.pid) {
        // What it left behind; there may be none.
        let _none = kill_process_group(pid, Signal::KILL);
    }
    match code {
        Some(code) => Probe { code, output: String::from_utf8_lossy(&output).into_owned() },
        None => broken(format!("Health check exceeded timeout ({timeout:?})")),
    }
}

/// Reads to the end and keeps the start.
async fn read(out: &Receiver, kept: &mut Vec<u8>) {
    let mut bytes = [0; 1024];
    loop {
        match out.try_read(&mut bytes) {
            Ok(0) => return,
            Ok(n) => {
                let room = OUTPUT_MAX - kept.len();
                kept.extend_from_slice(bytes.get(..n.min(room)).unwrap_or_default());
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if out.readable().await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(codes: &[(i32, bool)]) -> Vec<HealthStatus> {
        let mut judge = Judge { retries: 2, failures: 0, health: Health::default() };
        codes
            .iter()
            .map(|(code, early)| {
                judge.add(Probe { code: *code, output: String::new() }, *early, 1);
                judge.health.status
            })
            .collect()
    }

    #[test]
    fn failures_in_a_row_count_after_the_start_period_or_a_success() {
        use HealthStatus::{Healthy, Unhealthy, Unknown};
        assert_eq!(
            states(&[(1, true), (1, true), (1, false), (1, false)]),
            [Unknown, Unknown, Unknown, Unhealthy]
        );
        assert_eq!(
            states(&[(0, true), (1, true), (1, true), (0, false)]),
            [Healthy, Healthy, Unhealthy, Healthy]
        );
        assert_eq!(states(&[(1, false), (0, false), (1, false)]), [Unknown, Healthy, Healthy]);
    }
}
