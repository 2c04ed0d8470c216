//! Where everything goes on a disk that gets a partition image. Arithmetic only: what a disk,
//! an image and a node's settings add up to is decided here, before anything is written.

pub mod inspect;
mod swap;
mod table;

pub use swap::swap_header;
pub use table::{Overlay, TablePlan, partition_table, whole_disk_table};

use crate::error::{Error, Kind, Result};
use inspect::{DiskLayout, Label};
use serde::{Deserialize, Serialize};

/// Partitions begin and end on whole MiB, as parted and sgdisk place them.
pub const MIB: u64 = 1 << 20;
/// Ironic's size of an EFI system partition.
const EFI_SYSTEM_BYTES: u64 = 200 * MIB;
/// What GRUB needs to start from a GPT disk in BIOS mode.
const BIOS_BOOT_BYTES: u64 = MIB;
/// Sectors that the 32-bit fields of a msdos table reach.
const MSDOS_SECTORS: u64 = 1 << 32;
/// Partitions of a msdos table without an extended one.
const MSDOS_PARTITIONS: usize = 4;

/// How firmware starts the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootMode {
    /// By the code in sector 0.
    Bios,
    /// By a file on the EFI system partition.
    Uefi,
}

/// Size and block size of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Number of blocks.
    pub blocks: u64,
    /// Bytes of one.
    pub block_bytes: u32,
}

impl Geometry {
    /// Size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.block_bytes))
    }
}

/// What a node wants on its disk.
#[derive(Debug, Clone)]
pub struct LayoutSpec {
    /// How it is started.
    pub boot_mode: BootMode,
    /// Whether it starts from this disk.
    pub local_boot: bool,
    /// Kind of table; `None` leaves it to boot mode and size.
    pub label: Option<Label>,
    /// Size of the root partition.
    pub root_bytes: u64,
    /// Size of the swap partition, 0 for none.
    pub swap_bytes: u64,
    /// Size of the ephemeral partition, 0 for none.
    pub ephemeral_bytes: u64,
    /// Size of the config drive's content, 0 for none.
    pub configdrive_bytes: u64,
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Where UEFI finds boot loaders.
    EfiSystem,
    /// Where GRUB keeps its core on GPT disks in BIOS mode.
    BiosBoot,
    /// Scratch space that can outlive a deployment.
    Ephemeral,
    /// Swap space.
    Swap,
    /// Metadata for cloud-init.
    ConfigDrive,
    /// The image.
    Root,
}

/// A partition to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// What it is for.
    pub role: Role,
    /// From 1, in the order of the disk.
    pub number: u32,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A disk to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Kind of table.
    pub label: Label,
    /// Whether the root partition is marked active, which a msdos boot loader asks for.
    pub root_is_active: bool,
    /// In the order of the disk, root last so that it can grow.
    pub partitions: Vec<Planned>,
}

impl Layout {
    /// Places everything.
    ///
    /// # Errors
    /// `limit` with both sizes if it does not fit the disk or the table; `invalid` without a root.
    pub fn new(spec: &LayoutSpec, disk: Geometry) -> Result<Self> {
        if spec.root_bytes == 0 {
            return Err(Error::new(Kind::Invalid, "the root partition has no size")
                .hint("set instance_info.root_gb"));
        }
        let sizes = |label| sizes(spec, label);
        let wanted = |label| -> u64 {
            let sizes = sizes(label);
            MIB + sizes.iter().map(|(_, bytes)| bytes).sum::<u64>()
        };
        let label = spec.label.unwrap_or_else(|| {
            let reach = MSDOS_SECTORS.saturating_mul(u64::from(disk.block_bytes));
            if spec.boot_mode == BootMode::Uefi || wanted(Label::Msdos) > reach {
                Label::Gpt
            } else {
                Label::Msdos
            }
        });
        // The last MiB holds the second copy of a GPT; a msdos disk keeps it free of old ones.
        let room = disk.bytes().saturating_sub(MIB) / MIB * MIB;
        if wanted(label) > room {
            let (needed, has) = (wanted(label), room);
            let message = format!("the partitions need {needed} bytes and the disk has {has}");
            return Err(Error::new(Kind::Limit, message)
                .detail("needed_bytes", needed)
                .detail("disk_bytes", has)
                .hint("make root_gb, swap_mb or ephemeral_gb smaller, or use a larger disk"));
        }
        let layout = Self {
            label,
            root_is_active: label == Label::Msdos
                && spec.local_boot
                && spec.boot_mode == BootMode::Bios,
            partitions: place(sizes(label)),
        };
        layout.check_msdos(disk)?;
        Ok(layout)
    }

