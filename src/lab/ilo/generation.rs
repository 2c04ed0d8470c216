//! The generations of iLO, and what distinguishes them: a table, so that the model is one.

use crate::error::{Error, Kind};
use crate::ilo::model::BootMode;
use std::fmt;
use std::str::FromStr;

/// Which iLO is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Generation {
    /// iLO 4 1.51 of a Gen8 server: RIBCL and nothing else, BIOS only.
    Ilo4Ribcl,
    /// iLO 4 2.54 of a Gen9 server: RIBCL, REST and Redfish 1.0.
    Ilo4Rest,
    /// iLO 5 1.30 of a Gen10 server.
    Ilo5Early,
    /// iLO 5 3.11 of a Gen10 Plus server.
    Ilo5,
    /// iLO 6 1.66 of a Gen11 server.
    Ilo6,
    /// iLO 7 1.14 of a Gen12 server.
    Ilo7,
}

impl Generation {
    /// Every generation with its name, in the order in which a lab's nodes have them.
    pub const NAMES: [(Self, &'static str); 6] = [
        (Self::Ilo5, "ilo5"),
        (Self::Ilo6, "ilo6"),
        (Self::Ilo7, "ilo7"),
        (Self::Ilo5Early, "ilo5-early"),
        (Self::Ilo4Rest, "ilo4-rest"),
        (Self::Ilo4Ribcl, "ilo4-ribcl"),
    ];

    /// What the node of this index, counted from 0, has if nobody says otherwise.
    #[must_use]
    pub fn of_node(index: usize) -> Self {
        Self::NAMES
            .get(index % Self::NAMES.len())
            .map_or(Self::Ilo5, |(generation, _)| *generation)
    }

    /// How the server boots until it is told otherwise.
    #[must_use]
    pub fn boot_mode(self) -> BootMode {
        match self.traits().uefi {
            Uefi::None => BootMode::Legacy,
            Uefi::Choice | Uefi::Only => BootMode::Uefi,
        }
    }

    pub(super) fn traits(self) -> &'static Traits {
        match self {
            Self::Ilo4Ribcl => &ILO4_RIBCL,
            Self::Ilo4Rest => &ILO4_REST,
            Self::Ilo5Early => &ILO5_EARLY,
            Self::Ilo5 => &ILO5,
            Self::Ilo6 => &ILO6,
            Self::Ilo7 => &ILO7,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().find(|(known, _)| known == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for Generation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(generation, _)| *generation).ok_or_else(|| {
            let known = Self::NAMES.map(|(_, name)| name).join(", ");
            Error::new(Kind::Invalid, format!("no iLO is called {text:?}"))
                .hint(format!("the iLOs are {known}"))
        })
    }
}

/// Which boot modes the firmware of the server has (`UefiClass` 0, 2, 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uefi {
    None,
    Choice,
    Only,
}

/// Which of an iLO's HTTP interfaces answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Web {
    /// RIBCL only.
    None,
    /// HP's REST of iLO 4 and, from 2.30 on, Redfish 1.0 beside it.
    Rest,
    /// Redfish; `/rest/v1` is redirected.
    Redfish,
}

/// What one generation does unlike the others.
#[derive(Debug)]
pub(super) struct Traits {
    /// 4 for iLO 4.
    pub(super) number: u8,
    /// As `ManagerFirmwareVersion` and RIBCL print it.
    pub(super) firmware: &'static str,
    pub(super) firmware_date: &'static str,
    /// As `FirmwareVersion` of the manager prints it; iLO 7 leaves its name out.
    pub(super) manager_firmware: &'static str,
    pub(super) product: &'static str,
    pub(super) web: Web,
    pub(super) ribcl: bool,
    pub(super) uefi: Uefi,
    /// Key below `Oem`.
    pub(super) vendor: &'static str,
    /// Registries with the versions that messages name.
    pub(super) base: &'static str,
    pub(super) ilo: &'static str,
    /// Redirects paths without a trailing slash, as iLO 5 before 1.40.
    pub(super) redirects_to_slash: bool,
    /// The persistent boot order, below the BIOS resource.
    pub(super) boot_order_path: &'static str,
    pub(super) documents: &'static Documents,
}

/// The resources as captured, in JSON.
#[derive(Debug)]
pub(super) struct Documents {
    pub(super) service_root: &'static str,
    pub(super) system: &'static str,
    pub(super) bios: &'static str,
    pub(super) boot: &'static str,
    pub(super) secure_boot: &'static str,
    pub(super) manager: &'static str,
    /// None: made from what the manager says.
    pub(super) license: Option<&'static str>,
    pub(super) floppy: &'static str,
    pub(super) cdrom: &'static str,
}

macro_rules! captured {
    ($path:literal) => {
        include_str!(concat!("data/", $path, ".json"))
    };
}

const ILO4_DOCUMENTS: Documents = Documents {
    service_root: captured!("ilo4/service_root"),
    system: captured!("ilo4/system"),
    bios: captured!("ilo4/bios"),
    boot: captured!("ilo4/boot"),
    secure_boot: captured!("ilo4/secure_boot"),
    manager: captured!("ilo4/manager"),
    license: None,
    floppy: captured!("ilo4/virtual_media_1"),
    cdrom: captured!("ilo4/virtual_media_2"),
};

