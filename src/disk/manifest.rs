//! What a written disk must hold: a hash for each piece with data, and where zeros are.

use crate::error::{Error, Kind, Result};
use crate::image::source::{PIECE_BYTES, is_zero};
use crate::keyed_hash::HashKey;
use serde::{Deserialize, Serialize};

/// The proof that [`super::verify`] checks a disk against. A piece of the disk either has the
/// hash of its bytes or is known to be zero. 64 GiB make 4 MiB of hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the hashes were made with.
    pub key: HashKey,
    /// What was written, in the order of the disk. What lies between is not ours.
    pub ranges: Vec<Range>,
}

/// A part of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// One for each [`PIECE_BYTES`], in order: 64 hex digits, or empty for zeros.
    pub pieces: Vec<String>,
}

impl Manifest {
    /// Bytes that are covered.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.bytes).sum()
    }

    /// Every piece: offset on the disk, length, hash.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, u64, &str)> {
        self.ranges.iter().flat_map(|range| {
            let starts = (0_u64..).map(|index| index.saturating_mul(PIECE_BYTES));
            starts.zip(&range.pieces).map(|(start, hash)| {
                let length = range.bytes.saturating_sub(start).min(PIECE_BYTES);
                (range.offset.saturating_add(start), length, hash.as_str())
            })
        })
    }
}

/// Checks the bytes read at `offset` against a piece's hash; empty means zeros.
pub(super) fn check(key: HashKey, offset: u64, wanted: &str, bytes: &[u8]) -> Result<()> {
    if holds(key, wanted, bytes) {
        return Ok(());
    }
    let (at, what) = if wanted.is_empty() {
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(0);
        let at = offset + u64::try_from(first).unwrap_or(0);
        (
            at,
            format!("byte {at} of the disk should be zero and is not"),
        )
    } else {
        let length = bytes.len();
        (
            offset,
            format!("the {length} bytes of the disk from byte {offset} are not what was written"),
        )
    };
    Err(Error::new(Kind::Corrupt, what)
        .detail("offset", at)
        .hint("check the server's disk and controller, then deploy again"))
}

/// Whether these bytes are what a piece's hash says; empty means zeros.
pub(super) fn holds(key: HashKey, wanted: &str, bytes: &[u8]) -> bool {
    if wanted.is_empty() {
        is_zero(bytes)
    } else {
        hex::encode(key.hash(bytes)) == wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_differs() {
        let key = HashKey([1; 16]);
        let range = Range {
            offset: 512,
            bytes: PIECE_BYTES + 10,
            pieces: vec![hex::encode(key.hash(b"abc")), String::new()],
        };
        let manifest = Manifest {
            key,
            ranges: vec![range],
        };
        let pieces: Vec<_> = manifest.pieces().collect();
        assert_eq!(pieces[1], (512 + PIECE_BYTES, 10, ""));
        let (_, _, data) = pieces[0];
        check(key, 0, data, b"abc").unwrap();
        check(key, PIECE_BYTES, "", &[0; 10]).unwrap();
        assert_eq!(
            check(key, 0, data, b"abd").unwrap_err().details()["offset"],
            0
        );
        let error = check(key, PIECE_BYTES, "", &[0, 0, 1]).unwrap_err();
        assert_eq!(error.details()["offset"], PIECE_BYTES + 2);
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}
