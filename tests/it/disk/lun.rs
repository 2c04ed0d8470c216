//! A disk in a file that other tools can look at.

use bytes::Bytes;
use flowrun::disk::Lun;
use flowrun::error::{Error, Result};
use futures_util::future::BoxFuture;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// As a disk behind a thin target: it makes holes of what is zeroed.
pub(crate) struct FileLun {
    file: File,
    path: PathBuf,
    blocks: u64,
    block: u32,
}

impl FileLun {
    pub(crate) fn empty(path: &Path, bytes: u64, block: u32) -> Self {
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .unwrap();
        file.set_len(bytes).unwrap();
        Self {
            file,
            path: path.to_owned(),
            blocks: bytes / u64::from(block),
            block,
        }
    }

    pub(crate) fn full_of_old_data(path: &Path, bytes: u64, block: u32) -> Self {
        let lun = Self::empty(path, bytes, block);
        let old = vec![0xaa; 1 << 20];
        let mut at = 0;
        while at < bytes {
            let count = old.len().min(usize::try_from(bytes - at).unwrap());
            lun.file.write_all_at(&old[..count], at).unwrap();
            at += 1 << 20;
        }
        lun
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn put(&self, offset: u64, data: &[u8]) {
        self.file.write_all_at(data, offset).unwrap();
    }

    fn range(&self, lba: u64, bytes: u64) -> u64 {
        let block = u64::from(self.block);
        assert!(bytes.is_multiple_of(block), "part of a block");
        assert!(lba + bytes / block <= self.blocks, "beyond the disk");
        lba * block
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::io(&self.path, "use the disk", error)
    }
}

impl Lun for FileLun {
    fn block_bytes(&self) -> u32 {
        self.block
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn write(&self, lba: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let at = self.range(lba, data.len() as u64);
            self.file
                .write_all_at(&data, at)
                .map_err(|e| self.failed(&e))
        })
    }

    fn read(&self, lba: u64, blocks: u32) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move {
            let bytes = u64::from(blocks) * u64::from(self.block);
            let mut data = vec![0; usize::try_from(bytes).unwrap()];
            let at = self.range(lba, bytes);
            self.file
                .read_exact_at(&mut data, at)
                .map_err(|e| self.failed(&e))?;
            Ok(data.into())
        })
    }

    fn write_zeroes(&self, lba: u64, blocks: u64) -> BoxFuture<'_, Result<()>> {
        use rustix::fs::{FallocateFlags, fallocate};
        Box::pin(async move {
            let bytes = blocks * u64::from(self.block);
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&self.file, hole, self.range(lba, bytes), bytes)
                .map_err(|e| self.failed(&e.into()))
        })
    }

    fn zeroes_are_cheap(&self) -> bool {
        true
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.file.sync_all().map_err(|e| self.failed(&e)) })
    }
}
