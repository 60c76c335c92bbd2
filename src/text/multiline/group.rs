//! What one group has collected so far.
//!
//! Enters: the content of its lines. Leaves: the joined text. Bounded by the limit given with each line: what does not
//! fit is cut off.

use std::time::Instant;

use super::machine::StateId;

/// Memory that an idle group keeps for the next one.
const KEEP: usize = 2048;

/// A joined group on its way out.
#[derive(Debug)]
pub struct Joined<'a, F> {
    /// The lines joined.
    pub text: &'a [u8],
    /// What was remembered of the first line.
    pub first: &'a F,
    /// How many lines.
    pub parts: u64,
    /// The numbers of their stored copies, of those that have one.
    pub ids: &'a [u64],
    /// The group had grown over its limit: the end of its last line is missing.
    pub truncated: bool,
}

/// One group: collected lines, and the state that outlives them (Fluent Bit goes on in it after a flush).
#[derive(Debug)]
pub(super) struct Group<F> {
    pub(super) key: Vec<u8>,
    pub(super) state: Option<StateId>,
    pub(super) text: Vec<u8>,
    pub(super) parts: u64,
    pub(super) ids: Vec<u64>,
    pub(super) first: F,
    /// Bytes behind `first`.
    pub(super) first_len: usize,
    /// Order among all groups: when its first line came; when nothing is held, when it was last used.
    pub(super) since: u64,
    pub(super) deadline: Instant,
}

impl<F: Default> Group<F> {
    pub(super) fn new(key: &[u8], now: Instant) -> Self {
        Group {
            key: key.to_vec(),
            state: None,
            text: Vec::new(),
            parts: 0,
            ids: Vec::new(),
            first: F::default(),
            first_len: 0,
            since: 0,
            deadline: now,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        if self.parts == 0 { 0 } else { self.text.len() + self.first_len }
    }

    /// Appends one line. Says whether its end did not fit and was cut off.
    pub(super) fn append(&mut self, content: &[u8], lines: bool, limit: usize) -> bool {
        if lines && self.parts > 0 {
            if self.text.last() != Some(&b'\n') {
                self.text.push(b'\n');
            }
            if content.is_empty() {
                // An empty line between two others: the next one finds its separator here.
                self.text.push(b'\n');
            }
        }
        self.parts += 1;
        let room = limit.saturating_sub(self.text.len());
        if content.len() <= room {
            self.text.extend_from_slice(content);
            return false;
        }
        // Not in the middle of a character.
        let mut cut = room;
        while cut > room.saturating_sub(3) && content.get(cut).is_some_and(|b| b & 0xc0 == 0x80) {
            cut -= 1;
        }
        self.text.extend_from_slice(content.get(..cut).unwrap_or_default());
        true
    }

    /// Hands out what was collected and forgets it; the state stays.
    pub(super) fn flush(&mut self, truncated: bool, emit: &mut dyn FnMut(Joined<'_, F>)) {
        if self.parts == 0 {
            return;
        }
        let Group { text, first, parts, ids, .. } = &*self;
        emit(Joined { text, first, parts: *parts, ids, truncated });
        self.parts = 0;
        self.ids.clear();
        self.text.clear();
        self.text.shrink_to(KEEP);
        if self.first_len > KEEP {
            self.first = F::default();
        }
        self.first_len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(lines: &[&str], limit: usize) -> (String, bool) {
        let mut group: Group<()> = Group::new(b"", Instant::now());
        let mut cut = false;
        for line in lines {
            cut = group.append(line.as_bytes(), true, limit);
        }
        (String::from_utf8(group.text).unwrap(), cut)
    }

    #[test]
    fn lines_are_joined_by_one_newline_and_keep_their_own() {
        assert_eq!(joined(&["a", "b"], 99).0, "a\nb");
        assert_eq!(joined(&["a\n", "b\n"], 99).0, "a\nb\n");
        assert_eq!(joined(&["a", "", "", "b", "", "c"], 99).0, "a\n\n\nb\n\nc");
    }

    #[test]
    fn what_is_over_the_limit_is_cut_at_a_character() {
        assert_eq!(joined(&["abcde"], 3), ("abc".into(), true));
        assert_eq!(joined(&["ab", "cd"], 5), ("ab\ncd".into(), false));
        assert_eq!(joined(&["ab", "cde"], 5), ("ab\ncd".into(), true));
        assert_eq!(joined(&["aé"], 2), ("a".into(), true));
        assert_eq!(joined(&["a€b"], 3), ("a".into(), true));
        assert_eq!(joined(&["a€b"], 4), ("a€".into(), true));
    }
}
