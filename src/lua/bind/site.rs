//! What primitives reach: configuration, nodes, clients.

use super::openstack::Clients;
use super::trust::TrustSource;
use crate::config::{Config, Node};
use crate::engine::{Call, Handle, Run};
use crate::error::{Error, Kind, Result};
use crate::ilo::{Ilo, IloOptions};
use crate::image::artifact::ArtifactStore;
use crate::journal::Journal;
use crate::secret::Secret;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::any::Any;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// Deadline of one request to an iLO; they are slow.
const ILO_REQUEST: Duration = Duration::from_secs(60);

/// A site as primitives see it.
#[derive(Debug, Default)]
pub struct Site {
    config: Config,
    clients: Clients,
}

impl Site {
    /// Over this configuration. Nothing is opened before it is used.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            clients: Clients::default(),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn node(&self, name: &str) -> Result<&Node> {
        self.config.node(name)
    }

    pub(super) fn artifacts(&self) -> Result<ArtifactStore> {
        ArtifactStore::open(&self.config.state_dir().join("artifacts"))
    }

    pub(super) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Connects to a node's iLO, as far as its certificate is trusted. Whoever gets it closes it.
    ///
    /// # Errors
    /// As [`Ilo::connect`]; a certificate that is not trusted with what to do about it.
    pub async fn connect(&self, name: &str, journal: &Journal) -> Result<Ilo> {
        let info = &self.node(name)?.driver_info;
        let pin = journal.pin(name).await?;
        let source = TrustSource::of(info, pin.is_some());
        let password = std::fs::read_to_string(&info.ilo_password_file)
            .map_err(|e| Error::io(&info.ilo_password_file, "read the iLO password", &e))?;
        let options = IloOptions {
            base_url: info.ilo_url(),
            username: info.ilo_username.clone(),
            password: Secret::new(password.trim_end_matches(['\r', '\n'])),
            trust: source
                .trust(info, pin.as_ref())
                .map_err(|e| e.target(name))?,
            legacy_tls: info.ilo_legacy_tls,
            timeout: ILO_REQUEST,
        };
        let connected = Ilo::connect(options).await;
        connected.map_err(|e| source.advise(e, name))
    }

    /// The node's iLO. One session serves all calls of a run and is closed at its end.
    pub(super) async fn ilo(self: &Arc<Self>, call: &Call, name: &str) -> Result<Arc<Ilo>> {
        self.ilo_of(&call.run, name).await
    }

    pub(super) async fn ilo_of(self: &Arc<Self>, run: &Arc<Run>, name: &str) -> Result<Arc<Ilo>> {
        let shared = format!("ilo {name}");
        let handle = run.share(&shared, || Arc::new(IloSession::default()));
        let session = (&*handle as &dyn Any).downcast_ref::<IloSession>();
        let not_ours = || Error::new(Kind::Internal, format!("{shared:?} is something else"));
        let connecting = session.ok_or_else(not_ours)?.connecting(|| {
            let (site, run) = (self.clone(), run.clone());
            connect(site, run, name.to_owned(), shared.clone())
        });
        connecting.await
    }
}

/// The way to a connected iLO, for everybody who waits for it.
type Connecting = Shared<BoxFuture<'static, Result<Arc<Ilo>>>>;

/// A run's iLO. It is connected once, also when several branches ask at once, and to the end, also
/// when who asked has been cancelled: a session that was opened is known, and closed.
#[derive(Debug, Default)]
struct IloSession {
    known: Mutex<Option<Connecting>>,
    tasks: TaskTracker,
}

impl IloSession {
    /// Begins to connect, unless that was done; after a failure anew.
    fn connecting<F>(&self, connect: impl FnOnce() -> F) -> Connecting
    where
        F: Future<Output = Result<Arc<Ilo>>> + Send + 'static,
    {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connecting) = &*known
            && !matches!(connecting.peek(), Some(Err(_)))
        {
            return connecting.clone();
        }
        let task = AbortOnDropHandle::new(self.tasks.spawn(connect()));
        let ended = async {
            let broke = |e| Error::new(Kind::Internal, "connecting broke").caused_by(&e);
            task.await.map_err(broke)?
        };
        known.insert(ended.boxed().shared()).clone()
    }
}

impl Handle for IloSession {
    fn close(&self) -> BoxFuture<'_, ()> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        Box::pin(async {
            let Some(connecting) = known else {
                return;
            };
            // Without a connection there is no session.
            if let Ok(ilo) = connecting.await
                && let Err(error) = ilo.close().await
            {
                tracing::warn!(host = ilo.host(), %error, "the iLO session was not closed");
            }
        })
    }
}

async fn connect(site: Arc<Site>, run: Arc<Run>, node: String, name: String) -> Result<Arc<Ilo>> {
    let journal = run.journal();
    for warning in site.warnings(&node, journal).await? {
        run.log("warn", "", &warning);
    }
    let ilo = site.connect(&node, journal).await?;
    if let Err(error) = end_left_sessions(&run, &ilo, name).await {
        // The first error counts.
        drop(ilo.close().await);
        return Err(error);
    }
    Ok(Arc::new(ilo))
}

/// An iLO has few sessions: those of owners that died are deleted by their successor.
async fn end_left_sessions(run: &Run, ilo: &Ilo, name: String) -> Result<()> {
    // The session is opened by the first request.
    ilo.power_state().await?;
    let path = ilo.session_path().await;
    let journal = run.journal();
    let left = journal
        .replace_sessions(&run.id, name, path.clone())
        .await?;
    for old in left.iter().filter(|old| Some(*old) != path.as_ref()) {
        if let Err(error) = ilo.request("DELETE", old, None, ILO_REQUEST).await {
            tracing::info!(host = ilo.host(), %error, "an old session was not deleted");
        }
    }
    Ok(())
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", &e))
}
