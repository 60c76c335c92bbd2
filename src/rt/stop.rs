//! The stop signal: running, then draining until a deadline, then now.

use tokio::sync::watch;
use tokio::time::Instant;

/// How far the stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nobody asked to stop.
    Running,
    /// Take in what is on the way, then end. Sources should be done by `sources`, everything by `all`.
    Draining {
        /// A third of the grace period.
        sources: Instant,
        /// The end of the grace period.
        all: Instant,
    },
}

/// The half that says stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Phase>);

/// The half that listens; clone it freely.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Phase>);

impl Stopper {
    /// A pair, running.
    pub fn new() -> (Stopper, Stop) {
        let (tx, rx) = watch::channel(Phase::Running);
        (Stopper(tx), Stop(rx))
    }

    /// Begins the drain.
    pub fn drain(&self, sources: Instant, all: Instant) {
        self.0.send_replace(Phase::Draining { sources, all });
    }
}

impl Stop {
    /// Where it stands.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.phase() != Phase::Running
    }

    /// Waits for the drain to begin; gives the deadline of sources. Returns at once when it has begun already.
    pub async fn draining(&mut self) -> Instant {
        // A dropped sender means that the process is ending: as good as a drain.
        let _ = self.0.wait_for(|p| *p != Phase::Running).await;
        match self.phase() {
            Phase::Draining { sources, .. } => sources,
            Phase::Running => Instant::now(),
        }
    }
}
