//! The loop: take deliveries, write messages, read acks, connect again.
//!
//! Enters: the output's queue. Leaves: verdicts. Can go wrong: the peer is away, slow, or does not ack; then everything
//! without a verdict is sent again, in order, after the retry policy's waits, until it works or the policy gives up. At
//! shutdown no back-off is waited out. One task, one connection, many messages in flight.

use std::io::IoSlice;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Buf;

use super::link::{self, Link};
use super::pack::Packer;
use super::window::{Acked, Window};
use crate::net::{Dialer, Did};
use crate::observe::counters::Drop as DropReason;
use crate::outputs::RetryPolicy;
use crate::rt::{Delivery, Receiver};
use crate::wire::forward_send::{Answer, answer};
use crate::wire::handshake_client::Login;

/// Byte runs of one write.
const SLICES: usize = 64;
/// Short naps within a wait, to see a shutdown.
const NAP: Duration = Duration::from_millis(100);
/// What a readable socket may take to say what it has.
const NEWS: Duration = Duration::from_millis(50);

/// Times and counts of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// How long an ack may take, counted from the message or from the last ack.
    pub(super) ack: Duration,
    /// How long a write may stand still; `None`: for ever.
    pub(super) io: Option<Duration>,
    /// Close after this idle time; `None`: at once when nothing is in flight (`net.keepalive off`).
    pub(super) idle: Option<Duration>,
    /// Connect anew after so many messages; 0: never.
    pub(super) recycle: u64,
}

/// The output.
pub(super) struct Runner {
    pub(super) dialer: Dialer,
    pub(super) login: Option<Login>,
    pub(super) packer: Packer,
    pub(super) timing: Timing,
    pub(super) retry: RetryPolicy,
    pub(super) window: Window,
    /// Why the peer cannot be reached at present; told once.
    pub(super) trouble: Option<String>,
    /// It was never connected.
    pub(super) is_new: bool,
}

/// Why a connection ended.
enum End {
    /// The queue is closed, and everything has its verdict.
    Finished,
    /// Nothing is in flight, and the connection has served its time.
    Spent(&'static str),
    /// It is of no use any more.
    Lost(String),
}

impl Runner {
    /// Runs until the queue is closed and everything has a verdict.
    pub(super) async fn run(mut self, mut queue: Receiver) {
        loop {
            if self.window.is_empty() {
                match queue.recv().await {
                    Some(delivery) => self.take(Some(delivery), &mut queue),
                    None => return,
                }
                continue;
            }
            let cause = match link::open(&self.dialer, self.login.as_ref()).await {
                Ok(mut link) => {
                    // Once: later ones come and go with load.
                    if std::mem::replace(&mut self.is_new, false) {
                        tracing::info!(output = %queue.label(), peer = %self.dialer.target, "connected");
                    }
                    match self.talk(&mut link, &mut queue).await {
                        End::Finished => return link.conn.close().await,
                        End::Spent(why) => {
                            tracing::debug!(output = %queue.label(), why, "connection closed");
                            link.conn.close().await;
                            continue;
                        }
                        End::Lost(cause) => cause,
                    }
                }
                Err(cause) => cause,
            };
            let again = self.window.lost();
            if self.window.is_empty() {
                tracing::debug!(output = %queue.label(), %cause, "an idle connection is gone");
                continue;
            }
            self.failed(&queue, cause, again).await;
            self.wait(&queue).await;
        }
    }

    /// Takes what is there now, as far as there is room, and makes messages of it.
    fn take(&mut self, mut first: Option<Delivery>, queue: &mut Receiver) {
        let mut some = false;
        while self.window.has_room()
            && let Some(delivery) = first.take().or_else(|| queue.try_recv())
        {
            self.packer.add(delivery, &mut self.window);
            some = true;
        }
        if some {
            self.packer.finish(&mut self.window);
            self.window.settle_empty();
        }
    }

    /// Counts a failed attempt, tells it if it is news, gives up what the policy says.
    async fn failed(&mut self, queue: &Receiver, cause: String, again: u64) {
        queue.counters().retries.fetch_add(1, Relaxed);
        self.window.failed();
        if self.trouble.is_none() {
            tracing::error!(output = %queue.label(), %cause, records_sent_again = again,
                "cannot send; records are kept and sent again");
        } else {
            tracing::debug!(output = %queue.label(), %cause, "still cannot send");
        }
        self.trouble = Some(cause);
        self.give_up().await;
    }

    async fn give_up(&mut self) {
        let retry = self.retry;
        let old = |d: &Delivery| retry.max_age.is_some_and(|max| d.since.elapsed() >= max);
        for delivery in self.window.give_up(|d, failures| retry.gives_up(failures) || old(d)) {
            let cause = self.trouble.clone().unwrap_or_default();
            delivery.give_up(DropReason::Retries, cause).await;
        }
    }

    /// Waits before the next attempt.
    async fn wait(&mut self, queue: &Receiver) {
        let was_closed = queue.closed();
        let mut wait = self.retry.wait(self.window.failures());
        if was_closed {
            wait = wait.min(NAP);
        }
        let end = tokio::time::Instant::now() + wait;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep_until((tokio::time::Instant::now() + NAP).min(end)).await;
            self.give_up().await;
            if self.window.is_empty() || queue.closed() && !was_closed {
                return;
            }
        }
    }

    /// The peer has taken something: the outage, if there was one, is over.
    fn progress(&mut self, queue: &Receiver) {
        if self.trouble.take().is_some() {
            tracing::info!(output = %queue.label(), peer = %self.dialer.target, "sending again");
        }
    }

