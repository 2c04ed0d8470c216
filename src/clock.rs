//! The only reader of the machine's clocks.

#![expect(
    clippy::disallowed_methods,
    reason = "this is the module the others must go through"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock.
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::now()
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
