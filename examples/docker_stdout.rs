//! Runs a command and sends what it prints to a router, byte for byte as Docker's `fluentd` log driver does.
//!
//! ```text
//! docker_stdout --address unix:///var/run/fluent.sock --tag web-firelens-4ec9c9f5 -- sh -c 'echo hello'
//! ```
//!
//! Enters: a command. Leaves: one message of the forward protocol for each line of its standard output and error, and the
//! command's exit code. Like dockerd, a line longer than 16 KiB is cut into parts, a message goes out in one write, and
//! one that was not taken whole is sent again on a new connection. Unlike dockerd's async mode nothing is thrown away:
//! the command waits while the router does not read.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;

/// What docker reads at once.
const READ: usize = 2 * 1024;
/// The longest line, or part of one.
const PART: usize = 16 * 1024;
/// Between attempts to connect.
const WAIT: Duration = Duration::from_millis(100);

#[derive(Parser)]
#[command(about = "Run a command and send its output as Docker's fluentd log driver does")]
struct Args {
    /// Where the router listens: unix:///PATH or tcp://HOST:PORT
    #[arg(long, default_value = "tcp://127.0.0.1:24224")]
    address: String,
    /// The tag of its messages; ECS uses CONTAINER-firelens-TASK
    #[arg(long)]
    tag: String,
    /// The container's name
    #[arg(long, default_value = "command")]
    name: String,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// A line, or a part of one that is too long.
#[derive(Debug, PartialEq)]
struct Piece<'a> {
    /// When its line was first seen.
    time: Duration,
    log: &'a [u8],
    partial: Option<Partial<'a>>,
}

#[derive(Debug, PartialEq)]
struct Partial<'a> {
    id: &'a str,
    ordinal: u64,
    last: bool,
}

/// Cuts a stream into pieces.
struct Splitter<I> {
    buffer: Vec<u8>,
    /// The long line at hand: when it began, its id, its parts so far.
    long: Option<(Duration, String, u64)>,
    /// Makes an id for a long line.
    new_id: I,
}

impl<I: FnMut() -> String> Splitter<I> {
    fn new(new_id: I) -> Self {
        Splitter { buffer: Vec::with_capacity(PART), long: None, new_id }
    }

    /// Bytes that may be read next.
    fn room(&self) -> usize {
        READ.min(PART - self.buffer.len())
    }

    /// Takes bytes that were read at `now`, at most `room`.
    fn feed<E>(
        &mut self,
        bytes: &[u8],
        now: Duration,
        mut emit: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.buffer.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(length) = self.buffer.iter().skip(start).position(|b| *b == b'\n') {
            let log = self.buffer.get(start..start + length).unwrap_or_default();
            start += length + 1;
            match self.long.take() {
                None => emit(Piece { time: now, log, partial: None })?,
                Some((time, id, parts)) => {
                    let partial = Partial { id: &id, ordinal: parts + 1, last: true };
                    emit(Piece { time, log, partial: Some(partial) })?;
                }
            }
        }
        self.buffer.drain(..start);
        if self.buffer.len() == PART { self.part(now, emit) } else { Ok(()) }
    }

    /// The stream has ended. docker sends what has no newline as a part, after which no last one comes.
    fn end<E>(&mut self, now: Duration, emit: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.buffer.is_empty() { Ok(()) } else { self.part(now, emit) }
    }

    fn part<E>(&mut self, now: Duration, mut emit: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let (time, id, parts) = self.long.get_or_insert_with(|| (now, (self.new_id)(), 0));
        *parts += 1;
        let partial = Partial { id, ordinal: *parts, last: false };
        let sent = emit(Piece { time: *time, log: &self.buffer, partial: Some(partial) });
        self.buffer.clear();
        sent
    }
}

/// What is the same in all messages of a container.
struct Container {
    tag: String,
    id: String,
    name: String,
}

