//! One connection of the forward input.
//!
//! Enters: bytes. Leaves: records to the intake, acks to the client. Can go wrong: what [`Fatal`] says, the client goes
//! away, an output fails a chunk: then the connection is closed without the ack and the client sends again. No other
//! connection notices.
//!
//! An idle connection holds no buffer. Before bytes are read the byte budget is asked; within a frame one connection at
//! a time may pass it, so that some frame always completes. Above a limit the socket is not read, never closed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::Instant;

use super::frames::{self, Settings};
use super::repeats::{Claim, Met, Repeat, Sender};
use super::room::{Room, Wish, is_ready, room_to_read};
use crate::inputs::{InputContext, Intake};
use crate::net::Conn;
use crate::record::{AckWait, Verdict};
use crate::rt::Charge;
use crate::wire::forward::{Decoder, Fatal, Next, ack};

/// One read. Small enough that 500 connections fit the budget and take turns, large enough to cost little.
pub(super) const READ: usize = 64 * 1024;
/// A drain ends when the client has been quiet this long.
const QUIET: Duration = Duration::from_millis(200);
/// A rest of a read up to this size is moved to a buffer of its own size.
const SMALL: usize = 8 * 1024;
/// Flushes whose verdicts are awaited on one connection; beyond it no more is read until some have theirs.
const MAX_DUE: usize = 4096;
/// Bytes of acks that the client has not taken; beyond it no more is read until it takes some. Clients write all they have
/// before they read their acks: of small chunks that can be tens of thousands.
const MAX_UNWRITTEN: usize = 1 << 20;
/// What an ack takes besides its bytes.
const OVERHEAD: usize = 64;
/// When nothing more is read, a client has this long to take acks, each time that it takes none.
const TAKING: Duration = Duration::from_secs(5);
/// How long the right to pass the budget is kept while what was read with it waits for an output.
const PASSED: Duration = Duration::from_millis(100);
/// A frame whose client is quiet within it this long gives up its memory, by closing its connection, if others wait for it.
const STALLED: Duration = Duration::from_secs(10);

/// Frames that wait for the same verdict.
struct Due {
    wait: Wait,
    /// Encoded acks, one for each frame.
    acks: Vec<Vec<u8>>,
}

enum Wait {
    /// Of one flush.
    Own(AckWait, Vec<Claim>),
    /// A frame that is inside already, from another connection.
    Repeat(Arc<Repeat>),
}

impl Due {
    fn verdict(&self) -> Verdict {
        match &self.wait {
            Wait::Own(wait, _) => wait.verdict(),
            Wait::Repeat(repeat) => repeat.verdict(),
        }
    }
}

/// An ack that the socket has not taken, or not all of it.
struct Unwritten {
    bytes: Vec<u8>,
    /// Bytes that are written.
    at: usize,
    /// With the last ack of a flush.
    claims: Vec<Claim>,
}

/// Of the frames that are collected for one flush.
#[derive(Default)]
struct Wanted {
    /// Encoded acks.
    acks: Vec<Vec<u8>>,
    claims: Vec<Claim>,
}

/// Why a connection ended.
enum End {
    /// The client closed it, or it is gone.
    Eof,
    /// Its bytes cannot be followed.
    Fatal(Fatal),
    /// An output gave up a chunk that was to be acked.
    AckFailed,
    /// The process stops and the client was quiet.
    Drained,
    /// The process stops and the client was still sending.
    Cut,
    /// A partial frame stood still while others waited for room.
    Stalled,
    /// The socket failed.
    Io(std::io::Error),
}

pub(super) struct Connection {
    cx: InputContext,
    settings: Arc<Settings>,
    conn: Conn,
    intake: Box<dyn Intake>,
    settled: Arc<Notify>,
    decoder: Decoder,
    buf: BytesMut,
    /// What the buffer takes of the budget.
    charge: Charge,
    /// Held while the buffer is past the budget.
    oversize: Option<OwnedSemaphorePermit>,
    /// Bytes of the frame at hand that must be there before another look.
    need: usize,
    due: VecDeque<Due>,
    /// Acks of what is settled, in order.
    unwritten: VecDeque<Unwritten>,
    /// What they take of the budget.
    unwritten_charge: Charge,
    sender: Sender,
    /// The turn of the last read, kept while the rest of its frame is coming.
    turn: Option<OwnedSemaphorePermit>,
}

