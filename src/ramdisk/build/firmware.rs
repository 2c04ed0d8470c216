//! The firmware files that the drivers of the image ask for.

use super::FileToPack;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Reads those of the named files that are in the folder. A file that the distribution compressed
/// stays so: its kernel unpacks it.
pub(super) fn collect(folder: &Path, names: &BTreeSet<String>) -> Result<Vec<FileToPack>> {
    std::fs::read_dir(folder).map_err(|e| Error::io(folder, "list", &e))?;
    let mut files = Vec::new();
    for name in names.iter().filter(|name| !name.contains("..")) {
        for suffix in ["", ".xz", ".zst"] {
            let path = folder.join(format!("{name}{suffix}"));
            if !path.is_file() {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, "read", &e))?;
            files.push(FileToPack {
                path: format!("lib/firmware/{name}{suffix}"),
                bytes,
                is_program: false,
            });
            break;
        }
    }
    Ok(files)
}
