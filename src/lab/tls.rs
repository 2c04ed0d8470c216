//! The site's certificate authority. It stays with the lab directory, so that whoever trusts it
//! once trusts the restarted site too.

use super::files::{read_text, write_private};
use crate::error::{Error, Kind, Result};
use crate::http::server::Identity;
use crate::secret::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Signs the certificates of the site's servers.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    path: PathBuf,
    /// Whether it was made just now: what an earlier one signed is worth nothing.
    is_new: bool,
}

impl Authority {
    /// Reads `ca.pem` and `ca.key` in this folder, or makes them. Blocks.
    ///
    /// # Errors
    /// `io` if the files cannot be read or written, `corrupt` if the key is unreadable.
    pub fn open(folder: &Path) -> Result<Self> {
        let (path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
        if let (Some(pem), Some(key)) = (read_text(&path)?, read_text(&key_path)?.map(Secret::new))
        {
            let key = KeyPair::from_pem(key.expose()).map_err(|e| {
                Error::new(Kind::Corrupt, format!("not a private key: {e}"))
                    .target(key_path.display().to_string())
            })?;
            let issuer = Issuer::new(ca_params()?, key);
            return Ok(Self {
                issuer,
                pem,
                path,
                is_new: false,
            });
        }
        let key = KeyPair::generate().map_err(|e| failed(&e))?;
        let params = ca_params()?;
        let pem = params.self_signed(&key).map_err(|e| failed(&e))?.pem();
        write_private(&key_path, key.serialize_pem().as_bytes())?;
        write_private(&path, pem.as_bytes())?;
        let issuer = Issuer::new(params, key);
        Ok(Self {
            issuer,
            pem,
            path,
            is_new: true,
        })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Where that certificate lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Issues a certificate for a server at these addresses, `localhost` and 127.0.0.1.
    ///
    /// # Errors
    /// `internal` if no key can be made.
    pub fn issue(&self, addresses: &[IpAddr]) -> Result<Identity> {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let others = addresses.iter().filter(|address| **address != loopback);
        let mut names: Vec<String> = others.map(IpAddr::to_string).collect();
        names.extend([loopback.to_string(), "localhost".to_owned()]);
        let common_name = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).map_err(|e| failed(&e))?;
        set_life(&mut params);
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(|e| failed(&e))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|e| failed(&e))?;
        Ok(Identity {
            cert_pem: certificate.pem(),
            key_pem: Secret::new(key.serialize_pem()),
        })
    }

    /// The certificate of this name, issued once and kept beside the authority's own, as an iLO
    /// keeps its. Blocks.
    ///
    /// # Errors
    /// As [`issue`](Self::issue); `io` if the files cannot be read or written.
    pub fn keep(&self, name: &str, address: IpAddr) -> Result<Identity> {
        let folder = self.path.parent().unwrap_or_else(|| Path::new(""));
        let file = |kind: &str| folder.join(format!("{name}-{address}.{kind}"));
        let (path, key_path) = (file("pem"), file("key"));
        if !self.is_new
            && let (Some(cert_pem), Some(key)) = (read_text(&path)?, read_text(&key_path)?)
        {
            let key_pem = Secret::new(key);
            return Ok(Identity { cert_pem, key_pem });
        }
        let identity = self.issue(&[address])?;
        write_private(&key_path, identity.key_pem.expose().as_bytes())?;
        write_private(&path, identity.cert_pem.as_bytes())?;
        Ok(identity)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn ca_params() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|e| failed(&e))?;
    set_life(&mut params);
    params
        .distinguished_name
        .push(DnType::CommonName, "flowrun lab");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A lab outlives any reasonable period, and its key protects nothing.
fn set_life(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
}

fn failed(error: &rcgen::Error) -> Error {
    Error::new(Kind::Internal, "cannot make a certificate").caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::serve_tls;
    use crate::http::{self, Trust};
    use axum::Router;
    use axum::routing::get;
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn a_kept_certificate_lasts_as_long_as_its_authority() {
        let folder = tempfile::tempdir().unwrap();
        let kept = |name: &str| {
            let authority = Authority::open(folder.path()).unwrap();
            let identity = authority.keep(name, [127, 0, 0, 1].into()).unwrap();
            identity.cert_pem
        };
        let first = kept("ilo-lab-1");
        assert_eq!(kept("ilo-lab-1"), first);
        assert_ne!(kept("ilo-lab-2"), first);
        std::fs::remove_file(folder.path().join("ca.pem")).unwrap();
        assert_ne!(kept("ilo-lab-1"), first);
    }

    #[tokio::test]
    async fn a_reopened_authority_is_trusted_by_who_trusted_it_before() {
        let folder = tempfile::tempdir().unwrap();
        let trust = Trust::Ca(Authority::open(folder.path()).unwrap().pem().to_owned());
        let reopened = Authority::open(folder.path()).unwrap();
        let address = IpAddr::from([127, 0, 0, 1]);
        let identity = reopened.issue(&[[127, 9, 9, 9].into(), address]).unwrap();
        let listener = TcpListener::bind((address, 0)).unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = serve_tls(listener, router, &identity).unwrap();
        let client = http::client(&trust, Duration::from_secs(10)).unwrap();
        let url = format!("https://{}/", server.address());
        let answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "here");

        let other = tempfile::tempdir().unwrap();
        let stranger = Trust::Ca(Authority::open(other.path()).unwrap().pem().to_owned());
        let client = http::client(&stranger, Duration::from_secs(10)).unwrap();
        let error = http::no_answer(client.get(&url).send().await.unwrap_err());
        assert_eq!(error.kind(), Kind::Auth);
    }
}
