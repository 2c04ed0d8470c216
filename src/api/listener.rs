//! The listener: of a run in the foreground for its callback, of a server for everything.

use super::Api;
use crate::config::{ApiSection, Config};
use crate::error::{Error, Kind, Result};
use crate::http::server::{Door, Identity, Limits, ServerHandle, serve};
use crate::secret::Secret;
use axum::Router;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

/// How often a taken port is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// What slow and silent clients may take: a connection costs some 40 KiB. An operator follows each
/// run by a connection of its own.
const LIMITS: Limits = Limits {
    patience: Duration::from_secs(15),
    connections: 2048,
    per_address: 1024,
};

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
pub fn listen(config: &Config, api: &Api) -> Result<Listener> {
    let (mut server, mut waiting) = (None, JoinSet::new());
    if let Some(address) = config.api.listen {
        let service = Service {
            address,
            door: door(&config.api, address)?,
            router: api.callbacks(),
        };
        server = service.start()?;
        if server.is_none() {
            waiting.spawn(service.take_over());
        }
    }
    Ok(Listener { server, waiting })
}

/// Listens for everything, on `address`.
///
/// # Errors
/// As [`listen`]; `invalid` if others could do what only operators may, `conflict` if the port is
/// taken.
pub fn listen_for_all(config: &Config, api: &Api, address: SocketAddr) -> Result<ServerHandle> {
    if api.access.is_open() && !is_private(&config.api, address) {
        return Err(Error::new(
            Kind::Invalid,
            format!("whoever reaches {address} could deploy and wipe servers"),
        )
        .hint(
            "`flowrun serve token` makes a token for [api] token_sha256; or set client_ca, or \
             insecure = true if something else guards it",
        ));
    }
    let service = Service {
        address,
        door: door(&config.api, address)?,
        router: api.router(),
    };
    service.start()?.ok_or_else(|| {
        Error::new(Kind::Conflict, format!("{address} is taken"))
            .hint("a run in the foreground holds it for its callback, or another server runs")
    })
}

/// Whether nobody beyond this host reaches the address, or the operator takes care of that.
fn is_private(api: &ApiSection, address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback() || api.insecure
}

pub(super) fn door(api: &ApiSection, address: SocketAddr) -> Result<Door> {
    let identity = match (&api.tls_cert, &api.tls_key) {
        (Some(cert), Some(key)) => Some(Identity {
            cert_pem: read(cert)?,
            key_pem: Secret::new(read(key)?),
        }),
        (None, None) if is_private(api, address) => None,
        _ => {
            return Err(
                Error::new(Kind::Invalid, "api.listen needs tls_cert and tls_key").hint(
                    "without TLS flowrun listens on loopback only, unless [api] insecure = true",
                ),
            );
        }
    };
    if identity.is_none() && api.client_ca.is_some() {
        return Err(Error::new(
            Kind::Invalid,
            "api.client_ca needs tls_cert and tls_key",
        ));
    }
    Ok(Door {
        identity,
        client_ca_pem: api.client_ca.as_deref().map(read).transpose()?,
        limits: Some(LIMITS),
    })
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
    door: Door,
    router: Router,
}

impl Service {
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
        serve(listener, self.router.clone(), &self.door).map(Some)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_loopback_tls_is_asked_for() {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let everywhere = "0.0.0.0:0".parse().unwrap();
        let api = ApiSection::default();
        assert!(door(&api, loopback).unwrap().identity.is_none());
        assert_eq!(door(&api, everywhere).unwrap_err().kind(), Kind::Invalid);
        let insecure = ApiSection {
            insecure: true,
            ..ApiSection::default()
        };
        assert!(door(&insecure, everywhere).unwrap().identity.is_none());
        let half = ApiSection {
            tls_cert: Some("/x".into()),
            ..ApiSection::default()
        };
        assert_eq!(door(&half, loopback).unwrap_err().kind(), Kind::Invalid);
    }
}
