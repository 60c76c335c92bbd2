//! How many calls may be on their way at once: more while all is well, half as many when the service throttles.
//!
//! The service's limit is one for the whole account, and others use it, too; so it is found by trying. Bounded by bytes as
//! well: each call holds its body in memory.

use std::time::{Duration, Instant};

/// At first, and at most.
const START: f64 = 4.0;
const MOST: f64 = 32.0;
/// Bytes of bodies on their way (one call may always go).
const BYTES: usize = 8 << 20;
/// One burst of throttled answers halves the window once.
const BURST: Duration = Duration::from_millis(500);

pub(super) struct Window {
    size: f64,
    calls: usize,
    bytes: usize,
    halved: Option<Instant>,
}

impl Window {
    pub(super) fn new() -> Window {
        Window { size: START, calls: 0, bytes: 0, halved: None }
    }

    pub(super) fn has_room(&self) -> bool {
        self.calls == 0 || (self.calls as f64) < self.size.floor() && self.bytes < BYTES
    }

    pub(super) fn begin(&mut self, bytes: usize) {
        self.calls += 1;
        self.bytes += bytes;
    }

    pub(super) fn end(&mut self, bytes: usize) {
        self.calls = self.calls.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn good(&mut self) {
        self.size = (self.size + 1.0 / self.size).min(MOST);
    }

    /// The service throttles, or is away.
    pub(super) fn bad(&mut self, now: Instant) {
        if self.halved.is_none_or(|at| now.duration_since(at) >= BURST) {
            self.halved = Some(now);
            self.size = (self.size / 2.0).max(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(w: &mut Window) -> usize {
        let mut n = 0;
        while w.has_room() && n < 100 {
            w.begin(0);
            n += 1;
        }
        (0..n).for_each(|_| w.end(0));
        n
    }

    #[test]
    fn it_opens_slowly_and_closes_fast_but_once_for_a_burst() {
        let (mut w, t) = (Window::new(), Instant::now());
        assert_eq!(room(&mut w), 4);
        (0..1000).for_each(|_| w.good());
        assert_eq!(room(&mut w), 32);
        w.bad(t);
        w.bad(t);
        assert_eq!(room(&mut w), 16);
        (1..9).for_each(|n| w.bad(t + n * BURST));
        assert_eq!(room(&mut w), 1);
    }

    #[test]
    fn large_bodies_are_few() {
        let mut w = Window::new();
        w.begin(BYTES);
        assert!(!w.has_room());
        w.end(BYTES);
        assert!(w.has_room());
    }
}
