//! Downloads to a file: beside it first, renamed when every byte is there and right.

use super::metadata::ObjectInfo;
use super::{Doing, ObjectPath, SERVICE, Swift};
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::openstack::answer::refused;
use bytes::Bytes;
use md5::{Digest, Md5};
use reqwest::header::{CONTENT_RANGE, HeaderMap, IF_MATCH, RANGE};
use reqwest::{Response, StatusCode};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Received chunks that may wait to be hashed and written; one is a TLS record or a few.
const WAITING: usize = 8;
/// Stands in for no deadline where a deadline of our own is kept.
const LONG: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// The object's ETag.
    pub etag: String,
    /// How many bytes.
    pub bytes: u64,
    /// Whether the ETag is the MD5 of the bytes and was compared; it is not that for objects made
    /// of segments.
    pub verified: bool,
}

impl Swift {
    /// Downloads an object to a file, which appears under its name only when it is complete. A
    /// lost connection is taken up again where it broke.
    ///
    /// # Errors
    /// `not_found` if there is no such object; `corrupt` if the bytes are not what the ETag says;
    /// `timeout` if no data comes; `io` or `limit` if the file cannot be written; otherwise as any
    /// request.
    pub async fn download(&self, container: &str, object: &str, to: &Path) -> Result<Downloaded> {
        let path = ObjectPath::new(container, object)?;
        let doing = path.doing("swift.download");
        let mut part = Part::beside(to).map_err(|e| doing.name(e))?;
        let mut etag = None;
        let mut tries = self.tries();
        let expected = loop {
            let response = self.ask(&path, doing, part.bytes, etag.as_deref()).await?;
            let headers = response.headers();
            let expected = Expected::of(headers);
            match response.status() {
                StatusCode::PARTIAL_CONTENT if starts_at(headers, part.bytes) => {}
                StatusCode::OK => part.restart().map_err(|e| doing.name(e))?,
                StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE
                    if etag.is_some() =>
                {
                    etag = None;
                    part.restart().map_err(|e| doing.name(e))?;
                    let changed = Error::new(Kind::Conflict, "the object changed meanwhile");
                    tries.pause(doing, changed.retryable(true)).await?;
                    continue;
                }
                _ => return Err(doing.name(refused(SERVICE, response).await)),
            }
            etag = Some(expected.etag.clone());
            let broken;
            (part, broken) = self
                .receive(response, part)
                .await
                .map_err(|e| doing.name(e))?;
            match broken {
                None => break expected,
                Some(error) => tries.pause(doing, error).await?,
            }
        };
        part.keep(expected).await.map_err(|e| doing.name(e))
    }

    /// Asks for the object, or for the rest of it if it is still the one with this ETag.
    async fn ask(
        &self,
        path: &ObjectPath,
        doing: Doing<'_>,
        from: u64,
        etag: Option<&str>,
    ) -> Result<Response> {
        self.attempts(doing, |session| {
            let mut request = self.client.get(session.url(&path.quoted)).timeout(LONG);
            if let Some(etag) = etag.filter(|_| from > 0) {
                request = request
                    .header(RANGE, format!("bytes={from}-"))
                    .header(IF_MATCH, format!("\"{etag}\""));
            }
            let sent = request.header("x-auth-token", session.token()).send();
            async {
                match timeout(self.options.request_timeout, sent).await {
                    Ok(answer) => answer.map_err(http::no_answer),
                    Err(_) => Err(late("no answer before the deadline")),
                }
            }
        })
        .await
    }

    /// Writes a body to the end of `part`; the second value is what broke it off.
    async fn receive(&self, mut response: Response, part: Part) -> Result<(Part, Option<Error>)> {
        let length = response.content_length().unwrap_or(0);
        let (chunks, waiting) = mpsc::channel(WAITING);
        let writing = tokio::task::spawn_blocking(move || part.append(waiting));
        let receiving = async {
            loop {
                let next = timeout(self.options.stall_timeout, response.chunk()).await;
                let next = next.map_err(|_| late("the object's data stopped coming"))?;
                let Some(chunk) = next.map_err(http::no_answer)? else {
                    return Ok(());
                };
                if chunks.send(chunk).await.is_err() {
                    return Ok(()); // the writer gave up and says why
                }
            }
        };
        let received = timeout(self.transfer_deadline(length), receiving).await;
        let received = received.unwrap_or_else(|_| Err(late("the transfer is too slow")));
        drop(chunks);
        let (part, written) = writing.await.map_err(|e| {
            Error::new(Kind::Internal, "the task that writes a download failed").caused_by(&e)
        })?;
        Ok((part, written.err().or_else(|| received.err())))
    }
}

