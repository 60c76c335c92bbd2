//! What is still owed of a frame of which an output has some records.
//!
//! Enters: a frame read back, with marks on the records that are delivered. Leaves: the others, copied, with the numbers
//! they had. Can go wrong: bytes that are no entry; then the rest of their segment is one record, which is owed.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::buffer::wal::StoredFrame;
use crate::record::Seg;
use crate::rt::Places;
use crate::wire::msgpack;

/// Leaves out what is marked. Without marks the frame passes as it is.
pub(super) fn rest(mut frame: StoredFrame) -> (StoredFrame, Option<Places>) {
    let Some(done) = frame.done.take().filter(|done| !done.is_empty()) else { return (frame, None) };
    let (mut body, mut places) = (Vec::new(), Vec::new());
    let mut segs: SmallVec<[Seg; 1]> = SmallVec::new();
    let (mut at, mut n) = (0, 0);
    for seg in &frame.segs {
        let mut count = 0;
        while at < seg.end {
            let end = msgpack::skip(&frame.body, at).unwrap_or(seg.end).min(seg.end);
            if !done.has(n) {
                body.extend_from_slice(frame.body.get(at..end).unwrap_or_default());
                places.push(n as u32);
                count += 1;
            }
            (at, n) = (end, n + 1);
        }
        if count > 0 {
            segs.push(Seg { tag: seg.tag.clone(), end: body.len(), count });
        }
    }
    (StoredFrame { segs, body: Bytes::from(body), count: places.len() as u64, ..frame }, Some(places.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Tag;
    use crate::rt::Marks;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_marked_records_and_no_others_are_left_out(records in proptest::collection::vec((0usize..40, 0u8..3, any::<bool>()), 0..40)) {
            let (mut body, mut done, mut want) = (Vec::new(), Marks::default(), Vec::new());
            let mut segs: SmallVec<[Seg; 1]> = SmallVec::new();
            for (n, (size, tag, marked)) in records.iter().enumerate() {
                let from = body.len();
                msgpack::write_str(&mut body, &vec![b'x'; *size]);
                let tag = Tag::new(&[*tag]);
                match segs.last_mut() {
                    Some(last) if last.tag == tag => (last.end, last.count) = (body.len(), last.count + 1),
                    _ => segs.push(Seg { tag: tag.clone(), end: body.len(), count: 1 }),
                }
                if *marked {
                    done.set(n);
                } else {
                    want.push((tag, body[from..].to_vec(), n as u32));
                }
            }
            let any = !done.is_empty();
            let count = records.len() as u64;
            let frame = StoredFrame { seq: 1, segs, body: body.into(), count, time_ms: 0, done: Some(done) };
            let (frame, places) = rest(frame);
            prop_assert_eq!(places.is_some(), any);
            let places: Vec<u32> = places.map_or_else(|| (0..count as u32).collect(), |p| p.to_vec());
            let (mut found, mut at) = (Vec::new(), 0);
            for seg in &frame.segs {
                let from = found.len();
                while at < seg.end {
                    let end = msgpack::skip(&frame.body, at).unwrap();
                    found.push((seg.tag.clone(), frame.body[at..end].to_vec(), places[found.len()]));
                    at = end;
                }
                prop_assert_eq!((found.len() - from) as u64, seg.count);
            }
            prop_assert_eq!(frame.count, found.len() as u64);
            prop_assert_eq!(found, want);
        }
    }
}
