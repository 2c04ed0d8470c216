//! What a disk says about itself: boot signature, partition table.

use crate::error::{Error, Kind, Result};
use crc32fast::hash as crc32;
use serde::{Deserialize, Serialize};

/// Random access to a disk's bytes.
pub trait ReadAt {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// If the disk ends before, or cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

impl ReadAt for std::fs::File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
            .map_err(|e| Error::new(Kind::Io, "cannot read the disk").caused_by(&e))
    }
}

/// Kind of partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// UEFI's.
    Gpt,
    /// The PC's.
    Msdos,
    /// There is none.
    None,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// From 1.
    pub number: u32,
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// GPT: type GUID; msdos: `0x83`.
    pub kind: String,
    /// GPT: its name.
    pub name: String,
}

/// What a disk says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskLayout {
    /// Kind of partition table.
    pub label: Label,
    /// Whether sector 0 ends with 55 AA: firmware in BIOS mode starts it.
    pub boot_signature: bool,
    /// GPT: disk GUID; msdos: the four bytes at 440 as `0x%08x`.
    pub disk_identifier: String,
    /// In the order of the table.
    pub partitions: Vec<Partition>,
}

/// Reads the partition table of a disk with sectors of `block` bytes. A GPT whose
/// checksums are wrong is an error and not a disk without one.
///
/// # Errors
/// `corrupt` for a broken GPT; else the disk's failure.
pub fn inspect(disk: &dyn ReadAt, block: u32) -> Result<DiskLayout> {
    let block = u64::from(block);
    let mut sector = [0_u8; 512];
    disk.read_at(0, &mut sector)?;
    let boot_signature = sector.ends_with(&[0x55, 0xAA]);
    let mut header = [0_u8; 512];
    let has_header = disk.read_at(block, &mut header).is_ok() && header.starts_with(b"EFI PART");
    if has_header {
        return read_gpt(disk, block, &header, boot_signature);
    }
    if !boot_signature {
        let (label, disk_identifier) = (Label::None, String::new());
        return Ok(DiskLayout {
            label,
            boot_signature,
            disk_identifier,
            partitions: Vec::new(),
        });
    }
    Ok(read_msdos(&sector, block))
}

fn read_msdos(sector: &[u8], block: u64) -> DiskLayout {
    let partitions: Vec<_> = (0..4_u32)
        .filter_map(|index| {
            let at = 446 + usize::try_from(index).ok()? * 16;
            let kind = *sector.get(at + 4)?;
            let (start, count) = (le32(sector, at + 8), le32(sector, at + 12));
            (kind != 0 && count != 0).then(|| Partition {
                number: index + 1,
                offset: u64::from(start) * block,
                bytes: u64::from(count) * block,
                kind: format!("0x{kind:02x}"),
                name: String::new(),
            })
        })
        .collect();
    DiskLayout {
        label: Label::Msdos,
        boot_signature: true,
        disk_identifier: format!("0x{:08x}", le32(sector, 440)),
        partitions,
    }
}

/// UEFI 2.10 §5.3: header with CRC-32 of itself and of the entries.
fn read_gpt(
    disk: &dyn ReadAt,
    block: u64,
    sector: &[u8],
    boot_signature: bool,
) -> Result<DiskLayout> {
    let broken = |what: &str| Error::new(Kind::Corrupt, format!("GPT: {what}"));
    let size = usize::try_from(le32(sector, 12)).unwrap_or(0);
    let mut header = sector
        .get(..size)
        .filter(|h| h.len() >= 92)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| broken("header size"))?;
    let stated = le32(&header, 16);
    header
        .get_mut(16..20)
        .map(|crc| crc.fill(0))
        .ok_or_else(|| broken("header size"))?;
    if crc32(&header) != stated {
        return Err(broken("header checksum"));
    }
    let (count, entry_size) = (le32(&header, 80), le32(&header, 84));
    let table_bytes = u64::from(count) * u64::from(entry_size);
    if !(128..=4096).contains(&entry_size) || table_bytes > 1 << 20 {
        return Err(broken("size of the table"));
    }
    let mut table = vec![0; usize::try_from(table_bytes).unwrap_or(0)];
    let at = le64(&header, 72)
        .checked_mul(block)
        .ok_or_else(|| broken("place of the table"))?;
    disk.read_at(at, &mut table)?;
    if crc32(&table) != le32(&header, 88) {
        return Err(broken("checksum of the table"));
    }
    let entries = table.chunks_exact(usize::try_from(entry_size).unwrap_or(128));
    let partitions = (1_u32..)
        .zip(entries)
        .filter_map(|(number, entry)| gpt_entry(number, entry, block))
        .collect();
    Ok(DiskLayout {
        label: Label::Gpt,
        boot_signature,
        disk_identifier: guid(header.get(56..72).unwrap_or_default()),
        partitions,
    })
}

fn gpt_entry(number: u32, entry: &[u8], block: u64) -> Option<Partition> {
    let kind = entry
        .get(..16)
        .filter(|kind| kind.iter().any(|b| *b != 0))?;
    let (first, last) = (le64(entry, 32), le64(entry, 40));
    let name = entry.get(56..128).unwrap_or_default().chunks_exact(2);
    let name = name.map(|unit| match unit {
        [low, high] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    });
    let name = char::decode_utf16(name.take_while(|unit| *unit != 0));
    Some(Partition {
        number,
        offset: first.checked_mul(block)?,
        bytes: last
            .checked_sub(first)?
            .checked_add(1)?
            .checked_mul(block)?,
        kind: guid(kind),
        name: name
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
    })
}

/// The first three fields of a GUID are little-endian.
fn guid(bytes: &[u8]) -> String {
    uuid::Uuid::from_slice_le(bytes)
        .map(|id| id.to_string())
        .unwrap_or_default()
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(buffer.len());
            match self.0.get(start..end) {
                Some(bytes) => {
                    let _: () = buffer.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(Error::new(Kind::Io, "end of disk")),
            }
        }
    }

    #[test]
    fn reads_a_msdos_table() {
        let mut disk = vec![0; 1024];
        disk[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
        disk[450] = 0x83;
        disk[454] = 8; // first sector
        disk[458] = 16; // sectors
        disk[510..512].copy_from_slice(&[0x55, 0xAA]);
        let layout = inspect(&Bytes(disk), 512).unwrap();
        assert_eq!(
            (layout.label, layout.disk_identifier.as_str()),
            (Label::Msdos, "0x12345678")
        );
        assert_eq!(
            (layout.partitions[0].offset, layout.partitions[0].bytes),
            (4096, 8192)
        );
    }

    #[test]
    fn an_empty_disk_has_no_label() {
        assert_eq!(
            inspect(&Bytes(vec![0; 1024]), 512).unwrap().label,
            Label::None
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 1024..3000)) {
            let _ = inspect(&Bytes(bytes.clone()), 512);
            bytes[512..520].copy_from_slice(b"EFI PART");
            bytes[524..528].copy_from_slice(&92_u32.to_le_bytes());
            let _ = inspect(&Bytes(bytes), 512);
        }
    }
}
