//! `stdin`: JSON maps, `[time, map]` arrays, or lines for a parser, on standard input.
//!
//! Enters: bytes. Leaves: records. When the input ends, the process is asked to drain and end. Can go wrong: text that is
//! no JSON, or a record larger than `Buffer_Size`: counted, logged, reading goes on at the next line.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem::Finder;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::read::{ReadBuffer, until};
use super::split::{Arrays, Format, Framing, Splitter, TooLong};
use super::{BoxFuture, BuildContext, Input, InputContext, InputKind};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};

/// Fluent Bit's smallest buffer.
const MIN_BUFFER: u64 = 16_000;
/// A drain ends when nothing has come for this long.
const QUIET: Duration = Duration::from_millis(200);

pub(super) const KIND: InputKind = InputKind {
    info: PluginInfo {
        name: "stdin",
        aliases: &[],
        summary: "JSON maps, or lines for a parser, on standard input; the process ends when it does.",
        keys: &[
            Key::new("parser", Type::Str, "makes fields of a line; without it the input is JSON"),
            Key::new("buffer_size", Type::Size, "largest record in bytes, at least 16000").default("6144000"),
        ],
        groups: &[],
    },
    build,
};

struct Stdin {
    framing: Framing,
    limit: usize,
}

fn build(s: &Settings, cx: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Box<dyn Input>> {
    let limit = s.size("buffer_size").unwrap_or_default();
    if !(MIN_BUFFER..=1 << 30).contains(&limit) {
        s.error(diags, "buffer_size", "it must be between 16000 and 1G");
        return None;
    }
    let framing = match s.str("parser") {
        None => Framing::Json(Arrays::TimeAndRecord),
        Some(name) => match cx.library.parsers.get(name) {
            Some(parser) => Framing::Pieces {
                separator: Box::new(Finder::new(b"\n").into_owned()),
                parser: Some(Arc::clone(parser)),
            },
            None => {
                s.error(diags, "parser", format!("parser \"{name}\" is not defined; see Parsers_File"));
                return None;
            }
        },
    };
    Some(Box::new(Stdin { framing, limit: limit as usize }))
}

impl Input for Stdin {
    fn start(self: Box<Self>, cx: InputContext) -> BoxFuture<'static, Result<(), String>> {
        let format = Format {
            framing: self.framing,
            limit: self.limit,
            too_long: TooLong::PassOver,
            tag: cx.tag.clone().into_bytes(),
            source_key: None,
        };
        let tasks = cx.tasks.clone();
        tasks.spawn(format!("{} reader", cx.label), run(io::stdin(), Arc::new(format), cx));
        Box::pin(async { Ok(()) })
    }
}

/// Waits until a read from `fd` would not block. Regular files never do.
async fn readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    // Registered anew for each wait: the descriptor is shared with whoever started the process, so it stays blocking,
    // and only a fresh registration tells for certain what is there now.
    #[allow(deprecated, reason = "its successor is unsafe; a borrowed descriptor cannot be closed meanwhile")]
    match AsyncFd::with_interest(fd, Interest::READABLE) {
        Ok(fd) => fd.readable().await.map(|_| ()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(e) => Err(e),
    }
}

async fn run(fd: impl AsFd, format: Arc<Format>, cx: InputContext) {
    let mut intake = cx.intake();
    let mut splitter = Splitter::new(format, None);
    let mut buffer = ReadBuffer::new(&cx);
    let mut stop = cx.stop.clone();
    let mut last_call: Option<Instant> = None;
    let mut ready = false;
    loop {
        let expire = intake.deadline().map(Into::into);
        tokio::select! {
            biased;
            at = stop.draining(), if last_call.is_none() => {
                last_call = Some(at);
                continue;
            }
            () = until(last_call) => break,
            () = until(expire) => {
                intake.expire().await;
                continue;
            }
            result = readable(fd.as_fd()), if !ready => {
                if let Err(e) = result {
                    tracing::error!(input = %cx.label, cause = %e, "standard input cannot be waited on");
                    break;
                }
                ready = true;
                continue;
            }
            () = buffer.room(&cx), if ready => ready = false,
            () = until(last_call.map(|_| Instant::now() + QUIET)), if !ready => break,
        }
        let end = match read(fd.as_fd(), &mut buffer) {
            Ok(n) => n == 0,
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => continue,
            Err(e) => {
                tracing::error!(input = %cx.label, cause = %e, "standard input cannot be read");
                true
            }
        };
        if end {
            break;
        }
        // A record that is too long is passed over, so the pass cannot fail.
        let done = splitter.pass(&buffer.bytes, intake.as_mut()).unwrap_or(buffer.bytes.len());
        buffer.consume(done);
        intake.flush(false).await;
        report(&mut splitter, &cx);
        tokio::task::yield_now().await;
    }
    splitter.end(&buffer.bytes, intake.as_mut());
    report(&mut splitter, &cx);
    drop(buffer);
    intake.finish().await;
    if last_call.is_none() {
        tracing::info!(input = %cx.label, "standard input has ended");
        cx.end_process.notify_one();
    }
}

