//! What the flow folders hold at one moment.

use crate::engine::{Folder, read_folder};
use crate::error::{Error, Kind, Result};
use std::path::PathBuf;

/// The flow folders in the order in which flows are looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub(super) folders: Vec<(PathBuf, Result<Folder>)>,
}

impl Snapshot {
    /// Reads the folders as they are now; somebody may be writing to them.
    #[must_use]
    pub fn read(folders: &[PathBuf]) -> Self {
        let read = |path: &PathBuf| (path.clone(), read_folder(path));
        Self {
            folders: folders.iter().map(read).collect(),
        }
    }

    /// The folders that are there, with their paths as configured.
    pub(super) fn present(&self) -> impl Iterator<Item = (&PathBuf, &Folder)> {
        let read = self.folders.iter();
        read.filter_map(|(path, folder)| Some((path, folder.as_ref().ok()?)))
    }

    /// What could not be read. A folder that is not there has no flows, and that is no mistake.
    pub(super) fn errors(&self) -> impl Iterator<Item = &Error> {
        let failed = self.folders.iter().filter_map(|(_, f)| f.as_ref().err());
        failed.filter(|error| error.kind() != Kind::NotFound)
    }
}
