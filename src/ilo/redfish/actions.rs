//! What can be done with a server: one request each, no waiting for the effect.

use super::{Redfish, documents};
use crate::error::{Error, Kind, Result};
use crate::ilo::deadline::Deadline;
use crate::ilo::failure::Failure;
use crate::ilo::media::Drive;
use crate::ilo::model::{BootDevice, BootOverride, Device, Dialect, PowerTarget};
use crate::ilo::power::Sample;
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
    pub(in crate::ilo) async fn sample(&self, within: Option<Deadline>) -> Result<Sample> {
        let system = self.get(&self.system, within).await?;
        Ok(Sample {
            power: documents::power_state(&system),
            post: documents::post_state(&system),
        })
    }

    pub(in crate::ilo) async fn offers(
        &self,
        target: PowerTarget,
        deadline: Deadline,
    ) -> Result<bool> {
        let system = self.get(&self.system, Some(deadline)).await?;
        Ok(action(self.dialect, target, &system).is_some())
    }

    pub(in crate::ilo) async fn press(
        &self,
        target: PowerTarget,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let system = self.get(&self.system, Some(deadline)).await?;
        let Some((path, body)) = action(self.dialect, target, &system) else {
            let message = format!("the iLO has no power action for {target:?}");
            let error = Error::new(Kind::Unsupported, message);
            return Err(Failure::Unable(error.detail("actions", offered(&system))));
        };
        // REST has actions posted to the resource itself.
        let path = path.unwrap_or(&self.system);
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
        self.set_override(&system, device, "Once", deadline).await
    }

    pub(super) async fn set_override(
        &self,
        system: &Value,
        device: BootDevice,
        enabled: &str,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let name = device.as_redfish();
        let place = "/Boot/BootSourceOverrideTarget@Redfish.AllowableValues";
        let devices: Vec<&str> = documents::texts(system, place).collect();
        if !devices.is_empty() && !devices.contains(&name) {
            let message = format!("the server cannot boot from {name}");
            let error = Error::new(Kind::Unsupported, message).detail("devices", devices);
            return Err(Failure::Unable(error));
        }
        let body = json!({
            "Boot": { "BootSourceOverrideTarget": name, "BootSourceOverrideEnabled": enabled },
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

    pub(super) async fn send(
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

const RESETS: &str = "/Actions/#ComputerSystem.Reset";

/// Where a power action is posted, unless it is the system itself, and what; of those that this
/// firmware has.
pub(super) fn action(
    dialect: Dialect,
    target: PowerTarget,
    system: &Value,
) -> Option<(Option<&str>, Value)> {
    let offered = offered(system);
    // Firmware that lists nothing has what the standard has.
    let has = |name: &str| offered.contains(&name);
    let may = |name: &str| has(name) || offered.is_empty();
    let name = match target {
        PowerTarget::On => "On",
        PowerTarget::ForceOff => "ForceOff",
        PowerTarget::Reset => "ForceRestart",
        PowerTarget::Restart if has("GracefulRestart") => "GracefulRestart",
        PowerTarget::Restart => return None,
        PowerTarget::ColdBoot if has("PowerCycle") => "PowerCycle",
        PowerTarget::ColdBoot => return cold_boot(dialect, system),
        PowerTarget::Off if has("GracefulShutdown") => "GracefulShutdown",
        // Before iLO 5 2.10. The button toggles: only ever pressed while the server is on.
        PowerTarget::Off => "PushPowerButton",
    };
    if !may(name) {
        return None;
    }
    if dialect == Dialect::Rest {
        return Some((None, json!({ "Action": "Reset", "ResetType": name })));
    }
    let path = documents::action(system, RESETS)?;
    Some((Some(path), json!({ "ResetType": name })))
}

/// The values of the standard's action.
fn offered(system: &Value) -> Vec<&str> {
    let place = format!("{RESETS}/ResetType@Redfish.AllowableValues");
    let listed: Vec<&str> = documents::texts(system, &place).collect();
    let rest = || capabilities(system.get("AvailableActions"), "Reset");
    if listed.is_empty() { rest() } else { listed }
}

/// An action of HPE's own.
fn cold_boot(dialect: Dialect, system: &Value) -> Option<(Option<&str>, Value)> {
    let name = "ColdBoot";
    if dialect == Dialect::Rest {
        let offered = capabilities(documents::oem(system, "/AvailableActions"), "SystemReset");
        let body = json!({ "Action": "SystemReset", "Target": "/Oem/Hp", "ResetType": name });
        return offered.contains(&name).then_some((None, body));
    }
    let classes = ["HpeComputerSystemExt", "HpComputerSystemExt"];
    let action = classes
        .iter()
        .find_map(|class| documents::oem(system, &format!("/Actions/#{class}.SystemReset")))?;
    let offered: Vec<&str> =
        documents::texts(action, "/ResetType@Redfish.AllowableValues").collect();
    let path = action.get("target")?.as_str()?;
    offered
        .contains(&name)
        .then(|| (Some(path), json!({ "ResetType": name })))
}

/// The values that REST lists for an action.
fn capabilities<'a>(actions: Option<&'a Value>, name: &str) -> Vec<&'a str> {
    let actions = actions.and_then(Value::as_array).into_iter().flatten();
    let of_name = actions.filter(|action| documents::text(action, "/Action") == name);
    let listed = of_name.filter_map(|action| action.get("Capabilities")?.as_array());
    let values = listed
        .flatten()
        .flat_map(|one| documents::texts(one, "/AllowableValues"));
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(target: PowerTarget, system: &Value) -> Option<String> {
        let (_, body) = action(Dialect::Redfish, target, system)?;
        Some(body["ResetType"].as_str().unwrap().to_owned())
    }

    #[test]
    fn what_firmware_does_not_offer_is_not_asked_for() {
        use PowerTarget as T;
        let capture = include_str!(
            "../../../tests/data/ilo/redfish/ilo5-1.30-raw-http/rbsu_systems_1_response.http"
        );
        let body = capture.find('{').map(|at| &capture[at..]);
        let old: Value = serde_json::from_str(body.unwrap()).unwrap();
        let new: Value = serde_json::from_str(include_str!(
            "../../../tests/data/ilo/redfish/ilo5-3.11-dl360gen10plus/Systems_1.json"
        ))
        .unwrap();
        for (target, in_old, in_new) in [
            (T::On, Some("On"), Some("On")),
            (T::Off, Some("PushPowerButton"), Some("GracefulShutdown")),
            (T::ForceOff, Some("ForceOff"), Some("ForceOff")),
            (T::Reset, Some("ForceRestart"), Some("ForceRestart")),
            (T::Restart, None, Some("GracefulRestart")),
            (T::ColdBoot, Some("ColdBoot"), Some("ColdBoot")),
        ] {
            assert_eq!(name(target, &old).as_deref(), in_old, "{target:?}");
            assert_eq!(name(target, &new).as_deref(), in_new, "{target:?}");
        }
        // The standard's own, and a service that lists too little.
        let place = "ResetType@Redfish.AllowableValues";
        let other = json!({"Actions": {"#ComputerSystem.Reset": {
            "target": "/reset", place: ["PowerCycle", "Off"],
        }}});
        assert_eq!(name(T::ColdBoot, &other).as_deref(), Some("PowerCycle"));
        assert_eq!(name(T::Reset, &other), None);
    }

    #[test]
    fn rest_lists_its_actions_elsewhere() {
        let system = include_str!("../../lab/ilo/data/ilo4/system.json");
        let system: Value = serde_json::from_str(system).unwrap();
        let (path, body) = action(Dialect::Rest, PowerTarget::ColdBoot, &system).unwrap();
        assert_eq!(path, None);
        assert_eq!(
            body,
            json!({"Action": "SystemReset", "Target": "/Oem/Hp", "ResetType": "ColdBoot"})
        );
        assert!(action(Dialect::Rest, PowerTarget::Restart, &system).is_none());
        let (_, body) = action(Dialect::Rest, PowerTarget::Off, &system).unwrap();
        assert_eq!(
            body,
            json!({"Action": "Reset", "ResetType": "PushPowerButton"})
        );
    }
}
