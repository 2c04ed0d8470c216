//! The account, and what the server says of itself.

use super::container::{Rows, rows};
use super::temp_url::{METHODS, digests};
use super::{Answer, Refusal, empty, method_not_allowed, set, timestamp};
use crate::clock;
use crate::objectstore::Store;
use crate::objectstore::limits;
use crate::objectstore::listing::{self, Params, Row};
use crate::objectstore::manifest;
use crate::objectstore::record::Index;
use axum::Json;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::IntoResponse;
use serde_json::json;
use std::sync::Arc;

/// `GET /info`.
pub(super) fn info(store: &Store, method: &Method) -> Answer {
    if !super::reads(method) {
        return Err(method_not_allowed());
    }
    let info = json!({
        "swift": {
            "version": concat!("flowrun ", env!("CARGO_PKG_VERSION")),
            "max_file_size": store.options.max_object_bytes,
            "max_container_name_length": limits::MAX_CONTAINER_NAME,
            "max_object_name_length": limits::MAX_OBJECT_NAME,
            "max_meta_name_length": limits::MAX_META_NAME,
            "max_meta_value_length": limits::MAX_META_VALUE,
            "max_meta_count": limits::MAX_META_COUNT,
            "max_meta_overall_size": limits::MAX_META_OVERALL,
            "max_header_size": limits::MAX_HEADER,
            "account_listing_limit": listing::LIMIT,
            "container_listing_limit": listing::LIMIT,
        },
        "slo": {
            "max_manifest_segments": manifest::MAX_SEGMENTS,
            "max_manifest_size": manifest::MAX_BYTES,
            "min_segment_size": 1,
        },
        "tempurl": { "methods": METHODS, "allowed_digests": digests(store) },
    });
    Ok(Json(info).into_response())
}

pub(super) async fn serve(store: &Arc<Store>, parts: &Parts, params: &Params) -> Answer {
    match parts.method.as_str() {
        "GET" | "HEAD" => list(store, parts, params),
        "POST" => {
            let edits = limits::edits(&parts.headers, "account").map_err(Refusal::bad_request)?;
            store
                .blocking(move |store| store.post_account(edits))
                .await??;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        _ => Err(method_not_allowed()),
    }
}

fn list(store: &Store, parts: &Parts, params: &Params) -> Answer {
    let query = params.listing()?;
    let now = clock::unix_seconds();
    let index = store.index();
    let listed = listing::list(&index.containers, &query, |_| true);
    let rows = rows(parts, params, query.limit, &listed, |row| match row {
        Row::Subdir(dir) => json!({ "subdir": dir }),
        Row::Item(name, contents) => {
            let (count, bytes) = contents.usage(now);
            json!({
                "name": name,
                "count": count,
                "bytes": bytes,
                "last_modified": Rows::time(contents.container.created_us),
            })
        }
    })?;
    let mut response = rows.into_response();
    describe(store, &index, now, response.headers_mut());
    Ok(response)
}

fn describe(store: &Store, index: &Index, now: u64, headers: &mut HeaderMap) {
    let (mut objects, mut bytes) = (0, 0);
    for contents in index.containers.values() {
        let (count, size) = contents.usage(now);
        objects += count;
        bytes += size;
    }
    let containers = index.containers.len();
    set(
        headers,
        "x-account-container-count",
        &containers.to_string(),
    );
    set(headers, "x-account-object-count", &objects.to_string());
    set(headers, "x-account-bytes-used", &bytes.to_string());
    set(headers, "x-timestamp", &timestamp(index.account.created_us));
    // Clients that sign read the keys here; those set on the account come before ours.
    let names = [
        "x-account-meta-temp-url-key",
        "x-account-meta-temp-url-key-2",
    ];
    for (name, key) in names.iter().zip(&store.options.temp_url_keys) {
        set(headers, name, key.expose());
    }
    for (name, value) in &index.account.metadata.0 {
        set(headers, name, value);
    }
}
