//! TLS connections for what is not quite HTTP, and why a handshake failed.

use super::Trust;
use crate::error::{Error, Kind, Result};
use rustls::AlertDescription;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects within `timeout`. `host` is a name or an address, IPv6 without brackets.
///
/// # Errors
/// `unreachable`, `timeout`, `auth` for a certificate that `trust` does not cover, `unsupported`
/// if no TLS version or cipher is shared.
pub async fn connect(
    trust: &Trust,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::new(trust.tls()?));
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Error::new(Kind::Invalid, format!("{host:?} is not a host name")))?;
    let handshake = async {
        let stream = TcpStream::connect((host, port)).await.map_err(|e| {
            Error::new(Kind::Unreachable, "no connection")
                .retryable(true)
                .hint("check address, port and firewall")
                .caused_by(&e)
        })?;
        connector
            .connect(name, stream)
            .await
            .map_err(|e| handshake_failed(&e).unwrap_or_else(|| broke(&e)))
    };
    tokio::time::timeout(timeout, handshake)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(Kind::Timeout, "no answer before the deadline").retryable(true))
        })
}

/// A connection that ended in mid-exchange.
pub(crate) fn broke(error: &std::io::Error) -> Error {
    Error::new(Kind::Unreachable, "the connection broke")
        .retryable(true)
        .caused_by(error)
}

/// Names a failed handshake, if one is below `error`.
pub(super) fn handshake_failed(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let mut next = Some(error);
    while let Some(source) = next {
        if let Some(tls) = source.downcast_ref::<rustls::Error>() {
            return Some(name(tls));
        }
        let inner = source.downcast_ref::<std::io::Error>();
        next = match inner.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => source.source(),
        };
    }
    None
}

fn name(error: &rustls::Error) -> Error {
    let named = match error {
        rustls::Error::InvalidCertificate(_) => {
            Error::new(Kind::Auth, "the server's certificate is not trusted")
                .hint("give the CA that signed the server's certificate, or pin its fingerprint")
        }
        rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
        )
        | rustls::Error::PeerIncompatible(_) => Error::new(
            Kind::Unsupported,
            "the server shares no TLS version or cipher with us",
        )
        .hint("it is too old for TLS 1.2, or allows old ciphers only: update its firmware"),
        _ => Error::new(Kind::Protocol, "the TLS handshake failed"),
    };
    named.caused_by(error)
}
