//! The built-in object store: Swift's object API over files, for sites without a Swift.
//!
//! Done: v1 authentication, `/info`, accounts, containers, listings, objects with ranges,
//! conditions, metadata and expiry, static and dynamic large objects, temporary URLs (GET, HEAD,
//! PUT; for a prefix, for a network) with account and container keys. Answers, limits and error
//! bodies are those of Swift 2.38. Not done, and refused: copies, symlinks, ACLs, several
//! accounts, heartbeats and part numbers of large objects. A request for several ranges gets the
//! whole object.
//!
//! ```no_run
//! # use flowrun::objectstore::{Store, StoreOptions, User};
//! # use flowrun::secret::Secret;
//! # fn main() -> flowrun::error::Result<()> {
//! let user = User { name: "flowrun".into(), key: Secret::new("...") };
//! let store = Store::open(StoreOptions::new("/var/lib/flowrun/objects", user))?;
//! let router = store.router(); // for `http::server::serve_tls`
//! # Ok(()) }
//! ```

mod access;
mod api;
mod changes;
mod disk;
mod limits;
mod listing;
mod manifest;
mod range;
mod record;
mod tokens;

pub use access::{Access, Reader, Stats};

use crate::clock;
use crate::error::Result;
use crate::secret::Secret;
use access::AccessLog;
use disk::Disk;
use record::Index;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokens::Tokens;
use tokio::sync::Notify;

/// Somebody who may do anything with the account.
#[derive(Debug, Clone)]
pub struct User {
    /// What clients send as `X-Auth-User`, often `account:user`.
    pub name: String,
    /// What they send as `X-Auth-Key`.
    pub key: Secret,
}

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The folder; created if missing, readable by its owner alone.
    pub root: PathBuf,
    /// The one account.
    pub account: String,
    /// Who may log in.
    pub users: Vec<User>,
    /// Keys that sign temporary URLs, beside those that a client sets on the account.
    pub temp_url_keys: Vec<Secret>,
    /// Accepts temporary URLs that are signed with SHA-1, as clients before 2016 make them.
    pub sha1_temp_urls: bool,
    /// How long a token is good for.
    pub token_life: Duration,
    /// What clients reach the store by (`https://deploy.example:8443`); absent: what they sent
    /// as `Host`.
    pub public_url: Option<String>,
    /// Largest object, in bytes.
    pub max_object_bytes: u64,
}

impl StoreOptions {
    /// A store for one user, with Swift's defaults.
    pub fn new(root: impl Into<PathBuf>, user: User) -> Self {
        Self {
            root: root.into(),
            account: "AUTH_flowrun".to_owned(),
            users: vec![user],
            temp_url_keys: Vec::new(),
            sha1_temp_urls: false,
            token_life: Duration::from_secs(24 * 60 * 60),
            public_url: None,
            max_object_bytes: limits::MAX_OBJECT_BYTES,
        }
    }
}

/// An open store. One process at a time has a folder open.
pub struct Store {
    options: StoreOptions,
    disk: Disk,
    index: RwLock<Index>,
    turn: Mutex<()>,
    tokens: Tokens,
    log: Arc<AccessLog>,
    /// Wakes [`expire_loop`](Self::expire_loop) when an object with an expiry came in.
    expiry: Notify,
}

impl Store {
    /// Opens the folder, reads its index into memory and removes what a crash left half done.
    /// Blocks.
    ///
    /// # Errors
    /// `conflict` if another process has it open; `corrupt` if its files contradict each other;
    /// `io` if they cannot be read.
    pub fn open(options: StoreOptions) -> Result<Arc<Self>> {
        let (disk, index) = Disk::open(&options.root)?;
        Ok(Arc::new(Self {
            tokens: Tokens::new(options.token_life),
            options,
            disk,
            index: RwLock::new(index),
            turn: Mutex::default(),
            log: Arc::default(),
            expiry: Notify::new(),
        }))
    }

    /// The HTTP service: a fallback that answers every path of an origin of its own.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        api::router(Arc::clone(self))
    }

    /// Removes expired objects for as long as it is polled. They are not to be seen from the
    /// moment they expire; this frees their space within a second or so.
    pub async fn expire_loop(self: Arc<Self>) {
        const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let next = self.blocking(Self::expire).await.unwrap_or_else(|error| {
                tracing::error!(%error, "removing expired objects failed");
                None
            });
            let pause = next.map_or(PAUSE.1, |next| {
                let pause = next.saturating_sub(clock::unix_seconds());
                Duration::from_secs(pause).clamp(PAUSE.0, PAUSE.1)
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.expiry.notified() => {}
            }
        }
    }

    /// What is in the store and what went out of it since it was opened.
    pub fn stats(&self) -> Stats {
        let now = clock::unix_seconds();
        let (requests, bytes_sent) = self.log.sums();
        let mut stats = Stats {
            requests,
            bytes_sent,
            ..Stats::default()
        };
        for contents in self.index().containers.values() {
            let (objects, bytes) = contents.usage(now);
            stats.containers += 1;
            stats.objects += objects;
            stats.bytes += bytes;
        }
        stats
    }

    /// The last thousand or so requests for objects, oldest first.
    pub fn accesses(&self) -> Vec<Access> {
        self.log.recent()
    }

    /// Who has read this object, one entry an address.
    pub fn readers(&self, container: &str, object: &str) -> Vec<Reader> {
        self.log.readers(container, object)
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs what touches files where it may block.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> io::Result<T> {
        let store = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(io::Error::other)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
