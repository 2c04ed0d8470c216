//! Objects.

use super::content::{Content, Show};
use super::slo;
use super::{Answer, Refusal, accepted, empty, method_not_allowed, reply, set, timestamp};
use crate::clock;
use crate::objectstore::Store;
use crate::objectstore::disk::Upload;
use crate::objectstore::limits;
use crate::objectstore::listing::Params;
use crate::objectstore::range::{self, Requested, Verdict, http_date};
use crate::objectstore::record::{Headers, Object, Slo, now_us};
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::StreamExt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long an upload may pause; Swift's `client_timeout`.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Bytes received before they are hashed and written together.
const BATCH: usize = 1 << 20;
/// Headers and parameters of features that would change what a request means.
const UNSUPPORTED: [&str; 2] = ["x-copy-from", "x-symlink-target"];
const UNSUPPORTED_PARAMS: [&str; 3] = ["heartbeat", "part-number", "async"];

/// An object that a request is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) container: &'a str,
    pub(super) name: &'a str,
    /// The one container whose objects may be read on the way; absent: all.
    pub(super) within: Option<&'a str>,
}

impl At<'_> {
    /// Refuses segments where a temporary URL does not reach.
    pub(super) fn may_read(&self, container: &str) -> Result<(), Refusal> {
        match self.within {
            Some(within) if within != container => Err(Refusal::Unauthorized("unknown".to_owned())),
            _ => Ok(()),
        }
    }
}

