//! What a GET of an object sends: the bytes of one file, or of segments one after the other.

use super::object::{At, open};
use super::{Refusal, set};
use crate::objectstore::Store;
use crate::objectstore::listing::{self, Query, Row as Listed};
use crate::objectstore::manifest::{self, ObjectRow, Row};
use crate::objectstore::record::Object;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a file read at a time: what a connection holds in memory, beside its TLS buffers.
const READ: u64 = 256 << 10;
/// How deep static large objects may lie in one another, as in Swift.
const DEPTH: u32 = 10;
/// Most parts that large objects within a large object are taken apart into.
const PIECES: usize = 100_000;

/// A representation: its length, its entity tag, and where its bytes are.
pub(super) struct Content {
    pub(super) bytes: u64,
    pub(super) etag: String,
    source: Source,
}

enum Source {
    File(File),
    /// The manifest of a static large object.
    Manifest(File),
    /// The same as a client could send it.
    Raw(Bytes),
    /// The segments, and the MD5 of the manifest if a manifest lists them.
    Segments(Vec<Row>, Option<String>),
}

/// What of a static large object is asked for; any other object is shown as it is but for
/// [`Show::Whole`] of a dynamic one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// The bytes of its segments.
    Whole,
    /// The manifest as it is kept.
    Stored,
    /// The manifest as a client could send it.
    Raw,
}

/// A run of bytes.
enum Piece {
    Inline(Bytes),
    /// Of an object, as long as it is the one with this ETag.
    Stored {
        row: ObjectRow,
        first: u64,
        length: u64,
    },
}

impl Content {
    /// What is shown of an object that has been opened.
    pub(super) async fn of(
        store: &Arc<Store>,
        at: At<'_>,
        object: &Object,
        file: File,
        show: Show,
    ) -> Result<Self, Refusal> {
        let stored = |source| Self {
            bytes: object.bytes,
            etag: object.etag.clone(),
            source,
        };
        let prefix = object.metadata.0.get("x-object-manifest");
        match (show, &object.slo, prefix) {
            (Show::Stored, Some(_), _) => Ok(stored(Source::Manifest(file))),
            (Show::Raw, Some(_), _) => {
                let rows = read_manifest(file).await?;
                let raw = Value::from_iter(rows.iter().map(Row::raw)).to_string();
                Ok(Self {
                    bytes: u64::try_from(raw.len()).unwrap_or(u64::MAX),
                    etag: hex::encode(Md5::digest(&raw)),
                    source: Source::Raw(raw.into()),
                })
            }
            (Show::Whole, Some(slo), _) => Ok(Self {
                bytes: slo.bytes,
                etag: slo.etag.clone(),
                source: Source::Segments(read_manifest(file).await?, Some(object.etag.clone())),
            }),
            (Show::Whole, None, Some(prefix)) => Self::of_prefix(store, at, prefix),
            (_, None, _) => Ok(stored(Source::File(file))),
        }
    }

    /// A dynamic large object: whatever there is whose name begins so (`container/prefix`).
    fn of_prefix(store: &Store, at: At<'_>, prefix: &str) -> Result<Self, Refusal> {
        let prefix = percent_decode_str(prefix).decode_utf8_lossy();
        let (container, prefix) = manifest::split(&prefix);
        at.may_read(container)?;
        let query = Query {
            prefix: prefix.to_owned(),
            limit: usize::MAX,
            ..Query::default()
        };
        let now = crate::clock::unix_seconds();
        let index = store.index();
        let contents = index.containers.get(container).ok_or(Refusal::NOT_FOUND)?;
        let listed = listing::list(&contents.objects, &query, |object| object.is_live(now));
        let objects = listed.iter().filter_map(|row| match row {
            Listed::Item(_, object) => Some(object),
            Listed::Subdir(_) => None,
        });
        let (mut bytes, mut etags) = (0, Md5::new());
        let mut rows = Vec::with_capacity(listed.len());
        for object in objects {
            bytes += object.bytes;
            etags.update(&object.etag);
            rows.push(Row::Object(ObjectRow::listed(container, object)));
        }
        Ok(Self {
            bytes,
            etag: hex::encode(etags.finalize()),
            source: Source::Segments(rows, None),
        })
    }

    /// Sets the headers that depend on where the bytes are.
    pub(super) fn describe(&self, headers: &mut HeaderMap) {
        match &self.source {
            Source::Segments(_, manifest) => {
                set(headers, "etag", &format!("\"{}\"", self.etag));
                if let Some(etag) = manifest {
                    set(headers, "x-manifest-etag", etag);
                }
            }
            Source::Manifest(_) => {
                set(headers, "etag", &self.etag);
                set(headers, "content-type", "application/json; charset=utf-8");
            }
            Source::File(_) | Source::Raw(_) => set(headers, "etag", &self.etag),
        }
    }

