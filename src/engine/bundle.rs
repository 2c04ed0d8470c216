//! Pins a flow: its file, the Lua files beside it, the quirks and the standard library, by
//! content hash.

use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Largest Lua file and most files that a bundle takes.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 500;
/// Folder of the quirks, inside the flow's folder and the site's flow folders.
const QUIRKS: &str = "quirks";

/// Collects the flow file at `entry`, the other `.lua` files of its folder, the quirks beside it
/// and in the site's `flow_folders`, and `library` (path → text). Paths are kept as given, so that
/// errors name them as the operator does.
///
/// # Errors
/// `not_found` or `io` for a file, `limit` for a folder that is no flow folder.
pub fn collect(
    entry: &Path,
    library: BTreeMap<String, String>,
    flow_folders: &[PathBuf],
) -> Result<Bundle> {
    let mut files = library;
    files.insert(entry.display().to_string(), read(entry)?);
    let folder = entry.parent().unwrap_or_else(|| Path::new(""));
    add_folder(folder, &mut files)?;
    let folders: Vec<_> = [folder.to_owned()]
        .into_iter()
        .chain(flow_folders.iter().cloned())
        .collect();
    add_quirks(&folders, &mut files)?;
    Ok(seal(files))
}

/// Adds the quirks of these flow folders. A folder that is named twice counts once.
///
/// # Errors
/// As [`collect`].
pub fn add_quirks(flow_folders: &[PathBuf], files: &mut BTreeMap<String, String>) -> Result<()> {
    let mut seen = HashSet::new();
    for folder in flow_folders {
        let quirks = folder.join(QUIRKS);
        let Ok(real) = quirks.canonicalize() else {
            continue;
        };
        if real.is_dir() && seen.insert(real) {
            add_folder(&quirks, files)?;
        }
    }
    Ok(())
}

/// Whether a file holds tests of flows. Tests are no part of what they test.
#[must_use]
pub fn is_test(path: &str) -> bool {
    path.ends_with("_test.lua")
}

/// Whether a path of a bundle is a quirk file.
#[must_use]
pub fn is_quirk(path: &str) -> bool {
    let folder = Path::new(path).parent().and_then(Path::file_name);
    folder.is_some_and(|name| name == QUIRKS)
}

fn add_folder(folder: &Path, files: &mut BTreeMap<String, String>) -> Result<()> {
    let listed = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let listing =
        std::fs::read_dir(listed).map_err(|e| Error::io(listed, "list the flow folder", &e))?;
    for item in listing.flatten() {
        let path = folder.join(item.file_name());
        let name = path.display().to_string();
        if path.extension().is_some_and(|e| e == "lua") && !is_test(&name) && path.is_file() {
            files.insert(name, read(&path)?);
        }
        if files.len() > MAX_FILES {
            return Err(
                Error::new(Kind::Limit, format!("more than {MAX_FILES} Lua files"))
                    .target(listed.display().to_string())
                    .hint("give the flow a folder of its own"),
            );
        }
    }
    Ok(())
}

/// Hashes paths and contents.
#[must_use]
pub fn seal(files: BTreeMap<String, String>) -> Bundle {
    let mut hash = Sha256::new();
    for (path, text) in &files {
        for part in [path, text] {
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    Bundle {
        hash: hex::encode(hash.finalize()),
        files,
    }
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path)
        .map_err(|e| Error::io(path, "read the flow", &e))?
        .len();
    if size > MAX_FILE_BYTES {
        return Err(
            Error::new(Kind::Limit, format!("a Lua file of {size} bytes"))
                .target(path.display().to_string()),
        );
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read the flow", &e))?;
    String::from_utf8(bytes).map_err(|_| {
        Error::new(
            Kind::Invalid,
            "not a text file (flows are UTF-8 text; bytecode is not run)",
        )
        .target(path.display().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_every_file() {
        let dir = tempfile::tempdir().unwrap();
        let flow = dir.path().join("f.lua");
        std::fs::write(&flow, "return flow {}").unwrap();
        let first = collect(&flow, BTreeMap::new(), &[]).unwrap();
        std::fs::write(dir.path().join("site.lua"), "return {}").unwrap();
        let second = collect(&flow, BTreeMap::new(), &[]).unwrap();
        assert_ne!(first.hash, second.hash);
        assert_eq!(second.files.len(), 2);
    }

    #[test]
    fn quirks_are_part_of_it_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let (flows, site) = (dir.path().join("flows"), dir.path().join("site"));
        for folder in [&flows, &site] {
            std::fs::create_dir_all(folder.join("quirks")).unwrap();
        }
        let flow = flows.join("f.lua");
        std::fs::write(&flow, "return flow {}").unwrap();
        let first = collect(&flow, BTreeMap::new(), &[]).unwrap();
        std::fs::write(flows.join("quirks/a.lua"), "quirk {}").unwrap();
        std::fs::write(site.join("quirks/b.lua"), "quirk {}").unwrap();
        let folders = [site, flows.join("../flows")];
        let second = collect(&flow, BTreeMap::new(), &folders).unwrap();
        assert_ne!(first.hash, second.hash);
        let quirks = second.files.keys().filter(|path| is_quirk(path));
        assert_eq!(quirks.count(), 2, "{:?}", second.files.keys());
    }
}
