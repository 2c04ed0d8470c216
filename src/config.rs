//! `flowrun.toml`: the site and its nodes, valid once it is loaded.

mod clouds;
mod openstack;

pub use openstack::{GlanceSection, KeystoneSection, SwiftSection, TempUrlKeyOwner};

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::suggest::near;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
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

/// A server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Identifies it to its ramdisk.
    pub uuid: String,
    /// MAC addresses.
    #[serde(default)]
    pub ports: Vec<String>,
    /// How to drive it.
    pub driver_info: DriverInfo,
    /// What it is; `capabilities` and the like.
    #[serde(default)]
    pub properties: Map<String, Value>,
    /// What to deploy.
    #[serde(default)]
    pub instance_info: Map<String, Value>,
}

/// Most nodes that a hint names.
const MAX_NAMED: usize = 12;

/// `driver_info`, with Ironic's names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriverInfo {
    /// Host, `host:port` or `https://…` of the iLO.
    pub ilo_address: String,
    /// Its user.
    pub ilo_username: String,
    /// File with the user's password.
    #[serde(skip_serializing)]
    pub ilo_password_file: PathBuf,
    /// The authority that signed the iLO's certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ilo_ca_file: Option<PathBuf>,
    /// SHA-256 of the one certificate that is accepted from the iLO, in hexadecimal digits. It goes
    /// before one that was pinned with `flowrun node trust`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ilo_fingerprint: Option<String>,
    /// Accepts any certificate of the iLO unless one is pinned. Only by explicit word; every run
    /// warns of it.
    #[serde(default)]
    pub ilo_insecure: bool,
    /// Speaks RIBCL over TLS before 1.2, for old iLO 4 firmware; needs a build with `legacy-tls`.
    #[serde(default)]
    pub ilo_legacy_tls: bool,
    /// The deploy ramdisk's ISO: an image of Glance, `swift:container/object`, a URL or a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy_iso: Option<String>,
    /// What Ironic called it until its Xena release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ilo_deploy_iso: Option<String>,
    /// How this node reaches the callback listener, where that is not `api.public_url`: a node in
    /// a network behind a router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_callback_url: Option<String>,
}

impl DriverInfo {
    /// `https://host[:port]` of the iLO.
    #[must_use]
    pub fn ilo_url(&self) -> String {
        match self.ilo_address.contains("://") {
            true => self.ilo_address.clone(),
            false => format!("https://{}", self.ilo_address),
        }
    }
}

/// Keys of `instance_info` that mean something.
const INSTANCE_INFO: [&str; 21] = [
    "image_source",
    "image_checksum",
    "image_format",
    "image_type",
    "image_boot_iso",
    "kernel",
    "kernel_checksum",
    "kernel_append_params",
    "ramdisk",
    "ramdisk_checksum",
    "boot_iso",
    "ilo_boot_iso",
    "root_gb",
    "swap_mb",
    "ephemeral_gb",
    "ephemeral_format",
    "preserve_ephemeral",
    "configdrive",
    "disk_is_zero",
    "fit_gpt",
    "capabilities",
];

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
                known("instance_info", key).map_err(|e| e.op(format!("nodes.{name}")))?;
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

impl Node {
    /// A server that has what flows ask for, to look at a flow without a site. Its addresses are
    /// those of documentation (RFC 5737).
    ///
    /// # Errors
    /// Never, as a test shows.
    pub fn sample() -> Result<Self> {
        let fields = json!({
            "uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c781",
            "ports": ["52:54:00:12:34:56"],
            "driver_info": {
                "ilo_address": "192.0.2.7",
                "ilo_username": "sample",
                "ilo_password_file": "/nonexistent/ilo-password",
                "deploy_iso": "swift:images/deploy.iso",
            },
            "instance_info": {
                "image_source": "/srv/images/sample.qcow2",
                "image_checksum": "0".repeat(64),
                "root_gb": 20,
            },
        });
        serde_json::from_value(fields)
            .map_err(|e| Error::new(Kind::Internal, "the sample node").caused_by(&e))
    }

    /// Changes a field by `section.key=value`, as `--set` takes it.
    ///
    /// # Errors
    /// As [`Self::assign`].
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let (path, value) = assignment_of(assignment)?;
        self.assign(path, value)
    }

    /// Changes the field `section.key`.
    ///
    /// # Errors
    /// `invalid` with the near miss.
    pub fn assign(&mut self, path: &str, value: Value) -> Result<()> {
        let (section, key) = path.split_once('.').unwrap_or((path, ""));
        match (section, key) {
            ("instance_info", key) => {
                known("instance_info", key)?;
                if key == "image_source" {
                    // What is known of the old image says nothing of the new one.
                    self.instance_info.retain(|k, _| !k.starts_with("image_"));
                }
                self.instance_info.insert(key.to_owned(), value);
            }
            ("properties", key) => drop(self.properties.insert(key.to_owned(), value)),
            ("driver_info", "deploy_iso") => self.driver_info.deploy_iso = Some(text(value)),
            ("driver_info", "ilo_address") => self.driver_info.ilo_address = text(value),
            ("driver_info", "ilo_username") => self.driver_info.ilo_username = text(value),
            ("driver_info", "ilo_password_file") => {
                self.driver_info.ilo_password_file = PathBuf::from(text(value));
            }
            _ => {
                return Err(Error::new(Kind::Invalid, format!("{path} cannot be set"))
                    .hint("set instance_info.*, properties.* or driver_info.{deploy_iso,ilo_address,ilo_username,ilo_password_file}"));
            }
        }
        Ok(())
    }

    /// The node as flows see it, without secrets.
    #[must_use]
    pub fn view(&self, name: &str) -> Value {
        json!({
            "name": name,
            "uuid": self.uuid,
            "ports": self.ports,
            "driver_info": self.driver_info,
            "properties": self.properties,
            "instance_info": self.instance_info,
        })
    }
}

/// `section.key=value` in its parts. The value is JSON if it reads as JSON, else text.
///
/// # Errors
/// `invalid` if it has no such parts.
pub fn assignment_of(assignment: &str) -> Result<(&str, Value)> {
    let parts = assignment.split_once('=');
    let (path, text) = parts
        .filter(|(path, _)| path.contains('.'))
        .ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                format!("--set {assignment:?} is not understood"),
            )
            .hint("--set instance_info.root_gb=20")
        })?;
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    Ok((path, value))
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nodes {
    nodes: BTreeMap<String, Node>,
}

fn known(section: &str, key: &str) -> Result<()> {
    if INSTANCE_INFO.contains(&key) {
        return Ok(());
    }
    let error = Error::new(Kind::Invalid, format!("there is no {section}.{key}"));
    Err(match near(key, &INSTANCE_INFO) {
        Some(near) => error.hint(format!("did you mean {section}.{near}?")),
        None => error.hint(format!("known are {}", INSTANCE_INFO.join(", "))),
    })
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

    #[test]
    fn set_changes_a_node() {
        let mut node = load(NODE).unwrap().nodes.remove("n1").unwrap();
        node.set("instance_info.root_gb=20").unwrap();
        node.set("instance_info.image_source=/a b.img").unwrap();
        let view = node.view("n1");
        assert_eq!(
            view["instance_info"],
            json!({ "root_gb": 20, "image_source": "/a b.img" })
        );
        assert!(view["driver_info"].get("ilo_password_file").is_none());
        assert_eq!(
            node.set("instance_info.rot_gb=1").unwrap_err().kind(),
            Kind::Invalid
        );
        assert_eq!(node.set("uuid=1").unwrap_err().kind(), Kind::Invalid);
    }
}
