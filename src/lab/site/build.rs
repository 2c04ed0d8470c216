//! How a site comes up.

use super::faults::Faults;
use super::full::full_for;
use super::generations::Generations;
use super::hardware::Hardware;
use super::machines::Machines;
use super::network::{Block, Counts, Place};
use super::record::{self, NodeRecord, Record, StoreRecord};
use super::{Inner, Server, Site, SiteOptions, deploy_iso, describe, state};
use crate::error::{Error, Kind, Result};
use crate::http::Trust;
use crate::http::server::{Identity, ServerHandle, serve_tls};
use crate::lab::files::{make_private_dir, write_private};
use crate::lab::ilo::{IloConfig, Machine};
use crate::lab::media::{CONTAINER, DEPLOY_ISO, Media};
use crate::lab::node::{Node, NodeOptions};
use crate::lab::tls::Authority;
use crate::lab::vm::{Vm, VmOptions, gateway};
use crate::objectstore::{Store, StoreOptions, User};
use crate::openstack::swift::{Body, Swift, SwiftAuth, SwiftOptions, UploadOptions};
use serde_json::Value;
use std::fs::{File, OpenOptions, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// For how long a lab directory may look taken.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(30);

/// A site before anything of it runs.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) dir: PathBuf,
    pub(super) block: Block,
    pub(super) record: Record,
    pub(super) authority: Authority,
    pub(super) media: Media,
    /// What virtual machines deploy with, if there are any.
    pub(super) vm_deploy_iso: Option<PathBuf>,
    pub(super) inner: Inner,
    /// Whose uploads find the store full.
    full_for: Vec<String>,
    lock: File,
    store_listener: TcpListener,
    ilos: Vec<(TcpListener, Identity)>,
    gateways: Vec<Gateway>,
    identity: Identity,
}

pub(super) async fn start(options: SiteOptions) -> Result<Site> {
    let prepared = tokio::task::spawn_blocking(move || Ground::prepare(&options)).await;
    let ground =
        prepared.map_err(|e| Error::new(Kind::Internal, "the lab broke").caused_by(&e))??;
    ground.serve().await
}

impl Ground {
    /// Takes the directory and makes every file in it. Blocks.
    fn prepare(options: &SiteOptions) -> Result<Self> {
        let faults = Faults::parse(&options.faults)?;
        let generations = Generations::parse(&options.ilos)?;
        let machines = Machines::parse(&options.vm_parts)?;
        let counts = Counts {
            simulated: options.nodes,
            vms: options.vms,
        };
        counts.check()?;
        make_private_dir(&options.dir)?;
        let dir = place(&options.dir)?;
        let lock = take_lock(&dir)?;
        let record = open_record(&dir, counts)?;
        let block = record.block;
        let store_listener = block.listen(record.store.port, "the object store")?;
        let nodes: Vec<(Place, &NodeRecord)> = record.running(counts).collect();
        let names: Vec<&str> = nodes.iter().map(|(_, node)| node.name.as_str()).collect();
        faults.check_nodes(&names)?;
        generations.check_nodes(&names)?;
        machines.check_nodes(&names)?;
        make_private_dir(&dir.join("tls"))?;
        let authority = Authority::open(&dir.join("tls"))?;
        let identity = authority.issue(&[block.services().into()])?;
        let ilos = nodes.iter().map(|(_, node)| {
            let listener = block.listen(node.ilo_port, &format!("the iLO of {}", node.name))?;
            let name = format!("ilo-{}", node.name);
            Ok((listener, authority.keep(&name, block.services().into())?))
        });
        let ilos = ilos.collect::<Result<_>>()?;
        describe::write_api_identity(&dir, &identity)?;
        let media = Media::make(&dir.join("images"))?;
        let vm_deploy_iso = (options.vms > 0)
            .then(|| deploy_iso::prepare(&dir.join("images"), options.vm_deploy_iso.as_deref()))
            .transpose()?;
        let trust = Trust::Ca(authority.pem().to_owned());
        let plan = ServerPlan {
            dir: &dir,
            options,
            trust: &trust,
            faults: &faults,
            generations: &generations,
            machines: &machines,
            block,
        };
        let full_for = nodes
            .iter()
            .filter(|(_, node)| faults.fills_store(&node.name));
        let full_for = full_for.map(|(_, node)| node.uuid().to_string()).collect();
        let (servers, gateways) = plan.servers(&nodes, &authority)?;
        let inner = Inner {
            store: Store::open(store_options(&dir, block, &record.store))?,
            store_record: record.store.clone(),
            servers,
            faults: options.faults.clone(),
        };
        Ok(Self {
            dir,
            block,
            record,
            authority,
            media,
            vm_deploy_iso,
            inner,
            full_for,
            lock,
            store_listener,
            ilos,
            gateways,
            identity,
        })
    }

