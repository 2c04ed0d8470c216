//! Containers and the two formats of listings.

use super::{Answer, Refusal, accepted, empty, method_not_allowed, set, timestamp};
use crate::clock;
use crate::objectstore::Store;
use crate::objectstore::changes::Put;
use crate::objectstore::limits;
use crate::objectstore::listing::{self, Params, Row};
use crate::objectstore::range::http_date;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

pub(super) async fn serve(
    store: &Arc<Store>,
    parts: &Parts,
    params: &Params,
    name: &str,
) -> Answer {
    let edits = || limits::edits(&parts.headers, "container").map_err(Refusal::bad_request);
    let owned = name.to_owned();
    match parts.method.as_str() {
        "GET" | "HEAD" => list(store, parts, params, name),
        "PUT" => {
            if name.len() > limits::MAX_CONTAINER_NAME {
                return Err(Refusal::bad_request(format!(
                    "Container name length of {} longer than {}",
                    name.len(),
                    limits::MAX_CONTAINER_NAME
                )));
            }
            refuse_acl(&parts.headers)?;
            let edits = edits()?;
            let put = store
                .blocking(move |store| store.put_container(&owned, edits))
                .await??;
            Ok(match put {
                Put::Created => empty(StatusCode::CREATED),
                Put::Updated => accepted(),
            })
        }
        "POST" => {
            refuse_acl(&parts.headers)?;
            let edits = edits()?;
            store
                .blocking(move |store| store.post_container(&owned, edits))
                .await??;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        "DELETE" => {
            store
                .blocking(move |store| store.delete_container(&owned))
                .await??;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Err(method_not_allowed()),
    }
}

/// There is one account. An access list that is taken and not obeyed would be worse than none.
fn refuse_acl(headers: &HeaderMap) -> Result<(), Refusal> {
    let acls = ["x-container-read", "x-container-write"];
    if acls
        .iter()
        .any(|name| headers.get(*name).is_some_and(|acl| !acl.is_empty()))
    {
        let text = "This store has no access lists; temporary URLs open objects to others";
        return Err(Refusal::bad_request(text));
    }
    Ok(())
}

fn list(store: &Store, parts: &Parts, params: &Params, name: &str) -> Answer {
    let query = params.listing()?;
    let now = clock::unix_seconds();
    let index = store.index();
    let contents = index.containers.get(name).ok_or(Refusal::NOT_FOUND)?;
    let listed = listing::list(&contents.objects, &query, |object| object.is_live(now));
    let rows = rows(parts, params, query.limit, &listed, |row| match row {
        Row::Subdir(dir) => json!({ "subdir": dir }),
        Row::Item(name, object) => {
            let mut row = json!({
                "name": name,
                "bytes": object.bytes,
                "hash": object.etag,
                "content_type": object.content_type,
                "last_modified": Rows::time(object.modified_us),
            });
            if let (Some(slo), Some(row)) = (&object.slo, row.as_object_mut()) {
                row.insert("bytes".to_owned(), slo.bytes.into());
                row.insert("slo_etag".to_owned(), format!("\"{}\"", slo.etag).into());
            }
            row
        }
    })?;
    let mut response = rows.into_response();
    let headers = response.headers_mut();
    let (count, bytes) = contents.usage(now);
    let created_us = contents.container.created_us;
    set(headers, "x-container-object-count", &count.to_string());
    set(headers, "x-container-bytes-used", &bytes.to_string());
    set(headers, "x-timestamp", &timestamp(created_us));
    set(
        headers,
        "last-modified",
        &http_date(created_us.div_ceil(1_000_000)),
    );
    for (name, value) in &contents.container.metadata.0 {
        set(headers, name, value);
    }
    Ok(response)
}

/// A listing ready to be sent.
pub(super) enum Rows {
    Plain(String),
    Json(Vec<Value>),
    /// HEAD shows the headers alone.
    Head,
}

impl Rows {
    /// Swift's form of a time in listings.
    pub(super) fn time(us: u64) -> String {
        let time = UNIX_EPOCH + Duration::from_micros(us);
        let text = humantime::format_rfc3339_micros(time).to_string();
        text.trim_end_matches('Z').to_owned()
    }
}

/// Formats rows as the client asked: `?format=`, else `Accept`, else plain.
pub(super) fn rows<'a, T: 'a>(
    parts: &Parts,
    params: &Params,
    limit: usize,
    rows: &[Row<'a, T>],
    json: impl Fn(&Row<'a, T>) -> Value,
) -> Result<Rows, Refusal> {
    if limit > listing::LIMIT {
        let text = format!("Maximum limit is {}", listing::LIMIT);
        return Err(Refusal::precondition(text));
    }
    let accept = parts
        .headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok());
    let format = params.get("format")?.map(str::to_ascii_lowercase);
    let as_json = match (format.as_deref(), accept) {
        (Some("xml"), _) => return Err(Refusal::Status(StatusCode::NOT_ACCEPTABLE)),
        (Some(format), _) => format == "json",
        (None, Some(accept)) if accept.contains("application/json") => true,
        (None, Some(accept)) if accept.contains("*/*") || accept.contains("text/") => false,
        (None, Some(_)) => return Err(Refusal::Status(StatusCode::NOT_ACCEPTABLE)),
        (None, None) => false,
    };
    Ok(if parts.method == Method::HEAD {
        Rows::Head
    } else if as_json {
        Rows::Json(rows.iter().map(json).collect())
    } else {
        Rows::Plain(rows.iter().flat_map(|row| [row.name(), "\n"]).collect())
    })
}

impl IntoResponse for Rows {
    fn into_response(self) -> Response {
        const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
        const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
        let (status, kind, body) = match self {
            Self::Head => (StatusCode::NO_CONTENT, TEXT, String::new()),
            Self::Plain(text) if text.is_empty() => (StatusCode::NO_CONTENT, TEXT, text),
            Self::Plain(text) => (StatusCode::OK, TEXT, text),
            Self::Json(rows) => (StatusCode::OK, JSON, Value::from(rows).to_string()),
        };
        let mut response = (status, body).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        set(response.headers_mut(), "accept-ranges", "bytes");
        response
    }
}
