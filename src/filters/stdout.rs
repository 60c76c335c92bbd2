//! `stdout`: print each record as it is at this place of the chain. A debugging aid.
//!
//! Enters: any record. Leaves: the same record, and a line on standard output in Fluent Bit's form,
//! `[n] tag: [seconds.nanoseconds, {metadata}, {"key"=>"value"}]`; n counts the records of one tag that came in one piece.
//! Can go wrong: whoever reads standard output is slow or gone. A worker waits a moment, then prints nothing until it can
//! again, and the log says so; records are never held back or lost for it.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{BuildContext, Context, Filter, FilterKind, Verdict};
use crate::config::{Diagnostics, PluginInfo, Settings};
use crate::record::{Record, Tag};
use crate::wire::print::print_value;

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "stdout",
        aliases: &[],
        summary: "Print records as they are at this place of the chain.",
        keys: &[],
        groups: &[],
    },
    build,
};

/// The longest that a worker waits for whoever reads.
const PATIENCE: Duration = Duration::from_millis(20);
/// A pipe that is ready takes as much without blocking (`PIPE_BUF`).
const PIECE: usize = 4096;
/// Memory for lines that is kept from record to record.
const KEPT: usize = 64 * 1024;

/// Standard output is one, whatever the number of filters and workers.
static CONSOLE: Mutex<Console> = Mutex::new(Console::new());

struct Stdout {
    counted: Mutex<Counted>,
}

/// Whose records are being counted, and how many there have been.
struct Counted {
    since: Option<(Instant, Tag)>,
    next: u64,
}

fn build(_: &Settings, _: &BuildContext<'_>, _: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    Some(Arc::new(Stdout { counted: Mutex::new(Counted { since: None, next: 0 }) }))
}

impl Counted {
    fn number(&mut self, now: Instant, tag: &Tag) -> u64 {
        if !self.since.as_ref().is_some_and(|(since, of)| *since == now && of == tag) {
            *self = Counted { since: Some((now, tag.clone())), next: 0 };
        }
        self.next += 1;
        self.next - 1
    }
}

impl Filter for Stdout {
    fn apply(&self, record: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict {
        let number = self.counted.lock().unwrap_or_else(PoisonError::into_inner).number(cx.now, cx.tag);
        let mut console = CONSOLE.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = console.print(&mut Terminal, |line| write_line(line, number, cx.tag, record));
        drop(console);
        if lost > 0 {
            tracing::warn!("standard output was not read: {lost} records were not printed (none was lost)");
        }
        Verdict::Keep
    }
}

fn write_line(out: &mut Vec<u8>, number: u64, tag: &Tag, record: &Record<'_>) {
    // Writing to memory does not fail.
    let _ = write!(out, "[{number}] ");
    out.extend_from_slice(tag.as_bytes());
    let _ = write!(out, ": [{}.{:09}, ", record.time().sec, record.time().nsec);
    print_value(out, record.metadata().unwrap_or(&[0x80]));
    out.extend_from_slice(b", {");
    for (i, field) in record.fields().iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        print_value(out, record.bytes(field.key));
        out.extend_from_slice(b"=>");
        print_value(out, record.bytes(field.value));
    }
    out.extend_from_slice(b"}]\n");
}

/// Where lines go.
trait Sink {
    /// Whether a piece can be written now, or within the wait.
    fn is_ready(&mut self, wait: Duration) -> bool;
    /// Writes a piece, or some of it.
    fn write_some(&mut self, piece: &[u8]) -> std::io::Result<usize>;
}

struct Terminal;

impl Sink for Terminal {
    fn is_ready(&mut self, wait: Duration) -> bool {
        let stdout = std::io::stdout();
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        // What cannot be polled, or is broken, is found out by writing.
        poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], Some(&wait)).map_or(true, |ready| ready > 0)
    }

    fn write_some(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        let lock = std::io::stdout().lock();
        Ok(rustix::io::write(&lock, piece)?)
    }
}

/// At most one line on its way; lines that come while it is stuck are not printed.
struct Console {
    line: Vec<u8>,
    done: usize,
    stuck: bool,
    lost: u64,
}

impl Console {
    const fn new() -> Self {
        Console { line: Vec::new(), done: 0, stuck: false, lost: 0 }
    }

