//! Partition tables as bytes.

use super::inspect::Label;
use super::{Geometry, Layout, MIB, Role};
use crate::error::{Error, Kind, Result};
use hadris_part::{
    Disk, DiskLayout, GptEntry, Guid, MbrEntry, MbrType, PartitionFlags, PartitionName,
    PartitionSpec, PartitionTable, Size, TableError, gpt::types,
};
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};
use std::convert::Infallible;
use uuid::Uuid;

/// Bytes that belong at a place of the disk, whatever else is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// First byte.
    pub offset: u64,
    /// Whole blocks.
    pub bytes: Vec<u8>,
}

impl Overlay {
    /// Bytes that are filled up with zeros to whole blocks.
    #[must_use]
    pub fn padded(offset: u64, mut bytes: Vec<u8>, block: u32) -> Self {
        let block = usize::try_from(block).unwrap_or(512);
        bytes.resize(bytes.len().next_multiple_of(block), 0);
        Self { offset, bytes }
    }
}

/// A table ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePlan {
    /// Its bytes, at both ends of the disk.
    pub overlays: Vec<Overlay>,
    /// GPT: disk GUID; msdos: the four bytes at 440 as `0x%08x`.
    pub disk_identifier: String,
    /// First byte and length of the config drive that was added.
    pub configdrive: Option<(u64, u64)>,
}

/// Ironic's size of a config drive beside a whole-disk image.
const CONFIGDRIVE_BYTES: u64 = 64 * MIB;
/// msdos tables end at 2 TiB.
const MSDOS_BLOCKS: u64 = 1 << 32;
const SIGNATURE: std::ops::Range<usize> = 440..444;

/// The table of a disk that gets a partition image; `identity` names the disk.
///
/// # Errors
/// `limit` if the table does not fit.
pub fn partition_table(layout: &Layout, disk: Geometry, identity: Uuid) -> Result<TablePlan> {
    let block = block_size(disk)?;
    let is_gpt = layout.label == Label::Gpt;
    let mut table = if is_gpt {
        DiskLayout::gpt(guid(identity))
    } else {
        DiskLayout::mbr()
    };
    for planned in &layout.partitions {
        let size = Size::Bytes(planned.bytes);
        let mut spec = if is_gpt {
            let (kind, name) = gpt_kind(planned.role);
            PartitionSpec::new(kind, size).with_name(name)
        } else {
            PartitionSpec::new(msdos_kind(planned.role), size)
        };
        if planned.role == Role::Root && layout.root_is_active {
            spec = spec.with_flags(PartitionFlags::BOOTABLE);
        }
        table = table.partition(spec.with_start(planned.offset / u64::from(disk.block_bytes)));
    }
    let table = table.build(disk.blocks, block).map_err(|e| failed(&e))?;
    let mut overlays = overlays(&table, disk);
    let mut disk_identifier = identity.to_string();
    if !is_gpt {
        let [.., a, b, c, d] = *identity.as_bytes();
        let signature = [a, b, c, d | 1];
        let sector = overlays.iter_mut().find(|o| o.offset == 0);
        if let Some(place) = sector.and_then(|o| o.bytes.get_mut(SIGNATURE)) {
            place.copy_from_slice(&signature);
        }
        disk_identifier = format!("0x{:08x}", u32::from_le_bytes(signature));
    }
    Ok(TablePlan {
        overlays,
        disk_identifier,
        configdrive: None,
    })
}

fn gpt_kind(role: Role) -> (Guid, &'static str) {
    match role {
        Role::EfiSystem => (types::EFI_SYSTEM, "efi-part"),
        Role::BiosBoot => (types::BIOS_BOOT, "bios-boot"),
        Role::Ephemeral => (types::LINUX_FILESYSTEM, "ephemeral0"),
        Role::Swap => (types::LINUX_SWAP, "swap1"),
        Role::ConfigDrive => (types::LINUX_FILESYSTEM, "config-2"),
        Role::Root => (types::LINUX_FILESYSTEM, "root"),
    }
}

