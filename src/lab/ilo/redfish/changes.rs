//! POST and PATCH: what is asked of a machine, read from JSON.

use super::super::Machine;
use super::super::drives::BootOption;
use super::super::generation::Web;
use super::super::power::PowerAction;
use super::super::refusal::Refusal;
use super::answer::Answer;
use super::resource::Resource;
use super::style::Style;
use crate::ilo::model::Device;
use axum::http::StatusCode;
use serde_json::{Map, Value};

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

const ENABLED: [&str; 3] = ["Disabled", "Once", "Continuous"];

/// An action that a document offers.
#[derive(Debug)]
struct Action {
    /// `Reset`, `InsertMedia`, …
    name: String,
    /// As Redfish names it, for messages.
    full_name: String,
    is_oem: bool,
    /// Its one parameter with values, and these.
    choices: Option<(String, Vec<String>)>,
}

impl Machine {
    /// A POST to an action's target.
    pub(super) fn action_at(&self, path: &str, body: &Map<String, Value>) -> Option<Answer> {
        let (place, _) = path.split_once("/Actions/")?;
        let resource = Resource::at(place, self.traits())?;
        let style = match self.traits().web {
            Web::Redfish => Style::Redfish { slashes: false },
            Web::Rest | Web::None => Style::Redfish1,
        };
        let document = style.document(self.document(&resource)?);
        let oem = format!("/Oem/{}/Actions", self.traits().vendor);
        let offered = [("/Actions", false), (oem.as_str(), true)];
        let found = offered.into_iter().find_map(|(pointer, is_oem)| {
            let actions = document.pointer(pointer)?.as_object()?;
            actions.iter().find_map(|(name, action)| {
                let target = action.get("target")?.as_str()?;
                (target.trim_end_matches('/') == path)
                    .then(|| Action::of_redfish(name, action, is_oem))
            })
        })?;
        Some(self.act_on(&resource, &found, body))
    }

    /// A POST of `{"Action":…}` to the resource itself, as REST has it.
    pub(super) fn named_action(
        &self,
        resource: &Resource,
        body: &Map<String, Value>,
    ) -> Option<Answer> {
        let name = body.get("Action")?.as_str()?;
        let is_oem = match body.get("Target").and_then(Value::as_str) {
            None => false,
            Some("/Oem/Hp") => true,
            Some(_) => return None,
        };
        let pointer = match is_oem {
            true => "/Oem/Hp/AvailableActions",
            false => "/AvailableActions",
        };
        let document = self.document(resource)?;
        let offered = document.pointer(pointer)?.as_array()?;
        let action = offered
            .iter()
            .find(|action| action.get("Action").and_then(Value::as_str) == Some(name))?;
        let mut body = body.clone();
        body.remove("Action");
        body.remove("Target");
        let action = Action::of_rest(name, action, is_oem);
        Some(self.act_on(resource, &action, &body))
    }

    fn act_on(&self, resource: &Resource, action: &Action, body: &Map<String, Value>) -> Answer {
        match (resource, action.name.as_str()) {
            (Resource::System, _) => self.power_action(action, body),
            (Resource::Drive(device), "InsertMedia" | "InsertVirtualMedia") => {
                self.insert_action(*device, action, body)
            }
            (Resource::Drive(device), "EjectMedia" | "EjectVirtualMedia") => {
                match body.keys().next() {
                    Some(unknown) => action.unknown_parameter(unknown),
                    None => self.eject(*device).into(),
                }
            }
            (Resource::Manager, "Reset") => {
                self.shared.state().sessions.clear();
                Answer::message(StatusCode::OK, "iLO.ResetInProgress", &[])
            }
            (Resource::SecureBoot, "ResetKeys") => Answer::reset_required(),
            _ => Answer::refused("Base.ActionNotSupported", &[&action.full_name]),
        }
    }

