//! A chunk into pieces that fit a frame, so that damage on the disk costs little.
//!
//! Enters: a chunk. Leaves: the same records in chunks of at most [`FRAME`] bytes (one larger record has its own), without
//! a copy.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::record::{Chunk, Seg};
use crate::wire::msgpack;

/// Most bytes of records in one frame.
pub(super) const FRAME: usize = 64 << 10;

/// Cuts a chunk between records.
pub fn frames(mut chunk: Chunk) -> Vec<Arc<Chunk>> {
    if chunk.bytes.len() <= FRAME {
        return vec![Arc::new(chunk)];
    }
    let mut pieces = Vec::with_capacity(chunk.bytes.len() / FRAME + 2);
    let mut segs: SmallVec<[Seg; 1]> = SmallVec::new();
    let (mut from, mut at, mut total) = (0, 0, 0);
    let mut end_piece =
        |segs: &mut SmallVec<[Seg; 1]>, from: &mut usize, at: usize, total: &mut u64, chunk: &mut Chunk| {
            if *total > 0 {
                pieces.push(Arc::new(Chunk {
                    bytes: chunk.bytes.slice(*from..at),
                    segs: std::mem::take(segs),
                    count: std::mem::take(total),
                    charge: chunk.charge.split((at - *from) as u64),
                    meter: None,
                }));
                *from = at;
            }
        };
    for seg in std::mem::take(&mut chunk.segs) {
        let mut count = 0;
        while at < seg.end {
            // Chunks are validated; if one is broken all the same, the rest of its segment is one record.
            let end = msgpack::skip(&chunk.bytes, at).unwrap_or(seg.end).min(seg.end);
            if end - from > FRAME && total + count > 0 {
                if count > 0 {
                    segs.push(Seg { tag: seg.tag.clone(), end: at - from, count });
                    total += std::mem::take(&mut count);
                }
                end_piece(&mut segs, &mut from, at, &mut total, &mut chunk);
            }
            at = end;
            count += 1;
        }
        if count > 0 {
            segs.push(Seg { tag: seg.tag, end: at - from, count });
            total += count;
        }
    }
    end_piece(&mut segs, &mut from, at, &mut total, &mut chunk);
    // Room that was allocated and is not used goes with the last piece.
    if let Some(last) = pieces.last_mut().and_then(Arc::get_mut) {
        last.charge.merge(chunk.charge);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tag;
    use crate::rt::Budget;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_pieces_are_the_chunk(sizes in proptest::collection::vec((0usize..40_000, 0u8..3), 1..40)) {
            let mut bytes = Vec::new();
            let mut segs: SmallVec<[Seg; 1]> = SmallVec::new();
            for (size, tag) in &sizes {
                msgpack::write_str(&mut bytes, &vec![b'x'; *size]);
                let tag = Tag::new(&[*tag]);
                match segs.last_mut() {
                    Some(last) if last.tag == tag => {
                        last.end = bytes.len();
                        last.count += 1;
                    }
                    _ => segs.push(Seg { tag, end: bytes.len(), count: 1 }),
                }
            }
            let expected: Vec<(Tag, Vec<u8>)> = records(&bytes, &segs);
            let budget = Budget::new(1 << 30);
            let charge = budget.take(bytes.len() as u64);
            let pieces = frames(Chunk { bytes: bytes.into(), segs, count: sizes.len() as u64, charge, meter: None });
            let mut found = Vec::new();
            for piece in &pieces {
                prop_assert!(piece.bytes.len() <= FRAME || piece.count == 1);
                prop_assert_eq!(piece.segs.iter().map(|s| s.count).sum::<u64>(), piece.count);
                prop_assert_eq!(piece.charge.bytes(), piece.bytes.len() as u64);
                found.extend(records(&piece.bytes, &piece.segs));
            }
            prop_assert_eq!(found, expected);
            drop(pieces);
            prop_assert_eq!(budget.used(), 0);
        }
    }

    fn records(bytes: &[u8], segs: &[Seg]) -> Vec<(Tag, Vec<u8>)> {
        let (mut found, mut at) = (Vec::new(), 0);
        for seg in segs {
            let mut count = 0;
            while at < seg.end {
                let end = msgpack::skip(bytes, at).unwrap();
                found.push((seg.tag.clone(), bytes[at..end].to_vec()));
                at = end;
                count += 1;
            }
            assert_eq!(count, seg.count);
        }
        found
    }
}
