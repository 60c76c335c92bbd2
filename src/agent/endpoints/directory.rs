//! Who there is: the tasks whose containers may ask, and by which ids they are known.
//!
//! Enters: plans, task handles, views. Leaves: what is known of a task at a moment. Can go wrong: nobody has the id.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::limit::Limit;
use super::role::{Role, Roles};
use crate::agent::engine::View;
use crate::agent::plan::TaskPlan;
use crate::agent::runtime::{ContainerState, States, TaskHandle};
use crate::rt::Tasks;

/// An id has so many characters at most; what is longer is nobody's.
const ID_MAX: usize = 64;

/// The tasks whose containers may ask. A directory serves one listener or many: who is to see one task alone gets a
/// directory of its own.
#[derive(Debug)]
pub struct Directory {
    tasks: Mutex<Vec<Arc<Entry>>>,
    roles: Roles,
    pub(super) spawner: Tasks,
    pub(super) limit: Limit,
}

impl Directory {
    /// An empty one. What runs in the background belongs to `tasks`.
    pub fn new(tasks: &Tasks) -> Arc<Directory> {
        Directory::with(Roles::default(), tasks)
    }

    pub(super) fn with(roles: Roles, tasks: &Tasks) -> Arc<Directory> {
        Arc::new(Directory {
            tasks: Mutex::default(),
            roles,
            spawner: tasks.clone(),
            limit: Limit::default(),
        })
    }

    /// A task is there, until what this gives is dropped. Its role is taken on at once, so that nobody has to wait for it.
    pub fn list<T: TaskHandle>(self: &Arc<Self>, plan: &TaskPlan, task: &Arc<T>) -> Listed {
        let role = plan.role.as_ref().map(|role| Role::new(&self.roles, role, &plan.id, &self.spawner));
        if let Some(role) = &role {
            role.begin();
        }
        let entry = Arc::new(Entry {
            plan: plan.clone(),
            view: watch::Sender::new(View::default()),
            states: task.states(),
            source: Box::new(Handle(Arc::clone(task))),
            role,
        });
        self.tasks().push(Arc::clone(&entry));
        Listed { directory: Arc::clone(self), entry }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Entry>>> {
        // Nothing can leave the list half-changed.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task of a container, and which of its containers it is.
    pub(super) fn container(&self, endpoint_id: &str) -> Option<(Arc<Entry>, usize)> {
        if endpoint_id.is_empty() || endpoint_id.len() > ID_MAX {
            return None;
        }
        self.tasks().iter().find_map(|entry| {
            let at = entry.plan.containers.iter().position(|c| c.endpoint_id == endpoint_id)?;
            Some((Arc::clone(entry), at))
        })
    }

    /// The role whose credentials have this id.
    pub(super) fn role(&self, credentials_id: &str) -> Option<Arc<Role>> {
        let of = |entry: &Arc<Entry>| entry.role.clone().filter(|_| !credentials_id.is_empty());
        self.tasks().iter().filter_map(of).find(|role| role.id() == credentials_id)
    }
}

/// A task in a directory. Dropped, it is not there any more.
#[derive(Debug)]
pub struct Listed {
    directory: Arc<Directory>,
    entry: Arc<Entry>,
}

impl Listed {
    /// How the task is now.
    pub fn show(&self, view: &View) {
        self.entry.view.send_replace(view.clone());
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.directory.tasks().retain(|entry| !Arc::ptr_eq(entry, &self.entry));
    }
}

/// What is known of a task, and where more can be asked for.
pub(super) struct Entry {
    pub(super) plan: TaskPlan,
    view: watch::Sender<View>,
    states: watch::Receiver<States>,
    source: Box<dyn Source>,
    role: Option<Arc<Role>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({})", self.plan.arn)
    }
}

/// A task at a moment.
pub(super) struct Snapshot<'a> {
    pub(super) plan: &'a TaskPlan,
    pub(super) view: &'a View,
    pub(super) states: &'a States,
    /// Of containers of which the runtime has not said how they are connected.
    pub(super) addresses: &'a BTreeMap<String, IpAddr>,
}

impl Entry {
    /// Looks at the task as it is now.
    pub(super) async fn look<R>(&self, look: impl FnOnce(&Snapshot<'_>) -> R) -> R {
        let (view, states) = (self.view.borrow().clone(), self.states.borrow().clone());
        let mut addresses = BTreeMap::new();
        let told = |state: &ContainerState| state.made.as_ref().is_some_and(|made| !made.networks.is_empty());
        for (name, _) in states.containers.iter().filter(|(_, state)| !told(state)) {
            if let Some(address) = self.source.address(name.clone()).await {
                addresses.insert(name.clone(), address);
            }
        }
        look(&Snapshot { plan: &self.plan, view: &view, states: &states, addresses: &addresses })
    }

    /// The runtime's id of a container that has been made.
    pub(super) fn runtime_id(&self, at: usize) -> Option<String> {
        let name = &self.plan.containers.get(at)?.definition.name;
        let states = self.states.borrow();
        states.containers.get(name).map(|state| state.id.clone()).filter(|id| !id.is_empty())
    }

    /// What a container uses; null where nobody knows.
    pub(super) async fn stats(&self, at: usize) -> Value {
        let Some(container) = self.plan.containers.get(at) else { return Value::Null };
        self.source.stats(container.definition.name.clone()).await.unwrap_or_default()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A task handle of any runtime.
trait Source: Send + Sync {
    fn address(&self, name: String) -> Boxed<'_, Option<IpAddr>>;
    fn stats(&self, name: String) -> Boxed<'_, Option<Value>>;
}

struct Handle<T>(Arc<T>);

impl<T: TaskHandle> Source for Handle<T> {
    fn address(&self, name: String) -> Boxed<'_, Option<IpAddr>> {
        Box::pin(async move { self.0.address(&name).await })
    }

    fn stats(&self, name: String) -> Boxed<'_, Option<Value>> {
        Box::pin(async move { self.0.stats(&name).await })
    }
}
