//! Reads a disk back and proves that it holds what was written.

use super::manifest::{Manifest, check};
use super::read::read_range;
use super::{Lun, Progress, WriteOptions};
use crate::error::{Error, Kind, Result};

/// Compares the disk with the manifest, data and zeros alike.
///
/// # Errors
/// `corrupt` with the offset of the first piece that differs; else the disk's failure.
pub async fn verify(lun: &dyn Lun, manifest: &Manifest, options: &WriteOptions) -> Result<()> {
    let mut progress = Progress {
        done_bytes: 0,
        total_bytes: manifest.bytes(),
    };
    for (offset, length, wanted) in manifest.pieces() {
        (options.guard.0)()?;
        let bytes = read_range(lun, offset, length, options).await?;
        let wanted = wanted.to_owned();
        // Hashing is work for a processor, not for the thread that keeps the sockets busy.
        tokio::task::spawn_blocking(move || check(offset, &wanted, &bytes))
            .await
            .map_err(|e| Error::new(Kind::Internal, "hashing ended").caused_by(&e))??;
        progress.done_bytes += length;
        (options.progress)(progress);
    }
    Ok(())
}
