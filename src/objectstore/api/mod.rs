//! The HTTP face of the store: finds out who asks for what, and writes the access log.

mod account;
mod auth;
mod container;
mod content;
mod object;
mod reply;
mod slo;
mod temp_url;

use super::Store;
use super::access::{Access, Tally};
use super::disk::random_name;
use super::listing::Params;
use super::range::http_date;
use crate::clock;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use percent_encoding::percent_decode_str;
use reply::Refusal;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

type Answer = Result<Response, Refusal>;

/// How long the rest of a refused upload is read and thrown away, so that the client gets to
/// read the refusal instead of a reset connection.
const DRAIN: Duration = Duration::from_secs(10);

pub(super) fn router(store: Arc<Store>) -> Router {
    Router::new().fallback(serve).with_state(store)
}

async fn serve(State(store): State<Arc<Store>>, request: Request) -> Response {
    let started = clock::instant();
    let (parts, body) = request.into_parts();
    let mut body = Some(body);
    let mut target = None;
    let answer = route(&store, &parts, &mut body, &mut target).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if !response.status().is_success()
        && !parts.headers.contains_key(header::EXPECT)
        && let Some(body) = body
    {
        let mut rest = body.into_data_stream();
        let drained = async { while rest.next().await.is_some_and(|chunk| chunk.is_ok()) {} };
        drop(tokio::time::timeout(DRAIN, drained).await);
    }
    let transaction = name_transaction(&mut response);
    // By the clock that temporary URLs are judged by: in tests of flows it is ahead.
    if let Ok(now) = HeaderValue::from_str(&http_date(clock::unix_seconds())) {
        response.headers_mut().entry(header::DATE).or_insert(now);
    }
    let peer = parts.extensions.get().map(|ConnectInfo(peer)| *peer);
    // Never the query: it may hold a signature.
    tracing::info!(
        peer = peer.map(tracing::field::display),
        method = %parts.method,
        path = parts.uri.path(),
        status = response.status().as_u16(),
        ms = started.elapsed().as_millis(),
        transaction,
        "object store"
    );
    match target {
        Some(target) => count(&store, &parts, peer, target, response),
        None => response,
    }
}

/// An object that a request is about.
struct Target {
    container: String,
    object: String,
    temp_url: bool,
}

/// Serves one request; `target` is filled in when it is for an object.
async fn route(
    store: &Arc<Store>,
    parts: &Parts,
    body: &mut Option<Body>,
    target: &mut Option<Target>,
) -> Answer {
    let path = decode_path(parts.uri.path())?;
    match path.as_str() {
        "/healthcheck" => return Ok(([(header::CONTENT_TYPE, reply::PLAIN)], "OK").into_response()),
        "/info" => return account::info(store, &parts.method),
        _ => {}
    }
    if let Some(version) = path.strip_prefix("/auth/") {
        return auth::log_in(store, version, parts);
    }
    let place = Place::parse(&path)?;
    let mut params = Params::parse(parts.uri.query().unwrap_or_default());
    if let (Some(container), Some(object)) = (&place.container, &place.object) {
        *target = Some(Target {
            container: container.clone(),
            object: object.clone(),
            temp_url: temp_url::is_one(&params),
        });
    }
    let grant = temp_url::check(store, parts, &params, &place)?;
    match &grant {
        None => auth::check(store, &parts.headers, &place.account)?,
        Some(_) => {
            temp_url::check_headers(&parts.headers, &parts.method)?;
            // What is not signed does not count.
            params = Params::default();
        }
    }
    // Swift's old way to list a folder; ignored, it would list everything.
    if params.has("path") {
        return Err(Refusal::Status(StatusCode::NOT_IMPLEMENTED));
    }
    let answer = match (&place.container, &place.object) {
        (None, _) => account::serve(store, parts, &params).await,
        (Some(container), None) => container::serve(store, parts, &params, container).await,
        (Some(container), Some(name)) => {
            let container_only = grant.as_ref().is_some_and(|grant| grant.container_only);
            let at = object::At {
                container,
                name,
                within: container_only.then_some(container),
            };
            object::serve(store, parts, &params, body, at).await
        }
    };
    match grant {
        Some(grant) => answer.map(|response| grant.dress(&parts.method, &path, response)),
        None => answer,
    }
}

/// Undoes the escapes of a path. Swift does so before it splits it, and so do we.
fn decode_path(path: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(path).decode_utf8();
    match decoded {
        Ok(path) if !path.contains('\0') => Ok(path.into_owned()),
        _ => Err(Refusal::precondition("Invalid UTF8 or contains NULL")),
    }
}

/// `/v1/<account>/<container>/<object>`, of which only the object may hold slashes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    account: String,
    container: Option<String>,
    object: Option<String>,
}

