//! Answers that are not data, worded as Swift words them.

use crate::objectstore::changes::Unchanged;
use crate::objectstore::listing::NotUtf8;
use crate::openstack::temp_url::quote_path;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::io;

pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=UTF-8");
pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("text/plain");

/// Why a request is not served.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A status with Swift's page for it.
    Status(StatusCode),
    /// A status with one sentence.
    Text(StatusCode, String),
    /// No or no valid token; names the realm.
    Unauthorized(String),
    /// A temporary URL that does not hold.
    TempUrl,
}

impl Refusal {
    pub(super) const NOT_FOUND: Self = Self::Status(StatusCode::NOT_FOUND);

    pub(super) fn bad_request(body: impl Into<String>) -> Self {
        Self::Text(StatusCode::BAD_REQUEST, body.into())
    }

    pub(super) fn precondition(body: impl Into<String>) -> Self {
        Self::Text(StatusCode::PRECONDITION_FAILED, body.into())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        tracing::error!(%error, "the object store's disk failed");
        Self::Status(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        })
    }
}

impl From<Unchanged> for Refusal {
    fn from(why: Unchanged) -> Self {
        match why {
            Unchanged::NoContainer | Unchanged::NoObject => Self::NOT_FOUND,
            Unchanged::Exists => Self::Status(StatusCode::PRECONDITION_FAILED),
            Unchanged::NotEmpty => Self::Status(StatusCode::CONFLICT),
            Unchanged::Metadata(text) => Self::bad_request(text),
            Unchanged::Io(error) => error.into(),
        }
    }
}

impl From<NotUtf8> for Refusal {
    fn from(NotUtf8(name): NotUtf8) -> Self {
        Self::bad_request(format!("\"{name}\" parameter not valid UTF-8"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, kind, body, realm) = match self {
            Self::Status(status) => (status, HTML, page(status), None),
            Self::Text(status, body) => (status, PLAIN, body, None),
            Self::Unauthorized(realm) => {
                let status = StatusCode::UNAUTHORIZED;
                (status, HTML, page(status), Some(realm))
            }
            Self::TempUrl => {
                let body = "401 Unauthorized: Temp URL invalid\n".to_owned();
                let realm = Some("unknown".to_owned());
                (StatusCode::UNAUTHORIZED, HTML, body, realm)
            }
        };
        let mut response = (status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind);
        if let Some(realm) = realm {
            let value = format!("Swift realm=\"{}\"", quote_path(&realm));
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(header::WWW_AUTHENTICATE, value);
            }
        }
        response
    }
}

/// Swift's page for a status.
pub(super) fn page(status: StatusCode) -> String {
    let (title, text) = match status.as_u16() {
        202 => ("Accepted", "The request is accepted for processing."),
        400 => (
            "Bad Request",
            "The server could not comply with the request since it is either malformed or \
             otherwise incorrect.",
        ),
        401 => (
            "Unauthorized",
            "This server could not verify that you are authorized to access the document you \
             requested.",
        ),
        403 => ("Forbidden", "Access was denied to this resource."),
        404 => ("Not Found", "The resource could not be found."),
        405 => (
            "Method Not Allowed",
            "The method is not allowed for this resource.",
        ),
        406 => (
            "Not Acceptable",
            "The resource is not available in a format acceptable to your browser.",
        ),
        408 => (
            "Request Timeout",
            "The server has waited too long for the request to be sent by the client.",
        ),
        409 => (
            "Conflict",
            "There was a conflict when trying to complete your request.",
        ),
        412 => (
            "Precondition Failed",
            "A precondition for this request was not met.",
        ),
        416 => (
            "Requested Range Not Satisfiable",
            "The Range requested is not available.",
        ),
        422 => (
            "Unprocessable Entity",
            "Unable to process the contained instructions",
        ),
        499 => (
            "Client Disconnect",
            "The client was disconnected during request.",
        ),
        501 => (
            "Not Implemented",
            "The requested method is not implemented by this server.",
        ),
        507 => (
            "Insufficient Storage",
            "There was not enough space to save the resource.",
        ),
        _ => (
            "Internal Error",
            "The server has either erred or is incapable of performing the requested operation.",
        ),
    };
    format!("<html><h1>{title}</h1><p>{text}</p></html>")
}
