//! The iLO sessions of a run, as the simulated iLO sees them.

use super::{LabUp, code, events, flowrun, text};

/// Runs a flow of one node to its end.
fn run_flow(lab: &LabUp, source: &str) {
    let flow = lab.path("sessions.lua");
    std::fs::write(&flow, source).unwrap();
    let args = [flow.to_str().unwrap(), "--node", "lab-1"];
    let output = flowrun(&args)
        .args(["--lab-dir", lab.dir()])
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
}

fn logins(lab: &LabUp) -> usize {
    let events = events(lab);
    let of_ilo = events.iter().filter(|e| e["event"] == "logged_in");
    of_ilo.count()
}

#[test]
fn branches_share_one_session() {
    let lab = LabUp::start(1, &["lab-1:ilo.login=slow"]);
    let flow = "\
return flow { name = \"sessions\", actions = {
  check = function(_, node)
    parallel {
      a = function() ilo.power_state(node) end,
      b = function() ilo.boot_mode(node) end,
      c = function() ilo.vmedia_status(node) end,
    }
  end,
} }
";
    run_flow(&lab, flow);
    assert_eq!(logins(&lab), 1);
    assert_eq!(lab.state()["nodes"][0]["machine"]["sessions"], 0);
}

/// The step gives up while the login is under way; the session that it opens is closed as well.
#[test]
fn a_login_that_nobody_waits_for_is_logged_out() {
    let lab = LabUp::start(1, &["lab-1:ilo.login=slow"]);
    let flow = "\
return flow { name = \"sessions\", actions = {
  check = function(_, node)
    local state, err = try(function()
      return step(\"look\", function() return ilo.power_state(node) end, { timeout = \"500ms\" })
    end)
    if not err or err.kind ~= \"timeout\" then fail(\"conflict\", \"the login was not slow\") end
  end,
} }
";
    run_flow(&lab, flow);
    assert_eq!(logins(&lab), 1);
    assert_eq!(lab.state()["nodes"][0]["machine"]["sessions"], 0);
}
