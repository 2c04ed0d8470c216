//! The flows that a server runs, and the files of those it ran.

use super::Api;
use super::failure::Answer;
use super::runs::invalid;
use super::wire::BundleView;
use crate::catalogue::{self, Listing};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

/// What new runs take, who still runs older versions, and what is wrong with the last edit.
pub(super) async fn list(State(api): State<Api>) -> Answer<Json<Listing>> {
    let state = api.flows()?.state();
    let journal = Some(api.engine.journal());
    let listing = catalogue::list(&state.edition, state.broken.clone(), journal);
    Ok(Json(listing.await?))
}

pub(super) async fn bundle(
    State(api): State<Api>,
    hash: Result<Path<String>, PathRejection>,
) -> Answer<Json<BundleView>> {
    let Path(hash) = hash.map_err(|e| invalid(e.body_text()))?;
    let bundle = api.engine.journal().bundle(&hash).await?;
    Ok(Json(BundleView {
        hash: bundle.hash,
        files: bundle.files,
    }))
}
