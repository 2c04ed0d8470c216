//! Reads facts out of iLO documents, whatever firmware wrote them.

use crate::error::{Error, Kind, Result};
use crate::ilo::mask;
use crate::ilo::model::{
    BootDevice, BootMode, BootOverride, ConnectedVia, Device, License, OverrideEnabled, PostState,
    PowerState, VmediaDevice,
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

/// Generation and firmware version of the iLO, from the service root.
///
/// # Errors
/// `unsupported` if it is no iLO, or one older than iLO 5.
pub(super) fn generation(root: &Value) -> Result<(u8, String)> {
    let of_vendor = |vendor: &str| {
        let place = format!("/Oem/{vendor}/Manager");
        let manager = root.pointer(&place)?;
        // One object in a list, except where firmware leaves the list out.
        let manager = manager.get(0).unwrap_or(manager);
        let number = text(manager, "/ManagerType")
            .strip_prefix("iLO ")?
            .parse::<u8>()
            .ok()?;
        Some((number, text(manager, "/ManagerFirmwareVersion").to_owned()))
    };
    match of_vendor("Hpe").or_else(|| of_vendor("Hp")) {
        Some((generation, firmware)) if generation >= 5 => Ok((generation, firmware)),
        Some((generation, firmware)) => Err(Error::new(
            Kind::Unsupported,
            format!("iLO {generation} {firmware} is older than iLO 5"),
        )),
        None => Err(Error::new(
            Kind::Unsupported,
            "the service root is not that of an HPE iLO",
        )),
    }
}

/// Power of the server.
pub(super) fn power_state(system: &Value) -> PowerState {
    PowerState::parse(text(system, "/PowerState"))
}

/// Progress of the power-on self test.
pub(super) fn post_state(system: &Value) -> PostState {
    PostState::parse(text(system, "/Oem/Hpe/PostState"))
}

/// Health with everything below the server counted, as far as this firmware sums it up.
pub(super) fn health(system: &Value) -> String {
    let places = [
        "/Status/HealthRollup",
        "/Oem/Hpe/AggregateHealthStatus/AggregateServerHealth",
        "/Status/Health",
    ];
    let sums = places.iter().map(|place| text(system, place));
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
/// have no `BootMode` attribute.
pub(super) fn boot_mode(bios: &Value, system: &Value) -> BootMode {
    let attribute = bios
        .pointer("/Attributes/BootMode")
        .or_else(|| bios.get("BootMode"));
    match attribute.and_then(Value::as_str) {
        Some("Uefi") => BootMode::Uefi,
        Some("LegacyBios") => BootMode::Legacy,
        _ if system
            .pointer("/Oem/Hpe/Bios/UefiClass")
            .and_then(Value::as_u64)
            == Some(3) =>
        {
            BootMode::Uefi
        }
        _ => BootMode::Unknown,
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

/// A virtual drive as the iLO shows it, with the complete URL.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) device: Device,
    pub(super) inserted: bool,
    pub(super) connected_via: ConnectedVia,
    pub(super) image: Option<Secret>,
    write_protected: bool,
    boot_on_next_reset: Option<bool>,
}

impl Drive {
    /// Reads a `VirtualMedia` document; `None` if it is neither floppy nor CD.
    pub(super) fn parse(document: &Value) -> Option<Self> {
        let flag = |pointer: &str| document.pointer(pointer).and_then(Value::as_bool);
        let mut media = texts(document, "/MediaTypes");
        let device = media.find_map(|kind| match kind {
            "Floppy" | "USBStick" => Some(Device::Floppy),
            "CD" | "DVD" => Some(Device::Cdrom),
            _ => None,
        })?;
        let image = text(document, "/Image");
        Some(Self {
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
            boot_on_next_reset: flag("/Oem/Hpe/BootOnNextServerReset"),
        })
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        !self.inserted && self.image.is_none()
    }

    /// Whether it shows `url` as connected.
    pub(super) fn holds(&self, url: &Secret) -> bool {
        self.inserted && self.connected_via == ConnectedVia::Uri && self.shows(url)
    }

    /// Whether the image is `url`.
    pub(super) fn shows(&self, url: &Secret) -> bool {
        self.image
            .as_ref()
            .is_some_and(|image| image.matches(url.expose()))
    }
}

impl From<&Drive> for VmediaDevice {
    fn from(drive: &Drive) -> Self {
        Self {
            device: drive.device,
            inserted: drive.inserted,
            connected_via: drive.connected_via,
            image: drive.image.as_ref().map(|url| mask::text(url.expose())),
            write_protected: drive.write_protected,
            boot_on_next_reset: drive.boot_on_next_reset,
        }
    }
}

#[cfg(test)]
#[path = "documents_tests.rs"]
mod tests;