    /// Starts the servers and puts the deploy ISO into the store.
    async fn serve(self) -> Result<Site> {
        let description = describe::site(&self);
        let inner = Arc::new(self.inner);
        let store = full_for(inner.store.router(), self.full_for);
        let router = store.merge(state::router(&inner));
        let mut servers = vec![serve_tls(self.store_listener, router, &self.identity)?];
        for (server, (listener, identity)) in inner.servers.iter().zip(self.ilos) {
            servers.push(serve_tls(listener, server.machine.router(), &identity)?);
        }
        let trust = Trust::Ca(self.authority.pem().to_owned());
        let api_url = self.block.url(self.record.api_port);
        for gateway in self.gateways {
            servers.push(gateway.serve(&trust, api_url.clone())?);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&inner.store).expire_loop());
        let site = Site {
            inner,
            description,
            servers,
            tasks,
            _lock: self.lock,
        };
        upload(&self.record.store, self.block, &self.authority, &self.media).await?;
        let file = self.record.to_file(&site.description).to_string();
        let path = self.dir.join("site.json");
        let written = tokio::task::spawn_blocking(move || write_private(&path, file.as_bytes()));
        written
            .await
            .map_err(|e| Error::new(Kind::Internal, "the lab broke").caused_by(&e))??;
        Ok(site)
    }
}

/// A virtual machine's way to the deployer, before anything is served.
#[derive(Debug)]
struct Gateway {
    listener: TcpListener,
    identity: Identity,
    /// As the machine sees it.
    url: String,
    machine: Ipv4Addr,
}

impl Gateway {
    fn open(authority: &Authority, machine: Ipv4Addr) -> Result<Self> {
        // Where QEMU's network shows its host, which is no other address of it.
        let failed = |e: std::io::Error| {
            Error::new(Kind::Io, format!("no port for a machine's router: {e}"))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self {
            listener,
            identity: authority.issue(&[gateway::HOST.into()])?,
            url: format!("https://{}:{port}", gateway::HOST),
            machine,
        })
    }

    fn serve(self, trust: &Trust, api_url: String) -> Result<ServerHandle> {
        gateway::serve(self.listener, &self.identity, trust, api_url, self.machine)
    }
}

/// What the servers have in common.
#[derive(Debug)]
struct ServerPlan<'a> {
    dir: &'a Path,
    options: &'a SiteOptions,
    trust: &'a Trust,
    faults: &'a Faults,
    generations: &'a Generations,
    machines: &'a Machines,
    block: Block,
}

