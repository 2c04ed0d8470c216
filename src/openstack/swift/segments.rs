//! Static large objects: files over the server's limit, as segments that a manifest lists.
//!
//! Segments lie in `<container>_segments`. Their names hold the file's time of change and size:
//! a repeated upload of the same file writes the same names, and one of another file never
//! touches the segments of the object that it replaces. Nothing is to be seen of the object
//! before the manifest is there, and nothing is left of what it replaced after.

use super::info::Info;
use super::upload::{Span, Uploaded};
use super::{Doing, ObjectPath, SERVICE, Swift, UploadOptions};
use crate::error::{Error, Kind, Result};
use crate::openstack::answer::{self, refused};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use md5::{Digest, Md5};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

/// Segments uploaded, or deleted, at the same time.
const AT_ONCE: usize = 4;
/// Largest segment that is chosen without need: a broken one is sent again whole.
const LARGEST: u64 = 1 << 30;

/// How a file is divided.
#[derive(Debug)]
pub(super) struct Plan {
    /// `<container>_segments`
    container: String,
    segments: Vec<(ObjectPath, Span)>,
    delete_after: Option<u64>,
}

impl Plan {
    /// `None` if the file is uploaded in one piece.
    pub(super) fn new(
        path: &ObjectPath,
        span: &Span,
        options: &UploadOptions,
        info: Info,
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
        let container = format!("{container}_segments");
        let segments = (0..count).map(|index| {
            let offset = index * size;
            let name = format!(
                "{object}/{}/{}/{size}/{index:08}",
                span.modified, span.bytes
            );
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
        }))
    }
}

impl Swift {
    /// Uploads the segments and then the manifest. If it fails, no segment is left as far as the
    /// server can be reached.
    pub(super) async fn put_segments(
        &self,
        path: &ObjectPath,
        headers: HeaderMap,
        span: &Span,
        plan: Plan,
    ) -> Result<Uploaded> {
        let doing = path.doing("swift.upload");
        let names = plan.segments.iter().map(|(at, _)| at.plain.clone());
        let names: Vec<String> = names.collect();
        let uploaded = async {
            self.create_container(&plan.container, None).await?;
            let etags = self.put_each(&plan).await?;
            self.put_manifest(path, headers, &plan, &etags).await
        };
        match uploaded.await {
            Ok(etag) => Ok(Uploaded {
                etag,
                bytes: span.bytes,
                segments: names,
            }),
            Err(error) => match self.delete_segments(doing, names).await {
                Ok(()) => Err(error),
                Err(also) => Err(error.cause(format!("and segments are left: {also}"))),
            },
        }
    }

    /// The MD5 of each segment, in their order.
    async fn put_each(&self, plan: &Plan) -> Result<Vec<String>> {
        let mut headers = HeaderMap::new();
        if let Some(seconds) = plan.delete_after {
            headers.insert("x-delete-after", seconds.into());
        }
        let puts: Vec<_> = plan
            .segments
            .iter()
            .map(|(at, part)| self.put_span(at, headers.clone(), part))
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
    ) -> Result<String> {
        let doing = path.doing("swift.upload");
        let rows = plan.segments.iter().zip(etags).map(|((at, part), etag)| {
            json!({ "path": format!("/{}", at.plain), "etag": etag, "size_bytes": part.bytes })
        });
        let manifest = Bytes::from(Value::from_iter(rows).to_string());
        let deadline = self.transfer_deadline(plan.segments.iter().map(|(_, p)| p.bytes).sum());
        let response = self
            .call(doing, |client, session| {
                let url = format!("{}?multipart-manifest=put", session.url(&path.quoted));
                // The server looks at every segment before it answers.
                let request = client.put(url).headers(headers.clone()).timeout(deadline);
                request.body(manifest.clone())
            })
            .await?;
        if !response.status().is_success() {
            return Err(doing.name(refused(SERVICE, response).await));
        }
        let expected = hex::encode(Md5::digest(etags.concat()));
        let stored = super::metadata::etag(response.headers());
        if stored == expected {
            return Ok(expected);
        }
        let message = format!("segments with ETag {expected} were sent, the server got {stored:?}");
        Err(doing.name(Error::new(Kind::Corrupt, message).retryable(true)))
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

    /// Deletes segments; those that are gone are fine.
    pub(super) async fn delete_segments(&self, doing: Doing<'_>, names: Vec<String>) -> Result<()> {
        stream::iter(names.into_iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, |name| async move {
                let (container, object) = name.split_once('/').unwrap_or((&name, ""));
                let at = ObjectPath::new(container, object)?;
                let response = self
                    .call(doing, |client, session| {
                        client.delete(session.url(&at.quoted))
                    })
                    .await?;
                match response.status() {
                    status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
                    _ => Err(doing.name(refused(SERVICE, response).await)),
                }
            })
            .await
    }
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
            modified: 5,
        };
        let options = UploadOptions {
            segment_bytes,
            delete_after: Some(Duration::from_secs(60)),
            ..UploadOptions::default()
        };
        let path = ObjectPath::new("c", "a/b").unwrap();
        let Some(plan) = Plan::new(&path, &span, &options, info)? else {
            return Ok(None);
        };
        assert_eq!(plan.delete_after, Some(86_460), "later than the manifest");
        let mut end = 0;
        for (index, (at, part)) in plan.segments.iter().enumerate() {
            assert_eq!(part.offset, end);
            end += part.bytes;
            let size = plan.segments[0].1.bytes;
            assert_eq!(
                at.plain,
                format!("c_segments/a/b/5/{bytes}/{size}/{index:08}")
            );
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
}
