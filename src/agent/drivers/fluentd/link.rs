//! The connection of docker's `fluentd` driver: one write a message, a whole message again after a failure.
//!
//! Enters: encoded messages. Leaves: they are written, and acknowledged where that was asked for. Waits grow from none to
//! 60 s between attempts to connect, as those of docker's client do. Can go wrong: only `fluentd-max-retries`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::fs::OFlags;
use tokio::sync::Notify;

use super::encode::ChunkId;
use super::settings::Settings;
use crate::net::{ClientConn, ClientTls, ClientTlsFiles, Dialer, Did, Target};
use crate::wire::forward_send::{Answer, answer};

/// Bytes of a unix socket's address.
const UNIX_PATH_MAX: usize = 107;
const DIAL: Duration = Duration::from_secs(3);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Messages that one system call takes: docker makes one each, the receiver cannot tell.
const GATHER: usize = 64;
/// Answers that nobody asked for are not kept beyond this.
const ANSWERS: usize = 4096;

/// A message on its way, and the id that its ack repeats.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    pub(super) chunk: Option<ChunkId>,
}

/// The connection, or the way to one.
pub(super) struct Link {
    settings: Settings,
    dialer: Dialer,
    conn: Option<(ClientConn, Instant)>,
    input: BytesMut,
    peer: Arc<Peer>,
}

/// What is known of the receiver.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// There is a connection.
    pub(super) connected: AtomicBool,
    /// The last attempt to connect failed.
    pub(super) refused: AtomicBool,
    /// That has just been found out.
    pub(super) news: Notify,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.dialer.target)
    }
}

impl Link {
    /// `peer` is kept true.
    pub(super) fn new(settings: Settings, peer: Arc<Peer>) -> Result<Link, String> {
        let files = ClientTlsFiles { verify: true, verify_hostname: true, ..ClientTlsFiles::default() };
        let tls = if settings.tls { Some(ClientTls::new(&files)?) } else { None };
        let dialer = Dialer {
            target: settings.target.clone(),
            via: None,
            tls,
            timeout: DIAL,
            source: None,
            keepalive: None,
        };
        Ok(Link { settings, dialer, conn: None, input: BytesMut::new(), peer })
    }

    /// One attempt.
    pub(super) async fn connect(&mut self) -> Result<(), String> {
        let (dialer, _held) = short(&self.dialer)?;
        let conn = dialer.connect().await.map_err(|e| match &self.dialer.target {
            Target::Unix(path) => format!("dial unix {path}: connect: {e}"),
            Target::Tcp(..) => format!("dial tcp {}: connect: {e}", self.dialer.target),
        })?;
        self.input.clear();
        self.conn = Some((conn, Instant::now()));
        self.peer.connected.store(true, Ordering::Relaxed);
        self.peer.refused.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.conn = None;
        self.peer.connected.store(false, Ordering::Relaxed);
    }

    async fn connect_with_retry(&mut self) -> Result<(), String> {
        for attempt in 0..self.settings.max_retries {
            match self.connect().await {
                Ok(()) => return Ok(()),
                Err(e) if attempt == 0 => {
                    self.peer.refused.store(true, Ordering::Relaxed);
                    self.peer.news.notify_one();
                    tracing::warn!(cause = %e, "cannot reach the receiver of a fluentd log driver; trying on");
                }
                Err(_) => {}
            }
            tokio::time::sleep(wait(self.settings.retry_wait, attempt)).await;
        }
        Err(format!("could not connect to fluentd after {} retries", self.settings.max_retries))
    }

    /// Sends messages, and takes away those that were sent. With acks, each waits for its own.
    ///
    /// # Errors
    /// After `fluentd-max-retries`; the first message is to be given up.
    pub(super) async fn deliver(&mut self, messages: &mut VecDeque<Outgoing>) -> Result<(), String> {
        let mut failures = 0;
        while !messages.is_empty() {
            let old = self.settings.reconnect.zip(self.conn.as_ref());
            if old.is_some_and(|(interval, (_, since))| since.elapsed() > interval) {
                self.close();
            }
            if self.conn.is_none() {
                self.connect_with_retry().await?;
            }
            let sent = match self.settings.ack {
                true => self.send_one(messages).await,
                false => self.send(messages).await,
            };
            if let Err(e) = sent {
                self.close();
                failures += 1;
                tracing::debug!(cause = %e, "a fluentd log driver sends a message once more");
                if failures >= self.settings.max_retries {
                    return Err(format!("fluent#write: failed to write after {failures} attempts"));
                }
            }
        }
        Ok(())
    }

