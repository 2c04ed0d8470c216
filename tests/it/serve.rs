//! `flowrun serve`: the binary over a lab, asked by the binary and by HTTP.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod access;
mod callbacks;
mod contract;
mod crowds;
mod daemon;

use crate::flow::{LabUp, code, flowrun, signal, text, told, until_entry};
pub(crate) use daemon::Daemon;
use daemon::json_of;
use flowrun::journal::Journal;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

const STOCK: &str = "ilo_vmedia_iscsi";

#[test]
fn a_server_deploys_and_its_client_says_what_a_local_run_does() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let output = daemon.asked(&[STOCK, "--node", "lab-1"]);
    told(
        &output,
        0,
        &[
            "flow flows/ilo_vmedia_iscsi.lua (",
            "lab-1: destroys everything on the root disk of lab-1",
            "lab-1: deploy started, run ",
            "lab-1: ok boot deploy ramdisk",
            "lab-1: done after ",
            "hashed by the ramdisk and compared",
        ],
    );
    lab.disk_is_right(&lab.image(), "raw");

    let same = |args: &[&str]| {
        let local = flowrun(args)
            .args(["--lab-dir", lab.dir()])
            .output()
            .unwrap();
        let remote = daemon.asked(args);
        assert_eq!(code(&remote), 0, "{}", text(&remote));
        assert_eq!(text(&remote), text(&local), "{args:?}");
    };
    for args in [
        &["runs"][..],
        &["runs", "--json"],
        &["logs", "0"],
        &["show", "0"],
    ] {
        same(args);
    }
    same(&["show", "0", "--json"]);
    same(&["show", "0", "--svg"]);
    is_xml(&daemon.asked(&["show", "0", "--svg"]).stdout);

    let output = daemon.asked(&["broken", "--node", "lab-1"]);
    let line = ">    4 |     fail(\"refused\", \"it does not want to\", \"ask nicely\")";
    told(
        &output,
        1,
        &["lab-1: FAILED try", "[refused]", line, "hint: ask nicely"],
    );
    let runs = text(&daemon.asked(&["runs", "--json"]));
    let newest: Value = serde_json::from_str(runs.lines().next().unwrap()).unwrap();
    same(&["show", newest["id"].as_str().unwrap()]);

    told(
        &daemon.asked(&["brokem", "--node", "lab-1"]),
        2,
        &["there is no flow brokem"],
    );
    told(
        &daemon.asked(&[STOCK, "--node", "lab-9"]),
        2,
        &["no node lab-9"],
    );
    let file = "flows/ilo_vmedia_iscsi.lua";
    told(
        &daemon.asked(&[file, "--node", "lab-1"]),
        2,
        &["name the server's flow"],
    );
    let moved = [
        "waiting",
        "--node",
        "lab-1",
        "--set",
        "driver_info.ilo_address=evil",
    ];
    told(&daemon.asked(&moved), 2, &["cannot be set on a server"]);
}

fn is_xml(picture: &[u8]) {
    let mut parser = Command::new("python3")
        .args([
            "-c",
            "import sys, xml.dom.minidom as m; m.parse(sys.stdin.buffer)",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = parser.stdin.take().unwrap();
    to.write_all(picture).unwrap();
    drop(to);
    assert!(parser.wait().unwrap().success());
}

#[test]
fn a_follower_loses_nothing_when_the_server_is_killed() {
    let lab = LabUp::start(1, &[]);
    let mut daemon = Daemon::over(&lab);
    let client = daemon
        .ask(&[STOCK, "--node", "lab-1", "--json"])
        .spawn()
        .unwrap();
    for at in [
        "boot deploy ramdisk",
        "wait for ramdisk/ramdisk.wait",
        "write image/iscsi.login",
    ] {
        until_entry(&lab, at);
        daemon.kill();
        daemon.start_again();
        assert!(
            daemon.said().contains("; 1 runs resumed"),
            "{}",
            daemon.said()
        );
    }
    let output = client.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.disk_is_right(&lab.image(), "raw");

    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let shown: Vec<Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let shown: Vec<&Value> = shown
        .iter()
        .filter(|event| event["event"] != "progress")
        .collect();
    let run = shown[0]["run"].as_str().unwrap().to_owned();
    let kept = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let journal = Journal::open(&lab.path("state")).unwrap();
        journal.told(&run, 0, 10_000).await.unwrap()
    });
    let kept: Vec<Value> = kept
        .iter()
        .map(|(_, body)| serde_json::from_str(body).unwrap())
        .collect();
    assert_eq!(
        shown,
        kept.iter().collect::<Vec<_>>(),
        "each once, in its order"
    );
    let starts = kept.iter().filter(|event| event["event"] == "run_started");
    assert_eq!(starts.filter(|event| event["resumed"] == true).count(), 3);
    assert!(kept.iter().all(|event| event["event"] != "drift"));
}

