//! Inserts the drivers that the machine's devices ask for.

use crate::error::{Error, Kind, Result};
use crate::ramdisk::deploy::Log;
use crate::ramdisk::drivers::{Drivers, INDEX, file_of};
use rustix::io::Errno;
use rustix::system::init_module;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::path::Path;

/// The drivers of the image, and those that were tried.
#[derive(Debug)]
pub(super) struct Modules {
    drivers: Drivers,
    tried: BTreeSet<String>,
}

impl Modules {
    /// Reads the index.
    ///
    /// # Errors
    /// `corrupt` if the image has none that can be read.
    pub(super) fn open() -> Result<Self> {
        let path = Path::new("/").join(INDEX);
        let index = std::fs::read(&path).map_err(|e| Error::io(&path, "read", &e))?;
        let drivers = serde_json::from_slice(&index)
            .map_err(|e| Error::new(Kind::Corrupt, "the index of drivers").caused_by(&e))?;
        Ok(Self {
            drivers,
            tried: BTreeSet::new(),
        })
    }

    /// Inserts what the devices that there are now ask for. A driver may bring up devices that ask
    /// for more, so this is called until what is looked for is there. Tells whether it tried any.
    pub(super) fn settle(&mut self, log: &dyn Log) -> bool {
        let first = self.tried.len();
        loop {
            let mut wanted = BTreeSet::new();
            modaliases(Path::new("/sys/devices"), &mut wanted);
            let before = self.tried.len();
            let names: BTreeSet<String> = wanted
                .iter()
                .flat_map(|modalias| self.drivers.wanted_by(modalias))
                .map(str::to_owned)
                .collect();
            names.iter().for_each(|name| self.insert(name, log));
            if self.tried.len() == before {
                return before != first;
            }
        }
    }

    /// Inserts a module, and before it what it needs.
    pub(super) fn insert(&mut self, name: &str, log: &dyn Log) {
        let order: Vec<String> = self.drivers.in_order(name).map(str::to_owned).collect();
        let mut inserted = Vec::new();
        for module in order {
            if !self.tried.insert(module.clone()) {
                continue;
            }
            match insert(&module) {
                Ok(()) => inserted.push(module),
                Err(error) => log.line(&format!("driver {module}: {error}")),
            }
        }
        if !inserted.is_empty() {
            log.line(&format!("drivers: {}", inserted.join(" ")));
        }
    }
}

fn insert(module: &str) -> std::io::Result<()> {
    let image = std::fs::read(Path::new("/").join(file_of(module)))?;
    match init_module(&image, parameters_of(module)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A USB disk is waited for by default, in case somebody is still plugging it in; and there is a
/// bond by default, which would be in the way of the one that is made.
fn parameters_of(module: &str) -> &'static CStr {
    match module {
        "usb_storage" => c"delay_use=0",
        "bonding" => c"max_bonds=0",
        _ => c"",
    }
}

/// The kernel's names of all devices below a folder of sysfs.
fn modaliases(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // Links lead back to other devices.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            modaliases(&entry.path(), found);
        } else if entry.file_name() == "modalias"
            && let Ok(name) = std::fs::read_to_string(entry.path())
        {
            found.insert(name.trim().to_owned());
        }
    }
}
