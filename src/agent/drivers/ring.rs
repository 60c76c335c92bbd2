//! `mode=non-blocking`: a ring between a container and its driver.
//!
//! Enters: messages, never waited for. Leaves: the same to the driver. Bytes of lines are counted; when a message does not
//! fit, it is the one that is dropped (one that is larger than the ring is taken when the ring is empty). What is left at
//! the end is given to the driver. Can go wrong: a slow driver; what was dropped is counted and said once at the end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::{Driver, Message};
use crate::rt::Tasks;

/// The ring with the driver behind it.
#[derive(Debug)]
pub(in crate::agent) struct Ring {
    shared: Arc<Shared>,
    part: usize,
    done: Mutex<Option<oneshot::Receiver<()>>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    limit: usize,
    closed: bool,
    dropped: u64,
}

impl Queue {
    fn push(&mut self, message: Message) {
        let size = message.line.len();
        if self.closed || self.bytes + size > self.limit && !self.messages.is_empty() {
            self.dropped += 1;
            return;
        }
        self.bytes += size;
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.line.len();
        Some(message)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole whenever the lock is free.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    pub(super) fn start(driver: Driver, limit: usize, tasks: &Tasks) -> Ring {
        let queue = Mutex::new(Queue { limit, ..Queue::default() });
        let shared = Arc::new(Shared { queue, changed: Notify::new() });
        let (ended, done) = oneshot::channel();
        let part = driver.part();
        tasks.spawn("log ring", pump(Arc::clone(&shared), driver, ended));
        Ring { shared, part, done: Mutex::new(Some(done)) }
    }

    pub(super) fn part(&self) -> usize {
        self.part
    }

    pub(super) fn log(&self, message: Message) {
        self.shared.queue().push(message);
        self.shared.changed.notify_one();
    }

    pub(super) async fn close(&self) {
        self.shared.queue().closed = true;
        self.shared.changed.notify_one();
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done {
            // A pump that is gone has nothing left to say.
            let _ended = done.await;
        }
    }
}

async fn pump(shared: Arc<Shared>, driver: Driver, ended: oneshot::Sender<()>) {
    loop {
        let (message, closed) = {
            let mut queue = shared.queue();
            (queue.pop(), queue.closed)
        };
        match message {
            // The driver in a ring is never a ring: the box only says so to the compiler.
            Some(message) => Box::pin(driver.log(message)).await,
            None if closed => break,
            None => shared.changed.notified().await,
        }
    }
    Box::pin(driver.close()).await;
    let dropped = shared.queue().dropped;
    if dropped > 0 {
        tracing::warn!(
            dropped,
            "the ring of a non-blocking log driver was full; a larger max-buffer-size keeps more"
        );
    }
    // Whoever waited may have gone.
    let _gone = ended.send(());
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::*;
    use crate::record::Time;

    fn message(length: usize) -> Message {
        Message { line: vec![b'x'; length], source: Source::Stdout, time: Time::default(), partial: None }
    }

    #[test]
    fn the_newest_is_dropped_and_one_that_is_too_large_is_taken_when_the_ring_is_empty() {
        let mut queue = Queue { limit: 10, ..Queue::default() };
        queue.push(message(50));
        queue.push(message(0));
        assert_eq!((queue.messages.len(), queue.dropped), (1, 1));
        queue.pop().unwrap();
        assert_eq!(queue.bytes, 0);
        for length in [6, 5, 4, 0, 1] {
            queue.push(message(length));
        }
        let lengths: Vec<usize> = std::iter::from_fn(|| queue.pop()).map(|m| m.line.len()).collect();
        assert_eq!((lengths, queue.dropped), (vec![6, 4, 0], 3));
    }

    #[tokio::test]
    async fn what_is_in_it_at_the_end_is_given_to_the_driver() {
        let dir = tempfile::tempdir().unwrap();
        let info = super::super::Info { log_path: dir.path().join("log"), ..Default::default() };
        let options = super::super::options::of(&[("mode", "non-blocking")]);
        let driver = Driver::start("json-file", &options, &info, &Tasks::new()).await.unwrap();
        for _ in 0..100 {
            driver.log(message(3)).await;
        }
        driver.close().await;
        assert_eq!(std::fs::read_to_string(&info.log_path).unwrap().lines().count(), 100);
    }
}
