//! A server that really boots: a QEMU process behind the simulated iLO.
//!
//! Power, boot order, boot mode and media are the iLO's; firmware, kernel, ramdisk and the
//! deployed system are real and run from their bytes. A power cut is a kill of the process.
//! Media that are inserted while the machine runs are seen at its next start.

pub(super) mod gateway;
mod nbd;
mod process;
mod progress;
mod qemu;
mod qmp;

use super::console::{Console, ConsoleLog, Listener};
use super::files::make_private_dir;
use super::host::{BootOutcome, BootRequest, BootSource, Host, Started};
use super::ilo;
use super::node::{Boot, MAX_BOOTS, System};
use crate::error::{Error, Kind, Result};
use crate::ilo::model::BootMode;
use crate::ramdisk::deploy::Log;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use process::Process;
use progress::{Firmware, follow};
use qemu::Installed;
use qmp::Qmp;
use serde_json::{Value, json};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CDROM: &str = "cdrom";
const FLOPPY: &str = "floppy";

/// How long QEMU may take to come up on a busy host.
const START: Duration = Duration::from_secs(60);
/// How often the screen is copied.
const SCREEN: Duration = Duration::from_secs(3);

/// What distinguishes one machine from another.
#[derive(Debug, Clone)]
pub(super) struct VmOptions {
    pub(super) name: String,
    /// Its folder: disk, variables, console, screen.
    pub(super) folder: PathBuf,
    /// The loopback address at which its ports are.
    pub(super) address: Ipv4Addr,
    /// That its firmware tells.
    pub(super) uuid: Uuid,
    pub(super) mac: String,
    /// Size of a new disk.
    pub(super) disk_bytes: u64,
    pub(super) parts: Parts,
}

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    pub(super) disk: DiskBus,
    pub(super) memory_mib: u32,
}

/// How the disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskBus {
    Sata,
    Nvme,
}

impl Default for Parts {
    /// The memory is enough for a kernel, a ramdisk of some dozens of mebibytes, and buffers.
    fn default() -> Self {
        Self {
            disk: DiskBus::Sata,
            memory_mib: 768,
        }
    }
}

impl VmOptions {
    /// Of the machine, as its iLO tells it, and of its disk.
    fn serial(&self) -> String {
        ilo::serial(&self.uuid)
    }

    /// World-wide name of the disk: NAA 5, the rest from the UUID.
    fn wwn(&self) -> String {
        let (_, low) = self.uuid.as_u64_pair();
        format!("{:#018x}", (5 << 60) | (low >> 4))
    }
}

/// A virtual machine without its iLO.
#[derive(Debug, Clone)]
pub(super) struct Vm(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: VmOptions,
    installed: Installed,
    console: Arc<ConsoleLog>,
    boots: Mutex<Boots>,
    /// Held by the process: its ports and its disk are free when it is gone.
    place: Arc<tokio::sync::Mutex<()>>,
    mains: CancellationToken,
}

/// What is remembered of the boots.
#[derive(Debug, Default)]
struct Boots {
    all: Vec<Boot>,
    /// Bytes written to the disk in the boots before, and in this one.
    written: (u64, u64),
}

/// Whether this system has what machines need.
///
/// # Errors
/// `unsupported` that names what to install.
pub(super) fn check_installed() -> Result<()> {
    Installed::find().map(drop)
}

impl Vm {
    /// Makes a machine, with an empty disk if it has none. Blocks.
    ///
    /// # Errors
    /// `unsupported` if QEMU is not installed; `io` if its files cannot be made.
    pub(super) fn new(options: VmOptions) -> Result<Self> {
        let installed = Installed::find()?;
        make_private_dir(&options.folder)?;
        let inner = Inner {
            console: ConsoleLog::open(&options.folder.join("console.log"))?,
            options,
            installed,
            boots: Mutex::default(),
            place: Arc::default(),
            mains: CancellationToken::new(),
        };
        let disk = inner.file("disk.raw");
        if !disk.exists() {
            let made = File::create(&disk).and_then(|file| file.set_len(inner.options.disk_bytes));
            made.map_err(|e| Error::io(&disk, "make the disk", &e))?;
        }
        let variables = inner.file("uefi-variables.fd");
        if !variables.exists() {
            let copied = std::fs::copy(inner.installed.variables, &variables);
            copied.map_err(|e| Error::io(&variables, "make the UEFI variables", &e))?;
        }
        Ok(Self(Arc::new(inner)))
    }

