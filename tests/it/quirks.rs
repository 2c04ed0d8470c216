//! Quirks, with the binary on a simulated site: which apply, what they change, what a killed run
//! makes of them, and what is said about wrong ones.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

use crate::flow::{LabUp, code, flowrun, text, until_entry};
use serde_json::Value;
use std::path::Path;
use std::process::{Output, Stdio};

/// Boots a server's media, and looks at what quirks changed.
const FLOW: &str = r#"
local vmedia_boot = require "vmedia_boot"
return flow { name = "media", actions = { insert = function(_, node)
  defer(function() vmedia_boot.cleanup(node) end)
  local said = step("insert", function()
    vmedia_boot.setup(node, node.driver_info.deploy_iso)
    return "the flow"
  end)
  return { said = said, rack = node.properties.rack, uuid = node.uuid }
end } }
"#;

/// A folder with the flow, the example's quirk, and these quirks.
fn site(quirks: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("quirks");
    std::fs::create_dir(&folder).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quirks/ilo4_settle.lua");
    std::fs::copy(example, folder.join("ilo4_settle.lua")).unwrap();
    for (name, quirk) in quirks {
        std::fs::write(folder.join(name), quirk).unwrap();
    }
    let flow = dir.path().join("media.lua");
    std::fs::write(&flow, FLOW).unwrap();
    let flow = flow.to_str().unwrap().to_owned();
    (dir, flow)
}

