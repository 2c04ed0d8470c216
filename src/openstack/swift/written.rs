//! A boot medium as the body of an upload: written by a thread of its own while it is sent.

use super::upload::{CHUNK, Progress};
use crate::image::iso::Iso;
use bytes::Bytes;
use futures_util::{Stream, stream};
use md5::{Digest, Md5};
use std::io::{self, Write};
use std::sync::Arc;
use tokio::sync::mpsc::{self, Sender};

/// The bytes of the medium; the MD5 or the failure is left in `progress`. Whoever drops the
/// stream ends the writing.
pub(super) fn stream_iso(
    iso: Arc<Iso>,
    progress: Arc<Progress>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    // One chunk is filled, one waits here, one is being sent.
    let (sender, receiver) = mpsc::channel(1);
    let writing = Arc::clone(&progress);
    tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks {
            left: iso.bytes(),
            chunk: Vec::new(),
            md5: Md5::new(),
            sender,
            progress: writing,
        };
        if let Err(error) = iso.write(&mut chunks) {
            chunks.fail(error);
        }
    });
    stream::unfold((receiver, progress), |(mut receiver, progress)| async {
        let chunk = receiver.recv().await?;
        if let Ok(chunk) = &chunk {
            progress.took(chunk);
        }
        Some((chunk, (receiver, progress)))
    })
}

/// Cuts what is written into chunks, hashes them and hands them over.
struct Chunks {
    /// Bytes of the medium that are not in a chunk yet.
    left: u64,
    chunk: Vec<u8>,
    md5: Md5,
    sender: Sender<io::Result<Bytes>>,
    progress: Arc<Progress>,
}

impl Chunks {
    fn hand_over(&mut self) -> io::Result<()> {
        self.md5.update(&self.chunk);
        if self.left == 0 {
            self.progress.complete(&self.md5);
        }
        let chunk = std::mem::take(&mut self.chunk).into();
        let sent = self.sender.blocking_send(Ok(chunk));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Tells why the medium ends here, unless it is because nobody wants it any more.
    fn fail(&self, error: crate::error::Error) {
        if !self.sender.is_closed() {
            let end = self.progress.fail(error);
            // Whoever is gone by now needs no reason.
            self.sender.blocking_send(Err(end)).ok();
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.chunk.capacity() == 0 {
            let size = usize::try_from(self.left.min(CHUNK)).unwrap_or_default();
            self.chunk = Vec::with_capacity(size);
        }
        let room = CHUNK.saturating_sub(length(&self.chunk)).min(self.left);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let (taken, _) = buffer.split_at(room.min(buffer.len()));
        self.chunk.extend_from_slice(taken);
        self.left -= length(taken);
        if taken.len() == room {
            self.hand_over()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
