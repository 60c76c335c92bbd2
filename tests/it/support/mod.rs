//! What the tests share: the process under test, its ledger, an encoder of forward messages that is independent of the
//! one in `src`, and waiting with a limit.

#[path = "../../../src/net/test_certs.rs"]
pub(crate) mod certs;
pub(crate) mod cloudwatch;
pub(crate) mod forward;
pub(crate) mod http;
pub(crate) mod ledger;
pub(crate) mod peer;
pub(crate) mod proxy;
pub(crate) mod router;

use std::time::{Duration, Instant};

/// No wait of a test is longer; a slow machine needs far less.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something, and gives it.
#[expect(clippy::disallowed_methods, reason = "no runtime here: looks again after a moment")]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "after {LIMIT:?} still not: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
