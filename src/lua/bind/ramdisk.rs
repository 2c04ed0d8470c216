//! `ramdisk`: the deploy ramdisk's call and its end.

use super::args::Seconds;
use super::site::{Site, read_text};
use crate::clock;
use crate::config::Node;
use crate::engine::{Call, Class, LiveRef, LiveValue, Reply};
use crate::error::{Error, Kind, Result};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use crate::ramdisk::Addressing;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// Name under which the listener keeps the callback for its run.
pub const CALLBACK: &str = "pass_deploy_info";
/// Ironic's `disk_devices`: the first of these that there is.
const DISK_DEVICES: &str = "cciss/c0d0,sda,hda,vda";
/// What `properties.deploy_network` may have, and the floppy's parameters of the same names.
const NETWORK_PARAMETERS: [&str; 8] = [
    "ip_address",
    "gateway",
    "nameservers",
    "vlan",
    "bond",
    "bond_mode",
    "mtu",
    "deploy_address",
];
/// Where the ramdisk waits for the end.
const DONE_PORT: u16 = 10000;

pub(super) const TARGET: Record = Record {
    name: "Target",
    doc: "A disk that a ramdisk exports.",
    fields: &[
        ("address", Ty::String, "the node's address"),
        ("port", Ty::Integer, "of its iSCSI portal"),
        ("iqn", Ty::String, "name of the target"),
        ("lun", Ty::Integer, "number of the disk"),
        (
            "initiator",
            Ty::String,
            "the name we log in with; the fence is added to it",
        ),
        ("chap_user", Ty::String, "CHAP name"),
        ("chap_secret", Ty::Text, "CHAP secret"),
    ],
};

const EXPECTED: Record = Record {
    name: "Expected",
    doc: "A ramdisk that may call.",
    fields: &[
        (
            "parameters",
            Ty::Map(&Ty::Text),
            "for the floppy's `parameters.txt`",
        ),
        (
            "token",
            Ty::Text,
            "for the floppy's `token`; the ramdisk sends it back",
        ),
        (
            "files",
            Ty::Map(&Ty::Text),
            "further files for the floppy: the CA to trust",
        ),
        ("iqn", Ty::String, "name of the target that it will export"),
        ("initiator", Ty::String, "who may log in"),
        ("chap_user", Ty::String, "CHAP name"),
        ("chap_secret", Ty::Text, "CHAP secret"),
    ],
};

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    expect(registry, site);
    registry.add(
        FnSpec::new(
            "ramdisk",
            "wait",
            Class::Wait,
            "Waits for the ramdisk's call.",
        )
        .subject(
            "expected",
            Ty::Record(&EXPECTED),
            "as `ramdisk.expect` returns it",
        )
        .default(
            "timeout",
            Ty::Duration,
            "30m",
            "how long it may take; survives a crash",
        )
        .returns(Ty::Record(&TARGET), "the disk that it exports")
        .error(Kind::Timeout, "no call came; look at the server's console")
        .error(
            Kind::Refused,
            "the ramdisk reports an error; the message has it",
        )
        .example("local target = ramdisk.wait(expected, { timeout = \"15m\" })")
        .run(|call| async move { wait(&call).await }),
    );
    registry.add(
        FnSpec::new(
            "ramdisk",
            "done",
            Class::Effect,
            "Tells the ramdisk to reboot the server.",
        )
        .subject(
            "target",
            Ty::Record(&TARGET),
            "as `ramdisk.wait` returns it",
        )
        .default("timeout", Ty::Duration, "60s", "how long to try")
        .returns(
            Ty::Boolean,
            "false if nobody listened on port 10000 until then",
        )
        .example("ramdisk.done(target)   --> true")
        .run(|call| async move { done(&call).await }),
    );
}

fn expect(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        FnSpec::new(
            "ramdisk",
            "expect",
            Class::Live,
            "Makes the key, names and secrets for one deploy ramdisk and lets its call in.",
        )
        .subject("node", Ty::Node, "the server that will boot it")
        .optional(
            "serial",
            Ty::String,
            "the server's serial number, as `ilo.info` has it: a ramdisk on another server refuses",
        )
        .optional("uuid", Ty::String, "the server's UUID, likewise")
        .returns(
            Ty::Record(&EXPECTED),
            "what goes on the floppy; the secrets are stored nowhere",
        )
        .error(
            Kind::Invalid,
            "the configuration does not say how nodes reach this host",
        )
        .example(
            "local server = ilo.info(node)\n\
             local expected = ramdisk.expect(node, { serial = server.serial, uuid = server.uuid })",
        )
        .run(move |call| {
            let site = site.clone();
            async move { make_expected(&site, &call).await }
        }),
    );
}

