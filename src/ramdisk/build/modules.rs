//! Which kernel modules go into the image.

use super::kernel::Kernel;
use crate::error::{Error, Kind, Result};
use crate::ramdisk::drivers::{Driver, Drivers};
use elf::ElfBytes;
use elf::endian::LittleEndian;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What ProLiant servers since Gen8 have, and virtual machines.
const WANTED: &[&str] = &[
    // Controllers of disks: Smart Array, their successors, MegaRAID, HBAs, NVMe behind VMD, SATA.
    "hpsa",
    "smartpqi",
    "megaraid_sas",
    "mpt3sas",
    "mpi3mr",
    "nvme",
    "vmd",
    "ahci",
    "ata_piix",
    "sd_mod",
    // Networks: HPE's adapters of Broadcom, QLogic, Intel, Mellanox and Emulex.
    "tg3",
    "bnx2",
    "bnx2x",
    "bnxt_en",
    "qede",
    "qlcnic",
    "e1000e",
    "igb",
    "ixgbe",
    "i40e",
    "ice",
    "mlx4_en",
    "mlx5_core",
    "be2net",
    "8021q",
    "bonding",
    // The virtual floppy is a USB drive; old controllers are iLO's own.
    "usb_storage",
    "xhci_pci",
    "ehci_pci",
    "uhci_hcd",
    "ohci_pci",
    "floppy",
    // Watchdogs: of iLO, of Intel's chipsets, of virtual machines.
    "hpwdt",
    "iTCO_wdt",
    "i2c_i801",
    "lpc_ich",
    "i6300esb",
    // Virtual machines.
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "e1000",
    "vmxnet3",
    "vmw_pvscsi",
];

/// Why a module is, or is not, in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is in the image.
    Packed,
    /// The kernel has it built in.
    BuiltIn,
    /// This kernel has no such module.
    Missing,
}

/// A module, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModuleEntry {
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub presence: Presence,
    /// Its size in the image, not compressed.
    pub bytes: u64,
    /// Whether it is there for another one's sake.
    pub is_dependency: bool,
}

/// The modules of an image.
#[derive(Debug)]
pub(super) struct Selection {
    /// What became of each.
    pub(super) entries: Vec<ModuleEntry>,
    /// What the node looks them up in.
    pub(super) drivers: Drivers,
    /// Their bytes by name.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// Firmware files that they ask for, by the path below `/lib/firmware`.
    pub(super) firmware: BTreeSet<String>,
}

/// Takes the wanted modules and all that they depend on. Blocks.
///
/// # Errors
/// `io` if one cannot be read; `invalid` if one was built for another kernel.
pub(super) fn select(kernel: &Kernel) -> Result<Selection> {
    let mut chosen = Chosen {
        kernel,
        modules: BTreeMap::new(),
    };
    for name in WANTED {
        chosen.add(name)?;
    }
    let is_wanted = |name: &str| WANTED.contains(&name);
    let mut entries = Vec::new();
    for name in WANTED
        .iter()
        .filter(|name| !chosen.modules.contains_key(**name))
    {
        entries.push(ModuleEntry {
            name: (*name).to_owned(),
            presence: match kernel.built_in.contains(*name) {
                true => Presence::BuiltIn,
                false => Presence::Missing,
            },
            bytes: 0,
            is_dependency: false,
        });
    }
    let mut drivers = BTreeMap::new();
    let (mut files, mut firmware) = (BTreeMap::new(), BTreeSet::new());
    for name in chosen.modules.keys() {
        drivers.insert(
            name.clone(),
            Driver {
                needs: chosen.order(name),
                aliases: chosen
                    .modules
                    .get(name)
                    .map(|m| m.info.aliases.clone())
                    .unwrap_or_default(),
            },
        );
    }
    for (name, module) in chosen.modules {
        entries.push(ModuleEntry {
            is_dependency: !is_wanted(&name),
            name: name.clone(),
            presence: Presence::Packed,
            bytes: module.bytes.len() as u64,
        });
        firmware.extend(module.info.firmware);
        files.insert(name, module.bytes);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Selection {
        entries,
        drivers: Drivers(drivers),
        files,
        firmware,
    })
}

