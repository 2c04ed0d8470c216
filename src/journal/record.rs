//! The rows, as the layers above see them.

use crate::error::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// An owner works on it, or did until it died.
    Running,
    /// The action returned.
    Done,
    /// The action failed and was unwound.
    Failed,
    /// The operator cancelled it and it was unwound.
    Cancelled,
    /// Stopped on purpose; `flowrun resume` continues it.
    Stopped,
    /// Unwinding failed too: somebody must look.
    Stuck,
}

impl RunStatus {
    /// The spelling in the journal, JSON and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
            Self::Stuck => "stuck",
        }
    }

    /// Every status, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::Running,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Stopped,
        Self::Stuck,
    ];

    pub(super) fn parse(text: &str) -> Self {
        match text {
            "done" => Self::Done,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            "stopped" => Self::Stopped,
            "stuck" => Self::Stuck,
            _ => Self::Running,
        }
    }

    /// Whether nothing more will happen to the run by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Running | Self::Stopped)
    }
}

/// One execution of an action on one node.
#[derive(Debug, Clone, Serialize)]
pub struct RunRecord {
    /// Sortable by time of creation.
    pub id: String,
    /// The node's name.
    pub node: String,
    /// The flow's name.
    pub flow: String,
    /// The action's name.
    pub action: String,
    /// Path of the flow file inside the bundle.
    pub entry: String,
    /// Content hash of the flow and its modules.
    pub bundle: String,
    /// Parameters as the flow sees them.
    pub params: Value,
    /// The node as it was when the run started, without secrets.
    pub node_view: Value,
    /// Where it stands.
    pub status: RunStatus,
    /// The first failure.
    pub error: Option<Error>,
    /// What the action returned.
    pub result: Option<Value>,
    /// Whether the operator asked to cancel it.
    pub cancel: bool,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// How often it was taken up again.
    pub resumes: u32,
    /// Time without an owner.
    pub downtime_ms: u64,
    /// `host/pid/start` of the process that owns it.
    pub owner: String,
    /// Grows with each change of owner.
    pub fence: u64,
    /// When the owner last said that it lives.
    pub alive_ms: u64,
}

/// How far a call got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryState {
    /// Begun; whether it took effect is not known.
    Started,
    /// Finished with a result.
    Ok,
    /// Finished with an error.
    Failed,
}

impl EntryState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        match text {
            "ok" => Self::Ok,
            "failed" => Self::Failed,
            _ => Self::Started,
        }
    }
}

/// One call or step of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Step path, primitive and count: `write image/disk.verify#1`.
    pub key: String,
    /// Order of begin within the run.
    pub seq: u64,
    /// Primitive, or `step`.
    pub name: String,
    /// Crash class, or `step`.
    pub class: String,
    /// `file:line` of the flow.
    pub site: String,
    /// Arguments as canonical JSON, secrets as references.
    pub args: String,
    /// SHA-256 of `args`.
    pub args_hash: String,
    /// How far it got.
    pub state: EntryState,
    /// Result, or the error's JSON.
    pub result: Option<Value>,
    /// Counts executions across crashes.
    pub attempt: u32,
    /// Begin, milliseconds since 1970.
    pub t0_ms: u64,
    /// End, milliseconds since 1970.
    pub t1_ms: Option<u64>,
    /// When a wait or step gives up.
    pub deadline_ms: Option<u64>,
    /// The run's downtime when the deadline was set.
    pub downtime_ms: u64,
}

/// One line of a run's log; the fields of the event that told it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLine {
    /// Milliseconds since 1970.
    pub t_ms: u64,
    /// `info`, `warn`, `error`, or [`console`](crate::engine::CONSOLE).
    pub level: String,
    /// Path of the step it belongs to.
    pub step: String,
    /// The text.
    pub text: String,
}

/// The files of a flow, by path inside the bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// SHA-256 over the sorted paths and contents.
    pub hash: String,
    /// Path → text.
    pub files: std::collections::BTreeMap<String, String>,
}

/// Who holds a node.
#[derive(Debug, Clone)]
pub struct NodeOwner {
    /// The run that holds it.
    pub run: String,
    /// That run's status.
    pub status: RunStatus,
    /// That run's owner.
    pub owner: String,
    /// When the owner last said that it lives.
    pub alive_ms: u64,
}

/// A certificate by which an operator knows the management processor of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// SHA-256 of it, as it was given.
    pub fingerprint: String,
    /// When it was pinned, milliseconds since 1970.
    pub pinned_ms: u64,
}

/// The answer to a request for a node.
#[derive(Debug, Clone)]
pub enum NodeLock {
    /// The node is ours; it is as the inventory has it, with what runs learned laid over.
    Taken(Value),
    /// Somebody holds it.
    Held(NodeOwner),
}

/// What a new owner gets.
#[derive(Debug, Clone)]
pub struct Takeover {
    /// The run, with the new fence.
    pub run: RunRecord,
    /// All its entries.
    pub entries: Vec<Entry>,
}

/// A callback that a run waits for; secrets are known by their SHA-256 only.
#[derive(Debug, Clone)]
pub struct ExpectedCallback {
    /// The run.
    pub run: String,
    /// Hash of the deployment key, hex.
    pub key_hash: String,
    /// Hash of the token, hex.
    pub token_hash: String,
    /// Name of the target that the ramdisk was told to export.
    pub iqn: String,
    /// The run has ended: only the repeat of a callback that it got can be accepted.
    pub ended: bool,
}
