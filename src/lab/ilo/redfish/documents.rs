//! The resources: the captured ones with what this machine makes of them.

use super::super::Machine;
use super::super::drives::{BootOption, Drive};
use super::super::fault::Fault;
use super::super::generation::{Uefi, Web};
use super::super::state::State;
use super::resource::{REST_ROOT, ROOT, Resource};
use crate::ilo::model::{BootMode, Device, PowerState};
use serde_json::{Map, Value, json};
use uuid::Uuid;

impl Machine {
    /// A resource in the form in which this generation keeps it.
    pub(super) fn document(&self, resource: &Resource) -> Option<Value> {
        let documents = self.traits().documents;
        Some(match resource {
            Resource::Versions => json!({ "v1": "/redfish/v1/" }),
            Resource::Root => self.service_root(),
            Resource::SessionService => self.session_service(),
            Resource::Sessions => {
                let state = self.shared.state();
                let ids = state.sessions.iter().map(|s| s.id.clone());
                self.collection("SessionService/Sessions", "Session", ids.collect())
            }
            Resource::Session(id) => return self.session(id),
            Resource::Systems => self.collection("Systems", "ComputerSystem", vec!["1".to_owned()]),
            Resource::System => self.system(),
            Resource::Bios => {
                let state = self.shared.state();
                bios(&state, parse(documents.bios), &state.firmware.attributes)
            }
            Resource::BiosSettings => {
                let state = self.shared.state();
                let mut all = state.firmware.attributes.clone();
                all.extend(state.firmware.pending.clone());
                settings(bios(&state, parse(documents.bios), &all))
            }
            Resource::BootOrder => self.boot_order(false),
            Resource::BootOrderSettings => settings(self.boot_order(true)),
            Resource::SecureBoot => self.secure_boot()?,
            Resource::Managers => self.collection("Managers", "Manager", vec!["1".to_owned()]),
            Resource::Manager => self.manager(),
            Resource::Licenses => self.collection(
                "Managers/1/LicenseService",
                "HpeiLOLicense",
                vec!["1".to_owned()],
            ),
            Resource::License => self.license(),
            Resource::Media => {
                let ids = vec!["1".to_owned(), "2".to_owned()];
                self.collection("Managers/1/VirtualMedia", "VirtualMedia", ids)
            }
            Resource::Drive(device) => self.drive(*device),
        })
    }

    fn is_rest(&self) -> bool {
        self.traits().web != Web::Redfish
    }

    fn collection(&self, place: &str, kind: &str, ids: Vec<String>) -> Value {
        let name = place.rsplit('/').next().unwrap_or(place);
        let members = ids.into_iter();
        if self.is_rest() {
            let members: Vec<Value> = members
                .map(|id| json!({ "href": format!("{REST_ROOT}/{place}/{id}") }))
                .collect();
            return json!({
                "Description": format!("{name} View"),
                "MemberType": format!("{kind}.0"),
                "Name": name,
                "Total": members.len(),
                "Type": "Collection.0.9.5",
                "links": { "Member": members, "self": { "href": format!("{REST_ROOT}/{place}") } },
            });
        }
        let members: Vec<Value> = members
            .map(|id| json!({ "@odata.id": format!("{ROOT}/{place}/{id}") }))
            .collect();
        json!({
            "@odata.context": format!("{ROOT}/$metadata#{kind}Collection.{kind}Collection"),
            "@odata.id": format!("{ROOT}/{place}"),
            "@odata.type": format!("#{kind}Collection.{kind}Collection"),
            "Description": format!("{name} View"),
            "Name": name,
            "Members": members,
            "Members@odata.count": members.len(),
        })
    }

    fn service_root(&self) -> Value {
        let config = &self.shared.config;
        let mut root = parse(self.traits().documents.service_root);
        let host = Value::from(format!("ILO{}", self.serial()));
        let vendor = self.traits().vendor;
        set(&mut root, "/UUID", Value::from(self.ilo_uuid().to_string()));
        for (pointer, value) in [
            ("Manager/0/HostName", host.clone()),
            ("Manager/0/FQDN", host.clone()),
            (
                "Manager/0/ManagerFirmwareVersion",
                self.traits().firmware.into(),
            ),
            ("Sessions/CertCommonName", host),
            ("Sessions/ServerName", config.name.as_str().into()),
        ] {
            set(&mut root, &format!("/Oem/{vendor}/{pointer}"), value);
        }
        root
    }

