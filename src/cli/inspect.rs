//! `runs`, `show`, `logs`, `help`, `types`: looking, not touching.

use super::Exit;
use super::args::Cli;
use super::format::{self, elapsed, seconds, short, time};
use super::site::state_dir;
use crate::clock;
use crate::error::{Error, Result};
use crate::journal::{Entry, EntryState, Journal, RunRecord, RunStatus};
use crate::lua::{bind, docs};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Columns of the timeline.
const WIDTH: usize = 40;

pub(super) async fn runs(cli: &Cli, limit: u32) -> Result<Exit> {
    let runs = Journal::open(&state_dir(cli)?)?.list_runs(limit).await?;
    if cli.json {
        for run in &runs {
            println!("{}", summary(run));
        }
        return Ok(Exit::Done);
    }
    println!(
        "{:<12}  {:<19}  {:<10} {:<12} {:<10} TOOK",
        "RUN", "STARTED (UTC)", "NODE", "ACTION", "STATUS"
    );
    for run in &runs {
        println!(
            "{:<12}  {:<19}  {:<10} {:<12} {:<10} {}",
            short(&run.id),
            time(run.created_ms),
            run.node,
            run.action,
            status(run),
            seconds(elapsed(
                run.created_ms,
                run.ended_ms.unwrap_or(run.alive_ms)
            ))
        );
    }
    Ok(Exit::Done)
}

/// What [`status_of`] says of a run that somebody works on.
pub(super) const GOES_ON: &str = RunStatus::Running.as_str();

/// A run whose owner died still says `running` in the journal.
pub(super) fn status_of(status: RunStatus, owner: &str, alive_ms: u64) -> &'static str {
    if status == RunStatus::Running && !crate::engine::is_alive(owner, alive_ms) {
        return "dead";
    }
    status.as_str()
}

fn status(run: &RunRecord) -> &'static str {
    status_of(run.status, &run.owner, run.alive_ms)
}

fn summary(run: &RunRecord) -> Value {
    json!({
        "id": run.id, "node": run.node, "flow": run.flow, "action": run.action,
        "status": status(run), "created_ms": run.created_ms, "ended_ms": run.ended_ms,
        "resumes": run.resumes, "error": run.error, "result": run.result, "bundle": run.bundle,
    })
}

pub(super) async fn show(cli: &Cli, prefix: &str) -> Result<Exit> {
    let journal = Journal::open(&state_dir(cli)?)?;
    let run = journal.find_run(prefix).await?;
    let entries = journal.entries(&run.id).await?;
    if cli.json {
        println!("{}", json!({ "run": summary(&run), "entries": entries }));
        return Ok(Exit::Done);
    }
    println!("run     {}", run.id);
    println!("node    {}", run.node);
    println!(
        "flow    {} {} ({})",
        run.entry,
        run.action,
        run.bundle.get(..12).unwrap_or_default()
    );
    println!("status  {}", status(&run));
    println!("started {} UTC", time(run.created_ms));
    if run.resumes > 0 {
        println!(
            "resumed {} times, {} without an owner",
            run.resumes,
            seconds(elapsed(0, run.downtime_ms))
        );
    }
    println!();
    for entry in entries.iter().filter(|entry| entry.class != "decision") {
        println!("{}", tree_line(entry));
    }
    println!();
    timeline(&run, &entries);
    if let Some(error) = &run.error {
        let bundle = journal.bundle(&run.bundle).await.ok();
        print!(
            "\n{}",
            format::error(error, bundle.as_ref(), format::colours())
        );
    }
    match status(&run) {
        "dead" | "stopped" => println!("\n`flowrun resume {}` continues it", short(&run.id)),
        _ => {}
    }
    Ok(Exit::Done)
}

fn tree_line(entry: &Entry) -> String {
    let depth = entry.key.matches('/').count();
    let name = entry.key.rsplit('/').next().unwrap_or(&entry.key);
    let mark = match entry.state {
        EntryState::Ok => "ok",
        EntryState::Failed => "FAILED",
        EntryState::Started => "…",
    };
    let took = entry
        .t1_ms
        .map_or_else(String::new, |t1| seconds(elapsed(entry.t0_ms, t1)));
    let again = if entry.attempt > 1 {
        format!(" attempt {}", entry.attempt)
    } else {
        String::new()
    };
    let indent = "  ".repeat(depth);
    format!(
        "{:<54} {mark:<6} {took:>6}{again}  {}",
        format!("{indent}{name}"),
        entry.site
    )
    .trim_end()
    .to_owned()
}

/// Steps on a common axis of time.
fn timeline(run: &RunRecord, entries: &[Entry]) {
    let end = run.ended_ms.unwrap_or_else(clock::unix_ms);
    let whole = elapsed(run.created_ms, end).max(0.001);
    let column = |ms: u64| -> usize {
        let share = (elapsed(run.created_ms, ms) / whole * format::as_f64(WIDTH as u64)).floor();
        (0..=WIDTH)
            .rev()
            .find(|c| format::as_f64(*c as u64) <= share)
            .unwrap_or(0)
            .min(WIDTH - 1)
    };
    let top = |entry: &&Entry| entry.name == "step" && !entry.key.contains('/');
    for step in entries
        .iter()
        .filter(top)
        .filter(|entry| !entry.key.starts_with('('))
    {
        let t1 = step.t1_ms.unwrap_or(end);
        let (from, to) = (column(step.t0_ms), column(t1));
        let bar = format!("{}{}", " ".repeat(from), "█".repeat(to - from + 1));
        println!(
            "{:<26} {:>6} {bar}",
            step.key,
            seconds(elapsed(step.t0_ms, t1))
        );
    }
}

pub(super) async fn logs(cli: &Cli, prefix: &str) -> Result<Exit> {
    let journal = Journal::open(&state_dir(cli)?)?;
    let run = journal.find_run(prefix).await?;
    for line in journal.logs(&run.id, 0).await? {
        if cli.json {
            println!("{}", serde_json::to_string(&line).unwrap_or_default());
        } else {
            println!(
                "{} {:<5} {}: {}",
                time(line.t_ms),
                line.level,
                line.step,
                line.text
            );
        }
    }
    Ok(Exit::Done)
}

pub(super) fn help(topic: Option<&str>) -> Result<Exit> {
    let registry = bind::registry(&Arc::default());
    print!("{}", docs::help(&registry, topic)?);
    Ok(Exit::Done)
}

pub(super) fn types(dir: &Path) -> Result<Exit> {
    let failed = |e: std::io::Error| Error::io(dir, "write the types", &e);
    std::fs::create_dir_all(dir).map_err(failed)?;
    for (name, text) in docs::types(&bind::registry(&Arc::default())) {
        std::fs::write(dir.join(name), text).map_err(failed)?;
    }
    Ok(Exit::Done)
}
