//! Manifests of static large objects: what a client sends, what is kept of it, which segments
//! hold which bytes. As Swift 2.38 has them, its messages included.

use super::range::{self, Requested};
use super::record::{Object, Slo};
use crate::openstack::temp_url::quote_path;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Most segments of one manifest that are objects.
pub(super) const MAX_SEGMENTS: usize = 1000;
/// Longest manifest that is read, in bytes.
pub(super) const MAX_BYTES: usize = 8 << 20;

/// A segment as a client asks for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Bytes in the manifest itself.
    Inline(Vec<u8>),
    Object(Segment),
}

/// An object that is to be a segment, and what it must be like.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    /// As sent: `/container/object`, the first slash optional.
    path: String,
    etag: Option<String>,
    bytes: Option<i64>,
    /// `first-last`, `first-` or `-suffix`.
    range: Option<String>,
}

/// What is known of an object that is to be a segment.
pub(super) struct Found {
    pub(super) bytes: u64,
    pub(super) etag: String,
    pub(super) content_type: String,
    /// In Swift's form.
    pub(super) last_modified: String,
    /// Whether it is a static large object itself.
    pub(super) is_slo: bool,
}

/// A segment as it is kept, and as `multipart-manifest=get` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Row {
    Inline {
        /// In Base64.
        data: String,
    },
    Object(ObjectRow),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectRow {
    /// `/container/object`.
    pub(super) name: String,
    /// Of the whole object, whatever the range.
    pub(super) bytes: u64,
    pub(super) hash: String,
    content_type: String,
    last_modified: String,
    /// `first-last`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) sub_slo: bool,
}

/// Path and reason of each segment that does not hold.
pub(super) type Problems = Vec<(String, String)>;

/// Reads what a client sent to make `own` (`container/object`). The error is the body of a 400.
pub(super) fn parse(body: &[u8], own: &str) -> Result<Vec<Wanted>, String> {
    let sent: Value =
        serde_json::from_slice(body).map_err(|_| "Manifest must be valid JSON.\n".to_owned())?;
    let Value::Array(sent) = sent else {
        return Err("Manifest must be a list.\n".to_owned());
    };
    let last = sent.len().saturating_sub(1);
    let mut wanted = Vec::with_capacity(sent.len());
    let mut wrong = String::new();
    for (index, segment) in sent.iter().enumerate() {
        match parse_segment(segment, own, index == last) {
            Ok(segment) => wanted.push(segment),
            Err(why) => wrong.push_str(&format!("Index {index}: {why}\n")),
        }
    }
    if !wanted.is_empty() && wanted.iter().all(|w| matches!(w, Wanted::Inline(_))) {
        wrong.push_str("Inline data segments require at least one object-backed segment.\n");
    }
    if wrong.is_empty() {
        Ok(wanted)
    } else {
        Err(wrong)
    }
}

fn parse_segment(segment: &Value, own: &str, is_last: bool) -> Result<Wanted, String> {
    let segment = segment.as_object().ok_or("not a JSON object")?;
    let known: &[&str] = if segment.contains_key("data") {
        &["data"]
    } else if segment.contains_key("path") {
        &["path", "range", "etag", "size_bytes"]
    } else {
        return Err("expected keys to include one of 'data' or 'path'".to_owned());
    };
    let mut unknown: Vec<&str> = segment.keys().map(String::as_str).collect();
    unknown.retain(|key| !known.contains(key));
    if !unknown.is_empty() {
        unknown.sort_unstable();
        let unknown = unknown.iter().map(|key| json!(key).to_string());
        let unknown = unknown.collect::<Vec<_>>().join(", ");
        return Err(format!("extraneous keys {unknown}"));
    }
    match segment.get("data") {
        Some(data) => parse_inline(data),
        None => parse_object(segment, own, is_last),
    }
}

fn parse_inline(data: &Value) -> Result<Wanted, String> {
    let data = data.as_str().and_then(|data| BASE64.decode(data).ok());
    let data = data.ok_or("data must be valid base64")?;
    if data.is_empty() {
        return Err(TOO_SMALL.to_owned());
    }
    Ok(Wanted::Inline(data))
}

