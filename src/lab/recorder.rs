//! Keeps a copy of what a node reads from a medium.

use super::host::Medium;
use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A medium whose copy grows with every read: as large as the medium, with holes where nobody
/// has read.
#[derive(Debug)]
pub(super) struct Recorder {
    medium: Arc<dyn Medium>,
    path: PathBuf,
    copy: Arc<File>,
}

impl Recorder {
    /// Replaces what is at `path` by an empty copy. Blocks.
    pub(super) fn new(medium: Arc<dyn Medium>, path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io(path, "write the copy of a medium", &e);
        let copy = File::create(path).map_err(failed)?;
        copy.set_len(medium.size_bytes()).map_err(failed)?;
        Ok(Self {
            medium,
            path: path.to_owned(),
            copy: Arc::new(copy),
        })
    }

    async fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        let bytes = self.medium.read_at(offset, length).await?;
        let (copy, copied) = (Arc::clone(&self.copy), bytes.clone());
        let written = tokio::task::spawn_blocking(move || copy.write_all_at(&copied, offset))
            .await
            .map_err(|e| Error::new(Kind::Internal, "the copy was not written").caused_by(&e))?;
        written.map_err(|e| Error::io(&self.path, "write the copy of a medium", &e))?;
        Ok(bytes)
    }
}

impl Medium for Recorder {
    fn size_bytes(&self) -> u64 {
        self.medium.size_bytes()
    }

    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>> {
        self.read(offset, length).boxed()
    }
}
