//! The end of what a container has printed, for who asks why it ended.
//!
//! Enters: bytes of both streams as they come, before their log driver has them. Leaves: the last lines, whatever the driver
//! does with them. Nothing can go wrong: what is older is forgotten.

use std::sync::{Mutex, PoisonError};

/// Bytes that are kept, at least; twice as many at most.
const KEPT: usize = 4 << 10;
/// Lines that are told.
const LINES: usize = 10;
/// Characters of a line that are told.
const LINE: usize = 500;

/// What a container has printed last.
#[derive(Debug, Default)]
pub(in crate::agent) struct Words(Mutex<Vec<u8>>);

impl Words {
    pub(super) fn add(&self, bytes: &[u8]) {
        // Nothing leaves it half-changed.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes);
        if kept.len() > 2 * KEPT {
            let old = kept.len() - KEPT;
            kept.drain(..old);
        }
    }

    /// Forgets all: it begins anew.
    pub(in crate::agent) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The last lines, the oldest first.
    pub(in crate::agent) fn last(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last_lines(&String::from_utf8_lossy(&kept))
    }
}

/// The last lines of a text that say something, each no longer than a person reads.
pub(in crate::agent) fn last_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .take(LINES)
        .map(|line| line.chars().take(LINE).collect())
        .collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay_and_memory_is_bounded() {
        let words = Words::default();
        for n in 0..10_000 {
            words.add(format!("line {n}\n\n").as_bytes());
        }
        words.add(b"the end");
        assert!(words.0.lock().unwrap().capacity() <= 4 * KEPT);
        let last = words.last();
        assert_eq!((last.len(), last[0].as_str(), last[9].as_str()), (10, "line 9991", "the end"));
        words.clear();
        assert!(words.last().is_empty());
        words.add("x".repeat(3 * KEPT).as_bytes());
        assert_eq!(words.last(), ["x".repeat(LINE)]);
    }
}