const TOO_SMALL: &str = "too small; each segment must be at least 1 byte.";

fn parse_object(segment: &Map<String, Value>, own: &str, is_last: bool) -> Result<Wanted, String> {
    let sent = |name| segment.get(name).filter(|value| !value.is_null());
    let path = sent("path").and_then(Value::as_str);
    let path = path.ok_or("\"path\" must be a string")?.to_owned();
    let etag = match sent("etag") {
        None => None,
        Some(Value::String(etag)) => Some(etag.clone()),
        Some(_) => return Err("\"etag\" must be a string or null (if provided)".to_owned()),
    };
    if !path.trim_matches('/').contains('/') {
        return Err(
            "path does not refer to an object. Path must be of the form \
                    /container/object."
                .to_owned(),
        );
    }
    let bytes = match sent("size_bytes") {
        None => None,
        Some(size) => {
            let size = size
                .as_str()
                .map_or_else(|| size.as_i64(), |text| text.trim().parse().ok());
            Some(size.ok_or("invalid size_bytes")?)
        }
    };
    if bytes.is_some_and(|bytes| bytes < 1) && !is_last {
        return Err(TOO_SMALL.to_owned());
    }
    if path.trim_start_matches('/') == own {
        return Err("manifest must not include itself as a segment".to_owned());
    }
    let range = match sent("range") {
        None => None,
        Some(Value::String(range)) if range.is_empty() => None,
        Some(range) => Some(parse_range(range, bytes)?),
    };
    Ok(Wanted::Object(Segment {
        path,
        etag,
        bytes,
        range,
    }))
}

fn parse_range(range: &Value, bytes: Option<i64>) -> Result<String, String> {
    let range = range.as_str().ok_or("invalid range")?;
    if range.contains(',') {
        return Err("multiple ranges (only one allowed)".to_owned());
    }
    let length = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    match range::requested(&format!("bytes={range}"), length.unwrap_or(u64::MAX)) {
        Requested::Whole => Err("invalid range".to_owned()),
        Requested::Unsatisfiable if length.is_some() => Err("unsatisfiable range".to_owned()),
        _ => Ok(range.to_owned()),
    }
}

