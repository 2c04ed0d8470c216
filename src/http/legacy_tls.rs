//! TLS as old firmware speaks it, by the system's OpenSSL: versions 1.0 and 1.1, RSA key exchange,
//! CBC ciphers, signatures with SHA-1, keys of 1024 bits. rustls has none of these, and nobody
//! should offer them where they are not needed: the cargo feature `legacy-tls` builds it, and a
//! node asks for it by name.

#[cfg(not(feature = "legacy-tls"))]
pub(crate) use absent::{connect, session};
#[cfg(feature = "legacy-tls")]
pub(crate) use present::{connect, session};

#[cfg(not(feature = "legacy-tls"))]
mod absent {
    use crate::error::{Error, Kind, Result};
    use crate::http::Trust;
    use std::future::{Ready, ready};
    use std::time::Duration;
    use tokio::net::TcpStream;

    /// Says that this build cannot.
    pub(crate) fn connect(
        _trust: &Trust,
        _host: &str,
        _port: u16,
        _timeout: Duration,
    ) -> Ready<Result<TcpStream>> {
        let message = "this flowrun was built without legacy TLS";
        ready(Err(Error::new(Kind::Unsupported, message).hint(
            "build it with `cargo build --release --features legacy-tls`",
        )))
    }

    /// There is none.
    pub(crate) fn session(_stream: &TcpStream) -> Result<(Vec<u8>, String)> {
        Err(Error::new(Kind::Internal, "a session without legacy TLS"))
    }
}

#[cfg(feature = "legacy-tls")]
mod present {
    use crate::error::{Error, Kind, Result};
    use crate::http::trust::PinMismatch;
    use crate::http::{Fingerprint, Trust, tls};
    use openssl::error::ErrorStack;
    use openssl::ssl::{Ssl, SslConnector, SslMethod, SslOptions, SslVerifyMode, SslVersion};
    use openssl::x509::{X509, X509VerifyResult, store::X509StoreBuilder};
    use std::pin::Pin;
    use std::time::Duration;
    use tokio::net::TcpStream;
    use tokio_openssl::SslStream;

    /// Everything that OpenSSL has and that authenticates and encrypts, at no minimal strength.
    const CIPHERS: &str = "ALL:!aNULL:!eNULL:@SECLEVEL=0";

    /// `SSL_OP_LEGACY_SERVER_CONNECT`: servers older than RFC 5746 (2010).
    const LEGACY_SERVER: SslOptions = SslOptions::from_bits_retain(4);

    /// Connects within `timeout`, as [`tls::connect`] does.
    ///
    /// # Errors
    /// `unreachable`, `timeout`, `auth` for a certificate that `trust` does not cover, `protocol`
    /// if the handshake fails.
    pub(crate) async fn connect(
        trust: &Trust,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<SslStream<TcpStream>> {
        let ssl = client(trust, host)?;
        tls::in_time(timeout, async {
            let stream = tls::reach(host, port).await?;
            let mut stream = SslStream::new(ssl, stream).map_err(|e| broken(&e))?;
            let connected = Pin::new(&mut stream).connect().await;
            connected.map_err(|e| failed(&e, stream.ssl().verify_result()))?;
            match trust {
                // Nothing has been sent yet, and the handshake proved that the peer has the key.
                Trust::Pinned(pinned) => {
                    let (pinned, shown) = (*pinned, Fingerprint::of(&session(&stream)?.0));
                    match pinned == shown {
                        true => Ok(stream),
                        false => Err(tls::pin_mismatch(&PinMismatch { pinned, shown })),
                    }
                }
                _ => Ok(stream),
            }
        })
        .await
    }

    /// The peer's certificate, DER, and the TLS version.
    ///
    /// # Errors
    /// `protocol` if it has none.
    pub(crate) fn session(stream: &SslStream<TcpStream>) -> Result<(Vec<u8>, String)> {
        let shown = stream.ssl().peer_certificate();
        let none = || Error::new(Kind::Protocol, "the server has no certificate");
        let der = shown
            .and_then(|shown| shown.to_der().ok())
            .ok_or_else(none)?;
        Ok((der, stream.ssl().version_str().replace('.', "_")))
    }

    fn client(trust: &Trust, host: &str) -> Result<Ssl> {
        let build = || {
            let mut builder = SslConnector::builder(SslMethod::tls_client())?;
            builder.set_min_proto_version(Some(SslVersion::TLS1))?;
            builder.set_cipher_list(CIPHERS)?;
            builder.set_options(LEGACY_SERVER);
            match trust {
                Trust::System => builder.set_verify(SslVerifyMode::PEER),
                Trust::Ca(pem) => {
                    let mut store = X509StoreBuilder::new()?;
                    for certificate in X509::stack_from_pem(pem.as_bytes())? {
                        store.add_cert(certificate)?;
                    }
                    builder.set_cert_store(store.build());
                    builder.set_verify(SslVerifyMode::PEER);
                }
                // A pin is compared after the handshake.
                Trust::Pinned(_) | Trust::Insecure => builder.set_verify(SslVerifyMode::NONE),
            }
            let by_name = matches!(trust, Trust::System | Trust::Ca(_));
            let configured = builder.build().configure()?;
            configured.verify_hostname(by_name).into_ssl(host)
        };
        build().map_err(|e: ErrorStack| broken(&e))
    }

    fn failed(error: &openssl::ssl::Error, verified: X509VerifyResult) -> Error {
        if verified != X509VerifyResult::OK {
            return tls::untrusted().cause(verified.error_string());
        }
        match error.io_error() {
            Some(io) => tls::broke(io),
            None => Error::new(Kind::Protocol, "the TLS handshake failed").caused_by(error),
        }
    }

    fn broken(error: &ErrorStack) -> Error {
        Error::new(Kind::Internal, "no TLS client").caused_by(error)
    }
}
