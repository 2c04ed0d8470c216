//! Sweeps over the actions of the stock flow: killed before and after each call and taken up again;
//! cancelled before and after each call. `FLOWRUN_TEST_SWEEP=all` takes every call, or those of the
//! action that it names; without it as many are taken as there are servers. Servers of half of the
//! tests boot from their disk, those of the others by netboot, from a boot ISO that they share.
//!
//! A batch runs on as many servers as the lab has, each to a call of its own, which never returns.
//! For the crash sweep that is in a process of its own, which then gets SIGKILL.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod site;

use flowrun::engine::{Hang, Interrupted, Point, RunEnd, Side};
use flowrun::journal::{EntryState, RunStatus};
use serde::{Deserialize, Serialize};
use site::{Boots, Ground, Wanted};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Where the process of a crash sweep finds what it is to do.
const PLAN: &str = "FLOWRUN_TEST_SWEEP_PLAN";

/// What the process of a crash sweep is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    config: PathBuf,
    action: String,
    points: BTreeMap<String, Point>,
}

/// Every call that the action makes on a server that is set up for it, before and after. Of calls
/// that are repeated until something happens, the first two.
async fn points(ground: &Ground, action: &str) -> Vec<Point> {
    ground.set_up(&["lab-1".to_owned()], action).await;
    let end = ground.run("lab-1", action).await;
    assert_eq!(end.status, RunStatus::Done, "{action}: {:?}", end.error);
    let entries = ground.journal().entries(&end.id).await.unwrap();
    let calls = entries
        .iter()
        .filter(|e| e.state == EntryState::Ok && !["step", "decision"].contains(&&*e.class));
    let all = calls.flat_map(|entry| {
        [Side::Before, Side::After].map(|side| Point {
            key: entry.key.clone(),
            side,
        })
    });
    let seldom = |point: &Point| {
        let nth = point
            .key
            .rsplit_once('#')
            .map(|(_, nth)| nth.parse::<u32>());
        nth.is_some_and(|nth| nth.is_ok_and(|nth| nth <= 2))
    };
    let all: Vec<_> = all.filter(seldom).collect();
    // Odd, so that both sides come.
    let stride = match wanted() {
        Some(_) => 1,
        None => all.len().div_ceil(ground.nodes()) | 1,
    };
    let taken: Vec<_> = all.iter().step_by(stride).cloned().collect();
    eprintln!("{action}: {} of {} points", taken.len(), all.len());
    taken
}

/// `all`, or the action of which every call is wanted.
fn wanted() -> Option<String> {
    std::env::var("FLOWRUN_TEST_SWEEP").ok()
}

fn actions(ground: &Ground) -> Vec<String> {
    let mut actions = ground.actions();
    if let Some(wanted) = wanted().filter(|wanted| wanted != "all") {
        actions.retain(|action| *action == wanted);
    }
    actions
}

/// Each point with a server of its own.
fn batches(ground: &Ground, points: &[Point]) -> impl Iterator<Item = BTreeMap<String, Point>> {
    points.chunks(ground.nodes()).map(|chunk| {
        let named = (1..)
            .zip(chunk)
            .map(|(n, point)| (format!("lab-{n}"), point.clone()));
        named.collect()
    })
}

