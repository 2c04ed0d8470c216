//! Downloads to a file: beside it first, renamed when every byte is there and right. A lost
//! connection is taken up again where it broke.

use super::attempt::{Doing, Tries};
use super::no_answer;
use crate::error::{Error, Kind, Result};
use crate::image::checksum::{Algorithm, Hasher};
use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap};
use reqwest::{Response, StatusCode};
use std::fs::File;
use std::future::Future;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Received chunks that may wait to be hashed and written; one is a TLS record or a few.
const WAITING: usize = 8;
/// Stands in for no deadline where a deadline of our own is kept: a client's own would end a
/// long body.
pub(crate) const LONG: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What is put up with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Until an answer begins.
    pub(crate) answer: Duration,
    /// Without any progress.
    pub(crate) stall: Duration,
    /// Bytes a second on the whole.
    pub(crate) slowest: u64,
}

impl Pace {
    /// The time for so many bytes.
    pub(crate) fn deadline(&self, bytes: u64) -> Duration {
        self.answer + Duration::from_secs(bytes / self.slowest.max(1))
    }

    /// Waits for the beginning of an answer.
    pub(crate) async fn begin(
        &self,
        sent: impl Future<Output = reqwest::Result<Response>>,
    ) -> Result<Response> {
        match timeout(self.answer, sent).await {
            Ok(answer) => answer.map_err(no_answer),
            Err(_) => Err(late("no answer before the deadline")),
        }
    }
}

/// From where on the body is wanted, and of which version.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// First byte.
    pub(crate) from: u64,
    /// The version that was begun with, without quotes.
    pub(crate) etag: Option<String>,
}

/// Every byte is here; it has no name yet.
#[derive(Debug)]
pub(crate) struct Received {
    part: Part,
    /// The hash that was asked for, in hex.
    pub(crate) hash: String,
    /// How many bytes.
    pub(crate) bytes: u64,
    /// How many were announced.
    pub(crate) announced: Option<u64>,
    /// Headers of the last answer.
    pub(crate) headers: HeaderMap,
}

impl Received {
    /// Makes the bytes durable and gives them their name.
    pub(crate) async fn keep(self) -> Result<()> {
        let Part { file, to, .. } = self.part;
        let named = tokio::task::spawn_blocking(move || {
            let named = file.as_file().sync_all().and_then(|()| {
                file.persist(&to).map_err(|e| e.error)?;
                File::open(folder(&to))?.sync_all()
            });
            named.map_err(|e| Error::io(&to, "write the download", &e))
        });
        named.await.map_err(|e| {
            Error::new(Kind::Internal, "the task that names a download failed").caused_by(&e)
        })?
    }
}

/// Downloads what `ask` answers to a file beside `to`. `refused` turns another answer than the
/// body or a part of it into an error.
pub(crate) async fn download<A, R>(
    (to, algorithm): (&Path, Algorithm),
    pace: Pace,
    (doing, mut tries): (Doing<'_>, Tries),
    ask: impl Fn(Wanted) -> A,
    refused: impl Fn(Response) -> R,
) -> Result<Received>
where
    A: Future<Output = Result<Response>>,
    R: Future<Output = Error>,
{
    let name = |e: Error| doing.name(e);
    let mut part = Part::beside(to, algorithm).map_err(name)?;
    let mut etag: Option<String> = None;
    loop {
        let wanted = Wanted {
            from: part.bytes,
            etag: etag.clone(),
        };
        let response = match ask(wanted).await {
            Ok(response) => response,
            Err(error) => return Err(name(error)),
        };
        let headers = response.headers().clone();
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&headers, part.bytes) => {}
            StatusCode::OK => part.restart().map_err(name)?,
            StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE
                if part.bytes > 0 =>
            {
                etag = None;
                part.restart().map_err(name)?;
                let changed = Error::new(Kind::Conflict, "the object changed meanwhile");
                tries.pause(doing, changed.retryable(true)).await?;
                continue;
            }
            // Glance, of an image in its Swift store: it cannot begin in the middle.
            StatusCode::BAD_REQUEST if part.bytes > 0 => {
                etag = None;
                part.restart().map_err(name)?;
                continue;
            }
            _ => return Err(name(refused(response).await)),
        }
        etag = self::etag(&headers);
        let broken;
        (part, broken) = receive(response, part, pace).await.map_err(name)?;
        match broken {
            None => {
                return Ok(Received {
                    hash: part.hasher.finish(),
                    bytes: part.bytes,
                    announced: announced(&headers),
                    headers,
                    part,
                });
            }
            Some(error) => tries.pause(doing, error).await?,
        }
    }
}

