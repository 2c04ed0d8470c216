//! Virtual media by URL.

use super::client::Client;
use super::deadline::{Deadline, POLL};
use super::failure::{Class, Failure};
use super::mask;
use super::model::{ConnectedVia, Device, VmediaDevice};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use std::time::Duration;

/// What emptying the drive after a failed insert may take.
const CLEAN_UP: Duration = Duration::from_secs(15);

/// A virtual drive as the iLO shows it, with the complete URL.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) device: Device,
    pub(super) inserted: bool,
    pub(super) connected_via: ConnectedVia,
    pub(super) image: Option<Secret>,
    pub(super) write_protected: bool,
    pub(super) boot_on_next_reset: Option<bool>,
}

impl Drive {
    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        !self.inserted && self.image.is_none()
    }

    /// Whether it shows `url` as connected.
    pub(super) fn holds(&self, url: &Secret) -> bool {
        self.inserted && self.connected_via == ConnectedVia::Uri && self.shows(url)
    }

    /// Whether the image is `url`.
    pub(super) fn shows(&self, url: &Secret) -> bool {
        self.image
            .as_ref()
            .is_some_and(|image| image.matches(url.expose()))
    }
}

impl From<&Drive> for VmediaDevice {
    fn from(drive: &Drive) -> Self {
        Self {
            device: drive.device,
            inserted: drive.inserted,
            connected_via: drive.connected_via,
            image: drive.image.as_ref().map(|url| mask::text(url.expose())),
            write_protected: drive.write_protected,
            boot_on_next_reset: drive.boot_on_next_reset,
        }
    }
}

impl Client {
    pub(super) async fn vmedia_status(&self) -> Result<Vec<VmediaDevice>> {
        let mut devices = Vec::new();
        for device in self.devices() {
            devices.push(VmediaDevice::from(&self.drive(device, None).await?));
        }
        Ok(devices)
    }

    pub(super) async fn attach(
        &self,
        device: Device,
        url: &Secret,
        deadline: Deadline,
    ) -> Result<VmediaDevice> {
        let mut attempt = 0;
        loop {
            let drive = self.drive(device, Some(deadline)).await?;
            // An insert whose answer was lost.
            if attempt > 0 && drive.holds(url) {
                return Ok((&drive).into());
            }
            not_held(&drive)?;
            if !drive.is_empty() {
                self.empty(device, deadline).await?;
            }
            let failure = match self.insert(device, url, deadline).await {
                Ok(()) => match self.connected(device, url, deadline).await {
                    Err(error) => return Err(self.emptied(device, error).await),
                    connected => return connected,
                },
                Err(failure) => failure,
            };
            attempt += 1;
            let pause = if failure.class() == Some(Class::MediaPresent) {
                // A medium that the drive did not show is in the way.
                self.post_eject(device, deadline).await?;
                POLL.pause_after(attempt).unwrap_or(POLL.max)
            } else {
                POLL.max
            };
            let again = failure.class() == Some(Class::MediaPresent) || failure.is_transient();
            if !again || !deadline.pause(pause).await {
                let in_doubt = failure.is_in_doubt();
                let error = failure.into();
                return Err(match in_doubt {
                    true => self.emptied(device, error).await,
                    false => error,
                });
            }
        }
    }

    /// Ejects what a failed insert may still bring in; the failure, with what came of it.
    async fn emptied(&self, device: Device, error: Error) -> Error {
        match self.empty(device, Deadline::after(CLEAN_UP)).await {
            Ok(_) => error,
            Err(left) => error.cause(format!("and the drive is not empty: {left}")),
        }
    }

    pub(super) async fn eject(&self, device: Device, deadline: Deadline) -> Result<VmediaDevice> {
        let drive = self.drive(device, Some(deadline)).await?;
        not_held(&drive)?;
        // Also when it shows nothing: an accepted insert may still be on its way.
        self.empty(device, deadline).await
    }

    /// Ejects, and waits until the drive shows it.
    async fn empty(&self, device: Device, deadline: Deadline) -> Result<VmediaDevice> {
        self.post_eject(device, deadline).await?;
        let mut looks = 0;
        loop {
            let drive = self.drive(device, Some(deadline)).await?;
            if drive.is_empty() {
                return Ok((&drive).into());
            }
            looks += 1;
            if !deadline
                .pause(POLL.pause_after(looks).unwrap_or(POLL.max))
                .await
            {
                let message = "the iLO took the eject but shows the medium still";
                return Err(shown(Error::new(Kind::Timeout, message), &drive));
            }
        }
    }

    async fn post_eject(&self, device: Device, deadline: Deadline) -> Result<(), Failure> {
        match self.take_out(device, deadline).await {
            Err(failure) if failure.class() == Some(Class::NoMedia) => Ok(()),
            // A read decides whether it had an effect.
            Err(failure) if failure.is_in_doubt() => Ok(()),
            other => other,
        }
    }

    /// Waits until the drive shows the image: the iLO says yes before it opens the URL.
    async fn connected(
        &self,
        device: Device,
        url: &Secret,
        deadline: Deadline,
    ) -> Result<VmediaDevice> {
        let mut looks = 0;
        loop {
            let drive = self.drive(device, Some(deadline)).await?;
            if drive.holds(url) {
                return Ok((&drive).into());
            }
            looks += 1;
            if deadline
                .pause(POLL.pause_after(looks).unwrap_or(POLL.max))
                .await
            {
                continue;
            }
            let error = if drive.image.is_some() && !drive.shows(url) {
                Error::new(
                    Kind::Conflict,
                    "the iLO shows another image than the one inserted",
                )
                .hint("look for somebody else using the drive, and for a limit to URL lengths")
            } else {
                let message = format!(
                    "the iLO took the URL but did not connect the medium within {:?}",
                    deadline.timeout()
                );
                Error::new(Kind::Timeout, message).retryable(true).hint(
                    "check that the iLO reaches the image server, trusts its certificate and that \
                     the URL has not expired",
                )
            };
            return Err(shown(error, &drive));
        }
    }
}

/// A drive that a console user holds is not ours to eject.
fn not_held(drive: &Drive) -> Result<()> {
    if drive.connected_via != ConnectedVia::Applet {
        return Ok(());
    }
    let message = format!("a console user holds the virtual {}", drive.device.as_str());
    let hint = "ask them to disconnect the medium in the remote console";
    Err(Error::new(Kind::Conflict, message).hint(hint))
}

/// Adds what the iLO shows of the drive.
fn shown(error: Error, drive: &Drive) -> Error {
    let device = VmediaDevice::from(drive);
    match serde_json::to_value(&device) {
        Ok(device) => error.detail("shown", device),
        Err(_) => error,
    }
}
