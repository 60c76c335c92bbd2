//! The time of a record, to the nanosecond.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds and nanoseconds since 1970 (UTC). `nsec` is below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: u32,
}

impl Time {
    /// Takes any number of nanoseconds; what is over a second is carried (some clients send too many).
    pub fn new(sec: i64, nsec: u32) -> Self {
        Time { sec: sec.saturating_add(i64::from(nsec / 1_000_000_000)), nsec: nsec % 1_000_000_000 }
    }

    /// From seconds with a fraction; `None` when out of range.
    pub fn from_f64(seconds: f64) -> Option<Self> {
        if !(0.0..=1e15).contains(&seconds) {
            return None;
        }
        let sec = seconds.trunc();
        Some(Time::new(sec as i64, ((seconds - sec) * 1e9).round() as u32))
    }

    /// The wall clock. The one place that reads it for records.
    pub fn now() -> Self {
        let d = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { sec: d.as_secs() as i64, nsec: d.subsec_nanos() }
    }

    /// Seconds with a fraction; loses nanoseconds past the 53rd bit.
    pub fn as_f64(self) -> f64 {
        self.sec as f64 + f64::from(self.nsec) / 1e9
    }

    /// Whole milliseconds.
    pub fn millis(self) -> i64 {
        self.sec.saturating_mul(1000).saturating_add(i64::from(self.nsec / 1_000_000))
    }
}
