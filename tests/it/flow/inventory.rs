//! A configuration of a lab's site with an inventory of one's own.

use super::{LabUp, code, flowrun, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What a node has besides its iLO, as lines of TOML.
pub(crate) struct Wanted {
    pub(crate) capabilities: String,
    pub(crate) instance_info: String,
}

impl LabUp {
    /// Writes `flowrun.toml` of this site; `wanted` are its nodes in order.
    pub(crate) fn configure(&self, wanted: &[Wanted]) -> PathBuf {
        let file = std::fs::read(self.path("site.json")).unwrap();
        let site: Value = serde_json::from_slice(&file).unwrap();
        let site = &site["site"];
        let (api, store) = (&site["api"], &site["object_store"]);
        std::fs::write(self.path("store-key"), store["key"].as_str().unwrap()).unwrap();
        let mut text = format!(
            "[site]\nstate_dir = {:?}\n[api]\nlisten = {}\npublic_url = {}\ntls_cert = {}\n\
             tls_key = {}\nca_file = {}\n[swift]\nauth_url = {}\nuser = {}\n\
             key = {{ file = {:?} }}\nca_file = {}\n[boot_loaders]\nisolinux = {}\n\
             ldlinux = {}\ngrub = {}\nmbr = {}\n",
            self.path("state"),
            api["listen"],
            api["url"],
            api["tls_cert"],
            api["tls_key"],
            site["ca_file"],
            store["auth_url"],
            store["user"],
            self.path("store-key"),
            site["ca_file"],
            site["boot_loaders"][0],
            site["boot_loaders"][1],
            site["boot_loaders"][2],
            site["boot_loaders"][3],
        );
        for (node, wanted) in site["nodes"].as_array().unwrap().iter().zip(wanted) {
            let name = node["name"].as_str().unwrap();
            let driver = &node["driver_info"];
            text += &format!(
                "[nodes.{name}]\nuuid = {}\nports = {}\nproperties = {{ capabilities = {:?} }}\n\
                 [nodes.{name}.driver_info]\nilo_address = {}\nilo_username = {}\n\
                 ilo_password_file = {}\nilo_ca_file = {}\ndeploy_iso = {}\n\
                 [nodes.{name}.instance_info]\n{}\n",
                node["uuid"],
                node["ports"],
                wanted.capabilities,
                driver["ilo_address"],
                driver["ilo_username"],
                driver["ilo_password_file"],
                site["ca_file"],
                driver["deploy_iso"],
                wanted.instance_info,
            );
        }
        let path = self.path("flowrun.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The binary with that configuration.
    pub(crate) fn configured(&self, args: &[&str]) -> Command {
        let mut command = flowrun(args);
        command.arg("--config").arg(self.path("flowrun.toml"));
        command
    }

    /// A primitive by hand, and what it returns.
    pub(crate) fn call(&self, primitive: &str, arguments: &Value) -> Value {
        call(&["--lab-dir", self.dir()], primitive, arguments)
    }

    /// The boot ISOs of the site with their metadata.
    pub(crate) fn boot_isos(&self) -> Vec<(String, Value)> {
        boot_isos(&["--lab-dir", self.dir()])
    }

    /// A partition image, a kernel and a ramdisk, as lines of `instance_info`.
    pub(crate) fn partition_image(&self) -> String {
        partition_image(&self.path(""))
    }
}

fn call(site: &[&str], primitive: &str, arguments: &Value) -> Value {
    let arguments = arguments.to_string();
    let args = [&["call", primitive, &arguments], site].concat();
    let output: Output = flowrun(&args).output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The boot ISOs of a site, which these arguments name, with their metadata.
pub(crate) fn boot_isos(site: &[&str]) -> Vec<(String, Value)> {
    let container = "ironic_ilo_container";
    let wanted = serde_json::json!({ "container": container, "prefix": "boot-" });
    let names = call(site, "swift.list", &wanted);
    let names = names.as_array().unwrap().iter();
    names
        .map(|name| name.as_str().unwrap().to_owned())
        .map(|name| {
            let object = serde_json::json!({ "container": container, "name": name });
            let about = call(site, "swift.head", &object);
            (name, about["metadata"].clone())
        })
        .collect()
}

/// A partition image, a kernel and a ramdisk in this folder, as lines of `instance_info`.
pub(crate) fn partition_image(folder: &Path) -> String {
    let image = folder.join("root.raw");
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-U", super::ROOT_UUID])
        .arg(&image)
        .arg("8M")
        .output()
        .expect("mke2fs is needed; tests/run.sh installs it");
    assert!(made.status.success(), "{}", text(&made));
    // What `extlinux --install` writes before the file system.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&image)
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xEB, 0xFE], 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0x55, 0xAA], 510).unwrap();
    for (name, bytes) in [("vmlinuz", 70_000), ("initrd", 90_000)] {
        std::fs::write(folder.join(name), vec![7_u8; bytes]).unwrap();
    }
    format!(
        "image_source = {image:?}\nroot_gb = 1\nkernel = {:?}\nramdisk = {:?}\n",
        folder.join("vmlinuz"),
        folder.join("initrd")
    )
}