    pub(super) fn disk_path(&self) -> PathBuf {
        self.0.file("disk.raw")
    }

    /// The newest copy of its screen, a PNG.
    pub(super) fn screen_path(&self) -> PathBuf {
        self.0.file("screen.png")
    }

    pub(super) fn console_path(&self) -> &Path {
        self.0.console.path()
    }

    pub(super) fn listen_to_console(&self, listener: Listener) {
        self.0.console.listen(listener);
    }

    pub(super) fn boots(&self) -> Vec<Boot> {
        self.0.boots(|boots| boots.all.clone())
    }

    pub(super) fn disk_bytes_written(&self) -> u64 {
        self.0.boots(|boots| boots.written.0 + boots.written.1)
    }

    /// Ends what runs, at once, and everything that would run later.
    pub(super) fn cut_mains(&self) {
        self.0.mains.cancel();
    }
}

impl Host for Vm {
    fn boot(&self, request: BootRequest, started: Started) -> BoxFuture<'static, BootOutcome> {
        let machine = Arc::clone(&self.0);
        async move {
            tokio::select! {
                biased;
                () = machine.mains.cancelled() => BootOutcome::PowerOff,
                outcome = Arc::clone(&machine).boot(request, started) => outcome,
            }
        }
        .boxed()
    }
}

impl Inner {
    fn file(&self, name: &str) -> PathBuf {
        self.options.folder.join(name)
    }

