//! The site a command works on: the configured one, or a simulated one.

use super::args::Cli;
use super::format;
use crate::api::Api;
use crate::config::{Config, SecretSource, SwiftSection};
use crate::engine::{CONSOLE, Engine};
use crate::error::{Error, Kind, Result};
use crate::lab::site::{Site as Lab, SiteOptions};
use crate::lua::LuaRuntime;
use crate::lua::bind::{Site, registry};
use crate::lua::spec::Registry;
use crate::secret::Secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Most nodes that a run starts a lab with.
const MAX_LAB_NODES: usize = 64;

/// Most virtual machines; each has its memory.
const MAX_LAB_VMS: usize = 8;

/// A site with its engine.
pub(super) struct Ground {
    pub(super) config: Config,
    pub(super) engine: Engine,
    pub(super) runtime: LuaRuntime,
    pub(super) registry: Arc<Registry>,
    pub(super) site: Arc<Site>,
    pub(super) lab: Option<LabGround>,
}

/// A simulated site: this process's, or another's.
pub(super) struct LabGround {
    pub(super) description: Value,
    pub(super) own: Option<Lab>,
    /// Removed when the program ends.
    _temporary: Option<tempfile::TempDir>,
}

impl LabGround {
    /// What happened on the site.
    pub(super) async fn snapshot(&self) -> Result<Value> {
        match &self.own {
            Some(site) => Ok(site.snapshot()),
            None => Lab::query(&self.description).await,
        }
    }
}

impl Ground {
    /// Opens the site. `nodes` are those the command names; a lab is started with enough of them.
    pub(super) async fn open(cli: &Cli, nodes: &[String], set: &[String]) -> Result<Self> {
        let (mut config, lab) = if cli.lab || cli.lab_dir.is_some() {
            let lab = open_lab(cli, nodes).await?;
            (lab_config(&lab.description)?, Some(lab))
        } else {
            (configured(cli)?, None)
        };
        for name in nodes {
            config.node(name)?;
            if let Some(node) = config.nodes.get_mut(name) {
                set.iter().try_for_each(|assignment| node.set(assignment))?;
            }
        }
        let site = Arc::new(Site::new(config.clone()));
        let registry = Arc::new(registry(&site));
        let runtime = Arc::new(LuaRuntime::new(registry.clone()));
        let engine = Engine::new(&config.state_dir(), registry.clone(), runtime)?;
        if let Some(own) = lab.as_ref().and_then(|lab| lab.own.as_ref()) {
            let engine = engine.clone();
            own.on_console(move |node, line| engine.log_of_node(node, CONSOLE, line));
        }
        let runtime = LuaRuntime::new(registry.clone());
        Ok(Self {
            config,
            engine,
            runtime,
            registry,
            site,
            lab,
        })
    }

    /// What HTTP routes work on.
    pub(super) fn api(&self) -> Result<Api> {
        let runtime = LuaRuntime::new(self.registry.clone());
        Api::new(&self.config, &self.engine, runtime)
    }

    /// Says what is not secure in the connection to a node's iLO.
    pub(super) async fn warn(&self, node: &str) -> Result<()> {
        for text in self.site.warnings(node, self.engine.journal()).await? {
            let warning = format::paint("warning:", "33", format::colours());
            eprintln!("{warning} {text}");
        }
        Ok(())
    }
}

/// The configuration to look at flows with: nothing is started, opened or written. A simulated site
/// that is not up has the nodes that are asked for.
pub(super) fn unopened(cli: &Cli, nodes: &[String]) -> Result<Config> {
    let running = cli.lab_dir.as_deref().map(Lab::running).transpose()?;
    if let Some(description) = running.flatten() {
        return lab_config(&description);
    }
    if !cli.lab && cli.lab_dir.is_none() {
        return configured(cli);
    }
    let mut config = Config::default();
    config.site.flows = vec![PathBuf::from("flows")];
    for name in nodes {
        config
            .nodes
            .insert(name.clone(), crate::config::Node::sample()?);
    }
    Ok(config)
}

pub(super) fn configured(cli: &Cli) -> Result<Config> {
    if let Some(path) = &cli.config {
        return Config::load(path);
    }
    let here = PathBuf::from("flowrun.toml");
    let system = PathBuf::from("/etc/flowrun/flowrun.toml");
    match [here, system].into_iter().find(|path| path.is_file()) {
        Some(path) => Config::load(&path),
        None => Ok(Config::default()),
    }
}

/// Opens the journal alone, for looking.
pub(super) fn state_dir(cli: &Cli) -> Result<PathBuf> {
    let dir = match &cli.lab_dir {
        Some(dir) => dir.join("state"),
        None => configured(cli)?.state_dir(),
    };
    if dir.join("journal.db").is_file() {
        return Ok(dir);
    }
    Err(Error::new(Kind::NotFound, "there are no runs")
        .target(dir.display().to_string())
        .hint("give --lab-dir or --config of the site that ran them"))
}

