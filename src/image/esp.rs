//! An empty EFI system partition.

use crate::error::{Error, Kind, Result};
use fatfs::{FatType, FormatVolumeOptions};
use std::fs::File;

/// Formats a file as FAT32 as `mkfs.vfat -F 32 -n efi-part` does. The file has its size already.
///
/// # Errors
/// `io` if the file cannot be written.
pub fn format_esp(file: &File, volume_id: u32) -> Result<()> {
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(512)
        .volume_id(volume_id)
        .volume_label(*b"efi-part   ");
    fatfs::format_volume(file, options)
        .map_err(|e| Error::new(Kind::Io, "cannot format the EFI system partition").caused_by(&e))
}
