//! Static large objects: files over the server's limit, as segments that a manifest lists.
//!
//! Segments lie in `<container>_segments` as `<object>/<upload>/<index>`. The upload's part of the
//! name is random, so no upload ever writes or deletes a segment of another one. Nothing is to be
//! seen of the object before the manifest is there; then the segments that it replaced go. What
//! an upload leaves behind that was killed, a later one of the same object removes.

use super::body::{Span, Streamed};
use super::info::Info;
use super::md5_lanes::LANES;
use super::segment_reader::SegmentReader;
use super::upload::Uploaded;
use super::{Doing, ListOptions, ObjectPath, SERVICE, Swift, UploadOptions};
use crate::error::{Error, Kind, Result};
use crate::openstack::answer::{self, refused};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use md5::{Digest, Md5};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// Segments uploaded, or deleted, at the same time: as many as are hashed at once.
const AT_ONCE: usize = LANES;
/// Largest segment that is chosen without need: a broken one is sent again whole.
const LARGEST: u64 = 1 << 30;

/// Digits of an upload's part of a name, and of the index.
const UPLOAD_DIGITS: usize = 32;
const INDEX_DIGITS: usize = 8;

/// How a file is divided.
#[derive(Debug)]
pub(super) struct Plan {
    /// `<container>_segments`
    container: String,
    segments: Vec<(ObjectPath, Span)>,
    delete_after: Option<u64>,
    unchecked: bool,
}

impl Plan {
    /// `None` if the file is uploaded in one piece.
    pub(super) fn new(
        path: &ObjectPath,
        span: &Span,
        options: &UploadOptions,
        info: Info,
        upload: &str,
    ) -> Result<Option<Self>> {
        let wanted = options.segment_bytes.filter(|wanted| *wanted > 0);
        if span.bytes <= wanted.unwrap_or(info.max_file_size).min(info.max_file_size) {
            return Ok(None);
        }
        let Some(most) = info.max_segments.filter(|most| *most > 0) else {
            if span.bytes <= info.max_file_size {
                return Ok(None);
            }
            let message = format!(
                "the file has {} bytes, the object store takes {} and no segments",
                span.bytes, info.max_file_size
            );
            return Err(Error::new(Kind::Limit, message));
        };
        let size = wanted
            .unwrap_or(LARGEST)
            .max(span.bytes.div_ceil(most))
            .min(info.max_file_size.max(1));
        let count = span.bytes.div_ceil(size);
        if count > most {
            let message = format!(
                "{} bytes need {count} segments, {most} are allowed",
                span.bytes
            );
            return Err(Error::new(Kind::Limit, message));
        }
        let (container, object) = path.plain.split_once('/').unwrap_or((&path.plain, ""));
        let container = segments_container(container);
        let segments = (0..count).map(|index| {
            let offset = index * size;
            let name = format!("{object}/{upload}/{index:0INDEX_DIGITS$}");
            let part = Span {
                offset,
                bytes: size.min(span.bytes - offset),
                ..span.clone()
            };
            Ok((ObjectPath::new(&container, &name)?, part))
        });
        Ok(Some(Self {
            segments: segments.collect::<Result<_>>()?,
            container,
            // They must not go before the manifest does.
            delete_after: options
                .delete_after
                .map(|life| life.as_secs().saturating_add(24 * 60 * 60)),
            unchecked: options.unchecked,
        }))
    }
}

impl Swift {
    /// Uploads the segments and then the manifest. If it fails, no segment is left as far as the
    /// server can be reached, unless a manifest may have been stored that lists them.
    pub(super) async fn put_segments(
        &self,
        path: &ObjectPath,
        headers: HeaderMap,
        span: &Span,
        plan: Plan,
    ) -> Result<Uploaded> {
        let names = plan.segments.iter().map(|(at, _)| at.plain.clone());
        let names: Vec<String> = names.collect();
        let etags = async {
            self.create_container(&plan.container, None).await?;
            self.put_each(&plan).await
        };
        let failed = match etags.await {
            Ok(etags) => match self.put_manifest(path, headers, &plan, &etags).await {
                Ok(etag) => {
                    return Ok(Uploaded {
                        etag,
                        bytes: span.bytes,
                        segments: names,
                    });
                }
                Err(failed) => failed,
            },
            // Nothing can list them yet.
            Err(error) => Failed::for_sure(error),
        };
        if !failed.no_manifest {
            return Err(failed.error);
        }
        let doing = path.doing("swift.upload");
        match self.delete_segments(doing, names).await {
            Ok(()) => Err(failed.error),
            Err(also) => Err(failed.error.cause(format!("and segments are left: {also}"))),
        }
    }

