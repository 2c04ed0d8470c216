//! Reads facts out of iLO documents, whatever firmware wrote them.

use crate::error::{Error, Kind, Result};
use crate::ilo::media::Drive;
use crate::ilo::model::{
    BootDevice, BootMode, BootOverride, ConnectedVia, Device, License, OverrideEnabled, PostState,
    PowerState, SecureBoot,
};
use crate::secret::Secret;
use serde_json::Value;
use uuid::Uuid;

/// The text at a JSON pointer; empty if it is absent or null.
pub(super) fn text<'a>(document: &'a Value, pointer: &str) -> &'a str {
    document
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The target of a link.
pub(super) fn link<'a>(document: &'a Value, pointer: &str) -> Option<&'a str> {
    document.pointer(pointer)?.get("@odata.id")?.as_str()
}

/// The link at a pointer.
///
/// # Errors
/// `protocol` if there is none.
pub(super) fn required_link(document: &Value, pointer: &str) -> Result<String> {
    link(document, pointer).map(str::to_owned).ok_or_else(|| {
        let place = text(document, "/@odata.id");
        Error::new(
            Kind::Protocol,
            format!("the iLO's document {place} has no link {pointer}"),
        )
    })
}

/// The links of a collection.
pub(super) fn members(collection: &Value) -> impl Iterator<Item = &str> {
    let members = collection.pointer("/Members").and_then(Value::as_array);
    members
        .into_iter()
        .flatten()
        .filter_map(|m| m.get("@odata.id")?.as_str())
}

/// Where an action is posted to.
pub(super) fn action<'a>(document: &'a Value, pointer: &str) -> Option<&'a str> {
    document.pointer(pointer)?.get("target")?.as_str()
}

/// The strings of an array.
pub(super) fn texts<'a>(document: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    let array = document.pointer(pointer).and_then(Value::as_array);
    array.into_iter().flatten().filter_map(Value::as_str)
}

/// What HPE added to a document, under the name that the company has since iLO 5 or the one that
/// it had before.
pub(super) fn oem<'a>(document: &'a Value, pointer: &str) -> Option<&'a Value> {
    ["Hpe", "Hp"]
        .iter()
        .find_map(|vendor| document.pointer(&format!("/Oem/{vendor}{pointer}")))
}

/// A text of HPE's; empty if it is absent.
fn oem_text<'a>(document: &'a Value, pointer: &str) -> &'a str {
    oem(document, pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A link of HPE's.
pub(super) fn oem_link<'a>(document: &'a Value, pointer: &str) -> Option<&'a str> {
    oem(document, pointer)?.get("@odata.id")?.as_str()
}

/// Generation and firmware version of the iLO, from the service root; `None` if it is no iLO.
pub(super) fn generation(root: &Value) -> Option<(u8, String)> {
    let manager = oem(root, "/Manager")?;
    // One object in a list, except where firmware leaves the list out.
    let manager = manager.get(0).unwrap_or(manager);
    let number = text(manager, "/ManagerType")
        .strip_prefix("iLO ")?
        .parse::<u8>()
        .ok()?;
    Some((number, text(manager, "/ManagerFirmwareVersion").to_owned()))
}

/// Power of the server.
pub(super) fn power_state(system: &Value) -> PowerState {
    // iLO 4 before 2.30 calls it `Power` as well.
    match text(system, "/PowerState") {
        "" => PowerState::parse(text(system, "/Power")),
        state => PowerState::parse(state),
    }
}

/// Progress of the power-on self test.
pub(super) fn post_state(system: &Value) -> PostState {
    PostState::parse(oem_text(system, "/PostState"))
}

/// Health with everything below the server counted, as far as this firmware sums it up.
pub(super) fn health(system: &Value) -> String {
    let sums = [
        text(system, "/Status/HealthRollup"),
        text(system, "/Status/HealthRollUp"),
        oem_text(system, "/AggregateHealthStatus/AggregateServerHealth"),
        text(system, "/Status/Health"),
    ];
    sums.into_iter()
        .find(|sum| !sum.is_empty())
        .unwrap_or("Unknown")
        .to_owned()
}

/// UUID of the server.
pub(super) fn uuid(system: &Value) -> Option<Uuid> {
    text(system, "/UUID").parse().ok()
}

