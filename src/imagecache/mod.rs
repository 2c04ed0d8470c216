//! The cache of OS images: one download for all nodes that wait for it, whatever process they are
//! deployed by.
//!
//! An entry is `<key>.image` with `<key>.json` beside it, which is written last: what a crash
//! leaves without it does not exist. The key is a hash over the source and its version, so a
//! changed image is another entry. `<key>.lock` is held shared by who uses the image and alone by
//! who fetches or evicts it; the kernel ends the locks of a process that dies, and a resumed run
//! takes its own again. Its time of change is when the image was last used.

mod evict;
mod fetch;
mod http;

pub use fetch::{Fetched, Origin, Sources};

use crate::clock;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a waiting node looks whether the download is done.
const LOOK: Duration = Duration::from_millis(200);
/// How long another's download may take.
const PATIENCE: Duration = Duration::from_secs(6 * 60 * 60);

/// When images are evicted.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Size of all images together, in bytes.
    pub bytes: u64,
    /// Since an image was last used.
    pub age: Duration,
}

/// A folder of images.
#[derive(Debug, Clone)]
pub struct ImageCache {
    folder: PathBuf,
    limits: Limits,
}

/// What identifies an image, and what is known before it is here.
#[derive(Debug, Clone)]
struct Identity {
    /// `glance:<id>`, `swift:<container>/<object>`, or a URL.
    source: String,
    /// Hash and time of change.
    version: String,
    bytes: Option<u64>,
}

/// What the cache knows of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Names its files.
    pub key: String,
    /// `glance:<id>`, `swift:<container>/<object>`, or a URL.
    pub source: String,
    /// Its hash, and when it changed where that is known.
    pub version: String,
    /// Its size.
    pub bytes: u64,
    /// When it was fetched, Unix milliseconds.
    pub fetched_ms: u64,
    /// When its file was written, in nanoseconds: a file that somebody touched is not used.
    modified: i128,
}

/// An entry as a listing shows it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The entry.
    pub entry: Entry,
    /// When it was last used.
    pub used: SystemTime,
    /// Whether somebody uses it now.
    pub in_use: bool,
}

/// An image that is not evicted while this exists.
#[derive(Debug)]
pub struct Lease {
    /// The image.
    pub path: PathBuf,
    _lock: File,
}

/// What became of an image that an earlier process held.
#[derive(Debug)]
pub enum Held {
    /// It is here and stays.
    Again(Lease),
    /// It was evicted, or is being fetched.
    Gone,
    /// It never was of this cache.
    Elsewhere,
}