    /// The MD5 of each segment, in their order.
    async fn put_each(&self, plan: &Plan) -> Result<Vec<String>> {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = plan.delete_after {
            headers.insert("x-delete-after", seconds.into());
        }
        let reader = SegmentReader::start();
        let puts: Vec<_> = plan
            .segments
            .iter()
            .map(async |(at, part)| {
                let part = Streamed::Segment(part.clone(), reader.clone());
                self.put_streamed(at, headers.clone(), &part, plan.unchecked)
                    .await
            })
            .collect();
        let puts = stream::iter(puts).buffered(AT_ONCE);
        puts.map_ok(|uploaded| uploaded.etag).try_collect().await
    }

    /// The ETag, which is the MD5 of the segments' MD5s.
    async fn put_manifest(
        &self,
        path: &ObjectPath,
        headers: HeaderMap,
        plan: &Plan,
        etags: &[String],
    ) -> std::result::Result<String, Failed> {
        let doing = path.doing("swift.upload");
        let rows = plan.segments.iter().zip(etags).map(|((at, part), etag)| {
            json!({ "path": format!("/{}", at.plain), "etag": etag, "size_bytes": part.bytes })
        });
        let manifest = Bytes::from(Value::from_iter(rows).to_string());
        let deadline = self.transfer_deadline(plan.segments.iter().map(|(_, p)| p.bytes).sum());
        let sent = AtomicU32::new(0);
        let response = self
            .call(doing, |client, session| {
                sent.fetch_add(1, Ordering::Relaxed);
                let url = format!("{}?multipart-manifest=put", session.url(&path.quoted));
                // The server looks at every segment before it answers.
                let request = client.put(url).headers(headers.clone()).timeout(deadline);
                request.body(manifest.clone())
            })
            .await?;
        // One that was sent before, and whose answer got lost, may have been stored.
        let once = sent.into_inner() == 1;
        if !response.status().is_success() {
            let no_manifest = once && response.status().is_client_error();
            let error = doing.name(refused(SERVICE, response).await);
            return Err(Failed { error, no_manifest });
        }
        let expected = hex::encode(Md5::digest(etags.concat()));
        let stored = super::metadata::etag(response.headers());
        if stored == expected {
            return Ok(expected);
        }
        let message = format!("segments with ETag {expected} were sent, the server got {stored:?}");
        let error = doing.name(Error::new(Kind::Corrupt, message).retryable(true));
        match self.delete_object(doing, path).await {
            Ok(_) => Err(Failed {
                error,
                no_manifest: once,
            }),
            Err(also) => Err(error
                .cause(format!("and deleting it failed: {also}"))
                .into()),
        }
    }

    /// `<container>/<object>` of each segment of the object that is there now.
    pub(super) async fn segments_of(
        &self,
        doing: Doing<'_>,
        path: &ObjectPath,
    ) -> Result<Vec<String>> {
        if self.info(doing).await?.max_segments.is_none() {
            return Ok(Vec::new());
        }
        let head = self
            .call(doing, |client, session| {
                client.head(session.url(&path.quoted))
            })
            .await?;
        if !head.headers().contains_key("x-static-large-object") {
            // Whatever else is wrong shows when the object is changed.
            return Ok(Vec::new());
        }
        let response = self
            .call(doing, |client, session| {
                client.get(format!(
                    "{}?multipart-manifest=get",
                    session.url(&path.quoted)
                ))
            })
            .await?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => return Ok(Vec::new()),
            _ => return Err(doing.name(refused(SERVICE, response).await)),
        }
        let rows: Vec<Row> = answer::json(SERVICE, response)
            .await
            .map_err(|e| doing.name(e))?;
        let names = rows.into_iter().map(|row| row.name);
        Ok(names
            .map(|name| name.trim_start_matches('/').to_owned())
            .collect())
    }

    /// Removes segments of uploads of this object that ended without a manifest: those that the
    /// object does not list and that have not grown for a long time.
    pub(super) async fn delete_abandoned(&self, path: &ObjectPath) -> Result<()> {
        let doing = path.doing("swift.upload");
        let (container, object) = path.plain.split_once('/').unwrap_or((&path.plain, ""));
        let container = segments_container(container);
        let of_object = ListOptions {
            prefix: Some(format!("{object}/")),
            ..ListOptions::default()
        };
        let listed = match self.list(&container, of_object).await {
            Err(error) if error.kind() == Kind::NotFound => return Ok(()),
            listed => listed?,
        };
        // Asked after the listing: whoever has put a manifest since then is seen.
        let used = self.segments_of(doing, path).await?;
        let long_ago = self
            .server_seconds()
            .saturating_sub(self.options.abandoned_after.as_secs());
        let mut uploads: BTreeMap<&str, (bool, Vec<String>)> = BTreeMap::new();
        for entry in &listed {
            let Some(upload) = upload_of(object, entry.name()) else {
                continue;
            };
            let segment = format!("{container}/{}", entry.name());
            let (abandoned, segments) = uploads.entry(upload).or_insert((true, Vec::new()));
            *abandoned &= entry.is_older_than(long_ago) && !used.contains(&segment);
            segments.push(segment);
        }
        let abandoned = uploads.into_values().filter(|(abandoned, _)| *abandoned);
        let segments = abandoned.flat_map(|(_, segments)| segments);
        self.delete_segments(doing, segments.collect()).await
    }

    /// Deletes segments; those that are gone are fine.
    pub(super) async fn delete_segments(&self, doing: Doing<'_>, names: Vec<String>) -> Result<()> {
        stream::iter(names.into_iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, |name| async move {
                let (container, object) = name.split_once('/').unwrap_or((&name, ""));
                let at = ObjectPath::new(container, object)?;
                self.delete_object(doing, &at).await.map(|_| ())
            })
            .await
    }
}

