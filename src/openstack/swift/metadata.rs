//! What an object store tells of an object, and how metadata becomes headers.

use crate::error::{Error, Kind, Result};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// An object's own metadata. Names are in lower case with `_` where the header
/// (`X-Object-Meta-Usage-Count`) has `-`; HTTP servers do not keep these apart.
pub type Metadata = BTreeMap<String, String>;

const PREFIX: &str = "x-object-meta-";
/// Headers that a POST drops unless they are sent again.
const STANDING: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-delete-at",
    "x-robots-tag",
];

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its length.
    pub bytes: u64,
    /// MD5 of its bytes in hex, unless it is made of segments.
    pub etag: String,
    /// Its media type.
    pub content_type: String,
    /// When it was uploaded or its metadata set.
    pub last_modified: Option<SystemTime>,
    /// When it vanishes, in Unix seconds.
    pub delete_at: Option<u64>,
    /// What was said of it.
    pub metadata: Metadata,
    /// Whether it is made of segments; then the ETag is not the MD5 of its bytes.
    pub segmented: bool,
    /// Whether a manifest lists the segments, as [`Swift::upload`](super::Swift::upload) makes it.
    pub(super) has_manifest: bool,
    standing: Vec<(HeaderName, HeaderValue)>,
}

impl ObjectInfo {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|text| text.parse().ok());
        let metadata = headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix(PREFIX)?;
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            Some((normal(name), value))
        });
        let standing = headers
            .iter()
            .filter(|(name, _)| STANDING.contains(&name.as_str()));
        Self {
            bytes: number("content-length").unwrap_or(0),
            etag: etag(headers),
            content_type: text("content-type").unwrap_or_default().to_owned(),
            last_modified: text("last-modified").and_then(|t| httpdate::parse_http_date(t).ok()),
            delete_at: number("x-delete-at"),
            metadata: metadata.collect(),
            segmented: ["x-static-large-object", "x-object-manifest"]
                .iter()
                .any(|name| headers.contains_key(*name)),
            has_manifest: headers.contains_key("x-static-large-object"),
            standing: standing.map(|(n, v)| (n.clone(), v.clone())).collect(),
        }
    }

    /// The headers of a POST that keeps everything.
    pub(super) fn to_headers(&self) -> Result<HeaderMap> {
        let mut headers = to_headers(&self.metadata)?;
        headers.extend(self.standing.iter().cloned());
        Ok(headers)
    }
}

/// The `ETag` without its quotes.
pub(super) fn etag(headers: &HeaderMap) -> String {
    let etag = headers.get("etag").and_then(|etag| etag.to_str().ok());
    etag.unwrap_or_default()
        .trim_matches('"')
        .to_ascii_lowercase()
}

/// The one spelling of a metadata name.
pub(super) fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// `X-Object-Meta-*` headers.
pub(super) fn to_headers(metadata: &Metadata) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata {
        let bad = |what| Error::new(Kind::Invalid, format!("metadata {name:?}: {what}"));
        let header = format!("{PREFIX}{}", normal(name).replace('_', "-"));
        let header = HeaderName::try_from(header);
        let header = header.map_err(|_| bad("the name cannot be part of a header"))?;
        if header.as_str().len() == PREFIX.len() {
            return Err(bad("the name is empty"));
        }
        let value = HeaderValue::from_bytes(value.as_bytes());
        headers.insert(
            header,
            value.map_err(|_| bad("the value has control characters"))?,
        );
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_resends_everything_that_a_post_would_drop() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-length", "11"),
            ("etag", "\"5EB6\""),
            ("content-type", "text/plain"),
            ("x-delete-at", "1700000000"),
            ("content-disposition", "inline"),
            ("x-object-meta-usage-count", "2"),
            ("x-trans-id", "tx1"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let info = ObjectInfo::read(&headers);
        assert_eq!((info.bytes, info.etag.as_str()), (11, "5eb6"));
        assert_eq!(info.metadata, [("usage_count".into(), "2".into())].into());
        let resent = info.to_headers().unwrap();
        let mut names: Vec<_> = resent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "content-disposition",
                "x-delete-at",
                "x-object-meta-usage-count"
            ]
        );
    }

    #[test]
    fn refuses_what_no_header_carries() {
        for (name, value) in [
            ("", "v"),
            ("a b", "v"),
            ("a:", "v"),
            ("a", "x\r\nX-Evil: 1"),
        ] {
            let metadata = [(name.to_owned(), value.to_owned())].into();
            assert_eq!(
                to_headers(&metadata).unwrap_err().kind(),
                Kind::Invalid,
                "{name:?}"
            );
        }
    }
}
