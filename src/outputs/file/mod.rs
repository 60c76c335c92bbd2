//! `file`: records into files, one for each tag or one for all.
//!
//! Enters: deliveries. Leaves: lines appended to files. Can go wrong: disk full, no permission, no directory; then the
//! records are kept and tried again, the sources wait, and the log says what to do.
//!
//! A write is at most 256 KiB of whole records. Where a sender waits for an ack its records are synced before the
//! delivery is settled, one sync for all that was written before. A file is opened again when its path no longer names
//! it. A write that stopped half-way (disk full) is taken back to the last line end, or continued where it stopped.

mod name;
mod open;
mod writer;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use super::drive::{self, Pace};
use super::format::{Formatter, Frame, Separators, Shape, Template};
use super::{BuildContext, Output, OutputKind};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::rt::Receiver;
use writer::Writer;

pub(super) const KIND: OutputKind = OutputKind {
    info: PluginInfo {
        name: "file",
        aliases: &[],
        summary: "Append records to files.",
        keys: &[
            Key::new("path", Type::Str, "directory of the files").otherwise("the working directory"),
            Key::new(
                "file",
                Type::Str,
                "name of the file; the tag when it is not set (/ and the like as %2F)",
            ),
            Key::new(
                "format",
                Type::Str,
                "out_file (TAG: [TIME, {json}]), plain, csv, ltsv, template or msgpack",
            )
            .default("out_file"),
            Key::new("delimiter", Type::Str, "between fields of csv and ltsv: comma, tab or space")
                .otherwise("comma for csv, tab for ltsv"),
            Key::new("label_delimiter", Type::Str, "between label and value of ltsv: comma, tab or space")
                .otherwise(":"),
            Key::new("template", Type::Str, "line of format template: text with {time} and {key}")
                .default("{time} {message}"),
            Key::new("csv_column_names", Type::Bool, "a csv file begins with the names of the columns")
                .default("false"),
            Key::new("mkdir", Type::Bool, "create missing directories (mode 0755)").default("false"),
        ],
        groups: &[],
    },
    build,
};

/// The longest that small writes wait for company.
const LINGER: Duration = Duration::from_millis(50);

struct FileOutput {
    formatter: Formatter,
    writer: Writer,
    linger: Duration,
    one_file: bool,
}

fn separator(s: &Settings, key: &str, default: u8, diags: &mut Diagnostics) -> u8 {
    match s.str(key) {
        None => default,
        Some("\\t" | "tab" | "\t") => b'\t',
        Some("space" | " ") => b' ',
        Some("comma" | ",") => b',',
        Some(other) => {
            diags.strict(
                Some(s.pos_of(key)),
                format!("unknown {key} \"{other}\" in [OUTPUT] file"),
                "the default is used; choose comma, tab or space",
            );
            default
        }
    }
}

fn build(s: &Settings, cx: &BuildContext, diags: &mut Diagnostics) -> Option<Box<dyn Output>> {
    let format = s.str("format").unwrap_or("out_file");
    let mut separators = |field| Separators {
        field: separator(s, "delimiter", field, diags),
        label: separator(s, "label_delimiter", b':', diags),
        column_names: s.bool("csv_column_names"),
    };
    let shape = match format.to_ascii_lowercase().as_str() {
        "out_file" => Shape::OutFile,
        "plain" => Shape::Json { frame: Frame::Lines, date: None },
        "csv" => Shape::Csv(separators(b',')),
        "ltsv" => Shape::Ltsv(separators(b'\t')),
        "template" => Shape::Template(Template::new(s.str("template").unwrap_or_default())),
        "msgpack" => Shape::Msgpack,
        _ => {
            diags.error_hint(
                Some(s.pos_of("format")),
                format!("unknown format \"{format}\" in [OUTPUT] file"),
                "use out_file, plain (JSON lines), csv, ltsv, template or msgpack",
            );
            return None;
        }
    };
    for key in ["path", "file"] {
        if let Some(entry) = s.entry(key)
            && entry.value.contains('$')
        {
            diags.strict(
                Some(&entry.pos),
                format!("{} \"{}\" of [OUTPUT] file looks like a record accessor, which is not built", entry.written, entry.value),
                "it is taken as it is written; name the file by its tag, which rewrite_tag can make from a record",
            );
        }
    }
    let file = s.str("file").map(str::to_owned);
    let shapes = Formatter::new(shape, cx.escape_unicode);
    Some(Box::new(FileOutput {
        one_file: file.is_some(),
        writer: Writer::new(s.str("path").map(PathBuf::from), file, s.bool("mkdir"), shapes.beginnings()),
        formatter: shapes,
        linger: cx.flush.min(LINGER),
    }))
}

impl Output for FileOutput {
    fn run(self: Box<Self>, queue: Receiver) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let pace = Pace::Spaced(self.linger);
        Box::pin(drive::run(self.writer, self.formatter, pace, self.one_file, queue))
    }
}

#[cfg(test)]
mod tests;
