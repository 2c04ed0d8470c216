//! Which certificates a pin accepts.

use super::site::{Authority, Site, TIMEOUT};
use flowrun::error::Kind;
use flowrun::http::{Fingerprint, Trust};
use flowrun::ilo::model::PowerState;
use flowrun::ilo::{self, Ilo, IloOptions};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn a_pinned_certificate_needs_no_authority() {
    let site = Site::new();
    let shown = ilo::certificate(&site.base_url(), false, TIMEOUT)
        .await
        .unwrap();
    assert!(shown.subject.starts_with("CN="), "{shown:?}");
    assert!(shown.not_after.contains("4096"), "{shown:?}");
    let trust = Trust::Pinned(shown.fingerprint.to_string().parse().unwrap());
    let options = IloOptions {
        trust,
        ..site.options()
    };
    let ilo = Ilo::connect(options).await.unwrap();
    assert_eq!(ilo.power_state().await.unwrap(), PowerState::Off);
    ilo.close().await.unwrap();
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_refused() {
    let (site, other) = (Site::new(), Site::new());
    let shown = ilo::certificate(&other.base_url(), false, TIMEOUT)
        .await
        .unwrap();
    let options = IloOptions {
        trust: Trust::Pinned(shown.fingerprint),
        ..site.options()
    };
    let error = Ilo::connect(options).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Auth, false));
    assert!(error.advice().unwrap().contains("fingerprint"));
    let own = ilo::certificate(&site.base_url(), false, TIMEOUT).await;
    let own = own.unwrap().fingerprint;
    assert_eq!(error.details()["shown"], own.to_string());
    assert_eq!(error.details()["pinned"], shown.fingerprint.to_string());
    assert_eq!(site.count(|_| true), 0);
}

/// Shows a certificate whose key it does not have.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesServerCert for Impostor {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn a_copied_certificate_is_refused() {
    flowrun::http::install_tls_provider();
    let (own, stolen) = (Authority::new().identity(), Authority::new().identity());
    let chain = vec![CertificateDer::from_pem_slice(stolen.cert_pem.as_bytes()).unwrap()];
    let fingerprint = Fingerprint::of(&chain[0]);
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.expose().as_bytes()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let resolver = Impostor(Arc::new(CertifiedKey::new(chain, key)));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = rustls::ServerConfig::builder_with_protocol_versions(&[version])
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Impostor(resolver.0.clone())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("https://{}", listener.local_addr().unwrap());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // The client ends the handshake, which is what the test looks at.
                drop(acceptor.accept(stream).await);
            }
        });
        // Anybody may look at the certificate ...
        let shown = ilo::certificate(&base_url, false, TIMEOUT).await.unwrap();
        assert_eq!(shown.fingerprint, fingerprint);
        // ... but nobody talks to it.
        let options = IloOptions {
            base_url,
            trust: Trust::Pinned(fingerprint),
            ..Site::new().options()
        };
        let error = Ilo::connect(options).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Auth, "{error:?}");
        server.abort_all();
    }
}
