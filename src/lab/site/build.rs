//! How a site comes up.

use super::faults::Faults;
use super::full::full_for;
use super::generations::Generations;
use super::network::{Block, MAX_NODES};
use super::record::{self, NodeRecord, Record, StoreRecord};
use super::{Inner, Server, Site, SiteOptions, describe, state};
use crate::error::{Error, Kind, Result};
use crate::http::Trust;
use crate::http::server::{Identity, serve_tls};
use crate::lab::files::{make_private_dir, write_private};
use crate::lab::ilo::{IloConfig, Machine};
use crate::lab::media::{CONTAINER, DEPLOY_ISO, Media};
use crate::lab::node::{Node, NodeOptions};
use crate::lab::tls::Authority;
use crate::objectstore::{Store, StoreOptions, User};
use crate::openstack::swift::{Body, Swift, SwiftAuth, SwiftOptions, UploadOptions};
use serde_json::Value;
use std::fs::{File, OpenOptions, TryLockError};
use std::net::TcpListener;
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
    pub(super) inner: Inner,
    /// Whose uploads find the store full.
    full_for: Vec<String>,
    lock: File,
    store_listener: TcpListener,
    ilos: Vec<(TcpListener, Identity)>,
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
        let count = options.nodes;
        if count == 0 || count > MAX_NODES {
            let message = format!("a lab has 1 to {MAX_NODES} nodes, not {count}");
            return Err(Error::new(Kind::Invalid, message));
        }
        make_private_dir(&options.dir)?;
        let dir = std::fs::canonicalize(&options.dir);
        let dir = dir.map_err(|e| Error::io(&options.dir, "find", &e))?;
        // Paths go into JSON.
        if dir.to_str().is_none() {
            let message = "the path of a lab directory has to be UTF-8";
            return Err(Error::new(Kind::Invalid, message).target(dir.display().to_string()));
        }
        let lock = take_lock(&dir)?;
        let record = open_record(&dir, count)?;
        let block = record.block;
        let store_listener = block.listen(record.store.port, "the object store")?;
        let nodes = record.nodes.iter().take(count);
        let names: Vec<&str> = nodes.clone().map(|node| node.name.as_str()).collect();
        faults.check_nodes(&names)?;
        generations.check_nodes(&names)?;
        let ilo_listeners = nodes
            .clone()
            .map(|node| block.listen(node.ilo_port, &format!("the iLO of {}", node.name)))
            .collect::<Result<Vec<_>>>()?;
        make_private_dir(&dir.join("tls"))?;
        let authority = Authority::open(&dir.join("tls"))?;
        let identity = authority.issue(&[block.services().into()])?;
        let ilos = nodes.clone().zip(ilo_listeners).map(|(node, listener)| {
            let name = format!("ilo-{}", node.name);
            Ok((listener, authority.keep(&name, block.services().into())?))
        });
        let ilos = ilos.collect::<Result<_>>()?;
        describe::write_api_identity(&dir, &identity)?;
        let media = Media::make(&dir.join("images"))?;
        let trust = Trust::Ca(authority.pem().to_owned());
        let plan = ServerPlan {
            dir: &dir,
            options,
            trust: &trust,
            faults: &faults,
            generations: &generations,
            block,
        };
        let full_for = nodes.clone().filter(|node| faults.fills_store(&node.name));
        let full_for = full_for.map(|node| node.uuid().to_string()).collect();
        let servers = nodes.enumerate();
        let inner = Inner {
            store: Store::open(store_options(&dir, block, &record.store))?,
            store_record: record.store.clone(),
            servers: servers
                .map(|(index, node)| plan.server(index, node))
                .collect::<Result<_>>()?,
            faults: options.faults.clone(),
        };
        Ok(Self {
            dir,
            block,
            record,
            authority,
            media,
            inner,
            full_for,
            lock,
            store_listener,
            ilos,
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

/// What the simulated servers have in common.
#[derive(Debug)]
struct ServerPlan<'a> {
    dir: &'a Path,
    options: &'a SiteOptions,
    trust: &'a Trust,
    faults: &'a Faults,
    generations: &'a Generations,
    block: Block,
}

impl ServerPlan<'_> {
    fn server(&self, index: usize, record: &NodeRecord) -> Result<Server> {
        let folder = self.dir.join("nodes").join(&record.name);
        make_private_dir(&folder)?;
        let password = record.ilo_password.expose().as_bytes();
        write_private(&folder.join("ilo-password"), password)?;
        let node = Node::new(NodeOptions {
            folder,
            address: self.block.node(index),
            disk_bytes: self.options.disk_bytes,
            faults: self.faults.of_node(&record.name),
        })?;
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
            machine: Machine::new(config, Arc::new(node.clone())),
            address: self.block.node(index),
            record: record.clone(),
            generation,
            node,
        })
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
fn open_record(dir: &Path, nodes: usize) -> Result<Record> {
    let path = dir.join("site.json");
    let mut record = match record::read(&path)? {
        Some((record, _)) => record,
        None => Record::new(nodes)?,
    };
    record.block.check_nodes(nodes)?;
    record.add_nodes(nodes)?;
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
