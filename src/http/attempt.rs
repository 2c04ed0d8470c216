//! What is being done, and when it is done again.

use super::status::RETRY_DETAIL;
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use std::time::Duration;

/// What is being done, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doing<'a> {
    pub(crate) op: &'static str,
    pub(crate) target: &'a str,
}

impl Doing<'_> {
    pub(crate) fn name(self, error: Error) -> Error {
        error.op(self.op).target(self.target)
    }
}

/// How long services may make one operation wait by their `Retry-After`, in all. A step that has
/// less time ends it earlier.
const PATIENCE: Duration = Duration::from_secs(120);

/// Counts the tries of one operation.
#[derive(Debug)]
pub(crate) struct Tries {
    policy: Backoff,
    made: u32,
    left: Duration,
}

impl Tries {
    pub(crate) fn new(policy: Backoff) -> Self {
        Self {
            policy,
            made: 1,
            left: PATIENCE,
        }
    }

    /// Waits before the next try, at least as long as the service asked for, or gives the error
    /// back if there is none.
    pub(crate) async fn pause(&mut self, doing: Doing<'_>, error: Error) -> Result<()> {
        let error = doing.name(error);
        let Some(pause) = self.next(&error) else {
            return Err(error.detail("tries", self.made));
        };
        tracing::warn!(%error, tries = self.made, "trying again");
        self.made += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The pause before the next try.
    fn next(&mut self, error: &Error) -> Option<Duration> {
        let pause = self.policy.pause_after(self.made);
        let pause = pause.filter(|_| error.is_retryable())?;
        let asked = error.details().get(RETRY_DETAIL);
        let asked = Duration::from_secs(asked.and_then(|n| n.as_u64()).unwrap_or_default());
        self.left = self.left.checked_sub(asked)?;
        Some(pause.max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_service_says_when_but_not_for_ever() {
        let second = Duration::from_secs(1);
        let mut tries = Tries::new(Backoff {
            times: 9,
            delay: second,
            factor: 1.0,
            max: second,
        });
        let busy = Error::new(Kind::Limit, "busy").retryable(true);
        let mut next = |asked: Option<u64>| {
            let busy = busy.clone();
            tries.next(&match asked {
                Some(seconds) => busy.detail(RETRY_DETAIL, seconds),
                None => busy,
            })
        };
        assert_eq!(next(None), Some(second));
        assert_eq!(next(Some(0)), Some(second));
        assert_eq!(next(Some(100)), Some(100 * second));
        assert_eq!(next(Some(21)), None, "longer than is left");
        assert_eq!(next(Some(20)), Some(20 * second));
        assert_eq!(next(Some(u64::MAX)), None);
        assert_eq!(tries.next(&Error::new(Kind::Auth, "no")), None);
    }
}
