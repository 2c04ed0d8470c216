//! HTTP routes. A one-shot run carries the same listener for its callback as a server does.

mod callback;
pub mod listener;

use crate::journal::Journal;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Largest callback: a few hundred bytes, or an error with a log excerpt.
const MAX_BODY_BYTES: usize = 64 << 10;

/// What the routes work on.
#[derive(Debug, Clone)]
struct Api {
    journal: Journal,
    /// UUIDs of the inventory.
    nodes: Arc<BTreeSet<String>>,
}

/// The routes over this journal and these nodes (UUIDs).
pub fn router(journal: Journal, nodes: BTreeSet<String>) -> Router {
    let api = Api {
        journal,
        nodes: Arc::new(nodes),
    };
    // Early ramdisks left `/v1` to the configured URL.
    Router::new()
        .route(
            "/v1/nodes/{uuid}/vendor_passthru/pass_deploy_info",
            post(callback::by_path),
        )
        .route(
            "/nodes/{uuid}/vendor_passthru/pass_deploy_info",
            post(callback::by_path),
        )
        .route("/v1/nodes/{uuid}/vendor_passthru", post(callback::by_query))
        .route("/nodes/{uuid}/vendor_passthru", post(callback::by_query))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(api)
}