pub(super) async fn serve(
    store: &Arc<Store>,
    parts: &Parts,
    params: &Params,
    body: &mut Option<Body>,
    at: At<'_>,
) -> Answer {
    let headers = &parts.headers;
    let manifest = params.get("multipart-manifest")?;
    if UNSUPPORTED.iter().any(|name| headers.contains_key(*name))
        || UNSUPPORTED_PARAMS.iter().any(|name| params.has(name))
    {
        return Err(Refusal::Status(StatusCode::NOT_IMPLEMENTED));
    }
    match (parts.method.as_str(), manifest) {
        ("GET" | "HEAD", _) => {
            let show = match (manifest, params.get("format")?) {
                (Some("get"), Some("raw")) => Show::Raw,
                (Some("get"), _) => Show::Stored,
                _ => Show::Whole,
            };
            get(store, parts, at, show).await
        }
        ("PUT", Some("put")) => slo::put(store, headers, body, at).await,
        ("PUT", _) => put(store, headers, body, at).await,
        ("POST", _) => post(store, headers, at.container, at.name).await,
        ("DELETE", Some("delete")) => slo::delete(store, headers, at).await,
        ("DELETE", _) => {
            let (container, name) = (at.container.to_owned(), at.name.to_owned());
            store
                .blocking(move |store| store.delete_object(&container, &name))
                .await??;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Err(method_not_allowed()),
    }
}

/// What a PUT says of the object to come.
pub(super) struct Incoming {
    only_new: bool,
    delete_at: Option<u64>,
    metadata: Headers,
    content_type: String,
    /// The ETag that it must get.
    etag: Option<String>,
}

impl Incoming {
    /// Refuses what can be refused before the body is read.
    pub(super) fn read(store: &Store, headers: &HeaderMap, at: At<'_>) -> Result<Self, Refusal> {
        let only_new = check_put(store, headers, at.container, at.name)?;
        let now = clock::unix_seconds();
        let content_type = text(headers, "content-type").filter(|kind| !kind.is_empty());
        let content_type = content_type.unwrap_or("application/octet-stream");
        let etag = text(headers, "etag");
        Ok(Self {
            only_new,
            delete_at: limits::delete_at(headers, now).map_err(Refusal::bad_request)?,
            metadata: limits::object_headers(headers).map_err(Refusal::bad_request)?,
            content_type: content_type.to_owned(),
            etag: etag.map(|etag| etag.trim_matches('"').to_ascii_lowercase()),
        })
    }
}

async fn put(
    store: &Arc<Store>,
    headers: &HeaderMap,
    body: &mut Option<Body>,
    at: At<'_>,
) -> Answer {
    if headers.contains_key("x-static-large-object") {
        return Err(Refusal::bad_request(
            "X-Static-Large-Object is a reserved header. To create a static large object add \
             query param multipart-manifest=put.",
        ));
    }
    let incoming = Incoming::read(store, headers, at)?;
    let upload = receive(store, body.take().unwrap_or_default()).await?;
    keep(store, incoming, upload, None, at).await
}

/// Makes an object of what was received.
pub(super) async fn keep(
    store: &Arc<Store>,
    incoming: Incoming,
    mut upload: Upload,
    slo: Option<Slo>,
    at: At<'_>,
) -> Answer {
    let (container, name) = (at.container.to_owned(), at.name.to_owned());
    let put = store.blocking(move |store| -> Result<Object, Refusal> {
        let (bytes, etag, data) = upload.finish()?;
        let shown = slo.as_ref().map_or(&etag, |slo| &slo.etag);
        if incoming.etag.is_some_and(|expected| expected != *shown) {
            return Err(Refusal::Status(StatusCode::UNPROCESSABLE_ENTITY));
        }
        let object = Object {
            name,
            data,
            bytes,
            etag,
            slo,
            content_type: incoming.content_type,
            modified_us: now_us(),
            delete_at: incoming.delete_at,
            metadata: incoming.metadata,
        };
        store.put_object(&container, &upload, object.clone(), incoming.only_new)?;
        Ok(object)
    });
    let object = put.await??;
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    match &object.slo {
        None => set(headers, "etag", &object.etag),
        Some(slo) => set(headers, "etag", &format!("\"{}\"", slo.etag)),
    }
    set(
        headers,
        "last-modified",
        &http_date(object.modified_seconds()),
    );
    Ok(response)
}

/// Checks size, name and conditions; says whether the object must be new.
fn check_put(
    store: &Store,
    headers: &HeaderMap,
    container: &str,
    name: &str,
) -> Result<bool, Refusal> {
    let length = text(headers, "content-length");
    if length.is_none() && !headers.contains_key(header::TRANSFER_ENCODING) {
        let text = "Missing Content-Length header.".to_owned();
        return Err(Refusal::Text(StatusCode::LENGTH_REQUIRED, text));
    }
    let length: u64 = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    if length > store.options.max_object_bytes {
        return Err(too_large());
    }
    if name.len() > limits::MAX_OBJECT_NAME {
        return Err(Refusal::bad_request(format!(
            "Object name length of {} longer than {}",
            name.len(),
            limits::MAX_OBJECT_NAME
        )));
    }
    check_dlo(headers)?;
    let only_new = match text(headers, "if-none-match") {
        None => false,
        Some(value) if value.trim() == "*" => true,
        Some(_) => return Err(Refusal::bad_request("If-None-Match only supports *")),
    };
    let index = store.index();
    if !index.containers.contains_key(container) {
        return Err(Refusal::NOT_FOUND);
    }
    if only_new && index.object(container, name).is_some() {
        return Err(Refusal::Status(StatusCode::PRECONDITION_FAILED));
    }
    Ok(only_new)
}

/// An `X-Object-Manifest` must name a container and the beginning of names.
fn check_dlo(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get("x-object-manifest") else {
        return Ok(());
    };
    let value = value.to_str().unwrap_or_default();
    let holds = !value.contains(['?', '&'])
        && value.split_once('/').is_some_and(|(container, prefix)| {
            !container.is_empty() && !prefix.is_empty() && !prefix.starts_with('/')
        });
    if holds {
        return Ok(());
    }
    let text = "X-Object-Manifest must be in the format container/prefix";
    Err(Refusal::bad_request(text))
}

fn too_large() -> Refusal {
    let text = "Your request is too large.".to_owned();
    Refusal::Text(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// Writes a body to a file. One batch is received while the one before it is hashed and written,
/// so at most two are in memory.
async fn receive(store: &Arc<Store>, body: Body) -> Result<Upload, Refusal> {
    let upload = store.blocking(|store| store.disk.upload()).await??;
    let mut writing = write(upload, Vec::new());
    let mut stream = body.into_data_stream();
    let (mut batch, mut batched, mut received) = (Vec::new(), 0, 0_u64);
    loop {
        let next = tokio::time::timeout(IDLE, stream.next()).await;
        match next.map_err(|_| Refusal::Status(StatusCode::REQUEST_TIMEOUT))? {
            None => break,
            // Nobody is there to read this answer; it is for the log.
            Some(Err(_)) => return Err(Refusal::Status(client_disconnect())),
            Some(Ok(chunk)) => {
                batched += chunk.len();
                received += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                batch.push(chunk);
            }
        }
        if received > store.options.max_object_bytes {
            return Err(too_large());
        }
        if batched >= BATCH {
            let upload = written(writing).await?;
            writing = write(upload, std::mem::take(&mut batch));
            batched = 0;
        }
    }
    let upload = written(writing).await?;
    Ok(written(write(upload, batch)).await?)
}

type Writing = JoinHandle<io::Result<Upload>>;

fn write(mut upload: Upload, batch: Vec<Bytes>) -> Writing {
    tokio::task::spawn_blocking(move || upload.write(&batch).map(|()| upload))
}

async fn written(writing: Writing) -> io::Result<Upload> {
    writing.await.map_err(io::Error::other)?
}

/// Swift's 499.
fn client_disconnect() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// Replaces all metadata and the expiry, as Swift does; only the content type stays if not sent.
async fn post(store: &Arc<Store>, headers: &HeaderMap, container: &str, name: &str) -> Answer {
    let now = clock::unix_seconds();
    let delete_at = limits::delete_at(headers, now).map_err(Refusal::bad_request)?;
    let metadata = limits::object_headers(headers).map_err(Refusal::bad_request)?;
    let content_type = text(headers, "content-type").filter(|kind| !kind.is_empty());
    let content_type = content_type.map(str::to_owned);
    let (container, name) = (container.to_owned(), name.to_owned());
    let post = store.blocking(move |store| {
        store.post_object(&container, &name, |object| {
            object.metadata = metadata;
            object.delete_at = delete_at;
            if let Some(content_type) = content_type {
                object.content_type = content_type;
            }
        })
    });
    post.await??;
    Ok(accepted())
}

async fn get(store: &Arc<Store>, parts: &Parts, at: At<'_>, show: Show) -> Answer {
    let (object, file) = open(store, at.container, at.name).await?;
    let content = Content::of(store, at, &object, file, show).await?;
    let modified = object.modified_seconds();
    let mut headers = describe(&object);
    content.describe(&mut headers);
    match range::evaluate(&parts.headers, &content.etag, modified) {
        Verdict::Proceed => {}
        Verdict::NotModified => return Ok((StatusCode::NOT_MODIFIED, headers).into_response()),
        Verdict::Failed => return Ok((StatusCode::PRECONDITION_FAILED, headers).into_response()),
    }
    let bytes = content.bytes;
    if parts.method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, bytes.into());
        return Ok(headers.into_response());
    }
    let range = text(&parts.headers, "range");
    let range = range.filter(|_| range::range_applies(&parts.headers, &content.etag, modified));
    match range.map_or(Requested::Whole, |range| range::requested(range, bytes)) {
        Requested::Whole => {
            let body = content.body(store, at, 0, bytes).await?;
            headers.insert(header::CONTENT_LENGTH, bytes.into());
            Ok((headers, body).into_response())
        }
        Requested::Part { first, last } => {
            let length = last - first + 1;
            let body = content.body(store, at, first, length).await?;
            headers.insert(header::CONTENT_LENGTH, length.into());
            let range = format!("bytes {first}-{last}/{bytes}");
            set(&mut headers, "content-range", &range);
            Ok((StatusCode::PARTIAL_CONTENT, headers, body).into_response())
        }
        Requested::Unsatisfiable => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            set(&mut headers, "content-range", &format!("bytes */{bytes}"));
            Ok((status, headers, reply::page(status)).into_response())
        }
    }
}

