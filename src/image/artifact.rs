//! Files that primitives built, named by their SHA-256.

use crate::error::{Error, Kind, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// A finished file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Where it is.
    pub path: PathBuf,
    /// Hash of its contents, hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// A folder of artifacts.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    folder: PathBuf,
}

impl ArtifactStore {
    /// Uses `folder`, creating it (for its owner only: floppies hold tokens).
    ///
    /// # Errors
    /// `io` if it cannot be created.
    pub fn open(folder: &Path) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| Error::io(folder, "create the artifact folder", &e))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Keeps what `write` writes. It appears under its name only when it is whole and on disk.
    ///
    /// # Errors
    /// Those of `write`, or `io`.
    pub fn put(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Artifact> {
        let failed = |e: &std::io::Error| Error::io(&self.folder, "write an artifact", e);
        let file = tempfile::NamedTempFile::new_in(&self.folder).map_err(|e| failed(&e))?;
        let mut writer = Hashing {
            inner: BufWriter::new(file),
            hash: Sha256::new(),
            bytes: 0,
        };
        write(&mut writer)?;
        writer.flush().map_err(|e| failed(&e))?;
        let (sha256, bytes) = (hex::encode(writer.hash.finalize()), writer.bytes);
        let file = writer.inner.into_inner().map_err(|e| failed(e.error()))?;
        file.as_file().sync_all().map_err(|e| failed(&e))?;
        let path = self.folder.join(&sha256);
        file.persist(&path).map_err(|e| failed(&e.error))?;
        Ok(Artifact {
            path,
            sha256,
            bytes,
        })
    }

    /// Removes an artifact; one that is not there is removed already.
    ///
    /// # Errors
    /// `invalid` if the name is not a hash, `io` if the file cannot be removed.
    pub fn remove(&self, sha256: &str) -> Result<()> {
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{sha256:?} names no artifact"),
            ));
        }
        let path = self.folder.join(sha256);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(&path, "remove the artifact", &e))
            }
            _ => Ok(()),
        }
    }
}

struct Hashing {
    inner: BufWriter<tempfile::NamedTempFile>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.bytes += u64::try_from(count).unwrap_or_default();
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_named_by_its_hash_and_appears_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(&dir.path().join("a")).unwrap();
        let artifact = store
            .put(|out| {
                let _: () = out.write_all(b"abc").unwrap();
                Ok(())
            })
            .unwrap();
        assert!(artifact.sha256.starts_with("ba7816bf") && artifact.bytes == 3);
        assert_eq!(std::fs::read(&artifact.path).unwrap(), b"abc");
        let half = store.put(|out| {
            out.write_all(b"half").unwrap();
            Err(Error::new(Kind::Io, "cut"))
        });
        assert!(half.is_err());
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        store.remove(&artifact.sha256).unwrap();
        store.remove(&artifact.sha256).unwrap();
        assert!(store.remove("../x").is_err());
    }
}
