//! The bytes of a frame. Pure: no file, no clock.
//!
//! Enters: a [`NewFrame`] and the identity of the segment it goes to. Leaves: head, then the body as it is, then padding
//! to 8 bytes; and back. Can go wrong: any bytes may be read; what is not a whole frame of this segment is refused, and
//! no declared length is believed before it fits what is there. `docs/wal.md` has the layout.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Kind, NewFrame, OwnerId, Seq};
use crate::record::{Seg, Tag};

/// What identifies one life of a segment: frames of an earlier life do not validate.
pub(super) type Uuid = [u8; 16];

/// Bytes before the owners.
pub(super) const HEAD: usize = 48;
/// Where the checksum stands.
const CRC_AT: usize = 44;
/// No frame is larger.
pub(super) const MAX_FRAME: usize = 64 << 20;
/// A segment's frames begin at multiples of it.
pub(super) const ALIGN: u64 = 8;

/// A frame as it lies in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) kind: Kind,
    pub(super) seq: Seq,
    pub(super) owners: SmallVec<[OwnerId; 4]>,
    pub(super) segs: SmallVec<[(Tag, u64, usize); 1]>,
    pub(super) holds: Vec<u64>,
    pub(super) frees: Vec<u64>,
    pub(super) count: u64,
    pub(super) time_ms: u64,
    /// Where the body begins and ends, from the frame's first byte.
    pub(super) body: std::ops::Range<usize>,
    /// Bytes to the next frame.
    pub(super) size: usize,
}

/// What stands where a frame was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAFrame {
    /// It could be one, of so many bytes, which are not all here.
    Short(usize),
    /// Not a frame of this segment.
    Bad,
}

/// Bytes that a frame takes in a segment.
pub(super) fn size(frame: &NewFrame) -> u64 {
    padded(HEAD + meta_size(frame) + frame.body.len()) as u64
}

fn padded(n: usize) -> usize {
    n.next_multiple_of(ALIGN as usize)
}

fn meta_size(frame: &NewFrame) -> usize {
    let tags: usize = frame.segs.iter().map(|s| s.tag.as_bytes().len() + 12).sum();
    frame.owners.len() * 2 + tags + (frame.holds.len() + frame.frees.len()) * 8
}

/// The bytes before the body, appended to `out`. The checksum covers them, the segment's identity and the body.
pub(super) fn write_head(out: &mut Vec<u8>, frame: &NewFrame, seq: Seq, uuid: &Uuid) {
    let start = out.len();
    let meta = meta_size(frame);
    let put32 = |out: &mut Vec<u8>, n: usize| out.extend_from_slice(&(n as u32).to_le_bytes());
    put32(out, HEAD + meta + frame.body.len());
    out.push(match frame.kind {
        Kind::Records => 1,
        Kind::Held => 2,
    });
    out.push(0);
    out.extend_from_slice(&(frame.owners.len() as u16).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    put32(out, frame.count() as usize);
    put32(out, frame.segs.len());
    put32(out, frame.holds.len());
    put32(out, frame.frees.len());
    out.extend_from_slice(&frame.time_ms.to_le_bytes());
    put32(out, meta);
    put32(out, 0);
    for owner in &frame.owners {
        out.extend_from_slice(&owner.0.to_le_bytes());
    }
    for seg in &frame.segs {
        put32(out, seg.tag.as_bytes().len());
        put32(out, seg.count as usize);
        put32(out, seg.end);
        out.extend_from_slice(seg.tag.as_bytes());
    }
    for id in frame.holds.iter().chain(&frame.frees) {
        out.extend_from_slice(&id.to_le_bytes());
    }
    let head = out.get(start..).unwrap_or_default();
    let crc = checksum(head, uuid, &frame.body);
    if let Some(place) = out.get_mut(start + CRC_AT..start + HEAD) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Of the head (its own field counts as zero), the segment's identity and the body.
fn checksum(head: &[u8], uuid: &Uuid, body: &[u8]) -> u32 {
    let (before, after) = (head.get(..CRC_AT).unwrap_or_default(), head.get(HEAD..).unwrap_or_default());
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), uuid);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, after), body)
}

/// Reads bytes one after another; every read may find nothing.
struct Bytes32<'a>(&'a [u8]);

impl<'a> Bytes32<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize)
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// The frame that `bytes` begins with.
pub(super) fn read(bytes: &[u8], uuid: &Uuid) -> Result<Parsed, NotAFrame> {
    let Some(head) = bytes.get(..HEAD) else { return Err(NotAFrame::Short(HEAD)) };
    parse(head, bytes, uuid).ok_or(NotAFrame::Bad).and_then(|found| found)
}

