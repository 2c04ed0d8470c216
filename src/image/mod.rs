//! Disk images in, boot media out: qcow2 and raw sources, FAT floppies, ISO images.
//!
//! Bytes and files only. Everything here is synchronous; callers run it in blocking threads.

pub mod artifact;
pub mod bootsector;
pub mod checksum;
pub mod configdrive;
pub mod efi_program;
pub mod esp;
pub mod filesystem;
pub mod iso;
pub mod loader;
pub mod source;
pub mod vfat;
mod vfat_disk;
