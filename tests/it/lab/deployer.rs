//! What a deployer does with a simulated site, in plain code.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use flowrun::http::Trust;
use flowrun::http::server::{Identity, ServerHandle, serve_tls};
use flowrun::ilo::model::{BootDevice, Device, PowerTarget};
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::image::iso::Source;
use flowrun::image::vfat::{VfatSpec, make_vfat};
use flowrun::iscsi::target::InitiatorRule;
use flowrun::iscsi::{Chap, LoginOptions, Session};
use flowrun::lab::site::{Site, SiteOptions};
use flowrun::openstack::swift::{
    Body, Swift, SwiftAuth, SwiftOptions, TempUrlOptions, UploadOptions,
};
use flowrun::secret::Secret;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const DISK_BYTES: u64 = 96 << 20;
pub(super) const INITIATOR: &str = "iqn.2026-01.test:run-1";
pub(super) const TOKEN: &str = "gAAAAA-user-token";

/// A site with everything that a deployer has.
pub(super) struct Deployer {
    pub(super) site: Site,
    pub(super) about: Value,
    swift: Swift,
    trust: Trust,
    callbacks: mpsc::UnboundedReceiver<Callback>,
    /// What the next callbacks are answered with; 200 when empty.
    pub(super) answers: Answers,
    _api: ServerHandle,
}

/// One call of the ramdisk.
pub(super) struct Callback {
    pub(super) node: String,
    pub(super) token: Option<String>,
    pub(super) body: Value,
}

pub(super) type Answers = Arc<Mutex<VecDeque<StatusCode>>>;

#[derive(Clone)]
struct Receiver {
    calls: mpsc::UnboundedSender<Callback>,
    answers: Answers,
}

/// A deployer's API as far as a ramdisk needs it, and what was posted to it.
pub(super) fn receiver() -> (Router, mpsc::UnboundedReceiver<Callback>, Answers) {
    let (calls, callbacks) = mpsc::unbounded_channel();
    let answers = Answers::default();
    let state = Receiver {
        calls,
        answers: Arc::clone(&answers),
    };
    let path = "/v1/nodes/{node}/vendor_passthru/pass_deploy_info";
    let router = Router::new().route(path, post(receive)).with_state(state);
    (router, callbacks, answers)
}