/// Why there is no large object.
struct Failed {
    error: Error,
    /// Nothing that lists the segments has been stored, nor will be.
    no_manifest: bool,
}

impl Failed {
    fn for_sure(error: Error) -> Self {
        let no_manifest = true;
        Self { error, no_manifest }
    }
}

impl From<Error> for Failed {
    /// No answer, or one that says "later": anything may have happened.
    fn from(error: Error) -> Self {
        let no_manifest = false;
        Self { error, no_manifest }
    }
}

/// A name for an upload that no other one has.
pub(super) fn new_upload() -> Result<String> {
    let mut bytes = [0; UPLOAD_DIGITS / 2];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(Kind::Io, format!("no random bytes: {e}")))?;
    Ok(hex::encode(bytes))
}

fn segments_container(container: &str) -> String {
    format!("{container}_segments")
}

/// The upload that wrote a segment of `object`; `None` if the name is none that we give.
fn upload_of<'a>(object: &str, segment: &'a str) -> Option<&'a str> {
    let name = segment.strip_prefix(object)?.strip_prefix('/')?;
    let (upload, index) = name.split_once('/')?;
    let is_ours = upload.len() == UPLOAD_DIGITS
        && upload.bytes().all(|b| b.is_ascii_hexdigit())
        && index.len() >= INDEX_DIGITS
        && index.bytes().all(|b| b.is_ascii_digit());
    is_ours.then_some(upload)
}

/// A segment as `multipart-manifest=get` tells it.
#[derive(Deserialize)]
struct Row {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const INFO: Info = Info {
        digest: None,
        max_file_size: 1000,
        max_segments: Some(10),
    };

    fn plan(bytes: u64, segment_bytes: Option<u64>, info: Info) -> Result<Option<Vec<u64>>> {
        let span = Span {
            file: "f".into(),
            offset: 0,
            bytes,
        };
        let options = UploadOptions {
            segment_bytes,
            delete_after: Some(Duration::from_secs(60)),
            ..UploadOptions::default()
        };
        let path = ObjectPath::new("c", "a/b").unwrap();
        let Some(plan) = Plan::new(&path, &span, &options, info, "up")? else {
            return Ok(None);
        };
        assert_eq!(plan.delete_after, Some(86_460), "later than the manifest");
        let mut end = 0;
        for (index, (at, part)) in plan.segments.iter().enumerate() {
            assert_eq!(part.offset, end);
            end += part.bytes;
            assert_eq!(at.plain, format!("c_segments/a/b/up/{index:08}"));
        }
        assert_eq!(end, bytes);
        Ok(Some(plan.segments.iter().map(|(_, p)| p.bytes).collect()))
    }

    #[test]
    fn a_file_is_divided_only_where_it_must_or_shall() {
        assert_eq!(plan(1000, None, INFO).unwrap(), None);
        assert_eq!(plan(1001, None, INFO).unwrap(), Some(vec![1000, 1]));
        assert_eq!(
            plan(700, Some(300), INFO).unwrap(),
            Some(vec![300, 300, 100])
        );
        assert_eq!(plan(300, Some(300), INFO).unwrap(), None);
        let many = plan(5000, Some(10), INFO).unwrap().unwrap();
        assert_eq!(many, [500; 10], "larger ones when so many are not allowed");
        let error = plan(10_001, None, INFO).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        let none = Info {
            max_segments: None,
            ..INFO
        };
        assert_eq!(plan(1001, None, none).unwrap_err().kind(), Kind::Limit);
        assert_eq!(plan(900, Some(300), none).unwrap(), None);
    }

    #[test]
    fn only_names_that_we_give_are_ours() {
        let upload = new_upload().unwrap();
        let own = format!("a/b/{upload}/00000012");
        assert_eq!(upload_of("a/b", &own), Some(upload.as_str()));
        for (object, segment) in [
            ("a", own.as_str()),
            ("a/", &own),
            ("a/b", "a/b/1700000000.5/100/50/00000012"),
            ("a/b", "a/b/slo/1700000000.5/100/50/00000012"),
            ("a/b", &format!("a/b/{upload}/x")),
            ("a/b", &format!("a/b/{upload}")),
            ("a/b", &format!("a/b/c/{upload}/00000012")),
        ] {
            assert_eq!(upload_of(object, segment), None, "{object} {segment}");
        }
    }
}