impl Connection {
    pub(super) fn new(cx: InputContext, settings: Arc<Settings>, sender: Sender, conn: Conn) -> Self {
        let intake = cx.intake();
        Connection {
            settled: intake.settled(),
            intake,
            decoder: Decoder::new(settings.max_frame),
            buf: BytesMut::new(),
            charge: cx.budget.take(0),
            oversize: None,
            need: 1,
            due: VecDeque::new(),
            unwritten: VecDeque::new(),
            unwritten_charge: cx.budget.take(0),
            sender,
            turn: None,
            cx,
            settings,
            conn,
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn serve(mut self, received: BytesMut) {
        self.buf = received;
        let end = match self.flush_frames().await {
            Ok(()) => self.read_to_end().await,
            Err(end) => end,
        };
        let peer = self.conn.peer().to_owned();
        let label = self.cx.label.clone();
        let within = self.buf.len();
        if within > 0 && !matches!(end, End::Fatal(_)) {
            self.cx.totals.pipeline.cut_frames.fetch_add(1, Relaxed);
        }
        match &end {
            End::Eof | End::Drained if within > 0 => {
                tracing::warn!(input = %label, %peer, bytes = within, "connection ended within a frame: what was in it comes only if the client sends it again");
            }
            End::Eof | End::Drained => {}
            End::Fatal(fatal) => {
                self.cx.totals.pipeline.broken_connections.fetch_add(1, Relaxed);
                tracing::warn!(input = %label, %peer, cause = %fatal, "connection closed");
            }
            End::AckFailed => {
                tracing::warn!(input = %label, %peer, "connection closed: an output gave up a chunk that waits for an ack")
            }
            End::Cut => {
                tracing::warn!(input = %label, %peer, "connection closed at shutdown while the client was still sending")
            }
            End::Stalled => {
                self.cx.totals.pipeline.broken_connections.fetch_add(1, Relaxed);
                tracing::warn!(input = %label, %peer, bytes = within, "connection closed: a frame stood still within while others waited for memory");
            }
            End::Io(e) if within > 0 => {
                tracing::warn!(input = %label, %peer, bytes = within, cause = %e, "connection lost within a frame: what was in it comes only if the client sends it again");
            }
            End::Io(e) => tracing::debug!(input = %label, %peer, cause = %e, "connection lost"),
        }
        self.buf = BytesMut::new();
        self.oversize = None;
        self.charge.shrink_to(0);
        self.intake.finish().await;
        let may_write = matches!(end, End::Eof | End::Drained | End::Cut);
        if !may_write {
            self.conn.close();
        }
        if !matches!(end, End::Drained | End::Cut) {
            // They are told where the first came, or where the client sends once more: no memory is kept for them, so
            // nothing else bounds how many connections would wait.
            self.due.retain(|due| matches!(due.wait, Wait::Own(..)));
        }
        self.last_acks(may_write).await;
    }

    /// Acks that are still due when nothing more is read. Those that nobody can hear are awaited as well: a client that
    /// sends the chunk again on another connection gets its answer there. The pipeline's deadline bounds the wait.
    async fn last_acks(&mut self, mut may_write: bool) {
        loop {
            let settled = Arc::clone(&self.settled);
            let wake = settled.notified();
            if may_write && self.write_acks().is_err() {
                may_write = false;
                // Who still listens must learn that no more acks come.
                self.conn.close();
            }
            if !may_write {
                self.settle_unwritten();
            }
            let unsent = may_write && self.has_unwritten();
            if self.due.is_empty() && !unsent {
                return;
            }
            tokio::select! {
                () = wake, if !self.due.is_empty() => {}
                // An error shows at the next write.
                _ = self.conn.writable(), if unsent => {}
                () = tokio::time::sleep(TAKING), if unsent => {
                    let acks = self.unwritten.len();
                    tracing::warn!(input = %self.cx.label, peer = %self.conn.peer(), acks, "the client does not take its acks: the connection is closed, and what they are for comes once more if it sends it again");
                    may_write = false;
                    self.conn.close();
                }
            }
        }
    }

    /// Whether something is to be written as soon as the socket takes it.
    fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty() || self.conn.has_unsent()
    }

    /// Verdicts of what nobody hears about on this connection any more.
    fn settle_unwritten(&mut self) {
        let sender = &mut self.sender;
        for ack in self.unwritten.drain(..) {
            sender.delivered(ack.claims, false);
        }
        self.unwritten_charge.shrink_to(0);
        self.due.retain_mut(|due| match (due.verdict(), &mut due.wait) {
            (Verdict::Pending, _) => true,
            (Verdict::Delivered, Wait::Own(_, claims)) => {
                sender.delivered(std::mem::take(claims), false);
                false
            }
            (Verdict::Delivered | Verdict::Failed, _) => false,
        });
    }

    async fn read_to_end(&mut self) -> End {
        let mut stop = self.cx.stop.clone();
        // Set once the process stops: when to stop reading, whatever comes.
        let mut last_call: Option<Instant> = None;
        // Set once the peer's writes fail: what is left in the socket is read to its end.
        let mut reading_ends = false;
        loop {
            if let Err(end) = self.write_acks() {
                return end;
            }
            let deadline = self.intake.deadline();
            let expire = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let cut = async {
                match last_call {
                    Some(at) if !reading_ends => tokio::time::sleep_until(at).await,
                    _ => std::future::pending().await,
                }
            };
            // A client may write on while it does not read: its acks wait for it.
            let has_unwritten = self.has_unwritten();
            let may_read = self.due.len() < MAX_DUE && self.unwritten_charge.bytes() < MAX_UNWRITTEN as u64;
            if !may_read {
                // Others do not wait for a client that is slow to take its acks.
                self.turn = None;
            }
            let stalled = async {
                match self.buf.is_empty() {
                    false => tokio::time::sleep(STALLED).await,
                    true => std::future::pending().await,
                }
            };
            let wish = Wish {
                buffered: self.buf.len(),
                need: self.need,
                charged: self.charge.bytes(),
                max_frame: self.settings.max_frame,
                has_oversize: self.oversize.is_some(),
                quiet: (last_call.is_some() && !reading_ends).then_some(QUIET),
            };
            // What is due comes before reading: a client that never pauses must not keep it waiting.
            tokio::select! {
                biased;
                () = self.settled.notified(), if !self.due.is_empty() => {}
                taken = self.conn.writable(), if has_unwritten => {
                    if let Err(e) = taken {
                        return End::Io(e);
                    }
                }
                at = stop.draining(), if last_call.is_none() => last_call = Some(at),
                () = expire => self.intake.expire().await,
                () = cut => {
                    if !self.end_reading() {
                        return End::Cut;
                    }
                    reading_ends = true;
                }
                room = room_to_read(&self.cx, &self.conn, wish, self.turn.take()), if may_read => {
                    let room = match room {
                        Err(e) => return End::Io(e),
                        Ok(Room::Quiet) => {
                            if !self.end_reading() {
                                return if self.buf.is_empty() { End::Drained } else { End::Cut };
                            }
                            reading_ends = true;
                            continue;
                        }
                        Ok(Room::Granted(grant)) => grant,
                    };
                    self.charge.merge(room.charge);
                    if room.oversize.is_some() {
                        self.oversize = room.oversize;
                    }
                    if self.buf.capacity() < room.target {
                        // Not `reserve`: that may take twice what was asked for, and hundreds of connections that each have a
                        // part of a frame would then hold twice the budget.
                        let mut larger = BytesMut::with_capacity(room.target);
                        larger.extend_from_slice(&self.buf);
                        self.buf = larger;
                    }
                    self.charge.grow_to(self.buf.capacity() as u64);
                    match self.conn.try_read(&mut self.buf, room.most) {
                        Ok(0) => return End::Eof,
                        Ok(_) => {
                            if let Err(end) = self.pass_on(room.turn).await {
                                return end;
                            }
                        }
                        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => drop(self.give_back()),
                        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return End::Eof,
                        Err(e) => return End::Io(e),
                    }
                }
                () = stalled => {
                    // While bytes wait in the socket it is the client who waits for us, however long an output needs.
                    let quiet = !is_ready(self.conn.readable());
                    if quiet && (self.oversize.is_some() || self.cx.budget.waiting() > 0) {
                        return End::Stalled;
                    }
                }
            }
        }
    }

    /// On a unix socket nothing more can be written to us from here on (the client gets EPIPE), and what was written
    /// is still read. Says whether that could be done.
    fn end_reading(&self) -> bool {
        self.conn.shutdown_read()
    }

    /// Gives back what the budget lent for a read and is not needed for what is buffered; the right to pass the budget
    /// is the caller's to drop.
    fn give_back(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
            self.need = 1;
            self.charge.shrink_to(0);
            return self.oversize.take();
        }
        if self.buf.len() <= SMALL {
            // The beginning of a frame: 500 clients that are each within a line must not hold a read's worth of memory each,
            // nor what is left of the frame before.
            self.buf = BytesMut::from(self.buf.as_ref());
        }
        self.charge.shrink_to(self.buf.capacity() as u64);
        if self.charge.bytes() <= READ as u64 { self.oversize.take() } else { None }
    }

