//! What can be done with a server: one request each, no waiting for the effect.

use super::{Redfish, documents};
use crate::error::{Error, Kind, Result};
use crate::ilo::deadline::Deadline;
use crate::ilo::failure::Failure;
use crate::ilo::media::Drive;
use crate::ilo::model::{BootDevice, BootOverride, Device, Dialect, PowerState, PowerTarget};
use crate::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

/// Where the actions of a drive are: the standard's, then HPE's own, which is all that iLO 5 1.x
/// has, then iLO 4's. Older firmware has none: its drive is written to.
pub(super) const INSERT: [&str; 3] = [
    "/Actions/#VirtualMedia.InsertMedia",
    "/Oem/Hpe/Actions/#HpeiLOVirtualMedia.InsertVirtualMedia",
    "/Oem/Hp/Actions/#HpiLOVirtualMedia.InsertVirtualMedia",
];
pub(super) const EJECT: [&str; 3] = [
    "/Actions/#VirtualMedia.EjectMedia",
    "/Oem/Hpe/Actions/#HpeiLOVirtualMedia.EjectVirtualMedia",
    "/Oem/Hp/Actions/#HpiLOVirtualMedia.EjectVirtualMedia",
];

impl Redfish {
    pub(in crate::ilo) async fn power(&self, within: Option<Deadline>) -> Result<PowerState> {
        let system = self.get(&self.system, within).await?;
        Ok(documents::power_state(&system))
    }

    pub(in crate::ilo) async fn press(
        &self,
        target: PowerTarget,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let system = self.get(&self.system, Some(deadline)).await?;
        let name = reset_type(target, &system);
        let action = documents::action(&system, "/Actions/#ComputerSystem.Reset");
        let (path, body) = match (self.dialect, action) {
            (Dialect::Rest, _) => (
                self.system.as_str(),
                json!({ "Action": "Reset", "ResetType": name }),
            ),
            (_, Some(path)) => (path, json!({ "ResetType": name })),
            (_, None) => return Err(Failure::protocol("the iLO offers no reset action")),
        };
        self.send(Method::POST, path, &body, deadline).await
    }

    pub(in crate::ilo) async fn boot(&self, within: Option<Deadline>) -> Result<BootOverride> {
        let system = self.get(&self.system, within).await?;
        Ok(documents::boot_override(&system))
    }

    pub(in crate::ilo) async fn boot_once(
        &self,
        device: BootDevice,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let system = self.get(&self.system, Some(deadline)).await?;
        let name = device.as_redfish();
        let place = "/Boot/BootSourceOverrideTarget@Redfish.AllowableValues";
        let devices: Vec<&str> = documents::texts(&system, place).collect();
        if !devices.is_empty() && !devices.contains(&name) {
            let message = format!("the server cannot boot once from {name}");
            let error = Error::new(Kind::Unsupported, message).detail("devices", devices);
            return Err(Failure::Unable(error));
        }
        let body = json!({
            "Boot": { "BootSourceOverrideTarget": name, "BootSourceOverrideEnabled": "Once" },
        });
        self.send(Method::PATCH, &self.system, &body, deadline)
            .await
    }

    pub(in crate::ilo) fn devices(&self) -> Vec<Device> {
        self.drives.iter().map(|(device, _)| *device).collect()
    }

    pub(in crate::ilo) async fn drive(
        &self,
        device: Device,
        within: Option<Deadline>,
    ) -> Result<Drive> {
        let path = self.path_of(device)?;
        let document = self.get(path, within).await?;
        documents::drive(&document).ok_or_else(|| {
            let message = format!("the iLO's {path} is no longer a floppy or CD");
            Error::new(Kind::Protocol, message)
        })
    }

    pub(in crate::ilo) async fn insert(
        &self,
        device: Device,
        url: &Secret,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let image = Value::from(url.expose());
        self.load(device, &INSERT, image, deadline).await
    }

    pub(in crate::ilo) async fn take_out(
        &self,
        device: Device,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        self.load(device, &EJECT, Value::Null, deadline).await
    }

    /// Inserts an image; null ejects.
    async fn load(
        &self,
        device: Device,
        places: &[&str],
        image: Value,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let path = self.path_of(device).map_err(Failure::Unable)?;
        let document = self.get(path, Some(deadline)).await?;
        let offered = places
            .iter()
            .find_map(|place| Some((*place, documents::action(&document, place)?)));
        match offered {
            None => {
                let body = json!({ "Image": image });
                self.send(Method::PATCH, path, &body, deadline).await
            }
            Some((place, action)) => {
                let body = match image.is_null() {
                    true => json!({}),
                    false if place == INSERT[0] => {
                        json!({ "Image": image, "Inserted": true, "WriteProtected": true })
                    }
                    false => json!({ "Image": image }),
                };
                self.send(Method::POST, action, &body, deadline).await
            }
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let sent = self.transport.write(&method, path, Some(body), deadline);
        sent.await.map(drop)
    }

    fn path_of(&self, device: Device) -> Result<&str> {
        let found = self.drives.iter().find(|(kind, _)| *kind == device);
        found.map(|(_, path)| path.as_str()).ok_or_else(|| {
            let message = format!("the iLO has no virtual {}", device.as_str());
            Error::new(Kind::Unsupported, message)
        })
    }
}

/// Redfish's name of the action, of those that this firmware has.
pub(super) fn reset_type(target: PowerTarget, system: &Value) -> &'static str {
    let place = "/Actions/#ComputerSystem.Reset/ResetType@Redfish.AllowableValues";
    let has = |name: &str| documents::texts(system, place).any(|value| value == name);
    match target {
        PowerTarget::On => "On",
        PowerTarget::ForceOff => "ForceOff",
        PowerTarget::Reset => "ForceRestart",
        PowerTarget::Off if has("GracefulShutdown") => "GracefulShutdown",
        // Before iLO 5 2.10. The button toggles: only ever pressed while the server is on.
        PowerTarget::Off => "PushPowerButton",
    }
}