/// Compares what is wanted with what there is: the rows to keep and what they amount to.
/// `find` takes container and object; its error is a status line.
pub(super) fn check(
    wanted: Vec<Wanted>,
    find: impl Fn(&str, &str) -> Result<Found, String>,
) -> Result<(Vec<Row>, Slo), Problems> {
    let last = wanted.len().saturating_sub(1);
    let (mut rows, mut problems) = (Vec::with_capacity(wanted.len()), Vec::new());
    let (mut bytes, mut etags) = (0_u64, Md5::new());
    for (index, wanted) in wanted.into_iter().enumerate() {
        let row = match wanted {
            Wanted::Inline(data) => {
                etags.update(hex::encode(Md5::digest(&data)));
                Row::Inline {
                    data: BASE64.encode(data),
                }
            }
            Wanted::Object(segment) => {
                let (container, name) = split(&segment.path);
                let found = find(container, name);
                let row = found.map_err(|why| vec![why]);
                match row.and_then(|found| segment.fits(found, index == last)) {
                    Ok(row) => {
                        etags.update(row.part_of_etag());
                        Row::Object(row)
                    }
                    Err(reasons) => {
                        let path = quote_path(&segment.path);
                        problems.extend(reasons.into_iter().map(|why| (path.clone(), why)));
                        continue;
                    }
                }
            }
        };
        bytes = bytes.saturating_add(row.length());
        rows.push(row);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let etag = hex::encode(etags.finalize());
    Ok((rows, Slo { bytes, etag }))
}

impl Segment {
    /// The row for an object, or all that is wrong with it.
    fn fits(&self, found: Found, is_last: bool) -> Result<ObjectRow, Vec<String>> {
        let mut wrong = Vec::new();
        let mut length = found.bytes;
        let mut range = None;
        if let Some(wanted) = &self.range {
            match range::requested(&format!("bytes={wanted}"), found.bytes) {
                Requested::Part { first, last } => {
                    length = last - first + 1;
                    range = (length != found.bytes).then(|| format!("{first}-{last}"));
                }
                _ => wrong.push("Unsatisfiable Range".to_owned()),
            }
        }
        if length < 1 && !is_last {
            wrong.push("Too small; each segment must be at least 1 byte.".to_owned());
        }
        if self
            .bytes
            .is_some_and(|bytes| u64::try_from(bytes) != Ok(found.bytes))
        {
            wrong.push("Size Mismatch".to_owned());
        }
        if self.etag.as_ref().is_some_and(|etag| *etag != found.etag) {
            wrong.push("Etag Mismatch".to_owned());
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(ObjectRow {
            name: format!("/{}", self.path.trim_start_matches('/')),
            bytes: found.bytes,
            hash: found.etag,
            content_type: found.content_type,
            last_modified: found.last_modified,
            range,
            sub_slo: found.is_slo,
        })
    }
}

impl ObjectRow {
    /// The row of a whole object that no manifest names.
    pub(super) fn listed(container: &str, object: &Object) -> Self {
        Self {
            name: format!("/{container}/{}", object.name),
            bytes: object.bytes,
            hash: object.etag.clone(),
            content_type: String::new(),
            last_modified: String::new(),
            range: None,
            sub_slo: false,
        }
    }

    /// Container and object.
    pub(super) fn place(&self) -> (&str, &str) {
        split(&self.name)
    }

    /// The first byte that is used, and how many.
    pub(super) fn part(&self) -> (u64, u64) {
        let range = self
            .range
            .as_deref()
            .and_then(|range| range.split_once('-'));
        let number = |text: &str| text.parse::<u64>().ok();
        match range.and_then(|(first, last)| Some((number(first)?, number(last)?))) {
            Some((first, last)) => (first, last.saturating_sub(first).saturating_add(1)),
            None => (0, self.bytes),
        }
    }

    fn part_of_etag(&self) -> String {
        match &self.range {
            Some(range) => format!("{}:{range};", self.hash),
            None => self.hash.clone(),
        }
    }
}

impl Row {
    /// How many bytes of the large object it holds.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Inline { data } => {
                let padding = data.bytes().rev().take_while(|b| *b == b'=').count();
                u64::try_from(data.len() / 4 * 3 - padding.min(data.len())).unwrap_or(0)
            }
            Self::Object(row) => row.part().1,
        }
    }

    /// The bytes of an inline segment.
    pub(super) fn inline(data: &str) -> Vec<u8> {
        BASE64.decode(data).unwrap_or_default()
    }

    /// As a client could send it (`format=raw`).
    pub(super) fn raw(&self) -> Value {
        let row = match self {
            Self::Inline { data } => return json!({ "data": data }),
            Self::Object(row) => row,
        };
        let mut raw = json!({ "path": row.name, "etag": row.hash, "size_bytes": row.bytes });
        if let (Some(raw), Some(range)) = (raw.as_object_mut(), &row.range) {
            raw.insert("range".to_owned(), json!(range));
        }
        raw
    }
}

/// Which bytes of which rows make up `length` bytes from `first` on: of each row's object the
/// first byte and how many.
pub(super) fn slice(rows: &[Row], first: u64, length: u64) -> Vec<(&Row, u64, u64)> {
    let end = first.saturating_add(length);
    let mut start = 0_u64;
    let mut parts = Vec::new();
    for row in rows {
        let row_end = start.saturating_add(row.length());
        let (from, to) = (first.max(start), end.min(row_end));
        if from < to {
            let offset = match row {
                Row::Inline { .. } => 0,
                Row::Object(row) => row.part().0,
            };
            parts.push((row, offset + (from - start), to - from));
        }
        start = row_end;
    }
    parts
}

