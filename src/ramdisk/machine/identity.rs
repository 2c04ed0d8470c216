//! Whether this is the server that the floppy is meant for.

use crate::error::{Error, Kind, Result};
use crate::ramdisk::parameters::Parameters;
use std::path::Path;
use uuid::Uuid;

/// What firmware says that was never told a serial number.
const PLACEHOLDERS: [&str; 6] = [
    "none",
    "not specified",
    "to be filled by o.e.m.",
    "system serial number",
    "default string",
    "0",
];

/// The machine by its SMBIOS tables, as `/sys/class/dmi/id` shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Of the system and of the chassis, as far as they have one.
    serials: Vec<String>,
    uuid: Option<Uuid>,
}

impl Identity {
    pub(super) fn of_this_machine() -> Self {
        Self::read(Path::new("/sys/class/dmi/id"))
    }

    fn read(folder: &Path) -> Self {
        let text = |file: &str| {
            let text = std::fs::read(folder.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&text).trim().to_owned()
        };
        let is_told = |text: &String| {
            !text.is_empty() && !PLACEHOLDERS.contains(&text.to_lowercase().as_str())
        };
        let serials = ["product_serial", "chassis_serial"].map(text);
        let uuid = Uuid::parse_str(&text("product_uuid")).ok();
        Self {
            serials: serials.into_iter().filter(is_told).collect(),
            uuid: uuid.filter(|uuid| !uuid.is_nil() && !uuid.is_max()),
        }
    }

    /// Compares what both the floppy and the machine tell. One that agrees is enough: a system
    /// board that was replaced may have kept a wrong one of the two.
    ///
    /// # Errors
    /// `conflict` if nothing agrees, though something could.
    pub(super) fn check(&self, parameters: &Parameters) -> Result<()> {
        let serial = parameters.server_serial.as_ref();
        let serial = serial.filter(|_| !self.serials.is_empty());
        let uuid = parameters.server_uuid.zip(self.uuid);
        let same_serial = serial.map(|wanted| {
            let mut serials = self.serials.iter();
            serials.any(|serial| serial.eq_ignore_ascii_case(wanted))
        });
        // SMBIOS before 2.6 does not say in which order the bytes of the first three fields are.
        let same_uuid = uuid
            .map(|(wanted, own)| wanted == own || wanted == Uuid::from_bytes_le(own.into_bytes()));
        match (same_serial, same_uuid) {
            (Some(true), _) | (_, Some(true)) | (None, None) => return Ok(()),
            (Some(false), _) | (_, Some(false)) => {}
        }
        let own = self.uuid.map(|uuid| format!("UUID {uuid}"));
        let own = self.serials.iter().cloned().chain(own);
        let wanted = parameters.server_uuid.map(|uuid| format!("UUID {uuid}"));
        let wanted = parameters.server_serial.iter().cloned().chain(wanted);
        let message = format!(
            "the floppy is for the server {}, and this is {}",
            wanted.collect::<Vec<_>>().join(", "),
            own.collect::<Vec<_>>().join(", ")
        );
        Err(Error::new(Kind::Conflict, message)
            .op("ramdisk.identity")
            .hint("is driver_info.ilo_address the address of this server's iLO?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "36373638-3035-5a43-4a31-323334353637";

    fn machine(serial: &str, chassis: &str, uuid: &str) -> Identity {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("product_serial", serial),
            ("chassis_serial", chassis),
            ("product_uuid", uuid),
        ] {
            std::fs::write(folder.path().join(name), format!("{text}  \n")).unwrap();
        }
        Identity::read(folder.path())
    }

    fn meant(more: &str) -> Parameters {
        let text = format!(
            "deployment_id={UUID} deployment_key=k iscsi_target_iqn=i ironic_api_url=http://h {more}"
        );
        Parameters::parse(&text).unwrap()
    }

    #[test]
    fn the_machine_that_is_meant_is_known() {
        let both = format!("server_serial=CZJ1234567 server_uuid={UUID}");
        let swapped = "38363736-3530-435a-4a31-323334353637";
        for (machine, floppy) in [
            (machine("CZJ1234567", "", UUID), both.as_str()),
            (machine("czj1234567", "", ""), &both),
            (machine("None", "CZJ1234567", swapped), &both),
            (machine("Not Specified", "", swapped), &both),
            // Of a replaced board, or of a floppy that tells nothing.
            (machine("OTHER", "", UUID), &both),
            (
                machine("CZJ1234567", "", "11111111-2222-3333-4444-555555555555"),
                &both,
            ),
            (machine("OTHER", "", UUID), ""),
            (
                machine("", "", "00000000-0000-0000-0000-000000000000"),
                &both,
            ),
        ] {
            machine.check(&meant(floppy)).unwrap();
        }
    }

    #[test]
    fn another_machine_is_told() {
        let other = machine("CZJ7654321", "", "11111111-2222-3333-4444-555555555555");
        for floppy in [
            format!("server_serial=CZJ1234567 server_uuid={UUID}"),
            "server_serial=CZJ1234567".to_owned(),
            format!("server_uuid={UUID}"),
        ] {
            let error = other.check(&meant(&floppy)).unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict);
            assert!(
                error.message().contains("this is CZJ7654321, UUID 1111"),
                "{error}"
            );
        }
    }
}
