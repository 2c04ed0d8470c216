//! One simulated machine, a server for its images and a client's view of both.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flowrun::error::Error;
use flowrun::http::Trust;
use flowrun::http::server::{Identity, ServerHandle, serve_tls};
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::lab::host::{BootOutcome, BootRequest, BootSource, Host, Medium, Started};
use flowrun::lab::ilo::{EventKind, Fault, Generation, IloConfig, Machine};
use flowrun::secret::Secret;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What signs the URLs. Must never be seen.
pub(crate) const SIGNATURE: &str = "5ec4e7f00d";
pub(crate) const PASSWORD: &str = "hunter2hunter2";
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// An authority of its own, so that nothing else is trusted.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            cert_pem: cert.pem(),
            key_pem: Secret::new(key.serialize_pem()),
        }
    }

    pub(crate) fn serve(&self, router: Router) -> ServerHandle {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        serve_tls(listener, router, &self.identity()).unwrap()
    }
}

/// Files behind signed URLs, with ranges.
#[derive(Default)]
pub(crate) struct Images {
    files: Mutex<BTreeMap<String, Bytes>>,
    pub(crate) expired: AtomicBool,
}

impl Images {
    fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/c/{name}", axum::routing::get(image))
            .with_state(Arc::clone(self))
    }
}

async fn image(
    State(images): State<Arc<Images>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let signed = query
        .get("temp_url_sig")
        .is_some_and(|sig| sig == SIGNATURE);
    if !signed || images.expired.load(Ordering::SeqCst) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Some(file) = images.files.lock().unwrap().get(&name).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = headers[RANGE]
        .to_str()
        .unwrap()
        .strip_prefix("bytes=")
        .unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse::<usize>().unwrap().min(file.len() - 1);
    let shown = format!("bytes {start}-{end}/{}", file.len());
    (
        StatusCode::PARTIAL_CONTENT,
        [(CONTENT_RANGE, shown)],
        file.slice(start..=end),
    )
        .into_response()
}

/// What a boot saw.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub(crate) number: u64,
    pub(crate) source: BootSource,
    pub(crate) floppy: Option<Bytes>,
    pub(crate) cdrom: Option<Arc<dyn Medium>>,
}

/// Reads the floppy and stays up, unless it was told how to end.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    boots: Arc<Mutex<Vec<Boot>>>,
    outcomes: Arc<Mutex<VecDeque<BootOutcome>>>,
    up: Arc<AtomicBool>,
}

struct Up(Arc<AtomicBool>);

impl Drop for Up {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Host for Recorder {
    fn boot(&self, request: BootRequest, started: Started) -> BoxFuture<'static, BootOutcome> {
        started();
        let (boots, outcomes, up) = (self.boots.clone(), self.outcomes.clone(), self.up.clone());
        async move {
            assert!(!up.swap(true, Ordering::SeqCst), "two boots at once");
            let _up = Up(up);
            let floppy = match &request.floppy {
                Some(floppy) => Some(read_all(floppy.as_ref()).await),
                None => None,
            };
            let (number, source) = (request.number, request.source);
            boots.lock().unwrap().push(Boot {
                number,
                source,
                floppy,
                cdrom: request.cdrom,
            });
            let outcome = outcomes.lock().unwrap().pop_front();
            match outcome {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}

pub(crate) async fn read_all(medium: &dyn Medium) -> Bytes {
    let length = usize::try_from(medium.size_bytes()).unwrap();
    medium.read_at(0, length).await.unwrap()
}

/// Everything a test needs.
pub(crate) struct Site {
    pub(crate) authority: Authority,
    pub(crate) machine: Arc<Machine>,
    pub(crate) images: Arc<Images>,
    pub(crate) image_server: Option<ServerHandle>,
    recorder: Arc<Recorder>,
    server: ServerHandle,
    image_base: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with_fault(fault: Fault) -> Self {
        Self::with(|config| config.faults = [fault].into())
    }

    pub(crate) fn with(change: impl FnOnce(&mut IloConfig)) -> Self {
        let authority = Authority::new();
        let images = Arc::new(Images::default());
        let image_server = authority.serve(images.router());
        let mut config = IloConfig {
            name: "dl360-1".to_owned(),
            uuid: "4c4c4544-0031-3010-8052-b4c04f4a3432".parse().unwrap(),
            username: "root".to_owned(),
            password: Secret::new(PASSWORD),
            generation: Generation::Ilo5,
            post_time: Duration::from_millis(80),
            media_trust: Trust::Ca(authority.pem.clone()),
            faults: std::collections::BTreeSet::new(),
        };
        change(&mut config);
        let recorder = Arc::new(Recorder::default());
        let machine = Machine::new(config, recorder.clone());
        let server = authority.serve(machine.router());
        Self {
            image_base: format!("https://{}", image_server.address()),
            image_server: Some(image_server),
            authority,
            machine,
            images,
            recorder,
            server,
        }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("https://{}", self.server.address())
    }

    pub(crate) fn options(&self) -> IloOptions {
        IloOptions {
            base_url: self.base_url(),
            username: "root".to_owned(),
            password: Secret::new(PASSWORD),
            trust: Trust::Ca(self.authority.pem.clone()),
            legacy_tls: false,
            timeout: Duration::from_secs(10),
        }
    }

    pub(crate) async fn connect(&self) -> Ilo {
        Ilo::connect(self.options()).await.unwrap()
    }

    /// Puts a file behind a signed URL.
    pub(crate) fn image(&self, name: &str, content: impl Into<Bytes>) -> Secret {
        self.images
            .files
            .lock()
            .unwrap()
            .insert(name.to_owned(), content.into());
        let base = &self.image_base;
        Secret::new(format!(
            "{base}/c/{name}?temp_url_sig={SIGNATURE}&temp_url_expires=1999999999"
        ))
    }

    /// How the next boots end; those after them stay up.
    pub(crate) fn boots_end_with(&self, outcomes: impl IntoIterator<Item = BootOutcome>) {
        self.recorder.outcomes.lock().unwrap().extend(outcomes);
    }

    pub(crate) fn boots(&self) -> Vec<Boot> {
        self.recorder.boots.lock().unwrap().clone()
    }

    pub(crate) fn host_is_up(&self) -> bool {
        self.recorder.up.load(Ordering::SeqCst)
    }

    /// How often something happened.
    pub(crate) fn count(&self, what: impl Fn(&EventKind) -> bool) -> usize {
        self.machine
            .history()
            .iter()
            .filter(|event| what(&event.what))
            .count()
    }
}

/// Bytes that tell their place.
pub(crate) fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from(n % 251).unwrap() ^ seed)
        .collect()
}

/// No view of an error shows what signs a URL, nor the password.
pub(crate) fn assert_clean(error: &Error) {
    let json = serde_json::to_string(error).unwrap();
    let views = format!(
        "{error} {error:?} {json} {:?} {:?}",
        error.causes(),
        error.advice()
    );
    for secret in [SIGNATURE, PASSWORD, "temp_url_expires=1999999999"] {
        assert!(!views.contains(secret), "{views}");
    }
}

/// Waits for a condition, and fails when it does not come true.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "bounds a wait of a test")]
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
