//! The settings of a server from Lua, on a node of every generation.

use super::{LabUp, code, flowrun, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SETTINGS: &str = r#"
local function settings(_, node)
  local once = ilo.set_one_time_boot(node, { device = "pxe" })
  local set = ilo.set_boot_device(node, { device = "pxe" })
  local mode = ilo.set_boot_mode(node, { mode = ilo.boot_mode(node) })
  local secure, no_secure = try(ilo.set_secure_boot, node, { enabled = true })
  local xml = '<SERVER_INFO MODE="read"><GET_HOST_POWER_STATUS/></SERVER_INFO>'
  local answer, no_ribcl = try(ilo.ribcl, node, { xml = xml })
  ilo.set_power(node, { state = "on" })
  while ilo.boot_device(node).enabled == "once" do sleep("100ms") end
  return {
    once = once.enabled,
    enabled = set.enabled,
    pending = set.pending,
    persistent = ilo.boot_device(node).persistent,
    mode = mode.mode,
    secure = secure or no_secure.kind,
    ribcl = answer and answer.elements[1].attributes.HOST_POWER or no_ribcl.kind,
  }
end

return flow { name = "settings", actions = { run = settings } }
"#;

#[test]
fn settings_of_every_generation() {
    let lab = LabUp::start(6, &[]);
    let path = lab.path("settings.lua");
    std::fs::write(&path, SETTINGS).unwrap();
    let nodes: Vec<String> = (1..=6).map(|n| format!("lab-{n}")).collect();
    let mut args = vec![path.to_str().unwrap(), "--json", "--lab-dir", lab.dir()];
    args.extend(nodes.iter().flat_map(|node| ["--node", node]));
    let output = flowrun(&args).output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let events = out.lines().map(|line| serde_json::from_str(line).unwrap());
    let ends = events.filter(|event: &Value| event["event"] == "run_finished");
    let results: BTreeMap<String, Value> = ends
        .map(|end| {
            (
                end["node"].as_str().unwrap().to_owned(),
                end["result"].clone(),
            )
        })
        .collect();

    let lasting = |ribcl: &str| {
        json!({
            "once": "once", "enabled": "continuous", "persistent": "pxe", "mode": "uefi",
            "secure": { "current": false, "enabled": true }, "ribcl": ribcl,
        })
    };
    // As the lab deals them out: iLO 5, 6, 7, early 5, 4 with REST, 4 with RIBCL only.
    let expected = [
        lasting("OFF"),
        lasting("unsupported"),
        lasting("unsupported"),
        lasting("OFF"),
        lasting("OFF"),
        json!({
            "once": "once", "enabled": "once", "persistent": "pxe", "pending": "pxe",
            "mode": "legacy", "secure": "unsupported", "ribcl": "OFF",
        }),
    ];
    for (node, expected) in nodes.iter().zip(expected) {
        assert_eq!(results[node], expected, "{node}");
    }
}
