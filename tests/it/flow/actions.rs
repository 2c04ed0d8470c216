//! Every action, for BIOS and UEFI, for whole disks, and for partition images that boot from the
//! disk and by netboot.

use super::inventory::Wanted;
use super::{FLOW, LabUp, ROOT_UUID, code, run, text, told};
use serde_json::Value;
use std::process::Command;

/// Boot mode and what is deployed, in the order of the nodes.
const CASES: [(&str, Kind); 6] = [
    ("bios", Kind::WholeDisk),
    ("uefi", Kind::WholeDisk),
    ("bios", Kind::Local),
    ("uefi", Kind::Local),
    ("bios", Kind::Netboot),
    ("uefi", Kind::Netboot),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    WholeDisk,
    Local,
    Netboot,
}

fn wanted(lab: &LabUp) -> Vec<Wanted> {
    let partition = lab.partition_image();
    let cases = CASES.iter().map(|(mode, kind)| {
        let (more, instance_info) = match kind {
            Kind::WholeDisk => ("", format!("image_source = {:?}", lab.image())),
            Kind::Local => (",boot_option:local", partition.clone()),
            Kind::Netboot => (",boot_option:netboot", partition.clone()),
        };
        let extra = match (*mode, *kind) {
            (_, Kind::WholeDisk) => "",
            // A gibibyte that is read back: once is enough.
            ("uefi", Kind::Netboot) => "\nswap_mb = 1\nephemeral_gb = 1",
            _ => "\nswap_mb = 1",
        };
        Wanted {
            capabilities: format!("boot_mode:{mode}{more}"),
            instance_info: format!("{instance_info}{extra}"),
        }
    });
    cases.collect()
}

