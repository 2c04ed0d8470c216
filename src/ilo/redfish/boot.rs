//! One-time boot.

use super::{POLL, Redfish, documents};
use crate::error::{Error, Kind, Result};
use crate::ilo::deadline::Deadline;
use crate::ilo::model::{BootDevice, BootOverride, OverrideEnabled};
use reqwest::Method;
use serde_json::json;

impl Redfish {
    pub(in crate::ilo) async fn boot_device(&self) -> Result<BootOverride> {
        Ok(documents::boot_override(&self.system().await?))
    }

    pub(in crate::ilo) async fn set_one_time_boot(
        &self,
        device: BootDevice,
        deadline: Deadline,
    ) -> Result<BootOverride> {
        let wanted = BootOverride {
            enabled: OverrideEnabled::Once,
            device: Some(device),
        };
        let system = self.transport.get_until(&self.system, deadline).await?;
        if documents::boot_override(&system) == wanted {
            return Ok(wanted);
        }
        let name = device.as_redfish();
        let place = "/Boot/BootSourceOverrideTarget@Redfish.AllowableValues";
        let mut allowed = documents::texts(&system, place).peekable();
        if allowed.peek().is_some() && !allowed.any(|value| value == name) {
            let message = format!("the server cannot boot once from {name}");
            let devices: Vec<&str> = documents::texts(&system, place).collect();
            return Err(Error::new(Kind::Unsupported, message).detail("devices", devices));
        }
        let body = json!({
            "Boot": { "BootSourceOverrideTarget": name, "BootSourceOverrideEnabled": "Once" },
        });
        let patched = self
            .transport
            .write(&Method::PATCH, &self.system, Some(&body), deadline)
            .await;
        match patched {
            // A read decides whether it had an effect.
            Err(failure) if failure.is_in_doubt() => {
                tracing::warn!(%failure, "the answer to a boot setting is lost");
            }
            other => drop(other?),
        }
        self.shows_boot(wanted, deadline).await
    }

    async fn shows_boot(&self, wanted: BootOverride, deadline: Deadline) -> Result<BootOverride> {
        let mut looks = 0;
        loop {
            let system = self.transport.get_until(&self.system, deadline).await?;
            let shown = documents::boot_override(&system);
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
