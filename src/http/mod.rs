//! Outbound HTTP and the TLS listener: whom to trust, deadlines, and how failures are named.

pub(crate) mod attempt;
pub(crate) mod download;
pub mod server;

use crate::error::{Error, Kind, Result};
use reqwest::{Certificate, Client, StatusCode};
use std::sync::Once;
use std::time::Duration;

/// Whose certificates are accepted.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// The roots of the operating system.
    #[default]
    System,
    /// Only the authorities in this PEM text.
    Ca(String),
    /// Anybody's. Only by explicit word of the operator.
    Insecure,
}

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
    install_tls_provider();
    let builder = Client::builder()
        .user_agent(concat!("flowrun/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(15))
        .timeout(request_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let builder = match trust {
        Trust::System => builder,
        Trust::Insecure => builder.tls_danger_accept_invalid_certs(true),
        Trust::Ca(pem) => {
            let roots = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
            if roots.is_empty() {
                return Err(Error::new(
                    Kind::Invalid,
                    "the CA text holds no PEM certificate",
                ));
            }
            builder.tls_certs_only(roots)
        }
    };
    builder
        .build()
        .map_err(|e| Error::new(Kind::Internal, "no HTTP client").caused_by(&e))
}

/// Names a request that got no answer. The URL is left out: it may be signed.
#[must_use]
pub fn no_answer(error: reqwest::Error) -> Error {
    let error = error.without_url();
    let (kind, message, hint) = if error.is_timeout() {
        (Kind::Timeout, "no answer before the deadline", None)
    } else if error.is_connect() && is_certificate_failure(&error) {
        let hint = "give the CA that signed the server's certificate";
        (
            Kind::Auth,
            "the server's certificate is not trusted",
            Some(hint),
        )
    } else if error.is_connect() {
        (
            Kind::Unreachable,
            "no connection",
            Some("check address, port and firewall"),
        )
    } else if error.is_body() || error.is_decode() || error.is_request() {
        (Kind::Unreachable, "the connection broke", None)
    } else {
        (Kind::Protocol, "the HTTP exchange failed", None)
    };
    let named = Error::new(kind, message)
        .retryable(kind != Kind::Auth)
        .caused_by(&error);
    match hint {
        Some(hint) => named.hint(hint),
        None => named,
    }
}

fn is_certificate_failure(error: &reqwest::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = source.downcast_ref::<rustls::Error>() {
            return true;
        }
        if source.to_string().contains("invalid peer certificate") {
            return true;
        }
        next = source.source();
    }
    false
}

/// The kind that an unexpected HTTP status stands for.
#[must_use]
pub fn kind_of_status(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 | 403 => Kind::Auth,
        404 | 410 => Kind::NotFound,
        409 | 412 => Kind::Conflict,
        408 | 504 => Kind::Timeout,
        413 | 429 | 507 => Kind::Limit,
        405 | 501 => Kind::Unsupported,
        400..=499 => Kind::Refused,
        502 | 503 => Kind::Unreachable,
        _ => Kind::Protocol,
    }
}
