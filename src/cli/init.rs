//! `init`: a folder to begin with.

use super::Exit;
use crate::cli::output::out;
use crate::error::{Error, Kind, Result};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

/// What is written, by its place in the folder.
const FILES: [(&str, &str); 2] = [
    ("flowrun.toml", include_str!("../../examples/flowrun.toml")),
    (
        "flows/health.lua",
        include_str!("../../examples/health.lua"),
    ),
];

/// Writes the files into `dir`, or none of them if one is there.
pub(super) fn init(dir: &Path) -> Result<Exit> {
    let places = FILES.map(|(name, text)| (dir.join(name), text));
    if let Some((place, _)) = places.iter().find(|(place, _)| place.exists()) {
        let error = Error::new(Kind::Conflict, "is there already, and nothing was written");
        return Err(error.target(place.display().to_string()));
    }
    for (place, text) in &places {
        let failed = |e: std::io::Error| Error::io(place, "write", &e);
        fs::create_dir_all(place.parent().unwrap_or(dir)).map_err(failed)?;
        let file = OpenOptions::new().write(true).create_new(true).open(place);
        let mut file = file.map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        out!("{}", place.display());
    }
    eprintln!(
        "in {}: put servers into flowrun.toml, and try `flowrun health --node lab-1 --lab`",
        dir.display()
    );
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_written_loads_as_it_is_and_with_all_settings_in_use() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(init(dir.path()).unwrap(), Exit::Done);
        let path = dir.path().join("flowrun.toml");
        assert!(Config::load(&path).unwrap().nodes.is_empty());
        let text = fs::read_to_string(&path).unwrap();
        let used = text.lines().map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        });
        let used: Vec<_> = used.collect();
        fs::write(&path, used.join("\n")).unwrap();
        let config = Config::load(&path).unwrap();
        assert!(config.nodes.contains_key("dl380-7") && config.swift.is_some());
        let before = fs::read_to_string(&path).unwrap();
        let error = init(dir.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
}