    fn session_service(&self) -> Value {
        if self.is_rest() {
            return json!({
                "Name": "Session Service", "ServiceEnabled": true, "SessionTimeout": 30,
                "Type": "SessionService.1.0.0",
                "links": {
                    "Sessions": { "href": format!("{REST_ROOT}/SessionService/Sessions") },
                    "self": { "href": format!("{REST_ROOT}/SessionService") },
                },
            });
        }
        json!({
            "@odata.context": format!("{ROOT}/$metadata#SessionService.SessionService"),
            "@odata.id": format!("{ROOT}/SessionService"),
            "@odata.type": "#SessionService.v1_0_0.SessionService",
            "Id": "SessionService",
            "Description": "Session Service",
            "Name": "Session Service",
            "ServiceEnabled": true,
            "SessionTimeout": 30,
            "Sessions": { "@odata.id": format!("{ROOT}/SessionService/Sessions") },
            "Status": { "Health": "OK", "State": "Enabled" },
        })
    }

    fn session(&self, id: &str) -> Option<Value> {
        let state = self.shared.state();
        state.sessions.iter().find(|session| session.id == id)?;
        Some(json!({
            "@odata.id": format!("{ROOT}/SessionService/Sessions/{id}"),
            "@odata.type": "#Session.v1_0_0.Session",
            "Id": id,
            "Name": "User Session",
            "UserName": self.shared.config.username,
        }))
    }

    fn system(&self) -> Value {
        let config = &self.shared.config;
        let mut state = self.shared.state();
        let mut system = parse(self.traits().documents.system);
        let uuid = config.uuid.hyphenated().to_string().to_uppercase();
        let starting = state.power == PowerState::On && state.post_state.is_in_post();
        let power = match state.shown_power() {
            PowerState::Unknown => Value::Null,
            power => Value::from(power.as_redfish()),
        };
        let status = match starting {
            true => "Starting",
            false => "Enabled",
        };
        let mode = match state.firmware.boot_mode() {
            BootMode::Legacy => "Legacy",
            _ => "UEFI",
        };
        for (pointer, value) in [
            ("/UUID", Value::from(uuid)),
            ("/SerialNumber", Value::from(self.serial())),
            ("/HostName", Value::from(config.name.as_str())),
            ("/Model", Value::from(self.traits().product)),
            ("/PowerState", power.clone()),
            ("/Status/State", Value::from(status)),
            ("/Status/Health", Value::from("OK")),
            (
                "/Boot/BootSourceOverrideTarget",
                Value::from(state.override_target.as_str()),
            ),
            (
                "/Boot/BootSourceOverrideEnabled",
                Value::from(state.override_enabled.as_str()),
            ),
        ] {
            set(&mut system, pointer, value);
        }
        let post = Value::from(state.post_state.as_redfish());
        set(
            &mut system,
            &format!("/Oem/{}/PostState", state.traits.vendor),
            post,
        );
        if self.is_rest() {
            if state.firmware.boot_mode() == BootMode::Legacy {
                remove(&mut system, "/Oem/Hp/links", "SecureBoot");
            }
            set(&mut system, "/Power", power);
            let bios = system.pointer("/Bios/Current/VersionString").cloned();
            set(&mut system, "/BiosVersion", bios.unwrap_or_default());
            set(&mut system, "/Id", Value::from("1"));
            set(
                &mut system,
                "/HostCorrelation/HostName",
                config.name.as_str().into(),
            );
        } else {
            set(
                &mut system,
                "/Boot/BootSourceOverrideMode",
                Value::from(mode),
            );
        }
        if system.get("BootProgress").is_some_and(Value::is_object) {
            let progress = boot_progress(state.power, starting);
            set(&mut system, "/BootProgress/LastState", progress.into());
        }
        system
    }