    /// Prints a line if the one before is out. Returns how many were not printed, when lines go out again.
    fn print(&mut self, sink: &mut impl Sink, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        if !self.flush(sink) {
            self.lost += 1;
            return 0;
        }
        write(&mut self.line);
        self.flush(sink);
        std::mem::take(&mut self.lost)
    }

    /// Writes what is left of the line; says whether it is out.
    fn flush(&mut self, sink: &mut impl Sink) -> bool {
        while let Some(rest) = self.line.get(self.done..).filter(|r| !r.is_empty()) {
            if !sink.is_ready(if self.stuck { Duration::ZERO } else { PATIENCE }) {
                self.stuck = true;
                return false;
            }
            match sink.write_some(rest.get(..PIECE).unwrap_or(rest)) {
                Ok(n) => self.done += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    self.stuck = true;
                    return false;
                }
                Err(_) => {
                    // Nobody will ever read it.
                    self.lost += 1;
                    self.done = self.line.len();
                }
            }
            self.stuck = false;
        }
        self.line.clear();
        self.line.shrink_to(KEPT);
        self.done = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Scratch;
    use crate::wire::entry;

    /// Takes at most `room` bytes; `waits` counts how often it made someone wait.
    #[derive(Default)]
    struct Pipe {
        text: Vec<u8>,
        room: usize,
        waits: u32,
        broken: bool,
    }

    impl Sink for Pipe {
        fn is_ready(&mut self, wait: Duration) -> bool {
            self.waits += u32::from(self.room == 0 && !wait.is_zero());
            self.room > 0
        }
        fn write_some(&mut self, piece: &[u8]) -> std::io::Result<usize> {
            if self.broken {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            let n = piece.len().min(self.room);
            self.text.extend_from_slice(&piece[..n]);
            self.room -= n;
            Ok(n)
        }
    }

    #[test]
    fn a_line_looks_as_fluent_bit_prints_it() {
        let mut bytes = Vec::new();
        entry::write_head(&mut bytes, crate::record::Time::new(5, 7), Some(&[0x81, 0xa1, b'm', 1]));
        bytes.extend_from_slice(&[0x82, 0xa1, b'a', 0xa1, b'x', 0xa1, b'b', 0x92, 1, 0xc0]);
        let mut scratch = Scratch::default();
        let (record, _) = Record::open_next(&bytes, 0, &mut scratch).unwrap();
        let mut out = Vec::new();
        write_line(&mut out, 3, &Tag::new(b"t"), &record);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "[3] t: [5.000000007, {\"m\"=>1}, {\"a\"=>\"x\", \"b\"=>[1, nil]}]\n"
        );
    }

    #[test]
    fn records_are_counted_for_each_tag_of_each_piece() {
        let (mut counted, now, tag) = (Counted { since: None, next: 0 }, Instant::now(), Tag::new(b"t"));
        assert_eq!([counted.number(now, &tag), counted.number(now, &tag)], [0, 1]);
        assert_eq!(counted.number(now, &Tag::new(b"u")), 0);
        assert_eq!(counted.number(now + PATIENCE, &tag), 0);
    }

    #[test]
    fn a_reader_that_stops_is_waited_for_once_and_gets_whole_lines_afterwards() {
        let (mut console, mut pipe) = (Console::new(), Pipe { room: 3, ..Pipe::default() });
        let mut print =
            |pipe: &mut Pipe, line: &str| console.print(pipe, |out| out.extend_from_slice(line.as_bytes()));
        assert_eq!(print(&mut pipe, "first\n"), 0);
        assert_eq!(print(&mut pipe, "second\n"), 0);
        assert_eq!(print(&mut pipe, "third\n"), 0);
        assert_eq!(pipe.waits, 1);
        pipe.room = 100;
        assert_eq!(print(&mut pipe, "fourth\n"), 2);
        assert_eq!(pipe.text, b"first\nfourth\n");
    }

    #[test]
    fn a_closed_output_is_no_reason_to_wait() {
        let (mut console, mut pipe) = (Console::new(), Pipe { room: 1, broken: true, ..Pipe::default() });
        assert_eq!(console.print(&mut pipe, |out| out.push(b'x')), 1);
        assert_eq!((pipe.waits, console.line.len()), (0, 0));
    }
}
