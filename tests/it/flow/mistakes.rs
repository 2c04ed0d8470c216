//! Deployments that end with a reason, and leave nothing.

use super::{FLOW, LabUp, code, root, run, text, told};

#[test]
fn mistakes_are_told_with_place_and_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    let stock = std::fs::read_to_string(root().join(FLOW)).unwrap();
    let flow = dir.path().join("site_flow.lua");
    let write = |text: &str| std::fs::write(&flow, text).unwrap();
    let path = flow.to_str().unwrap();
    let lab = LabUp::start(1, &[]);
    let deploy = |more: &[&str]| {
        let mut args = vec![path, "--node", "lab-1", "--lab-dir", lab.dir()];
        args.extend(more);
        run(&args)
    };

    write(
        &stock
            .replace("\"fetch image\"", "\"look for the image\"")
            .replace(
                "local function deploy(_, node, p, preserve_ephemeral)",
                "local function deploy(_, node, p, preserve_ephemeral)\n  log.info(\"edited for %s\", node.name)",
            ),
    );
    told(
        &deploy(&[]),
        0,
        &["ok look for the image", "edited for lab-1"],
    );
    write(&stock.replace(
        "power.off(node)\n    boot_mode",
        "ilo.set_powr(node)\n    boot_mode",
    ));
    told(
        &deploy(&[]),
        1,
        &["site_flow.lua:33", "> ", "did you mean ilo.set_power?"],
    );
    write(&stock.replace(
        "{ timeout = p.callback_timeout }",
        "{ tiemout = p.callback_timeout }",
    ));
    told(
        &deploy(&[]),
        1,
        &[
            "no option `tiemout`",
            "site_flow.lua:",
            "did you mean `timeout`?",
        ],
    );
    lab.nothing_is_left();
    write(&stock.replace("return flow {", "return flow }"));
    told(&deploy(&[]), 2, &["site_flow.lua:", "> "]);
}

#[test]
fn wrong_values_end_a_run_with_a_reason_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lab = LabUp::start(1, &[]);
    let deploy = |more: &[&str]| lab.deploy(more).output().unwrap();
    told(
        &deploy(&["--param", "callback_timout=5m"]),
        2,
        &["did you mean callback_timeout?"],
    );
    told(
        &deploy(&["--set", "instance_info.image_sorce=x"]),
        2,
        &["did you mean instance_info.image_source?"],
    );
    told(
        &deploy(&["--set", "instance_info.image_source=/nowhere"]),
        1,
        &["/nowhere", "not_found"],
    );
    told(
        &deploy(&["--set", "driver_info.ilo_address=https://127.0.0.1:9"]),
        1,
        &["unreachable"],
    );
    let wrong = lab.path("wrong-password");
    std::fs::write(&wrong, "wrong").unwrap();
    let set = format!("driver_info.ilo_password_file={}", wrong.display());
    told(&deploy(&["--set", &set]), 1, &["[auth]", "hint:"]);
    let big = lab.path("big.raw");
    std::fs::File::create(&big)
        .unwrap()
        .set_len(5 << 30)
        .unwrap();
    let set = format!("instance_info.image_source={}", big.display());
    let output = deploy(&["--set", &set]);
    told(&output, 1, &["5368709120", "4294967296", "[limit]"]);
    lab.nothing_is_left();

    told(
        &run(&[FLOW, "--node", "lab-x", "--lab-dir", lab.dir()]),
        2,
        &["no node lab-x", "lab-1"],
    );
    told(
        &run(&[
            "flows/ilo_vmedia_iscs.lua",
            "--node",
            "lab-1",
            "--lab-dir",
            lab.dir(),
        ]),
        2,
        &["did you mean"],
    );
    let config = dir.path().join("flowrun.toml");
    std::fs::write(&config, "[api]\nlistem = \"x\"\n").unwrap();
    let output = run(&[FLOW, "--node", "x", "--config", config.to_str().unwrap()]);
    told(&output, 2, &["flowrun.toml:2", "did you mean `listen`?"]);
}

#[test]
fn what_an_ilo_refuses_ends_the_run_and_leaves_nothing() {
    for (fault, exit, part) in [
        ("ilo.insert=license-rejected", 1, "[unsupported]"),
        ("ilo.insert=accepted-but-not-mounted", 1, "[timeout]"),
        ("node.disk=flips-a-bit", 1, "[corrupt]"),
        ("node.ramdisk=fails", 1, "the ramdisk reports"),
        ("node.disk=fails-in-write", 1, "medium error"),
    ] {
        let lab = LabUp::start(1, &[fault]);
        let output = lab.deploy(&[]).output().unwrap();
        let said = text(&output);
        assert_eq!(code(&output), exit, "{fault}: {said}");
        assert!(said.contains(part), "{fault}: {said}");
        lab.nothing_is_left();
    }
}
