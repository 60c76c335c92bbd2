//! When a failed batch is tried again, and when it is given up.
//!
//! `Retry_Limit N` counts failures of one batch, with Fluent Bit's waits (`scheduler.base`, `scheduler.cap`). Without it
//! an output never gives up and tries again soon: 100 ms at first, at most 5 s.

use std::time::Duration;

/// The waits of an output that never gives up.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// After so many failures waits grow no more.
const GROWTH: u32 = 21;

/// What an output does after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first one; `None`: never give up.
    pub limit: Option<u32>,
    /// `retry.max_age`: a batch is given up when its oldest record has been here for so long.
    pub max_age: Option<Duration>,
    /// `scheduler.base`.
    pub base: Duration,
    /// `scheduler.cap`.
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            limit: None,
            max_age: None,
            base: Duration::from_secs(5),
            cap: Duration::from_secs(2000),
        }
    }
}

impl RetryPolicy {
    /// How long to wait after this many failures of one batch (1: the first).
    pub fn wait(&self, failures: u32) -> Duration {
        let doubled = |first: Duration, most: Duration| {
            first.saturating_mul(1 << failures.saturating_sub(1).min(GROWTH - 1)).min(most)
        };
        match self.limit {
            None => doubled(FIRST, LAST.min(self.cap)),
            Some(_) => doubled(self.base, self.cap),
        }
    }

    /// Whether to give up after this many failures of one batch.
    pub fn gives_up(&self, failures: u32) -> bool {
        self.limit.is_some_and(|limit| failures > limit)
    }

    /// The longest that a batch waits before it is given up, if it is.
    pub fn patience(&self) -> Option<Duration> {
        // From some retry on every wait is the longest, and a limit may be huge: those are not summed one by one.
        let waits = self.limit.map(|limit| {
            let grow: Duration = (1..=limit.min(GROWTH)).map(|n| self.wait(n)).sum();
            grow.saturating_add(self.wait(GROWTH).saturating_mul(limit.saturating_sub(GROWTH)))
        });
        [waits, self.max_age].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_attempts_after_the_first_and_waits_as_the_scheduler_says() {
        let policy = RetryPolicy { limit: Some(3), ..RetryPolicy::default() };
        assert!(!policy.gives_up(3) && policy.gives_up(4));
        assert_eq!([1, 2, 3].map(|n| policy.wait(n).as_secs()), [5, 10, 20]);
        assert_eq!(policy.patience(), Some(Duration::from_secs(35)));
        let endless = RetryPolicy { limit: Some(u32::MAX), ..policy };
        assert!(endless.patience().is_some_and(|p| p > Duration::from_secs(2000 * u64::from(u32::MAX - 10))));
    }

    #[test]
    fn without_a_limit_it_tries_again_soon_and_for_ever() {
        let policy = RetryPolicy::default();
        assert!(!policy.gives_up(u32::MAX));
        assert_eq!((policy.wait(1), policy.wait(60)), (FIRST, LAST));
        assert_eq!(policy.patience(), None);
    }
}
