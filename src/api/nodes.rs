//! `/v1/nodes`: the inventory, and which run holds what. No iLO is asked.

use super::Api;
use super::failure::Answer;
use crate::engine::status_of;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

pub(super) async fn list(State(api): State<Api>) -> Answer<Json<Value>> {
    let owners = api.engine.journal().node_owners().await?;
    let nodes = api.config.nodes.iter().map(|(name, node)| {
        let run = owners.get(name).map(|owner| {
            let status = status_of(owner.status, &owner.owner, owner.alive_ms);
            json!({ "id": owner.run, "status": status, "owner": owner.owner })
        });
        json!({
            "name": name, "uuid": node.uuid, "address": node.driver_info.ilo_url(), "run": run,
        })
    });
    let nodes: Vec<Value> = nodes.collect();
    Ok(Json(json!({ "nodes": nodes })))
}
