//! Uploads: bytes, a file or a medium, streamed, with the MD5 compared at the end.

use super::metadata::{self, Metadata};
use super::segments::{Plan, new_upload};
use super::written::stream_iso;
use super::{Doing, ObjectPath, SERVICE, Swift};
use crate::buffer::Pool;
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::image::iso::Iso;
use crate::openstack::answer::{DAMAGED, refused};
use bytes::Bytes;
use futures_util::{Stream, stream};
use md5::{Digest, Md5};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a file read, hashed and sent together; two or three such chunks are in memory.
pub(super) const CHUNK: u64 = CHUNK_BYTES as u64;
const CHUNK_BYTES: usize = 1 << 20;

/// What is kept is what the segments of one object take.
static BUFFERS: Pool = Pool::new(CHUNK_BYTES, 12);

/// What is uploaded.
#[derive(Debug, Clone)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Bytes),
    /// The file at this path, read while it is sent.
    File(PathBuf),
    /// A boot medium, written while it is sent: nothing of it is kept here.
    Iso(Arc<Iso>),
}

/// How an object is uploaded.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// How long the object lives.
    pub delete_after: Option<Duration>,
    /// What is said of it.
    pub metadata: Metadata,
    /// Its media type; absent: the server's guess.
    pub content_type: Option<String>,
    /// Creates the container first, which does no harm if it is there.
    pub create_container: bool,
    /// Who may read the container that is created, as Swift spells it (`.r:*`); absent: its owner.
    pub read_acl: Option<String>,
    /// Uploads a file longer than this as segments of this size, several at once. Absent: only
    /// files over the server's limit.
    pub segment_bytes: Option<u64>,
}

/// What the server has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// MD5 in hex, computed here and confirmed by the server: of the bytes, or of the segments'
    /// MD5s one after the other.
    pub etag: String,
    /// How many bytes.
    pub bytes: u64,
    /// `<container>/<object>` of each segment, if it was made of such.
    pub segments: Vec<String>,
}

impl Swift {
    /// Uploads an object, or replaces it. Nothing is to be seen of it before it is complete.
    /// Repeated after a lost connection: the same bytes again do no harm.
    ///
    /// # Errors
    /// `not_found` if there is no such container or file; `corrupt` if the server received other
    /// bytes than were read, in which case the object is deleted; `timeout` if it makes no
    /// progress; otherwise as any request.
    pub async fn upload(
        &self,
        container: &str,
        object: &str,
        body: Body,
        options: UploadOptions,
    ) -> Result<Uploaded> {
        let path = ObjectPath::new(container, object)?;
        let doing = path.doing("swift.upload");
        let headers = options.headers().map_err(|e| doing.name(e))?;
        if options.create_container {
            self.create_container(container, options.read_acl.as_deref())
                .await?;
        }
        let replaced = self.segments_of(doing, &path).await?;
        let uploaded = match body {
            Body::Bytes(bytes) => {
                let put = self.put_bytes(&path, headers, bytes).await?;
                self.confirmed(&path, put).await?
            }
            Body::File(file) => {
                let span = Span::whole(&file).await.map_err(|e| doing.name(e))?;
                let info = self.info(doing).await?;
                let plan = Plan::new(&path, &span, &options, info, &new_upload()?);
                match plan.map_err(|e| doing.name(e))? {
                    None => self.put_span(&path, headers, &span).await?,
                    Some(plan) => self.put_segments(&path, headers, &span, plan).await?,
                }
            }
            Body::Iso(iso) => {
                let most = self.info(doing).await?.max_file_size;
                fits(&iso, most).map_err(|e| doing.name(e))?;
                let put = self.put_stream(&path, headers, &Streamed::Iso(iso)).await?;
                self.confirmed(&path, put).await?
            }
        };
        if replaced.is_empty() && uploaded.segments.is_empty() {
            return Ok(uploaded);
        }
        let tidied = async {
            self.delete_segments(doing, replaced).await?;
            self.delete_abandoned(&path).await
        };
        if let Err(error) = tidied.await {
            tracing::warn!(%error, "segments of the replaced object are left");
        }
        Ok(uploaded)
    }

    /// Uploads a part of a file as an object.
    pub(super) async fn put_span(
        &self,
        path: &ObjectPath,
        headers: HeaderMap,
        span: &Span,
    ) -> Result<Uploaded> {
        let part = Streamed::Part(span.clone());
        let put = self.put_stream(path, headers, &part).await?;
        self.confirmed(path, put).await
    }

    /// What was sent, if the server says that it has that.
    async fn confirmed(
        &self,
        path: &ObjectPath,
        (response, sent): (Response, Uploaded),
    ) -> Result<Uploaded> {
        let doing = path.doing("swift.upload");
        if response.status() == StatusCode::NOT_FOUND {
            let error = doing.name(refused(SERVICE, response).await);
            return Err(error.hint("the container is missing; upload with create_container"));
        }
        if !response.status().is_success() && response.status() != StatusCode::UNPROCESSABLE_ENTITY
        {
            return Err(doing.name(refused(SERVICE, response).await));
        }
        let stored = metadata::etag(response.headers());
        if response.status().is_success() && stored == sent.etag {
            return Ok(sent);
        }
        Err(self.give_up(path, doing, &response, &sent, &stored).await)
    }

