//! What the server boots, in RIBCL: names of kinds of devices where it boots BIOS, numbered boot
//! options with descriptions where it boots UEFI.

use super::document::Element;
use super::request::{Block, Command};
use super::{Ribcl, shown};
use crate::error::{Error, Kind, Result};
use crate::ilo::deadline::Deadline;
use crate::ilo::failure::{Class, Failure};
use crate::ilo::model::{
    BootDevice, BootDevices, BootMode, BootModes, BootOverride, OverrideEnabled,
};

/// RIBCL's names of boot devices, the first one of a device to write it.
const BOOT_DEVICES: [(BootDevice, &str); 6] = [
    (BootDevice::Cdrom, "CDROM"),
    (BootDevice::Disk, "HDD"),
    (BootDevice::Usb, "USB"),
    (BootDevice::Usb, "FLOPPY"),
    (BootDevice::Pxe, "NETWORK"),
    (BootDevice::BiosSetup, "RBSU"),
];

/// Parts of the descriptions of UEFI boot options in capitals; the first that fits decides.
const DESCRIPTIONS: [(&str, BootDevice); 8] = [
    ("CD/DVD", BootDevice::Cdrom),
    ("CD-ROM", BootDevice::Cdrom),
    ("HTTP", BootDevice::UefiHttp),
    ("NIC", BootDevice::Pxe),
    ("PXE", BootDevice::Pxe),
    ("USB", BootDevice::Usb),
    ("LOGICAL DRIVE", BootDevice::Disk),
    ("HARD DRIVE", BootDevice::Disk),
];

impl Ribcl {
    pub(in crate::ilo) async fn boot(&self, within: Option<Deadline>) -> Result<BootOverride> {
        let answer = self
            .look(Block::Server, "GET_ONE_TIME_BOOT", within)
            .await?;
        let mut shown = answer.below("ONE_TIME_BOOT");
        let name = shown.next().map(|e| e.attribute("VALUE").to_uppercase());
        let name = name.unwrap_or_default();
        let device = BOOT_DEVICES.iter().find(|(_, known)| *known == name);
        Ok(BootOverride {
            enabled: match name.as_str() {
                "" | "NORMAL" => OverrideEnabled::Disabled,
                _ => OverrideEnabled::Once,
            },
            device: device.map(|(device, _)| *device),
        })
    }

    pub(in crate::ilo) async fn boot_once(
        &self,
        device: BootDevice,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let attributes = [("VALUE", name(device).map_err(Failure::Unable)?)];
        let command = Command::with(Block::Server, true, "SET_ONE_TIME_BOOT", &attributes);
        self.write(command, deadline).await
    }

    pub(in crate::ilo) async fn boot_devices(
        &self,
        within: Option<Deadline>,
    ) -> Result<BootDevices> {
        let next = self.boot(within).await?;
        let order = self.look(Block::Server, "GET_PERSISTENT_BOOT", within);
        let persistent = match order.await {
            Ok(order) => order.below("PERSISTENT_BOOT").next().and_then(device),
            Err(failure) if failure.class() == Some(Class::Unsupported) => None,
            Err(failure) => return Err(failure.into()),
        };
        Ok(BootDevices {
            next,
            persistent,
            pending: None,
        })
    }

    /// What is named moves to the front of the boot order.
    pub(in crate::ilo) async fn boot_always(
        &self,
        wanted: BootDevice,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let order = self.look(Block::Server, "GET_PERSISTENT_BOOT", Some(deadline));
        let order = order.await?;
        let options: Vec<&Element> = order.below("PERSISTENT_BOOT").collect();
        let names: Vec<&str> = options.iter().map(|o| o.attribute("VALUE")).collect();
        let found = options
            .iter()
            .filter(|option| device(option) == Some(wanted));
        let found: Vec<_> = found.map(|o| ("DEVICE", o.attribute("VALUE"))).collect();
        if found.is_empty() {
            let message = format!("the boot order lists no {}", wanted.as_redfish());
            let error = Error::new(Kind::Unsupported, message).detail("boot_sources", names);
            return Err(Failure::Unable(error));
        }
        let command = Command::nested(Block::Server, true, "SET_PERSISTENT_BOOT", &[], &found);
        self.write(command, deadline).await
    }

