//! Decompression with a hard cap on what comes out.
//!
//! Enters: a compressed payload, all of it. Leaves: the plain bytes. gzip may be several members back to back (fluentd
//! appends them), zstd several frames. Can go wrong: a bomb, a torn or corrupt payload, bytes behind the last member.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;

/// The two codecs of the forward protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Why a payload does not decompress.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// More than the cap.
    #[error("decompressed payload is larger than {0} bytes (Buffer_Max_Size)")]
    TooLarge(usize),
    /// It ends before it should.
    #[error("payload is truncated")]
    Truncated,
    /// The codec's word.
    #[error("payload does not decompress: {0}")]
    Corrupt(String),
}

/// Recognises a payload by its magic.
pub fn sniff(payload: &[u8]) -> Option<Compression> {
    if payload.starts_with(&[0x1f, 0x8b]) {
        Some(Compression::Gzip)
    } else if payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Some(Compression::Zstd)
    } else {
        None
    }
}

/// Largest window a zstd frame may ask for: 8 MiB, what every decoder must support.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Decompresses to at most `cap` bytes.
///
/// # Errors
/// See [`InflateError`].
pub fn inflate(kind: Compression, payload: &[u8], cap: usize) -> Result<Vec<u8>, InflateError> {
    match kind {
        // Goes through all members with one state: a state for each would make many tiny ones dear.
        Compression::Gzip => read_capped(MultiGzDecoder::new(payload), cap),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(refusal)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(refusal)?;
            read_capped(decoder, cap)
        }
    }
}

fn refusal(e: io::Error) -> InflateError {
    match e.kind() {
        io::ErrorKind::UnexpectedEof => InflateError::Truncated,
        _ => InflateError::Corrupt(e.to_string()),
    }
}

fn read_capped(from: impl Read, cap: usize) -> Result<Vec<u8>, InflateError> {
    let mut out = Vec::new();
    // One byte more than allowed tells "exactly full" from "too much".
    from.take((cap as u64).saturating_add(1)).read_to_end(&mut out).map_err(refusal)?;
    if out.len() > cap {
        return Err(InflateError::TooLarge(cap));
    }
    // It may wait in a queue for long: without the room it has grown.
    out.shrink_to_fit();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        w.write_all(bytes).unwrap();
        w.finish().unwrap()
    }

    #[test]
    fn several_members_or_frames_are_one_payload() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(inflate(Compression::Gzip, &two, 100).unwrap(), b"one two");
        let two =
            [zstd::encode_all(&b"one "[..], 1).unwrap(), zstd::encode_all(&b"two"[..], 1).unwrap()].concat();
        assert_eq!(inflate(Compression::Zstd, &two, 100).unwrap(), b"one two");
    }

    #[test]
    fn a_bomb_stops_at_the_cap_and_a_torn_payload_is_corrupt() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(matches!(inflate(Compression::Gzip, &bomb, 1000), Err(InflateError::TooLarge(1000))));
        let bomb = zstd::encode_all(&vec![0; 10_000_000][..], 1).unwrap();
        assert!(matches!(inflate(Compression::Zstd, &bomb, 1000), Err(InflateError::TooLarge(1000))));
        let torn = gzip(b"some text that is long enough");
        assert!(matches!(inflate(Compression::Gzip, &torn[..20], 1000), Err(InflateError::Truncated)));
        let torn = zstd::encode_all(&b"some text that is long enough"[..], 1).unwrap();
        assert!(matches!(inflate(Compression::Zstd, &torn[..20], 1000), Err(InflateError::Truncated)));
        let trailing = [gzip(b"x"), b"no member at all".to_vec()].concat();
        assert!(matches!(inflate(Compression::Gzip, &trailing, 1000), Err(InflateError::Corrupt(_))));
    }

    #[test]
    fn what_fills_the_cap_exactly_is_let_through() {
        assert_eq!(inflate(Compression::Gzip, &gzip(b"12345"), 5).unwrap(), b"12345");
        assert!(matches!(inflate(Compression::Gzip, &gzip(b"12345"), 4), Err(InflateError::TooLarge(4))));
        let zstd = zstd::encode_all(&b"12345"[..], 1).unwrap();
        assert_eq!(inflate(Compression::Zstd, &zstd, 5).unwrap(), b"12345");
    }

    #[test]
    fn a_flipped_byte_is_noticed_by_the_checksum() {
        let mut bytes = gzip(b"some text that is long enough");
        let crc = bytes.len() - 8;
        bytes[crc] ^= 1;
        assert!(matches!(inflate(Compression::Gzip, &bytes, 1000), Err(InflateError::Corrupt(_))));
    }

    #[test]
    fn a_frame_that_wants_a_huge_window_is_refused_at_its_header() {
        // Magic, a descriptor without content size, window of 2^41 bytes.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
        assert!(matches!(inflate(Compression::Zstd, &frame, 1000), Err(InflateError::Corrupt(_))));
    }

    #[test]
    fn magics_are_told_apart() {
        assert_eq!(sniff(&gzip(b"")), Some(Compression::Gzip));
        assert_eq!(sniff(&zstd::encode_all(&b""[..], 1).unwrap()), Some(Compression::Zstd));
        assert_eq!(sniff(b"\x92\x01\x80"), None);
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back_unless_it_is_cut(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cut in 0usize..3000,
        ) {
            let whole = gzip(&bytes);
            prop_assert_eq!(inflate(Compression::Gzip, &whole, 3000).unwrap(), bytes.as_slice());
            let cut = cut.min(whole.len() - 1).max(1);
            prop_assert!(inflate(Compression::Gzip, &whole[..cut], 3000).is_err());
            let whole = zstd::encode_all(&bytes[..], 1).unwrap();
            prop_assert_eq!(inflate(Compression::Zstd, &whole, 3000).unwrap(), bytes.as_slice());
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = inflate(Compression::Gzip, &bytes, 1000);
            let _ = inflate(Compression::Zstd, &bytes, 1000);
        }
    }
}