    fn power_action(&self, action: &Action, body: &Map<String, Value>) -> Answer {
        let Some((parameter, values)) = &action.choices else {
            return Answer::refused("Base.ActionNotSupported", &[&action.full_name]);
        };
        if let Some(unknown) = body.keys().find(|key| *key != parameter) {
            return action.unknown_parameter(unknown);
        }
        let Some(value) = body.get(parameter) else {
            return Answer::refused(
                "Base.ActionParameterMissing",
                &[&action.full_name, parameter],
            );
        };
        let known = value
            .as_str()
            .filter(|v| values.iter().any(|known| known == v));
        let Some(power) = known.and_then(PowerAction::parse) else {
            let args = [&value.to_string(), parameter.as_str()];
            return Answer::refused("Base.PropertyValueNotInList", &args);
        };
        let done = self.power(power);
        match (power, &done) {
            (PowerAction::AuxCycle, Ok(())) => {
                Answer::message(StatusCode::OK, "iLO.ResetInProgress", &[])
            }
            _ => done.into(),
        }
    }

    fn insert_action(&self, device: Device, action: &Action, body: &Map<String, Value>) -> Answer {
        let parameters: &[&str] = match action.is_oem {
            true => &HPE_PARAMETERS,
            false => &STANDARD_PARAMETERS,
        };
        if let Some(unknown) = body.keys().find(|key| !parameters.contains(&key.as_str())) {
            return action.unknown_parameter(unknown);
        }
        match body.get("Image") {
            None => Answer::refused("Base.ActionParameterMissing", &[&action.full_name, "Image"]),
            Some(Value::String(url)) => self.insert(device, url).into(),
            Some(other) => wrong_type(other, "Image"),
        }
    }

    /// A PATCH.
    pub(super) fn change(&self, resource: &Resource, body: &Map<String, Value>) -> Option<Answer> {
        Some(match resource {
            Resource::System => self.change_system(body),
            Resource::Drive(device) => self.change_drive(*device, body),
            Resource::BiosSettings => self.change_bios(body),
            Resource::BootOrderSettings => self.change_boot_order(body),
            Resource::SecureBoot => self.change_secure_boot(body),
            _ => return None,
        })
    }

    /// `{"Boot":{…}}`
    fn change_system(&self, body: &Map<String, Value>) -> Answer {
        if let Some(name) = body.keys().find(|key| *key != "Boot") {
            return unknown(name);
        }
        let Some(boot) = body.get("Boot").and_then(Value::as_object) else {
            return Answer::refused("Base.PropertyMissing", &["Boot"]);
        };
        let document = self.document(&Resource::System).unwrap_or_default();
        let targets = [
            "/Boot/BootSourceOverrideTarget@Redfish.AllowableValues",
            "/Boot/BootSourceOverrideSupported",
        ];
        let targets = targets.iter().find_map(|pointer| document.pointer(pointer));
        let targets: Vec<&str> = listed(targets);
        let (mut target, mut enabled) = (None, None);
        for (name, value) in boot {
            let (allowed, slot): (&[&str], _) = match name.as_str() {
                "BootSourceOverrideTarget" => (&targets, &mut target),
                "BootSourceOverrideEnabled" => (&ENABLED, &mut enabled),
                _ => return unknown(name),
            };
            let Some(value) = value.as_str().filter(|value| allowed.contains(value)) else {
                let args = [&value.to_string(), name.as_str()];
                return Answer::refused("Base.PropertyValueNotInList", &args);
            };
            *slot = Some(value);
        }
        self.set_override(target, enabled).into()
    }

    /// `{"Image":"http…"}`, or null, and `{"Oem":{"Hpe":{"BootOnNextServerReset":true}}}`, the
    /// latter for the CD only.
    fn change_drive(&self, device: Device, body: &Map<String, Value>) -> Answer {
        let vendor = self.traits().vendor;
        for (name, value) in body {
            let done = match (name.as_str(), value) {
                ("Image", Value::String(url)) if !url.is_empty() => self.insert(device, url),
                ("Image", Value::Null | Value::String(_)) => self.eject(device),
                ("Image", other) => return wrong_type(other, "Image"),
                ("Oem", oem) => match oem.get(vendor).and_then(Value::as_object) {
                    Some(oem) => match self.change_drive_oem(device, oem) {
                        Ok(done) => done,
                        Err(answer) => return answer,
                    },
                    None => return unknown("Oem"),
                },
                _ => return unknown(name),
            };
            if done.is_err() {
                return done.into();
            }
        }
        Answer::success()
    }