fn msdos_kind(role: Role) -> MbrType {
    match role {
        Role::EfiSystem => MbrType::EFI_SYSTEM,
        Role::Swap => MbrType::LINUX_SWAP,
        Role::BiosBoot | Role::Ephemeral | Role::ConfigDrive | Role::Root => MbrType::LINUX,
    }
}

/// What a whole-disk image's table becomes on a larger disk: its second GPT copy at the disk's
/// end, and a config drive if `configdrive_bytes` is not 0. `head` is the image's first MiB or
/// more. `None` if the image has no table and nothing is to be added.
///
/// # Errors
/// `corrupt` for a damaged table; `unsupported` for an image of other sectors than the disk's, or
/// without room for a config drive; `limit` for a config drive of more than 64 MiB.
pub fn whole_disk_table(
    head: &[u8],
    disk: Geometry,
    configdrive_bytes: u64,
    identity: Uuid,
) -> Result<Option<TablePlan>> {
    if configdrive_bytes > CONFIGDRIVE_BYTES {
        let message = format!("the config drive has {configdrive_bytes} bytes, more than 64 MiB");
        return Err(Error::new(Kind::Limit, message));
    }
    check_sectors(head, disk)?;
    let is_partitioned = head.get(510..512) == Some(&[0x55, 0xAA]);
    if !is_partitioned && configdrive_bytes == 0 {
        return Ok(None);
    }
    let signature = head.get(SIGNATURE).unwrap_or_default();
    let signature = signature.try_into().map_or(0, u32::from_le_bytes);
    let signature = format!("0x{signature:08x}");
    if !has_gpt(head, disk) && configdrive_bytes == 0 {
        return Ok(Some(TablePlan {
            overlays: Vec::new(),
            disk_identifier: signature,
            configdrive: None,
        }));
    }
    let mut device = Head {
        bytes: head,
        disk,
        block: block_size(disk)?,
    };
    let mut table = hadris_part::sync::read(&mut device).map_err(|e| {
        let message = format!("the image's partition table cannot be read: {e:?}");
        Error::new(Kind::Corrupt, message)
    })?;
    let mut configdrive = None;
    let end = disk.blocks.saturating_sub(1);
    let in_place = match table.table() {
        PartitionTable::Gpt(gpt) => gpt.backup_lba() == end,
        PartitionTable::Hybrid(hybrid) => hybrid.gpt().backup_lba() == end,
        _ => false,
    };
    if let PartitionTable::Gpt(gpt) = table.table_mut() {
        gpt.relocate_backup(disk.blocks).map_err(|e| failed(&e))?;
    } else if let PartitionTable::Hybrid(hybrid) = table.table_mut() {
        let moved = hybrid.gpt_mut().relocate_backup(disk.blocks);
        moved.map_err(|e| failed(&e))?;
    }
    if configdrive_bytes > 0 {
        configdrive = Some(add_configdrive(&mut table, disk, identity)?);
    }
    let disk_identifier = match table.table() {
        PartitionTable::Gpt(gpt) => text(gpt.disk_guid()),
        PartitionTable::Hybrid(hybrid) => text(hybrid.gpt().disk_guid()),
        _ => signature,
    };
    let unchanged = in_place && configdrive.is_none();
    Ok(Some(TablePlan {
        overlays: if unchanged {
            Vec::new()
        } else {
            overlays(&table, disk)
        },
        disk_identifier,
        configdrive,
    }))
}

fn has_gpt(head: &[u8], disk: Geometry) -> bool {
    let at = usize::try_from(disk.block_bytes).unwrap_or(512);
    head.get(at..at + 8) == Some(b"EFI PART")
}

/// A table counts sectors: on a disk with others it points at the wrong places.
fn check_sectors(head: &[u8], disk: Geometry) -> Result<()> {
    let gpt_at = |at: usize| head.get(at..at + 8) == Some(b"EFI PART");
    let image = match (gpt_at(512), gpt_at(4096)) {
        (true, _) => 512,
        (false, true) => 4096,
        (false, false) => return Ok(()),
    };
    if image == disk.block_bytes {
        return Ok(());
    }
    let message = format!(
        "the image's partition table is for sectors of {image} bytes and the disk has {}",
        disk.block_bytes
    );
    Err(Error::new(Kind::Unsupported, message).hint("use an image made for such disks"))
}