async fn make_expected(site: &Site, call: &Call) -> Result<Reply> {
    #[derive(Deserialize)]
    struct Args {
        node: String,
        serial: Option<String>,
        uuid: Option<String>,
    }
    let Args { node, serial, uuid } = call.decode()?;
    let mut more = identity_parameters(serial.as_deref(), uuid.as_deref());
    let about = site.node(&node)?;
    let uuid = about.uuid.clone();
    let api = &site.config().api;
    let own_url = about.driver_info.external_callback_url.as_ref();
    let api_url = own_url.or(api.public_url.as_ref()).ok_or_else(|| {
        Error::new(Kind::Invalid, "api.public_url is not configured")
            .hint("[api] public_url = \"https://…\" tells ramdisks where to call")
    })?;
    let (key, token) = (call.derive("deploy_key"), call.derive("token"));
    let iqn = format!("iqn.2008-10.org.openstack:{uuid}");
    let hash = |text: &str| hex::encode(Sha256::digest(text.as_bytes()));
    let (key_hash, token_hash) = (hash(key.expose()), hash(token.expose()));
    let journal = call.run.journal();
    journal
        .expect_callback(
            &call.run.id,
            uuid.clone(),
            key_hash,
            token_hash,
            iqn.clone(),
        )
        .await?;
    let initiator = format!("iqn.2026-11.org.flowrun:run-{}", call.run.id);
    let mut reply = Reply::default();
    let key = reply.hold(LiveValue::Secret(key));
    let token = reply.hold(LiveValue::Secret(token));
    let chap = reply.hold(LiveValue::Secret(call.derive("chap_secret")));
    let mut files = json!({});
    if let (Some(path), Some(files)) = (&api.ca_file, files.as_object_mut()) {
        files.insert("ca.pem".into(), Value::from(read_text(path)?));
    }
    more.extend(classic_parameters(about)?);
    more.extend(own_parameters(about, &call.run.id)?);
    reply.value = json!({
        "parameters": {
            "deployment_id": uuid,
            "deployment_key": key,
            "iscsi_target_iqn": iqn,
            "iscsi_initiator": initiator,
            "iscsi_chap_user": "flowrun",
            "iscsi_chap_secret": chap,
            "ironic_api_url": api_url.trim_end_matches('/'),
        },
        "token": token,
        "files": files,
        "iqn": iqn,
        "initiator": initiator,
        "chap_user": "flowrun",
        "chap_secret": chap,
    });
    if let Some(parameters) = reply
        .value
        .get_mut("parameters")
        .and_then(Value::as_object_mut)
    {
        parameters.extend(more);
    }
    Ok(reply)
}