    /// Bytes got changed on the way. What the server took must not be found by anybody.
    async fn give_up(
        &self,
        path: &ObjectPath,
        doing: Doing<'_>,
        response: &Response,
        sent: &Uploaded,
        stored: &str,
    ) -> Error {
        let error = doing.name(
            Error::new(
                Kind::Corrupt,
                format!(
                    "{} bytes with MD5 {} were sent, the server got {stored:?}",
                    sent.bytes, sent.etag
                ),
            )
            .retryable(true)
            .hint(DAMAGED)
            .detail("status", response.status().as_u16()),
        );
        if response.status().is_success()
            && let Err(failed) = self.delete_object(doing, path).await
        {
            return error.cause(format!("and deleting it failed: {failed}"));
        }
        error
    }

    async fn put_bytes(
        &self,
        path: &ObjectPath,
        mut headers: HeaderMap,
        bytes: Bytes,
    ) -> Result<(Response, Uploaded)> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let hashed = bytes.clone();
        let etag = tokio::task::spawn_blocking(move || hex::encode(Md5::digest(&hashed)));
        let etag = etag
            .await
            .map_err(|e| Error::new(Kind::Internal, "hashing failed").caused_by(&e))?;
        headers.insert(ETAG, header(&etag)?);
        // hyper leaves it out for nothing, and Swift wants it.
        headers.insert(CONTENT_LENGTH, length.into());
        let deadline = self.transfer_deadline(length);
        let response = self
            .call(path.doing("swift.upload"), |client, session| {
                let request = client
                    .put(session.url(&path.quoted))
                    .headers(headers.clone());
                request.timeout(deadline).body(bytes.clone())
            })
            .await?;
        let sent = Uploaded {
            etag,
            bytes: length,
            segments: Vec::new(),
        };
        Ok((response, sent))
    }

    async fn put_stream(
        &self,
        path: &ObjectPath,
        mut headers: HeaderMap,
        source: &Streamed,
    ) -> Result<(Response, Uploaded)> {
        let doing = path.doing("swift.upload");
        let bytes = source.bytes();
        if bytes == 0 {
            // hyper would not touch the stream, and so nothing be hashed.
            return self.put_bytes(path, headers, Bytes::new()).await;
        }
        headers.insert(CONTENT_LENGTH, bytes.into());
        let deadline = self.transfer_deadline(bytes);
        let stall = self.options.stall_timeout;
        let last = Mutex::new(Arc::default());
        let response = self
            .attempts(doing, |session| {
                let progress = Arc::new(Progress::default());
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&progress);
                let body = source.body(&progress);
                let request = self
                    .client
                    .put(session.url(&path.quoted))
                    .headers(headers.clone());
                let sent = request
                    .header("x-auth-token", session.token())
                    .timeout(deadline)
                    .body(body)
                    .send();
                async move {
                    let answer = tokio::select! {
                        answer = sent => answer.map_err(http::no_answer),
                        error = progress.stalled(stall) => Err(error),
                    };
                    // A file that cannot be read looks like a lost connection from here.
                    answer.map_err(|error| progress.take_failure().unwrap_or(error))
                }
            })
            .await?;
        let progress = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        let sent = Uploaded {
            etag: progress.take_md5().unwrap_or_default(),
            bytes,
            segments: Vec::new(),
        };
        Ok((response, sent))
    }

    /// The time for a transfer of so many bytes at the slowest rate that is put up with.
    pub(super) fn transfer_deadline(&self, bytes: u64) -> Duration {
        self.pace().deadline(bytes)
    }
}

impl UploadOptions {
    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = metadata::to_headers(&self.metadata)?;
        if let Some(life) = self.delete_after {
            headers.insert("x-delete-after", life.as_secs().max(1).into());
        }
        if let Some(kind) = &self.content_type {
            headers.insert(CONTENT_TYPE, header(kind)?);
        }
        Ok(headers)
    }
}

/// A medium cannot be cut into segments: it is written front to back, and once.
fn fits(iso: &Iso, most: u64) -> Result<()> {
    if iso.bytes() <= most {
        return Ok(());
    }
    let message = format!(
        "the medium has {} bytes, the object store takes {most} at once",
        iso.bytes()
    );
    Err(Error::new(Kind::Limit, message).hint("upload the file that image.make_iso writes"))
}

/// What is sent piece by piece, from its beginning at each attempt.
enum Streamed {
    Part(Span),
    Iso(Arc<Iso>),
}

impl Streamed {
    fn bytes(&self) -> u64 {
        match self {
            Self::Part(span) => span.bytes,
            Self::Iso(iso) => iso.bytes(),
        }
    }

