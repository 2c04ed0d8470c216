//! `pass_deploy_info`: the deploy ramdisk says where the disk is, or why there is none.

use super::Api;
use crate::error::{Error, Kind};
use crate::http::server::Peer;
use crate::journal::ExpectedCallback;
use crate::lua::bind::CALLBACK;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// The body of a refusal in Ironic's shape: JSON in a string in JSON, as its clients expect.
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = if self.0.is_server_error() {
            "Server"
        } else {
            "Client"
        };
        let fault = json!({ "faultstring": self.1, "faultcode": code, "debuginfo": null });
        let body = axum::Json(json!({ "error_message": fault.to_string() }));
        let mut response = (self.0, body).into_response();
        if matches!(self.0.as_u16(), 429 | 503) {
            let seconds = HeaderValue::from_static("5");
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// Most lines of one message of a ramdisk's log, and the longest of them.
const MAX_LINES: usize = 500;
const MAX_LINE_CHARS: usize = 1000;

fn refuse(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal(status, message.into())
}

/// What comes with a callback.
pub(super) struct Call {
    peer: Peer,
    headers: HeaderMap,
    body: Bytes,
}

impl FromRequest<Api> for Call {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        let missing = || refuse(StatusCode::INTERNAL_SERVER_ERROR, "the peer is not known");
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(missing)?;
        let headers = request.headers().clone();
        let body = Bytes::from_request(request, api).await;
        let body = body.map_err(|e| refuse(e.status(), e.body_text()))?;
        Ok(Self {
            peer,
            headers,
            body,
        })
    }
}

pub(super) async fn by_query(
    state: State<Api>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<BTreeMap<String, String>>, QueryRejection>,
    call: Call,
) -> Response {
    let method = query
        .ok()
        .and_then(|Query(mut query)| query.remove("method"));
    match method.as_deref() {
        Some("pass_deploy_info") => by_path(state, path, call).await,
        other => refuse(
            StatusCode::BAD_REQUEST,
            format!("no handler for method {}", other.unwrap_or("(none)")),
        )
        .into_response(),
    }
}

pub(super) async fn by_path(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    call: Call,
) -> Response {
    let uuid = path.map_or_else(|_| String::new(), |Path(uuid)| uuid);
    let outcome = accept(&api, &uuid, &call.headers, &call.body).await;
    answer(&api, &uuid, &call, outcome)
}

/// Lines of the ramdisk's log, for the log of its run.
pub(super) async fn log(
    State(api): State<Api>,
    path: Result<Path<String>, PathRejection>,
    call: Call,
) -> Response {
    let uuid = path.map_or_else(|_| String::new(), |Path(uuid)| uuid);
    let outcome = take_log(&api, &uuid, &call.headers, &call.body).await;
    answer(&api, &uuid, &call, outcome)
}

fn answer(api: &Api, uuid: &str, call: &Call, outcome: Result<(), Refusal>) -> Response {
    match outcome {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => {
            let (from, guess) = (call.peer.address.ip(), GUESSES.contains(&refusal.0));
            if guess && api.bad_callbacks.are_spent(from) {
                let message = "too many wrong callbacks from this address";
                return refuse(StatusCode::TOO_MANY_REQUESTS, message).into_response();
            }
            tracing::warn!(
                node = uuid,
                from = %call.peer.address,
                status = refusal.0.as_u16(),
                why = refusal.1,
                "callback refused"
            );
            if guess {
                api.bad_callbacks.add(from);
            }
            refusal.into_response()
        }
    }
}

/// What somebody who guesses is answered, until it was too often: then nothing is said of what was
/// wrong, nor logged. A right call is taken at once whoever else calls from its address, since
/// ramdisks may share one (NAT) and a key of 128 bits that is good for one run is not guessed. A
/// ramdisk that is early or late is no guesser.
const GUESSES: [StatusCode; 3] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::NOT_FOUND,
];

/// Checks key, token and contents; the callback is on disk before the 200 is sent. A repeat of
/// the accepted one gets the same answer, also when the run has ended since.
async fn accept(api: &Api, uuid: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let (run, info) = known(api, uuid, headers, body).await?;
    check_contents(&run, uuid, &info)?;
    let kept = Value::Object(info.into_iter().filter(|(name, _)| name != "key").collect());
    let kept = kept.to_string();
    let journal = api.engine.journal();
    let first = match run.ended {
        false => journal
            .deliver(&run.run, CALLBACK, kept.clone())
            .await
            .map(Some),
        true => journal.inbox(&run.run, CALLBACK).await,
    };
    match first.map_err(|e| broken(&e))? {
        Some(first) if first == kept => Ok(()),
        Some(_) => Err(refuse(
            StatusCode::CONFLICT,
            "this deployment key was used already with other contents",
        )),
        None => Err(does_not_wait(uuid)),
    }
}

