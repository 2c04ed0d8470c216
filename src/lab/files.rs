//! Files of the lab directory.

use crate::error::{Error, Result};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Replaces a file as a whole; only its owner may read it. Blocks.
pub(super) fn write_private(path: &Path, contents: &[u8]) -> Result<()> {
    let failed = |e: &std::io::Error| Error::io(path, "write", e);
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    // A temporary file is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(|e| failed(&e))?;
    file.write_all(contents).map_err(|e| failed(&e))?;
    file.as_file().sync_all().map_err(|e| failed(&e))?;
    file.persist(path).map_err(|e| failed(&e.error))?;
    Ok(())
}

/// Makes a folder with its parents, closed to others. Blocks.
pub(super) fn make_private_dir(path: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(path, "make the folder", &e);
    let mut builder = fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// The text of a file; `None` if there is none. Blocks.
pub(super) fn read_text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, "read", &e)),
    }
}