async fn receive(
    State(receiver): State<Receiver>,
    UrlPath(node): UrlPath<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> StatusCode {
    let token = headers.get("x-auth-token");
    let token = token.map(|token| token.to_str().unwrap().to_owned());
    receiver.calls.send(Callback { node, token, body }).unwrap();
    let answer = receiver.answers.lock().unwrap().pop_front();
    answer.unwrap_or(StatusCode::OK)
}

pub(super) fn options(dir: &Path) -> SiteOptions {
    SiteOptions {
        disk_bytes: DISK_BYTES,
        post_time: Duration::from_millis(80),
        ..SiteOptions::new(dir)
    }
}

pub(super) fn text(value: &Value, path: &str) -> String {
    let found = value.pointer(path).and_then(Value::as_str);
    found
        .unwrap_or_else(|| panic!("no {path} in {value}"))
        .to_owned()
}

impl Deployer {
    pub(super) async fn start(options: SiteOptions) -> Self {
        let site = Site::start(options).await.unwrap();
        let about = site.describe().clone();
        let trust = Trust::Ca(std::fs::read_to_string(text(&about, "/ca_file")).unwrap());
        let auth = SwiftAuth::V1 {
            auth_url: text(&about, "/object_store/auth_url"),
            user: text(&about, "/object_store/user"),
            key: Secret::new(text(&about, "/object_store/key")),
        };
        let mut swift_options = SwiftOptions::new(auth, trust.clone());
        let temp_url_key = text(&about, "/object_store/temp_url_key");
        swift_options.temp_url_key = Some(Secret::new(temp_url_key));
        let swift = Swift::new(swift_options).unwrap();
        let (router, callbacks, answers) = receiver();
        let identity = Identity {
            cert_pem: std::fs::read_to_string(text(&about, "/api/tls_cert")).unwrap(),
            key_pem: Secret::new(std::fs::read_to_string(text(&about, "/api/tls_key")).unwrap()),
        };
        let listener = TcpListener::bind(text(&about, "/api/listen")).unwrap();
        let api = serve_tls(listener, router, &identity).unwrap();
        Self {
            site,
            about,
            swift,
            trust,
            callbacks,
            answers,
            _api: api,
        }
    }

    pub(super) fn node(&self, index: usize) -> Value {
        self.about["nodes"][index].clone()
    }

    pub(super) async fn ilo(&self, index: usize) -> Ilo {
        let node = self.node(index);
        let password = text(&node, "/driver_info/ilo_password_file");
        Ilo::connect(IloOptions {
            base_url: text(&node, "/driver_info/ilo_address"),
            username: text(&node, "/driver_info/ilo_username"),
            password: Secret::new(std::fs::read_to_string(password).unwrap()),
            trust: self.trust.clone(),
            legacy_tls: false,
            timeout: Duration::from_secs(20),
        })
        .await
        .unwrap()
    }

    pub(super) fn parameters(&self, index: usize) -> String {
        let uuid = text(&self.node(index), "/uuid");
        format!(
            "deployment_id={uuid}\ndeployment_key=KEY{index}\niscsi_target_iqn={}\n\
             ironic_api_url={}/\niscsi_initiator={INITIATOR}\niscsi_chap_user=run-1\n\
             iscsi_chap_secret=correct-horse-battery",
            iqn(&self.node(index)),
            text(&self.about, "/api/url"),
        )
    }

    pub(super) fn floppy(&self, parameters: &str) -> Vec<u8> {
        let lines = parameters.lines().filter_map(|line| line.split_once('='));
        let ca = std::fs::read(text(&self.about, "/ca_file")).unwrap();
        let spec = VfatSpec {
            parameters: lines.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            files: vec![
                ("ca.pem".to_owned(), Source::Bytes(ca)),
                ("token".to_owned(), Source::Bytes(TOKEN.into())),
            ],
            ..VfatSpec::default()
        };
        let mut image = std::io::Cursor::new(Vec::new());
        make_vfat(&spec, &mut image).unwrap();
        image.into_inner()
    }

    /// Uploads a medium and inserts it.
    pub(super) async fn insert(&self, ilo: &Ilo, device: Device, object: &str, image: Vec<u8>) {
        let options = UploadOptions {
            create_container: true,
            ..UploadOptions::default()
        };
        let body = Body::Bytes(Bytes::from(image));
        self.swift
            .upload("media", object, body, options)
            .await
            .unwrap();
        self.attach(ilo, device, "media", object).await;
    }

    pub(super) async fn attach(&self, ilo: &Ilo, device: Device, container: &str, object: &str) {
        let url = self
            .swift
            .temp_url(container, object, TempUrlOptions::default())
            .await
            .unwrap();
        ilo.attach_vmedia(device, &url, PATIENCE).await.unwrap();
    }

    /// Inserts floppy and deploy ISO and switches the node on.
    pub(super) async fn boot_ramdisk(&self, index: usize, parameters: &str) -> Ilo {
        let ilo = self.ilo(index).await;
        let object = format!("image-{}", text(&self.node(index), "/uuid"));
        self.insert(&ilo, Device::Floppy, &object, self.floppy(parameters))
            .await;
        let container = text(&self.about, "/deploy_iso/container");
        let iso = text(&self.about, "/deploy_iso/object");
        self.attach(&ilo, Device::Cdrom, &container, &iso).await;
        self.boot_cd(&ilo).await;
        ilo
    }

    pub(super) async fn boot_cd(&self, ilo: &Ilo) {
        ilo.set_one_time_boot(BootDevice::Cdrom, PATIENCE)
            .await
            .unwrap();
        ilo.set_power(PowerTarget::On, PATIENCE).await.unwrap();
    }

    pub(super) async fn callback(&mut self) -> Callback {
        tokio::time::timeout(PATIENCE, self.callbacks.recv())
            .await
            .expect("the ramdisk never called")
            .unwrap()
    }

    pub(super) fn login_options(&self, index: usize) -> LoginOptions {
        let node = self.node(index);
        let portal = format!("{}:3260", text(&node, "/address"));
        let initiator = InitiatorRule::new(INITIATOR).name_for(1);
        let mut options = LoginOptions::new(portal, iqn(&node), initiator);
        options.chap = Some(Chap {
            user: "run-1".to_owned(),
            secret: Secret::new("correct-horse-battery"),
            mutual: None,
        });
        options
    }

    pub(super) async fn say_done(&self, index: usize) {
        let address = format!("{}:10000", text(&self.node(index), "/address"));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"done").await.unwrap();
        stream.shutdown().await.unwrap();
    }

    /// Writes a disk image, but for what is zero, and flushes it.
    pub(super) async fn write_image(session: &Session, image: &[u8]) {
        for (n, chunk) in (0_u64..).zip(image.chunks(1 << 20)) {
            if chunk.iter().any(|byte| *byte != 0) {
                let data = Bytes::copy_from_slice(chunk);
                session.write(n * 2048, data).await.unwrap();
            }
        }
        session.flush().await.unwrap();
    }

    pub(super) fn console(&self, index: usize) -> String {
        std::fs::read_to_string(text(&self.node(index), "/console_log")).unwrap()
    }

    pub(super) fn last_boot(&self, index: usize) -> Value {
        let snapshot = self.site.snapshot();
        let boots = snapshot["nodes"][index]["boots"].as_array().unwrap();
        boots.last().cloned().unwrap_or_default()
    }

    pub(super) async fn until_boot(
        &self,
        index: usize,
        what: &str,
        reached: impl Fn(&Value) -> bool,
    ) {
        let poll = async {
            while !reached(&self.last_boot(index)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, poll).await;
        assert!(
            done.is_ok(),
            "never {what}; console:\n{}",
            self.console(index)
        );
    }

    pub(super) async fn until_said(&self, index: usize, line: &str) {
        let poll = async {
            while !self.console(index).contains(line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(PATIENCE, poll).await;
        assert!(
            done.is_ok(),
            "no {line:?} on the console:\n{}",
            self.console(index)
        );
    }
}

pub(super) fn iqn(node: &Value) -> String {
    format!("iqn.2008-10.org.openstack:{}", text(node, "/uuid"))
}

pub(super) async fn is_open(address: &str) -> bool {
    TcpStream::connect(address).await.is_ok()
}

pub(super) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
