//! The forward decoder: any bytes, in pieces of any size, never panic and give the same frames as in one piece.
#![no_main]

use firelane::wire::forward::{Body, Decoder, Fatal, Next, check};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 16;

/// Every frame's end, and how the connection ended.
fn frames(bytes: &[u8], mut visible: impl FnMut(usize, usize) -> usize) -> (Vec<usize>, Option<Fatal>) {
    let (mut ends, mut start, mut seen) = (Vec::new(), 0, 0);
    let mut decoder = Decoder::new(LIMIT);
    loop {
        let frame = bytes.get(start..seen).unwrap_or_default();
        match decoder.next(frame) {
            Ok(Next::Incomplete { need }) => {
                assert!(need > frame.len(), "asks for bytes that are there");
                if seen == bytes.len() {
                    return (ends, None);
                }
                seen = visible(seen, bytes.len());
            }
            Ok(Next::Heartbeat { end } | Next::Bad { end, .. }) => {
                start += end;
                ends.push(start);
            }
            Ok(Next::Frame(f)) => {
                if let Body::Forward(range) | Body::Packed(range) = &f.body {
                    check(&frame[range.clone()]);
                }
                assert!(f.end > 0 && f.end <= frame.len());
                start += f.end;
                ends.push(start);
            }
            Err(fatal) => return (ends, Some(fatal)),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = frames(bytes, |_, len| len);
    let step = bytes.first().map_or(1, |b| usize::from(b % 7) + 1);
    let pieces = frames(bytes, |seen, len| (seen + step).min(len));
    assert_eq!(whole, pieces);
});