    /// Passes on what was read; then the outputs have their turn, then the next connection. A turn is not kept while an
    /// output makes this connection wait: that is no reason for others to wait.
    async fn pass_on(&mut self, turn: Option<OwnedSemaphorePermit>) -> Result<(), End> {
        let passed = {
            let mut passing = std::pin::pin!(self.flush_frames());
            tokio::select! {
                biased;
                passed = passing.as_mut() => passed,
                () = tokio::task::yield_now() => {
                    drop(turn);
                    return passing.await;
                }
            }
        };
        if self.buf.len() > SMALL && self.buf.len() + READ < self.need {
            // Well within a large frame: hundreds of connections that each have a part of one would fill the memory. Not at
            // its beginning, which came with the end of the one before: outputs take that first.
            self.turn = turn;
        } else {
            tokio::task::yield_now().await;
        }
        passed
    }

    /// Decodes every whole frame in the buffer and passes the records on.
    async fn flush_frames(&mut self) -> Result<(), End> {
        let mut wanted = Wanted::default();
        let mut fatal = None;
        loop {
            if self.buf.len() < self.need {
                break;
            }
            match self.decoder.next(&self.buf) {
                Ok(Next::Incomplete { need }) => {
                    self.need = need;
                    break;
                }
                Ok(Next::Heartbeat { end }) => drop(self.buf.split_to(end)),
                Ok(Next::Bad { end, reason, chunk }) => {
                    wanted.acks.extend(chunk.and_then(|c| self.buf.get(c)).map(ack));
                    let (label, peer) = (&self.cx.label, self.conn.peer());
                    let bytes = self.buf.split_to(end);
                    frames::bad(self.intake.as_mut(), &self.settings, label, peer, reason, &bytes);
                }
                Ok(Next::Frame(frame)) => {
                    if let Some(odd) = frame.odd {
                        self.cx.totals.pipeline.odd_options.fetch_add(1, Relaxed);
                        tracing::warn!(input = %self.cx.label, peer = %self.conn.peer(), "a frame's options cannot be used: {odd}; its records are taken");
                    }
                    let chunk = frame.chunk.clone().and_then(|c| self.buf.get(c)).map(ack);
                    let bytes = self.buf.split_to(frame.end);
                    if let Some(ack) = chunk
                        && !self.is_new(&bytes, ack, &mut wanted).await?
                    {
                        self.need = 1;
                        continue;
                    }
                    frames::take(
                        self.intake.as_mut(),
                        &self.settings,
                        &self.cx.label,
                        self.conn.peer(),
                        &frame,
                        bytes,
                    );
                    // A large payload keeps its read buffer alive: pass it on before the next one is decoded.
                    if self.intake.collected() >= READ {
                        self.flush(&mut wanted).await?;
                    }
                }
                Err(e) => {
                    fatal = Some(e);
                    break;
                }
            }
            self.need = 1;
        }
        // The read's memory is given back before the wait for an output: it is the records that wait, once.
        let passed = self.give_back();
        let flush = self.flush(&mut wanted);
        tokio::pin!(flush);
        // What was read past the budget waits with the right to do so: else one connection after the other would pass it,
        // and all of them would wait. Not for ever: an output may be dead, and others' sources need that right.
        let done = match passed {
            Some(passed) => {
                let done = tokio::time::timeout(PASSED, flush.as_mut()).await;
                drop(passed);
                done.ok()
            }
            None => None,
        };
        match done {
            Some(done) => done?,
            None => flush.await?,
        }
        fatal.map_or(Ok(()), |f| Err(End::Fatal(f)))
    }

