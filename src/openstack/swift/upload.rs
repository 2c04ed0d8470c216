//! Uploads: bytes, a file or a medium, streamed, with the MD5 compared at the end.

use super::body::{Progress, Span, Streamed};
use super::metadata::{self, Metadata};
use super::segments::{Plan, new_upload};
use super::{Doing, ObjectPath, SERVICE, Swift};
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::image::iso::Iso;
use crate::openstack::answer::{DAMAGED, refused};
use bytes::Bytes;
use md5::{Digest, Md5};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// Does not compute the MD5 of a file or medium, which takes longer than sending it; what the
    /// server says that it got is believed.
    pub unchecked: bool,
}

/// What the server has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// MD5 in hex, computed here and confirmed by the server unless the upload was unchecked: of
    /// the bytes, or of the segments' MD5s one after the other.
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
        let unchecked = options.unchecked;
        let uploaded = match body {
            Body::Bytes(bytes) => {
                let put = self.put_bytes(&path, headers, bytes).await?;
                self.confirmed(&path, put, false).await?
            }
            Body::File(file) => {
                let span = Span::whole(&file).await.map_err(|e| doing.name(e))?;
                let info = self.info(doing).await?;
                let plan = Plan::new(&path, &span, &options, info, &new_upload()?);
                match plan.map_err(|e| doing.name(e))? {
                    None => {
                        let part = Streamed::File(span);
                        self.put_streamed(&path, headers, &part, unchecked).await?
                    }
                    Some(plan) => self.put_segments(&path, headers, &span, plan).await?,
                }
            }
            Body::Iso(iso) => {
                let most = self.info(doing).await?.max_file_size;
                fits(&iso, most).map_err(|e| doing.name(e))?;
                let medium = Streamed::Iso(iso);
                self.put_streamed(&path, headers, &medium, unchecked)
                    .await?
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

    /// Uploads a part of a file or a medium as an object.
    pub(super) async fn put_streamed(
        &self,
        path: &ObjectPath,
        headers: HeaderMap,
        source: &Streamed,
        unchecked: bool,
    ) -> Result<Uploaded> {
        let put = self.put_stream(path, headers, source, unchecked).await?;
        self.confirmed(path, put, unchecked).await
    }

    /// What was sent, if the server says that it has that.
    async fn confirmed(
        &self,
        path: &ObjectPath,
        (response, sent): (Response, Uploaded),
        unchecked: bool,
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
        if response.status().is_success() && (unchecked || stored == sent.etag) {
            return Ok(Uploaded {
                etag: stored,
                ..sent
            });
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
        unchecked: bool,
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
                let body = source.body(&progress, unchecked);
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

fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(|_| {
        Error::new(
            Kind::Invalid,
            format!("{text:?} cannot be sent in a header"),
        )
    })
}