async fn open_lab(cli: &Cli, nodes: &[String]) -> Result<LabGround> {
    let (dir, temporary) = match &cli.lab_dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let temporary = tempfile::Builder::new().prefix("flowrun-lab-").tempdir();
            let temporary =
                temporary.map_err(|e| Error::new(Kind::Io, "no temporary folder").caused_by(&e))?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    if let Some(description) = Lab::running(&dir)? {
        return Ok(LabGround {
            description,
            own: None,
            _temporary: temporary,
        });
    }
    let site = Lab::start(lab_options(cli, dir, lab_nodes(nodes), vms(nodes))).await?;
    let description = site.describe().clone();
    Ok(LabGround {
        description,
        own: Some(site),
        _temporary: temporary,
    })
}

pub(super) fn lab_options(cli: &Cli, dir: PathBuf, nodes: usize, vms: usize) -> SiteOptions {
    SiteOptions {
        nodes,
        vms,
        vm_parts: cli.lab_vm.clone(),
        vm_deploy_iso: cli.lab_deploy_iso.clone(),
        faults: cli.lab_fault.clone(),
        ilos: cli.lab_ilo.clone(),
        ..SiteOptions::new(dir)
    }
}

/// As many simulated nodes as the highest `lab-N` asked for; one if nothing is.
fn lab_nodes(names: &[String]) -> usize {
    let least = usize::from(vms(names) == 0);
    highest(names, "lab-").clamp(least, MAX_LAB_NODES)
}

/// As many virtual machines as the highest `vm-N` asked for.
fn vms(names: &[String]) -> usize {
    highest(names, "vm-").min(MAX_LAB_VMS)
}

fn highest(names: &[String], prefix: &str) -> usize {
    let numbers = names
        .iter()
        .filter_map(|name| name.strip_prefix(prefix)?.parse().ok());
    numbers.max().unwrap_or(0)
}

/// The lab's description as a configuration.
pub(super) fn lab_config(description: &Value) -> Result<Config> {
    let text = |path: &str| {
        description
            .pointer(path)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| Error::new(Kind::Corrupt, format!("the lab's description lacks {path}")))
    };
    let mut config = Config::default();
    config.site.state_dir = Some(PathBuf::from(text("/dir")?).join("state"));
    config.site.flows = vec![PathBuf::from("flows")];
    config.api.listen = text("/api/listen")?.parse().ok();
    config.api.public_url = Some(text("/api/url")?);
    config.api.tls_cert = Some(text("/api/tls_cert")?.into());
    config.api.tls_key = Some(text("/api/tls_key")?.into());
    config.api.ca_file = Some(text("/ca_file")?.into());
    config.swift = Some(SwiftSection {
        auth_url: Some(text("/object_store/auth_url")?),
        user: Some(text("/object_store/user")?),
        key: Some(SecretSource::Given(Secret::new(text("/object_store/key")?))),
        ca_file: Some(text("/ca_file")?.into()),
        ..SwiftSection::default()
    });
    let [isolinux, ldlinux, grub, mbr] =
        ["0", "1", "2", "3"].map(|n| text(&format!("/boot_loaders/{n}")));
    config.boot_loaders.isolinux = isolinux?.into();
    config.boot_loaders.ldlinux = ldlinux?.into();
    config.boot_loaders.grub = grub?.into();
    config.boot_loaders.mbr = mbr?.into();
    config.nodes = lab_inventory(description, &text("/ca_file")?)?;
    Ok(config)
}

fn lab_inventory(
    description: &Value,
    ca_file: &str,
) -> Result<BTreeMap<String, crate::config::Node>> {
    let mut nodes = BTreeMap::new();
    for item in description
        .get("nodes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let mut fields = item.as_object().cloned().unwrap_or_default();
        let name = fields
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        fields.retain(|key, _| {
            [
                "uuid",
                "ports",
                "driver_info",
                "properties",
                "instance_info",
            ]
            .contains(&key.as_str())
        });
        if let Some(Value::Object(driver)) = fields.get_mut("driver_info") {
            driver.insert("ilo_ca_file".into(), Value::from(ca_file));
        }
        let node = serde_json::from_value(Value::Object(fields)).map_err(|e| {
            Error::new(Kind::Corrupt, format!("the lab's node {name}")).caused_by(&e)
        })?;
        nodes.insert(name, node);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_has_as_many_nodes_as_are_named() {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(lab_nodes(&names(&["lab-2", "lab-7"])), 7);
        assert_eq!(lab_nodes(&names(&["other"])), 1);
        let mixed = names(&["lab-2", "vm-3"]);
        assert_eq!((lab_nodes(&mixed), vms(&mixed)), (2, 3));
        let alone = names(&["vm-1"]);
        assert_eq!((lab_nodes(&alone), vms(&alone)), (0, 1));
        assert_eq!(lab_nodes(&names(&["lab-999999"])), MAX_LAB_NODES);
    }
}