    fn boot_order(&self, is_pending: bool) -> Value {
        let state = self.shared.state();
        let mut boot = parse(self.traits().documents.boot);
        let pending = state.firmware.pending_order.as_ref();
        let order = pending.filter(|_| is_pending);
        let order = order.unwrap_or(&state.firmware.order);
        set(&mut boot, "/PersistentBootConfigOrder", json!(order));
        boot
    }

    /// There is none where there is no UEFI, on iLO 4 neither while the server boots BIOS.
    fn secure_boot(&self) -> Option<Value> {
        let state = self.shared.state();
        let is_legacy = state.firmware.boot_mode() == BootMode::Legacy;
        if state.traits.uefi == Uefi::None || (self.is_rest() && is_legacy) {
            return None;
        }
        let mut secure_boot = parse(self.traits().documents.secure_boot);
        let firmware = &state.firmware;
        let current = firmware.secure_boot_current;
        set(
            &mut secure_boot,
            "/SecureBootEnable",
            firmware.secure_boot.into(),
        );
        if self.is_rest() {
            set(&mut secure_boot, "/SecureBootCurrentState", current.into());
        } else {
            let current = if current { "Enabled" } else { "Disabled" };
            set(&mut secure_boot, "/SecureBootCurrentBoot", current.into());
        }
        Some(secure_boot)
    }

    fn manager(&self) -> Value {
        let traits = self.traits();
        let mut manager = parse(traits.documents.manager);
        let vendor = traits.vendor;
        let uuid = Value::from(self.ilo_uuid().to_string());
        let version = Value::from(traits.manager_firmware);
        set(&mut manager, "/UUID", uuid);
        let place = match self.is_rest() {
            true => "/Firmware/Current/VersionString",
            false => "/FirmwareVersion",
        };
        set(&mut manager, place, version.clone());
        for (pointer, value) in [
            ("License/LicenseString", Value::from(self.license_name())),
            ("License/LicenseType", Value::from(self.license_type())),
            ("Firmware/Current/VersionString", version),
        ] {
            set(&mut manager, &format!("/Oem/{vendor}/{pointer}"), value);
        }
        let pointer = format!("/Oem/{vendor}/RIBCLEnabled");
        if manager.pointer(&pointer).is_some() {
            let on = traits.ribcl && !self.shared.state().has(Fault::RibclDisabled);
            set(&mut manager, &pointer, Value::from(on));
        }
        manager
    }

    fn license_type(&self) -> &'static str {
        match self.shared.state().has(Fault::LicenseStandard) {
            true => "Unlicensed",
            false => "Perpetual",
        }
    }

    fn license(&self) -> Value {
        let licensed = !self.shared.state().has(Fault::LicenseStandard);
        let name = Value::from(self.license_name());
        let kind = Value::from(self.license_type());
        let key = match licensed {
            true => "XXXXX-XXXXX-XXXXX-XXXXX-LABAB",
            false => "",
        };
        let Some(captured) = self.traits().documents.license else {
            return json!({
                "License": name, "LicenseKey": key, "LicenseType": kind,
                "Name": "iLO License", "Type": "HpiLOLicense.1.0.0",
                "links": { "self": { "href": format!("{REST_ROOT}/Managers/1/LicenseService/1") } },
            });
        };
        let mut license = parse(captured);
        if let Some(Value::Object(features)) = license.pointer_mut("/LicenseFeatures") {
            for feature in features.values_mut().filter(|_| !licensed) {
                *feature = Value::from(false);
            }
        }
        let tier = if licensed { "ADV" } else { "STD" };
        let class = licensed.then_some("FQL");
        for (pointer, value) in [
            ("/License", name),
            ("/LicenseType", kind),
            ("/LicenseTier", tier.into()),
            ("/LicenseClass", json!(class)),
            ("/LicenseExpire", "".into()),
            ("/LicenseKey", key.into()),
        ] {
            set(&mut license, pointer, value);
        }
        license
    }

    fn drive(&self, device: Device) -> Value {
        let traits = self.traits();
        let mut state = self.shared.state();
        let (held, hpe_only, patch_only) = (
            state.is_held(device),
            state.has(Fault::HpeActionsOnly),
            state.has(Fault::DrivePatchOnly),
        );
        let mut document = parse(match device {
            Device::Floppy => traits.documents.floppy,
            Device::Cdrom => traits.documents.cdrom,
        });
        fill_drive(&mut document, state.drive(device), traits.vendor);
        if held {
            set(&mut document, "/Inserted", Value::from(true));
            set(&mut document, "/ConnectedVia", Value::from("Applet"));
        }
        if let Some(members) = document.as_object_mut()
            && (hpe_only || patch_only)
        {
            members.remove("Actions");
        }
        if let Some(Value::Object(oem)) = document.pointer_mut(&format!("/Oem/{}", traits.vendor))
            && patch_only
        {
            oem.remove("Actions");
            oem.remove("AvailableActions");
        }
        document
    }

    /// The iLO's own UUID differs from the server's.
    fn ilo_uuid(&self) -> Uuid {
        Uuid::from_u128(self.shared.config.uuid.as_u128() ^ 1)
    }
}

