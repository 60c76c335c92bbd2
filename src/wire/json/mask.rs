//! Where a run of text needs escaping, and where one that was escaped needs a look, found for 32 bytes at once.
//!
//! Enters: 32 bytes. Leaves: a bit for each, the first byte's lowest. Nothing can go wrong.
//!
//! This is unsafe code (`rt/pages.rs` has the rest), and why: on JSON inside a string, the commonest log line, the vector form
//! writes 2.0 GiB/s against 1.3 of the best safe form, on plain text 3.4 against 2.0 (`cargo bench --bench json`), and
//! this is most of what a record costs on its way into a file; read back, the escapes of
//! such strings are found in 229 microseconds a MiB against 390 (`-- masks`).
//! Proof: the only unsafe operations are the calls of two functions that require SSE2, and every x86-64 processor has SSE2
//! (it is part of the architecture's baseline, and of the Rust target's). They touch no memory but their argument, through
//! safe references. The `json` fuzz target compares them with the portable forms.

/// Bytes looked at together.
pub const RUN: usize = 32;

/// Set for control characters, `"`, `\`, DEL and everything that is not ASCII.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn mask(run: &[u8; RUN]) -> u32 {
    #[allow(unsafe_code, reason = "x86-64 always has SSE2; see the module's proof")]
    // SAFETY: the function requires SSE2 and nothing else, and this is x86-64.
    unsafe {
        sse2(run)
    }
}

/// The bits of a run.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn mask(run: &[u8; RUN]) -> u32 {
    portable(run)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn sse2(run: &[u8; RUN]) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };
    let half = |at: usize| -> u32 {
        let bytes = _mm_set_epi64x(word(run, at + 8) as i64, word(run, at) as i64);
        // Signed: what is not ASCII is below zero, and so below a space.
        let control = _mm_cmpgt_epi8(_mm_set1_epi8(0x20), bytes);
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x22));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x5c));
        let del = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f));
        let any = _mm_or_si128(_mm_or_si128(control, quote), _mm_or_si128(backslash, del));
        _mm_movemask_epi8(any) as u32
    };
    half(0) | half(16) << 16
}

/// The bits of backslashes, and those of quotes.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn structure(run: &[u8; RUN]) -> (u32, u32) {
    #[allow(unsafe_code, reason = "x86-64 always has SSE2; see the module's proof")]
    // SAFETY: the function requires SSE2 and nothing else, and this is x86-64.
    unsafe {
        structure_sse2(run)
    }
}

/// The bits of backslashes, and those of quotes.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn structure(run: &[u8; RUN]) -> (u32, u32) {
    structure_portable(run)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn structure_sse2(run: &[u8; RUN]) -> (u32, u32) {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    let half = |at: usize| -> (u32, u32) {
        let bytes = _mm_set_epi64x(word(run, at + 8) as i64, word(run, at) as i64);
        let bits = |byte: i8| _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte))) as u32;
        (bits(0x5c), bits(0x22))
    };
    let (low, high) = (half(0), half(16));
    (low.0 | high.0 << 16, low.1 | high.1 << 16)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const LOW: u64 = !HIGH;

/// The high bits of eight bytes, in one.
#[inline]
fn gather(high: u64) -> u32 {
    ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// The same as [`structure`], eight bytes at a time, for other processors.
#[inline]
pub fn structure_portable(run: &[u8; RUN]) -> (u32, u32) {
    let bits = |byte: u64| {
        [24, 16, 8, 0].into_iter().fold(0, |bits, at| {
            let w = word(run, at) ^ (ONES * byte);
            // Sums of seven bits carry into no other byte, so each byte is judged exactly.
            let found = !(((w & LOW) + LOW) | w) & HIGH;
            bits << 8 | gather(found)
        })
    };
    (bits(0x5c), bits(0x22))
}

/// The same as [`mask`], eight bytes at a time, for other processors.
#[inline]
pub fn portable(run: &[u8; RUN]) -> u32 {
    let mut mask = 0;
    for at in [24, 16, 8, 0] {
        let w = word(run, at);
        // Sums of seven bits carry into no other byte, so each byte is judged exactly.
        let low = w & LOW;
        let control = !(low + ONES * 0x60);
        let quote = !((low ^ (ONES * 0x22)) + LOW);
        let backslash = !((low ^ (ONES * 0x5c)) + LOW);
        let del = low + ONES;
        let found = (control | quote | backslash | del | w) & HIGH;
        mask = mask << 8 | gather(found);
    }
    mask
}

#[inline]
fn word(run: &[u8; RUN], at: usize) -> u64 {
    run.get(at..).and_then(|r| r.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_byte_at_every_place_is_judged_alike_by_both_forms_and_by_the_rule() {
        for byte in 0..=255u8 {
            let special = !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\';
            for place in 0..RUN {
                let mut run = [b'a'; RUN];
                run[place] = byte;
                let want = if special { 1 << place } else { 0 };
                assert_eq!((mask(&run), portable(&run)), (want, want), "{byte:#x} at {place}");
                let is = |other| if byte == other { 1 << place } else { 0 };
                let want = (is(b'\\'), is(b'"'));
                assert_eq!((structure(&run), structure_portable(&run)), (want, want), "{byte:#x} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn both_forms_agree(run in proptest::array::uniform32(any::<u8>())) {
            prop_assert_eq!(mask(&run), portable(&run));
            prop_assert_eq!(structure(&run), structure_portable(&run));
        }
    }
}
