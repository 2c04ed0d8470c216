//! The firmware files that the drivers of the image ask for.

use super::FileToPack;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Reads those of the named files that are in the folder. A file that the distribution compressed
/// stays so: its kernel unpacks it.
///
/// # Errors
/// `not_found` if there is no such folder, or none of the files in it; `io` if one cannot be read.
pub(super) fn collect(folder: &Path, names: &BTreeSet<String>) -> Result<Vec<FileToPack>> {
    std::fs::read_dir(folder).map_err(|e| Error::io(folder, "list the firmware", &e))?;
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
    if files.is_empty() && !names.is_empty() {
        let count = names.len();
        let message = format!("none of the {count} firmware files that drivers name is in it");
        return Err(Error::new(Kind::NotFound, message)
            .target(folder.display().to_string())
            .hint("a folder as /lib/firmware is meant; without --firmware none is packed"));
    }
    Ok(files)
}
