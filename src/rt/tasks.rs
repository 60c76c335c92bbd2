//! Supervised tasks: every one has a name, and a panic in one is noticed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    panicked: AtomicUsize,
    changed: Notify,
}

/// A group of tasks that ends together. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Shared>);

struct Guard(Arc<Shared>, String);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.fetch_add(1, Ordering::SeqCst);
            tracing::error!(task = %self.1, "task panicked");
        }
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` on the runtime under a name.
    pub fn spawn(&self, name: impl Into<String>, future: impl Future<Output = ()> + Send + 'static) {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let guard = Guard(Arc::clone(&self.0), name.into());
        #[allow(clippy::disallowed_methods, reason = "the one place that may spawn: the guard supervises")]
        drop(tokio::spawn(async move {
            let _guard = guard;
            future.await;
        }));
    }

    /// Runs `work` on a thread of its own under a name.
    ///
    /// # Errors
    /// The system's, when it has no thread left.
    pub fn thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let guard = Guard(Arc::clone(&self.0), name.to_owned());
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _guard = guard;
                work();
            })
            .map(drop)
    }

    /// How many are running.
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::SeqCst)
    }

    /// How many ended by a panic.
    pub fn panicked(&self) -> usize {
        self.0.panicked.load(Ordering::SeqCst)
    }

    /// Waits until none is running.
    pub async fn all_ended(&self) {
        self.until(|| self.running() == 0).await;
    }

    /// Waits until one has panicked.
    pub async fn any_panicked(&self) {
        self.until(|| self.panicked() > 0).await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done() {
                return;
            }
            changed.await;
        }
    }
}
