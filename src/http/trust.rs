//! Whose certificates are accepted.

use super::certificate::{Fingerprint, public_key};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, OtherError,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::Arc;

/// Whose certificates are accepted.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// The roots of the operating system.
    #[default]
    System,
    /// Only the authorities in this PEM text.
    Ca(String),
    /// Only this one certificate, whatever its names, dates and issuer.
    Pinned(Fingerprint),
    /// Anybody's. Only by explicit word of the operator.
    Insecure,
}

impl Trust {
    /// The TLS client that trusts so.
    ///
    /// # Errors
    /// `invalid` if the PEM text of [`Trust::Ca`] holds no certificate.
    pub fn tls(&self) -> Result<ClientConfig> {
        self.tls_as(None)
    }

    /// The same, showing a certificate if the server asks: `identity` is one with its key, PEM.
    pub(super) fn tls_as(&self, identity: Option<&Secret>) -> Result<ClientConfig> {
        let builder = self.server_side()?;
        let Some(pem) = identity else {
            return Ok(builder.with_no_client_auth());
        };
        let bad = |what: &str| Error::new(Kind::Invalid, format!("client certificate: {what}"));
        let chain = CertificateDer::pem_slice_iter(pem.expose().as_bytes())
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|e| bad("unreadable").caused_by(&e))?;
        let key = PrivateKeyDer::from_pem_slice(pem.expose().as_bytes())
            .map_err(|e| bad("no key beside it").caused_by(&e))?;
        let config = builder.with_client_auth_cert(chain, key);
        config.map_err(|e| bad("it and its key do not fit").caused_by(&e))
    }

    /// What is believed of the server.
    fn server_side(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
        let provider = Arc::new(ring::default_provider());
        let broken = |e: rustls::Error| Error::new(Kind::Internal, "no TLS client").caused_by(&e);
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(broken)?;
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Ca(pem) => {
                return Ok(builder.with_root_certificates(roots(pem)?));
            }
            Self::System => {
                Arc::new(rustls_platform_verifier::Verifier::new(provider).map_err(broken)?)
            }
            Self::Pinned(fingerprint) => Arc::new(Leaf {
                provider,
                pinned: Some(*fingerprint),
            }),
            Self::Insecure => Arc::new(Leaf {
                provider,
                pinned: None,
            }),
        };
        Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(verifier))
    }
}

pub(super) fn roots(pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(|c| c.ok());
    roots.add_parsable_certificates(certificates);
    match roots.is_empty() {
        true => Err(Error::new(
            Kind::Invalid,
            "the CA text holds no PEM certificate",
        )),
        false => Ok(roots),
    }
}

/// A server shows another certificate than the pinned one.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("pinned {pinned}, shown {shown}")]
pub(super) struct PinMismatch {
    pub(super) pinned: Fingerprint,
    pub(super) shown: Fingerprint,
}

/// Looks at the server's own certificate only, not at who signed it.
#[derive(Debug)]
struct Leaf {
    provider: Arc<CryptoProvider>,
    /// The one that is accepted; `None` accepts any.
    pinned: Option<Fingerprint>,
}

impl Leaf {
    /// Checks that the peer has the certificate's key: a certificate is public, so that its
    /// fingerprint alone proves nothing. Not by webpki, which wants certificates of version 3;
    /// those that old firmware made itself need not be.
    fn signed(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        if self.pinned.is_none() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let (algorithm, key) = public_key(certificate).ok_or(rustls::Error::InvalidCertificate(
            CertificateError::BadEncoding,
        ))?;
        let algorithms = self.provider.signature_verification_algorithms.mapping;
        let candidates = algorithms
            .iter()
            .filter(|(scheme, _)| *scheme == signed.scheme)
            .flat_map(|(_, algorithms)| *algorithms);
        let mut fitting = candidates.filter(|a| a.public_key_alg_id().as_ref() == algorithm);
        match fitting.any(|a| {
            a.verify_signature(&key, message, signed.signature())
                .is_ok()
        }) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(rustls::Error::InvalidCertificate(
                CertificateError::BadSignature,
            )),
        }
    }
}

impl ServerCertVerifier for Leaf {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(end_entity);
        match self.pinned {
            Some(pinned) if pinned != shown => {
                let mismatch = OtherError(Arc::new(PinMismatch { pinned, shown }));
                let error = CertificateError::Other(mismatch);
                Err(rustls::Error::InvalidCertificate(error))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
