//! Secrets that a run needs again after a crash, made from one key file instead of stored.

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::io::Write;
use std::path::Path;

/// Length of the site key in bytes, and of a derived secret in hex digits.
const KEY_BYTES: usize = 32;

/// Reads `site.key` in the state directory, making it (mode 0600) if there is none.
///
/// # Errors
/// `io` if it cannot be read or made, `corrupt` if it is not a key.
pub(super) fn site_key(state_dir: &Path) -> Result<Secret> {
    let path = state_dir.join("site.key");
    if !path.exists() {
        create(state_dir, &path)?;
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", &e))?;
    let key = text.trim();
    if hex::decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES) {
        return Ok(Secret::new(key));
    }
    Err(Error::new(Kind::Corrupt, "not a site key").target(path.display().to_string()))
}

fn create(state_dir: &Path, path: &Path) -> Result<()> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|e| Error::new(Kind::Io, format!("no random bytes: {e}")))?;
    let failed = |e: std::io::Error| Error::io(path, "make the site key", &e);
    // tempfile makes files of mode 0600; whoever comes first wins.
    let mut file = tempfile::NamedTempFile::new_in(state_dir).map_err(failed)?;
    file.write_all(hex::encode(key).as_bytes())
        .map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(failed(e.error)),
    }
}

/// 32 hex digits that depend on the key and every part. Parts are length-prefixed, so that no
/// two lists of parts read the same.
pub(super) fn secret(site_key: &Secret, parts: &[&str]) -> Secret {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(site_key.expose().as_bytes()) else {
        unreachable!("HMAC takes keys of any length")
    };
    for part in parts {
        mac.update(&part.len().to_be_bytes());
        mac.update(part.as_bytes());
    }
    let mut text = hex::encode(mac.finalize().into_bytes());
    text.truncate(KEY_BYTES);
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = site_key(dir.path()).unwrap();
        let again = site_key(dir.path()).unwrap();
        assert_eq!(first.expose(), again.expose());
        let mode = std::fs::metadata(dir.path().join("site.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn parts_do_not_run_together() {
        let key = Secret::new("k");
        let one = secret(&key, &["ab", "c"]);
        assert_eq!(one.expose().len(), 32);
        assert_ne!(one.expose(), secret(&key, &["a", "bc"]).expose());
        assert_eq!(one.expose(), secret(&key, &["ab", "c"]).expose());
    }
}
