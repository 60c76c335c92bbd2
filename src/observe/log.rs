//! Logging to standard error or a file, and the summary line.

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;

use super::counters::Totals;

/// Starts logging at a level of Fluent Bit's (`off error warn warning info debug trace`).
///
/// # Errors
/// A sentence when the log file cannot be opened.
pub fn init(level: &str, file: Option<&Path>) -> Result<(), String> {
    let level = match level {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" | "warning" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_target(false);
    let started = match file {
        Some(path) => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|e| format!("cannot open log file {}: {e}", path.display()))?;
            builder.with_ansi(false).with_writer(Mutex::new(file)).try_init()
        }
        None => {
            let terminal = std::io::stderr().is_terminal();
            builder.with_ansi(terminal).with_writer(std::io::stderr).try_init()
        }
    };
    // A second start in one process (tests) keeps the first subscriber.
    started.or(Ok(()))
}

/// The last line, whatever the log level.
#[allow(clippy::print_stderr, reason = "the one line that scripts read")]
pub fn summary(totals: &Totals) {
    eprintln!("summary {totals}");
}
