//! One connection of the tcp input.
//!
//! Enters: bytes. Leaves: records to the intake, after every read. Can go wrong: what [`End`] says. No other connection
//! notices. At shutdown it is read until the client closes, is quiet, or the time of sources is over.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use crate::inputs::read::{ReadBuffer, until};
use crate::inputs::split::{Format, Overlong, Splitter};
use crate::inputs::{InputContext, Intake};
use crate::net::Conn;

/// A drain ends when the client has been quiet this long.
const QUIET: Duration = Duration::from_millis(200);
/// A record that stands still past the budget gives up its right after this long, by closing its connection.
const STALLED: Duration = Duration::from_secs(30);

/// Why a connection ended.
enum End {
    /// The client closed it.
    Eof,
    /// A record is larger than `Buffer_Size`.
    Overlong,
    /// The process stops and the client was quiet.
    Drained,
    /// The process stops and the client was still sending.
    Cut,
    /// A record stood still while others waited for memory.
    Stalled,
    /// The socket failed.
    Io(std::io::Error),
}

/// What a connection waits for.
enum Wake {
    /// There is something to read.
    Readable(std::io::Result<()>),
    /// There is room to read it into.
    Room,
    Expire,
    Drain(Instant),
    Over(End),
}

struct Connection {
    cx: InputContext,
    conn: Conn,
    intake: Box<dyn Intake>,
    splitter: Splitter,
    buffer: ReadBuffer,
    /// Records refused and already logged: the first.
    logged: u64,
    /// Records refused in all; their number is logged at the end.
    refused: u64,
}

/// Serves one connection to its end.
pub(super) async fn serve(cx: InputContext, format: Arc<Format>, conn: Conn) {
    let source = format!("tcp://{}", conn.peer());
    let limit = format.limit;
    let mut connection = Connection {
        intake: cx.intake(),
        splitter: Splitter::new(format, Some(&source)),
        buffer: ReadBuffer::new(&cx),
        logged: 0,
        refused: 0,
        conn,
        cx,
    };
    let end = connection.read_to_end().await;
    connection.close(end, limit).await;
}

impl Connection {
    async fn read_to_end(&mut self) -> End {
        // Set once the process stops: when to stop reading, whatever comes.
        let mut last_call: Option<Instant> = None;
        let mut readable = false;
        loop {
            match self.wait(last_call, readable).await {
                Wake::Over(end) => return end,
                Wake::Expire => self.intake.expire().await,
                Wake::Drain(at) => last_call = Some(at),
                Wake::Readable(Err(e)) => return End::Io(e),
                Wake::Readable(Ok(())) => readable = true,
                Wake::Room => {
                    readable = false;
                    if let Err(end) = self.read().await {
                        return end;
                    }
                }
            }
        }
    }

    /// Waits for something to read, then for room: while there is no room, the client is not quiet.
    async fn wait(&mut self, last_call: Option<Instant>, readable: bool) -> Wake {
        let now = Instant::now();
        let mut stop = self.cx.stop.clone();
        let expire = self.intake.deadline().map(Into::into);
        let stalled = self.buffer.is_oversize().then(|| now + STALLED);
        // What is due comes first: a client that never pauses must not put it off.
        tokio::select! {
            biased;
            at = stop.draining(), if last_call.is_none() => Wake::Drain(at),
            () = until(last_call) => Wake::Over(End::Cut),
            () = until(expire) => Wake::Expire,
            result = self.conn.readable(), if !readable => Wake::Readable(result),
            () = self.buffer.room(&self.cx), if readable => Wake::Room,
            () = until(last_call.map(|_| now + QUIET)), if !readable => Wake::Over(End::Drained),
            () = until(stalled), if !readable => Wake::Over(End::Stalled),
        }
    }