#[tokio::test]
async fn what_changed_while_nobody_owned_a_run_is_told() {
    let lab = LabUp::start(1, &[]);
    let mut daemon = Daemon::over(&lab);
    let run = daemon.start(STOCK).await;
    daemon
        .until_entry(&run, "wait for ramdisk/ramdisk.wait")
        .await;
    daemon.kill();
    // From a machine that knows nothing of the run.
    let config = std::fs::read_to_string(lab.path("daemon/flowrun.toml")).unwrap();
    let state = lab.path("state").display().to_string();
    let elsewhere = lab.path("elsewhere.toml");
    let moved = config.replace(&state, &format!("{state}-elsewhere"));
    std::fs::write(&elsewhere, moved).unwrap();
    for (primitive, arguments) in [
        ("ilo.set_power", r#"{"state":"force_off"}"#),
        ("ilo.eject_vmedia", r#"{"device":"floppy"}"#),
    ] {
        let mut call = flowrun(&["call", primitive, arguments, "--node", "lab-1"]);
        told(
            &call.arg("--config").arg(&elsewhere).output().unwrap(),
            0,
            &[],
        );
    }
    daemon.start_again();
    let shown = daemon.until_drift(&run, 2).await;
    let drift = shown["drift"].as_array().unwrap().iter();
    let drift: Vec<_> = drift
        .map(|event| [&event["what"], &event["recorded"], &event["found"]])
        .collect();
    let wanted = [["floppy", "inserted", "empty"], ["power", "on", "off"]];
    assert_eq!(drift, wanted);
    told(
        &daemon.asked(&["show", &run]),
        0,
        &[
            "drift   floppy: inserted by the journal, empty at ",
            "drift   power: on by the journal, off at ",
        ],
    );
    // A ramdisk that had called already is missed at once; one that had not is waited for.
    daemon.asked(&["cancel", &run]);
    daemon.until_ended(&run).await;
    lab.nothing_is_left();
}

#[test]
fn a_client_cancels_and_lets_go() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let client = daemon.ask(&[STOCK, "--node", "lab-1"]).spawn().unwrap();
    until_entry(&lab, "wait for ramdisk/ramdisk.wait");
    signal(&client, "-INT");
    let output = client.wait_with_output().unwrap();
    told(&output, 3, &["lab-1: cancelled"]);
    lab.nothing_is_left();

    let client = daemon.ask(&["waiting", "--node", "lab-1"]).spawn().unwrap();
    until_entry(&lab, "wait/sleep");
    signal(&client, "-TERM");
    told(
        &client.wait_with_output().unwrap(),
        4,
        &["the runs go on at the server"],
    );
    let second = daemon.asked(&["waiting", "--node", "lab-1"]);
    told(&second, 1, &["holds this node"]);
    told(
        &daemon.asked(&["cancel", "0"]),
        1,
        &["several runs begin with 0"],
    );
    let runs = text(&daemon.asked(&["runs", "--json"]));
    let newest: Value = serde_json::from_str(runs.lines().next().unwrap()).unwrap();
    assert_eq!(newest["status"], "running");
    let id = newest["id"].as_str().unwrap();
    told(
        &daemon.asked(&["cancel", id]),
        0,
        &["asked the server to cancel"],
    );
    told(&daemon.asked(&["resume", id]), 1, &["the run"]);
}

#[tokio::test]
async fn sigterm_leaves_runs_that_the_next_server_takes_up() {
    let lab = LabUp::start(2, &[]);
    let mut daemon = Daemon::over(&lab);
    let run = daemon.start("waiting").await;
    let other = daemon.start_on("waiting", "lab-2").await;
    for run in [&run, &other] {
        daemon.until_entry(run, "wait/sleep").await;
    }
    let mut stream = daemon.request(Method::GET, &format!("/v1/runs/{run}/events"));
    stream = stream.timeout(std::time::Duration::from_secs(300));
    let stream = stream.send().await.unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.said());
    // The follower was let go, not left hanging.
    let heard = stream.text().await.unwrap_or_default();
    assert!(heard.contains("event: step_started"), "{heard}");

    daemon.start_again();
    assert!(
        daemon.said().contains("; 2 runs resumed"),
        "{}",
        daemon.said()
    );
    let detail = daemon.until(&run, "running").await;
    assert_eq!(detail["run"]["resumes"], 1);
    let cancel = format!("/v1/runs/{run}/cancel");
    let answer = daemon.request(Method::POST, &cancel).send().await.unwrap();
    json_of(answer, 202).await;
    daemon.until(&run, "cancelled").await;
    let answer = daemon.request(Method::POST, &cancel).send().await.unwrap();
    let refused = json_of(answer, 409).await;
    assert_eq!(refused["error"]["kind"], "conflict");
    let logs = daemon.get(&format!("/v1/runs/{run}/logs")).await;
    let texts: Vec<_> = logs
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["text"].clone())
        .collect();
    assert_eq!(texts, ["lab-1 begins", "unwound"]);
}

