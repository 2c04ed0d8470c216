//! What happened on the site, for reports, also to other processes.

use super::{Inner, Server};
use crate::error::{Error, Kind, Result};
use crate::http::{self, Trust};
use crate::objectstore::Access;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

/// Where the state is served, beside the object store.
pub(super) const PATH: &str = "/lab/state";

/// Longest wait for the state of another process's site.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

const USER: &str = "x-auth-user";
const KEY: &str = "x-auth-key";

/// The route, open to whoever has the object store's user and key.
pub(super) fn router(inner: &Arc<Inner>) -> Router {
    Router::new()
        .route(PATH, get(serve))
        .with_state(Arc::clone(inner))
}

async fn serve(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
) -> Result<Json<Value>, StatusCode> {
    let sent = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let store = &inner.store_record;
    let known = sent(USER) == Some(store.user.as_str())
        && sent(KEY).is_some_and(|key| store.key.matches(key));
    if !known {
        return Err(StatusCode::UNAUTHORIZED);
    }
    Ok(Json(inner.snapshot()))
}

/// Reads the state of a site that may belong to another process.
pub(super) async fn query(description: &Value) -> Result<Value> {
    let field = |path: &str| {
        let value = description.pointer(path).and_then(Value::as_str);
        value.ok_or_else(|| Error::new(Kind::Invalid, format!("no {path} in the description")))
    };
    let ca_file = field("/ca_file")?;
    let pem = tokio::fs::read_to_string(ca_file).await;
    let pem = pem.map_err(|e| Error::io(ca_file.as_ref(), "read", &e))?;
    let client = http::client(&Trust::Ca(pem), QUERY_TIMEOUT)?;
    let request = client
        .get(field("/state_url")?)
        .header(USER, field("/object_store/user")?)
        .header(KEY, field("/object_store/key")?);
    let named = |error: Error| error.op("lab.state");
    let response = request
        .send()
        .await
        .map_err(|e| named(http::no_answer(e)))?;
    let status = response.status();
    if !status.is_success() {
        let error = Error::new(http::kind_of_status(status), format!("answered {status}"));
        return Err(named(error));
    }
    response.json().await.map_err(|e| named(http::no_answer(e)))
}

impl Inner {
    pub(super) fn snapshot(&self) -> Value {
        let stats = self.store.stats();
        let accesses = self.store.accesses();
        let accesses: Vec<Value> = accesses.iter().map(access).collect();
        let nodes: Vec<Value> = self.servers.iter().map(Server::snapshot).collect();
        json!({
            "nodes": nodes,
            "object_store": {
                "containers": stats.containers,
                "objects": stats.objects,
                "bytes": stats.bytes,
                "requests": stats.requests,
                "bytes_sent": stats.bytes_sent,
                "accesses": accesses,
            },
            "faults": self.faults,
        })
    }
}

impl Server {
    fn snapshot(&self) -> Value {
        let path = self.hardware.disk_path();
        // What cannot be read is shown as null.
        let disk = std::fs::metadata(&path).ok();
        json!({
            "name": self.record.name,
            "kind": self.hardware.kind(),
            "uuid": self.record.uuid(),
            "machine": self.machine.snapshot(),
            "events": self.machine.history(),
            "boots": self.hardware.boots(),
            "disk": {
                "path": path,
                "size_bytes": disk.as_ref().map(MetadataExt::size),
                "allocated_bytes": disk.as_ref().map(|disk| disk.blocks() * 512),
                "bytes_written": self.hardware.disk_bytes_written(),
            },
            "console": self.hardware.console_path(),
            "screen": self.hardware.screen_path(),
        })
    }
}

fn access(access: &Access) -> Value {
    json!({
        "at_ms": access.at_ms,
        "peer": access.peer,
        "method": access.method,
        "container": access.container,
        "object": access.object,
        "status": access.status,
        "range": access.range,
        "temp_url": access.temp_url,
        "bytes_sent": access.bytes_sent,
    })
}
