//! What the server says it does, checked by others: schemathesis against the OpenAPI document,
//! prometheus_client on the metrics.

use super::daemon::{Daemon, site};
use crate::flow::{LabUp, text};
use std::process::Command;

fn python() -> String {
    std::env::var("FLOWRUN_TEST_PYTHON").expect("FLOWRUN_TEST_PYTHON; tests/run.sh python makes it")
}

/// Generated requests, right and wrong ones: every answer has a status, headers and a body that
/// the document has, wrong ones are refused, and nothing breaks. First on whatever names come up,
/// then on a node, a run and a bundle that there are.
#[tokio::test]
async fn schemathesis_finds_nothing() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let document = daemon.request(reqwest::Method::GET, "/openapi.json").send();
    let document = document.await.unwrap().bytes().await.unwrap();
    assert_eq!(
        document[..],
        include_bytes!("../../../src/api/openapi.json")[..]
    );
    std::fs::write(lab.path("openapi.json"), document).unwrap();
    check(&lab, &daemon, "");
    let run = daemon.start("broken").await;
    let detail = daemon.until(&run, "failed").await;
    let known = format!(
        "[parameters]\n\"path.id\" = \"{run}\"\n\"path.hash\" = {}\n\"path.uuid\" = {}\n",
        detail["run"]["bundle"],
        site(&lab)["nodes"][0]["uuid"],
    );
    check(&lab, &daemon, &known);
}

fn check(lab: &LabUp, daemon: &Daemon, config: &str) {
    let file = lab.path("schemathesis.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(python());
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&file);
    command.arg("run").arg(lab.path("openapi.json"));
    command.args(["--url", &daemon.url, "--tls-verify", &daemon.ca_file()]);
    command.args(["-H", &format!("Authorization: Bearer {}", daemon.token)]);
    command.args([
        "--phases",
        "coverage,fuzzing",
        "--max-examples",
        "20",
        "--seed",
        "1",
    ]);
    let output = command
        .arg("--no-color")
        .current_dir(lab.path("."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{config}\n{}", text(&output));
    assert!(!daemon.said().contains("panicked"), "{}", daemon.said());
}

#[tokio::test]
async fn prometheus_reads_the_metrics() {
    let lab = LabUp::start(2, &[]);
    let daemon = Daemon::over(&lab);
    let deployed = daemon.asked(&["ilo_vmedia_iscsi", "--node", "lab-1"]);
    assert!(deployed.status.success(), "{}", text(&deployed));
    let run = daemon.start_on("expecting", "lab-2").await;
    daemon
        .until_entry(&run, "wait for ramdisk/ramdisk.wait")
        .await;
    let page = daemon
        .request(reqwest::Method::GET, "/metrics")
        .send()
        .await
        .unwrap();
    let kind = page.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let path = lab.path("metrics.txt");
    std::fs::write(&path, page.bytes().await.unwrap()).unwrap();
    let script = include_str!("metrics.py");
    let output = Command::new(python())
        .args(["-c", script])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// systemd reads the unit as it is meant, and finds little that it could do to the host.
#[test]
fn the_systemd_unit_is_tight() {
    let unit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/flowrun.service");
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().join("flowrun.service");
    let text_of_unit = std::fs::read_to_string(&unit).unwrap();
    let binary = env!("CARGO_BIN_EXE_flowrun");
    // The user and the place of the binary are the operator's.
    let here_text = text_of_unit
        .replace("/usr/local/bin/flowrun", binary)
        .replace("=flowrun\nGroup=flowrun", "=root\nGroup=root");
    std::fs::write(&here, here_text).unwrap();
    let analyze = |args: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(args).arg(&here).output()
    };
    let Ok(verified) = analyze(&["verify"]) else {
        eprintln!("SKIPPED: there is no systemd-analyze here");
        return;
    };
    let complaints = text(&verified);
    let about_us = complaints
        .lines()
        .filter(|line| line.contains("flowrun.service"));
    assert_eq!(about_us.collect::<Vec<_>>(), Vec::<&str>::new());
    let security = analyze(&["security", "--offline=true", "--threshold=25"]).unwrap();
    assert!(security.status.success(), "{}", text(&security));
}