const ILO4_REST: Traits = Traits {
    number: 4,
    firmware: "2.54",
    firmware_date: "Jun 15 2017",
    manager_firmware: "iLO 4 v2.54",
    product: "ProLiant BL460c Gen9",
    web: Web::Rest,
    ribcl: true,
    uefi: Uefi::Choice,
    vendor: "Hp",
    base: "Base.0.10",
    ilo: "iLO.0.10",
    redirects_to_slash: false,
    boot_order_path: "/boot",
    documents: &ILO4_DOCUMENTS,
};

/// REST came with 2.00.
const ILO4_RIBCL: Traits = Traits {
    firmware: "1.51",
    firmware_date: "Jun 16 2014",
    product: "ProLiant DL380p Gen8",
    web: Web::None,
    uefi: Uefi::None,
    ..ILO4_REST
};

const ILO5: Traits = Traits {
    number: 5,
    firmware: "3.11",
    firmware_date: "Jan 30 2025",
    manager_firmware: "iLO 5 v3.11",
    product: "ProLiant DL360 Gen10 Plus",
    web: Web::Redfish,
    ribcl: true,
    uefi: Uefi::Choice,
    vendor: "Hpe",
    base: "Base.1.18",
    ilo: "iLO.2.25",
    redirects_to_slash: false,
    boot_order_path: "/oem/hpe/boot",
    documents: &Documents {
        service_root: captured!("ilo5/service_root"),
        system: captured!("ilo5/system"),
        bios: captured!("ilo5/bios"),
        boot: captured!("ilo5/boot"),
        secure_boot: captured!("ilo5/secure_boot"),
        manager: captured!("ilo5/manager"),
        license: Some(captured!("ilo5/license")),
        floppy: captured!("ilo5/virtual_media_1"),
        cdrom: captured!("ilo5/virtual_media_2"),
    },
};

const ILO5_EARLY: Traits = Traits {
    firmware: "1.30",
    firmware_date: "May 31 2018",
    manager_firmware: "iLO 5 v1.30",
    product: "ProLiant DL580 Gen10",
    base: "Base.1.0",
    ilo: "iLO.2.2",
    redirects_to_slash: true,
    boot_order_path: "/boot",
    documents: &Documents {
        service_root: captured!("ilo5_early/service_root"),
        system: captured!("ilo5_early/system"),
        bios: captured!("ilo5_early/bios"),
        boot: captured!("ilo5_early/boot"),
        secure_boot: captured!("ilo5_early/secure_boot"),
        manager: captured!("ilo5_early/manager"),
        // None of this firmware was found.
        license: Some(captured!("ilo5/license")),
        floppy: captured!("ilo5_early/virtual_media_1"),
        cdrom: captured!("ilo5_early/virtual_media_2"),
    },
    ..ILO5
};

const ILO6: Traits = Traits {
    number: 6,
    firmware: "1.66",
    firmware_date: "Apr 02 2025",
    manager_firmware: "iLO 6 v1.66",
    product: "ProLiant DL380a Gen11",
    // The manager still says RIBCLEnabled; no client is known to use it.
    ribcl: false,
    uefi: Uefi::Only,
    documents: &Documents {
        service_root: captured!("ilo6/service_root"),
        system: captured!("ilo6/system"),
        bios: captured!("ilo6/bios"),
        boot: captured!("ilo6/boot"),
        secure_boot: captured!("ilo6/secure_boot"),
        manager: captured!("ilo6/manager"),
        license: Some(captured!("ilo6/license")),
        // Its type is that of iLO 5; only the CD was captured.
        floppy: captured!("ilo5/virtual_media_1"),
        cdrom: captured!("ilo6/virtual_media_2"),
    },
    ilo: "iLO.2.30",
    ..ILO5
};

const ILO7: Traits = Traits {
    number: 7,
    firmware: "1.14.00",
    firmware_date: "May 28 2025",
    manager_firmware: "1.14.00 May 28 2025",
    product: "HPE ProLiant Compute DL360 Gen12",
    documents: &Documents {
        service_root: captured!("ilo7/service_root"),
        system: captured!("ilo7/system"),
        bios: captured!("ilo7/bios"),
        boot: captured!("ilo7/boot"),
        secure_boot: captured!("ilo7/secure_boot"),
        manager: captured!("ilo7/manager"),
        license: Some(captured!("ilo7/license")),
        floppy: captured!("ilo7/virtual_media_1"),
        cdrom: captured!("ilo7/virtual_media_2"),
    },
    ilo: "iLO.2.32",
    ..ILO6
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn names_parse_back() {
        for (index, (generation, name)) in Generation::NAMES.into_iter().enumerate() {
            assert_eq!(name.parse::<Generation>().unwrap(), generation);
            assert_eq!(generation.to_string(), name);
            assert_eq!(Generation::of_node(index + 12), generation);
        }
        assert!("ilo3".parse::<Generation>().unwrap_err().advice().is_some());
    }

    #[test]
    fn every_captured_document_is_an_object() {
        for (generation, _) in Generation::NAMES {
            let documents = generation.traits().documents;
            let all = [
                documents.service_root,
                documents.system,
                documents.bios,
                documents.boot,
                documents.secure_boot,
                documents.manager,
                documents.license.unwrap_or("{}"),
                documents.floppy,
                documents.cdrom,
            ];
            for text in all {
                let value: Value = serde_json::from_str(text).unwrap();
                assert!(value.is_object(), "{generation}: {text}");
            }
        }
    }
}
