//! The standard library of flows: embedded in release builds, read from disk in debug builds.

use std::collections::BTreeMap;

/// Folder of library modules inside a bundle.
pub const FOLDER: &str = "stdlib/";
/// Folder of the stock flows inside a bundle.
pub const FLOWS_FOLDER: &str = "flows";

macro_rules! embedded {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../", $path)))),*]
    };
}

/// The library's modules.
const MODULES: &[(&str, &str)] = embedded![
    "stdlib/attempt.lua",
    "stdlib/boot_mode.lua",
    "stdlib/capability.lua",
    "stdlib/instance_boot.lua",
    "stdlib/iscsi_deploy.lua",
    "stdlib/power.lua",
    "stdlib/validation.lua",
    "stdlib/vmedia_boot.lua",
];

/// The stock flows, for machines that hold nothing but the binary.
const FLOWS: &[(&str, &str)] = embedded!["flows/ilo_vmedia_iscsi.lua"];

/// Path in a bundle → text.
#[must_use]
pub fn modules() -> BTreeMap<String, String> {
    load(MODULES)
}

/// Path → text of the stock flows.
#[must_use]
pub fn flows() -> BTreeMap<String, String> {
    load(FLOWS)
}

fn load(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), newest(path, text)))
        .collect()
}

/// In a debug build the file on disk, so that editing it needs no rebuild.
fn newest(path: &str, embedded: &str) -> String {
    let on_disk = cfg!(debug_assertions)
        .then(|| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .and_then(|path| std::fs::read_to_string(path).ok());
    on_disk.unwrap_or_else(|| embedded.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_embedded() {
        for (folder, files) in [("stdlib", MODULES), ("flows", FLOWS)] {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            let mut on_disk: Vec<String> = std::fs::read_dir(root.join(folder))
                .unwrap()
                .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
                .filter(|name| {
                    std::path::Path::new(name)
                        .extension()
                        .is_some_and(|e| e == "lua")
                        && !name.ends_with("_test.lua")
                })
                .map(|name| format!("{folder}/{name}"))
                .collect();
            on_disk.sort();
            let embedded: Vec<_> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
            assert_eq!(embedded, on_disk);
        }
    }
}
