//! What fails on the way ends in the right state, with the real cause, and leaves nothing.

use super::inventory::Wanted;
use super::{FLOW, LabUp, code, flowrun, root, text, told};
use serde_json::{Value, json};
use std::process::{Command, Output};

/// The run ended so, the cause is kept as the node's last error, and nothing is left.
fn ended(lab: &LabUp, output: &Output, node: &str, parts: &[&str]) {
    let said = text(output);
    assert_eq!(code(output), 1, "{said}");
    let show = [
        "call",
        "inventory.node",
        "--node",
        node,
        "--lab-dir",
        lab.dir(),
    ];
    let shown = flowrun(&show).output().unwrap();
    let about: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(about["provision_state"], "deploy failed", "{said}");
    let cause = about["last_error"].as_str().unwrap_or_default();
    for part in parts {
        assert!(
            said.contains(part) && cause.contains(part),
            "{part:?}: {cause}\n{said}"
        );
    }
    lab.nothing_is_left();
}

#[test]
fn each_failure_is_the_node_s_last_error_and_leaves_nothing() {
    for (fault, more, parts) in [
        (
            "node.ramdisk=silent",
            &["--param", "callback_timeout=2s"][..],
            ["ramdisk.wait", "[timeout]"],
        ),
        (
            "node.ramdisk=fails",
            &[],
            ["the ramdisk reports", "[refused]"],
        ),
        ("node.iscsi=login-refused", &[], ["iscsi.login", "[auth]"]),
        (
            "node.power=lost-in-write",
            &[],
            ["connection lost", "[unreachable]"],
        ),
        ("store.put=full", &[], ["swift.upload", "[limit]"]),
    ] {
        let lab = LabUp::start(1, &[fault]);
        let output = lab.deploy(more).output().unwrap();
        ended(&lab, &output, "lab-1", &parts);
    }
}

/// The data is there and verified, so the server is reset instead.
#[test]
fn a_closed_port_10000_does_not_fail_a_deployment() {
    let lab = LabUp::start(1, &["node.done=closed"]);
    let output = lab.deploy(&[]).output().unwrap();
    let said = text(&output);
    assert_eq!(code(&output), 0, "{said}");
    assert!(said.contains("did not listen on port 10000"), "{said}");
    assert!(said.contains("from disk: the deployed disk"), "{said}");
    lab.disk_is_right(&lab.image(), "raw");
}

#[test]
fn an_image_that_is_another_or_too_large_for_the_cache_touches_nothing() {
    let lab = LabUp::start(1, &[]);
    lab.configure(&[Wanted {
        capabilities: String::new(),
        instance_info: format!(
            "image_source = {:?}\nimage_checksum = {:?}",
            lab.image(),
            "0".repeat(64)
        ),
    }]);
    let untouched = |output: &Output, parts: &[&str]| {
        told(output, 1, parts);
        assert_eq!(
            lab.state()["nodes"][0]["boots"].as_array().unwrap().len(),
            0
        );
        lab.nothing_is_left();
    };
    let output = lab.configured(&[FLOW, "--node", "lab-1"]).output().unwrap();
    untouched(&output, &["FAILED fetch image", "[corrupt]"]);

    // The image comes from the object store, into a cache on a file system that is too small.
    let uploaded = json!({ "container": "images", "name": "lab.raw", "file": lab.image() });
    lab.call("swift.upload", &uploaded);
    let cache = lab.path("small");
    std::fs::create_dir(&cache).unwrap();
    lab.configure(&[Wanted {
        capabilities: String::new(),
        instance_info: "image_source = \"swift:images/lab.raw\"".to_owned(),
    }]);
    let config = lab.path("flowrun.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[image_cache]\ndir = {cache:?}\n")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=8m tmpfs {} && exec {} {FLOW} --node lab-1 --config {}",
        cache.display(),
        env!("CARGO_BIN_EXE_flowrun"),
        config.display()
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .current_dir(root())
        .output()
        .unwrap();
    told(&output, 1, &["FAILED fetch image", "[limit]"]);
    let gone = json!({ "container": "images", "name": "lab.raw" });
    lab.call("swift.delete", &gone);
    untouched(&output, &[]);
}

#[test]
fn a_store_that_is_gone_is_the_cause() {
    let lab = LabUp::start(1, &[]);
    lab.configure(&[Wanted {
        capabilities: String::new(),
        instance_info: format!("image_source = {:?}", lab.image()),
    }]);
    let config = lab.path("flowrun.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace(
            "auth_url = ",
            "auth_url = \"https://127.0.0.1:9/auth/v1.0\" # ",
        ),
    )
    .unwrap();
    let output = lab.configured(&[FLOW, "--node", "lab-1"]).output().unwrap();
    told(&output, 1, &["driver_info.deploy_iso", "[unreachable]"]);
    assert_eq!(
        lab.state()["nodes"][0]["boots"].as_array().unwrap().len(),
        0
    );
}
