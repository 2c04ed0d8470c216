//! What a written disk must hold: a hash for each piece with data, and where zeros are.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes that one hash covers: 256 GiB make 2 MiB of hashes.
pub const PIECE_BYTES: u64 = 4 << 20;

/// The proof that [`super::verify`] checks a disk against. A piece of the disk either has the
/// SHA-256 of its bytes or is known to be zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Size of the image; the disk may be larger.
    pub virtual_bytes: u64,
    /// One for each piece in order: 64 hex digits, or empty for zeros.
    pub pieces: Vec<String>,
}

impl Manifest {
    /// Where piece `index` lies: offset and length.
    #[must_use]
    pub fn piece(&self, index: usize) -> (u64, u64) {
        let offset = u64::try_from(index)
            .unwrap_or(u64::MAX)
            .saturating_mul(PIECE_BYTES);
        (
            offset,
            self.virtual_bytes.saturating_sub(offset).min(PIECE_BYTES),
        )
    }

    /// SHA-256 over the pieces' hashes: names the contents in one line.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.virtual_bytes.to_be_bytes());
        for piece in &self.pieces {
            hash.update(piece.as_bytes());
            hash.update(b"\n");
        }
        hex::encode(hash.finalize())
    }
}

/// Checks the bytes read at `offset` against a piece's hash; empty means zeros.
pub(super) fn check(offset: u64, wanted: &str, bytes: &[u8]) -> Result<()> {
    let (at, what) = if wanted.is_empty() {
        let Some(first) = bytes.iter().position(|byte| *byte != 0) else {
            return Ok(());
        };
        let at = offset + u64::try_from(first).unwrap_or(0);
        (
            at,
            format!("byte {at} of the disk should be zero and is not"),
        )
    } else if piece_hash(bytes) == wanted {
        return Ok(());
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

/// The hash of a piece with data.
#[must_use]
pub fn piece_hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_differs() {
        let pieces = vec![piece_hash(b"abc"), String::new()];
        let manifest = Manifest {
            virtual_bytes: PIECE_BYTES + 10,
            pieces,
        };
        assert_eq!(manifest.piece(1), (PIECE_BYTES, 10));
        let (data, zeros) = (&manifest.pieces[0], &manifest.pieces[1]);
        check(0, data, b"abc").unwrap();
        check(PIECE_BYTES, zeros, &[0; 10]).unwrap();
        assert_eq!(check(0, data, b"abd").unwrap_err().details()["offset"], 0);
        let error = check(PIECE_BYTES, zeros, &[0, 0, 1]).unwrap_err();
        assert_eq!(error.details()["offset"], PIECE_BYTES + 2);
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}
