//! What the engine asks of a primitive: its crash class, and to execute or to probe.

use super::live::{LiveRef, LiveValue};
use super::run::Run;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// What a crash in the middle of a call means. Declared once, next to the primitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Looks only; the answer is recorded.
    Read,
    /// Changes something. Its start is on disk first; in doubt it runs again, with the same key.
    Effect,
    /// Changes something that must not happen twice. In doubt the device is asked.
    EffectProbe,
    /// A function of its arguments. An artifact is recorded by hash and rebuilt if missing.
    Pure,
    /// A session, stream or secret: opened again at first use, never recorded.
    Live,
    /// Waits for something. Its deadline is recorded.
    Wait,
}

impl Class {
    /// The spelling in the journal and the documentation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Effect => "effect",
            Self::EffectProbe => "effect+probe",
            Self::Pure => "pure",
            Self::Live => "live",
            Self::Wait => "wait",
        }
    }

    /// Whether the start must be on disk before the call begins.
    pub(super) fn starts_durably(self) -> bool {
        matches!(self, Self::Effect | Self::EffectProbe | Self::Wait)
    }
}

/// The primitives by name, as the engine sees them.
pub trait Primitives: Send + Sync + std::fmt::Debug {
    /// The primitive of this name (`ilo.set_power`).
    fn find(&self, name: &str) -> Option<Arc<dyn Primitive>>;
    /// Tells what of the node differs from what the journal of a run that goes on says of it.
    fn compare(&self, _run: Arc<Run>) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
    /// Closes what earlier owners of this run left open, which no call came to since.
    fn close_left(&self, _run: Arc<Run>) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// A Rust function seen from Lua.
pub trait Primitive: Send + Sync {
    /// Its crash class.
    fn class(&self) -> Class;
    /// Whether a result is kept in the journal. False only for `pure` functions that are cheaper
    /// to compute again than to record.
    fn recorded(&self) -> bool;
    /// Does it.
    fn execute(&self, call: Call) -> BoxFuture<'static, Result<Reply>>;
    /// Whether what an earlier process recorded as the result still holds; takes up again what
    /// keeps it so. If not, the call is executed again.
    fn still_holds(&self, call: Call, result: Value) -> BoxFuture<'static, bool>;
    /// Finds out whether an earlier execution with these arguments took effect.
    fn probe(&self, call: Call) -> BoxFuture<'static, Result<Probe>>;
}

/// What a primitive returns: plain data with `{"$live": n}` where `live[n]` belongs.
#[derive(Debug, Default)]
pub struct Reply {
    /// Plain data.
    pub value: Value,
    /// What may not be recorded.
    pub live: Vec<LiveValue>,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self {
            value,
            live: Vec::new(),
        }
    }
}

impl Reply {
    /// Serializes a result without live parts.
    ///
    /// # Errors
    /// `internal` if the type does not serialize.
    pub fn of(value: &impl Serialize) -> Result<Self> {
        serde_json::to_value(value)
            .map(Self::from)
            .map_err(|e| Error::new(Kind::Internal, "result does not serialize").caused_by(&e))
    }

    /// Adds a live part and returns its placeholder for `value`.
    pub fn hold(&mut self, live: LiveValue) -> Value {
        self.live.push(live);
        serde_json::json!({ "$live": self.live.len() - 1 })
    }
}

/// What a probe found.
#[derive(Debug)]
pub enum Probe {
    /// It took effect; this is its result.
    Done(Reply),
    /// It did not; execute it.
    NotDone,
}

/// One execution of a primitive.
#[derive(Debug, Clone)]
pub struct Call {
    /// The run it belongs to.
    pub run: Arc<Run>,
    /// Its key; the same at every replay, so it serves as idempotency key.
    pub key: String,
    /// The primitive's name.
    pub name: String,
    /// `file:line` of the flow or library that made it.
    pub site: String,
    /// Checked arguments; secrets and handles are references.
    pub args: Value,
    /// When it first began, milliseconds since 1970.
    pub began_ms: u64,
    /// From 1; more if an earlier process began it and died.
    pub attempt: u32,
    /// When it must have ended, milliseconds since 1970.
    pub deadline_ms: Option<u64>,
}

impl Call {
    /// The arguments as a struct.
    ///
    /// # Errors
    /// `internal`: the arguments were checked against the primitive's own declaration.
    pub fn decode<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.args.clone()).map_err(|e| {
            Error::new(Kind::Internal, "checked arguments do not decode").caused_by(&e)
        })
    }

    /// What a reference stands for; opened again if this process does not hold it yet.
    ///
    /// # Errors
    /// Those of the primitive that made it.
    pub async fn live(&self, reference: &LiveRef) -> Result<LiveValue> {
        self.run.live_value(reference).await
    }

    /// The text behind a reference to a secret.
    ///
    /// # Errors
    /// `invalid` if it is a handle; else those of the primitive that made it.
    pub async fn secret(&self, reference: &LiveRef) -> Result<Secret> {
        match self.live(reference).await? {
            LiveValue::Secret(secret) => Ok(secret),
            LiveValue::Handle(handle) => Err(Error::new(
                Kind::Invalid,
                format!("{handle:?} is not a text"),
            )),
        }
    }

    /// A secret of this call that is the same at every replay and is stored nowhere.
    #[must_use]
    pub fn derive(&self, label: &str) -> Secret {
        self.run.derive(&self.key, label)
    }

    /// Time left before the deadline, `otherwise` if there is none.
    #[must_use]
    pub fn time_left(&self, otherwise: Duration) -> Duration {
        self.deadline_ms.map_or(otherwise, |at| {
            Duration::from_millis(at.saturating_sub(crate::clock::unix_ms()))
        })
    }
}
