//! The classic bash ramdisk in place of ours, played by shell tools.

use super::{LabUp, code, flowrun, root, text, told, until_entry};
use flowrun::clock;
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Waits until the node's (silent) ramdisk has read the floppy, of which a copy is kept.
fn until_it_booted(lab: &LabUp) {
    let deadline = clock::instant() + Duration::from_secs(60);
    let console = lab.path("nodes/lab-1/console.log");
    while !std::fs::read_to_string(&console)
        .unwrap_or_default()
        .contains("ramdisk: hangs")
    {
        assert!(clock::instant() < deadline, "the ramdisk never came up");
        std::thread::yield_now();
    }
}

fn play(lab: &LabUp, iqn: &str, error: &str) -> Output {
    let site: Value =
        serde_json::from_slice(&std::fs::read(lab.path("site.json")).unwrap()).unwrap();
    let address = site["site"]["nodes"][0]["address"].as_str().unwrap();
    let mut command = Command::new("bash");
    command
        .arg(root().join("tests/it/flow/classic_ramdisk.sh"))
        .arg(lab.path("nodes/lab-1/media/floppy.img"))
        .arg(lab.path("nodes/lab-1/disk.raw"))
        .args([address, iqn, error]);
    command.output().unwrap()
}

#[test]
fn the_classic_ramdisk_is_served() {
    for form in ["", "iqn-"] {
        let lab = LabUp::start(1, &["node.ramdisk=silent"]);
        let site: Value =
            serde_json::from_slice(&std::fs::read(lab.path("site.json")).unwrap()).unwrap();
        let uuid = site["site"]["nodes"][0]["uuid"].as_str().unwrap();
        let iqn = if form.is_empty() {
            String::new()
        } else {
            format!("{form}{uuid}")
        };
        let child = lab.deploy(&[]).spawn().unwrap();
        until_entry(&lab, "wait for ramdisk/ramdisk.wait");
        until_it_booted(&lab);
        let played = play(&lab, &iqn, "");
        told(&played, 0, &["waiting", "done\n", "rebooting"]);
        // `reboot -f`, which the simulated server cannot hear from here.
        let reset = [
            "node",
            "power",
            "lab-1",
            "reset",
            "--force",
            "--lab-dir",
            lab.dir(),
        ];
        let reset = flowrun(&reset).stdout(Stdio::null()).output().unwrap();
        assert_eq!(code(&reset), 0, "{}", text(&reset));
        let output = child.wait_with_output().unwrap();
        told(&output, 0, &["without CHAP", "ok wait for instance"]);
        lab.disk_is_right(&lab.image(), "raw");
    }
}

#[test]
fn the_classic_ramdisk_s_error_is_the_cause() {
    let lab = LabUp::start(1, &["node.ramdisk=silent"]);
    let child = lab.deploy(&[]).spawn().unwrap();
    until_entry(&lab, "wait for ramdisk/ramdisk.wait");
    until_it_booted(&lab);
    let played = play(&lab, "", "Could+not+find+disk");
    assert_eq!(code(&played), 0, "{}", text(&played));
    let output = child.wait_with_output().unwrap();
    told(
        &output,
        1,
        &["[refused]", "the ramdisk reports: Could+not+find+disk"],
    );
    lab.nothing_is_left();
}
