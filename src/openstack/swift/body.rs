//! What an upload sends: a part of a file or a boot medium, which a thread of its own reads or
//! writes, and hashes, while it is sent; or a segment, which shares the thread with others.

use super::segment_reader::SegmentReader;
use crate::buffer::{Buffer, Pool};
use crate::error::{Error, Kind, Result};
use crate::image::iso::Iso;
use bytes::Bytes;
use futures_util::Stream;
use md5::{Digest, Md5};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{self, Sender};

/// Bytes that are read, hashed and sent together; three or four such chunks are in memory.
const CHUNK: u64 = CHUNK_BYTES as u64;
const CHUNK_BYTES: usize = 1 << 20;

/// What is kept is what some uploads at once take.
static BUFFERS: Pool = Pool::new(CHUNK_BYTES, 16);

/// What is sent chunk by chunk, from its beginning at each attempt.
#[derive(Clone)]
pub(super) enum Streamed {
    File(Span),
    Iso(Arc<Iso>),
    /// A part of a file, read and hashed beside others.
    Segment(Span, SegmentReader),
}

impl Streamed {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::File(span) | Self::Segment(span, _) => span.bytes,
            Self::Iso(iso) => iso.bytes(),
        }
    }

    /// What an attempt sends; the MD5, unless it is not asked for, or the failure is left in
    /// `progress`. Whoever drops it ends the reading or writing.
    pub(super) fn body(&self, progress: &Arc<Progress>, unchecked: bool) -> reqwest::Body {
        let bytes = self.bytes();
        let progress = Arc::clone(progress);
        match self.clone() {
            Self::File(span) => {
                let read = move |chunks: &mut Chunks| chunks.read(&span);
                reqwest::Body::wrap_stream(stream(bytes, read, progress, unchecked))
            }
            Self::Iso(iso) => {
                let write = move |chunks: &mut Chunks| iso.write(chunks);
                reqwest::Body::wrap_stream(stream(bytes, write, progress, unchecked))
            }
            Self::Segment(span, reader) => {
                reqwest::Body::wrap_stream(reader.stream(span, progress, unchecked))
            }
        }
    }
}

/// The bytes, which `fill` hands over.
fn stream(
    bytes: u64,
    fill: impl FnOnce(&mut Chunks) -> Result<()> + Send + 'static,
    progress: Arc<Progress>,
    unchecked: bool,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    // One chunk is filled, one waits here, one is being sent.
    let (sender, receiver) = mpsc::channel(1);
    let mut chunks = Chunks {
        left: bytes,
        chunk: None,
        md5: (!unchecked).then(Md5::new),
        sender,
        progress: Arc::clone(&progress),
    };
    tokio::task::spawn_blocking(move || {
        if let Err(error) = fill(&mut chunks) {
            chunks.fail(error);
        }
    });
    futures_util::stream::unfold((receiver, progress), |(mut receiver, progress)| async {
        let chunk = receiver.recv().await?;
        if let Ok(chunk) = &chunk {
            progress.took(chunk);
        }
        Some((chunk, (receiver, progress)))
    })
}

/// A part of a file.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Span {
    pub(super) async fn whole(file: &Path) -> Result<Self> {
        let found = tokio::fs::metadata(file).await;
        let found = found.map_err(|e| Error::io(file, "read", &e))?;
        Ok(Self {
            file: file.to_owned(),
            offset: 0,
            bytes: found.len(),
        })
    }

    /// The file, where the part begins.
    pub(super) fn open(&self) -> Result<File> {
        let opened = File::open(&self.file).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            Ok(file)
        });
        opened.map_err(|e| self.failed(&e))
    }

    /// Reads what comes next in the file.
    pub(super) fn read(&self, mut file: &File, chunk: &mut [u8]) -> Result<()> {
        file.read_exact(chunk).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                let shorter = "the file became shorter while it was uploaded";
                self.failed(&io::Error::new(e.kind(), shorter))
            }
            _ => self.failed(&e),
        })
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io(&self.file, "read", error)
    }
}

/// How far an attempt is, seen from outside the stream.
#[derive(Debug, Default)]
pub(super) struct Progress {
    sent: AtomicU64,
    outcome: Mutex<Outcome>,
}

#[derive(Debug, Default)]
struct Outcome {
    md5: Option<String>,
    failure: Option<Error>,
}

impl Progress {
    /// Resolves when nothing was taken from the stream for `limit`.
    pub(super) async fn stalled(&self, limit: Duration) -> Error {
        let mut before = self.sent.load(Ordering::Relaxed);
        loop {
            tokio::time::sleep(limit).await;
            let now = self.sent.load(Ordering::Relaxed);
            if now == before {
                let message = format!("no progress for {} s after {now} bytes", limit.as_secs());
                return Error::new(Kind::Timeout, message).retryable(true);
            }
            before = now;
        }
    }

    fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A chunk was taken from the stream.
    pub(super) fn took(&self, chunk: &Bytes) {
        self.sent.fetch_add(length(chunk), Ordering::Relaxed);
    }

    /// All is hashed. Said before the last chunk is handed over: hyper stops at the announced
    /// length and need not come for the end.
    pub(super) fn complete(&self, md5: &[u8]) {
        self.outcome().md5 = Some(hex::encode(md5));
    }

    /// The bytes cannot be had. What the stream ends with instead is only for hyper.
    pub(super) fn fail(&self, failure: Error) -> io::Error {
        let end = io::Error::other(failure.message().to_owned());
        self.outcome().failure = Some(failure);
        end
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        self.outcome().failure.take()
    }

    pub(super) fn take_md5(&self) -> Option<String> {
        self.outcome().md5.take()
    }
}

/// Takes what is read or written, hashes it and hands it over chunk by chunk.
struct Chunks {
    /// Bytes that are not handed over yet.
    left: u64,
    /// What is being written, and how much of it is.
    chunk: Option<(Buffer, usize)>,
    md5: Option<Md5>,
    sender: Sender<io::Result<Bytes>>,
    progress: Arc<Progress>,
}

impl Chunks {
    fn read(&mut self, span: &Span) -> Result<()> {
        let file = span.open()?;
        while self.left > 0 {
            let mut chunk = BUFFERS.take(self.left.min(CHUNK));
            span.read(&file, &mut chunk)?;
            self.hand_over(chunk).map_err(|e| span.failed(&e))?;
        }
        Ok(())
    }

    fn hand_over(&mut self, chunk: Buffer) -> io::Result<()> {
        self.left = self.left.saturating_sub(length(&chunk));
        if let Some(md5) = &mut self.md5 {
            md5.update(&chunk);
        }
        if self.left == 0
            && let Some(md5) = self.md5.take()
        {
            self.progress.complete(&md5.finalize());
        }
        let sent = self.sender.blocking_send(Ok(chunk.freeze()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Tells why the bytes end here, unless it is because nobody wants them any more.
    fn fail(&self, error: Error) {
        if !self.sender.is_closed() {
            let end = self.progress.fail(error);
            // Whoever is gone by now needs no reason.
            self.sender.blocking_send(Err(end)).ok();
        }
    }
}

impl Write for Chunks {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let (mut chunk, filled) = match self.chunk.take() {
            Some(begun) => begun,
            None => (BUFFERS.take(self.left.min(CHUNK)), 0),
        };
        let (_, room) = chunk.split_at_mut(filled);
        let taken = room.len().min(buffer.len());
        let (into, _) = room.split_at_mut(taken);
        let (from, _) = buffer.split_at(taken);
        into.copy_from_slice(from);
        let filled = filled + taken;
        if filled == chunk.len() {
            self.hand_over(chunk)?;
        } else {
            self.chunk = Some((chunk, filled));
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    async fn sent(
        content: &[u8],
        offset: u64,
        bytes: u64,
        unchecked: bool,
    ) -> (io::Result<Vec<Bytes>>, Arc<Progress>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, content).unwrap();
        let progress = Arc::new(Progress::default());
        let part = Span {
            file: file.path().to_owned(),
            offset,
            bytes,
        };
        let read = move |chunks: &mut Chunks| chunks.read(&part);
        let stream = stream(bytes, read, Arc::clone(&progress), unchecked);
        (stream.try_collect().await, progress)
    }

    #[tokio::test]
    async fn streams_and_hashes_what_was_announced() {
        let content: Vec<u8> = (0..2_500_000_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        for (offset, announced) in [(0, 1), (0, 1 << 20), (0, 2_500_000), (1_100_000, 1_300_000)] {
            let (body, progress) = sent(&content, offset, announced, false).await;
            let from = usize::try_from(offset).unwrap();
            let expected = &content[from..from + usize::try_from(announced).unwrap()];
            assert!(body.unwrap().concat() == expected);
            let md5 = hex::encode(Md5::digest(expected));
            assert_eq!(progress.take_md5(), Some(md5));
            assert_eq!(progress.sent.load(Ordering::Relaxed), announced);
            let (body, progress) = sent(&content, offset, announced, true).await;
            assert!(body.unwrap().concat() == expected);
            assert_eq!(progress.take_md5(), None);
        }
    }

    #[tokio::test]
    async fn notices_a_file_that_shrinks() {
        let (body, progress) = sent(&[7; 2_000_000], 0, 2_500_000, false).await;
        assert!(body.is_err());
        let failure = progress.take_failure().unwrap();
        assert!(failure.message().contains("became shorter"), "{failure}");
        assert_eq!(progress.take_md5(), None);
    }
}
