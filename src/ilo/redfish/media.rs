//! Virtual media by URL.

use super::documents::{self, Drive};
use super::failure::Failure;
use super::message::Class;
use super::{POLL, Redfish};
use crate::error::{Error, Kind, Result};
use crate::ilo::deadline::Deadline;
use crate::ilo::model::{ConnectedVia, Device, VmediaDevice};
use crate::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// What emptying the drive after a failed insert may take.
const CLEAN_UP: Duration = Duration::from_secs(15);

/// Where the actions are: the standard's, then HPE's own, which is all that iLO 5 1.x has.
const INSERT: [&str; 2] = [
    "/Actions/#VirtualMedia.InsertMedia",
    "/Oem/Hpe/Actions/#HpeiLOVirtualMedia.InsertVirtualMedia",
];
const EJECT: [&str; 2] = [
    "/Actions/#VirtualMedia.EjectMedia",
    "/Oem/Hpe/Actions/#HpeiLOVirtualMedia.EjectVirtualMedia",
];

impl Redfish {
    pub(in crate::ilo) async fn vmedia_status(&self) -> Result<Vec<VmediaDevice>> {
        let mut devices = Vec::new();
        for (_, path) in &self.drives {
            let document = self.transport.get(path).await?;
            devices.extend(Drive::parse(&document).as_ref().map(VmediaDevice::from));
        }
        Ok(devices)
    }

    pub(in crate::ilo) async fn attach(
        &self,
        device: Device,
        url: &Secret,
        deadline: Deadline,
    ) -> Result<VmediaDevice> {
        let path = self.drive(device)?;
        let mut attempt = 0;
        loop {
            let (drive, document) = self.look(path, deadline).await?;
            // An insert whose answer was lost.
            if attempt > 0 && drive.holds(url) {
                return Ok((&drive).into());
            }
            not_held(&drive)?;
            if !drive.is_empty() {
                self.empty(path, &document, deadline).await?;
            }
            let failure = match self.insert(&document, url, deadline).await {
                Ok(()) => match self.connected(path, url, deadline).await {
                    Err(error) => return Err(self.emptied(path, &document, error).await),
                    connected => return connected,
                },
                Err(failure) => failure,
            };
            attempt += 1;
            let pause = if failure.class() == Some(Class::MediaPresent) {
                // A medium that the drive did not show is in the way.
                self.post_eject(&document, deadline).await?;
                POLL.pause_after(attempt).unwrap_or(POLL.max)
            } else {
                POLL.max
            };
            let again = failure.class() == Some(Class::MediaPresent) || failure.is_transient();
            if !again || !deadline.pause(pause).await {
                let in_doubt = failure.is_in_doubt();
                let error = failure.into();
                return Err(match in_doubt {
                    true => self.emptied(path, &document, error).await,
                    false => error,
                });
            }
        }
    }

    /// Ejects what a failed insert may still bring in; the failure, with what came of it.
    async fn emptied(&self, path: &str, document: &Value, error: Error) -> Error {
        match self.empty(path, document, Deadline::after(CLEAN_UP)).await {
            Ok(_) => error,
            Err(left) => error.cause(format!("and the drive is not empty: {left}")),
        }
    }

    pub(in crate::ilo) async fn eject(
        &self,
        device: Device,
        deadline: Deadline,
    ) -> Result<VmediaDevice> {
        let path = self.drive(device)?;
        let (drive, document) = self.look(path, deadline).await?;
        not_held(&drive)?;
        // Also when it shows nothing: an accepted insert may still be on its way.
        self.empty(path, &document, deadline).await
    }

    /// Ejects, and waits until the drive shows it.
    async fn empty(
        &self,
        path: &str,
        document: &Value,
        deadline: Deadline,
    ) -> Result<VmediaDevice> {
        self.post_eject(document, deadline).await?;
        let mut looks = 0;
        loop {
            let (drive, _) = self.look(path, deadline).await?;
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

    async fn post_eject(&self, document: &Value, deadline: Deadline) -> Result<(), Failure> {
        let path = offered(document, &EJECT, "eject")?;
        let ejected = self
            .transport
            .write(&Method::POST, path, Some(&json!({})), deadline)
            .await;
        match ejected {
            Err(failure) if failure.class() == Some(Class::NoMedia) => Ok(()),
            // A read decides whether it had an effect.
            Err(failure) if failure.is_in_doubt() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn insert(
        &self,
        document: &Value,
        url: &Secret,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let path = offered(document, &INSERT, "insert")?;
        let body = match documents::action(document, INSERT[0]) {
            Some(_) => json!({ "Image": url.expose(), "Inserted": true, "WriteProtected": true }),
            None => json!({ "Image": url.expose() }),
        };
        self.transport
            .write(&Method::POST, path, Some(&body), deadline)
            .await
            .map(drop)
    }

    /// Waits until the drive shows the image: the iLO says yes before it opens the URL.
    async fn connected(
        &self,
        path: &str,
        url: &Secret,
        deadline: Deadline,
    ) -> Result<VmediaDevice> {
        let mut looks = 0;
        loop {
            let (drive, _) = self.look(path, deadline).await?;
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

    async fn look(&self, path: &str, deadline: Deadline) -> Result<(Drive, Value)> {
        let document = self.transport.get_until(path, deadline).await?;
        let drive = Drive::parse(&document).ok_or_else(|| {
            Error::new(
                Kind::Protocol,
                format!("the iLO's {path} is no longer a floppy or CD"),
            )
        })?;
        Ok((drive, document))
    }

    fn drive(&self, device: Device) -> Result<&str> {
        let found = self.drives.iter().find(|(kind, _)| *kind == device);
        found.map(|(_, path)| path.as_str()).ok_or_else(|| {
            let message = format!("the iLO has no virtual {}", device.as_str());
            Error::new(Kind::Unsupported, message)
        })
    }
}

fn offered<'a>(document: &'a Value, places: &[&str], what: &str) -> Result<&'a str, Failure> {
    let action = places
        .iter()
        .find_map(|place| documents::action(document, place));
    action.ok_or_else(|| Failure::protocol(format!("the iLO's drive offers no {what} action")))
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
