//! The stock flow on every generation of iLO, and under everything that an iLO can be told to do
//! wrong: it succeeds, or it fails with the right kind and a hint and leaves nothing behind.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

use crate::flow::{FLOW, LabUp, flowrun};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    /// With an error of this kind.
    Fails(&'static str),
}
use End::{Done, Fails};

/// An iLO, what it does wrong, and how the run ends.
type Case = (&'static str, &'static str, End);

const CASES: &[Case] = &[
    ("ilo5", "", Done),
    ("ilo6", "", Done),
    ("ilo7", "", Done),
    ("ilo5-early", "", Done),
    ("ilo4-rest", "", Done),
    ("ilo4-ribcl", "", Done),
    (
        "ilo5",
        "ilo.insert=accepted-but-not-mounted",
        Fails("timeout"),
    ),
    ("ilo5", "ilo.insert=license-rejected", Fails("unsupported")),
    ("ilo5", "ilo.insert=wrong-image-url", Fails("conflict")),
    ("ilo5", "ilo.insert=busy-x3", Done),
    ("ilo5", "ilo.insert=slow", Done),
    ("ilo5", "ilo.cdrom=held-by-console", Fails("conflict")),
    ("ilo5", "ilo.drive=hpe-actions-only", Done),
    ("ilo5", "ilo.media=lost-at-second-reset", Done),
    ("ilo5", "ilo.license=standard", Fails("unsupported")),
    ("ilo5", "ilo.power=ignored", Fails("timeout")),
    ("ilo5", "ilo.power=first-on-ignored", Fails("timeout")),
    ("ilo5", "ilo.power=shown-late", Done),
    ("ilo5", "ilo.power=unknown-first", Done),
    ("ilo5", "ilo.post=resets-twice", Done),
    ("ilo5", "ilo.boot=not-kept", Fails("timeout")),
    ("ilo5", "ilo.boot=continuous-refused", Done),
    ("ilo5", "ilo.boot=unsupported", Fails("unsupported")),
    ("ilo5", "ilo.secure-boot=lost", Done),
    ("ilo5", "ilo.read=503-x3", Done),
    ("ilo5", "ilo.read=cut-x3", Done),
    ("ilo5", "ilo.encoding=refused", Done),
    ("ilo5", "ilo.path=redirect-missing-slash", Done),
    ("ilo5", "ilo.sessions=taken", Fails("limit")),
    ("ilo5", "ilo.sessions=expire", Done),
    ("ilo5", "ilo.login=first-refused", Fails("auth")),
    ("ilo5", "ilo.login=slow", Done),
    ("ilo5", "ilo.account=no-privileges", Fails("auth")),
    ("ilo5", "ilo.xmldata=off", Done),
    ("ilo5", "ilo.redfish=absent", Done),
    // Who speaks Redfish is not disturbed by these.
    ("ilo5", "ilo.ribcl=disabled", Done),
    ("ilo5", "ilo.ribcl=database-open-x3", Done),
    ("ilo5", "ilo.ribcl=malformed", Done),
    ("ilo5", "ilo.ribcl=raw-entities", Done),
    ("ilo5", "ilo.ribcl=cut-x3", Done),
    ("ilo4-rest", "ilo.drive=patch-only", Done),
    ("ilo4-rest", "ilo.redfish=absent", Done),
    ("ilo4-rest", "ilo.encoding=gzip-unasked", Done),
    ("ilo4-ribcl", "ilo.ribcl=database-open-x3", Done),
    ("ilo4-ribcl", "ilo.ribcl=malformed", Done),
    // It asks the image server for `&amp;`, and nobody tells: only the ramdisk's silence does.
    ("ilo4-ribcl", "ilo.ribcl=raw-entities", Fails("timeout")),
    ("ilo4-ribcl", "ilo.ribcl=cut-x3", Done),
    ("ilo4-ribcl", "ilo.read=503-x3", Done),
    ("ilo4-ribcl", "ilo.boot=unsupported", Fails("unsupported")),
    ("ilo4-ribcl", "ilo.account=no-privileges", Fails("auth")),
    ("ilo4-ribcl", "ilo.insert=busy-x3", Done),
    ("ilo4-ribcl", "ilo.insert=slow", Done),
    ("ilo4-ribcl", "ilo.power=shown-late", Done),
    ("ilo4-ribcl", "ilo.power=unknown-first", Done),
    ("ilo4-ribcl", "ilo.post=resets-twice", Done),
    ("ilo4-ribcl", "ilo.media=lost-at-second-reset", Done),
    ("ilo4-ribcl", "ilo.xmldata=off", Done),
    ("ilo4-ribcl", "ilo.ribcl=disabled", Fails("unsupported")),
    (
        "ilo4-ribcl",
        "ilo.insert=license-rejected",
        Fails("unsupported"),
    ),
    ("ilo4-ribcl", "ilo.license=standard", Fails("unsupported")),
    // The other image cannot be opened, so the drive stays empty.
    ("ilo4-ribcl", "ilo.insert=wrong-image-url", Fails("timeout")),
    ("ilo4-ribcl", "ilo.cdrom=held-by-console", Fails("conflict")),
    (
        "ilo4-ribcl",
        "ilo.insert=accepted-but-not-mounted",
        Fails("timeout"),
    ),
    ("ilo4-ribcl", "ilo.power=ignored", Fails("timeout")),
    ("ilo4-ribcl", "ilo.boot=not-kept", Fails("timeout")),
    ("ilo5", "node.power=lost-in-write", Fails("unreachable")),
    ("ilo5", "node.ramdisk=silent", Fails("timeout")),
    ("ilo5", "node.ramdisk=fails", Fails("refused")),
    ("ilo5", "node.iscsi=login-refused", Fails("auth")),
    ("ilo5", "node.done=closed", Done),
    ("ilo5", "store.put=full", Fails("limit")),
    ("ilo5", "node.disk=fails-in-write", Fails("io")),
    ("ilo5", "node.disk=flips-a-bit", Fails("corrupt")),
];

