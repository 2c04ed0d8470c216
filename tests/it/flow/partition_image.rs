//! A partition image, by the flow as far as the disk is concerned.

use super::{FLOW, LabUp, code, flowrun, scribble, text};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const ROOT_UUID: &str = "6d1d5e0a-3f0e-4b8a-9d0e-0123456789ab";

#[test]
fn a_partition_image_gets_its_partitions() {
    let lab = LabUp::start(1, &[]);
    let image = lab.path("root.raw");
    let args = [
        "-q",
        "-t",
        "ext4",
        "-d",
        "/usr/include/linux",
        "-U",
        ROOT_UUID,
    ];
    let made = Command::new("/usr/sbin/mke2fs")
        .args(args)
        .arg(&image)
        .arg("200M")
        .output();
    assert!(made.unwrap().status.success());
    let set = |key: &str, value: &str| ["--set".to_owned(), format!("{key}={value}")];
    let more = [
        set("instance_info.image_source", image.to_str().unwrap()),
        set("instance_info.root_gb", "1"),
        set("instance_info.swap_mb", "64"),
        set("instance_info.ephemeral_gb", "1"),
        set(
            "properties.capabilities",
            "boot_mode:uefi,boot_option:local",
        ),
    ];
    scribble(&lab.path("nodes/lab-1/disk.raw"));
    let mut command = flowrun(&[FLOW, "--node", "lab-1", "--json"]);
    command
        .args(["--lab-dir", lab.dir()])
        .args(more.iter().flatten());
    let output = command.output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert!(text(&output).contains(&format!("\"root_uuid\":\"{ROOT_UUID}\"")));

    its_disk_is_right(&lab.path("nodes/lab-1/disk.raw"), &image);
}

fn its_disk_is_right(disk: &Path, image: &Path) {
    let dump = Command::new("/usr/sbin/sfdisk")
        .arg("--json")
        .arg(disk)
        .output()
        .unwrap();
    let table: Value = serde_json::from_slice(&dump.stdout).unwrap();
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap();
    let named: Vec<_> = partitions
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["efi-part", "ephemeral0", "swap1", "root"]);
    let start = partitions[3]["start"].as_u64().unwrap() * 512;
    let part = format!(
        "driver=raw,offset={start},size={},file.driver=file,file.filename={}",
        200 << 20,
        disk.display()
    );
    let whole = format!(
        "driver=raw,file.driver=file,file.filename={}",
        image.display()
    );
    let output = Command::new("qemu-img")
        .args(["compare", "--image-opts", &part, &whole])
        .output();
    let output = output.expect("qemu-img is needed; tests/run.sh installs it");
    assert!(output.status.success(), "{}", text(&output));
}