/// The run whose key is in the body, and the body; the token is looked at, too.
async fn known(
    api: &Api,
    uuid: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(ExpectedCallback, serde_json::Map<String, Value>), Refusal> {
    if !api.config.nodes.values().any(|node| node.uuid == uuid) {
        let message = format!("node {uuid} could not be found");
        return Err(refuse(StatusCode::NOT_FOUND, message));
    }
    let info = parse(body)?;
    let key = text(&info, "key");
    if key.is_empty() {
        return Err(refuse(StatusCode::BAD_REQUEST, "missing: key"));
    }
    let expected = api.engine.journal().expected(uuid).await;
    let expected = expected.map_err(|e| broken(&e))?;
    let waits = expected.iter().any(|run| !run.ended);
    let mut expected = expected.into_iter();
    let Some(run) = expected.find(|run| same_hash(&run.key_hash, key)) else {
        return Err(match waits {
            true => refuse(StatusCode::BAD_REQUEST, "the deployment key does not match"),
            false => does_not_wait(uuid),
        });
    };
    check_token(&run, headers, api.config.keystone.is_some())?;
    Ok((run, info))
}

/// Puts the lines into the run's log, if the run is of this process.
async fn take_log(api: &Api, uuid: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let (run, info) = known(api, uuid, headers, body).await?;
    if run.ended {
        return Err(does_not_wait(uuid));
    }
    let lines = info.get("lines").and_then(Value::as_array);
    let lines = lines.ok_or_else(|| refuse(StatusCode::BAD_REQUEST, "missing: lines"))?;
    for line in lines.iter().filter_map(Value::as_str).take(MAX_LINES) {
        let printable = line.chars().filter(|c| !c.is_control());
        let line: String = printable.take(MAX_LINE_CHARS).collect();
        api.engine
            .log(&run.run, "info", &format!("ramdisk: {line}"));
    }
    Ok(())
}

fn does_not_wait(uuid: &str) -> Refusal {
    let message = format!("node {uuid} does not wait for a deploy ramdisk");
    refuse(StatusCode::CONFLICT, message)
}

fn parse(body: &[u8]) -> Result<serde_json::Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(info)) => Ok(info),
        Ok(_) => Err(refuse(
            StatusCode::BAD_REQUEST,
            "the body is not a JSON object",
        )),
        Err(e) => Err(refuse(
            StatusCode::BAD_REQUEST,
            format!("the body is not JSON: {e}"),
        )),
    }
}

fn text<'a>(info: &'a serde_json::Map<String, Value>, name: &str) -> &'a str {
    info.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Compares hashes in constant time; an empty text matches nothing.
fn same_hash(wanted: &str, text: &str) -> bool {
    let found = hex::encode(Sha256::digest(text.as_bytes()));
    !text.is_empty() && bool::from(found.as_bytes().ct_eq(wanted.as_bytes()))
}

/// Where there is no Keystone, ramdisks of old sent no token; one that is sent is the floppy's.
fn check_token(run: &ExpectedCallback, headers: &HeaderMap, required: bool) -> Result<(), Refusal> {
    let right = match headers.get("x-auth-token") {
        None => !required,
        Some(token) => token
            .to_str()
            .is_ok_and(|token| same_hash(&run.token_hash, token)),
    };
    match right {
        true => Ok(()),
        false => Err(refuse(
            StatusCode::UNAUTHORIZED,
            "X-Auth-Token is not the token of the floppy",
        )),
    }
}

fn check_contents(
    run: &ExpectedCallback,
    uuid: &str,
    info: &serde_json::Map<String, Value>,
) -> Result<(), Refusal> {
    if !text(info, "error").is_empty() {
        return Ok(());
    }
    let missing: Vec<_> = ["address", "iqn"]
        .into_iter()
        .filter(|name| text(info, name).is_empty())
        .collect();
    if !missing.is_empty() {
        let message = format!("missing: {}", missing.join(", "));
        return Err(refuse(StatusCode::BAD_REQUEST, message));
    }
    if text(info, "address").parse::<std::net::IpAddr>().is_err() {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "`address` is not an IP address",
        ));
    }
    let iqn = text(info, "iqn");
    if iqn == run.iqn || iqn.strip_prefix("iqn-") == Some(uuid) {
        return Ok(());
    }
    Err(refuse(
        StatusCode::BAD_REQUEST,
        format!("`iqn` is {iqn:?}, the floppy said {:?}", run.iqn),
    ))
}

/// 503 makes the ramdisk try again.
fn broken(error: &Error) -> Refusal {
    let status = match error.kind() {
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    tracing::error!(%error, "callback not kept");
    refuse(status, "the callback could not be kept; send it again")
}
