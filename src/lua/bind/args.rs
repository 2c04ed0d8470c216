//! Arguments that several primitives share.

use crate::engine::{Call, LiveRef};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use serde::Deserialize;
use std::time::Duration;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// A text, or a reference to a secret one.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Text {
    Secret(LiveRef),
    Plain(String),
}

impl Text {
    /// The text, fetched if it is a secret.
    pub(super) async fn read(&self, call: &Call) -> Result<Secret> {
        match self {
            Self::Plain(text) => Ok(Secret::new(text.clone())),
            Self::Secret(reference) => call.secret(reference).await,
        }
    }
}

/// Seconds as they come out of the argument check.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct Seconds(f64);

impl Seconds {
    pub(super) fn duration(self) -> Duration {
        Duration::try_from_secs_f64(self.0).unwrap_or(Duration::MAX)
    }
}

/// Runs work that moves data where the connections' tasks run, so that not every answer has to wake
/// the script's thread; when this is dropped, the work ends.
pub(super) async fn on_workers<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    AbortOnDropHandle::new(TaskTracker::new().spawn(work))
        .await
        .map_err(|e| Error::new(Kind::Internal, "work ended").caused_by(&e))?
}

/// Runs blocking work away from the script's thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(Kind::Internal, "blocking work ended").caused_by(&e))?
}
