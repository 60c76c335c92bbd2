//! How many requests a client may make: for each of its addresses and each path, 40 a second and 60 at once
//! (`ECS_TASK_METADATA_RPS_LIMIT` of the ECS agent has the same defaults).
//!
//! Enters: who asks for what. Leaves: whether it may. Can go wrong: nothing. As many pairs are remembered as
//! [`REMEMBERED`]; beyond, the one that has been silent the longest is forgotten.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Requests a second.
const RATE: f64 = 40.0;
/// Requests at once, after a silence.
const BURST: f64 = 60.0;
/// Pairs of client and path.
const REMEMBERED: usize = 4096;

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

/// Counts requests.
#[derive(Debug, Default)]
pub(super) struct Limit {
    /// Paths may be long: a pair is known by its hash.
    hasher: RandomState,
    buckets: Mutex<HashMap<u64, Bucket>>,
}

impl Limit {
    /// Whether `client` may ask for `path` now; if so, it has.
    pub(super) fn admits(&self, client: IpAddr, path: &str) -> bool {
        let (key, now) = (self.hasher.hash_one((client, path)), Instant::now());
        // Nothing can leave the map half-changed.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED && !buckets.contains_key(&key) {
            let oldest = buckets.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| *key);
            oldest.map(|key| buckets.remove(&key));
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: BURST, at: now });
        let earned = now.duration_since(bucket.at).as_secs_f64() * RATE;
        (bucket.tokens, bucket.at) = ((bucket.tokens + earned).min(BURST), now);
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    fn admitted(limit: &Limit, client: IpAddr, path: &str) -> usize {
        (0..1000).filter(|_| limit.admits(client, path)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn sixty_at_once_then_forty_a_second_for_each_client_and_path() {
        let limit = Limit::default();
        assert_eq!(admitted(&limit, ONE, "/v4/a"), 60);
        assert_eq!(admitted(&limit, ONE, "/v4/a/task"), 60);
        assert_eq!(admitted(&limit, OTHER, "/v4/a"), 60);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(admitted(&limit, ONE, "/v4/a"), 40);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(admitted(&limit, ONE, "/v4/a"), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_paths_is_forgotten_from_its_beginning() {
        let limit = Limit::default();
        assert_eq!(admitted(&limit, ONE, "/first"), 60);
        for n in 0..2 * REMEMBERED {
            tokio::time::advance(Duration::from_nanos(1)).await;
            assert!(limit.admits(ONE, &n.to_string()));
        }
        assert_eq!(limit.buckets.lock().unwrap().len(), REMEMBERED);
        assert!(limit.admits(ONE, "/first"));
    }
}
