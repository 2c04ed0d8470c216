//! Which TLS a server must speak to be reached, with OpenSSL as the server.

use super::site::{PASSWORD, TIMEOUT};
use flowrun::error::{Error, Kind};
use flowrun::http::{Fingerprint, Trust};
use flowrun::ilo::{self, Ilo, IloOptions};
use flowrun::secret::Secret;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

struct Server {
    child: Child,
    base_url: String,
}

/// A key and a certificate signed by it with SHA-1, as iLOs made them; where they lie, without
/// the endings `key` and `pem`.
fn identity(dir: &Path, bits: u32) -> PathBuf {
    let path = dir.join(format!("rsa-{bits}"));
    if path.with_extension("pem").exists() {
        return path;
    }
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-nodes", "-sha1", "-subj", "/CN=ILO", "-newkey",
        ])
        .arg(format!("rsa:{bits}"))
        .arg("-keyout")
        .arg(path.with_extension("key"))
        .arg("-out")
        .arg(path.with_extension("pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    path
}

impl Server {
    /// Takes nothing but these options and this cipher. OpenSSL itself refuses what is old, unless
    /// told that no security is wanted.
    fn start(identity: &Path, options: &str, cipher: &str) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www"])
            .arg("-key")
            .arg(identity.with_extension("key"))
            .arg("-cert")
            .arg(identity.with_extension("pem"))
            .args(options.split(' '))
            .args(["-cipher", &format!("{cipher}:@SECLEVEL=0")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned))
            .unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            base_url: format!("https://{address}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

const V12: &str = "TLSv1_2";
const V13: &str = "TLSv1_3";

/// Length of the key, what the server takes and nothing else, and the version spoken by rustls
/// (`None`: too old) and by legacy TLS.
type Row = (
    u32,
    &'static str,
    &'static str,
    Option<&'static str>,
    &'static str,
);

#[rustfmt::skip]
const ROWS: [Row; 10] = [
    (2048, "-tls1_3", "ALL", Some(V13), V13),
    (2048, "-tls1_2", "ECDHE-RSA-AES128-GCM-SHA256", Some(V12), V12),
    (2048, "-tls1_2", "ECDHE-RSA-CHACHA20-POLY1305", Some(V12), V12),
    (2048, "-tls1_2 -sigalgs RSA+SHA1", "ECDHE-RSA-AES256-GCM-SHA384", None, V12),
    (2048, "-tls1_2", "ECDHE-RSA-AES256-SHA384", None, V12),
    (2048, "-tls1_2", "DHE-RSA-AES256-GCM-SHA384", None, V12),
    (2048, "-tls1_2", "AES256-GCM-SHA384", None, V12),
    (2048, "-tls1_2", "AES128-SHA", None, V12),
    (2048, "-tls1_1", "ALL", None, "TLSv1_1"),
    (1024, "-tls1", "AES128-SHA", None, "TLSv1"),
];

#[tokio::test]
async fn what_is_too_old_for_rustls_takes_legacy_tls() {
    let dir = tempfile::tempdir().unwrap();
    for (bits, options, cipher, modern, legacy) in ROWS {
        let case = format!("{options} {cipher}");
        let server = Server::start(&identity(dir.path(), bits), options, cipher);
        let shown = ilo::certificate(&server.base_url, false, TIMEOUT).await;
        match modern {
            Some(version) => assert_eq!(shown.unwrap().protocol, version, "{case}"),
            None => assert_too_old(&shown.unwrap_err(), &case),
        }
        let shown = ilo::certificate(&server.base_url, true, TIMEOUT).await;
        match cfg!(feature = "legacy-tls") {
            true => assert_eq!(shown.unwrap().protocol, legacy, "{case}"),
            false => assert_absent(&shown.unwrap_err()),
        }
    }
}

fn assert_absent(error: &Error) {
    assert_eq!(error.kind(), Kind::Unsupported, "{error:?}");
    assert!(error.advice().unwrap().contains("--features legacy-tls"));
}

fn assert_too_old(error: &Error, server: &str) {
    assert_eq!(error.kind(), Kind::Unsupported, "{server}: {error:?}");
    assert!(error.message().contains("no TLS version or cipher"));
    let advice = error.advice().unwrap();
    assert!(advice.contains("firmware") && advice.contains("ilo_legacy_tls"));
}

/// The pin proves nothing without the key's signature, and ring checks none that is so short.
#[tokio::test]
async fn a_key_of_1024_bits_cannot_be_pinned_with_rustls() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&identity(dir.path(), 1024), "-tls1_2", "ALL");
    let shown = ilo::certificate(&server.base_url, false, TIMEOUT).await;
    let options = options(&server.base_url, shown.unwrap().fingerprint, false);
    let error = Ilo::connect(options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Auth, "{error:?}");
    assert!(error.advice().unwrap().contains("2048 bits"), "{error:?}");
}

fn options(base_url: &str, pin: Fingerprint, legacy_tls: bool) -> IloOptions {
    IloOptions {
        base_url: base_url.to_owned(),
        username: "root".to_owned(),
        password: Secret::new(PASSWORD),
        trust: Trust::Pinned(pin),
        legacy_tls,
        timeout: TIMEOUT,
    }
}

#[cfg(feature = "legacy-tls")]
mod legacy {
    use super::super::site::{Site, TIMEOUT};
    use super::{identity, options};
    use flowrun::error::Kind;
    use flowrun::http::{Trust, tls};
    use flowrun::ilo::model::{Dialect, PowerState, PowerTarget};
    use flowrun::ilo::{self, Ilo};
    use flowrun::lab::ilo::Generation;
    use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslVersion};
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::Arc;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_openssl::SslStream;

    /// TLS 1.0 only, with a key of 1024 bits, as an iLO 4 of 2012.
    fn acceptor(identity: &Path) -> SslAcceptor {
        let mut builder = SslAcceptor::mozilla_intermediate(SslMethod::tls_server()).unwrap();
        builder.set_min_proto_version(None).unwrap();
        builder
            .set_max_proto_version(Some(SslVersion::TLS1))
            .unwrap();
        builder.set_cipher_list("AES128-SHA:@SECLEVEL=0").unwrap();
        builder.clear_options(openssl::ssl::SslOptions::NO_TLSV1);
        builder
            .set_private_key_file(identity.with_extension("key"), SslFiletype::PEM)
            .unwrap();
        builder
            .set_certificate_file(identity.with_extension("pem"), SslFiletype::PEM)
            .unwrap();
        builder.build()
    }

    /// Passes what arrives in old TLS on to the simulated iLO.
    async fn relay(stream: TcpStream, acceptor: Arc<SslAcceptor>, port: u16) {
        let mut front = SslStream::new(Ssl::new(acceptor.context()).unwrap(), stream).unwrap();
        if Pin::new(&mut front).accept().await.is_err() {
            return;
        }
        let back = tls::connect(&Trust::Insecure, "127.0.0.1", port, TIMEOUT).await;
        // How either side ends its connection is not what is tested.
        drop(tokio::io::copy_bidirectional(&mut front, &mut back.unwrap()).await);
    }

    #[tokio::test]
    async fn an_ilo_4_with_tls_1_0_is_driven_by_ribcl() {
        let dir = tempfile::tempdir().unwrap();
        let site = Site::with(|config| config.generation = Generation::Ilo4Ribcl);
        let port = site.base_url().rsplit(':').next().unwrap().parse().unwrap();
        let acceptor = Arc::new(acceptor(&identity(dir.path(), 1024)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("https://{}", listener.local_addr().unwrap());
        let serve = async {
            let mut relays = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                relays.spawn(relay(stream, acceptor.clone(), port));
            }
        };
        let talk = async {
            let shown = ilo::certificate(&base_url, true, TIMEOUT).await.unwrap();
            assert_eq!(shown.protocol, "TLSv1");
            let ilo = Ilo::connect(options(&base_url, shown.fingerprint, true))
                .await
                .unwrap();
            assert_eq!(ilo.info().await.unwrap().dialect, Dialect::Ribcl);
            let on = ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
            assert_eq!(on, PowerState::On);

            let wrong = "AB".repeat(32).parse().unwrap();
            let error = Ilo::connect(options(&base_url, wrong, true)).await;
            assert_eq!(error.unwrap_err().kind(), Kind::Auth);
        };
        tokio::select! {
            () = serve => unreachable!("it serves for ever"),
            () = talk => {}
        }
    }
}
