//! What is said when runs have ended.

use super::args::Cli;
use super::format;
use super::format::{bytes, seconds, short};
use super::render::rate;
use super::site::Ground;
use crate::api::wire::RunView;
use crate::cli::output::{out, put};
use crate::engine::RunEnd;
use crate::error::Result;
use crate::journal::{Bundle, RunStatus};
use serde_json::Value;
use std::collections::BTreeMap;

/// How much of a console is shown after a failure.
const CONSOLE_LINES: usize = 15;

/// Prints how a run ended: its result, or its error with the flow's line.
pub(super) async fn run(cli: &Cli, ground: &Ground, end: &RunEnd) -> Result<()> {
    if cli.json {
        return Ok(());
    }
    let journal = ground.engine.journal();
    let record = journal.find_run(&end.id).await?;
    let bundle = match &end.error {
        Some(_) => journal.bundle(&record.bundle).await.ok(),
        None => None,
    };
    print_end(end, &RunView::from(&record), bundle.as_ref());
    Ok(())
}

/// `bundle` is for the lines of an error.
pub(super) fn print_end(end: &RunEnd, run: &RunView, bundle: Option<&Bundle>) {
    let now = run.ended_ms.unwrap_or(run.alive_ms);
    let took = seconds(format::elapsed(run.created_ms, now));
    let id = short(&end.id);
    out!(
        "\n{}: {} after {took} (run {id})",
        end.node,
        end.status.as_str()
    );
    result(&end.result);
    if let Some(error) = &end.error {
        put!("{}", format::error(error, bundle, format::colours()));
    }
    match end.status {
        RunStatus::Stopped => out!("  `flowrun resume {id}` continues it"),
        RunStatus::Stuck => out!(
            "  a clean-up failed: look at {} before you use it again",
            end.node
        ),
        _ => {}
    }
}

/// The fields that flows of this kind return have a place of their own; the rest as it is.
fn result(value: &Value) {
    let at = |path: &str| value.pointer(path);
    let number = |path: &str| at(path).and_then(Value::as_u64);
    let text = |path: &str| at(path).and_then(Value::as_str).unwrap_or_default();
    if number("/written/image_bytes").is_none() {
        if !value.is_null() {
            out!("{value:#}");
        }
        return;
    }
    let zero = number("/written/zero_bytes").unwrap_or(0);
    let data = number("/written/data_bytes").unwrap_or(0);
    let took = at("/written/seconds")
        .and_then(Value::as_f64)
        .unwrap_or(0.0);
    out!(
        "  image     {} ({}, {})",
        text("/image/path"),
        text("/image/format"),
        bytes(number("/written/image_bytes").unwrap_or(0))
    );
    let reserved = match at("/written/disk/reserved") {
        Some(Value::Bool(true)) => "reserved meanwhile",
        _ => "not reserved",
    };
    out!(
        "  disk      {} {} of {} at {}, {reserved}",
        text("/written/disk/vendor").trim(),
        text("/written/disk/product").trim(),
        bytes(number("/written/disk/bytes").unwrap_or(0)),
        text("/target")
    );
    out!(
        "  written   {} of data, {} of zeros",
        rate(data, took),
        bytes(zero)
    );
    let how = match at("/written/read_back") {
        Some(Value::Bool(false)) => "hashed by the ramdisk",
        _ => "read back",
    };
    out!(
        "  verified  {} {how} and compared",
        bytes(number("/written/verified_bytes").unwrap_or(0))
    );
    let post = match text("/booted/post_state") {
        "unknown" => "used up its one-time boot".to_owned(),
        told => told.replace('_', " "),
    };
    let disk = text("/written/layout/disk_identifier");
    let from = match text("/boot_iso") {
        "" => format!("disk {disk} ({})", text("/written/layout/label")),
        iso => format!("{iso}, root {} of disk {disk}", text("/written/root_uuid")),
    };
    out!(
        "  booted    from {from}, {post}, power {}",
        text("/booted/power_state")
    );
}

/// Prints what a simulated site saw, which is more than a flow can see.
pub(super) async fn lab(cli: &Cli, ground: &Ground, ends: &[RunEnd]) {
    let Some(lab) = &ground.lab else { return };
    let snapshot = match lab.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::warn!(%error, "the lab does not tell what it saw");
            return;
        }
    };
    if cli.json {
        out!(
            "{}",
            serde_json::json!({ "event": "lab", "site": snapshot })
        );
        return;
    }
    let nodes = snapshot.get("nodes").and_then(Value::as_array);
    for node in nodes.into_iter().flatten() {
        let name = node.get("name").and_then(Value::as_str).unwrap_or_default();
        if ends.iter().any(|end| end.node == name) {
            match node.get("kind").and_then(Value::as_str) {
                Some("vm") => out!("\nwhat the virtual machine {name} saw"),
                _ => out!("\nwhat the simulated {name} saw"),
            }
            machine(node);
            if ends
                .iter()
                .any(|end| end.node == name && end.error.is_some())
            {
                console(node).await;
            }
        }
    }
    fetches(&snapshot);
}

