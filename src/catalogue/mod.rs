//! The flows of a site by name, each with its newest good bundle, followed while they are edited.
//!
//! Watch → quiet time → read twice until equal → check everything → flip. A run takes its flow's
//! bundle when it starts and keeps it; the journal pins it. An edit that does not check is told
//! with file, line and excerpt, and what was good before stays, also over a restart.

mod check;
mod follow;
mod listing;
mod places;
pub mod publish;
mod snapshot;

pub use check::{Edition, check_folders, last_good};
pub use listing::{Listing, OpenRun, list};
pub use snapshot::Snapshot;

use crate::config::SiteSection;
use crate::engine::{excerpt, place};
use crate::error::{Error, Kind, Result};
use crate::journal::{Bundle, Edit, Journal};
use crate::lua::{FlowInfo, LuaRuntime};
use crate::suggest::near;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// A flow that new runs can use.
#[derive(Debug, Clone, Serialize)]
pub struct Flow {
    /// The name under which it is found: that of its file.
    pub name: String,
    /// Path of the flow file inside the bundle.
    pub entry: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Flows of the same name that this one hides: folders further behind, and the built-in one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<String>,
    /// Content hash of the flow, its modules and quirks.
    #[serde(serialize_with = "hash_of")]
    pub version: Arc<Bundle>,
    /// What it says about itself: actions, parameters.
    #[serde(flatten)]
    pub info: FlowInfo,
}

fn hash_of<S: serde::Serializer>(bundle: &Arc<Bundle>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&bundle.hash)
}

/// Where a flow comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A flow folder of the site.
    Site,
    /// This program.
    BuiltIn,
}

/// One mistake in a flow file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong, and what to do.
    pub error: Error,
    /// `path:line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// The line and its neighbours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

impl Fault {
    fn new(error: Error, bundle: Option<&Bundle>) -> Self {
        let at = place(&error);
        let excerpt = bundle.and_then(|bundle| excerpt(bundle, at.as_deref()?));
        Self { error, at, excerpt }
    }
}

/// As the log shows it.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        if let Some(at) = &self.at {
            write!(f, "\n  --> {at}")?;
        }
        for line in self.excerpt.iter().flat_map(|text| text.lines()) {
            write!(f, "\n  {line}")?;
        }
        match self.error.advice() {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// An edit that new runs do not get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BrokenEdit {
    /// When it was seen, milliseconds since 1970.
    pub t_ms: u64,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// What the catalogue knows now.
#[derive(Debug, Clone)]
pub struct State {
    /// What new runs take.
    pub edition: Arc<Edition>,
    /// Since when they take it, milliseconds since 1970.
    pub since_ms: u64,
    /// What is in the folders, if that does not check.
    pub broken: Option<BrokenEdit>,
    /// How edits are noticed.
    pub noticed: Noticed,
}

/// How edits are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Noticed {
    /// The kernel tells.
    Told,
    /// By reading the folders again and again.
    Polled,
}

/// The flows of a site, followed until it is dropped.
#[derive(Debug)]
pub struct Catalogue {
    state: watch::Receiver<Arc<State>>,
    _follower: follow::Follower,
}

impl Catalogue {
    /// Reads and checks the flow folders and begins to follow them. What does not check is
    /// replaced by what was good when this journal was last used, else by what is built in; then
    /// [`State::broken`] tells so.
    ///
    /// # Errors
    /// The journal's, and `internal` if what is built in does not check.
    pub async fn open(
        site: &SiteSection,
        times: Times,
        runtime: LuaRuntime,
        journal: Journal,
    ) -> Result<Self> {
        let (state, told) = follow::begin(site, times, runtime, journal).await?;
        Ok(Self {
            state,
            _follower: told,
        })
    }

    /// The flow of this name, with the newest good bundle.
    ///
    /// # Errors
    /// `not_found` with the near name, and with the broken edit if there is one.
    pub fn flow(&self, name: &str) -> Result<Flow> {
        let state = self.state();
        state.edition.flow(name).map_err(|error| {
            let broken = state.broken.iter().flat_map(|edit| &edit.faults);
            broken.fold(error, |error, fault| {
                error.cause(format!("the last edit is broken: {}", fault.error))
            })
        })
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }

    /// Tells of every flip and of every broken edit.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }
}

impl Edition {
    /// The flow of this name.
    ///
    /// # Errors
    /// `not_found` with the near name.
    pub fn flow(&self, name: &str) -> Result<Flow> {
        if let Some(flow) = self.flows.get(name) {
            return Ok(flow.clone());
        }
        let known: Vec<&str> = self.flows.keys().map(String::as_str).collect();
        let error = Error::new(Kind::NotFound, format!("there is no flow {name}"));
        Err(error.hint(match near(name, &known) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", known.join(", ")),
        }))
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Nothing may change for so long before a folder is read.
    pub quiet: std::time::Duration,
    /// How often a folder is read whose changes nobody tells.
    pub poll: std::time::Duration,
    /// How often a folder is read whose changes are told: should something be missed.
    pub patrol: std::time::Duration,
}

impl Default for Times {
    fn default() -> Self {
        use std::time::Duration;
        Self {
            quiet: Duration::from_millis(300),
            poll: Duration::from_secs(2),
            patrol: Duration::from_secs(60),
        }
    }
}

/// What the journal keeps of a state.
fn edit_of(state: &State) -> Edit {
    let broken = state.broken.as_ref();
    let flows = state.edition.flows.values().map(check::Recorded::of);
    Edit {
        t_ms: broken.map_or(state.since_ms, |edit| edit.t_ms),
        version: state.edition.version.clone(),
        flows: serde_json::to_value(flows.collect::<Vec<_>>()).unwrap_or_default(),
        broken: broken.and_then(|edit| serde_json::to_value(edit).ok()),
    }
}
