//! `flowrun.toml`: the site and its nodes, valid once it is loaded.

mod clouds;
mod node;
mod openstack;

pub use node::{DriverInfo, Node, assignment_of};
pub use openstack::{GlanceSection, KeystoneSection, SwiftSection, TempUrlKeyOwner};

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::suggest::near;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything that a site configures.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where things are.
    pub site: SiteSection,
    /// The listener for callbacks, and of `flowrun serve`.
    pub api: ApiSection,
    /// OpenStack's Keystone, and through it the other services.
    pub keystone: Option<KeystoneSection>,
    /// The object store; absent, with `[keystone]`: the one in its catalogue.
    pub swift: Option<SwiftSection>,
    /// The image service of Keystone's catalogue.
    pub glance: GlanceSection,
    /// Container for floppies and boot ISOs.
    pub swift_ilo_container: Container,
    /// How long floppies and their URLs live, in minutes, as in the specification.
    pub deploy_helper_images_ttl: Minutes,
    /// Where the loaders of boot ISOs are.
    pub boot_loaders: BootLoadersSection,
    /// Where images are kept that were fetched.
    pub image_cache: ImageCacheSection,
    /// What `http.*` may reach.
    pub http: HttpSection,
    /// Secrets that flows may use, by name.
    pub secrets: BTreeMap<String, SecretSource>,
    /// The servers, by name.
    pub nodes: BTreeMap<String, Node>,
}

/// A container's name; `ironic_ilo_container` unless configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Container(pub String);

impl Default for Container {
    fn default() -> Self {
        Self("ironic_ilo_container".into())
    }
}

/// A time in minutes; 10 unless configured.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub struct Minutes(pub u32);

impl Default for Minutes {
    fn default() -> Self {
        Self(10)
    }
}

/// `[site]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteSection {
    /// Journal, keys and artifacts; default `/var/lib/flowrun`, or `flowrun` in the user's state
    /// folder for anybody but root.
    pub state_dir: Option<PathBuf>,
    /// Folders in which flows are found by name.
    pub flows: Vec<PathBuf>,
    /// How a daemon notices edits in them.
    pub flow_watch: FlowWatch,
    /// How long a daemon keeps what ended runs told.
    pub keep_runs_days: Days,
}

/// A time in days; 90 unless configured. 0 is for ever.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub struct Days(pub u32);

impl Default for Days {
    fn default() -> Self {
        Self(90)
    }
}

/// How edits of flows are noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowWatch {
    /// The kernel tells; where it cannot (network file systems), the folders are polled.
    #[default]
    Auto,
    /// The folders are read every two seconds.
    Poll,
}

/// `[api]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSection {
    /// Where the callback listener listens.
    pub listen: Option<SocketAddr>,
    /// How nodes reach it.
    pub public_url: Option<String>,
    /// Its certificate chain, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// The authority that ramdisks shall trust, PEM; it travels on the floppy.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of each operator's token, in hexadecimal digits.
    pub token_sha256: Vec<String>,
    /// The authority whose client certificates stand for a token, PEM.
    pub client_ca: Option<PathBuf>,
    /// Listens beyond this host without TLS, or without token and client CA. Only by explicit
    /// word.
    pub insecure: bool,
}

/// `[image_cache]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageCacheSection {
    /// Its folder; absent: `images` in the state folder.
    pub dir: Option<PathBuf>,
    /// Size of all images together, in MiB; what is not in use is evicted.
    pub size_mb: u64,
    /// How long an image stays that nobody uses, in minutes.
    pub ttl_minutes: u64,
}

/// Ironic's `image_cache_size` and `image_cache_ttl`.
impl Default for ImageCacheSection {
    fn default() -> Self {
        Self {
            dir: None,
            size_mb: 20_480,
            ttl_minutes: 10_080,
        }
    }
}

/// `[boot_loaders]`; the defaults are where Debian's packages put them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootLoadersSection {
    /// ISOLINUX, `isolinux.bin`.
    pub isolinux: PathBuf,
    /// Its `ldlinux.c32`, of the same release.
    pub ldlinux: PathBuf,
    /// GRUB for UEFI, built for CDs; the signed one if there is a shim.
    pub grub: PathBuf,
    /// shim, for UEFI Secure Boot; absent: firmware starts GRUB itself.
    pub shim: Option<PathBuf>,
    /// Code for sector 0 of BIOS disks, up to 440 bytes: it starts the active partition.
    pub mbr: PathBuf,
}

impl Default for BootLoadersSection {
    fn default() -> Self {
        Self {
            isolinux: "/usr/lib/ISOLINUX/isolinux.bin".into(),
            ldlinux: "/usr/lib/syslinux/modules/bios/ldlinux.c32".into(),
            grub: "/usr/lib/grub/x86_64-efi/monolithic/gcdx64.efi".into(),
            shim: None,
            mbr: "/usr/lib/syslinux/mbr/mbr.bin".into(),
        }
    }
}

/// `[http]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSection {
    /// Hosts (`name` or `name:port`) that flows may call.
    pub allow: Vec<String>,
    /// The authority that signed their certificates, PEM; absent: the system's.
    pub ca_file: Option<PathBuf>,
}

/// Where a secret is: `{ file = "…" }` or `{ env = "…" }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum SecretSource {
    /// A file; a newline at its end does not count.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// Given by the program itself; configuration files cannot hold secrets.
    #[serde(skip)]
    Given(Secret),
}