impl ServerPlan<'_> {
    /// The servers, and the routers of those that are virtual machines.
    fn servers(
        &self,
        nodes: &[(Place, &NodeRecord)],
        authority: &Authority,
    ) -> Result<(Vec<Server>, Vec<Gateway>)> {
        let (mut servers, mut gateways) = (Vec::new(), Vec::new());
        for (place, record) in nodes {
            let mut server = self.server(*place, record)?;
            if let Place::Vm(_) = place {
                let gateway = Gateway::open(authority, server.address)?;
                server.callback_url = Some(gateway.url.clone());
                gateways.push(gateway);
            }
            servers.push(server);
        }
        Ok((servers, gateways))
    }

    fn server(&self, place: Place, record: &NodeRecord) -> Result<Server> {
        let folder = self.dir.join("nodes").join(&record.name);
        make_private_dir(&folder)?;
        let password = record.ilo_password.expose().as_bytes();
        write_private(&folder.join("ilo-password"), password)?;
        let address = self.block.node(place);
        let (index, hardware) = match place {
            Place::Simulated(index) => {
                let options = NodeOptions {
                    folder,
                    address,
                    disk_bytes: self.options.disk_bytes,
                    faults: self.faults.of_node(&record.name),
                };
                (index, Hardware::Simulated(Node::new(options)?))
            }
            Place::Vm(index) => {
                let options = VmOptions {
                    name: record.name.clone(),
                    folder,
                    address,
                    uuid: record.uuid(),
                    mac: record.mac(),
                    disk_bytes: self.options.disk_bytes,
                    parts: self.machines.of(&record.name),
                };
                (index, Hardware::Vm(Vm::new(options)?))
            }
        };
        let generation = self.generations.of(index, &record.name);
        let config = IloConfig {
            generation,
            name: record.name.clone(),
            uuid: record.uuid(),
            username: record.ilo_username.clone(),
            password: record.ilo_password.clone(),
            post_time: self.options.post_time,
            media_trust: self.trust.clone(),
            faults: self.faults.of_ilo(&record.name),
        };
        Ok(Server {
            machine: Machine::new(config, hardware.host()),
            address,
            record: record.clone(),
            generation,
            hardware,
            callback_url: None,
        })
    }
}

/// The path of a lab directory as it goes into JSON.
fn place(dir: &Path) -> Result<PathBuf> {
    let dir = std::fs::canonicalize(dir).map_err(|e| Error::io(dir, "find", &e))?;
    match dir.to_str() {
        Some(_) => Ok(dir),
        None => {
            let message = "the path of a lab directory has to be UTF-8";
            Err(Error::new(Kind::Invalid, message).target(dir.display().to_string()))
        }
    }
}

/// One process has a lab directory at a time.
fn take_lock(dir: &Path) -> Result<File> {
    let path = dir.join("lab.lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let lock = lock.map_err(|e| Error::io(&path, "open", &e))?;
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            // Whoever asks whether a site is up holds the lock for a moment.
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(LOCK_PAUSE),
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, "lock", &e)),
        }
    }
    let error = Error::new(Kind::Conflict, "another process has this lab up");
    Err(error
        .target(dir.display().to_string())
        .hint("use that one, stop it, or take another lab directory"))
}

/// What the site was, extended to so many nodes, and kept from here on.
fn open_record(dir: &Path, counts: Counts) -> Result<Record> {
    let path = dir.join("site.json");
    let mut record = match record::read(&path)? {
        Some((record, _)) => record,
        None => Record::new(counts)?,
    };
    record.block.check_nodes(counts)?;
    record.add_nodes(counts)?;
    let file = record.to_file(&Value::Null).to_string();
    write_private(&path, file.as_bytes())?;
    Ok(record)
}

fn store_options(dir: &Path, block: Block, record: &StoreRecord) -> StoreOptions {
    let user = User {
        name: record.user.clone(),
        key: record.key.clone(),
    };
    StoreOptions {
        account: record.account.clone(),
        temp_url_keys: vec![record.temp_url_key.clone()],
        public_url: Some(block.url(record.port)),
        ..StoreOptions::new(dir.join("store"), user)
    }
}

/// Puts the deploy ISO into the store, as an operator does, unless this very one is there.
async fn upload(
    store: &StoreRecord,
    block: Block,
    authority: &Authority,
    media: &Media,
) -> Result<()> {
    let auth = SwiftAuth::V1 {
        auth_url: format!("{}/auth/v1.0", block.url(store.port)),
        user: store.user.clone(),
        key: store.key.clone(),
    };
    let swift = Swift::new(SwiftOptions::new(
        auth,
        Trust::Ca(authority.pem().to_owned()),
    ))?;
    let options = UploadOptions {
        create_container: true,
        ..UploadOptions::default()
    };
    let body = Body::File(media.deploy_iso.clone());
    swift.upload(CONTAINER, DEPLOY_ISO, body, options).await?;
    Ok(())
}
