//! How resources are spelled. iLO 4 keeps them in the form of its REST, and shows them in that of
//! Redfish 1.0 to who asks for it with `OData-Version`; without that header in both at once.
//! Newer iLOs have one form, with or without slashes at the end of links.

use super::answer::extended_info;
use serde_json::{Map, Value, json};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Redfish of iLO 5 and newer.
    Redfish {
        /// Links end with a slash, as iLO 5 1.40 and newer print them when asked with one.
        slashes: bool,
    },
    /// `/rest/v1` of iLO 4.
    Rest,
    /// `/redfish/v1` of iLO 4, with `OData-Version`.
    Redfish1,
    /// `/redfish/v1` of iLO 4, without.
    Mixed,
}

/// The prefix of OEM action targets, by action of the REST.
const TARGETS: [(&str, &str, &str); 4] = [
    ("PowerButton", "HpComputerSystemExt", "ComputerSystemExt"),
    ("SystemReset", "HpComputerSystemExt", "ComputerSystemExt"),
    (
        "InsertVirtualMedia",
        "HpiLOVirtualMedia",
        "HpiLOVirtualMedia",
    ),
    (
        "EjectVirtualMedia",
        "HpiLOVirtualMedia",
        "HpiLOVirtualMedia",
    ),
];

impl Style {
    pub(super) fn is_redfish(self) -> bool {
        self != Self::Rest
    }

    /// A resource as captured, in this form.
    pub(super) fn document(self, document: Value) -> Value {
        match self {
            Self::Redfish { slashes: false } => document,
            Self::Redfish { slashes: true } => with_slashes(document),
            Self::Rest => document,
            Self::Redfish1 => with_slashes(redfish1(document)),
            Self::Mixed => {
                let mut both = with_slashes(redfish1(document.clone()));
                merge(&mut both, document);
                both
            }
        }
    }

    /// A message.
    pub(super) fn message(self, id: &str, args: &[String]) -> Value {
        let error = |key: &str| {
            json!({
                "code": "iLO.0.10.ExtendedInfo",
                "message": "See @Message.ExtendedInfo for more information.",
                "@Message.ExtendedInfo": [extended_info(id, args, key)],
            })
        };
        match self {
            Self::Redfish { .. } | Self::Redfish1 => json!({ "error": error("MessageId") }),
            Self::Rest => json!({
                "Messages": [extended_info(id, args, "MessageID")],
                "Name": "Extended Error Information",
                "Type": "ExtendedError.1.0.0",
            }),
            Self::Mixed => json!({
                "Messages": [extended_info(id, args, "MessageID")],
                "Type": "ExtendedError.1.0.0",
                "error": error("MessageID"),
            }),
        }
    }
}

fn with_slashes(mut value: Value) -> Value {
    add_slashes(&mut value);
    value
}

fn add_slashes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(add_slashes),
        Value::Object(members) => {
            for (name, member) in members {
                let link = matches!(name.as_str(), "@odata.id" | "target" | "href");
                match member {
                    Value::String(path) if link && !path.ends_with('/') => path.push('/'),
                    other => add_slashes(other),
                }
            }
        }
        _ => {}
    }
}

/// What stands in `from` and not in `into` is added, objects member by member.
fn merge(into: &mut Value, from: Value) {
    let (Value::Object(into), Value::Object(from)) = (into, from) else {
        return;
    };
    for (name, value) in from {
        match into.get_mut(&name) {
            Some(known) => merge(known, value),
            None => {
                into.insert(name, value);
            }
        }
    }
}

/// The Redfish 1.0 form of a resource of iLO 4 (HPE redfishdocs, iLO 5 adaptation: what was
/// renamed and removed).
fn redfish1(document: Value) -> Value {
    let Value::Object(mut members) = document else {
        return document;
    };
    let mut links = take_object(&mut members, "links");
    let own = links.remove("self").and_then(|link| path_of(&link));
    let own = own.unwrap_or_default();
    for (name, link) in links {
        match link {
            // The collections say `Member`.
            Value::Array(_) if name == "Member" => {
                members.insert("Members".to_owned(), redfish_links(link));
            }
            Value::Array(_) => {
                let links = members.entry("Links").or_insert_with(|| json!({}));
                if let Some(links) = links.as_object_mut() {
                    links.insert(name, redfish_links(link));
                }
            }
            link => {
                members.entry(name).or_insert_with(|| redfish_links(link));
            }
        }
    }
    if let Some(total) = members.remove("Total") {
        members.insert("Members@odata.count".to_owned(), total);
    }
    for gone in ["Items", "MemberType", "Power", "Bios", "Messages"] {
        // A link of this name is of Redfish.
        if members
            .get(gone)
            .is_some_and(|v| v.get("@odata.id").is_none())
        {
            members.remove(gone);
        }
    }
    if let Some(firmware) = members.remove("Firmware") {
        let version = firmware.pointer("/Current/VersionString").cloned();
        members.insert("FirmwareVersion".to_owned(), version.unwrap_or_default());
    }
    rename_type(&mut members);
    actions(&mut members, &own, "");
    if let Some(Value::Object(oem)) = members.get_mut("Oem").and_then(|oem| oem.get_mut("Hp")) {
        rename_type(oem);
        actions(oem, &own, "Oem/Hp/");
        let links = Value::Object(take_object(oem, "links"));
        if links.as_object().is_some_and(|links| !links.is_empty()) {
            oem.insert("Links".to_owned(), redfish_links(links));
        }
    }
    if !own.is_empty() {
        members.insert("@odata.id".to_owned(), Value::from(own));
    }
    Value::Object(members)
}

