//! The end of a call that waits.

use crate::backoff::Backoff;
use crate::clock;
use std::future::Future;
use std::time::{Duration, Instant};

/// What a look that begins before the end may take. Without it a call would end in the middle of
/// one, not knowing what it would have seen.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// Pauses between looks at something that is about to change.
pub(super) const POLL: Backoff = Backoff {
    times: u32::MAX,
    delay: Duration::from_millis(200),
    factor: 1.4,
    max: Duration::from_secs(2),
};

/// When a call gives up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// The end of a call that begins now.
    pub(super) fn after(timeout: Duration) -> Self {
        let start = clock::instant();
        // A timeout beyond the clock's range means a year here.
        let far = || start + Duration::from_secs(365 * 86_400);
        let at = start.checked_add(timeout).unwrap_or_else(far);
        Self { at, timeout }
    }

    /// How long the call was given.
    pub(super) fn timeout(self) -> Duration {
        self.timeout
    }

    /// Sleeps, but not beyond the end; `false` at once if the end has come.
    pub(super) async fn pause(self, pause: Duration) -> bool {
        let left = self.at.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return false;
        }
        tokio::time::sleep(pause.min(left)).await;
        true
    }

    /// Runs `future` to its end, or to this one.
    pub(super) async fn bound<F: Future>(self, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.at.into(), future).await.ok()
    }

    /// Like [`bound`](Self::bound), but gives `future` the time for a last look.
    pub(super) async fn bound_look<F: Future>(self, future: F) -> Option<F::Output> {
        let at = self.at.max(clock::instant() + LAST_LOOK);
        tokio::time::timeout_at(at.into(), future).await.ok()
    }
}
