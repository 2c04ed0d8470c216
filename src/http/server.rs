//! A listener for an axum router, with or without TLS, that ends when its handle is dropped.

use super::install_tls_provider;
use super::seats::{Seat, Seats};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use axum::{Extension, Router};
use axum_server::Handle;
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::server::WebPkiClientVerifier;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_layer::Layer;

/// Connections that may wait to be accepted; the kernel's `somaxconn` caps it. The standard
/// library asks for 128, and of those beyond the kernel drops the SYN: when a room of servers
/// connects at once, the rest would be served 1, 3, 7 seconds later or not at all.
const BACKLOG: i32 = 4096;
/// How long a TLS handshake may take. Thousands at once need seconds of the processor.
const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long a peer may leave what was sent to it unacknowledged, in milliseconds.
const SILENT_MS: u32 = 60_000;

/// A certificate chain with its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Leaf first.
    pub cert_pem: String,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key_pem: Secret,
}

/// Who may come in, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// What the server shows; absent: no TLS.
    pub identity: Option<Identity>,
    /// Authorities, PEM, whose client certificates are asked for. Nobody needs to have one:
    /// [`Peer::certified`] tells.
    pub client_ca_pem: Option<String>,
    /// What slow and silent clients may take.
    pub limits: Option<Limits>,
}

/// What clients may take before they have shown that they are worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For the TLS handshake, for the first request after it, and for any later request's head
    /// while the connection is kept.
    pub patience: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Those of one address.
    pub per_address: usize,
}

/// Who is at the other end; an extension of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Whether it has a certificate of [`Door::client_ca_pem`].
    pub certified: bool,
    /// Kept as long as the connection.
    _seat: Option<Arc<Seat>>,
}

/// A running listener; dropping it closes the port and every connection.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    handle: Handle<SocketAddr>,
    tasks: JoinSet<()>,
    tls: Tls,
}

/// What new connections are shown; absent: no TLS.
type Tls = Arc<RwLock<Option<Arc<rustls::ServerConfig>>>>;

impl ServerHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows new connections this door's certificate; open ones stay as they are.
    ///
    /// # Errors
    /// As [`serve`]; then the one before stays in use.
    pub fn renew(&self, door: &Door) -> Result<()> {
        let tls = tls_of(door)?;
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        Ok(())
    }

    /// Stops accepting, gives open requests `grace`, then closes.
    pub async fn stop(mut self, grace: Duration) {
        self.handle.graceful_shutdown(Some(grace));
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Serves `router` over TLS to whoever connects.
///
/// # Errors
/// As [`serve`].
pub fn serve_tls(
    listener: TcpListener,
    router: Router,
    identity: &Identity,
) -> Result<ServerHandle> {
    let door = Door {
        identity: Some(identity.clone()),
        client_ca_pem: None,
        limits: None,
    };
    serve(listener, router, &door)
}

/// Serves `router` on an already bound listener. Handlers may take the peer's address as
/// `ConnectInfo<SocketAddr>`, and more about it as `Extension<Peer>`.
///
/// # Errors
/// `invalid` if certificates and key cannot be used; `io` if the listener cannot.
pub fn serve(listener: TcpListener, router: Router, door: &Door) -> Result<ServerHandle> {
    install_tls_provider();
    let failed = |e: &io::Error| Error::new(Kind::Io, "cannot listen").caused_by(e);
    listener.set_nonblocking(true).map_err(|e| failed(&e))?;
    rustix::net::listen(&listener, BACKLOG).map_err(|e| failed(&e.into()))?;
    raise_descriptor_limit();
    let address = listener.local_addr().map_err(|e| failed(&e))?;
    let handle = Handle::new();
    let gate = Gate::new(door)?;
    let tls = gate.tls.clone();
    let mut server = axum_server::from_tcp(listener)
        .map_err(|e| failed(&e))?
        .acceptor(gate)
        .handle(handle.clone());
    if let Some(limits) = door.limits {
        let http = server.http_builder();
        http.http1().header_read_timeout(limits.patience);
        server = server.first_request_timeout(limits.patience);
    }
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
        tls,
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

/// Lets a connection in: a seat, the handshake, and who it is.
#[derive(Clone)]
struct Gate {
    tls: Tls,
    handshake: Duration,
    seats: Option<Arc<Seats>>,
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Gate {
    fn new(door: &Door) -> Result<Self> {
        let seats = |limits: Limits| Seats::new(limits.connections, limits.per_address);
        Ok(Self {
            tls: Arc::new(RwLock::new(tls_of(door)?)),
            handshake: door.limits.map_or(HANDSHAKE, |limits| limits.patience),
            seats: door.limits.map(seats),
        })
    }

    async fn let_in(&self, tcp: TcpStream) -> io::Result<(Box<dyn Stream>, Peer)> {
        let mut peer = Peer {
            address: tcp.peer_addr()?,
            certified: false,
            _seat: None,
        };
        if let Some(seats) = &self.seats {
            let seat = seats.take(peer.address.ip());
            let full = || io::Error::other("as many connections as there may be");
            peer._seat = Some(Arc::new(seat.ok_or_else(full)?));
            // A peer that is gone is noticed by what it does not acknowledge.
            set_tcp_user_timeout(&tcp, SILENT_MS)?;
        }
        let tls = (self.tls.read().unwrap_or_else(PoisonError::into_inner)).clone();
        let Some(tls) = tls else {
            return Ok((Box::new(tcp), peer));
        };
        let handshake = TlsAcceptor::from(tls).accept(tcp);
        let stream = tokio::time::timeout(self.handshake, handshake).await??;
        let (_, session) = stream.get_ref();
        // The verifier has looked at it.
        peer.certified = session.peer_certificates().is_some();
        Ok((Box::new(stream), peer))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for Gate {
    type Stream = Box<dyn Stream>;
    type Service = <Extension<Peer> as Layer<S>>::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move {
            let (stream, peer) = gate.let_in(stream).await?;
            Ok((stream, Extension(peer).layer(service)))
        })
    }
}

fn tls_of(door: &Door) -> Result<Option<Arc<rustls::ServerConfig>>> {
    let identity = door.identity.as_ref();
    let config = identity.map(|identity| server_config(identity, door.client_ca_pem.as_deref()));
    Ok(config.transpose()?.map(Arc::new))
}

fn server_config(identity: &Identity, client_ca: Option<&str>) -> Result<rustls::ServerConfig> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let bad = |what: &str| Error::new(Kind::Invalid, format!("TLS identity: {what}"));
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| bad("unreadable certificate").caused_by(&e))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose().as_bytes())
        .map_err(|e| bad("unreadable private key").caused_by(&e))?;
    let builder = rustls::ServerConfig::builder();
    let builder = match client_ca {
        Some(pem) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(super::trust::roots(pem)?));
            let verifier = verifier.allow_unauthenticated().build();
            let verifier = verifier.map_err(|e| bad("unusable client CA").caused_by(&e))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| bad("certificate and key do not fit").caused_by(&e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
