//! Proves that a disk holds what was written: by hashes taken where it is, else by reading it back.

use super::manifest::{Manifest, check};
use super::read::read_range;
use super::{Lun, Progress, WriteOptions};
use crate::error::{Error, Kind, Result};
use crate::keyed_hash::HashKey;
use futures_util::stream::{self, StreamExt, TryStreamExt};

/// How a disk was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The machine that has it hashed what it read from its medium.
    There,
    /// It was read back.
    Here,
}

/// Compares the disk with the manifest, data and zeros alike.
///
/// # Errors
/// `corrupt` with the offset of the first piece that differs; else the disk's failure.
pub async fn verify(
    lun: &dyn Lun,
    manifest: &Manifest,
    options: &WriteOptions,
) -> Result<Verified> {
    let mut progress = Progress {
        done_bytes: 0,
        total_bytes: manifest.bytes(),
    };
    let key = manifest.key;
    let mut zeros = Zeros::default();
    let mut pieces = manifest.pieces();
    let pieces = std::iter::from_fn(|| {
        let (offset, length, wanted) = pieces.next()?;
        Some(Piece {
            offset,
            length,
            wanted: wanted.to_owned(),
            hash: zeros.or(key, wanted, length),
        })
    });
    let verified = pieces.map(|piece| verify_piece(lun, key, piece, options));
    let mut pieces = stream::iter(verified).buffered(options.queue_depth);
    let mut verified = Verified::There;
    while let Some((length, how)) = pieces.try_next().await? {
        if how == Verified::Here {
            verified = how;
        }
        progress.done_bytes += length;
        (options.progress)(progress);
    }
    Ok(verified)
}

/// What a piece of the disk has to be.
struct Piece {
    offset: u64,
    length: u64,
    /// As in the manifest.
    wanted: String,
    /// Of the zeros too.
    hash: String,
}

/// The bytes are read if there is no other hash of them, and if it is another one: to say where
/// they differ.
async fn verify_piece(
    lun: &dyn Lun,
    key: HashKey,
    piece: Piece,
    options: &WriteOptions,
) -> Result<(u64, Verified)> {
    let Piece {
        offset,
        length,
        wanted,
        hash,
    } = piece;
    (options.guard.0)()?;
    let found = match u32::try_from(length) {
        Ok(bytes) => {
            lun.hash(key, offset / u64::from(lun.block_bytes()), bytes)
                .await?
        }
        Err(_) => None,
    };
    let found = found.map(hex::encode);
    if found.as_ref() == Some(&hash) {
        return Ok((length, Verified::There));
    }
    let bytes = read_range(lun, offset, length, options).await?;
    // Hashing is work for a processor, not for the thread that keeps the sockets busy.
    tokio::task::spawn_blocking(move || check(key, offset, &wanted, &bytes))
        .await
        .map_err(|e| Error::new(Kind::Internal, "hashing ended").caused_by(&e))??;
    if found.is_none() {
        return Ok((length, Verified::Here));
    }
    let message = format!(
        "the {length} bytes of the disk from byte {offset} are hashed as others there, and read \
         back as they were written"
    );
    Err(Error::new(Kind::Corrupt, message)
        .detail("offset", offset)
        .hint("check the server's disk, controller and memory, then deploy again"))
}

/// The hash of as many zeros, of which a manifest has none; most pieces are of one length.
#[derive(Debug, Default)]
struct Zeros(u64, String);

impl Zeros {
    fn or(&mut self, key: HashKey, hash: &str, length: u64) -> String {
        if !hash.is_empty() {
            return hash.to_owned();
        }
        if self.0 != length {
            let mut hasher = key.hasher();
            let zeros = [0; 64 << 10];
            let mut left = length;
            while left > 0 {
                let now = left.min(zeros.len() as u64);
                let now = usize::try_from(now).unwrap_or(zeros.len());
                hasher.update(zeros.get(..now).unwrap_or(&zeros));
                left -= now as u64;
            }
            *self = Self(length, hex::encode(hasher.finish()));
        }
        self.1.clone()
    }
}
