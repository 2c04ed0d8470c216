//! What a run tells while it goes on.

use crate::clock;
use crate::error::Error;
use crate::journal::RunStatus;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

/// One event of a run; `--json` prints it as one line.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub t_ms: u64,
    /// The run.
    pub run: String,
    /// Its node.
    pub node: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "fields are named for what they are")]
pub enum What {
    /// The run begins, or goes on after a crash or stop.
    RunStarted {
        flow: String,
        action: String,
        source: String,
        resumed: bool,
    },
    /// A step begins.
    StepStarted { step: String },
    /// A step ended.
    StepFinished {
        step: String,
        ok: bool,
        seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Error>,
    },
    /// A primitive began or ended; replayed calls are not told.
    CallFinished {
        key: String,
        name: String,
        site: String,
        ok: bool,
        seconds: f64,
    },
    /// Bytes of a long call.
    Progress {
        step: String,
        what: String,
        done_bytes: u64,
        total_bytes: u64,
    },
    /// A line of the run's log.
    Log {
        level: String,
        step: String,
        text: String,
    },
    /// The run ended or stopped.
    RunFinished {
        status: RunStatus,
        seconds: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Error>,
        result: Value,
    },
}

/// Where events are sent; nobody needs to listen.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(4096).0)
    }
}

impl Events {
    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }

    pub(super) fn send(&self, run: &str, node: &str, what: What) {
        let event = Event {
            t_ms: clock::unix_ms(),
            run: run.to_owned(),
            node: node.to_owned(),
            what,
        };
        // Without a listener there is nobody to tell; the journal has it.
        drop(self.0.send(event));
    }
}