struct Module {
    bytes: Vec<u8>,
    info: Info,
}

struct Chosen<'a> {
    kernel: &'a Kernel,
    modules: BTreeMap<String, Module>,
}

impl Chosen<'_> {
    /// Adds a module with what it depends on; one that is not there is left out.
    fn add(&mut self, name: &str) -> Result<()> {
        if self.modules.contains_key(name) {
            return Ok(());
        }
        let Some(bytes) = self.kernel.module(name)? else {
            return Ok(());
        };
        let bad = |why: &str| Error::new(Kind::Invalid, format!("kernel module {name}: {why}"));
        let mut info = Info::of(&bytes).ok_or_else(|| bad("no module information"))?;
        let release = &self.kernel.release;
        if info.release != *release {
            let why = format!("built for kernel {}, not for {release}", info.release);
            return Err(bad(&why));
        }
        for soft in &mut info.soft {
            // Of an algorithm the portable one does, on whatever processor.
            let portable = format!("{soft}_generic");
            if self.kernel.modules.contains_key(&portable) {
                *soft = portable;
            }
        }
        let needs: Vec<String> = info.needs().map(str::to_owned).collect();
        self.modules.insert(name.to_owned(), Module { bytes, info });
        needs.iter().try_for_each(|need| self.add(need))
    }

    /// All that a module needs, each after what it needs itself.
    fn order(&self, name: &str) -> Vec<String> {
        let mut order = Vec::new();
        self.visit(name, &mut order, &mut BTreeSet::new());
        order.pop();
        order
    }

    fn visit<'a>(&'a self, name: &'a str, order: &mut Vec<String>, seen: &mut BTreeSet<&'a str>) {
        if let Some(module) = self.modules.get(name).filter(|_| seen.insert(name)) {
            module
                .info
                .needs()
                .for_each(|need| self.visit(need, order, seen));
            order.push(name.to_owned());
        }
    }
}

/// What a module says of itself in its section `.modinfo`: `key=value`, each with a zero behind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    release: String,
    depends: Vec<String>,
    /// What it works without, but better with.
    soft: Vec<String>,
    aliases: Vec<String>,
    firmware: Vec<String>,
}

impl Info {
    fn of(module: &[u8]) -> Option<Self> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(module).ok()?;
        let section = file.section_header_by_name(".modinfo").ok()??;
        let (text, _) = file.section_data(&section).ok()?;
        Some(Self::parse(text))
    }

    fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        let name_of = |name: &str| name.replace('-', "_");
        for line in section.split(|byte| *byte == 0) {
            let line = String::from_utf8_lossy(line);
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match key {
                "vermagic" => {
                    info.release = value.split(' ').next().unwrap_or_default().to_owned();
                }
                "depends" => {
                    let names = value.split(',').filter(|name| !name.is_empty());
                    info.depends.extend(names.map(name_of));
                }
                "softdep" => {
                    let pre = value
                        .split_whitespace()
                        .skip_while(|word| *word != "pre:")
                        .skip(1);
                    info.soft
                        .extend(pre.take_while(|word| *word != "post:").map(name_of));
                }
                "alias" => info.aliases.push(value.to_owned()),
                "firmware" => info.firmware.push(value.to_owned()),
                _ => {}
            }
        }
        info.aliases.sort();
        info
    }

    fn needs(&self) -> impl Iterator<Item = &str> {
        self.soft.iter().chain(&self.depends).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_what_it_needs() {
        let section = b"license=GPL\0\0vermagic=6.1.0-18-amd64 SMP preempt\0alias=b*\0alias=a*\0\
            depends=scsi_mod,t10-pi\0softdep=pre: crct10dif libcrc post: late\0firmware=tg3/a.bin\0";
        let info = Info::parse(section);
        assert_eq!(info.release, "6.1.0-18-amd64");
        assert_eq!(info.aliases, ["a*", "b*"]);
        assert_eq!(
            info.needs().collect::<Vec<_>>(),
            ["crct10dif", "libcrc", "scsi_mod", "t10_pi"]
        );
        assert_eq!(info.firmware, ["tg3/a.bin"]);
        assert_eq!(Info::parse(b"depends=\0").needs().count(), 0);
    }
}
