//! A whole site in one process: an iLO and a server for each node, the object store, and the
//! files that a deployer needs to reach them.

mod build;
mod deploy_iso;
mod describe;
mod faults;
mod for_nodes;
mod full;
mod generations;
mod hardware;
mod machines;
mod network;
mod record;
mod state;

use super::console::Listener;
use super::ilo::{Generation, Machine};
use crate::error::{Error, Result};
use crate::http::server::ServerHandle;
use crate::objectstore::Store;
use hardware::Hardware;
use record::{NodeRecord, StoreRecord};
use serde_json::Value;
use std::fs::{File, TryLockError};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a site is started with.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// The lab directory. Disks, credentials and addresses stay in it.
    pub dir: PathBuf,
    /// How many simulated nodes run: `lab-1` and so on.
    pub nodes: usize,
    /// How many virtual machines: `vm-1` and so on. They need QEMU.
    pub vms: usize,
    /// What they are made of: `disk=nvme`, `memory_mib=512` for each or, as in `vm-2:disk=nvme`,
    /// for one. Without, a SATA disk and 768 MiB.
    pub vm_parts: Vec<String>,
    /// What they deploy with; absent: an ISO of this program and the host's kernel.
    pub vm_deploy_iso: Option<PathBuf>,
    /// Size of a new node's disk.
    pub disk_bytes: u64,
    /// How long a power-on self test takes.
    pub post_time: Duration,
    /// Which iLOs the nodes have: names of [`Generation::NAMES`], each for every node or, as in
    /// `lab-2:ilo4-rest`, for one. Nodes that are not named have one each, in that order.
    pub ilos: Vec<String>,
    /// What goes wrong: names of [`Site::faults`], each for every node or, as in
    /// `lab-2:ilo.power=ignored`, for one.
    pub faults: Vec<String>,
}

impl SiteOptions {
    /// One node with a disk of 4 GiB that starts within two seconds.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            nodes: 1,
            vms: 0,
            vm_parts: Vec::new(),
            vm_deploy_iso: None,
            disk_bytes: 4 << 30,
            post_time: Duration::from_secs(2),
            ilos: Vec::new(),
            faults: Vec::new(),
        }
    }
}

/// A running site. Dropping it ends everything; the files stay.
#[derive(Debug)]
pub struct Site {
    inner: Arc<Inner>,
    description: Value,
    servers: Vec<ServerHandle>,
    tasks: JoinSet<()>,
    /// Held while the site is up, and dropped last.
    _lock: File,
}

/// What the site shares with the handlers of its state.
#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    store_record: StoreRecord,
    servers: Vec<Server>,
    faults: Vec<String>,
}

/// One simulated server.
#[derive(Debug)]
struct Server {
    record: NodeRecord,
    address: Ipv4Addr,
    generation: Generation,
    hardware: Hardware,
    machine: Arc<Machine>,
    /// How a virtual machine reaches the deployer.
    callback_url: Option<String>,
}

impl Site {
    /// Brings the site up: addresses bound, servers answering, deploy ISO and OS image in place.
    ///
    /// # Errors
    /// `conflict` if the directory is in use or a port is taken; `invalid` for an unknown fault;
    /// `corrupt` if the directory holds something else; `io` if its files cannot be written.
    pub async fn start(options: SiteOptions) -> Result<Self> {
        build::start(options).await.map_err(|e| e.op("lab.start"))
    }

    /// Endpoints, credentials, files and nodes: all that a deployer needs. It holds secrets.
    #[must_use]
    pub fn describe(&self) -> &Value {
        &self.description
    }

    /// What happened so far: machines, boots, requests for objects, disks.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        self.inner.snapshot()
    }

    /// Has `hear` told each line that a virtual machine prints on its serial console, after the
    /// machine's name.
    pub fn on_console(&self, hear: impl Fn(&str, &str) + Clone + Send + Sync + 'static) {
        for server in &self.inner.servers {
            let (name, hear) = (server.record.name.clone(), hear.clone());
            if let Hardware::Vm(vm) = &server.hardware {
                vm.listen_to_console(Listener(Box::new(move |line| hear(&name, line))));
            }
        }
    }

    /// The machine of this name, to change what goes wrong with it.
    #[must_use]
    pub fn machine(&self, name: &str) -> Option<Arc<Machine>> {
        let mut servers = self.inner.servers.iter();
        let found = servers.find(|server| server.record.name == name);
        found.map(|server| Arc::clone(&server.machine))
    }

    /// Everything that can be told to go wrong: name, description, and who saw it.
    #[must_use]
    pub fn faults() -> Vec<[&'static str; 3]> {
        faults::list()
    }

    /// The description of the site that another process, or this one, has up in this directory.
    ///
    /// # Errors
    /// `io` if the directory cannot be read; `corrupt` if it holds something else.
    pub fn running(dir: &Path) -> Result<Option<Value>> {
        let path = dir.join("lab.lock");
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path, "open", &e)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let found = record::read(&dir.join("site.json"))?;
                Ok(found.map(|(_, site)| site).filter(|site| !site.is_null()))
            }
            Err(TryLockError::Error(e)) => Err(Error::io(&path, "lock", &e)),
        }
    }

    /// Asks a running site, by its description, for its [`snapshot`](Self::snapshot).
    ///
    /// # Errors
    /// `invalid` if this is no description; otherwise as any request.
    pub async fn query(description: &Value) -> Result<Value> {
        state::query(description).await
    }

    /// Cuts the power and closes every port.
    pub async fn stop(mut self) {
        self.inner.cut_mains();
        for server in self.servers.drain(..) {
            server.stop(Duration::ZERO).await;
        }
        self.tasks.shutdown().await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.inner.cut_mains();
    }
}

impl Inner {
    fn cut_mains(&self) {
        for server in &self.servers {
            server.hardware.cut_mains();
        }
    }
}