fn machine(node: &Value) {
    let text = |path: &str| {
        node.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let number = |path: &str| node.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    for boot in list(node, "/boots") {
        out!("  {}", boot_line(boot));
    }
    // A boot ISO stays: the next boot needs it.
    let boots_iso = list(node, "/boots").last().is_some_and(|boot| {
        boot.pointer("/system/system").and_then(Value::as_str) == Some("boot_iso")
    });
    for medium in list(node, "/machine/media") {
        let inserted = medium
            .get("inserted")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let state = match inserted {
            true if boots_iso => "inserted",
            true => "STILL INSERTED",
            false => "ejected",
        };
        out!(
            "  {:<9} read by the iLO in {} requests, {}; {state}",
            medium
                .get("device")
                .and_then(Value::as_str)
                .unwrap_or_default(),
            medium.get("requests").and_then(Value::as_u64).unwrap_or(0),
            bytes(medium.get("bytes").and_then(Value::as_u64).unwrap_or(0)),
        );
    }
    out!(
        "  disk      {} written to {} ({} allocated)",
        bytes(number("/disk/bytes_written")),
        text("/disk/path"),
        bytes(number("/disk/allocated_bytes"))
    );
    let (power, post) = (text("/machine/power"), text("/machine/post_state"));
    match post {
        "power_off" => out!("  power     {power}"),
        _ => out!("  power     {power}, {}", post.replace('_', " ")),
    }
}

/// The newest lines of a console, and where it and the screen are.
async fn console(node: &Value) {
    let path = |key: &str| node.get(key).and_then(Value::as_str);
    let Some(console) = path("console") else {
        return;
    };
    let bytes = tokio::fs::read(console).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let newest = lines.get(lines.len().saturating_sub(CONSOLE_LINES)..);
    out!("  console   {console}, whose newest lines are");
    for line in newest.unwrap_or_default() {
        let printable: String = line.chars().filter(|c| !c.is_control()).collect();
        out!("    {printable}");
    }
    if let Some(screen) = path("screen") {
        out!("  screen    {screen}");
    }
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value
        .pointer(path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// What was started from where, and how it ended.
fn boot_line(boot: &Value) -> String {
    let text = |path: &str| {
        boot.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let number = |path: &str| boot.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let started = match text("/system/system") {
        "deploy_ramdisk" => format!("deploy ramdisk of {}", text("/system/volume")),
        "boot_iso" => format!(
            "boot ISO {}, root {}",
            text("/system/volume"),
            text("/system/root")
        ),
        "disk" => format!(
            "the deployed disk, {} {} with {} partitions",
            text("/system/table"),
            text("/system/identifier"),
            number("/system/partitions")
        ),
        "started" => text("/system/what").to_owned(),
        _ => "nothing bootable".to_owned(),
    };
    let state = text("/state").replace('_', " ");
    format!(
        "boot {}    from {}: {started}; {state}",
        number("/number"),
        text("/source")
    )
}

/// Who fetched which object through a temporary URL.
fn fetches(snapshot: &Value) {
    let mut objects: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let accesses = snapshot
        .pointer("/object_store/accesses")
        .and_then(Value::as_array);
    for access in accesses.into_iter().flatten() {
        let text = |name: &str| access.get(name).and_then(Value::as_str).unwrap_or_default();
        let signed = access
            .get("temp_url")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        if text("method") != "GET" || !signed {
            continue;
        }
        let peer = text("peer")
            .rsplit_once(':')
            .map_or("", |(address, _)| address);
        let object = format!("{}/{}", text("container"), text("object"));
        let entry = objects.entry((object, peer.to_owned())).or_default();
        entry.0 += 1;
        entry.1 += access
            .get("bytes_sent")
            .and_then(Value::as_u64)
            .unwrap_or(0);
    }
    if objects.is_empty() {
        return;
    }
    out!("\nfetched from the object store by temporary URL");
    for ((object, peer), (requests, sent)) in objects {
        out!(
            "  {object} by {peer} in {requests} requests, {}",
            bytes(sent)
        );
    }
}