    /// Uses a connection as long as it lasts.
    async fn talk(&mut self, link: &mut Link, queue: &mut Receiver) -> End {
        let acks = self.packer.acks();
        let mut ended = false;
        let mut messages = 0;
        let started = Instant::now();
        let (mut last_ack, mut last_write, mut last_use) = (started, started, started);
        loop {
            let spent = self.timing.recycle > 0 && messages >= self.timing.recycle
                || self.timing.idle.is_none() && messages > 0;
            if !spent {
                let was_empty = self.window.is_empty();
                self.take(None, queue);
                if was_empty {
                    // What comes after a quiet time is late from now on.
                    last_write = Instant::now();
                }
            }
            if self.window.is_empty() {
                if ended {
                    return End::Finished;
                }
                if spent {
                    return End::Spent("it has carried what it may");
                }
            }
            if self.window.has_unwritten()
                && !self.window.is_within()
                && (!acks || self.window.oldest_sent().is_none())
                && link.conn.has_news()
            {
                // A peer may have closed an idle connection: hear first what it has to say. Without acks a write into a
                // closed connection would be lost.
                let heard = link.conn.step(&[], false, &mut link.input);
                match tokio::time::timeout(NEWS, heard).await {
                    Ok(Ok(Did::Read(0))) => {
                        return self.gone("the peer closed the connection".into(), messages);
                    }
                    Ok(Err(e)) => return self.gone(e.to_string(), messages),
                    Ok(Ok(_)) => {
                        if let Err(cause) = self.answers(link, queue) {
                            return End::Lost(cause);
                        }
                    }
                    Err(_) => {}
                }
            }
            let due = self.due(acks, last_ack, last_write, last_use);
            let mut slices = Vec::with_capacity(SLICES);
            self.window.unwritten(&mut slices, SLICES);
            let slices: &[IoSlice<'_>] = &slices;
            let flush = self.window.is_unflushed();
            let wants = !ended && !spent && self.window.has_room();
            let event = tokio::select! {
                biased;
                did = link.conn.step(slices, flush, &mut link.input) => Event::Did(did),
                delivery = queue.recv(), if wants => Event::Delivery(delivery),
                () = until(due.map(|(at, _)| at)) => Event::Due,
            };
            let now = Instant::now();
            match event {
                Event::Did(Ok(Did::Wrote(n))) => {
                    messages += self.window.wrote(n, now);
                    (last_write, last_use) = (now, now);
                }
                Event::Did(Ok(Did::Flushed)) => {
                    self.window.flush();
                    if !acks {
                        self.progress(queue);
                    }
                }
                Event::Did(Ok(Did::Read(0))) => {
                    return self.gone("the peer closed the connection".into(), messages);
                }
                Event::Did(Ok(Did::Read(_))) => match self.answers(link, queue) {
                    Err(cause) => return End::Lost(cause),
                    Ok(true) => (last_ack, last_use) = (now, now),
                    Ok(false) => {}
                },
                Event::Did(Err(e)) => return self.gone(e.to_string(), messages),
                Event::Delivery(Some(delivery)) => {
                    if self.window.is_empty() {
                        last_write = now;
                    }
                    self.take(Some(delivery), queue);
                }
                Event::Delivery(None) => ended = true,
                Event::Due => return self.overdue(due.map(|(_, what)| what)),
            }
        }
    }

    fn overdue(&self, what: Option<Due>) -> End {
        match what {
            Some(Due::Idle) => End::Spent("it was idle"),
            Some(Due::Ack) => End::Lost(format!(
                "no ack within {:?}; see the peer's log, or raise ack_timeout",
                self.timing.ack
            )),
            Some(Due::Io) | None => End::Lost("the peer takes nothing any more (net.io_timeout)".into()),
        }
    }

    /// The connection is no more. That a peer closes one that has carried something and has nothing in flight is its
    /// right, and no failure.
    fn gone(&self, cause: String, messages: u64) -> End {
        if messages > 0 && !self.window.is_within() && self.window.oldest_sent().is_none() {
            return End::Spent("the peer closed it while it was idle");
        }
        End::Lost(cause)
    }

    /// What is to happen next by itself.
    fn due(
        &self,
        acks: bool,
        last_ack: Instant,
        last_write: Instant,
        last_use: Instant,
    ) -> Option<(Instant, Due)> {
        if self.window.is_empty() {
            return self.timing.idle.map(|idle| (last_use + idle, Due::Idle));
        }
        let ack = acks.then(|| {
            (self.window.oldest_sent().unwrap_or(last_write).max(last_ack) + self.timing.ack, Due::Ack)
        });
        let stalled = self
            .timing
            .io
            .filter(|_| self.window.has_unwritten())
            .map(|io| (last_write.max(last_ack) + io, Due::Io));
        [ack, stalled].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Reads every whole answer. Says whether an ack was among them.
    fn answers(&mut self, link: &mut Link, queue: &Receiver) -> Result<bool, String> {
        let mut good = false;
        loop {
            let end = match answer(&link.input) {
                Answer::NeedMore => break,
                Answer::Wrong(what) => return Err(format!("the peer's answer is no ack: {what}")),
                Answer::Ack(id, end) => {
                    let known = self.packer.number(id).map(|n| self.window.ack(n));
                    if known == Some(Acked::Good) {
                        good = true;
                    } else {
                        tracing::warn!(output = %queue.label(), id = %String::from_utf8_lossy(id),
                            "the peer acked what is not in flight; passed over");
                    }
                    end
                }
            };
            link.input.advance(end);
        }
        if good {
            self.progress(queue);
        }
        Ok(good)
    }
}

/// What happened on a connection.
enum Event {
    Did(std::io::Result<Did>),
    /// `None`: the queue is closed and empty.
    Delivery(Option<Delivery>),
    Due,
}

/// What is due by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    Idle,
    Ack,
    Io,
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
