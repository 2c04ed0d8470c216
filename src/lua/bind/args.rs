//! Arguments that several primitives share.

use crate::engine::{Call, LiveRef};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use serde::Deserialize;
use std::time::Duration;

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

/// Runs blocking work away from the script's thread.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(Kind::Internal, "blocking work ended").caused_by(&e))?
}
