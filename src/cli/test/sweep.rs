//! `test --sweep`: the runs of a test again and again, killed and cancelled at each of their calls.
//!
//! A run that is killed and goes on must bring the test to the same end. One that is cancelled must
//! leave its server as it was: nothing in the drives that was not there, no session, no new object,
//! off if it was off, and nobody holding it.

use crate::engine::{Point, RunEnd, Side};
use crate::error::{Error, Kind, Result};
use crate::journal::{Entry, EntryState, RunStatus};
use serde_json::Value;
use std::fmt;

/// What happens to a run of a test.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    /// Which of the test's runs, from 0.
    pub(super) run: usize,
    /// Where.
    pub(super) point: Point,
    /// Whether it is cancelled there; else it is killed, and goes on.
    pub(super) cancel: bool,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.cancel {
            true => "cancelled",
            false => "killed",
        };
        let side = match self.point.side {
            Side::Before => "before",
            Side::After => "after",
        };
        write!(f, "{what} {side} {}", self.point.key)?;
        match self.run {
            0 => Ok(()),
            n => write!(f, " of run {}", n + 1),
        }
    }
}

/// All trials of a test whose runs made these calls.
pub(super) fn trials(runs: &[Vec<String>]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (run, keys) in runs.iter().enumerate() {
        for key in keys {
            for side in [Side::Before, Side::After] {
                let key = key.clone();
                let point = Point { key, side };
                trials.extend([false, true].map(|cancel| Trial {
                    run,
                    point: point.clone(),
                    cancel,
                }));
            }
        }
    }
    trials
}

/// The calls of a run that came to its end. Of those that are repeated until something happens, the
/// first two.
pub(super) fn calls(entries: &[Entry]) -> Vec<String> {
    let is_call = |entry: &&Entry| {
        let nth = entry
            .key
            .rsplit('#')
            .next()
            .and_then(|nth| nth.parse().ok());
        entry.state == EntryState::Ok
            && !["step", "decision"].contains(&entry.class.as_str())
            && nth.is_some_and(|nth: u32| nth <= 2)
    };
    let calls = entries.iter().filter(is_call);
    calls.map(|entry| entry.key.clone()).collect()
}

/// Whether a cancelled run left its server and the site as they were.
pub(super) fn judge(trial: &Trial, end: &RunEnd, node: &str, sites: [&Value; 2]) -> Result<()> {
    let wrong = |what: String| Err(Error::new(Kind::Refused, what).op(trial.to_string()));
    // What is cancelled while it cleans up may have done all else.
    let is_cleanup = trial.point.key.starts_with('~');
    if end.status != RunStatus::Cancelled && !(is_cleanup && end.status == RunStatus::Done) {
        let why = end.error.as_ref().map(ToString::to_string);
        let status = end.status.as_str();
        return wrong(format!(
            "the run ended {status}, not cancelled: {}",
            why.unwrap_or_default()
        ));
    }
    let [before, after] = sites.map(|site| of_node(site, node));
    let drives = |machine: &Value| {
        let drives = machine.get("media").and_then(Value::as_array).cloned();
        drives.unwrap_or_default()
    };
    let inserted = |drive: &Value| drive.get("inserted") == Some(&Value::Bool(true));
    for (was, drive) in drives(before).iter().zip(drives(after)) {
        if inserted(&drive) && !inserted(was) {
            let device = drive.get("device").and_then(Value::as_str);
            return wrong(format!(
                "a medium stays in the {} of {node}",
                device.unwrap_or("drive")
            ));
        }
    }
    let power = |machine: &Value| machine.get("power").cloned();
    if power(before) == Some(Value::from("off")) && power(after) != power(before) {
        return wrong(format!("{node} was off, and stays on"));
    }
    if after.get("sessions").and_then(Value::as_u64) > Some(0) {
        return wrong(format!("a session stays open on the iLO of {node}"));
    }
    let [had, has] = sites.map(|site| {
        site.pointer("/object_store/objects")
            .and_then(Value::as_u64)
    });
    match has > had {
        true => wrong(format!(
            "the object store holds {} objects more",
            has.unwrap_or(0) - had.unwrap_or(0)
        )),
        false => Ok(()),
    }
}

fn of_node<'a>(site: &'a Value, name: &str) -> &'a Value {
    let nodes = site.get("nodes").and_then(Value::as_array);
    let found = nodes
        .into_iter()
        .flatten()
        .find(|node| node.get("name").and_then(Value::as_str) == Some(name));
    found
        .and_then(|node| node.get("machine"))
        .unwrap_or(&Value::Null)
}
