//! Pins a flow: its file, the Lua files beside it, the quirks and the standard library, by
//! content hash.

use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Largest Lua file and most files that a bundle takes.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_FILES: usize = 500;
/// Folder of the quirks, inside the flow's folder and the site's flow folders.
pub const QUIRKS: &str = "quirks";

/// Path in a bundle → text.
pub type Files = BTreeMap<String, String>;

/// The Lua files of one flow folder. Paths are kept as given, so that errors name them as the
/// operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Where it really is: a folder that is named twice counts once.
    pub real: PathBuf,
    /// Flows and modules.
    pub modules: Files,
    /// What lies in `quirks/`.
    pub quirks: Files,
}

/// Collects the flow file at `entry`, the other `.lua` files of its folder, the quirks beside it
/// and in the site's `flow_folders`, and `library`.
///
/// # Errors
/// `not_found` or `io` for a file, `limit` for a folder that is no flow folder.
pub fn collect(entry: &Path, library: Files, flow_folders: &[PathBuf]) -> Result<Bundle> {
    let own = read_folder(entry.parent().unwrap_or_else(|| Path::new("")))?;
    let mut files = library;
    files.extend(own.modules.clone());
    let named = entry.display().to_string();
    if !own.modules.contains_key(&named) {
        files.insert(named, read(entry, entry)?);
    }
    let mut folders = vec![own];
    folders.extend(read_folders(flow_folders)?);
    add_quirks(&folders, &mut files);
    Ok(seal(files))
}

/// Reads those of the site's flow folders that exist.
///
/// # Errors
/// As [`collect`].
pub fn read_folders(flow_folders: &[PathBuf]) -> Result<Vec<Folder>> {
    let existing = flow_folders.iter().filter(|folder| folder.is_dir());
    existing.map(|folder| read_folder(folder)).collect()
}

/// Adds the quirks of these folders. A folder that is named twice counts once.
pub fn add_quirks<'a>(folders: impl IntoIterator<Item = &'a Folder>, files: &mut Files) {
    let mut seen = HashSet::new();
    for folder in folders {
        if seen.insert(&folder.real) {
            files.extend(folder.quirks.clone());
        }
    }
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

/// Reads a flow folder. It is opened once: whoever swaps it for another meanwhile gives no mixture
/// of the two.
///
/// # Errors
/// As [`collect`].
pub fn read_folder(folder: &Path) -> Result<Folder> {
    let here = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let failed = |e: std::io::Error| Error::io(here, "list the flow folder", &e);
    let open = std::fs::File::open(here).map_err(failed)?;
    let held = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    let real = held.canonicalize().map_err(failed)?;
    let modules = read_lua(&held, folder)?;
    let quirks = if held.join(QUIRKS).is_dir() {
        read_lua(&held.join(QUIRKS), &folder.join(QUIRKS))?
    } else {
        Files::new()
    };
    Ok(Folder {
        real,
        modules,
        quirks,
    })
}

/// The `.lua` files in `held`, named as if they were in `shown`. Tests of flows are no part of
/// what runs, and neither is what an editor hides.
fn read_lua(held: &Path, shown: &Path) -> Result<Files> {
    let mut files = Files::new();
    let listing =
        std::fs::read_dir(held).map_err(|e| Error::io(shown, "list the flow folder", &e))?;
    for item in listing.flatten() {
        let name = item.file_name();
        let Some(name) = name.to_str().filter(|name| is_module(name)) else {
            continue;
        };
        let path = held.join(name);
        if path.is_file() {
            let shown = shown.join(name);
            files.insert(shown.display().to_string(), read(&path, &shown)?);
        }
        if files.len() > MAX_FILES {
            return Err(
                Error::new(Kind::Limit, format!("more than {MAX_FILES} Lua files"))
                    .target(shown.display().to_string())
                    .hint("give the flow a folder of its own"),
            );
        }
    }
    Ok(files)
}

fn is_module(name: &str) -> bool {
    name.ends_with(".lua") && !name.starts_with('.') && !is_test(name)
}

/// Hashes paths and contents.
#[must_use]
pub fn seal(files: Files) -> Bundle {
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

/// Reads the file at `path`, which the operator knows as `shown`.
fn read(path: &Path, shown: &Path) -> Result<String> {
    let size = std::fs::metadata(path)
        .map_err(|e| Error::io(shown, "read the flow", &e))?
        .len();
    if size > MAX_FILE_BYTES {
        return Err(
            Error::new(Kind::Limit, format!("a Lua file of {size} bytes"))
                .target(shown.display().to_string()),
        );
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(shown, "read the flow", &e))?;
    String::from_utf8(bytes).map_err(|_| {
        Error::new(
            Kind::Invalid,
            "not a text file (flows are UTF-8 text; bytecode is not run)",
        )
        .target(shown.display().to_string())
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
    fn what_editors_hide_and_tests_are_no_part_of_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "f.lua",
            ".f.lua",
            ".#f.lua",
            "f.lua~",
            "f_test.lua",
            "f.txt",
        ] {
            std::fs::write(dir.path().join(name), "return {}").unwrap();
        }
        let names = read_folder(dir.path()).unwrap().modules;
        let names: Vec<_> = names.keys().filter_map(|p| p.rsplit('/').next()).collect();
        assert_eq!(names, ["f.lua"]);
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
