//! The only reader of the machine's clocks.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the module the others must go through"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How far this process's wall clock runs ahead, in milliseconds.
static AHEAD_MS: AtomicU64 = AtomicU64::new(0);

/// The wall clock.
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::now() + Duration::from_millis(AHEAD_MS.load(Ordering::Relaxed))
}

/// Sets the wall clock of this process ahead, for tests of flows: time that a flow would wait.
/// [`instant`] does not follow.
pub fn advance(by: Duration) {
    let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    AHEAD_MS.fetch_add(by, Ordering::Relaxed);
}

/// A monotonic instant, for measuring.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// Seconds since 1970-01-01 UTC.
#[must_use]
pub fn unix_seconds() -> u64 {
    since_epoch().as_secs()
}

/// Milliseconds since 1970-01-01 UTC.
#[must_use]
pub fn unix_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch() -> Duration {
    now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
