//! A simulated iLO with the server that it manages.
//!
//! There is one machine: power, self test, boot, drives, settings. What is asked of it comes in
//! through thin fronts: `ribcl`, and `redfish` for HP's REST and Redfish. The generations
//! differ by a table (`generation`) and by their documents, which are those of real ones.
//!
//! It refuses what a real iLO refuses: actions without a JSON body, boot settings during POST, a
//! medium on top of another, inserts without a licence, power actions that do not fit the state.
//! It says yes to an insert before it opens the URL, and reads the medium by range requests for as
//! long as the host does. What else goes wrong is switched on by name ([`Fault`]).

mod drives;
mod fault;
mod firmware;
mod generation;
pub mod media;
mod power;
mod redfish;
mod refusal;
mod ribcl;
mod service;
mod state;

pub use fault::{Fault, FaultInfo};
pub use generation::Generation;
pub use state::{Event, EventKind, MachineState, MediumState};

use crate::http::Trust;
use crate::lab::host::Host;
use crate::secret::Secret;
use axum::Router;
use generation::Traits;
use state::State;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

/// How long the answer to wrong credentials takes; ten seconds on a real one.
const LOGIN_FAILURE_DELAY: Duration = Duration::from_millis(200);

/// How long the answer to right credentials takes when logins are slow.
const SLOW_LOGIN: Duration = Duration::from_secs(2);

/// What distinguishes one simulated machine from another.
#[derive(Debug, Clone)]
pub struct IloConfig {
    /// Which iLO it is.
    pub generation: Generation,
    /// Name of the node, shown as its host name.
    pub name: String,
    /// UUID of the server.
    pub uuid: Uuid,
    /// The one account.
    pub username: String,
    /// Its password.
    pub password: Secret,
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
        let state = Mutex::new(State::new(
            config.generation.traits(),
            config.faults.clone(),
        ));
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

    fn traits(&self) -> &'static Traits {
        self.shared.config.generation.traits()
    }

    fn knows(&self, username: &str, password: &str) -> bool {
        let config = &self.shared.config;
        username == config.username && config.password.matches(password)
    }

    fn serial(&self) -> String {
        serial(&self.shared.config.uuid)
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

/// The serial number of the server with this UUID.
pub(super) fn serial(uuid: &Uuid) -> String {
    let digits = uuid.simple().to_string().to_uppercase();
    format!("LAB{}", digits.get(..7).unwrap_or_default())
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
