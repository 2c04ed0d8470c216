//! What a simulated server's processor would do: read the CD and the floppy, run the deploy
//! ramdisk, or start what is on the disk.
//!
//! Firmware and boot loaders are followed step by step on the real bytes; a kernel is read but
//! not executed. Of a system that boots from the CD its root is looked for on the disk. In place
//! of the deploy ramdisk's kernel runs [`crate::ramdisk`], the very code that is the ramdisk's
//! program.

mod cdrom;
mod disk;
mod fault;
mod root;

pub use fault::NodeFault;

use super::console::{Console, ConsoleLog};
use super::files::make_private_dir;
use super::host::{BootOutcome, BootRequest, BootSource, Host, Started};
use crate::error::Result;
use crate::ilo::model::BootMode;
use crate::ramdisk::deploy::Log;
use disk::NodeDisk;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Boots that are remembered; older ones are forgotten.
pub(super) const MAX_BOOTS: usize = 1000;

/// What distinguishes one node from another.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Its folder: disk, console log, copies of media.
    pub folder: PathBuf,
    /// Its address, on which the deploy ramdisk exports the disk.
    pub address: Ipv4Addr,
    /// Size of a new disk. One that is there already keeps its size.
    pub disk_bytes: u64,
    /// What goes wrong.
    pub faults: BTreeSet<NodeFault>,
}

/// A server without its iLO.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: NodeOptions,
    disk: Arc<NodeDisk>,
    console: Arc<ConsoleLog>,
    boots: Mutex<Vec<Boot>>,
    mains: CancellationToken,
}

/// One boot, as far as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// Counts the boots since the site began, from 1.
    pub number: u64,
    /// `cdrom` or `disk`.
    pub source: &'static str,
    /// How the firmware booted.
    pub mode: BootMode,
    /// What was started; absent if nothing was, or not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<System>,
    /// `running` (still), `reboot`, `no_boot_device`, `system_up`, `power_off` or `power_cut`.
    pub state: &'static str,
}

impl Boot {
    /// Nothing is known yet but where it begins.
    pub(super) fn begin(number: u64, source: &'static str, mode: BootMode) -> Self {
        Self {
            number,
            source,
            mode,
            system: None,
            state: "running",
        }
    }
}

/// What a node started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "system", rename_all = "snake_case")]
pub enum System {
    /// The deploy ramdisk, from the CD.
    DeployRamdisk {
        /// Label of the CD.
        volume: String,
        /// Command line of the kernel.
        command_line: String,
    },
    /// The kernel of a system whose root is on the disk, from the CD.
    BootIso {
        /// Label of the CD.
        volume: String,
        /// Command line of the kernel.
        command_line: String,
        /// Where its root was found; absent: nowhere, and the kernel gave up.
        #[serde(skip_serializing_if = "Option::is_none")]
        root: Option<String>,
    },
    /// What the firmware of a virtual machine says that it starts.
    Started {
        /// In the firmware's words.
        what: String,
    },
    /// What is on the disk.
    Disk {
        /// Kind of the partition table.
        table: String,
        /// Disk identifier: GUID of a GPT, signature of an MBR.
        identifier: String,
        /// How many partitions there are.
        partitions: usize,
    },
}

impl Node {
    /// Makes a node, with an empty disk if it has none. Blocks.
    ///
    /// # Errors
    /// `io` if its files cannot be made.
    pub fn new(options: NodeOptions) -> Result<Self> {
        make_private_dir(&options.folder.join("media"))?;
        let disk = NodeDisk::open(&options)?;
        let console = ConsoleLog::open(&options.folder.join("console.log"))?;
        Ok(Self(Arc::new(Inner {
            options,
            disk: Arc::new(disk),
            console,
            boots: Mutex::default(),
            mains: CancellationToken::new(),
        })))
    }

    /// Where its disk lies.
    #[must_use]
    pub fn disk_path(&self) -> PathBuf {
        self.0.options.folder.join("disk.raw")
    }

    /// Bytes written to its disk since the site began.
    #[must_use]
    pub fn disk_bytes_written(&self) -> u64 {
        self.0.disk.bytes_written()
    }

    /// Where its console is written.
    #[must_use]
    pub fn console_path(&self) -> &Path {
        self.0.console.path()
    }

    /// The boots so far, oldest first.
    #[must_use]
    pub fn boots(&self) -> Vec<Boot> {
        self.0.boots().clone()
    }

    /// Ends what runs, at once, and everything that would run later.
    pub fn cut_mains(&self) {
        self.0.mains.cancel();
    }
}

impl Host for Node {
    fn boot(&self, request: BootRequest, started: Started) -> BoxFuture<'static, BootOutcome> {
        let node = Arc::clone(&self.0);
        async move {
            started();
            tokio::select! {
                biased;
                () = node.mains.cancelled() => BootOutcome::PowerOff,
                outcome = node.boot(&request) => outcome,
            }
        }
        .boxed()
    }
}

impl Inner {
    async fn boot(self: &Arc<Self>, request: &BootRequest) -> BootOutcome {
        let source = match request.source {
            BootSource::Cdrom => "cdrom",
            BootSource::Disk => "disk",
        };
        let attempt = Attempt {
            node: self,
            console: self.console.begin(request.number, source),
            number: request.number,
        };
        attempt.begin(source, request.mode);
        self.disk.power_on();
        let booted = async {
            match request.source {
                BootSource::Cdrom => Box::pin(attempt.boot_cdrom(request)).await,
                BootSource::Disk => attempt.boot_disk(request.mode).await,
            }
        };
        let outcome = tokio::select! {
            biased;
            () = self.disk.power_lost() => {
                attempt.say("power lost");
                BootOutcome::PowerOff
            }
            outcome = booted => outcome,
        };
        attempt.set_state(match outcome {
            BootOutcome::Reboot => "reboot",
            BootOutcome::PowerOff => "power_cut",
            BootOutcome::NoBootDevice => "no_boot_device",
            BootOutcome::Running => "system_up",
        });
        outcome
    }

    fn boots(&self) -> MutexGuard<'_, Vec<Boot>> {
        self.boots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A boot under way. Dropped before it ended, it was cut.
#[derive(Debug)]
struct Attempt<'a> {
    node: &'a Inner,
    console: Console,
    number: u64,
}

impl Attempt<'_> {
    fn say(&self, line: &str) {
        self.console.line(line);
    }

    fn begin(&self, source: &'static str, mode: BootMode) {
        let mut boots = self.node.boots();
        if boots.len() >= MAX_BOOTS {
            boots.remove(0);
        }
        boots.push(Boot::begin(self.number, source, mode));
    }

    fn note(&self, change: impl FnOnce(&mut Boot)) {
        let mut boots = self.node.boots();
        let mut newest_first = boots.iter_mut().rev();
        if let Some(boot) = newest_first.find(|boot| boot.number == self.number) {
            change(boot);
        }
    }

    fn set_system(&self, system: System) {
        self.note(|boot| boot.system = Some(system));
    }

    fn set_state(&self, state: &'static str) {
        self.note(|boot| boot.state = state);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.note(|boot| {
            if boot.state == "running" {
                boot.state = "power_cut";
                self.console.line("power lost");
            }
        });
    }
}
