//! Answers in the shapes of the generations.

use super::super::generation::{Traits, Web};
use super::super::refusal::Refusal;
use super::style::Style;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use flate2::Compression;
use flate2::read::GzEncoder;
use futures_util::stream;
use serde_json::{Value, json};
use std::io::{self, Read};

/// Size of the pieces in which a body is sent; odd, so that they end anywhere.
const CHUNK_BYTES: usize = 997;

/// An answer before it goes on the wire.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    body: Content,
    /// The connection breaks in the middle of it.
    is_cut: bool,
}

/// Whether a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// It is not.
    None,
    /// As `Content-Encoding` says.
    Asked,
    /// Without a word.
    Silent,
}

#[derive(Debug)]
enum Content {
    Nothing,
    Document(Value),
    /// `iLO.Key` or `Base.Key`, and its arguments.
    Message(&'static str, Vec<String>),
}

impl Answer {
    /// A resource.
    pub(super) fn document(body: Value) -> Self {
        Self::new(StatusCode::OK, Content::Document(body))
    }

    /// A message of the `Base` or `iLO` registry.
    pub(super) fn message(status: StatusCode, id: &'static str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self::new(status, Content::Message(id, args))
    }

    fn new(status: StatusCode, body: Content) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
            is_cut: false,
        }
    }

    /// Done.
    pub(super) fn success() -> Self {
        Self::message(StatusCode::OK, "Base.Success", &[])
    }

    /// Accepted; holds from the next reset on.
    pub(super) fn reset_required() -> Self {
        Self::message(StatusCode::OK, "iLO.SystemResetRequired", &[])
    }

    /// Refused with 400.
    pub(super) fn refused(id: &'static str, args: &[&str]) -> Self {
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
        Self::new(StatusCode::PERMANENT_REDIRECT, Content::Nothing).with(LOCATION, path)
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn cut(mut self) -> Self {
        self.is_cut = true;
        self
    }

    /// The response, in the style that was asked for.
    pub(super) fn send(
        mut self,
        traits: &Traits,
        style: Style,
        packing: Packing,
    ) -> Response<Body> {
        let body = match self.body {
            Content::Nothing => None,
            Content::Message(id, args) => Some(style.message(&versioned(traits, id), &args)),
            Content::Document(body) => {
                let mut body = style.document(body);
                if let Some(members) = body.as_object_mut() {
                    members.remove("@odata.etag");
                }
                let etag = crc32c::crc32c(body.to_string().as_bytes());
                let etag = format!("W/\"{etag:08X}\"");
                if let Some(members) = body.as_object_mut()
                    && style.is_redfish()
                {
                    members.insert("@odata.etag".to_owned(), Value::from(etag.as_str()));
                }
                self.headers.push((ETAG, etag));
                Some(body)
            }
        };
        let bytes = body.map(|body| body.to_string().into_bytes());
        let bytes = match (packing, bytes) {
            (_, None) => Vec::new(),
            (Packing::None, Some(bytes)) => bytes,
            (_, Some(bytes)) => packed(&bytes),
        };
        let is_told = packing == Packing::Asked && !bytes.is_empty();
        let mut response = Response::new(wire(bytes, traits, self.is_cut));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static(match traits.web {
            Web::Redfish => "application/json; charset=utf-8",
            Web::Rest | Web::None => "application/json",
        });
        headers.insert(CONTENT_TYPE, json);
        if is_told {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if style.is_redfish() {
            headers.insert("OData-Version", HeaderValue::from_static("4.0"));
        }
        match traits.web {
            Web::Redfish => {
                headers.insert("X-Frame-Options", HeaderValue::from_static("sameorigin"));
            }
            Web::Rest | Web::None => {
                let version = HeaderValue::from_static("1.0.3");
                headers.insert("X_HP-CHRP-Service-Version", version);
            }
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

impl From<Result<(), Refusal>> for Answer {
    fn from(done: Result<(), Refusal>) -> Self {
        let Err(refusal) = done else {
            return Self::success();
        };
        match &refusal {
            Refusal::WrongPower => Self::refused("iLO.InvalidOperationForSystemState", &[]),
            Refusal::NotOff => Self::refused("iLO.SystemPowerOffRequired", &[]),
            Refusal::InPost(name) => Self::refused("iLO.UnableToModifyDuringSystemPOST", &[name]),
            Refusal::NotLicensed => Self::refused("iLO.LicenseKeyRequired", &[]),
            Refusal::Busy => Self::refused("iLO.DeviceIsBusy", &[]),
            Refusal::DriveTaken | Refusal::DriveHeld => {
                Self::refused("iLO.MaxVirtualMediaConnectionEstablished", &[])
            }
            Refusal::DriveEmpty => Self::refused("iLO.NoVirtualMediaConnectionAvailable", &[]),
            Refusal::BadUrl(url) => Self::refused("Base.PropertyValueFormatError", &[url, "Image"]),
            Refusal::NotInList { value, name } => {
                Self::refused("Base.PropertyValueNotInList", &[value, name])
            }
            Refusal::NotWritable(name) => {
                Self::refused("iLO.PropertyNotWritableOrUnknown", &[name])
            }
            Refusal::Unsupported => Self::refused("iLO.UnsupportedOperation", &[]),
            Refusal::NotInLegacyMode => {
                Self::refused("iLO.UnsupportedOperationInLegacyBootMode", &[])
            }
        }
    }
}

fn versioned(traits: &Traits, id: &str) -> String {
    match id.split_once('.') {
        Some(("Base", key)) => format!("{}.{key}", traits.base),
        Some((_, key)) => format!("{}.{key}", traits.ilo),
        None => id.to_owned(),
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = GzEncoder::new(bytes, Compression::fast());
    // Memory does not fail.
    encoder.read_to_end(&mut packed).unwrap_or_default();
    packed
}

/// iLO 5 and newer send chunks; iLO 4 sends the length.
fn wire(bytes: Vec<u8>, traits: &Traits, is_cut: bool) -> Body {
    if bytes.is_empty() || (traits.web != Web::Redfish && !is_cut) {
        return Body::from(bytes);
    }
    let mut chunks: Vec<_> = bytes
        .chunks(CHUNK_BYTES)
        .map(|chunk| Ok(chunk.to_vec()))
        .collect();
    if is_cut {
        chunks.truncate(chunks.len() / 2);
        chunks.push(Err(io::Error::from(io::ErrorKind::ConnectionAborted)));
    }
    Body::from_stream(stream::iter(chunks))
}

/// The message object of Redfish.
pub(super) fn extended_info(id: &str, args: &[String], key: &str) -> Value {
    match args.is_empty() {
        true => json!({ key: id }),
        false => json!({ "MessageArgs": args, key: id }),
    }
}