/// The object and its bytes, which stay readable whatever happens to the object meanwhile.
pub(super) async fn open(
    store: &Arc<Store>,
    container: &str,
    name: &str,
) -> Result<(Arc<Object>, File), Refusal> {
    const TRIES: u32 = 5;
    for attempt in 1..=TRIES {
        let object = store.index().object(container, name).cloned();
        let object = object.ok_or(Refusal::NOT_FOUND)?;
        let path = store.disk.data(container, &object.data);
        match store.blocking(move |_| File::open(path)).await? {
            // Replaced between the two lines above.
            Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < TRIES => {}
            opened => return Ok((object, opened?)),
        }
    }
    Err(Refusal::NOT_FOUND)
}

/// The headers of every answer about an object, but for the ETag.
fn describe(object: &Object) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, "accept-ranges", "bytes");
    set(&mut headers, "content-type", &object.content_type);
    if object.slo.is_some() {
        set(&mut headers, "x-static-large-object", "True");
    }
    set(
        &mut headers,
        "last-modified",
        &http_date(object.modified_seconds()),
    );
    set(&mut headers, "x-timestamp", &timestamp(object.modified_us));
    if let Some(at) = object.delete_at {
        set(&mut headers, "x-delete-at", &at.to_string());
    }
    for (name, value) in &object.metadata.0 {
        set(&mut headers, name, value);
    }
    headers
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
