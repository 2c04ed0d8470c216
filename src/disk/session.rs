//! A unit behind an iSCSI session as a disk.

use super::Lun;
use crate::error::Result;
use crate::iscsi::Session;
use crate::keyed_hash::{HASH_BYTES, HashKey};
use bytes::Bytes;
use futures_util::future::BoxFuture;

impl Lun for Session {
    fn block_bytes(&self) -> u32 {
        self.lun_info().block_bytes
    }

    fn blocks(&self) -> u64 {
        self.lun_info().blocks
    }

    fn write(&self, lba: u64, data: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(Self::write(self, lba, data).await?) })
    }

    fn read(&self, lba: u64, blocks: u32) -> BoxFuture<'_, Result<Bytes>> {
        Box::pin(async move { Ok(Self::read(self, lba, blocks).await?) })
    }

    fn hash(
        &self,
        key: HashKey,
        lba: u64,
        bytes: u32,
    ) -> BoxFuture<'_, Result<Option<[u8; HASH_BYTES]>>> {
        Box::pin(async move { Ok(Self::hash(self, key, lba, bytes).await?) })
    }

    fn write_zeroes(&self, lba: u64, blocks: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(Self::write_zeroes(self, lba, blocks).await?) })
    }

    fn zeroes_are_cheap(&self) -> bool {
        self.lun_info().unmap_zeroes
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(Self::flush(self).await?) })
    }
}
