//! What the server boots, and how: one-time and persistent device, boot mode, secure boot.

use super::client::Client;
use super::deadline::{Deadline, POLL};
use super::failure::Failure;
use super::model::{
    BootDevice, BootDevices, BootMode, BootModes, BootOverride, OverrideEnabled, SecureBoot,
};
use crate::error::{Error, Kind, Result};
use std::fmt::Debug;

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
        taken(self.boot_once(device, deadline).await)?;
        let look = || self.boot(Some(deadline));
        shown("one-time boot", deadline, look, |boot| *boot == wanted).await
    }

    pub(super) async fn set_boot_device(
        &self,
        device: BootDevice,
        deadline: Deadline,
    ) -> Result<BootDevices> {
        let is_set = |devices: &BootDevices| devices.lasting() == Some(device);
        let now = self.boot_devices(Some(deadline)).await?;
        if is_set(&now) {
            return Ok(now);
        }
        let answered = taken(self.boot_always(device, deadline).await)?;
        if answered && !self.tells_pending_order() {
            let now = self.boot_devices(Some(deadline)).await?;
            let pending = (!is_set(&now)).then_some(device);
            return Ok(BootDevices { pending, ..now });
        }
        let look = || self.boot_devices(Some(deadline));
        shown("boot device", deadline, look, is_set).await
    }

    pub(super) async fn set_boot_mode(
        &self,
        mode: BootMode,
        deadline: Deadline,
    ) -> Result<BootModes> {
        let is_set = |modes: &BootModes| modes.pending.unwrap_or(modes.mode) == mode;
        let now = self.boot_modes(Some(deadline)).await?;
        if is_set(&now) {
            return Ok(now);
        }
        taken(self.change_boot_mode(mode, deadline).await)?;
        let look = || self.boot_modes(Some(deadline));
        shown("boot mode", deadline, look, is_set).await
    }

    pub(super) async fn set_secure_boot(
        &self,
        enabled: bool,
        deadline: Deadline,
    ) -> Result<SecureBoot> {
        let now = self.secure_boot(Some(deadline)).await?;
        if now.enabled == enabled {
            return Ok(now);
        }
        if enabled && self.boot_modes(Some(deadline)).await?.mode == BootMode::Legacy {
            let message = "secure boot is of UEFI, and the server boots BIOS";
            let hint = "set the boot mode to uefi and reset the server first";
            return Err(Error::new(Kind::Unsupported, message).hint(hint));
        }
        taken(self.change_secure_boot(enabled, deadline).await)?;
        let look = || self.secure_boot(Some(deadline));
        shown("secure boot", deadline, look, |now| now.enabled == enabled).await
    }
}

/// Whether the iLO said yes; of an answer that is lost a look decides.
fn taken(answer: Result<(), Failure>) -> Result<bool> {
    match answer {
        Err(failure) if failure.is_in_doubt() => {
            tracing::warn!(%failure, "the answer to a boot setting is lost");
            Ok(false)
        }
        answer => Ok(answer.map(|()| true)?),
    }
}

/// Looks until the iLO shows what it took.
async fn shown<T: Debug, F: Future<Output = Result<T>>>(
    setting: &str,
    deadline: Deadline,
    look: impl Fn() -> F,
    is_set: impl Fn(&T) -> bool,
) -> Result<T> {
    let mut looks = 0;
    loop {
        let now = look().await?;
        if is_set(&now) {
            return Ok(now);
        }
        looks += 1;
        if !deadline
            .pause(POLL.pause_after(looks).unwrap_or(POLL.max))
            .await
        {
            let message = format!("the iLO took the {setting} but shows {now:?}");
            return Err(Error::new(Kind::Timeout, message).retryable(true).hint(
                "set it in the iLO's web page; if that does not hold either, reset the iLO",
            ));
        }
    }
}