fn run(lab: &LabUp, args: &[&str]) -> Output {
    flowrun(args)
        .args(["--lab-dir", lab.dir()])
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    out.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The end of a run, and the keys of its journal.
fn journal(lab: &LabUp, output: &Output) -> (Value, Vec<Value>) {
    let end = lines(output)
        .into_iter()
        .find(|event| event["event"] == "run_finished")
        .unwrap_or_else(|| unreachable!("no end in {}", text(output)));
    let id = end["run"].as_str().unwrap();
    let shown = lines(&run(lab, &["show", "--json", id]));
    (end, shown[0]["entries"].as_array().unwrap().clone())
}

fn keys(entries: &[Value]) -> Vec<&str> {
    entries.iter().filter_map(|e| e["key"].as_str()).collect()
}

#[test]
fn quirks_apply_to_the_hardware_they_match() {
    let lab = LabUp::start_with(
        2,
        &["--lab-ilo", "lab-1:ilo4-rest", "--lab-ilo", "lab-2:ilo6"],
    );
    let more = r#"
quirk { id = "rack", why = "a site's own", match = { firmware = ">= 1.0, < 99", model = "^ProLiant" },
  set = { properties = { rack = "r7" } }, expires = "2020-01-31",
  around = { insert = function(next) return next() .. ", surrounded" end },
  wrap = { ["ilo.eject_vmedia"] = function(next, node, o)
    ilo.eject_vmedia(node, o) -- inside of its own quirk it is the primitive
    return next(node, o)
  end } }
quirk { id = "ancient", why = "gone", match = { firmware = "< 0.5" },
  around = { insert = function() fail("internal", "must not run") end } }
"#;
    let (_dir, flow) = site(&[("rack.lua", more)]);

    let told = run(&lab, &["quirks", "lab-1", &flow, "--json"]);
    let verdicts = lines(&told);
    let applies: Vec<_> = verdicts
        .iter()
        .map(|v| (v["id"].as_str().unwrap(), v["applies"].as_bool().unwrap()))
        .collect();
    assert_eq!(
        applies,
        [("ilo4-settle", true), ("rack", true), ("ancient", false)],
        "{}",
        text(&told)
    );
    assert_eq!(verdicts[1]["expired"], true);
    let said = text(&run(&lab, &["quirks", "lab-2", &flow]));
    for part in [
        "not      ilo4-settle",
        "ilo 4: the iLO reports 6, no match",
        "applies  rack",
        "expires  2020-01-31: it has expired",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }

    let output = run(&lab, &[&flow, "--json", "--node", "lab-1"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert!(text(&output).contains("rack expired on 2020-01-31"));
    let (end, entries) = journal(&lab, &output);
    assert_eq!(end["result"]["said"], "the flow, surrounded");
    assert_eq!(end["result"]["rack"], "r7");
    let wrapped = "insert/quirk rack/quirk ilo4-settle";
    for key in [
        "quirks/ilo.info#1".to_owned(),
        format!("{wrapped}/quirk rack/ilo.eject_vmedia#2"),
        format!("{wrapped}/sleep#1"),
        format!("{wrapped}/try 1/ilo.attach_vmedia#1"),
    ] {
        assert!(
            keys(&entries).contains(&key.as_str()),
            "{key} of {entries:#?}"
        );
    }

    let output = run(&lab, &[&flow, "--json", "--node", "lab-2"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let (_, entries) = journal(&lab, &output);
    let keys = keys(&entries);
    assert!(
        keys.contains(&"insert/quirk rack/ilo.attach_vmedia#1"),
        "{keys:#?}"
    );
    assert!(
        !keys.iter().any(|key| key.contains("ilo4-settle")),
        "{keys:#?}"
    );
}

/// The iLO's answer is in the journal: the run that goes on takes the same path, although the
/// quirk's file says something else by then.
#[test]
fn a_killed_run_goes_on_with_the_quirks_it_began_with() {
    let lab = LabUp::start_with(1, &["--lab-ilo", "ilo4-rest"]);
    let slow = r#"
quirk { id = "slow", why = "a test", match = { ilo = 4 }, around = {
  insert = function(next) log.info("before") sleep("5s") return next() .. ", late" end } }
"#;
    let (dir, flow) = site(&[("slow.lua", slow)]);
    let mut child = flowrun(&[&flow, "--node", "lab-1", "--lab-dir", lab.dir()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until_entry(&lab, "insert/quirk slow/sleep#1");
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::write(dir.path().join("quirks/slow.lua"), "nonsense").unwrap();

    let id = lines(&run(&lab, &["runs", "--json"]))[0]["id"].clone();
    let output = run(&lab, &["resume", id.as_str().unwrap(), "--json"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let (end, entries) = journal(&lab, &output);
    assert_eq!(end["result"]["said"], "the flow, late");
    let asked: Vec<_> = entries
        .iter()
        .filter(|e| e["name"] == "ilo.info")
        .map(|e| (e["key"].as_str().unwrap(), e["attempt"].as_u64().unwrap()))
        .collect();
    assert_eq!(asked, [("quirks/ilo.info#1", 1)]);
}

/// Each is told with its file and line before anything runs; no iLO is asked.
#[test]
fn a_wrong_quirk_is_told_with_its_place() {
    let lab = LabUp::start_with(1, &[]);
    for (quirk, why) in [
        ("quirk { why = 'x' }", "`id` is missing"),
        ("quirk { id = 'a' }", "quirk a: `why` is missing"),
        (
            "quirk { id = 'a', why = 'x', macth = {} }",
            "did you mean match?",
        ),
        (
            "quirk { id = 'ilo4-settle', why = 'x' }",
            "declared twice, first at",
        ),
        (
            "quirk { id = 'a', why = 'x', match = { bois = 'U' } }",
            "did you mean bios?",
        ),
        (
            "quirk { id = 'a', why = 'x', match = { ilo = '4' } }",
            "match.ilo must be a number",
        ),
        (
            "quirk { id = 'a', why = 'x', match = { firmware = 'old' } }",
            "match.firmware \"old\" is not understood",
        ),
        (
            "quirk { id = 'a', why = 'x', match = { model = '[' } }",
            "is no Lua pattern",
        ),
        (
            "quirk { id = 'a', why = 'x', wrap = { ['ilo.atach_vmedia'] = print } }",
            "did you mean ilo.attach_vmedia?",
        ),
        (
            "quirk { id = 'a', why = 'x', around = { insert = 1 } }",
            "must be a function",
        ),
        (
            "quirk { id = 'a', why = 'x', set = { driver_info = { ilo_address = 'h' } } }",
            "flows do not read it",
        ),
        (
            "quirk { id = 'a', why = 'x', set = { name = {} } }",
            "set has no option `name`",
        ),
        (
            "quirk { id = 'a', why = 'x', expires = '2027-02-30' }",
            "expires is no date",
        ),
        ("quirk { id = 'a', ", "unexpected symbol"),
    ] {
        let (_dir, flow) = site(&[("wrong.lua", &format!("\n{quirk}\n"))]);
        let output = run(&lab, &[&flow, "--node", "lab-1"]);
        let said = text(&output);
        assert_eq!(code(&output), 2, "{quirk}\n{said}");
        let line = if quirk.ends_with(", ") {
            "wrong.lua:"
        } else {
            "wrong.lua:2"
        };
        for part in [why, line] {
            assert!(
                said.contains(part),
                "{part:?} of {quirk} is missing in\n{said}"
            );
        }
    }
}
