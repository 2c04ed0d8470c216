//! What a site keeps from one start to the next: its addresses, ports and credentials.

use super::network::{Block, Counts, Place};
use crate::error::{Error, Kind, Result};
use crate::lab::files::read_text;
use crate::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::TcpListener;
use std::path::Path;
use uuid::Uuid;

/// Version of the file's format.
const VERSION: u64 = 1;

/// The part of `site.json` that the next start reads.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    version: u64,
    pub(super) block: Block,
    pub(super) api_port: u16,
    pub(super) store: StoreRecord,
    pub(super) nodes: Vec<NodeRecord>,
    #[serde(default)]
    pub(super) vms: Vec<NodeRecord>,
}

/// The object store.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StoreRecord {
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) key: Secret,
    pub(super) account: String,
    pub(super) temp_url_key: Secret,
}

/// One node.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NodeRecord {
    pub(super) name: String,
    pub(super) ilo_port: u16,
    pub(super) ilo_username: String,
    pub(super) ilo_password: Secret,
}

/// What stands in `site.json`.
#[derive(Debug, Deserialize)]
struct SiteFile {
    keep: Record,
    site: Value,
}

/// What is found in `site.json`.
pub(super) fn read(path: &Path) -> Result<Option<(Record, Value)>> {
    let Some(text) = read_text(path)? else {
        return Ok(None);
    };
    let unusable = |message: String| {
        Error::new(Kind::Corrupt, message)
            .target(path.display().to_string())
            .hint("take another lab directory, or remove this one")
    };
    let file: SiteFile = serde_json::from_str(&text)
        .map_err(|e| unusable(format!("not the description of a lab: {e}")))?;
    if file.keep.version != VERSION {
        let version = file.keep.version;
        return Err(unusable(format!("written by another version ({version})")));
    }
    Ok(Some((file.keep, file.site)))
}

impl Record {
    /// A site without nodes, in a block of addresses of its own.
    pub(super) fn new(counts: Counts) -> Result<Self> {
        let block = Block::choose(counts)?;
        let (api, store) = (block.listen(0, "the API")?, block.listen(0, "the store")?);
        Ok(Self {
            version: VERSION,
            block,
            api_port: port_of(&api)?,
            store: StoreRecord {
                port: port_of(&store)?,
                user: "lab:flowrun".to_owned(),
                key: random_secret()?,
                account: "AUTH_lab".to_owned(),
                temp_url_key: random_secret()?,
            },
            nodes: Vec::new(),
            vms: Vec::new(),
        })
    }

    /// The nodes that run, with where they are.
    pub(super) fn running(&self, counts: Counts) -> impl Iterator<Item = (Place, &NodeRecord)> {
        counts.places().filter_map(|place| {
            let record = match place {
                Place::Simulated(index) => self.nodes.get(index),
                Place::Vm(index) => self.vms.get(index),
            };
            Some((place, record?))
        })
    }

    /// Adds nodes until there are so many.
    pub(super) fn add_nodes(&mut self, counts: Counts) -> Result<()> {
        // While a port is chosen, the others must not look free.
        let block = self.block;
        let nodes = self.nodes.iter().chain(&self.vms);
        let known = nodes.map(|node| node.ilo_port);
        let known = known.chain([self.api_port, self.store.port]);
        let mut taken: Vec<TcpListener> = known
            .filter_map(|port| TcpListener::bind((block.services(), port)).ok())
            .collect();
        let kinds = [
            ("lab", &mut self.nodes, counts.simulated),
            ("vm", &mut self.vms, counts.vms),
        ];
        for (prefix, nodes, count) in kinds {
            while nodes.len() < count {
                let listener = block.listen(0, "iLO")?;
                let ilo_port = port_of(&listener)?;
                taken.push(listener);
                nodes.push(NodeRecord {
                    name: format!("{prefix}-{}", nodes.len() + 1),
                    ilo_port,
                    ilo_username: "Administrator".to_owned(),
                    ilo_password: random_secret()?,
                });
            }
        }
        Ok(())
    }

    /// What is written, secrets included; `site` is for other processes to read.
    pub(super) fn to_file(&self, site: &Value) -> Value {
        let nodes: Vec<Value> = self.nodes.iter().map(NodeRecord::to_json).collect();
        let vms: Vec<Value> = self.vms.iter().map(NodeRecord::to_json).collect();
        let store = &self.store;
        json!({
            "keep": {
                "version": self.version,
                "block": self.block,
                "api_port": self.api_port,
                "store": {
                    "port": store.port,
                    "user": store.user,
                    "key": store.key.expose(),
                    "account": store.account,
                    "temp_url_key": store.temp_url_key.expose(),
                },
                "nodes": nodes,
                "vms": vms,
            },
            "site": site,
        })
    }
}

impl NodeRecord {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "ilo_port": self.ilo_port,
            "ilo_username": self.ilo_username,
            "ilo_password": self.ilo_password.expose(),
        })
    }

    /// The same for a name in every lab.
    pub(super) fn uuid(&self) -> Uuid {
        let digest = self.digest();
        let bytes = digest.first_chunk::<16>().copied().unwrap_or_default();
        // A UUID of version 8: its other bits are the application's.
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// A locally administered address, the same for a name in every lab.
    pub(super) fn mac(&self) -> String {
        let digest = self.digest();
        let tail = digest.last_chunk::<5>().copied().unwrap_or_default();
        let tail: Vec<String> = tail.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("02:{}", tail.join(":"))
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(format!("flowrun lab node {}", self.name)).into()
    }
}

/// 160 random bits in hex.
fn random_secret() -> Result<Secret> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(Kind::Internal, format!("no random numbers: {e}")))?;
    Ok(Secret::new(hex::encode(bytes)))
}

fn port_of(listener: &TcpListener) -> Result<u16> {
    let address = listener.local_addr();
    let address = address.map_err(|e| Error::new(Kind::Io, format!("no local address: {e}")))?;
    Ok(address.port())
}
