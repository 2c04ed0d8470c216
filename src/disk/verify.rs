//! Reads a disk back and proves that it holds what was written.

use super::manifest::{Manifest, PIECE_BYTES, check};
use super::{Lun, Progress, WriteOptions};
use crate::error::{Error, Kind, Result};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};

/// Compares the disk with the manifest, data and zeros alike.
///
/// # Errors
/// `corrupt` with the offset of the first piece that differs; else the disk's failure.
pub async fn verify(lun: &dyn Lun, manifest: &Manifest, options: &WriteOptions) -> Result<()> {
    let mut progress = Progress {
        done_bytes: 0,
        total_bytes: manifest.virtual_bytes,
    };
    for index in 0..manifest.pieces.len() {
        (options.guard.0)()?;
        let (offset, length) = manifest.piece(index);
        let bytes = read_piece(lun, offset, length, options).await?;
        let wanted = manifest.pieces.get(index).cloned().unwrap_or_default();
        // Hashing is work for a processor, not for the thread that keeps the sockets busy.
        tokio::task::spawn_blocking(move || check(offset, &wanted, &bytes))
            .await
            .map_err(|e| Error::new(Kind::Internal, "hashing ended").caused_by(&e))??;
        progress.done_bytes += length;
        (options.progress)(progress);
    }
    Ok(())
}

async fn read_piece(
    lun: &dyn Lun,
    offset: u64,
    length: u64,
    options: &WriteOptions,
) -> Result<Bytes> {
    let block = u64::from(lun.block_bytes());
    let step = u64::try_from(options.transfer_bytes).unwrap_or(PIECE_BYTES) / block;
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
