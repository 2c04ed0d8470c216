//! `pass_deploy_info`: the deploy ramdisk says where the disk is, or why there is none.

use super::Api;
use crate::error::{Error, Kind};
use crate::journal::ExpectedCallback;
use crate::lua::bind::CALLBACK;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;

/// The body of a refusal in Ironic's shape: JSON in a string in JSON, as its clients expect.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let fault = json!({ "faultstring": self.1, "faultcode": "Client", "debuginfo": null });
        (
            self.0,
            axum::Json(json!({ "error_message": fault.to_string() })),
        )
            .into_response()
    }
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal(status, message.into())
}

pub(super) async fn by_query(
    state: State<Api>,
    path: Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match query.get("method").map(String::as_str) {
        Some("pass_deploy_info") => by_path(state, path, headers, body).await,
        other => refuse(
            StatusCode::BAD_REQUEST,
            format!("no handler for method {}", other.unwrap_or("(none)")),
        )
        .into_response(),
    }
}

pub(super) async fn by_path(
    State(api): State<Api>,
    Path(uuid): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match accept(&api, &uuid, &headers, &body).await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => {
            tracing::warn!(
                node = uuid,
                status = refusal.0.as_u16(),
                why = refusal.1,
                "callback refused"
            );
            refusal.into_response()
        }
    }
}

/// Checks key, token and contents; the callback is on disk before the 200 is sent. A repeat of
/// the accepted one gets the same answer.
async fn accept(api: &Api, uuid: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    if !api.nodes.contains(uuid) {
        return Err(refuse(
            StatusCode::NOT_FOUND,
            format!("node {uuid} could not be found"),
        ));
    }
    let info = parse(body)?;
    let expected = api.journal.expected(uuid).await.map_err(|e| broken(&e))?;
    if expected.is_empty() {
        let message = format!("node {uuid} does not wait for a deploy ramdisk");
        return Err(refuse(StatusCode::CONFLICT, message));
    }
    let key = text(&info, "key");
    let Some(run) = expected.iter().find(|run| same_hash(&run.key_hash, key)) else {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "the deployment key does not match",
        ));
    };
    check_token(run, headers)?;
    check_contents(run, uuid, &info)?;
    let kept = Value::Object(info.into_iter().filter(|(name, _)| name != "key").collect());
    let kept = kept.to_string();
    let first = api
        .journal
        .deliver(&run.run, CALLBACK, kept.clone())
        .await
        .map_err(|e| broken(&e))?;
    if first == kept {
        return Ok(());
    }
    Err(refuse(
        StatusCode::CONFLICT,
        "this deployment key was used already with other contents",
    ))
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

fn check_token(run: &ExpectedCallback, headers: &HeaderMap) -> Result<(), Refusal> {
    let token = headers
        .get("x-auth-token")
        .and_then(|value| value.to_str().ok());
    if token.is_some_and(|token| same_hash(&run.token_hash, token)) {
        return Ok(());
    }
    Err(refuse(
        StatusCode::UNAUTHORIZED,
        "X-Auth-Token is not the token of the floppy",
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    const UUID: &str = "1be26c0b-03f2-4d2e-ae87-c02d7f33c781";

    fn hash(text: &str) -> String {
        hex::encode(Sha256::digest(text.as_bytes()))
    }

    async fn status(api: &Api, uuid: &str, token: &str, body: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert("x-auth-token", token.parse().unwrap());
        match accept(api, uuid, &headers, body.as_bytes()).await {
            Ok(()) => 200,
            Err(refusal) => refusal.0.as_u16(),
        }
    }

    #[tokio::test]
    async fn only_the_expected_ramdisk_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let nodes = Arc::new(BTreeSet::from([UUID.to_owned()]));
        let api = Api {
            journal: journal.clone(),
            nodes,
        };
        let good =
            json!({ "address": "10.0.0.7", "key": "K", "iqn": format!("iqn-{UUID}"), "error": "" });
        let good = good.to_string();
        assert_eq!(status(&api, UUID, "T", &good).await, 409, "nobody waits");
        let iqn = format!("iqn.2008-10.org.openstack:{UUID}");
        journal
            .expect_callback("r", UUID.into(), hash("K"), hash("T"), iqn)
            .await
            .unwrap();
        assert_eq!(status(&api, "other", "T", &good).await, 404);
        assert_eq!(status(&api, UUID, "wrong", &good).await, 401);
        for body in [
            "{}",
            "[]",
            // The specification's own example lacks commas.
            "{\"address\": \"\"\n\"iqn\": \"x\"}",
            "{\"key\": null, \"address\": \"10.0.0.7\", \"iqn\": \"x\"}",
            "{\"key\": \"\", \"address\": \"10.0.0.7\", \"iqn\": \"x\"}",
            "{\"key\": \"K\", \"address\": \"\", \"iqn\": \"\"}",
            "{\"key\": \"K\", \"address\": \"10.0.0.7\", \"iqn\": \"iqn.other\"}",
            "{\"key\": \"K\", \"address\": \"not an address\", \"iqn\": \"x\"}",
        ] {
            assert_eq!(status(&api, UUID, "T", body).await, 400, "{body}");
        }
        assert_eq!(status(&api, UUID, "T", &good).await, 200);
        assert_eq!(status(&api, UUID, "T", &good).await, 200, "a repeat");
        let other = good.replace("10.0.0.7", "10.0.0.8");
        assert_eq!(status(&api, UUID, "T", &other).await, 409);
        let kept = journal.inbox("r", CALLBACK).await.unwrap().unwrap();
        assert!(
            kept.contains("10.0.0.7") && !kept.contains("\"K\""),
            "the key is not kept: {kept}"
        );
    }

    #[tokio::test]
    async fn an_error_report_needs_nothing_but_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        let nodes = Arc::new(BTreeSet::from([UUID.to_owned()]));
        let api = Api {
            journal: journal.clone(),
            nodes,
        };
        journal
            .expect_callback("r", UUID.into(), hash("K"), hash("T"), "i".into())
            .await
            .unwrap();
        assert_eq!(
            status(&api, UUID, "T", "{\"key\":\"K\",\"error\":\"no disk\"}").await,
            200
        );
        assert_eq!(
            status(&api, UUID, "T", "{\"key\":\"X\",\"error\":\"no disk\"}").await,
            400
        );
    }
}
