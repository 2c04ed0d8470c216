//! A run that began before an edit, killed and taken up after it.

use crate::flow::{code, flowrun, signal, text};
use flowrun::clock;
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const FLOW: &str = "local m = require 'm'
return flow { name = 'kept', actions = { go = function(_, node)
  step('hold', function() sleep('2s') end)
  return { flow = 1, module = m.version, late = require('late').version, model = node.properties.x }
end } }
";

/// Waits until the run sleeps, and answers its id.
fn until_it_holds(config: &Path) -> String {
    let deadline = clock::instant() + Duration::from_secs(60);
    while clock::instant() < deadline {
        let shown = flowrun(&["show", "--json", "0", "--config"])
            .arg(config)
            .output();
        let shown: Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap_or_default();
        let mut entries = shown["entries"].as_array().into_iter().flatten();
        if entries.any(|entry| entry["key"] == "hold/sleep#1") {
            return shown["run"]["id"].as_str().unwrap().to_owned();
        }
    }
    panic!("the run does not come to its sleep");
}

#[test]
fn a_killed_run_ends_on_the_version_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), text).unwrap();
    };
    let site = format!(
        "state_dir = {:?}\nflows = [{:?}]\n",
        at("state"),
        at("flows")
    );
    let node = "uuid = \"1be26c0b-03f2-4d2e-ae87-c02d7f33c781\"\nports = [\"aa:bb:cc:00:11:22\"]\n\
        [nodes.n.driver_info]\nilo_address = \"192.0.2.7\"\nilo_username = \"u\"\n\
        ilo_password_file = \"/nowhere\"\n[nodes.n.properties]\nx = 1\n";
    write(
        "flowrun.toml",
        &format!("[site]\n{site}\n[nodes.n]\n{node}"),
    );
    write("flows/kept.lua", FLOW);
    for name in ["m", "late"] {
        write(&format!("flows/{name}.lua"), "return { version = 1 }");
    }
    let mut child = flowrun(&["kept", "go", "--node", "n", "--config"])
        .arg(at("flowrun.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = until_it_holds(&at("flowrun.toml"));
    signal(&child, "-KILL");
    child.wait().unwrap();

    write("flows/kept.lua", "this is no Lua");
    write("flows/m.lua", "return { version = 2 }");
    std::fs::remove_file(at("flows/late.lua")).unwrap();
    let output = flowrun(&["resume", &id, "--json", "--config"])
        .arg(at("flowrun.toml"))
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut events = said
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let end = events
        .find(|event| event["event"] == "run_finished")
        .unwrap();
    let wanted = serde_json::json!({ "flow": 1, "module": 1, "late": 1, "model": 1 });
    assert_eq!(end["result"], wanted, "{said}");
}