/// The frame that `bytes` would begin with, were it not for one wrong bit.
pub(super) fn mend(mut bytes: Vec<u8>, uuid: &Uuid) -> Option<Parsed> {
    let found = wrong_bit(&bytes, uuid);
    let without = |(at, bit): (usize, u32)| {
        *bytes.get_mut(at)? ^= 1 << bit;
        let frame = read(&bytes, uuid).ok();
        *bytes.get_mut(at)? ^= 1 << bit;
        frame
    };
    // The checksum says where the bit is, unless it is in the length: then it covers other bytes.
    let length = (0..4).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    found.into_iter().chain(length).find_map(without)
}

/// Where the one bit is, byte and bit, that would have to be another for the checksum to be right.
fn wrong_bit(bytes: &[u8], uuid: &Uuid) -> Option<(usize, u32)> {
    /// The polynomial of CRC-32C, reflected.
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let whole = bytes.get(..len).filter(|whole| whole.len() >= HEAD)?;
    let stored = u32::from_le_bytes(whole.get(CRC_AT..HEAD)?.try_into().ok()?);
    let mut differs = stored ^ checksum(whole, uuid, &[]);
    if differs.is_power_of_two() {
        let bit = differs.trailing_zeros();
        return Some((CRC_AT + bit as usize / 8, bit % 8));
    }
    // A checksum is linear: what differs is what the one bit became on its way through all that follows it. Backwards, bit
    // by bit, it becomes that bit again.
    let covered = (len - (HEAD - CRC_AT) + uuid.len()) * 8;
    for at in (0..covered).rev() {
        differs = match differs >> 31 {
            1 => (differs ^ POLYNOMIAL) << 1 | 1,
            _ => differs << 1,
        };
        if differs == 1 {
            let bit = (at % 8) as u32;
            return match at / 8 {
                byte if byte < CRC_AT => Some((byte, bit)),
                byte => Some((byte.checked_sub(CRC_AT + uuid.len())? + HEAD, bit)),
            };
        }
    }
    None
}

/// `None`: not a frame.
fn parse(head: &[u8], bytes: &[u8], uuid: &Uuid) -> Option<Result<Parsed, NotAFrame>> {
    let mut r = Bytes32(head);
    let len = r.u32()?;
    let [kind, reserved] = *r.take(2)? else { return None };
    let kind = match kind {
        1 => Kind::Records,
        2 => Kind::Held,
        _ => return None,
    };
    let owners = usize::from(r.u16()?);
    let seq = r.u64()?;
    let (count, segs, holds, frees) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    let time_ms = r.u64()?;
    let meta = r.u32()?;
    let crc = r.u32()?;
    let fits = len <= MAX_FRAME && meta <= len.checked_sub(HEAD)?;
    let least = (owners * 2).checked_add(segs.checked_mul(12)?)?;
    let least = least.checked_add(holds.checked_mul(8)?)?.checked_add(frees.checked_mul(8)?)?;
    if !fits || reserved != 0 || seq == 0 || least > meta {
        return None;
    }
    let Some(whole) = bytes.get(..len) else { return Some(Err(NotAFrame::Short(padded(len)))) };
    let body = HEAD + meta..len;
    let covered = checksum(whole.get(..body.start)?, uuid, whole.get(body.clone())?);
    if covered != crc as u32 {
        return None;
    }
    // From here on the frame is what was written; a mistake in it would be ours.
    let mut r = Bytes32(whole.get(HEAD..body.start)?);
    let owners = (0..owners).map(|_| r.u16().map(OwnerId)).collect::<Option<_>>()?;
    let mut list = SmallVec::new();
    for _ in 0..segs {
        let (tag, count, end) = (r.u32()?, r.u32()?, r.u32()?);
        if end > body.len() {
            return None;
        }
        list.push((Tag::new(r.take(tag)?), count as u64, end));
    }
    let holds = (0..holds).map(|_| r.u64()).collect::<Option<_>>()?;
    let frees = (0..frees).map(|_| r.u64()).collect::<Option<_>>()?;
    let size = padded(len);
    Some(Ok(Parsed { kind, seq, owners, segs: list, holds, frees, count: count as u64, time_ms, body, size }))
}

impl Parsed {
    /// Its segments, as a chunk has them.
    pub(super) fn segs(&self) -> SmallVec<[Seg; 1]> {
        self.segs.iter().map(|(tag, count, end)| Seg { tag: tag.clone(), end: *end, count: *count }).collect()
    }

