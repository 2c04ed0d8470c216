//! Outbound HTTP and the TLS listener: whom to trust, deadlines, and how failures are named.

pub(crate) mod attempt;
mod certificate;
pub(crate) mod download;
pub(crate) mod legacy_tls;
mod seats;
pub mod server;
pub(crate) mod status;
pub mod tls;
mod trust;

pub use certificate::{Certificate, Fingerprint};
pub(crate) use seats::network_of;
pub use status::kind_of_status;
pub use trust::Trust;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use reqwest::Client;
use std::sync::Once;
use std::time::Duration;

/// Makes ring the process's TLS provider. Cheap, and safe to call from everywhere.
pub fn install_tls_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that a provider is installed already, which serves as well.
        drop(rustls::crypto::ring::default_provider().install_default());
    });
}

/// Builds a client with connect and whole-request deadlines. Redirects are not followed: a
/// credential must not travel to a host that nobody named.
///
/// # Errors
/// `invalid` if the PEM text of [`Trust::Ca`] holds no certificate.
pub fn client(trust: &Trust, request_timeout: Duration) -> Result<Client> {
    client_as(trust, None, request_timeout)
}

/// The same, for a server that asks for a certificate: `identity` is one with its key, PEM.
///
/// # Errors
/// As [`client`], and `invalid` if the identity cannot be used.
pub fn client_as(
    trust: &Trust,
    identity: Option<&Secret>,
    request_timeout: Duration,
) -> Result<Client> {
    install_tls_provider();
    Client::builder()
        .user_agent(concat!("flowrun/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(15))
        .timeout(request_timeout)
        // The 30 s of reqwest end uploads that a busy service takes late.
        .tcp_user_timeout(Duration::from_secs(120))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tls_backend_preconfigured(trust.tls_as(identity)?)
        .build()
        .map_err(|e| Error::new(Kind::Internal, "no HTTP client").caused_by(&e))
}

/// Names a request that got no answer. The URL is left out: it may be signed.
#[must_use]
pub fn no_answer(error: reqwest::Error) -> Error {
    let error = error.without_url();
    if let Some(named) = tls::handshake_failed(&error) {
        return named;
    }
    let (kind, message) = if error.is_timeout() {
        (Kind::Timeout, "no answer before the deadline")
    } else if error.is_connect() {
        (Kind::Unreachable, "no connection")
    } else if error.is_body() || error.is_decode() || error.is_request() {
        (Kind::Unreachable, "the connection broke")
    } else {
        (Kind::Protocol, "the HTTP exchange failed")
    };
    let named = Error::new(kind, message).retryable(true).caused_by(&error);
    match error.is_connect() && kind == Kind::Unreachable {
        true => named.hint("check address, port and firewall"),
        false => named,
    }
}
