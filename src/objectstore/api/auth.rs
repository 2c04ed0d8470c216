//! v1 authentication: a user and a key for a token and the storage URL.

use super::{Answer, Refusal, empty, method_not_allowed, set};
use crate::objectstore::Store;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};

/// `GET /auth/v1.0`.
pub(super) fn log_in(store: &Store, version: &str, parts: &Parts) -> Answer {
    if !["v1", "v1.0"].contains(&version.trim_end_matches('/')) {
        return Err(Refusal::Status(StatusCode::BAD_REQUEST));
    }
    if parts.method != Method::GET {
        return Err(method_not_allowed());
    }
    let sent = |names: [&str; 2]| {
        let value = names.iter().find_map(|name| parts.headers.get(*name));
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let name = sent(["x-auth-user", "x-storage-user"]);
    let key = sent(["x-auth-key", "x-storage-pass"]);
    let known = store
        .options
        .users
        .iter()
        .any(|user| user.name == name && user.key.matches(key));
    if !known {
        let realm = name
            .split_once(':')
            .map_or("unknown", |(account, _)| account);
        return Err(Refusal::Unauthorized(realm.to_owned()));
    }
    let origin = match &store.options.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let host = parts.headers.get(header::HOST);
            let host = host.and_then(|host| host.to_str().ok());
            let host = host.ok_or_else(|| Refusal::bad_request("No Host header"))?;
            format!("https://{host}")
        }
    };
    let (token, life) = store.tokens.issue()?;
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    set(headers, "x-auth-token", token.expose());
    set(headers, "x-storage-token", token.expose());
    set(headers, "x-auth-token-expires", &life.as_secs().to_string());
    let storage_url = format!("{origin}/v1/{}", store.options.account);
    set(headers, "x-storage-url", &storage_url);
    Ok(response)
}

/// Refuses who has no valid token, and who asks for another account.
pub(super) fn check(store: &Store, headers: &HeaderMap, account: &str) -> Result<(), Refusal> {
    let token = ["x-auth-token", "x-storage-token"];
    let token = token.iter().find_map(|name| headers.get(*name));
    let token = token
        .and_then(|token| token.to_str().ok())
        .unwrap_or_default();
    if !store.tokens.is_valid(token) {
        return Err(Refusal::Unauthorized(account.to_owned()));
    }
    if account != store.options.account {
        return Err(Refusal::Status(StatusCode::FORBIDDEN));
    }
    Ok(())
}
