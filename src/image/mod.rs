//! Disk images in, boot media out: qcow2 and raw sources, FAT floppies, ISO images.

pub mod bootsector;
pub mod iso;
