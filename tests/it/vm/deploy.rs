//! Firmware by image: whole disks that boot by themselves, partitions that boot by an ISO.

use super::parts::{CONSOLE, Exporter, Instance, classic_iso};
use super::site::{VmSite, Wanted};
use crate::flow::{code, signal, text, told};
use serde_json::Value;
use std::path::Path;

fn whole_disk(instance: &Instance) -> String {
    format!(
        "image_source = {:?}\nconfigdrive = {:?}",
        instance.disk, instance.config_drive
    )
}

fn partition(instance: &Instance) -> String {
    format!(
        "image_source = {:?}\nimage_type = \"partition\"\nroot_gb = 1\nswap_mb = 64\n\
         ephemeral_gb = 1\nkernel = {:?}\nramdisk = {:?}\nkernel_append_params = {CONSOLE:?}\n\
         configdrive = {:?}",
        instance.root,
        instance.kernel(),
        instance.ramdisk,
        instance.config_drive,
    )
}

/// The run failed, said why, and switched the machine off without its media.
fn failed(site: &VmSite, output: &std::process::Output, parts: &[&str]) {
    told(output, 1, parts);
    site.lab.nothing_is_left();
}

#[test]
fn a_whole_disk_by_bios_after_a_wrong_hint_a_power_cut_and_a_killed_deployer() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::make(folder.path());
    let iso = classic_iso(folder.path(), Exporter::Lio);
    let mut site = VmSite::start("ilo5");
    let configure = |site: &VmSite, root_device: &str| {
        site.configure(&Wanted {
            deploy_iso: &iso,
            capabilities: "boot_mode:bios",
            root_device,
            instance_info: whole_disk(&instance),
        });
    };
    configure(&site, "root_device = { serial = \"OTHER\" }");
    let output = site.flow("deploy").output().unwrap();
    failed(
        &site,
        &output,
        &["the ramdisk reports: no disk is serial=OTHER"],
    );

    configure(&site, "root_device = { size = 4 }");
    let deploying = site.flow("deploy").spawn().unwrap();
    site.until_writing();
    site.cut_power();
    let output = deploying.wait_with_output().unwrap();
    failed(&site, &output, &["[unreachable]"]);

    let mut deploying = site.flow("deploy").spawn().unwrap();
    site.until_writing();
    signal(&deploying, "-KILL");
    deploying.wait().unwrap();
    let id = site.lab.newest_run().unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let output = site.configured(&["resume", &id]).output().unwrap();
    site.succeeded(&output);

    site.hear("@instance up");
    let heard = site.hear("@end");
    heard.is_instance(&instance, "BIOS", "/dev/sda2");
    assert!(heard.is_silent_on("swap") && heard.is_silent_on("ephemeral"));
    // It switched itself off, which the iLO sees.
    let state = site.until_state("/machine/power", "off");
    let last = state["boots"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["source"], &last["state"]),
        (&"disk".into(), &"power_off".into())
    );
}

/// What the boots of a machine were started from.
fn sources(state: &Value) -> Vec<&str> {
    let boots = state["boots"].as_array().unwrap();
    boots
        .iter()
        .map(|boot| boot["source"].as_str().unwrap())
        .collect()
}

fn by_boot_iso(ilo: &str, firmware: &str, deploy_iso: &Path, instance: &Instance) {
    let mut site = VmSite::start(ilo);
    site.configure(&Wanted {
        deploy_iso,
        capabilities: &format!("boot_mode:{},boot_option:netboot", firmware.to_lowercase()),
        root_device: "",
        instance_info: partition(instance),
    });
    site.deploy();
    site.hear("@instance up");
    let heard = site.hear("@end");
    let root = if firmware == "BIOS" {
        "/dev/sda3"
    } else {
        "/dev/sda4"
    };
    heard.is_instance(instance, firmware, root);
    assert!(heard.word("swap").ends_with(" 65532"), "{heard:?}");
    assert!(heard.word("ephemeral").ends_with("boots 1"), "{heard:?}");
    let first = site.lab.state()["nodes"][0].clone();
    assert_eq!(sources(&first), ["cdrom", "cdrom"]);

    site.succeeded(&site.flow("reboot").output().unwrap());
    site.hear("@instance up");
    let heard = site.hear("@end");
    assert!(heard.word("ephemeral").ends_with("boots 2"), "{heard:?}");
    let second = site.lab.state()["nodes"][0].clone();
    assert_eq!(sources(&second), ["cdrom"; 3]);

    site.succeeded(&site.flow("tear_down").output().unwrap());
    site.lab.nothing_is_left();
}

#[test]
fn a_partition_by_bios_and_its_boot_iso() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::make(folder.path());
    let iso = classic_iso(folder.path(), Exporter::Lio);
    by_boot_iso("ilo4-ribcl", "BIOS", &iso, &instance);
}

#[test]
fn a_partition_by_uefi_and_its_boot_iso() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::make(folder.path());
    let iso = classic_iso(folder.path(), Exporter::Tgtd);
    by_boot_iso("ilo7", "UEFI", &iso, &instance);
}

#[test]
fn a_whole_disk_by_uefi() {
    let folder = tempfile::tempdir().unwrap();
    let instance = Instance::make(folder.path());
    let iso = classic_iso(folder.path(), Exporter::Lio);
    let mut site = VmSite::start("ilo6");
    site.configure(&Wanted {
        deploy_iso: &iso,
        capabilities: "boot_mode:uefi",
        root_device: "",
        instance_info: whole_disk(&instance),
    });
    let output = site.flow("deploy").output().unwrap();
    assert_eq!(code(&output), 0, "{}\n{}", text(&output), site.console());
    site.hear("@instance up");
    site.hear("@end")
        .is_instance(&instance, "UEFI", "/dev/sda2");
}
