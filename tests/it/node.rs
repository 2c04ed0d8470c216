//! `flowrun node`: the binary against simulated iLOs of every generation.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod trust;

use crate::flow::{LabUp, code, flowrun, signal, text, told, until_entry};
use flowrun::clock;
use serde_json::{Map, Value, json};
use std::process::{Output, Stdio};
use std::time::Duration;

/// Attaches media by signed URLs and holds the node.
const HOLD: &str = r#"
local vmedia_boot = require "vmedia_boot"
return flow { name = "hold", actions = { hold = function(_, node)
  vmedia_boot.setup(node, node.driver_info.deploy_iso)
  step("hold", function() sleep("10m") end)
end } }
"#;

fn run(lab: &LabUp, args: &[&str]) -> Output {
    let mut command = flowrun(args);
    command.args(["--lab-dir", lab.dir()]).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn only(output: &Output) -> Value {
    assert_eq!(code(output), 0, "{}", text(output));
    let mut all = lines(output);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

/// The types of the values, in place of the values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Array(items) => items.iter().map(shape).collect(),
        Value::Object(fields) => {
            let typed = fields
                .iter()
                .map(|(name, value)| (name.clone(), shape(value)));
            Value::Object(typed.collect::<Map<_, _>>())
        }
    }
}

fn password(lab: &LabUp, node: &str) -> String {
    let path = lab.path(&format!("nodes/{node}/ilo-password"));
    std::fs::read_to_string(path).unwrap()
}

fn sessions(lab: &LabUp, node: usize) -> Value {
    lab.state()["nodes"][node]["machine"]["sessions"].clone()
}

/// The shape of `node show --json`, whatever the generation.
fn looks_right(shown: &Value) {
    let fields = shown.as_object().unwrap().iter();
    let types: Vec<_> = fields
        .map(|(name, value)| format!("{name}: {}", shape(value)))
        .collect();
    let drive = r#"{"boot_on_next_reset":"null","connected_via":"string","device":"string","image":"null","inserted":"boolean","write_protected":"boolean"}"#;
    // RIBCL does not tell whether a CD boots once.
    let cdrom = match shown["dialect"] == "ribcl" {
        true => drive.to_owned(),
        false => drive.replacen("null", "boolean", 1),
    };
    let wanted = [
        r#"address: "string""#,
        r#"bios_version: "string""#,
        r#"boot_mode: "string""#,
        r#"dialect: "string""#,
        r#"firmware: "string""#,
        r#"generation: "number""#,
        r#"health: "string""#,
        r#"license: "string""#,
        &format!("media: [{drive},{cdrom}]"),
        r#"model: "string""#,
        r#"name: "string""#,
        r#"post_state: "string""#,
        r#"power_state: "string""#,
        r#"run: "null""#,
        r#"serial: "string""#,
        r#"tls: {"fingerprint":"string","trust":"string","version":"string"}"#,
        r#"uuid: "string""#,
    ];
    assert_eq!(types, wanted, "{shown:#}");
    assert_eq!(shown["tls"]["version"], "TLSv1.3");
    assert_eq!(shown["tls"]["trust"], "ca");
}

#[test]
fn every_generation_is_shown_and_switched() {
    const NODES: [(&str, &str, u64, &str); 6] = [
        ("lab-1", "ilo4-ribcl", 4, "ribcl"),
        ("lab-2", "ilo4-rest", 4, "redfish"),
        ("lab-3", "ilo5-early", 5, "redfish"),
        ("lab-4", "ilo5", 5, "redfish"),
        ("lab-5", "ilo6", 6, "redfish"),
        ("lab-6", "ilo7", 7, "redfish"),
    ];
    let ilos: Vec<_> = NODES
        .iter()
        .map(|(node, ilo, ..)| format!("{node}:{ilo}"))
        .collect();
    let flags: Vec<_> = ilos.iter().flat_map(|ilo| ["--lab-ilo", ilo]).collect();
    let lab = LabUp::start_with(6, &flags);
    for (at, (node, _, generation, dialect)) in NODES.into_iter().enumerate() {
        let output = run(&lab, &["node", "show", node, "--json"]);
        assert!(!text(&output).contains(&password(&lab, node)), "{node}");
        let shown = only(&output);
        assert_eq!(shown["generation"], generation, "{node}");
        assert_eq!(shown["dialect"], dialect, "{node}");
        looks_right(&shown);

        let before = run(&lab, &["node", "power", node]);
        assert_eq!(String::from_utf8_lossy(&before.stdout), "off\n");
        let on = only(&run(&lab, &["node", "power", node, "on", "--json"]));
        assert_eq!(on, json!({ "name": node, "power_state": "on" }));
        let said = text(&run(&lab, &["node", "show", node]));
        let firmware = format!("firmware    {}", shown["firmware"].as_str().unwrap());
        for part in [
            firmware.as_str(),
            "power       on",
            "trust: ca",
            "run         -",
        ] {
            assert!(said.contains(part), "{part:?} is missing in\n{said}");
        }
        told(
            &run(&lab, &["node", "power", node, "force-off"]),
            0,
            &["off\n"],
        );
        assert_eq!(sessions(&lab, at), 0, "{node}");
    }
    let listed = lines(&run(&lab, &["node", "list", "--json"]));
    let names: Vec<_> = listed
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, NODES.map(|(node, ..)| node));
    let wanted = json!({ "name": "string", "address": "string", "trust": "string", "run": "null" });
    assert!(
        listed.iter().all(|node| shape(node) == wanted),
        "{listed:#?}"
    );
}

