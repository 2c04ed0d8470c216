//! The real services, each behind a proxy that may break what goes through.

use super::proxy::Proxy;
use super::services::services;
use flowrun::backoff::Backoff;
use flowrun::error::Error;
use flowrun::http::{self, Trust};
use flowrun::openstack::glance::Glance;
use flowrun::openstack::keystone::{Keystone, KeystoneOptions, Login};
use flowrun::openstack::swift::{Swift, SwiftAuth, SwiftOptions};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Cloud {
    pub(crate) keystone: Proxy,
    pub(crate) swift: Proxy,
    /// Swift that is its own judge.
    pub(crate) tempauth: Proxy,
    pub(crate) glance: Proxy,
}

impl Cloud {
    /// Keystone's catalogue and tempauth's answers lead to the proxies.
    pub(crate) async fn new() -> Self {
        let about = |name| services().about(name);
        let cloud = Self {
            keystone: Proxy::before(about("keystone")).await,
            swift: Proxy::before(about("swift")).await,
            tempauth: Proxy::before(about("tempauth")).await,
            glance: Proxy::before(about("glance")).await,
        };
        for (real, proxy) in [("swift", &cloud.swift), ("glance", &cloud.glance)] {
            cloud.keystone.rewrite(about(real), proxy.url());
        }
        cloud
    }

    pub(crate) fn keystone(&self, login: Login) -> Arc<Keystone> {
        let options = KeystoneOptions {
            auth_url: format!("{}/v3", self.keystone.url()),
            retries: short(),
            ..services().keystone_options(login)
        };
        Arc::new(Keystone::new(options).unwrap())
    }

    /// One that may do everything, with a token of its own.
    pub(crate) fn user(&self) -> Arc<Keystone> {
        self.keystone(services().login(services().about("password")))
    }

    pub(crate) fn glance(&self, keystone: Arc<Keystone>) -> Glance {
        Glance::new(keystone, &Trust::System).unwrap()
    }

    pub(crate) fn swift(&self, keystone: Arc<Keystone>) -> SwiftOptions {
        SwiftOptions {
            retries: short(),
            ..SwiftOptions::new(SwiftAuth::Keystone(keystone), Trust::System)
        }
    }

    /// tempauth's users have these names and keys.
    pub(crate) fn tempauth(&self, user: &str, key: &str) -> SwiftOptions {
        let auth = SwiftAuth::V1 {
            auth_url: format!("{}/auth/v1.0", self.tempauth.url()),
            user: format!("test:{user}"),
            key: flowrun::secret::Secret::new(key),
        };
        SwiftOptions {
            retries: short(),
            ..SwiftOptions::new(auth, Trust::System)
        }
    }

    /// A token that the real Keystone gave and took back.
    pub(crate) async fn revoked(&self) -> String {
        let token = services().keystone().token().await.unwrap();
        let client = http::client(&Trust::System, Duration::from_secs(60)).unwrap();
        let request = client.delete(format!("{}/auth/tokens", services().auth_url()));
        let request = request.header("x-auth-token", token.header());
        let request = request.header("x-subject-token", token.header());
        assert_eq!(request.send().await.unwrap().status(), 204);
        token.header().to_str().unwrap().to_owned()
    }

    /// Nothing that opens anything is in an error, however it is shown.
    pub(crate) fn is_masked(&self, error: &Error) {
        let shown = format!(
            "{error} {error:?} {}",
            serde_json::to_string(error).unwrap()
        );
        let mut secrets = vec![services().about("password").to_owned()];
        secrets.extend(["testing", "reading", "temp_url_sig="].map(str::to_owned));
        for proxy in [&self.keystone, &self.swift, &self.tempauth, &self.glance] {
            secrets.extend(proxy.tokens());
        }
        for secret in secrets {
            assert!(!shown.contains(&secret), "{secret} in {shown}");
        }
    }
}

/// Four tries, soon after each other.
fn short() -> Backoff {
    Backoff {
        times: 4,
        delay: Duration::from_millis(20),
        factor: 1.0,
        max: Duration::from_millis(20),
    }
}

/// A container that nobody else uses.
pub(crate) fn unique(dir: &tempfile::TempDir) -> String {
    let name = dir.path().file_name().unwrap().to_string_lossy();
    format!("faults{name}")
}

pub(crate) fn client(swift: SwiftOptions) -> Swift {
    Swift::new(swift).unwrap()
}
