//! Partitions a disk and writes a partition image into its root partition.

use super::mkfs::{self, FileSystemKind, sparse_file};
use super::plan::inspect::{Label, inspect};
use super::plan::{Layout, LayoutSpec, MIB, Overlay, Planned, Role, partition_table, swap_header};
use super::write::{Segment, too_large, write_segments};
use super::{Lun, WriteOptions, Written, read_head};
use crate::error::{Error, Kind, Result};
use crate::image::esp::format_esp;
use crate::image::filesystem::{self, identify};
use crate::image::loader::DiskLoader;
use crate::image::source::ImageSource;
use std::sync::Arc;
use uuid::Uuid;

/// What a node wants on its disk besides the image.
#[derive(Debug, Clone)]
pub struct PartitionImage {
    /// Boot mode, kind of table, sizes; `configdrive_bytes` is filled in.
    pub layout: LayoutSpec,
    /// What the ephemeral partition gets.
    pub ephemeral_format: FileSystemKind,
    /// Keeps table and ephemeral partition of the last deployment.
    pub preserve_ephemeral: bool,
    /// Content of the config drive; empty for none.
    pub configdrive: Vec<u8>,
    /// What starts the image from this disk; absent: something else does.
    pub loader: Option<DiskLoader>,
    /// Names the disk and what is made on it; the same for every attempt.
    pub identity: Uuid,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct PartitionsWritten {
    /// Sizes, and the proof for [`super::verify`].
    pub written: Written,
    /// What a kernel's `root=UUID=` needs; `None` if the image has no file system that we know.
    pub root_uuid: Option<String>,
    /// Serial number of the EFI system partition, as `/dev/disk/by-uuid` names it.
    pub efi_system_uuid: Option<String>,
    /// GPT: disk GUID; msdos: the four bytes at 440 as `0x%08x`.
    pub disk_identifier: String,
    /// What lies where.
    pub partitions: Vec<Planned>,
}

/// Writes table, file systems and image, and flushes. Signatures of what was on the disk before
/// are wiped at the ends of disk and partitions. With `preserve_ephemeral` the disk must have the
/// very partitions that would be made; table and ephemeral partition are not touched then.
///
/// # Errors
/// `limit` with both sizes for what does not fit, before anything is written if the image tells
/// its size; `conflict` if there is nothing to preserve; `not_found` if the tool that makes the
/// ephemeral file system is missing; else the first failure of image, guard or disk.
///
/// # Cancel
/// A drop leaves a disk that is written in part.
pub async fn write_partition_image(
    lun: &dyn Lun,
    source: Arc<ImageSource>,
    wanted: &PartitionImage,
    options: &WriteOptions,
) -> Result<PartitionsWritten> {
    let disk = lun.geometry();
    let mut spec = wanted.layout.clone();
    spec.configdrive_bytes = u64::try_from(wanted.configdrive.len()).unwrap_or(u64::MAX);
    let layout = Layout::new(&spec, disk)?;
    let root = layout.find(Role::Root).map_or(0, |root| root.bytes);
    let size = source.info().virtual_bytes;
    if size.is_some_and(|size| size > root) {
        return Err(too_large(size, root));
    }
    let disk_identifier;
    let mut contents = Contents::default();
    if wanted.preserve_ephemeral {
        let found = inspect(&read_head(lun).await?, disk.block_bytes)?;
        layout.check_preserves(&found)?;
        disk_identifier = found.disk_identifier;
    } else {
        let table = partition_table(&layout, disk, wanted.identity)?;
        contents.segments.push(Segment::zeros(0, MIB));
        contents.overlays = table.overlays;
        contents.boots_by_sector = layout.label == Label::Msdos;
        disk_identifier = table.disk_identifier;
    }
    let (made, planned) = (wanted.clone(), layout.partitions.clone());
    let (image, block) = (source.clone(), disk.block_bytes);
    let mut contents = tokio::task::spawn_blocking(move || {
        contents
            .add(&made, &planned, &image, block)
            .map(|()| contents)
    })
    .await
    .map_err(|e| Error::new(Kind::Internal, "preparing ended").caused_by(&e))??;
    if !wanted.preserve_ephemeral {
        let tail = disk.bytes() - MIB;
        contents.segments.push(Segment::zeros(tail, MIB));
    }
    let written = write_segments(lun, contents.segments, &contents.overlays, options).await?;
    let efi = layout.find(Role::EfiSystem).is_some();
    Ok(PartitionsWritten {
        written,
        root_uuid: contents.root_uuid,
        efi_system_uuid: efi.then(|| {
            let (high, low) = (wanted.serial() >> 16, wanted.serial() & 0xffff);
            format!("{high:04X}-{low:04X}")
        }),
        disk_identifier,
        partitions: layout.partitions,
    })
}

impl PartitionImage {
    /// Serial number of the EFI system partition.
    fn serial(&self) -> u32 {
        let (serial, ..) = self.identity.as_fields();
        serial
    }