    /// Some of the bytes. The first segment is opened before the answer begins; if a later one
    /// is no longer what it was, the connection is cut.
    pub(super) async fn body(
        self,
        store: &Arc<Store>,
        at: At<'_>,
        first: u64,
        length: u64,
    ) -> Result<Body, Refusal> {
        let rows = match self.source {
            Source::File(file) | Source::Manifest(file) => {
                return Ok(Body::from_stream(read(file, first, length)));
            }
            Source::Raw(raw) => {
                return Ok(cut(&raw, first, length).map_or_else(Body::empty, Body::from));
            }
            Source::Segments(rows, _) => rows,
        };
        let pieces = store.blocking(move |store| {
            let mut pieces = Vec::new();
            collect(store, &rows, (first, length), DEPTH, &mut pieces).map(|()| pieces)
        });
        let mut pieces = pieces.await??.into_iter();
        let within = at.within.map(str::to_owned);
        let store = Arc::clone(store);
        let Some(piece) = pieces.next() else {
            return Ok(Body::empty());
        };
        let head = bytes_of(&store, within.as_deref(), piece).await;
        let head = head.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Refusal::Status(StatusCode::CONFLICT),
            _ => error.into(),
        })?;
        let rest = stream::iter(pieces).then(move |piece| {
            let (store, within) = (Arc::clone(&store), within.clone());
            async move { bytes_of(&store, within.as_deref(), piece).await }
        });
        let all = stream::iter([Ok(head)]).chain(rest).try_flatten();
        Ok(Body::from_stream(all))
    }
}

/// Takes rows apart until only bytes are left. Blocks.
fn collect(
    store: &Store,
    rows: &[Row],
    (first, length): (u64, u64),
    depth: u32,
    pieces: &mut Vec<Piece>,
) -> Result<(), Refusal> {
    const BROKEN: Refusal = Refusal::Status(StatusCode::CONFLICT);
    for (row, first, length) in manifest::slice(rows, first, length) {
        let row = match row {
            Row::Inline { data } => {
                let data = Bytes::from(Row::inline(data));
                let data = cut(&data, first, length).ok_or(BROKEN)?;
                pieces.push(Piece::Inline(data));
                continue;
            }
            Row::Object(row) => row,
        };
        if !row.sub_slo {
            let row = row.clone();
            pieces.push(Piece::Stored { row, first, length });
            continue;
        }
        let (container, name) = row.place();
        let object = store.index().object(container, name).cloned();
        let object = object.ok_or(BROKEN)?;
        let same = object.slo.as_ref().is_some_and(|slo| slo.etag == row.hash);
        if !same || depth == 0 || pieces.len() > PIECES {
            return Err(BROKEN);
        }
        let manifest = std::fs::read(store.disk.data(container, &object.data))?;
        let rows: Vec<Row> = serde_json::from_slice(&manifest).map_err(io::Error::from)?;
        collect(store, &rows, (first, length), depth - 1, pieces)?;
    }
    Ok(())
}

/// A part of bytes in memory.
fn cut(bytes: &Bytes, first: u64, length: u64) -> Option<Bytes> {
    let first = usize::try_from(first).ok()?;
    let end = first.checked_add(usize::try_from(length).ok()?)?;
    (end <= bytes.len()).then(|| bytes.slice(first..end))
}

/// `InvalidData` if the segment is gone, changed, or not for this reader.
async fn bytes_of(
    store: &Arc<Store>,
    within: Option<&str>,
    piece: Piece,
) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    let (row, first, length) = match piece {
        Piece::Inline(bytes) => return Ok(stream::iter([Ok(bytes)]).boxed()),
        Piece::Stored { row, first, length } => (row, first, length),
    };
    let (container, name) = row.place();
    let at = At {
        container,
        name,
        within,
    };
    let opened = match at.may_read(container) {
        Ok(()) => open(store, container, name).await.ok(),
        Err(_) => None,
    };
    match opened.filter(|(object, _)| object.etag == row.hash) {
        Some((_, file)) => Ok(read(file, first, length).boxed()),
        None => {
            tracing::warn!(segment = row.name, "no longer what the manifest names");
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

/// A part of a file, piece by piece: the next one is read when the one before has gone out.
fn read(file: File, first: u64, length: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let file = Arc::new(file);
    stream::try_unfold((first, length), move |(first, left)| {
        let file = Arc::clone(&file);
        async move {
            if left == 0 {
                return Ok(None);
            }
            let length = left.min(READ);
            let piece = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
                file.read_exact_at(&mut piece, first)
                    .map(|()| Bytes::from(piece))
            });
            let piece = piece.await.map_err(io::Error::other)??;
            Ok(Some((piece, (first + length, left - length))))
        }
    })
}

/// The rows of a stored manifest.
pub(super) async fn read_manifest(mut file: File) -> io::Result<Vec<Row>> {
    let read = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    });
    read.await.map_err(io::Error::other)?
}
