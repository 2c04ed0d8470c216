//! Inserting and ejecting media.

use super::Machine;
use super::answer::Answer;
use super::fault::Fault;
use super::media::RemoteMedium;
use super::state::EventKind;
use crate::ilo::mask;
use crate::ilo::model::Device;
use crate::secret::Secret;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Parameters of the two insert actions.
const STANDARD_PARAMETERS: [&str; 4] = [
    "Image",
    "Inserted",
    "WriteProtected",
    "TransferProtocolType",
];
const HPE_PARAMETERS: [&str; 5] = [
    "Image",
    "WriteProtected",
    "Certificate",
    "Intent",
    "Signature",
];

impl Machine {
    /// An action of a drive, named by the last part of its path.
    pub(super) fn drive_action(
        &self,
        device: Device,
        action: &str,
        body: &Map<String, Value>,
    ) -> Option<Answer> {
        let (insert, parameters): (bool, &[&str]) = match action {
            "VirtualMedia.InsertMedia" => (true, &STANDARD_PARAMETERS),
            "Oem/Hpe/HpeiLOVirtualMedia.InsertVirtualMedia" => (true, &HPE_PARAMETERS),
            "VirtualMedia.EjectMedia" | "Oem/Hpe/HpeiLOVirtualMedia.EjectVirtualMedia" => {
                (false, &[])
            }
            _ => return None,
        };
        let name = action.rsplit('/').next().unwrap_or(action);
        let standard = name == action;
        if standard && self.shared.state().has(Fault::HpeActionsOnly) {
            return None;
        }
        if let Some(unknown) = body.keys().find(|key| !parameters.contains(&key.as_str())) {
            return Some(Answer::refused(
                "Base.ActionParameterUnknown",
                &[name, unknown],
            ));
        }
        Some(match insert {
            true => self.insert(device, name, body),
            false => self.eject(device),
        })
    }

    fn insert(&self, device: Device, action: &str, body: &Map<String, Value>) -> Answer {
        let url = match body.get("Image") {
            None => return Answer::refused("Base.ActionParameterMissing", &[action, "Image"]),
            Some(Value::String(url)) => url.as_str(),
            Some(other) => {
                let value = other.to_string();
                return Answer::refused("Base.PropertyValueTypeError", &[&value, "Image"]);
            }
        };
        let rest = ["http://", "https://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme));
        if !rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
            return Answer::refused("Base.PropertyValueFormatError", &[url, "Image"]);
        }
        let mut state = self.shared.state();
        if !self.shared.config.vmscript_license || state.has(Fault::InsertLicenseRejected) {
            return Answer::refused("iLO.LicenseKeyRequired", &[]);
        }
        if state.is_busy_insert() {
            return Answer::refused("iLO.DeviceIsBusy", &[]);
        }
        let held = state.is_held(device);
        let drive = state.drive(device);
        if held || drive.is_inserted() || drive.opening.is_some() {
            return Answer::refused("iLO.MaxVirtualMediaConnectionEstablished", &[]);
        }
        state.inserts += 1;
        let number = state.inserts;
        state.drive(device).opening = Some(number);
        state.note(EventKind::Inserted {
            device,
            image: mask::text(url),
        });
        if !state.has(Fault::InsertNotMounted) {
            drop(state);
            self.open_image(device, number, Secret::new(url));
        }
        Answer::success()
    }

    /// Opens the image in the background: the iLO has answered by then.
    fn open_image(&self, device: Device, number: u64, url: Secret) {
        let shared = Arc::clone(&self.shared);
        super::spawn(&self.openings, async move {
            let opened = RemoteMedium::open(url.clone(), &shared.config.media_trust).await;
            let mut state = shared.state();
            let wrong_url = state.has(Fault::InsertWrongImageUrl);
            let drive = state.drive(device);
            if drive.opening != Some(number) {
                return;
            }
            drive.opening = None;
            match opened {
                Ok(medium) => {
                    drive.medium = Some(Arc::new(medium));
                    drive.image = Some(match wrong_url {
                        true => Secret::new("http://192.0.2.1/other.img"),
                        false => url,
                    });
                    state.note(EventKind::Connected { device });
                }
                Err(error) => {
                    let reason = error.to_string();
                    state.note(EventKind::NotConnected { device, reason });
                }
            }
        });
    }

    fn eject(&self, device: Device) -> Answer {
        let mut state = self.shared.state();
        if state.is_held(device) {
            return Answer::refused("iLO.NoScriptedVirtualMediaConnectionAvailable", &[]);
        }
        match state.eject(device) {
            true => Answer::success(),
            false => Answer::refused("iLO.NoVirtualMediaConnectionAvailable", &[]),
        }
    }

    /// `{"Oem":{"Hpe":{"BootOnNextServerReset":true}}}`, for the CD only.
    pub(super) fn patch_drive(&self, device: Device, body: &Map<String, Value>) -> Answer {
        let unknown = |name: &str| Answer::refused("iLO.PropertyNotWritableOrUnknown", &[name]);
        if let Some(name) = body.keys().find(|key| *key != "Oem") {
            return unknown(name);
        }
        let hpe = body
            .get("Oem")
            .and_then(|oem| oem.get("Hpe"))
            .and_then(Value::as_object);
        let Some(hpe) = hpe else {
            return unknown("Oem");
        };
        if let Some(name) = hpe.keys().find(|key| *key != "BootOnNextServerReset") {
            return unknown(name);
        }
        let Some(armed) = hpe.get("BootOnNextServerReset") else {
            return unknown("Hpe");
        };
        if device != Device::Cdrom {
            return unknown("BootOnNextServerReset");
        }
        let Some(armed) = armed.as_bool() else {
            let args = [&armed.to_string(), "BootOnNextServerReset"];
            return Answer::refused("Base.PropertyValueTypeError", &args);
        };
        let mut state = self.shared.state();
        if !state.cdrom.is_inserted() {
            return Answer::refused("iLO.NoVirtualMediaConnectionAvailable", &[]);
        }
        state.cdrom.boot_on_next_reset = armed;
        Answer::success()
    }
}
