//! Writes an image onto a LUN.

use super::manifest::Manifest;
use super::read::{self, Piece};
use super::{Guard, Lun, OnProgress, Progress};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::image::source::ImageSource;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How to write.
#[derive(Clone)]
pub struct WriteOptions {
    /// Bytes of one write.
    pub transfer_bytes: usize,
    /// Writes under way at once.
    pub queue_depth: usize,
    /// Hears of progress.
    pub progress: OnProgress,
    /// Asked before every write.
    pub guard: Guard,
}

impl std::fmt::Debug for WriteOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteOptions")
            .field("transfer_bytes", &self.transfer_bytes)
            .field("queue_depth", &self.queue_depth)
            .finish_non_exhaustive()
    }
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            transfer_bytes: 256 << 10,
            queue_depth: 8,
            progress: Arc::new(|_| {}),
            guard: Guard::default(),
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Written {
    /// Size of the image.
    pub virtual_bytes: u64,
    /// Bytes sent.
    pub data_bytes: u64,
    /// Bytes that the disk was told to zero.
    pub zero_bytes: u64,
    /// Time from the first read of the image to the end of the flush.
    pub seconds: f64,
    /// What [`super::verify`] checks the disk against.
    pub manifest: Manifest,
}

/// Writes a whole-disk image from sector 0 and flushes. Holes of the image become zeros on the
/// disk. Memory in flight is a few pieces, whatever the size of the image.
///
/// # Errors
/// `limit` if the image is larger than the disk; else the first failure of image, guard or disk.
///
/// # Cancel
/// A drop leaves a disk that is written in part.
pub async fn write_whole_disk_image(
    lun: &dyn Lun,
    source: Arc<ImageSource>,
    options: &WriteOptions,
) -> Result<Written> {
    let began = clock::instant();
    let virtual_bytes = source.info().virtual_bytes;
    check_fits(lun, virtual_bytes)?;
    let mut progress = Progress {
        done_bytes: 0,
        total_bytes: virtual_bytes,
    };
    let mut pieces = read::pieces(source, lun.block_bytes());
    let mut written = Written {
        virtual_bytes,
        data_bytes: 0,
        zero_bytes: 0,
        seconds: 0.0,
        manifest: Manifest {
            virtual_bytes,
            pieces: Vec::new(),
        },
    };
    while let Some(piece) = pieces.recv().await {
        let piece = piece?;
        write_piece(lun, &piece, options).await?;
        match piece.data {
            Some(_) => written.data_bytes += piece.length,
            None => written.zero_bytes += piece.length,
        }
        written.manifest.pieces.push(piece.hash);
        progress.done_bytes += piece.length;
        (options.progress)(progress);
    }
    if progress.done_bytes != virtual_bytes {
        return Err(Error::new(Kind::Internal, "the image's reader ended early"));
    }
    lun.flush().await?;
    written.seconds = began.elapsed().as_secs_f64();
    Ok(written)
}

fn check_fits(lun: &dyn Lun, image: u64) -> Result<()> {
    let disk = lun.blocks().saturating_mul(u64::from(lun.block_bytes()));
    if image <= disk {
        return Ok(());
    }
    let message = format!("the image needs {image} bytes and the disk has {disk}");
    Err(Error::new(Kind::Limit, message)
        .detail("image_bytes", image)
        .detail("disk_bytes", disk)
        .hint("use a smaller image or a larger disk"))
}

