//! A node's serial console, kept as a file.

use crate::clock;
use crate::error::{Error, Result};
use crate::ramdisk::deploy::{Log, printable};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// The file that every boot of a node appends to.
#[derive(Debug)]
pub(super) struct ConsoleLog {
    path: PathBuf,
    file: Mutex<File>,
    listener: OnceLock<Listener>,
}

/// Who is told each line while the machine prints it.
pub(super) struct Listener(pub(super) Box<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// The console during one boot.
#[derive(Debug, Clone)]
pub(super) struct Console {
    log: Arc<ConsoleLog>,
    began: Instant,
}

impl ConsoleLog {
    /// Opens the file for appending. Blocks.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| Error::io(path, "open", &e))?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
            listener: OnceLock::new(),
        }))
    }

    /// Has the lines of machines told too; only the first that asks hears them.
    pub(super) fn listen(&self, listener: Listener) {
        _ = self.listener.set(listener);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, bytes: &[u8]) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(bytes) {
            tracing::warn!(path = %self.path.display(), %error, "a piece of a console is lost");
        }
    }

    /// Begins the console of a boot.
    pub(super) fn begin(self: &Arc<Self>, number: u64, source: &str) -> Console {
        let console = Console {
            log: Arc::clone(self),
            began: clock::instant(),
        };
        console.line(&format!("boot {number} from {source}"));
        console
    }
}

impl Console {
    /// Takes what a machine printed, as it is.
    pub(super) fn raw(&self, bytes: &[u8]) {
        self.log.write(bytes);
    }

    /// A line of what [`Self::raw`] took is whole.
    pub(super) fn printed(&self, line: &str) {
        if let Some(listener) = self.log.listener.get() {
            (listener.0)(&printable(line));
        }
    }
}

impl Log for Console {
    /// Seconds since the boot stand before the line, as before a kernel's.
    fn line(&self, text: &str) {
        let elapsed = clock::instant().saturating_duration_since(self.began);
        let printable = printable(text);
        let line = format!("[{:12.6}] {printable}\n", elapsed.as_secs_f64());
        self.log.write(line.as_bytes());
    }
}
