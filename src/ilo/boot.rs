//! One-time boot.

use super::client::Client;
use super::deadline::{Deadline, POLL};
use super::model::{BootDevice, BootOverride, OverrideEnabled};
use crate::error::{Error, Kind, Result};

impl Client {
    pub(super) async fn set_one_time_boot(
        &self,
        device: BootDevice,
        deadline: Deadline,
    ) -> Result<BootOverride> {
        let wanted = BootOverride {
            enabled: OverrideEnabled::Once,
            device: Some(device),
        };
        if self.boot(Some(deadline)).await? == wanted {
            return Ok(wanted);
        }
        match self.boot_once(device, deadline).await {
            // A read decides whether it had an effect.
            Err(failure) if failure.is_in_doubt() => {
                tracing::warn!(%failure, "the answer to a boot setting is lost");
            }
            other => other?,
        }
        self.shows_boot(wanted, deadline).await
    }

    async fn shows_boot(&self, wanted: BootOverride, deadline: Deadline) -> Result<BootOverride> {
        let mut looks = 0;
        loop {
            let shown = self.boot(Some(deadline)).await?;
            if shown == wanted {
                return Ok(shown);
            }
            looks += 1;
            if !deadline
                .pause(POLL.pause_after(looks).unwrap_or(POLL.max))
                .await
            {
                let message = format!("the iLO took the one-time boot but shows {shown:?}");
                return Err(Error::new(Kind::Timeout, message).retryable(true).hint(
                    "set it in the iLO's web page; if that does not hold either, reset the iLO",
                ));
            }
        }
    }
}
