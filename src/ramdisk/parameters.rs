//! The parameters of one deployment, as the ramdisk reads them.

use super::addressing::Addressing;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use std::net::IpAddr;
use std::str::FromStr;
use uuid::Uuid;

/// Whom the disk is exported to, and where to call.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// UUID of the node.
    pub deployment_id: Uuid,
    /// Proves to the deployer that the call comes from the ramdisk it booted.
    pub deployment_key: Secret,
    /// Name of the iSCSI target.
    pub iscsi_target_iqn: String,
    /// Root of the deployer's API, without a trailing slash.
    pub ironic_api_url: String,
    /// The initiator that may log in; absent: any.
    pub initiator: Option<String>,
    /// What the initiator has to prove; absent: nothing.
    pub chap: Option<Chap>,
    /// Serial number of the server that is meant, as its iLO tells it.
    pub server_serial: Option<String>,
    /// Its UUID, likewise.
    pub server_uuid: Option<Uuid>,
    /// MAC address of the interface to use (`AA:BB:CC:DD:EE:FF`).
    pub bootif: Option<String>,
    /// How to get onto the network.
    pub addressing: Addressing,
    /// `deploy_address`: where the deployer reaches the node, if that is not its own address.
    pub deploy_address: Option<IpAddr>,
    /// Root device hints, as Ironic writes them: `size=500,model=LOGICAL%20VOLUME`.
    pub root_device: Option<String>,
    /// Whether signatures of what was on the disk are to be wiped before it is exported.
    pub wipe_disk_metadata: bool,
    /// When the run began, in seconds since 1970, for a node whose clock is wrong.
    pub time: Option<u64>,
}

/// CHAP credentials of the initiator.
#[derive(Debug, Clone)]
pub struct Chap {
    /// The CHAP name.
    pub user: String,
    /// The CHAP secret.
    pub secret: Secret,
}

impl Parameters {
    /// Reads `key=value` words. Of a key that occurs twice the first one counts.
    ///
    /// # Errors
    /// `invalid` that names every missing key, or the one with an impossible value.
    pub fn parse(text: &str) -> Result<Self> {
        Self::from_words(text).map_err(|e| e.op("ramdisk.parameters"))
    }

    fn from_words(text: &str) -> Result<Self> {
        const REQUIRED: [&str; 4] = [
            "deployment_id",
            "deployment_key",
            "iscsi_target_iqn",
            "ironic_api_url",
        ];
        let missing: Vec<&str> = REQUIRED
            .into_iter()
            .filter(|name| word(text, name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(invalid(format!("missing: {}", missing.join(", "))));
        }
        let required = |name: &str| word(text, name).unwrap_or_default().to_owned();
        let id = required("deployment_id");
        let deployment_id = Uuid::parse_str(&id)
            .map_err(|_| invalid(format!("deployment_id is {id:?}, not a UUID")))?;
        let url = required("ironic_api_url");
        let parsed = reqwest::Url::parse(&url).ok();
        if !parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            return Err(invalid(format!(
                "ironic_api_url is {url:?}, not an HTTP URL"
            )));
        }
        let chap = match (
            word(text, "iscsi_chap_user"),
            word(text, "iscsi_chap_secret"),
        ) {
            (Some(user), Some(secret)) => Some(Chap {
                user: user.to_owned(),
                secret: Secret::new(secret),
            }),
            (None, None) => None,
            _ => return Err(invalid("iscsi_chap_user and iscsi_chap_secret go together")),
        };
        Ok(Self {
            deployment_id,
            deployment_key: Secret::new(required("deployment_key")),
            iscsi_target_iqn: required("iscsi_target_iqn"),
            ironic_api_url: url.trim_end_matches('/').to_owned(),
            initiator: word(text, "iscsi_initiator").map(str::to_owned),
            chap,
            server_serial: word(text, "server_serial").map(str::to_owned),
            server_uuid: parsed_word(text, "server_uuid")?,
            bootif: word(text, "BOOTIF").map(mac_of),
            addressing: Addressing::parse(text)?,
            deploy_address: parsed_word(text, "deploy_address")?,
            root_device: word(text, "root_device").map(str::to_owned),
            wipe_disk_metadata: parsed_word(text, "wipe_disk_metadata")?.unwrap_or(false),
            time: parsed_word(text, "time")?,
        })
    }
}

/// Whether the kernel was told to look for its parameters on virtual media. Without that word a
/// medium is not to be trusted.
#[must_use]
pub fn is_from_vmedia(command_line: &str) -> bool {
    word(command_line, "boot_method") == Some("vmedia")
}

