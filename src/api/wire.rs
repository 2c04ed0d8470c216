//! What goes over the wire, for the server and for `flowrun … --server`.

pub use super::failure::ErrorBody;
use crate::engine::{Event, status_of};
use crate::error::{Error, Result};
use crate::journal::{Entry, Journal, RunRecord};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Runs that are wanted: `POST /v1/runs`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRuns {
    /// Name of a flow of the server.
    pub flow: String,
    /// Its action; absent: the flow's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The node, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Parameters of the flow: texts, numbers, booleans.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    /// Fields of the nodes for these runs: `instance_info.root_gb` → 20.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, Value>,
}

/// What `POST /v1/runs` did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartedRuns {
    /// The flow's name.
    pub flow: String,
    /// Its file.
    pub entry: String,
    /// Its content hash.
    pub bundle: String,
    /// What was started.
    pub runs: Vec<StartedRun>,
    /// What was not.
    pub refused: Vec<RefusedRun>,
}

/// A run that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartedRun {
    /// Its id.
    pub id: String,
    /// Its node.
    pub node: String,
    /// What the flow says that it destroys there.
    pub destroys: Vec<String>,
}

/// A run that was not started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefusedRun {
    /// Its node.
    pub node: String,
    /// Why.
    pub error: Error,
}

/// A run as lists have it, here and in `flowrun runs --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of RunRecord of the same names")]
pub struct RunView {
    pub id: String,
    pub node: String,
    pub flow: String,
    pub action: String,
    pub entry: String,
    pub bundle: String,
    /// As [`status_of`] has it: a run whose owner died is `dead`.
    pub status: String,
    pub created_ms: u64,
    pub ended_ms: Option<u64>,
    pub alive_ms: u64,
    pub resumes: u32,
    pub downtime_ms: u64,
    pub owner: String,
    pub error: Option<Error>,
    pub result: Option<Value>,
}

impl From<&RunRecord> for RunView {
    fn from(run: &RunRecord) -> Self {
        Self {
            id: run.id.clone(),
            node: run.node.clone(),
            flow: run.flow.clone(),
            action: run.action.clone(),
            entry: run.entry.clone(),
            bundle: run.bundle.clone(),
            status: status_of(run.status, &run.owner, run.alive_ms).to_owned(),
            created_ms: run.created_ms,
            ended_ms: run.ended_ms,
            alive_ms: run.alive_ms,
            resumes: run.resumes,
            downtime_ms: run.downtime_ms,
            owner: run.owner.clone(),
            error: run.error.clone(),
            result: run.result.clone(),
        }
    }
}

/// A run with its steps and calls: `GET /v1/runs/{id}` and `flowrun show --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunDetail {
    /// The run.
    pub run: RunView,
    /// Steps and calls in the order they began.
    pub entries: Vec<Entry>,
    /// What was found otherwise than recorded when the run went on.
    pub drift: Vec<Event>,
}

impl RunDetail {
    /// All of a run.
    ///
    /// # Errors
    /// Only the journal's.
    pub async fn read(journal: &Journal, run: &RunRecord) -> Result<Self> {
        let told = journal.told_of(&run.id, "drift").await?;
        let read = |text: &String| serde_json::from_str(text).ok();
        Ok(Self {
            run: RunView::from(run),
            entries: journal.entries(&run.id).await?,
            drift: told.iter().filter_map(read).collect(),
        })
    }
}

/// `GET /v1/runs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunList {
    /// Newest first.
    pub runs: Vec<RunView>,
}

/// `GET /v1/bundles/{hash}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BundleView {
    /// Content hash.
    pub hash: String,
    /// Path → text.
    pub files: BTreeMap<String, String>,
}
