//! `--dry-run` and `check`, with the binary: what is shown, what is found, and that nothing is
//! touched.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

use crate::flow::{FLOW, code, flowrun, text, told};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

fn run(args: &[&str]) -> Output {
    flowrun(args).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A site whose iLO address answers to nobody, with this flow.
fn site(flow: &str) -> (tempfile::TempDir, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let config = format!(
        "[site]\nstate_dir = {state:?}\nflows = [{:?}]\n\
         [nodes.n1]\nuuid = \"1be26c0b-03f2-4d2e-ae87-c02d7f33c781\"\nports = [\"aa:bb:cc:00:11:22\"]\n\
         driver_info = {{ ilo_address = \"192.0.2.1\", ilo_username = \"u\", \
         ilo_password_file = \"/nonexistent\", deploy_iso = \"swift:images/deploy.iso\" }}\n\
         instance_info = {{ image_source = \"/nonexistent.raw\" }}\n",
        dir.path().join("flows"),
    );
    let (file, flows) = (dir.path().join("flowrun.toml"), dir.path().join("flows"));
    std::fs::write(&file, config).unwrap();
    std::fs::create_dir_all(flows.join("quirks")).unwrap();
    let path = flows.join("f.lua");
    std::fs::write(&path, flow).unwrap();
    let (file, path) = (
        file.to_str().unwrap().to_owned(),
        path.to_str().unwrap().to_owned(),
    );
    (dir, file, path)
}

fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for item in std::fs::read_dir(dir).unwrap().flatten() {
        match item.path().is_dir() {
            true => found.extend(files(&item.path())),
            false => drop(found.insert(item.path().display().to_string())),
        }
    }
    found
}

#[test]
fn a_dry_run_shows_every_call_and_touches_nothing() {
    let (dir, config, _) = site("return flow { name = 'x', actions = { a = function() end } }");
    let before = files(dir.path());
    let output = run(&[FLOW, "--node", "n1", "--dry-run", "--config", &config]);
    told(
        &output,
        0,
        &[
            "n1: destroys everything on the root disk of n1",
            "boot deploy ramdisk\n",
            "CHANGE  ilo.set_power(n1, { state = \"force_off\" })  flows/ilo_vmedia_iscsi.lua:",
            "url = <swift.temp_url#1>",
            "wait    ramdisk.wait(",
            "clean-up of write image\n  CHANGE  iscsi.logout(<iscsi.login#1>)",
            "n1: done on simulated answers",
        ],
    );
    assert_eq!(files(dir.path()), before, "a dry run writes no file");
}