impl SecretSource {
    /// Reads the secret.
    ///
    /// # Errors
    /// `not_found` or `io` if it is not there.
    pub fn read(&self) -> Result<Secret> {
        match self {
            Self::Given(secret) => Ok(secret.clone()),
            Self::Env(name) => std::env::var(name).map(Secret::new).map_err(|_| {
                Error::new(
                    Kind::NotFound,
                    format!("the environment variable {name} is not set"),
                )
            }),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| Error::io(path, "read the secret", &e))?;
                Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
            }
        }
    }
}

/// Most nodes that a hint names.
const MAX_NAMED: usize = 12;

impl Config {
    /// Loads a file and, beside it, `nodes.d/*.toml`.
    ///
    /// # Errors
    /// `not_found` or `io` for a file, `invalid` with file, line and the near miss.
    pub fn load(path: &Path) -> Result<Self> {
        let mut config: Self = parse(path)?;
        let folder = path
            .parent()
            .unwrap_or_else(|| Path::new(""))
            .join("nodes.d");
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.retain(|file| file.extension().is_some_and(|e| e == "toml"));
        files.sort();
        for file in files {
            let more: Nodes = parse(&file)?;
            for (name, node) in more.nodes {
                if config.nodes.insert(name.clone(), node).is_some() {
                    return Err(Error::new(
                        Kind::Invalid,
                        format!("the node {name} is there twice"),
                    )
                    .target(file.display().to_string()));
                }
            }
        }
        config
            .check()
            .map_err(|e| e.target(path.display().to_string()))?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if let Some(swift) = &self.swift {
            let login = [
                swift.auth_url.is_some(),
                swift.user.is_some(),
                swift.key.is_some(),
            ];
            let given = login.iter().filter(|given| **given).count();
            if given != 3 && (given > 0 || self.keystone.is_none()) {
                return Err(Error::new(Kind::Invalid, "[swift] is not complete")
                    .hint("give auth_url, user and key, or none of them and [keystone]"));
            }
        }
        for (name, node) in &self.nodes {
            if uuid::Uuid::parse_str(&node.uuid).is_err() {
                let message = format!("nodes.{name}.uuid: {:?} is not a UUID", node.uuid);
                return Err(Error::new(Kind::Invalid, message));
            }
            for key in node.instance_info.keys() {
                node::known("instance_info", key).map_err(|e| e.op(format!("nodes.{name}")))?;
            }
        }
        Ok(())
    }

    /// Where journal, keys and artifacts are.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        if let Some(dir) = &self.site.state_dir {
            return dir.clone();
        }
        let home = std::env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(|| {
                std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"))
            });
        let system = PathBuf::from("/var/lib/flowrun");
        match home {
            Some(home) if !system.is_dir() => home.join("flowrun"),
            _ => system,
        }
    }

    /// The node of this name.
    ///
    /// # Errors
    /// `not_found` with the near miss.
    pub fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.get(name).ok_or_else(|| {
            let names: Vec<_> = self.nodes.keys().map(String::as_str).collect();
            let error = Error::new(Kind::NotFound, format!("there is no node {name}"));
            match near(name, &names) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None if names.is_empty() => {
                    error.hint("no nodes are configured; --lab brings a simulated site")
                }
                None if names.len() > MAX_NAMED => error.hint("`flowrun node list` lists them"),
                None => error.hint(format!("there are {}", names.join(", "))),
            }
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nodes {
    nodes: BTreeMap<String, Node>,
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::io(path, "read the configuration", &e))?;
    toml::from_str(&text).map_err(|e| {
        let line = e.span().map(|span| {
            text.get(..span.start)
                .unwrap_or_default()
                .matches('\n')
                .count()
                + 1
        });
        let place = line.map_or_else(String::new, |line| format!(":{line}"));
        let message = e.message().lines().next().unwrap_or_default().to_owned();
        let error =
            Error::new(Kind::Invalid, message.clone()).target(format!("{}{place}", path.display()));
        match unknown_field(&message) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        }
    })
}

/// The near miss in serde's "unknown field `x`, expected one of `a`, `b`".
fn unknown_field(message: &str) -> Option<String> {
    let rest = message.strip_prefix("unknown field `")?;
    let (unknown, expected) = rest.split_once('`')?;
    let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    near(unknown, &names).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "[nodes.n1]\nuuid = \"1be26c0b-03f2-4d2e-ae87-c02d7f33c781\"\n\
        driver_info = { ilo_address = \"10.0.0.1\", ilo_username = \"u\", ilo_password_file = \"/p\" }\n";

    fn load(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flowrun.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn defaults_are_the_specifications() {
        let config = load(NODE).unwrap();
        assert_eq!(config.swift_ilo_container.0, "ironic_ilo_container");
        assert_eq!(config.deploy_helper_images_ttl.0, 10);
        assert_eq!(config.node("n1").unwrap().driver_info.ilo_username, "u");
        assert_eq!(
            config.node("n2").unwrap_err().advice(),
            Some("did you mean n1?")
        );
    }

    #[test]
    fn a_wrong_key_is_named_with_line_and_near_miss() {
        let error = load(&format!("{NODE}[api]\nlistem = \"x\"\n")).unwrap_err();
        assert!(error.on().ends_with("flowrun.toml:5"), "{error}");
        assert_eq!(error.advice(), Some("did you mean `listen`?"));
        let error = load(&format!("{NODE}instance_info = {{ rootgb = 3 }}\n")).unwrap_err();
        assert_eq!(error.advice(), Some("did you mean instance_info.root_gb?"));
    }
}
