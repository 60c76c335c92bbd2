//! `tcp`: JSON maps, or lines of text, on a TCP port, with or without TLS.
//!
//! Enters: connections. Leaves: records, timed by the clock (or by a parser). Can go wrong: the address cannot be bound
//! (refused at start with what to do); text that is no JSON (counted, logged, the connection goes on at the next line);
//! a record larger than `Buffer_Size` (counted, logged, the connection is closed).

mod conn;

use std::sync::Arc;

use memchr::memmem::Finder;

use super::listen::Address;
use super::split::{Arrays, Format, Framing, TooLong};
use super::{BoxFuture, BuildContext, Input, InputContext, InputKind};
use crate::config::{Diagnostics, Key, NET_INPUT, PluginInfo, Settings, TLS_INPUT, Type};

pub(super) const KIND: InputKind = InputKind {
    info: PluginInfo {
        name: "tcp",
        aliases: &[],
        summary: "JSON maps, or lines of text, on a TCP port.",
        keys: &[
            Key::new("port", Type::Int, "TCP port").default("5170"),
            Key::new(
                "format",
                Type::Str,
                "json: maps one after the other; none: a record {\"log\": text} a line",
            )
            .default("json"),
            Key::new(
                "separator",
                Type::Str,
                "what ends a line with Format none; \\t, \\n, \\x00 and the like",
            )
            .default("\\n"),
            Key::new("parser", Type::Str, "makes fields of a line; implies Format none"),
            Key::new("chunk_size", Type::Int, "KiB; accepted, buffers grow as needed").default("32"),
            Key::new("buffer_size", Type::Int, "largest record in KiB; Chunk_Size when it is not set"),
            Key::new("source_address_key", Type::Str, "key that the client's address goes under"),
        ],
        groups: &[NET_INPUT, TLS_INPUT],
    },
    build,
};

struct Tcp {
    address: Address,
    framing: Framing,
    limit: usize,
    source_key: Option<Vec<u8>>,
}

fn build(s: &Settings, cx: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Box<dyn Input>> {
    let address = Address::read(s, diags);
    let framing = framing(s, cx, diags);
    let chunk = kibibytes(s, "chunk_size", diags);
    let limit = if s.str("buffer_size").is_some() { kibibytes(s, "buffer_size", diags) } else { chunk };
    Some(Box::new(Tcp {
        address: address?,
        framing: framing?,
        // A buffer smaller than the first chunk never was one.
        limit: limit?.max(chunk?),
        source_key: s.str("source_address_key").map(|k| k.as_bytes().to_vec()),
    }))
}

fn kibibytes(s: &Settings, key: &str, diags: &mut Diagnostics) -> Option<usize> {
    match s.int(key) {
        Some(n @ 1..=1_048_576) => Some(n as usize * 1024),
        _ => {
            s.error(diags, key, "a size in KiB is a whole number from 1 to 1048576");
            None
        }
    }
}

fn framing(s: &Settings, cx: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Framing> {
    let format = s.str("format").unwrap_or("json");
    let json = format.eq_ignore_ascii_case("json");
    if !json && !format.eq_ignore_ascii_case("none") {
        s.error(diags, "format", format!("\"{format}\" is no format; use json or none"));
        return None;
    }
    let parser = match s.str("parser") {
        Some(name) => match cx.library.parsers.get(name) {
            Some(parser) => Some(Arc::clone(parser)),
            None => {
                s.error(diags, "parser", format!("parser \"{name}\" is not defined; see Parsers_File"));
                return None;
            }
        },
        None => None,
    };
    if json && parser.is_some() && s.entry("format").is_some() {
        diags.strict(
            Some(s.pos_of("format")),
            "Format json together with Parser in [INPUT] tcp",
            "parsers read lines: Format none is used",
        );
    }
    if json && parser.is_none() {
        return Some(Framing::Json(Arrays::Message));
    }
    let separator = unescape(s.str("separator").unwrap_or("\\n"));
    if separator.is_empty() {
        s.error(diags, "separator", "it is empty");
        return None;
    }
    Some(Framing::Pieces { separator: Box::new(Finder::new(&separator).into_owned()), parser })
}

/// `\n`, `\t` and the like, `\x41`, `\u017c`, up to three octal digits. Any other escaped character is itself.
fn unescape(text: &str) -> Vec<u8> {
    fn number(rest: &str, radix: u32, most: usize) -> Option<(u32, &str)> {
        let len = rest.bytes().take(most).take_while(|b| char::from(*b).is_digit(radix)).count();
        let (digits, rest) = rest.split_at_checked(len)?;
        Some((u32::from_str_radix(digits, radix).ok()?, rest))
    }
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
        let mut push = |c: char| out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        let escaped = rest.chars().next();
        let (true, Some(kind)) = (c == '\\', escaped) else {
            push(c);
            continue;
        };
        let after = rest.get(kind.len_utf8()..).unwrap_or_default();
        let numeric = match kind {
            'x' => number(after, 16, 2),
            'u' => number(after, 16, 4),
            '0'..='7' => number(rest, 8, 3),
            _ => None,
        };
        if let Some((n, after)) = numeric {
            match char::from_u32(n) {
                Some(c) if kind == 'u' => push(c),
                _ => out.push(n as u8),
            }
            rest = after;
            continue;
        }
        rest = after;
        push(match kind {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            other => other,
        });
    }
    out
}

impl Input for Tcp {
    fn start(self: Box<Self>, cx: InputContext) -> BoxFuture<'static, Result<(), String>> {
        let Tcp { address, framing, limit, source_key } = *self;
        let tag = cx.tag.clone().into_bytes();
        let format = Arc::new(Format { framing, limit, too_long: TooLong::EndStream, tag, source_key });
        Box::pin(address.start(cx, move |cx, conn| conn::serve(cx, Arc::clone(&format), conn)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::settings;
    use super::*;
    use crate::text::Library;

    fn errors(keys: &[(&str, &str)]) -> String {
        let mut diags = Diagnostics::new();
        let library = Library::default();
        let built = build(&settings(&KIND.info, keys), &BuildContext { library: &library }, &mut diags);
        assert_eq!(built.is_none(), diags.refused(false));
        diags.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn separators_know_escapes() {
        assert_eq!(unescape(r"\t"), b"\t");
        assert_eq!(unescape(r"\r\n"), b"\r\n");
        assert_eq!(unescape(r"\x00\x41\u017c\0\101\\\q-ż"), "\0A\u{17c}\0A\\q-ż".as_bytes());
        assert_eq!(unescape(r"a\"), b"a\\");
        assert_eq!(unescape(r"\xzz"), b"xzz");
    }

    #[test]
    fn bad_settings_name_their_key() {
        assert_eq!(errors(&[]), "");
        assert!(errors(&[("port", "70000")]).contains("a port is a number"));
        assert!(errors(&[("format", "xml")]).contains("\"xml\" is no format; use json or none"));
        assert!(errors(&[("parser", "nowhere")]).contains("parser \"nowhere\" is not defined"));
        assert!(errors(&[("chunk_size", "0")]).contains("a size in KiB"));
        assert!(errors(&[("tls", "on")]).contains("tls.crt_file"));
    }
}
