//! Writes a whole-disk image.

use super::plan::{MIB, Overlay, whole_disk_table};
use super::write::{Segment, too_large, write_segments};
use super::{Lun, WriteOptions, Written};
use crate::error::{Error, Kind, Result};
use crate::image::source::ImageSource;
use std::sync::Arc;
use uuid::Uuid;

/// What a whole-disk image gets besides itself.
#[derive(Debug, Clone, Default)]
pub struct WholeDisk {
    /// Content of a config drive partition at the disk's end; empty for none.
    pub configdrive: Vec<u8>,
    /// Moves the second copy of a GPT to the disk's end; a config drive needs it.
    pub fit_gpt: bool,
    /// Names the partition that is added; the same for every attempt.
    pub identity: Uuid,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct WholeDiskWritten {
    /// Sizes, and the proof for [`super::verify`].
    pub written: Written,
    /// GPT: disk GUID; msdos: the four bytes at 440 as `0x%08x`; empty without a table.
    pub disk_identifier: String,
}

impl std::ops::Deref for WholeDiskWritten {
    type Target = Written;

    fn deref(&self) -> &Written {
        &self.written
    }
}

/// Bytes of an image that hold its partition table.
const HEAD_BYTES: usize = 1 << 20;

/// Writes a whole-disk image from sector 0 and flushes. Holes of the image become zeros on the
/// disk, and old tables at its end are wiped.
///
/// # Errors
/// `limit` if the image is larger than the disk; those of [`whole_disk_table`]; else the first
/// failure of image, guard or disk.
///
/// # Cancel
/// A drop leaves a disk that is written in part.
pub async fn write_whole_disk_image(
    lun: &dyn Lun,
    source: Arc<ImageSource>,
    whole: &WholeDisk,
    options: &WriteOptions,
) -> Result<WholeDiskWritten> {
    let disk = lun.geometry();
    let size = source.info().virtual_bytes;
    if size.is_some_and(|size| size > disk.bytes()) {
        return Err(too_large(size, disk.bytes()));
    }
    let looking = source.clone();
    let head = tokio::task::spawn_blocking(move || looking.head(HEAD_BYTES))
        .await
        .map_err(|e| Error::new(Kind::Internal, "reading ended").caused_by(&e))??;
    let configdrive_bytes = u64::try_from(whole.configdrive.len()).unwrap_or(u64::MAX);
    let table = whole_disk_table(&head, disk, configdrive_bytes, whole.identity)?;
    drop(head); // not to be kept while the disk is written
    let mut segments = vec![Segment {
        offset: 0,
        bytes: disk.bytes(),
        image: Some(source),
    }];
    let (mut overlays, mut disk_identifier) = (Vec::new(), String::new());
    if let Some(table) = table {
        if whole.fit_gpt || !whole.configdrive.is_empty() {
            overlays = table.overlays;
        }
        disk_identifier = table.disk_identifier;
        if let Some((offset, bytes)) = table.configdrive {
            segments.push(Segment::zeros(offset, bytes));
            overlays.push(Overlay::padded(
                offset,
                whole.configdrive.clone(),
                disk.block_bytes,
            ));
        }
    }
    let tail = disk.bytes().saturating_sub(MIB);
    segments.push(Segment::zeros(tail, disk.bytes() - tail));
    let written = write_segments(lun, segments, &overlays, options).await?;
    Ok(WholeDiskWritten {
        written,
        disk_identifier,
    })
}