fn take_object(members: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match members.remove(name) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

/// `Name.1.0.0` becomes `#Name.1.0.0.Name`.
fn rename_type(members: &mut Map<String, Value>) {
    let Some(Value::String(old)) = members.remove("Type") else {
        return;
    };
    let name = old.split('.').next().unwrap_or_default();
    let new = Value::from(format!("#{old}.{name}"));
    members.entry("@odata.type").or_insert(new);
}

fn path_of(link: &Value) -> Option<String> {
    let path = link.get("href")?.as_str()?;
    Some(path.replacen("/rest/v1", "/redfish/v1", 1))
}

/// `href` becomes `@odata.id`, wherever it stands.
fn redfish_links(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(redfish_links).collect(),
        Value::Object(members) => match path_of(&Value::Object(members.clone())) {
            Some(path) => json!({ "@odata.id": path }),
            None => {
                let members = members.into_iter();
                let members = members.map(|(name, value)| (name, redfish_links(value)));
                Value::Object(members.collect())
            }
        },
        other => other,
    }
}

/// `AvailableActions` becomes `Actions`, which have targets.
fn actions(members: &mut Map<String, Value>, own: &str, place: &str) {
    let Some(Value::Array(available)) = members.remove("AvailableActions") else {
        return;
    };
    let mut actions = Map::new();
    for item in available {
        let Some(name) = item.get("Action").and_then(Value::as_str) else {
            continue;
        };
        let known = TARGETS.iter().find(|(known, ..)| *known == name);
        let standard = match own.contains("/Systems/") {
            true => "ComputerSystem",
            false => "Manager",
        };
        let (class, target) =
            known.map_or((standard, standard), |(_, class, target)| (class, target));
        let mut action = Map::new();
        let capabilities = item.get("Capabilities").and_then(Value::as_array);
        for capability in capabilities.into_iter().flatten() {
            let property = capability.get("PropertyName").and_then(Value::as_str);
            if let Some(property) = property.filter(|property| *property != "Target") {
                let values = capability.get("AllowableValues").cloned();
                action.insert(
                    format!("{property}@Redfish.AllowableValues"),
                    values.unwrap_or_default(),
                );
            }
        }
        let target = format!("{own}/Actions/{place}{target}.{name}");
        action.insert("target".to_owned(), Value::from(target));
        actions.insert(format!("#{class}.{name}"), Value::Object(action));
    }
    members.insert("Actions".to_owned(), Value::Object(actions));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_captured_system_of_ilo_4_becomes_redfish() {
        let captured = include_str!("../data/ilo4/system.json");
        let system = Style::Redfish1.document(serde_json::from_str(captured).unwrap());
        assert_eq!(system["@odata.id"], "/redfish/v1/Systems/1/");
        assert_eq!(
            system["@odata.type"],
            "#ComputerSystem.0.9.6.ComputerSystem"
        );
        let reset = &system["Actions"]["#ComputerSystem.Reset"];
        assert_eq!(
            reset["target"],
            "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset/"
        );
        assert_eq!(reset["ResetType@Redfish.AllowableValues"][1], "ForceOff");
        let hp = &system["Oem"]["Hp"];
        // As iLO 4 2.5x of an ML350p and a BL460c print it.
        assert_eq!(
            hp["Actions"]["#HpComputerSystemExt.PowerButton"]["target"],
            "/redfish/v1/Systems/1/Actions/Oem/Hp/ComputerSystemExt.PowerButton/"
        );
        assert_eq!(
            hp["Links"]["BIOS"]["@odata.id"],
            "/redfish/v1/systems/1/bios/"
        );
        for gone in ["links", "Type", "Power", "AvailableActions", "Bios"] {
            assert!(system.get(gone).is_none(), "{gone}");
        }
        let both = Style::Mixed.document(serde_json::from_str(captured).unwrap());
        assert!(both.get("links").is_some() && both.get("Actions").is_some());
    }
}
