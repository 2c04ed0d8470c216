//! A store behind TLS with an authority of its own, and clients of it.

use axum::Router;
use flowrun::backoff::Backoff;
use flowrun::http::Trust;
use flowrun::http::server::{Identity, ServerHandle, serve_tls};
use flowrun::objectstore::{Store, StoreOptions, User};
use flowrun::openstack::swift::{Swift, SwiftAuth, SwiftOptions};
use flowrun::secret::Secret;
use std::fmt;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

pub(crate) const USER: &str = "site:flowrun";
pub(crate) const KEY: &str = "the users key";
/// Must never be seen.
pub(crate) const TEMP_URL_KEY: &str = "5ec4e7f00d";
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) store: Arc<Store>,
    pub(crate) address: SocketAddr,
    pub(crate) ca: String,
    _server: ServerHandle,
    _expiry: JoinSet<()>,
}

impl Site {
    /// A store on a free port.
    pub(crate) fn new() -> Self {
        Self::wrapped(|router| router)
    }

    /// A store whose answers pass through `wrap`, which may break them.
    pub(crate) fn wrapped(wrap: impl FnOnce(Router) -> Router) -> Self {
        Self::made(|_| {}, wrap)
    }

    /// A store with other options.
    pub(crate) fn with(change: impl FnOnce(&mut StoreOptions)) -> Self {
        Self::made(change, |router| router)
    }

    fn made(change: impl FnOnce(&mut StoreOptions), wrap: impl FnOnce(Router) -> Router) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(&dir.path().join("store"));
        change(&mut options);
        let store = Store::open(options).unwrap();
        let (identity, ca) = identity();
        std::fs::write(dir.path().join("ca.pem"), &ca).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = serve_tls(listener, wrap(store.router()), &identity).unwrap();
        let mut expiry = JoinSet::new();
        expiry.spawn(Arc::clone(&store).expire_loop());
        Self {
            address: server.address(),
            store,
            ca,
            dir,
            _server: server,
            _expiry: expiry,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Options that a client of this site needs, with short pauses between attempts.
    pub(crate) fn options(&self) -> SwiftOptions {
        let auth = SwiftAuth::V1 {
            auth_url: self.url("/auth/v1.0"),
            user: USER.to_owned(),
            key: Secret::new(KEY),
        };
        SwiftOptions {
            retries: Backoff {
                times: 4,
                delay: Duration::from_millis(20),
                factor: 1.0,
                max: Duration::from_millis(20),
            },
            ..SwiftOptions::new(auth, Trust::Ca(self.ca.clone()))
        }
    }

    pub(crate) fn client(&self) -> Swift {
        Swift::new(self.options()).unwrap()
    }

    /// Runs curl, which trusts this site's authority alone.
    pub(crate) async fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "30", "--cacert"])
            .arg(self.ca_file())
            .args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output());
        output.await.unwrap().expect("curl must be installed")
    }

    /// The status that curl gets, and the body.
    pub(crate) async fn fetch(&self, arguments: &[&str]) -> (u16, Vec<u8>) {
        let mut output = self
            .curl(&[arguments, &["--write-out", "%{http_code}"]].concat())
            .await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "curl {arguments:?}: {said}");
        let status = output.stdout.split_off(output.stdout.len() - 3);
        (
            String::from_utf8(status).unwrap().parse().unwrap(),
            output.stdout,
        )
    }

    /// A header line with a token.
    pub(crate) async fn token(&self) -> String {
        let url = self.url("/auth/v1.0");
        let user = format!("X-Auth-User: {USER}");
        let key = format!("X-Auth-Key: {KEY}");
        let login = [
            "--dump-header",
            "-",
            "--header",
            &user,
            "--header",
            &key,
            &url,
        ];
        let headers = String::from_utf8(self.curl(&login).await.stdout).unwrap();
        let token = headers
            .lines()
            .find_map(|line| line.strip_prefix("x-auth-token: "));
        format!("X-Auth-Token: {}", token.expect("a token").trim())
    }

    /// Files of uploads in progress.
    pub(crate) fn unfinished(&self) -> usize {
        files(&self.dir.path().join("store/tmp")).len()
    }

    /// Files with the bytes of objects.
    pub(crate) fn data_files(&self) -> usize {
        let all = files(&self.dir.path().join("store/c"));
        let data = all
            .iter()
            .filter(|path| path.parent().unwrap().ends_with("d"));
        data.count()
    }
}

pub(crate) fn options(root: &Path) -> StoreOptions {
    let user = User {
        name: USER.to_owned(),
        key: Secret::new(KEY),
    };
    StoreOptions {
        temp_url_keys: vec![Secret::new(TEMP_URL_KEY)],
        ..StoreOptions::new(root, user)
    }
}

/// A certificate for 127.0.0.1 and the authority that signed it.
pub(crate) fn identity() -> (Identity, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // OpenSSL takes a leaf with its issuer's name for self-signed; rcgen names all alike.
    let name = rcgen::DnType::CommonName;
    params.distinguished_name.push(name, "test authority");
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let identity = Identity {
        cert_pem: params.signed_by(&key, &issuer).unwrap().pem(),
        key_pem: Secret::new(key.serialize_pem()),
    };
    (identity, ca)
}

pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = tokio::time::timeout(TIMEOUT, waiting).await;
    assert!(held.is_ok(), "not within {TIMEOUT:?}: {what}");
}

/// Bytes that do not repeat soon and are the same each time.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// This test binary again for one test, in a process that may be killed or measured.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

/// What was logged.
#[derive(Clone, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0.lock().unwrap()))
    }
}
