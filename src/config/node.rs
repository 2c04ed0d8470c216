//! `[nodes.…]`: the servers.

use crate::error::{Error, Kind, Result};
use crate::suggest::near;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

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

/// Refuses a key that means nothing, with the near miss.
pub(super) fn known(section: &str, key: &str) -> Result<()> {
    if INSTANCE_INFO.contains(&key) {
        return Ok(());
    }
    let error = Error::new(Kind::Invalid, format!("there is no {section}.{key}"));
    Err(match near(key, &INSTANCE_INFO) {
        Some(near) => error.hint(format!("did you mean {section}.{near}?")),
        None => error.hint(format!("known are {}", INSTANCE_INFO.join(", "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_changes_a_node() {
        let mut node = Node::sample().unwrap();
        node.instance_info.clear();
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