    /// One read, then the next connection's turn.
    async fn read(&mut self) -> Result<(), End> {
        match self.conn.try_read(&mut self.buffer.bytes, usize::MAX) {
            Ok(0) => Err(End::Eof),
            Ok(n) => {
                self.buffer.filled(n);
                let passed = self.splitter.pass(&self.buffer.bytes, self.intake.as_mut());
                self.intake.flush(false).await;
                self.report();
                match passed {
                    Ok(done) => self.buffer.consume(done),
                    Err(Overlong) => return Err(End::Overlong),
                }
                tokio::task::yield_now().await;
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                self.buffer.idle();
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Err(End::Eof),
            Err(e) => Err(End::Io(e)),
        }
    }

    fn report(&mut self) {
        let Some((count, reason)) = self.splitter.take_refused() else { return };
        if self.logged == 0 {
            self.logged = count;
            tracing::warn!(
                input = %self.cx.label, peer = %self.conn.peer(), records = count, reason,
                "records refused; further ones of this connection are counted"
            );
        }
        self.refused += count;
    }

    async fn close(mut self, end: End, limit: usize) {
        if !matches!(end, End::Overlong) {
            self.splitter.end(&self.buffer.bytes, self.intake.as_mut());
            self.report();
        }
        let (label, peer) = (&self.cx.label, self.conn.peer());
        match &end {
            End::Eof | End::Drained => {}
            End::Overlong => {
                tracing::warn!(input = %label, %peer, bytes = limit, "connection closed: a record is larger than Buffer_Size");
            }
            End::Cut => {
                tracing::warn!(input = %label, %peer, "connection closed at shutdown while the client was still sending");
            }
            End::Stalled => {
                tracing::warn!(input = %label, %peer, "connection closed: a record stood still within while others waited for memory");
            }
            End::Io(e) => tracing::debug!(input = %label, %peer, cause = %e, "connection lost"),
        }
        if matches!(end, End::Overlong | End::Stalled) {
            self.cx.totals.pipeline.broken_connections.fetch_add(1, Relaxed);
        }
        if self.refused > self.logged {
            tracing::info!(input = %label, %peer, records = self.refused, "connection closed, records refused in all");
        }
        drop(self.buffer);
        self.intake.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::split::{Arrays, Framing, TooLong};
    use crate::inputs::testing::Bench;
    use crate::net::Listener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// A connection served on the bench, and its client.
    async fn connect(bench: &Bench) -> TcpStream {
        let format = Arc::new(Format {
            framing: Framing::Json(Arrays::Message),
            limit: 1000,
            too_long: TooLong::EndStream,
            tag: b"t".to_vec(),
            source_key: None,
        });
        let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
        let client = TcpStream::connect(listener.name()).await.unwrap();
        let conn = listener.accept().await.unwrap();
        let cx = bench.context();
        bench.context().tasks.spawn("connection", serve(cx, format, conn));
        client
    }

    fn broken(bench: &Bench) -> u64 {
        bench.context().totals.pipeline.broken_connections.load(Relaxed)
    }

    #[tokio::test]
    async fn records_arrive_and_the_end_of_the_connection_is_passed_on() {
        let bench = Bench::new();
        let mut client = connect(&bench).await;
        client.write_all(b"{\"a\":1}{\"b\"").await.unwrap();
        bench.until(|p| p.records.len() == 1).await;
        client.write_all(b":2}\n").await.unwrap();
        bench.until(|p| p.records.len() == 2).await;
        drop(client);
        bench.until(|p| p.finished == 1).await;
        assert_eq!((bench.context().budget.used(), broken(&bench)), (0, 0));
    }

    #[tokio::test]
    async fn text_that_is_no_json_leaves_the_connection_open() {
        let bench = Bench::new();
        let mut client = connect(&bench).await;
        client.write_all(b"this is plain text\n").await.unwrap();
        bench.until(|p| p.refused == 1).await;
        client.write_all(b"{\"good\":1}\n").await.unwrap();
        bench.until(|p| p.records.len() == 1).await;
    }

    #[tokio::test]
    async fn a_record_that_is_too_long_closes_the_connection_after_those_before_it() {
        let bench = Bench::new();
        let mut client = connect(&bench).await;
        client.write_all(format!("{{}}{{\"a\":\"{}", "x".repeat(2000)).as_bytes()).await.unwrap();
        bench.until(|p| p.finished == 1).await;
        assert_eq!((bench.records().len(), bench.passed(|p| p.refused), broken(&bench)), (1, 1, 1));
        assert!(matches!(client.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn a_drain_reads_what_is_on_the_way_and_waits_for_quiet() {
        let bench = Bench::new();
        let mut client = connect(&bench).await;
        let sending = async {
            for _ in 0..20 {
                client.write_all(b"{}").await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(sending, bench.drain(Duration::from_secs(5)));
        assert_eq!((bench.records().len(), bench.passed(|p| p.finished)), (20, 1));
    }

    #[tokio::test]
    async fn a_client_that_never_pauses_is_cut_off_at_the_end_of_the_sources_time() {
        let bench = Bench::new();
        let mut client = connect(&bench).await;
        let sending = async { while client.write_all(b"{}{}{}{}").await.is_ok() {} };
        let draining = async {
            bench.until(|p| p.records.len() > 10).await;
            bench.drain(Duration::from_millis(300)).await;
        };
        tokio::join!(sending, draining);
        assert_eq!(bench.passed(|p| p.finished), 1);
    }

    #[tokio::test]
    async fn while_there_is_no_room_a_draining_connection_is_not_taken_for_quiet() {
        let bench = Bench::with_limit(10);
        let inside = bench.context().meter.charge(10);
        let mut client = connect(&bench).await;
        client.write_all(b"{}").await.unwrap();
        let delivered = async {
            tokio::time::sleep(3 * QUIET).await;
            drop(inside);
        };
        tokio::join!(delivered, bench.drain(Duration::from_secs(20)));
        assert_eq!(bench.records().len(), 1);
    }
}
