//! What the server says it does, checked by others: schemathesis against the OpenAPI document,
//! prometheus_client on the metrics.

use super::daemon::Daemon;
use crate::flow::{LabUp, text};
use std::process::Command;

fn python() -> String {
    std::env::var("FLOWRUN_TEST_PYTHON").expect("FLOWRUN_TEST_PYTHON; tests/run.sh python makes it")
}

/// Generated requests, right and wrong ones: every answer has a status, headers and a body that
/// the document has, wrong ones are refused, and nothing breaks.
#[test]
fn schemathesis_finds_nothing() {
    let lab = LabUp::start(2, &[]);
    let daemon = Daemon::over(&lab);
    let document = Command::new("curl")
        .args(["-sS", "--fail", "-H"])
        .arg(format!("Authorization: Bearer {}", daemon.token))
        .args([
            "--cacert",
            &daemon.ca_file(),
            &format!("{}/openapi.json", daemon.url),
        ])
        .output()
        .unwrap();
    assert!(document.status.success(), "{}", text(&document));
    assert_eq!(
        document.stdout,
        include_bytes!("../../../src/api/openapi.json")
    );
    let schema = lab.path("openapi.json");
    std::fs::write(&schema, document.stdout).unwrap();
    let output = Command::new(python())
        .args(["-m", "schemathesis.cli", "run"])
        .arg(&schema)
        .args(["--url", &daemon.url, "--tls-verify", &daemon.ca_file()])
        .args(["-H", &format!("Authorization: Bearer {}", daemon.token)])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "20",
        ])
        .args(["--seed", "1", "--no-color"])
        .current_dir(lab.path("."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output),
        daemon.said()
    );
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