/// Boot mode, from the BIOS resource and the system's `UefiClass`. Servers that only know UEFI
/// have no `BootMode` attribute; what is no iLO has the mode of the boot override alone.
pub(super) fn boot_mode(bios: &Value, system: &Value) -> BootMode {
    match attribute(bios, "BootMode").and_then(Value::as_str) {
        Some("Uefi") => BootMode::Uefi,
        Some("LegacyBios") => BootMode::Legacy,
        _ => match oem(system, "/Bios/UefiClass").and_then(Value::as_u64) {
            Some(3) => BootMode::Uefi,
            Some(0) => BootMode::Legacy,
            _ if oem(system, "").is_some() => BootMode::Unknown,
            _ => match text(system, "/Boot/BootSourceOverrideMode") {
                "UEFI" => BootMode::Uefi,
                "Legacy" => BootMode::Legacy,
                _ => BootMode::Unknown,
            },
        },
    }
}

/// A BIOS attribute; iLO 4 has them in the resource itself.
pub(super) fn attribute<'a>(bios: &'a Value, name: &str) -> Option<&'a Value> {
    bios.get("Attributes").unwrap_or(bios).get(name)
}

/// Where the settings are changed that this document shows.
///
/// # Errors
/// `protocol` if it does not tell.
pub(super) fn settings(document: &Value) -> Result<&str> {
    let link = link(document, "/@Redfish.Settings/SettingsObject");
    let link = link.or_else(|| self::link(document, "/Settings"));
    link.ok_or_else(|| {
        let place = text(document, "/@odata.id");
        let message = format!("the iLO's document {place} does not tell where it is changed");
        Error::new(Kind::Protocol, message)
    })
}

/// Secure boot, in the words of iLO 5 and newer or of iLO 4.
pub(super) fn secure_boot(document: &Value) -> SecureBoot {
    let flag = |name: &str| document.get(name).and_then(Value::as_bool);
    SecureBoot {
        current: flag("SecureBootCurrentState")
            .unwrap_or_else(|| text(document, "/SecureBootCurrentBoot") == "Enabled"),
        enabled: flag("SecureBootEnable").unwrap_or(false),
    }
}

/// What overrides the boot order.
pub(super) fn boot_override(system: &Value) -> BootOverride {
    let enabled = match text(system, "/Boot/BootSourceOverrideEnabled") {
        "Once" => OverrideEnabled::Once,
        "Continuous" => OverrideEnabled::Continuous,
        _ => OverrideEnabled::Disabled,
    };
    let device = BootDevice::parse(text(system, "/Boot/BootSourceOverrideTarget"));
    BootOverride { enabled, device }
}

/// The licence.
pub(super) fn license(document: &Value) -> License {
    let name = text(document, "/License").to_owned();
    let stated = document
        .pointer("/LicenseFeatures/VMScript")
        .and_then(Value::as_bool);
    License {
        kind: text(document, "/LicenseType").to_owned(),
        // Old firmware does not list the features.
        scripted_media: stated.unwrap_or_else(|| name.contains("Advanced")),
        name,
    }
}

/// The licence as the manager names it: that of firmware without a licence service.
pub(super) fn license_of_manager(manager: &Value) -> License {
    let name = oem_text(manager, "/License/LicenseString").to_owned();
    License {
        kind: oem_text(manager, "/License/LicenseType").to_owned(),
        // What is no iLO needs no licence.
        scripted_media: name.contains("Advanced") || oem(manager, "").is_none(),
        name,
    }
}

/// Reads a `VirtualMedia` document; `None` if it is neither floppy nor CD.
pub(super) fn drive(document: &Value) -> Option<Drive> {
    let flag = |pointer: &str| document.pointer(pointer).and_then(Value::as_bool);
    let mut media = texts(document, "/MediaTypes");
    let device = media.find_map(|kind| match kind {
        "Floppy" | "USBStick" => Some(Device::Floppy),
        "CD" | "DVD" => Some(Device::Cdrom),
        _ => None,
    })?;
    let image = text(document, "/Image");
    Some(Drive {
        device,
        inserted: flag("/Inserted").unwrap_or(false),
        connected_via: match text(document, "/ConnectedVia") {
            "" | "NotConnected" => ConnectedVia::NotConnected,
            "URI" => ConnectedVia::Uri,
            "Applet" => ConnectedVia::Applet,
            _ => ConnectedVia::Other,
        },
        image: (!image.is_empty()).then(|| Secret::new(image)),
        write_protected: flag("/WriteProtected").unwrap_or(false),
        boot_on_next_reset: oem(document, "/BootOnNextServerReset").and_then(Value::as_bool),
    })
}

#[cfg(test)]
#[path = "documents_tests.rs"]
mod tests;
