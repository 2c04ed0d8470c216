//! A client of Swift's object API: real Swift, or flowrun's built-in store.
//!
//! ```no_run
//! # use flowrun::openstack::swift::*;
//! # use flowrun::{http::Trust, secret::Secret};
//! # async fn example() -> flowrun::error::Result<()> {
//! let auth = SwiftAuth::V1 {
//!     auth_url: "https://swift.example:8080/auth/v1.0".into(),
//!     user: "service:flowrun".into(),
//!     key: Secret::new("..."),
//! };
//! let swift = Swift::new(SwiftOptions::new(auth, Trust::System))?;
//! swift.upload("iso", "boot.iso", Body::File("boot.iso".into()), UploadOptions::default()).await?;
//! let url = swift.temp_url("iso", "boot.iso", TempUrlOptions::default()).await?;
//! # Ok(()) }
//! ```

mod body;
mod download;
mod info;
mod listing;
mod md5_lanes;
mod metadata;
mod segment_reader;
mod segments;
mod session;
mod signing;
mod upload;

pub use download::Downloaded;
pub use listing::{Entry, ListOptions};
pub use metadata::{Metadata, ObjectInfo};
pub use session::SwiftAuth;
pub use signing::KeyOwner;
pub use upload::{Body, UploadOptions, Uploaded};

use super::answer::refused;
use super::temp_url::quote_path;
use crate::backoff::Backoff;
use crate::error::{Error, Kind, Result};
use crate::http::attempt::Doing;
use crate::http::download::Pace;
use crate::http::{self, Trust};
use crate::secret::Secret;
use info::Info;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use session::{Session, SessionCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicI64;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};

const SERVICE: &str = "the object store";

/// How to reach an object store.
#[derive(Debug, Clone)]
pub struct SwiftOptions {
    /// Where the token comes from.
    pub auth: SwiftAuth,
    /// Whose certificates are accepted.
    pub trust: Trust,
    /// Works in this account instead of the user's own (`AUTH_…`); for resellers' admins.
    pub account: Option<String>,
    /// Signs temporary URLs; absent: the key that the account or the container tells.
    pub temp_url_key: Option<Secret>,
    /// Sets the key there before it is used, if it is not there already.
    pub set_temp_url_key: Option<KeyOwner>,
    /// Deadline of a request that carries no object.
    pub request_timeout: Duration,
    /// How long a transfer may make no progress.
    pub stall_timeout: Duration,
    /// Bytes a second; a transfer that is slower on the whole is given up.
    pub slowest_transfer: u64,
    /// After lost connections and answers that say "later".
    pub retries: Backoff,
    /// How long the segments of an upload must not have grown before it is held for dead and a
    /// later upload of the same object removes them. Longer than one segment takes.
    pub abandoned_after: Duration,
}

impl SwiftOptions {
    /// With 60 s for a request, 120 s without progress, 256 KiB/s at least, and four attempts.
    #[must_use]
    pub fn new(auth: SwiftAuth, trust: Trust) -> Self {
        Self {
            auth,
            trust,
            account: None,
            temp_url_key: None,
            set_temp_url_key: None,
            request_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(120),
            slowest_transfer: 256 << 10,
            retries: Backoff {
                times: 4,
                delay: Duration::from_millis(500),
                factor: 2.0,
                max: Duration::from_secs(5),
            },
            abandoned_after: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// What a temporary URL is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TempUrlOptions {
    /// How long it is good.
    pub ttl: Duration,
    /// `GET` (which covers HEAD) or `PUT`.
    pub method: Method,
    /// The name that the body is offered as. It makes the URL end in that name, which some
    /// management processors need to see (`.iso`).
    pub filename: Option<String>,
}

impl Default for TempUrlOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(600),
            method: Method::GET,
            filename: None,
        }
    }
}

/// A client with its token. Cheap to share by reference; the token is obtained at first use.
#[derive(Debug)]
pub struct Swift {
    options: SwiftOptions,
    client: Client,
    session: SessionCell,
    info: OnceCell<Info>,
    /// Containers, or nothing for the account, that have the configured key.
    keys_set: Mutex<BTreeSet<String>>,
    /// Seconds that the server's clock is ahead of ours.
    clock_ahead: AtomicI64,
}

impl Swift {
    /// Makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// `invalid` if the CA text holds no certificate.
    pub fn new(options: SwiftOptions) -> Result<Self> {
        Ok(Self {
            client: http::client(&options.trust, options.request_timeout)?,
            options,
            session: SessionCell::default(),
            info: OnceCell::new(),
            keys_set: Mutex::default(),
            clock_ahead: AtomicI64::new(0),
        })
    }

    fn pace(&self) -> Pace {
        Pace {
            answer: self.options.request_timeout,
            stall: self.options.stall_timeout,
            slowest: self.options.slowest_transfer,
        }
    }

    /// Asks what is known of an object; `None` if there is no such object or container.
    ///
    /// # Errors
    /// As any request: `auth`, `unreachable`, `timeout`, or what the status stands for.
    pub async fn head(&self, container: &str, object: &str) -> Result<Option<ObjectInfo>> {
        let path = ObjectPath::new(container, object)?;
        let doing = path.doing("swift.head");
        let response = self
            .call(doing, |client, session| {
                client.head(session.url(&path.quoted))
            })
            .await?;
        match response.status() {
            status if status.is_success() => Ok(Some(ObjectInfo::read(response.headers()))),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(doing.name(refused(SERVICE, response).await)),
        }
    }

