//! HTTP routes. `flowrun serve` has them all; a one-shot run carries the callback's alone.

mod access;
mod attempts;
mod callback;
mod events;
mod failure;
mod flows;
pub mod listener;
mod metrics;
mod nodes;
pub mod renewal;
mod runs;
mod unread;
pub mod wire;

pub use access::make_token;

use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::engine::{Engine, Started};
use crate::error::{Error, Kind, Result};
use crate::lua::LuaRuntime;
use access::Access;
use attempts::Attempts;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use failure::Failure;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use unread::Unread;

/// Largest callback: a few hundred bytes, or an error with a log excerpt.
const MAX_CALLBACK_BYTES: usize = 64 << 10;
/// Largest request of an operator: a thousand nodes with their names.
const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a request may take until its answer begins, its body included.
const REQUEST: Duration = Duration::from_secs(30);
/// The description of the routes; a test compares them.
const OPENAPI: &str = include_str!("openapi.json");

/// What the routes work on.
#[derive(Debug, Clone)]
pub struct Api {
    config: Arc<Config>,
    engine: Engine,
    runtime: Arc<LuaRuntime>,
    /// Absent where only callbacks are taken.
    catalogue: Option<Arc<Catalogue>>,
    access: Arc<Access>,
    bad_callbacks: Arc<Attempts>,
    /// The runs of this process.
    tracker: TaskTracker,
    /// Cancelled when nothing new is taken.
    stopping: CancellationToken,
}

impl Api {
    /// Over this site and engine.
    ///
    /// # Errors
    /// `invalid` for hashes of tokens that are none.
    pub fn new(config: &Config, engine: &Engine, runtime: LuaRuntime) -> Result<Self> {
        Ok(Self {
            access: Arc::new(Access::new(&config.api)?),
            config: Arc::new(config.clone()),
            engine: engine.clone(),
            runtime: Arc::new(runtime),
            catalogue: None,
            bad_callbacks: Arc::default(),
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// With the flows that operators may start.
    #[must_use]
    pub fn with_flows(mut self, catalogue: Catalogue) -> Self {
        self.catalogue = Some(Arc::new(catalogue));
        self
    }

    fn flows(&self) -> Result<&Catalogue> {
        let none = || Error::new(Kind::Internal, "the flows are not followed");
        self.catalogue.as_deref().ok_or_else(none)
    }

    /// Keeps a run until it has ended or stopped.
    pub fn keep(&self, started: Started) {
        self.tracker.spawn(async move {
            let run = started.id.clone();
            match started.end().await {
                Ok(end) => {
                    tracing::info!(run, node = end.node, status = end.status.as_str(), "run");
                }
                Err(error) => tracing::error!(run, %error, "run"),
            }
        });
    }

    /// Ends what followers read, takes no more requests, stops every run where it is, and waits
    /// for that; answers whether all had stopped in time.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.stopping.cancel();
        self.engine.stop();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait())
            .await
            .is_ok()
    }

    /// Every route of the server.
    pub fn router(&self) -> Router {
        let guard = middleware::from_fn_with_state(self.clone(), access::guard);
        let operators = operators().into_iter();
        let operators = operators.fold(Router::new(), |router, (path, handler)| {
            router.route(path, handler)
        });
        operators
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(guard)
            .merge(anybody())
            .fallback(async || nothing_here())
            .method_not_allowed_fallback(async || wrong_method())
            .layer(middleware::from_fn(in_time))
            .with_state(self.clone())
    }

    /// The callback alone.
    pub fn callbacks(&self) -> Router {
        anybody()
            .layer(middleware::from_fn(in_time))
            .with_state(self.clone())
    }
}

/// What an operator may do.
fn operators() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/v1/runs", get(runs::list).post(runs::start)),
        ("/v1/runs/{id}", get(runs::show)),
        ("/v1/runs/{id}/cancel", post(runs::cancel)),
        ("/v1/runs/{id}/resume", post(runs::resume)),
        ("/v1/runs/{id}/logs", get(runs::logs)),
        ("/v1/runs/{id}/events", get(events::follow)),
        ("/v1/bundles/{hash}", get(flows::bundle)),
        ("/v1/flows", get(flows::list)),
        ("/v1/nodes", get(nodes::list)),
        ("/metrics", get(metrics::metrics)),
        (
            "/openapi.json",
            get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)),
        ),
    ]
}

/// What needs no access: the callback has a key of its own.
fn anybody() -> Router<Api> {
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
        .route(
            "/v1/nodes/{uuid}/vendor_passthru/ramdisk_log",
            post(callback::log),
        )
        .route("/v1/nodes/{uuid}/vendor_passthru", post(callback::by_query))
        .route("/nodes/{uuid}/vendor_passthru", post(callback::by_query))
        .route("/healthz", get(async || "ok\n"))
        .layer(DefaultBodyLimit::max(MAX_CALLBACK_BYTES))
}

/// A body that trickles in must not hold a connection for ever.
async fn in_time(request: Request, next: Next) -> Response {
    let (request, unread) = Unread::of(request);
    let answer = tokio::time::timeout(REQUEST, next.run(request)).await;
    let response = answer.unwrap_or_else(|_| {
        let error = Error::new(Kind::Timeout, "the request took too long").retryable(true);
        Failure::with(StatusCode::REQUEST_TIMEOUT, error).into_response()
    });
    if response.status().is_success() {
        return response;
    }
    unread.before(response).await
}

fn nothing_here() -> Failure {
    Error::new(Kind::NotFound, "there is nothing at this path")
        .hint("/openapi.json lists what there is")
        .into()
}

fn wrong_method() -> Failure {
    let error = Error::new(Kind::Invalid, "this path does not have that method");
    Failure::with(StatusCode::METHOD_NOT_ALLOWED, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// Paths of route declarations, and of the document.
    #[test]
    fn every_route_is_described() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let described = document["paths"].as_object().unwrap();
        let described: BTreeSet<&str> = described.keys().map(String::as_str).collect();
        let declared: BTreeSet<&str> = operators().iter().map(|(path, _)| *path).collect();
        let open = [
            "/healthz",
            "/v1/nodes/{uuid}/vendor_passthru/pass_deploy_info",
            "/v1/nodes/{uuid}/vendor_passthru/ramdisk_log",
            "/v1/nodes/{uuid}/vendor_passthru",
        ];
        let declared = declared.union(&open.into()).copied().collect();
        assert_eq!(described, declared);
        assert_eq!(document["openapi"], "3.1.0");
    }
}
