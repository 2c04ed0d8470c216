//! `/v1/runs`: starting, looking, cancelling, resuming.

use super::Api;
use super::failure::{Answer, Failure};
use super::wire::{NewRuns, RefusedRun, RunDetail, RunList, RunView, StartedRun, StartedRuns};
use crate::config::Node;
use crate::engine::{NewScript, Script, is_alive};
use crate::error::{Error, Kind, Result};
use crate::journal::{Bundle, LogLine, RunFilter, RunRecord, RunStatus, lay_over};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most nodes of one request.
const MAX_NODES: usize = 1000;
/// Most runs of one list.
const MAX_LISTED: u32 = 1000;

/// `GET /v1/runs` takes these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default = "twenty")]
    limit: u32,
    state: Option<String>,
    node: Option<String>,
}

fn twenty() -> u32 {
    20
}

/// A run whose owner died is `running` in the journal.
const DEAD: &str = "dead";

pub(super) async fn list(
    State(api): State<Api>,
    query: Result<Query<Which>, QueryRejection>,
) -> Answer<Json<RunList>> {
    let Query(which) = query.map_err(|e| invalid(e.body_text()))?;
    if which.limit == 0 || which.limit > MAX_LISTED {
        return Err(invalid(format!("`limit` is 1 to {MAX_LISTED}")));
    }
    let status = which.state.as_deref().map(status_named).transpose()?;
    let filter = RunFilter {
        limit: which.limit,
        status,
        node: which.node,
    };
    let records = api.engine.journal().list_runs(filter).await?;
    let mut runs: Vec<_> = records.iter().map(RunView::from).collect();
    runs.retain(|run| {
        which
            .state
            .as_ref()
            .is_none_or(|state| *state == run.status)
    });
    Ok(Json(RunList { runs }))
}

fn status_named(name: &str) -> Answer<RunStatus> {
    if name == DEAD {
        return Ok(RunStatus::Running);
    }
    let found = RunStatus::ALL
        .into_iter()
        .find(|status| status.as_str() == name);
    found.ok_or_else(|| {
        let known = RunStatus::ALL.map(RunStatus::as_str).join(", ");
        let error = Error::new(Kind::Invalid, format!("there is no state {name:?}"));
        error.hint(format!("known are {known}, {DEAD}")).into()
    })
}