    pub(in crate::ilo) async fn boot_mode(&self) -> Result<BootMode> {
        let mode = self.mode("GET_CURRENT_BOOT_MODE", None).await?;
        // A server with one mode has no command to read it.
        Ok(mode.unwrap_or(BootMode::Legacy))
    }

    pub(in crate::ilo) async fn boot_modes(&self, within: Option<Deadline>) -> Result<BootModes> {
        let mode = self.mode("GET_CURRENT_BOOT_MODE", within).await?;
        let mode = mode.unwrap_or(BootMode::Legacy);
        let pending = self.mode("GET_PENDING_BOOT_MODE", within).await?;
        Ok(BootModes {
            mode,
            pending: pending.filter(|pending| *pending != mode),
        })
    }

    pub(in crate::ilo) async fn change_boot_mode(
        &self,
        mode: BootMode,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let name = match mode {
            BootMode::Legacy => "LEGACY",
            BootMode::Uefi | BootMode::Unknown => "UEFI",
        };
        let attributes = [("VALUE", name)];
        let command = Command::with(Block::Server, true, "SET_PENDING_BOOT_MODE", &attributes);
        self.write(command, deadline).await
    }

    /// `None` if the server does not know the command.
    async fn mode(
        &self,
        command: &'static str,
        within: Option<Deadline>,
    ) -> Result<Option<BootMode>> {
        let answer = match self.look(Block::Server, command, within).await {
            Err(failure) if failure.class() == Some(Class::Unsupported) => return Ok(None),
            answer => answer?,
        };
        Ok(Some(
            match shown(&answer, "BOOT_MODE")?.attribute("VALUE") {
                "UEFI" => BootMode::Uefi,
                "LEGACY" => BootMode::Legacy,
                _ => BootMode::Unknown,
            },
        ))
    }
}

fn name(device: BootDevice) -> Result<&'static str> {
    let found = BOOT_DEVICES.iter().find(|(known, _)| *known == device);
    found.map(|(_, name)| *name).ok_or_else(|| {
        let message = format!("RIBCL cannot boot from {}", device.as_redfish());
        Error::new(Kind::Unsupported, message)
    })
}

/// What an entry of the boot order is.
fn device(option: &Element) -> Option<BootDevice> {
    let value = option.attribute("VALUE");
    if let Some((device, _)) = BOOT_DEVICES.iter().find(|(_, name)| *name == value) {
        return Some(*device);
    }
    let description = option.attribute("DESCRIPTION").to_uppercase();
    let mut known = DESCRIPTIONS.iter();
    known
        .find(|(part, _)| description.contains(part))
        .map(|(_, device)| *device)
}

#[cfg(test)]
mod tests {
    use super::super::document::Answer;
    use super::*;

    #[test]
    fn boot_orders_of_real_servers_are_known() {
        use BootDevice as D;
        let cases: [(&[u8], [BootDevice; 5]); 3] = [
            (
                include_bytes!(
                    "../../../tests/data/ilo/ribcl/ilo4-documents/get_persistent_boot_device_bios_xml.xml"
                ),
                [D::Cdrom, D::Pxe, D::Usb, D::Usb, D::Disk],
            ),
            (
                include_bytes!(
                    "../../../tests/data/ilo/ribcl/ilo4-documents/get_persistent_boot_device_cdrom_uefi_xml.xml"
                ),
                [D::Cdrom, D::Disk, D::Pxe, D::Pxe, D::Usb],
            ),
            (
                include_bytes!(
                    "../../../tests/data/ilo/ribcl/ilo4-documents/get_persistent_boot_device_hdd_uefi_xml.xml"
                ),
                [D::Disk, D::Cdrom, D::Usb, D::Pxe, D::Pxe],
            ),
        ];
        for (captured, expected) in cases {
            let answer = Answer::parse(captured).unwrap();
            let order: Vec<_> = answer.below("PERSISTENT_BOOT").map(device).collect();
            assert_eq!(order, expected.map(Some));
        }
    }
}
