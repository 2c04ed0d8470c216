//! An object store without space for what is uploaded for some nodes.

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Swift's answer when no server has space (RFC 4918 §11.5) to uploads whose name has one of these
/// UUIDs of nodes.
pub(super) fn full_for(router: Router, uuids: Vec<String>) -> Router {
    if uuids.is_empty() {
        return router;
    }
    let uuids: Arc<[String]> = uuids.into();
    router.layer(middleware::from_fn(move |request, next| {
        answer(Arc::clone(&uuids), request, next)
    }))
}

async fn answer(uuids: Arc<[String]>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if request.method() == Method::PUT && uuids.iter().any(|uuid| path.ends_with(uuid.as_str())) {
        return (StatusCode::INSUFFICIENT_STORAGE, "there is no space").into_response();
    }
    next.run(request).await
}