    /// The same frame for one owner alone, to be written elsewhere.
    pub(super) fn for_owner(&self, owner: OwnerId, body: Bytes) -> NewFrame {
        NewFrame {
            kind: Kind::Records,
            owners: SmallVec::from_slice(&[owner]),
            segs: self.segs(),
            body,
            holds: Vec::new(),
            frees: Vec::new(),
            time_ms: self.time_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(frame: &NewFrame, seq: Seq, uuid: &Uuid) -> Vec<u8> {
        let mut out = Vec::new();
        write_head(&mut out, frame, seq, uuid);
        out.extend_from_slice(&frame.body);
        out.resize(padded(out.len()), 0);
        assert_eq!(out.len() as u64, size(frame));
        out
    }

    fn any_frame() -> impl Strategy<Value = NewFrame> {
        let tag = proptest::collection::vec(any::<u8>(), 0..20);
        let segs = proptest::collection::vec((tag, 1u64..9), 0..4);
        let ids = || proptest::collection::vec(any::<u64>(), 0..4);
        (
            segs,
            proptest::collection::vec(any::<u8>(), 0..200),
            proptest::collection::vec(any::<u16>(), 0..6),
            ids(),
            ids(),
        )
            .prop_map(|(segs, body, owners, holds, frees)| NewFrame {
                kind: if holds.is_empty() { Kind::Records } else { Kind::Held },
                owners: owners.into_iter().map(OwnerId).collect(),
                segs: segs
                    .into_iter()
                    .map(|(t, count)| Seg { tag: Tag::new(&t), end: body.len(), count })
                    .collect(),
                body: body.into(),
                holds,
                frees,
                time_ms: 7,
            })
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_and_only_with_its_segments_identity(frame in any_frame(), seq in 1u64.., uuid in any::<[u8; 16]>()) {
            let bytes = encode(&frame, seq, &uuid);
            let found = read(&bytes, &uuid).unwrap();
            prop_assert_eq!(found.size, bytes.len());
            prop_assert_eq!(&bytes[found.body.clone()], &frame.body[..]);
            prop_assert_eq!((found.seq, found.kind, found.time_ms), (seq, frame.kind, 7));
            prop_assert_eq!((&found.owners, &found.holds, &found.frees), (&frame.owners, &frame.holds, &frame.frees));
            prop_assert_eq!(found.segs.len(), frame.segs.len());
            let mut other = uuid;
            other[3] ^= 1;
            prop_assert_eq!(read(&bytes, &other), Err(NotAFrame::Bad));
        }

        #[test]
        fn one_wrong_bit_is_noticed(frame in any_frame(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let uuid = [7; 16];
            let mut bytes = encode(&frame, 5, &uuid);
            let whole = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            bytes[at.index(whole)] ^= 1u8 << bit;
            prop_assert!(read(&bytes, &uuid).is_err());
        }

        #[test]
        fn a_frame_with_one_wrong_bit_is_known_for_what_it_was(frame in any_frame(), at in any::<prop::sample::Index>(), bit in 0u8..8, behind in 0usize..300) {
            let uuid = [7; 16];
            let mut bytes = encode(&frame, 5, &uuid);
            let was = read(&bytes, &uuid).unwrap();
            let whole = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            bytes[at.index(whole)] ^= 1u8 << bit;
            bytes.resize(bytes.len() + behind, 0);
            prop_assert_eq!(mend(bytes, &uuid), Some(was));
        }

        #[test]
        fn a_frame_of_which_more_is_wrong_is_none(frame in any_frame(), from in any::<prop::sample::Index>(), fill in any::<u8>()) {
            let uuid = [7; 16];
            let mut bytes = encode(&frame, 5, &uuid);
            let whole = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            let from = from.index(whole);
            let wrong: u32 = bytes[from..whole].iter().map(|byte| (byte ^ fill).count_ones()).sum();
            bytes[from..whole].fill(fill);
            prop_assert_eq!(mend(bytes, &uuid).is_some(), wrong == 1);
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, &[0; 16]);
            let _ = mend(bytes, &[0; 16]);
        }

        #[test]
        fn a_frame_cut_anywhere_is_short(frame in any_frame(), at in any::<prop::sample::Index>()) {
            let bytes = encode(&frame, 5, &[7; 16]);
            let whole = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
            prop_assert!(matches!(read(&bytes[..at.index(whole)], &[7; 16]), Err(NotAFrame::Short(_))));
        }
    }
}
