//! Which records of a chunk something is true of: one bit a record.
//!
//! Enters and leaves: numbers of records, from 0. A mark beyond [`Marks::MOST`] is not kept, so that a chunk of a million
//! records costs no memory here; whoever reads the marks takes what is not marked as not done.

use std::sync::Arc;

/// Marks of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(Vec<u8>);

impl Marks {
    /// Records that can be marked: more than a frame of the log has, unless they are tiny.
    pub const MOST: usize = 16_384;

    /// Marks record `n`.
    pub fn set(&mut self, n: usize) {
        if n >= Self::MOST {
            return;
        }
        if self.0.len() <= n / 8 {
            self.0.resize(n / 8 + 1, 0);
        }
        if let Some(byte) = self.0.get_mut(n / 8) {
            *byte |= 1 << (n % 8);
        }
    }

    /// Whether record `n` is marked.
    pub fn has(&self, n: usize) -> bool {
        self.0.get(n / 8).is_some_and(|byte| byte & 1 << (n % 8) != 0)
    }

    /// Adds the marks of another.
    pub fn add(&mut self, other: &Marks) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (byte, more) in self.0.iter_mut().zip(&other.0) {
            *byte |= more;
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// As bytes: record `n` is bit `n % 8` of byte `n / 8`.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// From bytes; what is too long is cut.
    pub fn from_bytes(bytes: &[u8]) -> Marks {
        Marks(bytes.get(..bytes.len().min(Self::MOST / 8)).unwrap_or_default().to_vec())
    }
}

/// The numbers that a chunk's records had in the frame they were taken from, where some were left out.
pub type Places = Arc<[u32]>;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn marks_are_a_set_of_small_numbers(a in proptest::collection::btree_set(0usize..20_000, 0..50), b in proptest::collection::btree_set(0usize..300, 0..50)) {
            let of = |set: &BTreeSet<usize>| {
                let mut marks = Marks::default();
                set.iter().for_each(|n| marks.set(*n));
                marks
            };
            let (mut marks, kept) = (of(&a), |n: &usize| *n < Marks::MOST);
            prop_assert_eq!(marks.is_empty(), !a.iter().any(kept));
            prop_assert_eq!(&Marks::from_bytes(marks.bytes()), &marks);
            marks.add(&of(&b));
            for n in a.union(&b).copied().chain(0..400) {
                prop_assert_eq!(marks.has(n), (a.contains(&n) || b.contains(&n)) && kept(&n));
            }
        }
    }
}