fn read(fd: BorrowedFd<'_>, buffer: &mut ReadBuffer) -> io::Result<usize> {
    let before = buffer.bytes.len();
    buffer.bytes.resize(before + buffer.step(), 0);
    let result = rustix::io::read(fd, buffer.bytes.get_mut(before..).unwrap_or_default());
    let n = result.unwrap_or(0);
    buffer.bytes.truncate(before + n);
    buffer.filled(n);
    Ok(result?)
}

fn report(splitter: &mut Splitter, cx: &InputContext) {
    if let Some((count, reason)) = splitter.take_refused() {
        tracing::warn!(input = %cx.label, records = count, reason, "records refused");
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, settings};
    use super::*;
    use crate::text::Library;
    use std::io::{Seek, Write};

    fn format() -> Arc<Format> {
        let framing = Framing::Json(Arrays::TimeAndRecord);
        let tag = b"t".to_vec();
        Arc::new(Format { framing, limit: 16_000, too_long: TooLong::PassOver, tag, source_key: None })
    }

    #[tokio::test]
    async fn the_end_of_the_input_asks_the_process_to_end() {
        let bench = Bench::new();
        let (reader, mut writer) = io::pipe().unwrap();
        bench.context().tasks.spawn("reader", run(reader, format(), bench.context()));
        writer.write_all(b"{\"a\":1}\n{\"b\"").unwrap();
        bench.until(|p| p.records.len() == 1).await;
        writer.write_all(b":2}\n").unwrap();
        bench.until(|p| p.records.len() == 2).await;
        drop(writer);
        bench.context().end_process.notified().await;
        assert_eq!(bench.passed(|p| p.finished), 1);
    }

    #[tokio::test]
    async fn a_regular_file_is_read_to_its_end() {
        let bench = Bench::new();
        let mut file = tempfile::tempfile().unwrap();
        let text = "{\"a\":1}\n".repeat(50_000);
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        bench.context().tasks.spawn("reader", run(file, format(), bench.context()));
        bench.context().end_process.notified().await;
        assert_eq!(bench.records().len(), 50_000);
    }

    #[tokio::test]
    async fn a_record_that_is_too_long_costs_only_itself() {
        let bench = Bench::new();
        let (reader, mut writer) = io::pipe().unwrap();
        bench.context().tasks.spawn("reader", run(reader, format(), bench.context()));
        writer.write_all(format!("{{\"a\":\"{}\"}}\n{{\"b\":2}}\n", "x".repeat(40_000)).as_bytes()).unwrap();
        bench.until(|p| p.records.len() == 1 && p.refused == 1).await;
    }

    #[tokio::test]
    async fn a_drain_ends_the_reading_of_a_quiet_input() {
        let bench = Bench::new();
        let (reader, mut writer) = io::pipe().unwrap();
        bench.context().tasks.spawn("reader", run(reader, format(), bench.context()));
        writer.write_all(b"{}").unwrap();
        bench.drain(Duration::from_secs(20)).await;
        assert_eq!((bench.records().len(), bench.passed(|p| p.finished)), (1, 1));
    }

    #[test]
    fn bad_settings_name_their_key() {
        let library = Library::default();
        for (key, value, message) in [
            ("buffer_size", "100", "must be between 16000 and 1G"),
            ("parser", "nowhere", "parser \"nowhere\" is not defined"),
        ] {
            let mut diags = Diagnostics::new();
            assert!(
                build(
                    &settings(&KIND.info, &[(key, value)]),
                    &BuildContext { library: &library },
                    &mut diags
                )
                .is_none()
            );
            let said: String = diags.iter().map(ToString::to_string).collect();
            assert!(said.contains(message), "{said}");
        }
    }
}