/// What the classic ramdisk looks for besides: the interface, the disk, and whether it is to
/// install a boot loader, which it is not: it would call a second time.
fn classic_parameters(node: &Node) -> Result<Map<String, Value>> {
    let mut parameters = Map::new();
    let mut add = |name: &str, value: String| parameters.insert(name.to_owned(), value.into());
    add("boot_option", "netboot".into());
    // The first port is the one that the node is deployed by.
    if let Some(mac) = node.ports.first() {
        add("BOOTIF", mac.to_ascii_lowercase());
    }
    match node.properties.get("root_device") {
        None => add("disk", DISK_DEVICES.into()),
        Some(Value::Object(hints)) => {
            let hint = |(name, value): (&String, &Value)| {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                format!("{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC))
            };
            let hints: Vec<String> = hints.iter().map(hint).collect();
            add("root_device", hints.join(","))
        }
        Some(other) => {
            let message = format!("properties.root_device is {other}, not hints");
            return Err(Error::new(Kind::Invalid, message)
                .hint("root_device = { size = 500, model = \"LOGICAL VOLUME\" }"));
        }
    };
    Ok(parameters)
}

/// Who the server is, of which the ramdisk knows as much from its firmware. What could not be one
/// word of the floppy is left out, and an empty serial number.
fn identity_parameters(serial: Option<&str>, uuid: Option<&str>) -> Map<String, Value> {
    let told = [
        (
            "server_serial",
            serial.map(|serial| serial.trim().to_owned()),
        ),
        (
            "server_uuid",
            uuid.and_then(|uuid| Some(Uuid::parse_str(uuid).ok()?.to_string())),
        ),
    ];
    let is_word = |text: &String| !text.is_empty() && !text.contains(char::is_whitespace);
    let told = told.into_iter().filter_map(|(name, text)| {
        let text = text.filter(is_word)?;
        Some((name.to_owned(), Value::from(text)))
    });
    told.collect()
}

/// What only our ramdisk looks for.
fn own_parameters(node: &Node, run: &str) -> Result<Map<String, Value>> {
    let mut parameters = Map::new();
    // The same whenever the run is replayed.
    let began = Uuid::parse_str(run).ok().and_then(|id| id.get_timestamp());
    if let Some(began) = began {
        parameters.insert("time".into(), began.to_unix().0.to_string().into());
    }
    if node.properties.get("wipe_disk_metadata") == Some(&Value::Bool(true)) {
        parameters.insert("wipe_disk_metadata".into(), "true".into());
    }
    let hint = "deploy_network = { ip_address = \"192.0.2.10/24\", gateway = \"192.0.2.1\" }";
    let wrong = |message: String| Err(Error::new(Kind::Invalid, message).hint(hint));
    let network = match node.properties.get("deploy_network") {
        None => return Ok(parameters),
        Some(Value::Object(network)) => network,
        Some(other) => return wrong(format!("properties.deploy_network is {other}, not a table")),
    };
    for (name, value) in network {
        if !NETWORK_PARAMETERS.contains(&name.as_str()) {
            let known = NETWORK_PARAMETERS.join(", ");
            return wrong(format!(
                "properties.deploy_network has {name}; there are {known}"
            ));
        }
        let words: Option<Vec<String>> = match value {
            Value::Array(items) => items.iter().map(plain).collect(),
            one => plain(one).map(|word| vec![word]),
        };
        let Some(words) = words else {
            return wrong(format!("properties.deploy_network.{name} is {value}"));
        };
        parameters.insert(name.clone(), words.join(",").into());
    }
    let text: Vec<String> = parameters
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)))
        .collect();
    Addressing::parse(&text.join("\n"))
        .map_err(|e| e.target("properties.deploy_network").hint(hint))?;
    Ok(parameters)
}

/// A word without blanks.
fn plain(value: &Value) -> Option<String> {
    let word = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!word.is_empty() && !word.contains(char::is_whitespace)).then_some(word)
}

#[derive(Deserialize)]
struct Wait {
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    iqn: String,
    initiator: String,
    chap_user: Option<String>,
    chap_secret: Option<Value>,
    parameters: Map<String, Value>,
}

/// What the listener keeps of an accepted callback.
#[derive(Deserialize)]
struct Callback {
    /// Absent from an error report of a ramdisk that never got one.
    #[serde(default)]
    address: String,
    #[serde(default)]
    iqn: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    port: Option<String>,
    #[serde(default)]
    lun: Option<String>,
    /// Our ramdisk says that its target insists on CHAP; the classic one knows none.
    #[serde(default)]
    chap: String,
}

