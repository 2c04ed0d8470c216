//! Booting from the virtual CD.

use super::{Attempt, NodeFault, System, root};
use crate::error::{Error, Kind, Result};
use crate::lab::host::{BootOutcome, BootRequest, Medium};
use crate::lab::iso::{self, BootDisc, Loaded};
use crate::lab::recorder::Recorder;
use crate::ramdisk::deploy::{self, DeployEnd, DeployOptions, ISCSI_PORT};
use crate::ramdisk::floppy::{Floppy, MAX_IMAGE_BYTES};
use crate::ramdisk::parameters::{self, Parameters};
use crate::secret::Secret;
use std::future::pending;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use uuid::Uuid;

/// One read of the floppy.
const CHUNK_BYTES: usize = 64 << 10;

impl Attempt<'_> {
    pub(super) async fn boot_cdrom(&self, request: &BootRequest) -> BootOutcome {
        let Some(medium) = request.cdrom.clone() else {
            self.say("firmware: no medium in the virtual CD");
            return BootOutcome::NoBootDevice;
        };
        let disc = match self.load(medium).await {
            Ok(disc) => disc,
            Err(error) => {
                self.say(&format!("firmware: cannot boot from the CD: {error}"));
                return BootOutcome::NoBootDevice;
            }
        };
        self.say(&format!("loader: CD {:?}", disc.volume));
        self.say_loaded("kernel", &disc.kernel);
        if let Some(initrd) = &disc.initrd {
            self.say_loaded("ramdisk", initrd);
        }
        self.say(&format!("kernel: command line: {}", disc.command_line));
        let BootDisc {
            volume,
            command_line,
            ..
        } = disc;
        if let Some(root) = parameters::word(&command_line, "root").map(str::to_owned) {
            let found = self.find_root(&root).await;
            let is_found = found.is_some();
            self.set_system(System::BootIso {
                volume,
                command_line,
                root: found,
            });
            if is_found {
                return BootOutcome::Running;
            }
            return pending().await;
        }
        let is_from_vmedia = parameters::is_from_vmedia(&command_line);
        self.set_system(System::DeployRamdisk {
            volume,
            command_line,
        });
        if !is_from_vmedia {
            self.say("ramdisk: no boot_method=vmedia on the command line, so no parameters");
            return pending().await;
        }
        match self.run_ramdisk(request).await {
            Ok(DeployEnd::Reboot) => {
                self.say("ramdisk: rebooting");
                BootOutcome::Reboot
            }
            Err(error) => {
                self.say(&format!("ramdisk: {error}"));
                for cause in error.causes() {
                    self.say(&format!("ramdisk: because: {cause}"));
                }
                self.say("ramdisk: nothing more to do; waiting for the power to be cut");
                pending().await
            }
        }
    }

    /// Looks for the root of an installed system.
    async fn find_root(&self, root: &str) -> Option<String> {
        let uuid = root.strip_prefix("UUID=");
        let Some(uuid) = uuid.and_then(|uuid| Uuid::parse_str(uuid).ok()) else {
            self.say(&format!(
                "kernel: panic: {root} is no UUID of a file system"
            ));
            return None;
        };
        let path = self.node.options.folder.join("disk.raw");
        match tokio::task::spawn_blocking(move || root::find(&path, uuid)).await {
            Ok(Ok(Some(place))) => {
                self.say(&format!("kernel: root {uuid} found: {place}"));
                return Some(place);
            }
            Ok(Ok(None)) => self.say(&format!("kernel: panic: no file system has UUID {uuid}")),
            Ok(Err(error)) => self.say(&format!("kernel: panic: {error}")),
            Err(error) => self.say(&format!("kernel: panic: {error}")),
        }
        None
    }

    async fn load(&self, medium: Arc<dyn Medium>) -> Result<BootDisc> {
        let copy = record(medium, self.media("cdrom.iso")).await?;
        iso::boot(&copy).await
    }

    async fn run_ramdisk(&self, request: &BootRequest) -> Result<DeployEnd> {
        let medium = request.floppy.clone();
        let medium = medium.ok_or_else(|| {
            Error::new(Kind::NotFound, "no virtual floppy is inserted").op("ramdisk.floppy")
        })?;
        let copy = record(medium, self.media("floppy.img")).await?;
        let floppy = Floppy::read(&read_all(&copy).await?)?;
        self.say("ramdisk: parameters read from the virtual floppy");
        let mut parameters = Parameters::parse(floppy.parameters.expose())?;
        if self.has(NodeFault::RamdiskSilent) {
            self.say("ramdisk: hangs");
            return pending().await;
        }
        if let (true, Some(chap)) = (self.has(NodeFault::LoginRefused), &mut parameters.chap) {
            chap.secret = Secret::new("another secret than the floppy's");
        }
        let address = self.node.options.address.into();
        // The export fails for real: its port is taken.
        let _taken = match self.has(NodeFault::RamdiskFails) {
            true => TcpListener::bind((self.node.options.address, ISCSI_PORT)).ok(),
            false => None,
        };
        let mut options = DeployOptions::new(parameters, self.node.disk.clone(), address);
        if self.has(NodeFault::DoneClosed) {
            // Any port but the one that is called.
            options.done_port = 0;
        }
        options.token = floppy.token;
        options.ca_pem = floppy.ca_pem;
        options.log = Arc::new(self.console.clone());
        Box::pin(deploy::run(options)).await
    }

    fn has(&self, fault: NodeFault) -> bool {
        self.node.options.faults.contains(&fault)
    }

    fn media(&self, name: &str) -> PathBuf {
        self.node.options.folder.join("media").join(name)
    }

    fn say_loaded(&self, what: &str, file: &Loaded) {
        self.say(&format!(
            "loader: {what} {}, {} bytes, sha256 {}",
            file.path, file.size_bytes, file.sha256
        ));
    }
}

async fn record(medium: Arc<dyn Medium>, path: PathBuf) -> Result<Recorder> {
    tokio::task::spawn_blocking(move || Recorder::new(medium, &path))
        .await
        .map_err(|e| Error::new(Kind::Internal, "the copy was not made").caused_by(&e))?
}

async fn read_all(medium: &Recorder) -> Result<Vec<u8>> {
    let size_bytes = medium.size_bytes();
    if size_bytes > MAX_IMAGE_BYTES {
        let message = format!("the floppy is of {size_bytes} bytes, over {MAX_IMAGE_BYTES}");
        return Err(Error::new(Kind::Limit, message).op("ramdisk.floppy"));
    }
    let mut image = Vec::new();
    while (image.len() as u64) < size_bytes {
        let chunk = medium.read_at(image.len() as u64, CHUNK_BYTES).await?;
        if chunk.is_empty() {
            return Err(Error::new(Kind::Io, "the floppy ends early").op("ramdisk.floppy"));
        }
        image.extend_from_slice(&chunk);
    }
    Ok(image)
}