fn boot_progress(power: PowerState, starting: bool) -> &'static str {
    match (power, starting) {
        (PowerState::Off, _) => "None",
        (_, true) => "SystemHardwareInitializationComplete",
        (_, false) => "OSRunning",
    }
}

fn fill_drive(document: &mut Value, drive: &Drive, vendor: &str) {
    if drive.device == Device::Cdrom {
        let armed = Value::from(drive.option == BootOption::Once);
        set(
            document,
            &format!("/Oem/{vendor}/BootOnNextServerReset"),
            armed,
        );
    }
    let Some(image) = &drive.image else {
        return;
    };
    let url = image.expose();
    let address = url.split(['?', '#']).next().unwrap_or(url);
    let name = address.rsplit('/').next().unwrap_or(address);
    let via = match drive.is_connected() {
        true => "URI",
        false => "NotConnected",
    };
    for (pointer, value) in [
        ("/Inserted", Value::from(true)),
        ("/ConnectedVia", Value::from(via)),
        ("/Image", Value::from(url)),
        ("/ImageName", Value::from(name)),
    ] {
        set(document, pointer, value);
    }
    // Since type v1_3_0.
    let kind = document.get("@odata.type").and_then(Value::as_str);
    if kind.is_some_and(|kind| kind.contains(".v1_3_")) {
        let https = url.starts_with("https:");
        let protocol = if https { "HTTPS" } else { "HTTP" };
        set(document, "/TransferProtocolType", Value::from(protocol));
    }
}

/// The BIOS resource with these attributes: in a member of their own, or on iLO 4 beside the rest.
fn bios(state: &State, mut document: Value, attributes: &Map<String, Value>) -> Value {
    match state.traits.web {
        Web::Redfish => set(&mut document, "/Attributes", json!(attributes)),
        Web::Rest | Web::None => {
            if let Some(members) = document.as_object_mut() {
                members.extend(attributes.clone());
            }
        }
    }
    document
}

/// The pending side of a resource.
fn settings(mut document: Value) -> Value {
    if let Some(members) = document.as_object_mut() {
        members.remove("@Redfish.Settings");
        members.remove("SettingsResult");
        for (parent, name) in [("@odata.id", None), ("links", Some("self"))] {
            let place = members.get_mut(parent);
            let place = match name {
                Some(name) => place.and_then(|links| links.get_mut(name)?.get_mut("href")),
                None => place,
            };
            if let Some(Value::String(path)) = place {
                *path = format!("{}/settings", path.trim_end_matches('/'));
            }
        }
        if let Some(Value::Object(links)) = members.get_mut("links") {
            links.retain(|name, _| name == "self");
        }
    }
    document
}

/// Puts a value into an object that exists.
fn set(document: &mut Value, pointer: &str, value: Value) {
    if let Some((parent, name)) = pointer.rsplit_once('/')
        && let Some(Value::Object(members)) = document.pointer_mut(parent)
    {
        members.insert(name.to_owned(), value);
    }
}

/// Takes a value out of an object, if there is one.
fn remove(document: &mut Value, parent: &str, name: &str) {
    if let Some(Value::Object(members)) = document.pointer_mut(parent) {
        members.remove(name);
    }
}

fn parse(captured: &str) -> Value {
    serde_json::from_str(captured).unwrap_or_default()
}
