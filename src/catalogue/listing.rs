//! What `flowrun flows` and `GET /v1/flows` show.

use super::{BrokenEdit, Edition, Flow};
use crate::error::Result;
use crate::journal::{Journal, RunStatus};
use serde::Serialize;

/// The flows, who uses which version of them, and what was last wrong with an edit.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// What new runs take, in the order of the names.
    pub flows: Vec<Flow>,
    /// The runs that go on or can be resumed; each keeps the version that it began with.
    pub open_runs: Vec<OpenRun>,
    /// What is in the folders and does not check; new runs do not get it.
    pub broken: Option<BrokenEdit>,
    /// The last edit that did not check, also if it has been mended since.
    pub last_broken: Option<BrokenEdit>,
}

/// A run that holds a version of a flow.
#[derive(Debug, Serialize)]
pub struct OpenRun {
    /// The run.
    pub run: String,
    /// Its node.
    pub node: String,
    /// Its flow.
    pub flow: String,
    /// Its action.
    pub action: String,
    /// Where it stands.
    pub status: RunStatus,
    /// The bundle that it runs, also after a crash.
    pub version: String,
    /// Whether a new run would take that version too.
    pub newest: bool,
}

/// Puts together what is known of this edition.
///
/// # Errors
/// Only the journal's.
pub async fn list(
    edition: &Edition,
    broken: Option<BrokenEdit>,
    journal: Option<&Journal>,
) -> Result<Listing> {
    let (mut open_runs, mut last_broken) = (Vec::new(), broken.clone());
    if let Some(journal) = journal {
        let is_newest = |hash: &str| edition.flows.values().any(|f| f.version.hash == hash);
        let runs = journal.open_runs().await?.into_iter();
        open_runs.extend(runs.map(|run| OpenRun {
            newest: is_newest(&run.bundle),
            run: run.id,
            node: run.node,
            flow: run.flow,
            action: run.action,
            status: run.status,
            version: run.bundle,
        }));
        if last_broken.is_none() {
            let edit = journal.last_broken_edit().await?;
            let edit = edit.and_then(|edit| edit.broken);
            last_broken = edit.and_then(|edit| serde_json::from_value(edit).ok());
        }
    }
    Ok(Listing {
        flows: edition.flows.values().cloned().collect(),
        open_runs,
        broken,
        last_broken,
    })
}