/// Container and object of a path, with a slash before it or not.
pub(super) fn split(path: &str) -> (&str, &str) {
    let path = path.trim_start_matches('/');
    path.split_once('/').unwrap_or((path, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(bytes: u64) -> Found {
        Found {
            bytes,
            etag: format!("e{bytes}"),
            content_type: "t".to_owned(),
            last_modified: "2017-07-14T02:40:00.000000".to_owned(),
            is_slo: false,
        }
    }

    /// Objects named by their length.
    fn checked(manifest: &Value) -> Result<(Vec<Row>, Slo), Problems> {
        let wanted = parse(manifest.to_string().as_bytes(), "c/own").unwrap();
        check(wanted, |_, name| {
            let bytes = name.parse().map_err(|_| "404 Not Found".to_owned());
            bytes.map(found)
        })
    }

    #[test]
    fn sizes_and_etags_add_up() {
        let (rows, slo) = checked(&json!([
            { "path": "c/10", "range": "2-4" },
            { "data": "ZGQ=" },
            { "path": "/c/5", "etag": "e5", "size_bytes": "5", "range": "0-9" },
        ]))
        .unwrap();
        assert_eq!(rows.iter().map(Row::length).collect::<Vec<_>>(), [3, 2, 5]);
        let etags = format!("e10:2-4;{}e5", hex::encode(Md5::digest("dd")));
        assert_eq!((slo.bytes, slo.etag), (10, hex::encode(Md5::digest(etags))));
        let kept = serde_json::to_vec(&rows).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Row>>(&kept).unwrap(), rows);
        let parts = slice(&rows, 2, 5);
        let parts: Vec<_> = parts
            .iter()
            .map(|(_, first, length)| (*first, *length))
            .collect();
        assert_eq!(parts, [(4, 1), (0, 2), (0, 2)]);
    }

    #[test]
    fn says_all_that_is_wrong() {
        let problems = checked(&json!([
            { "path": "c/10", "etag": "x", "size_bytes": 9 },
            { "path": "c/none" },
            { "path": "c/0" },
            { "path": "c/3", "range": "3-" },
            { "path": "c/1" },
        ]));
        let problems = problems.unwrap_err();
        let said: Vec<_> = problems.iter().map(|(p, why)| (&p[..], &why[..])).collect();
        assert_eq!(
            said,
            [
                ("c/10", "Size Mismatch"),
                ("c/10", "Etag Mismatch"),
                ("c/none", "404 Not Found"),
                ("c/0", "Too small; each segment must be at least 1 byte."),
                ("c/3", "Unsatisfiable Range"),
            ]
        );
        let own = parse(br#"[{"path": "/c/own"}, 1, {}]"#, "c/own").unwrap_err();
        assert_eq!(
            own,
            "Index 0: manifest must not include itself as a segment\nIndex 1: not a JSON object\n\
             Index 2: expected keys to include one of 'data' or 'path'\n"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}|\\[\\{\"(path|data|range|etag)\":[\"a/0-9,=]{0,20}\\}\\]") {
            if let Ok(wanted) = parse(text.as_bytes(), "c/own") {
                drop(check(wanted, |_, name| Ok(found(u64::try_from(name.len()).unwrap()))));
            }
        }

        /// A slice has the bytes that were asked for, each row's inside its own part.
        #[test]
        fn slices_are_exact(
            lengths in prop::collection::vec((1_u64..50, 0_u64..50), 1..8),
            first in 0_u64..400,
            length in 0_u64..400,
        ) {
            let rows = lengths.iter().map(|(length, skipped)| {
                let bytes = skipped + length;
                json!({ "path": format!("c/{bytes}"), "range": format!("{skipped}-{}", bytes - 1) })
            });
            let (rows, slo) = checked(&Value::from_iter(rows)).unwrap();
            let parts = slice(&rows, first, length);
            let sum: u64 = parts.iter().map(|(_, _, length)| length).sum();
            prop_assert_eq!(sum, slo.bytes.saturating_sub(first).min(length));
            for (row, from, length) in parts {
                let Row::Object(row) = row else { panic!() };
                let (start, most) = row.part();
                prop_assert!(from >= start && from + length <= start + most && length > 0);
            }
        }
    }
}