    /// Whether a frame that asks for an ack is to be taken; a repeat of one that is inside only waits with it.
    async fn is_new(&mut self, frame: &[u8], ack: Vec<u8>, wanted: &mut Wanted) -> Result<bool, End> {
        match self.sender.meet(&self.conn, frame, &self.settled) {
            Met::New(claim) => {
                wanted.claims.extend(claim);
                wanted.acks.push(ack);
                return Ok(true);
            }
            // Acked with those before it.
            Met::Delivered => wanted.acks.push(ack),
            Met::Repeat(repeat) => {
                self.flush(wanted).await?;
                self.due.push_back(Due { wait: Wait::Repeat(repeat), acks: vec![ack] });
            }
        }
        self.cx.totals.pipeline.repeated_chunks.fetch_add(1, Relaxed);
        Ok(false)
    }

    async fn flush(&mut self, wanted: &mut Wanted) -> Result<(), End> {
        let wants_ack = !wanted.acks.is_empty();
        if self.intake.collected() == 0 && !wants_ack {
            return Ok(());
        }
        let wait = self.intake.flush(wants_ack).await;
        if let Some(wait) = wait
            && wants_ack
        {
            let Wanted { acks, claims } = std::mem::take(wanted);
            self.due.push_back(Due { wait: Wait::Own(wait, claims), acks });
        }
        self.write_acks()
    }