async fn wait(call: &Call) -> Result<Reply> {
    let Wait { expected } = call.decode()?;
    // After a crash the key must be let in again before the ramdisk can be heard.
    if let Some(key) = expected
        .parameters
        .get("deployment_key")
        .and_then(LiveRef::from_value)
    {
        call.secret(&key).await?;
    }
    let body = heard(call).await?;
    let callback: Callback = serde_json::from_str(&body)
        .map_err(|e| Error::new(Kind::Internal, "the kept callback is unreadable").caused_by(&e))?;
    if !callback.error.is_empty() {
        return Err(Error::new(
            Kind::Refused,
            format!("the ramdisk reports: {}", callback.error),
        )
        .target(callback.address)
        .hint("the server's console shows more"));
    }
    let has_chap = callback.chap == "true";
    if !has_chap {
        call.run.log(
            "warn",
            "",
            "the ramdisk exports the disk without CHAP: whoever reaches it can write it meanwhile",
        );
    }
    let number = |text: Option<String>, otherwise: u64| {
        text.and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    Ok(json!({
        "address": callback.address,
        "port": number(callback.port, 3260),
        // Old ramdisks say `iqn-<uuid>` and export just that.
        "iqn": if callback.iqn.is_empty() { expected.iqn } else { callback.iqn },
        "lun": number(callback.lun, 1),
        "initiator": expected.initiator,
        "chap_user": expected.chap_user.filter(|_| has_chap),
        "chap_secret": expected.chap_secret.filter(|_| has_chap),
    })
    .into())
}

/// Another process may hold the listener, so the message is looked for in the journal.
async fn heard(call: &Call) -> Result<String> {
    loop {
        if let Some(body) = call.run.journal().inbox(&call.run.id, CALLBACK).await? {
            return Ok(body);
        }
        if call.deadline_ms.is_some_and(|at| at <= clock::unix_ms()) {
            return Err(Error::new(Kind::Timeout, "the ramdisk did not call")
                .hint("look at the server's console: did it boot the ISO, has it an address?"));
        }
        let left = call.time_left(Duration::from_millis(200));
        tokio::time::sleep(left.min(Duration::from_millis(200))).await;
    }
}

#[derive(Deserialize)]
struct Done {
    target: DoneTarget,
    timeout: Seconds,
}

#[derive(Deserialize)]
struct DoneTarget {
    address: String,
}

async fn done(call: &Call) -> Result<Reply> {
    let Done { target, timeout } = call.decode()?;
    let deadline = clock::instant() + timeout.duration();
    loop {
        let attempt =
            tokio::time::timeout(Duration::from_secs(10), say_done(&target.address)).await;
        if let Ok(Ok(())) = attempt {
            return Ok(Value::from(true).into());
        }
        if clock::instant() >= deadline {
            return Ok(Value::from(false).into());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn say_done(address: &str) -> std::io::Result<()> {
    let mut stream = tokio::net::TcpStream::connect((address, DONE_PORT)).await?;
    stream.write_all(b"done").await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(properties: &Value) -> Result<String> {
        let node = json!({
            "uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c781",
            "properties": properties,
            "driver_info": { "ilo_address": "x", "ilo_username": "x", "ilo_password_file": "x" },
        });
        let node: Node = serde_json::from_value(node).unwrap();
        let run = "0193a2b4c5d67e8f9a0b1c2d3e4f5a6b";
        own_parameters(&node, run).map(|found| Value::Object(found).to_string())
    }

    #[test]
    fn who_the_server_is_goes_to_the_ramdisk() {
        let told = |serial, uuid| Value::Object(identity_parameters(serial, uuid)).to_string();
        let uuid = "1BE26C0B-03F2-4D2E-AE87-C02D7F33C781";
        assert_eq!(
            told(Some(" CZJ1 "), Some(uuid)),
            r#"{"server_serial":"CZJ1","server_uuid":"1be26c0b-03f2-4d2e-ae87-c02d7f33c781"}"#
        );
        assert_eq!(told(Some("two words"), Some("none")), "{}");
        assert_eq!(told(Some(""), None), "{}");
    }

    #[test]
    fn the_network_goes_to_the_ramdisk_as_it_stands() {
        let plain = parameters(&json!({})).unwrap();
        assert_eq!(plain, r#"{"time":"1733601576"}"#);
        let network = json!({
            "ip_address": "192.0.2.10/24", "gateway": "192.0.2.1", "vlan": 100,
            "nameservers": ["192.0.2.53", "192.0.2.54"],
        });
        let all = json!({ "deploy_network": network, "wipe_disk_metadata": true });
        let text = parameters(&all).unwrap();
        assert!(
            text.contains(r#""nameservers":"192.0.2.53,192.0.2.54""#),
            "{text}"
        );
        assert!(
            text.contains(r#""vlan":"100","wipe_disk_metadata":"true""#),
            "{text}"
        );
        for (wrong, expected) in [
            (json!("dhcp"), "not a table"),
            (
                json!({ "address": "x" }),
                "has address; there are ip_address",
            ),
            (json!({ "ip_address": "a b" }), "ip_address is"),
            (json!({ "ip_address": "192.0.2.10" }), "ip_address is"),
            (json!({ "vlan": {} }), "vlan is"),
        ] {
            let error = parameters(&json!({ "deploy_network": wrong })).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
