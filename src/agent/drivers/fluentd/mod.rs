//! `fluentd`: docker's driver of that name, which `awsfirelens` containers use.
//!
//! Enters: messages. Leaves: one forward message each on one connection. Without `fluentd-async` a message waits until it is
//! written, and the receiver must be there at the start. With it there is a queue that counts messages; when it is full the
//! newest is dropped, and what is in it at the end is discarded, but for what the receiver takes in the moment that dockerd
//! needs for the end of a container. Can go wrong: the receiver; what was lost is counted and said.

mod encode;
mod link;
mod settings;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::{Info, Message, Options};
use crate::rt::Tasks;
use encode::Encoder;
use link::{Link, Outgoing, Peer};
pub(super) use settings::Settings;

/// Between the end of a container's streams and the end of its driver, dockerd has the task deleted by containerd: its
/// writer goes on for about this long. Here too, unless the receiver is known to be away, and no longer than there is
/// something queued.
const LAST_MOMENT: Duration = Duration::from_millis(100);
/// Messages that the writer takes at once, and no more than this part of the queue: docker's holds one outside of it.
const BATCH: usize = 64;

/// The driver of one container.
#[derive(Debug)]
pub(in crate::agent) struct Fluentd {
    encoder: Encoder,
    ack: bool,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Sync(Box<tokio::sync::Mutex<Link>>),
    Async(Arc<Shared>),
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was queued.
    more: Notify,
    peer: Arc<Peer>,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nothing more comes; end when the queue is empty.
    Closing,
    /// End now.
    Discard,
    Ended,
}

#[derive(Debug)]
struct Queue {
    messages: VecDeque<Outgoing>,
    limit: usize,
    dropped: u64,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole whenever the lock is free.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fluentd {
    /// # Errors
    /// In docker's words: without async mode the receiver must be there.
    pub(super) async fn start(
        settings: Settings,
        options: &Options,
        info: &Info,
        tasks: &Tasks,
    ) -> Result<Fluentd, String> {
        let tag = info.tag(options, "{{.ID}}")?;
        let encoder = Encoder::new(&tag, info, &info.extra(options)?, settings.sub_second);
        let (ack, limit) = (settings.ack, settings.queue);
        let peer = Arc::new(Peer::default());
        let mut link = Link::new(settings, Arc::clone(&peer))?;
        let way = match limit {
            None => {
                link.connect().await?;
                Way::Sync(Box::new(tokio::sync::Mutex::new(link)))
            }
            Some(limit) => {
                let queue = Mutex::new(Queue { messages: VecDeque::new(), limit, dropped: 0 });
                let (phase, seen) = watch::channel(Phase::Open);
                let shared = Arc::new(Shared { queue, more: Notify::new(), peer, phase });
                tasks.spawn("fluentd log driver", write(Arc::clone(&shared), link, seen));
                Way::Async(shared)
            }
        };
        Ok(Fluentd { encoder, ack, way })
    }

    pub(super) async fn log(&self, message: &Message) {
        let chunk = self
            .ack
            .then(|| encode::chunk_id(message.time.sec, crate::net::random::<8>().unwrap_or_default()));
        let bytes = self.encoder.encode(message, chunk.as_deref());
        let outgoing = Outgoing { bytes, chunk };
        match &self.way {
            Way::Sync(link) => {
                if let Err(e) = link.lock().await.deliver(&mut VecDeque::from([outgoing])).await {
                    tracing::error!(cause = %e, "a fluentd log driver gave a message up");
                }
            }
            Way::Async(shared) => {
                let mut queue = shared.queue();
                if queue.messages.len() >= queue.limit {
                    queue.dropped += 1;
                    if queue.dropped == 1 {
                        let limit = queue.limit;
                        tracing::warn!("fluent#appendBuffer: Buffer full, limit {limit}");
                    }
                    return;
                }
                queue.messages.push_back(outgoing);
                drop(queue);
                shared.more.notify_one();
            }
        }
    }

    pub(super) async fn close(&self) {
        match &self.way {
            Way::Sync(link) => link.lock().await.close(),
            Way::Async(shared) => {
                let mut phase = shared.phase.subscribe();
                shared.phase.send_replace(Phase::Closing);
                let ended = async |phase: &mut watch::Receiver<Phase>| {
                    // The sender is ours and lives.
                    let _ended = phase.wait_for(|p| *p == Phase::Ended).await;
                };
                let mut moment = shared.phase.subscribe();
                let last_moment = async {
                    tokio::select! {
                        () = ended(&mut moment) => true,
                        () = shared.peer.news.notified() => false,
                    }
                };
                if !shared.peer.refused.load(Ordering::Relaxed)
                    && tokio::time::timeout(LAST_MOMENT, last_moment).await == Ok(true)
                {
                    return;
                }
                shared.phase.send_replace(Phase::Discard);
                ended(&mut phase).await;
            }
        }
    }
}

/// The writer of async mode.
async fn write(shared: Arc<Shared>, mut link: Link, mut phase: watch::Receiver<Phase>) {
    let mut taken = VecDeque::new();
    let discard = async {
        // The sender lives as long as the driver; without it there is nothing to wait for either.
        let _seen = phase.wait_for(|p| *p == Phase::Discard).await;
    };
    tokio::select! {
        biased;
        () = discard => {}
        () = write_all(&shared, &mut link, &mut taken) => {}
    }
    let (discarded, dropped) = {
        let mut queue = shared.queue();
        (std::mem::take(&mut queue.messages).len() + taken.len(), queue.dropped)
    };
    if discarded > 0 {
        tracing::warn!(
            discarded,
            "Discarding queued events... (as docker's fluentd driver does in async mode)"
        );
    }
    if dropped > 0 {
        tracing::warn!(dropped, "the buffer of a fluentd log driver was full; raise log-driver-buffer-limit");
    }
    link.close();
    shared.phase.send_replace(Phase::Ended);
}

/// Ends when the driver is closed and the queue is empty.
async fn write_all(shared: &Shared, link: &mut Link, taken: &mut VecDeque<Outgoing>) {
    let mut phase = shared.phase.subscribe();
    loop {
        {
            let mut queue = shared.queue();
            // Not connected: one in the hand, the rest in the queue, as docker counts them.
            let most =
                if shared.peer.connected.load(Ordering::Relaxed) { BATCH.min(queue.limit / 16) } else { 1 };
            let n = queue.messages.len().min(most.max(1));
            taken.extend(queue.messages.drain(..n));
            if queue.messages.is_empty() && queue.messages.capacity() > 1024 {
                queue.messages.shrink_to(0);
            }
        }
        if taken.is_empty() {
            if *phase.borrow_and_update() != Phase::Open {
                return;
            }
            tokio::select! {
                () = shared.more.notified() => {}
                // Its sender lives as long as the driver.
                _ = phase.changed() => {}
            }
            continue;
        }
        if let Err(e) = link.deliver(taken).await {
            tracing::error!(cause = %e, "a fluentd log driver gave a message up");
            taken.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
