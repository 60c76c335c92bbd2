//! What is done in a container's network before its first instruction: the agent opens its endpoints there.
//!
//! Enters: a task, a container's name, a process of its network. Leaves: whatever the callback does. Can go wrong: that; the
//! container starts without it, with a warning.

use std::fmt;
use std::sync::Arc;

use crate::agent::plan::TaskPlan;

type Open = dyn Fn(&TaskPlan, &str, i32) -> Result<(), String> + Send + Sync;

/// Called once for each container that has a network of its own or of its task, also when the agent finds a task again. In
/// awsvpc mode all containers have the same network, and are named one after another with the same process.
#[derive(Clone)]
pub struct Door(Arc<Open>);

impl Door {
    /// Calls `open`, whose error says why it could not be done.
    pub fn new(open: impl Fn(&TaskPlan, &str, i32) -> Result<(), String> + Send + Sync + 'static) -> Door {
        Door(Arc::new(open))
    }

    /// Gives a warning where it could not be done.
    pub(super) fn open(&self, task: &TaskPlan, name: &str, pid: i32) -> Option<String> {
        let opened = (self.0)(task, name, pid);
        opened.err().map(|e| format!("container {name} has no endpoints of the agent in its network: {e}"))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}
