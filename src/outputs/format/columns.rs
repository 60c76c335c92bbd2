//! csv, ltsv and template: values one by one, printed as Fluent Bit prints them.

use super::date;
use crate::record::Time;
use crate::wire::msgpack::{self, Value};
use crate::wire::print::print_value;

/// What stands between the parts of a line.
#[derive(Clone, Debug)]
pub(in crate::outputs) struct Separators {
    /// Between fields.
    pub(in crate::outputs) field: u8,
    /// Between label and value (ltsv).
    pub(in crate::outputs) label: u8,
    /// `csv_column_names`
    pub(in crate::outputs) column_names: bool,
}

/// Calls `each` with every encoded key and value of the map at `record` and says where the map ends.
fn fields<'a>(buf: &'a [u8], record: usize, mut each: impl FnMut(&'a [u8], &'a [u8])) -> usize {
    let Some((Value::Map { count, at: mut pos }, _)) = msgpack::read(buf, record) else { return buf.len() };
    for _ in 0..count {
        let Ok(mid) = msgpack::skip(buf, pos) else { return buf.len() };
        let Ok(end) = msgpack::skip(buf, mid) else { return buf.len() };
        each(buf.get(pos..mid).unwrap_or_default(), buf.get(mid..end).unwrap_or_default());
        pos = end;
    }
    pos
}

/// Whether the record at `record` has no field. Such a record has no columns, and so no line.
fn is_empty(buf: &[u8], record: usize) -> bool {
    matches!(msgpack::read(buf, record), Some((Value::Map { count: 0, .. }, _)))
}

impl Separators {
    pub(super) fn csv(&self, out: &mut Vec<u8>, time: Time, buf: &[u8], record: usize) -> usize {
        if is_empty(buf, record) {
            return fields(buf, record, |_, _| {});
        }
        date::seconds(out, time);
        let end = fields(buf, record, |_, value| {
            out.push(self.field);
            print_value(out, value);
        });
        out.push(b'\n');
        end
    }

    pub(super) fn names(&self, out: &mut Vec<u8>, buf: &[u8], record: usize) {
        if is_empty(buf, record) {
            return;
        }
        out.extend_from_slice(b"timestamp");
        fields(buf, record, |key, _| {
            out.push(self.field);
            print_value(out, key);
        });
        out.push(b'\n');
    }

    pub(super) fn ltsv(&self, out: &mut Vec<u8>, time: Time, buf: &[u8], record: usize) -> usize {
        if is_empty(buf, record) {
            return fields(buf, record, |_, _| {});
        }
        out.extend_from_slice(b"\"time\"");
        out.push(self.label);
        date::microseconds(out, time);
        let end = fields(buf, record, |key, value| {
            out.push(self.field);
            print_value(out, key);
            out.push(self.label);
            print_value(out, value);
        });
        out.push(b'\n');
        end
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Time,
    Key(Vec<u8>),
}

/// A line with `{time}` and `{key}` in it. A key that the record does not have stays as it is written.
#[derive(Debug)]
pub(in crate::outputs) struct Template(Vec<Part>);

impl Template {
    /// Takes the text apart. An opening brace that is never closed, or that another one follows before it is, is text:
    /// a line of JSON may have placeholders.
    pub(in crate::outputs) fn new(text: &str) -> Template {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, next)) = rest.split_once('}') {
            let Some((before, key)) = before.rsplit_once('{') else {
                parts.push(Part::Literal(format!("{before}}}").into()));
                rest = next;
                continue;
            };
            if !before.is_empty() {
                parts.push(Part::Literal(before.into()));
            }
            parts.push(if key == "time" { Part::Time } else { Part::Key(key.into()) });
            rest = next;
        }
        parts.push(Part::Literal(format!("{rest}\n").into_bytes()));
        Template(parts)
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, time: Time, buf: &[u8], record: usize) -> usize {
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Time => date::microseconds(out, time),
                Part::Key(key) => {
                    let mut found = None;
                    fields(buf, record, |k, v| {
                        if found.is_none() && msgpack::content(k) == key {
                            found = Some(v);
                        }
                    });
                    match found {
                        Some(value) => match msgpack::value(value) {
                            Some(Value::Str(text)) => out.extend_from_slice(text),
                            _ => print_value(out, value),
                        },
                        None => {
                            out.push(b'{');
                            out.extend_from_slice(key);
                            out.push(b'}');
                        }
                    }
                }
            }
        }
        msgpack::skip(buf, record).unwrap_or(buf.len())
    }
}