/// Writes a body to the end of `part`; the second value is what broke it off.
async fn receive(mut response: Response, part: Part, pace: Pace) -> Result<(Part, Option<Error>)> {
    let length = response.content_length().unwrap_or(0);
    let (chunks, waiting) = mpsc::channel(WAITING);
    let writing = tokio::task::spawn_blocking(move || part.append(waiting));
    let receiving = async {
        loop {
            let next = timeout(pace.stall, response.chunk()).await;
            let next = next.map_err(|_| late("the data stopped coming"))?;
            let Some(chunk) = next.map_err(no_answer)? else {
                return Ok(());
            };
            if chunks.send(chunk).await.is_err() {
                return Ok(()); // the writer gave up and says why
            }
        }
    };
    let received = timeout(pace.deadline(length), receiving).await;
    let received = received.unwrap_or_else(|_| Err(late("the transfer is too slow")));
    drop(chunks);
    let (part, written) = writing.await.map_err(|e| {
        Error::new(Kind::Internal, "the task that writes a download failed").caused_by(&e)
    })?;
    Ok((part, written.err().or_else(|| received.err())))
}

fn late(what: &str) -> Error {
    Error::new(Kind::Timeout, what).retryable(true)
}

/// The `ETag` without its quotes.
fn etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    Some(etag.trim_matches('"').to_owned()).filter(|etag| !etag.is_empty())
}

/// Length of the whole, if told.
fn announced(headers: &HeaderMap) -> Option<u64> {
    match content_range(headers) {
        Some((_, total)) => Some(total),
        None => headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok(),
    }
}

/// First byte and total of `Content-Range: bytes first-last/total`.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()?))
}

fn starts_at(headers: &HeaderMap, from: u64) -> bool {
    content_range(headers).is_some_and(|(first, _)| first == from)
}

/// A download so far; its file is removed on drop unless kept.
#[derive(Debug)]
struct Part {
    file: NamedTempFile,
    to: PathBuf,
    hasher: Hasher,
    bytes: u64,
}

impl Part {
    fn beside(to: &Path, algorithm: Algorithm) -> Result<Self> {
        let file = NamedTempFile::new_in(folder(to)).map_err(|e| Error::io(to, "create", &e))?;
        Ok(Self {
            file,
            to: to.to_path_buf(),
            hasher: algorithm.hasher(),
            bytes: 0,
        })
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io(&self.to, "write the download", error)
    }

    fn restart(&mut self) -> Result<()> {
        let file = self.file.as_file_mut();
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        self.hasher.finish();
        self.bytes = 0;
        emptied.map_err(|e| self.failed(&e))
    }

    /// Writes and hashes what comes until nothing more comes. Blocks.
    fn append(mut self, mut chunks: mpsc::Receiver<Bytes>) -> (Self, Result<()>) {
        while let Some(chunk) = chunks.blocking_recv() {
            if let Err(error) = self.file.write_all(&chunk) {
                let error = self.failed(&error);
                return (self, Err(error));
            }
            self.hasher.update(&chunk);
            self.bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        }
        (self, Ok(()))
    }
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_a_partial_answer_continues() {
        let headers = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, range.parse().unwrap());
            headers
        };
        assert!(starts_at(&headers("bytes 5-9/10"), 5));
        assert!(!starts_at(&headers("bytes 5-9/10"), 4));
        assert_eq!(announced(&headers("bytes 5-9/10")), Some(10));
        for broken in ["bytes */10", "bytes 5/10", "items 5-9/10", "bytes 5-9/*"] {
            assert!(!starts_at(&headers(broken), 5), "{broken}");
        }
    }
}
