//! What of a node changed while its run had no owner: power and virtual media.

use super::super::site::Site;
use crate::engine::Run;
use crate::error::Result;
use crate::journal::{Entry, EntryState};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Node and what of it (`power`, `cdrom`, `floppy`) → how it was last.
type Known = BTreeMap<(String, String), String>;

/// Asks the iLOs of which the journal says something, and tells what they say otherwise.
pub(super) async fn compare(site: Arc<Site>, run: Arc<Run>) {
    let known = known(&run.recorded());
    let mut nodes: Vec<_> = known.keys().map(|(node, _)| node.clone()).collect();
    nodes.dedup();
    for node in nodes {
        match found(&site, &run, &node).await {
            Ok(found) => differences(&known, &found)
                .iter()
                .for_each(|(what, recorded, found)| run.drift(what, recorded, found)),
            Err(error) => {
                let text = format!("{node} is not compared with the journal: {error}");
                run.log("warn", "", &text);
            }
        }
    }
}

async fn found(site: &Arc<Site>, run: &Arc<Run>, node: &str) -> Result<Known> {
    let ilo = site.ilo_of(run, node).await?;
    let mut found = Known::new();
    let power = serde_json::to_value(ilo.power_state().await?).unwrap_or_default();
    note_power(&mut found, node, &power);
    let drives = serde_json::to_value(ilo.vmedia_status().await?).unwrap_or_default();
    note_drives(&mut found, node, &drives);
    Ok(found)
}

/// What, how the journal has it, how it is.
fn differences<'a>(known: &'a Known, found: &'a Known) -> Vec<(&'a str, &'a str, &'a str)> {
    let differs = known.iter().filter_map(|(key, recorded)| {
        let now = found.get(key)?;
        (now != recorded).then_some((key.1.as_str(), recorded.as_str(), now.as_str()))
    });
    differs.collect()
}

/// The last word of the journal. What a call that did not end would have changed is not known.
fn known(entries: &[Entry]) -> Known {
    let mut known = Known::new();
    for entry in entries.iter().filter(|e| e.name.starts_with("ilo.")) {
        let args: Value = serde_json::from_str(&entry.args).unwrap_or_default();
        let word = |name: &str| args.get(name).and_then(Value::as_str);
        let Some(node) = word("node") else { continue };
        let device = word("device").unwrap_or_default();
        let result = entry.result.clone().unwrap_or_default();
        let ended = entry.state == EntryState::Ok;
        match entry.name.as_str() {
            "ilo.power_state" if ended => note_power(&mut known, node, &result),
            "ilo.set_power" if ended => note_power(&mut known, node, &result),
            "ilo.set_power" => drop(known.remove(&(node.to_owned(), "power".to_owned()))),
            "ilo.vmedia_status" if ended => note_drives(&mut known, node, &result),
            "ilo.attach_vmedia" if ended => note(&mut known, node, device, "inserted"),
            "ilo.eject_vmedia" if ended => note(&mut known, node, device, "empty"),
            "ilo.attach_vmedia" | "ilo.eject_vmedia" => {
                known.remove(&(node.to_owned(), device.to_owned()));
            }
            _ => {}
        }
    }
    known
}

fn note(known: &mut Known, node: &str, what: &str, how: &str) {
    known.insert((node.to_owned(), what.to_owned()), how.to_owned());
}

/// A state that does not last is none to compare with.
fn note_power(known: &mut Known, node: &str, state: &Value) {
    match state.as_str() {
        Some(lasting @ ("on" | "off")) => note(known, node, "power", lasting),
        _ => drop(known.remove(&(node.to_owned(), "power".to_owned()))),
    }
}

fn note_drives(known: &mut Known, node: &str, drives: &Value) {
    for drive in drives.as_array().into_iter().flatten() {
        let device = drive.get("device").and_then(Value::as_str);
        let inserted = drive.get("inserted").and_then(Value::as_bool);
        if let (Some(device), Some(inserted)) = (device, inserted) {
            let how = if inserted { "inserted" } else { "empty" };
            note(known, node, device, how);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(name: &str, args: &Value, state: EntryState, result: Value) -> Entry {
        let entry = json!({
            "key": "k", "seq": 1, "name": name, "class": "effect", "site": "", "args": "",
            "args_hash": "", "state": "ok", "result": null, "attempt": 1, "t0_ms": 0,
            "t1_ms": null, "deadline_ms": null, "downtime_ms": 0,
        });
        let mut entry: Entry = serde_json::from_value(entry).unwrap();
        entry.args = args.to_string();
        entry.state = state;
        entry.result = Some(result);
        entry
    }

    #[test]
    fn the_last_word_counts_and_a_call_in_doubt_is_no_word() {
        use EntryState::{Ok, Started};
        let (node, floppy) = (
            json!({ "node": "n" }),
            json!({ "node": "n", "device": "floppy" }),
        );
        let cdrom = json!({ "node": "n", "device": "cdrom" });
        let entries = [
            entry("ilo.set_power", &node, Ok, json!("off")),
            entry("ilo.attach_vmedia", &floppy, Ok, json!({})),
            entry("ilo.attach_vmedia", &cdrom, Ok, json!({})),
            entry("ilo.power_state", &node, Ok, json!("on")),
            entry("ilo.eject_vmedia", &floppy, Started, Value::Null),
        ];
        let known = known(&entries);
        let mut found = Known::new();
        note_power(&mut found, "n", &json!("off"));
        let drives = json!([
            { "device": "floppy", "inserted": false },
            { "device": "cdrom", "inserted": false },
        ]);
        note_drives(&mut found, "n", &drives);
        let wanted = [("cdrom", "inserted", "empty"), ("power", "on", "off")];
        assert_eq!(differences(&known, &found), wanted);
    }
}