impl Place {
    fn parse(path: &str) -> Result<Self, Refusal> {
        if path == "/" {
            return Err(Refusal::NOT_FOUND);
        }
        let mut segments = path.splitn(5, '/').skip(1);
        let mut next = || segments.next().filter(|part| !part.is_empty());
        let (Some(version), Some(account)) = (next(), next()) else {
            return Err(Refusal::precondition("Bad URL"));
        };
        if !["v1", "v1.0"].contains(&version) {
            return Err(Refusal::Status(StatusCode::BAD_REQUEST));
        }
        let container = next().map(str::to_owned);
        let object = next().map(str::to_owned);
        if container.is_none() && object.is_some() {
            return Err(Refusal::NOT_FOUND);
        }
        Ok(Self {
            account: account.to_owned(),
            container,
            object,
        })
    }
}

fn method_not_allowed() -> Refusal {
    Refusal::Status(StatusCode::METHOD_NOT_ALLOWED)
}

/// An answer without a body.
fn empty(status: StatusCode) -> Response {
    (status, [(header::CONTENT_TYPE, reply::HTML)]).into_response()
}

/// 202, with Swift's page for it.
fn accepted() -> Response {
    let headers = [(header::CONTENT_TYPE, reply::HTML)];
    (
        StatusCode::ACCEPTED,
        headers,
        reply::page(StatusCode::ACCEPTED),
    )
        .into_response()
}

/// Sets a header whose value came from a client or a file and was checked when it came in.
fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = axum::http::HeaderName::try_from(name);
    if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
        headers.insert(name, value);
    }
}

/// Swift's `X-Timestamp`: seconds with five decimals.
fn timestamp(us: u64) -> String {
    format!("{}.{:05}", us / 1_000_000, us % 1_000_000 / 10)
}

/// Gives the answer an id that client and log have in common.
fn name_transaction(response: &mut Response) -> String {
    let id = format!("tx{}", random_name().unwrap_or_default());
    for name in ["x-trans-id", "x-openstack-request-id"] {
        set(response.headers_mut(), name, &id);
    }
    id
}

/// Counts the body's bytes as they go out, and records the request when the last has gone.
fn count(
    store: &Store,
    parts: &Parts,
    peer: Option<SocketAddr>,
    target: Target,
    response: Response,
) -> Response {
    let (mut head, body) = response.into_parts();
    let tally = Tally {
        log: Arc::clone(&store.log),
        access: Access {
            at_ms: 0,
            peer,
            method: parts.method.to_string(),
            container: target.container,
            object: target.object,
            status: head.status.as_u16(),
            range: parts.headers.contains_key(header::RANGE),
            temp_url: target.temp_url,
            bytes_sent: 0,
        },
    };
    if let Some(length) = axum::body::HttpBody::size_hint(&body).exact() {
        let length = HeaderValue::from(length);
        head.headers.entry(header::CONTENT_LENGTH).or_insert(length);
    }
    let body = Body::from_stream(Counted {
        body: body.into_data_stream(),
        tally,
    });
    Response::from_parts(head, body)
}

struct Counted {
    body: BodyDataStream,
    tally: Tally,
}

impl Stream for Counted {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.body.poll_next_unpin(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            let sent = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            self.tally.access.bytes_sent += sent;
        }
        polled
    }
}

/// Whether a method only looks.
fn reads(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_paths_as_swift_does() {
        let place = |account: &str, container: Option<&str>, object: Option<&str>| Place {
            account: account.to_owned(),
            container: container.map(str::to_owned),
            object: object.map(str::to_owned),
        };
        for (path, expected) in [
            ("/v1/A", place("A", None, None)),
            ("/v1/A/", place("A", None, None)),
            ("/v1/A/c", place("A", Some("c"), None)),
            ("/v1/A/c/", place("A", Some("c"), None)),
            ("/v1/A/c/o", place("A", Some("c"), Some("o"))),
            ("/v1/A/c//o/../p", place("A", Some("c"), Some("/o/../p"))),
            ("/v1.0/A/c%2fo", place("A", Some("c"), Some("o"))),
        ] {
            let decoded = decode_path(path).unwrap();
            assert_eq!(Place::parse(&decoded).unwrap(), expected, "{path}");
        }
        for path in ["/", "/v1", "/v1/", "/v2/A", "/auth", "/v1/A//o", "x"] {
            assert!(Place::parse(path).is_err(), "{path}");
        }
        assert!(decode_path("/v1/A/%ff").is_err() && decode_path("/v1/A/%00").is_err());
    }

    #[test]
    fn timestamps_have_five_decimals() {
        assert_eq!(timestamp(1_700_000_000_123_456), "1700000000.12345");
    }
}
