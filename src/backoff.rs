//! Retry policy: which pause comes before which attempt.

use std::time::Duration;

/// Growing pauses between attempts, without randomness, so that a replay sees the same ones.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Attempts in all, the first included.
    pub times: u32,
    /// Pause before the second attempt.
    pub delay: Duration,
    /// What each further pause is multiplied by.
    pub factor: f64,
    /// Longest pause.
    pub max: Duration,
}

impl Backoff {
    /// The pause after failed attempt number `attempt` (from 1); `None` when it was the last.
    #[must_use]
    pub fn pause_after(&self, attempt: u32) -> Option<Duration> {
        if attempt >= self.times {
            return None;
        }
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.delay.as_secs_f64() * self.factor.powi(exponent);
        Some(
            Duration::try_from_secs_f64(seconds)
                .unwrap_or(self.max)
                .min(self.max),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_ends() {
        let policy = Backoff {
            times: 4,
            delay: Duration::from_secs(2),
            factor: 2.0,
            max: Duration::from_secs(5),
        };
        let pauses: Vec<_> = (1..=4)
            .map(|n| policy.pause_after(n).map(|d| d.as_secs()))
            .collect();
        assert_eq!(pauses, [Some(2), Some(4), Some(5), None]);
    }
}