impl ImageCache {
    /// Uses `folder`, creating it.
    ///
    /// # Errors
    /// `io` if it cannot be created.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| Error::io(folder, "create the image cache", &e))?;
        Ok(Self {
            folder: folder.to_owned(),
            limits,
        })
    }

    /// The site's.
    ///
    /// # Errors
    /// `io` if it cannot be created.
    pub fn of(config: &Config) -> Result<Self> {
        let section = &config.image_cache;
        let limits = Limits {
            bytes: section.size_mb.saturating_mul(1 << 20),
            age: Duration::from_secs(section.ttl_minutes.saturating_mul(60)),
        };
        let folder = section.dir.clone();
        Self::open(
            &folder.unwrap_or_else(|| config.state_dir().join("images")),
            limits,
        )
    }

    /// Everything in it, by source.
    ///
    /// # Errors
    /// `io` if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let failed = |e: std::io::Error| Error::io(&self.folder, "read the image cache", &e);
        let mut listed = Vec::new();
        for file in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            let key = match (path.file_stem(), path.extension()) {
                (Some(stem), Some(extension)) if extension == "json" => stem.to_string_lossy(),
                _ => continue,
            };
            let Some(entry) = self.entry(&key) else {
                continue;
            };
            let lock = self.lock_file(&key)?;
            let used = lock.metadata().and_then(|m| m.modified());
            listed.push(Listed {
                used: used.unwrap_or(SystemTime::UNIX_EPOCH),
                in_use: matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
                entry,
            });
        }
        listed.sort_by(|a, b| a.entry.source.cmp(&b.entry.source));
        Ok(listed)
    }

    fn path(&self, key: &str, what: &str) -> PathBuf {
        self.folder.join(format!("{key}.{what}"))
    }

    /// An entry whose image is there as it was written.
    fn entry(&self, key: &str) -> Option<Entry> {
        let text = std::fs::read(self.path(key, "json")).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        let image = std::fs::metadata(self.path(key, "image")).ok()?;
        let same = image.len() == entry.bytes && modified(&image) == entry.modified;
        (same && entry.key == key).then_some(entry)
    }

    /// The lock's file, which is there until an eviction.
    fn lock_file(&self, key: &str) -> Result<File> {
        let path = self.path(key, "lock");
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path);
        file.map_err(|e| Error::io(&path, "open", &e))
    }

    /// Whether `lock` is still the file of this name: an eviction may have removed it meanwhile.
    fn is_current(&self, key: &str, lock: &File) -> bool {
        let named = std::fs::metadata(self.path(key, "lock"));
        let held = lock.metadata();
        named
            .and_then(|named| Ok(named.ino() == held?.ino()))
            .unwrap_or(false)
    }

    /// The image, if it is here and nobody is changing that.
    fn lease(&self, key: &str) -> Result<Option<Lease>> {
        let lock = self.lock_file(key)?;
        if lock.try_lock_shared().is_err() || !self.is_current(key, &lock) {
            return Ok(None);
        }
        if self.entry(key).is_none() {
            return Ok(None);
        }
        if let Err(error) = lock.set_modified(clock::now()) {
            tracing::info!(key, %error, "the time of use is not kept");
        }
        Ok(Some(Lease {
            path: self.path(key, "image"),
            _lock: lock,
        }))
    }

    /// Holds an image again that an earlier process of a run held, by its path.
    ///
    /// # Errors
    /// `io` if its lock cannot be opened.
    pub fn hold_again(&self, path: &Path) -> Result<Held> {
        let key = path.file_stem().map(|stem| stem.to_string_lossy());
        match key {
            Some(key) if path == self.path(&key, "image") => {
                let lease = self.lease(&key)?;
                Ok(lease.map_or(Held::Gone, Held::Again))
            }
            _ => Ok(Held::Elsewhere),
        }
    }

    /// The image from here, or as `fetch` brings it to a path: verified, or not at all.
    async fn get(
        &self,
        identity: &Identity,
        fetch: impl AsyncFnOnce(&Path) -> Result<u64>,
    ) -> Result<Lease> {
        let key = identity.key();
        let began = clock::instant();
        let lock = loop {
            if let Some(lease) = self.lease(&key)? {
                return Ok(lease);
            }
            let lock = self.lock_file(&key)?;
            if lock.try_lock().is_ok() && self.is_current(&key, &lock) {
                break lock;
            }
            if began.elapsed() > PATIENCE {
                let message = "another download of this image has not ended";
                return Err(Error::new(Kind::Timeout, message)
                    .target(&identity.source)
                    .hint("`flowrun images` shows what is in use"));
            }
            tokio::time::sleep(LOOK).await;
        };
        // It may have come while we waited for the lock.
        if self.entry(&key).is_none() {
            self.fetch_alone(&key, identity, fetch).await?;
        }
        lock.lock_shared()
            .map_err(|e| Error::io(&self.path(&key, "lock"), "lock", &e))?;
        // Between the two locks an eviction may have come by.
        drop(lock);
        let lease = self.lease(&key)?;
        lease.ok_or_else(|| {
            Error::new(Kind::Conflict, "the image was evicted at once")
                .target(&identity.source)
                .retryable(true)
                .hint("raise image_cache.size_mb")
        })
    }

    /// Fetches while nobody else does. What a dead process left of it goes first.
    async fn fetch_alone(
        &self,
        key: &str,
        identity: &Identity,
        fetch: impl AsyncFnOnce(&Path) -> Result<u64>,
    ) -> Result<()> {
        let parts = self.path(key, "parts");
        self.remove(key);
        self.sweep(key)?;
        self.make_room(identity)?;
        std::fs::create_dir(&parts).map_err(|e| Error::io(&parts, "create", &e))?;
        let part = parts.join("image");
        let fetched = fetch(&part).await;
        let kept = fetched.and_then(|bytes| self.keep(key, identity, &part, bytes));
        drop(std::fs::remove_dir_all(&parts));
        kept
    }

    fn keep(&self, key: &str, identity: &Identity, part: &Path, bytes: u64) -> Result<()> {
        let failed = |e: &std::io::Error| Error::io(&self.folder, "keep an image", e);
        let image = self.path(key, "image");
        std::fs::rename(part, &image).map_err(|e| failed(&e))?;
        let found = std::fs::metadata(&image).map_err(|e| failed(&e))?;
        let entry = Entry {
            key: key.to_owned(),
            source: identity.source.clone(),
            version: identity.version.clone(),
            bytes,
            fetched_ms: clock::unix_ms(),
            modified: modified(&found),
        };
        let text = serde_json::to_vec(&entry)
            .map_err(|e| Error::new(Kind::Internal, "an entry does not serialize").caused_by(&e))?;
        let written = (|| {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(self.path(key, "json")).map_err(|e| e.error)?;
            File::open(&self.folder)?.sync_all()
        })();
        written.map_err(|e| failed(&e))
    }

    /// Removes an entry's files but its lock; the record first, so that no half of it counts.
    fn remove(&self, key: &str) {
        for what in ["json", "image"] {
            drop(std::fs::remove_file(self.path(key, what)));
        }
        drop(std::fs::remove_dir_all(self.path(key, "parts")));
    }
}

impl Identity {
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.source, &self.version] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let mut key = hex::encode(hash.finalize());
        key.truncate(32);
        key
    }
}

fn modified(metadata: &std::fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

#[cfg(test)]
mod tests;
