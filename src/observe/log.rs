//! Logging to standard error or a file, and the summary line.
//!
//! Enters: events. Leaves: one line each, `2026-11-23T13:22:11.123Z warn message key=value`. Can go wrong: the log file
//! cannot be opened; what cannot be written later is lost, never a reason to stop.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::counters::Totals;

/// Starts logging at a level of Fluent Bit's (`off error warn warning info debug trace`).
///
/// # Errors
/// A sentence when the log file cannot be opened.
pub fn init(level: &str, file: Option<&Path>) -> Result<(), String> {
    let level = read(level);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).event_format(Line);
    let started = match file {
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|e| format!("cannot open log file {}: {e}; check Log_File", path.display()))?;
            builder.with_writer(Mutex::new(file)).finish().with(targets(level)).try_init()
        }
        None => builder.with_writer(std::io::stderr).finish().with(targets(level)).try_init(),
    };
    // A second start in one process (tests) keeps the first subscriber.
    started.or(Ok(()))
}

/// Starts logging to standard error, of AWS's SDK errors alone. It warns of every provider of a chain that has no
/// credentials, with Rust's view of the cause; whoever has asked the chain says the same in a sentence.
pub fn init_without_sdk(level: &str) {
    let level = read(level);
    let targets = targets(level).with_target("aws_", LevelFilter::ERROR);
    let builder = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).event_format(Line);
    // A second start in one process keeps the first subscriber here, too.
    let _kept = builder.with_writer(std::io::stderr).finish().with(targets).try_init();
}

/// Everything of that level, but not the SDK's complaint after each failed call that its HTTP client, which is ours, has told it
/// of no connection.
fn targets(level: LevelFilter) -> Targets {
    let complaint = "aws_smithy_runtime::client::http::connection_poisoning";
    Targets::new().with_default(level).with_target(complaint, LevelFilter::OFF)
}

fn read(level: &str) -> LevelFilter {
    match level {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    }
}

/// Time, level in lower case, message, fields.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write!(writer, "{:.3} {level} ", jiff::Timestamp::now())?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// The last line, whatever the log level.
pub fn summary(totals: &Totals) {
    // Nobody is left to tell when standard error is gone.
    let _gone = writeln!(std::io::stderr().lock(), "summary {totals}");
}