    fn boots<T>(&self, look: impl FnOnce(&mut Boots) -> T) -> T {
        look(&mut self.boots.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn boot(self: Arc<Self>, request: BootRequest, started: Started) -> BootOutcome {
        let source = match request.source {
            BootSource::Cdrom => "cdrom",
            BootSource::Disk => "disk",
        };
        let attempt = Attempt {
            console: self.console.begin(request.number, source),
            number: request.number,
            machine: self,
        };
        attempt.begin(source, request.mode);
        match Box::pin(attempt.run(&request, started)).await {
            Ok(outcome) => {
                attempt.note(|boot| {
                    boot.state = match outcome {
                        BootOutcome::Reboot => "reboot",
                        _ => "power_off",
                    };
                });
                outcome
            }
            Err(error) => {
                attempt.console.line(&error.to_string());
                tracing::error!(node = %attempt.machine.options.name, %error, "the virtual machine broke");
                BootOutcome::PowerOff
            }
        }
    }
}

/// One run of the process. Dropped before it ended, it was cut.
#[derive(Debug)]
struct Attempt {
    machine: Arc<Inner>,
    console: Console,
    number: u64,
}

impl Attempt {
    fn begin(&self, source: &'static str, mode: BootMode) {
        let boot = Boot::begin(self.number, source, mode);
        self.machine.boots(|boots| {
            if boots.all.len() >= MAX_BOOTS {
                boots.all.remove(0);
            }
            boots.all.push(boot);
        });
    }

    fn note(&self, change: impl FnOnce(&mut Boot)) {
        self.machine.boots(|boots| {
            if let Some(boot) = boots
                .all
                .iter_mut()
                .rev()
                .find(|boot| boot.number == self.number)
            {
                change(boot);
            }
        });
    }

    /// From the start of the process to its end.
    async fn run(&self, request: &BootRequest, started: Started) -> Result<BootOutcome> {
        let failed = |e: std::io::Error| {
            Error::new(Kind::Io, format!("no sockets for the machine: {e}")).op("lab.vm")
        };
        let place = Arc::clone(&self.machine.place).lock_owned().await;
        // Paths of sockets are short; the lab's folder may be deep.
        let sockets = tempfile::Builder::new()
            .prefix("flowrun-vm-")
            .tempdir()
            .map_err(failed)?;
        let (monitor, exports) = (sockets.path().join("qmp"), sockets.path().join("media"));
        let media = [
            (CDROM, request.cdrom.clone()),
            (FLOPPY, request.floppy.clone()),
        ];
        let media: Vec<_> = media
            .into_iter()
            .filter_map(|(name, medium)| Some((name, medium?)))
            .collect();
        let names: Vec<&str> = media.iter().map(|(name, _)| *name).collect();
        let listener = UnixListener::bind(&monitor).map_err(failed)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(nbd::serve(
            UnixListener::bind(&exports).map_err(failed)?,
            Arc::new(media),
        ));
        let start = qemu::Start {
            options: &self.machine.options,
            installed: &self.machine.installed,
            mode: request.mode,
            source: request.source,
            media: &names,
            monitor: &monitor,
            exports: &exports,
            disk: &self.machine.file("disk.raw"),
            variables: &self.machine.file("uefi-variables.fd"),
        };
        let mut process = Process::spawn(qemu::PROGRAM, start.arguments(), place).await?;
        let progress = self.listen(&mut process, &mut tasks);
        let connected = async {
            let (stream, _) = listener.accept().await.map_err(failed)?;
            Qmp::open(stream).await
        };
        let qmp = tokio::select! {
            qmp = tokio::time::timeout(START, connected) => qmp.map_err(|_| {
                Error::new(Kind::Timeout, "qemu did not come up").op("lab.vm")
            })??,
            _status = process.exit() => return Err(self.broke()),
        };
        self.watch(qmp, process, progress, started).await
    }

    /// Keeps what the machine prints. Answers where it is told what the firmware starts.
    fn listen(&self, process: &mut Process, tasks: &mut JoinSet<()>) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel(1);
        let Some((serial, firmware)) = process.output.take() else {
            return receiver;
        };
        let console = self.console.clone();
        let (mut uefi, told) = (Firmware::default(), sender.clone());
        let name = self.machine.options.name.clone();
        tasks.spawn(async move {
            let line = |line: &str| {
                tracing::debug!(node = %name, "console: {line}");
                console.printed(line);
                uefi.see(line).map(|what| told.try_send(what));
            };
            drop(follow(serial, |bytes| console.raw(bytes), line).await);
        });
        let (mut bios, console) = (Firmware::default(), self.console.clone());
        tasks.spawn(async move {
            let line = |line: &str| {
                // SeaBIOS tells much; what QEMU itself complains about matters.
                if line.starts_with(qemu::PROGRAM) {
                    console.line(line);
                }
                bios.see(line).map(|what| sender.try_send(what));
            };
            drop(follow(firmware, |_| {}, line).await);
        });
        receiver
    }

    /// Follows the machine until it ends by itself.
    async fn watch(
        &self,
        mut qmp: Qmp,
        mut process: Process,
        mut progress: mpsc::Receiver<String>,
        started: Started,
    ) -> Result<BootOutcome> {
        let mut started = Some(started);
        let mut screen = tokio::time::interval(SCREEN);
        screen.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                biased;
                Some(what) = progress.recv() => {
                    if let Some(started) = started.take() {
                        self.note(|boot| boot.system = Some(System::Started { what }));
                        started();
                    }
                }
                event = qmp.event() => {
                    if let Some(outcome) = ended(&event?) {
                        break outcome;
                    }
                }
                _now = screen.tick() => self.look(&mut qmp).await?,
                _status = process.exit() => return Err(self.broke()),
            }
        };
        self.look(&mut qmp).await?;
        Ok(outcome)
    }

    /// Copies the screen and counts what was written.
    async fn look(&self, qmp: &mut Qmp) -> Result<()> {
        let (new, path) = (
            self.machine.file(".screen.png"),
            self.machine.file("screen.png"),
        );
        qmp.execute("screendump", json!({ "filename": new, "format": "png" }))
            .await?;
        drop(tokio::fs::rename(&new, &path).await);
        let stats = qmp.execute("query-blockstats", json!({})).await?;
        let mut devices = stats.as_array().into_iter().flatten();
        let disk =
            devices.find(|device| device.get("device").and_then(Value::as_str) == Some("disk"));
        let written = disk.and_then(|disk| disk.pointer("/stats/wr_bytes")?.as_u64());
        self.machine
            .boots(|boots| boots.written.1 = written.unwrap_or(0));
        Ok(())
    }

    fn broke(&self) -> Error {
        let console = self.machine.console.path().display();
        Error::new(Kind::Io, "qemu ended by itself")
            .op("lab.vm")
            .hint(format!("{console} has what it said"))
    }
}

/// How the machine ended, if this event says so. QEMU waits, stopped, to be killed.
fn ended(event: &Value) -> Option<BootOutcome> {
    if event.get("event").and_then(Value::as_str) != Some("SHUTDOWN") {
        return None;
    }
    match event.pointer("/data/reason").and_then(Value::as_str) {
        Some("guest-reset" | "host-qmp-system-reset") => Some(BootOutcome::Reboot),
        _ => Some(BootOutcome::PowerOff),
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.machine
            .boots(|boots| boots.written = (boots.written.0 + boots.written.1, 0));
        self.note(|boot| {
            if boot.state == "running" {
                boot.state = "power_cut";
            }
        });
    }
}
