//! The certificate that a TLS server shows, for an operator to look at and to pin.

use super::{Trust, legacy_tls, tls};
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of a DER certificate, printed as OpenSSL does (`AB:CD:…`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a DER certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// Reads hexadecimal digits of either case, with or without colons.
impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits: String = text.trim().chars().filter(|c| *c != ':').collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| {
            Error::new(
                Kind::Invalid,
                format!("{text:?} is not the SHA-256 fingerprint of a certificate"),
            )
            .hint("64 hexadecimal digits, with or without colons")
        })?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// What a server's certificate says. The names are the server's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// What to pin.
    pub fingerprint: Fingerprint,
    /// Whom it is for; empty if it cannot be read.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// First day (`May 10 08:00:00 2024 +00:00`).
    pub not_before: String,
    /// Last day.
    pub not_after: String,
    /// `TLSv1_3`, `TLSv1_2`, …, as negotiated.
    pub protocol: String,
}

impl Certificate {
    /// Asks the server for it, without trusting it and without sending anything else.
    ///
    /// # Errors
    /// `unreachable`, `timeout`, or `unsupported` if no TLS version is shared.
    pub async fn shown_by(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        let stream = tls::connect(&Trust::Insecure, host, port, timeout).await?;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let leaf =
            leaf.ok_or_else(|| Error::new(Kind::Protocol, "the server has no certificate"))?;
        let protocol = session.protocol_version();
        let protocol = protocol.map(|v| format!("{v:?}")).unwrap_or_default();
        Ok(Self::read(leaf, protocol))
    }

    /// The same from a server that only has TLS of its time.
    ///
    /// # Errors
    /// As [`shown_by`](Self::shown_by), and `unsupported` from a build without `legacy-tls`.
    pub async fn shown_in_legacy_tls(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        let stream = legacy_tls::connect(&Trust::Insecure, host, port, timeout).await?;
        let (leaf, protocol) = legacy_tls::session(&stream)?;
        Ok(Self::read(&leaf, protocol))
    }

    fn read(der: &[u8], protocol: String) -> Self {
        let mut certificate = Self {
            fingerprint: Fingerprint::of(der),
            subject: String::new(),
            issuer: String::new(),
            not_before: String::new(),
            not_after: String::new(),
            protocol,
        };
        if let Ok((_, x509)) = X509Certificate::from_der(der) {
            certificate.subject = x509.subject().to_string();
            certificate.issuer = x509.issuer().to_string();
            certificate.not_before = x509.validity().not_before.to_string();
            certificate.not_after = x509.validity().not_after.to_string();
        }
        certificate
    }
}

/// Algorithm identifier (the contents of its SEQUENCE) and key of a certificate.
pub(super) fn public_key(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, x509) = X509Certificate::from_der(der).ok()?;
    let info = x509.public_key();
    let (_, bits) = asn1_contents(info.raw)?;
    let (_, algorithm) = asn1_contents(bits)?;
    Some((algorithm.to_vec(), info.subject_public_key.data.to_vec()))
}

/// What follows a DER element, and its contents.
fn asn1_contents(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, any) = x509_parser::asn1_rs::Any::from_der(der).ok()?;
    Some((rest, any.data))
}
