//! A position of an owner as bytes: what one slot of its cursor file holds.
//!
//! Enters: a position, and the bytes there are for it. Leaves: bytes, and the position again. Numbers of seven bits a
//! byte, differences instead of numbers, and of each frame's records the shorter of bits and runs: an output of a thousand
//! streams of which one is stuck has marks in every frame. Can go wrong: there is no room for all. Then what is left out
//! comes again, first marks, then frames; nothing is lost. Damaged bytes are no position.

use std::collections::BTreeMap;

use super::Seq;
use super::cursor::Position;
use crate::rt::Marks;

/// Set in the count of unsettled frames, in slots of version 1: marks of records follow the frames.
const PARTLY: u32 = 1 << 31;
/// Set in the count: numbers are packed.
const PACKED: u32 = 1 << 30;
/// Checksum, count, generation, next number.
const HEAD: usize = 24;
/// Bytes of what is packed, after the head.
const LENGTH: usize = 4;

/// The bytes of a slot, at most `size`.
pub(super) fn write(generation: u64, position: &Position, size: usize) -> Vec<u8> {
    let room = size.saturating_sub(HEAD + LENGTH);
    // A frame takes the difference to the one before it, and how long its marks are: one byte if it has none.
    let mut used = 0;
    let mut last = 0;
    let mut kept = 0;
    for seq in &position.unsettled {
        used += width(seq - last) + 1;
        if used > room {
            used -= width(seq - last) + 1;
            break;
        }
        (last, kept) = (*seq, kept + 1);
    }
    let mut spare = room - used;
    // What does not fit is as good as not handed out: it comes again, it is not lost.
    let read = position.unsettled.get(kept).copied().unwrap_or(position.read);
    let mut out = vec![0; 4];
    out.extend_from_slice(&(kept as u32 | PACKED).to_le_bytes());
    out.extend_from_slice(&generation.to_le_bytes());
    out.extend_from_slice(&read.to_le_bytes());
    out.extend_from_slice(&[0; LENGTH]);
    let mut last = 0;
    for seq in position.unsettled.iter().take(kept) {
        put(&mut out, seq - last);
        last = *seq;
        let marks = position.partly.get(seq).filter(|marks| !marks.is_empty());
        let (bytes, is_runs) = marks.map(shorter).unwrap_or_default();
        let length = (bytes.len() as u64) << 1 | u64::from(is_runs);
        let more = bytes.len() + width(length) - 1;
        if bytes.is_empty() || more > spare {
            out.push(0);
        } else {
            spare -= more;
            put(&mut out, length);
            out.extend_from_slice(&bytes);
        }
    }
    let length = (out.len() - HEAD - LENGTH) as u32;
    let crc = |out: &[u8]| crc32c::crc32c(out.get(4..).unwrap_or_default());
    set(&mut out, HEAD, length);
    let crc = crc(&out);
    set(&mut out, 0, crc);
    out
}

