//! Objects.

use super::{Answer, Refusal, accepted, empty, method_not_allowed, reply, set, timestamp};
use crate::clock;
use crate::objectstore::Store;
use crate::objectstore::disk::Upload;
use crate::objectstore::limits;
use crate::objectstore::listing::Params;
use crate::objectstore::range::{self, Requested, Verdict, http_date};
use crate::objectstore::record::{Object, now_us};
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::StreamExt;
use std::io::{self, SeekFrom};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;

/// How long an upload may pause; Swift's `client_timeout`.
const IDLE: Duration = Duration::from_secs(60);
/// Bytes received before they are hashed and written together.
const BATCH: usize = 1 << 20;
/// Bytes of a file read at a time.
const READ: usize = 256 << 10;
/// Headers and parameters of features that would change what a request means.
const UNSUPPORTED: [&str; 3] = ["x-copy-from", "x-object-manifest", "x-symlink-target"];

pub(super) async fn serve(
    store: &Arc<Store>,
    parts: &Parts,
    params: &Params,
    body: &mut Option<Body>,
    (container, name): (&str, &str),
) -> Answer {
    let headers = &parts.headers;
    match parts.method.as_str() {
        "GET" | "HEAD" => get(store, parts, container, name).await,
        "PUT" => {
            let multipart = params.has("multipart-manifest");
            if multipart || UNSUPPORTED.iter().any(|name| headers.contains_key(*name)) {
                return Err(Refusal::Status(StatusCode::NOT_IMPLEMENTED));
            }
            put(store, headers, body, container, name).await
        }
        "POST" => post(store, headers, container, name).await,
        "DELETE" => {
            let (container, name) = (container.to_owned(), name.to_owned());
            store
                .blocking(move |store| store.delete_object(&container, &name))
                .await??;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Err(method_not_allowed()),
    }
}

async fn put(
    store: &Arc<Store>,
    headers: &HeaderMap,
    body: &mut Option<Body>,
    container: &str,
    name: &str,
) -> Answer {
    let only_new = check_put(store, headers, container, name)?;
    let now = clock::unix_seconds();
    let delete_at = limits::delete_at(headers, now).map_err(Refusal::bad_request)?;
    let metadata = limits::object_headers(headers).map_err(Refusal::bad_request)?;
    let content_type = text(headers, "content-type").filter(|kind| !kind.is_empty());
    let content_type = content_type
        .unwrap_or("application/octet-stream")
        .to_owned();
    let expected = text(headers, "etag").map(|etag| etag.trim_matches('"').to_ascii_lowercase());

    let body = body.take().unwrap_or_default();
    let mut upload = receive(store, body).await?;
    let (container, name) = (container.to_owned(), name.to_owned());
    let put = store.blocking(move |store| -> Result<Object, Refusal> {
        let (bytes, etag, data) = upload.finish()?;
        if expected.is_some_and(|expected| expected != etag) {
            return Err(Refusal::Status(StatusCode::UNPROCESSABLE_ENTITY));
        }
        let object = Object {
            name,
            data,
            bytes,
            etag,
            content_type,
            modified_us: now_us(),
            delete_at,
            metadata,
        };
        store.put_object(&container, &upload, object.clone(), only_new)?;
        Ok(object)
    });
    let object = put.await??;
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    set(headers, "etag", &object.etag);
    set(
        headers,
        "last-modified",
        &http_date(object.modified_seconds()),
    );
    Ok(response)
}

/// Refuses what can be refused before the body is read; says whether the object must be new.
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

async fn get(store: &Arc<Store>, parts: &Parts, container: &str, name: &str) -> Answer {
    let (object, file) = open(store, container, name).await?;
    let modified = object.modified_seconds();
    let mut headers = describe(&object);
    match range::evaluate(&parts.headers, &object.etag, modified) {
        Verdict::Proceed => {}
        Verdict::NotModified => return Ok((StatusCode::NOT_MODIFIED, headers).into_response()),
        Verdict::Failed => return Ok((StatusCode::PRECONDITION_FAILED, headers).into_response()),
    }
    if parts.method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, object.bytes.into());
        return Ok(headers.into_response());
    }
    let range = text(&parts.headers, "range");
    let range = range.filter(|_| range::range_applies(&parts.headers, &object.etag, modified));
    match range.map_or(Requested::Whole, |range| {
        range::requested(range, object.bytes)
    }) {
        Requested::Whole => {
            let body = stream(file, 0, object.bytes).await?;
            headers.insert(header::CONTENT_LENGTH, object.bytes.into());
            Ok((headers, body).into_response())
        }
        Requested::Part { first, last } => {
            let length = last - first + 1;
            let body = stream(file, first, length).await?;
            headers.insert(header::CONTENT_LENGTH, length.into());
            let range = format!("bytes {first}-{last}/{}", object.bytes);
            set(&mut headers, "content-range", &range);
            Ok((StatusCode::PARTIAL_CONTENT, headers, body).into_response())
        }
        Requested::Unsatisfiable => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            set(
                &mut headers,
                "content-range",
                &format!("bytes */{}", object.bytes),
            );
            Ok((status, headers, reply::page(status)).into_response())
        }
    }
}

/// The object and its bytes, which stay readable whatever happens to the object meanwhile.
async fn open(
    store: &Arc<Store>,
    container: &str,
    name: &str,
) -> Result<(Arc<Object>, tokio::fs::File), Refusal> {
    const TRIES: u32 = 5;
    for attempt in 1..=TRIES {
        let object = store.index().object(container, name).cloned();
        let object = object.ok_or(Refusal::NOT_FOUND)?;
        match tokio::fs::File::open(store.disk.data(container, &object.data)).await {
            // Replaced between the two lines above.
            Err(e) if e.kind() == io::ErrorKind::NotFound && attempt < TRIES => {}
            opened => return Ok((object, opened?)),
        }
    }
    Err(Refusal::NOT_FOUND)
}

async fn stream(mut file: tokio::fs::File, first: u64, length: u64) -> io::Result<Body> {
    file.seek(SeekFrom::Start(first)).await?;
    Ok(Body::from_stream(ReaderStream::with_capacity(
        file.take(length),
        READ,
    )))
}

/// The headers of every answer about an object.
fn describe(object: &Object) -> HeaderMap {
    let mut headers = HeaderMap::new();
    set(&mut headers, "accept-ranges", "bytes");
    set(&mut headers, "content-type", &object.content_type);
    set(&mut headers, "etag", &object.etag);
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
