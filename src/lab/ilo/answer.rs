//! Answers in the shape and transfer coding of an iLO 5.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use futures_util::stream;
use serde_json::{Value, json};
use std::convert::Infallible;

/// Size of the pieces in which a body is sent; odd, so that they end anywhere.
const CHUNK_BYTES: usize = 997;

/// An answer before it goes on the wire.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Value,
}

impl Answer {
    /// A resource.
    pub(super) fn document(mut body: Value) -> Self {
        if let Some(members) = body.as_object_mut() {
            members.remove("@odata.etag");
        }
        let etag = format!("W/\"{:08X}\"", crc32c::crc32c(body.to_string().as_bytes()));
        if let Some(members) = body.as_object_mut() {
            members.insert("@odata.etag".to_owned(), Value::from(etag.as_str()));
        }
        Self {
            status: StatusCode::OK,
            headers: vec![(ETAG, etag)],
            body,
        }
    }

    /// A message of the `Base` or `iLO` registry in the version of iLO 5 3.11.
    pub(super) fn message(status: StatusCode, id: &str, args: &[&str]) -> Self {
        let id = match id.split_once('.') {
            Some(("Base", key)) => format!("Base.1.18.{key}"),
            Some(("iLO", key)) => format!("iLO.2.25.{key}"),
            _ => id.to_owned(),
        };
        let mut info = json!({ "MessageId": id });
        if !args.is_empty() {
            info = json!({ "MessageArgs": args, "MessageId": id });
        }
        let body = json!({ "error": {
            "code": "iLO.0.10.ExtendedInfo",
            "message": "See @Message.ExtendedInfo for more information.",
            "@Message.ExtendedInfo": [info],
        }});
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    /// Done.
    pub(super) fn success() -> Self {
        Self::message(StatusCode::OK, "Base.Success", &[])
    }

    /// Refused with 400.
    pub(super) fn refused(id: &str, args: &[&str]) -> Self {
        Self::message(StatusCode::BAD_REQUEST, id, args)
    }

    /// Nothing is there.
    pub(super) fn missing(path: &str) -> Self {
        Self::message(StatusCode::NOT_FOUND, "Base.ResourceMissingAtURI", &[path])
    }

    /// The resource is there, but not for this method.
    pub(super) fn method_not_allowed(method: &str, allowed: &str) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::message(status, "Base.ActionNotSupported", &[method]).with(ALLOW, allowed)
    }

    /// The resource is elsewhere, for the same method and body.
    pub(super) fn moved(path: &str) -> Self {
        let status = StatusCode::PERMANENT_REDIRECT;
        Self {
            status,
            headers: Vec::new(),
            body: Value::Null,
        }
        .with(LOCATION, path)
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Prints links with a trailing slash, as iLO 5 1.40 and newer do when asked with one.
    pub(super) fn with_slashes(mut self) -> Self {
        add_slashes(&mut self.body);
        self
    }

    /// The chunked response.
    pub(super) fn send(self) -> Response<Body> {
        let body = match self.body {
            Value::Null => Body::empty(),
            body => {
                let bytes = body.to_string().into_bytes();
                let chunks: Vec<_> = bytes
                    .chunks(CHUNK_BYTES)
                    .map(|chunk| Ok::<_, Infallible>(chunk.to_vec()))
                    .collect();
                Body::from_stream(stream::iter(chunks))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(CONTENT_TYPE, json);
        headers.insert("OData-Version", HeaderValue::from_static("4.0"));
        headers.insert("X-Frame-Options", HeaderValue::from_static("sameorigin"));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

fn add_slashes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(add_slashes),
        Value::Object(members) => {
            for (name, member) in members {
                let link = matches!(name.as_str(), "@odata.id" | "target");
                match member {
                    Value::String(path) if link && !path.ends_with('/') => path.push('/'),
                    other => add_slashes(other),
                }
            }
        }
        _ => {}
    }
}
