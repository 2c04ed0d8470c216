//! The callback listener of a run in the foreground.

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::http::server::{Identity, ServerHandle, serve_tls};
use crate::journal::Journal;
use crate::secret::Secret;
use axum::Router;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often a taken port is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Takes callbacks as long as it lives.
#[derive(Debug)]
pub struct Listener {
    server: Option<ServerHandle>,
    waiting: JoinSet<()>,
}

/// Listens for callbacks, if the configuration says where. Another flowrun of this site may hold
/// the port: it keeps callbacks in the same journal, and this one takes over when it ends.
///
/// # Errors
/// `invalid` for a certificate or key that cannot be used, `io` if the address cannot.
pub fn listen(config: &Config, journal: &Journal) -> Result<Listener> {
    let (mut server, mut waiting) = (None, JoinSet::new());
    if let Some(address) = config.api.listen {
        let service = Service::new(config, journal, address)?;
        server = service.start()?;
        if server.is_none() {
            waiting.spawn(service.take_over());
        }
    }
    Ok(Listener { server, waiting })
}

impl Listener {
    /// Whether somebody else has the port yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.server.is_none() && !self.waiting.is_empty()
    }
}

struct Service {
    address: SocketAddr,
    identity: Identity,
    router: Router,
}

impl Service {
    fn new(config: &Config, journal: &Journal, address: SocketAddr) -> Result<Self> {
        let (Some(cert), Some(key)) = (&config.api.tls_cert, &config.api.tls_key) else {
            return Err(Error::new(
                Kind::Invalid,
                "api.listen needs tls_cert and tls_key",
            ));
        };
        let nodes = config.nodes.values();
        let uuids = nodes.map(|node| node.uuid.clone()).collect();
        Ok(Self {
            address,
            identity: Identity {
                cert_pem: read(cert)?,
                key_pem: Secret::new(read(key)?),
            },
            router: super::router(journal.clone(), uuids),
        })
    }

    /// Absent: somebody else has the port.
    fn start(&self) -> Result<Option<ServerHandle>> {
        let listener = match TcpListener::bind(self.address) {
            Ok(listener) => listener,
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => return Ok(None),
            Err(e) => {
                let message = format!("cannot listen on {}", self.address);
                return Err(Error::new(Kind::Io, message)
                    .caused_by(&e)
                    .hint("change [api] listen"));
            }
        };
        serve_tls(listener, self.router.clone(), &self.identity).map(Some)
    }

    async fn take_over(self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            match self.start() {
                Ok(None) => {}
                Ok(Some(_server)) => return std::future::pending().await,
                Err(error) => return tracing::warn!(%error, "callbacks cannot be taken over"),
            }
        }
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", &e))
}
