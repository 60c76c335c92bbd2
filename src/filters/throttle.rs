//! `throttle`: lets `rate` records an interval pass, as an average over a window of intervals; drops the rest.
//!
//! In: any record. Out: the same record or nothing. One count for all connections and tags that the filter matches.
//! As in Fluent Bit a record passes while those that have passed in the last `window` intervals, the present one
//! counted, are fewer than `rate` times `window`: a burst of that size passes at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{BuildContext, Context, Filter, FilterKind, Verdict};
use crate::config::{Diagnostics, Key, PluginInfo, Settings, Type};
use crate::record::Record;

pub(super) const KIND: FilterKind = FilterKind {
    info: PluginInfo {
        name: "throttle",
        aliases: &[],
        summary: "Let so many records an interval pass, drop the others.",
        keys: &[
            Key::new("rate", Type::Float, "records for each interval, on average over the window")
                .default("1"),
            Key::new("window", Type::Int, "intervals that the average is taken over").default("5"),
            Key::new("interval", Type::Str, "length of an interval: 1, 0.5s, 1m, 1h, 1d").default("1"),
            Key::new("print_status", Type::Bool, "log the limit and the count when an interval ends")
                .default("off"),
        ],
        groups: &[],
    },
    build,
};

/// An interval that cannot be read.
const FALLBACK: Duration = Duration::from_secs(1);

struct Throttle {
    label: String,
    rate: f64,
    window: u64,
    interval: Duration,
    print: bool,
    passed: Mutex<Passed>,
}

/// Records that have passed, by interval.
#[derive(Default)]
struct Passed {
    /// When interval 0 began: the first record.
    start: Option<Instant>,
    /// Intervals in which records passed and that are still in the window, oldest first.
    slots: VecDeque<(u64, u64)>,
    sum: u64,
    current: u64,
}

fn build(s: &Settings, _: &BuildContext<'_>, diags: &mut Diagnostics) -> Option<Arc<dyn Filter>> {
    let text = s.str("interval").unwrap_or("1");
    let interval = interval(text).unwrap_or_else(|| {
        diags.strict(
            Some(s.pos_of("interval")),
            format!("bad Interval \"{text}\" in [FILTER] throttle"),
            "one second is used; write a number with s, m, h or d",
        );
        FALLBACK
    });
    let mut at_least = |key: &str, given: f64, fallback: f64| {
        let fine = given > 1.0;
        if !fine && s.entry(key).is_some() && given != fallback {
            diags.strict(
                Some(s.pos_of(key)),
                format!("{key} {given} in [FILTER] throttle is not above 1"),
                format!("{fallback} is used"),
            );
        }
        if fine { given } else { fallback }
    };
    Some(Arc::new(Throttle {
        label: s.label.clone(),
        rate: at_least("rate", s.float("rate").unwrap_or(1.0), 1.0),
        window: at_least("window", s.int("window").unwrap_or(5) as f64, 5.0) as u64,
        interval,
        print: s.bool("print_status"),
        passed: Mutex::default(),
    }))
}

/// A positive number of seconds, minutes, hours or days.
fn interval(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, factor) = match text.char_indices().last()? {
        (at, 's') => (text.get(..at)?, 1.0),
        (at, 'm') => (text.get(..at)?, 60.0),
        (at, 'h') => (text.get(..at)?, 3600.0),
        (at, 'd') => (text.get(..at)?, 86_400.0),
        _ => (text, 1.0),
    };
    let seconds = number.parse::<f64>().ok()? * factor;
    (seconds >= 0.001).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

impl Throttle {
    fn pass(&self, now: Instant) -> bool {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let start = *passed.start.get_or_insert(now);
        let slot = (now.saturating_duration_since(start).as_nanos() / self.interval.as_nanos()) as u64;
        if slot > passed.current {
            if self.print {
                tracing::info!(
                    filter = %self.label, limit = self.rate, window = self.window, passed = passed.sum,
                    "throttle: an interval has ended"
                );
            }
            passed.current = slot;
            while let Some((oldest, count)) = passed.slots.front().copied()
                && oldest + self.window <= slot
            {
                passed.slots.pop_front();
                passed.sum -= count;
            }
        }
        if passed.sum as f64 / self.window as f64 >= self.rate {
            return false;
        }
        passed.sum += 1;
        let current = passed.current;
        match passed.slots.back_mut() {
            Some((at, count)) if *at == current => *count += 1,
            _ => passed.slots.push_back((current, 1)),
        }
        true
    }
}

impl Filter for Throttle {
    fn apply(&self, _: &mut Record<'_>, cx: &mut Context<'_>) -> Verdict {
        if self.pass(cx.now) { Verdict::Keep } else { Verdict::Drop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(rate: f64, window: u64, interval: Duration) -> Throttle {
        Throttle { label: "t".into(), rate, window, interval, print: false, passed: Mutex::default() }
    }

    /// Which of records that come `gap` apart pass.
    fn passing(t: &Throttle, count: u32, gap: Duration) -> Vec<u32> {
        let start = Instant::now();
        (0..count).filter(|i| t.pass(start + gap * *i)).collect()
    }

    #[test]
    fn a_burst_of_rate_times_window_passes_and_the_rest_is_dropped() {
        assert_eq!(passing(&throttle(2.0, 3, Duration::from_secs(60)), 20, Duration::ZERO).len(), 6);
        // As in Fluent Bit a fraction is rounded up.
        assert_eq!(passing(&throttle(2.5, 3, Duration::from_secs(1)), 20, Duration::ZERO).len(), 8);
    }

    #[test]
    fn what_passed_in_an_interval_counts_until_the_window_has_moved_past_it() {
        // Five a second: 0 to 4 in the first interval, 5 in the second, then nothing before the first has left.
        let t = throttle(2.0, 3, Duration::from_secs(1));
        let got = passing(&t, 50, Duration::from_millis(200));
        assert_eq!(
            got,
            [0, 1, 2, 3, 4, 5, 15, 16, 17, 18, 19, 20, 30, 31, 32, 33, 34, 35, 45, 46, 47, 48, 49]
        );
    }

    #[test]
    fn a_long_pause_forgets_everything_and_an_older_clock_does_no_harm() {
        let t = throttle(2.0, 5, Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!((0..20).filter(|_| t.pass(start)).count(), 10);
        let later = start + Duration::from_secs(1_000_000);
        assert_eq!((0..20).filter(|_| t.pass(later)).count(), 10);
        assert!(!t.pass(start));
        assert_eq!(t.passed.lock().unwrap().slots.len(), 1);
    }

    #[test]
    fn intervals_are_numbers_with_a_unit() {
        for (text, want) in
            [("1", 1.0), ("60s", 60.0), ("0.5s", 0.5), ("1m", 60.0), ("2h", 7200.0), ("1d", 86_400.0)]
        {
            assert_eq!(interval(text), Some(Duration::from_secs_f64(want)), "{text}");
        }
        for text in ["", "x", "500ms", "0", "-1s", "1 week", "inf", "NaN", "1e300d"] {
            assert_eq!(interval(text), None, "{text}");
        }
    }
}
