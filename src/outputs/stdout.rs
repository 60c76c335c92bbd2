//! `stdout`: records on standard output.
//!
//! Enters: deliveries. Leaves: text. Can go wrong: nobody reads, or the reader is gone; then records wait.
//!
//! Fluent Bit numbers records within what it flushes together, and writes one array for each such group in format
//! `json`. So these formats gather records for `Flush` seconds, unless a sender waits for an ack.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::batch::Text;
use super::drive::{self, Failure, Pace, Sink};
use super::format::{Formatter, Frame, JsonDate, Shape, json_date};
use super::{BuildContext, Output, OutputKind};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::rt::Receiver;

pub(super) const KIND: OutputKind = OutputKind {
    info: PluginInfo {
        name: "stdout",
        aliases: &[],
        summary: "Write records to standard output.",
        keys: &[
            Key::new("format", Type::Str, "msgpack (printed for people), json, json_lines or json_stream")
                .default("msgpack"),
            Key::new("json_date_key", Type::Str, "key of the time in JSON; false: none").default("date"),
            Key::new("json_date_format", Type::Str, "double, iso8601, epoch, epoch_ms or java_sql_timestamp")
                .default("double"),
        ],
        groups: &[],
    },
    build,
};

struct Stdout {
    formatter: Formatter,
    pace: Pace,
}

fn build(s: &Settings, cx: &BuildContext, diags: &mut Diagnostics) -> Option<Box<dyn Output>> {
    let format = s.str("format").unwrap_or("msgpack");
    // Read in any case: a bad value is reported whatever the format.
    let date = json_date(s, cx.escape_unicode, diags);
    let json = |frame, date: Option<JsonDate>| Shape::Json { frame, date };
    let shape = match format.to_ascii_lowercase().as_str() {
        "msgpack" => Shape::Text,
        "json" => json(Frame::Array, date),
        "json_lines" => json(Frame::Lines, date),
        "json_stream" => json(Frame::Stream, date),
        "otlp_json" | "otlp_json_pretty" => {
            s.error(diags, "format", format_args!("format {format} is not built yet, use json_lines"));
            return None;
        }
        _ => {
            diags.strict(
                Some(s.pos_of("format")),
                format!("unknown format \"{format}\" in [OUTPUT] stdout"),
                "msgpack (printed for people) is used; choose msgpack, json, json_lines or json_stream",
            );
            Shape::Text
        }
    };
    let formatter = Formatter::new(shape, cx.escape_unicode);
    let pace = if formatter.shows_groups() {
        Pace::Gathered(cx.flush)
    } else {
        Pace::Spaced(cx.flush.min(Duration::from_millis(50)))
    };
    Some(Box::new(Stdout { formatter, pace }))
}

impl Output for Stdout {
    fn run(self: Box<Self>, queue: Receiver) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(drive::run(Console, self.formatter, self.pace, false, queue))
    }
}

/// Standard output itself, without a buffer: what is written is out.
struct Console;

impl Sink for Console {
    fn write(&mut self, text: &mut Text) -> Result<(), Failure> {
        for group in &mut text.groups {
            while !group.is_done() {
                match rustix::io::write(std::io::stdout(), group.piece()) {
                    Ok(n) => group.done += n,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(e) => {
                        return Err(Failure::of_write(format!(
                            "standard output: {}; check what it is connected to",
                            std::io::Error::from(e)
                        )));
                    }
                }
            }
        }
        Ok(())
    }
}
