//! The real Keystone, Swift and Glance, started once for all tests of this process.

use flowrun::backoff::Backoff;
use flowrun::http::Trust;
use flowrun::openstack::keystone::{Keystone, KeystoneOptions, Login, Named, Place};
use flowrun::openstack::swift::{SwiftAuth, SwiftOptions};
use flowrun::secret::Secret;
use serde_json::Value;
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