fn set(out: &mut [u8], at: usize, value: u32) {
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// A frame's marks as bits or as runs, and whether they are runs: lengths of what is marked and what is not in turn, the
/// first is of what is marked, what follows the last is not.
fn shorter(marks: &Marks) -> (Vec<u8>, bool) {
    let bits = marks.bytes();
    let mut runs = Vec::new();
    let (mut of, mut length) = (true, 0);
    for n in 0..bits.len() * 8 {
        if marks.has(n) != of {
            put(&mut runs, length);
            (of, length) = (!of, 0);
            if runs.len() >= bits.len() {
                return (bits.to_vec(), false);
            }
        }
        length += 1;
    }
    if of {
        put(&mut runs, length);
    }
    if runs.len() < bits.len() { (runs, true) } else { (bits.to_vec(), false) }
}

fn marks_of(bytes: &[u8], is_runs: bool) -> Option<Marks> {
    if !is_runs {
        return Some(Marks::from_bytes(bytes));
    }
    let mut marks = Marks::default();
    let (mut n, mut at, mut of) = (0_usize, 0, true);
    while at < bytes.len() {
        let length = usize::try_from(take(bytes, &mut at)?).ok()?;
        let end = n.checked_add(length)?;
        if of {
            (n..end.min(Marks::MOST)).for_each(|n| marks.set(n));
        }
        (n, of) = (end, !of);
    }
    Some(marks)
}

/// The generation and the position in a slot, of either version; `None`: it is damaged or was never written.
pub(super) fn read(slot: &[u8]) -> Option<(u64, Position)> {
    let count = u32_at(slot, 4)?;
    if count & PACKED == 0 {
        return read_first(slot);
    }
    let end = HEAD + LENGTH + u32_at(slot, HEAD)? as usize;
    if u32_at(slot, 0)? != crc32c::crc32c(slot.get(4..end)?) {
        return None;
    }
    let packed = slot.get(HEAD + LENGTH..end)?;
    let (mut unsettled, mut partly) = (Vec::new(), BTreeMap::new());
    let (mut at, mut seq) = (0, 0_u64);
    for _ in 0..count & !PACKED {
        seq = seq.checked_add(take(packed, &mut at)?)?;
        unsettled.push(seq);
        let length = take(packed, &mut at)?;
        let bytes = usize::try_from(length >> 1).ok()?;
        if bytes > 0 {
            let bytes = packed.get(at..at.checked_add(bytes)?)?;
            at += bytes.len();
            partly.insert(seq, marks_of(bytes, length & 1 == 1)?);
        }
    }
    Some((u64_at(slot, 8)?, Position { read: u64_at(slot, 16)?, unsettled, partly }))
}

/// As it was before numbers were packed.
fn read_first(slot: &[u8]) -> Option<(u64, Position)> {
    let u16_at = |at: usize| Some(usize::from(u16::from_le_bytes(slot.get(at..at + 2)?.try_into().ok()?)));
    let (len, has_marks) = ((u32_at(slot, 4)? & !PARTLY) as usize, u32_at(slot, 4)? & PARTLY != 0);
    if len > slot.len() / 8 {
        return None;
    }
    let mut end = HEAD + len * 8;
    let mut at = end + 2;
    if has_marks {
        end = at + u16_at(end)?;
    }
    if u32_at(slot, 0)? != crc32c::crc32c(slot.get(4..end)?) {
        return None;
    }
    let unsettled: Vec<Seq> = (0..len).map(|i| u64_at(slot, HEAD + i * 8)).collect::<Option<_>>()?;
    let mut partly = BTreeMap::new();
    while has_marks && at < end {
        let done = slot.get(at + 4..at + 4 + u16_at(at + 2)?)?;
        partly.insert(*unsettled.get(u16_at(at)?)?, Marks::from_bytes(done));
        at += 4 + done.len();
    }
    Some((u64_at(slot, 8)?, Position { read: u64_at(slot, 16)?, unsettled, partly }))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Bytes that [`put`] takes.
fn width(n: u64) -> usize {
    (64 - (n | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends a number, seven bits a byte, the lowest first; the highest bit says that more follow.
fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: [usize; 2] = [4096, 16_384];

    fn marks(records: &[usize]) -> Marks {
        let mut marks = Marks::default();
        records.iter().for_each(|n| marks.set(*n));
        marks
    }

    proptest! {
        #[test]
        fn a_position_reads_back(generation in any::<u64>(), next in any::<u64>(), unsettled in proptest::collection::btree_set(any::<u64>(), 0..300)) {
            let position = Position { read: next, unsettled: unsettled.into_iter().collect(), ..Position::default() };
            let mut block = write(generation, &position, 4096);
            prop_assert!(block.len() <= 4096);
            block.resize(4096, 0xaa);
            prop_assert_eq!(read(&block), Some((generation, position)));
        }

        #[test]
        fn marks_read_back_and_those_without_room_are_left_out(
            frames in proptest::collection::btree_map(0..100_000_u64, proptest::option::of(proptest::collection::vec(0usize..4000, 1..40)), 1..400),
            runs in proptest::collection::vec(0usize..4000, 0..50),
            large in any::<bool>(),
        ) {
            let mut partly: BTreeMap<Seq, Marks> =
                frames.iter().filter_map(|(seq, m)| Some((*seq, marks(m.as_ref()?)))).collect();
            // And some that are all but one record.
            for (seq, hole) in frames.keys().zip(runs) {
                partly.insert(*seq, marks(&(0..4000).filter(|n| *n != hole).collect::<Vec<_>>()));
            }
            let position = Position { read: 7, unsettled: frames.keys().copied().collect(), partly };
            let size = SIZES[usize::from(large)];
            let mut block = write(3, &position, size);
            prop_assert!(block.len() <= size);
            let full = block.len() > size - 600;
            block.resize(size, 0xaa);
            let (generation, found) = read(&block).unwrap();
            prop_assert_eq!((generation, found.read, &found.unsettled), (3, 7, &position.unsettled));
            prop_assert!(found.partly.iter().all(|(seq, m)| position.partly.get(seq) == Some(m)));
            prop_assert!(full || found.partly == position.partly);
        }

        #[test]
        fn any_bytes_never_panic_also_with_a_good_checksum(mut slot in proptest::collection::vec(any::<u8>(), 32..4200), packed in any::<bool>(), count in 0u32..300, len in 0u32..200) {
            let _ = read(&slot);
            set(&mut slot, 4, count | if packed { PACKED } else { PARTLY });
            set(&mut slot, HEAD, len);
            if let Some(body) = slot.get(4..HEAD + LENGTH + len as usize) {
                let crc = crc32c::crc32c(body);
                set(&mut slot, 0, crc);
            }
            let _ = read(&slot);
        }
    }

    #[test]
    fn a_slot_of_version_1_reads_with_its_marks() {
        let mut slot = Vec::new();
        slot.extend_from_slice(&[0; 4]);
        slot.extend_from_slice(&(3 | PARTLY).to_le_bytes());
        for n in [9_u64, 500, 100, 103, 300] {
            slot.extend_from_slice(&n.to_le_bytes());
        }
        // Of the frame at place 1, records 0, 2 and 9.
        slot.extend_from_slice(&[6, 0, 1, 0, 2, 0, 0b101, 0b10]);
        let crc = crc32c::crc32c(&slot[4..]);
        set(&mut slot, 0, crc);
        slot.resize(4096, 0);
        let partly = [(103, marks(&[0, 2, 9]))].into();
        assert_eq!(read(&slot), Some((9, Position { read: 500, unsettled: vec![100, 103, 300], partly })));
    }

    #[test]
    fn what_does_not_fit_is_as_if_not_handed_out() {
        let unsettled: Vec<Seq> = (1_000_000..1_020_000).collect();
        let position = Position { read: 9_999_999, unsettled, ..Position::default() };
        for size in SIZES {
            let (_, kept) = read(&write(1, &position, size)).unwrap();
            assert!(kept.unsettled.len() > (size - 40) / 2, "{} in {size}", kept.unsettled.len());
            assert_eq!(kept.read, 1_000_000 + kept.unsettled.len() as u64);
        }
    }

    #[test]
    fn a_stuck_stream_of_many_costs_a_few_bytes_a_frame() {
        let all_but = |hole: usize| marks(&(0..250).filter(|n| *n != hole).collect::<Vec<_>>());
        let partly: BTreeMap<Seq, Marks> =
            (5000..6500).map(|seq| (seq, all_but(seq as usize % 250))).collect();
        let unsettled = partly.keys().copied().collect();
        let position = Position { read: 7000, unsettled, partly };
        let (_, found) = read(&write(1, &position, SIZES[1])).unwrap();
        assert_eq!(found, position);
    }
}
