//! What is being done, and when it is done again.

use crate::backoff::Backoff;
use crate::error::{Error, Result};

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

/// Counts the tries of one operation.
#[derive(Debug)]
pub(crate) struct Tries {
    policy: Backoff,
    made: u32,
}

impl Tries {
    pub(crate) fn new(policy: Backoff) -> Self {
        Self { policy, made: 1 }
    }

    /// Waits before the next try, or gives the error back if there is none.
    pub(crate) async fn pause(&mut self, doing: Doing<'_>, error: Error) -> Result<()> {
        let error = doing.name(error);
        let pause = self.policy.pause_after(self.made);
        let Some(pause) = pause.filter(|_| error.is_retryable()) else {
            return Err(error.detail("tries", self.made));
        };
        tracing::warn!(%error, tries = self.made, "trying again");
        self.made += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