pub(super) async fn show(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Answer<Json<RunDetail>> {
    let run = find(&api, id).await?;
    Ok(Json(RunDetail::read(api.engine.journal(), &run).await?))
}

pub(super) async fn logs(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Answer<Json<Vec<LogLine>>> {
    let run = find(&api, id).await?;
    Ok(Json(api.engine.journal().logs(&run.id).await?))
}

/// A run that somebody works on is asked to cancel; one that nobody works on is unwound here.
pub(super) async fn cancel(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Answer<(StatusCode, Json<RunView>)> {
    let run = find(&api, id).await?;
    if run.status.is_final() {
        let message = format!("the run has ended: {}", run.status.as_str());
        return Err(Error::new(Kind::Conflict, message).target(run.id).into());
    }
    if run.status == RunStatus::Running && is_alive(&run.owner, run.alive_ms) {
        api.engine.cancel(&run.id).await?;
    } else {
        api.keep(api.engine.resume(run.clone(), true).await?);
    }
    accepted(&api, &run.id).await
}

pub(super) async fn resume(
    State(api): State<Api>,
    id: Result<Path<String>, PathRejection>,
) -> Answer<(StatusCode, Json<RunView>)> {
    let run = find(&api, id).await?;
    api.keep(api.engine.resume(run.clone(), false).await?);
    accepted(&api, &run.id).await
}

async fn accepted(api: &Api, id: &str) -> Answer<(StatusCode, Json<RunView>)> {
    let run = api.engine.journal().find_run(id).await?;
    Ok((StatusCode::ACCEPTED, Json(RunView::from(&run))))
}

/// By the id or its beginning.
pub(super) async fn find(api: &Api, id: Result<Path<String>, PathRejection>) -> Answer<RunRecord> {
    let Path(id) = id.map_err(|e| invalid(e.body_text()))?;
    Ok(api.engine.journal().find_run(&id).await?)
}

pub(super) async fn start(
    State(api): State<Api>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<(StatusCode, Json<StartedRuns>)> {
    let wanted: NewRuns = read(body)?;
    let nodes = nodes(&api, &wanted).await?;
    let planned = Plan::make(&api, wanted, nodes).await?;
    let mut answer = StartedRuns {
        flow: planned.flow.clone(),
        entry: planned.entry.clone(),
        bundle: planned.bundle.hash.clone(),
        runs: Vec::new(),
        refused: Vec::new(),
    };
    for (node, view, destroys) in planned.nodes {
        let script = Script {
            bundle: planned.bundle.clone(),
            entry: planned.entry.clone(),
            action: planned.action.clone(),
            params: planned.params.clone(),
            node: view,
        };
        let new = NewScript {
            flow: planned.flow.clone(),
            script,
            node: node.clone(),
        };
        match api.engine.start(new).await {
            Ok(started) => {
                let id = started.id.clone();
                api.keep(started);
                answer.runs.push(StartedRun { id, node, destroys });
            }
            Err(error) => answer.refused.push(RefusedRun { node, error }),
        }
    }
    match (answer.runs.is_empty(), answer.refused.first()) {
        (true, Some(refused)) => Err(refused.error.clone().into()),
        _ => Ok((StatusCode::CREATED, Json(answer))),
    }
}

/// What is to be started, checked.
struct Plan {
    flow: String,
    bundle: Arc<Bundle>,
    entry: String,
    action: String,
    params: Value,
    /// Name, view, what is destroyed.
    nodes: Vec<(String, Value, Vec<String>)>,
}

impl Plan {
    /// Loading a flow runs Lua, so it is done on a thread that may be kept.
    async fn make(api: &Api, wanted: NewRuns, nodes: Vec<Chosen>) -> Answer<Self> {
        let api = api.clone();
        let params = texts(&wanted.params)?;
        let planned = tokio::task::spawn_blocking(move || {
            let flow = api.flows()?.flow(&wanted.flow)?;
            let (bundle, entry, info) = (flow.version, flow.entry, flow.info);
            let action = info.action(wanted.action.as_deref())?;
            let params = info.params(&params)?;
            let nodes = nodes.into_iter().map(|node| {
                let known = &node.known;
                let destroys = api
                    .runtime
                    .destroys(&bundle, &entry, &action, known, &params)?;
                Ok((node.name, node.view, destroys))
            });
            Ok(Self {
                flow: info.name,
                nodes: nodes.collect::<Result<_>>()?,
                action,
                params,
                bundle,
                entry,
            })
        });
        let planned: Result<Self> = planned
            .await
            .map_err(|e| Error::new(Kind::Internal, "loading the flow broke").caused_by(&e))?;
        Ok(planned?)
    }
}

/// A node that is meant.
struct Chosen {
    name: String,
    /// As the inventory and the request have it.
    view: Value,
    /// With what runs learned of it.
    known: Value,
}

/// The nodes that are meant, each once.
async fn nodes(api: &Api, wanted: &NewRuns) -> Answer<Vec<Chosen>> {
    if wanted.node.is_some() && !wanted.nodes.is_empty() {
        return Err(invalid("`node` or `nodes`, not both"));
    }
    let mut names: Vec<_> = wanted.node.iter().chain(&wanted.nodes).cloned().collect();
    let given = names.len();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(invalid("`node` or `nodes` is missing"));
    }
    if names.len() < given {
        return Err(invalid("a node is named twice"));
    }
    if names.len() > MAX_NODES {
        return Err(invalid(format!("more than {MAX_NODES} nodes")));
    }
    let mut chosen = Vec::new();
    for name in names {
        let mut node = api.config.node(&name)?.clone();
        for (path, value) in &wanted.set {
            set(&mut node, path, value)?;
        }
        let view = node.view(&name);
        let mut known = view.clone();
        lay_over(&mut known, &api.engine.journal().learned(&name).await?);
        chosen.push(Chosen { name, view, known });
    }
    Ok(chosen)
}

/// How a server drives its nodes is its configuration's word: a run must not send their passwords
/// elsewhere, nor read other files.
fn set(node: &mut Node, path: &str, value: &Value) -> Result<()> {
    if path.starts_with("driver_info.") && path != "driver_info.deploy_iso" {
        return Err(
            Error::new(Kind::Invalid, format!("{path} cannot be set on a server"))
                .hint("change it in the server's configuration"),
        );
    }
    node.assign(path, value.clone())
}

/// As `--param` gives them.
fn texts(params: &BTreeMap<String, Value>) -> Answer<BTreeMap<String, String>> {
    let text = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => {
                return Err(invalid(format!(
                    "`params.{name}` is no text, number or boolean"
                )));
            }
        };
        Ok((name.clone(), text))
    };
    params.iter().map(text).collect()
}

/// A JSON body, whatever its content type says.
fn read<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Answer<T> {
    let body = body.map_err(|e| {
        let error = Error::new(Kind::Limit, e.body_text());
        Failure::with(e.status(), error)
    })?;
    serde_json::from_slice(&body).map_err(|e| invalid(format!("the body is not understood: {e}")))
}

pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Error::new(Kind::Invalid, message).into()
}