/// What is going to fail need not be waited for as long as the primitives do.
const IMPATIENCE: &str = "\
local power, vmedia_boot = require \"power\", require \"vmedia_boot\"
local function soon(call)
  return function(node, options)
    options.timeout = \"8s\"
    return call(node, options)
  end
end
for _, name in ipairs { \"attach_vmedia\", \"eject_vmedia\", \"set_power\", \"set_one_time_boot\" } do
  ilo[name] = soon(ilo[name])
end
";

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

/// A site with one node for each case.
fn site(cases: &[Case]) -> LabUp {
    let mut more = Vec::new();
    for (index, (ilo, fault, _)) in cases.iter().enumerate() {
        let node = node(index);
        more.extend(words(["--lab-ilo", &format!("{node}:{ilo}")]));
        if !fault.is_empty() {
            more.extend(words(["--lab-fault", &format!("{node}:{fault}")]));
        }
    }
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    LabUp::start_with(cases.len().try_into().unwrap(), &more)
}

/// Deploys these nodes at once; the last event of each.
fn deploy(lab: &LabUp, flow: &Path, nodes: &[String], more: &[&str]) -> BTreeMap<String, Value> {
    let mut args = vec![flow.to_str().unwrap().to_owned()];
    args.extend(words(["--json", "--lab-dir", lab.dir()]));
    for node in nodes {
        args.extend(words(["--node", node]));
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = flowrun(&args).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let events = out
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let ends = events.filter(|event: &Value| event["event"] == "run_finished");
    let ends: BTreeMap<_, _> = ends
        .map(|event| (event["node"].as_str().unwrap().to_owned(), event))
        .collect();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert_eq!(ends.len(), nodes.len(), "{out}\n{complained}");
    ends
}

fn node(index: usize) -> String {
    format!("lab-{}", index + 1)
}

/// What is wrong with how a run ended and what it left.
fn complaints(case: &Case, end: &Value, machine: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut expect = |is_right: bool, what: &str| {
        if !is_right {
            complaints.push(what.to_owned());
        }
    };
    match case.2 {
        Done => {
            expect(end["status"] == "done", "it did not succeed");
            expect(machine["power"] == "on", "the server is not on");
        }
        Fails(kind) => {
            expect(end["status"] != "done", "it did not fail");
            expect(end["error"]["kind"] == kind, "the kind is another");
            let hint = end["error"]["hint"].as_str().unwrap_or_default();
            let is_ilo = case.1.starts_with("ilo.");
            expect(!is_ilo || !hint.is_empty(), "there is no hint");
            expect(machine["power"] == "off", "the server is left on");
        }
    }
    for medium in machine["media"].as_array().unwrap() {
        expect(medium["inserted"] == false, "a medium is left in a drive");
    }
    expect(machine["sessions"] == 0, "a session is left open");
    complaints
}

#[test]
fn the_stock_flow_meets_every_ilo_and_everything_it_does_wrong() {
    let lab = site(CASES);
    let nodes_of = |wanted: &dyn Fn(End) -> bool| -> Vec<String> {
        let cases = CASES.iter().enumerate();
        let fitting = cases.filter(|(_, case)| wanted(case.2));
        fitting.map(|(index, _)| node(index)).collect()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = nodes_of(&|end| end == Done);
    let mut ends = deploy(&lab, &root.join(FLOW), &done, &[]);
    let impatient = lab.path("impatient.lua");
    let stock = std::fs::read_to_string(root.join(FLOW)).unwrap();
    std::fs::write(&impatient, format!("{IMPATIENCE}{stock}")).unwrap();
    let failing = nodes_of(&|end| end != Done);
    let impatience = ["--param", "callback_timeout=15s"];
    ends.extend(deploy(&lab, &impatient, &failing, &impatience));

    let state = lab.state();
    let mut wrong = Vec::new();
    for (index, case) in CASES.iter().enumerate() {
        let end = &ends[&node(index)];
        let machine = &state["nodes"][index]["machine"];
        let complaints = complaints(case, end, machine);
        if !complaints.is_empty() {
            let error = &end["error"];
            wrong.push(format!(
                "{case:?}: {}\n    {error}\n    {machine}",
                complaints.join(", ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(state["object_store"]["objects"], 1, "only the deploy ISO");
    for entry in std::fs::read_dir(lab.path("state")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(!name.to_string_lossy().ends_with(".lock"), "{name:?}");
    }
}

/// A new fault is a new case.
#[test]
fn every_fault_has_a_case() {
    let output = flowrun(&["lab", "faults", "--json"]).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let faults: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    assert!(faults.len() > 30, "{out}");
    for fault in faults {
        let name = fault["name"].as_str().unwrap();
        let has_case = CASES.iter().any(|(_, known, _)| *known == name);
        assert!(has_case, "{name}");
        for part in ["what", "source"] {
            assert!(!fault[part].as_str().unwrap().is_empty(), "{name}");
        }
    }
}
