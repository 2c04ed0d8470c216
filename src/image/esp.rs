//! EFI system partitions.

use super::iso::failure;
use crate::error::{Error, Kind, Result};
use hadris_fat::{FatKind, FatOptions, VolumeLabel};
use hadris_fs::{Node, Tree};
use hadris_storage::host::FileDevice;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// As Ironic has it.
const LABEL: &str = "efi-part";

/// Formats a file of this size as FAT32, as `mkfs.vfat -F 32 -n efi-part` does, with files by path.
/// Blocks.
///
/// # Errors
/// `io` if the file cannot be written, `limit` if the files do not fit.
pub fn format_esp(
    path: &Path,
    bytes: u64,
    volume_id: u32,
    files: &[(&str, Vec<u8>)],
) -> Result<()> {
    let mut tree = Tree::new();
    for (name, content) in files {
        tree.insert(
            *name,
            Node::file(hadris_fs::Content::bytes(content.as_slice())),
        )
        .map_err(|error| failure(&error))?;
    }
    let label = VolumeLabel::new(LABEL).map_err(|_| Error::new(Kind::Internal, "no label"))?;
    let options = FatOptions::new()
        .with_size(bytes)
        .with_kind(FatKind::Fat32)
        .with_cluster_size(512)
        .with_serial(volume_id)
        .with_label(label);
    let failed = |e: std::io::Error| Error::io(path, "write the EFI system partition", &e);
    let file = File::options().read(true).write(true).open(path);
    let mut device = FileDevice::new(file.map_err(failed)?).map_err(failed)?;
    hadris_fat::sync::write(&mut device, &tree, &options).map_err(|error| failure(&error))?;
    keep_case(device.get_ref()).map_err(failed)
}

/// The library writes labels in upper case; Linux finds the partition as `by-label/efi-part`.
/// Microsoft's FAT specification: BS_VolLab, its copy in sector 6, and the root's first entry.
fn keep_case(file: &File) -> std::io::Result<()> {
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 0)?;
    let field = |at: usize| sector.get(at..).and_then(|rest| rest.first_chunk::<4>());
    let reserved = sector.get(14..16).and_then(|two| two.first_chunk::<2>());
    let (Some(reserved), Some(fat), Some(fats)) = (reserved, field(36), sector.get(16)) else {
        return Err(std::io::ErrorKind::InvalidData.into());
    };
    let tables = u64::from(*fats) * u64::from(u32::from_le_bytes(*fat));
    let root = (u64::from(u16::from_le_bytes(*reserved)) + tables) * 512;
    for place in [71, 6 * 512 + 71, root] {
        file.write_all_at(LABEL.as_bytes(), place)?;
    }
    Ok(())
}
