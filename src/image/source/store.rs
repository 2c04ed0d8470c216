//! Keeps a stream as a sparse file, hashed on its way.

use super::{PIECE_BYTES, decompressed, fill, is_zero};
use crate::error::{Error, Kind, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Smallest run of zeros that becomes a hole.
const HOLE_BYTES: usize = 64 << 10;

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256 of the stream as it came, in hex.
    pub sha256: String,
    /// Length of the stream as it came.
    pub stream_bytes: u64,
    /// Length of the file, decompressed if the stream was compressed.
    pub bytes: u64,
}

/// Reads a stream to its end and writes what it holds, decompressed, into a new file with holes
/// for zeros. Blocks; the memory in use is a few pieces.
///
/// # Errors
/// `limit` for more than `max_bytes`; `corrupt` for a stream that does not decompress; `io`.
pub fn store(stream: impl Read + Send, to: &Path, max_bytes: u64) -> Result<Stored> {
    let failed = |e: std::io::Error| Error::io(to, "write the image", &e);
    let file = File::create_new(to).map_err(failed)?;
    let counted = Counted::default();
    let mut tee = Tee {
        stream,
        counted: counted.clone(),
    };
    let mut bytes = 0_u64;
    {
        let (_, mut content) = decompressed(&mut tee)?;
        let mut buffer = vec![0; usize::try_from(PIECE_BYTES).unwrap_or(usize::MAX)];
        loop {
            let count = fill(&mut content, &mut buffer).map_err(|e| {
                Error::new(
                    Kind::Corrupt,
                    format!("the image breaks off after {bytes} bytes"),
                )
                .caused_by(&e)
            })?;
            if count == 0 {
                break;
            }
            for chunk in buffer.get(..count).unwrap_or_default().chunks(HOLE_BYTES) {
                if !is_zero(chunk) {
                    file.write_all_at(chunk, bytes).map_err(failed)?;
                }
                bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            }
            if bytes > max_bytes {
                let message = format!("the image holds more than {max_bytes} bytes");
                return Err(Error::new(Kind::Limit, message));
            }
        }
    }
    // A decoder may stop before the end of the stream; the hash covers all of it.
    std::io::copy(&mut tee, &mut std::io::sink())
        .map_err(|e| Error::new(Kind::Io, "cannot read the image").caused_by(&e))?;
    file.set_len(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let (hash, stream_bytes) = counted.take();
    Ok(Stored {
        sha256: hex::encode(hash.finalize()),
        stream_bytes,
        bytes,
    })
}

#[derive(Clone, Default)]
struct Counted(Arc<Mutex<(Sha256, u64)>>);

impl Counted {
    fn add(&self, bytes: &[u8]) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.0.update(bytes);
        counted.1 += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    }

    fn take(&self) -> (Sha256, u64) {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Hashes what passes.
struct Tee<R> {
    stream: R,
    counted: Counted,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.counted.add(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn keeps_holes_and_hashes_what_came() {
        let mut content = vec![0; 9 << 20];
        content[5 << 20] = 1;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&content).unwrap();
        let packed = packed.finish().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (stream, name) in [(&content, "raw"), (&packed, "gz")] {
            let to = folder.path().join(name);
            let stored = store(&stream[..], &to, 9 << 20).unwrap();
            assert_eq!(stored.sha256, hex::encode(Sha256::digest(stream)));
            assert_eq!(stored.stream_bytes, stream.len() as u64);
            assert_eq!(stored.bytes, 9 << 20);
            assert!(std::fs::read(&to).unwrap() == content);
            assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
            let error = store(&stream[..], &folder.path().join("small"), 4 << 20).unwrap_err();
            assert_eq!(error.kind(), Kind::Limit);
            std::fs::remove_file(folder.path().join("small")).unwrap();
        }
        let cut = store(
            &packed[..packed.len() / 2],
            &folder.path().join("cut"),
            9 << 20,
        );
        assert_eq!(cut.unwrap_err().kind(), Kind::Corrupt);
    }
}