async fn write_piece(lun: &dyn Lun, piece: &Piece, options: &WriteOptions) -> Result<()> {
    let block = u64::from(lun.block_bytes());
    let Some(data) = &piece.data else {
        (options.guard.0)()?;
        return lun
            .write_zeroes(piece.offset / block, piece.length.div_ceil(block))
            .await;
    };
    let step = options
        .transfer_bytes
        .next_multiple_of(usize::try_from(block).unwrap_or(1));
    let mut rest = data.clone();
    let mut lba = piece.offset / block;
    let mut going = FuturesUnordered::new();
    while !rest.is_empty() {
        if going.len() >= options.queue_depth {
            going.next().await.transpose()?;
        }
        (options.guard.0)()?;
        let chunk: Bytes = rest.split_to(step.min(rest.len()));
        let blocks = u64::try_from(chunk.len()).unwrap_or(0) / block;
        going.push(lun.write(lba, chunk));
        lba += blocks;
    }
    while let Some(done) = going.next().await {
        done?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::verify;
    use super::*;
    use futures_util::future::BoxFuture;
    use std::os::unix::fs::FileExt;
    use std::sync::Mutex;

    /// A disk in memory, full of old data, that can fail at a block.
    pub(in crate::disk) struct MemoryLun {
        pub(in crate::disk) bytes: Mutex<Vec<u8>>,
        block: u32,
        bad: Option<u64>,
    }

    impl MemoryLun {
        pub(in crate::disk) fn new(size: usize, block: u32, bad: Option<u64>) -> Self {
            Self {
                bytes: Mutex::new(vec![0xAA; size]),
                block,
                bad,
            }
        }

        fn range(&self, lba: u64, length: usize) -> std::ops::Range<usize> {
            let start = usize::try_from(lba * u64::from(self.block)).unwrap();
            start..start + length
        }
    }

    impl Lun for MemoryLun {
        fn block_bytes(&self) -> u32 {
            self.block
        }
        fn blocks(&self) -> u64 {
            self.bytes.lock().unwrap().len() as u64 / u64::from(self.block)
        }
        fn write(&self, lba: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                let end = lba + data.len() as u64 / u64::from(self.block);
                if self.bad.is_some_and(|bad| (lba..end).contains(&bad)) {
                    return Err(Error::new(Kind::Io, "medium error"));
                }
                self.bytes.lock().unwrap()[self.range(lba, data.len())].copy_from_slice(&data);
                Ok(())
            })
        }
        fn read(&self, lba: u64, blocks: u32) -> BoxFuture<'_, Result<Bytes>> {
            let range = self.range(lba, (blocks * self.block) as usize);
            Box::pin(async move { Ok(Bytes::copy_from_slice(&self.bytes.lock().unwrap()[range])) })
        }
        fn write_zeroes(&self, lba: u64, blocks: u64) -> BoxFuture<'_, Result<()>> {
            let length = usize::try_from(blocks * u64::from(self.block)).unwrap();
            Box::pin(async move {
                self.bytes.lock().unwrap()[self.range(lba, length)].fill(0);
                Ok(())
            })
        }
        fn flush(&self) -> BoxFuture<'_, Result<()>> {
            Box::pin(async { Ok(()) })
        }
    }

    /// 17 MiB and 100 bytes: data at both ends, a hole between.
    pub(in crate::disk) fn image() -> (tempfile::NamedTempFile, Arc<ImageSource>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len((17 << 20) + 100).unwrap();
        file.as_file().write_all_at(&[1; 700_000], 0).unwrap();
        file.as_file().write_all_at(&[2; 100], 17 << 20).unwrap();
        let source = Arc::new(ImageSource::open(file.path(), None).unwrap());
        (file, source)
    }

    #[tokio::test]
    async fn writes_data_and_zeros_and_verifies() {
        for block in [512, 4096] {
            let (file, source) = image();
            let lun = MemoryLun::new(32 << 20, block, None);
            let written = write_whole_disk_image(&lun, source, &WriteOptions::default())
                .await
                .unwrap();
            let image = std::fs::read(file.path()).unwrap();
            assert!(lun.bytes.lock().unwrap()[..image.len()] == image);
            assert_eq!(
                lun.bytes.lock().unwrap()[20 << 20],
                0xAA,
                "beyond the image nothing is touched"
            );
            assert_eq!(written.zero_bytes, 12 << 20);
            verify(&lun, &written.manifest, &WriteOptions::default())
                .await
                .unwrap();
            lun.bytes.lock().unwrap()[8 << 20] = 1;
            let error = verify(&lun, &written.manifest, &WriteOptions::default())
                .await
                .unwrap_err();
            assert_eq!(
                (error.kind(), &error.details()["offset"]),
                (Kind::Corrupt, &(8 << 20).into())
            );
        }
    }

    #[tokio::test]
    async fn stops_at_the_first_failure() {
        let (_file, source) = image();
        let small = MemoryLun::new(16 << 20, 512, None);
        let error = write_whole_disk_image(&small, source.clone(), &WriteOptions::default())
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), &error.details()["disk_bytes"]),
            (Kind::Limit, &(16 << 20).into())
        );
        let bad = MemoryLun::new(32 << 20, 512, Some(1000));
        let error = write_whole_disk_image(&bad, source.clone(), &WriteOptions::default())
            .await
            .unwrap_err();
        assert_eq!(error.message(), "medium error");
        let lost = Guard(Arc::new(|| Err(Error::new(Kind::Conflict, "lease lost"))));
        let lun = MemoryLun::new(32 << 20, 512, None);
        let options = WriteOptions {
            guard: lost,
            ..WriteOptions::default()
        };
        assert!(
            write_whole_disk_image(&lun, source, &options)
                .await
                .is_err()
        );
        assert!(
            lun.bytes.lock().unwrap().iter().all(|b| *b == 0xAA),
            "nothing was written"
        );
    }
}