#[tokio::test]
async fn runs_are_started_listed_and_refused_by_http() {
    let lab = LabUp::start(3, &[]);
    let daemon = Daemon::over(&lab);
    let post = async |body: Value, status: u16| {
        let request = daemon.request(Method::POST, "/v1/runs").json(&body);
        json_of(request.send().await.unwrap(), status).await
    };
    let held = daemon.start_on("waiting", "lab-2").await;
    let body =
        json!({ "flow": "waiting", "nodes": ["lab-1", "lab-2"], "params": { "long": "1ms" } });
    let answer = post(body.clone(), 201).await;
    assert_eq!(answer["runs"][0]["node"], "lab-1");
    assert_eq!(answer["runs"][0]["destroys"], json!(["nothing"]));
    assert_eq!(answer["refused"][0]["node"], "lab-2");
    assert_eq!(answer["refused"][0]["error"]["kind"], "conflict");
    let done = answer["runs"][0]["id"].as_str().unwrap();
    let detail = daemon.until(done, "done").await;
    assert_eq!(detail["run"]["result"], "waited");

    for (query, wanted) in [
        ("", BTreeSet::from([done, held.as_str()])),
        ("?state=running", [held.as_str()].into()),
        ("?state=done&node=lab-1", [done].into()),
        ("?state=dead", [].into()),
        ("?node=lab-3", [].into()),
    ] {
        let list = daemon.get(&format!("/v1/runs{query}")).await;
        let runs = list["runs"].as_array().unwrap();
        let ids: BTreeSet<_> = runs.iter().map(|run| run["id"].as_str().unwrap()).collect();
        assert_eq!(ids, wanted, "{query}");
    }
    let nodes = daemon.get("/v1/nodes").await;
    assert_eq!(nodes["nodes"][1]["run"]["id"], held.as_str());
    assert_eq!(nodes["nodes"][2]["run"], Value::Null);
    let flows = daemon.get("/v1/flows").await;
    let flows = flows["flows"].as_array().unwrap();
    let names: Vec<_> = flows
        .iter()
        .map(|flow| flow["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"waiting") && names.contains(&STOCK),
        "{names:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_kind() {
    let lab = LabUp::start(2, &[]);
    let daemon = Daemon::over(&lab);
    daemon.start_on("waiting", "lab-2").await;
    let (invalid, missing) = (("invalid", 400), ("not_found", 404));
    for (wanted, (kind, status)) in [
        (json!({}), invalid),
        (json!({ "nodes": ["lab-1", "lab-1"] }), invalid),
        (json!({ "node": "lab-1", "nodes": ["lab-1"] }), invalid),
        (json!({ "node": "lab-1", "typo": 1 }), invalid),
        (
            json!({ "node": "lab-1", "flow": "../flows/waiting" }),
            missing,
        ),
        (json!({ "node": "lab-7" }), missing),
        (json!({ "node": "lab-1", "flow": "waitin" }), missing),
        (json!({ "node": "lab-1", "action": "x" }), missing),
        (
            json!({ "node": "lab-1", "params": { "long": [] } }),
            invalid,
        ),
        (
            json!({ "node": "lab-1", "params": { "longer": "1s" } }),
            invalid,
        ),
        (json!({ "node": "lab-1", "set": { "uuid": "x" } }), invalid),
        (json!({ "node": "lab-2" }), ("conflict", 409)),
    ] {
        let mut body = json!({ "flow": "waiting" });
        body.as_object_mut()
            .unwrap()
            .extend(wanted.as_object().unwrap().clone());
        let request = daemon.request(Method::POST, "/v1/runs").json(&body);
        let answer = json_of(request.send().await.unwrap(), status).await;
        assert_eq!(answer["error"]["kind"], kind, "{body}: {answer}");
    }
    for (method, path, status) in [
        (Method::GET, "/v1/runs?limit=0", 400),
        (Method::GET, "/v1/runs?state=x", 400),
        (Method::GET, "/v1/x", 404),
        (Method::DELETE, "/v1/runs", 405),
    ] {
        let answer = daemon.request(method, path).send().await.unwrap();
        json_of(answer, status).await;
    }
}

#[tokio::test]
async fn a_server_follows_its_flows() {
    let lab = LabUp::start(2, &[]);
    let mut daemon = Daemon::over(&lab);
    let old = daemon.start_on("waiting", "lab-2").await;
    daemon.until_entry(&old, "wait/sleep").await;
    let flow = lab.path("daemon/flows/waiting.lua");
    let source = std::fs::read_to_string(&flow).unwrap();
    let before = listed(&daemon, |_| true).await;
    std::fs::write(
        &flow,
        source
            .replace("20m", "1ms")
            .replace("\"waited\"", "\"edited\""),
    )
    .unwrap();
    let after = listed(&daemon, |flows| version(flows) != version(&before)).await;
    let run = daemon.start("waiting").await;
    let detail = daemon.until(&run, "done").await;
    assert_eq!(detail["run"]["result"], "edited");
    assert_eq!(detail["run"]["bundle"], *version(&after));
    assert_eq!(after["open_runs"][0]["run"], *old);
    assert_eq!(after["open_runs"][0]["newest"], false);

    std::fs::write(&flow, source.replace("return flow", "retrun flow")).unwrap();
    let broken = listed(&daemon, |flows| !flows["broken"].is_null()).await;
    let at = broken["broken"]["faults"][0]["at"].as_str().unwrap();
    assert!(at.ends_with("waiting.lua:2"), "{at}");
    let run = daemon.start("waiting").await;
    assert_eq!(daemon.until(&run, "done").await["run"]["result"], "edited");

    // Also over a crash: the old run keeps its version, new ones the last good one.
    daemon.kill();
    daemon.start_again();
    let run = daemon.start("waiting").await;
    assert_eq!(daemon.until(&run, "done").await["run"]["result"], "edited");
    let detail = daemon.until(&old, "running").await;
    assert_eq!(detail["run"]["bundle"], *version(&before));
}

fn version(flows: &Value) -> &Value {
    let flows = flows["flows"].as_array().unwrap();
    &flows.iter().find(|flow| flow["name"] == "waiting").unwrap()["version"]
}

/// `GET /v1/flows`, once it is so.
async fn listed(daemon: &Daemon, so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let flows = daemon.get("/v1/flows").await;
        if so(&flows) {
            return flows;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// A run of another process has its callback by way of the server, and is followed there.
#[tokio::test]
async fn a_server_helps_runs_in_the_foreground() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let mut local = flowrun(&[crate::flow::FLOW, "--node", "lab-1", "--lab-dir", lab.dir()]);
    let local = local
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until_entry(&lab, "boot deploy ramdisk");
    let runs = daemon.get("/v1/runs").await;
    let run = runs["runs"][0]["id"].as_str().unwrap();
    let stream = daemon.request(Method::GET, &format!("/v1/runs/{run}/events"));
    let heard = stream.send().await.unwrap().text().await.unwrap();
    let last = heard
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("data: "))
        .unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(
        (&last["event"], &last["status"]),
        (&json!("run_finished"), &json!("done"))
    );
    let output = local.wait_with_output().unwrap();
    told(
        &output,
        0,
        &["the address of [api] listen is taken", "lab-1: done after"],
    );

    // From the middle: what came before is not told again.
    let request = daemon.request(Method::GET, &format!("/v1/runs/{run}/events"));
    let rest = request.header("Last-Event-ID", "5").send().await.unwrap();
    let rest = rest.text().await.unwrap();
    assert!(
        rest.starts_with("event: ") && rest.contains("id: 6\n"),
        "{rest}"
    );
    assert!(!rest.contains("id: 5\n"), "{rest}");
}
