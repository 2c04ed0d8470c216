//! TLS connections for what is not quite HTTP, and why a handshake failed.

use super::Trust;
use super::trust::PinMismatch;
use crate::error::{Error, Kind, Result};
use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::ServerName;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The detail of errors that are about the server's certificate.
pub(crate) const CERTIFICATE: &str = "certificate";

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
    in_time(timeout, async {
        let stream = reach(host, port).await?;
        connector
            .connect(name, stream)
            .await
            .map_err(|e| handshake_failed(&e).unwrap_or_else(|| broke(&e)))
    })
    .await
}

/// A connection without TLS yet.
pub(super) async fn reach(host: &str, port: u16) -> Result<TcpStream> {
    TcpStream::connect((host, port)).await.map_err(|e| {
        Error::new(Kind::Unreachable, "no connection")
            .retryable(true)
            .hint("check address, port and firewall")
            .caused_by(&e)
    })
}

pub(super) async fn in_time<T>(
    timeout: Duration,
    handshake: impl Future<Output = Result<T>>,
) -> Result<T> {
    let ended = tokio::time::timeout(timeout, handshake).await;
    ended.unwrap_or_else(|_| {
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

/// Nothing in common: rustls speaks TLS 1.2 and 1.3, ECDHE key exchange, AES-GCM and
/// ChaCha20-Poly1305, signatures with SHA-2. `tests/it/ilo/tls.rs` shows it.
const TOO_OLD: &str = "the server shares no TLS version or cipher with us";

pub(super) fn untrusted() -> Error {
    Error::new(Kind::Auth, "the server's certificate is not trusted")
        .hint("give the CA that signed the server's certificate, or pin its fingerprint")
        .detail(CERTIFICATE, "untrusted")
}

fn name(error: &rustls::Error) -> Error {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error
        && let Some(mismatch) = other.downcast_ref::<PinMismatch>()
    {
        return pin_mismatch(mismatch);
    }
    let named = match error {
        rustls::Error::InvalidCertificate(CertificateError::BadSignature) => Error::new(
            Kind::Auth,
            "the server does not have its certificate's key, or the key is too weak",
        )
        .hint("RSA keys need 2048 bits or more: let the server make a new certificate"),
        rustls::Error::InvalidCertificate(_) => untrusted(),
        rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
        )
        | rustls::Error::PeerIncompatible(_) => {
            Error::new(Kind::Unsupported, TOO_OLD).detail("tls", "too_old")
        }
        _ => Error::new(Kind::Protocol, "the TLS handshake failed"),
    };
    named.caused_by(error)
}

pub(super) fn pin_mismatch(mismatch: &PinMismatch) -> Error {
    let message = format!("the server's certificate is not the pinned one: {mismatch}");
    Error::new(Kind::Auth, message)
        .hint("find out why it changed; if that is right, pin the new fingerprint")
        .detail(CERTIFICATE, "not_pinned")
        .detail("pinned", mismatch.pinned.to_string())
        .detail("shown", mismatch.shown.to_string())
}