    fn change_drive_oem(
        &self,
        device: Device,
        oem: &Map<String, Value>,
    ) -> Result<Result<(), Refusal>, Answer> {
        let name = "BootOnNextServerReset";
        if let Some(other) = oem.keys().find(|key| *key != name) {
            return Err(unknown(other));
        }
        let armed = oem.get(name).filter(|_| device == Device::Cdrom);
        let armed = armed.ok_or_else(|| unknown(name))?;
        let Some(armed) = armed.as_bool() else {
            return Err(wrong_type(armed, name));
        };
        let option = match armed {
            true => BootOption::Once,
            false => BootOption::Never,
        };
        Ok(self.arm(device, option))
    }

    /// `{"Attributes":{…}}`, on iLO 4 without the wrapping.
    fn change_bios(&self, body: &Map<String, Value>) -> Answer {
        let changes = match self.traits().web {
            Web::Rest | Web::None => Some(body),
            Web::Redfish => body.get("Attributes").and_then(Value::as_object),
        };
        let Some(changes) = changes else {
            return Answer::refused("Base.PropertyMissing", &["Attributes"]);
        };
        pending(self.set_bios(changes))
    }

    fn change_boot_order(&self, body: &Map<String, Value>) -> Answer {
        let name = "PersistentBootConfigOrder";
        let Some(Value::Array(order)) = body.get(name) else {
            return Answer::refused("Base.PropertyMissing", &[name]);
        };
        let order = order
            .iter()
            .filter_map(|item| item.as_str().map(str::to_owned));
        pending(self.set_boot_order(order.collect()))
    }

    fn change_secure_boot(&self, body: &Map<String, Value>) -> Answer {
        let resets = ["ResetToDefaultKeys", "ResetAllKeys"];
        let is_rest = self.traits().web != Web::Redfish;
        for (name, value) in body {
            let is_known = name == "SecureBootEnable" || (is_rest && resets.contains(&&**name));
            let Some(on) = value.as_bool() else {
                return wrong_type(value, name);
            };
            if !is_known {
                return unknown(name);
            }
            if name == "SecureBootEnable" {
                let done = self.set_secure_boot(on);
                if done.is_err() {
                    return done.into();
                }
            }
        }
        Answer::reset_required()
    }
}

impl Action {
    fn of_redfish(name: &str, action: &Value, is_oem: bool) -> Self {
        let full_name = name.trim_start_matches('#').to_owned();
        let members = action.as_object().into_iter().flatten();
        let mut choices = members.filter_map(|(key, values)| {
            let parameter = key.strip_suffix("@Redfish.AllowableValues")?;
            Some((parameter.to_owned(), owned(listed(Some(values)))))
        });
        Self {
            name: full_name.rsplit('.').next().unwrap_or_default().to_owned(),
            choices: choices.next(),
            full_name,
            is_oem,
        }
    }

    fn of_rest(name: &str, action: &Value, is_oem: bool) -> Self {
        let capabilities = action.get("Capabilities").and_then(Value::as_array);
        let mut choices = capabilities.into_iter().flatten().filter_map(|capability| {
            let parameter = capability.get("PropertyName")?.as_str()?;
            let values = owned(listed(capability.get("AllowableValues")));
            (parameter != "Target").then(|| (parameter.to_owned(), values))
        });
        Self {
            name: name.to_owned(),
            full_name: name.to_owned(),
            is_oem,
            choices: choices.next(),
        }
    }

    fn unknown_parameter(&self, name: &str) -> Answer {
        Answer::refused("Base.ActionParameterUnknown", &[&self.full_name, name])
    }
}

fn listed(values: Option<&Value>) -> Vec<&str> {
    let values = values.and_then(Value::as_array).into_iter().flatten();
    values.filter_map(Value::as_str).collect()
}

fn owned(values: Vec<&str>) -> Vec<String> {
    values.into_iter().map(str::to_owned).collect()
}

fn unknown(name: &str) -> Answer {
    Err(Refusal::NotWritable(name.to_owned())).into()
}

fn wrong_type(value: &Value, name: &str) -> Answer {
    Answer::refused("Base.PropertyValueTypeError", &[&value.to_string(), name])
}

fn pending(done: Result<(), Refusal>) -> Answer {
    match done {
        Ok(()) => Answer::reset_required(),
        Err(_) => done.into(),
    }
}