    /// Sets metadata, or with `None` removes it, and answers what the object has then. What is not
    /// named stays, and so does the expiry: Swift's POST drops both unless they are sent again.
    ///
    /// Not atomic: of two callers at the same time one may lose its change.
    ///
    /// # Errors
    /// `not_found` if there is no such object; `invalid` for a name or value that no header can
    /// carry; otherwise as any request.
    pub async fn set_metadata(
        &self,
        container: &str,
        object: &str,
        changes: &BTreeMap<String, Option<String>>,
    ) -> Result<Metadata> {
        let path = ObjectPath::new(container, object)?;
        let doing = path.doing("swift.set_metadata");
        let info = self.head(container, object).await?;
        let mut info =
            info.ok_or_else(|| doing.name(Error::new(Kind::NotFound, "no such object")))?;
        for (name, value) in changes {
            let name = metadata::normal(name);
            match value {
                Some(value) => info.metadata.insert(name, value.clone()),
                None => info.metadata.remove(&name),
            };
        }
        let headers = info.to_headers().map_err(|e| doing.name(e))?;
        let response = self
            .call(doing, |client, session| {
                let url = session.url(&path.quoted);
                client.post(url).headers(headers.clone()).body("")
            })
            .await?;
        if !response.status().is_success() {
            return Err(doing.name(refused(SERVICE, response).await));
        }
        Ok(info.metadata)
    }

    /// Deletes an object with its segments and says whether it was there. When an answer got lost
    /// and the request was repeated, `false` may mean that the first one did it.
    ///
    /// # Errors
    /// As any request.
    pub async fn delete(&self, container: &str, object: &str) -> Result<bool> {
        let path = ObjectPath::new(container, object)?;
        let doing = path.doing("swift.delete");
        let segments = self.segments_of(doing, &path).await?;
        let deleted = self.delete_object(doing, &path).await?;
        self.delete_segments(doing, segments).await?;
        Ok(deleted)
    }

    /// Deletes an object alone, be it a manifest, and says whether it was there.
    async fn delete_object(&self, doing: Doing<'_>, path: &ObjectPath) -> Result<bool> {
        let response = self
            .call(doing, |client, session| {
                client.delete(session.url(&path.quoted))
            })
            .await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(doing.name(refused(SERVICE, response).await)),
        }
    }

    /// Makes sure that the container is there. With a `read_acl` (`.r:*`, `project:user`), as
    /// Swift spells it, others may read it; temporary URLs need none.
    async fn create_container(&self, container: &str, read_acl: Option<&str>) -> Result<()> {
        let doing = Doing {
            op: "swift.create_container",
            target: container,
        };
        check_container(container)?;
        let quoted = quote_path(container);
        let response = self
            .call(doing, |client, session| {
                let request = client.put(session.url(&quoted)).body("");
                match read_acl {
                    Some(acl) => request.header("x-container-read", acl),
                    None => request,
                }
            })
            .await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(doing.name(refused(SERVICE, response).await))
    }

    /// Sends a request with the token, again after transient failures, and once with a new token.
    /// Any other answer is the caller's to judge.
    async fn call(
        &self,
        doing: Doing<'_>,
        request: impl Fn(&Client, &Session) -> RequestBuilder,
    ) -> Result<Response> {
        self.attempts(doing, |session| {
            let request = request(&self.client, &session);
            let sent = request.header("x-auth-token", session.token()).send();
            async { sent.await.map_err(http::no_answer) }
        })
        .await
    }
}

/// Where an object is, spelled for people, signatures and URLs.
#[derive(Debug)]
struct ObjectPath {
    /// `<container>/<object>`.
    plain: String,
    /// The same with escapes.
    quoted: String,
}

impl ObjectPath {
    fn new(container: &str, object: &str) -> Result<Self> {
        check_container(container)?;
        let plain = format!("{container}/{object}");
        let wrong = if object.is_empty() {
            "an object's name cannot be empty"
        } else if object.split('/').any(|part| part == "." || part == "..") {
            "an object's name cannot have . or .. between slashes: URLs do away with them"
        } else {
            let quoted = quote_path(&plain);
            return Ok(Self { plain, quoted });
        };
        Err(Error::new(Kind::Invalid, wrong).target(plain))
    }

    fn doing(&self, op: &'static str) -> Doing<'_> {
        let target = &self.plain;
        Doing { op, target }
    }
}

fn check_container(name: &str) -> Result<()> {
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        let wrong = "a container's name cannot be empty, . or .., or have slashes";
        return Err(Error::new(Kind::Invalid, wrong).target(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever runs many of them moves them between threads.
    #[test]
    fn operations_are_send() {
        fn is_send(_: impl Send) {}
        let auth = SwiftAuth::V1 {
            auth_url: String::new(),
            user: String::new(),
            key: Secret::default(),
        };
        let swift = Swift::new(SwiftOptions::new(auth, Trust::Insecure)).unwrap();
        let body = Body::Bytes(bytes::Bytes::new());
        is_send(swift.upload("c", "o", body, UploadOptions::default()));
        is_send(swift.download("c", "o", "to".as_ref()));
        is_send(swift.head("c", "o"));
        is_send(swift.set_metadata("c", "o", &BTreeMap::new()));
        is_send(swift.delete("c", "o"));
        is_send(swift.list("c", ListOptions::default()));
        is_send(swift.temp_url("c", "o", TempUrlOptions::default()));
    }

    #[test]
    fn refuses_names_that_no_url_can_carry() {
        for (container, object) in [
            ("", "o"),
            ("a/b", "o"),
            ("..", "o"),
            ("c", ""),
            ("c", ".."),
            ("c", "a/../b"),
        ] {
            let error = ObjectPath::new(container, object).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{container}/{object}");
        }
        let path = ObjectPath::new("bü", "a//b..c/%2e?#").unwrap();
        assert_eq!(path.quoted, "b%C3%BC/a//b..c/%252e%3F%23");
    }
}