    /// Writes as many as one call takes, from the first one's start.
    async fn send(&mut self, messages: &mut VecDeque<Outgoing>) -> io::Result<()> {
        let limit = self.settings.write_timeout;
        let mut offset = 0;
        loop {
            let Some((conn, _)) = &mut self.conn else { return Err(io::ErrorKind::NotConnected.into()) };
            let rest = |(n, m): (usize, &'_ Outgoing)| if n == 0 { offset.min(m.bytes.len()) } else { 0 };
            let slices: Vec<IoSlice<'_>> = messages
                .iter()
                .take(GATHER)
                .enumerate()
                .map(|(n, m)| IoSlice::new(m.bytes.get(rest((n, m))..).unwrap_or_default()))
                .collect();
            if slices.is_empty() {
                // TLS keeps some of it until it is told to give it away.
                return within(limit, flush(conn, &mut self.input)).await;
            }
            match within(limit, conn.step(&slices, false, &mut self.input)).await? {
                Did::Read(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Did::Read(_) => self.input.truncate(ANSWERS),
                Did::Flushed => {}
                Did::Wrote(n) => {
                    offset += n;
                    while let Some(first) = messages.front().filter(|m| m.bytes.len() <= offset) {
                        offset -= first.bytes.len();
                        messages.pop_front();
                    }
                }
            }
        }
    }

    /// Writes the first message and waits for its ack.
    async fn send_one(&mut self, messages: &mut VecDeque<Outgoing>) -> io::Result<()> {
        let (write, read) = (self.settings.write_timeout, self.settings.read_timeout);
        let Some(message) = messages.front() else { return Ok(()) };
        let Some((conn, _)) = &mut self.conn else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut rest = message.bytes.as_slice();
        while !rest.is_empty() {
            match within(write, conn.step(&[IoSlice::new(rest)], false, &mut self.input)).await? {
                Did::Read(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Did::Wrote(n) => rest = rest.get(n..).unwrap_or_default(),
                Did::Read(_) | Did::Flushed => {}
            }
        }
        within(write, flush(conn, &mut self.input)).await?;
        let want = message.chunk.as_deref().unwrap_or_default();
        let end = loop {
            match answer(&self.input) {
                Answer::Ack(id, end) if id == want.as_bytes() => break end,
                Answer::Ack(id, _) => {
                    let id = String::from_utf8_lossy(id);
                    return Err(io::Error::other(format!(
                        "fluent#write: message ack ({id}) is not that of {want}"
                    )));
                }
                Answer::Wrong(why) => return Err(io::Error::other(why)),
                Answer::NeedMore => {}
            }
            if let Did::Read(0) = within(read, conn.step(&[], false, &mut self.input)).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        drop(self.input.split_to(end));
        messages.pop_front();
        Ok(())
    }
}

/// The same, by a way that fits into the address of a unix socket: a task's directory may lie deep. What is held must be
/// kept until it is connected.
fn short(dialer: &Dialer) -> Result<(Dialer, Option<File>), String> {
    let Target::Unix(path) = &dialer.target else { return Ok((dialer.clone(), None)) };
    let (Some(dir), Some(name)) = (Path::new(path).parent(), Path::new(path).file_name()) else {
        return Ok((dialer.clone(), None));
    };
    if path.len() <= UNIX_PATH_MAX {
        return Ok((dialer.clone(), None));
    }
    let flags = (OFlags::PATH | OFlags::CLOEXEC).bits().cast_signed();
    let held = OpenOptions::new().read(true).custom_flags(flags).open(dir);
    let held = held.map_err(|e| format!("dial unix {path}: connect: {e}"))?;
    let way = format!("/proc/self/fd/{}/{}", held.as_raw_fd(), name.to_string_lossy());
    Ok((Dialer { target: Target::Unix(way), ..dialer.clone() }, Some(held)))
}

async fn flush(conn: &mut ClientConn, input: &mut BytesMut) -> io::Result<()> {
    loop {
        match conn.step(&[], true, input).await? {
            Did::Flushed => return Ok(()),
            Did::Read(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Did::Read(_) | Did::Wrote(_) => {}
        }
    }
}

async fn within<T>(limit: Option<Duration>, part: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match limit {
        None => part.await,
        Some(limit) => {
            tokio::time::timeout(limit, part).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        }
    }
}

/// How long to wait after an attempt: `wait` times the whole part of 1.5 to the power of its number less one.
fn wait(wait: Duration, attempt: u64) -> Duration {
    // Long past the cap: the power must only not overflow.
    let power = i32::try_from(attempt.min(60)).unwrap_or(60) - 1;
    wait.saturating_mul(1.5f64.powi(power) as u32).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_those_of_dockers_client() {
        let seconds: Vec<u64> = (0..14).map(|n| wait(Duration::from_secs(1), n).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 1, 2, 3, 5, 7, 11, 17, 25, 38, 57, 60, 60]);
        assert_eq!(wait(Duration::from_millis(10), u64::MAX), LONGEST_WAIT);
    }
}
