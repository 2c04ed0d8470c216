//! What a deployer is told about the site.

use super::Server;
use super::build::Ground;
use crate::config::BootLoadersSection;
use crate::error::Result;
use crate::http::server::Identity;
use crate::ilo::model::BootMode;
use crate::lab::files::write_private;
use crate::lab::media::{CONTAINER, DEPLOY_ISO};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Writes the identity with which the deployer serves its callback.
pub(super) fn write_api_identity(dir: &Path, identity: &Identity) -> Result<()> {
    let (cert, key) = api_identity(dir);
    write_private(&key, identity.key_pem.expose().as_bytes())?;
    write_private(&cert, identity.cert_pem.as_bytes())
}

fn api_identity(dir: &Path) -> (PathBuf, PathBuf) {
    let tls = dir.join("tls");
    (tls.join("api.pem"), tls.join("api.key"))
}

/// Everything a deployer needs, secrets included.
pub(super) fn site(ground: &Ground) -> Value {
    let Ground {
        dir, block, record, ..
    } = ground;
    let store = &record.store;
    let store_url = block.url(store.port);
    let (cert, key) = api_identity(dir);
    let nodes = ground.inner.servers.iter();
    let nodes: Vec<Value> = nodes.map(|server| node(ground, server)).collect();
    json!({
        "dir": dir,
        "ca_file": ground.authority.path(),
        "api": {
            "listen": format!("{}:{}", block.services(), record.api_port),
            "url": block.url(record.api_port),
            "tls_cert": cert,
            "tls_key": key,
        },
        "object_store": {
            "auth_url": format!("{store_url}/auth/v1.0"),
            "storage_url": format!("{store_url}/v1/{}", store.account),
            "user": store.user,
            "key": store.key.expose(),
            "account": store.account,
            "temp_url_key": store.temp_url_key.expose(),
        },
        "state_url": format!("{store_url}{}", super::state::PATH),
        "deploy_iso": {"container": CONTAINER, "object": DEPLOY_ISO},
        "boot_loaders": boot_loaders(ground),
        "image": {
            "path": ground.media.image,
            "size_bytes": ground.media.image_bytes,
            "sha256": ground.media.image_sha256,
        },
        "nodes": nodes,
    })
}

/// What boot ISOs are built of: virtual machines run it, so theirs are the host's if it has them.
fn boot_loaders(ground: &Ground) -> [PathBuf; 4] {
    let BootLoadersSection {
        isolinux,
        ldlinux,
        grub,
        mbr,
        ..
    } = BootLoadersSection::default();
    let installed = [isolinux, ldlinux, grub, mbr];
    match ground.vm_deploy_iso.is_some() && installed.iter().all(|file| file.is_file()) {
        true => installed,
        false => ground.media.boot_loaders.clone(),
    }
}

/// In the words of an inventory.
fn node(ground: &Ground, server: &Server) -> Value {
    let folder = ground.dir.join("nodes").join(&server.record.name);
    let mode = match server.generation.boot_mode() {
        BootMode::Legacy => "bios",
        _ => "uefi",
    };
    let mut node = json!({
        "name": server.record.name,
        "kind": server.hardware.kind(),
        "uuid": server.record.uuid(),
        "ports": [server.record.mac()],
        "driver_info": {
            "ilo_address": ground.block.url(server.record.ilo_port),
            "ilo_username": server.record.ilo_username,
            "ilo_password_file": folder.join("ilo-password"),
            "deploy_iso": format!("swift:{CONTAINER}/{DEPLOY_ISO}"),
        },
        "ilo": server.generation.to_string(),
        "properties": {"capabilities": format!("boot_mode:{mode}")},
        "instance_info": {
            "image_source": ground.media.image,
            "image_checksum": ground.media.image_sha256,
        },
        "address": server.address,
        "disk": server.hardware.disk_path(),
        "console_log": server.hardware.console_path(),
        "screen": server.hardware.screen_path(),
        "media": folder.join("media"),
    });
    let driver = node.get_mut("driver_info").and_then(Value::as_object_mut);
    if let (Some(url), Some(iso), Some(driver)) =
        (&server.callback_url, &ground.vm_deploy_iso, driver)
    {
        driver.insert("external_callback_url".to_owned(), url.as_str().into());
        driver.insert("deploy_iso".to_owned(), json!(iso));
    }
    node
}
