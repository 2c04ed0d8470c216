//! Reads parts of a disk.

use super::plan::inspect::ReadAt;
use super::{Lun, WriteOptions};
use crate::error::{Error, Kind, Result};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};

/// Reads bytes that begin at a block, several reads at a time.
pub(super) async fn read_range(
    lun: &dyn Lun,
    offset: u64,
    length: u64,
    options: &WriteOptions,
) -> Result<Bytes> {
    let block = u64::from(lun.block_bytes());
    let step = u64::try_from(options.transfer_bytes).unwrap_or(u64::MAX) / block;
    let first = offset / block;
    let end = first + length.div_ceil(block);
    let starts = (first..end).step_by(usize::try_from(step.max(1)).unwrap_or(1));
    let reads = starts.map(|lba| {
        let blocks = u32::try_from(step.max(1).min(end - lba)).unwrap_or(u32::MAX);
        lun.read(lba, blocks)
    });
    let chunks: Vec<Bytes> = stream::iter(reads)
        .buffered(options.queue_depth)
        .try_collect()
        .await?;
    let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
    chunks
        .iter()
        .for_each(|chunk| whole.extend_from_slice(chunk));
    whole.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    Ok(whole.freeze())
}

/// The first bytes of a disk, as much as a partition table takes.
#[derive(Debug)]
pub struct Head(Bytes);

/// Reads the first 64 KiB of a disk.
///
/// # Errors
/// The disk's.
pub async fn read_head(lun: &dyn Lun) -> Result<Head> {
    const HEAD_BYTES: u64 = 64 << 10;
    let wanted = (HEAD_BYTES / u64::from(lun.block_bytes())).min(lun.blocks());
    Ok(Head(lun.read(0, u32::try_from(wanted).unwrap_or(1)).await?))
}

impl ReadAt for Head {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.0.get(start..start.saturating_add(buffer.len())) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::new(
                Kind::Corrupt,
                "the table lies beyond the first 64 KiB",
            )),
        }
    }
}