/// The value of the first `name=value` word, unless it is empty.
#[must_use]
pub fn word<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut values = text
        .split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    values.next().filter(|value| !value.is_empty())
}

fn parsed_word<T: FromStr>(text: &str, name: &str) -> Result<Option<T>> {
    let parse = |value: &str| {
        let wrong = |_| invalid(format!("{name} is {value:?}"));
        value.parse().map_err(wrong)
    };
    word(text, name).map(parse).transpose()
}

/// `01-aa-bb-cc-dd-ee-ff`, as PXE loaders write it, or a plain MAC address.
fn mac_of(bootif: &str) -> String {
    let colons = bootif.replace('-', ":").to_ascii_uppercase();
    match colons.strip_prefix("01:") {
        Some(mac) if colons.len() == 20 => mac.to_owned(),
        _ => colons,
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINIMUM: &str = "deployment_id=1be26c0b-03f2-4d2e-ae87-c02d7f33c781\n\
        deployment_key=KEY\n\
        iscsi_target_iqn=iqn.2008-10.org.openstack:1be26c0b\n\
        ironic_api_url=https://192.0.2.1:6385/";

    #[test]
    fn the_minimum_is_enough() {
        let parameters = Parameters::parse(MINIMUM).unwrap();
        assert_eq!(parameters.ironic_api_url, "https://192.0.2.1:6385");
        assert_eq!(parameters.deployment_key.expose(), "KEY");
        assert!(parameters.chap.is_none() && parameters.initiator.is_none());
        assert!(!format!("{parameters:?}").contains("KEY"));
    }

    #[test]
    fn everything_is_taken() {
        let text = format!(
            "{MINIMUM}\ndisk=sda\niscsi_initiator=iqn.2026-01.example:run\niscsi_chap_user=u\n\
             iscsi_chap_secret=s=s\nBOOTIF=01-aa-bb-cc-dd-ee-0f\ndeployment_key=SECOND\n\
             vlan=7 deploy_address=127.0.1.15 root_device=size=9 wipe_disk_metadata=true time=1\n\
             server_serial=CZJ1 server_uuid=1be26c0b-03f2-4d2e-ae87-c02d7f33c781"
        );
        let parameters = Parameters::parse(&text).unwrap();
        assert_eq!(parameters.initiator.unwrap(), "iqn.2026-01.example:run");
        let chap = parameters.chap.unwrap();
        assert_eq!((chap.user.as_str(), chap.secret.expose()), ("u", "s=s"));
        assert_eq!(parameters.bootif.unwrap(), "AA:BB:CC:DD:EE:0F");
        assert_eq!(parameters.addressing.vlan, Some(7));
        assert_eq!(parameters.deploy_address, Some([127, 0, 1, 15].into()));
        assert_eq!(parameters.root_device.unwrap(), "size=9");
        assert_eq!(parameters.server_serial.unwrap(), "CZJ1");
        assert_eq!(parameters.server_uuid, Some(parameters.deployment_id));
        assert_eq!(
            (parameters.wipe_disk_metadata, parameters.time),
            (true, Some(1))
        );
        assert_eq!(parameters.deployment_key.expose(), "KEY");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            (
                "",
                "missing: deployment_id, deployment_key, iscsi_target_iqn, ironic_api_url",
            ),
            (
                &MINIMUM.replace("_key=KEY", "_key="),
                "missing: deployment_key",
            ),
            (&MINIMUM.replace("1be26c0b-", "x"), "deployment_id is"),
            (&MINIMUM.replace("https:", "ftp:"), "ironic_api_url is"),
            (&format!("{MINIMUM} iscsi_chap_user=u"), "go together"),
            (&format!("{MINIMUM} deploy_address=x"), "deploy_address is"),
            (&format!("{MINIMUM} server_uuid=1"), "server_uuid is"),
            (&format!("{MINIMUM} vlan=0"), "vlan is"),
        ] {
            let error = Parameters::parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.message().contains(expected), "{error}");
        }
    }

    #[test]
    fn only_the_kernel_command_line_makes_media_trusted() {
        assert!(is_from_vmedia("initrd=/initrd boot_method=vmedia --"));
        assert!(!is_from_vmedia(
            "initrd=/initrd xboot_method=vmedia boot_method="
        ));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(?s).{0,400}") {
            drop(Parameters::parse(&text));
        }
    }
}
