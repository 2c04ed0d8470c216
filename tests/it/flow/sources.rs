//! Where ISOs come from: deploy ISOs from everywhere, and boot ISOs that are not built here.

use super::inventory::Wanted;
use super::{FLOW, LabUp, code, events, text, told};
use serde_json::json;

/// The configuration with another deploy ISO.
fn with_deploy_iso(lab: &LabUp, line: &str) {
    lab.configure(&[Wanted {
        capabilities: String::new(),
        instance_info: format!("image_source = {:?}", lab.image()),
    }]);
    let config = lab.path("flowrun.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let lines = text
        .lines()
        .map(|l| if l.starts_with("deploy_iso") { line } else { l });
    let text = lines.collect::<Vec<_>>().join("\n");
    std::fs::write(&config, text).unwrap();
}

/// Glance is beside the real services, in `openstack::deploy`.
#[test]
fn a_deploy_iso_comes_from_wherever_it_is() {
    let lab = LabUp::start(1, &[]);
    let file = lab.path("images/deploy.iso").display().to_string();
    for (line, warns) in [
        (
            "deploy_iso = \"swift://flowrun_images/deploy.iso\"".to_owned(),
            false,
        ),
        (format!("deploy_iso = {file:?}"), false),
        (format!("deploy_iso = \"file://{file}\""), false),
        (
            "ilo_deploy_iso = \"swift:flowrun_images/deploy.iso\"".to_owned(),
            true,
        ),
    ] {
        with_deploy_iso(&lab, &line);
        let output = lab.configured(&[FLOW, "--node", "lab-1"]).output().unwrap();
        let said = text(&output);
        assert_eq!(code(&output), 0, "{line}: {said}");
        let warned = said.contains("ilo_deploy_iso is the older name of driver_info.deploy_iso");
        assert_eq!(warned, warns, "{line}: {said}");
        assert_eq!(
            lab.state()["object_store"]["objects"],
            1,
            "{line}: only the deploy ISO"
        );
    }
    with_deploy_iso(&lab, "deploy_iso = \"nfs://host/x.iso\"");
    let output = lab.configured(&[FLOW, "--node", "lab-1"]).output().unwrap();
    told(&output, 1, &["driver_info.deploy_iso", "nfs"]);
}

#[test]
fn the_image_s_own_boot_iso_is_taken_first() {
    let lab = LabUp::start(1, &[]);
    // It is a medium that boots; that its kernel looks for no root shows which one it was.
    let own = "image_boot_iso = \"swift:flowrun_images/deploy.iso\"";
    lab.configure(&[Wanted {
        capabilities: "boot_mode:uefi".to_owned(),
        instance_info: format!("{}\n{own}", lab.partition_image()),
    }]);
    let output = lab.configured(&[FLOW, "--node", "lab-1"]).output().unwrap();
    told(
        &output,
        0,
        &["booted    from swift:flowrun_images/deploy.iso"],
    );
    assert!(lab.boot_isos().is_empty(), "none was built");
    let inserted = events(&lab)
        .iter()
        .filter(|event| event["event"] == "inserted")
        .count();
    assert_eq!(inserted, 3, "floppy, deploy ISO, boot ISO");
    let output = lab
        .configured(&[FLOW, "tear_down", "--node", "lab-1"])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.nothing_is_left();
}

#[test]
fn an_iso_that_is_not_ours_is_neither_counted_nor_deleted() {
    let lab = LabUp::start(1, &[]);
    lab.configure(&[Wanted {
        capabilities: "boot_mode:uefi".to_owned(),
        instance_info: lab.partition_image(),
    }]);
    let deploy = || lab.configured(&[FLOW, "--node", "lab-1"]).output().unwrap();
    assert_eq!(code(&deploy()), 0);
    let [(name, _)] = &lab.boot_isos()[..] else {
        panic!("one boot ISO");
    };
    let object = json!({
        "container": "ironic_ilo_container", "name": name,
        "metadata": { "counted_by": "another site", "usage_count": "7" },
    });
    lab.call("swift.set_metadata", &object);
    told(
        &deploy(),
        1,
        &["another site counts", "[conflict]", "swift_ilo_container"],
    );
    let isos = lab.boot_isos();
    assert_eq!(isos[0].1["usage_count"], "7");
}
