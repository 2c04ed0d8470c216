//! Whose certificate is taken for the iLO's.

use super::{lines, only, password, run};
use crate::flow::{LabUp, flowrun, text, told};
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Looks at its iLO in a step.
const FLOW: &str = r#"
return flow { name = "look", actions = { look = function(_, node)
  return step("look", function() return ilo.power_state(node) end)
end } }
"#;

fn trust_of(lab: &LabUp) -> Value {
    lines(&run(lab, &["node", "list", "--json"]))[0]["trust"].clone()
}

fn certificate(lab: &LabUp) -> PathBuf {
    let files = std::fs::read_dir(lab.path("tls")).unwrap().flatten();
    let ilo = |path: &PathBuf| path.to_string_lossy().contains("ilo-lab-1-");
    files
        .map(|file| file.path())
        .find(|path| ilo(path) && path.extension().is_some_and(|e| e == "pem"))
        .unwrap()
}

/// As OpenSSL tells it.
fn fingerprint(lab: &LabUp) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(certificate(lab))
        .output()
        .unwrap();
    let said = text(&output);
    let (_, fingerprint) = said.trim().split_once('=').unwrap();
    fingerprint.to_owned()
}

/// On a terminal, answering so.
fn on_terminal(lab: &LabUp, answer: &str) -> Output {
    let command = format!(
        "{} node trust lab-1 --lab-dir {}",
        env!("CARGO_BIN_EXE_flowrun"),
        lab.dir()
    );
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut terminal = child.stdin.take().unwrap();
    writeln!(terminal, "{answer}").unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_pin_is_stored_noticed_when_it_changes_and_forgotten() {
    let mut lab = LabUp::start_with(1, &["--lab-ilo", "ilo4-ribcl"]);
    let old = fingerprint(&lab);
    let confirm = ["node", "trust", "lab-1"];
    told(
        &run(&lab, &confirm),
        2,
        &[&old, "issuer       CN=flowrun lab", "--fingerprint SHA256"],
    );
    let wrong = old.replace(|c: char| c.is_ascii_digit(), "A");
    let given = ["node", "trust", "lab-1", "--fingerprint"];
    let with = |fingerprint: &str| run(&lab, &[&given[..], &[fingerprint]].concat());
    told(&with(&wrong), 1, &["[auth]", &wrong, &old, "hint: "]);
    assert_eq!(trust_of(&lab), "ca");
    let bare = old.replace(':', "").to_lowercase();
    told(&with(&bare), 0, &["only this certificate is accepted"]);
    assert_eq!(trust_of(&lab), "stored_pin");
    told(&run(&lab, &confirm), 0, &["is pinned already"]);
    let shown = only(&run(&lab, &["node", "show", "lab-1", "--json"]));
    assert_eq!(shown["tls"]["fingerprint"], old.as_str());
    assert_eq!(shown["tls"]["trust"], "stored_pin");

    // The same CA signs the new certificate; that counts for nothing any more.
    std::fs::remove_file(certificate(&lab)).unwrap();
    lab.restart(1);
    let new = fingerprint(&lab);
    for args in [
        &["node", "show", "lab-1"][..],
        &["node", "power", "lab-1", "on"],
        &["call", "ilo.power_state", "--node", "lab-1"],
        &["node", "trust", "lab-1"],
        &["node", "trust", "lab-1", "--yes"],
    ] {
        let output = run(&lab, args);
        told(
            &output,
            1,
            &["[auth]", &old, &new, "`flowrun node trust lab-1"],
        );
        assert!(!text(&output).contains(&password(&lab, "lab-1")));
    }
    assert!(
        !lab.state()["nodes"][0]["events"]
            .to_string()
            .contains("power_action")
    );

    let refused = on_terminal(&lab, "no");
    told(
        &refused,
        3,
        &["THE CERTIFICATE CHANGED:", &old, "nothing is pinned"],
    );
    told(&run(&lab, &["node", "show", "lab-1"]), 1, &["[auth]"]);
    told(&on_terminal(&lab, "yes"), 0, &[&new, "[yes/no]", "pinned:"]);
    told(
        &run(&lab, &["node", "show", "lab-1"]),
        0,
        &[&new, "trust: stored pin"],
    );

    let forget = ["node", "trust", "lab-1", "--forget"];
    told(&run(&lab, &forget), 0, &[&format!("forgot {new}")]);
    told(&run(&lab, &forget), 0, &["there was no stored pin"]);
    assert_eq!(trust_of(&lab), "ca");
}

/// A site of its own configuration, which holds the lab's first server.
struct Configured {
    dir: tempfile::TempDir,
    flow: String,
}

impl Configured {
    fn new(lab: &LabUp, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = std::fs::read(lab.path("site.json")).unwrap();
        let site: Value = serde_json::from_slice(&site).unwrap();
        let about = &site["site"]["nodes"][0]["driver_info"];
        let state = dir.path().join("state");
        let config = format!(
            "[site]\nstate_dir = {state:?}\n[nodes.n1]\nuuid = {}\n[nodes.n1.driver_info]\n\
             ilo_address = {}\nilo_username = {}\nilo_password_file = {}\n{more}\n",
            site["site"]["nodes"][0]["uuid"],
            about["ilo_address"],
            about["ilo_username"],
            about["ilo_password_file"],
        );
        std::fs::write(dir.path().join("flowrun.toml"), config).unwrap();
        let flow = dir.path().join("look.lua");
        std::fs::write(&flow, FLOW).unwrap();
        let flow = flow.to_str().unwrap().to_owned();
        Self { dir, flow }
    }

    fn run(&self, args: &[&str]) -> Output {
        let config = self.dir.path().join("flowrun.toml");
        flowrun(args).arg("--config").arg(config).output().unwrap()
    }
}

#[test]
fn whoever_is_not_verified_is_warned_of_in_every_run() {
    let lab = LabUp::start_with(1, &["--lab-ilo", "ilo5"]);
    let site = Configured::new(&lab, "ilo_insecure = true");
    let warning = "the iLO of n1 is not verified (ilo_insecure)";
    let look = [site.flow.as_str(), "--node", "n1"];
    told(&site.run(&["node", "list"]), 0, &["insecure"]);
    for args in [
        &look[..],
        &look,
        &["call", "ilo.power_state", "--node", "n1"],
        &["node", "show", "n1"],
        &["node", "power", "n1"],
    ] {
        let output = site.run(args);
        told(&output, 0, &[warning]);
        assert_eq!(text(&output).matches(warning).count(), 1, "{args:?}");
    }
    let runs = lines(&site.run(&["runs", "--json"]));
    assert_eq!(runs.len(), 3);
    for run in &runs {
        let id = run["id"].as_str().unwrap();
        told(&site.run(&["logs", id]), 0, &["warn", warning]);
    }

    // A pin goes before the word.
    told(&site.run(&["node", "trust", "n1", "--yes"]), 0, &["pinned"]);
    for args in [&look[..], &["node", "show", "n1"]] {
        let output = site.run(args);
        told(&output, 0, &[]);
        assert!(!text(&output).contains("not verified"), "{}", text(&output));
    }
    told(
        &site.run(&["node", "show", "n1"]),
        0,
        &["trust: stored pin"],
    );
}

#[test]
fn the_system_and_the_configuration_are_asked_in_their_order() {
    let lab = LabUp::start_with(1, &["--lab-ilo", "ilo6"]);
    let shown = fingerprint(&lab);
    let unknown = Configured::new(&lab, "");
    told(
        &unknown.run(&["node", "show", "n1"]),
        1,
        &[
            "not trusted [auth]",
            "`flowrun node trust n1` shows it and pins it",
        ],
    );
    told(&unknown.run(&["node", "list"]), 0, &["system"]);

    let pinned = Configured::new(&lab, &format!("ilo_fingerprint = {shown:?}"));
    told(&pinned.run(&["node", "show", "n1"]), 0, &["trust: pinned"]);
    told(
        &pinned.run(&["node", "trust", "n1"]),
        0,
        &["the configuration pins it"],
    );

    let other = "0".repeat(64);
    let wrong = format!("ilo_fingerprint = {other:?}\nilo_insecure = true");
    let wrong = Configured::new(&lab, &wrong);
    for args in [
        &["node", "show", "n1"][..],
        &["node", "trust", "n1", "--yes"],
        &["node", "trust", "n1", "--fingerprint", &shown],
        &[&wrong.flow, "--node", "n1"],
    ] {
        told(
            &wrong.run(args),
            1,
            &["[auth]", "00:00:00", &shown, "ilo_fingerprint"],
        );
    }
}