    /// The bytes; the MD5 or the failure is left in `progress`.
    fn body(&self, progress: &Arc<Progress>) -> reqwest::Body {
        let progress = Arc::clone(progress);
        match self {
            Self::Part(span) => reqwest::Body::wrap_stream(stream_file(span.clone(), progress)),
            Self::Iso(iso) => reqwest::Body::wrap_stream(stream_iso(Arc::clone(iso), progress)),
        }
    }
}

/// A part of a file.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

impl Span {
    async fn whole(file: &Path) -> Result<Self> {
        let found = tokio::fs::metadata(file).await;
        let found = found.map_err(|e| Error::io(file, "read", &e))?;
        Ok(Self {
            file: file.to_owned(),
            offset: 0,
            bytes: found.len(),
        })
    }
}

fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(|_| {
        Error::new(
            Kind::Invalid,
            format!("{text:?} cannot be sent in a header"),
        )
    })
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
    async fn stalled(&self, limit: Duration) -> Error {
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
        let sent = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// All is read. Said before the last chunk is handed over: hyper stops at the announced
    /// length and need not come for the end.
    pub(super) fn complete(&self, md5: &Md5) {
        self.outcome().md5 = Some(hex::encode(md5.clone().finalize()));
    }

    /// The bytes cannot be had. What the stream ends with instead is only for hyper.
    pub(super) fn fail(&self, failure: Error) -> io::Error {
        let end = io::Error::other(failure.message().to_owned());
        self.outcome().failure = Some(failure);
        end
    }

    fn take_failure(&self) -> Option<Error> {
        self.outcome().failure.take()
    }

    fn take_md5(&self) -> Option<String> {
        self.outcome().md5.take()
    }
}

/// A file being read: one chunk ahead of what is being sent.
struct Reading {
    source: Source,
    left: u64,
    md5: Md5,
}

enum Source {
    Closed(Span),
    Open(File),
}

impl Reading {
    /// Reads and hashes the next chunk; an empty one is the end.
    fn next(mut self) -> io::Result<(Self, Bytes)> {
        let mut file = match self.source {
            Source::Closed(span) => {
                let mut file = File::open(span.file)?;
                file.seek(SeekFrom::Start(span.offset))?;
                file
            }
            Source::Open(file) => file,
        };
        let wanted = self.left.min(CHUNK);
        let mut chunk = BUFFERS.take(wanted);
        file.read_exact(&mut chunk).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(e.kind(), "the file became shorter while it was uploaded")
            }
            _ => e,
        })?;
        self.left -= wanted;
        self.md5.update(&chunk);
        self.source = Source::Open(file);
        Ok((self, chunk.freeze()))
    }
}

/// The bytes of a span; the MD5 or the failure is left in `progress`.
fn stream_file(
    span: Span,
    progress: Arc<Progress>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let file = span.file.clone();
    let reading = Reading {
        left: span.bytes,
        source: Source::Closed(span),
        md5: Md5::new(),
    };
    let ahead = tokio::task::spawn_blocking(|| reading.next());
    stream::try_unfold((ahead, progress), move |(ahead, progress)| {
        let file = file.clone();
        async move {
            let read = ahead.await.unwrap_or_else(|e| Err(io::Error::other(e)));
            let (reading, chunk) = read.map_err(|e| progress.fail(Error::io(&file, "read", &e)))?;
            if reading.left == 0 {
                progress.complete(&reading.md5);
            }
            if chunk.is_empty() {
                return Ok(None);
            }
            progress.took(&chunk);
            let ahead = tokio::task::spawn_blocking(|| reading.next());
            Ok(Some((chunk, (ahead, progress))))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    async fn streamed(
        content: &[u8],
        offset: u64,
        bytes: u64,
    ) -> (io::Result<Vec<Bytes>>, Arc<Progress>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, content).unwrap();
        let progress = Arc::new(Progress::default());
        let span = Span {
            file: file.path().to_owned(),
            offset,
            bytes,
        };
        let stream = stream_file(span, Arc::clone(&progress));
        (stream.try_collect().await, progress)
    }

    #[tokio::test]
    async fn streams_and_hashes_what_was_announced() {
        let content: Vec<u8> = (0..2_500_000_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        for (offset, announced) in [(0, 1), (0, 1 << 20), (0, 2_500_000), (1_100_000, 1_300_000)] {
            let (chunks, progress) = streamed(&content, offset, announced).await;
            let from = usize::try_from(offset).unwrap();
            let sent = &content[from..from + usize::try_from(announced).unwrap()];
            assert!(chunks.unwrap().concat() == sent);
            let md5 = hex::encode(Md5::digest(sent));
            assert_eq!(progress.take_md5(), Some(md5));
            assert_eq!(progress.sent.load(Ordering::Relaxed), announced);
        }
    }

    #[tokio::test]
    async fn notices_a_file_that_shrinks() {
        let (chunks, progress) = streamed(&[7; 2_000_000], 0, 2_500_000).await;
        assert!(chunks.is_err());
        let failure = progress.take_failure().unwrap();
        assert!(failure.message().contains("became shorter"));
        assert_eq!(progress.take_md5(), None);
    }
}
