//! The virtual drives: inserting, connecting, arming for a boot, ejecting.

use super::fault::Fault;
use super::media::RemoteMedium;
use super::refusal::Refusal;
use super::state::{EventKind, MediumState, State};
use super::{Machine, Shared, spawn};
use crate::ilo::mask;
use crate::ilo::model::Device;
use crate::secret::Secret;
use std::sync::Arc;
use std::time::Duration;

/// How long images take to connect on a slow iLO.
const SLOW: Duration = Duration::from_secs(2);

/// What a drive shows if it does not show what it was given.
const OTHER_URL: &str = "http://192.0.2.1/other.img";

/// When the server sees what is in the drive (`VM_BOOT_OPTION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BootOption {
    /// Not at a boot.
    Never,
    /// From the next reset to the one after it, which also ejects it
    /// (`BootOnNextServerReset`).
    Once,
    /// At every boot.
    Always,
}

/// A virtual drive.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) device: Device,
    /// What is in it; empty while the image of a Redfish insert is being opened.
    pub(super) image: Option<Secret>,
    pub(super) write_protected: bool,
    pub(super) option: BootOption,
    is_connected: bool,
    /// The last medium, kept for its counters when ejected.
    medium: Option<Arc<RemoteMedium>>,
    /// The number of the insert that is opening its image.
    opening: Option<u64>,
    /// Armed for one boot, which has begun: the next reset ejects it.
    eject_on_reset: bool,
    /// Resets since it was inserted.
    resets: u32,
}

impl Drive {
    pub(super) fn new(device: Device) -> Self {
        Self {
            device,
            image: None,
            write_protected: device == Device::Cdrom,
            option: BootOption::Never,
            is_connected: false,
            medium: None,
            opening: None,
            eject_on_reset: false,
            resets: 0,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// The medium, if the server sees it.
    pub(super) fn connected(&self) -> Option<Arc<RemoteMedium>> {
        self.medium.clone().filter(|_| self.is_connected)
    }

    fn is_taken(&self) -> bool {
        self.image.is_some() || self.opening.is_some()
    }

    fn disconnect(&mut self) {
        self.is_connected = false;
        if let Some(medium) = &self.medium {
            medium.eject();
        }
    }

    /// Takes out what is in it or on its way; says whether there was anything.
    fn clear(&mut self) -> bool {
        let had = self.image.take().is_some() | self.opening.take().is_some();
        self.disconnect();
        self.option = BootOption::Never;
        self.eject_on_reset = false;
        self.write_protected = self.device == Device::Cdrom;
        self.resets = 0;
        had
    }

    pub(super) fn snapshot(&self) -> MediumState {
        MediumState {
            device: self.device,
            inserted: self.image.is_some(),
            connected: self.is_connected,
            image: self.image.as_ref().map(|url| mask::text(url.expose())),
            boot_on_next_reset: self.option == BootOption::Once,
            requests: self.medium.as_ref().map_or(0, |m| m.requests()),
            bytes: self.medium.as_ref().map_or(0, |m| m.bytes()),
        }
    }
}

impl State {
    /// Empties a drive; says whether anything was in it.
    pub(super) fn eject(&mut self, device: Device) -> bool {
        let had = self.drive(device).clear();
        if had {
            self.note(EventKind::Ejected { device });
        }
        had
    }

    /// What a reset of the server does to the drives. Media that were armed for one boot do not
    /// survive the second reset. Says whether the CD was armed for this boot.
    pub(super) fn reset_drives(&mut self) -> bool {
        let lost = self.has(Fault::MediaLostAtSecondReset);
        for device in [Device::Floppy, Device::Cdrom] {
            let drive = self.drive(device);
            drive.resets += 1;
            if drive.eject_on_reset || (lost && drive.resets > 1) {
                self.eject(device);
                continue;
            }
            drive.eject_on_reset = drive.option == BootOption::Once && drive.is_taken();
            if drive.option == BootOption::Once {
                drive.option = BootOption::Never;
            }
        }
        self.cdrom.eject_on_reset
    }

    /// Media that the boot which begins waits for, with the numbers of their openings.
    fn begin_to_connect(&mut self) -> Vec<(Device, u64, Secret)> {
        let mut wanted = Vec::new();
        for device in [Device::Floppy, Device::Cdrom] {
            let number = self.inserts + 1;
            let drive = self.drive(device);
            let armed = drive.eject_on_reset || drive.option == BootOption::Always;
            if let Some(url) = drive.image.clone()
                && armed
                && !drive.is_connected
            {
                drive.opening = Some(number);
                self.inserts = number;
                wanted.push((device, number, url));
            }
        }
        wanted
    }

    fn check_insert(&mut self, device: Device, url: &str) -> Result<(), Refusal> {
        let rest = ["http://", "https://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme));
        if !rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
            return Err(Refusal::BadUrl(url.to_owned()));
        }
        if self.has(Fault::LicenseStandard) || self.has(Fault::InsertLicenseRejected) {
            return Err(Refusal::NotLicensed);
        }
        if self.strikes(Fault::InsertBusy) {
            return Err(Refusal::Busy);
        }
        if self.is_held(device) {
            return Err(Refusal::DriveHeld);
        }
        Ok(())
    }
}

impl Machine {
    /// Inserts and connects, as REST and Redfish do. The image is opened after the answer.
    pub(super) fn insert(&self, device: Device, url: &str) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        state.check_insert(device, url)?;
        if state.drive(device).is_taken() {
            return Err(Refusal::DriveTaken);
        }
        state.inserts += 1;
        let number = state.inserts;
        state.drive(device).opening = Some(number);
        state.note(EventKind::Inserted {
            device,
            image: mask::text(url),
        });
        self.open(&state, device, number, Secret::new(url));
        Ok(())
    }

    /// Puts an image into a drive without connecting it, as RIBCL does. What was in it goes.
    pub(super) fn load(&self, device: Device, url: &str) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        state.check_insert(device, url)?;
        state.drive(device).clear();
        let wrong = state.has(Fault::InsertWrongImageUrl);
        state.drive(device).image = Some(Secret::new(if wrong { OTHER_URL } else { url }));
        state.note(EventKind::Inserted {
            device,
            image: mask::text(url),
        });
        Ok(())
    }

