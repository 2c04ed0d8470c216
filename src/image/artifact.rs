//! Files that primitives built, named by their SHA-256.

use crate::error::{Error, Kind, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use tempfile::NamedTempFile;

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

    /// Keeps what `write` writes front to back. It appears under its name only when it is whole
    /// and on disk.
    ///
    /// # Errors
    /// Those of `write`, or `io`.
    pub fn put(&self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Artifact> {
        let mut file = self.temporary()?;
        let (chunks, hashed) = mpsc::sync_channel(1);
        // Beside the writing, on another core where there is one.
        let sha256 = thread::scope(|scope| {
            let hashing = scope.spawn(|| hash(hashed));
            let mut writer = Hashing {
                file: file.as_file_mut(),
                chunk: Vec::with_capacity(CHUNK),
                chunks,
            };
            write(&mut writer)?;
            writer.flush().map_err(|e| self.failed(&e))?;
            drop(writer);
            let ended = |_| Error::new(Kind::Internal, "hashing ended");
            hashing.join().map_err(ended)
        })?;
        self.keep(file, sha256)
    }

    /// Keeps what `build` makes of an empty file, in whatever order it writes.
    ///
    /// # Errors
    /// Those of `build`, or `io`.
    pub fn build(&self, build: impl FnOnce(&mut File) -> Result<()>) -> Result<Artifact> {
        let mut file = self.temporary()?;
        build(file.as_file_mut())?;
        let sha256 = hash_file(file.as_file_mut()).map_err(|e| self.failed(&e))?;
        self.keep(file, sha256)
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        Error::io(&self.folder, "write an artifact", error)
    }

    fn temporary(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(&self.folder).map_err(|e| self.failed(&e))
    }

    fn keep(&self, file: NamedTempFile, sha256: String) -> Result<Artifact> {
        let synced = file
            .as_file()
            .sync_all()
            .and_then(|()| file.as_file().metadata());
        let bytes = synced.map_err(|e| self.failed(&e))?.len();
        let path = self.folder.join(&sha256);
        file.persist(&path).map_err(|e| self.failed(&e.error))?;
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

/// Bytes written and hashed together; what is written and what is hashed fit into a cache.
const CHUNK: usize = 256 << 10;

fn hash(chunks: Receiver<Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for chunk in chunks {
        hash.update(&chunk);
    }
    hex::encode(hash.finalize())
}

fn hash_file(file: &mut File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    file.rewind()?;
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            None | Some([]) => return Ok(hex::encode(hash.finalize())),
            Some(read) => hash.update(read),
        }
    }
}

/// Collects chunks, writes them, and hands them over to be hashed.
struct Hashing<'a> {
    file: &'a mut File,
    chunk: Vec<u8>,
    chunks: SyncSender<Vec<u8>>,
}

impl Write for Hashing<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let room = CHUNK.saturating_sub(self.chunk.len());
        let (taken, _) = buffer.split_at(room.min(buffer.len()));
        self.chunk.extend_from_slice(taken);
        if taken.len() == room {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.chunk)?;
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        let handed = self.chunks.send(chunk);
        handed.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hashed_aside_is_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(dir.path()).unwrap();
        let bytes: Vec<u8> = (0..1_000_003_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        for pieces in [1, 2048, 65_536, 700_000] {
            let artifact = store.put(|out| {
                bytes
                    .chunks(pieces)
                    .for_each(|piece| out.write_all(piece).unwrap());
                Ok(())
            });
            let artifact = artifact.unwrap();
            assert!(std::fs::read(artifact.path).unwrap() == bytes);
            assert_eq!(artifact.sha256, hex::encode(Sha256::digest(&bytes)));
        }
    }

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
        let built = store.build(|file| {
            file.write_all(b"xbc").unwrap();
            file.rewind().unwrap();
            file.write_all(b"a").unwrap();
            Ok(())
        });
        assert_eq!(built.unwrap(), artifact);
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
