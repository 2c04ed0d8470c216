//! HP's REST of iLO 4 (`/rest/v1`), read as Redfish: the same resources under older names.

use crate::ilo::model::Dialect;
use serde_json::{Map, Value, json};

/// A document in the words of Redfish; one of Redfish itself stays as it is.
pub(super) fn as_redfish(dialect: Dialect, mut document: Value) -> Value {
    if dialect != Dialect::Rest {
        return document;
    }
    let version = document.pointer("/Bios/Current/VersionString").cloned();
    if let Some(members) = document.as_object_mut() {
        lift_links(members);
        if let Some(version) = version {
            members.insert("BiosVersion".into(), version);
        }
    }
    let boot = document.get_mut("Boot").and_then(Value::as_object_mut);
    if let Some(boot) = boot
        && let Some(devices) = boot.remove("BootSourceOverrideSupported")
    {
        let name = "BootSourceOverrideTarget@Redfish.AllowableValues";
        boot.insert(name.into(), devices);
    }
    let hp = document.pointer_mut("/Oem/Hp");
    if let Some(hp) = hp.and_then(Value::as_object_mut) {
        lift_links(hp);
    }
    document
}

/// Moves `links.X.href` to where Redfish has links: beside the other members, or below `Links`.
fn lift_links(members: &mut Map<String, Value>) {
    let Some(Value::Object(links)) = members.remove("links") else {
        return;
    };
    let mut lifted = Map::new();
    for (name, link) in links {
        let link = match &link {
            Value::Array(items) => Some(items.iter().filter_map(as_link).collect()),
            one => as_link(one),
        };
        match (name.as_str(), link) {
            (_, None) => {}
            ("Member", Some(link)) => drop(members.insert("Members".into(), link)),
            (_, Some(link)) => {
                members.entry(name.clone()).or_insert_with(|| link.clone());
                lifted.insert(name, link);
            }
        }
    }
    members.insert("Links".into(), Value::Object(lifted));
}

fn as_link(link: &Value) -> Option<Value> {
    let target = link.get("href")?.as_str()?;
    Some(json!({ "@odata.id": target }))
}
