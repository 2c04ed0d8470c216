//! Ranges of any length, cut to commands.

use super::line::is_illegal;
use super::session::Session;
use crate::iscsi::error::Failure;
use crate::iscsi::proto::session::Transfer;
use crate::iscsi::proto::{self, PeerMisbehaved};
use crate::iscsi::scsi::{Cdb, Sense, VENDOR, unmap_list};
use crate::keyed_hash::{HASH_BYTES, HashKey};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::sync::atomic::Ordering;

/// Length of one transfer in bytes. Each costs a target a few wake-ups: tgt takes a tenth less of
/// the processor than with 256 KiB. Of 1 MiB too few would be in flight.
const TRANSFER: usize = 512 * 1024;

/// Length of the first transfer if there is enough data.
///
/// A target on glibc, as tgt, maps and unmaps a buffer for each command until it has once freed a
/// larger one, which halves its speed.
const FIRST_TRANSFER: u64 = 1024 * 1024;

/// Calls of one method that run at a time; the budget bounds them further.
const CONCURRENCY: usize = 16;

/// Bytes that one command may zero, by WRITE SAME or UNMAP: what Linux asks for at most. A disk
/// that cannot unmap has them written before it answers, and the answer has a deadline. For the
/// same reason a session has one such command under way.
const LARGEST_ZERO: u64 = 32 << 20;

/// The same while data is under way: targets that keep the disk in a file, as tgt, write nothing
/// while they zero, and what is in flight lasts for about a millisecond.
const LARGEST_ZERO_BESIDE_DATA: u64 = 4 << 20;

static ZEROS: [u8; TRANSFER] = [0; TRANSFER];

impl Session {
    pub(super) async fn write_pieces(&self, lba: u64, mut data: Bytes) -> Result<(), Failure> {
        let block_bytes = self.block_bytes();
        let bytes = data.len() as u64;
        if !bytes.is_multiple_of(block_bytes) {
            let text = format!("{bytes} bytes are not whole blocks of {block_bytes}");
            return Err(Failure::InvalidArgument(text));
        }
        self.check_range(lba, bytes / block_bytes)?;
        let (mut next, usual) = (self.first_transfer(lba, bytes), self.transfer_blocks());
        let limit = move || std::mem::replace(&mut next, usual);
        let writes = pieces(lba, bytes / block_bytes, limit).map(|(lba, blocks)| {
            let length = usize::try_from(u64::from(blocks) * block_bytes).unwrap_or(usize::MAX);
            let piece = data.split_to(length.min(data.len()));
            let force = false;
            (Cdb::Write { lba, blocks, force }, Transfer::Out(piece))
        });
        self.write_all(writes).await
    }

    pub(super) async fn read_pieces(&self, lba: u64, blocks: u32) -> Result<Bytes, Failure> {
        self.check_range(lba, u64::from(blocks))?;
        let block_bytes = self.block_bytes();
        let length_of = |blocks: u32| u64::from(blocks) * block_bytes;
        let transfer = self.transfer_blocks();
        let mut reads = stream::iter(pieces(lba, u64::from(blocks), || transfer))
            .map(|(lba, blocks)| async move {
                let length = u32::try_from(length_of(blocks)).unwrap_or(u32::MAX);
                let cdb = Cdb::Read { lba, blocks };
                let data = self.run("READ", cdb, Transfer::In(length)).await?;
                if data.len() as u64 != u64::from(length) {
                    let what = PeerMisbehaved::Data("a read gave fewer bytes than asked for");
                    return Err(proto::Error::from(what).into());
                }
                Ok(data)
            })
            .buffered(CONCURRENCY);
        if blocks <= transfer {
            return reads.next().await.unwrap_or_else(|| Ok(Bytes::new()));
        }
        let mut all = BytesMut::with_capacity(usize::try_from(length_of(blocks)).unwrap_or(0));
        while let Some(data) = reads.next().await {
            all.extend_from_slice(&data?);
        }
        Ok(all.freeze())
    }

