//! The flows that a server runs, and the files of those it ran.

use super::Api;
use super::failure::Answer;
use super::runs::invalid;
use super::wire::BundleView;
use crate::cli::find_flow;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The newest version of a flow. A server runs its own flows only, so a path is none.
pub(super) fn load(config: &Config, name: &str) -> Result<(Arc<Bundle>, String)> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(
            Error::new(Kind::Invalid, format!("{name:?} is not a flow's name"))
                .hint("a server runs the flows of its folders and those built in: `GET /v1/flows`"),
        );
    }
    find_flow(name, &config.site.flows)
}

pub(super) async fn list(State(api): State<Api>) -> Answer<Json<Value>> {
    let listed = tokio::task::spawn_blocking(move || {
        let flows: Vec<_> = names(&api.config)
            .iter()
            .map(|name| describe(&api, name))
            .collect();
        json!({ "flows": flows })
    });
    let listed = listed
        .await
        .map_err(|e| Error::new(Kind::Internal, "listing the flows broke").caused_by(&e))?;
    Ok(Json(listed))
}

fn names(config: &Config) -> BTreeSet<String> {
    let stock = crate::lua::stdlib::flows()
        .into_keys()
        .map(std::path::PathBuf::from);
    let folders = config.site.flows.iter();
    let listed = folders.filter_map(|folder| std::fs::read_dir(folder).ok());
    let on_disk = listed.flatten().flatten().map(|entry| entry.path());
    let flows = on_disk
        .chain(stock)
        .filter(|path| path.extension().is_some_and(|e| e == "lua"));
    flows
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

fn describe(api: &Api, name: &str) -> Value {
    let loaded = load(&api.config, name).and_then(|(bundle, entry)| {
        let info = api.runtime.inspect(&bundle, &entry)?;
        Ok((bundle, entry, info))
    });
    match loaded {
        Ok((bundle, entry, info)) => json!({
            "name": name, "entry": entry, "bundle": bundle.hash, "summary": info.summary,
            "actions": info.actions, "default": info.default, "params": info.params,
        }),
        Err(error) => json!({ "name": name, "error": error }),
    }
}

pub(super) async fn bundle(
    State(api): State<Api>,
    hash: std::result::Result<Path<String>, PathRejection>,
) -> Answer<Json<BundleView>> {
    let Path(hash) = hash.map_err(|e| invalid(e.body_text()))?;
    let bundle = api.engine.journal().bundle(&hash).await?;
    Ok(Json(BundleView {
        hash: bundle.hash,
        files: bundle.files,
    }))
}
