//! `multiline`: joins records that belong together. In: any record. Out: one record for each group, the first of it with
//! its content replaced; records without the content pass.
//!
//! `mode parser` joins lines of text by rules (stack traces); `mode partial_message` joins what docker has cut into
//! pieces. What is joined passes the filters of its tag again, except this one. Bounded: what is held in one tag of one
//! connection stays below `emitter_mem_buf_limit`.

mod lines;
mod partial;

use std::sync::Arc;
use std::time::Duration;

use super::{BuildContext, Context, Filter, FilterKind, Hold, Verdict};
use crate::config::{Diagnostics, EMITTER, Key, PluginInfo, Settings, Type};
use crate::record::Record;
use crate::text::multiline::{BUILTIN_NAMES, Limits, MultilineParser};

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "multiline",
        aliases: &[],
        summary: "Join the lines of a stack trace, or docker's pieces of a long line, into one record.",
        keys: &[
            Key::new(
                "multiline.parser",
                Type::List,
                "multiline parsers; the first that a line belongs to takes it: java, python, go, ruby, docker, cri or your own",
            )
            .multi(),
            Key::new("multiline.key_content", Type::Str, "the field that is joined").default("log"),
            Key::new("mode", Type::Str, "parser, or partial_message for docker's pieces").default("parser"),
            Key::new("buffer", Type::Bool, "on: join across chunks; off: only within one").default("on"),
            Key::new("flush_ms", Type::Int, "how long a group waits for its next line, milliseconds")
                .default("2000"),
            Key::new("emitter_mem_buf_limit", Type::Size, "most that one tag of a connection may hold back")
                .default("10M"),
            Key::new("debug_flush", Type::Bool, "accepted, no effect").default("off"),
        ],
        groups: &[EMITTER],
    },
    build,
};

/// Fluent Bit's shortest `flush_ms` where lines are joined by parsers.
const SHORTEST: i64 = 500;

/// What a `[FILTER]` section says.
struct Multiline {
    key: Vec<u8>,
    mode: Mode,
    limits: Limits,
    flush: Duration,
}

enum Mode {
    Parser { parsers: Vec<Arc<MultilineParser>>, buffer: bool },
    Partial,
}

fn build(s: &Settings, cx: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let partial = match s.str("mode").unwrap_or("parser").to_ascii_lowercase().as_str() {
        "parser" => false,
        "partial_message" => true,
        other => {
            s.error(diags, "mode", format!("unknown mode \"{other}\"; use parser or partial_message"));
            return None;
        }
    };
    if let Some(kind) = s.str("emitter_storage.type")
        && !["memory", "filesystem"].iter().any(|k| kind.eq_ignore_ascii_case(k))
    {
        s.error(diags, "emitter_storage.type", format!("\"{kind}\" is neither memory nor filesystem"));
        return None;
    }
    let buffer = s.bool("buffer");
    let flush = s.int("flush_ms").unwrap_or(2000);
    let mode = if partial {
        if s.entry("multiline.key_content").is_none_or(|e| e.value.is_empty()) {
            s.error(
                diags,
                "multiline.key_content",
                "mode partial_message requires multiline.key_content; with docker it is log",
            );
            return None;
        }
        if !buffer {
            diags.strict(
                Some(s.pos_of("buffer")),
                "mode partial_message of [FILTER] multiline requires buffer on",
                "buffer on is used",
            );
        }
        Mode::Partial
    } else {
        if buffer && flush < SHORTEST {
            s.error(diags, "flush_ms", format!("{flush} is too low; use {SHORTEST} or more"));
            return None;
        }
        Mode::Parser { parsers: parsers(s, cx, diags)?, buffer }
    };
    let flush = Duration::from_millis(u64::try_from(flush).unwrap_or(0));
    Some(Arc::new(Multiline {
        key: s.str("multiline.key_content").unwrap_or("log").as_bytes().to_vec(),
        mode,
        limits: Limits {
            group: match cx.multiline_buffer_limit {
                0 => usize::MAX,
                limit => limit,
            },
            total: s
                .size("emitter_mem_buf_limit")
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(10_000_000),
            flush: Some(flush),
        },
        flush,
    }))
}

fn parsers(
    s: &Settings,
    cx: &BuildContext<'_>,
    diags: &mut Diagnostics,
) -> Option<Vec<Arc<MultilineParser>>> {
    let names = s.list("multiline.parser");
    if names.is_empty() {
        s.error(diags, "multiline.parser", "mode parser requires at least one multiline.parser");
        return None;
    }
    let mut found = Vec::new();
    for name in &names {
        match cx.library.find_multiline(name) {
            Some(parser) => found.push(parser),
            None => {
                let own = cx.library.multiline.values().map(|p| p.name());
                let known: Vec<&str> = BUILTIN_NAMES.iter().copied().chain(own).collect();
                let hint = match crate::config::nearest(name, known.iter().copied()) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("there are {}", known.join(", ")),
                };
                diags.error_hint(
                    Some(s.pos_of("multiline.parser")),
                    format!("[FILTER] multiline: parser '{name}' not registered"),
                    hint,
                );
            }
        }
    }
    (found.len() == names.len()).then_some(found)
}

impl Filter for Multiline {
    fn apply(&self, _: &mut Record<'_>, _: &mut Context<'_>) -> Verdict {
        Verdict::Keep
    }

    fn hold(&self) -> Option<Box<dyn Hold>> {
        Some(match &self.mode {
            Mode::Parser { parsers, buffer } => {
                Box::new(lines::Lines::new(parsers, self.key.clone(), self.limits, *buffer))
            }
            Mode::Partial => Box::new(partial::Partial::new(self.key.clone(), self.limits.total, self.flush)),
        })
    }
}

#[cfg(test)]
mod drive;
#[cfg(test)]
mod tests;