    /// Writes the acks of the longest settled prefix, as far as the socket takes them: in order, one write each (Fluent Bit
    /// reads one object from one bounded read).
    fn write_acks(&mut self) -> Result<(), End> {
        self.conn.try_send().map_err(End::Io)?;
        loop {
            while let Some(ack) = self.unwritten.front_mut() {
                match self.conn.try_write(ack.bytes.get(ack.at..).unwrap_or_default()) {
                    Ok(n) => ack.at += n,
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                    Err(e) => return Err(End::Io(e)),
                }
                if ack.at >= ack.bytes.len()
                    && let Some(ack) = self.unwritten.pop_front()
                {
                    let takes = self.unwritten_charge.bytes();
                    self.unwritten_charge.shrink_to(takes.saturating_sub(ack.takes()));
                    self.sender.delivered(ack.claims, true);
                }
            }
            match self.due.front().map(Due::verdict) {
                None | Some(Verdict::Pending) => return Ok(()),
                Some(Verdict::Failed) => return Err(End::AckFailed),
                Some(Verdict::Delivered) => {}
            }
            let Some(due) = self.due.pop_front() else { return Ok(()) };
            let mut claims = match due.wait {
                Wait::Own(_, claims) => claims,
                Wait::Repeat(_) => Vec::new(),
            };
            let last = due.acks.len().saturating_sub(1);
            for (i, bytes) in due.acks.into_iter().enumerate() {
                let claims = if i == last { std::mem::take(&mut claims) } else { Vec::new() };
                let ack = Unwritten { bytes, at: 0, claims };
                self.unwritten_charge.grow_to(self.unwritten_charge.bytes() + ack.takes());
                self.unwritten.push_back(ack);
            }
        }
    }
}

impl Unwritten {
    /// Bytes of memory.
    fn takes(&self) -> u64 {
        (self.bytes.len() + OVERHEAD) as u64
    }
}