/// Writes a word into the ephemeral partition of the last node, or reads it: debugfs knows ext4.
fn ephemeral_says(lab: &LabUp, word: Option<&str>) -> String {
    let disk = lab.path("nodes/lab-6/disk.raw");
    let dump = Command::new("sfdisk")
        .arg("--json")
        .arg(&disk)
        .output()
        .unwrap();
    let table: Value = serde_json::from_slice(&dump.stdout).unwrap();
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap();
    let is_it = |p: &&Value| p["name"] == "ephemeral0";
    let start = partitions.iter().find(is_it).unwrap()["start"]
        .as_u64()
        .unwrap()
        * 512;
    let image = format!("{}?offset={start}", disk.display());
    let file = lab.path("word");
    let request = match word {
        Some(word) => {
            std::fs::write(&file, word).unwrap();
            format!("write {} /word", file.display())
        }
        None => "cat /word".to_owned(),
    };
    let output = Command::new("debugfs")
        .args(["-w", "-R", &request, &image])
        .output();
    let output = output.expect("debugfs is needed; tests/run.sh installs it");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs an action on all nodes at once; all of them succeed.
fn act(lab: &LabUp, action: &str, more: &[&str]) {
    let mut args = vec![FLOW, action];
    let names: Vec<String> = (1..=CASES.len()).map(|n| format!("lab-{n}")).collect();
    for name in &names {
        args.extend(["--node", name]);
    }
    args.extend(more);
    let output = lab.configured(&args).output().unwrap();
    assert_eq!(code(&output), 0, "{action}: {}", text(&output));
}

/// Each node booted, in its mode, what its case says.
fn all_booted(lab: &LabUp, when: &str) {
    let state = lab.state();
    for (index, (mode, kind)) in CASES.iter().enumerate() {
        let node = &state["nodes"][index];
        let boot = node["boots"].as_array().unwrap().last().unwrap();
        let expected = if *mode == "bios" { "legacy" } else { "uefi" };
        assert_eq!(boot["mode"], expected, "{when}, {index}: {boot:#}");
        assert_eq!(boot["state"], "system_up", "{when}, {index}: {boot:#}");
        match kind {
            Kind::Netboot => {
                assert_eq!(boot["system"]["system"], "boot_iso", "{boot:#}");
                let line = boot["system"]["command_line"].as_str().unwrap();
                assert!(line.contains(&format!("root=UUID={ROOT_UUID}")), "{line}");
                assert!(boot["system"]["root"].is_string(), "{boot:#}");
            }
            Kind::WholeDisk | Kind::Local => assert_eq!(boot["system"]["system"], "disk"),
        }
    }
}

/// What boots partition images from their disk: code in sector 0 for BIOS, GRUB for UEFI that goes
/// on with the root's own configuration. Read by mtools.
fn loaders_are_on_the_disks(lab: &LabUp) {
    let boot_code = std::fs::read(lab.path("images/mbr.bin")).unwrap();
    let mut sector = vec![0; 512];
    let disk = std::fs::File::open(lab.path("nodes/lab-3/disk.raw")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&disk, &mut sector, 0).unwrap();
    assert!(sector.starts_with(&boot_code) && sector.ends_with(&[0x55, 0xAA]));

    let esp = format!("{}@@1M", lab.path("nodes/lab-4/disk.raw").display());
    let read = |path: &str| {
        let output = Command::new("mtype").args(["-i", &esp, path]).output();
        output
            .expect("mtype is needed; tests/run.sh installs it")
            .stdout
    };
    let grub = std::fs::read(lab.path("images/gcdx64.efi")).unwrap();
    assert_eq!(read("::/EFI/BOOT/BOOTX64.EFI"), grub);
    let config = String::from_utf8(read("::/boot/grub/grub.cfg")).unwrap();
    assert!(
        config.contains(&format!("--set=root {ROOT_UUID}")),
        "{config}"
    );
    let esp = lab.path("esp.fat");
    let disk = lab.path("nodes/lab-4/disk.raw");
    let part = format!(
        "driver=raw,offset={},size={},file.driver=file,file.filename={}",
        1 << 20,
        200 << 20,
        disk.display()
    );
    let output = Command::new("qemu-img")
        .args(["convert", "--image-opts", "-O", "raw", &part])
        .arg(&esp)
        .output();
    assert_eq!(code(&output.unwrap()), 0);
    let checked = Command::new("fsck.vfat")
        .arg("-n")
        .arg(&esp)
        .output()
        .unwrap();
    assert_eq!(code(&checked), 0, "{}", text(&checked));
    let named = Command::new("blkid")
        .args(["-p", "-s", "LABEL", "-o", "value"])
        .arg(&esp)
        .output();
    assert_eq!(
        String::from_utf8_lossy(&named.unwrap().stdout).trim(),
        "efi-part"
    );
}

fn counts(lab: &LabUp) -> Vec<String> {
    let isos = lab.boot_isos();
    let count =
        |(_, metadata): &(String, Value)| metadata["usage_count"].as_str().map(str::to_owned);
    isos.iter().filter_map(count).collect()
}

#[test]
fn every_action_does_its_work_in_both_boot_modes() {
    let ilos = (1..=CASES.len()).map(|n| format!("lab-{n}:ilo5"));
    let mut more = Vec::new();
    for ilo in ilos {
        more.extend(["--lab-ilo".to_owned(), ilo]);
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let lab = LabUp::start_with(CASES.len().try_into().unwrap(), &more);
    lab.configure(&wanted(&lab));
    act(&lab, "prepare", &[]);
    act(&lab, "validate", &[]);
    act(&lab, "deploy", &[]);
    all_booted(&lab, "deploy");
    loaders_are_on_the_disks(&lab);
    // One ISO for each boot mode: they have different loaders.
    assert_eq!(counts(&lab), ["1", "1"]);

    let before = lab.state();
    act(&lab, "prepare", &[]);
    act(&lab, "take_over", &[]);
    let after = lab.state();
    for index in 0..CASES.len() {
        for what in ["boots", "events"] {
            let (before, after) = (&before["nodes"][index], &after["nodes"][index]);
            assert_eq!(before[what], after[what], "an active node was touched");
        }
    }

    act(&lab, "reboot", &[]);
    all_booted_again(&lab, &before);
    let keep = [
        FLOW,
        "rebuild",
        "--param",
        "preserve_ephemeral=true",
        "--node",
    ];
    let keep = |node| {
        lab.configured(&[&keep[..], &[node]].concat())
            .output()
            .unwrap()
    };
    told(
        &keep("lab-5"),
        1,
        &["[invalid]", "there is nothing to keep"],
    );
    ephemeral_says(&lab, Some("kept"));
    act(&lab, "rebuild", &[]);
    all_booted(&lab, "rebuild");
    ephemeral_says(&lab, Some("kept again"));
    told(&keep("lab-6"), 0, &["ok write image"]);
    all_booted(&lab, "rebuild that preserves");
    assert_eq!(ephemeral_says(&lab, None), "kept again");
    assert_eq!(counts(&lab), ["1", "1"]);

    let refused = lab
        .configured(&[FLOW, "clean_up", "--node", "lab-5"])
        .output();
    told(&refused.unwrap(), 1, &["[conflict]", "tear_down"]);
    act(&lab, "tear_down", &[]);
    let state = lab.state();
    for node in state["nodes"].as_array().unwrap() {
        assert_eq!(node["machine"]["power"], "off");
        let mut media = node["machine"]["media"].as_array().unwrap().iter();
        assert!(media.all(|medium| medium["inserted"] == false), "{node:#}");
    }
    assert_eq!(state["object_store"]["objects"], 1, "only the deploy ISO");
    act(&lab, "clean_up", &[]);
    let rebuild = lab
        .configured(&[FLOW, "rebuild", "--node", "lab-1"])
        .output();
    told(&rebuild.unwrap(), 1, &["[conflict]", "not deployed"]);
}

/// Reboot proves itself by a boot more than before, which the state may show a moment later.
fn all_booted_again(lab: &LabUp, before: &Value) {
    let deadline = flowrun::clock::instant() + std::time::Duration::from_secs(60);
    let count =
        |state: &Value, index: usize| state["nodes"][index]["boots"].as_array().unwrap().len();
    loop {
        let state = lab.state();
        let up = |index: usize| {
            let last = state["nodes"][index]["boots"].as_array().unwrap().last();
            count(&state, index) > count(before, index) && last.unwrap()["state"] == "system_up"
        };
        if (0..CASES.len()).all(up) {
            break;
        }
        assert!(flowrun::clock::instant() < deadline, "{:#}", state["nodes"]);
    }
    all_booted(lab, "reboot");
}

#[test]
fn what_is_missing_or_wrong_is_told_at_once() {
    let lab = LabUp::start(1, &["ilo.license=standard"]);
    lab.configure(&[Wanted {
        capabilities: "boot_mode:both,boot_option:disk".to_owned(),
        instance_info: format!(
            "image_source = {:?}\nimage_type = \"partition\"\nswap_mb = -1\nkernel = \"/nowhere\"\n\
             ephemeral_format = \"zfs\"\npreserve_ephemeral = \"no\"",
            lab.image()
        ),
    }]);
    let text = std::fs::read_to_string(lab.path("flowrun.toml")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.retain(|line| !line.starts_with("deploy_iso") && !line.starts_with("ports"));
    std::fs::write(lab.path("flowrun.toml"), lines.join("\n")).unwrap();
    let output = lab
        .configured(&[FLOW, "validate", "--node", "lab-1"])
        .output();
    told(
        &output.unwrap(),
        1,
        &[
            "ports are missing",
            "boot_mode is \"both\"",
            "boot_option is \"disk\"",
            "driver_info.deploy_iso is missing",
            "instance_info.root_gb is missing",
            "instance_info.swap_mb is -1",
            "ephemeral_format is \"zfs\"",
            "preserve_ephemeral is no",
            "the image has no ramdisk, but a kernel",
            "/nowhere",
            "licen",
            "[invalid]",
        ],
    );
    let state = lab.state();
    assert_eq!(state["nodes"][0]["machine"]["power"], "off");
    assert_eq!(state["nodes"][0]["boots"].as_array().unwrap().len(), 0);
}

#[test]
fn an_api_that_ramdisks_cannot_reach_and_an_iso_that_is_gone_are_found_before_anything_is_touched()
{
    let lab = LabUp::start(1, &[]);
    let info = || Wanted {
        capabilities: String::new(),
        instance_info: format!("image_source = {:?}", lab.image()),
    };
    for (from, to, parts) in [
        (
            "flowrun_images/deploy.iso",
            "flowrun_images/gone.iso",
            ["[not_found]", "gone.iso"],
        ),
        (
            "public_url = ",
            "public_url = \"https://127.0.0.1:9\" # ",
            ["[unreachable]", "public_url"],
        ),
        (
            "public_url = \"https:",
            "public_url = \"ftp:",
            ["[invalid]", "not an HTTP URL"],
        ),
    ] {
        lab.configure(&[info()]);
        let text = std::fs::read_to_string(lab.path("flowrun.toml")).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(lab.path("flowrun.toml"), text.replace(from, to)).unwrap();
        let output = lab.configured(&[FLOW, "--node", "lab-1"]).output().unwrap();
        told(&output, 1, &parts);
    }
    assert_eq!(
        lab.state()["nodes"][0]["boots"].as_array().unwrap().len(),
        0
    );
}

/// `node power` starts a server with a boot ISO as the flow's `reboot` does: by a fresh URL.
#[test]
fn a_server_with_a_boot_iso_gets_it_anew_whenever_it_is_started() {
    let lab = LabUp::start(1, &[]);
    lab.configure(&[Wanted {
        capabilities: "boot_mode:uefi".to_owned(),
        instance_info: lab.partition_image(),
    }]);
    let deploy = lab.configured(&[FLOW, "--node", "lab-1"]).output().unwrap();
    assert_eq!(code(&deploy), 0, "{}", text(&deploy));
    let inserted = |lab: &LabUp| {
        let events = super::events(lab);
        events
            .iter()
            .filter(|event| event["event"] == "inserted")
            .count()
    };
    let shown = text(&lab.configured(&["node", "show", "lab-1"]).output().unwrap());
    for part in [
        "provision_state = active, of run ",
        "instance_info.boot_iso = swift:",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    for (before, words) in [
        ("force-off", "on"),
        ("", "reset"),
        ("force-off", "reboot"),
        ("", "reboot"),
    ] {
        if !before.is_empty() {
            told(
                &lab.configured(&["node", "power", "lab-1", before])
                    .output()
                    .unwrap(),
                0,
                &["off"],
            );
        }
        let count = inserted(&lab);
        let output = lab
            .configured(&["node", "power", "lab-1", words])
            .output()
            .unwrap();
        told(&output, 0, &["ok reboot", "\"on\""]);
        assert_eq!(inserted(&lab), count + 1, "{words}: {}", text(&output));
    }
    // Not while a deployment has the node.
    let child = lab
        .configured(&[FLOW, "rebuild", "--node", "lab-1"])
        .spawn();
    let mut child = child.unwrap();
    super::until_entry(&lab, "wait for ramdisk/ramdisk.wait");
    let output = lab
        .configured(&["node", "power", "lab-1", "reboot"])
        .output()
        .unwrap();
    told(&output, 1, &["[conflict]", "holds this node"]);
    assert!(child.wait().unwrap().success());
    let removed = run(&[FLOW, "tear_down", "--node", "lab-1", "--lab-dir", lab.dir()]);
    assert_eq!(code(&removed), 0, "{}", text(&removed));
    lab.nothing_is_left();
}