/// A signed URL is masked, and the server is not switched under a run that goes on.
#[test]
fn a_run_that_goes_on_keeps_its_server() {
    let lab = LabUp::start_with(1, &["--lab-ilo", "ilo5"]);
    let dir = tempfile::tempdir().unwrap();
    let flow = dir.path().join("hold.lua");
    std::fs::write(&flow, HOLD).unwrap();
    let mut child = flowrun(&[
        flow.to_str().unwrap(),
        "--node",
        "lab-1",
        "--lab-dir",
        lab.dir(),
    ])
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    until_entry(&lab, "hold/sleep#1");

    let output = run(&lab, &["node", "show", "lab-1", "--json"]);
    let shown = only(&output);
    assert_eq!(
        shape(&shown["run"]),
        json!({ "id": "string", "status": "string", "owner": "string" })
    );
    assert_eq!(shown["run"]["status"], "running");
    let media = shown["media"].as_array().unwrap();
    let cdrom = media
        .iter()
        .find(|drive| drive["device"] == "cdrom")
        .unwrap();
    assert!(
        cdrom["image"].as_str().unwrap().ends_with("?***"),
        "{cdrom}"
    );
    assert!(!text(&output).contains("temp_url_sig"));
    let said = text(&run(&lab, &["node", "show", "lab-1"]));
    assert!(
        said.contains("?*** (uri)") && !said.contains("temp_url_sig"),
        "{said}"
    );

    let id: String = shown["run"]["id"]
        .as_str()
        .unwrap()
        .chars()
        .take(12)
        .collect();
    let held = format!("run {id} (running) holds this node [conflict]");
    let off = ["node", "power", "lab-1", "force-off"];
    told(
        &run(&lab, &off),
        1,
        &[&held, &format!("flowrun cancel {id}"), "--force"],
    );
    told(&run(&lab, &["node", "power", "lab-1"]), 0, &["off\n"]);
    told(
        &run(&lab, &["node", "power", "lab-1", "on", "--force"]),
        0,
        &["warning: ", "on\n"],
    );
    child.kill().unwrap();
    child.wait().unwrap();
    told(
        &run(&lab, &off),
        0,
        &[&format!("run {id} (dead) holds this node"), "off\n"],
    );
    told(&run(&lab, &["node", "list"]), 0, &[&format!("{id} (dead)")]);
}

#[test]
fn an_interrupted_command_leaves_no_session() {
    let lab = LabUp::start(1, &["ilo.power=ignored"]);
    let child = flowrun(&["node", "power", "lab-1", "on", "--lab-dir", lab.dir()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = clock::instant() + Duration::from_secs(60);
    while !lab.state()["nodes"][0]["events"]
        .to_string()
        .contains("power_action")
    {
        assert!(clock::instant() < deadline, "{:#}", lab.state());
    }
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    told(&output, 3, &["lab-1: interrupted [cancelled]"]);
    assert_eq!(sessions(&lab, 0), 0);
}

#[test]
fn mistakes_are_told_before_anything_is_asked() {
    let lab = LabUp::start(2, &[]);
    for (args, exit, parts) in [
        (
            &["node", "show", "lab-11"][..],
            2,
            &["there is no node lab-11", "did you mean lab-1?"][..],
        ),
        (&["node", "show", "rack7"], 2, &["there are lab-1, lab-2"]),
        (
            &["node", "power", "lab-1", "offf"],
            2,
            &["possible values: on, off, force-off", "similar"],
        ),
        (
            &["node", "trust", "lab-1", "--fingerprint", "abc"],
            2,
            &["is not the SHA-256 fingerprint"],
        ),
        (
            &["node", "trust", "lab-1", "--yes", "--forget"],
            2,
            &["cannot be used with"],
        ),
        (
            &["node", "--help"],
            0,
            &["list", "power", "flowrun node trust dl380-7"],
        ),
    ] {
        told(&run(&lab, args), exit, parts);
    }
}