    fn check_msdos(&self, disk: Geometry) -> Result<()> {
        if self.label != Label::Msdos {
            return Ok(());
        }
        let limit = |message: String| {
            Err(Error::new(Kind::Limit, message).hint("set the capability disk_label:gpt"))
        };
        let count = self.partitions.len();
        if count > MSDOS_PARTITIONS {
            return limit(format!(
                "a msdos table has room for 4 partitions, not {count}"
            ));
        }
        let end = self.partitions.last().map_or(0, |p| p.offset + p.bytes);
        if end / u64::from(disk.block_bytes) > MSDOS_SECTORS {
            return limit(format!("a msdos table does not reach byte {end}"));
        }
        Ok(())
    }

    /// The partition of this role.
    #[must_use]
    pub fn find(&self, role: Role) -> Option<&Planned> {
        self.partitions.iter().find(|p| p.role == role)
    }

    /// Checks that a disk already has these very partitions, so that its ephemeral one stays what
    /// and where it is.
    ///
    /// # Errors
    /// `conflict` with what differs.
    pub fn check_preserves(&self, found: &DiskLayout) -> Result<()> {
        let conflict = |what: String| {
            Err(Error::new(
                Kind::Conflict,
                format!("the ephemeral partition cannot be preserved: {what}"),
            )
            .hint("deploy with the sizes of the last deployment, or without preserve_ephemeral"))
        };
        if self.find(Role::Ephemeral).is_none() {
            return conflict("ephemeral_gb is 0".to_owned());
        }
        if found.label != self.label {
            let (is, wanted) = (found.label, self.label);
            return conflict(format!("the disk's table is {is:?} and not {wanted:?}"));
        }
        for planned in &self.partitions {
            let Planned {
                number,
                offset,
                bytes,
                ..
            } = *planned;
            match found.partitions.iter().find(|p| p.number == number) {
                None => return conflict(format!("the disk has no partition {number}")),
                // The system may have grown the last one.
                Some(p)
                    if p.offset == offset
                        && (p.bytes == bytes || planned.role == Role::Root && p.bytes > bytes) => {}
                Some(p) => {
                    return conflict(format!(
                        "partition {number} has {} bytes from {} and would have {bytes} from {offset}",
                        p.bytes, p.offset
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Partitions in the order of the disk.
fn sizes(spec: &LayoutSpec, label: Label) -> Vec<(Role, u64)> {
    let local = |when: bool, bytes| if spec.local_boot && when { bytes } else { 0 };
    let uefi = spec.boot_mode == BootMode::Uefi;
    let all = [
        (Role::EfiSystem, local(uefi, EFI_SYSTEM_BYTES)),
        (
            Role::BiosBoot,
            local(!uefi && label == Label::Gpt, BIOS_BOOT_BYTES),
        ),
        (Role::Ephemeral, spec.ephemeral_bytes),
        (Role::Swap, spec.swap_bytes),
        (Role::ConfigDrive, spec.configdrive_bytes),
        (Role::Root, spec.root_bytes),
    ];
    all.into_iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(role, bytes)| (role, bytes.min(u64::MAX >> 4).next_multiple_of(MIB)))
        .collect()
}

fn place(sizes: Vec<(Role, u64)>) -> Vec<Planned> {
    let mut offset = MIB;
    (1..)
        .zip(sizes)
        .map(|(number, (role, bytes))| {
            let planned = Planned {
                role,
                number,
                offset,
                bytes,
            };
            offset += bytes;
            planned
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::inspect::Partition;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn spec() -> LayoutSpec {
        LayoutSpec {
            boot_mode: BootMode::Bios,
            local_boot: false,
            label: None,
            root_bytes: 4 * GIB,
            swap_bytes: 512 * MIB,
            ephemeral_bytes: 2 * GIB,
            configdrive_bytes: 300_000,
        }
    }

    fn disk(bytes: u64) -> Geometry {
        Geometry {
            blocks: bytes / 512,
            block_bytes: 512,
        }
    }

    fn roles(layout: &Layout) -> Vec<Role> {
        layout.partitions.iter().map(|p| p.role).collect()
    }

    #[test]
    fn order_and_places_are_those_of_ironic() {
        let layout = Layout::new(&spec(), disk(8 * GIB)).unwrap();
        assert_eq!((layout.label, layout.root_is_active), (Label::Msdos, false));
        let wanted = [
            (Role::Ephemeral, 1, MIB, 2 * GIB),
            (Role::Swap, 2, MIB + 2 * GIB, 512 * MIB),
            (Role::ConfigDrive, 3, 2561 * MIB, MIB),
            (Role::Root, 4, 2562 * MIB, 4 * GIB),
        ];
        let found: Vec<_> = layout
            .partitions
            .iter()
            .map(|p| (p.role, p.number, p.offset, p.bytes))
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn boot_mode_and_capability_decide_the_table() {
        use {
            BootMode::{Bios, Uefi},
            Label::{Gpt, Msdos},
            Role::{BiosBoot, EfiSystem, Root},
        };
        let cases = [
            (Bios, true, None, Msdos, vec![Root], true),
            (Bios, true, Some(Gpt), Gpt, vec![BiosBoot, Root], false),
            (Bios, false, Some(Gpt), Gpt, vec![Root], false),
            (Uefi, true, None, Gpt, vec![EfiSystem, Root], false),
            (Uefi, false, None, Gpt, vec![Root], false),
            (Uefi, true, Some(Msdos), Msdos, vec![EfiSystem, Root], false),
        ];
        for (boot_mode, local_boot, label, wanted, partitions, active) in cases {
            let spec = LayoutSpec {
                boot_mode,
                local_boot,
                label,
                swap_bytes: 0,
                ephemeral_bytes: 0,
                configdrive_bytes: 0,
                ..spec()
            };
            let layout = Layout::new(&spec, disk(8 * GIB)).unwrap();
            assert_eq!((layout.label, layout.root_is_active), (wanted, active));
            assert_eq!(roles(&layout), partitions);
        }
        let large = LayoutSpec {
            root_bytes: 3 << 40,
            ..spec()
        };
        assert_eq!(Layout::new(&large, disk(4 << 40)).unwrap().label, Gpt);
        let forced = LayoutSpec {
            label: Some(Msdos),
            ..large
        };
        assert_eq!(
            Layout::new(&forced, disk(4 << 40)).unwrap_err().kind(),
            Kind::Limit
        );
        let five = LayoutSpec {
            local_boot: true,
            boot_mode: Uefi,
            label: Some(Msdos),
            ..spec()
        };
        let error = Layout::new(&five, disk(8 * GIB)).unwrap_err();
        assert!(error.message().contains("4 partitions, not 5"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_told_with_both_sizes() {
        let error = Layout::new(&spec(), disk(6 * GIB)).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        assert_eq!(error.details()["needed_bytes"], 6658 * MIB);
        assert_eq!(error.details()["disk_bytes"], 6 * GIB - MIB);
        let exact = disk(6659 * MIB);
        Layout::new(&spec(), exact).unwrap();
        let empty = LayoutSpec {
            root_bytes: 0,
            ..spec()
        };
        assert_eq!(
            Layout::new(&empty, exact).unwrap_err().kind(),
            Kind::Invalid
        );
        let endless = LayoutSpec {
            swap_bytes: u64::MAX,
            ..spec()
        };
        assert_eq!(
            Layout::new(&endless, exact).unwrap_err().kind(),
            Kind::Limit
        );
    }

    #[test]
    fn preserving_needs_the_same_partitions() {
        let layout = Layout::new(&spec(), disk(8 * GIB)).unwrap();
        let partition = |p: &Planned| Partition {
            number: p.number,
            offset: p.offset,
            bytes: p.bytes,
            kind: "0x83".to_owned(),
            name: String::new(),
        };
        let mut found = DiskLayout {
            label: Label::Msdos,
            boot_signature: true,
            disk_identifier: String::new(),
            partitions: layout.partitions.iter().map(partition).collect(),
        };
        layout.check_preserves(&found).unwrap();
        found.partitions[3].bytes += MIB;
        layout.check_preserves(&found).unwrap();
        found.partitions[0].bytes += MIB;
        let error = layout.check_preserves(&found).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.message().contains("partition 1 has"), "{error}");
        found.label = Label::None;
        assert!(layout.check_preserves(&found).is_err());
        let none = LayoutSpec {
            ephemeral_bytes: 0,
            ..spec()
        };
        let none = Layout::new(&none, disk(8 * GIB)).unwrap();
        assert!(
            none.check_preserves(&found)
                .unwrap_err()
                .message()
                .contains("ephemeral_gb is 0")
        );
    }
}
