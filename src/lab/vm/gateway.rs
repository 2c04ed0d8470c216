//! The router between a machine's network and the site's.
//!
//! QEMU's user-mode network shows the machine its host as 10.0.2.2 and hides the machine, whose
//! address is 10.0.2.15 in every one, behind the host's. So the machine's callback goes to this
//! router, which passes it on with the address at which the machine's ports really are; a ramdisk
//! need not know that it runs behind one.

use crate::error::Result;
use crate::http::server::{Identity, ServerHandle, serve_tls};
use crate::http::{self, Trust};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, Response, StatusCode};
use axum::response::IntoResponse;
use reqwest::Client;
use serde_json::Value;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

/// The host as a machine sees it.
pub(in crate::lab) const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// Longest wait for the deployer's answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Longest body, either way: a log with a report is the longest.
const MAX_BODY_BYTES: usize = 16 << 20;

/// What is passed on of a request.
const HEADERS: [&str; 4] = ["x-auth-token", "content-type", "accept", "authorization"];

#[derive(Debug)]
struct Gateway {
    client: Client,
    /// Root of the deployer's API.
    api_url: String,
    machine: Ipv4Addr,
}

/// Passes on what `machine` sends to the deployer.
///
/// # Errors
/// As [`serve_tls`].
pub(in crate::lab) fn serve(
    listener: TcpListener,
    identity: &Identity,
    trust: &Trust,
    api_url: String,
    machine: Ipv4Addr,
) -> Result<ServerHandle> {
    let client = http::client(trust, ANSWER)?;
    let gateway = Arc::new(Gateway {
        client,
        api_url,
        machine,
    });
    let router = Router::new().fallback(pass).with_state(gateway);
    serve_tls(listener, router, identity)
}

async fn pass(State(gateway): State<Arc<Gateway>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(mut body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if path.contains("pass_deploy_info") {
        body = readdressed(body, gateway.machine);
    }
    let mut forward = gateway
        .client
        .request(parts.method, format!("{}{path}", gateway.api_url))
        .body(body);
    for name in HEADERS.map(HeaderName::from_static) {
        if let Some(value) = parts.headers.get(&name) {
            forward = forward.header(name, value);
        }
    }
    let answer = async {
        let answer = forward.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
    };
    match answer.await {
        Ok((status, headers, bytes)) => {
            let mut response = (status, bytes).into_response();
            for name in ["content-type", "retry-after"].map(HeaderName::from_static) {
                if let Some(value) = headers.get(&name) {
                    response.headers_mut().insert(name, value.clone());
                }
            }
            response
        }
        Err(_) => (StatusCode::BAD_GATEWAY, "the deployer is not up").into_response(),
    }
}

/// The callback with the address at which the machine can be reached; what is none is left alone.
fn readdressed(body: Bytes, machine: Ipv4Addr) -> Bytes {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(&body) else {
        return body;
    };
    let is_private = |text: &str| {
        text.parse::<Ipv4Addr>()
            .is_ok_and(|own| own.octets()[..3] == HOST.octets()[..3])
    };
    if !fields
        .get("address")
        .and_then(Value::as_str)
        .is_some_and(is_private)
    {
        return body;
    }
    fields.insert("address".to_owned(), machine.to_string().into());
    Value::Object(fields).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_behind_the_router_is_changed() {
        let machine = Ipv4Addr::new(127, 20, 30, 211);
        let through = |text: &'static str| {
            let bytes = readdressed(Bytes::from_static(text.as_bytes()), machine);
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        let changed = through(r#"{"address":"10.0.2.15","error":"","key":"K"}"#);
        assert_eq!(
            changed,
            r#"{"address":"127.20.30.211","error":"","key":"K"}"#
        );
        for same in [
            r#"{"address":"192.0.2.1"}"#,
            r#"{"address":""}"#,
            r#"["address"]"#,
            "{",
            "",
        ] {
            assert_eq!(through(same), same);
        }
    }
}
