//! Static large objects: a manifest is stored, or deleted together with its segments.

use super::container::Rows;
use super::object::{At, Incoming, keep, open};
use super::{Answer, Refusal, reply};
use crate::objectstore::Store;
use crate::objectstore::changes::Unchanged;
use crate::objectstore::manifest::{self, Found, Problems, Row, Wanted};
use crate::openstack::temp_url::quote_path;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;

/// `PUT ?multipart-manifest=put`.
pub(super) async fn put(
    store: &Arc<Store>,
    headers: &HeaderMap,
    body: &mut Option<Body>,
    at: At<'_>,
) -> Answer {
    let incoming = Incoming::read(store, headers, at)?;
    let format = Format::wanted(headers).unwrap_or(Format::Plain);
    let body = axum::body::to_bytes(body.take().unwrap_or_default(), manifest::MAX_BYTES);
    let body = tokio::time::timeout(super::object::IDLE, body).await;
    let body = body.map_err(|_| Refusal::Status(StatusCode::REQUEST_TIMEOUT))?;
    let body = body.map_err(|_| {
        let text = format!("Manifest File > {} bytes", manifest::MAX_BYTES);
        Refusal::Text(StatusCode::PAYLOAD_TOO_LARGE, text)
    })?;
    let own = format!("{}/{}", at.container, at.name);
    let wanted = manifest::parse(&body, &own).map_err(Refusal::bad_request)?;
    let objects = wanted.iter().filter(|w| matches!(w, Wanted::Object(_)));
    if objects.count() > manifest::MAX_SEGMENTS {
        let most = manifest::MAX_SEGMENTS;
        let text = format!("Number of object-backed segments must be <= {most}");
        return Err(Refusal::Text(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let (rows, slo) = match manifest::check(wanted, |container, name| find(store, container, name))
    {
        Ok(checked) => checked,
        Err(problems) => return Ok(format.answer(StatusCode::BAD_REQUEST, json!({}), &problems)),
    };
    let stored = Bytes::from(serde_json::to_vec(&rows).map_err(std::io::Error::from)?);
    let upload = store.blocking(move |store| {
        let mut upload = store.disk.upload()?;
        upload.write(&[stored]).map(|()| upload)
    });
    keep(store, incoming, upload.await??, Some(slo), at).await
}

fn find(store: &Store, container: &str, name: &str) -> Result<Found, String> {
    let index = store.index();
    let object = index.object(container, name);
    let object = object.ok_or_else(|| StatusCode::NOT_FOUND.to_string())?;
    let slo = object.slo.as_ref();
    Ok(Found {
        bytes: slo.map_or(object.bytes, |slo| slo.bytes),
        etag: slo.map_or(&object.etag, |slo| &slo.etag).clone(),
        content_type: object.content_type.clone(),
        last_modified: Rows::time(object.modified_seconds() * 1_000_000),
        is_slo: slo.is_some(),
    })
}

/// `DELETE ?multipart-manifest=delete`: 200 whatever happened; the body tells.
pub(super) async fn delete(store: &Arc<Store>, headers: &HeaderMap, at: At<'_>) -> Answer {
    let format = Format::wanted(headers).ok_or(Refusal::Status(StatusCode::NOT_ACCEPTABLE))?;
    let mut done = Done::default();
    let mut queue = VecDeque::from([(at.container.to_owned(), at.name.to_owned(), true)]);
    // A manifest is deleted after its segments: it is queued again behind them.
    while let Some((container, name, is_manifest)) = queue.pop_front() {
        if queue.len() > manifest::MAX_SEGMENTS * 10 {
            return Err(Refusal::bad_request(
                "Too many buffered slo segments to delete.",
            ));
        }
        if !is_manifest {
            done.delete(store, container, name).await?;
            continue;
        }
        match segments(store, &container, &name).await? {
            Ok(segments) => {
                queue.extend(segments);
                queue.push_back((container, name, false));
            }
            Err(StatusCode::NOT_FOUND) => done.missing += 1,
            Err(_) => {
                let path = quote_path(&format!("/{container}/{name}"));
                done.problems.push((path, "Not an SLO manifest".to_owned()));
            }
        }
    }
    let status = match done.problems.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::BAD_REQUEST,
    };
    let said = json!({
        "Response Status": status.to_string(),
        "Response Body": "",
        "Number Deleted": done.deleted,
        "Number Not Found": done.missing,
    });
    Ok(format.answer(StatusCode::OK, said, &done.problems))
}

#[derive(Default)]
struct Done {
    deleted: u64,
    missing: u64,
    problems: Problems,
}

impl Done {
    async fn delete(
        &mut self,
        store: &Arc<Store>,
        container: String,
        name: String,
    ) -> Result<(), Refusal> {
        let delete = store.blocking(move |store| store.delete_object(&container, &name));
        match delete.await? {
            Ok(()) => self.deleted += 1,
            Err(Unchanged::NoObject | Unchanged::NoContainer) => self.missing += 1,
            Err(why) => return Err(why.into()),
        }
        Ok(())
    }
}

/// Container and name of each segment, and whether it is a manifest itself.
type Segments = Vec<(String, String, bool)>;

async fn segments(
    store: &Arc<Store>,
    container: &str,
    name: &str,
) -> Result<Result<Segments, StatusCode>, Refusal> {
    let (object, file) = match open(store, container, name).await {
        Err(Refusal::Status(StatusCode::NOT_FOUND)) => return Ok(Err(StatusCode::NOT_FOUND)),
        opened => opened?,
    };
    if object.slo.is_none() {
        return Ok(Err(StatusCode::BAD_REQUEST));
    }
    let rows = super::content::read_manifest(file).await?;
    let objects = rows.iter().filter_map(|row| match row {
        Row::Inline { .. } => None,
        Row::Object(row) => {
            let (container, name) = row.place();
            Some((container.to_owned(), name.to_owned(), row.sub_slo))
        }
    });
    Ok(Ok(objects.collect()))
}

/// How a report is written.
#[derive(Debug, Clone, Copy)]
enum Format {
    Plain,
    Json,
}

impl Format {
    /// What the client accepts; `None` if it is neither.
    fn wanted(headers: &HeaderMap) -> Option<Self> {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
        match accept {
            Some(accept) if accept.contains("application/json") => Some(Self::Json),
            Some(accept) if !accept.contains("*/*") && !accept.contains("text/") => None,
            _ => Some(Self::Plain),
        }
    }

    /// A report: sums, then what went wrong.
    fn answer(
        self,
        status: StatusCode,
        mut said: Value,
        problems: &[(String, String)],
    ) -> Response {
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        let (kind, body) = match self {
            Self::Json => {
                if let Some(said) = said.as_object_mut() {
                    said.insert("Errors".to_owned(), json!(problems));
                }
                (JSON, said.to_string())
            }
            Self::Plain => {
                let mut body = String::new();
                let mut sums: Vec<_> = said.as_object().into_iter().flatten().collect();
                sums.sort_by_key(|(name, _)| *name);
                for (name, value) in sums {
                    let value = value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned);
                    body.push_str(&format!("{name}: {value}\n"));
                }
                body.push_str("Errors:\n");
                for (path, why) in problems {
                    body.push_str(&format!("{path}, {why}\n"));
                }
                (reply::PLAIN, body)
            }
        };
        (status, [(header::CONTENT_TYPE, kind)], body).into_response()
    }
}