    /// `None` if the unit cannot.
    pub(super) async fn hash_piece(
        &self,
        key: HashKey,
        lba: u64,
        bytes: u32,
    ) -> Result<Option<[u8; HASH_BYTES]>, Failure> {
        let info = self.lun_info();
        if info.vendor != VENDOR {
            return Ok(None);
        }
        self.check_range(lba, u64::from(bytes).div_ceil(self.block_bytes()))?;
        let hash = || {
            let length = u32::try_from(HASH_BYTES).unwrap_or(u32::MAX);
            self.run("HASH", Cdb::Hash { lba, bytes }, Transfer::In(length))
        };
        let mut hashed = hash().await;
        // A session begins without a key, and another one begins when this one was lost.
        let keyless = Sense::COMMAND_SEQUENCE_ERROR;
        if matches!(&hashed, Err(Failure::Scsi { sense, .. }) if *sense == keyless) {
            let key = Transfer::Out(Bytes::copy_from_slice(&key.0));
            self.run("HASH KEY", Cdb::HashKey, key).await?;
            hashed = hash().await;
        }
        match hashed {
            Ok(hash) => match hash.as_ref().try_into() {
                Ok(hash) => Ok(Some(hash)),
                Err(_) => {
                    let what = PeerMisbehaved::Data("a hash is not of 32 bytes");
                    Err(proto::Error::from(what).into())
                }
            },
            // An earlier one of ours.
            Err(failure) if is_illegal(&failure) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn zero_pieces(&self, lba: u64, blocks: u64) -> Result<(), Failure> {
        self.check_range(lba, blocks)?;
        let info = self.lun_info();
        let block_bytes = self.block_bytes();
        let zeros = |blocks: u32| {
            let length = usize::try_from(u64::from(blocks) * block_bytes).unwrap_or(usize::MAX);
            Bytes::from_static(ZEROS.get(..length).unwrap_or(&ZEROS))
        };
        if info.unmap_zeroes && !self.shared.no_write_same.load(Ordering::Relaxed) {
            let limit = || self.zero_blocks(info.limits.max_write_same);
            let same = pieces(lba, blocks, limit).map(|(lba, blocks)| {
                let (unmap, no_data) = (true, false);
                let cdb = Cdb::WriteSame {
                    lba,
                    blocks,
                    unmap,
                    no_data,
                };
                (cdb, Transfer::Out(zeros(1)))
            });
            match self.zero_in_turn("WRITE SAME(16)", same).await {
                Err(failure) if is_illegal(&failure) => {
                    self.shared.no_write_same.store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        let transfer = self.transfer_blocks();
        let writes = pieces(lba, blocks, || transfer).map(|(lba, blocks)| {
            let force = false;
            (
                Cdb::Write { lba, blocks, force },
                Transfer::Out(zeros(blocks)),
            )
        });
        self.write_all(writes).await
    }

    pub(super) async fn unmap_pieces(&self, lba: u64, blocks: u64) -> Result<(), Failure> {
        self.check_range(lba, blocks)?;
        let info = self.lun_info();
        if !info.can_unmap {
            return Ok(());
        }
        let limit = || self.zero_blocks(u64::from(info.limits.max_unmap));
        let unmaps = pieces(lba, blocks, limit).map(|(lba, blocks)| {
            let list = unmap_list(lba, blocks);
            let length = u16::try_from(list.len()).unwrap_or(0);
            (Cdb::Unmap { length }, Transfer::Out(list))
        });
        self.zero_in_turn("UNMAP", unmaps).await
    }

    /// Runs commands that zero or unmap, one after the other and none of another call between.
    async fn zero_in_turn(
        &self,
        name: &'static str,
        commands: impl Iterator<Item = (Cdb, Transfer)> + Send,
    ) -> Result<(), Failure> {
        let _turn = self.shared.zeroing.lock().await;
        for (cdb, transfer) in commands {
            self.run(name, cdb, transfer).await?;
        }
        Ok(())
    }

    /// Runs writes, several at a time, until all are done or one fails.
    async fn write_all(
        &self,
        commands: impl Iterator<Item = (Cdb, Transfer)> + Send,
    ) -> Result<(), Failure> {
        stream::iter(commands)
            .map(|(cdb, transfer)| async move { self.run("WRITE", cdb, transfer).await.map(drop) })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
    }

    fn block_bytes(&self) -> u64 {
        u64::from(self.lun_info().block_bytes)
    }

    /// Blocks of one read or write.
    fn transfer_blocks(&self) -> u32 {
        let blocks = TRANSFER as u64 / self.block_bytes();
        at_most(blocks, u64::from(self.lun_info().limits.max_transfer))
    }

    /// Blocks of one command that zeroes, of which the unit allows so many.
    fn zero_blocks(&self, allowed: u64) -> u32 {
        let largest = if self.bytes_in_flight() < TRANSFER as u64 {
            LARGEST_ZERO
        } else {
            LARGEST_ZERO_BESIDE_DATA
        };
        at_most(largest / self.block_bytes(), allowed)
    }

    /// Blocks of the first piece of a write. After it pieces begin at physical blocks, so that
    /// none but the ends makes the disk read before it writes.
    fn first_transfer(&self, lba: u64, bytes: u64) -> u32 {
        let usual = self.transfer_blocks();
        if bytes < FIRST_TRANSFER || self.shared.primed.swap(true, Ordering::Relaxed) {
            let info = self.lun_info();
            let physical = info.physical_block_bytes / u64::from(info.block_bytes).max(1);
            let over = u32::try_from(lba % physical.max(1)).unwrap_or(0);
            return usual
                .checked_sub(over)
                .filter(|first| *first > 0)
                .unwrap_or(usual);
        }
        let blocks = FIRST_TRANSFER / self.block_bytes();
        at_most(blocks, u64::from(self.lun_info().limits.max_transfer))
    }

    fn check_range(&self, lba: u64, blocks: u64) -> Result<(), Failure> {
        let size = self.lun_info().blocks;
        if lba.checked_add(blocks).is_none_or(|end| end > size) {
            let text = format!("{blocks} blocks at {lba} are beyond the disk's {size}");
            return Err(Failure::InvalidArgument(text));
        }
        Ok(())
    }
}

/// Cuts a range to pieces, each of at most the blocks that `limit` says when it is its turn.
fn pieces(
    mut lba: u64,
    mut blocks: u64,
    mut limit: impl FnMut() -> u32 + Send,
) -> impl Iterator<Item = (u64, u32)> + Send {
    std::iter::from_fn(move || {
        let piece = u32::try_from(blocks).unwrap_or(u32::MAX).min(limit());
        let at = lba;
        lba += u64::from(piece);
        blocks -= u64::from(piece);
        (piece > 0).then_some((at, piece))
    })
}

/// The smaller of what we want and what the unit allows, where 0 means no limit; never 0.
fn at_most(wanted: u64, limit: u64) -> u32 {
    let blocks = if limit == 0 {
        wanted
    } else {
        wanted.min(limit)
    };
    u32::try_from(blocks).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_the_range_once(lba in 0u64..1 << 40, blocks in 0u64..100_000,
                                       first in 1u32..5000, usual in 1u32..5000) {
            let (mut next, mut limit) = (lba, first);
            let limit = move || std::mem::replace(&mut limit, usual);
            for (number, (at, length)) in pieces(lba, blocks, limit).enumerate() {
                prop_assert_eq!(at, next);
                let limit = if number == 0 { first } else { usual };
                prop_assert!(length <= limit);
                next += u64::from(length);
            }
            prop_assert_eq!(next, lba + blocks);
        }
    }

    #[test]
    fn limits_of_zero_mean_none() {
        assert_eq!(at_most(512, 0), 512);
        assert_eq!(at_most(512, 128), 128);
        assert_eq!(at_most(0, 0), 1);
        assert_eq!(at_most(1 << 40, 0), u32::MAX);
    }
}
