//! The Fluent forward protocol's frames, as a client writes them, and the acks that come back.
//!
//! Enters: a tag, how many entries, what the options say. Leaves: the bytes before and behind the entries, which
//! themselves are sent as they lie in a chunk. Options stand in Fluent Bit's order: `chunk`, `size`, `compressed`,
//! `fluent_signal`, added ones, `metadata`. Can go wrong: what a server answers is no ack.
//! <https://github.com/fluent/fluentd/wiki/Forward-Protocol-Specification-v1.5>

use super::msgpack::{self, Broken, Skip, Value};

/// Largest answer that is waited for; an ack is far smaller.
const MAX_ANSWER: usize = 4096;
/// Characters of a chunk id: base64 of 16 bytes.
pub const ID_LEN: usize = 24;

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Chunk ids of one process: 8 bytes that no other process has, and a number.
#[derive(Clone, Debug)]
pub struct Ids([u8; 8]);

impl Ids {
    /// `own` tells this sender from others.
    pub fn new(own: [u8; 8]) -> Ids {
        Ids(own)
    }

    /// The id of number `n`.
    pub fn text(&self, n: u64) -> [u8; ID_LEN] {
        let mut bytes = [0; 18];
        bytes[..8].copy_from_slice(&self.0);
        bytes[8..16].copy_from_slice(&n.to_be_bytes());
        let mut out = [b'='; ID_LEN];
        for (group, to) in bytes.chunks_exact(3).zip(out.chunks_exact_mut(4)) {
            let bits = group.iter().fold(0, |v: u32, b| v << 8 | u32::from(*b));
            for (i, c) in to.iter_mut().enumerate() {
                *c = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            }
        }
        // The last two bytes are padding.
        out[22..].copy_from_slice(b"==");
        out
    }

    /// The number of an id, if it is one of these to the last byte.
    pub fn number(&self, id: &[u8]) -> Option<u64> {
        // The first 64 of the 132 bits that 22 characters hold are `own`; the last four are padding.
        let mut bits: u128 = 0;
        for c in id.get(..22)? {
            bits = bits << 6 | LETTERS.iter().position(|l| l == c)? as u128;
        }
        let n = (bits >> 4) as u64;
        (self.text(n) == id).then_some(n)
    }
}

/// What the option map of a message says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// `chunk`: an ack is wanted.
    pub chunk: Option<&'a [u8]>,
    /// `size`: entries (none in Message mode).
    pub size: Option<u64>,
    /// `compressed: gzip`
    pub gzip: bool,
    /// `add_option`
    pub added: &'a [(String, String)],
    /// `metadata` of Message mode, an encoded map.
    pub metadata: Option<&'a [u8]>,
}

impl Options<'_> {
    /// Appends the map.
    pub fn write(&self, out: &mut Vec<u8>) {
        let some = usize::from(self.chunk.is_some()) + usize::from(self.size.is_some());
        let more = usize::from(self.gzip) + self.added.len() + usize::from(self.metadata.is_some());
        msgpack::write_map(out, some + more + 1);
        if let Some(id) = self.chunk {
            msgpack::write_str(out, b"chunk");
            msgpack::write_str(out, id);
        }
        if let Some(size) = self.size {
            msgpack::write_str(out, b"size");
            msgpack::write_uint(out, size);
        }
        if self.gzip {
            msgpack::write_str(out, b"compressed");
            msgpack::write_str(out, b"gzip");
        }
        msgpack::write_str(out, b"fluent_signal");
        msgpack::write_uint(out, 0);
        for (key, value) in self.added {
            msgpack::write_str(out, key.as_bytes());
            msgpack::write_str(out, value.as_bytes());
        }
        if let Some(metadata) = self.metadata {
            msgpack::write_str(out, b"metadata");
            out.extend_from_slice(metadata);
        }
    }
}

/// What stands before the entries of Forward mode.
pub fn write_forward_head(out: &mut Vec<u8>, tag: &[u8], entries: usize, options: bool) {
    msgpack::write_array(out, 2 + usize::from(options));
    msgpack::write_str(out, tag);
    msgpack::write_array(out, entries);
}

