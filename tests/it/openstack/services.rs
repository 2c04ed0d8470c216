//! The real Keystone, Swift and Glance, started once for all tests of this process.

use flowrun::backoff::Backoff;
use flowrun::http::Trust;
use flowrun::openstack::glance::Glance;
use flowrun::openstack::keystone::{Keystone, KeystoneOptions, Login, Named, Place};
use flowrun::openstack::swift::{KeyOwner, Swift, SwiftAuth, SwiftOptions};
use flowrun::secret::Secret;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// They end when this process does: its end of their standard input closes.
static SERVICES: LazyLock<Services> = LazyLock::new(Services::start);

pub(crate) struct Services {
    about: Value,
    _process: Child,
}

/// Up from the first call on.
pub(crate) fn services() -> &'static Services {
    &SERVICES
}

/// The python of `tests/run.sh`, which has the services in it.
pub(crate) fn python() -> Command {
    let python = std::env::var_os("FLOWRUN_TEST_PYTHON")
        .expect("FLOWRUN_TEST_PYTHON must name a python with OpenStack: use tests/run.sh");
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

impl Services {
    fn start() -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut process = python()
            .arg(format!("{root}/tests/services/services.py"))
            .arg(format!("{root}/target/test-services"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("FLOWRUN_TEST_PYTHON must be a python");
        let mut line = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let about = serde_json::from_str(&line).expect("the services did not come up, see above");
        Self {
            about,
            _process: process,
        }
    }

    /// What the script says of them.
    pub(crate) fn about(&self, name: &str) -> &str {
        self.about[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name}"))
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.about[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}"))
    }

    pub(crate) fn auth_url(&self) -> String {
        format!("{}/v3", self.about("keystone"))
    }

    pub(crate) fn login(&self, password: &str) -> Login {
        let domain = Named::Id("default".to_owned());
        Login::Password {
            user: self.about("user").to_owned(),
            user_domain: domain.clone(),
            password: Secret::new(password),
            project: Named::Name(self.about("project").to_owned()),
            project_domain: domain,
        }
    }

    /// A client of its own, so with a token of its own.
    pub(crate) fn keystone(&self) -> Arc<Keystone> {
        let login = self.login(self.about("password"));
        Arc::new(Keystone::new(self.keystone_options(login)).unwrap())
    }

    pub(crate) fn keystone_options(&self, login: Login) -> KeystoneOptions {
        KeystoneOptions {
            place: Place {
                region: Some(self.about("region").to_owned()),
                ..Place::default()
            },
            retries: patience(),
            ..KeystoneOptions::new(self.auth_url(), login, Trust::System)
        }
    }

    /// Swift by Keystone.
    pub(crate) fn swift_options(&self) -> SwiftOptions {
        self.patient(SwiftAuth::Keystone(self.keystone()))
    }

    /// Swift by its own tempauth.
    pub(crate) fn tempauth_options(&self) -> SwiftOptions {
        self.patient(SwiftAuth::V1 {
            auth_url: format!("{}/auth/v1.0", self.about("tempauth")),
            user: "test:tester".to_owned(),
            key: Secret::new("testing"),
        })
    }

    pub(crate) fn glance(&self) -> Glance {
        Glance::new(self.keystone(), &Trust::System).unwrap()
    }

    /// Swift as who signs URLs into Glance's store; the first signature sets the account's key.
    pub(crate) fn swift_of_glance(&self) -> Swift {
        let options = SwiftOptions {
            temp_url_key: Some(Secret::new("the key of glance")),
            set_temp_url_key: Some(KeyOwner::Account),
            ..self.swift_options()
        };
        Swift::new(options).unwrap()
    }

    /// Uploads an image as an operator does, and returns its id.
    pub(crate) async fn upload_image(&self, store: &str, record: Value, data: Vec<u8>) -> String {
        let id = self.create_image(record).await;
        let client = flowrun::http::client(&Trust::System, Duration::from_secs(120)).unwrap();
        let token = self.keystone().token().await.unwrap();
        let sent = client
            .put(format!("{}/v2/images/{id}/file", self.about("glance")))
            .header("x-auth-token", token.header())
            .header("x-image-meta-store", store)
            .header("content-type", "application/octet-stream")
            .body(data)
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), 204, "{:?}", sent.text().await);
        id
    }

    /// Makes the record of an image that has no data yet.
    pub(crate) async fn create_image(&self, record: Value) -> String {
        let client = flowrun::http::client(&Trust::System, Duration::from_secs(120)).unwrap();
        let token = self.keystone().token().await.unwrap();
        let mut fields = json!({ "container_format": "bare", "disk_format": "raw" });
        let more = record.as_object().unwrap().clone();
        fields.as_object_mut().unwrap().extend(more);
        let made = client
            .post(format!("{}/v2/images", self.about("glance")))
            .header("x-auth-token", token.header())
            .json(&fields)
            .send()
            .await
            .unwrap();
        assert_eq!(made.status(), 201);
        let made: Value = made.json().await.unwrap();
        made["id"].as_str().unwrap().to_owned()
    }

    fn patient(&self, auth: SwiftAuth) -> SwiftOptions {
        SwiftOptions {
            retries: patience(),
            ..SwiftOptions::new(auth, Trust::System)
        }
    }
}

/// A machine with two cores runs many things at once.
fn patience() -> Backoff {
    Backoff {
        times: 6,
        delay: Duration::from_millis(200),
        factor: 2.0,
        max: Duration::from_secs(3),
    }
}