    /// Names one of the things made on the disk.
    fn name(&self, role: Role) -> Uuid {
        let mut bytes = *self.identity.as_bytes();
        // Role names a byte that is neither version nor variant.
        let [.., last] = &mut bytes;
        *last ^= match role {
            Role::Swap => 1,
            _ => 2,
        };
        Uuid::from_bytes(bytes)
    }
}

/// What goes onto the disk, in the order of the disk.
#[derive(Debug, Default)]
struct Contents {
    segments: Vec<Segment>,
    overlays: Vec<Overlay>,
    root_uuid: Option<String>,
    /// Whether the table is one by which a BIOS starts the active partition.
    boots_by_sector: bool,
}

impl Contents {
    /// Adds what each partition gets. Blocks.
    fn add(
        &mut self,
        wanted: &PartitionImage,
        partitions: &[Planned],
        image: &Arc<ImageSource>,
        block: u32,
    ) -> Result<()> {
        let head = image.head(filesystem::HEAD_BYTES)?;
        self.root_uuid = identify(&head).and_then(|found| found.uuid);
        let esp_files = self.start_by(wanted, &head)?;
        for planned in partitions {
            let Planned { offset, bytes, .. } = *planned;
            match planned.role {
                Role::EfiSystem => {
                    let file = sparse_file(bytes)?;
                    format_esp(file.path(), bytes, wanted.serial(), &esp_files)?;
                    self.image(planned, Arc::new(mkfs::opened(&file)?));
                }
                Role::BiosBoot => self.segments.push(Segment::zeros(offset, bytes)),
                Role::Ephemeral if wanted.preserve_ephemeral => {}
                Role::Ephemeral => {
                    let name = wanted.name(Role::Ephemeral);
                    let made = mkfs::make(wanted.ephemeral_format, bytes, name)?;
                    self.image(planned, Arc::new(made));
                }
                Role::Swap => {
                    self.segments.push(Segment::zeros(offset, MIB));
                    let bytes = swap_header(bytes, wanted.name(Role::Swap));
                    self.overlays.push(Overlay { offset, bytes });
                }
                Role::ConfigDrive => {
                    self.segments.push(Segment::zeros(offset, bytes));
                    let content = wanted.configdrive.clone();
                    self.overlays.push(Overlay::padded(offset, content, block));
                }
                Role::Root => {
                    self.image(planned, image.clone());
                    self.segments
                        .push(Segment::zeros(offset + bytes - MIB, MIB));
                }
            }
        }
        Ok(())
    }

    /// Puts the loader in sector 0, or answers what of it goes on the EFI system partition.
    fn start_by(
        &mut self,
        wanted: &PartitionImage,
        head: &[u8],
    ) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let unsupported = |message: &str| {
            Error::new(Kind::Unsupported, message).hint(
                "boot it by netboot (capability boot_option:netboot), or deploy a whole-disk image",
            )
        };
        let Some(loader) = &wanted.loader else {
            return Ok(Vec::new());
        };
        let Some(code) = loader.boot_code()? else {
            let no_uuid = || unsupported("the image's file system has no UUID that GRUB finds");
            return loader.esp_files(self.root_uuid.as_ref().ok_or_else(no_uuid)?);
        };
        if wanted.preserve_ephemeral {
            return Ok(Vec::new());
        }
        if head.get(510..512) != Some(&[0x55, 0xAA]) {
            let message = "the image has no boot sector that a BIOS could start from the disk";
            return Err(unsupported(message));
        }
        let sector = self.overlays.iter_mut().find(|overlay| overlay.offset == 0);
        let place = sector.and_then(|overlay| overlay.bytes.get_mut(..code.len()));
        match place.filter(|_| self.boots_by_sector) {
            Some(place) => place.copy_from_slice(&code),
            None => {
                return Err(unsupported(
                    "a BIOS starts partitions of a msdos table alone",
                ));
            }
        }
        Ok(Vec::new())
    }

    fn image(&mut self, planned: &Planned, image: Arc<ImageSource>) {
        self.segments.push(Segment {
            offset: planned.offset,
            bytes: planned.bytes,
            image: Some(image),
        });
    }
}
