//! Whole deployments that go well.

use super::{FLOW, LabUp, code, run, scribble, text};
use serde_json::Value;
use std::process::Command;

#[test]
fn one_command_deploys_a_server_and_says_what_it_saw() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("lab");
    let lab_dir = dir.to_str().unwrap();
    let output = run(&[FLOW, "--node", "lab-1", "--lab", "--lab-dir", lab_dir]);
    let said = text(&output);
    assert_eq!(code(&output), 0, "{said}");
    for part in [
        "lab-1: ok boot deploy ramdisk",
        "lab-1: done",
        ", reserved meanwhile",
        "verified  ",
        "hashed by the ramdisk and compared",
        "from cdrom: deploy ramdisk of VMEDIA_BOOT_ISO; reboot",
        "from disk: the deployed disk, gpt",
        "flowrun_images/deploy.iso by 127.",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    let media = dir.join("nodes/lab-1/media");
    assert!(media.join("cdrom.iso").is_file() && media.join("floppy.img").is_file());

    let shown = text(&run(&["show", "0", "--lab-dir", lab_dir]));
    assert!(
        shown.contains("write image") && shown.contains('█'),
        "{shown}"
    );
    let logs = text(&run(&["logs", "0", "--lab-dir", lab_dir]));
    assert!(
        logs.contains("bytes written and hashed by the ramdisk"),
        "{logs}"
    );
    // Nothing that signs, opens or proves anything is in the journal or on the screen.
    let site: Value =
        serde_json::from_slice(&std::fs::read(dir.join("site.json")).unwrap()).unwrap();
    let store = &site["site"]["object_store"];
    let mut secrets = vec!["temp_url_sig=".to_owned()];
    secrets.extend(["key", "temp_url_key"].map(|k| store[k].as_str().unwrap().to_owned()));
    secrets.push(std::fs::read_to_string(dir.join("nodes/lab-1/ilo-password")).unwrap());
    for entry in std::fs::read_dir(dir.join("state")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "a secret is in {}", path.display());
        }
    }
    assert!(secrets.iter().all(|secret| !said.contains(secret.as_str())));
}

#[test]
fn several_nodes_are_deployed_at_once_and_json_tells_it() {
    let output = run(&[
        FLOW, "--node", "lab-1", "--node", "lab-2", "--lab", "--json",
    ]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let events: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    for node in ["lab-1", "lab-2"] {
        let end = events
            .iter()
            .find(|e| e["event"] == "run_finished" && e["node"] == node);
        assert_eq!(end.unwrap()["status"], "done");
        assert!(
            events
                .iter()
                .any(|e| e["event"] == "progress" && e["node"] == node)
        );
    }
}

#[test]
fn real_images_with_holes_end_identical_on_the_disk() {
    let lab = LabUp::start(1, &[]);
    let raw = lab.path("real.raw");
    let sh = |line: &str| {
        let output = Command::new("bash")
            .args(["-c", line])
            .current_dir(lab.dir())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output));
    };
    // A partition table in front, a file system of real files in it, 2 GiB in all, mostly holes.
    sh(
        "qemu-img create -q -f raw real.raw 2G && mke2fs -q -t ext4 -d /usr/include \
        -E offset=1048576 real.raw 1900M",
    );
    sh(
        "printf 'label: gpt\\n2048,3891200,L\\n3893248,65536,U\\n' | sfdisk -q --no-reread real.raw",
    );
    sh("qemu-img convert -f raw -O qcow2 real.raw real.qcow2");
    for (file, format) in [("real.raw", "raw"), ("real.qcow2", "qcow2")] {
        scribble(&lab.path("nodes/lab-1/disk.raw"));
        let image = lab.path(file);
        let set = format!("instance_info.image_source={}", image.display());
        let output = lab.deploy(&["--set", &set]).output().unwrap();
        let said = text(&output);
        assert_eq!(code(&output), 0, "{said}");
        lab.disk_is_right(&image, format);
    }
    assert!(raw.is_file());
}
