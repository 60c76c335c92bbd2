//! Decompression with a hard cap on what comes out.
//!
//! Enters: a compressed payload, all of it. Leaves: the plain bytes. gzip may be several members back to back (fluentd
//! appends them), zstd several frames. Can go wrong: a bomb, a torn or corrupt payload, bytes behind the last member.

use std::io::Read;

use flate2::bufread::GzDecoder;

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
    let corrupt = |e: std::io::Error| InflateError::Corrupt(e.to_string());
    match kind {
        Compression::Gzip => {
            let mut out = Vec::new();
            let mut rest = payload;
            while !rest.is_empty() {
                let mut member = GzDecoder::new(rest);
                read_capped(&mut member, &mut out, cap)?;
                rest = member.into_inner();
            }
            Ok(out)
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(corrupt)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(corrupt)?;
            let mut out = Vec::new();
            read_capped(&mut decoder, &mut out, cap)?;
            Ok(out)
        }
    }
}

fn read_capped(from: &mut impl Read, out: &mut Vec<u8>, cap: usize) -> Result<(), InflateError> {
    // One byte more than allowed tells "exactly full" from "too much".
    let room = (cap - out.len()) as u64 + 1;
    from.take(room).read_to_end(out).map_err(|e| InflateError::Corrupt(e.to_string()))?;
    if out.len() > cap { Err(InflateError::TooLarge(cap)) } else { Ok(()) }
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
        assert!(matches!(inflate(Compression::Gzip, &torn[..20], 1000), Err(InflateError::Corrupt(_))));
        let trailing = [gzip(b"x"), b"garbage".to_vec()].concat();
        assert!(matches!(inflate(Compression::Gzip, &trailing, 1000), Err(InflateError::Corrupt(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = inflate(Compression::Gzip, &bytes, 1000);
            let _ = inflate(Compression::Zstd, &bytes, 1000);
        }
    }
}
