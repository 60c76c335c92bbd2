//! What a container's network carries in a second, as the ECS agent adds it to docker's statistics in metadata version 4.
//!
//! Enters: docker's statistics, twice. Leaves: bytes a second, each way. Can go wrong: a container without a network, or no
//! time between the two; then there is nothing.

use serde_json::{Value, json};

/// Bytes since the network was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Traffic {
    at: jiff::Timestamp,
    received: u64,
    sent: u64,
}

impl Traffic {
    pub(super) fn of(stats: &Value) -> Option<Traffic> {
        let networks = stats.get("networks")?.as_object()?;
        let sum = |key: &str| networks.values().filter_map(|n| n.get(key)?.as_u64()).sum();
        let at = stats.get("read")?.as_str()?.parse().ok()?;
        Some(Traffic { at, received: sum("rx_bytes"), sent: sum("tx_bytes") })
    }

    /// `network_rate_stats`
    pub(super) fn since(self, before: Traffic) -> Option<Value> {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (seconds > 0.0).then(|| {
            json!({
                "rx_bytes_per_sec": rate(self.received, before.received),
                "tx_bytes_per_sec": rate(self.sent, before.sent),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_between_two_looks() {
        let stats = |at: &str, rx: u64| json!({"read": at, "networks": {"eth0": {"rx_bytes": rx, "tx_bytes": 7}, "eth1": {"rx_bytes": 1}}});
        let first = Traffic::of(&stats("2026-11-26T05:00:00.5Z", 100)).unwrap();
        let second = Traffic::of(&stats("2026-11-26T05:00:02.5Z", 500)).unwrap();
        assert_eq!(second.since(first), Some(json!({"rx_bytes_per_sec": 200.0, "tx_bytes_per_sec": 0.0})));
        assert_eq!(first.since(first), None);
        assert_eq!(Traffic::of(&json!({"read": "2026-11-26T05:00:00Z"})), None);
    }
}