#[test]
fn a_dry_run_is_told_as_json_too_with_quirks() {
    let flow = "return flow { name = 'f', actions = { eject = function(_, node)\n\
                step('empty', function() ilo.eject_vmedia(node, { device = 'cdrom' }) end)\n\
                return ilo.power_state(node) end } }";
    let (dir, config, path) = site(flow);
    let quirk = "quirk { id = 'twice', why = 'w', match = { ilo = 5 }, wrap = {\n\
                 ['ilo.eject_vmedia'] = function(next, node, o) sleep('3s') next(node, o) end } }";
    std::fs::write(dir.path().join("flows/quirks/q.lua"), quirk).unwrap();
    let output = run(&[
        &path,
        "--node",
        "n1",
        "--dry-run",
        "--json",
        "--config",
        &config,
    ]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let told = lines(&output);
    let calls: Vec<_> = told
        .iter()
        .filter(|e| e["event"] == "dry_run_call")
        .collect();
    let named = |name: &str| calls.iter().find(|call| call["name"] == name).unwrap();
    assert_eq!(named("sleep")["quirk"], "twice");
    let eject = named("ilo.eject_vmedia");
    assert_eq!(eject["class"], "effect");
    assert_eq!(eject["args"]["device"], "cdrom");
    assert!(
        eject["site"].as_str().unwrap().ends_with("q.lua:2"),
        "{eject}"
    );
    assert!(
        eject["step"]
            .as_str()
            .unwrap()
            .starts_with("empty/quirk twice"),
        "{eject}"
    );
    assert!(
        told[0]["quirks"][0]
            .as_str()
            .unwrap()
            .contains("quirk twice applies")
    );
    assert_eq!(told.last().unwrap()["status"], "done");
    assert_eq!(told.last().unwrap()["result"], "on");
}

#[test]
fn a_dry_run_that_fails_names_the_line_and_exits_with_1() {
    let flow = "return flow { name = 'f', actions = { a = function(_, node)\n\
                  fail('conflict', node.name .. ' is in rack 9', 'move it') end } }";
    let (_dir, config, path) = site(flow);
    let output = run(&[&path, "--node", "n1", "--dry-run", "--config", &config]);
    told(
        &output,
        1,
        &[
            "n1 is in rack 9 [conflict]",
            "f.lua:2",
            "hint: move it",
            "n1: failed",
        ],
    );
    let output = run(&[&path, "--node", "n2", "--dry-run", "--config", &config]);
    told(&output, 2, &["there is no node n2", "did you mean n1?"]);
    let output = run(&[&path, "b", "--node", "n1", "--dry-run", "--config", &config]);
    told(&output, 2, &["has no action b"]);
}

#[test]
fn check_reads_the_whole_site_or_what_it_is_told() {
    let flow = "return flow { name = 'f', actions = { a = function(_, node)\n  \
                ilo.attach_vmeida(node)\nend } }";
    let (dir, config, path) = site(flow);
    std::fs::write(dir.path().join("flows/quirks/q.lua"), "quirk { id = 'q' }").unwrap();
    std::fs::write(dir.path().join("flows/g.lua"), "return flow {").unwrap();
    let output = run(&["check", "--config", &config]);
    told(
        &output,
        1,
        &[
            "error: there is no ilo.attach_vmeida\n",
            "f.lua:2\n",
            "  >    2 |   ilo.attach_vmeida(node)\n",
            "hint: did you mean ilo.attach_vmedia?",
            "g.lua:1\n",
            "q.lua:1\n",
            "quirk q: `why` is missing",
            "3 errors, 0 warnings",
        ],
    );
    let output = run(&["check", "--json", "--config", &config, &path]);
    assert_eq!(code(&output), 1);
    let found = lines(&output);
    let places: Vec<_> = found
        .iter()
        .map(|f| (f["path"].as_str().unwrap(), f["line"].as_u64().unwrap()))
        .collect();
    assert!(
        places.contains(&(&*path, 2)) && !text(&output).contains("g.lua"),
        "{places:?}"
    );
    let output = run(&["check", "--config", &config, "flows/nothing.lua"]);
    told(&output, 2, &["there is no flow flows/nothing.lua"]);
}

#[test]
fn the_stock_flows_and_every_example_are_clean() {
    let output = run(&["check"]);
    told(&output, 0, &["0 errors, 0 warnings"]);
    let output = run(&[
        "check",
        "examples/health.lua",
        "examples/quirks/ilo4_settle.lua",
    ]);
    told(&output, 0, &["0 errors, 0 warnings"]);
}

#[test]
fn the_stock_flow_s_own_tests_pass() {
    let output = run(&["test", "flows/ilo_vmedia_iscsi_test.lua"]);
    told(
        &output,
        0,
        &[
            "ok      deploys an image and boots it",
            "4 passed, 0 failed",
        ],
    );
}

/// A flow that has waited is not refused what it signs: client and store have one clock.
#[test]
fn a_url_is_good_after_the_clock_of_a_test_went_ahead() {
    let (dir, config, _) = site(
        "return flow { name = 'f', actions = { a = function()\n\
         swift.temp_url('flowrun_images', { name = 'deploy.iso' })\n\
         sleep('2m')\n\
         swift.temp_url('flowrun_images', { name = 'deploy.iso', ttl = '30s' })\nend } }",
    );
    let test = "test('waits', function(t)\n  local run = t.run {}\n  \
                t.equal(run.status, 'done', run.error)\nend)";
    // Twice: the second site begins with the clock that the first one left.
    let twice = format!("{test}\n{}", test.replace("waits", "waits again"));
    std::fs::write(dir.path().join("flows/f_test.lua"), twice).unwrap();
    told(&run(&["test", "--config", &config]), 0, &["2 passed"]);
}

/// Puts a floppy in, and takes it out in a clean-up or only where all goes well.
fn floppy(clean_up: &str) -> String {
    format!(
        "return flow {{ name = 'f', actions = {{ look = function(_, node)\n\
         local url = swift.temp_url('flowrun_images', {{ name = 'deploy.iso' }})\n\
         step('hold', function()\n{clean_up}\n\
         ilo.attach_vmedia(node, {{ device = 'cdrom', url = url }})\n\
         ilo.power_state(node)\n\
         ilo.eject_vmedia(node, {{ device = 'cdrom' }})\nend) end }} }}"
    )
}

const EJECT: &str = "defer(function() ilo.eject_vmedia(node, { device = 'cdrom' }) end)";

#[test]
fn a_sweep_kills_and_cancels_at_each_call() {
    let test = "test('holds', function(t)\n  local run = t.run {}\n  \
                t.equal(run.status, 'done', run.error)\nend)";
    let swept = |flow: &str| {
        let (dir, config, _) = site(flow);
        std::fs::write(dir.path().join("flows/f_test.lua"), test).unwrap();
        run(&["test", "--sweep", "--config", &config])
    };
    told(
        &swept(&floppy(EJECT)),
        0,
        &[
            "ok      holds  ",
            "ok      holds, killed before hold/ilo.attach_vmedia#1",
            "ok      holds, cancelled after hold/ilo.power_state#1",
            "ok      holds, killed after ~hold/defer#1/ilo.eject_vmedia#1",
            " passed, 0 failed",
        ],
    );
    told(
        &swept(&floppy("")),
        1,
        &[
            "ok      holds, cancelled before hold/ilo.attach_vmedia#1",
            "FAILED  holds, cancelled after hold/ilo.attach_vmedia#1",
            "a medium stays in the cdrom of lab-1",
            "ok      holds, killed after hold/ilo.attach_vmedia#1",
        ],
    );
}

#[test]
fn a_failed_test_shows_its_line_and_what_the_run_told() {
    let flow = "return flow { name = 'f', actions = { look = function(_, node)\n\
                return step('look', function() return ilo.power_state(node) end) end } }";
    let (dir, config, path) = site(flow);
    let tests = "test('is off', function(t)\n  local run = t.run {}\n  \
                 t.equal(run.result, 'off')\nend)\n\
                 test('is on', function(t)\n  t.equal(t.run({}).result, 'on', 'power')\nend)\n\
                 test('typo', function(t) t.run { nood = 'lab-1' } end)";
    let file = dir.path().join("flows/f_test.lua");
    std::fs::write(&file, tests).unwrap();
    let file = file.to_str().unwrap();
    let output = run(&["test", file, "--config", &config]);
    told(
        &output,
        1,
        &[
            "ok      is off",
            "FAILED  is on",
            "power: expected \"on\", got \"off\"",
            "f_test.lua:6\n",
            ">    6 |   t.equal(t.run({}).result, 'on', 'power')",
            "| lab-1: ok look",
            "FAILED  typo",
            "there is no option `nood`",
            "did you mean `node`?",
            "1 passed, 2 failed",
        ],
    );
    let output = run(&["test", "--json", "--filter", "off", "--config", &config]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let told_lines = lines(&output);
    assert_eq!(told_lines.len(), 1);
    assert_eq!(told_lines[0]["ok"], true);
    let output = run(&["test", &path, "--config", &config]);
    told(&output, 2, &["a file of tests is named *_test.lua"]);
}
