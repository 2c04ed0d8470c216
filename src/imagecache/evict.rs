//! Who goes when there is no room.

use super::{Identity, ImageCache, Listed};
use crate::clock;
use crate::error::{Error, Kind, Result};

/// Bytes of the file system that are left to others.
const RESERVE: u64 = 64 << 20;

impl ImageCache {
    /// Evicts what is too old, older versions of the image to come, and then the least recently
    /// used until the image fits. What is in use stays, and may keep the cache over its limit;
    /// the file system's free space is checked in any case.
    pub(super) fn make_room(&self, coming: &Identity) -> Result<()> {
        let needed = coming.bytes.unwrap_or(0);
        let mut kept = Vec::new();
        for listed in self.list()? {
            let age = clock::now().duration_since(listed.used).unwrap_or_default();
            let old = age > self.limits.age || listed.entry.source == coming.source;
            if !(old && self.evict(&listed)) {
                kept.push(listed);
            }
        }
        kept.sort_by_key(|listed| listed.used);
        let mut total: u64 = kept.iter().map(|listed| listed.entry.bytes).sum();
        let mut oldest = kept.into_iter();
        loop {
            let free = self.free_bytes()?;
            let fits = free >= needed.saturating_add(RESERVE);
            if fits && total.saturating_add(needed) <= self.limits.bytes {
                return Ok(());
            }
            match oldest.next() {
                Some(listed) if self.evict(&listed) => total -= listed.entry.bytes,
                Some(_) => {}
                None if fits => {
                    tracing::warn!(total, needed, "the image cache is over its limit");
                    return Ok(());
                }
                None => {
                    let message =
                        format!("the image needs {needed} bytes, its file system has {free} free");
                    return Err(Error::new(Kind::Limit, message)
                        .target(self.folder.display().to_string())
                        .hint("free space there, or set image_cache.dir"));
                }
            }
        }
    }

    /// Removes what processes left that died while they fetched; `own` is being fetched now.
    pub(super) fn sweep(&self, own: &str) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(&self.folder, "read the image cache", &e);
        for file in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            let (Some(key), Some(what)) = (path.file_stem(), path.extension()) else {
                continue;
            };
            let key = key.to_string_lossy();
            if key != own && (what == "parts" || what == "image") && self.entry(&key).is_none() {
                let Ok(lock) = self.lock_file(&key) else {
                    continue;
                };
                // Whoever fetches has the lock.
                if lock.try_lock().is_ok() && self.is_current(&key, &lock) {
                    tracing::info!(%key, "removed what a dead process left in the image cache");
                    self.remove(&key);
                    drop(std::fs::remove_file(self.path(&key, "lock")));
                }
            }
        }
        Ok(())
    }

    /// Removes an image unless somebody uses it; says whether it is gone.
    fn evict(&self, listed: &Listed) -> bool {
        let key = &listed.entry.key;
        let Ok(lock) = self.lock_file(key) else {
            return false;
        };
        if lock.try_lock().is_err() || !self.is_current(key, &lock) {
            return false;
        }
        tracing::info!(source = listed.entry.source, "evicted from the image cache");
        self.remove(key);
        drop(std::fs::remove_file(self.path(key, "lock")));
        true
    }

    fn free_bytes(&self) -> Result<u64> {
        let found = rustix::fs::statvfs(&self.folder);
        let found = found.map_err(|e| Error::io(&self.folder, "ask for free space", &e.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