/// A msgpack str. Docker uses it also for bytes that are no UTF-8.
fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    match length {
        0..32 => out.push(0xa0 | length as u8),
        32..256 => out.extend([0xd9, length as u8]),
        256..65_536 => {
            out.push(0xda);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(bytes);
}

/// `[tag, EventTime, {container_id, container_name, source, log, partial_*}, {}]`
fn message(out: &mut Vec<u8>, container: &Container, source: &str, piece: &Piece<'_>) {
    out.push(0x94);
    text(out, container.tag.as_bytes());
    out.extend([0xd7, 0x00]);
    // EventTime has 32 bits for the seconds.
    out.extend((piece.time.as_secs() as u32).to_be_bytes());
    out.extend(piece.time.subsec_nanos().to_be_bytes());
    out.push(if piece.partial.is_some() { 0x88 } else { 0x84 });
    let mut field = |key: &str, value: &[u8]| {
        text(out, key.as_bytes());
        text(out, value);
    };
    field("container_id", container.id.as_bytes());
    field("container_name", container.name.as_bytes());
    field("source", source.as_bytes());
    field("log", piece.log);
    if let Some(partial) = &piece.partial {
        field("partial_message", b"true");
        field("partial_id", partial.id.as_bytes());
        field("partial_ordinal", partial.ordinal.to_string().as_bytes());
        field("partial_last", if partial.last { b"true" } else { b"false" });
    }
    out.push(0x80);
}

/// The connection that both streams of a container share.
struct Link {
    address: String,
    stream: Option<Box<dyn Write + Send>>,
}

impl Link {
    /// Sends a message, again and whole on a new connection as long as it is not taken.
    fn send(&mut self, message: &[u8]) {
        loop {
            if self.stream.as_mut().is_some_and(|s| s.write_all(message).is_ok()) {
                return;
            }
            self.stream = connect(&self.address).ok();
            if self.stream.is_none() {
                thread::park_timeout(WAIT);
            }
        }
    }
}

fn connect(address: &str) -> io::Result<Box<dyn Write + Send>> {
    Ok(match address.strip_prefix("unix://") {
        Some(path) => Box::new(UnixStream::connect(path)?),
        None => Box::new(TcpStream::connect(address.strip_prefix("tcp://").unwrap_or(address))?),
    })
}

/// Reads one stream of the command to its end.
fn copy(mut from: impl Read, source: &str, container: &Container, link: &Mutex<Link>) -> io::Result<()> {
    let mut out = Vec::new();
    let mut emit = |piece: Piece<'_>| {
        out.clear();
        message(&mut out, container, source, &piece);
        lock(link).send(&out);
        Ok::<(), io::Error>(())
    };
    let mut splitter = Splitter::new(random_id);
    let mut bytes = [0; READ];
    loop {
        let room = bytes.get_mut(..splitter.room()).unwrap_or_default();
        match from.read(room) {
            Ok(0) => return splitter.end(now(), &mut emit),
            Ok(read) => splitter.feed(room.get(..read).unwrap_or_default(), now(), &mut emit)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A panic of the other stream's thread leaves a connection that is as good as before.
fn lock(link: &Mutex<Link>) -> MutexGuard<'_, Link> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// 64 hexadecimal digits, as container and line ids have.
fn random_id() -> String {
    let mut bytes = [0; 32];
    // Best effort: an id that is not random still marks the parts of one line, because lines follow one another.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn run(args: &Args) -> io::Result<ExitCode> {
    let stream = connect(&args.address)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot reach the router at {}: {e}", args.address)))?;
    let link = Mutex::new(Link { address: args.address.clone(), stream: Some(stream) });
    let container = Container { tag: args.tag.clone(), id: random_id(), name: format!("/{}", args.name) };
    let (program, arguments) = args.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot run {program}: {e}")))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let errors = scope.spawn(|| stderr.map_or(Ok(()), |s| copy(s, "stderr", &container, &link)));
        let lines = stdout.map_or(Ok(()), |s| copy(s, "stdout", &container, &link));
        errors.join().map_err(|_| io::Error::other("the reader of standard error failed"))??;
        lines
    })?;
    let code = child.wait()?.code().and_then(|c| u8::try_from(c).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

#[expect(clippy::print_stderr, reason = "a command's own errors")]
fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|e| {
        eprintln!("docker_stdout: {e}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(length, ordinal and last of a part)` of each piece.
    fn pieces(stream: &[u8]) -> Vec<(usize, Option<(u64, bool)>)> {
        let mut found = Vec::new();
        let mut emit = |p: Piece<'_>| {
            found.push((p.log.len(), p.partial.map(|x| (x.ordinal, x.last))));
            Ok::<(), ()>(())
        };
        let mut splitter = Splitter::new(String::new);
        let mut rest = stream;
        while !rest.is_empty() {
            let (bytes, after) = rest.split_at(splitter.room().min(rest.len()));
            splitter.feed(bytes, Duration::ZERO, &mut emit).unwrap();
            rest = after;
        }
        splitter.end(Duration::ZERO, &mut emit).unwrap();
        found
    }

    #[test]
    fn lines_are_pieces_and_empty_lines_too() {
        assert_eq!(pieces(b"ab\n\nc\r\n"), [(2, None), (0, None), (2, None)]);
    }

    #[test]
    fn a_line_longer_than_16_kib_is_cut_into_numbered_parts() {
        let line = [vec![b'x'; 40_000], b"\nnext\n".to_vec()].concat();
        let long = [(16_384, Some((1, false))), (16_384, Some((2, false))), (7_232, Some((3, true)))];
        assert_eq!(pieces(&line), [&long[..], &[(4, None)]].concat());
    }

    #[test]
    fn a_line_of_exactly_16_kib_ends_with_an_empty_part() {
        let line = [vec![b'x'; 16_384], b"\n".to_vec()].concat();
        assert_eq!(pieces(&line), [(16_384, Some((1, false))), (0, Some((2, true)))]);
        let line = [vec![b'x'; 16_383], b"\n".to_vec()].concat();
        assert_eq!(pieces(&line), [(16_383, None)]);
    }

    #[test]
    fn an_unfinished_line_is_a_part_that_nothing_follows() {
        assert_eq!(pieces(b"a\nbc"), [(1, None), (2, Some((1, false)))]);
    }

    #[test]
    fn a_message_is_what_docker_writes() {
        let container = Container { tag: "web-firelens-1".into(), id: "c".repeat(64), name: "/web".into() };
        let piece = Piece { time: Duration::new(0x6800_0000, 5), log: b"hi \xff", partial: None };
        let mut out = Vec::new();
        message(&mut out, &container, "stdout", &piece);
        let id = [&[0xd9, 64][..], &[b'c'; 64]].concat();
        let want: &[&[u8]] = &[
            b"\x94\xaeweb-firelens-1\xd7\x00\x68\x00\x00\x00\x00\x00\x00\x05\x84\xaccontainer_id",
            &id,
            b"\xaecontainer_name\xa4/web\xa6source\xa6stdout\xa3log\xa4hi \xff\x80",
        ];
        assert_eq!(out, want.concat());
    }
}
