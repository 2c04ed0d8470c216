//! A TLS listener for an axum router that ends when its handle is dropped.

use super::install_tls_provider;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Connections that may wait to be accepted; the kernel's `somaxconn` caps it. The standard
/// library asks for 128, and of those beyond the kernel drops the SYN: when a room of servers
/// connects at once, the rest would be served 1, 3, 7 seconds later or not at all.
const BACKLOG: i32 = 4096;
/// How long a TLS handshake may take. Thousands at once need seconds of the processor.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// A certificate chain with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Leaf first.
    pub cert_pem: String,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key_pem: Secret,
}

/// A running listener; dropping it closes the port and every connection.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    tasks: JoinSet<()>,
}

impl ServerHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, gives open requests `grace`, then closes.
    pub async fn stop(mut self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves `router` over TLS on an already bound listener. Handlers may take the peer's address
/// as `ConnectInfo<SocketAddr>`.
///
/// # Errors
/// `invalid` if certificate and key do not fit together; `io` if the listener cannot be used.
pub fn serve_tls(
    listener: TcpListener,
    router: Router,
    identity: &Identity,
) -> Result<ServerHandle> {
    install_tls_provider();
    let failed = |e: &std::io::Error| Error::new(Kind::Io, "cannot listen").caused_by(e);
    listener.set_nonblocking(true).map_err(|e| failed(&e))?;
    rustix::net::listen(&listener, BACKLOG).map_err(|e| failed(&e.into()))?;
    raise_descriptor_limit();
    let address = listener.local_addr().map_err(|e| failed(&e))?;
    let handle = Handle::new();
    let config = RustlsConfig::from_config(Arc::new(server_config(identity)?));
    let server = axum_server::from_tcp(listener)
        .map_err(|e| failed(&e))?
        .acceptor(RustlsAcceptor::new(config).handshake_timeout(HANDSHAKE))
        .handle(handle.clone());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = server.serve(service).await {
            tracing::error!(%address, %error, "listener ended");
        }
    });
    Ok(ServerHandle {
        address,
        handle,
        tasks,
    })
}

/// Lets this process have as many descriptors as it may: a client costs one or two, and the usual
/// soft limit is 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

impl Drop for ServerHandle {
    /// The server's own tasks hold connections, so they are told to end them.
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

fn server_config(identity: &Identity) -> Result<rustls::ServerConfig> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let bad = |what: &str| Error::new(Kind::Invalid, format!("TLS identity: {what}"));
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| bad("unreadable certificate").caused_by(&e))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose().as_bytes())
        .map_err(|e| bad("unreadable private key").caused_by(&e))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| bad("certificate and key do not fit").caused_by(&e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
