//! Logging.
use super::counters::Totals;
/// Prints the summary.
#[allow(clippy::print_stderr, reason = "the last line, whatever the log level")]
pub fn summary(totals: &Totals) {
    eprintln!("summary {totals}");
}
