//! Firmware by image: whole disks that boot by themselves, partitions that boot by an ISO.

use super::parts::{CONSOLE, Exporter, Instance, Parts, classic_iso, parts};
use super::site::{VmSite, Wanted};
use crate::flow::{signal, text, told};
use crate::support::boot_part;
use serde_json::Value;
use std::process::Output;

fn whole_disk(instance: &Instance) -> String {
    format!(
        "image_source = {:?}\nconfigdrive = {:?}",
        instance.disk, instance.config_drive
    )
}

/// A server that is to get the whole disk in this boot mode.
fn for_whole_disk(ilo: &str, capabilities: &str) -> (VmSite, &'static Instance) {
    let Parts {
        deploy_iso,
        instance,
    } = parts();
    let site = VmSite::start(ilo, deploy_iso);
    site.configure(&Wanted {
        capabilities,
        root_device: "",
        instance_info: whole_disk(instance),
    });
    (site, instance)
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
fn failed(site: &VmSite, output: &Output, parts: &[&str]) {
    told(output, 1, parts);
    site.lab.nothing_is_left();
}

/// What the boots of a machine were started from.
fn sources(state: &Value) -> Vec<&str> {
    let boots = state["boots"].as_array().unwrap();
    boots
        .iter()
        .map(|boot| boot["source"].as_str().unwrap())
        .collect()
}

#[test]
fn a_whole_disk_by_bios_after_a_wrong_hint_a_power_cut_and_a_killed_deployer() {
    let Parts {
        deploy_iso,
        instance,
    } = parts();
    let mut site = VmSite::start("ilo5", deploy_iso);
    let configure = |site: &VmSite, root_device: &str| {
        site.configure(&Wanted {
            capabilities: "boot_mode:bios",
            root_device,
            instance_info: whole_disk(instance),
        });
    };
    configure(&site, "root_device = { serial = \"OTHER\" }");
    let output = site.flow("deploy").output().unwrap();
    failed(&site, &output, &["the ramdisk reports", "no disk fits"]);

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
    let resumed = site.configured(&["resume", &id]).output().unwrap();
    site.succeeded(&resumed);
    assert!(
        text(&resumed).contains("hashed by the ramdisk"),
        "{}",
        text(&resumed)
    );

    let heard = site.hear("target stopped and disk flushed");
    assert!(!heard.has(" 0 hashed, "), "{heard:?}");
    site.hear("@instance up");
    let heard = site.hear("@end");
    heard.is_instance(instance, "BIOS", "/dev/sda2");
    assert!(heard.is_silent_on("swap") && heard.is_silent_on("ephemeral"));
    // It switched itself off, which the iLO sees.
    let state = site.until_state("/machine/power", "off");
    assert_eq!(sources(&state), ["cdrom", "cdrom", "cdrom", "disk"]);
    assert_eq!(state["boots"][3]["state"], "power_off");
}

#[test]
fn a_whole_disk_by_uefi() {
    let (mut site, instance) = for_whole_disk("ilo6", "boot_mode:uefi");
    site.deploy();
    site.hear("@instance up");
    site.hear("@end").is_instance(instance, "UEFI", "/dev/sda2");
}

/// A partition image boots by an ISO that the deployer builds, which is gone when the server is.
fn by_boot_iso(ilo: &str, firmware: &str, root: &str, then: impl FnOnce(&mut VmSite)) {
    let Parts {
        deploy_iso,
        instance,
    } = parts();
    let mut site = VmSite::start(ilo, deploy_iso);
    site.configure(&Wanted {
        capabilities: &format!("boot_mode:{},boot_option:netboot", firmware.to_lowercase()),
        root_device: "",
        instance_info: partition(instance),
    });
    site.deploy();
    site.hear("@instance up");
    let heard = site.hear("@end");
    heard.is_instance(instance, firmware, root);
    assert!(heard.word("swap").ends_with(" 65532"), "{heard:?}");
    assert!(heard.word("ephemeral").ends_with("boots 1"), "{heard:?}");
    assert_eq!(sources(&site.lab.state()["nodes"][0]), ["cdrom", "cdrom"]);
    then(&mut site);
    site.succeeded(&site.flow("tear_down").output().unwrap());
    site.lab.nothing_is_left();
}

/// It boots so again when the server is restarted, by a new URL.
#[test]
fn a_partition_by_bios_and_its_boot_iso_which_boots_again() {
    by_boot_iso("ilo4-ribcl", "BIOS", "/dev/sda4", |site| {
        let (place, signed) = site.cdrom();
        assert!(place.contains("/boot-"), "{place}");
        site.succeeded(&site.flow("reboot").output().unwrap());
        site.hear("@instance up");
        let heard = site.hear("@end");
        assert!(heard.word("ephemeral").ends_with("boots 2"), "{heard:?}");
        let state = site.lab.state()["nodes"][0].take();
        assert_eq!(sources(&state), ["cdrom"; 3]);
        let (same_place, renewed) = site.cdrom();
        assert_eq!(same_place, place);
        for part in ["temp_url_sig", "temp_url_expires"] {
            assert_ne!(renewed[part], signed[part], "{part}");
        }
        // It is by the new one that all was read again.
        let read = state["machine"]["media"][1]["bytes"].as_u64().unwrap();
        let Instance { ramdisk, .. } = &parts().instance;
        let files = [boot_part("vmlinuz"), ramdisk.clone()];
        let needed = files.map(|file| file.metadata().unwrap().len());
        assert!(read >= needed.iter().sum(), "{read} of {needed:?}");
    });
}

#[test]
fn a_partition_by_uefi_and_its_boot_iso() {
    by_boot_iso("ilo7", "UEFI", "/dev/sda4", |_| {});
}

/// A floppy that another server's iLO shows: nothing is exported, the deployer hears of it, and
/// the machine, which nobody tells to, switches itself off.
#[test]
fn a_machine_that_is_not_the_one_that_is_meant_reports_and_goes_off() {
    let (mut site, _) = for_whole_disk("ilo5", "boot_mode:bios");
    let flow = site.lab.path("another.lua");
    std::fs::write(&flow, include_str!("another.lua")).unwrap();
    let args = [flow.to_str().unwrap(), "boot", "--node", "vm-1"];
    let output = site.configured(&args).output().unwrap();
    told(
        &output,
        1,
        &[
            "the ramdisk reports: ",
            "the floppy is for the server CZJANOTHER, UUID 11111111-2222-3333-4444-555555555555, \
             and this is LAB",
        ],
    );
    site.hear("this server could not be deployed");
    site.is_idle();
    let heard = site.hear("switching off");
    assert!(heard.has("The power goes off in 60 seconds"), "{heard:?}");
    let state = site.until_state("/machine/power", "off");
    assert_eq!(sources(&state), ["cdrom"]);
    assert_eq!(state["disk"]["bytes_written"], 0);
}

/// Ramdisks of operators who have one: a deployment knows neither which program exports the disk
/// nor whether it keeps reservations.
#[test]
fn classic_ramdisks_with_the_kernel_s_target_and_with_tgtd() {
    let folder = tempfile::tempdir().unwrap();
    let instance = &parts().instance;
    for (exporter, reserved) in [
        (Exporter::Lio, "not reserved"),
        (Exporter::Tgtd, "reserved meanwhile"),
    ] {
        let mut site = VmSite::start("ilo5-early", &classic_iso(folder.path(), exporter));
        site.configure(&Wanted {
            capabilities: "boot_mode:bios",
            root_device: "root_device = { size = 4 }",
            instance_info: whole_disk(instance),
        });
        let output = site.flow("deploy").output().unwrap();
        site.succeeded(&output);
        assert!(text(&output).contains(reserved), "{}", text(&output));
        assert_eq!(
            site.hear("@said").word("said").split(',').next(),
            Some("done")
        );
        // What was written is the same, and was read back.
        assert!(
            text(&output).contains(" read back, disk"),
            "{}",
            text(&output)
        );
        if exporter == Exporter::Lio {
            site.hear("@instance up");
            site.hear("@end").is_instance(instance, "BIOS", "/dev/sda2");
        }
    }
}