fn names(points: &BTreeMap<String, Point>) -> Vec<String> {
    points.keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_at_any_call_of_any_action_ends_right() {
    sweep_of_kills(&Ground::new(16, Boots::FromDisk).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_server_that_netboots_ends_right_wherever_it_is_killed() {
    sweep_of_kills(&Ground::new(8, Boots::FromIso).await).await;
}

async fn sweep_of_kills(ground: &Ground) {
    for action in actions(ground) {
        for points in batches(ground, &points(ground, &action).await) {
            ground.set_up(&names(&points), &action).await;
            die_at(ground, &action, &points).await;
            let open = ground.journal().open_runs().await.unwrap();
            assert!(!open.is_empty(), "none of {points:?} was caught alive");
            for end in ground.resume_all(open).await {
                let at = &points[&end.node];
                let failed = format!("{action} killed at {at:?} and resumed");
                assert_eq!(end.status, RunStatus::Done, "{failed}: {:?}", end.error);
            }
            for node in points.keys() {
                let why = format!("{action} on {node} killed at {:?}", points[node]);
                ground.is_right(node, Wanted::after(&action), &why).await;
            }
            ground.nothing_is_held(&format!("{action} killed")).await;
        }
    }
}

/// Runs the action on each node to its point, in a process that is killed there.
async fn die_at(ground: &Ground, action: &str, points: &BTreeMap<String, Point>) {
    let plan = Plan {
        config: ground.config_path.clone(),
        action: action.to_owned(),
        points: points.clone(),
    };
    let path = ground.config_path.with_file_name("plan.json");
    std::fs::write(&path, serde_json::to_vec(&plan).unwrap()).unwrap();
    let dying = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["sweep::the_process_that_dies", "--exact"])
            .env(PLAN, path)
            .stdout(Stdio::null())
            .status()
            .unwrap()
    });
    let status = dying.await.unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(9), "{status}");
}

/// Does what [`PLAN`] says, if [`die_at`] started it.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_dies() {
    let Some(path) = std::env::var_os(PLAN) else {
        return;
    };
    let plan: Plan = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let ground = Ground::open(&plan.config);
    let hanging = Interrupted::new(ground.registry(), &plan.points);
    let host = ground.host(Arc::new(hanging.clone())).await;
    let runs = plan.points.keys().map(|node| {
        let (host, hanging, ground) = (&host, &hanging, &ground);
        let script = ground.script(node, &plan.action);
        async move {
            hanging
                .to_point(node, host.engine.start(script).await.unwrap())
                .await
        }
    });
    let runs = futures_util::future::join_all(runs).await;
    host.engine.journal().sync().await.unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .unwrap();
    drop(runs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_cancelled_at_any_call_of_any_action_leaves_nothing() {
    sweep_of_cancels(&Ground::new(16, Boots::FromDisk).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_server_that_netboots_leaves_nothing_wherever_it_is_cancelled() {
    sweep_of_cancels(&Ground::new(8, Boots::FromIso).await).await;
}

async fn sweep_of_cancels(ground: &Ground) {
    for action in actions(ground) {
        for points in batches(ground, &points(ground, &action).await) {
            ground.set_up(&names(&points), &action).await;
            for end in cancel_at(ground, &action, &points).await {
                let why = format!(
                    "{action} on {} cancelled at {:?}",
                    end.node, points[&end.node]
                );
                assert_eq!(end.status, RunStatus::Cancelled, "{why}: {:?}", end.error);
                let entries = ground.journal().entries(&end.id).await.unwrap();
                let switched = entries.iter().any(|entry| entry.name == "ilo.set_power");
                let wanted = Wanted::cancelled(&action, switched);
                ground.is_right(&end.node, wanted, &why).await;
            }
            ground.nothing_is_held(&format!("{action} cancelled")).await;
        }
    }
}

/// Runs the action on each node to its point and cancels it there; answers those that came to it.
async fn cancel_at(ground: &Ground, action: &str, points: &BTreeMap<String, Point>) -> Vec<RunEnd> {
    let hanging = Interrupted::new(ground.registry(), points);
    let host = ground.host(Arc::new(hanging.clone())).await;
    let runs = points.keys().map(|node| {
        let (host, hanging) = (&host, &hanging);
        let script = ground.script(node, action);
        async move {
            let run = host.engine.start(script).await.unwrap();
            let id = run.id.clone();
            match hanging.to_point(node, run).await {
                Hang::Ended(_) => None,
                Hang::Hangs(run) => {
                    host.engine.cancel(&id).await.unwrap();
                    Some(run.end().await.unwrap())
                }
            }
        }
    });
    let ends = futures_util::future::join_all(runs).await;
    host.engine.journal().sync().await.unwrap();
    ends.into_iter().flatten().collect()
}
