//! A simulated iLO 5 with the server that it manages.
//!
//! Its documents are those of a real one. It refuses what a real iLO 5 refuses: actions without a
//! JSON body, boot settings during POST, a medium on top of another, inserts without a licence,
//! power actions that do not fit the state. It says yes to an insert before it opens the URL, and
//! reads the medium by range requests for as long as the host does.

mod answer;
mod documents;
mod drives;
mod fault;
pub mod media;
mod power;
mod service;
mod state;

pub use fault::Fault;
pub use state::{Event, EventKind, MachineState, MediumState};

use crate::http::Trust;
use crate::lab::host::Host;
use crate::secret::Secret;
use axum::Router;
use state::State;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What distinguishes one simulated machine from another.
#[derive(Debug, Clone)]
pub struct IloConfig {
    /// Name of the node, shown as its host name.
    pub name: String,
    /// UUID of the server.
    pub uuid: Uuid,
    /// The one account.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Whether the licence covers inserts by URL (iLO Advanced), or not (iLO Standard).
    pub vmscript_license: bool,
    /// How long the power-on self test takes.
    pub post_time: Duration,
    /// Whose certificates are accepted when media are read.
    pub media_trust: Trust,
    /// What goes wrong from the beginning.
    pub faults: BTreeSet<Fault>,
}

/// A simulated server and its iLO. Dropping it cuts the power.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    host: Arc<dyn Host>,
    /// What the power actions started.
    runs: Mutex<JoinSet<()>>,
    /// Images being opened.
    openings: Mutex<JoinSet<()>>,
}

/// What the machine and its tasks share.
#[derive(Debug)]
struct Shared {
    config: IloConfig,
    state: Mutex<State>,
    /// Held by what runs on the server: nothing starts before its predecessor is gone.
    processor: tokio::sync::Mutex<()>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Machine {
    /// Makes a machine, switched off. `host` runs on it whenever it boots.
    pub fn new(config: IloConfig, host: Arc<dyn Host>) -> Arc<Self> {
        let state = Mutex::new(State::new(config.faults.clone()));
        let processor = tokio::sync::Mutex::new(());
        Arc::new(Self {
            shared: Arc::new(Shared {
                config,
                state,
                processor,
            }),
            host,
            runs: Mutex::new(JoinSet::new()),
            openings: Mutex::new(JoinSet::new()),
        })
    }

    /// The iLO's web service.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .fallback(service::serve)
            .with_state(Arc::clone(self))
    }

    /// The machine as it is now.
    #[must_use]
    pub fn snapshot(&self) -> MachineState {
        self.shared.state().snapshot()
    }

    /// What happened so far, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Event> {
        self.shared.state().events()
    }

    /// Replaces the faults; those that wear off start anew.
    pub fn set_faults(&self, faults: BTreeSet<Fault>) {
        self.shared.state().set_faults(faults);
    }

    /// Forgets every session, as an iLO does when it is reset.
    pub fn expire_sessions(&self) {
        self.shared.state().sessions.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state is valid at every point where a holder could have panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a task, and takes note of those that ended.
fn spawn(tasks: &Mutex<JoinSet<()>>, task: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = lock(tasks);
    while let Some(ended) = tasks.try_join_next() {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a simulated machine broke");
        }
    }
    tasks.spawn(task);
}