fn add_configdrive(table: &mut Disk, disk: Geometry, identity: Uuid) -> Result<(u64, u64)> {
    let block = u64::from(disk.block_bytes);
    let (aligned, length) = (MIB / block, CONFIGDRIVE_BYTES / block);
    let full = |e: &TableError| {
        Error::new(
            Kind::Unsupported,
            "there is no room for a config drive partition",
        )
        .cause(format!("{e:?}"))
        .hint("use a larger disk, or an image with fewer partitions")
    };
    let end = match table.table() {
        PartitionTable::Gpt(gpt) => gpt.last_usable() + 1,
        PartitionTable::Hybrid(hybrid) => hybrid.gpt().last_usable() + 1,
        _ => disk.blocks.min(MSDOS_BLOCKS),
    };
    let start = end.saturating_sub(length) / aligned * aligned;
    let entry = GptEntry::new(types::LINUX_FILESYSTEM, guid(identity), start, length)
        .with_name(PartitionName::new("config-2").map_err(|e| full(&e))?);
    let added = match table.table_mut() {
        PartitionTable::Gpt(gpt) => gpt.add(entry),
        PartitionTable::Hybrid(hybrid) => hybrid.gpt_mut().add(entry),
        PartitionTable::Mbr(mbr) => mbr.add(MbrEntry::new(MbrType::LINUX, start, length)),
        _ => {
            return Err(Error::new(Kind::Unsupported, "a table of an unknown kind"));
        }
    };
    added.map_err(|e| full(&e))?;
    Ok((start * block, CONFIGDRIVE_BYTES))
}

fn overlays(table: &Disk, disk: Geometry) -> Vec<Overlay> {
    let mut overlays: Vec<_> = table
        .runs()
        .map(|run| Overlay {
            offset: run.lba() * u64::from(disk.block_bytes),
            bytes: run.bytes().to_vec(),
        })
        .collect();
    overlays.sort_by_key(|overlay| overlay.offset);
    overlays
}

fn block_size(disk: Geometry) -> Result<BlockSize> {
    BlockSize::new(disk.block_bytes).ok_or_else(|| {
        let message = format!("sectors of {} bytes", disk.block_bytes);
        Error::new(Kind::Unsupported, message)
    })
}

/// UUIDs are written big-endian, GUIDs keep their first three fields little-endian.
fn guid(id: Uuid) -> Guid {
    Guid::from_bytes(id.to_bytes_le())
}

fn text(guid: Guid) -> String {
    Uuid::from_bytes_le(guid.to_bytes()).to_string()
}

fn failed(error: &TableError) -> Error {
    Error::new(
        Kind::Limit,
        format!("the partition table does not fit: {error:?}"),
    )
}

/// The first bytes of an image as a device of the disk's size; what follows is not read, so a
/// second GPT copy counts as damaged and is written anew.
struct Head<'a> {
    bytes: &'a [u8],
    disk: Geometry,
    block: BlockSize,
}

impl hadris_io::ErrorType for Head<'_> {
    type Error = Infallible;
}

impl BlockDevice for Head<'_> {
    fn block_size(&self) -> BlockSize {
        self.block
    }

    fn block_count(&self) -> u64 {
        self.disk.blocks
    }

    fn read_blocks(
        &mut self,
        first: BlockIndex,
        buffer: &mut [u8],
    ) -> Result<(), hadris_io::Error<Infallible>> {
        buffer.fill(0);
        let at = first.get().saturating_mul(u64::from(self.disk.block_bytes));
        let there = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..));
        for (to, from) in buffer.iter_mut().zip(there.unwrap_or_default()) {
            *to = *from;
        }
        Ok(())
    }
}