fn late(what: &str) -> Error {
    Error::new(Kind::Timeout, what).retryable(true)
}

/// What the headers promise.
#[derive(Debug)]
struct Expected {
    etag: String,
    /// Whether the ETag is the MD5 of the bytes.
    is_md5: bool,
    /// Length of the whole object, if told.
    bytes: Option<u64>,
}

impl Expected {
    fn of(headers: &HeaderMap) -> Self {
        let info = ObjectInfo::read(headers);
        let hex = info.etag.bytes().all(|b| b.is_ascii_hexdigit());
        Self {
            is_md5: !info.segmented && hex && info.etag.len() == 32,
            etag: info.etag,
            bytes: match content_range(headers) {
                Some((_, total)) => Some(total),
                None => headers.contains_key("content-length").then_some(info.bytes),
            },
        }
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
    md5: Md5,
    bytes: u64,
}

impl Part {
    fn beside(to: &Path) -> Result<Self> {
        let file = NamedTempFile::new_in(folder(to)).map_err(|e| Error::io(to, "create", &e))?;
        Ok(Self {
            file,
            to: to.to_path_buf(),
            md5: Md5::new(),
            bytes: 0,
        })
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::io(&self.to, "write the download", error)
    }

    fn restart(&mut self) -> Result<()> {
        let file = self.file.as_file_mut();
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        self.md5 = Md5::new();
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
            self.md5.update(&chunk);
            self.bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        }
        (self, Ok(()))
    }

    /// Checks the bytes, makes them durable and gives them their name.
    async fn keep(mut self, expected: Expected) -> Result<Downloaded> {
        let md5 = hex::encode(self.md5.finalize_reset());
        let short = expected.bytes.is_some_and(|bytes| bytes != self.bytes);
        if short || (expected.is_md5 && md5 != expected.etag) {
            let message = format!(
                "{} bytes with MD5 {md5} came, the object has {} with ETag {}",
                self.bytes,
                expected
                    .bytes
                    .map_or_else(|| "some".to_owned(), |n| n.to_string()),
                expected.etag
            );
            return Err(Error::new(Kind::Corrupt, message).retryable(true));
        }
        let bytes = self.bytes;
        let named = tokio::task::spawn_blocking(move || {
            let Self { file, to, .. } = self;
            let named = file.as_file().sync_all().and_then(|()| {
                file.persist(&to).map_err(|e| e.error)?;
                File::open(folder(&to))?.sync_all()
            });
            named.map_err(|e| Error::io(&to, "write the download", &e))
        });
        named.await.map_err(|e| {
            Error::new(Kind::Internal, "the task that names a download failed").caused_by(&e)
        })??;
        Ok(Downloaded {
            etag: expected.etag,
            bytes,
            verified: expected.is_md5,
        })
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
        assert_eq!(Expected::of(&headers("bytes 5-9/10")).bytes, Some(10));
        for broken in ["bytes */10", "bytes 5/10", "items 5-9/10", "bytes 5-9/*"] {
            assert!(!starts_at(&headers(broken), 5), "{broken}");
        }
    }

    #[test]
    fn only_a_plain_md5_is_compared() {
        let is_md5 = |pairs: &[(&'static str, &str)]| {
            let pair = |(name, value): &(&'static str, &str)| {
                (
                    reqwest::header::HeaderName::from_static(name),
                    value.parse().unwrap(),
                )
            };
            Expected::of(&pairs.iter().map(pair).collect()).is_md5
        };
        let md5 = ("etag", "5eb63bbbe01eeed093cb22bb8f5acdc3");
        assert!(is_md5(&[md5]));
        assert!(!is_md5(&[md5, ("x-static-large-object", "True")]));
        assert!(!is_md5(&[md5, ("x-object-manifest", "c/o")]));
        assert!(!is_md5(&[(
            "etag",
            "\"5eb63bbbe01eeed093cb22bb8f5acdc3-2\""
        )]));
    }
}
