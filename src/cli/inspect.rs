//! `runs`, `show`, `logs`, `help`, `types`: looking, not touching.

use super::Exit;
use super::args::Cli;
use super::format::{self, elapsed, seconds, short, time};
use super::site::state_dir;
use crate::api::wire::{RunDetail, RunView};
use crate::cli::output::{out, put};
use crate::clock;
use crate::engine::What;
use crate::error::{Error, Result};
use crate::journal::{Bundle, Entry, EntryState, Journal, LogLine, RunFilter, RunStatus};
use crate::lua::{bind, docs};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// Columns of the timeline.
const WIDTH: usize = 40;

pub(super) async fn runs(cli: &Cli, limit: u32) -> Result<Exit> {
    let filter = RunFilter {
        limit,
        status: None,
        node: None,
    };
    let runs = Journal::open(&state_dir(cli)?)?.list_runs(filter).await?;
    let runs: Vec<_> = runs.iter().map(RunView::from).collect();
    print_runs(cli, &runs);
    Ok(Exit::Done)
}

pub(super) fn print_runs(cli: &Cli, runs: &[RunView]) {
    if cli.json {
        for run in runs {
            out!("{}", json!(run));
        }
        return;
    }
    out!(
        "{:<12}  {:<19}  {:<10} {:<12} {:<10} TOOK",
        "RUN",
        "STARTED (UTC)",
        "NODE",
        "ACTION",
        "STATUS"
    );
    for run in runs {
        out!(
            "{:<12}  {:<19}  {:<10} {:<12} {:<10} {}",
            short(&run.id),
            time(run.created_ms),
            run.node,
            run.action,
            run.status,
            seconds(elapsed(
                run.created_ms,
                run.ended_ms.unwrap_or(run.alive_ms)
            ))
        );
    }
}

/// What [`status_of`](crate::engine::status_of) says of a run that somebody works on.
pub(super) const GOES_ON: &str = RunStatus::Running.as_str();

pub(super) async fn show(cli: &Cli, prefix: &str, svg: bool) -> Result<Exit> {
    let journal = Journal::open(&state_dir(cli)?)?;
    let run = journal.find_run(prefix).await?;
    let detail = RunDetail::read(&journal, &run).await?;
    if svg {
        print_svg(&detail);
        return Ok(Exit::Done);
    }
    let bundle = match &run.error {
        Some(_) => journal.bundle(&run.bundle).await.ok(),
        None => None,
    };
    print_run(cli, &detail, bundle.as_ref());
    Ok(Exit::Done)
}

pub(super) fn print_svg(detail: &RunDetail) {
    put!("{}", super::svg::svg(detail));
}

/// `bundle` is for the lines of an error.
pub(super) fn print_run(cli: &Cli, detail: &RunDetail, bundle: Option<&Bundle>) {
    let RunDetail {
        run,
        entries,
        drift,
    } = detail;
    if cli.json {
        out!("{}", json!(detail));
        return;
    }
    out!("run     {}", run.id);
    out!("node    {}", run.node);
    out!(
        "flow    {} {} ({})",
        run.entry,
        run.action,
        run.bundle.get(..12).unwrap_or_default()
    );
    out!("status  {}", run.status);
    out!("started {} UTC", time(run.created_ms));
    if run.resumes > 0 {
        out!(
            "resumed {} times, {} without an owner",
            run.resumes,
            seconds(elapsed(0, run.downtime_ms))
        );
    }
    for event in drift {
        if let What::Drift {
            what,
            recorded,
            found,
        } = &event.what
        {
            let at = time(event.t_ms);
            out!("drift   {what}: {recorded} by the journal, {found} at {at} UTC");
        }
    }
    out!();
    for entry in entries.iter().filter(|entry| entry.class != "decision") {
        out!("{}", tree_line(entry));
    }
    out!();
    timeline(run, entries);
    if let Some(error) = &run.error {
        put!("\n{}", format::error(error, bundle, format::colours()));
    }
    match run.status.as_str() {
        "dead" | "stopped" => out!("\n`flowrun resume {}` continues it", short(&run.id)),
        _ => {}
    }
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
fn timeline(run: &RunView, entries: &[Entry]) {
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
        out!(
            "{:<26} {:>6} {bar}",
            step.key,
            seconds(elapsed(step.t0_ms, t1))
        );
    }
}

pub(super) async fn logs(cli: &Cli, prefix: &str) -> Result<Exit> {
    let journal = Journal::open(&state_dir(cli)?)?;
    let run = journal.find_run(prefix).await?;
    print_logs(cli, &journal.logs(&run.id).await?);
    Ok(Exit::Done)
}

pub(super) fn print_logs(cli: &Cli, lines: &[LogLine]) {
    for line in lines {
        if cli.json {
            out!("{}", json!(line));
            continue;
        }
        out!(
            "{} {:<5} {}: {}",
            time(line.t_ms),
            line.level,
            line.step,
            line.text
        );
    }
}

pub(super) fn help(topic: Option<&str>) -> Result<Exit> {
    let registry = bind::registry(&Arc::default());
    put!("{}", docs::help(&registry, topic)?);
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
