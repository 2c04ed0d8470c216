//! What a run tells while it goes on.

use super::meter::Meter;
use crate::error::Error;
use crate::journal::RunStatus;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Level of the log's lines that a lab's virtual machine printed on its serial console.
pub const CONSOLE: &str = "console";

/// One event of a run; `--json` prints it as one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// What of the node is not as the journal has it, where a run goes on.
    Drift {
        what: String,
        recorded: String,
        found: String,
    },
    /// A step begins.
    StepStarted { step: String },
    /// A step ended.
    StepFinished {
        step: String,
        ok: bool,
        seconds: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
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
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Error>,
        result: Value,
    },
}

impl Event {
    /// As JSON.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl What {
    /// The name in `event`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run_started",
            Self::Drift { .. } => "drift",
            Self::StepStarted { .. } => "step_started",
            Self::StepFinished { .. } => "step_finished",
            Self::CallFinished { .. } => "call_finished",
            Self::Progress { .. } => "progress",
            Self::Log { .. } => "log",
            Self::RunFinished { .. } => "run_finished",
        }
    }
}

/// Where events are sent; nobody needs to listen.
#[derive(Debug, Clone)]
pub struct Events {
    listeners: broadcast::Sender<Event>,
    meter: Arc<Meter>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            listeners: broadcast::channel(4096).0,
            meter: Arc::default(),
        }
    }
}

impl Events {
    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.listeners.subscribe()
    }

    /// What was told so far, in numbers.
    #[must_use]
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(super) fn send(&self, event: Event) {
        self.meter.observe(&event);
        // Without a listener there is nobody to tell; the journal has it.
        drop(self.listeners.send(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_as_it_is_written_and_read_back() {
        let whats = [
            What::StepStarted { step: "s".into() },
            What::Drift {
                what: "power".into(),
                recorded: "on".into(),
                found: "off".into(),
            },
            What::StepFinished {
                step: "s".into(),
                ok: true,
                seconds: 0.5,
                error: None,
            },
            What::RunFinished {
                status: RunStatus::Done,
                seconds: 1.0,
                error: Some(Error::new(crate::error::Kind::Io, "x")),
                result: Value::Null,
            },
        ];
        for what in whats {
            let event = Event {
                t_ms: 7,
                run: "r".into(),
                node: "n".into(),
                what,
            };
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!(json["event"], event.what.name());
            let back: Event = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(back).unwrap(), json);
        }
    }
}