    /// Connects what is in a drive (`CONNECT`). The image is opened after the answer.
    pub(super) fn connect(&self, device: Device) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        if state.is_held(device) {
            return Err(Refusal::DriveHeld);
        }
        state.inserts += 1;
        let number = state.inserts;
        let drive = state.drive(device);
        let url = drive.image.clone().ok_or(Refusal::DriveEmpty)?;
        drive.option = BootOption::Always;
        if !drive.is_connected {
            drive.opening = Some(number);
            self.open(&state, device, number, url);
        }
        Ok(())
    }

    /// Takes the medium from the server and leaves it in the drive (`DISCONNECT`).
    pub(super) fn disconnect(&self, device: Device) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        let drive = state.drive(device);
        if drive.image.is_none() {
            return Err(Refusal::DriveEmpty);
        }
        drive.opening = None;
        drive.option = BootOption::Never;
        drive.disconnect();
        state.note(EventKind::Disconnected { device });
        Ok(())
    }

    /// Says when the server shall see the medium.
    pub(super) fn arm(&self, device: Device, option: BootOption) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        let drive = state.drive(device);
        // ilorest arms right after the insert, when the image is still being opened.
        if !drive.is_taken() {
            return Err(Refusal::DriveEmpty);
        }
        drive.option = option;
        Ok(())
    }

    pub(super) fn eject(&self, device: Device) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        if state.is_held(device) {
            return Err(Refusal::DriveHeld);
        }
        match state.eject(device) {
            true => Ok(()),
            false => Err(Refusal::DriveEmpty),
        }
    }

    fn open(&self, state: &State, device: Device, number: u64, url: Secret) {
        if state.has(Fault::InsertNotMounted) {
            return;
        }
        let pause = match state.has(Fault::InsertSlow) {
            true => SLOW,
            false => Duration::ZERO,
        };
        let shared = Arc::clone(&self.shared);
        spawn(&self.openings, async move {
            tokio::time::sleep(pause).await;
            shared.open_image(device, number, url).await;
        });
    }
}

impl Shared {
    /// Connects the media that were armed for the boot that begins.
    pub(super) async fn connect_armed(&self) {
        let wanted = {
            let mut state = self.state();
            match state.has(Fault::InsertNotMounted) {
                true => Vec::new(),
                false => state.begin_to_connect(),
            }
        };
        for (device, number, url) in wanted {
            self.open_image(device, number, url).await;
        }
    }

    async fn open_image(&self, device: Device, number: u64, url: Secret) {
        let opened = RemoteMedium::open(url.clone(), &self.config.media_trust).await;
        let mut state = self.state();
        let wrong_url = state.has(Fault::InsertWrongImageUrl);
        let drive = state.drive(device);
        if drive.opening != Some(number) {
            return;
        }
        drive.opening = None;
        match opened {
            Ok(medium) => {
                drive.medium = Some(Arc::new(medium));
                drive.is_connected = true;
                drive.image = Some(match wrong_url {
                    true => Secret::new(OTHER_URL),
                    false => url,
                });
                state.note(EventKind::Connected { device });
            }
            Err(error) => {
                drive.clear();
                let reason = error.to_string();
                state.note(EventKind::NotConnected { device, reason });
            }
        }
    }
}