/// A PackedForward message up to its options.
pub fn write_packed(out: &mut Vec<u8>, tag: &[u8], payload: &[u8], options: bool) {
    msgpack::write_array(out, 2 + usize::from(options));
    msgpack::write_str(out, tag);
    msgpack::write_bin(out, payload);
}

/// What a server has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Not whole yet.
    NeedMore,
    /// An ack for this id; the answer ends there.
    Ack(&'a [u8], usize),
    /// Something else.
    Wrong(&'static str),
}

/// Reads one answer from the start of `bytes`.
pub fn answer(bytes: &[u8]) -> Answer<'_> {
    match bytes.first() {
        None => return Answer::NeedMore,
        Some(0x80..=0x8f | 0xde | 0xdf) => {}
        Some(0x90..=0x9f) => {
            return Answer::Wrong("it asks for a shared key; set Shared_Key (or Empty_Shared_Key on)");
        }
        Some(_) => return Answer::Wrong("it does not speak the forward protocol; check Host and Port"),
    }
    let end = match Skip::at(0).run(bytes, MAX_ANSWER) {
        Ok(end) => end,
        Err(Broken::Short) => return Answer::NeedMore,
        Err(_) => return Answer::Wrong("its answer is malformed"),
    };
    match acked(bytes) {
        Some(id) => Answer::Ack(id, end),
        None => Answer::Wrong("it answered without an ack; see its log"),
    }
}

fn acked(bytes: &[u8]) -> Option<&[u8]> {
    let (Value::Map { count, at }, _) = msgpack::read(bytes, 0)? else { return None };
    let mut pos = at;
    for _ in 0..count {
        let value_at = msgpack::skip(bytes, pos).ok()?;
        let end = msgpack::skip(bytes, value_at).ok()?;
        if msgpack::content(bytes.get(pos..value_at)?) == b"ack" {
            return msgpack::value(bytes.get(value_at..end)?)?.text();
        }
        pos = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_base64_of_sixteen_bytes() {
        // From Python: base64.b64encode(b"own-8-by" + (258).to_bytes(8, "big"))
        assert_eq!(&Ids::new(*b"own-8-by").text(258), b"b3duLTgtYnkAAAAAAAABAg==");
    }

    #[test]
    fn options_stand_in_fluent_bits_order() {
        let added = [("k".to_owned(), "v".to_owned())];
        let mut out = Vec::new();
        Options { chunk: Some(b"id"), size: Some(3), gzip: true, added: &added, metadata: Some(b"\x80") }
            .write(&mut out);
        assert_eq!(
            out,
            b"\x86\xa5chunk\xa2id\xa4size\x03\xaacompressed\xa4gzip\xadfluent_signal\x00\xa1k\xa1v\xa8metadata\x80"
        );
    }

    #[test]
    fn an_ack_is_read_from_str_or_bin_and_in_pieces() {
        assert_eq!(answer(b"\x81\xa3ack\xa2id\x81"), Answer::Ack(b"id", 8));
        assert_eq!(answer(b"\x81\xa3ack\xc4\x02id"), Answer::Ack(b"id", 9));
        for n in 0..8 {
            assert_eq!(answer(&b"\x81\xa3ack\xa2id"[..n]), Answer::NeedMore);
        }
    }

    #[test]
    fn what_is_no_ack_says_what_to_do() {
        for (bytes, word) in [
            (&b"\x80"[..], "without an ack"),
            (b"\x92\xa4HELO\x80", "Shared_Key"),
            (b"HTTP/1.1 400", "Host and Port"),
            (b"\x81\xdb\xff\xff\xff\xff", "malformed"),
        ] {
            assert!(matches!(answer(bytes), Answer::Wrong(text) if text.contains(word)), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn an_id_gives_its_number_back_and_no_other_text_does(n in any::<u64>(), own in any::<[u8; 8]>(), at in 0usize..24) {
            let ids = Ids::new(own);
            let mut text = ids.text(n);
            prop_assert_eq!(ids.number(&text), Some(n));
            prop_assert_eq!(ids.number(&text[..23]), None);
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            prop_assert_ne!(ids.number(&text), Some(n));
        }

        #[test]
        fn any_answer_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = answer(&bytes);
        }
    }
}
