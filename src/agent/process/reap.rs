//! Children that have ended, our own and those that lost their parents.
//!
//! Enters: SIGCHLD. Leaves: exit codes as docker counts them, to whoever waits. A child is watched before anything can
//! have reaped it, because both happen on one thread. Nothing can go wrong.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustix::process::{WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Whoever waits, by process id.
#[derive(Clone, Debug, Default)]
pub(super) struct Reaper(Arc<Mutex<HashMap<i32, oneshot::Sender<i32>>>>);

/// The exit code of a process, when it comes: its own, or 128 and the signal.
#[derive(Debug)]
pub(super) struct Exit(oneshot::Receiver<i32>);

impl Future for Exit {
    type Output = i32;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<i32> {
        // The reaper lives as long as the supervisor; -1 is what docker shows where nothing is known.
        Pin::new(&mut self.0).poll(cx).map(|code| code.unwrap_or(-1))
    }
}

impl Reaper {
    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<i32>>> {
        // The map is whole whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call it before anything is awaited after the process was made.
    pub(super) fn watch(&self, pid: i32) -> Exit {
        let (tell, exit) = oneshot::channel();
        self.waiting().insert(pid, tell);
        Exit(exit)
    }

    /// Collects for ever.
    pub(super) async fn run(self, mut children: Signal) {
        loop {
            self.collect();
            if children.recv().await.is_none() {
                return;
            }
        }
    }

    fn collect(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(tell) = self.waiting().remove(&pid.as_raw_nonzero().get()) {
                // Nobody may be interested any more.
                let _gone = tell.send(code(status));
            }
        }
    }
}

/// Listens for SIGCHLD from now on.
///
/// # Errors
/// The runtime's.
pub(super) fn children() -> std::io::Result<Signal> {
    signal(SignalKind::child())
}

fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|s| 128 + s)).unwrap_or(-1)
}
