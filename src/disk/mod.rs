//! Image to LUN: writing, verifying, looking at what a disk holds.

mod feed;
pub mod manifest;
mod mkfs;
mod partition_image;
pub mod plan;
mod read;
mod session;
mod verify;
mod whole_disk;
mod write;

pub use feed::Feeds;
pub use manifest::Manifest;
pub use mkfs::FileSystemKind;
pub use partition_image::{PartitionImage, PartitionsWritten, write_partition_image};
pub use plan::inspect;
pub use read::{Head, read_head};
pub use verify::{Verified, verify};
pub use whole_disk::{WholeDisk, WholeDiskWritten, write_whole_disk_image};
pub use write::{WriteOptions, Written};

use crate::error::Result;
use crate::keyed_hash::{HASH_BYTES, HashKey};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// A disk behind a command queue. Calls may overlap; the implementation bounds what is in flight.
pub trait Lun: Send + Sync {
    /// Size of a block in bytes.
    fn block_bytes(&self) -> u32;
    /// Number of blocks.
    fn blocks(&self) -> u64;
    /// Writes whole blocks.
    fn write(&self, lba: u64, data: Bytes) -> BoxFuture<'_, Result<()>>;
    /// Reads whole blocks.
    fn read(&self, lba: u64, blocks: u32) -> BoxFuture<'_, Result<Bytes>>;
    /// The hash of bytes from the beginning of a block on, taken where the disk is; `None` where
    /// nobody there can.
    fn hash(
        &self,
        _key: HashKey,
        _lba: u64,
        _bytes: u32,
    ) -> BoxFuture<'_, Result<Option<[u8; HASH_BYTES]>>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Makes blocks read as zeros, without sending them where the disk can do that.
    fn write_zeroes(&self, lba: u64, blocks: u64) -> BoxFuture<'_, Result<()>>;
    /// Whether zeroing costs next to nothing, so that short runs of zeros are worth a command.
    fn zeroes_are_cheap(&self) -> bool {
        false
    }
    /// Waits until everything written is on the medium.
    fn flush(&self) -> BoxFuture<'_, Result<()>>;
}

impl dyn Lun + '_ {
    fn geometry(&self) -> plan::Geometry {
        plan::Geometry {
            blocks: self.blocks(),
            block_bytes: self.block_bytes(),
        }
    }
}

/// How far a long operation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the disk that are done, holes included.
    pub done_bytes: u64,
    /// Bytes of the disk to do.
    pub total_bytes: u64,
}

/// Hears of progress.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Asked before every chunk; an error stops the writer. It is how a writer that lost its lease
/// learns that the disk is somebody else's now.
#[derive(Clone)]
pub struct Guard(pub Arc<dyn Fn() -> Result<()> + Send + Sync>);

impl Default for Guard {
    fn default() -> Self {
        Self(Arc::new(|| Ok(())))
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}
