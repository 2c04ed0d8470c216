//! The resources, as a DL360 Gen10 Plus with iLO 5 3.11 shows them.

use super::Machine;
use super::fault::Fault;
use super::state::Drive;
use crate::ilo::model::{Device, PowerState};
use crate::lab::ilo::IloConfig;
use serde_json::{Value, json};
use uuid::Uuid;

macro_rules! captured {
    ($name:literal) => {
        parse(include_str!(concat!("data/", $name, ".json")))
    };
}

/// The paths of what can be read.
pub(super) const ROOT: &str = "/redfish/v1";
pub(super) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub(super) const SYSTEM: &str = "/redfish/v1/Systems/1";
pub(super) const BIOS: &str = "/redfish/v1/systems/1/bios";
pub(super) const MEDIA: &str = "/redfish/v1/Managers/1/VirtualMedia";

impl Machine {
    /// The resource at a path without trailing slash.
    pub(super) fn document(&self, path: &str) -> Option<Value> {
        let config = &self.shared.config;
        Some(match path {
            "/redfish" => json!({ "v1": "/redfish/v1/" }),
            ROOT => service_root(config),
            "/redfish/v1/SessionService" => captured!("session_service"),
            SESSIONS => self.sessions(),
            "/redfish/v1/Systems" => captured!("systems"),
            SYSTEM => self.system(),
            BIOS => captured!("bios"),
            "/redfish/v1/Managers" => captured!("managers"),
            "/redfish/v1/Managers/1" => manager(config),
            "/redfish/v1/Managers/1/LicenseService" => captured!("licenses"),
            "/redfish/v1/Managers/1/LicenseService/1" => license(config),
            MEDIA => captured!("virtual_media"),
            _ => {
                return self
                    .drive_document(path)
                    .or_else(|| self.session_document(path));
            }
        })
    }

    fn system(&self) -> Value {
        let config = &self.shared.config;
        let state = self.shared.state();
        let mut system = captured!("system");
        let uuid = config.uuid.hyphenated().to_string().to_uppercase();
        let starting = state.power == PowerState::On && state.post_state.is_in_post();
        let values = [
            ("/UUID", Value::from(uuid)),
            ("/SerialNumber", Value::from(serial(config))),
            ("/HostName", Value::from(config.name.as_str())),
            ("/PowerState", Value::from(state.power.as_redfish())),
            (
                "/Status/State",
                Value::from(if starting { "Starting" } else { "Enabled" }),
            ),
            (
                "/Boot/BootSourceOverrideTarget",
                Value::from(state.override_target.as_str()),
            ),
            (
                "/Boot/BootSourceOverrideEnabled",
                Value::from(state.override_enabled.as_str()),
            ),
            (
                "/Oem/Hpe/PostState",
                Value::from(state.post_state.as_redfish()),
            ),
        ];
        set(&mut system, values);
        system
    }

    fn sessions(&self) -> Value {
        let state = self.shared.state();
        let mut sessions = captured!("sessions");
        let members: Vec<Value> = state
            .sessions
            .iter()
            .map(|s| json!({ "@odata.id": format!("{SESSIONS}/{}", s.id) }))
            .collect();
        set(
            &mut sessions,
            [
                ("/Members@odata.count", Value::from(members.len())),
                ("/Members", Value::from(members)),
            ],
        );
        sessions
    }

    fn session_document(&self, path: &str) -> Option<Value> {
        let id = path.strip_prefix(SESSIONS)?.strip_prefix('/')?;
        let state = self.shared.state();
        state.sessions.iter().find(|session| session.id == id)?;
        Some(json!({
            "@odata.id": path,
            "@odata.type": "#Session.v1_0_0.Session",
            "Id": id,
            "Name": "User Session",
            "UserName": self.shared.config.username,
        }))
    }

    fn drive_document(&self, path: &str) -> Option<Value> {
        let device = device_of(path)?;
        let mut state = self.shared.state();
        let (held, hpe_only) = (state.is_held(device), state.has(Fault::HpeActionsOnly));
        let mut document = drive(state.drive(device));
        if held {
            let applet = Value::from("Applet");
            set(
                &mut document,
                [("/Inserted", Value::from(true)), ("/ConnectedVia", applet)],
            );
        }
        if hpe_only && let Some(members) = document.as_object_mut() {
            members.remove("Actions");
        }
        Some(document)
    }
}

/// The drive whose resource is at a path without trailing slash.
pub(super) fn device_of(path: &str) -> Option<Device> {
    match path.strip_prefix(MEDIA)? {
        "/1" => Some(Device::Floppy),
        "/2" => Some(Device::Cdrom),
        _ => None,
    }
}

