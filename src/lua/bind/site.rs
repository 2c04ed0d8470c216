//! What primitives reach: configuration, nodes, clients.

use super::openstack::Clients;
use crate::config::{Config, DriverInfo, Node};
use crate::engine::{Call, Handle};
use crate::error::{Error, Result};
use crate::http::Trust;
use crate::ilo::{Ilo, IloOptions};
use crate::image::artifact::ArtifactStore;
use crate::secret::Secret;
use futures_util::future::BoxFuture;
use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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

    /// The node's iLO. One session serves all calls of a run and is closed at its end.
    pub(super) async fn ilo(&self, call: &Call, name: &str) -> Result<Arc<Ilo>> {
        let shared = format!("ilo {name}");
        if let Some(handle) = call.run.shared(&shared)
            && let Some(session) = (&*handle as &dyn Any).downcast_ref::<IloSession>()
        {
            return Ok(session.0.clone());
        }
        let info = &self.node(name)?.driver_info;
        let trust = ilo_trust(info)?;
        if matches!(trust, Trust::Insecure) {
            let warning = format!("the iLO of {name} is not verified (ilo_insecure)");
            call.run.log("warn", "", &warning);
        }
        if info.ilo_legacy_tls {
            let warning = format!("the TLS of {name}'s iLO is not secure (ilo_legacy_tls)");
            call.run.log("warn", "", &warning);
        }
        let password = std::fs::read_to_string(&info.ilo_password_file)
            .map_err(|e| Error::io(&info.ilo_password_file, "read the iLO password", &e))?;
        let address = &info.ilo_address;
        let base_url = if address.contains("://") {
            address.clone()
        } else {
            format!("https://{address}")
        };
        let options = IloOptions {
            base_url,
            username: info.ilo_username.clone(),
            password: Secret::new(password.trim_end_matches(['\r', '\n'])),
            trust,
            legacy_tls: info.ilo_legacy_tls,
            timeout: ILO_REQUEST,
        };
        let ilo = Arc::new(Ilo::connect(options).await?);
        call.run.share(&shared, Arc::new(IloSession(ilo.clone())));
        end_left_sessions(call, &ilo, shared).await?;
        Ok(ilo)
    }
}

/// Whom the operator trusts to be the iLO of a node; the narrowest word counts.
fn ilo_trust(info: &DriverInfo) -> Result<Trust> {
    Ok(match info {
        DriverInfo {
            ilo_fingerprint: Some(fingerprint),
            ..
        } => Trust::Pinned(fingerprint.parse()?),
        DriverInfo {
            ilo_insecure: true, ..
        } => Trust::Insecure,
        DriverInfo {
            ilo_ca_file: Some(path),
            ..
        } => Trust::Ca(read_text(path)?),
        _ => Trust::System,
    })
}

/// An iLO has few sessions: those of owners that died are deleted by their successor.
async fn end_left_sessions(call: &Call, ilo: &Ilo, name: String) -> Result<()> {
    // The session is opened by the first request.
    ilo.power_state().await?;
    let path = ilo.session_path().await;
    let left = call
        .run
        .journal()
        .replace_sessions(&call.run.id, name, path.clone())
        .await?;
    for old in left.iter().filter(|old| Some(*old) != path.as_ref()) {
        if let Err(error) = ilo.request("DELETE", old, None, ILO_REQUEST).await {
            tracing::info!(host = ilo.host(), %error, "an old session was not deleted");
        }
    }
    Ok(())
}

#[derive(Debug)]
struct IloSession(Arc<Ilo>);

impl Handle for IloSession {
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Err(error) = self.0.close().await {
                tracing::warn!(host = self.0.host(), %error, "the iLO session was not closed");
            }
        })
    }
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", &e))
}
