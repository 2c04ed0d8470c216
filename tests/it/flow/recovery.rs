//! Deployments that are killed, stopped and cancelled.

use super::{LabUp, code, events, pause, run, scribble, signal, text, until_entry};
use flowrun::clock;
use serde_json::Value;

#[test]
fn a_run_killed_anywhere_is_resumed_to_the_right_disk() {
    let rounds: u64 = std::env::var("FLOWRUN_TEST_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    let lab = LabUp::start(1, &[]);
    let image = lab.image();
    let measured = clock::instant();
    let output = lab.deploy(&[]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    let whole = measured.elapsed();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut resumed = 0;
    let mut events_before = events(&lab).len();
    for round in 0..rounds {
        // xorshift: moments spread over the whole run, the same in every test run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let at = whole.mul_f64((seed % 1000) as f64 / 1000.0);
        scribble(&lab.path("nodes/lab-1/disk.raw"));
        let mut child = lab.deploy(&[]).spawn().unwrap();
        pause(at);
        signal(&child, "-KILL");
        child.wait().unwrap();
        let last = lab.newest_run().unwrap();
        if last["status"] == "dead" {
            resumed += 1;
            let id = last["id"].as_str().unwrap();
            let output = run(&["resume", id, "--lab-dir", lab.dir()]);
            assert_eq!(
                code(&output),
                0,
                "round {round} at {at:?}: {}",
                text(&output)
            );
        } else if last["status"] != "done" {
            panic!("round {round}: {last:#}");
        }
        if last["status"] == "dead" {
            lab.disk_is_right(&image, "raw");
            once_only(&events(&lab)[events_before..], round);
        }
        events_before = events(&lab).len();
    }
    assert!(
        resumed * 2 > rounds,
        "only {resumed} of {rounds} were caught alive"
    );
}

/// Media are inserted once and the server is switched on once, however often the host died: a
/// second power-on would cut the ramdisk off. What the host did when it died, it may do again.
fn once_only(events: &[Value], round: u64) {
    let count = |what: &str| events.iter().filter(|e| e["event"] == what).count();
    for (what, allowed) in [("inserted", 2..=3), ("booted", 2..=3)] {
        let found = count(what);
        assert!(
            allowed.contains(&found),
            "round {round}: {found} {what}, {events:#?}"
        );
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let lab = LabUp::start(1, &[]);
    let mut child = lab.deploy(&[]).spawn().unwrap();
    until_entry(&lab, "write image/iscsi.login");
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    lab.nothing_is_left();
    assert_eq!(lab.newest_run().unwrap()["status"], "cancelled");
    let again = lab.deploy(&[]).output().unwrap();
    assert_eq!(code(&again), 0, "the node is free again: {}", text(&again));
}

#[test]
fn a_stopped_run_is_resumed_and_a_dead_one_cancelled() {
    let lab = LabUp::start(1, &[]);
    let mut child = lab.deploy(&[]).spawn().unwrap();
    until_entry(&lab, "wait for ramdisk");
    let second = lab.deploy(&[]).output().unwrap();
    assert_eq!(code(&second), 1, "{}", text(&second));
    assert!(
        text(&second).contains("holds this node"),
        "{}",
        text(&second)
    );
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let id = lab.newest_run().unwrap()["id"].as_str().unwrap().to_owned();
    let output = run(&["resume", &id[..12], "--lab-dir", lab.dir()]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.disk_is_right(&lab.image(), "raw");

    let mut child = lab.deploy(&[]).spawn().unwrap();
    until_entry(&lab, "wait for ramdisk/ramdisk.wait");
    signal(&child, "-KILL");
    child.wait().unwrap();
    let id = lab.newest_run().unwrap()["id"].as_str().unwrap().to_owned();
    let output = run(&["cancel", &id, "--lab-dir", lab.dir()]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.nothing_is_left();
}