fn drive(drive: &Drive) -> Value {
    let mut document = match drive.device {
        Device::Floppy => captured!("virtual_media_1"),
        Device::Cdrom => captured!("virtual_media_2"),
    };
    if drive.device == Device::Cdrom {
        let armed = Value::from(drive.boot_on_next_reset);
        set(&mut document, [("/Oem/Hpe/BootOnNextServerReset", armed)]);
    }
    let Some(image) = &drive.image else {
        return document;
    };
    let url = image.expose();
    let address = url.split(['?', '#']).next().unwrap_or(url);
    let name = address.rsplit('/').next().unwrap_or(address);
    let protocol = if url.starts_with("https:") {
        "HTTPS"
    } else {
        "HTTP"
    };
    set(
        &mut document,
        [
            ("/Inserted", Value::from(true)),
            ("/ConnectedVia", Value::from("URI")),
            ("/Image", Value::from(url)),
            ("/ImageName", Value::from(name)),
            ("/TransferProtocolType", Value::from(protocol)),
        ],
    );
    document
}

fn service_root(config: &IloConfig) -> Value {
    let mut root = captured!("service_root");
    let host = format!("ILO{}", serial(config));
    set(
        &mut root,
        [
            ("/UUID", Value::from(ilo_uuid(config).to_string())),
            ("/Oem/Hpe/Manager/0/HostName", Value::from(host.as_str())),
            ("/Oem/Hpe/Sessions/CertCommonName", Value::from(host)),
            (
                "/Oem/Hpe/Sessions/ServerName",
                Value::from(config.name.as_str()),
            ),
        ],
    );
    root
}

fn manager(config: &IloConfig) -> Value {
    let mut manager = captured!("manager");
    set(
        &mut manager,
        [
            ("/UUID", Value::from(ilo_uuid(config).to_string())),
            (
                "/Oem/Hpe/License/LicenseString",
                Value::from(license_name(config)),
            ),
            (
                "/Oem/Hpe/License/LicenseType",
                Value::from(license_type(config)),
            ),
        ],
    );
    manager
}

fn license(config: &IloConfig) -> Value {
    let mut license = captured!("license");
    let licensed = config.vmscript_license;
    if let Some(Value::Object(features)) = license.pointer_mut("/LicenseFeatures") {
        for feature in features.values_mut().filter(|_| !licensed) {
            *feature = Value::from(false);
        }
    }
    set(
        &mut license,
        [
            ("/License", Value::from(license_name(config))),
            ("/LicenseType", Value::from(license_type(config))),
            (
                "/LicenseTier",
                Value::from(if licensed { "ADV" } else { "STD" }),
            ),
            (
                "/LicenseClass",
                if licensed {
                    Value::from("FQL")
                } else {
                    Value::Null
                },
            ),
            ("/LicenseExpire", Value::from("")),
            (
                "/LicenseKey",
                Value::from(if licensed {
                    "XXXXX-XXXXX-XXXXX-XXXXX-LABAB"
                } else {
                    ""
                }),
            ),
        ],
    );
    license
}

fn license_name(config: &IloConfig) -> &'static str {
    if config.vmscript_license {
        "iLO Advanced"
    } else {
        "iLO Standard"
    }
}

fn license_type(config: &IloConfig) -> &'static str {
    if config.vmscript_license {
        "Perpetual"
    } else {
        "Unlicensed"
    }
}

/// The iLO's own UUID differs from the server's.
fn ilo_uuid(config: &IloConfig) -> Uuid {
    Uuid::from_u128(config.uuid.as_u128() ^ 1)
}

fn serial(config: &IloConfig) -> String {
    let digits = config.uuid.simple().to_string().to_uppercase();
    format!("LAB{}", digits.get(..7).unwrap_or_default())
}

/// Puts values into objects that exist.
fn set<const N: usize>(document: &mut Value, values: [(&str, Value); N]) {
    for (pointer, value) in values {
        if let Some((parent, name)) = pointer.rsplit_once('/')
            && let Some(Value::Object(members)) = document.pointer_mut(parent)
        {
            members.insert(name.to_owned(), value);
        }
    }
}

fn parse(captured: &str) -> Value {
    serde_json::from_str(captured).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_captured_document_is_an_object() {
        for document in [
            captured!("service_root"),
            captured!("session_service"),
            captured!("sessions"),
            captured!("systems"),
            captured!("system"),
            captured!("bios"),
            captured!("managers"),
            captured!("manager"),
            captured!("licenses"),
            captured!("license"),
            captured!("virtual_media"),
            captured!("virtual_media_1"),
            captured!("virtual_media_2"),
        ] {
            assert!(
                document["@odata.id"]
                    .as_str()
                    .unwrap()
                    .starts_with("/redfish/v1")
            );
        }
    }
}
