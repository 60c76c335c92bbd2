//! Messages of the forward protocol as clients send them. Written down here byte by byte, so that a mistake in the
//! router's own codec cannot hide.

/// A msgpack str.
pub(crate) fn text(bytes: &[u8]) -> Vec<u8> {
    let n = bytes.len();
    let mut out = match n {
        0..32 => vec![0xa0 | n as u8],
        32..256 => vec![0xd9, n as u8],
        256..65_536 => vec![0xda, (n >> 8) as u8, n as u8],
        _ => [&[0xdb][..], &(n as u32).to_be_bytes()].concat(),
    };
    out.extend_from_slice(bytes);
    out
}

/// A map of strings.
pub(crate) fn map(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    assert!(fields.len() < 16);
    let mut out = vec![0x80 | fields.len() as u8];
    for (key, value) in fields {
        out.extend(text(key));
        out.extend(text(value));
    }
    out
}

/// An EventTime.
pub(crate) fn time(seconds: u32) -> Vec<u8> {
    [&[0xd7, 0x00][..], &seconds.to_be_bytes(), &[0, 0, 0, 7]].concat()
}

/// `[tag, time, {"log": log}, option]`, what docker's driver sends; `option` is an encoded map.
pub(crate) fn message_with(tag: &str, log: &[u8], option: &[u8]) -> Vec<u8> {
    [&[0x94][..], &text(tag.as_bytes()), &time(1_760_000_000), &map(&[(b"log", log)]), option].concat()
}

/// A message without an ack.
pub(crate) fn message(tag: &str, log: &str) -> Vec<u8> {
    message_with(tag, log.as_bytes(), &[0x80])
}

/// A message that asks for an ack.
pub(crate) fn message_to_ack(tag: &str, log: &str, chunk: &str) -> Vec<u8> {
    message_with(tag, log.as_bytes(), &map(&[(b"chunk", chunk.as_bytes())]))
}

/// The ack of a chunk.
pub(crate) fn ack(chunk: &str) -> Vec<u8> {
    map(&[(b"ack", chunk.as_bytes())])
}

/// `[time, {"log": log}]`, an entry of Forward and PackedForward.
pub(crate) fn entry(log: &str) -> Vec<u8> {
    [&[0x92][..], &time(1_760_000_000), &map(&[(b"log", log.as_bytes())])].concat()
}

/// `[tag, bin, option]`; `option` is an encoded map.
pub(crate) fn packed(tag: &str, payload: &[u8], option: &[u8]) -> Vec<u8> {
    [&[0x93][..], &text(tag.as_bytes()), &[0xc6], &(payload.len() as u32).to_be_bytes(), payload, option]
        .concat()
}
